"""What became of each task? Rows, written by one worker each, read by anyone at any time.

A worker's file begins with a line that says who it is; every further line is one attempt at one task, appended
by one write, so that a kill loses none.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import msgspec

from ... import layout
from ...errors import LedgerError
from ...layout import TaskFiles
from ...model import Kind

SUFFIX = ".jsonl"


class Author(msgspec.Struct, frozen=True, omit_defaults=True):
    """The first line of a worker's rows: who wrote them, where, with which code."""

    worker: str
    shift: str
    host: str
    pid: int
    started: float
    """Seconds since 1970."""
    commit: str | None = None
    """`git:hex` of the snapshot of the code that ran."""
    slurm_job: str | None = None


class Fault(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """The exception that ended an attempt."""

    type: str
    """Qualified name of its class, e.g. `builtins.ValueError`."""
    message: str
    traceback: str = ""
    """As Python prints it, without local values."""


class Read(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An input of a run inside a task."""

    path: str
    """As given; absolute if the task was in another folder than its parent."""
    digest: str | None
    """None: nobody knows."""
    bytes: int
    kind: Kind = "file"
    files: int = 1
    manifest: tuple[int, int] | None = None
    """Of a folder or glob: where it lies in the worker's results, offset and size."""
    gap: str = ""
    """Why not all of it was read."""
    name: str | None = None
    """Of an input that was given in a dict: its key."""


class Row(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One attempt at one task."""

    key: str
    """Of the task, from its content."""
    status: Literal["done", "failed", "retried"]
    """`retried` failed too, and another attempt followed."""
    started: float
    """Seconds since 1970."""
    seconds: float
    attempt: int = 1
    value: msgspec.Raw = msgspec.Raw()
    """The result, if it is a small scalar."""
    at: tuple[int, int] | None = None
    """Else where it (or the exception) lies in the worker's results: offset and size in bytes."""
    digest: str = ""
    """`blake3:hex` of the result's content."""
    error: Fault | None = None
    inputs: tuple[Read, ...] = ()
    """What runs inside the task said they read."""


@dataclass(slots=True)
class _Tail:
    """How far a file has been read."""

    path: Path
    author: Author | None = None
    offset: int = 0
    line: int = 0


@dataclass(slots=True)
class Rows:
    """Reads rows as they come; what was read once is not read again.

    Parameters
    ----------
    files: of the map.
    """

    files: TaskFiles
    _tails: dict[str, _Tail] = field(default_factory=dict)

    @property
    def authors(self) -> dict[str, Author]:
        """Worker -> what it said of itself, as far as rows were read."""
        return {worker: tail.author for worker, tail in self._tails.items() if tail.author is not None}

    def new(self, workers: frozenset[str] | None = None) -> Iterator[tuple[str, list[Row]]]:
        """Worker, and the rows it has written since; for all workers, or some.

        Raises
        ------
        LedgerError: a line is no row; names file and line.
        """
        for name in self._names():
            if workers is None or name in workers:
                tail = self._tails.setdefault(name, _Tail(self.files.done(name)))
                rows = _read(tail)
                if rows:
                    yield name, rows

    def _names(self) -> list[str]:
        try:
            with os.scandir(self.files.done()) as entries:
                # a pipe would block for ever; a link may lead in circles, and whoever opens it says so
                found = [entry.name for entry in entries if entry.is_symlink() or entry.is_file()]
        except FileNotFoundError:
            return []
        return sorted(name.removesuffix(SUFFIX) for name in found if name.endswith(SUFFIX))


_MOST = 1 << 32
"""Bytes that one worker may have added between two looks."""

_rows = msgspec.json.Decoder(Row)
_author = msgspec.json.Decoder(Author)


def _read(tail: _Tail) -> list[Row]:
    try:
        data = layout.read_regular(tail.path, tail.offset, most=_MOST)
    except OSError as error:
        raise LedgerError(f"{tail.path}: {error.strerror or error}") from error
    end = data.rfind(b"\n") + 1  # what follows is not complete, or never will be
    if end == 0:
        return []
    start = 0
    try:
        if tail.author is None:
            start = data.index(b"\n") + 1
            tail.author = _author.decode(data[: start - 1])
            tail.line = 1
        rows: list[Row] = _rows.decode_lines(data[start:end])
    except ValueError as error:
        raise _broken(tail, data[start:end], error) from error
    tail.offset += end
    tail.line += len(rows)
    return rows


def _broken(tail: _Tail, data: bytes, error: Exception) -> LedgerError:
    if tail.author is None:
        return LedgerError(f"{tail.path}: line 1 does not say which worker wrote it: {error}")
    for number, line in enumerate(data.split(b"\n"), tail.line + 1):
        try:
            _rows.decode(line)
        except ValueError as wrong:
            return LedgerError(f"{tail.path}: line {number} is no row: {wrong}")
    return LedgerError(f"{tail.path}: {error}")


class Writer:
    """Appends the rows of one worker, and its results; each row by one write.

    Both files are made with the first row, so that a worker that came too late leaves nothing.
    """

    def __init__(self, files: TaskFiles, author: Author) -> None:
        self._files, self._author = files, author
        self._rows = self._results = -1
        self._offset = 0

    def store(self, data: bytes) -> tuple[int, int]:
        """Append a result; offset and size."""
        if self._results < 0:
            path = self._files.results(self._author.worker)
            path.parent.mkdir(parents=True, exist_ok=True)
            self._results = _opened(path)
            self._offset = os.fstat(self._results).st_size
        at = self._offset, len(data)
        try:
            _write(self._results, data)
        finally:  # on a full disk perhaps a part of it
            self._offset = os.fstat(self._results).st_size
        return at

    def append(self, line: bytes) -> None:
        """Append one row, given as JSON with the end of line."""
        if self._rows < 0:
            path = self._files.done(self._author.worker)
            path.parent.mkdir(parents=True, exist_ok=True)
            self._rows = _opened(path)
            if _cut_torn(self._rows) == 0:
                _write(self._rows, msgspec.json.encode(self._author) + b"\n")
        if os.write(self._rows, line) != len(line):
            raise OSError("the disk is full: a row was written in part")

    def add(self, row: Row) -> None:
        """Append one row."""
        self.append(msgspec.json.encode(row) + b"\n")

    def close(self) -> None:
        """Safe to call twice."""
        for descriptor in (self._rows, self._results):
            if descriptor >= 0:
                os.close(descriptor)
        self._rows = self._results = -1


def _opened(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)


def _cut_torn(descriptor: int) -> int:
    """The file without the torn last line of a process of that name that died; how many bytes are left."""
    size = os.fstat(descriptor).st_size
    whole = os.pread(descriptor, size, 0).rfind(b"\n") + 1
    if whole != size:
        os.ftruncate(descriptor, whole)
    return whole


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
