"""Which curves does a picture of metrics show? What runs and their tasks have logged, chosen and smoothed.

How they are drawn is said by `chart` (in a terminal) and by `figure` (with matplotlib).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from ..errors import QueryError, RunctxError
from ..past.columns import SYSTEM, meant
from ..past.many import Runs
from ..past.row import Row
from ..trackers.metrics import Metrics, Series, Task
from . import points, words
from .differences import differences, shown, texts_apart
from .points import Numbers

Axis = Literal["step", "time", "relative"]
LIMIT = 8
"""Runs, or tasks of runs, in one picture: more cannot be told apart at a glance."""
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#8c7a00", "#7f7f7f")
"""After Okabe and Ito: told apart by colour-blind readers, and visible on white and on black."""

_LAST_MOMENT = 32_503_680_000
"""Seconds from 1970 to the year 3000: calendars end with 9999, and an axis goes beyond its last point."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Curve:
    """One metric of one run, or of one of its tasks."""

    run: int
    """Which of the runs."""
    task: Task | None
    """Which of its tasks; None: the run itself, or all tasks together."""
    line: int
    """Which of the labels is its own."""
    metric: str
    x: Numbers
    """Rising."""
    y: Numbers
    """Smoothed; NaN where nothing can be drawn."""
    raw: Numbers
    """As logged."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Curves:
    """All that one picture shows: a panel for each metric, one above the other."""

    metrics: tuple[str, ...]
    axis: Axis
    log: bool
    smooth: float
    labels: tuple[str, ...]
    """What each run or task is called, harmless to a terminal; empty for a single run that needs no name."""
    rows: tuple[Row, ...]
    """What is known of each run, if anything is."""
    curves: tuple[Curve, ...]
    notes: tuple[str, ...]
    """What the picture leaves out, and what its runs have in common."""

    def of(self, metric: str) -> list[Curve]:
        """Of one panel."""
        return [curve for curve in self.curves if curve.metric == metric]

    def to_dict(self) -> dict[str, Any]:
        """The data: `x` and `y` of each curve, in seconds since 1970 or since the first point where x is a time."""
        return {
            "x": self.axis,
            "smooth": self.smooth,
            "curves": [
                {
                    **self._run(curve.run),
                    "task": curve.task and curve.task._asdict(),
                    "metric": curve.metric,
                    "x": curve.x.tolist(),
                    "y": _all(curve),
                }
                for curve in self.curves
            ],
            "notes": list(self.notes),
        }

    def _run(self, number: int) -> dict[str, Any]:
        if not self.rows:
            return {}
        row = self.rows[number]
        return {"run": row.id, "path": row.path, "stage": row.stage, "config": dict(row.config)}


def _all(curve: Curve) -> list[float]:
    """With the infinities, which are not drawn."""
    told: list[float] = np.where(np.isnan(curve.y), curve.raw, curve.y).tolist()
    return told


# -- of whom -----------------------------------------------------------------------------------------------


def of_runs(
    runs: Runs,
    metrics: Sequence[str],
    *,
    x: Axis = "step",
    smooth: float = 0.0,
    log: bool = False,
    limit: int = LIMIT,
) -> Curves:
    """Of the first runs that have logged one of the metrics.

    Parameters
    ----------
    x: the step, or where it has none the number of the point, or the place of the task that logged but one; the
        time; or the seconds since the run's first point.
    smooth: weight of what was before in a moving average, from 0 to less than 1.
    limit: how many runs, and how many curves of a metric where tasks have their own; 0: all.

    Raises
    ------
    QueryError: none of them has logged one of the metrics; names the nearest that there are. Or none was named.
    ValueError: `x` or `smooth` is not what they can be.
    """
    _check(x, smooth)
    if not runs:
        raise QueryError("no runs to draw", hint="; ".join(map(words.line, runs.hints)) or None)
    found, known, notes = _logged(runs, metrics, limit)
    _require(metrics, known, f"none of {len(runs)} runs" if len(runs) > 1 else "the run never")
    if not found:
        raise QueryError(
            f"no points of {words.several(metrics)} are left to draw",
            hint="; ".join(notes)
            or "the locks mention them, but the folders `metrics` beside the locks are empty or gone",
        )
    rows = [row for row, _ in found]
    told = differences(rows)
    several = [logged for _, logged in found]
    lines, more = _lines(several, metrics, limit)
    names, values = _names(rows), [" ".join(shown(values)) for values in told.of_rows]
    labels = [
        f"{names[line.run]}{task and ' '}{task}  {values[line.run]}".rstrip()
        for line, task in zip(lines, _tasks(several, lines), strict=True)
    ]
    curves = _curves(several, lines, x, smooth, log)
    return Curves(
        metrics=tuple(dict.fromkeys(metrics)),
        axis=x,
        log=log,
        smooth=smooth,
        labels=tuple(labels),
        rows=tuple(rows),
        curves=tuple(curves),
        notes=(*told.notes, *_left_out(curves), *more, *notes, *map(words.line, runs.hints)),
    )


def of_metrics(
    logged: Metrics,
    metrics: Sequence[str],
    *,
    x: Axis = "step",
    smooth: float = 0.0,
    log: bool = False,
    limit: int = LIMIT,
) -> Curves:
    """Of what one run has logged.

    Raises
    ------
    QueryError, ValueError: as for `of_runs`.
    """
    _check(x, smooth)
    _require(metrics, logged, "the run never")
    lines, more = _lines([logged], metrics, limit)
    labels = [task or "the run" for task in _tasks([logged], lines)]
    curves = _curves([logged], lines, x, smooth, log)
    return Curves(
        metrics=tuple(dict.fromkeys(metrics)),
        axis=x,
        log=log,
        smooth=smooth,
        labels=() if labels == ["the run"] else tuple(labels),
        rows=(),
        curves=tuple(curves),
        notes=(*_left_out(curves), *more),
    )


def _check(x: str, smooth: float) -> None:
    if x not in get_args(Axis):
        raise ValueError(f"x must be one of {', '.join(get_args(Axis))}; got {x!r}")
    if not 0 <= smooth < 1:
        raise ValueError(f"smooth must be at least 0 and less than 1; got {smooth!r}")


def _logged(
    runs: Runs, metrics: Sequence[str], limit: int
) -> tuple[list[tuple[Row, Metrics]], set[str], list[str]]:
    """The runs that are drawn, all metrics that were seen, and what is said of the other runs."""
    found: list[tuple[Row, Metrics]] = []
    known: set[str] = set()
    broken: list[str] = []
    rest = 0
    for row, run in zip(runs.rows, runs, strict=True):
        known |= row.metrics.keys()
        if row.metrics and row.metrics.keys().isdisjoint(metrics):
            continue  # its lock says so; no file need be read
        if limit and len(found) >= limit:
            rest += 1
            continue
        try:
            logged = run.metrics()
        except RunctxError as error:  # one broken run hides no other
            broken.append(f"left out: {words.told(row)}: {words.line(error.message)}")
            continue
        known |= logged.keys()
        if not logged.keys().isdisjoint(metrics):
            found.append((row, logged))
    more = [f"drew the first {limit} of {limit + rest} runs"] * (rest > 0)
    return found, known, [*more, *broken]


def _require(metrics: Sequence[str], known: Iterable[str], who: str) -> None:
    there = sorted(name for name in known if not name.startswith(SYSTEM)) or sorted(known)
    listed = f"there are: {words.several(there)}" if there else "log one by `run.log_async(loss=0.3, step=7)`"
    if not metrics:
        raise QueryError("name a metric to draw", hint=listed)
    for name in metrics:
        if name not in known:
            hint = meant(name, there)
            raise QueryError(
                f"{who} logged {words.line(name, 80)!r}", hint=listed if hint is None else words.line(hint)
            )


def _names(rows: Sequence[Row]) -> list[str]:
    """The ids; without the letters at their end unless these are needed to tell them apart."""
    short = [row.id.rpartition("-")[0] for row in rows]
    if all(short) and len(set(short)) == len(short):
        return [words.line(name, 80) for name in short]
    return [words.told(row) for row in rows]


# -- of which tasks ----------------------------------------------------------------------------------------


class _Line(NamedTuple):
    """What has one label and one colour in all panels."""

    run: int
    task: str | None
    """Key."""
    series: dict[str, Series]
    """Of each metric, what is drawn."""


def _lines(runs: Sequence[Metrics], metrics: Sequence[str], limit: int) -> tuple[list[_Line], list[str]]:
    """What is drawn, and what is said of the rest; each run has its first tasks drawn before any has its others."""
    ranked: list[tuple[int, _Line]] = []
    for run, logged in enumerate(runs):
        parts: dict[str | None, dict[str, Series]] = {}
        for name in dict.fromkeys(name for name in metrics if name in logged):
            for key, series in _parts(logged[name]).items():
                parts.setdefault(key, {})[name] = series
        keys = [None] * (None in parts) + _in_order(logged, [key for key in parts if key is not None])
        ranked += [(rank, _Line(run, key, parts[key])) for rank, key in enumerate(keys)]
    ranked.sort(key=lambda one: one[0])
    drawn, rest = (ranked[:limit], len(ranked) - limit) if limit else (ranked, 0)
    lines = [line for _, line in sorted(drawn, key=lambda one: (one[1].run, one[0]))]
    if rest <= 0:
        return lines, []
    tasks = sum(line.task is not None for line in lines)
    return lines, [f"drew {tasks} of {tasks + rest} tasks"]


def _parts(series: Series) -> dict[str | None, Series]:
    """The points of each task, and under None those of the run itself.

    Undivided where there are no others, and where each task logged but one, which together are a curve.
    """
    counts = Counter(series.tasks)
    if len(counts) < 2 or max(count for key, count in counts.items() if key is not None) < 2:
        return {None: series}
    where: dict[str | None, list[int]] = {}
    for i, key in enumerate(series.tasks):
        where.setdefault(key, []).append(i)
    return {key: _chosen(series, places) for key, places in where.items()}


def _chosen(series: Series, places: Sequence[int]) -> Series:
    return Series(
        values=tuple([series.values[i] for i in places]),
        steps=tuple([series.steps[i] for i in places]),
        times=tuple([series.times[i] for i in places]),
        tasks=tuple([series.tasks[i] for i in places]),
    )


def _in_order(logged: Metrics, keys: Iterable[str]) -> list[str]:
    """By place; those of which none is known at the end."""
    places = {key: logged.task(key).place for key in keys}
    return sorted(places, key=lambda key: (places[key] is None, places[key] or 0, key))


def _tasks(runs: Sequence[Metrics], lines: Sequence[_Line]) -> list[str]:
    """What the task of each line is called, `task 0.1`; empty for the run itself."""
    names: dict[tuple[int, str], str] = {}
    for run, logged in enumerate(runs):
        keys = [line.task for line in lines if line.run == run and line.task is not None]
        names |= {(run, key): name for key, name in _task_names(logged, keys).items()}
    return ["" if line.task is None else f"task {names[line.run, line.task]}" for line in lines]


def _task_names(logged: Metrics, keys: Sequence[str]) -> dict[str, str]:
    """By their texts, or by place if these do not tell them apart; the beginning of the key where neither is known."""
    tasks = [logged.task(key) for key in keys]
    by_key = {task.key: words.line(task.key[:8]) for task in tasks}
    by_place = {task.key: by_key[task.key] if task.place is None else str(task.place) for task in tasks}
    by_text = texts_apart({task.key: task.key[:8] if task.text is None else task.text for task in tasks})
    for names in (by_text, by_place):
        if len(set(names.values())) == len(names):
            return names
    return by_key


# -- what it looks like ------------------------------------------------------------------------------------


def _curves(
    runs: Sequence[Metrics], lines: Sequence[_Line], axis: Axis, smooth: float, log: bool
) -> list[Curve]:
    curves = []
    starts = [_start(logged) if axis == "relative" else 0.0 for logged in runs]
    for number, line in enumerate(lines):
        logged = runs[line.run]
        task = None if line.task is None else logged.task(line.task)
        for name, series in line.series.items():
            x, raw = _columns(logged, series, axis, starts[line.run])
            y = points.smoothed(points.drawable(raw, log), smooth)
            curves.append(Curve(run=line.run, task=task, line=number, metric=name, x=x, y=y, raw=raw))
    return curves


def _start(logged: Metrics) -> float:
    return min((series.times[0] for series in logged.values() if series.times), default=0.0)


def _columns(logged: Metrics, series: Series, axis: Axis, start: float) -> tuple[Numbers, Numbers]:
    if axis == "step":
        x = np.array(series.steps, dtype=np.float64)  # None becomes NaN
        if np.isnan(x).any():
            x = np.where(np.isnan(x), _counted(logged, series), x)
    else:
        x = np.array(series.times).clip(0, _LAST_MOMENT) - start
    order = np.argsort(
        x, kind="stable"
    )  # tasks log their steps at any time, and resumed runs some of them again
    return x[order], np.array(series.values)[order]


def _counted(logged: Metrics, series: Series) -> Numbers:
    """What stands for steps: the place of the task where there are several, else the number of the point."""
    told = np.arange(len(series), dtype=np.float64)
    if len(set(series.tasks)) > 1:
        for i, key in enumerate(series.tasks):
            if key is not None and (place := logged.task(key).place) is not None:
                told[i] = place
    return told


def _left_out(curves: Sequence[Curve]) -> Iterator[str]:
    """Numbers that have no place on the axis."""
    for metric in dict.fromkeys(curve.metric for curve in curves):
        missing = [np.isnan(curve.y) for curve in curves if curve.metric == metric]
        if count := sum(int(one.sum()) for one in missing):
            all_points = words.count(sum(map(len, missing)), "point")
            yield f"{words.line(metric, 80)}: {count} of {all_points} not drawn: NaN, infinite, or no logarithm"
