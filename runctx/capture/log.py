"""Write what a run logs: one logger per run, whose lines go to the console and, whole, to `run.log`.

`run.logger` belongs to a loguru core of our own, so that nothing the user does to the global logger (`remove`,
`configure`) reaches it; one pair of handlers per process serves all runs, since `loguru.add` takes 3 ms. Lines of the
global loguru logger and records of the standard `logging` (INFO and up) join in. Their console output stays theirs, as
do their levels: what the user's level holds back (for `logging`, by default, all below WARNING) is not heard here.

A line without a run of its own goes to the current run of its thread or task; where there is none (a new thread knows
nothing of it), to the only active run; and if several are active, to all of them, marked `[unattributed]`. What a task
of `run.map` says, through whichever logger, is marked with the task.
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
import time
import weakref
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..errors import SettingsError
from ..model import Omission
from . import console as console_
from .tee import without_colours

if TYPE_CHECKING:
    import loguru

_KEY = "runctx"
"""Where a record of `run.logger` carries its run, in loguru's `extra`."""
_OURSELVES = "runctx"
_UNATTRIBUTED = "[unattributed] "
_TAG = re.compile(r"</?(?:[fb]g\s)?[^<>\s]*>")
"""What loguru takes for a colour."""

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
        self._stream = stream or console_.stream_for_messages()
        self._redact = redact
        self._lost, self._why = 0, ""
        self._capture: console_.Capture | None = None
        core = _own_core()
        self._console_level = _level_number(core, level)
        self.logger: loguru.Logger = _logger_of(core).bind(**{_KEY: self})
        # where our own lines stand in our code helps nobody
        self._ours = self.logger.patch(lambda record: record.update(name=_OURSELVES))
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
            del stack[len(stack) - 1 - stack[::-1].index(self)]
            _current.set(tuple(stack))

    def say(self, level: str, message: str) -> None:
        """Say something of our own, to the file and the console."""
        self._ours.log(level, message)

    def warn(self, message: str) -> None:
        """Say that something was left out or looks unintended."""
        self.say("WARNING", message)

    def capture(self) -> console_.Capture:
        """Hear what the process prints as well, until the result is stopped or the log is closed; once.

        Our own console lines are not heard, but for those of fresh worker processes, and so are there twice;
        like those of the user's other loggers, of which we cannot tell where they print.
        """
        if self._capture is None:
            self._capture = console_.Capture(self.path, self._redact)
        return self._capture.start()

    def renew_redaction(self) -> None:
        """Let what captures output know the secrets that were learned since it began."""
        if self._capture is not None:
            self._capture.renew_redaction()

    def close(self) -> None:
        """End capture and file. Later lines go to the console only. Never raises; may be called twice."""
        while self in _active:
            self.deactivate()
        file, self._file = self._file, None
        try:
            if self._capture is not None:
                self._capture.stop()
            if file is not None:
                file.close()
        except Exception as error:  # streams may be anybody's objects; a full disk is reported late by some
            self._lose(error)

    def hear(self, message: Any) -> None:
        """Write a line of the logger, which loguru has formatted, to the file, and to a console without colours."""
        plain = self.clean(without_colours(message))  # colours may part the name of a secret from its value
        level = message.record["level"].no
        if level >= logging.DEBUG:
            self.append(plain)
        if self.console and level >= self._console_level and not self.is_coloured():
            console_.say(self.clean(message) if "\x1b" in message else plain, self._stream)

    def show(self, message: Any) -> None:
        """Show a line with colours."""
        if self.console and message.record["level"].no >= self._console_level:
            console_.say(self.clean(str(message)), self._stream)

    def is_coloured(self) -> bool:
        """Whether the console shows colours."""
        return not os.environ.get("NO_COLOR") and console_.is_terminal(self._stream)

    def clean(self, text: str) -> str:
        """The text without secrets."""
        if self._redact is None:
            return text
        try:
            return self._redact(text)
        except Exception as error:  # the user's function; the raw line may hold what it should have hidden
            self._lose(error)
            return "(line withheld: redact failed)\n"

    def append(self, text: str) -> None:
        """Write all at once. A file object, not a number, which after a close may be another file's."""
        file = self._file
        if file is None:
            return
        data = text.encode("utf-8", "backslashreplace")
        try:
            if os.fstat(file.fileno()).st_nlink == 0:
                raise FileNotFoundError("the file was deleted")
            while data:  # a disk about to fill up takes a part
                data = data[file.write(data) :]
        except (OSError, ValueError) as error:
            if self._file is not None:
                self._lose(error)

    def _lose(self, error: Exception) -> None:
        self._lost += 1
        if self._lost == 1:
            self._why = f"{type(error).__name__}: {error}"
            if self.console:
                text = f"runctx: cannot write {self.path}; the run continues: {self._why}\n"
                console_.say(text, self._stream)


@contextlib.contextmanager
def marked(mark: object) -> Iterator[None]:
    """Lines that this thread or task says meanwhile are marked with `str(mark)`, if that is not empty."""
    token = _mark.set(mark)
    try:
        yield
    finally:
        _mark.reset(token)


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


# -- our own core. Loguru has no public way to a second one; docs/decisions.md names what is used of its inside ----


def _global_logger() -> Any:
    """Untyped, for its core is private."""
    from loguru import logger

    return logger


def _logger_of(core: Any) -> Any:
    """A loguru logger on that core. Made as `loguru/__init__.py` makes the global one."""
    return type(_global_logger())(core, None, 0, False, False, False, False, True, [], {})


