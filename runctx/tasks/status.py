"""How far has a map come? Told from its files alone, by any process that sees them, while it goes on or afterwards."""

from __future__ import annotations

import heapq
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import LedgerError
from ..layout import TaskFiles
from ..model import Lock, Tasks
from .fold import folded, unfinished
from .ledger import todo
from .ledger.claims import Claims
from .ledger.rows import Row, Rows
from .ledger.todo import Todo
from .results import Final, final_rows
from .table import files_of
from .work import presence

RECENT = 60.0
"""Seconds over which the rate is taken."""
_FAILURES = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class ShiftStatus:
    """One span of work on one machine."""

    name: str
    host: str
    pid: int
    slurm_job: str | None = None
    workers: int
    began: float
    """Seconds since 1970."""
    deadline: float | None = None
    state: str
    """working; ended; or gone: its process was killed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskFailure:
    """One task that failed."""

    task: str
    type: str
    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class MapStatus:
    """How far one map has come; total = done + failed + in_work + left."""

    name: str
    launcher: str
    total: int
    done: int
    failed: int
    in_work: int = 0
    """Claimed by a worker."""
    left: int
    """Nobody has them yet."""
    rate: float | None = None
    """Tasks in a second, over the last minute; where none ended in it, since the work began."""
    seconds_left: float | None = None
    """At this rate; None if nobody works, or none has ended yet."""
    workers: int = 0
    """That work now."""
    queued: int = 0
    """Slurm jobs that have not begun, or begin again later."""
    shifts: tuple[ShiftStatus, ...] = ()
    failures: tuple[TaskFailure, ...] = ()
    """The last few."""


class Watched:
    """The maps of a run, looked at again and again: what was read once is not read again.

    Parameters
    ----------
    save_dir: the run's folder.
    """

    def __init__(self, save_dir: Path) -> None:
        self._save_dir = save_dir
        self._ledgers: dict[str, _Ledger] = {}

    def look(self, lock: Lock) -> list[MapStatus]:
        """How far each map of the run has come by now.

        Raises
        ------
        LedgerError: a file of a map that goes on is broken; names it.
        """
        return [self._of_map(entry) for entry in lock.tasks]

    def _of_map(self, entry: Tasks) -> MapStatus:
        files = files_of(self._save_dir, entry)
        try:
            ledger = self._ledgers.get(entry.name)
            if ledger is None or not ledger.is_current():
                ledger = self._ledgers[entry.name] = _Ledger(files, entry)
            return ledger.look()
        except OSError:  # a LedgerError is one, too
            if os.path.exists(files.index):  # `exists` of a path raises where the folder is another user's
                raise
            self._ledgers.pop(entry.name, None)
            return _without_claims(files, entry)  # it has ended, or they are another user's


def _without_claims(files: TaskFiles, entry: Tasks) -> MapStatus:
    """As the rows of a map tell of it; as the lock does, where they cannot be read."""
    try:
        texts, final = dict(todo.read_names(files)), final_rows(Rows(files))
        entry = folded(entry, list(texts), final, (), None) if unfinished(entry) else entry
        failed = [(key, row) for key, (_, row) in final.items() if row.status == "failed" and key in texts]
        failures = _last(failed, texts)
    except LedgerError:
        failures = tuple(TaskFailure(task=key, type="", message="") for key in entry.failed_keys[:_FAILURES])
    return MapStatus(
        name=entry.name,
        launcher=entry.launcher,
        total=entry.total,
        done=entry.done,
        failed=entry.failed,
        left=entry.total - entry.done - entry.failed,
        failures=failures,
    )


class _Ledger:
    """The files of one map that goes on."""

    def __init__(self, files: TaskFiles, entry: Tasks) -> None:
        self._files, self._entry = files, entry
        self._opened = _stamp(files)
        self._to_do = Todo(files).keys()
        self._again = frozenset(self._to_do)
        self._texts = dict(todo.read_names(files))
        self._claims = Claims(files.claims, len(self._to_do))
        self._rows = Rows(files)
        self._final: Final = {}

    def is_current(self) -> bool:
        """Whether it is still the session that was begun with: a resume begins another."""
        return _stamp(self._files) == self._opened

    def look(self) -> MapStatus:
        now = time.time()
        shifts = presence.read_all(self._files)
        self._claims.read_on()
        final_rows(self._rows, self._final)
        counted = self._counted({one.name for one in shifts})
        failed = [(key, row) for key, row in counted if row.status == "failed"]
        over = {key for key, _ in counted}
        held = {self._to_do[n] for numbers in self._claims.held.values() for n in numbers} - over
        unfinished = len(self._texts) - len(over)
        working = [one for one in shifts if not presence.is_dead(one)]
        rate = _rate([row for key, row in counted if key in self._again], shifts, now)
        return MapStatus(
            name=self._entry.name,
            launcher=self._entry.launcher,
            total=len(self._texts),
            done=len(over) - len(failed),
            failed=len(failed),
            in_work=len(held),
            left=unfinished - len(held),
            rate=rate,
            seconds_left=unfinished / rate if rate and working else None,
            workers=sum(one.workers for one in working),
            queued=len(presence.queued(self._files, working)) if unfinished else 0,
            shifts=tuple(map(_told, shifts)),
            failures=_last(failed, self._texts),
        )

    def _counted(self, shifts: set[str]) -> list[tuple[str, Row]]:
        """Key and row of what is over; what failed in an earlier session, and is done again, is not."""
        authors = self._rows.authors
        return [
            (key, row)
            for key, (worker, row) in self._final.items()
            if key in self._texts
            and row.status != "retried"
            and (row.status == "done" or key not in self._again or authors[worker].shift in shifts)
        ]


def _last(failed: list[tuple[str, Row]], texts: Mapping[str, str]) -> tuple[TaskFailure, ...]:
    last = heapq.nlargest(_FAILURES, failed, key=lambda pair: pair[1].started)
    return tuple(
        TaskFailure(task=texts[key], type=row.error.type, message=row.error.message)
        for key, row in last
        if row.error is not None
    )


def _stamp(files: TaskFiles) -> tuple[int, int]:
    found = files.index.stat()
    return found.st_ino, found.st_mtime_ns


def _rate(rows: list[Row], shifts: list[presence.Shift], now: float) -> float | None:
    """Tasks in a second."""
    began = min((one.began for one in shifts), default=now)
    span = now - began
    if not rows or span <= 0:
        return None
    recent = sum(row.started + row.seconds > now - RECENT for row in rows)
    return recent / min(span, RECENT) if recent else len(rows) / span


def _told(one: presence.Shift) -> ShiftStatus:
    return ShiftStatus(
        name=one.name,
        host=one.host,
        pid=one.pid,
        slurm_job=one.slurm_job,
        workers=one.workers,
        began=one.began,
        deadline=one.deadline,
        state="ended" if one.ended else "gone" if presence.is_dead(one) else "working",
    )
