"""What does the hashing process do?

It is started as a bare interpreter that sees the standard library and blake3, gets its job on stdin and
writes what it finds to stdout. It leaves when stdin ends or its parent is gone, so that no kill leaves it
behind.
"""

from __future__ import annotations

import marshal
import mmap
import os
import select
import struct
import sys
import time

from .cache import Cache
from .content import Means, Part, examine
from .crew import MAX_PIECES, share
from .outcome import Outcome, outcome_of, place
from .tree import Folder, find

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SIZE = struct.Struct("<I")
"""Before each message, its length."""
MOST_HELPERS = 8
PIECE = 256
"""Files; enough to make the exchange cheap, few enough to end together."""

_COUNTER = struct.Struct("<Q")

Piece = list[tuple[int, int, int]]
"""Folder, first file, end."""


def main() -> None:
    """Do the job that stands on stdin: `(inputs, cache, read, niceness)`."""
    inputs, cache_folder, read, niceness = _receive()
    _behave(niceness)
    work = Work(read=read)
    cache = Cache(cache_folder) if cache_folder and read else None
    done: list[tuple[list[Folder], int]] = []
    for index, (kind, path, pattern) in enumerate(inputs):
        started = time.time_ns()
        folders, outcome = work.hash(kind, path, pattern, cache)
        work.tell()
        send(("outcome", index, outcome))
        done.append((folders, started))
    if cache is not None:  # after the answer, which should not wait for it
        for folders, started in done:
            cache.remember(folders, started)


def send(message: tuple[Any, ...]) -> None:
    frame = marshal.dumps(message)
    for view in memoryview(SIZE.pack(len(frame))), memoryview(frame):
        while view:
            view = view[os.write(1, view) :]


def _receive() -> Any:
    data = b""
    while len(data) < SIZE.size or len(data) < SIZE.size + SIZE.unpack_from(data)[0]:
        more = os.read(0, 1 << 16)
        if not more:
            sys.exit()
        data += more
    return marshal.loads(data[SIZE.size :])  # noqa: S302  from a process of ours


def _behave(niceness: int) -> None:
    import fcntl
    import gc
    import resource

    # At the lowest priority a busy machine gives this process no time to notice that its parent is gone.
    # So the kernel ends it and its helpers: SIGIO to the group when stdin ends.
    if hasattr(os, "O_ASYNC"):
        fcntl.fcntl(0, fcntl.F_SETOWN, -os.getpgrp())
        fcntl.fcntl(0, fcntl.F_SETFL, fcntl.fcntl(0, fcntl.F_GETFL) | os.O_ASYNC)

    gc.disable()  # it lives shortly and makes no cycles; helpers share its memory until somebody writes
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a helper may die by SIGBUS, and is expected to
    if niceness:
        os.nice(niceness)


class Work:
    """Hashing with all cores, and telling how far it is."""

    def __init__(self, *, read: bool) -> None:
        self._read = read
        self._parent = os.getppid()
        self._helpers = min(MOST_HELPERS, _cores())
        self._counters = mmap.mmap(-1, _COUNTER.size * (MOST_HELPERS + 1))
        """Bytes hashed so far by each helper and, last, by this process; shared memory."""
        self._told = 0.0

    def hash(
        self, kind: str, path: bytes, pattern: bytes, cache: Cache | None
    ) -> tuple[list[Folder], Outcome]:
        tree = find(kind, path, pattern)
        listed = list(tree.gaps)
        if cache is not None:
            cache.recall(tree.folders)
        pieces = _cut(tree.folders, self._helpers)
        later: Piece = []
        for piece, parts in zip(
            pieces, self._share(tree.folders, pieces, self._helpers, threads=1), strict=True
        ):
            for (number, start, _), part in zip(piece, parts, strict=True):
                tree.gaps += place(tree.folders[number], start, part)
                later += [(number, index, index + 1) for index in part[3]]
        one_by_one = [[span] for span in later]
        for (number, index, _), (part,) in zip(
            later, self._share(tree.folders, one_by_one, 1, threads=self._helpers), strict=True
        ):
            tree.gaps += place(tree.folders[number], index, part)
        return tree.folders, outcome_of(kind, tree, listed)

    def _share(
        self, folders: list[Folder], pieces: list[Piece], helpers: int, threads: int
    ) -> list[list[Part]]:
        def work(helper: int, number: int) -> list[Part]:
            means = Means(
                read=self._read,
                mapped=True,
                threads=threads,
                defer=threads == 1 and self._helpers > 1,
                advance=lambda size: self._count(helper, size),
            )
            return [examine(folders[at], start, stop, means) for at, start, stop in pieces[number]]

        results: dict[int, list[Part]] = {}
        for first in range(0, len(pieces), MAX_PIECES):
            batch = share(
                min(MAX_PIECES, len(pieces) - first),
                helpers,
                lambda helper, number, first=first: work(helper, first + number),  # type: ignore[misc]
                self.look,
            )
            results.update({first + number: result for number, result in batch.items()})
        careful = Means(read=self._read, advance=self._advance)
        return [
            results[number]
            if number in results
            else [examine(folders[at], start, stop, careful) for at, start, stop in piece]
            for number, piece in enumerate(pieces)
        ]

    def _advance(self, size: int) -> None:
        self._count(MOST_HELPERS, size)
        self.look()

    def _count(self, who: int, size: int) -> None:
        at = who * _COUNTER.size
        _COUNTER.pack_into(self._counters, at, _COUNTER.unpack_from(self._counters, at)[0] + size)

    def look(self) -> None:
        """Tell how far we are, and leave if nobody listens any more."""
        now = time.monotonic()
        if now < self._told + 0.1:
            return
        self._told = now
        if os.getppid() != self._parent or select.select([0], [], [], 0)[0]:
            sys.exit()
        self.tell()

    def tell(self) -> None:
        """Send how many bytes are hashed so far."""
        send(("progress", sum(count for (count,) in _COUNTER.iter_unpack(self._counters[:]))))


def _cut(folders: list[Folder], helpers: int) -> list[Piece]:
    """Pieces of about the same number of files."""
    files = sum(len(folder.names) for folder in folders)
    wanted = max(1, min(PIECE, files // (16 * helpers)))
    pieces: list[Piece] = []
    piece: Piece = []
    room = wanted
    for number, folder in enumerate(folders):
        start = 0
        while start < len(folder.names):
            stop = min(len(folder.names), start + room)
            piece.append((number, start, stop))
            room -= stop - start
            start = stop
            if not room:
                pieces.append(piece)
                piece, room = [], wanted
    return [*pieces, piece] if piece else pieces


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1
