"""Draw curves in a terminal: eight dots in each character, and a letter along each curve."""

from __future__ import annotations

import math
import string
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from . import words
from .curves import COLOURS, Curve, Curves, Numbers, scaled, thinned, time_unit

_LETTERS = string.ascii_uppercase + string.ascii_lowercase
_EVERY, _ROWS = 14, 14
"""Characters from one letter of a curve to the next, and from the lowest to the highest value of a panel."""
_BRAILLE, _DOTS = 0x2800, np.array(((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80)))
"""The first Braille character, and the bits of one by column and row from the top."""

_Ticks = list[tuple[float, str]]


@dataclass(frozen=True)
class Chart:
    """A panel for each metric, and below them the runs, or their tasks; readable without colour.

    Parameters
    ----------
    width: of the panels, in characters; default: all there is.
    """

    curves: Curves
    width: int | None = None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        curves = self.curves
        letters = _LETTERS if len(curves.labels) > 1 else ""
        for metric in curves.metrics:
            yield from _panel(curves, metric, self.width or options.max_width, letters)
        yield from [Text()] * bool(letters)
        for line, label in enumerate(curves.labels):
            letter = f"{letters[line % len(letters)]}  " if letters else ""
            yield Text.assemble((letter, COLOURS[line % len(COLOURS)]), label)
        yield from (Text(note, "dim") for note in curves.notes)


