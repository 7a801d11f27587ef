"""Show the tasks of a run: what became of each, and how far each map has come."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from ..model import Session, Tasks
from . import words
from .table import Table, status

_MOST = 50
"""Tasks that are shown; of more, all that failed first, as far as there is room, and then some of the others."""
_MOST_FAILED = 40
_SHIFTS = 20
_COMMITS = 3


def table(
    tasks: Sequence[Any], maps: Sequence[str], counts: Mapping[str, int], altered: Sequence[str] = ()
) -> Table:
    """A line for each task.

    Parameters
    ----------
    tasks: rows of `run.tasks`.
    maps: their names.
    counts: status -> how many tasks have it.
    altered: maps whose rows were changed after the lock was sealed.
    """
    shown = _chosen(tasks)
    retried, several = any(one.attempts > 1 for one in shown), len(maps) > 1
    left = f"; {len(tasks) - len(shown)} are not shown" * (len(tasks) > len(shown))
    summary = ", ".join(f"{number} {name}" for name, number in counts.items())
    notes = [f"{words.count(len(tasks), 'task')}: {summary}{left}"]
    notes += [
        f"the rows of {words.line(name, 40)} were changed after the lock was sealed" for name in altered
    ]
    return Table(
        heads=[
            *["map"] * several,
            "task",
            "status",
            "took",
            *["tries"] * retried,
            "worker",
            "value or error",
        ],
        rows=[_cells(one, several, retried) for one in shown],
        notes=notes if tasks else (),
        instead="no tasks",
        whole=("status", "took", "worker"),
    )


def _chosen(tasks: Sequence[Any]) -> list[Any]:
    if len(tasks) <= _MOST:
        return list(tasks)
    failed = [one for one in tasks if one.status == "failed"][:_MOST_FAILED]
    others = [one for one in tasks if one.status != "failed"]
    return failed + others[: _MOST - _MOST_FAILED]


def _cells(one: Any, several: bool, retried: bool) -> list[Text]:
    return [
        *[Text(words.line(one.map, 40))] * several,
        Text(words.line(one.task, 60)),
        status(one.status),
        Text(words.took(one.seconds)),
        *[Text(str(one.attempts or ""))] * retried,
        Text(words.line(one.worker, 30)),
        Text(_outcome(one)),
    ]


def _outcome(one: Any) -> str:
    if one.error is not None:
        return _error(one.error.type, one.error.message)
    if one.status != "done":
        return ""
    return f"({words.size(one.bytes)})" if one.bytes else words.value(one.value, 80)


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


def progress(title: Text, maps: Sequence[Any]) -> RenderableType:
    """How far each map of a run has come; `maps` as `runctx.tasks.status` has them."""
    if not maps:
        return Group(title, Text("  no tasks"))
    return Group(title, *(Padding(_map(one), (0, 0, 0, 2)) for one in maps))


def _map(one: Any) -> RenderableType:
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


def _pace(one: Any) -> str:
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


def _shift(one: Any) -> str:
    job = f", Slurm job {words.line(one.slurm_job, 40)}" if one.slurm_job else ""
    ends = ""
    if one.deadline is not None and one.state == "working":
        ends = f", ends in {words.took(max(0.0, one.deadline - time.time()))}"
    return (
        f"{words.line(one.name, 20)}: {one.state}, {words.count(one.workers, 'worker')} "
        f"on {words.line(one.host, 80)}{job}, process {one.pid}{ends}"
    )
