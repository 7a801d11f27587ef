"""How does a stream of bytes become lines of a log? And the process that does it for a capture.

Run as a program (`python -I -S tee.py`), this is what stands between a process and its console: it passes on
every byte at once, and writes what it saw to the log. It is a process of its own, not a thread, because
- what a process prints just before it is killed, or crashes in C, must still arrive;
- C code that prints while it holds the interpreter's lock would wait for ever for a thread that needs it.
It imports a handful of standard modules, so that it is up in about 15 ms; nobody waits for it.
"""

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
import sys
import time
from collections.abc import Callable

CHUNK = 1 << 18
"""Bytes read at once."""
LONGEST = 1 << 16
"""Bytes after which a line without an end is written as it is; bounds the memory of the helper."""
DRAIN = 1.0
"""Seconds that what is still in a pipe may take when the capture ends; a child may go on writing for ever."""
PAUSE = 0.05
"""The same, when it only pauses for a line of ours."""

RENEW = b"r"
"""Comes before what redacts from there on; any other byte asks for an answer."""

_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\^_])")


class Lines:
    r"""Assembles the bytes of one stream into lines of the log.

    A carriage return starts a line over, so a progress bar leaves its last state; colours are dropped; bytes
    that are no UTF-8 stay readable as `\xff`.

    >>> lines = Lines("STDOUT")
    >>> [line.partition(" | ")[2] for line in lines.feed(b"10%\r20%\r100%\nsec")]
    ['STDOUT   | 100%']
    >>> [line.partition(" | ")[2] for line in lines.feed(b"ond \xff\n")]
    ['STDOUT   | second \\xff']
    """

    def __init__(self, name: str, redact: Callable[[str], str] | None = None) -> None:
        self._head = f"{name: <8} | "
        self._redact = redact
        self._pending = b""

    def feed(self, data: bytes) -> list[str]:
        """The lines that `data` completes, each with time and name in front, without line end."""
        *ended, pending = (self._pending + data).split(b"\n")
        if b"\r" in pending:
            # a return at the very end may be half of a Windows line end: what it starts over is not known yet
            pending = _last_state(pending) + (b"\r" if pending.endswith(b"\r") else b"")
        while len(pending) > LONGEST:
            cut = LONGEST
            while cut > LONGEST - 4 and pending[cut] & 0xC0 == 0x80:
                cut -= 1  # not inside a character
            ended.append(pending[:cut])
            pending = pending[cut:]
        self._pending = pending
        return self._dressed(ended)

    def rest(self) -> list[str]:
        """The last line, when it had no end."""
        pending, self._pending = self._pending, b""
        return self._dressed([pending] if pending else [])

    def _dressed(self, raw: list[bytes]) -> list[str]:
        if not raw:
            return []
        now = time.time()
        stamp = f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(now))}.{int(now % 1 * 1000):03d}"
        head = f"{stamp} | {self._head}"
        text = "\n".join(map(self._readable, raw))
        if self._redact is not None:  # all at once: a secret may be split over lines
            text = self._redact(text)
        return [head + line for line in text.split("\n")]

    def renew(self, redact: Callable[[str], str]) -> None:
        """Redact by this from here on."""
        self._redact = redact

    def _readable(self, line: bytes) -> str:
        if b"\r" in line:
            line = _last_state(line)
        return without_colours(line.decode("utf-8", "backslashreplace"))


def without_colours(text: str) -> str:
    """The text without what only tells a terminal how to show it."""
    return _ESCAPE.sub("", text) if "\x1b" in text else text


def _last_state(line: bytes) -> bytes:
    return next((part for part in reversed(line.split(b"\r")) if part), b"")


