"""Work in one job of a Slurm cluster: a shift, which sees to its successor before its time is over; and submit jobs."""

from __future__ import annotations

import functools
import math
import os
import shlex
import shutil
import signal
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import layout, lock
from ..errors import LaunchError, LedgerError
from ..layout import TaskFiles
from ..tasks.shifts import Shift, note_jobs, read_all
from ..tasks.supervisor import Plan, Supervisor
from ..tasks.worker import SIGNALS
from . import scheduler
from .checkout import Code, use
from .local import Joblib

RESERVE = 5.0
"""Seconds before the end by which workers are ended, so that what they had can be given back."""
NOTICE = 30
"""Seconds before the end at which Slurm signals a job; it may come half a minute earlier."""
_ROUGH = 2.0
"""Seconds by which the end that Slurm tells may differ from one time to the next."""
_EARLY = 60.0
"""Seconds by which Slurm may be early with the signal that time runs out."""
_LEAVING = 60.0
"""Seconds for which a job that is being ended is waited for: Slurm gives it half a minute, usually."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What each job asks for; picklable, for jobs submit their successors."""

    partition: str | None
    seconds: float
    cpus: int
    gpus: int | None
    mem: str | None
    setup: tuple[str, ...]
    options: dict[str, Any] = field(default_factory=dict)

    def parameters(self, name: str) -> dict[str, Any]:
        """As submitit takes them."""
        # zero minutes are no limit for sbatch
        minutes = 0 if math.isinf(self.seconds) else max(1, math.ceil(self.seconds / 60))
        extra = {key.replace("_", "-"): value for key, value in self.options.items()}
        if extra.get("requeue") is False:
            del extra["requeue"]
            extra["no-requeue"] = True
        if self.mem is not None:
            extra["mem"] = self.mem
        wanted: dict[str, Any] = {
            "name": name,
            "timeout_min": minutes,
            "cpus_per_task": self.cpus,
            "gpus_per_node": self.gpus,
            "slurm_partition": self.partition,
            "slurm_signal_delay_s": NOTICE if self.seconds > 10 * NOTICE else 1,
            "slurm_array_parallelism": 10**6,
            "slurm_setup": list(self.setup) or None,
            "slurm_stderr_to_stdout": True,
            # since Slurm 22.05 a step does not have the job's processors unless it asks for them, too
            "slurm_srun_args": [f"--cpus-per-task={self.cpus}"],
            "slurm_additional_parameters": extra or None,
        }
        return {key: value for key, value in wanted.items() if value is not None}


def folder_of(files: TaskFiles) -> Path:
    """Where submitit keeps what it gives to jobs, and their logs."""
    return files.root / layout.STATE / "jobs" / files.name


def submit(request: Request, plan: Plan, job: MapJob, count: int) -> int:
    """Submit up to `count` jobs, as arrays as large as may be; how many the cluster took.

    Fewer, or none, if it takes no more at present.

    Raises
    ------
    LaunchError: the cluster refuses them for another reason; with its words.
    """
    import submitit

    if absent := [command for command in ("sbatch", "srun", "squeue") if shutil.which(command) is None]:
        raise LaunchError(
            f"no Slurm on this machine: {', '.join(absent)} not found on the PATH",
            hint="submit from a login node, or use another launcher such as 'joblib'",
        )
    # a job that is preempted while it starts must not die of the signal, and finds out by itself
    python = ("/bin/sh", "-c", 'trap "" USR2; exec "$0" "$@"', sys.executable)
    executor = submitit.AutoExecutor(
        folder=folder_of(plan.files), cluster="slurm", slurm_python=shlex.join(python)
    )
    executor.update_parameters(**request.parameters(plan.map))
    taken, size = 0, min(count, scheduler.largest_array() or 1)
    while taken < count and size > 0:
        some = min(size, count - taken)
        try:
            ids = _submit_array(executor, job, some)
        except LaunchError:
            if taken:
                break  # those that have been taken will do
            raise
        if ids is None:
            size = some // 2
            continue
        note_jobs(plan.files, ids)
        taken += len(ids)
    return taken


def _submit_array(executor: Any, job: MapJob, count: int) -> list[str] | None:
    """The ids of the jobs; None if that is too many at once."""
    import submitit
    from submitit.core.utils import FailedJobError

    conf = {name: os.environ[name] for name in ("SLURM_CONF",) if name in os.environ}
    for attempt in range(3):
        try:
            # a job that submits another must not hand its own variables on; but the cluster stays the same
            with submitit.helpers.clean_env():
                os.environ.update(conf)
                if count == 1:
                    return [executor.submit(job).job_id]
                return [one.job_id for one in executor.map_array(MapJob.__call__, [job] * count)]
        except FailedJobError as error:
            answer = str(error).strip()
            if scheduler.is_refused_for_limit(answer):
                return None
            if answer or attempt == 2:  # without a word: a signal to this job has hit sbatch
                raise LaunchError(
                    f"Slurm refused the job: {answer or 'sbatch died'}",
                    hint="check the arguments of Slurm(...); `sinfo` lists partitions and their limits",
                ) from error
            time.sleep(0.5)
    return None


