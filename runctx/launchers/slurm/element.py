"""What does one job do? It is a shift, and before its time is over it sees to its own successor."""

from __future__ import annotations

import functools
import math
import os
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...errors import LaunchError, LedgerError
from ...tasks.work.presence import Shift, read_all
from ...tasks.work.shift import Watch
from ...tasks.work.worker import SIGNALS
from ..local import Joblib
from . import scheduler
from .code import Code, use
from .submission import NOTICE, Request, submit

if TYPE_CHECKING:
    from ...tasks.work.plan import Plan

RESERVE = 5.0
"""Seconds before the end by which workers are ended, so that what they had can be given back."""
_ROUGH = 2.0
"""Seconds by which the end that Slurm tells may differ from one time to the next."""
_EARLY = 60.0
"""Seconds by which Slurm may be early with the signal that time runs out."""
_LEAVING = 60.0
"""Seconds for which a job that is being ended is waited for: Slurm gives it half a minute, usually."""


@dataclass(frozen=True, kw_only=True)
class Element:
    """One element of the array; what a job is told, and nothing else."""

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
        self._check_code()
        use(self.code)
        job = scheduler.this_job()
        ends = scheduler.ends_at()
        if ends is None:
            ends = time.time() + self.request.seconds
        watch = self.plan.watch(
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
        guard = _Guard(watch, signals, ends)
        guard.start()
        try:
            watch.run()
        finally:
            guard.over.set()
        if watch.left and not os.path.exists(self.plan.files.stop):
            self._go_on(job, taken_away=guard.taken_away)

    def _check_code(self) -> None:
        from ... import lock

        wanted = lock.read(self.plan.save_dir).source.tree
        if self.code.tree != wanted:
            raise LedgerError(
                f"the submitted code is {self.code.tree}; the lock of run {self.plan.run_id} says {wanted}",
                hint="the run was resumed with other code; cancel this job",
            )

    def _go_on(self, job: scheduler.Job | None, taken_away: bool) -> None:
        """Have a successor started, under the same job id where the cluster allows it."""
        if len(read_all(self.plan.files)) >= self.most:
            return
        if taken_away and job is not None and scheduler.state(job.id) != "RUNNING":
            return  # she has cancelled it, or Slurm starts it again anyway
        if job is not None and scheduler.may_requeue(job.id) is not False and scheduler.requeue(job.id):
            return  # which ends this process
        if not submit(self.request, self.plan.files, self.plan.map, self, 1):
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
    """Hears what the scheduler says, and ends the workers of a shift in time."""

    def __init__(self, watch: Watch, signals: _Signals, ends: float) -> None:
        super().__init__(daemon=True)
        self._watch, self._signals, self._ends = watch, signals, ends
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
                self._watch.halt(_end_workers)

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
            self._watch.stop()


def _end_workers() -> None:
    from joblib.externals.loky import get_reusable_executor

    get_reusable_executor(reuse=True, kill_workers=True).shutdown(wait=True, kill_workers=True)
