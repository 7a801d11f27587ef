"""How are the metrics of one run shown? A line for each: how many points, the last, the lowest, the highest."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from rich.table import Table
from rich.text import Text

from ..trackers.metrics import Metrics, Series
from . import curves, points, words
from .differences import texts_apart
from .page import NUMBERS

_SHOWN = 50
"""Metrics in one table."""
_WIDTH, _HEIGHT = 120, 20
"""Of a small curve; pixels."""
_CELL = "padding:2px 10px 2px 0;text-align:right;white-space:nowrap"
_NAME = "text-align:left;white-space:normal;overflow-wrap:anywhere;max-width:24em"
_NUMBERS = ("last", "min", "max")


def table(metrics: Mapping[str, Series]) -> Table:
    """For a terminal; without a column of names if there is but a series without one."""
    named = any(metrics)
    shown = _first(metrics)
    by = _by(shown)
    told = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    if named:
        told.add_column(Text("metric", "bold"), overflow="fold")  # only names give way where there is no room
    for head in _heads(by):
        told.add_column(Text(head, "bold"), justify="left" if head in _NUMBERS else "right", no_wrap=True)
    for name, cells in _cells(shown, by):
        told.add_row(*[Text(name)] * named, *map(Text, cells))
    if len(metrics) > _SHOWN:
        told.add_row(Text(f"… {len(metrics) - _SHOWN} more", "dim"))
    return told


def as_html(metrics: Metrics) -> str:
    """For a notebook, with a small curve of each; in the page's colours."""
    if not metrics:
        return "<div>no metrics</div>"
    shown = _first(metrics)
    by = _by(shown)
    heads = "".join(f'<th style="{_CELL}">{head}</th>' for head in ("metric", "", *_heads(by)))
    lines = []
    for given, (name, cells) in zip(shown, _cells(shown, by), strict=True):
        small = _small(curves.of_metrics(metrics, [given]).curves)
        numbers = "".join(f'<td style="{_CELL};{NUMBERS}">{html.escape(cell)}</td>' for cell in cells)
        lines.append(
            f'<tr><td style="{_CELL};{_NAME}">{html.escape(name)}</td><td style="{_CELL}">{small}</td>{numbers}</tr>'
        )
    more = f'<div style="opacity:.65">… {len(metrics) - _SHOWN} more</div>' * (len(metrics) > _SHOWN)
    return (
        '<div style="overflow-x:auto"><table style="border-collapse:collapse">'
        f"<thead><tr>{heads}</tr></thead><tbody>{''.join(lines)}</tbody></table>{more}</div>"
    )


def _first(metrics: Mapping[str, Series]) -> dict[str, Series]:
    return dict(list(metrics.items())[:_SHOWN])


def _by(shown: Mapping[str, Series]) -> dict[str, str]:
    """Who logged each, of which `last` is but one; empty if nothing was logged by several tasks."""
    counts = {name: len({*series.tasks} - {None}) for name, series in shown.items()}
    several = any(count > 1 for count in counts.values())
    return {name: f"{count} tasks" * (count > 1) for name, count in counts.items()} if several else {}


def _heads(by: Mapping[str, str]) -> tuple[str, ...]:
    return ("points", *_NUMBERS, "steps", *["logged by"] * bool(by))


def _cells(shown: Mapping[str, Series], by: Mapping[str, str]) -> Iterator[tuple[str, list[str]]]:
    """Of each metric its name and what stands beside it; numbers point below point."""
    names = texts_apart({name: name for name in shown})
    numbers = {name: [value for value in series.values if value == value] for name, series in shown.items()}
    last = [words.number(series.last) if series.values else "" for series in shown.values()]
    low, high = (
        [words.number(edge(some)) if some else "" for some in numbers.values()] for edge in (min, max)
    )
    columns = [words.aligned(column) for column in (last, low, high)]
    for (name, series), *of_name in zip(shown.items(), *columns, strict=True):
        steps = [step for step in series.steps if step is not None]
        beside = [f"{min(steps)} … {max(steps)}" if steps else "", *([by[name]] if by else ())]
        yield names[name], [str(len(series)), *of_name, *beside]


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
