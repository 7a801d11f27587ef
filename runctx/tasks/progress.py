"""Tell how far a map has come, from its files alone: as data for any process, and as a bar while `run.map` waits."""

from __future__ import annotations

import contextvars
import heapq
import os
import shutil
import sys
import threading
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..capture import notebook
from ..errors import LedgerError
from ..layout import TaskFiles
from ..model import Lock, Tasks
from ..waiting import PATIENCE
from . import shifts
from .ledger import Claims, Row, Rows, Todo, read_labels
from .results import summary, unfinished
from .table import files_of

# -- as data ---------------------------------------------------------------------------------------------------------

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
        self._live: dict[str, _LiveMap] = {}

    def look(self, lock: Lock) -> list[MapStatus]:
        """How far each map of the run has come by now.

        Raises
        ------
        LedgerError: a file of a map that goes on is broken; names it.
        """
        return [self._status(entry) for entry in lock.tasks]

    def _status(self, entry: Tasks) -> MapStatus:
        files = files_of(self._save_dir, entry)
        try:
            live = self._live.get(entry.name)
            if live is None or live.opened != _stamp(files):  # a resume begins another session
                live = self._live[entry.name] = _LiveMap(files, entry)
            return live.look()
        except OSError:  # a LedgerError is one, too
            if os.path.exists(files.index):  # `exists` of a path raises where the folder is another user's
                raise
            self._live.pop(entry.name, None)
            return _ended(files, entry)  # or its claims are another user's


def _stamp(files: TaskFiles) -> tuple[int, int]:
    found = files.index.stat()
    return found.st_ino, found.st_mtime_ns


def _ended(files: TaskFiles, entry: Tasks) -> MapStatus:
    """As the rows of a map tell of it; as the lock does, where they cannot be read."""
    try:
        labels, final = read_labels(files), Rows(files).read_on()
        entry = summary(entry, list(labels), final, (), None) if unfinished(entry) else entry
        failed = [(key, row) for key, (_, row) in final.items() if row.status == "failed" and key in labels]
        failures = _last(failed, labels)
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


class _LiveMap:
    """The files of one map that goes on."""

    def __init__(self, files: TaskFiles, entry: Tasks) -> None:
        self._files, self._entry = files, entry
        self.opened = _stamp(files)
        self._to_do = Todo(files).keys()
        self._again = frozenset(self._to_do)
        self._labels = read_labels(files)
        self._claims = Claims(files.claims, len(self._to_do))
        self._rows = Rows(files)

    def look(self) -> MapStatus:
        every = shifts.read_all(self._files)
        self._claims.read_on()
        over = self._over({one.name for one in every})
        failed = [(key, row) for key, row in over.items() if row.status == "failed"]
        held = {self._to_do[n] for numbers in self._claims.held.values() for n in numbers} - over.keys()
        left = len(self._labels) - len(over)
        working = [one for one in every if not one.is_dead]
        rate = _rate([row for key, row in over.items() if key in self._again], every)
        return MapStatus(
            name=self._entry.name,
            launcher=self._entry.launcher,
            total=len(self._labels),
            done=len(over) - len(failed),
            failed=len(failed),
            in_work=len(held),
            left=left - len(held),
            rate=rate,
            seconds_left=left / rate if rate and working else None,
            workers=sum(one.workers for one in working),
            queued=len(shifts.queued_jobs(self._files, working)) if left else 0,
            shifts=tuple(
                ShiftStatus(
                    name=one.name,
                    host=one.host,
                    pid=one.pid,
                    slurm_job=one.slurm_job,
                    workers=one.workers,
                    began=one.began,
                    deadline=one.deadline,
                    state="ended" if one.ended else "gone" if one.is_dead else "working",
                )
                for one in every
            ),
            failures=_last(failed, self._labels),
        )

    def _over(self, names: set[str]) -> dict[str, Row]:
        """Key -> row of what is over; what failed in an earlier session, and is done again, is not."""
        return {
            key: row
            for key, (worker, row) in self._rows.read_on().items()
            if key in self._labels
            and row.status != "retried"
            and (row.status == "done" or key not in self._again or self._rows.author(worker).shift in names)
        }


def _last(failed: Iterable[tuple[str, Row]], labels: Mapping[str, str]) -> tuple[TaskFailure, ...]:
    last = heapq.nlargest(_FAILURES, failed, key=lambda pair: pair[1].started)
    return tuple(
        TaskFailure(task=labels[key], type=row.error.type, message=row.error.message)
        for key, row in last
        if row.error is not None
    )


def _rate(rows: list[Row], every: list[shifts.Shift]) -> float | None:
    """Tasks in a second."""
    now = time.time()
    span = now - min((one.began for one in every), default=now)
    if not rows or span <= 0:
        return None
    recent = sum(row.started + row.seconds > now - RECENT for row in rows)
    return recent / min(span, RECENT) if recent else len(rows) / span