class Log:
    """The log the lines go to; a full disk costs lines, never the stream."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.lost = 0
        self.why = ""

    def write(self, lines: list[str]) -> None:
        if not lines:
            return
        try:
            write_all(self._descriptor, ("\n".join(lines) + "\n").encode("utf-8", "backslashreplace"))
        except OSError as error:
            self.fail(len(lines), error)

    def fail(self, lines: int, error: Exception) -> None:
        self.lost += lines
        self.why = self.why or f"{type(error).__name__}: {error}"


class Stream:
    """One stream on its way: from what the process writes to, on to the console and into the log."""

    def __init__(
        self, name: str, source: int, console: int, log: Log, redact: Callable[[str], str] | None
    ) -> None:
        self.source = source
        self._console: int | None = console
        self._log: Log | None = log
        self._lines = Lines(name, redact)

    def pump(self) -> bool:
        """Pass on what is there; False when the stream has ended."""
        try:
            data = os.read(self.source, CHUNK)
        except OSError:  # EIO: how a terminal says that nobody holds its other side any more
            data = b""
        if data and self._console is not None:
            try:
                write_all(self._console, data)
            except OSError:
                self._console = None  # the console has gone; the log has not
        self._record(lambda: self._lines.feed(data))
        return bool(data)

    def renew(self, redact: Callable[[str], str]) -> None:
        """Redact by this from here on."""
        self._lines.renew(redact)

    def catch_up(self, until: float) -> None:
        """Pass on what was written so far."""
        while time.monotonic() < until and select.select([self.source], [], [], 0)[0] and self.pump():
            pass

    def end(self) -> None:
        """Stop recording; only pass on from here."""
        self._record(self._lines.rest)
        self._log = None

    def _record(self, lines: Callable[[], list[str]]) -> None:
        if self._log is None:
            return
        try:
            self._log.write(lines())
        except Exception as error:  # the user's redact: an unredacted line must not be written instead
            self._log.fail(1, error)


def write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def tee(control: socket.socket, log: Log, streams: list[Stream]) -> None:
    """Serve the streams until all have ended.

    A byte from `control` is answered as soon as all that was written before it is passed on; only `RENEW` is not, after
    which comes what redacts from there on. When `control` ends, or the streams do, recording ends, and the answer says
    what was lost.
    """
    poll = select.poll()
    waiting = {stream.source: stream for stream in streams}
    for descriptor in (control.fileno(), *waiting):
        poll.register(descriptor, select.POLLIN)
    recording = True
    while waiting:
        ready = {descriptor for descriptor, _ in poll.poll()}
        if control.fileno() in ready and not _obey(control, log, streams):
            poll.unregister(control)
            recording = False
        for descriptor in sorted(ready & waiting.keys()):
            if not waiting[descriptor].pump():
                poll.unregister(descriptor)
                waiting.pop(descriptor).end()
    while recording:
        recording = _obey(control, log, streams)


def _obey(control: socket.socket, log: Log, streams: list[Stream]) -> bool:
    """Do what was asked; False when nothing more will be."""
    try:
        asked = control.recv(1)
    except OSError:
        asked = b""
    if asked == RENEW:
        if (redact := _received(control)) is not None:
            for stream in streams:
                stream.renew(redact)
        return True
    until = time.monotonic() + (PAUSE if asked else DRAIN)
    for stream in streams:
        stream.catch_up(until)
        if not asked:
            stream.end()
    answer = {} if asked else {"lost": log.lost, "why": log.why}
    try:
        control.sendall(json.dumps(answer).encode() + b"\n")
    except OSError:
        return False  # the process was killed: nobody is there to be told
    return bool(asked)


def _received(control: socket.socket) -> Callable[[str], str] | None:
    """What the capture sends first: the length of a pickle in 4 bytes, and the pickle of path and redact."""
    size = int.from_bytes(control.recv(4, socket.MSG_WAITALL), "big")
    payload = control.recv(size, socket.MSG_WAITALL)
    if not payload:
        return None
    import pickle

    path, function = pickle.loads(payload)  # noqa: S301 - sent by our own parent over a private socket
    sys.path[:] = path
    redact: Callable[[str], str] = pickle.loads(function)  # noqa: S301
    return redact


def main(arguments: list[str]) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it ends when the last writer has
    spec = json.loads(arguments[0])
    control = socket.socket(fileno=0)
    log = Log(spec["log"])
    broken: Exception | None = None
    redact = None
    try:
        redact = _received(control)
    except Exception as error:
        broken = error

    def withhold(text: str) -> str:
        raise RuntimeError(f"redact could not be loaded: {broken}")

    chosen = redact if broken is None else withhold
    tee(control, log, [Stream(name, source, to, log, chosen) for name, source, to in spec["streams"]])


if __name__ == "__main__":
    main(sys.argv[1:])
