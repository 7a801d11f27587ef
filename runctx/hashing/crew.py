"""How do several processes share the work, when any of them may die?

Helpers are forked from the worker, which has one thread and nothing of the user's in it. Each takes the
number of a piece from a pipe, does it, and writes the result to a pipe of its own. A piece whose helper
died (a file truncated while mapped, the out-of-memory killer) has no result; it is the caller's to do again
more carefully.
"""

from __future__ import annotations

import _thread
import marshal
import os
import select
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_KILL = 9
"""SIGKILL everywhere; the module `signal` would cost a quarter of the worker's start."""
_NUMBER = struct.Struct("<I")
MAX_PIECES = 8_000
"""As many numbers as fit into a pipe of 64 KiB, twice over, without anybody reading them."""
PIPE = 64 << 10
"""Bytes that a pipe holds; room for more would be asked of the system anew at every read."""
TICK = 0.2
"""Seconds between two looks at who is still there."""


def share(
    count: int, helpers: int, work: Callable[[int, int], Any], look: Callable[[], None]
) -> dict[int, Any]:
    """The results of the pieces 0 ... count - 1, as far as the helpers lived to tell.

    Parameters
    ----------
    work: called in a helper with its own number and the piece's; the result must marshal.
    look: called now and then in this process; if it raises, the helpers are killed.
    """
    take, give = os.pipe()
    os.write(give, b"".join(_NUMBER.pack(piece) for piece in range(count)))
    os.close(give)
    alive, lifeline = os.pipe()
    running: dict[int, int] = {}
    received: dict[int, bytearray] = {}
    try:
        for number in range(min(helpers, count)):
            source, sink = os.pipe()
            pid = os.fork()
            if pid == 0:
                os.close(lifeline)
                _serve(number, take, sink, alive, work)
            os.close(sink)
            running[source] = pid
            received[source] = bytearray()
        _collect(running, received, look)
    finally:
        for pid in running.values():
            os.kill(pid, _KILL)
            os.waitpid(pid, 0)
        for descriptor in (take, alive, lifeline, *running):
            os.close(descriptor)
    return {piece: result for data in received.values() for piece, result in _frames(data)}


def _collect(running: dict[int, int], received: dict[int, bytearray], look: Callable[[], None]) -> None:
    while running:
        ready, _, _ = select.select(list(running), [], [], TICK)
        for source in ready:
            if data := os.read(source, PIPE):
                received[source] += data
            else:
                os.waitpid(running.pop(source), 0)
                os.close(source)
        look()


def _serve(number: int, take: int, sink: int, alive: int, work: Callable[[int, int], Any]) -> None:
    """A helper's whole life: it ends with the work, on any error, or with the process that forked it."""
    try:
        _thread.start_new_thread(_leave_with, (alive,))
        while token := os.read(take, _NUMBER.size):
            piece = _NUMBER.unpack(token)[0]
            frame = marshal.dumps((piece, work(number, piece)))
            view = memoryview(_NUMBER.pack(len(frame)) + frame)
            while view:
                view = view[os.write(sink, view) :]
    finally:
        os._exit(0)


def _leave_with(alive: int) -> None:
    os.read(alive, 1)
    os._exit(0)


def _frames(data: bytearray) -> list[Any]:
    frames, at, view = [], 0, memoryview(data)
    while at + _NUMBER.size <= len(data):
        (size,) = _NUMBER.unpack_from(data, at)
        at += _NUMBER.size
        if at + size > len(data):
            break  # its writer died in the middle
        frames.append(marshal.loads(view[at : at + size]))  # noqa: S302  from a process of ours
        at += size
    return frames
