"""How are the tasks of a run shown? As a table of what became of each, and as how far each map has come."""

from __future__ import annotations

import html as escaping
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.table import Table as Grid
from rich.text import Text

from ..model import Session, Tasks
from . import words

if TYPE_CHECKING:
    from ..tasks.status import MapStatus, ShiftStatus
    from ..tasks.table import TaskRow, TaskTable

COLOURS = {"done": "green", "failed": "red", "retried": "yellow"}
_MOST = 50
"""Tasks that are shown; of more, all that failed first, as far as there is room, and then some of the others."""
_MOST_FAILED = 40
_SHIFTS = 20
_COMMITS = 3
_ALTERED = "were changed after the lock was sealed"


class Table:
    """Of tasks, a line for each; `html()` for a notebook, else for the terminal."""

    def __init__(self, tasks: TaskTable) -> None:
        self._tasks = tasks
        self._shown = _chosen(tasks)
        self._several = len(tasks.maps) > 1
        self._retried = any(row.attempts > 1 for row in self._shown)
        names = ("task", "status", "took", *["tries"] * self._retried, "worker", "value or error")
        self._names = [*["map"] * self._several, *names]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if not self._tasks:
            yield Text("no tasks")
            return
        grid = Grid(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        for name in self._names:
            grid.add_column(name, overflow="fold", no_wrap=name in ("status", "took", "worker"))
        for row in self._shown:
            cells = [Text(cell) for cell in self._cells(row)]
            cells[self._names.index("status")].stylize(COLOURS.get(row.status, ""))
            grid.add_row(*cells)
        yield grid
        for note in self._notes():
            yield Text(note, "dim")

    def html(self) -> str:
        """A table that takes the page's colours."""
        if not self._tasks:
            return "<div>no tasks</div>"
        head = "".join(f'<th style="{_CELL}">{name}</th>' for name in self._names)
        body = "".join(self._row(row) for row in self._shown)
        notes = "".join(f'<div style="opacity:.65">{escaping.escape(note)}</div>' for note in self._notes())
        return (
            '<div style="overflow-x:auto"><table style="border-collapse:collapse">'
            f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{notes}</div>"
        )

    def _row(self, row: TaskRow) -> str:
        from . import page

        cells = [escaping.escape(cell) for cell in self._cells(row)]
        cells[self._names.index("status")] = page.status(row.status)
        columns = "".join(f'<td style="{_CELL}">{cell}</td>' for cell in cells)
        return f"<tr>{columns}</tr>"

    def _cells(self, row: TaskRow) -> list[str]:
        cells = [
            words.line(row.task, 60),
            row.status,
            words.took(row.seconds),
            *[str(row.attempts or "")] * self._retried,
            words.line(row.worker, 30),
            _outcome(row),
        ]
        return [words.line(row.map, 40)] * self._several + cells

    def _notes(self) -> Iterator[str]:
        counts = ", ".join(f"{number} {status}" for status, number in self._tasks.counts.items())
        left = len(self._tasks) - len(self._shown)
        yield f"{words.count(len(self._tasks), 'task')}: {counts}{f'; {left} are not shown' if left else ''}"
        for name in self._tasks.altered:
            yield f"the rows of {words.line(name, 40)} {_ALTERED}"


_CELL = "padding:1px 14px 1px 0;text-align:left;vertical-align:top;max-width:36em;overflow-wrap:anywhere"


def _chosen(tasks: Sequence[TaskRow]) -> list[TaskRow]:
    if len(tasks) <= _MOST:
        return list(tasks)
    failed = [row for row in tasks if row.status == "failed"][:_MOST_FAILED]
    others = (row for row in tasks if row.status != "failed")
    return failed + [row for row, _ in zip(others, range(_MOST - _MOST_FAILED), strict=False)]


def _outcome(row: TaskRow) -> str:
    if row.error is not None:
        return _error(row.error.type, row.error.message)
    if row.status != "done":
        return ""
    return f"({words.size(row.bytes)})" if row.bytes else words.value(row.value, 80)


def _error(kind: str, message: str, longest: int = 160) -> str:
    return words.line(f"{kind.removeprefix('builtins.')}: {message}", longest)


# -- in the view of a run ----------------------------------------------------------------------------------


def entry(one: Tasks) -> str:
    """What the lock says of a map, on one line.

    >>> entry(Tasks(name="main", function="m.main", launcher="joblib", total=9, done=7, failed=1, workers=2))
    'main: 7 of 9 done, 1 failed, 1 not run; joblib, 2 workers'
    """
    left = one.total - one.done - one.failed
    parts = [f"{one.done} of {one.total} done"]
    parts += [f"{one.failed} failed"] * bool(one.failed) + [f"{left} not run"] * bool(left)
    how = [words.line(one.launcher, 40)] + [words.count(one.workers, "worker")] * bool(one.workers)
    if one.seconds:
        how.append(f"{words.took(one.seconds)} of work, the longest {words.took(one.longest)}")
    if one.commits:  # not only that of the run
        code = [words.commit(commit, False) for commit in one.commits[:_COMMITS]]
        more = f" and {len(one.commits) - _COMMITS} more" if len(one.commits) > _COMMITS else ""
        how.append(f"tasks ran commit{'s' * (len(one.commits) > 1)} {', '.join(code)}{more}")
    return f"{words.line(one.name, 60)}: {', '.join(parts)}; {', '.join(how)}"


def failed(one: Tasks, texts: Sequence[str]) -> str:
    """Which tasks failed; empty if none did."""
    if not texts:
        return ""
    more = f" … {one.failed - len(texts)} more" if one.failed > len(texts) else ""
    return f"failed: {', '.join(words.line(text, 80) for text in texts)}{more}"


def session(one: Session) -> str:
    """An earlier entry of a run."""
    took = f" after {words.took(one.seconds)}" if one.seconds is not None else ""
    commit = f", commit {words.commit(one.commit, False)}" if one.commit else ""
    where = f"{words.line(one.host, 80)}, process {one.pid}"
    return f"{words.date(one.started)}  {words.line(one.status, 20)}{took}; {where}{commit}"


# -- while it goes on --------------------------------------------------------------------------------------


def progress(title: Text, maps: Sequence[MapStatus]) -> RenderableType:
    """How far each map of a run has come."""
    if not maps:
        return Group(title, Text("  no tasks"))
    return Group(title, *(Padding(_map(one), (0, 0, 0, 2)) for one in maps))


def _map(one: MapStatus) -> RenderableType:
    share = f" ({100 * one.done // one.total} %)" if one.total else ""
    head = Text.assemble((words.line(one.name, 60), "bold"), f"  {one.done} of {one.total} done{share}")
    if one.failed:
        head.append(", ").append(f"{one.failed} failed", "red")
    head.append(f", {one.in_work} in work" * bool(one.in_work) + f", {one.left} left" * bool(one.left))
    lines: list[RenderableType] = [head]
    if pace := _pace(one):
        lines.append(Text(f"  {pace}", "dim"))
    lines += [Text(f"  shift {_shift(shift)}", "dim") for shift in one.shifts[-_SHIFTS:]]
    for failure in one.failures:
        told = f"{words.line(failure.task, 60)}  " + (
            _error(failure.type, failure.message) if failure.type else ""
        )
        lines.append(Text.assemble(("  failed ", "red"), told.rstrip()))
    return Group(*lines)


def _pace(one: MapStatus) -> str:
    parts = []
    if one.workers:
        parts.append(words.count(one.workers, "worker"))
    if one.rate is not None:
        parts.append(
            f"{one.rate:.3g} per second" if one.rate >= 1 else f"{words.took(1 / one.rate)} per task"
        )
    if one.seconds_left is not None:
        parts.append(f"{words.took(one.seconds_left)} left")
    if one.queued:
        parts.append(f"{words.count(one.queued, 'Slurm job')} in the queue")
    return ", ".join(parts)


def _shift(one: ShiftStatus) -> str:
    job = f", Slurm job {words.line(one.slurm_job, 40)}" if one.slurm_job else ""
    ends = ""
    if one.deadline is not None and one.state == "working":
        ends = f", ends in {words.took(max(0.0, one.deadline - time.time()))}"
    return (
        f"{words.line(one.name, 20)}: {one.state}, {words.count(one.workers, 'worker')} "
        f"on {words.line(one.host, 80)}{job}, process {one.pid}{ends}"
    )
