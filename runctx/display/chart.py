"""Draw curves in a terminal: eight dots in each place, and a letter along each curve."""

from __future__ import annotations

import math
import string
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

import numpy as np
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from . import points, words
from .curves import COLOURS, Curve, Curves

_LETTERS = string.ascii_uppercase + string.ascii_lowercase
_EVERY = 14
"""Places from one letter of a curve to the next."""
_ROWS = 14
"""Places from the lowest to the highest value of a panel."""
_ACROSS, _DOWN = 2, 4
_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
"""Bits of a Braille character, by column and row from the top."""
_BRAILLE = 0x2800


@dataclass(frozen=True)
class Chart:
    """A panel for each metric, and below them the runs, or their tasks; readable without colour.

    Parameters
    ----------
    width: of the panels, in places; default: as there is room.
    """

    curves: Curves
    width: int | None = None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        curves, letters = self.curves, _LETTERS if len(self.curves.labels) > 1 else ""
        for metric in curves.metrics:
            yield from _panel(curves, metric, self.width or options.max_width, letters)
        if letters:
            yield Text()
        for line, label in enumerate(curves.labels):
            letter = f"{letters[line % len(letters)]}  " if letters else ""
            yield Text.assemble((letter, COLOURS[line % len(COLOURS)]), label)
        for note in curves.notes:
            yield Text(note, "dim")


class _Tick(NamedTuple):
    value: float
    text: str


class _View(NamedTuple):
    """What a panel shows; on a logarithmic axis y is an exponent of ten."""

    left: float
    right: float
    low: float
    high: float
    scale: float
    """What one unit of x is, in the unit that is written."""
    across: str


