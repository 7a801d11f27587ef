"""Many runs: choose, sort, compare and draw them, and make a table of them."""

from __future__ import annotations

import functools
import operator
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from ..errors import QueryError, RunctxError
from ..model import Summary
from . import query
from .cache import Entry, row_of
from .query import Column, Query
from .record import Record
from .row import Row, with_metrics

if TYPE_CHECKING:
    import pandas  # type: ignore[import-untyped]
    from matplotlib.figure import Figure

    from ..display.curves import Axis, Curves
    from ..display.table import Listing
    from ..metrics.series import Metrics
    from .comparison import Comparison

_SHOWN = 50
"""Rows of a table in a notebook or at a prompt."""


class Runs(Sequence[Record]):
    """Runs, the newest first; a `Record` each, whose lock is read when it is asked for more than a listing says.

    Parameters
    ----------
    entries: as `runs` found them.
    hints: what `where` noticed.
    asked: what they were chosen and sorted by.
    """

    def __init__(
        self, entries: Sequence[Entry], hints: tuple[str, ...] = (), asked: tuple[Column, ...] = ()
    ) -> None:
        self._entries = entries
        self.hints = hints
        """A sentence for each name that was asked for and that no run has."""
        self.asked = asked
        """Values of the configuration and metrics that they were chosen and sorted by: tables show them."""

    def __len__(self) -> int:
        return len(self._entries)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> Runs: ...
    def __getitem__(self, index: int | slice) -> Record | Runs:
        if isinstance(index, slice):
            return Runs(self._entries[index], self.hints, self.asked)
        entry = self._entries[index]
        return Record(Path(os.fsdecode(entry.path)), row=row_of(entry))

    @functools.cached_property
    def rows(self) -> tuple[Row, ...]:
        """The row of each, without reading its lock again."""
        return tuple(map(row_of, self._entries))

    @functools.cached_property
    def measured(self) -> tuple[Row, ...]:
        """The same; the metrics of runs that go on, or have crashed, are read from what they logged so far."""
        return tuple(map(with_metrics, self.rows))

    def shown(self, most: int | None, asked: Iterable[Column] = ()) -> list[Row]:
        """All rows for a table that shows the first of them, with all that these columns need.

        Those of the first that go on, or have crashed, have the metrics that they have logged so far.
        """
        rows = self.rows_for(asked)
        first = list(map(with_metrics, rows[:most]))
        return [*first, *rows[len(first) :]]

    def rows_for(self, asked: Iterable[Column]) -> tuple[Row, ...]:
        """The rows with all that these columns need."""
        return self.measured if any(one.needs_metrics for one in asked) else self.rows

    def where(self, expression: str) -> Runs:
        """Those that an expression is true of, in the same order.

        Parameters
        ----------
        expression: names, literals, comparisons, `and`, `or`, `not`, as in Python; parsed, never executed. Names:
            `config.<key>`; `metrics.<name>`, its last value, `.min`, `.max` and `.points`; id, stage, status, started,
            seconds, commit, dirty, path, parents, error, tasks, tasks_done, note; `tag("good")` is true of runs that
            are tagged so. Where a run has no such value, a comparison
            is false, `!=` too; `is None` finds these runs. A time is local, and as long as need be:
            `started >= '2026-11'`.

        Raises
        ------
        QueryError: the expression cannot be read; says what, where, and what to write.

        >>> import tempfile
        >>> from runctx import Run, runs
        >>> folder = tempfile.mkdtemp()
        >>> for lr in (0.1, 0.2, 0.3):
        ...     with Run({"lr": lr}, save_dir=f"{folder}/a", console=False) as run:
        ...         run.log_async(acc=1 - lr)
        >>> found = runs(folder).where("config.lr < 0.25 and metrics.acc.max > 0.5")
        >>> [run.cfg.lr for run in found], found.best("acc").cfg.lr
        ([0.2, 0.1], 0.1)
        >>> runs(folder).where("config.lrr < 1").hints
        ('no run has config.lrr; did you mean config.lr?',)
        """
        chosen = Query(expression)
        rows = self.rows_for(chosen.columns)
        return self._chosen((place for place, row in enumerate(rows) if chosen(row)), rows, chosen.columns)

    def sort(self, key: str, *, reverse: bool = False) -> Runs:
        """Sorted by one value: numbers before texts; runs without it, or where it is no number, are last.

        Parameters
        ----------
        key: a name as in `where`, e.g. `metrics.loss.min`.
        reverse: the largest first. Runs with equal values keep their order in any case.

        Raises
        ------
        QueryError: nothing can be called so.
        """
        by = query.column(key)
        rows = self.rows_for([by])
        return self._chosen(query.in_order(rows, by, reverse=reverse), rows, [by])

    def _chosen(self, places: Iterable[int], rows: Sequence[Row], asked: Sequence[Column]) -> Runs:
        entries = [Entry(*self._entries[place][:5], rows[place]) for place in places]
        known = {one.name: one for one in (*self.asked, *asked) if one.section in ("config", "metrics")}
        return Runs(entries, (*self.hints, *query.unmet(asked, rows)), tuple(known.values()))

    def best(self, metric: str, mode: Literal["max", "min"] | None = None) -> Record:
        """The run in which a metric once was best; of several, the first.

        Parameters
        ----------
        metric: its name: what counts is the best value that it had at any time; `<name>.last`: its last value.
        mode: `min`: the lowest is best; `max`: the highest. Default: as the name tells, as in `compare`: a loss,
            error, rmse, wer, fid and the like are best low, an accuracy, f1, auc and the like are best high.

        Raises
        ------
        QueryError: no run has such a metric, or it is never a number; or without `mode`, its name does not tell.
        ValueError: another mode.
        """
        if mode not in ("max", "min", None):
            raise ValueError(f"mode must be 'max' or 'min'; got {mode!r}")
        chosen = mode or query.direction(metric)
        by = query.best_of(metric, chosen or "max")
        values = enumerate(map(by.of, self.measured))
        numbers = {place: value for place, value in values if value is not None and value == value}
        if not numbers:
            hint = query.other_metrics(metric, {name for row in self.measured for name in row.metrics})
            raise QueryError(f"none of these {len(self)} runs has a number for metric {metric!r}", hint=hint)
        if chosen is None:
            raise QueryError(
                f"best({metric!r}): the name does not tell whether low or high values are better",
                hint=f'write best({metric!r}, "min") or best({metric!r}, "max")',
            )
        return self[(max if chosen == "max" else min)(numbers, key=numbers.__getitem__)]

    def compare(self) -> Comparison:
        """What differs between these runs, side by side; reads their locks. What cannot be read is left out, and named.

        Raises
        ------
        QueryError: there are less than two.
        """
        from .comparison import Comparison

        sound, left_out = [], []
        for run in self:
            try:
                run.lock  # noqa: B018 - all of it: a listing does not need most of a lock
                sound.append(run)
            except RunctxError as error:
                left_out.append(f"left out a run: {error.message}")
        return Comparison(sound, [*self.hints, *left_out])

    def plot(
        self,
        *metrics: str,
        x: Axis = "step",
        smooth: float = 0.0,
        log: bool = False,
        limit: int = 8,
    ) -> Figure:
        """Curves of the first runs that logged a metric, as a figure of matplotlib; notebooks show it.

        Of a metric of which a task of `run.map` has logged several points, each task has a curve of its own.

        Parameters
        ----------
        metrics: names of one or several; a panel for each.
        x: `step`: the step, or where it has none the number of the point, or the place of the task that logged but
            one; `time`; or `relative`, the time since the run's first point.
        smooth: weight of what was before in a moving average, from 0 to less than 1.
        log: whether the values are drawn on a logarithmic axis.
        limit: how many runs, or tasks of them; 0: all.

        Raises
        ------
        QueryError: none of the runs has logged one of the metrics; names the nearest.
        ValueError: `x` or `smooth` is not what they can be.
        """
        from ..display import figure

        return figure.draw(self.curves(metrics, x=x, smooth=smooth, log=log, limit=limit))

    def curves(
        self,
        metrics: Sequence[str],
        *,
        x: Axis = "step",
        smooth: float = 0.0,
        log: bool = False,
        limit: int = 8,
    ) -> Curves:
        """The curves that `plot` draws; parameters and errors as there."""
        from ..display import curves as drawing
        from ..display import words
        from ..metrics.series import require
        from . import listing

        drawing.check(x, smooth)
        hints = [words.line(hint) for hint in self.hints]
        if not self:
            raise QueryError("no runs to draw", hint="; ".join(hints) or None)
        found, known, left_out = self._logged(metrics, limit)
        require(metrics, known, f"none of {len(self)} runs" if len(self) > 1 else "the run never")
        if not found:
            gone = "the locks mention them, but the folders `metrics` beside the locks are empty or gone"
            raise QueryError(
                f"no points of {words.several(metrics)} are left to draw", hint="; ".join(left_out) or gone
            )
        rows = [row for row, _ in found]
        differences = listing.differences(rows)
        apart = (" ".join(listing.key_values(values)) for values in differences.of_rows)
        names = [*zip(listing.short_names(rows), apart, strict=True)]
        shown = drawing.of_runs(
            [logged for _, logged in found], names, metrics, x=x, smooth=smooth, log=log, limit=limit
        )
        about = [
            {"run": row.id, "path": row.path, "stage": row.stage, "config": dict(row.config)} for row in rows
        ]
        notes = (*differences.notes, *shown.notes, *left_out, *hints)
        return replace(shown, runs=tuple(about), notes=notes)

    def _logged(
        self, metrics: Sequence[str], limit: int
    ) -> tuple[list[tuple[Row, Metrics]], set[str], list[str]]:
        """The runs that are drawn, all metrics that were seen, and notes on the other runs."""
        from ..display import words
        from . import listing

        found: list[tuple[Row, Metrics]] = []
        known: set[str] = set()
        broken: list[str] = []
        rest = 0
        for row, run in zip(self.rows, self, strict=True):
            known |= row.metrics.keys()
            if row.metrics and row.metrics.keys().isdisjoint(metrics):
                continue  # its lock says so; no file need be read
            if limit and len(found) >= limit:
                rest += 1
                continue
            try:
                logged = run.metrics()
            except RunctxError as error:  # one broken run hides no other
                broken.append(f"left out: {listing.name(row)}: {words.line(error.message)}")
                continue
            known |= logged.keys()
            if not logged.keys().isdisjoint(metrics):
                found.append((row, logged))
        return found, known, [*[f"drew the first {limit} of {limit + rest} runs"] * (rest > 0), *broken]

    def to_dicts(self) -> list[dict[str, Any]]:
        """Plain data, one dict per run, `config` a dict of dotted keys, `metrics` of each name a dict of its parts."""
        return [
            dict(zip(_OWN, _own(row), strict=True))
            | {
                "config": dict(row.config),
                "metrics": {name: asdict(one) for name, one in row.metrics.items()},
            }
            for row in self.measured
        ]

    def to_pandas(self) -> pandas.DataFrame:
        """One line per run; columns `config.<key>` for each key, `metrics.<name>.last`, `.min`, `.max` for each metric.

        Raises
        ------
        ImportError: pandas is not installed.
        """
        from .. import optional

        pandas = optional.pandas("to_pandas")

        table = _columns(self.measured)
        # whatever the runs are, times are times and numbers are numbers
        started = pandas.Series(table["started"], dtype=object)
        numbers = {
            name: pandas.Series(table[name], dtype="float64") for name in ("seconds", "tasks", "tasks_done")
        }
        table |= {"started": pandas.to_datetime(started, utc=True, errors="coerce"), **numbers}
        return pandas.DataFrame(table)

    def __repr__(self) -> str:
        from ..display.words import as_text

        return as_text(self._table())

    def _repr_html_(self) -> str:
        return self._table().html()

    def _table(self) -> Listing:
        from .listing import listing

        return listing(self.shown(_SHOWN, self.asked), _SHOWN, besides=self.asked, hints=self.hints)


_OWN = (
    *("id", "stage", "status", "started", "seconds", "commit", "dirty", "path", "parents"),
    *("tasks", "tasks_done", "error", "tags", "note"),
)
_own = operator.attrgetter(*_OWN)
_NONE = Summary(last=float("nan"), min=float("nan"), max=float("nan"), points=0)


def _columns(rows: Sequence[Row]) -> dict[str, Sequence[Any]]:
    """Name -> a value of each: a data frame takes lists in a tenth of the time that it takes for dicts."""
    table: dict[str, Sequence[Any]] = dict.fromkeys(_OWN, ())
    if rows:
        table.update(zip(_OWN, zip(*map(_own, rows), strict=True), strict=True))
    for key in dict.fromkeys(key for row in rows for key in row.config):
        table[f"config.{key}"] = [row.config.get(key) for row in rows]
    for name in dict.fromkeys(name for row in rows for name in row.metrics):
        found = [row.metrics.get(name, _NONE) for row in rows]
        for part in ("last", "min", "max"):
            table[f"metrics.{name}.{part}"] = [getattr(summary, part) for summary in found]
    return table
