"""What did the run say? One logger per run: its lines go to the console and, whole, to `run.log`.

`run.logger` belongs to a loguru core of our own, so that nothing the user does to the global logger
(`remove`, `configure`) reaches it; one pair of handlers per process serves all runs, since `loguru.add` takes
3 ms. What else is said joins in: lines of the global loguru logger, and records of the standard `logging`
(INFO and up). Their console output stays theirs, as do their levels: what the user's level holds back (for
`logging`, by default, all below WARNING) is not heard here either.

A line without a run of its own goes to the current run of its thread or task; where there is none (a new
thread knows nothing of it), to the only active run; and if several are active, to all of them, marked
`[unattributed]`. What a task of `run.map` says, through whichever logger, is marked with the task.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import logging
import os
import re
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..errors import SettingsError
from ..model import Omission
from . import capture, tee

if TYPE_CHECKING:
    import loguru

_KEY = "runctx"
"""Where a record of `run.logger` carries its run, in loguru's `extra`."""
_WHERE = "{name}:{function}:{line}"
_LINE = "{{time:YYYY-MM-DD HH:mm:ss.SSS}} | {{level: <8}} | {where} - "
_COLOURED = (
    "<green>{{time:YYYY-MM-DD HH:mm:ss.SSS}}</green> | <level>{{level: <8}}</level> | <cyan>{where}</cyan> - "
)
_OURSELVES = "runctx"
_UNATTRIBUTED = "[unattributed] "

_current: ContextVar[tuple[RunLog, ...]] = ContextVar("runctx_logs", default=())
_active: list[RunLog] = []
"""One entry per activation, in this process."""
_mark: ContextVar[object] = ContextVar("runctx_mark", default="")
"""What the lines of this thread or task are marked with; asked for its text when a line is written."""
_relaying = threading.local()


