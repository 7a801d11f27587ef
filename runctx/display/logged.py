"""Show the metrics of one run: a line for each, with how many points, the last, the lowest and the highest value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from rich.text import Text

from . import points, words
from .curves import COLOURS, Curve, Logged, Series, of_metrics
from .table import Table

_SHOWN = 50
"""Metrics in one table."""
_WIDTH, _HEIGHT = 120, 20
"""Of a small curve; pixels."""


def table(metrics: Mapping[str, Series], logged: Logged | None = None) -> Table:
    """A line for each metric; without a column of names if there is but a series without one.

    Parameters
    ----------
    logged: the same, where a notebook is to show a small curve of each.
    """
    shown = dict(list(metrics.items())[:_SHOWN])
    columns = (
        {"metric": list(words.texts_apart({name: name for name in shown}).values())} if any(metrics) else {}
    )
    columns |= {head: texts for head, texts in _columns(list(shown.values())).items() if any(texts)}
    more = len(metrics) - len(shown)
    return Table(
        heads=list(columns),
        rows=[
            [
                Text(text, "" if head == "metric" else "number")
                for head, text in zip(columns, row, strict=True)
            ]
            for row in zip(*columns.values(), strict=True)
        ],
        notes=[f"… {more} more"] * (more > 0),
        instead="no metrics",
        whole=[head for head in columns if head != "metric"],  # only names give way where there is no room
        pictures=[_small(of_metrics(logged, [name]).curves) for name in shown] if logged is not None else (),
    )


def _columns(series: Sequence[Series]) -> dict[str, list[str]]:
    """Numbers point below point."""
    numbers = [[value for value in one.values if value == value] for one in series]
    steps = [[step for step in one.steps if step is not None] for one in series]
    tasks = [len({*one.tasks} - {None}) for one in series]
    several = max(tasks, default=0) > 1  # of which `last` is but one
    return {
        "points": _right([str(len(one.values)) for one in series], "points"),
        "last": words.aligned([words.number(one.values[-1]) if one.values else "" for one in series]),
        "min": words.aligned([words.number(min(some)) if some else "" for some in numbers]),
        "max": words.aligned([words.number(max(some)) if some else "" for some in numbers]),
        "steps": _right([f"{min(some)} … {max(some)}" if some else "" for some in steps], "steps"),
        "logged by": [f"{count} tasks" * (count > 1) for count in tasks] if several else [],
    }


def _right(texts: Sequence[str], head: str) -> list[str]:
    width = max(map(len, (head, *texts)))
    return [text.rjust(width) for text in texts]


def _small(shown: Sequence[Curve]) -> str:
    """Curves without axes, each interrupted where there is no number."""
    every = [points.thinned(curve.x, curve.y, _WIDTH) for curve in shown]
    x, y = (np.concatenate(columns) for columns in zip(*every, strict=True))
    if np.isnan(y).all():
        return ""
    left, right, low, high = (float(edge) for edge in (x.min(), x.max(), np.nanmin(y), np.nanmax(y)))
    path = ""
    for one, other in every:
        across = 1 + points.places(one, left, right) * (_WIDTH - 2)
        down = 1 + (1 - points.places(other, low, high)) * (_HEIGHT - 2)
        path += _path(across.tolist(), np.where(np.isnan(other), np.nan, down).tolist())
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}" role="img" '
        f'aria-label="curve"><path d="{path}" fill="none" stroke="{COLOURS[0]}" stroke-width="1.5" '
        'stroke-linecap="round" stroke-linejoin="round"/></svg>'
    )


def _path(across: Sequence[float], down: Sequence[float]) -> str:
    path, pen = "", "M"
    for x, y in zip(across, down, strict=True):
        if y != y:
            pen = "M"
            continue
        path += f"{pen}{x:.1f} {y:.1f}" + "h0" * (pen == "M")  # a point alone is a dot
        pen = "L"
    return path
