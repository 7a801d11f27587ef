"""How do tasks get to the nodes of a cluster, and who sees to it that all of them are done?

One array is submitted; each of its elements is a shift that works through the ledger with joblib inside, and sees to
a successor when its time is over and tasks are left. Nobody has to wait for them. Who does, `run.map` for one, also
replaces jobs that are gone without having left a successor.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...errors import SettingsError
from ...tasks.ledger import Ledger
from ...tasks.shift import read_all
from . import scheduler
from .checkout import checkout
from .element import Element
from .submission import Request, submit, submitted

if TYPE_CHECKING:
    from ...tasks.plan import Plan

LOOK = 0.2
"""Seconds between two looks at the ledger, at first."""
ASK, ASK_SELDOM = 3.0, 30.0
"""Seconds between two questions to the scheduler, at first and later: each costs it something."""
_SOON = 300.0
"""Seconds that count as the beginning."""


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
                raise SettingsError(f"Slurm({what}={number!r}): a number from 1 is needed")
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
        code = checkout(plan.source, plan.repository, plan.files.state / "code")
        wanted = min(self.workers, -(-plan.todo // self.processes))
        element = Element(
            plan=plan,
            code=code,
            request=self.request,
            processes=self.processes,
            everyone=wanted * self.processes,
            margin=self.margin,
            most=wanted + self.max_follow_ups,
        )
        launched = Submitted(plan, element, missing=wanted)
        launched.submit_missing()
        return launched


@dataclass
class Submitted:
    """The jobs of one map, as who waits for them sees them."""

    plan: Plan
    element: Element
    missing: int
    """Jobs that the cluster has not taken yet."""
    _free_then: int = -1

    def submit_missing(self) -> None:
        """As many as the cluster takes now.

        Raises
        ------
        LaunchError: it refuses them, and not for being too many.
        """
        if self.missing:
            ids = submit(self.element.request, self.plan.files, self.plan.map, self.element, self.missing)
            self.missing -= len(ids)

    def wait(self) -> None:
        """Return when every task has been done, or nobody will do the rest."""
        ledger = Ledger(self.plan.files)
        began = asked = time.monotonic()
        while not ledger.is_over():
            now = time.monotonic()
            often = now - began < _SOON
            if now - asked > (ASK if often else ASK_SELDOM):
                asked = now
                self.submit_missing()
                if self._is_deserted() and not ledger.is_over() and not self._start_anew(ledger):
                    return
            time.sleep(LOOK if often else 5 * LOOK)
        self._call_off()

    def _is_deserted(self) -> bool:
        """Whether no job is left, for certain."""
        return scheduler.living(submitted(self.plan.files)) == set()

    def _start_anew(self, ledger: Ledger) -> bool:
        """Replace jobs that are gone without a successor; not if she has cancelled them all, or it leads nowhere."""
        shifts = read_all(self.plan.files)
        jobs = submitted(self.plan.files)
        if os.path.exists(self.plan.files.stop) or len(shifts) >= self.element.most:
            return False
        if all(scheduler.state(job) == "CANCELLED" for job in jobs):
            return False
        ledger.bury({shift.name for shift in shifts}, "parent")
        free = ledger.claims.free
        if free == self._free_then:
            return False
        self._free_then = free
        self.missing = min(
            self.element.everyone // self.element.processes, -(-free // self.element.processes)
        )
        self.submit_missing()
        return True

    def _call_off(self) -> None:
        """Jobs that have not begun have nothing to do any more."""
        begun = {shift.slurm_job for shift in read_all(self.plan.files)}
        waiting = submitted(self.plan.files) - begun
        if waiting:
            scheduler.cancel(waiting)
