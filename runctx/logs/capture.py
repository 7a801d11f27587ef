"""What reached the console? Tees stdout and stderr into a log, and leaves the console as it was.

Two levels, because there are two ways to a console:
- *descriptors* 1 and 2, for scripts, C code and child processes: they are led through a helper process
  (`tee`) that outlives us, so that the last words of a crash arrive. A terminal is replaced by a pseudo
  terminal, so that colours and progress bars stay.
- *streams* that do not write to those descriptors (a Jupyter kernel's, pytest's): we listen at
  the stream object itself.

A capture hears the whole process. Captures may be stacked and may end in any order: each hears all that is
said while it lasts. (Where they do not end in reverse order, the console may show the last lines before such
an end after the first ones that follow it: they have longer to go.)

Order is kept within each stream, and for our own lines; between stdout and stderr as far as they are apart by
more than the fraction of a millisecond the helper needs.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..capture import notebook
from ..model import Omission
from . import tee

REPORT = 2.0
"""Seconds to wait for the helper's last lines at the end: more only if the console itself is stuck."""

_stack: list[Capture] = []
_change = threading.RLock()
_aside = threading.local()


def _unlock_in_child() -> None:
    """A child forked while another thread held the lock must not wait for that thread."""
    global _change
    _change = threading.RLock()


os.register_at_fork(after_in_child=_unlock_in_child)


@dataclass(kw_only=True, slots=True)
class _Channel:
    """A descriptor that is led through the helper."""

    name: str
    descriptor: int
    console: int
    """A duplicate of what the descriptor was."""
    source: int
    """Our copy of the side the helper reads: while it is open no writer meets a broken pipe."""


@dataclass(kw_only=True, slots=True)
class _Wrap:
    """A stream we listen at."""

    stream: Any
    attribute: str
    """`write`; or `echo`, ipykernel's own hook, because IPython puts back `write` at the end of each cell."""
    before: Any
    """What the attribute was."""
    own: bool
    """Whether `before` stood on the stream itself, not on its class."""
    lines: tee.Lines
    lock: threading.RLock = field(default_factory=threading.RLock)
    ended: bool = False