@dataclass(frozen=True, kw_only=True)
class MapJob:
    """One element of the array: all that a job knows."""

    plan: Plan
    code: Code
    request: Request
    processes: int
    everyone: int
    """Processes of all elements."""
    margin: float
    most: int
    """Shifts there may be in all."""

    def __call__(self) -> None:
        """Work until nothing is left to do, or no time; then ask for a successor if there is something left."""
        signals = _Signals()
        wanted = lock.read(self.plan.save_dir).source.tree
        if self.code.tree != wanted:
            raise LedgerError(
                f"the submitted code is {self.code.tree}; the lock of run {self.plan.run_id} says {wanted}",
                hint="the run was resumed with other code; cancel this job",
            )
        use(self.code)
        job = scheduler.this_job()
        ends = scheduler.ends_at()
        if ends is None:
            ends = time.time() + self.request.seconds
        shift = self.plan.watch(
            Joblib(n_jobs=self.processes).start,
            self.processes,
            everyone=self.everyone,
            deadline=None if math.isinf(ends) else ends - RESERVE,
            margin=self.margin,
            children=True,
            elsewhere=True,
            prepare=functools.partial(use, self.code, verified=True),
            original=self.code.original,
            slurm_job=job.id if job else None,
            life=job.restarts if job else 0,
            dead=dead_ones,
        )
        guard = _Guard(shift, signals, ends)
        guard.start()
        try:
            shift.run()
        finally:
            guard.over.set()
        if shift.left and not os.path.exists(self.plan.files.stop):
            self._go_on(job, taken_away=guard.taken_away)

    def _go_on(self, job: scheduler.Job | None, taken_away: bool) -> None:
        """Have a successor started, under the same job id where the cluster allows it."""
        if len(read_all(self.plan.files)) >= self.most:
            return
        if taken_away and job is not None and scheduler.state(job.id) != "RUNNING":
            return  # she has cancelled it, or Slurm starts it again anyway
        if job is not None and scheduler.may_requeue(job.id) is not False and scheduler.requeue(job.id):
            return  # which ends this process
        if not submit(self.request, self.plan, self, 1):
            raise LaunchError("Slurm accepts no more jobs at present; this job has no follow-up")


def dead_ones(shifts: Sequence[Shift]) -> set[str]:
    """Names of those that are over for certain: they said so, or their job ended, or was started again.

    Jobs that are just being ended are waited for. A process number tells nothing: a container has its own.
    """
    lives: dict[str, int] = {}
    for shift in shifts:
        if shift.slurm_job is not None:
            lives[shift.slurm_job] = max(shift.life, lives.get(shift.slurm_job, 0))
    open_ones = [shift for shift in shifts if shift.slurm_job is not None and not shift.ended]
    jobs = {shift.slurm_job for shift in open_ones if shift.slurm_job is not None}
    began = time.monotonic()
    while scheduler.ending(jobs) and time.monotonic() - began < _LEAVING:
        time.sleep(0.5)
    living = scheduler.living(jobs)
    if living is None:
        living = jobs
    dead = {s.name for s in open_ones if s.slurm_job not in living or s.life < lives[s.slurm_job]}
    return dead | {shift.name for shift in shifts if shift.ended}


class _Signals:
    """What the scheduler signals to this process, and to each of its children, who are to bear it.

    Blocked, so that children have the signals blocked until they are ready for them. A thread that some library has
    started before us may still take one, on our behalf: hence the functions that only note it.
    """

    def __init__(self) -> None:
        self._noted: list[int] = []
        for number in SIGNALS:
            signal.signal(number, lambda number, _: self._noted.append(number))
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)

    def next(self, seconds: float) -> int | None:
        """The next one, if there is one within this time."""
        if self._noted:
            return self._noted.pop()
        heard = signal.sigtimedwait(SIGNALS, seconds)
        return None if heard is None else heard.si_signo


class _Guard(threading.Thread):
    """Listens to the scheduler's signals, and ends the workers of a shift in time."""

    def __init__(self, supervisor: Supervisor, signals: _Signals, ends: float) -> None:
        super().__init__(daemon=True)
        self._supervisor, self._signals, self._ends = supervisor, signals, ends
        self._notice = scheduler.kill_wait()
        self.over = threading.Event()
        self.taken_away = False
        """Whether the machine is taken away, by whomever, before the time is over."""

    def run(self) -> None:
        while not self.over.is_set():
            heard = self._signals.next(0.5)
            if heard is not None:
                self._hear(heard)
            if time.time() > self._ends - RESERVE and not self.over.is_set():
                self._supervisor.halt(_end_workers)

    def _hear(self, number: int) -> None:
        """That the time limit comes nearer was known before; all else means that the end has come nearer."""
        now = time.time()
        if number == signal.SIGTERM:
            self.taken_away = True
            ends: float | None = now + self._notice
        else:
            ends = scheduler.ends_at()
            if ends is None and self._ends - now > NOTICE + _EARLY:
                ends = now + self._notice  # it cannot be the time limit
        if ends is not None and ends < self._ends - _ROUGH:
            self._ends = ends
            self._supervisor.stop()


def _end_workers() -> None:
    from joblib.externals.loky import get_reusable_executor

    get_reusable_executor(reuse=True, kill_workers=True).shutdown(wait=True, kill_workers=True)
