"""Copy what is printed into a log, and write to the console past that.

There are two ways to a console. *Descriptors* 1 and 2, for scripts, C code and child processes, are led through a child
process (`tee`) that outlives us, so that the last words of a crash arrive. *Streams* that do not write to those
descriptors (a Jupyter kernel's, pytest's) are listened to at the stream object itself.

A capture hears the whole process. Several may go on at once, and end in any order. Order is kept within each stream,
and for our own lines; between stdout and stderr as far as they are apart by more than a fraction of a millisecond.
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
from pathlib import Path
from typing import Any, Literal

from ..model import Omission
from . import notebook, tee

REPORT = 2.0
"""Seconds to wait for an answer of the child process: more are needed only if the console itself is stuck."""

_change = threading.RLock()
_aside = threading.local()


def _unlock_in_child() -> None:
    """A child forked while another thread held the lock must not wait for that thread."""
    global _change
    _change = threading.RLock()


os.register_at_fork(after_in_child=_unlock_in_child)


class Capture:
    """Hears stdout and stderr from `start()` to `stop()`, once.

    Never raises and never hangs: what cannot be captured is in `omissions`.

    Parameters
    ----------
    path: the log that receives the lines.
    redact: applied to each line. It is sent to the child process, as it is at `start()` and at `renew_redaction()`, so
        it must be picklable; if it is not, nothing is captured.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> with Capture(Path(folder.name, "run.log")):
    ...     print("hello")
    hello
    >>> folder.cleanup()
    """

    def __init__(self, path: Path, redact: Callable[[str], str] | None = None) -> None:
        self.path = path
        self.redact = redact
        self.log: tee.Log | None = None
        """What is heard at streams; the child process has a file of its own."""
        self.omissions: list[Omission] = []
        self._pid = 0

    def __enter__(self) -> Capture:
        return self.start()

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def start(self) -> Capture:
        """Hear everything from here on; returns itself."""
        global _tap
        with _change:
            if self._pid:
                return self
            self._pid = os.getpid()
            try:
                for descriptor in (0, 1, 2):
                    os.fstat(descriptor)  # if it is closed, a file of ours would take its number
                payload = self.pickled_redact()
                self.log = tee.Log(self.path, self.redact)
            except Exception as error:  # pickling runs foreign code
                self.omit(f"{type(error).__name__}: {error}")
                return self
            if _tap.pid != self._pid:
                _tap = _Tap()  # a forked child: the one it has inherited belongs to its parent
            _tap.add(self, payload)
        return self

    def stop(self) -> None:
        """Put everything back; wait, for a bounded time, until the log has all. May be called twice."""
        if self._pid != os.getpid():
            return  # never started; or a forked child, to which the child process does not belong
        with _change:
            log, self.log = self.log, None
            if log is not None:
                _tap.remove(self)
                log.end()
                self.report(log.lost, log.why)

    def renew_redaction(self) -> None:
        """Send on what redacts, which has learned secrets since; whatever is printed from here on meets it."""
        if self.log is not None and self._pid == os.getpid():
            _tap.send("redact", id(self), self.pickled_redact())
            _tap.settle()

    def pickled_redact(self) -> bytes:
        """What the child process needs to redact, which has to know where we import from first."""
        return pickle.dumps((sys.path, pickle.dumps(self.redact)))

    def report(self, lost: int, why: str) -> None:
        """Tell lines that could not be written."""
        if lost:
            self.omit(f"{lost} lines were not written: {why}")

    def omit(self, why: str) -> None:
        """Tell what is not captured."""
        self.omissions.append(Omission(what="console output", why=why))


class _Tap:
    """What all captures of a process share: descriptors that are led through a child process, and wrapped streams."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.captures: list[Capture] = []
        self.consoles: dict[int, int] = {}
        """Descriptor -> a duplicate of what it was."""
        self.child: subprocess.Popen[bytes] | None = None
        self._sources: list[int] = []
        """Our copies of what the child process reads: while they are open, no writer meets a broken pipe."""
        self._control: socket.socket | None = None
        self._stuck = False
        self._asking = threading.RLock()  # a signal may log in the middle of a line
        self._buffering: list[io.TextIOWrapper] = []
        self._wraps: list[_Wrap] = []
        self._hearing = threading.RLock()

    def add(self, capture: Capture, payload: bytes) -> None:
        _flush()
        running = self.child is not None
        try:
            if running:
                self.settle()  # what was said so far is not for this one
            else:
                self._start()
            self.send("add", id(capture), os.path.abspath(capture.path), payload)
            if running:
                self.settle()
            else:
                self._lead_descriptors()
        except Exception as error:
            capture.omit(f"descriptors cannot be captured: {type(error).__name__}: {error}")
            if not running:
                self._put_back()
                self._release()
        for stream, descriptor in ((sys.stdout, 1), (sys.stderr, 2)):
            if (
                stream is None
                or _number(stream) == descriptor
                or any(w.stream is stream for w in self._wraps)
            ):
                continue
            try:
                self._wraps.append(_Wrap(self, stream))
            except (AttributeError, TypeError) as error:
                capture.omit(f"{stream!r} cannot be wrapped: {error}")
        self.captures.append(capture)

    def remove(self, capture: Capture) -> None:
        _flush()
        is_last = self.captures == [capture]
        if is_last:
            self._put_back()
        if self._control is not None:
            try:
                with self._asking:
                    self.send("remove", id(capture))
                    while "lost" not in (report := self._answer()):
                        pass  # a late answer to `settle`
                capture.report(report["lost"], report["why"])
            except (OSError, ValueError) as error:
                capture.omit(f"the end of the output may be missing: {type(error).__name__}: {error}")
        self.captures.remove(capture)
        if is_last:
            self._release()

    def settle(self) -> None:
        """Wait until what was said so far has been passed on; not again after that took too long."""
        if self._control is None or self._stuck or self.pid != os.getpid():
            return  # a forked child must not take the answer from its parent
        with self._asking:  # not `_change`: our caller may hold a lock of loguru's
            try:
                self.send("sync")
                self._answer()
            except (OSError, ValueError):
                self._stuck = True

    def send(self, *message: Any) -> None:
        if self._control is not None:
            with self._asking:
                self._control.sendall(tee.framed(message))

    def _answer(self) -> dict[str, Any]:
        """A line of JSON from the child process; ValueError if it is gone."""
        line = b""
        while self._control is not None and not line.endswith(b"\n") and (data := self._control.recv(1)):
            line += data
        answer: dict[str, Any] = json.loads(line)
        return answer

    def hear(self, wrap: _Wrap, text: str) -> None:
        """Write what a stream was given to all logs."""
        if is_saying() or not self._hearing.acquire(timeout=1):  # a fork may have left it locked in the child
            return
        try:
            for capture in self.captures:
                if capture.log is not None:
                    capture.log.feed(wrap, text.encode("utf-8", "backslashreplace"))
        finally:
            self._hearing.release()

    # -- descriptors -------------------------------------------------------------------------------

    def _start(self) -> None:
        self._stuck = False
        self._control, theirs = socket.socketpair()
        self._control.settimeout(REPORT)
        self._ends: dict[int, int] = {}
        for descriptor in (1, 2):
            self.consoles[descriptor] = os.dup(descriptor)
            source, self._ends[descriptor] = os.pipe()
            self._sources.append(source)
        pairs = dict(zip(self._sources, self.consoles.values(), strict=True))
        with theirs:
            self.child = subprocess.Popen(
                [sys.executable, "-I", "-S", tee.__file__, json.dumps(pairs)],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                pass_fds=[*pairs, *pairs.values()],
                start_new_session=True,  # an interrupt at the keyboard is not for it
            )
        threading.Thread(target=self._watch, args=(self.child,), name="runctx-capture", daemon=True).start()

    def _lead_descriptors(self) -> None:
        for descriptor, end in self._ends.items():
            os.dup2(end, descriptor)
            os.close(end)
        self._ends.clear()
        for stream, descriptor in ((sys.stdout, 1), (sys.stderr, 2)):
            if not isinstance(stream, io.TextIOWrapper) or _number(stream) != descriptor:
                continue
            # written through at each line, else what Python and its children say is heard in the wrong order
            if not stream.line_buffering:
                stream.reconfigure(line_buffering=True)
                self._buffering.append(stream)

    def _watch(self, child: subprocess.Popen[bytes]) -> None:
        """If somebody kills the child process, lead the descriptors back before a writer gets stuck."""
        child.wait()
        with _change:
            if self.child is child and self.captures:
                for capture in self.captures:
                    capture.omit(
                        "the process that copies was killed; later output of C code and child processes is missing"
                    )
                sources, consoles = self._sources, [*self.consoles.values()]
                for descriptor, console in self.consoles.items():
                    os.dup2(console, descriptor)
                for source, console in zip(sources, consoles, strict=True):
                    _pass_on(source, console)
                self._release()

    def _put_back(self) -> None:
        """Nothing is led anywhere any more; the child process may still have something to pass on."""
        for descriptor, console in self.consoles.items():
            with contextlib.suppress(OSError):
                os.dup2(console, descriptor)
        for stream in self._buffering:
            with contextlib.suppress(ValueError):  # closed in the meantime
                stream.reconfigure(line_buffering=False)
        self._buffering.clear()
        for wrap in self._wraps:
            wrap.take_off()
        self._wraps.clear()

    def _release(self) -> None:
        """Let the child process go; it ends when the last writer has."""
        for number in (*self.consoles.values(), *self._sources, *self._ends.values()):
            with contextlib.suppress(OSError):
                os.close(number)
        self.consoles, self._sources, self._ends, self.child = {}, [], {}, None
        if self._control is not None:
            self._control.close()
            self._control = None