class Capture:
    """Hears stdout and stderr from `start()` to `stop()`, once.

    Never raises and never hangs: what cannot be captured is in `omissions`.

    Parameters
    ----------
    path: the log that receives lines `time | STDOUT   | text`.
    redact: applied to each line. It is sent to the helper, as it is at `start()` and at `renew_redaction()`, so it
        must be picklable; if it is not, nothing is captured.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> with Capture(Path(folder.name, "run.log")):
    ...     print("hello")
    hello
    >>> folder.cleanup()
    """

    def __init__(self, path: Path, redact: Callable[[str], str] | None = None) -> None:
        self._path = path
        self._redact = redact
        self._channels: list[_Channel] = []
        self._wraps: list[_Wrap] = []
        self._log: tee.Log | None = None
        self._descriptor = -1
        self._helper: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._pid = 0
        self._stuck = False
        self._asking = threading.RLock()  # a signal may log in the middle of a line
        self._plugged: list[int] = []
        self._buffering: list[io.TextIOWrapper] = []
        self.omissions: list[Omission] = []

    def __enter__(self) -> Capture:
        return self.start()

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def start(self) -> Capture:
        """Hear everything from here on; returns itself."""
        with _change:
            if self._pid:
                return self
            self._pid = os.getpid()
            try:
                self._plugged = _plug()
                payload = _pickled(self._redact)
                flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
                self._descriptor = os.open(self._path, flags, 0o666)
            except Exception as error:  # pickling runs foreign code
                self._omit(f"{type(error).__name__}: {error}")
                self._unplug()
                return self
            self._log = tee.Log(self._descriptor)
            _flush()
            try:
                self._lead_descriptors(payload)
            except Exception as error:
                self._omit(f"only what Python prints was captured: {type(error).__name__}: {error}")
                self._restore()
            self._wrap_streams()
            _stack.append(self)
        return self

    def stop(self) -> None:
        """Put everything back; wait, for a bounded time, until the log has all. May be called twice."""
        if self._pid != os.getpid():
            return  # never started; or a forked child, to which the helper does not belong
        with _change:
            if self not in _stack:
                return
            _flush()
            for above in reversed(_stack[_stack.index(self) + 1 :]):
                above.settle()  # what they have heard has to come down to us
            self._unwrap()
            self._restore()
            _stack.remove(self)
        self._collect()

    def settle(self) -> None:
        """Wait until what was said so far has been passed on; not again after that took too long."""
        if self._control is None or self._stuck or self._pid != os.getpid():
            return  # a forked child must not take the answer from its parent
        with self._asking:  # not `_change`: our caller may hold a lock of loguru's
            try:
                self._control.sendall(b"?")
                _answer(self._control)
            except (OSError, ValueError):
                self._stuck = True

    def renew_redaction(self) -> None:
        """Send the helper what redacts, which has learned secrets since; whatever is printed from here on meets it."""
        if self._control is None or self._pid != os.getpid():
            return
        with (
            self._asking,
            contextlib.suppress(OSError),
        ):  # the helper was killed: nothing is captured any more
            self._control.sendall(tee.RENEW + _framed(_pickled(self._redact)))

    # -- descriptors -------------------------------------------------------------------------------

    def _lead_descriptors(self, payload: bytes) -> None:
        ends: list[tuple[int, int]] = []
        try:
            for name, descriptor in (("STDOUT", 1), ("STDERR", 2)):
                console = os.dup(descriptor)
                source, end = _channel(console)
                ends.append((end, descriptor))
                self._channels.append(
                    _Channel(name=name, descriptor=descriptor, console=console, source=source)
                )
            self._start_helper(payload)
            for end, descriptor in ends:
                os.dup2(end, descriptor)
        finally:
            for end, _ in ends:
                os.close(end)
        for stream, descriptor in ((sys.stdout, 1), (sys.stderr, 2)):
            # written through at each line, else what Python and its children say is heard in the wrong order
            if (
                _number(stream) == descriptor
                and isinstance(stream, io.TextIOWrapper)
                and not stream.line_buffering
            ):
                stream.reconfigure(line_buffering=True)
                self._buffering.append(stream)

    def _start_helper(self, payload: bytes) -> None:
        self._control, theirs = socket.socketpair()
        spec = {"log": self._descriptor, "streams": [(c.name, c.source, c.console) for c in self._channels]}
        with theirs:
            self._helper = subprocess.Popen(
                [sys.executable, "-I", "-S", tee.__file__, json.dumps(spec)],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                pass_fds=[self._descriptor, *(n for c in self._channels for n in (c.source, c.console))],
                start_new_session=True,  # an interrupt at the keyboard is not for it
            )
        self._control.settimeout(REPORT)
        self._control.sendall(_framed(payload))
        threading.Thread(target=self._watch, args=(self._helper,), name="runctx-capture", daemon=True).start()

    def _watch(self, helper: subprocess.Popen[bytes]) -> None:
        """If somebody kills the helper, lead the descriptors back before a writer gets stuck."""
        helper.wait()
        with _change:
            if self not in _stack or not self._channels:
                return
            self._omit("the helper process was killed; later output of C code and child processes is missing")
            self._restore(rescue=True)

    def _restore(self, rescue: bool = False) -> None:
        """Give the descriptors back, or, when another capture stands above, hand it our consoles."""
        for channel in self._channels:
            above = self._above(channel.descriptor)
            if above is None:
                with contextlib.suppress(OSError):
                    os.dup2(channel.console, channel.descriptor)
            else:
                above.console, channel.console = channel.console, above.console
            if rescue:
                _pass_on(channel.source, channel.console)
            for descriptor in (channel.console, channel.source):
                with contextlib.suppress(OSError):
                    os.close(descriptor)
        self._channels.clear()
        for stream in self._buffering:
            with contextlib.suppress(ValueError):  # closed in the meantime
                stream.reconfigure(line_buffering=False)
        self._buffering.clear()

    def _above(self, descriptor: int) -> _Channel | None:
        if self not in _stack:
            return None
        later = _stack[_stack.index(self) + 1 :]
        return next((c for capture in later for c in capture._channels if c.descriptor == descriptor), None)

    def _collect(self) -> None:
        """End the recording, and hear from the helper what it could not write."""
        if self._control is not None:
            try:
                with self._asking:
                    self._control.shutdown(socket.SHUT_WR)
                    while "lost" not in (report := _answer(self._control)):
                        pass  # a late answer to `settle`
                self._report(report["lost"], report["why"])
            except (OSError, ValueError) as error:
                self._omit(f"the end of the output may be missing: {type(error).__name__}: {error}")
            self._control.close()
        if self._log is not None:
            self._report(self._log.lost, self._log.why)
            os.close(self._descriptor)
            self._log = None
        self._unplug()

    def _unplug(self) -> None:
        for descriptor in self._plugged:
            os.close(descriptor)
        self._plugged = []

    def _report(self, lost: int, why: str) -> None:
        if lost:
            self._omit(f"{lost} lines were not written: {why}")

    def _omit(self, why: str) -> None:
        self.omissions.append(Omission(what="console output", why=why))

    # -- streams -----------------------------------------------------------------------------------

    def _wrap_streams(self) -> None:
        for name, stream, descriptor in (("STDOUT", sys.stdout, 1), ("STDERR", sys.stderr, 2)):
            if stream is None or _number(stream) == descriptor:
                continue
            try:
                self._wraps.append(self._wrap(name, stream))
            except (AttributeError, TypeError) as error:
                self._omit(f"{name.lower()} cannot be wrapped: {error}")

    def _wrap(self, name: str, stream: Any) -> _Wrap:
        own = vars(stream)
        attribute = "echo" if "echo" in own else "write"
        wrap = _Wrap(
            stream=stream,
            attribute=attribute,
            before=getattr(stream, attribute),
            own=attribute in own,
            lines=tee.Lines(name, self._redact),
        )

        def hear(text: str) -> None:
            if not (wrap.ended or is_saying() or _is_echo(stream)):
                self._hear(wrap, text)

        setattr(stream, attribute, _Echo(wrap, hear) if attribute == "echo" else _writer(wrap, hear))
        return wrap

    def _hear(self, wrap: _Wrap, text: str) -> None:
        # a lock that a fork left locked in the child must not hang it
        if (log := self._log) is None or not wrap.lock.acquire(timeout=1):
            return
        try:
            log.write(wrap.lines.feed(text.encode("utf-8", "backslashreplace")))
        except Exception as error:  # the user's redact: an unredacted line must not be written instead
            log.fail(1, error)
        finally:
            wrap.lock.release()

    def _unwrap(self) -> None:
        for wrap in self._wraps:
            wrap.ended = True
            if self._log is not None:
                with contextlib.suppress(Exception):
                    self._log.write(wrap.lines.rest())
            _unwrap_ended(wrap.stream, wrap.attribute)
        self._wraps.clear()