class RunLog:
    """The log of one run.

    Nothing here raises or waits once it is made: lines that cannot be written are counted in `omissions`.
    Each line is one `write` to an append-only file, so that a kill loses none, and processes that share the
    file tear none.

    It can be pickled, and with it `logger` and functions that use it: the copy appends to the same file.
    Lines of `logger.bind(task=key)` (or `contextualize`) are marked `[key]`.

    Parameters
    ----------
    path: the file, by convention `run.log`; the folder must exist.
    run_id: the run's id.
    console: whether lines also go to `sys.stderr`, as it is at the moment they are written; of a notebook, and of what
        its workers say, to `sys.stdout`.
    level: the lowest level shown there, by name or number; the file gets DEBUG and up.
    redact: applied to each line before it goes anywhere. Picklable, if the logger is to be pickled or
        output is to be captured.

    Raises
    ------
    SettingsError: there is no such level.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> log = RunLog(Path(folder.name, "run.log"), "train-251121-120000-abc123", console=False)
    >>> log.logger.info("lr={}", 0.1)
    >>> log.close()
    >>> Path(folder.name, "run.log").read_text().rpartition(" - ")[2]
    'lr=0.1\\n'
    >>> folder.cleanup()
    """

    def __init__(
        self,
        path: Path,
        run_id: str,
        *,
        console: bool = True,
        level: str | int = "INFO",
        redact: Callable[[str], str] | None = None,
        stream: Literal["stdout", "stderr"] | None = None,
    ) -> None:
        self.path = Path(path).absolute()
        self.run_id = run_id
        self.console = console
        self._stream = stream or capture.console()
        self._redact = redact
        self._lost = 0
        self._why = ""
        self._capture: capture.Capture | None = None
        core = _own_core()
        self._console_level = _level_number(core, level)
        self.logger: loguru.Logger = _logger_of(core).bind(**{_KEY: self})
        self._ours = self.logger.patch(_sign)
        self._file: Any = None
        try:
            self._file = open(path, "ab", buffering=0)  # noqa: SIM115 - closed by close()
        except OSError as error:
            self._lose(error)

    def __repr__(self) -> str:
        return f"<RunLog {self.run_id} at {self.path}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, (
            self.path,
            self.run_id,
            self.console,
            self._console_level,
            self._redact,
            self._stream,
        )

    def at(self, path: Path) -> RunLog:
        """The log of the same run in another file of this process, and not on the console."""
        return _reopened(path, self.run_id, False, self._console_level, self._redact, self._stream)

    @property
    def omissions(self) -> list[Omission]:
        """What was said and is not in the file."""
        lost = [Omission(what=self.path.name, why=f"{self._lost} lines were not written: {self._why}")]
        return (lost if self._lost else []) + (self._capture.omissions if self._capture else [])

    def activate(self) -> None:
        """Make this the current run of the calling thread or task, until `deactivate`."""
        listen()
        _active.append(self)
        _current.set((*_current.get(), self))

    def deactivate(self) -> None:
        """Undo one `activate`; from whatever thread, task or notebook cell.

        A context that still names the run (each cell of a notebook has its own) is harmless: a run that is
        not active is passed over.
        """
        if self in _active:
            _active.remove(self)
        stack = list(_current.get())
        if self in stack:
            stack.reverse()
            stack.remove(self)
            _current.set(tuple(reversed(stack)))

    def say(self, level: str, message: str) -> None:
        """Say something of our own, to the file and the console."""
        self._ours.log(level, message)

    def warn(self, message: str) -> None:
        """Say that something was left out or looks unintended."""
        self.say("WARNING", message)

    def capture(self) -> capture.Capture:
        """Hear what the process prints as well, until the result is stopped or the log is closed; once.

        Our own console lines are not heard, but for those of fresh worker processes, and so are there twice;
        like those of the user's other loggers, of which we cannot tell where they print.
        """
        if self._capture is None:
            self._capture = capture.Capture(self.path, self._redact)
        return self._capture.start()

    def renew_redaction(self) -> None:
        """Let what captures output know the secrets that were learned since it began."""
        if self._capture is not None:
            self._capture.renew_redaction()

    def close(self) -> None:
        """End capture and file. Later lines go to the console only. Never raises; may be called twice."""
        while self in _active:
            self.deactivate()
        if self._capture is not None:
            try:
                self._capture.stop()
            except Exception as error:  # streams may be anybody's objects
                self._lose(error)
        file, self._file = self._file, None
        if file is not None:
            try:
                file.close()
            except OSError as error:  # some network file systems report a full disk only now
                self._lose(error)

    def _shows(self, number: int) -> bool:
        return self.console and number >= self._console_level

    def _colours(self) -> bool:
        return not os.environ.get("NO_COLOR") and capture.is_terminal(self._stream)

    def _print(self, text: str) -> None:
        capture.say(text, self._stream)

    def clean(self, text: str) -> str:
        """The text without secrets."""
        if self._redact is None:
            return text
        try:
            return self._redact(text)
        except Exception as error:  # the user's function; the raw line may hold what it should have hidden
            self._lose(error)
            return "(line withheld: redact failed)\n"

    def _append(self, text: str) -> None:
        """Write all at once. A file object, not a number, which after a close may be another file's."""
        file = self._file
        if file is None:
            return
        data = text.encode("utf-8", "backslashreplace")
        try:
            _require_linked(file.fileno())
            written = file.write(data)
            while written < len(data):  # a disk about to fill up takes a part
                written += file.write(data[written:])
        except (OSError, ValueError) as error:
            if self._file is not None:
                self._lose(error)

    def _lose(self, error: Exception) -> None:
        self._lost += 1
        if self._lost == 1:
            self._why = f"{type(error).__name__}: {error}"
            if self.console:
                self._print(f"runctx: cannot write {self.path}; the run continues: {self._why}\n")


@contextlib.contextmanager
def marked(mark: object) -> Iterator[None]:
    """Lines that this thread or task says meanwhile are marked with `str(mark)`, if that is not empty."""
    token = _mark.set(mark)
    try:
        yield
    finally:
        _mark.reset(token)


def _marked() -> str:
    text = str(_mark.get())
    return f"[{text}] " if text else ""


_copies: weakref.WeakValueDictionary[Path, RunLog] = weakref.WeakValueDictionary()
"""Those that somebody still uses: a worker may serve ten thousand runs, with a file open for each."""


def _reopened(
    path: Path,
    run_id: str,
    console: bool,
    level: int,
    redact: Callable[[str], str] | None,
    stream: Literal["stdout", "stderr"],
) -> RunLog:
    """The log a pickled one stands for, in this process: the original where it lives here, else one copy."""
    for log in (*_active, *_copies.values()):
        if log.path == path and log._file is not None:
            if log is _copies.get(path):
                log._redact = redact  # the latest knows more secrets
            return log
    copy = _copies[path] = RunLog(path, run_id, console=console, level=level, redact=redact, stream=stream)
    if copy._file is not None:
        weakref.finalize(copy, copy._file.close).atexit = False  # what is said at the very end still arrives
    return copy