# -- as a bar --------------------------------------------------------------------------------------------------------

_PACE = 0.5
"""Seconds between two looks at the rows."""
_WIDEST = 70
"""Columns: what workers log meanwhile begins with more than that, and so covers the bar."""
_FORMAT = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}{postfix}, {rate_fmt}, {remaining} left"


@contextmanager
def shown(files: TaskFiles, total: int, done: int, *, show: bool = True) -> Iterator[None]:
    """Show how a map goes on, in a thread, if it takes long enough; in a terminal and in a notebook.

    Its own errors do not concern the map.

    Parameters
    ----------
    done: how many of the tasks are done already.
    show: whether there may be a bar.
    """
    if not (show and _can_show()):
        yield
        return
    over = threading.Event()
    began, tally = time.time(), Tally(files)
    in_context = contextvars.copy_context().run  # in which a notebook finds the cell that the bar belongs to
    bar = threading.Thread(
        target=in_context,
        args=(_follow, tally, over, total, done, began),
        name="runctx progress",
        daemon=True,
    )
    bar.start()
    try:
        yield
    finally:
        over.set()
        bar.join(timeout=5)


class Tally:
    """How many tasks have been done, and how many have failed, since this was made; rows are not decoded."""

    def __init__(self, files: TaskFiles) -> None:
        self._folder = files.done()
        self._read: dict[str, int] = {}
        self.done = self.failed = 0
        self.read_on()
        self.done = self.failed = 0

    def read_on(self) -> None:
        """Count the rows that were written since."""
        try:
            for entry in list(os.scandir(self._folder)):
                start = self._read.get(entry.name, 0)
                if entry.is_file() and entry.stat().st_size > start:
                    self._count(entry, start)
        except OSError:
            return  # not there yet; or it cannot be read at the moment

    def _count(self, entry: os.DirEntry[str], start: int) -> None:
        with open(entry.path, "rb") as stream:
            stream.seek(start)
            while data := stream.read(1 << 20):
                end = data.rfind(b"\n") + 1
                if end == 0 and len(data) < 1 << 20:  # a line that is not complete yet
                    return
                # quotes are bare between the parts of a row, and escaped inside of them
                self.done += data.count(b',"status":"done",', 0, end or None)
                self.failed += data.count(b',"status":"failed",', 0, end or None)
                start += end or len(data)
                self._read[entry.name] = start
                stream.seek(start)


def _can_show() -> bool:
    try:
        if notebook.in_kernel():
            with warnings.catch_warnings():  # here, for it is no matter of one thread
                warnings.simplefilter("ignore")  # that there is no ipywidgets: a bar of letters will do
                import tqdm.auto  # noqa: F401
            return True
        return sys.stderr.isatty()
    except Exception:  # None, closed, or somebody's stand-in
        return False


def _follow(tally: Tally, over: threading.Event, total: int, done: int, began: float) -> None:
    if over.wait(PATIENCE):
        return
    bar = widget = None
    try:
        bar = _made(tally, total, done, began)
        last = False
        while True:
            tally.read_on()
            bar.set_postfix_str(f"{tally.failed} failed" if tally.failed else "", refresh=False)
            if not bar.update(done + tally.done + tally.failed - bar.n):
                bar.refresh()
            if widget is None and hasattr(bar, "container"):
                from IPython import display

                widget = display.display(bar.container, display_id=True)  # type: ignore[no-untyped-call]
            if last:
                break
            last = over.wait(_PACE)  # what was done since then is still to be shown
        bar.close()
        if widget is not None:
            widget.update(bar.container)  # for notebooks that are stored, with a bar of letters
    except Exception:  # of whoever owns the terminal, or of the file system: then there is no bar
        pass


def _made(tally: Tally, total: int, done: int, began: float) -> Any:
    # it is not shown before something is known
    options = {"total": total, "initial": done, "leave": False, "bar_format": _FORMAT, "delay": 1e-9}
    name = tally._folder.parent.name
    if notebook.in_kernel():
        from tqdm.auto import tqdm
        from tqdm.notebook import tqdm_notebook

        if issubclass(tqdm, tqdm_notebook):  # a widget, which stays; it is displayed by `_follow`
            options |= {"leave": True, "display": False, "delay": 0}
        bar = tqdm(desc=name, **options)
    else:
        from tqdm import tqdm as plain

        width = min(_WIDEST, shutil.get_terminal_size().columns - 1)
        bar = plain(desc=name, ncols=width, file=_Console(), **options)
    bar.start_t = bar.last_print_t = began
    return bar


class _Console:
    """The terminal, past what captures output; leaves the cursor where a line of somebody else covers the bar."""

    encoding = "utf-8"

    def write(self, text: str) -> None:
        from ..capture.console import write

        write(text if text.endswith(("\n", "\r")) else f"{text}\r")

    def flush(self) -> None:
        pass
