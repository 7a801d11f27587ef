"""May the processes of joblib's pool, warm from an earlier map, be used again?

They should do what new ones would. So not if a module of the project was edited meanwhile, which they may have
imported as it was, nor if variables, the search path or the output (which a run may capture) are others now.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ..capture import program

Stamp = tuple[int, int, int] | None
"""Inode, size and time of a file; None if it is gone."""


@dataclass(slots=True)
class _Born:
    """The world as the pool's processes may have seen it."""

    variables: dict[str, str] = field(default_factory=lambda: _variables())
    search_path: list[str] = field(default_factory=lambda: list(sys.path))
    output: tuple[tuple[int, int] | None, ...] = field(default_factory=lambda: _output())
    files: dict[Path, Stamp] = field(default_factory=dict)

    @property
    def is_past(self) -> bool:
        if self.variables != _variables() or self.search_path != sys.path or self.output != _output():
            return True
        return any(_stamp(file) != then for file, then in self.files.items())


_born: _Born | None = None


def renew(repository: Path | None) -> None:
    """End the pool's processes if they are out of date; new ones are started when they are needed."""
    global _born
    if _born is not None and _born.is_past:
        from joblib.externals.loky import get_reusable_executor

        get_reusable_executor().shutdown(wait=True)
        _born = None
    if _born is None:
        _born = _Born()
    imported(program.project_modules(repository).values())


def imported(files: Iterable[Path]) -> None:
    """Processes of the pool have these modules, or may have them soon."""
    if _born is not None:
        for file in files:
            if file not in _born.files:
                _born.files[file] = _stamp(file)


def _variables() -> dict[str, str]:
    return {
        name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"
    }  # in each test another


def _stamp(file: Path) -> Stamp:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _output() -> tuple[tuple[int, int] | None, ...]:
    """Where what is printed goes to."""
    return tuple(map(_open_file, (1, 2)))


def _open_file(descriptor: int) -> tuple[int, int] | None:
    try:
        found = os.fstat(descriptor)
    except OSError:
        return None  # closed
    return found.st_dev, found.st_ino