def _require_linked(descriptor: int) -> None:
    if os.fstat(descriptor).st_nlink == 0:
        raise FileNotFoundError("the file was deleted")


def _addressees() -> tuple[list[RunLog], str]:
    """The runs a line without a run of its own belongs to, and what to mark it with."""
    for log in reversed(_current.get()):
        if log in _active:
            return [log], ""
    everyone = list(dict.fromkeys(_active))
    return everyone, _UNATTRIBUTED if len(everyone) > 1 else ""


def _tell(text: str) -> None:
    for log in _addressees()[0]:
        log._append(log.clean(tee.without_colours(text)))


# -- our own core ------------------------------------------------------------------------------------------


def _global_logger() -> Any:
    """Loguru's only public logger. Untyped, for its core is private; what we use of it is pinned by tests."""
    from loguru import logger

    return logger


def _logger_of(core: Any) -> Any:
    """A loguru logger on that core. Made as `loguru/__init__.py` makes the global one."""
    return type(_global_logger())(core, None, 0, False, False, False, False, True, [], {})


@functools.cache
def _core_class() -> type:
    base: Any = type(_global_logger()._core)

    class Core(base):  # type: ignore[misc]
        """A core that stays in its process: a pickled logger finds the one of the process it wakes up in."""

        def __reduce__(self) -> tuple[Any, ...]:
            return _own_core, ()

    return Core


@functools.cache
def _own_core() -> Any:
    core = _core_class()()
    for shared in ("levels", "levels_lookup", "levels_ansi_codes"):
        # levels the user adds to the global logger are levels here
        setattr(core, shared, getattr(_global_logger()._core, shared))
    own = _logger_of(core)
    options: dict[str, Any] = {"level": 0, "diagnose": False, "backtrace": True}
    _Sink(core, _write_own).add(own, format=_own_format, filter=_is_bound, **options)
    _Sink(core, _show_own).add(own, format=_coloured_format, filter=_is_coloured, colorize=True, **options)
    return core


class _Sink:
    """A loguru sink that comes back after `logger.remove()`.

    Loguru calls `stop` while it holds the core's lock and has the handler taken out, so a twin can be put in
    its place at once. (Pinned by a test: this is not documented.)
    """

    def __init__(self, core: Any, write: Callable[[str], None]) -> None:
        self._core = core
        self.write = write
        self._id = -1
        self._twin: Any = None

    def __reduce__(self) -> tuple[Any, ...]:
        return _Sink, (
            None,
            self.write,
        )  # in a pickled copy of the user's logger: it writes, and may be removed

    def add(self, logger: Any, **options: Any) -> None:
        self._id = logger.add(self, **options)
        self._twin = self._core.handlers[self._id]
        # Our sinks need no lock, and with one loguru refuses what a signal's handler says amid another line.
        self._twin._protected_lock = contextlib.nullcontext

    def stop(self) -> None:
        if self._core is None or sys.is_finalizing():
            return
        handler = copy.copy(self._twin)
        handler._sink, handler._stopped = self._twin._sink, False
        self._core.min_level = min(self._core.min_level, handler.levelno)
        self._core.handlers = {**self._core.handlers, self._id: handler}


def _level_number(core: Any, level: str | int) -> int:
    if isinstance(level, int):
        return level
    try:
        number: int = core.levels[level.upper()].no
    except KeyError:
        raise SettingsError(
            f"unknown log level {level!r}", hint=f"use one of: {', '.join(core.levels)}"
        ) from None
    return number


def _sign(record: Any) -> None:
    """Where our own lines stand in our code helps nobody."""
    record.update(name=_OURSELVES)


def _where(record: Any) -> str:
    return _OURSELVES if record["name"] == _OURSELVES else _WHERE


def _own_format(record: Any) -> str:
    return _LINE.format(where=_where(record)) + _task(record) + "{message}\n{exception}"


def _coloured_format(record: Any) -> str:
    return _COLOURED.format(where=_where(record)) + _task(record) + "<level>{message}</level>\n{exception}"


def _task(record: Any) -> str:
    if "task" not in record["extra"] and (mark := str(_mark.get())):
        record["extra"]["task"] = mark
    return "[{extra[task]}] " if "task" in record["extra"] else ""