class _Wrap:
    """A stream we listen at: at `write`; or at `echo`, ipykernel's own hook, because IPython puts back `write`."""

    def __init__(self, tap: _Tap, stream: Any) -> None:
        self.stream = stream
        own = vars(stream)
        self._attribute = "echo" if "echo" in own else "write"
        self._before = getattr(stream, self._attribute)
        self._was_own = self._attribute in own
        self._tap = tap
        self._ended = False
        self._mine = self if self._attribute == "echo" else self._write_and_hear
        setattr(stream, self._attribute, self._mine)

    def _hear(self, text: str) -> None:
        # what ipykernel writes because it has read it from descriptor 1 or 2 has been heard there
        is_read = threading.current_thread() is getattr(self.stream, "watch_fd_thread", None)
        if not (self._ended or is_read):
            self._tap.hear(self, text)

    def _write_and_hear(self, text: str, /) -> Any:
        written = self._before(text)
        self._hear(text)
        return written

    def write(self, text: str) -> None:  # as an echo
        self._hear(text)
        if self._before is not None:
            self._before.write(text)

    def flush(self) -> None:
        if self._before is not None:
            self._before.flush()

    def take_off(self) -> None:
        """Unless somebody else has wrapped the stream since: then it only passes on from here."""
        self._ended = True
        if vars(self.stream).get(self._attribute) is self._mine:
            if self._was_own:
                setattr(self.stream, self._attribute, self._before)
            else:
                delattr(self.stream, self._attribute)


