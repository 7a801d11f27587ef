"""Tables of the metrics, the tasks and the origins of values of one run, and the progress of its maps."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from ..model import Origin
from . import words
from .table import Table, status

_METRICS, _TASKS, _FAILED, _SHIFTS = 50, 50, 40, 20
"""Most rows of each kind in one table."""


# -- metrics -----------------------------------------------------------------------------------------------


def metrics(logged: Mapping[str, Any], *, curves: bool = False) -> Table:
    """A row for each metric; without a column of names if there is but one without a name.

    Parameters
    ----------
    logged: name -> series with `values`, `steps` and `tasks`; `Metrics` if `curves`.
    curves: whether a notebook shows a small curve of each.
    """
    shown = dict(list(logged.items())[:_METRICS])
    series = list(shown.values())
    numbers = [[value for value in one.values if value == value] for one in series]
    steps = [[step for step in one.steps if step is not None] for one in series]
    tasks = [len({*one.tasks} - {None}) for one in series]
    columns = {
        "metric": [*words.texts_apart({name: name for name in shown}).values()] if any(logged) else [],
        "points": _right([str(len(one.values)) for one in series], "points"),
        "last": words.aligned([words.number(one.values[-1]) if one.values else "" for one in series]),
        "min": words.aligned([words.number(min(some)) if some else "" for some in numbers]),
        "max": words.aligned([words.number(max(some)) if some else "" for some in numbers]),
        "steps": _right([f"{min(some)} … {max(some)}" if some else "" for some in steps], "steps"),
        # of which `last` is but one
        "logged by": [f"{n} tasks" * (n > 1) for n in tasks] if max(tasks, default=0) > 1 else [],
    }
    columns = {head: texts for head, texts in columns.items() if any(texts)}
    return Table(
        heads=list(columns),
        rows=[
            [
                Text(text, "" if head == "metric" else "number")
                for head, text in zip(columns, row, strict=True)
            ]
            for row in zip(*columns.values(), strict=True)
        ],
        notes=[f"… {len(logged) - len(shown)} more"] * (len(logged) > len(shown)),
        instead="no metrics",
        whole=[head for head in columns if head != "metric"],  # only names give way where there is no room
        pictures=[_small_curve(logged, name) for name in shown] if curves else (),
    )


def _right(texts: Sequence[str], head: str) -> list[str]:
    width = max(map(len, (head, *texts)))
    return [text.rjust(width) for text in texts]


def _small_curve(logged: Any, name: str) -> str:
    """An SVG of the curves of a metric, without axes; each is interrupted where there is no number."""
    import numpy as np  # not for the other tables

    from .curves import COLOURS, of_metrics, scaled, thinned

    width, height = 120, 20
    every = [thinned(curve.x, curve.y, width) for curve in of_metrics(logged, [name]).curves]
    x, y = (np.concatenate(columns) for columns in zip(*every, strict=True))
    if np.isnan(y).all():
        return ""
    left, right, low, high = map(float, (x.min(), x.max(), np.nanmin(y), np.nanmax(y)))
    path = ""
    for one, other in every:
        across = (1 + scaled(one, left, right) * (width - 2)).tolist()
        down = (1 + (1 - scaled(other, low, high)) * (height - 2)).tolist()
        pen = "M"
        for at, y_at, value in zip(across, down, other.tolist(), strict=True):
            if value == value:
                path += f"{pen}{at:.1f} {y_at:.1f}" + "h0" * (pen == "M")  # a point alone is a dot
            pen = "L" if value == value else "M"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" role="img" '
        f'aria-label="curve"><path d="{path}" fill="none" stroke="{COLOURS[0]}" stroke-width="1.5" '
        'stroke-linecap="round" stroke-linejoin="round"/></svg>'
    )


# -- origins of values -------------------------------------------------------------------------------------

NOTHING = "the origins of these values were not recorded: code set them all, or an older runctx made the run"
_LONGEST = 120
"""Characters of a value that are shown."""
_FROM, _BEAT = "  from", "  beat"


class Value(NamedTuple):
    """One key of a configuration: its value, and who set it."""

    key: str
    value: object
    origins: tuple[Origin, ...] = ()
    """The winner first, then those it beat."""
    unknown: str = ""
    """Why there is no value."""


def origins(values: Sequence[Value], most: int | None = 200, unread: Sequence[str] = ()) -> Table:
    """A row for each value, and below it one for what it was computed from and for each layer that was beaten.

    Parameters
    ----------
    most: keys that are shown; None: all.
    unread: keys that nobody read.
    """
    count = 4 if any(one.origins for one in values) else 2
    rows: list[list[Text]] = []
    further = []
    for line in (line for one in values[:most] for line in _origin_lines(one)):
        more = line[0] in (_FROM, _BEAT)
        further += [len(rows)] * more
        cells = [Text(cell, "dim" if more else "") for cell in line[:count]]
        cells[1].stylize("beaten" if line[0] == _BEAT else "" if more else "chosen")
        rows.append(cells)
    notes = [f"… {len(values) - (most or 0)} more keys: `part(key)` shows those below one"]
    notes = notes * (most is not None and len(values) > most)
    notes += [f"never read: {words.several(unread)}"] * bool(unread) + [NOTHING] * (count == 2)
    return Table(
        heads=("key", "value", "set by", "where")[:count],
        rows=rows,
        notes=notes if values else (),
        instead="no configuration",
        whole=("set by",),
        further=further,
    )


def _origin_lines(one: Value) -> Iterator[tuple[str, str, str, str]]:
    winner, *beaten = one.origins or (None,)
    shown = f"({words.line(one.unknown)})" if one.unknown else words.value(one.value, _LONGEST)
    yield words.line(one.key, 200), shown, *_layer(winner)
    if winner is not None and (winner.reads or _is_computed(winner.value, one)):
        reads = f"reads {words.line(', '.join(winner.reads))}" if winner.reads else ""
        yield _FROM, words.value(winner.value, _LONGEST), "", reads
    for origin in beaten:
        yield _BEAT, words.value(origin.value, _LONGEST), *_layer(origin)


def _layer(origin: Origin | None) -> tuple[str, str]:
    return ("", "") if origin is None else (words.line(origin.layer, 40), words.line(origin.where, 300))


def _is_computed(written: object, one: Value) -> bool:
    """True if an interpolation or a function made the value; a text that became a number is no news."""
    if not isinstance(written, str) or written == "???":
        return False
    if one.unknown or words.value(written) == words.value(one.value):
        return bool(one.unknown)
    try:
        float(written)
    except ValueError:
        return True
    return not isinstance(one.value, float)


# -- tasks -------------------------------------------------------------------------------------------------


def tasks(
    rows: Sequence[Any], maps: Sequence[str], counts: Mapping[str, int], altered: Sequence[str] = ()
) -> Table:
    """A row for each task: those that failed first, if not all are shown.

    Parameters
    ----------
    rows: of `run.tasks`.
    maps: their names.
    counts: status -> how many tasks have it.
    altered: maps whose rows were changed after the lock was sealed.
    """
    shown = list(rows)
    if len(rows) > _TASKS:
        failed = [one for one in rows if one.status == "failed"][:_FAILED]
        shown = failed + [one for one in rows if one.status != "failed"][: _TASKS - _FAILED]
    retried, several = any(one.attempts > 1 for one in shown), len(maps) > 1
    left = f"; {len(rows) - len(shown)} are not shown" * (len(rows) > len(shown))
    summary = ", ".join(f"{number} {name}" for name, number in counts.items())
    notes = [f"{words.count(len(rows), 'task')}: {summary}{left}"]
    notes += [f"the rows of {words.line(n, 40)} were changed after the lock was sealed" for n in altered]
    tries = ["tries"] * retried
    return Table(
        heads=[*["map"] * several, "task", "status", "took", *tries, "worker", "value or error"],
        rows=[
            [
                *[Text(words.line(one.map, 40))] * several,
                Text(words.line(one.task, 60)),
                status(one.status),
                Text(words.took(one.seconds)),
                *[Text(str(one.attempts or ""))] * retried,
                Text(words.line(one.worker, 30)),
                Text(_outcome(one)),
            ]
            for one in shown
        ],
        notes=notes if rows else (),
        instead="no tasks",
        whole=("status", "took", "worker"),
    )


def _outcome(one: Any) -> str:
    if one.error is not None:
        return words.error(one.error.type, one.error.message)
    if one.status != "done":
        return ""
    return f"({words.size(one.bytes)})" if one.bytes else words.value(one.value, 80)


# -- progress ----------------------------------------------------------------------------------------------


def progress(title: Text, maps: Sequence[Any]) -> RenderableType:
    """How far each map of a run has come; `maps` as `runctx.tasks.progress` has them."""
    if not maps:
        return Group(title, Text("  no tasks"))
    return Group(title, *(Padding(_map(one), (0, 0, 0, 2)) for one in maps))


def _map(one: Any) -> RenderableType:
    share = f" ({100 * one.done // one.total} %)" if one.total else ""
    head = Text.assemble((words.line(one.name, 60), "bold"), f"  {one.done} of {one.total} done{share}")
    if one.failed:
        head.append(", ").append(f"{one.failed} failed", "red")
    head.append(f", {one.in_work} in work" * bool(one.in_work) + f", {one.left} left" * bool(one.left))
    pace = [words.count(one.workers, "worker")] * bool(one.workers)
    if one.rate is not None:
        pace.append(f"{one.rate:.3g} per second" if one.rate >= 1 else f"{words.took(1 / one.rate)} per task")
    if one.seconds_left is not None:
        pace.append(f"{words.took(one.seconds_left)} left")
    if one.queued:
        pace.append(f"{words.count(one.queued, 'Slurm job')} in the queue")
    lines = [head] + [Text(f"  {', '.join(pace)}", "dim")] * bool(pace)
    lines += [Text(f"  shift {_shift(shift)}", "dim") for shift in one.shifts[-_SHIFTS:]]
    for failure in one.failures:
        why = words.error(failure.type, failure.message) if failure.type else ""
        lines.append(Text.assemble(("  failed ", "red"), f"{words.line(failure.task, 60)}  {why}".rstrip()))
    return Group(*lines)


def _shift(one: Any) -> str:
    job = f", Slurm job {words.line(one.slurm_job, 40)}" if one.slurm_job else ""
    ends = ""
    if one.deadline is not None and one.state == "working":
        ends = f", ends in {words.took(max(0.0, one.deadline - time.time()))}"
    return (
        f"{words.line(one.name, 20)}: {one.state}, {words.count(one.workers, 'worker')} "
        f"on {words.line(one.host, 80)}{job}, process {one.pid}{ends}"
    )
