"""Which launchers need no scheduler? This process itself, and whatever joblib has a backend for."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..errors import LaunchError, SettingsError
from ..tasks.work import noted
from . import warm

if TYPE_CHECKING:
    from ..tasks.work.plan import Plan
    from ..tasks.work.worker import Terms


@dataclass(frozen=True)
class Serial:
    """One task after another in this process: for debuggers, and to compare with."""

    name = "serial"
    in_process = True
    waits = True

    def launch(self, plan: Plan) -> _Here:
        return _Here(self, plan, 1)

    def start(self, terms: Terms, workers: int) -> list[str]:
        return [terms()]


@dataclass(frozen=True)
class Joblib:
    """Workers of a joblib backend: processes by default, which stay warm from one map to the next.

    Dask is used once a `distributed.Client` is open in this process, Ray once it is registered with joblib by
    `ray.util.joblib.register_ray()`. Both need room for two workers at least.

    Parameters
    ----------
    backend: `loky` (processes), `threading`, or one that was registered with joblib, e.g. `dask` or `ray`. Its workers
        must see the run's folder.
    n_jobs: how many at once; -1: one for each processor (of the cluster, where the backend has one).

    Raises
    ------
    SettingsError: joblib has no such backend.

    >>> from runctx import Run
    >>> with Run(stage="doc", console=False) as run:
    ...     list(run.map(abs, [-1, -2], launcher=Joblib("threading", n_jobs=2)))
    [1, 2]
    """

    backend: str = "loky"
    n_jobs: int = -1

    waits = True

    @property
    def name(self) -> str:
        return "joblib" if self.backend == "loky" else self.backend

    @property
    def in_process(self) -> bool:
        return self.backend in ("threading", "sequential")

    @property
    def children(self) -> bool:
        """Whether workers are child processes of this one."""
        return self.backend == "loky"

    def launch(self, plan: Plan) -> _Here:
        import joblib

        try:
            with joblib.parallel_config(backend=self.backend):
                if not (self.children or self.in_process):
                    _await_room()
                workers = joblib.effective_n_jobs(self.n_jobs)
        except ValueError as error:
            raise SettingsError(
                f"launcher {self.backend!r}: {str(error).splitlines()[0]}",
                hint="use 'serial', 'joblib', 'threading', a registered joblib backend, or Slurm(...)",
            ) from error
        return _Here(self, plan, max(1, min(workers, plan.todo)), children=self.children)

    def start(self, terms: Terms, workers: int) -> list[str]:
        import joblib

        # with one job joblib runs it in this process, which a task may kill
        jobs = workers if self.in_process else max(2, workers)
        with joblib.parallel_config(backend=self.backend):
            if not (self.children or self.in_process):
                _await_room()
            pool = joblib.Parallel(jobs, batch_size=1, pre_dispatch="all", max_nbytes=None)
            # what runs on other machines may be run again when a worker dies, as Dask does
            calls = ["" if self.children or self.in_process else secrets.token_hex(4) for _ in range(workers)]
            done: list[str] = pool(joblib.delayed(replace(terms, call=call))() for call in calls)
        return done


def _await_room() -> None:
    """With room for one alone joblib runs it in this process, which a task may kill: others may be starting again.

    Raises
    ------
    LaunchError: they do not.
    """
    import joblib

    began = time.monotonic()
    while joblib.effective_n_jobs(2) < 2:
        if time.monotonic() - began > RESTART:
            raise LaunchError(
                "the backend has one worker only; joblib would run its tasks in this process",
                hint="start more workers, or use launcher='joblib' or 'serial'",
            )
        time.sleep(0.1)


RESTART = 30.0
"""Seconds that a cluster may take to replace workers that have died."""


@dataclass(frozen=True)
class _Here:
    """Workers that this process looks after."""

    launcher: Serial | Joblib
    plan: Plan
    workers: int
    children: bool = False

    def wait(self) -> None:
        if self.children:
            warm.renew(self.plan.repository)
        self.plan.watch(self.launcher.start, self.workers, children=self.children).run()
        if self.children:
            warm.imported(noted.read(self.plan.files).modules.values())