_tap = _Tap()


# -- our own lines -----------------------------------------------------------------------------------------


def stream_for_messages() -> Literal["stdout", "stderr"]:
    """The stream that messages go to: a notebook shows all that comes from stderr as if it were an error."""
    return "stdout" if notebook.in_kernel() else "stderr"


def is_terminal(to: Literal["stdout", "stderr"]) -> bool:
    """Whether a stream is a terminal at this moment, captured or not."""
    try:
        stream = getattr(sys, to)
        console = _tap.consoles.get(_number(stream) or -1)
        return bool(stream.isatty() if console is None else os.isatty(console))
    except Exception:  # None, closed, or somebody's stand-in
        return False


def say(text: str, to: Literal["stdout", "stderr"] = "stderr") -> None:
    """Write whole lines as `write` does; bars of tqdm make room for them, and are drawn again below."""
    with contextlib.ExitStack() as stack:
        tqdm = getattr(sys.modules.get("tqdm"), "tqdm", None)
        if tqdm is not None:
            with contextlib.suppress(Exception):  # anybody's bar: a line behind it is better than none
                # a forked child may have inherited the lock, held by a thread it does not have
                stack.enter_context(tqdm.external_write_mode(file=getattr(sys, to), nolock=True))
        write(text, to)


def write(text: str, to: Literal["stdout", "stderr"] = "stderr") -> None:
    """Write to the console of this moment, past every capture; a broken console is ignored."""
    stream = getattr(sys, to)
    if stream is None:
        return
    try:
        console = _tap.consoles.get(_number(stream) or -1)
        if console is not None:
            stream.flush()
            _tap.settle()
            tee.write_all(console, text.encode(stream.encoding or "utf-8", "backslashreplace"))
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


def _pass_on(source: int, console: int) -> None:
    import select

    with contextlib.suppress(OSError):
        while select.select([source], [], [], 0)[0] and (data := os.read(source, tee.CHUNK)):
            tee.write_all(console, data)
