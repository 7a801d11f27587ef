"""Choose the curves of a picture of metrics: what runs and their tasks have logged, smoothed.

`chart` draws them in a terminal, `figure` with matplotlib.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, Protocol, get_args

import numpy as np

from . import points, words
from .points import Numbers

Axis = Literal["step", "time", "relative"]
LIMIT = 8
"""Runs, or tasks of runs, in one picture: more cannot be told apart at a glance."""
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#8c7a00", "#7f7f7f")
"""After Okabe and Ito: told apart by colour-blind readers, and visible on white and on black."""

_LAST_MOMENT = 32_503_680_000
"""Seconds from 1970 to the year 3000: calendars end with 9999, and an axis goes beyond its last point."""


class Series(Protocol):
    """One metric, in the order of time: columns of equal length."""

    @property
    def values(self) -> tuple[float, ...]: ...
    @property
    def steps(self) -> tuple[int | None, ...]: ...
    @property
    def times(self) -> tuple[float, ...]:
        """Seconds since 1970."""
        ...

    @property
    def tasks(self) -> tuple[str | None, ...]:
        """Keys of the tasks they were logged in."""
        ...


class Task(Protocol):
    """A task that logged numbers, as far as it is known."""

    @property
    def key(self) -> str: ...
    @property
    def place(self) -> int | None: ...
    @property
    def text(self) -> str | None: ...
    def _asdict(self) -> dict[str, Any]: ...


class Logged(Protocol):
    """What one run has logged: name -> series."""

    def __getitem__(self, name: str, /) -> Series: ...
    def __iter__(self) -> Iterator[str]: ...
    def __contains__(self, name: object, /) -> bool: ...
    def task(self, key: str, /) -> Task: ...


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
    runs: tuple[Mapping[str, Any], ...]
    """What is said of each run beside its data, if anything is."""
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
                    **(self.runs[curve.run] if self.runs else {}),
                    "task": curve.task and curve.task._asdict(),
                    "metric": curve.metric,
                    "x": curve.x.tolist(),
                    "y": _all(curve),
                }
                for curve in self.curves
            ],
            "notes": list(self.notes),
        }


def _all(curve: Curve) -> list[float]:
    """With the infinities, which are not drawn."""
    told: list[float] = np.where(np.isnan(curve.y), curve.raw, curve.y).tolist()
    return told


def of_metrics(logged: Logged, metrics: Sequence[str], **options: Any) -> Curves:
    """Of what one run has logged; options as for `of_runs`.

    Raises
    ------
    ValueError: `x` or `smooth` is not what they can be.
    """
    found = of_runs([logged], [("", "")], metrics, **options)
    labels = tuple(label.strip() or "the run" for label in found.labels)
    return replace(found, labels=() if labels == ("the run",) else labels)


def of_runs(
    runs: Sequence[Logged],
    names: Sequence[tuple[str, str]],
    metrics: Sequence[str],
    *,
    x: Axis = "step",
    smooth: float = 0.0,
    log: bool = False,
    limit: int = LIMIT,
) -> Curves:
    """Of what runs have logged.

    Parameters
    ----------
    names: of each run what it is called, and what tells it from the others.
    x: the step, or where it has none the number of the point, or the place of the task that logged but one; the
        time; or the seconds since the run's first point.
    smooth: weight of what was before in a moving average, from 0 to less than 1.
    limit: how many curves of a metric where tasks have their own; 0: all.

    Raises
    ------
    ValueError: `x` or `smooth` is not what they can be.
    """
    check(x, smooth)
    lines, more = _lines(runs, metrics, limit)
    labels = [
        f"{names[line.run][0]}{task and ' '}{task}  {names[line.run][1]}".rstrip()
        for line, task in zip(lines, _tasks(runs, lines), strict=True)
    ]
    curves = _curves(runs, lines, x, smooth, log)
    return Curves(
        metrics=tuple(dict.fromkeys(metrics)),
        axis=x,
        log=log,
        smooth=smooth,
        labels=tuple(labels),
        runs=(),
        curves=tuple(curves),
        notes=(*_left_out(curves), *more),
    )


def check(x: str, smooth: float) -> None:
    """Raises ValueError if `x` is no axis, or `smooth` no weight."""
    if x not in get_args(Axis):
        raise ValueError(f"x must be one of {', '.join(get_args(Axis))}; got {x!r}")
    if not 0 <= smooth < 1:
        raise ValueError(f"smooth must be at least 0 and less than 1; got {smooth!r}")


# -- of which tasks ----------------------------------------------------------------------------------------


class _Line(NamedTuple):
    """What has one label and one colour in all panels."""

    run: int
    task: str | None
    """Key."""
    series: dict[str, Series]
    """Of each metric, what is drawn."""


def _lines(runs: Sequence[Logged], metrics: Sequence[str], limit: int) -> tuple[list[_Line], list[str]]:
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


class _Points(NamedTuple):
    """Some points of a series."""

    values: tuple[float, ...]
    steps: tuple[int | None, ...]
    times: tuple[float, ...]
    tasks: tuple[str | None, ...]


def _chosen(series: Series, places: Sequence[int]) -> Series:
    return _Points(
        values=tuple([series.values[i] for i in places]),
        steps=tuple([series.steps[i] for i in places]),
        times=tuple([series.times[i] for i in places]),
        tasks=tuple([series.tasks[i] for i in places]),
    )


def _in_order(logged: Logged, keys: Iterable[str]) -> list[str]:
    """By place; those of which none is known at the end."""
    places = {key: logged.task(key).place for key in keys}
    return sorted(places, key=lambda key: (places[key] is None, places[key] or 0, key))


def _tasks(runs: Sequence[Logged], lines: Sequence[_Line]) -> list[str]:
    """What the task of each line is called, `task 0.1`; empty for the run itself."""
    names: dict[tuple[int, str], str] = {}
    for run, logged in enumerate(runs):
        keys = [line.task for line in lines if line.run == run and line.task is not None]
        names |= {(run, key): name for key, name in _task_names(logged, keys).items()}
    return ["" if line.task is None else f"task {names[line.run, line.task]}" for line in lines]


def _task_names(logged: Logged, keys: Sequence[str]) -> dict[str, str]:
    """By their texts, or by place if these do not tell them apart; the beginning of the key where neither is known."""
    tasks = [logged.task(key) for key in keys]
    by_key = {task.key: words.line(task.key[:8]) for task in tasks}
    by_place = {task.key: by_key[task.key] if task.place is None else str(task.place) for task in tasks}
    by_text = words.texts_apart(
        {task.key: task.key[:8] if task.text is None else task.text for task in tasks}
    )
    for names in (by_text, by_place):
        if len(set(names.values())) == len(names):
            return names
    return by_key


# -- what it looks like ------------------------------------------------------------------------------------


def _curves(
    runs: Sequence[Logged], lines: Sequence[_Line], axis: Axis, smooth: float, log: bool
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


def _start(logged: Logged) -> float:
    return min((logged[name].times[0] for name in logged if logged[name].times), default=0.0)


def _columns(logged: Logged, series: Series, axis: Axis, start: float) -> tuple[Numbers, Numbers]:
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


def _counted(logged: Logged, series: Series) -> Numbers:
    """What stands for steps: the place of the task where there are several, else the number of the point."""
    told = np.arange(len(series.values), dtype=np.float64)
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
