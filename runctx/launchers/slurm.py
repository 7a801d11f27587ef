"""Run tasks in jobs of a Slurm cluster, submitted through submitit.

One array is submitted; each of its elements is a shift that works through the ledger with joblib inside, and submits
a successor when its time is over and tasks are left. Nobody has to wait for them. Whoever does, `run.map` for one, also
replaces jobs that are gone without having left a successor.
"""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .. import layout
from ..errors import LaunchError, SettingsError
from ..tasks.ledger import Ledger
from ..tasks.shifts import Shift, jobs_of, read_all
from . import scheduler
from .checkout import checkout
from .job import MapJob, Request, folder_of, submit

if TYPE_CHECKING:
    from ..model import Omission
    from ..tasks.supervisor import Plan

LOOK = 0.2
"""Seconds between two looks at the ledger, at first."""
ASK, ASK_SELDOM, ASK_OFTEN = 3.0, 30.0, 0.5
"""Seconds between two questions to the scheduler, at first, later and when it ends: each costs it something."""
_SOON = 300.0
"""Seconds that count as the beginning."""
_NOTING = 3.0
"""Seconds for which jobs that have done the last task may tell what they know."""


class Slurm:
    """Jobs of a Slurm cluster: one array, whose elements share the tasks among themselves.

    Jobs run the code as it was when they were submitted. Each stops between two tasks before its time is over, and is
    requeued, or submits a successor, until all tasks are done.

    Parameters
    ----------
    partition: where; default: the cluster's own.
    time: limit of each job, as Slurm writes it: minutes, "HH:MM:SS", "D-HH", "UNLIMITED".
    workers: jobs, as elements of one array. More than the cluster takes at once are submitted as others end.
    cpus: for each job; as many processes work in it.
    processes: how many instead, e.g. 1 for tasks that use all of a job's processors.
    gpus, mem: for each job; mem as Slurm writes it: "8G".
    wait: whether `run.map` waits. If not, `runctx collect` (or `Run.load(path).collect()`) seals the lock later.
    max_follow_ups: how many further jobs there may be, all together, once the first have used up their time.
    margin: seconds before the time limit by which a job is through with its tasks; default: a twentieth of it,
        five at least.
    setup: shell commands to run first in each job, e.g. `["module load cuda"]`.
    options: further options of `sbatch`, e.g. `account="lab"`, `qos="long"`, `constraint="a100"`, `requeue=False`.

    Raises
    ------
    SettingsError: the time limit is no time, or a number is not positive.

    >>> Slurm(partition="gpu", time="01:00:00", workers=8, cpus=4, gpus=1, account="lab")
    Slurm(partition='gpu', time='01:00:00', workers=8, cpus=4, gpus=1, account='lab')
    """

    name = "slurm"
    in_process = False

    def __init__(
        self,
        partition: str | None = None,
        *,
        time: str | int = "01:00:00",
        workers: int = 1,
        cpus: int = 1,
        processes: int | None = None,
        gpus: int | None = None,
        mem: str | None = None,
        wait: bool = True,
        max_follow_ups: int = 100,
        margin: float | None = None,
        setup: Sequence[str] = (),
        **options: Any,
    ) -> None:
        self._given = {
            "partition": partition,
            "time": time,
            "workers": workers,
            "cpus": cpus,
            "processes": processes,
            "gpus": gpus,
            "mem": mem,
            "wait": None if wait else False,
            **options,
        }
        limit = scheduler.seconds(time)
        for what, number in {"workers": workers, "cpus": cpus, "processes": processes or cpus}.items():
            if not isinstance(number, int) or number < 1:
                raise SettingsError(f"Slurm({what}=...) must be an int of at least 1; got {number!r}")
        self.workers, self.waits, self.max_follow_ups = workers, wait, max_follow_ups
        self.processes = processes or cpus
        self.margin = margin if margin is not None else max(5.0, min(limit / 20, 300.0))
        self.request = Request(
            partition=partition,
            seconds=limit,
            cpus=cpus,
            gpus=gpus,
            mem=mem,
            setup=tuple(setup),
            options=options,
        )

    def __repr__(self) -> str:
        given = ", ".join(f"{name}={value!r}" for name, value in self._given.items() if value is not None)
        return f"Slurm({given})"

    def launch(self, plan: Plan) -> Submitted:
        """Submit the array; returns when Slurm has it."""
        code = checkout(plan.source, plan.repository, plan.files.state / layout.CODE)
        wanted = min(self.workers, -(-plan.todo // self.processes))
        job = MapJob(
            plan=plan,
            code=code,
            request=self.request,
            processes=self.processes,
            everyone=wanted * self.processes,
            margin=self.margin,
            most=wanted + self.max_follow_ups,
        )
        launched = Submitted(plan, job, missing=wanted)
        launched.submit_missing()
        if launched.missing == wanted and not self.waits:
            raise LaunchError(
                "Slurm accepts no more of your jobs at present, and wait=False does not wait",
                hint="try again when other jobs have ended, or use Slurm(..., wait=True)",
            )
        return launched


@dataclass
class Submitted:
    """The jobs of one map, as who waits for them sees them."""

    plan: Plan
    job: MapJob
    missing: int
    """Jobs that the cluster has not taken yet."""
    _over: set[str] = field(default_factory=set)
    """Jobs that had ended when the scheduler was last asked."""
    _stand: tuple[int, int] | None = None
    """Tasks left, and losses, when jobs were last replaced."""

    @property
    def omissions(self) -> tuple[Omission, ...]:
        """What jobs see as it is, and not as it was when they were submitted."""
        return self.job.code.omissions

    def submit_missing(self) -> None:
        """As many as the cluster takes now.

        Raises
        ------
        LaunchError: it refuses them, and not for being too many.
        """
        if self.missing:
            self.missing -= submit(self.job.request, self.plan, self.job, self.missing)

    def wait(self) -> str | None:
        """Return when every task has been done, or why nobody will do the rest."""
        try:
            why = self._watch()
        except KeyboardInterrupt as error:
            jobs = " ".join(sorted({job.partition("_")[0] for job in jobs_of(self.plan.files)}, key=int))
            error.add_note(
                f"The Slurm jobs {jobs} keep running. `runctx collect {shlex.quote(str(self.plan.save_dir))}` adds "
                f"their results to the run; `scancel {jobs}` ends them."
            )
            raise
        self._call_off()
        self._let_note()
        return why

    def _watch(self) -> str | None:
        ledger = Ledger(self.plan.files)
        began = asked = time.monotonic()
        while not ledger.is_over():
            now = time.monotonic()
            often = now - began < _SOON
            stopping = os.path.exists(self.plan.files.stop)
            if now - asked > (ASK_OFTEN if stopping else ASK if often else ASK_SELDOM):
                asked = now
                jobs = jobs_of(self.plan.files)
                living = scheduler.living(jobs)
                if living is None:
                    continue
                deserted = not living and jobs != self._over and not ledger.is_over()
                if deserted and (why := self._start_anew(ledger, jobs)):
                    return why
                self._over = jobs - living
                self._add_missing(living)
            time.sleep(LOOK if often else 5 * LOOK)
        return None

    def _add_missing(self, living: set[str]) -> None:
        """That some cannot be added does not end those that work."""
        try:
            self.submit_missing()
        except LaunchError:
            if not living:
                raise
            self.missing = 0

    def _start_anew(self, ledger: Ledger, jobs: set[str]) -> str | None:
        """Replace jobs that are gone without a successor; or why not."""
        shifts = read_all(self.plan.files)
        last = jobs - self._over
        if os.path.exists(self.plan.files.stop):
            return "the first failure stopped them"
        if all(self._was_cancelled(job, shifts) for job in last):
            return "the Slurm jobs were cancelled"
        if len(shifts) >= self.job.most:
            return f"{len(shifts)} jobs have run, the most that `max_follow_ups` allows"
        # what the dead had is given back by those that come, for whom it is the last they do: it may kill them, too
        left = ledger.claims.free + sum(len(ledger.unfinished(worker)) for worker in list(ledger.claims.held))
        stand = left, sum(ledger.claims.losses.values())
        if stand == self._stand:
            states = ", ".join(sorted({scheduler.state(job) or "unknown" for job in last}))
            return f"the Slurm jobs ended ({states}) without a result; see {folder_of(self.plan.files)}"
        self._stand = stand
        each = self.job.processes
        self.missing = max(1, min(self.job.everyone // each, -(-left // each)))
        return None

    def _was_cancelled(self, job: str, shifts: list[Shift]) -> bool:
        """Of an element that was cancelled before it began, Slurm keeps no record."""
        state = scheduler.state(job)
        return state == "CANCELLED" or (state is None and all(shift.slurm_job != job for shift in shifts))

    def _let_note(self) -> None:
        """What workers have imported they note after their last row; jobs that died or hang are not waited for long."""
        until = time.monotonic() + _NOTING
        while time.monotonic() < until and not all(shift.ended for shift in read_all(self.plan.files)):
            time.sleep(LOOK)

    def _call_off(self) -> None:
        """Jobs that have not begun have nothing to do any more."""
        working = {shift.slurm_job for shift in read_all(self.plan.files) if not shift.ended}
        scheduler.cancel(jobs_of(self.plan.files) - working, only_waiting=True)
