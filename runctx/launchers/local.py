"""Run tasks without a scheduler: in this process, and wherever joblib has a backend for."""

from __future__ import annotations

import os
import secrets
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..capture import program
from ..errors import LaunchError, SettingsError
from ..tasks.attached import read_notes

if TYPE_CHECKING:
    from ..tasks.supervisor import Plan
    from ..tasks.worker import Terms


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
            _renew_pool(self.plan.repository)
        self.plan.watch(self.launcher.start, self.workers, children=self.children).run()
        if self.children:
            _note_files(read_notes(self.plan.files).modules.values())


# -- the warm processes of joblib's pool -----------------------------------------------------------------------------

_Stamp = tuple[int, int, int] | None
"""Inode, size and time of a file; None if it is gone."""


def _variables() -> dict[str, str]:
    # each test has another PYTEST_CURRENT_TEST
    return {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}


def _output() -> tuple[tuple[int, int] | None, ...]:
    """Where what is printed goes to: a run may capture it."""
    found: list[tuple[int, int] | None] = []
    for descriptor in (1, 2):
        try:
            status = os.fstat(descriptor)
            found.append((status.st_dev, status.st_ino))
        except OSError:
            found.append(None)  # closed
    return tuple(found)


def _stamp(file: Path) -> _Stamp:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


@dataclass(slots=True)
class _Pool:
    """The world as the pool's processes may have seen it: they should do what new ones would."""

    variables: dict[str, str] = field(default_factory=_variables)
    search_path: list[str] = field(default_factory=lambda: list(sys.path))
    output: tuple[tuple[int, int] | None, ...] = field(default_factory=_output)
    files: dict[Path, _Stamp] = field(default_factory=dict)
    """Modules of the project that they may have imported."""

    @property
    def is_outdated(self) -> bool:
        if (self.variables, self.search_path, self.output) != (_variables(), sys.path, _output()):
            return True
        return any(_stamp(file) != then for file, then in self.files.items())


_pool: _Pool | None = None


def _renew_pool(repository: Path | None) -> None:
    """End the pool's processes if they are out of date; new ones are started when they are needed."""
    global _pool
    if _pool is not None and _pool.is_outdated:
        from joblib.externals.loky import get_reusable_executor

        get_reusable_executor().shutdown(wait=True)
        _pool = None
    if _pool is None:
        _pool = _Pool()
    _note_files(program.project_modules(repository).values())


def _note_files(files: Iterable[Path]) -> None:
    """Processes of the pool have these modules, or may have them soon."""
    if _pool is not None:
        _pool.files |= {file: _stamp(file) for file in files if file not in _pool.files}
