"""Which numbers did the run log, when, at which step and in which task? Files with one line for each call.

A call appends its line by one write and returns: what was logged survives any kill. Every process and thread has a
file of its own, so that no two writers meet, on whatever file system.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import math
import operator
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec

from .. import layout
from ..errors import LedgerError

SUFFIX = ".jsonl"


_Text = Annotated[str, msgspec.Meta(pattern=r"^(nan|-?inf|-?\d+(\.\d+)?e\+\d+)$")]


class Point(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one call has logged."""

    time: float
    """Seconds since 1970."""
    values: dict[str, float | _Text]
    """Name -> number; NaN and infinities, which JSON does not have, and numbers beyond its usual range as text."""
    step: int | None = None
    task: str | None = None
    """Key of the task it was logged in."""


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

    def __init__(self, folder: Path, lose: Callable[[str], None]) -> None:
        self.folder = folder
        self._lose = lose
        self._lost = False
        self._writers = threading.local()

    def append(self, values: Mapping[str, Any], step: Any = None, task: str | None = None) -> None:
        """Write one line; when this returns, a kill cannot lose it.

        Parameters
        ----------
        values: name -> a number: Python's, numpy's or torch's scalars, Decimal, Fraction; NaN and infinities too.
        step: a whole number.

        Raises
        ------
        TypeError: a value is no number; names it. Nothing is written then.
        """
        numbers = {_named(name): _number(name, value) for name, value in values.items()}
        point = Point(time.time(), numbers, None if step is None else _whole(step), task)
        line = msgspec.json.encode(point) + b"\n"
        try:
            self._write(line)
        except OSError as error:
            if not self._lost:
                self._lost = True
                self._lose(f"{type(error).__name__}: {error}")

    def _write(self, line: bytes) -> None:
        descriptor = self._writer()
        written = os.write(descriptor, line)
        if written != len(line):  # half a line would spoil the next one, too
            os.ftruncate(descriptor, os.fstat(descriptor).st_size - written)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def close(self) -> None:
        """Close the calling thread's file; those of others close with their threads."""
        self._writers.__dict__.clear()

    def _writer(self) -> int:
        mine: _Writer | None = getattr(self._writers, "writer", None)
        if mine is None or mine.pid != os.getpid():  # a forked child inherits what its parent had open
            self.folder.mkdir(exist_ok=True)
            mine = self._writers.writer = _Writer(self.folder)
        return mine.descriptor


class _Writer:
    """One file, and the process it belongs to."""

    def __init__(self, folder: Path) -> None:
        self.pid = os.getpid()
        path = folder / f"{self.pid}-{secrets.token_hex(4)}{SUFFIX}"
        self.descriptor = os.open(
            path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o666
        )

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError, OSError):
            os.close(self.descriptor)


def _named(name: Any) -> str:
    if not isinstance(name, str) or not name:
        raise TypeError(f"a metric's name must be a text, not {type(name).__name__} {name!r}")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise TypeError(f"a metric's name must be a text that can be written, not {name!r}") from None
    return name


def _number(name: str, value: Any) -> float | str:
    kind = type(value)
    if kind is not float and kind is not int:
        if isinstance(value, (str, bytes)) or getattr(value, "ndim", None):
            raise TypeError(f"metric {name!r} must be one number, not {kind.__name__} {value!r:.80}")
        try:
            value = float(value)
        except (TypeError, ValueError, OverflowError, RuntimeError) as error:
            raise TypeError(f"metric {name!r} must be a number, not {kind.__name__}: {error}") from error
    try:
        return value if math.isfinite(value) and abs(value) < _MOST else str(float(value))
    except OverflowError:
        raise TypeError(f"metric {name!r}: a whole number of {len(str(value))} digits is too large") from None


def _whole(step: Any) -> int:
    try:
        return operator.index(step)
    except TypeError:
        raise TypeError(f"step must be a whole number, not {type(step).__name__} {step!r:.80}") from None


# -- reading -----------------------------------------------------------------------------------------------


def files(folder: Path) -> list[Path]:
    """The journals of a run, one for each writer."""
    return sorted(folder.glob(f"*{SUFFIX}"))


def decode(lines: bytes) -> list[Point]:
    """Points of whole lines.

    Raises
    ------
    ValueError: a line is no point.
    """
    return _points.decode_lines(lines)


def read_file(path: Path) -> list[Point]:
    """The points of one writer, as it wrote them; what a kill cut off is left out.

    Raises
    ------
    LedgerError: a line is no point; names the file.
    """
    try:
        return decode(layout.read_regular(path).rpartition(b"\n")[0])
    except OSError as error:
        raise LedgerError(f"{path}: {error.strerror or error}") from error
    except ValueError as error:  # no JSON, no text, or no point
        raise LedgerError(f"{path}: a line is no point of a metric: {error}") from error


def read(folder: Path) -> Iterator[Point]:
    """All points of a run, in the order of time.

    Raises
    ------
    LedgerError: a line is no point; names the file.
    """
    return iter(sorted(itertools.chain.from_iterable(map(read_file, files(folder))), key=lambda p: p.time))


_points = msgspec.json.Decoder(Point)
_MOST = 1 << 63
