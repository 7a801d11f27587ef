"""What did this very file hash to, the last time?

A sweep starts a hundred runs from one dirty work tree; its changed files are read once. A file is recognised
by size, inode, and the times of its last change in nanoseconds. As in git, what was hashed so soon after a
change that another one could bear the same time is not remembered (https://git-scm.com/docs/racy-git). A
broken cache is empty.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

Identity = tuple[int, int, int, int]
"""Size, mtime and ctime in nanoseconds, inode."""

_FORMAT = 1
_WORTHWHILE = 32
"""Files from which on reading and writing the cache is cheaper than hashing again."""

_FINE, _COARSE = 50_000_000, 2_000_000_000
"""Nanoseconds in which two changes may bear one time, by a clock of ticks (10 ms at most) or of seconds."""


class Memory:
    """Object ids of the changed files of one work tree, across snapshots and processes."""

    def __init__(self) -> None:
        self._known: dict[bytes, tuple[Identity, bytes]] = {}
        self._loaded = False
        self._fresh = 0

    def load(self, file: Path, expected: int) -> None:
        """Take in what other processes have learned, once, if `expected` files make it worthwhile."""
        if self._loaded or expected < _WORTHWHILE:
            return
        self._loaded = True
        self._known = {**_read(file), **self._known}

    def recall(self, path: bytes, found: os.stat_result) -> bytes | None:
        """The object id of the file with that stat data; None if it has to be hashed."""
        held = self._known.get(path)
        return held[1] if held is not None and held[0] == identity(found) else None

    def learn(self, path: bytes, found: os.stat_result, id: bytes, hashed_at: int) -> None:
        """Remember what was hashed after the moment `hashed_at`, nanoseconds since the epoch."""
        newest = max(found.st_mtime_ns, found.st_ctime_ns)
        if newest + (_FINE if newest % 1_000_000 else _COARSE) < hashed_at:
            self._known[path] = (identity(found), id)
            self._fresh += 1

    def save(self, file: Path, changed: set[bytes]) -> None:
        """Let other processes know, if enough is new; files that are no longer changed are forgotten."""
        if self._fresh < _WORTHWHILE:
            return
        self._fresh = 0
        self._known = {path: held for path, held in self._known.items() if path in changed}
        _write(file, self._known)


def identity(found: os.stat_result) -> Identity:
    """What tells one state of a file from another."""
    return (found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)


def moment() -> int:
    """Now, in nanoseconds since the epoch."""
    return time.time_ns()


def _read(file: Path) -> dict[bytes, tuple[Identity, bytes]]:
    import msgspec

    try:
        version, known = msgspec.msgpack.decode(
            file.read_bytes(), type=tuple[int, dict[bytes, tuple[Identity, bytes]]]
        )
    except (OSError, msgspec.MsgspecError, ValueError, RecursionError):
        return {}
    return known if version == _FORMAT else {}


def _write(file: Path, known: dict[bytes, tuple[Identity, bytes]]) -> None:
    import msgspec

    from ..layout import write_atomically

    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, msgspec.msgpack.encode((_FORMAT, known)))
    except OSError:
        pass  # disposable: the next process hashes again
