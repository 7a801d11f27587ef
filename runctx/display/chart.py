"""How are curves drawn in a terminal? With eight dots in each place, and a letter along each curve."""

from __future__ import annotations

import math
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

import numpy as np
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from . import points, ticks, words
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
        letters = _LETTERS if len(self.curves.labels) > 1 else ""
        for metric in self.curves.metrics:
            yield from _panel(self.curves, metric, self.width or options.max_width, letters)
        if letters:
            yield Text()
        for number, label in enumerate(self.curves.labels):
            yield Text.assemble(_letter(number, letters), label)
        for note in self.curves.notes:
            yield Text(note, "dim")


class _View(NamedTuple):
    """What a panel shows; on a logarithmic axis y is an exponent of ten."""

    left: float
    right: float
    low: float
    high: float
    scale: float
    """What one unit of x is, in the unit that is written."""
    across: str


class _Grid:
    """Places for characters, each of them for two by four dots."""

    def __init__(self, width: int, height: int) -> None:
        self.bits = [[0] * width for _ in range(height)]
        self.lines = [[0] * width for _ in range(height)]
        self.letters: dict[tuple[int, int], str] = {}

    def dots(self, column: int, top: int, bottom: int, line: int) -> None:
        for row in range(top, bottom + 1):
            self.bits[row // _DOWN][column // _ACROSS] |= _DOTS[column % _ACROSS][row % _DOWN]
            self.lines[row // _DOWN][column // _ACROSS] = line

    def text(self, row: int) -> Text:
        told = Text()
        for column, (bits, line) in enumerate(zip(self.bits[row], self.lines[row], strict=True)):
            letter = self.letters.get((row, column))
            told.append(
                letter or (chr(_BRAILLE + bits) if bits else " "),
                COLOURS[line % len(COLOURS)] if bits else "",
            )
        return told


def _letter(line: int, letters: str) -> Text:
    return Text(f"{letters[line % len(letters)]}  " if letters else "", COLOURS[line % len(COLOURS)])


def _panel(curves: Curves, metric: str, width: int, letters: str) -> Iterator[Text]:
    name = words.line(metric, 80) + ", logarithmic" * curves.log
    yield Text(name + f", smoothed by {curves.smooth:g}" * bool(curves.smooth), "bold")
    shown = [(curve, _heights(curve, curves.log)) for curve in curves.of(metric)]
    view = _view(curves, shown)
    if view is None:
        yield Text("  no point can be drawn", "dim")
        return
    beside = _beside(view, curves.log)
    margin = max((len(text) for text in beside.values()), default=0)
    grid = _Grid(max(width - margin - 2, 10), _ROWS)
    for curve, y in shown:
        _draw(grid, curve, y, view, letters, len(curves.labels))
    for row in range(_ROWS):
        text = beside.get(row, "")
        yield Text(f"{text:>{margin}} {'┤' if text else '│'}").append_text(grid.text(row))
    yield from _below(view, curves.axis, len(grid.bits[0]), margin)


def _heights(curve: Curve, log: bool) -> points.Numbers:
    return np.log10(curve.y) if log else curve.y


def _view(curves: Curves, shown: Sequence[tuple[Curve, points.Numbers]]) -> _View | None:
    there = [np.stack((curve.x, y))[:, ~np.isnan(y)] for curve, y in shown]
    x, y = np.concatenate(there, axis=1) if there else np.empty((2, 0))
    if not len(x):
        return None
    left, right = float(x.min()), float(x.max())
    scale, across = 1, "step"
    if curves.axis == "relative":
        scale, name = ticks.unit(right - left)
        across = f"{name} since the first point"
    elif curves.axis == "time":
        right = max(right, left + 1)
        across = f"local time, from {datetime.fromtimestamp(left):%Y-%m-%d}"
    left, right = ticks.widened(left / scale, right / scale)
    return _View(left, right, *ticks.widened(float(y.min()), float(y.max())), scale, across)


def _draw(grid: _Grid, curve: Curve, y: points.Numbers, view: _View, letters: str, lines: int) -> None:
    columns, rows = len(grid.bits[0]) * _ACROSS, len(grid.bits) * _DOWN
    x, y = points.thinned(curve.x / view.scale, y, columns)
    across = points.places(x, view.left, view.right) * (columns - 1)
    down = (1 - points.places(y, view.low, view.high)) * (rows - 1)
    way = list(zip(across.tolist(), down.tolist(), strict=True))
    middle: dict[int, int] = {}
    for one, other in zip(way, [*way[1:], way[-1]], strict=True):
        if math.isnan(one[1]):
            continue
        for column, top, bottom in _dots(one, one if math.isnan(other[1]) else other):
            grid.dots(column, top, bottom, curve.line)
            middle[column // _ACROSS] = (top + bottom) // 2 // _DOWN
    if letters:
        _mark(grid, middle, letters[curve.line % len(letters)], curve.line * _EVERY // max(lines, 1))


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


def _mark(grid: _Grid, middle: dict[int, int], letter: str, shift: int) -> None:
    """At places of its own, so that of curves that lie one on the other each is seen."""
    places = [column for column in middle if column % _EVERY == shift] or list(middle)[-1:]
    for column in places:
        grid.letters[middle[column], column] = letter


# -- beside and below --------------------------------------------------------------------------------------


def _beside(view: _View, log: bool) -> dict[int, str]:
    """Row -> what stands there."""
    told = (ticks.powers if log else ticks.numbers)(view.low, view.high, 7)
    heights = points.places(np.array([tick.value for tick in told]), view.low, view.high)
    return {
        round((_ROWS - 1) * (1 - height)): tick.text
        for height, tick in zip(heights.tolist(), told, strict=True)
    }


def _below(view: _View, axis: str, width: int, margin: int) -> Iterator[Text]:
    most = max(2, width // 10)
    if axis == "time":
        marks = ticks.moments(view.left, view.right, min(most, 4))
    else:
        marks = ticks.numbers(view.left, view.right, most, whole=axis == "step")
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
