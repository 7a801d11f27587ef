"""Keep the rows of runs from one listing to the next, in one sqlite file per user.

A row is found by the path of its folder, and good as long as run.lock is the very file it was. The file can always be
deleted; whatever goes wrong with it (locked, read-only, corrupt, full) means that nothing is known. It has no
write-ahead log, which is unsafe on a network file system.
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
_PATIENCE = 0.06
"""Seconds to wait for another process, up to three times."""
_MAX_BYTES = 256_000_000
"""Beyond it all is forgotten. About two hundred thousand runs."""
TABLE = "runs_7"  # another number for another shape of Row
_BROKEN = {11, 26}
"""SQLITE_CORRUPT, SQLITE_NOTADB."""
_SIGNATURE = struct.Struct("=qQqQ")
_FINE, _COARSE = 50_000_000, 2_000_000_000
"""Nanoseconds in which two changes may bear one time, by a clock of ticks (10 ms at most) or of seconds."""

_rows = msgspec.msgpack.Decoder(Row)


class Entry(NamedTuple):
    """One run of a listing, before it is shown."""

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
    """The state of some files: other bytes once one of them has changed."""
    return b"".join(
        _SIGNATURE.pack(one.st_mtime_ns, one.st_size, one.st_ctime_ns, one.st_ino) for one in found
    )


def is_settled(*found: os.stat_result) -> bool:
    """True if a change from now on must give these files another signature."""
    times = [max(one.st_mtime_ns, one.st_ctime_ns) for one in found]
    return all(newest + (_FINE if newest % 1_000_000 else _COARSE) < time.time_ns() for newest in times)


def pack(row: Row) -> bytes:
    """The row as bytes, without its path; empty if it holds what the format does not, e.g. a number of 80 bits."""
    try:
        return msgspec.msgpack.encode(replace(row, path=""))
    except (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError):
        return b""


def row_of(entry: Entry) -> Row:
    """The row of an entry; read anew if what was kept is damaged."""
    if entry.row is not None:
        return entry.row
    path = os.fsdecode(entry.path)
    try:
        row = _rows.decode(entry.packed)
    except ValueError:  # msgspec's errors are ValueErrors
        return read_row(path)
    object.__setattr__(row, "path", path)  # nobody else has it yet, and `replace` takes as long as unpacking
    return row


def load(cache: Path, roots: Iterable[bytes]) -> dict[bytes, Entry]:
    """All that is known of the runs in and below these folders."""
    known: dict[bytes, Entry] = {}

    def read(connection: sqlite3.Connection) -> None:
        select = f"SELECT * FROM {TABLE} WHERE path = ? OR (path > ? AND path < ?)"  # noqa: S608
        for root in roots:
            below = root.rstrip(b"/")
            found = connection.execute(select, (root, below + b"/", below + b"0"))
            known.update((row[0], Entry(*row)) for row in found)

    if (cache / FILE).exists():
        _attempt(cache / FILE, read)
    return known


def save(cache: Path, fresh: list[Entry], gone: list[bytes]) -> None:
    """Keep rows that were just read; forget those of folders that are no more."""

    def write(connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(
            f"CREATE TABLE IF NOT EXISTS {TABLE} "
            "(path BLOB PRIMARY KEY, signature BLOB, moment REAL, running INTEGER, row BLOB)"
        )
        connection.executemany(f"DELETE FROM {TABLE} WHERE path = ?", ((path,) for path in gone))  # noqa: S608
        insert = f"INSERT OR REPLACE INTO {TABLE} VALUES (?, ?, ?, ?, ?)"  # noqa: S608
        connection.executemany(insert, (entry[:5] for entry in fresh))
        connection.execute("COMMIT")

    if not fresh and not gone:
        return
    try:
        cache.mkdir(parents=True, exist_ok=True)
        if (cache / FILE).exists() and (cache / FILE).stat().st_size > _MAX_BYTES:
            os.unlink(cache / FILE)
    except OSError:
        return
    _attempt(cache / FILE, write)


def _attempt(file: Path, action: Callable[[sqlite3.Connection], None]) -> None:
    """Do it with the file; a corrupt file is removed, unless another process has replaced it since."""
    import sqlite3

    opened = _inode(file)
    try:
        connection = sqlite3.connect(file, timeout=_PATIENCE, isolation_level=None)
        try:
            action(connection)
        finally:
            connection.close()
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in _BROKEN and _inode(file) == opened:
            try:
                os.unlink(file)
            except OSError:
                pass  # still there and still broken: nothing is known next time either
    except (OSError, ValueError, TypeError):  # of what a damaged file holds
        pass


def _inode(file: Path) -> int | None:
    try:
        return file.stat().st_ino
    except OSError:
        return None
