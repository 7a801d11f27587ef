"""Attach runs inside tasks to the run that maps them, and note what a worker knows that the lock should say."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..layout import METRICS, RunFiles, TaskFiles
from ..redact import Redactor

if TYPE_CHECKING:  # most runs have no tasks
    from ..capture.log import RunLog
    from ..metrics.journal import Journal
    from ..model import Lock
    from .ledger import Read

_MARK = 60
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
    inputs: list[Read] = field(default_factory=list)
    """Of the runs inside it so far."""
    at_end: list[Callable[[bool], None]] = field(default_factory=list)
    """Functions of the runs inside it, called when it is over: True keeps the variables of the last of them."""
    _label: tuple[str, str] = ("", "")

    def __post_init__(self) -> None:
        from ..metrics.journal import Journal

        self.journal = Journal(self.parent.save_dir / METRICS, self._lose_points, self.writer)

    def __str__(self) -> str:
        """A short text of it, without secrets; empty between two tasks."""
        if self._label[0] != self.key:
            from .labels import label

            self._label = self.key, label(self.value, _MARK, self.parent.redactor)
        return self._label[1]

    @property
    def writer(self) -> str:
        """What the names of its files of numbers begin with."""
        return ""

    def _lose_points(self, why: str) -> None:
        self.parent.log.warn(f"not captured: {METRICS}: points could not be written: {why}")

    def read(self, names: Iterable[str | None], paths: Iterable[str]) -> tuple[Read, ...]:
        """Look for the inputs of a run inside the task; those that are not the parent's anyway.

        Raises
        ------
        InputError: one is missing.
        """
        from ..hashing import locate
        from .ledger import Read

        base, found = os.getcwd(), []
        covered = (os.fspath(self.parent.save_dir), *self.parent.covered)
        for name, given in zip(names, paths, strict=True):
            one = locate(given, Path(base))
            absolute = os.path.abspath(os.path.join(base, given))
            if any(absolute == root or absolute.startswith(root + os.sep) for root in covered):
                continue
            path = given if base == self.parent.cwd else os.path.join(base, given)
            path = os.fsencode(path).decode("utf-8", "backslashreplace")  # some bytes no row can hold
            times = os.stat(absolute).st_mtime_ns if one.kind == "file" else 0
            found.append(Read(path=path, kind=one.kind, bytes=one.size, mtime=times, name=name))
        self.inputs += found
        return tuple(found)


current: ContextVar[Task | None] = ContextVar("runctx_task", default=None)
"""The task this thread is at; the only state of the package that is not a run's."""

_locks: dict[Path, tuple[tuple[int, int], Lock]] = {}


def lock_of(parent: Parent) -> Lock:
    """What the parent's lock says now; read anew only when it was written anew.

    Raises
    ------
    NoRunError: it is gone. LockError: it is broken.
    """
    from .. import lock

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


# -- what a worker's process knows -----------------------------------------------------------------------------------

_OF_WORKERS = frozenset({"joblib", "cloudpickle", "submitit", "runctx", "msgspec", "blake3", "__mp_main__"})
"""What workers import to work: nobody asked for it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Noted:
    """What processes other than the run's have imported and read."""

    modules: dict[str, Path] = field(default_factory=dict)
    """Of the project, that they imported, and their files."""
    packages: dict[str, str] = field(default_factory=dict)
    """Distribution -> version, likewise."""
    keys_read: frozenset[str] = frozenset()
    """Of the configuration, dotted."""

    def joined(self, other: Noted) -> Noted:
        return Noted(
            modules=self.modules | other.modules,
            packages=self.packages | other.packages,
            keys_read=self.keys_read | other.keys_read,
        )


def write_notes(
    files: TaskFiles,
    worker: str,
    parent: Parent,
    keys_read: Iterable[str],
    original: Callable[[str], str] = str,
) -> None:
    """Write down what this worker's process imported and read, at its end; nothing if that is nothing new.

    Parameters
    ----------
    original: gives the project's own file for one that was imported.
    """
    from ..capture import modules as imported
    from ..capture import program

    modules: dict[str, str] = {}
    packages: dict[str, str] = {}
    tops = {name.partition(".")[0] for name in parent.modules} | sys.stdlib_module_names
    for name in sys.modules.keys() - parent.modules:
        top, file = name.partition(".")[0], imported.module_file(name)
        if top not in _OF_WORKERS and file and (top not in tops or not imported.is_installed(file)):
            found = program.project_modules(parent.root)
            modules = {
                name: original(str(path)) for name, path in found.items() if name not in parent.modules
            }
            modules.pop("__main__", None)
            packages = imported.packages()
            break
    keys = sorted(keys_read)
    if modules or packages or keys:
        import msgspec

        from .. import layout

        path = files.notes(worker)
        path.parent.mkdir(parents=True, exist_ok=True)
        layout.write_atomically(path, msgspec.json.encode((modules, packages, keys)))


def read_notes(files: TaskFiles) -> Noted:
    """What workers have noted so far; a broken file is skipped."""
    import msgspec

    from .. import layout

    noted = Noted()
    for path in sorted(files.notes().glob("*.json")):
        try:
            modules, packages, keys = msgspec.json.decode(
                layout.read_regular(path), type=tuple[dict[str, str], dict[str, str], list[str]]
            )
        except (OSError, ValueError):
            continue
        paths = {name: Path(file) for name, file in modules.items()}
        noted = noted.joined(Noted(modules=paths, packages=packages, keys_read=frozenset(keys)))
    return noted
