"""How are the metrics of one run shown? A line for each: how many points, the last, the lowest, the highest."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from rich.table import Table
from rich.text import Text

from ..trackers.metrics import Metrics, Series
from . import curves, points, words

_SHOWN = 50
"""Metrics in one table."""
_WIDTH, _HEIGHT = 120, 20
"""Of a small curve; pixels."""
_CELL = "padding:2px 10px 2px 0;text-align:right;white-space:nowrap"
_HEADS = ("points", "last", "min", "max", "steps")


def table(metrics: Mapping[str, Series]) -> Table:
    """For a terminal; without a column of names if there is but a series without one."""
    named = any(metrics)
    by = _by(metrics)
    told = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for head in ("metric",) * named + _heads(by):
        told.add_column(Text(head, "bold"), justify="left" if head == "metric" else "right", no_wrap=True)
    for name, series in _first(metrics):
        told.add_row(*[Text(words.line(name, 60))] * named, *map(Text, _cells(series, by.get(name))))
    if len(metrics) > _SHOWN:
        told.add_row(Text(f"… {len(metrics) - _SHOWN} more", "dim"))
    return told


def as_html(metrics: Metrics) -> str:
    """For a notebook, with a small curve of each; in the page's colours."""
    if not metrics:
        return "<div>no metrics</div>"
    by = _by(metrics)
    heads = "".join(f'<th style="{_CELL}">{head}</th>' for head in ("metric", "", *_heads(by)))
    lines = []
    for name, series in _first(metrics):
        cells = "".join(
            f'<td style="{_CELL}">{html.escape(cell)}</td>' for cell in _cells(series, by.get(name))
        )
        shown = html.escape(words.line(name, 60))
        small = _small(curves.of_metrics(metrics, [name]).curves)
        lines.append(
            f'<tr><td style="{_CELL};text-align:left">{shown}</td><td style="{_CELL}">{small}</td>{cells}</tr>'
        )
    more = f'<div style="opacity:.65">… {len(metrics) - _SHOWN} more</div>' * (len(metrics) > _SHOWN)
    return (
        '<div style="overflow-x:auto"><table style="border-collapse:collapse">'
        f"<thead><tr>{heads}</tr></thead><tbody>{''.join(lines)}</tbody></table>{more}</div>"
    )


def _first(metrics: Mapping[str, Series]) -> Sequence[tuple[str, Series]]:
    return list(metrics.items())[:_SHOWN]


def _by(metrics: Mapping[str, Series]) -> dict[str, str]:
    """Who logged each, of which `last` is but one; empty if nothing was logged by several tasks."""
    counts = {name: len({*series.tasks} - {None}) for name, series in _first(metrics)}
    several = any(count > 1 for count in counts.values())
    return {name: f"{count} tasks" * (count > 1) for name, count in counts.items()} if several else {}


def _heads(by: Mapping[str, str]) -> tuple[str, ...]:
    return (*_HEADS, "logged by") if by else _HEADS


def _cells(series: Series, by: str | None) -> Iterator[str]:
    numbers = [value for value in series.values if value == value]
    yield str(len(series))
    yield f"{series.last:.5g}" if series.values else ""
    for extreme in (min, max):
        yield f"{extreme(numbers):.5g}" if numbers else ""
    steps = [step for step in series.steps if step is not None]
    yield f"{min(steps)} … {max(steps)}" if steps else ""
    if by is not None:
        yield by


def _small(shown: Sequence[curves.Curve]) -> str:
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
        f'aria-label="curve"><path d="{path}" fill="none" stroke="{curves.COLOURS[0]}" stroke-width="1.5" '
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
