"""Choose the points of curves: what runs and their tasks logged, smoothed and thinned out.

`chart` draws them in a terminal, `figure` with matplotlib.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from . import words

Axis = Literal["step", "time", "relative"]
Numbers = NDArray[np.float64]
LIMIT = 8
"""Runs, or tasks of runs, in one picture: more cannot be told apart at a glance."""
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#8c7a00", "#7f7f7f")
"""After Okabe and Ito: told apart by colour-blind readers, and visible on white and on black."""
_YEAR_3000 = 32_503_680_000
"""Seconds since 1970; calendars end with 9999, and an axis goes beyond its last point."""
_SMALLEST = 1e-300
"""Of a logarithmic axis."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Curve:
    """One metric of one run, or of one of its tasks."""

    run: int
    """Index of the run."""
    task: Any
    """The task, with `key`, `place` and `text`; None: the run itself, or all tasks together."""
    line: int
    """Index of the label and the colour."""
    metric: str
    x: Numbers
    """Rising."""
    y: Numbers
    """Smoothed; NaN where nothing can be drawn."""
    raw: Numbers
    """As logged."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Curves:
    """The curves of one picture: a panel for each metric, one above the other."""

    metrics: tuple[str, ...]
    axis: Axis
    log: bool
    smooth: float
    labels: tuple[str, ...]
    """Name of each run or task, harmless to a terminal; empty for a single run that needs no name."""
    runs: tuple[Mapping[str, Any], ...]
    """What `to_dict` adds to the data of each run, if anything."""
    curves: tuple[Curve, ...]
    notes: tuple[str, ...]
    """What the picture leaves out, and what its runs have in common."""

    def of(self, metric: str) -> list[Curve]:
        """The curves of one panel."""
        return [curve for curve in self.curves if curve.metric == metric]

    def to_dict(self) -> dict[str, Any]:
        """The data: `x` and `y` of each curve, in seconds since 1970 or since the first point where x is a time."""
        return {
            "x": self.axis,
            "smooth": self.smooth,
            "curves": [
                {
                    **(self.runs[curve.run] if self.runs else {}),
                    "task": curve.task and curve.task._asdict(),
                    "metric": curve.metric,
                    "x": curve.x.tolist(),
                    # with the infinities, which are not drawn
                    "y": np.where(np.isnan(curve.y), curve.raw, curve.y).tolist(),
                }
                for curve in self.curves
            ],
            "notes": list(self.notes),
        }


def of_metrics(logged: Any, metrics: Sequence[str], **options: Any) -> Curves:
    """The curves of one run; parameters and errors as for `of_runs`."""
    found = of_runs([logged], [("", "")], metrics, **options)
    labels = tuple(label.strip() or "the run" for label in found.labels)
    return replace(found, labels=() if labels == ("the run",) else labels)


def of_runs(
    runs: Sequence[Any],
    names: Sequence[tuple[str, str]],
    metrics: Sequence[str],
    *,
    x: Axis = "step",
    smooth: float = 0.0,
    log: bool = False,
    limit: int = LIMIT,
) -> Curves:
    """The curves of several runs.

    Parameters
    ----------
    runs: the `Metrics` of each.
    names: of each run its name, and what tells it from the others.
    x: the step, or where it has none the number of the point, or the place of the task that logged but one; the
        time; or the seconds since the run's first point.
    smooth: weight of earlier values in a moving average, from 0 to less than 1.
    limit: how many curves of a metric where tasks have their own; 0: all.

    Raises
    ------
    ValueError: `x` or `smooth` is not what they can be.
    """
    check(x, smooth)
    lines, left_out = _lines(runs, metrics, limit)
    starts = [_start(logged) if x == "relative" else 0.0 for logged in runs]
    curves = []
    for number, line in enumerate(lines):
        logged = runs[line.run]
        for name, points in line.points.items():
            across, raw = _columns(logged, name, points, x, starts[line.run])
            task = None if line.task is None else logged.task(line.task)
            y = smoothed(drawable(raw, log), smooth)
            curves.append(Curve(run=line.run, task=task, line=number, metric=name, x=across, y=y, raw=raw))
    return Curves(
        metrics=tuple(dict.fromkeys(metrics)),
        axis=x,
        log=log,
        smooth=smooth,
        labels=tuple(_labels(runs, names, lines)),
        runs=(),
        curves=tuple(curves),
        notes=(*_not_drawn(curves), *left_out),
    )


def check(x: str, smooth: float) -> None:
    """Raises ValueError if `x` is no axis, or `smooth` no weight."""
    if x not in get_args(Axis):
        raise ValueError(f"x must be one of {', '.join(get_args(Axis))}; got {x!r}")
    if not 0 <= smooth < 1:
        raise ValueError(f"smooth must be at least 0 and less than 1; got {smooth!r}")


# -- tasks -------------------------------------------------------------------------------------------------


class _Line(NamedTuple):
    """A run or a task, with one label and one colour in all panels."""

    run: int
    task: str | None
    """Key."""
    points: dict[str, Sequence[int]]
    """Of each metric, the indices of the points that are drawn."""


def _lines(runs: Sequence[Any], metrics: Sequence[str], limit: int) -> tuple[list[_Line], list[str]]:
    """The lines that are drawn, and a note on the rest; first tasks of each run come before others of any run."""
    ranked: list[tuple[int, _Line]] = []
    for run, logged in enumerate(runs):
        parts: dict[str | None, dict[str, Sequence[int]]] = {}
        for name in dict.fromkeys(name for name in metrics if name in logged):
            for key, points in _by_task(logged[name].tasks).items():
                parts.setdefault(key, {})[name] = points
        places = {key: logged.task(key).place for key in parts if key is not None}
        tasks = sorted(places, key=lambda key: (places[key] is None, places[key] or 0, key))
        keys = [None] * (None in parts) + tasks
        ranked += [(rank, _Line(run, key, parts[key])) for rank, key in enumerate(keys)]
    ranked.sort(key=lambda one: one[0])
    drawn = ranked[: limit or None]
    lines = [line for _, line in sorted(drawn, key=lambda one: (one[1].run, one[0]))]
    tasks_drawn = sum(line.task is not None for line in lines)
    rest = len(ranked) - len(drawn)
    return lines, [f"drew {tasks_drawn} of {tasks_drawn + rest} tasks"] * (rest > 0)


def _by_task(keys: Sequence[str | None]) -> dict[str | None, Sequence[int]]:
    """The points of each task, and under None those of the run itself.

    Undivided where there are no others, and where each task logged but one point: together they are a curve.
    """
    counts = Counter(keys)
    if len(counts) < 2 or max(count for key, count in counts.items() if key is not None) < 2:
        return {None: range(len(keys))}
    found: dict[str | None, list[int]] = {}
    for i, key in enumerate(keys):
        found.setdefault(key, []).append(i)
    return {**found}


def _labels(runs: Sequence[Any], names: Sequence[tuple[str, str]], lines: Sequence[_Line]) -> Iterator[str]:
    """Run, task and what tells the run from others: `train-251121-120000 task lr=0.1  lr=0.1`."""
    tasks: dict[tuple[int, str | None], str] = {}
    for run, logged in enumerate(runs):
        keys = [line.task for line in lines if line.run == run and line.task is not None]
        tasks |= {(run, key): f"task {name}" for key, name in _task_names(map(logged.task, keys)).items()}
    for line in lines:
        name, rest = names[line.run]
        yield f"{' '.join(filter(None, (name, tasks.get((line.run, line.task)))))}  {rest}".rstrip()


def _task_names(tasks: Iterable[Any]) -> dict[str, str]:
    """By text, or by place if texts do not tell them apart; the beginning of the key where neither is known."""
    tasks = list(tasks)
    keys = {task.key: words.line(task.key[:8]) for task in tasks}
    places = {task.key: keys[task.key] if task.place is None else str(task.place) for task in tasks}
    texts = words.texts_apart({task.key: task.key[:8] if task.text is None else task.text for task in tasks})
    return next((names for names in (texts, places) if len({*names.values()}) == len(names)), keys)


# -- points ------------------------------------------------------------------------------------------------


def _start(logged: Any) -> float:
    return min((logged[name].times[0] for name in logged if logged[name].times), default=0.0)


def _columns(
    logged: Any, name: str, points: Sequence[int], axis: Axis, start: float
) -> tuple[Numbers, Numbers]:
    series, chosen = logged[name], np.asarray(points, dtype=np.intp)
    if axis == "step":
        x = np.array(series.steps, dtype=np.float64)[chosen]  # None becomes NaN
        if np.isnan(x).any():
            x = np.where(np.isnan(x), _counted(logged, [series.tasks[i] for i in points]), x)
    else:
        x = np.array(series.times)[chosen].clip(0, _YEAR_3000) - start
    order = np.argsort(x, kind="stable")  # tasks log at any time, and resumed runs repeat steps
    return x[order], np.array(series.values)[chosen][order]


def _counted(logged: Any, keys: Sequence[str | None]) -> Numbers:
    """In place of steps: the place of the task where there are several, else the number of the point."""
    counted = np.arange(len(keys), dtype=np.float64)
    if len(set(keys)) > 1:
        for i, key in enumerate(keys):
            if key is not None and (place := logged.task(key).place) is not None:
                counted[i] = place
    return counted


def _not_drawn(curves: Sequence[Curve]) -> Iterator[str]:
    for metric in dict.fromkeys(curve.metric for curve in curves):
        missing = [np.isnan(curve.y) for curve in curves if curve.metric == metric]
        if count := sum(int(one.sum()) for one in missing):
            points = words.count(sum(map(len, missing)), "point")
            yield f"{words.line(metric, 80)}: {count} of {points} not drawn: NaN, infinite, or no logarithm"


def drawable(y: Numbers, log: bool = False) -> Numbers:
    """NaN in place of what has no place on the axis.

    >>> drawable(np.array([1.0, np.inf, -2.0]), log=True).tolist()
    [1.0, nan, nan]
    """
    with np.errstate(invalid="ignore"):
        return np.where(np.isfinite(y) & ((y > _SMALLEST) | (not log)), y, np.nan)


def smoothed(y: Numbers, weight: float) -> Numbers:
    """Exponential moving average, corrected for its start; NaN stays, and is passed over.

    >>> smoothed(np.array([4.0, 4.0, np.nan, 1.0]), 0.5).round(2).tolist()
    [4.0, 4.0, nan, 2.29]
    """
    if not weight:
        return y
    result, mean, share = y.copy(), 0.0, 0.0
    there = np.flatnonzero(~np.isnan(y)).tolist()
    for i, value in zip(there, y[there].tolist(), strict=True):
        mean = weight * mean + (1 - weight) * value
        share = weight * share + (1 - weight)
        result[i] = mean / share
    if there:
        result.clip(y[there].min(), y[there].max(), out=result)  # the largest numbers round to infinities
    return result


def thinned(x: Numbers, y: Numbers, columns: int) -> tuple[Numbers, Numbers]:
    """At most four points in each of `columns` equal parts of x: the first, the last, the lowest, the highest.

    A part without numbers keeps one NaN, where the curve is interrupted. Few points stay as they are.
    """
    if len(x) <= 4 * columns:
        return x, y
    part = (columns * scaled(x, float(x[0]), float(x[-1]))).astype(np.int64).clip(0, columns - 1)
    there = np.flatnonzero(~np.isnan(y))
    of = part[there]
    first = np.flatnonzero(np.diff(of, prepend=-1))
    last = np.flatnonzero(np.diff(of, append=columns))
    by_height = np.lexsort((y[there], of))  # in each part from the lowest to the highest
    kept = np.concatenate((first, last, by_height[first], by_height[last]))
    empty, where = np.unique(part, return_index=True)
    chosen = np.unique(np.concatenate((there[kept], where[~np.isin(empty, of)])))
    return x[chosen], y[chosen]


def scaled(values: Numbers, low: float, high: float) -> Numbers:
    """Where values lie between `low`, which is 0, and `high`, which is 1.

    >>> scaled(np.array([1.0, 2.0]), 1.0, 3.0).tolist()
    [0.0, 0.5]
    """
    if not math.isfinite(high - low):
        values, low, high = values / 2, low / 2, high / 2
    return (values - low) / (high - low) if high > low else np.full(len(values), 0.5)


def time_unit(seconds: float) -> tuple[int, str]:
    """The unit a duration is written in: its length in seconds, and its name.

    >>> time_unit(7200.0)
    (60, 'minutes')
    """
    units = ((86_400, "days"), (3_600, "hours"), (60, "minutes"), (1, "seconds"))
    return next(((size, name) for size, name in units if seconds >= 3 * size), units[-1])
