"""Results of a map in the order of its tasks, each read from disk when it is asked for."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Sequence
from typing import Any, overload

from .. import layout
from ..errors import LedgerError, ResultError, TaskError
from ..layout import TaskFiles
from .ledger import todo
from .ledger.rows import Row, Rows
from .values import content
from .values.exceptions import load_error, with_traceback_text
from .values.returned import results_of
from .values.serialization import from_small, loads

_MOST_OPEN = 64
"""Files of workers at once: there may be thousands, and processes may have a thousand open."""
_LARGEST_SHOWN = 1 << 16
"""Bytes of a result that is read only to be shown."""

Final = dict[str, tuple[str, Row]]
"""Key -> the worker and the row that count: of several attempts a success, else the last."""


def final_rows(rows: Rows, known: Final | None = None) -> Final:
    """What became of each task, as far as rows are there."""
    final: Final = {} if known is None else known
    for worker, new in rows.new():
        for row in new:
            before = final.get(row.key)
            if before is None or _supersedes(row, before[1]):
                final[row.key] = worker, row
    return final


def _supersedes(row: Row, before: Row) -> bool:
    return before.status != "done" and (row.status == "done" or row.started >= before.started)


class Results(Sequence[Any]):
    """The results of a map, in the order of its tasks; equal to a list of equal values.

    Where a task failed stands its exception; where it was not run so far, a `TaskError` that says so.

    Parameters
    ----------
    final: what is known already.
    rows: are read on, where tasks may have been run since.
    """

    def __init__(
        self, files: TaskFiles, keys: Sequence[str], final: Final, trusted: bool, rows: Rows | None = None
    ) -> None:
        self._files, self._keys, self._final, self._trusted, self._rows = files, keys, final, trusted, rows
        self._texts: dict[str, str] | None = None
        self._open: dict[str, int] = {}
        self._mutex = threading.Lock()  # a descriptor that is in use must not be closed

    def __len__(self) -> int:
        return len(self._keys)

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [self._result(key) for key in self._up_to_date(self._keys[index])]
        (key,) = self._up_to_date([self._keys[index]])
        return self._result(key)

    def __iter__(self) -> Iterator[Any]:
        return map(self._result, self._up_to_date(self._keys))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, (str, bytes)):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        with contextlib.suppress(OSError):  # whatever is wrong is said when a result is asked for
            self._up_to_date(self._keys[:3])
        shown = ", ".join(map(self._shown, self._keys[:3]))
        return f"<{len(self)} results: [{shown}{', ...' if len(self) > 3 else ''}]>"

    def _shown(self, key: str) -> str:
        """Whatever is wrong with it is said when it is asked for."""
        found = self._final.get(key)
        if found is not None and found[1].at is not None and found[1].at[1] > _LARGEST_SHOWN:
            return f"<{found[1].at[1]} bytes>"
        try:
            text = repr(self._result(key))
            return text if len(text) <= 80 else f"{text[:79]}…"
        except Exception as error:
            return f"<{type(error).__name__}>"

    def __reduce__(self) -> Any:
        return list, (list(self),)

    def __del__(self) -> None:
        for descriptor in self._open.values():
            os.close(descriptor)

    def _up_to_date(self, keys: Sequence[str]) -> Sequence[str]:
        """The keys, once all that has been written of them is known."""
        if self._rows is not None and not all(map(self._is_over, keys)):
            with self._mutex:
                final_rows(self._rows, self._final)
        return keys

    def _is_over(self, key: str) -> bool:
        found = self._final.get(key)
        return found is not None and found[1].status != "retried"

    def _text(self, key: str) -> str:
        if self._texts is None:
            try:
                self._texts = dict(todo.read_names(self._files))
            except LedgerError:
                self._texts = {}
        return self._texts.get(key, key)

    def _result(self, key: str) -> Any:
        found = self._final.get(key)
        if found is None:
            return TaskError(f"task {self._text(key)} was not run")
        worker, row = found
        if row.status == "done" and row.at is None:
            return from_small(bytes(row.value))
        stored = self._stored(worker, row.at) if row.at else None
        with results_of(self._files.root):
            if row.status == "done" and stored is not None:
                return self._value(stored, worker, row)
            error = load_error(stored, row.error, trusted=self._trusted)
        text = row.error.traceback if row.error else ""
        return with_traceback_text(error, text) if text else error

    def _value(self, stored: bytes, worker: str, row: Row) -> Any:
        what = f"{self._files.results(worker)}: the result of task {self._text(row.key)}"
        value = loads(stored, trusted=self._trusted, what=what)
        if not self._trusted and (found := content.digest(value)) != row.digest:
            raise ResultError(
                f"{what} does not match its row: expected digest {row.digest}, got {found}",
                hint="the file was changed or damaged; `trusted=True` reads it all the same",
            )
        return value

    def _stored(self, worker: str, at: tuple[int, int]) -> bytes:
        offset, size = at
        path = self._files.results(worker)
        try:
            with self._mutex:
                if worker not in self._open:
                    while len(self._open) >= _MOST_OPEN:
                        os.close(self._open.pop(next(iter(self._open))))
                    self._open[worker] = layout.open_regular(path)
                known = os.fstat(self._open[worker]).st_size
                data = b"" if offset + size > known else os.pread(self._open[worker], size, offset)
        except OSError as error:
            raise LedgerError(f"{path}: {error.strerror or error}") from error
        if len(data) != size:
            raise LedgerError(f"{path}: the file ends before the result at offset {offset} ({size} bytes)")
        return data
