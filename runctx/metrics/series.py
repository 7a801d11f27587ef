"""Read what a run has logged: as columns, one for each metric, and as summaries for its lock."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import layout
from ..config.messages import did_you_mean
from ..errors import LedgerError, QueryError
from ..model import SYSTEM, Summary
from . import journal

if TYPE_CHECKING:
    import pandas  # type: ignore[import-untyped]
    from matplotlib.figure import Figure

    from ..display.curves import Axis


@dataclass(frozen=True, slots=True, repr=False)
class Series:
    """One metric, in the order of time; prints as a short table."""

    values: tuple[float, ...]
    steps: tuple[int | None, ...]
    times: tuple[float, ...]
    """Seconds since 1970."""
    tasks: tuple[str | None, ...]
    """Keys of the tasks they were logged in."""

    @property
    def last(self) -> float:
        return self.values[-1]

    def __len__(self) -> int:
        return len(self.values)

    def __repr__(self) -> str:
        from ..display import tables, words

        return words.as_text(tables.metrics({"": self}))

    def _repr_html_(self) -> str:
        return Metrics({"": self})._repr_html_()


class Task(NamedTuple):
    """A task that logged numbers; its place and text are None where its map's list of tasks does not tell them."""

    key: str
    place: int | None = None
    """Among the tasks of its map."""
    text: str | None = None


class Metrics(Mapping[str, Series]):
    """Name -> the numbers that were logged, columns of equal length; prints as a short table.

    Parameters
    ----------
    series: the columns of each.
    save_dir: of the run, whose maps name their tasks there.

    >>> Metrics({"loss": Series((0.5, 0.3), (0, 1), (1.0, 2.0), (None, None))})["loss"].last
    0.3
    """

    def __init__(self, series: Mapping[str, Series], save_dir: Path | None = None) -> None:
        self._series = dict(series)
        self._save_dir = save_dir

    def __getitem__(self, name: str) -> Series:
        return self._series[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._series)

    def __len__(self) -> int:
        return len(self._series)

    def __repr__(self) -> str:
        from ..display import tables, words

        return words.as_text(tables.metrics(self))

    def _repr_html_(self) -> str:
        from ..display import tables

        return tables.metrics(self, curves=True).html()

    def task(self, key: str) -> Task:
        """What is known of a task; read from disk once, when it is first asked for."""
        return self._tasks.get(key, Task(key))

    @functools.cached_property
    def _tasks(self) -> dict[str, Task]:
        from ..tasks.ledger import read_labels

        found: dict[str, Task] = {}
        if self._save_dir is not None:
            for todo in sorted((self._save_dir / layout.TASKS).glob(f"*/{layout.TODO}")):
                with contextlib.suppress(LedgerError):  # the numbers are told all the same
                    names = read_labels(layout.TaskFiles(self._save_dir, todo.parent.name))
                    found |= {key: Task(key, place, text) for place, (key, text) in enumerate(names.items())}
        return found

    def plot(
        self, *metrics: str, x: Axis = "step", smooth: float = 0.0, log: bool = False, limit: int = 8
    ) -> Figure:
        """Curves as a figure of matplotlib, a panel for each metric; notebooks show it.

        Of a metric of which a task of `run.map` has logged several points, each task has a curve of its own.

        Parameters
        ----------
        metrics: names of one or several.
        x: `step`: the step, or where it has none the number of the point, or the place of the task that logged but
            one; `time`; or `relative`, the time since the run's first point.
        smooth: weight of what was before in a moving average, from 0 to less than 1.
        log: whether the values are drawn on a logarithmic axis.
        limit: how many tasks; 0: all.

        Raises
        ------
        QueryError: none is called so; names the nearest. ValueError: `x` or `smooth` is not what they can be.
        """
        from ..display import curves, figure

        curves.check(x, smooth)
        require(metrics, self, "the run never")
        return figure.draw(curves.of_metrics(self, metrics, x=x, smooth=smooth, log=log, limit=limit))

    def to_pandas(self) -> pandas.DataFrame:
        """One line per number: `metric`, `step`, `value`, `time` (UTC), and `task` if any was logged in one.

        Raises
        ------
        ImportError: pandas is not installed.
        """
        from .. import optional

        pandas = optional.pandas("to_pandas")
        import numpy as np

        every = list(self.values())
        times = np.array([time for series in every for time in series.times], dtype="float64")
        times[np.abs(times) > 9e9] = np.nan  # beyond the year 2255, as far as pandas' nanoseconds go
        told: dict[str, Any] = {
            "metric": np.repeat(np.array(list(self), dtype=object), [len(series) for series in every]),
            "step": pandas.array([step for series in every for step in series.steps], dtype="Int64"),
            "value": np.array([value for series in every for value in series.values], dtype="float64"),
            "time": pandas.to_datetime(times, unit="s", utc=True, errors="coerce"),
        }
        tasks = [task for series in every for task in series.tasks]
        if any(task is not None for task in tasks):
            told["task"] = pandas.array(tasks, dtype="str")
        return pandas.DataFrame(told)


def require(metrics: Sequence[str], known: Iterable[str], who: str) -> None:
    """Raises QueryError if no metric is named, or `who` logged one that is not among the known; names the nearest."""
    from ..display import words

    there = sorted(name for name in known if not name.startswith(SYSTEM)) or sorted(known)
    listed = f"there are: {words.several(there)}" if there else "log one by `run.log_async(loss=0.3, step=7)`"
    if not metrics:
        raise QueryError("name a metric to draw", hint=listed)
    for name in metrics:
        if name not in known:
            hint = did_you_mean(name, there)
            raise QueryError(
                f"{who} logged {words.line(name, 80)!r}", hint=listed if hint is None else words.line(hint)
            )


def read(folder: Path) -> Metrics:
    """Name of each metric -> its points.

    Parameters
    ----------
    folder: `metrics` in the run's folder.

    Raises
    ------
    LedgerError: a file is broken; names it.
    """
    columns: dict[str, tuple[list[float], list[journal.Point]]] = {}
    for point in journal.read(folder):
        for name, value in point.values.items():
            if (column := columns.get(name)) is None:
                column = columns[name] = [], []
            column[0].append(float(value))
            column[1].append(point)
    series = {
        name: Series(
            values=tuple(values),
            steps=tuple(point.step for point in points),
            times=tuple(point.time for point in points),
            tasks=tuple(point.task for point in points),
        )
        for name, (values, points) in columns.items()
    }
    return Metrics(series, folder.parent)


def summaries(folder: Path) -> dict[str, Summary]:
    """Last, lowest and highest value and number of points of each metric; in memory that does not grow with the points.

    Raises
    ------
    LedgerError: a file is broken; names it.
    """
    found: dict[str, _Running] = {}
    for path in journal.files(folder):
        for time, point in journal.read_file(path):
            for name, value in point.values.items():
                if (running := found.get(name)) is None:
                    running = found[name] = _Running()
                running.add(float(value), time)
    return {
        name: Summary(last=one.last, min=one.min, max=one.max, points=one.points)
        for name, one in sorted(found.items())
    }


class _Running:
    """The summary of one metric so far."""

    __slots__ = ("last", "max", "min", "points", "time")

    def __init__(self) -> None:
        self.time, self.points = -math.inf, 0
        self.last = self.min = self.max = math.nan

    def add(self, value: float, time: float) -> None:
        self.points += 1
        if time >= self.time:
            self.last, self.time = value, time
        # every comparison with NaN is false: it never replaces a number, and any number replaces it
        if not self.min <= value and value == value:
            self.min = value
        if not self.max >= value and value == value:
            self.max = value
