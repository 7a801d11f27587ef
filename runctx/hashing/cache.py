"""Which digests are known from earlier?

One sqlite file per user, one row per folder: the names, and for each file its signature and digest, packed.
It can always be deleted. Whatever goes wrong with it (locked, read-only, corrupt, full) is a miss.

A file that was modified less than `MARGIN` before hashing began is not remembered: a later change within
the same tick of the file system's clock would leave the signature as it is (git calls such an entry racy).
Two seconds is the coarsest clock in use (FAT); a file server whose clock is further behind than that
defeats the rule.

No write-ahead log: the cache may lie on a network file system, where it is unsafe, and switching to it from
two processes at once fails. A row carries a checksum instead, and nothing is synced to disk.
"""

from __future__ import annotations

import os
import time

from blake3 import blake3

from .content import DIGEST, NO_DIGEST, RECORD, SIGNATURE
from .tree import Folder

TYPE_CHECKING = False
if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable

FILE = "hashes.sqlite"
MARGIN = 2_000_000_000
"""Nanoseconds."""
MAX_BYTES = 512 << 20
"""Of all rows; beyond it the half that was unused for longest is dropped. About five million files."""
READ_PATIENCE = 0.3
WRITE_PATIENCE = 2.0
"""Seconds to wait for another process."""

_DAY = 86_400
_CHECK = 16
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS folders (key BLOB PRIMARY KEY, used INTEGER, size INTEGER, entries BLOB)"
)
_BROKEN = {11, 26}
"""SQLITE_CORRUPT, SQLITE_NOTADB."""


class Cache:
    """The digests remembered in `folder`; a cache that cannot be used knows nothing and keeps nothing."""

    def __init__(self, folder: str) -> None:
        self._path = os.path.join(folder, FILE)
        self._usable = True
        self._day = int(time.time()) // _DAY
        self._stale: dict[bytes, bool] = {}
        """Whether a row that was found should be marked as used again."""

    def recall(self, folders: list[Folder]) -> None:
        """Fill in `known` for each folder of which something is remembered."""
        self._attempt(READ_PATIENCE, lambda connection: self._recall(connection, folders), create=False)

    def remember(self, folders: list[Folder], started: int) -> None:
        """Keep the digests of folders that were examined after `started` (nanoseconds of the epoch)."""
        rows = []
        for folder in folders:
            records = _records(folder, started - MARGIN)
            if records != folder.known and any(records):
                rows.append((folder.key, self._day, _pack(folder.names, records)))
        used = [(self._day, folder.key) for folder in folders if self._stale.get(folder.key)]
        if rows or used:
            self._attempt(WRITE_PATIENCE, lambda connection: _write(connection, rows, used), create=True)

    def _attempt(
        self, patience: float, action: Callable[[sqlite3.Connection], None], *, create: bool
    ) -> None:
        if not self._usable or not (create or os.path.exists(self._path)):
            return
        import sqlite3

        opened = _inode(self._path)
        try:
            if create:
                os.makedirs(os.path.dirname(self._path), exist_ok=True)
            connection = sqlite3.connect(self._path, timeout=patience, isolation_level=None)
            try:
                connection.execute("PRAGMA synchronous = OFF")
                if create:
                    connection.execute(_SCHEMA)
                action(connection)
            finally:
                connection.close()
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in _BROKEN:
                _discard(self._path, opened)
            elif "no such table" not in str(error):
                self._usable = False
        except OSError:
            self._usable = False

    def _recall(self, connection: sqlite3.Connection, folders: list[Folder]) -> None:
        select = "SELECT used, entries FROM folders WHERE key = ?"
        connection.execute("BEGIN")
        for folder in folders:
            row = connection.execute(select, (folder.key,)).fetchone()
            if row is not None and (known := _unpack(row[1], folder.names)):
                folder.known = known
                self._stale[folder.key] = row[0] != self._day
        connection.execute("COMMIT")


def _write(
    connection: sqlite3.Connection, rows: list[tuple[bytes, int, bytes]], used: list[tuple[int, bytes]]
) -> None:
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany("UPDATE folders SET used = ? WHERE key = ?", used)
    connection.executemany(
        "INSERT OR REPLACE INTO folders VALUES (?, ?, ?, ?)",
        ((key, day, len(entries), entries) for key, day, entries in rows),
    )
    connection.execute("COMMIT")
    _prune(connection)


def _prune(connection: sqlite3.Connection) -> None:
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    size = connection.execute("PRAGMA page_size").fetchone()[0]
    if pages * size <= MAX_BYTES:
        return
    connection.execute("BEGIN IMMEDIATE")
    kept = 0
    for rowid, size in connection.execute(
        "SELECT rowid, size FROM folders ORDER BY used DESC, rowid DESC"
    ).fetchall():
        kept += size
        if kept > MAX_BYTES // 2:
            connection.execute("DELETE FROM folders WHERE rowid = ?", (rowid,))
    connection.execute("COMMIT")
    connection.execute("VACUUM")


def _records(folder: Folder, before: int) -> bytes:
    """Signature and digest of each file, blank where they must not be trusted later."""
    blank = bytes(RECORD)
    records: list[bytes | bytearray] = []
    for i, (*_, modified, changed) in enumerate(SIGNATURE.iter_unpack(folder.signatures)):
        digest = folder.digests[i * DIGEST : (i + 1) * DIGEST]
        if modified < before and changed < before and digest != NO_DIGEST:
            records.append(folder.signatures[i * SIGNATURE.size : (i + 1) * SIGNATURE.size] + digest)
        else:
            records.append(blank)
    return b"".join(records)


def _pack(names: list[bytes], records: bytes) -> bytes:
    entries = b"\0".join(names) + b"\0\0" + records
    return blake3(entries).digest(_CHECK) + entries


def _unpack(row: object, names: list[bytes]) -> bytes:
    """The records in the order of `names`, blank for a name that is new; empty if the row is damaged."""
    if not isinstance(row, bytes) or blake3(row[_CHECK:]).digest(_CHECK) != row[:_CHECK]:
        return b""
    head, _, records = row[_CHECK:].partition(b"\0\0")
    if head == b"\0".join(names):
        return records
    blank = bytes(RECORD)
    found = {name: records[i * RECORD : (i + 1) * RECORD] for i, name in enumerate(head.split(b"\0"))}
    return b"".join(found.get(name, blank) for name in names)


def _inode(path: str) -> int | None:
    try:
        return os.stat(path).st_ino
    except OSError:
        return None


def _discard(path: str, opened: int | None) -> None:
    """Remove the file found corrupt, unless another process has replaced it since."""
    try:
        if _inode(path) == opened:
            os.unlink(path)
    except OSError:
        pass  # still there and still broken: a miss again next time