def _writer(wrap: _Wrap, hear: Callable[[str], None]) -> Callable[[str], Any]:
    def write(text: str, /) -> Any:
        written = wrap.before(text)
        hear(text)
        return written

    write.wrap = wrap  # type: ignore[attr-defined]
    return write


class _Echo:
    """What an ipykernel stream repeats its output to."""

    def __init__(self, wrap: _Wrap, hear: Callable[[str], None]) -> None:
        self.wrap = wrap
        self._hear = hear

    def write(self, text: str) -> None:
        self._hear(text)
        if self.wrap.before is not None:
            self.wrap.before.write(text)

    def flush(self) -> None:
        if self.wrap.before is not None:
            self.wrap.before.flush()


def console() -> Literal["stdout", "stderr"]:
    """The stream that messages go to: a notebook shows all that comes from stderr as if it were an error."""
    return "stdout" if notebook.in_kernel() else "stderr"


def is_terminal(to: Literal["stdout", "stderr"]) -> bool:
    """Whether a stream is a terminal at this moment."""
    try:
        return bool(getattr(sys, to).isatty())
    except Exception:  # None, closed, or somebody's stand-in
        return False


def say(text: str, to: Literal["stdout", "stderr"] = "stderr") -> None:
    """Write whole lines as `write` does; bars of tqdm make room for them, and are drawn again below."""
    bars = []
    try:
        tqdm = getattr(sys.modules.get("tqdm"), "tqdm", None)
        streams = (sys.stdout, sys.stderr)
        bars = [bar for bar in getattr(tqdm, "_instances", ()) if any(bar.fp == stream for stream in streams)]
        for bar in bars:
            bar.clear(
                nolock=True
            )  # a forked child may have inherited the lock, held by a thread it does not have
    except Exception:  # anybody's bar: a line behind it is better than none
        pass
    write(text, to)
    for bar in bars:
        with contextlib.suppress(Exception):
            bar.refresh(nolock=True)