def _panel(curves: Curves, metric: str, width: int, letters: str) -> Iterator[Text]:
    name = words.line(metric, 80) + ", logarithmic" * curves.log
    yield Text(name + f", smoothed by {curves.smooth:g}" * bool(curves.smooth), "bold")
    shown = [(curve, np.log10(curve.y) if curves.log else curve.y) for curve in curves.of(metric)]
    view = _view(curves, shown)
    if view is None:
        yield Text("  no point can be drawn", "dim")
        return
    told = (powers if curves.log else numbers)(view.low, view.high, 7)
    heights = points.places(np.array([tick.value for tick in told]), view.low, view.high).tolist()
    beside = {round((_ROWS - 1) * (1 - at)): tick.text for at, tick in zip(heights, told, strict=True)}
    margin = max(map(len, beside.values()), default=0)
    columns = max(width - margin - 2, 10)
    grid = [[(" ", "")] * columns for _ in range(_ROWS)]
    for curve, y in shown:
        letter = letters[curve.line % len(letters)] if letters else ""
        _draw(grid, curve, y, view, letter, curve.line * _EVERY // max(len(curves.labels), 1))
    for row, places in enumerate(grid):
        text = beside.get(row, "")
        yield Text.assemble(f"{text:>{margin}} {'┤' if text else '│'}", *places)
    yield from _below(view, curves.axis, columns, margin)


def _view(curves: Curves, shown: Sequence[tuple[Curve, points.Numbers]]) -> _View | None:
    there = [np.stack((curve.x, y))[:, ~np.isnan(y)] for curve, y in shown]
    x, y = np.concatenate(there, axis=1) if there else np.empty((2, 0))
    if not len(x):
        return None
    left, right = float(x.min()), float(x.max())
    scale, across = 1, "step"
    if curves.axis == "relative":
        scale, name = points.unit(right - left)
        across = f"{name} since the first point"
    elif curves.axis == "time":
        right = max(right, left + 1)
        across = f"local time, from {datetime.fromtimestamp(left):%Y-%m-%d}"
    left, right = widened(left / scale, right / scale)
    return _View(left, right, *widened(float(y.min()), float(y.max())), scale, across)


_Grid = list[list[tuple[str, str]]]
"""Character and colour of each place."""


def _draw(grid: _Grid, curve: Curve, y: points.Numbers, view: _View, letter: str, shift: int) -> None:
    columns, rows = len(grid[0]) * _ACROSS, _ROWS * _DOWN
    x, y = points.thinned(curve.x / view.scale, y, columns)
    across = points.places(x, view.left, view.right) * (columns - 1)
    down = (1 - points.places(y, view.low, view.high)) * (rows - 1)
    way = list(zip(across.tolist(), down.tolist(), strict=True))
    colour = COLOURS[curve.line % len(COLOURS)]
    middle: dict[int, int] = {}
    for one, other in zip(way, [*way[1:], way[-1]], strict=True):
        if math.isnan(one[1]):
            continue
        for column, top, bottom in _dots(one, one if math.isnan(other[1]) else other):
            for row in range(top, bottom + 1):
                before, _ = grid[row // _DOWN][column // _ACROSS]
                bits = (ord(before) - _BRAILLE) if ord(before) >= _BRAILLE else 0
                dot = chr(_BRAILLE | bits | _DOTS[column % _ACROSS][row % _DOWN])
                grid[row // _DOWN][column // _ACROSS] = (before if before in _LETTERS else dot), colour
            middle[column // _ACROSS] = (top + bottom) // 2 // _DOWN
    # at places of its own, so that of curves that lie one on the other each is seen
    for column in [one for one in middle if one % _EVERY == shift] or list(middle)[-1:]:
        if letter:
            grid[middle[column]][column] = letter, colour


def _dots(one: tuple[float, float], other: tuple[float, float]) -> Iterator[tuple[int, int, int]]:
    """Column, top and bottom of what lies between two points."""
    (x, y), (to, end) = one, other
    first, last = round(x), round(to)
    if first == last:
        top, bottom = sorted((round(y), round(end)))
        yield first, top, bottom
        return
    for column in range(first, last + 1):
        edges = [min(max(edge, x), to) for edge in (column - 0.5, column + 0.5)]
        low, high = sorted(round(y + (end - y) * (edge - x) / (to - x)) for edge in edges)
        yield column, low, high


def _below(view: _View, axis: str, width: int, margin: int) -> Iterator[Text]:
    most = max(2, width // 10)
    if axis == "time":
        marks = _moments(view.left, view.right, min(most, 4))
    else:
        marks = numbers(view.left, view.right, most, whole=axis == "step")
    rule, line = ["─"] * width, [" "] * (width + margin + 2)
    free = 0
    for mark in marks:
        at = round((width - 1) * (mark.value - view.left) / (view.right - view.left))
        start = min(max(margin + 2 + at - len(mark.text) // 2, free), len(line) - len(mark.text))
        if start < free:
            continue
        rule[at] = "┬"
        line[start : start + len(mark.text)] = mark.text
        free = start + len(mark.text) + 1
    yield Text(f"{'':{margin}} └{''.join(rule)}")
    yield Text("".join(line).rstrip())
    yield Text(f"{'':{margin + 2}}{view.across:^{width}}".rstrip(), "dim")


# -- axes --------------------------------------------------------------------------------------------------

_DAY = 86_400
_FORMS = ((600, "%H:%M:%S"), (_DAY, "%H:%M"), (300 * _DAY, "%m-%d %H:%M"), (math.inf, "%Y-%m-%d"))
"""How a moment is written, by the span of time that an axis shows."""


def widened(low: float, high: float) -> tuple[float, float]:
    """Limits of an axis that shows these values, and something around a single one.

    >>> widened(2.0, 2.0)
    (1.9, 2.1)
    """
    size = max(abs(low), abs(high))
    if high - low > 1e-12 * size and high - low > 1e-290:
        return low, high
    margin = max(0.05 * size, 1e-280) if size > 1e-290 else 1.0
    return max(low - margin, -sys.float_info.max), min(high + margin, sys.float_info.max)


def numbers(low: float, high: float, most: int, *, whole: bool = False) -> list[_Tick]:
    """Round numbers inside the limits, at most `most` + 1 of them.

    >>> [tick.text for tick in numbers(0.0, 0.93, 5)]
    ['0.0', '0.2', '0.4', '0.6', '0.8']
    """
    from matplotlib.ticker import MaxNLocator  # not before something is drawn

    shrunk = 1e10 if max(abs(low), abs(high)) > 1e290 else 1.0  # the difference of two may be infinite
    locator = MaxNLocator(nbins=most, steps=[1, 2, 5, 10], integer=whole)
    room = 1e-12 * (high / shrunk - low / shrunk)
    found = [float(one) for one in locator.tick_values(low / shrunk, high / shrunk)]
    inside = (one for one in found if low / shrunk - room <= one <= high / shrunk + room)
    values = [one * shrunk for one in inside if not whole or one.is_integer()]
    step = max((found[1] - found[0]) * shrunk, float(whole))
    return [_Tick(value, text) for value, text in zip(values, _written(values, step), strict=True)]


def powers(low: float, high: float, most: int) -> list[_Tick]:
    """Ticks of a logarithmic axis; limits and values are exponents of ten.

    >>> [tick.text for tick in powers(-3.0, 0.5, 5)]
    ['1e-3', '1e-2', '1e-1', '1e0']
    """
    exponents = [_Tick(tick.value, f"1e{round(tick.value)}") for tick in numbers(low, high, most, whole=True)]
    if len(exponents) > 1:
        return exponents
    # less than two powers: round numbers between, as closely as they differ
    between = numbers(10**low, 10 ** min(high, 308.25), most)
    return [_Tick(math.log10(tick.value), tick.text) for tick in between if tick.value > 0]


def _moments(low: float, high: float, most: int) -> list[_Tick]:
    """Local times at equal distances, of seconds since 1970."""
    form = next(form for span, form in _FORMS if high - low < span)
    values = [low + (high - low) * i / most for i in range(most + 1)]
    texts = [f"{datetime.fromtimestamp(value):{form}}" for value in values]
    if high - low < 10:
        texts = [f"{datetime.fromtimestamp(value):%H:%M:%S.%f}"[:10] for value in values]
    return [_Tick(value, text) for value, text in zip(values, texts, strict=True)]


def _written(values: Sequence[float], step: float) -> list[str]:
    """With as many digits as tell them apart."""
    size = max(map(abs, values), default=0.0)
    if size >= 1e6 or 0 < size < 1e-3:
        digits = max(0, math.ceil(math.log10(size / step)))
        return [f"{value:.{min(digits, 15)}e}" if value else "0" for value in values]
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return [f"{value:.{decimals}f}" for value in values]
