"""Pass on what a process prints to its console and, line by line, to logs.

Run as a program (`python -I -S tee.py`) by `console`. It is a process of its own, not a thread, because what a process
prints just before it is killed, or crashes in C, must still arrive, and because C code that prints while it holds the
interpreter's lock would wait for ever for a thread that needs it. It imports a handful of standard modules, so that it
is up in about 20 ms; nobody waits for it.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import re
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

CHUNK = 1 << 18
"""Bytes read at once."""
LONGEST = 1 << 16
"""Bytes after which a line without an end is written as it is; bounds the memory of this process."""
DRAIN = 1.0
"""Seconds that what is still in a pipe may take when a capture ends; a child may go on writing for ever."""
PAUSE = 0.05
"""The same, when everything written so far is only to be passed on."""
QUIET = 0.02
"""Seconds without output after which the lines so far are written: a secret that is split over lines is seen whole."""
LATEST = 0.5
"""Seconds after which they are written even if there is always more."""
MOST = 1 << 20
"""Bytes after which they are written likewise."""

_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\^_])")


class Lines:
    r"""Assembles the bytes of one stream into lines.

    A carriage return starts a line over, so a progress bar leaves its last state; colours are dropped; bytes
    that are no UTF-8 stay readable as `\xff`.

    >>> lines = Lines()
    >>> lines.feed(b"10%\r20%\r100%\nsec"), lines.feed(b"ond \xff\n")
    (['100%'], ['second \\xff'])
    """

    def __init__(self) -> None:
        self._pending = b""

    def feed(self, data: bytes) -> list[str]:
        """The lines that `data` completes, without line ends."""
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
        return list(map(_readable, ended))

    def rest(self) -> list[str]:
        """The last line, when it had no end."""
        pending, self._pending = self._pending, b""
        return [_readable(pending)] if pending else []


def without_colours(text: str) -> str:
    """The text without what only tells a terminal how to show it."""
    return _ESCAPE.sub("", text) if "\x1b" in text else text


def _readable(line: bytes) -> str:
    return without_colours(_last_state(line).decode("utf-8", "backslashreplace"))


def _last_state(line: bytes) -> bytes:
    return next((part for part in reversed(line.split(b"\r")) if part), b"") if b"\r" in line else line


class Log:
    """The file that the lines of several streams go to; a full disk costs lines, never the stream."""

    def __init__(self, path: str | os.PathLike[str], redact: Callable[[str], str] | None = None) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        self.redact = redact
        self._streams: dict[object, Lines] = {}
        self._lines: list[str] = []
        self._bytes, self._since = 0, 0.0  # of the data since the last time that they were written
        self.lost, self.why = 0, ""

    def feed(self, stream: object, data: bytes) -> None:
        """Take the lines of a stream that this data completes; those that have waited for long are written."""
        now = time.monotonic()
        if not self._lines:
            self._bytes, self._since = 0, now
        self._lines += self._streams.setdefault(stream, Lines()).feed(data)
        self._bytes += len(data)
        if now - self._since > LATEST or self._bytes > MOST:
            self.flush()

    def end(self) -> None:
        """Write all, what has no line end too, and close the file."""
        for lines in self._streams.values():
            self._lines += lines.rest()
        self.flush()
        os.close(self._descriptor)

    @property
    def waits(self) -> bool:
        """Whether there are lines to write."""
        return bool(self._lines)

    def flush(self) -> None:
        """Write the lines so far."""
        lines, self._lines = self._lines, []
        if not lines:
            return
        try:
            text = "\n".join(lines)
            if self.redact is not None:
                text = self.redact(text)
            write_all(self._descriptor, f"{text}\n".encode("utf-8", "backslashreplace"))
        except (
            Exception
        ) as error:  # also of the user's redact: an unredacted line must not be written instead
            self.lost += len(lines)
            self.why = self.why or f"{type(error).__name__}: {error}"


def write_all(descriptor: int, data: bytes) -> None:
    """Write, however often the system takes only a part."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def framed(message: Any) -> bytes:
    """A message to this process."""
    data = pickle.dumps(message)
    return len(data).to_bytes(4, "big") + data