def write(text: str, to: Literal["stdout", "stderr"] = "stderr") -> None:
    """Write to the console of this moment, past every capture; a broken console is ignored."""
    stream = getattr(sys, to)
    if stream is None:
        return
    try:
        number = _number(stream)
        consoles = [c for capture in list(_stack) for c in capture._channels if c.descriptor == number]
        if consoles:
            stream.flush()
            for heard in reversed(_stack):
                heard.settle()
            tee.write_all(consoles[0].console, text.encode(stream.encoding or "utf-8", "backslashreplace"))
            return
        with _unheard():
            stream.write(text)
            stream.flush()
    except Exception:  # a console that is closed, full or somebody's broken object ends no run
        pass


def is_saying() -> bool:
    """Whether this thread is inside `say`, at a stream that is not a plain console."""
    return getattr(_aside, "on", False)


@contextlib.contextmanager
def _unheard() -> Iterator[None]:
    before = is_saying()
    _aside.on = True
    try:
        yield
    finally:
        _aside.on = before


def _pickled(redact: Callable[[str], str] | None) -> bytes:
    """What the helper needs to redact; it has to know where we import from first."""
    return b"" if redact is None else pickle.dumps((sys.path, pickle.dumps(redact)))


def _framed(payload: bytes) -> bytes:
    return len(payload).to_bytes(4, "big") + payload


def _answer(control: socket.socket) -> dict[str, Any]:
    """A line of JSON from the helper; ValueError if it is gone."""
    line = b""
    while not line.endswith(b"\n") and (data := control.recv(1)):
        line += data
    answer: dict[str, Any] = json.loads(line)
    return answer


def _plug() -> list[int]:
    """Lead closed standard descriptors to nowhere, lest a file of ours takes their number; those plugged."""
    plugged = []
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            plugged.append(os.open(os.devnull, os.O_RDWR))
    return plugged


def _flush() -> None:
    """Empty the buffers of Python's and C's streams."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # closed, None, or not a real stream
            stream.flush()
    with contextlib.suppress(Exception):  # no C library to be found
        import ctypes

        ctypes.CDLL(None).fflush(None)


def _number(stream: Any) -> int | None:
    """The descriptor a stream writes to; None when it has none."""
    try:
        number: int = stream.fileno()
    except Exception:  # io.UnsupportedOperation, or whatever a stand-in raises
        return None
    return number


def _channel(console: int) -> tuple[int, int]:
    """Two ends, to read and to write; a raw pseudo terminal where the console is a terminal."""
    if not os.isatty(console):
        return os.pipe()
    import termios
    import tty

    source, end = os.openpty()
    tty.setraw(end)
    with contextlib.suppress(OSError, termios.error):
        termios.tcsetwinsize(end, termios.tcgetwinsize(console))
    return source, end


def _pass_on(source: int, console: int) -> None:
    import select

    with contextlib.suppress(OSError):
        while select.select([source], [], [], 0)[0] and (data := os.read(source, tee.CHUNK)):
            tee.write_all(console, data)


def _is_echo(stream: Any) -> bool:
    """Whether ipykernel writes what it read from descriptor 1 or 2: that has been heard there."""
    return threading.current_thread() is getattr(stream, "watch_fd_thread", None)


def _unwrap_ended(stream: Any, attribute: str) -> None:
    """Take off our wraps from the outside inwards, up to one that still hears."""
    while (wrap := getattr(vars(stream).get(attribute), "wrap", None)) is not None and wrap.ended:
        if wrap.own:
            setattr(stream, attribute, wrap.before)
        else:
            delattr(stream, attribute)
