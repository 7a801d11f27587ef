"""Choose the runs whose curves are drawn, and say what is left out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from ..display import curves, words
from ..errors import QueryError, RunctxError
from ..metrics.series import Metrics, require
from .listing import differences, key_values, name
from .record import Record
from .row import Row


def of_runs(
    rows: Sequence[Row],
    runs: Iterable[Record],
    metrics: Sequence[str],
    hints: Sequence[str] = (),
    *,
    x: curves.Axis = "step",
    smooth: float = 0.0,
    log: bool = False,
    limit: int = curves.LIMIT,
) -> curves.Curves:
    """The curves of the first runs that have logged one of the metrics.

    Parameters
    ----------
    rows: what a listing knows of the runs. hints: sentences that are said below.
    x, smooth, log, limit: as for `Runs.plot`.

    Raises
    ------
    QueryError: none of them has logged one of the metrics; names the nearest that there are. Or none was named.
    ValueError: `x` or `smooth` is not what they can be.
    """
    curves.check(x, smooth)
    if not rows:
        raise QueryError("no runs to draw", hint="; ".join(map(words.line, hints)) or None)
    found, known, notes = _logged(rows, runs, metrics, limit)
    require(metrics, known, f"none of {len(rows)} runs" if len(rows) > 1 else "the run never")
    if not found:
        raise QueryError(
            f"no points of {words.several(metrics)} are left to draw",
            hint="; ".join(notes)
            or "the locks mention them, but the folders `metrics` beside the locks are empty or gone",
        )
    drawn = [row for row, _ in found]
    told = differences(drawn)
    named = zip(_names(drawn), (" ".join(key_values(values)) for values in told.of_rows), strict=True)
    shown = curves.of_runs(
        [logged for _, logged in found], [*named], metrics, x=x, smooth=smooth, log=log, limit=limit
    )
    about = [
        {"run": row.id, "path": row.path, "stage": row.stage, "config": dict(row.config)} for row in drawn
    ]
    below = (*told.notes, *shown.notes, *notes, *map(words.line, hints))
    return replace(shown, runs=tuple(about), notes=below)


def _logged(
    rows: Sequence[Row], runs: Iterable[Record], metrics: Sequence[str], limit: int
) -> tuple[list[tuple[Row, Metrics]], set[str], list[str]]:
    """The runs that are drawn, all metrics that were seen, and what is said of the other runs."""
    found: list[tuple[Row, Metrics]] = []
    known: set[str] = set()
    broken: list[str] = []
    rest = 0
    for row, run in zip(rows, runs, strict=True):
        known |= row.metrics.keys()
        if row.metrics and row.metrics.keys().isdisjoint(metrics):
            continue  # its lock says so; no file need be read
        if limit and len(found) >= limit:
            rest += 1
            continue
        try:
            logged = run.metrics()
        except RunctxError as error:  # one broken run hides no other
            broken.append(f"left out: {name(row)}: {words.line(error.message)}")
            continue
        known |= logged.keys()
        if not logged.keys().isdisjoint(metrics):
            found.append((row, logged))
    return found, known, [*[f"drew the first {limit} of {limit + rest} runs"] * (rest > 0), *broken]


def _names(rows: Sequence[Row]) -> list[str]:
    """The ids; without the letters at their end unless these are needed to tell them apart."""
    short = [row.id.rpartition("-")[0] for row in rows]
    if all(short) and len(set(short)) == len(short):
        return [words.line(one, 80) for one in short]
    return [name(row) for row in rows]