class Tee:
    """Streams on their way to the consoles, and the logs that hear them.

    Messages are `("add", key, path, redact)`, `("redact", key, redact)`, `("remove", key)` and `("sync",)`. The last
    two are answered by a line of JSON, when all that was written before has been passed on.
    """

    def __init__(self, control: socket.socket, consoles: dict[int, int]) -> None:
        self._control = control
        self._consoles: dict[int, int | None] = dict(consoles)  # by the descriptor that is read
        self._logs: dict[int, Log] = {}

    def serve(self) -> None:
        """Until the streams have ended, and nothing more can be asked."""
        asking = self._obey()  # before anything is read: the first log hears everything
        while asking or self._consoles:
            control = self._control.fileno()
            wait = QUIET if any(log.waits for log in self._logs.values()) else None
            ready = _readable_now([*self._consoles, *([control] if asking else [])], wait)
            if not ready:
                self._flush()
            if control in ready:
                asking = self._obey()  # which may read the streams
            else:
                for source in ready:
                    self._pump(source)
        self._end()

    def _pump(self, source: int) -> None:
        data = os.read(source, CHUNK)
        console = self._consoles[source]
        if not data:
            del self._consoles[source]
        elif console is not None:
            try:
                write_all(console, data)
            except OSError:
                self._consoles[source] = None  # the console has gone; the logs have not
        for log in self._logs.values():
            log.feed(source, data)

    def _obey(self) -> bool:
        """Do what was asked; False when nothing more will be."""
        try:
            size = int.from_bytes(self._control.recv(4, socket.MSG_WAITALL), "big")
            message = self._control.recv(size, socket.MSG_WAITALL) if size else b""
        except OSError:
            message = b""
        if not message:  # finished, or killed: what children print is only passed on from here
            self._catch_up(DRAIN)
            self._end()
            return False
        kind, *arguments = pickle.loads(message)  # noqa: S301 - sent by our own parent over a private socket
        if kind == "add":
            key, path, redact = arguments
            self._logs[key] = Log(path, _loaded(redact))
        elif kind == "redact":
            key, redact = arguments
            self._logs[key].redact = _loaded(redact)
        else:
            self._catch_up(DRAIN if kind == "remove" else PAUSE)
            answer = {}
            if kind == "remove":
                log = self._logs.pop(arguments[0])
                log.end()
                answer = {"lost": log.lost, "why": log.why}
            with contextlib.suppress(OSError):  # the process was killed: nobody is there to be told
                self._control.sendall(json.dumps(answer).encode() + b"\n")
        return True

    def _catch_up(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until and (ready := _readable_now([*self._consoles], 0)):
            for source in ready:
                self._pump(source)
        self._flush()

    def _flush(self) -> None:
        for log in self._logs.values():
            log.flush()

    def _end(self) -> None:
        for log in self._logs.values():
            log.end()
        self._logs.clear()


def _readable_now(sources: list[int], seconds: float | None) -> set[int]:
    poll = select.poll()  # `select` takes no numbers over 1023
    for source in sources:
        poll.register(source, select.POLLIN)
    milliseconds = None if seconds is None else int(seconds * 1000)
    return {source for source, _ in poll.poll(milliseconds)} if sources else set()


def _loaded(payload: bytes) -> Callable[[str], str] | None:
    """What redacts; the function needs to know where the parent imports from first."""
    try:
        path, function = pickle.loads(payload)  # noqa: S301 - sent by our own parent over a private socket
        sys.path[:] = path
        redact: Callable[[str], str] | None = pickle.loads(function)  # noqa: S301
    except Exception as error:
        why = f"redact could not be loaded: {error}"

        def withhold(text: str) -> str:
            raise RuntimeError(why)

        return withhold
    return redact


def main(arguments: list[str]) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it ends when the last writer has
    Tee(socket.socket(fileno=0), {int(k): v for k, v in json.loads(arguments[0]).items()}).serve()


if __name__ == "__main__":
    main(sys.argv[1:])
