"""Read what a map gave: its results, lazily, and the numbers and digests that the lock says of it."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, overload

from blake3 import blake3

from .. import layout
from ..errors import LedgerError, ResultError, TaskError
from ..layout import TaskFiles
from ..model import Tasks
from .keys import digest
from .ledger import Author, Final, Row, Rows, read_labels
from .serialization import from_small, load_error, loads, results_of

# -- what the lock says ----------------------------------------------------------------------------------------------

_MOST_KEYS = 1000
"""Failed tasks that the lock names."""


def summary(
    entry: Tasks, keys: Sequence[str], final: Final, authors: Iterable[Author], commit: str | None
) -> Tasks:
    """The lock's entry of a map, as far as its tasks have come.

    Parameters
    ----------
    keys: of all tasks, in their order.
    commit: of the run; commits of workers are named only if there are others.
    """
    # of one that is tried again, the next attempt is still to come
    rows = [final[key][1] for key in keys if key in final and final[key][1].status != "retried"]
    failed = [row.key for row in rows if row.status != "done"]
    lines = [f"{row.key} {row.digest}\n" for row in rows if row.status == "done"]
    others = [
        f"{row.key} {row.status} {row.attempt}\n" for row in rows if row.status != "done" or row.attempt > 1
    ]
    results = _digest(lines)
    authors = list(authors)
    commits = {author.commit: None for author in authors if author.commit is not None}
    return replace(
        entry,
        total=len(keys),
        done=len(lines),
        failed=len(failed),
        seconds=round(sum([row.seconds for row in rows]), 3),
        longest=round(max([row.seconds for row in rows], default=0.0), 3),
        workers=len(authors),
        commits=tuple(commits) if set(commits) - {commit} else (),
        failed_keys=tuple(failed[:_MOST_KEYS]),
        digest=_digest(lines + others) if others else results,
        results=results,
    )


def _digest(lines: list[str]) -> str:
    return "blake3:" + blake3("".join(sorted(lines)).encode()).hexdigest()


def unfinished(entry: Tasks) -> bool:
    """True if tasks were not run yet."""
    return entry.done + entry.failed < entry.total


# -- results ---------------------------------------------------------------------------------------------------------

_MOST_OPEN = 64
"""Files of workers at once: there may be thousands, and processes may have a thousand open."""
_LARGEST_SHOWN = 1 << 16
"""Bytes of a result that is read only to be shown."""


class Results(Sequence[Any]):
    """The results of a map, in the order of its tasks, each read when it is asked for; equal to a list of equal values.

    Where a task failed stands its exception; where it was not run so far, a `TaskError` that says so.

    Parameters
    ----------
    rows: as far as they are known; read on, where tasks may have been run since.
    """

    def __init__(self, files: TaskFiles, keys: Sequence[str], rows: Rows, trusted: bool) -> None:
        self._files, self._keys, self._rows, self._trusted = files, keys, rows, trusted
        self._labels: dict[str, str] | None = None
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
        with contextlib.suppress(OSError):  # an error is raised when a result is asked for
            self._up_to_date(self._keys[:3])
        shown = ", ".join(map(self._shown, self._keys[:3]))
        return f"<{len(self)} results: [{shown}{', ...' if len(self) > 3 else ''}]>"

    def _shown(self, key: str) -> str:
        found = self._rows.final.get(key)
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
        final = self._rows.final
        if not all(key in final and final[key][1].status != "retried" for key in keys):
            with self._mutex:
                self._rows.read_on()
        return keys

    def _label(self, key: str) -> str:
        if self._labels is None:
            try:
                self._labels = read_labels(self._files)
            except LedgerError:
                self._labels = {}
        return self._labels.get(key, key)

    def _result(self, key: str) -> Any:
        found = self._rows.final.get(key)
        if found is None:
            return TaskError(f"task {self._label(key)} was not run")
        worker, row = found
        if row.status == "done" and row.at is None:
            return from_small(bytes(row.value))
        stored = self._stored(worker, row.at) if row.at else None
        with results_of(self._files.root):
            if row.status == "done" and stored is not None:
                return self._value(stored, worker, row)
            return load_error(stored, row.error, trusted=self._trusted)

    def _value(self, stored: bytes, worker: str, row: Row) -> Any:
        what = f"{self._files.results(worker)}: the result of task {self._label(row.key)}"
        value = loads(stored, trusted=self._trusted, what=what)
        if not self._trusted and (found := digest(value)) != row.digest:
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
