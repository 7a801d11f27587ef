"""Remember digests between runs.

One sqlite file per user, one row per folder: the names, and for each file its signature and digest, packed. It can
always be deleted. Whatever goes wrong with it (locked, read-only, corrupt, full) is a miss.

A file that was modified less than `MARGIN` before hashing began is not remembered: a later change within the same tick
of the file system's clock would leave the signature as it is (git calls such an entry racy). Two seconds is the
coarsest clock in use (FAT); a file server whose clock is further behind than that defeats the rule.

No write-ahead log: the cache may lie on a network file system, where it is unsafe, and switching to it from two
processes at once fails. A row carries a checksum instead, and nothing is synced to disk.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterable
from contextlib import closing, suppress

from blake3 import blake3

from .walk import NO_DIGEST, NO_RECORD, RECORD, Folder

FILE = "hashes.sqlite"
MARGIN = 2_000_000_000
"""Nanoseconds."""
MAX_BYTES = 512 << 20
"""Of the file; beyond it the half that was unused for longest is dropped. About five million files."""
READ_PATIENCE = 0.3
WRITE_PATIENCE = 2.0
"""Seconds to wait for another process."""

_DAY = 86_400
_CHECK = 16
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS folders (key BLOB PRIMARY KEY, used INTEGER, size INTEGER, entries BLOB)"
)
_DROP_HALF = """
DELETE FROM folders WHERE key IN (
    SELECT key FROM folders ORDER BY used, rowid LIMIT (SELECT (count(*) + 1) / 2 FROM folders)
)
"""
_BROKEN = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def recall(cache: str, folders: Iterable[Folder]) -> None:
    """Fill in `known` for each folder of which the cache in the folder `cache` has something."""

    def read(connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN")
        for folder in folders:
            found = connection.execute("SELECT entries FROM folders WHERE key = ?", (folder.key,)).fetchone()
            if found is not None:
                folder.known = _unpack(found[0], folder.names)

    path = os.path.join(cache, FILE)
    if os.path.exists(path):
        _use(path, READ_PATIENCE, read)


def remember(cache: str, folders: Iterable[Folder], started: int) -> None:
    """Keep the digests of folders that were read after `started` (nanoseconds of the epoch)."""
    path, today = os.path.join(cache, FILE), int(time.time()) // _DAY
    used, rows = [], []
    for folder in folders:
        records = [record if _is_settled(record, started) else NO_RECORD for record in folder.records]
        if folder.known:
            used.append((today, folder.key, today))
        if records != folder.known and records.count(NO_RECORD) < len(records):
            entries = _pack(folder.names, records)
            rows.append((folder.key, today, len(entries), entries))

    def write(connection: sqlite3.Connection) -> None:
        connection.execute(_SCHEMA)
        connection.executemany("UPDATE folders SET used = ? WHERE key = ? AND used < ?", used)
        connection.executemany("INSERT OR REPLACE INTO folders VALUES (?, ?, ?, ?)", rows)
        connection.commit()
        if os.path.getsize(path) > MAX_BYTES:
            connection.execute(_DROP_HALF)
            connection.commit()
            connection.execute("VACUUM")

    if used or rows:
        _use(path, WRITE_PATIENCE, write)


def _use(path: str, patience: float, action: Callable[[sqlite3.Connection], None]) -> None:
    opened = _inode(path)
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with closing(sqlite3.connect(path, timeout=patience, isolation_level="IMMEDIATE")) as connection:
            connection.execute("PRAGMA synchronous = OFF")
            action(connection)
    except OSError:
        pass  # no place for a cache
    except sqlite3.DatabaseError as error:
        is_broken = getattr(error, "sqlite_errorcode", 0) & 0xFF in _BROKEN
        if is_broken and _inode(path) == opened:  # else another process has replaced it
            with suppress(OSError):
                os.unlink(path)


def _is_settled(record: bytes, started: int) -> bool:
    *_, modified, changed, digest = RECORD.unpack(record)
    return bool(max(modified, changed) < started - MARGIN and digest != NO_DIGEST)


def _pack(names: list[bytes], records: list[bytes]) -> bytes:
    entries = b"\0".join([*names, b"", b"".join(records)])
    return blake3(entries).digest(_CHECK) + entries


def _unpack(row: object, names: list[bytes]) -> list[bytes]:
    """The records in the order of `names`, blank for a name that is new; empty if the row is damaged."""
    if not isinstance(row, bytes) or blake3(row[_CHECK:]).digest(_CHECK) != row[:_CHECK]:
        return []
    head, _, packed = row[_CHECK:].partition(b"\0\0")
    records = [packed[at : at + RECORD.size] for at in range(0, len(packed), RECORD.size)]
    found = dict(zip(head.split(b"\0"), records, strict=False))
    return [found.get(name, NO_RECORD) for name in names]


def _inode(path: str) -> int | None:
    try:
        return os.stat(path).st_ino
    except OSError:
        return None