def _panel(curves: Curves, metric: str, width: int, letters: str) -> Iterator[Text]:
    name = words.line(metric, 80) + ", logarithmic" * curves.log
    yield Text(name + f", smoothed by {curves.smooth:g}" * bool(curves.smooth), "bold")
    shown = [(curve, np.log10(curve.y) if curves.log else curve.y) for curve in curves.of(metric)]
    there = [np.stack((curve.x, y))[:, ~np.isnan(y)] for curve, y in shown]
    points = np.concatenate(there, axis=1) if there else np.empty((2, 0))
    if not points.size:
        yield Text("  no point can be drawn", "dim")
        return
    (left, low), (right, high) = points.min(axis=1).tolist(), points.max(axis=1).tolist()
    low, high = widened(low, high)
    scale, across = 1, "step"
    if curves.axis == "relative":
        scale, unit = time_unit(right - left)
        across = f"{unit} since the first point"
    elif curves.axis == "time":
        right = max(right, left + 1)
        across = f"local time, from {datetime.fromtimestamp(left):%Y-%m-%d}"
    left, right = widened(left / scale, right / scale)
    ticks = powers(low, high, 7) if curves.log else numbers(low, high, 7)
    heights = scaled(np.array([value for value, _ in ticks]), low, high).tolist()
    beside = {round((_ROWS - 1) * (1 - at)): text for at, (_, text) in zip(heights, ticks, strict=True)}
    margin = max(map(len, beside.values()), default=0)
    columns = max(width - margin - 2, 10)
    grid = _Grid(columns)
    for curve, y in shown:
        letter = letters[curve.line % len(letters)] if letters else ""
        x, y = thinned(curve.x / scale, y, 2 * columns)
        shift = curve.line * _EVERY // max(len(curves.labels), 1)
        grid.draw(curve, scaled(x, left, right), scaled(y, low, high), letter, shift)
    for row, characters in enumerate(grid.rows()):
        text = beside.get(row, "")
        yield Text.assemble(f"{text:>{margin}} {'┤' if text else '│'}", *characters)
    most = max(2, columns // 10)
    is_time, is_step = curves.axis == "time", curves.axis == "step"
    marks = _moments(left, right, min(most, 4)) if is_time else numbers(left, right, most, whole=is_step)
    yield from _axis([((at - left) / (right - left), text) for at, text in marks], columns, margin)
    yield Text(f"{'':{margin + 2}}{across:^{columns}}".rstrip(), "dim")


class _Grid:
    """The dots, letters and colours of a panel."""

    def __init__(self, columns: int) -> None:
        self.bits = np.zeros((_ROWS, columns), dtype=np.int64)
        self.line = np.zeros((_ROWS, columns), dtype=np.int64)
        self.letters: dict[tuple[int, int], str] = {}

    def draw(self, curve: Curve, x: Numbers, y: Numbers, letter: str, shift: int) -> None:
        """Draw a curve whose points lie between 0 and 1, and its letter in some of the columns."""
        height, width = self.bits.shape
        across, down = x * (2 * width - 1), (1 - y) * (4 * height - 1)
        if np.isnan(down).all():
            return
        # enough points on each line between two that no dot which it crosses is left out
        steps = np.nan_to_num(4 * np.maximum(abs(np.diff(across)), abs(np.diff(down)))).astype(int) + 1
        way = np.concatenate([np.empty(0), *(np.arange(count) / count for count in steps)])
        start = np.repeat(np.arange(len(steps)), steps)
        dots = np.stack([np.append(v[start] + way * np.diff(v)[start], v) for v in (across, down)])
        column, row = np.rint(dots[:, ~np.isnan(dots[1])]).astype(int)
        np.bitwise_or.at(self.bits, (row // 4, column // 2), _DOTS[column % 2, row % 4])
        self.line[row // 4, column // 2] = curve.line
        if letter:
            places = sorted({*(column // 2).tolist()})
            # in columns of its own, so that each of two equal curves is seen
            for place in [one for one in places if one % _EVERY == shift] or places[-1:]:
                rows = row[column // 2 == place]
                middle = int(rows.min() + rows.max()) // 8
                self.letters[middle, place], self.line[middle, place] = letter, curve.line

    def rows(self) -> Iterator[list[tuple[str, str]]]:
        """Character and colour of each place."""
        for row, (bits, lines) in enumerate(zip(self.bits.tolist(), self.line.tolist(), strict=True)):
            inks = [COLOURS[line % len(COLOURS)] for line in lines]
            texts = [self.letters.get((row, i)) or chr(_BRAILLE | dots) for i, dots in enumerate(bits)]
            yield [
                (text, ink) if dots else (" ", "") for text, ink, dots in zip(texts, inks, bits, strict=True)
            ]


def _axis(ticks: _Ticks, width: int, margin: int) -> Iterator[Text]:
    """The line below a panel, and the texts of its ticks, at places from 0 to 1, as far as there is room."""
    rule, line = ["─"] * width, [" "] * (width + margin + 2)
    free = 0
    for place, text in ticks:
        at = round((width - 1) * place)
        start = min(max(margin + 2 + at - len(text) // 2, free), len(line) - len(text))
        if start >= free:
            rule[at] = "┬"
            line[start : start + len(text)] = text
            free = start + len(text) + 1
    yield Text(f"{'':{margin}} └{''.join(rule)}")
    yield Text("".join(line).rstrip())


# -- ticks -------------------------------------------------------------------------------------------------


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


def numbers(low: float, high: float, most: int, *, whole: bool = False) -> _Ticks:
    """Round numbers inside the limits, about `most` of them, and their texts.

    >>> [text for _, text in numbers(0.0, 0.93, 5)]
    ['0.0', '0.2', '0.4', '0.6', '0.8']
    """
    from matplotlib.ticker import MaxNLocator  # not before something is drawn

    shrunk = 1e10 if max(abs(low), abs(high)) > 1e290 else 1.0  # the difference of two may be infinite
    low, high = low / shrunk, high / shrunk
    found = MaxNLocator(nbins=most, steps=[1, 2, 5, 10], integer=whole).tick_values(low, high)
    room = 1e-12 * (high - low)
    values = [
        float(v) * shrunk for v in found if low - room <= v <= high + room and (not whole or v == int(v))
    ]
    step, size = max(float(found[1] - found[0]) * shrunk, float(whole)), max(map(abs, values), default=0.0)
    if size >= 1e6 or 0 < size < 1e-3:
        digits = min(max(0, math.ceil(math.log10(size / step))), 15)
        return [(value, f"{value:.{digits}e}" if value else "0") for value in values]
    return [(value, f"{value:.{max(0, -math.floor(math.log10(step) + 1e-9))}f}") for value in values]


def powers(low: float, high: float, most: int) -> _Ticks:
    """Ticks of a logarithmic axis; limits and values are exponents of ten.

    >>> [text for _, text in powers(-3.0, 0.5, 5)]
    ['1e-3', '1e-2', '1e-1', '1e0']
    """
    exponents = [(value, f"1e{round(value)}") for value, _ in numbers(low, high, most, whole=True)]
    if len(exponents) > 1:
        return exponents
    between = numbers(10**low, 10 ** min(high, 308.25), most)
    return [(math.log10(value), text) for value, text in between if value > 0]


def _moments(low: float, high: float, most: int) -> _Ticks:
    """Local times at equal distances; limits are seconds since 1970."""
    day = 86_400
    forms = ((10, "%H:%M:%S.%f"), (600, "%H:%M:%S"), (day, "%H:%M"), (300 * day, "%m-%d %H:%M"))
    form = next((form for span, form in forms if high - low < span), "%Y-%m-%d")
    values = [low + (high - low) * i / most for i in range(most + 1)]
    return [(v, format(datetime.fromtimestamp(v), form)[: 10 if "%f" in form else None]) for v in values]
