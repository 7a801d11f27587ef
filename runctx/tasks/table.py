"""Show what became of each task of a run: a table of all its maps, read from rows on disk; nothing is executed."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from ..errors import LedgerError, LockError, ResultError
from ..layout import TaskFiles
from ..model import Failure, Lock, Tasks
from .ledger import Rows, read_labels
from .results import Results, summary, unfinished
from .serialization import from_small

if TYPE_CHECKING:
    import pandas  # type: ignore[import-untyped]

State = Literal["done", "failed", "retried", "not run"]
"""`retried`: failed, and of the next attempt nothing is known yet."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskRow:
    """What became of one task."""

    map: str
    """Name of its map."""
    key: str
    """What it is known by; from its content."""
    task: str
    """Short text of it."""
    status: State
    started: datetime | None = None
    """The last attempt, UTC."""
    seconds: float | None = None
    attempts: int = 0
    worker: str = ""
    host: str = ""
    value: Any = None
    """The result, if it is a small scalar; others are read by `results`."""
    bytes: int = 0
    """Size of a result that is no small scalar."""
    digest: str = ""
    """`blake3:hex` of the result."""
    error: Failure | None = None


class TaskTable(Sequence[TaskRow]):
    """Tasks, in their order; prints as a table, failed ones first where it is long.

    `table["main"]` are the tasks of one map, `table[:10]` the first ten.

    >>> from runctx import Run
    >>> with Run(stage="doc", console=False) as run:
    ...     _ = run.map(lambda x: 1 / x, [1, 2, 0], launcher="serial", on_error="return")
    >>> run.tasks.counts, run.tasks[1].value
    ({'done': 2, 'failed': 1}, 0.5)
    >>> [(row.task, row.error.message) for row in run.tasks.failed]
    [('0', 'division by zero')]
    """

    def __init__(self, rows: Sequence[TaskRow], altered: Sequence[str] = ()) -> None:
        self._rows = rows
        self.altered = tuple(altered)
        """Maps whose rows are not those that the lock was sealed with: somebody has changed them since."""

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> TaskRow: ...
    @overload
    def __getitem__(self, index: slice | str) -> TaskTable: ...
    def __getitem__(self, index: int | slice | str) -> TaskRow | TaskTable:
        if isinstance(index, str):
            if index not in self.maps:
                raise KeyError(f"no map {index!r}: {', '.join(self.maps) or 'there is none'}")
            return self._some(row for row in self._rows if row.map == index)
        return self._some(self._rows[index]) if isinstance(index, slice) else self._rows[index]

    def _some(self, rows: Iterable[TaskRow]) -> TaskTable:
        chosen = tuple(rows)
        names = {row.map for row in chosen}
        return TaskTable(chosen, [name for name in self.altered if name in names])

    @property
    def maps(self) -> tuple[str, ...]:
        """Names of the maps, in their order."""
        return tuple(dict.fromkeys(row.map for row in self._rows))

    @property
    def failed(self) -> TaskTable:
        """The tasks that failed."""
        return self._some(row for row in self._rows if row.status == "failed")

    @property
    def counts(self) -> dict[str, int]:
        """Status -> how many tasks have it."""
        found = Counter(row.status for row in self._rows)
        return {status: found[status] for status in ("done", "failed", "retried", "not run") if found[status]}

    def to_dicts(self) -> list[dict[str, Any]]:
        """Plain data, one dict per task."""
        return [asdict(row) for row in self._rows]

    def to_pandas(self) -> pandas.DataFrame:
        """One line per task; `error` is type and message.

        Raises
        ------
        ImportError: pandas is not installed.
        """
        from .. import optional

        pandas = optional.pandas("to_pandas")

        lines = [{name: getattr(row, name) for name in _COLUMNS} for row in self._rows]
        for line, row in zip(lines, self._rows, strict=True):
            line["error"] = row.error and f"{row.error.type}: {row.error.message}"
        return pandas.DataFrame(lines, columns=list(_COLUMNS))

    def __rich__(self) -> Any:
        from ..display.tables import tasks

        return tasks(self, self.maps, self.counts, self.altered)

    def __repr__(self) -> str:
        from ..display.words import as_text

        return as_text(self.__rich__())

    def _repr_html_(self) -> str:
        html: str = self.__rich__().html()
        return html


_COLUMNS = tuple(TaskRow.__dataclass_fields__)


