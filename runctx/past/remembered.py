"""Remember the rows of runs from one listing to the next.

One sqlite file per user, one row per run, found by the path of its folder and good as long as run.lock is the
very file it was. It can always be deleted. Whatever goes wrong with it (locked, read-only, corrupt, full)
means that nothing is known.

No write-ahead log: the cache may lie on a network file system, where it is unsafe, and switching to it from
two processes at once fails.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from .row import Row, read_row

if TYPE_CHECKING:
    import sqlite3

FILE = "index.sqlite"
PATIENCE = 0.06
"""Seconds to wait for another process, up to three times."""
MAX_BYTES = 256_000_000
"""Beyond it all is forgotten. About two hundred thousand runs."""

_TABLE = "runs_6"  # another number for another shape of Row
_SCHEMA = (
    f"CREATE TABLE IF NOT EXISTS {_TABLE} "
    "(path BLOB PRIMARY KEY, signature BLOB, moment REAL, running INTEGER, row BLOB)"
)
_BROKEN = {11, 26}
"""SQLITE_CORRUPT, SQLITE_NOTADB."""

_SIGNATURE = struct.Struct("=qQqQ")
_FINE, _COARSE = 50_000_000, 2_000_000_000
"""Nanoseconds in which two changes may bear one time, by a clock of ticks (10 ms at most) or of seconds."""

_decoder = msgspec.msgpack.Decoder(Row)


class Entry(NamedTuple):
    """What a listing needs of a run before it is shown."""

    path: bytes
    """Of its folder: a file name need not be text."""
    signature: bytes
    moment: float
    """Seconds of the epoch; what listings are sorted by."""
    running: bool
    packed: bytes
    """The row, empty if it cannot be packed."""
    row: Row | None = None
    """The row itself, where it is at hand; with its path."""


def signature(*found: os.stat_result) -> bytes:
    """What tells one state of some files from another."""
    return b"".join(
        _SIGNATURE.pack(one.st_mtime_ns, one.st_size, one.st_ctime_ns, one.st_ino) for one in found
    )


def is_settled(*found: os.stat_result) -> bool:
    """Whether a change from now on must give these files another signature."""
    return all(map(_is_settled, found))


def _is_settled(found: os.stat_result) -> bool:
    newest = max(found.st_mtime_ns, found.st_ctime_ns)
    return newest + (_FINE if newest % 1_000_000 else _COARSE) < time.time_ns()


def pack(row: Row) -> bytes:
    """The row as bytes, without its path; empty if it holds what the format does not, e.g. a number of 80 bits."""
    try:
        return msgspec.msgpack.encode(replace(row, path=""))
    except (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError):
        return b""


def unpack(packed: bytes) -> Row:
    """Raises msgspec.MsgspecError if the bytes were damaged."""
    return _decoder.decode(packed)


def row_of(entry: Entry) -> Row:
    """The row of an entry; read anew if what was remembered is damaged."""
    if entry.row is not None:
        return entry.row
    path = os.fsdecode(entry.path)
    try:
        row = unpack(entry.packed)
    except (msgspec.MsgspecError, ValueError):
        return read_row(path)
    object.__setattr__(row, "path", path)  # nobody else has it yet, and `replace` takes as long as unpacking
    return row


def recall(cache: Path, roots: Iterable[bytes]) -> dict[bytes, Entry]:
    """All that is remembered of the runs in and below these folders."""
    known: dict[bytes, Entry] = {}

    def read(connection: sqlite3.Connection) -> None:
        select = f"SELECT * FROM {_TABLE} WHERE path = ? OR (path > ? AND path < ?)"  # noqa: S608
        for root in roots:
            below = root.rstrip(b"/")
            found = connection.execute(select, (root, below + b"/", below + b"0"))
            known.update((row[0], Entry(*row)) for row in found)

    if (cache / FILE).exists():
        _attempt(cache, read)
    return known


def remember(cache: Path, fresh: list[Entry], gone: list[bytes]) -> None:
    """Keep rows that were just read; forget those of folders that are no more."""

    def write(connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(_SCHEMA)
        connection.executemany(f"DELETE FROM {_TABLE} WHERE path = ?", ((path,) for path in gone))  # noqa: S608
        connection.executemany(
            f"INSERT OR REPLACE INTO {_TABLE} VALUES (?, ?, ?, ?, ?)",  # noqa: S608
            (entry[:5] for entry in fresh),
        )
        connection.execute("COMMIT")

    if not fresh and not gone:
        return
    try:
        cache.mkdir(parents=True, exist_ok=True)
        if (cache / FILE).exists() and (cache / FILE).stat().st_size > MAX_BYTES:
            os.unlink(cache / FILE)
    except OSError:
        return
    _attempt(cache, write)


def _attempt(cache: Path, action: Callable[[sqlite3.Connection], None]) -> None:
    import sqlite3

    file = cache / FILE
    opened = _inode(file)
    try:
        connection = sqlite3.connect(file, timeout=PATIENCE, isolation_level=None)
        try:
            action(connection)
        finally:
            connection.close()
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in _BROKEN:
            _discard(file, opened)
    except (OSError, ValueError, TypeError):  # of what a damaged file holds
        pass


def _inode(file: Path) -> int | None:
    try:
        return file.stat().st_ino
    except OSError:
        return None


def _discard(file: Path, opened: int | None) -> None:
    """Remove the file found corrupt, unless another process has replaced it since."""
    try:
        if _inode(file) == opened:
            os.unlink(file)
    except OSError:
        pass  # still there and still broken: nothing is known next time either
