"""Is this inside a task, and what does a run that is entered there share with its parent?"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...layout import METRICS, RunFiles
from ...redact import Redactor

if TYPE_CHECKING:  # most runs have no tasks
    from ...capture.log import RunLog
    from ...metrics.journal import Journal
    from ...model import Lock
    from ..ledger.rows import Read
    from .reading import Reading

SHOWN = 60
"""Characters of a task that lines of the log are marked with."""


@dataclass(frozen=True, kw_only=True)
class Parent:
    """What tasks need of the run that maps them; picklable."""

    save_dir: Path
    id: str
    started: datetime
    """What `${now:...}` means in a task, too."""
    latest: dict[str, str]
    """What `${latest:...}` means, as the lock has it."""
    results: Path
    """Folder of the project's runs, in which runs are found by name."""
    log: RunLog
    seed: int | None
    """From which every task gets a seed of its own."""
    redactor: Redactor = field(default_factory=Redactor)
    cwd: str = ""
    """Where the parent's relative paths start."""
    covered: tuple[str, ...] = ()
    """Absolute paths of the parent's own inputs: what lies there is hashed with them."""
    root: Path | None = None
    """The repository."""
    modules: frozenset[str] = frozenset()
    """Names of what the parent has imported."""


@dataclass(slots=True)
class Task:
    """The task that a worker is at; its worker changes it from one task to the next."""

    parent: Parent
    map: str
    """Name of the map, which is the folder below `tasks/`."""
    key: str = ""
    value: Any = None
    """The task itself, as long as it goes on."""
    journal: Journal = field(init=False)
    """Of the numbers that its worker logs; the file is made with the first."""
    at_end: list[Callable[[bool], None]] = field(default_factory=list)
    """Called when it is over, by whom it concerns: the runs that were entered in it."""
    reading: Reading = field(init=False)
    _label: tuple[str, str] = ("", "")

    def __post_init__(self) -> None:
        from ...metrics.journal import Journal
        from .reading import Reading

        parent = self.parent
        self.journal = Journal(parent.save_dir / METRICS, self._lose_points, self.writer)
        self.reading = Reading(parent.cwd, (os.fspath(parent.save_dir), *parent.covered))

    def __str__(self) -> str:
        """A short text of it, without secrets; empty between two tasks."""
        if self._label[0] != self.key:
            from ..values.labels import label

            self._label = self.key, label(self.value, SHOWN, self.parent.redactor)
        return self._label[1]

    @property
    def writer(self) -> str:
        """What the names of its files of numbers begin with."""
        return ""

    def _lose_points(self, why: str) -> None:
        self.parent.log.warn(f"not captured: {METRICS}: points could not be written: {why}")

    def begin(self, key: str, value: Any) -> None:
        self.key, self.value = key, value

    def end(
        self, store: Callable[[bytes], tuple[int, int]], *, keep: bool, patience: float | None = None
    ) -> tuple[Read, ...]:
        """The task is over, and with it the runs inside it that were not left; what they read.

        Parameters
        ----------
        store: keeps a manifest; where.
        keep: the variables of the last of them.
        patience: seconds to wait for what is still being hashed.
        """
        try:
            for leave in self.at_end:
                leave(keep)
            if not self.reading.begun:
                return ()
            return self.reading.end(store, patience)
        finally:
            self.key, self.value = "", None
            if self.at_end:
                self.at_end = []


current: ContextVar[Task | None] = ContextVar("runctx_task", default=None)
"""The task this thread is at; the only state of the package that is not a run's."""

_locks: dict[Path, tuple[tuple[int, int], Lock]] = {}


def lock_of(parent: Parent) -> Lock:
    """What the parent's lock says now; read anew only when it was written anew.

    Raises
    ------
    NoRunError: it is gone. LockError: it is broken.
    """
    from ... import lock

    try:
        found = RunFiles(parent.save_dir).lock.stat()
    except OSError:
        return lock.read(parent.save_dir)  # says what is wrong
    stamp = found.st_ino, found.st_mtime_ns
    known = _locks.get(parent.save_dir)
    if known is None or known[0] != stamp:
        _locks.clear()
        known = _locks[parent.save_dir] = stamp, lock.read(parent.save_dir)
    return known[1]