def read(save_dir: Path, lock: Lock) -> TaskTable:
    """The tasks of all maps of a run.

    Raises
    ------
    LedgerError: a file is missing or broken; names it, and the line. LockError: a map's name is no name.
    """
    table: list[TaskRow] = []
    altered = []
    for entry in lock.tasks:
        rows, labels = _opened(save_dir, entry)
        table += [_row(entry.name, key, text, rows) for key, text in labels.items()]
        if _is_altered(lock, entry, rows, labels):
            altered.append(entry.name)
    return TaskTable(table, altered)


def results(save_dir: Path, lock: Lock, name: str | None, trusted: bool) -> Results:
    """The results of one map of a run.

    Raises
    ------
    ResultError: there is no such map, or several and none was named. LedgerError: as `read`; or the rows are not
        those that the lock was sealed with.
    """
    entries = {entry.name: entry for entry in lock.tasks}
    if not entries:
        raise ResultError(
            f"run {lock.id} has no results", hint="only runs that called `run.map` have results"
        )
    if (name is None and len(entries) > 1) or (name is not None and name not in entries):
        what = "several maps" if name is None else f"no map {name!r}"
        raise ResultError(f"run {lock.id} has {what}", hint=f"name one: {', '.join(map(repr, entries))}")
    entry = lock.tasks[0] if name is None else entries[name]
    rows, labels = _opened(save_dir, entry)
    if _is_altered(lock, entry, rows, labels):
        raise LedgerError(
            f"{rows.files.done()}: the rows differ from those that the lock was sealed with",
            hint="the file was changed after the run ended; `.tasks` shows it as it is now",
        )
    return Results(rows.files, list(labels), rows, trusted)


def failed_in(save_dir: Path | None, lock: Lock, most: int = 20) -> dict[str, list[str]]:
    """Map -> short texts of its first failed tasks; their keys where the texts cannot be read."""
    found = {}
    for entry in lock.tasks:
        keys, labels = entry.failed_keys[:most], {}
        if keys and save_dir is not None:
            with contextlib.suppress(LedgerError, LockError):
                labels = read_labels(files_of(save_dir, entry))
        found[entry.name] = [labels.get(key, key) for key in keys]
    return found


def files_of(save_dir: Path, entry: Tasks) -> TaskFiles:
    """Where the files of a map lie; never outside the run's folder, whatever the lock says."""
    if not _NAME.fullmatch(entry.name):
        raise LockError(f"{save_dir / 'run.lock'}: at tasks: {entry.name[:80]!r} cannot be the name of a map")
    return TaskFiles(save_dir, entry.name)


_NAME = re.compile(r"\w[\w.-]{0,200}")


def _opened(save_dir: Path, entry: Tasks) -> tuple[Rows, dict[str, str]]:
    """The rows of a map, and key -> short text of every task."""
    rows = Rows(files_of(save_dir, entry))
    labels = read_labels(rows.files)
    rows.read_on()
    return rows, labels


def _is_altered(lock: Lock, entry: Tasks, rows: Rows, labels: dict[str, str]) -> bool:
    """True if the rows are other than those that the lock was sealed with; if not all tasks were run, or the run goes
    on, rows may have come later."""
    if lock.status in ("running", "submitted") or entry.digest is None or unfinished(entry):
        return False
    return summary(entry, list(labels), rows.final, (), None).digest != entry.digest


def _row(map: str, key: str, text: str, rows: Rows) -> TaskRow:
    if key not in rows.final:
        return TaskRow(map=map, key=key, task=text, status="not run")
    worker, row = rows.final[key]
    done, fault = row.status == "done", row.error
    try:
        return TaskRow(
            map=map,
            key=key,
            task=text,
            status=row.status,
            started=datetime.fromtimestamp(row.started, UTC),
            seconds=row.seconds,
            attempts=row.attempt,
            worker=worker,
            host=rows.author(worker).host,
            value=from_small(bytes(row.value)) if done and row.at is None else None,
            bytes=row.at[1] if done and row.at is not None else 0,
            digest=row.digest,
            error=None
            if fault is None
            else Failure(type=fault.type, message=fault.message, traceback=fault.traceback),
        )
    except (ResultError, OverflowError, ValueError, OSError) as error:
        raise LedgerError(f"{rows.files.done(worker)}: the row of task {key}: {error}") from error
