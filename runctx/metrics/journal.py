"""Write and read the journals of a run: files in `metrics/` with one line for each call of `log_async`.

A call appends its line by one write and returns, so that what was logged survives any kill. Every process and thread
has a file of its own: no two writers meet, on whatever file system.
"""

from __future__ import annotations

import errno
import itertools
import math
import operator
import os
import secrets
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from time import time
from typing import Annotated, Any

import msgspec

from .. import layout
from ..errors import LedgerError, RunStateError

SUFFIX = ".jsonl"
LONGEST_LINE = 64 << 20
"""Bytes: more than anybody logs at once."""

_LEAST, _MOST = -(2.0**63), 2.0**63
"""Readers of JSON take numbers beyond these for something else."""
_FIRST, _LAST = -(1 << 63), (1 << 63) - 1
"""Steps that trackers take."""
_CHUNK = 1 << 20
_REMEMBERED = 1000
"""Names that need not be checked again: as many as a training may have."""

_Text = Annotated[str, msgspec.Meta(pattern=r"^(nan|-?inf|-?\d+(\.\d+)?e\+\d+)$")]


class Point(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """What one call has logged."""

    time: float
    """Seconds since 1970."""
    values: dict[str, float | _Text]
    """Name -> number; NaN, infinities and very large numbers, which JSON does not have, as text."""
    step: Annotated[int, msgspec.Meta(ge=_FIRST, le=_LAST)] | None = None
    task: str | None = None
    """Key of the task it was logged in."""


_encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder(Point)


# -- writing -----------------------------------------------------------------------------------------------


class Journal:
    """Appends the points of one run.

    Parameters
    ----------
    folder: `metrics` in the run's folder; made with the first point.
    lose: called once, with the reason, when points cannot be written; training goes on.

    >>> import tempfile
    >>> journal = Journal(Path(tempfile.mkdtemp()) / "metrics", lose=print)
    >>> journal.append({"loss": 0.3}, step=7)
    >>> [(point.step, point.values) for point in read(journal.folder)]
    [(7, {'loss': 0.3})]
    """

    def __init__(self, folder: Path, lose: Callable[[str], None], name: str = "") -> None:
        self.folder = folder
        self._lose, self._lost = lose, False
        self._name = name
        self._own = _Own()
        self._writers: set[weakref.ref[_Writer]] = set()  # of all threads of this process
        self._closed = False
        self._known: set[str] = set()

    def append(self, values: dict[str, Any], step: Any = None, task: str | None = None) -> None:
        """Write one line; when this returns, a kill cannot lose it.

        Parameters
        ----------
        values: name -> a number: Python's, numpy's or torch's scalars, Decimal, Fraction; NaN and infinities too.
        step: a whole number of 64 bits.

        Raises
        ------
        TypeError: a value is no number; names it. RunStateError: it was closed. Nothing is written then.
        """
        for name, value in values.items():  # called all the time, and mostly with plain numbers
            if not (type(value) is float and _LEAST < value < _MOST and name in self._known):
                values = self._checked(values)
                break
        if type(step) is not int or not _FIRST <= step <= _LAST:
            step = _whole(step)
        line = _encode(Point(time(), values, step, task)) + b"\n"
        try:
            writer = self._own.writer
            if writer is None or writer.forks != _forks:  # a forked child inherits its parent's writer
                writer = self._opened()
            writer.write(line)
        except OSError as error:
            if not self._lost:
                self._lost = True
                self._lose(f"{type(error).__name__}: {error}")

    def close(self) -> None:
        """Close the files of all threads; nothing can be appended any more."""
        self._closed = True
        for ref in list(self._writers):
            if (writer := ref()) is not None:
                writer.close()

    def _checked(self, values: dict[str, Any]) -> dict[str, float | str]:
        for name in values:
            _check_name(name)
        numbers = {name: _number(name, value) for name, value in values.items()}
        if len(self._known) > _REMEMBERED:
            self._known.clear()
        self._known.update(numbers)
        return numbers

    def _opened(self) -> _Writer:
        self.folder.mkdir(exist_ok=True)
        writer = self._own.writer = _Writer(self.folder, self._name)
        self._writers.add(weakref.ref(writer, self._writers.discard))  # it is closed with its thread
        if self._closed:  # meanwhile, by another thread
            writer.close()
        return writer


class _Writer:
    """One file of one thread of one process."""

    def __init__(self, folder: Path, name: str) -> None:
        self.forks = _forks
        self._lock = threading.Lock()  # a descriptor that is closed may be another file's a moment later
        path = folder / f"{name}{os.getpid()}-{secrets.token_hex(4)}{SUFFIX}"
        self.descriptor = open_new(path)

    def write(self, line: bytes) -> None:
        with self._lock:
            if self.descriptor < 0:
                raise RunStateError(
                    "run.log_async() was called after the run had ended", hint="call it inside the block"
                )
            written = os.write(self.descriptor, line)
            if written != len(line):  # half a line would spoil the next one, too
                os.ftruncate(self.descriptor, os.fstat(self.descriptor).st_size - written)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def close(self) -> None:
        with self._lock:
            descriptor, self.descriptor = self.descriptor, -1
            if descriptor >= 0:
                os.close(descriptor)

    def __del__(self) -> None:  # without the lock: only a thread that a fork left behind may hold it
        if getattr(self, "descriptor", -1) >= 0:
            os.close(self.descriptor)


class _Own(threading.local):
    writer: _Writer | None = None


_forks = 0
"""Between the process that loaded this module and this one; os.getpid() would cost half as much as the write."""


def _count_fork() -> None:
    global _forks
    _forks += 1


os.register_at_fork(after_in_child=_count_fork)


def open_new(path: Path) -> int:
    """Descriptor of a new journal, to append to."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o666)


def _check_name(name: Any) -> None:
    if name == "":
        raise TypeError("a metric's name is empty\nhint: log_async(loss=0.3) or log_async({'val/loss': 0.3})")
    if not isinstance(name, str):
        raise TypeError(f"a metric's name must be a str; got {name!r} ({type(name).__name__})")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise TypeError(f"a metric's name must be text in UTF-8; got {name!r}") from None


def _number(name: str, value: Any) -> float | str:
    kind = type(value)
    if kind is not float and kind is not int:
        if isinstance(value, (str, bytes)) or getattr(value, "ndim", None):
            raise TypeError(f"metric {name!r} must be one number; got {value!r:.80} ({kind.__name__})")
        try:
            value = float(value)
        except (TypeError, ValueError, OverflowError, RuntimeError) as error:
            raise TypeError(f"metric {name!r} must be a number; got {kind.__name__}: {error}") from error
    try:
        return value if _LEAST < value < _MOST else str(float(value))
    except OverflowError:
        raise TypeError(f"metric {name!r}: a whole number of {len(str(value))} digits is too large") from None


def _whole(step: Any) -> int | None:
    if step is None:
        return None
    try:
        whole = operator.index(step)
    except TypeError:
        raise TypeError(f"step must be an int; got {step!r:.80} ({type(step).__name__})") from None
    if not _FIRST <= whole <= _LAST:
        raise TypeError(f"step must fit into 64 bits; got {whole.bit_length() + 1} bits")
    return whole


# -- reading -----------------------------------------------------------------------------------------------


def files(folder: Path) -> list[Path]:
    """The journals of a run, one for each writer."""
    return sorted(folder.glob(f"*{SUFFIX}"))


def decode(line: bytes) -> Point:
    """
    Raises
    ------
    ValueError: the line is no point.
    """
    try:
        return _decoder.decode(line)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error


def read_file(path: Path) -> Iterator[tuple[float, Point]]:
    """The points of one writer, each with the time that it counts for; what a kill cut off is left out.

    A clock may step back while a run logs; the order of the lines does not. No point counts as earlier than the one
    before it. The file is read a megabyte at a time.

    Raises
    ------
    LedgerError: a line is no point; names the file.
    """
    latest, rest = -math.inf, b""
    try:
        with open(layout.open_regular(path), "rb") as stream:
            while data := stream.read(max(_CHUNK, len(rest))):
                lines, newline, rest = (rest + data).rpartition(b"\n")
                if len(rest) > LONGEST_LINE:
                    raise ValueError(f"it has more than {LONGEST_LINE} bytes")
                for point in _decoder.decode_lines(lines + newline):
                    latest = max(latest, point.time)
                    yield latest, point
    except OSError as error:
        raise LedgerError(f"{path}: {error.strerror or error}") from error
    except RecursionError as error:
        raise LedgerError(f"{path}: a line is no point of a metric: it is nested too deep") from error
    except ValueError as error:  # no JSON, no text, or no point
        raise LedgerError(f"{path}: a line is no point of a metric: {error}") from error


def read(folder: Path) -> Iterator[Point]:
    """All points of a run in the order of time; those of one writer in the order in which it wrote them.

    Raises
    ------
    LedgerError: a line is no point; names the file.
    """
    every = itertools.chain.from_iterable(map(read_file, files(folder)))
    return (point for _, point in sorted(every, key=operator.itemgetter(0)))