@functools.cache
def _own_core() -> Any:
    theirs = _global_logger()._core
    core = _core_class()()
    for shared in ("levels", "levels_lookup", "levels_ansi_codes"):
        setattr(
            core, shared, getattr(theirs, shared)
        )  # levels the user adds to the global logger are levels here
    own = _logger_of(core)
    _Sink(core, _hear).add(own, level=0, format=_line(), filter=_is_bound, diagnose=False, backtrace=True)
    _Sink(core, _show).add(
        own, level=0, format=_line(True), filter=_is_coloured, diagnose=False, backtrace=True, colorize=True
    )
    return core


@functools.cache
def _core_class() -> type:
    base: Any = type(_global_logger()._core)

    class Core(base):  # type: ignore[misc]
        """A core that stays in its process: a pickled logger finds the one of the process it wakes up in."""

        def __reduce__(self) -> tuple[Any, ...]:
            return _own_core, ()

    return Core


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


def _line(colours: bool = False) -> Callable[[Any], str]:
    """Formats a record of `run.logger`."""
    time, level, place, message = (
        ("<green>{time:YYYY-MM-DD HH:mm:ss.SSS}</green>", "<level>{level: <8}</level>", "<cyan>%s</cyan>")
        if colours
        else ("{time:YYYY-MM-DD HH:mm:ss.SSS}", "{level: <8}", "%s")
    ) + ("<level>{message}</level>" if colours else "{message}",)

    def line(record: Any) -> str:
        if "task" not in record["extra"] and (mark := str(_mark.get())):
            record["extra"]["task"] = mark
        task = "[{extra[task]}] " if "task" in record["extra"] else ""
        where = place % (_OURSELVES if record["name"] == _OURSELVES else "{name}:{function}:{line}")
        return f"{time} | {level} | {where} - {task}{message}\n{{exception}}"

    return line


def _is_bound(record: Any) -> bool:
    """Not when a stand-in for `sys.stderr` sends our own line back to us: that is a loop."""
    return isinstance(record["extra"].get(_KEY), RunLog) and not console_.is_saying()


def _is_coloured(record: Any) -> bool:
    return _is_bound(record) and record["extra"][_KEY].is_coloured()


def _hear(message: Any) -> None:
    message.record["extra"][_KEY].hear(message)


def _show(message: Any) -> None:
    message.record["extra"][_KEY].show(message)


# -- lines of other loggers --------------------------------------------------------------------------------


@functools.cache
def listen() -> None:
    """Let the global loguru logger and the standard logging join the active runs; once per process."""
    _own_core()
    logger = _global_logger()
    sink = _Sink(logger._core, _tell)
    sink.add(logger, level="DEBUG", format=_global_line, filter=_joins, diagnose=False, backtrace=True)
    _hear_logging()


def _addressees() -> tuple[list[RunLog], str]:
    """The runs a line without a run of its own belongs to, and what to mark it with."""
    mark = str(_mark.get())
    mark = f"[{mark}] " if mark else ""
    for log in reversed(_current.get()):
        if log in _active:
            return [log], mark
    everyone = list(dict.fromkeys(_active))
    return everyone, (_UNATTRIBUTED if len(everyone) > 1 else "") + mark


def _tell(text: str) -> None:
    for log in _addressees()[0]:
        log.append(log.clean(without_colours(str(text))))


def _global_line(record: Any) -> str:
    marks = _TAG.sub(r"\\\g<0>", _addressees()[1].replace("{", "{{").replace("}", "}}"))
    place = "{time:YYYY-MM-DD HH:mm:ss.SSS} | {level: <8} | {name}:{function}:{line}"
    return f"{place} - {marks}{{message}}\n{{exception}}"


def _joins(record: Any) -> bool:
    """Not without a run; nor a record that logging passed on to loguru, nor our own console line."""
    passed_on = getattr(_relaying, "message", None) == record["message"]
    return bool(_active) and not passed_on and not console_.is_saying()


def _hear_logging() -> None:
    """Stand in for `logging.Logger.callHandlers`.

    Not a handler on the root logger: that would turn `logging.basicConfig()` into a no-op and silence the
    handler of last resort, and `logging.config` would take it away. It also hears loggers that do not
    propagate.
    """
    original = logging.Logger.callHandlers

    def callHandlers(self: logging.Logger, record: logging.LogRecord) -> None:  # noqa: N802 - the name it replaces
        if not _active or record.levelno < logging.INFO or console_.is_saying():
            return original(self, record)
        before = getattr(_relaying, "message", None)
        _relaying.message = _write_record(record)
        try:
            return original(self, record)
        finally:
            _relaying.message = before

    # The usual recipe that forwards logging to loguru finds the caller by skipping frames of logging's file.
    callHandlers.__code__ = callHandlers.__code__.replace(co_filename=original.__code__.co_filename)
    logging.Logger.callHandlers = callHandlers  # type: ignore[method-assign]


def _write_record(record: logging.LogRecord) -> str | None:
    """Write a record of the standard logging; its message, or None if it cannot be put into words."""
    try:
        message = record.getMessage()
        if not _comes_from_loguru(record):
            stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
            place = f"{record.name}:{record.funcName}:{record.lineno} - {_addressees()[1]}"
            line = f"{stamp}.{int(record.msecs):03d} | {record.levelname: <8} | {place}{message}\n"
            if record.exc_info:
                line += logging.Formatter().formatException(record.exc_info) + "\n"
            _tell(line)
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