def _is_bound(record: Any) -> bool:
    """Not when a stand-in for `sys.stderr` sends our own line back to us: that is a loop."""
    return isinstance(record["extra"].get(_KEY), RunLog) and not capture.is_saying()


def _is_coloured(record: Any) -> bool:
    if not _is_bound(record):
        return False
    log: RunLog = record["extra"][_KEY]
    return log._shows(record["level"].no) and log._colours()


def _write_own(message: Any) -> None:
    log: RunLog = message.record["extra"][_KEY]
    plain = log.clean(tee.without_colours(message))  # colours may part the name of a secret from its value
    if message.record["level"].no >= logging.DEBUG:
        log._append(plain)
    if log._shows(message.record["level"].no) and not log._colours():
        log._print(log.clean(message) if "\x1b" in message else plain)


def _show_own(message: Any) -> None:
    log: RunLog = message.record["extra"][_KEY]
    log._print(log.clean(str(message)))


# -- what others say ---------------------------------------------------------------------------------------


@functools.cache
def listen() -> None:
    """Let the global loguru logger and the standard logging join the active runs; once per process."""
    _own_core()
    logger = _global_logger()
    sink = _Sink(logger._core, _write_global)
    sink.add(logger, level="DEBUG", format=_global_format, filter=_joins, diagnose=False, backtrace=True)
    _hear_logging()


def _global_format(record: Any) -> str:
    marks = _addressees()[1] + _marked()
    marks = _TAG.sub(r"\\\g<0>", marks.replace("{", "{{").replace("}", "}}"))
    return _LINE.format(where=_WHERE) + marks + "{message}\n{exception}"


_TAG = re.compile(r"</?(?:[fb]g\s)?[^<>\s]*>")
"""What loguru takes for a colour."""


def _joins(record: Any) -> bool:
    """Not without a run; nor a record that logging passed on to loguru, nor our own console line."""
    passed_on = getattr(_relaying, "message", None) == record["message"]
    return bool(_active) and not passed_on and not capture.is_saying()


def _write_global(message: Any) -> None:
    _tell(str(message))


def _hear_logging() -> None:
    """Stand in for `logging.Logger.callHandlers`.

    Not a handler on the root logger: that would turn `logging.basicConfig()` into a no-op and silence the
    handler of last resort, and `logging.config` would take it away. It also hears loggers that do not
    propagate.
    """
    original = logging.Logger.callHandlers

    def callHandlers(self: logging.Logger, record: logging.LogRecord) -> None:  # noqa: N802 - the name it replaces
        if not _active or record.levelno < logging.INFO or capture.is_saying():
            return original(self, record)
        before = getattr(_relaying, "message", None)
        _relaying.message = _told(record)
        try:
            return original(self, record)
        finally:
            _relaying.message = before

    # The usual recipe that forwards logging to loguru finds the caller by skipping frames of logging's file.
    callHandlers.__code__ = callHandlers.__code__.replace(co_filename=original.__code__.co_filename)
    logging.Logger.callHandlers = callHandlers  # type: ignore[method-assign]


def _told(record: logging.LogRecord) -> str | None:
    """Write a record; its message, or None if it cannot be put into words."""
    try:
        message = record.getMessage()
        if not _comes_from_loguru(record):
            _tell(_standard_line(record, message))
    except Exception:  # wrong arguments to the format: logging itself reports it, in its own way
        return None
    return message


def _comes_from_loguru(record: logging.LogRecord) -> bool:
    """Whether loguru passes on a line of its own (recipe `PropagateHandler`), which has joined already."""
    if not isinstance(getattr(record, "extra", None), dict):
        return False
    frame = sys._getframe()
    while (frame := frame.f_back) is not None:  # type: ignore[assignment]
        if frame.f_globals.get("__name__") == "loguru._handler":
            return True
    return False


def _standard_line(record: logging.LogRecord, message: str) -> str:
    import time

    stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
    where = f"{record.name}:{record.funcName}:{record.lineno}"
    said = f"{_addressees()[1]}{_marked()}{message}"
    line = f"{stamp}.{int(record.msecs):03d} | {record.levelname: <8} | {where} - {said}\n"
    if record.exc_info:
        line += logging.Formatter().formatException(record.exc_info) + "\n"
    return line
