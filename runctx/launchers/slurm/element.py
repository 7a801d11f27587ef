"""What does one job do? It is a shift, and before its time is over it sees to its own successor."""

from __future__ import annotations

import functools
import math
import os
import signal
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...errors import LedgerError
from ...liveness import exists
from ...tasks.shift import Shift, Watch, read_all
from ...tasks.worker import SIGNALS
from ..local import Joblib
from . import scheduler
from .code import Code, use
from .submission import Request, submit

if TYPE_CHECKING:
    from ...tasks.plan import Plan

RESERVE = 5.0
"""Seconds before the end by which workers are ended, so that what they had can be given back."""
NEAR = 60.0
"""Seconds before the end from which no further task is begun once the scheduler has said a word."""


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
        # blocked here, and so in workers until they can bear them: Slurm signals every process of a job
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        self._check_code()
        use(self.code)
        job = scheduler.this_job()
        ends = scheduler.ends_at()
        if ends is None:
            ends = time.time() + self.request.seconds
        launcher = Joblib(n_jobs=self.processes)
        watch = self.plan.watch(
            launcher.start,
            self.processes,
            everyone=self.everyone,
            deadline=None if math.isinf(ends) else ends - RESERVE,
            margin=self.margin,
            children=True,
            elsewhere=True,
            prepare=functools.partial(use, self.code, verified=True),
            slurm_job=job.id if job else None,
            life=job.restarts if job else 0,
            dead=is_dead,
        )
        guard = _Guard(watch, ends)
        guard.start()
        try:
            watch.run()
        finally:
            guard.over.set()
        if watch.left and not os.path.exists(self.plan.files.stop):
            self._go_on(job)

    def _check_code(self) -> None:
        from ... import lock

        wanted = lock.read(self.plan.save_dir).source.tree
        if self.code.tree != wanted:
            raise LedgerError(
                f"the submitted code is {self.code.tree}, the lock of run {self.plan.run_id} names {wanted}",
                hint="the run was resumed with other code: cancel this job",
            )

    def _go_on(self, job: scheduler.Job | None) -> None:
        """Have a successor started, under the same job id where the cluster allows it."""
        if len(read_all(self.plan.files)) >= self.most:
            return
        if job is not None and scheduler.may_requeue(job.id) is not False and scheduler.requeue(job.id):
            return  # which ends this process
        submit(self.request, self.plan.files, self.plan.map, self, 1)


def is_dead(shift: Shift) -> bool:
    """Whether a shift is over for certain: its process is known to be gone, or its job to have ended."""
    if shift.ended or shift.slurm_job is None:
        return shift.ended
    if shift.host == _host() and not exists(shift.pid):
        return True
    living = scheduler.living([shift.slurm_job])
    return living is not None and shift.slurm_job not in living


def _host() -> str:
    import platform

    return platform.node()


class _Guard(threading.Thread):
    """Hears what the scheduler says, and ends the workers of a shift in time."""

    def __init__(self, watch: Watch, ends: float) -> None:
        super().__init__(daemon=True)
        self._watch, self._ends = watch, ends
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.is_set():
            heard = signal.sigtimedwait(SIGNALS, 0.5)
            if heard is not None:
                self._hear(heard.si_signo)
            if time.time() > self._ends - RESERVE and not self.over.is_set():
                self._watch.halt(_end_workers)
                return

    def _hear(self, number: int) -> None:
        """That the time limit comes nearer was known before; all else means that the end has come nearer."""
        told = scheduler.ends_at()
        if told is not None and told < self._ends:
            self._ends = told
        sudden = number == signal.SIGTERM  # how many seconds are left then, the site decides
        if sudden or told is None or self._ends - time.time() < NEAR:
            self._watch.stop()


def _end_workers() -> None:
    from joblib.externals.loky import get_reusable_executor

    get_reusable_executor().shutdown(wait=False, kill_workers=True)
