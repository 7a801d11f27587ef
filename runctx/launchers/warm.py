"""May the processes of joblib's pool, warm from an earlier map, be used again?

They should do what new ones would. So not if a module of the project was edited meanwhile, which they may have
imported as it was, nor if variables or the search path are others now.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from .. import command

Stamp = tuple[int, int, int] | None
"""Inode, size and time of a file; None if it is gone."""


@dataclass(slots=True)
class _Born:
    """The world as the pool's processes may have seen it."""

    variables: dict[str, str] = field(default_factory=lambda: dict(os.environ))
    search_path: list[str] = field(default_factory=lambda: list(sys.path))
    files: dict[Path, Stamp] = field(default_factory=dict)

    @property
    def is_past(self) -> bool:
        if self.variables != os.environ or self.search_path != sys.path:
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
    imported(command.project_modules(repository).values())


def imported(files: Iterable[Path]) -> None:
    """Processes of the pool have these modules, or may have them soon."""
    if _born is not None:
        for file in files:
            if file not in _born.files:
                _born.files[file] = _stamp(file)


def _stamp(file: Path) -> Stamp:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
