"""How is a comparison of runs shown? What differs as a table, what is equal in a line."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.text import Text

from ..past.comparison import ABSENT, Comparison, Line
from . import words
from .differences import texts_apart
from .page import NUMBERS

_BEST = " (best)"
_MOST_LINES = 100
"""Of what differs; `--json` has all."""
_MOST_NAMED = 4
"""Equal values of a section that are named, not counted."""


@dataclass(frozen=True)
class Table:
    """For a terminal: a column for each run, or where they are too many, a line.

    Parameters
    ----------
    equal: also what is equal.
    hints: whether those of the comparison are said below.
    """

    comparison: Comparison
    equal: bool = False
    hints: bool = True

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines, width = _shown(self.comparison, self.equal), options.max_width
        if lines:
            cells = _cells(self.comparison, lines)
            upright, turned = _upright(cells, lines), _turned(cells, lines)
            two_lines = _in_two_lines(upright)
            least = min((_folded(table, width) for table in (two_lines, turned)), key=len)
            yield from _whole(upright, width) or _whole(two_lines, width) or least
        hints = self.comparison.hints if self.hints else ()
        for note in (*_notes(self.comparison, self.equal), *map(_hint, hints)):
            yield Text(note, "dim")


_Cells = Sequence[Sequence[Text]]


def _whole(cells: _Cells, width: int) -> list[RenderableType]:
    """The table as it is; nothing if it is too wide."""
    return _folded(cells, width) if sum(_widths(cells)) - 2 <= width else []


def _widths(cells: _Cells) -> list[int]:
    return [max(cell.cell_len for cell in column) + 2 for column in zip(*cells, strict=True)]


def _in_two_lines(cells: _Cells) -> _Cells:
    """The names of the runs, which are long, above narrow columns."""
    names = [cell.plain for cell in cells[0]]
    middles = [name.find("-", len(name) // 2 - 1) + 1 for name in names]
    upper = [Text(name[:middle], "bold") for name, middle in zip(names, middles, strict=True)]
    lower = [Text(name[middle:], "bold") for name, middle in zip(names, middles, strict=True)]
    return [upper, lower, *cells[1:]]


def _folded(cells: _Cells, width: int) -> list[RenderableType]:
    """The lines of a table whose columns, where they do not all fit, go on below, after the first again."""
    widths = _widths(cells)
    lines: list[RenderableType] = []
    first = 1
    while first < len(widths):
        last, taken = first + 1, widths[0] + widths[first]
        while last < len(widths) and taken + widths[last] - 2 <= width:
            taken += widths[last]
            last += 1
        lines += [Text()] * bool(lines)
        for line in cells:
            shown = [cell.copy() for cell in (line[0], *line[first:last])]
            for cell, wanted in zip(shown, (widths[0], *widths[first:last]), strict=True):
                cell.pad_right(wanted - cell.cell_len)
            lines.append(Text().join(shown))
        first = last
    return lines


def _shown(comparison: Comparison, equal: bool) -> list[Line]:
    lines = comparison.lines if equal else [line for line in comparison.differing if not _is_folded(line)]
    return [*lines[:_MOST_LINES]]


def _is_folded(line: Line) -> bool:
    """Whether it is a package that only some of the runs have imported."""
    return line.section == "packages" and ABSENT in line.values


def _cells(comparison: Comparison, lines: Sequence[Line]) -> list[list[Text]]:
    """The first line has the names of the runs, each further one a value's, and that of each run."""
    top = [Text(), *(Text(words.line(name, 80), "bold") for name in comparison.names)]
    return [top, *([Text(words.short(line.name, 60), "dim"), *_values(line)] for line in lines)]


def _upright(cells: Sequence[Sequence[Text]], lines: Sequence[Line]) -> _Cells:
    """A column for each run, in which the metrics stand point below point."""
    columns = [[*column] for column in zip(*cells, strict=True)]
    places = [place for place, line in enumerate(lines, 1) if line.section == "metrics"]
    for column in columns[1:]:
        for place, cell in zip(places, _aligned([column[place] for place in places]), strict=True):
            column[place] = cell
    return [*zip(*columns, strict=True)]


def _turned(cells: Sequence[Sequence[Text]], lines: Sequence[Line]) -> _Cells:
    """A line for each run: a metric is a column, and its values stand point below point."""
    kinds = ["", *(line.section for line in lines)]
    rows = (
        [row[0], *_aligned(row[1:])] if kind == "metrics" else row
        for row, kind in zip(cells, kinds, strict=True)
    )
    return [*zip(*rows, strict=True)]


def _aligned(cells: Sequence[Text]) -> list[Text]:
    texts = words.aligned([cell.plain for cell in cells]) if cells else []
    return [Text(text, cell.style) for text, cell in zip(texts, cells, strict=True)]


def _values(line: Line) -> Iterator[Text]:
    for place, text in enumerate(_texts(line)):
        best = place in line.best
        yield Text(text + _BEST * best, "green" if best else "")


def _texts(line: Line) -> list[str]:
    """Of each run, as short as tells them apart."""
    short = _SHORT.get(line.key if line.section == "run" else line.section)
    if short is not None:
        texts = ["" if value is ABSENT or value is None else short(value) for value in line.values]
        if len({*texts}) == len({*map(repr, line.values)}):
            return texts
    apart = texts_apart({repr(value): value for value in line.values})
    return [apart[repr(value)] for value in line.values]


def _digest(value: str) -> str:
    algorithm, colon, hexadecimal = value.partition(":")
    return words.line(f"{algorithm}{colon}{hexadecimal[:8]}", 40)


_SHORT: dict[str, Any] = {
    "seconds": words.took,
    "commit": lambda value: words.commit(value, False),
    "metrics": words.number,
    "inputs": _digest,
}


def _notes(comparison: Comparison, equal: bool) -> Iterator[str]:
    differing, same = comparison.differing, comparison.equal
    if not differing:
        yield "no difference"
    folded = [] if equal else [line.key for line in differing if _is_folded(line)]
    if folded:
        yield f"imported by only some of them: {words.count(len(folded), 'package')} ({words.several(folded, 6)})"
    left_out = len(comparison.lines if equal else differing) - len(folded) - _MOST_LINES
    if left_out > 0:
        yield f"… {left_out} more; --json has all"
    if same and not equal:
        yield f"equal: {', '.join(_summed_up(same))}"


def _hint(sentence: str) -> str:
    return f"hint: {words.line(sentence)}"


_COUNTED = {"config": "keys of config"}


def _summed_up(lines: Sequence[Line]) -> Iterator[str]:
    counts = Counter(line.section for line in lines)
    for section, count in counts.items():
        names = [words.line(line.name, 40) for line in lines if line.section == section]
        if section == "run" or count <= _MOST_NAMED:
            yield ", ".join(names)
        else:
            yield f"{count} {_COUNTED.get(section, section)}"


# -- in a notebook -----------------------------------------------------------------------------------------

_CELL = "padding:2px 10px 2px 0;text-align:left;vertical-align:top"
_GOOD = ";color:#2f9e57;font-weight:bold"


def as_html(comparison: Comparison) -> str:
    """A column for each run; the page can be moved sideways."""
    lines = _shown(comparison, equal=False)
    top, *rows = _cells(comparison, lines)
    head = "".join(f'<th style="{_CELL}">{html.escape(cell.plain)}</th>' for cell in top)
    body = "".join(map(_row, _upright([top, *rows], lines)[1:], lines))
    table = (
        f'<table style="border-collapse:collapse"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    )
    told = (*_notes(comparison, equal=False), *map(_hint, comparison.hints))
    notes = "".join(f'<div style="opacity:.65">{html.escape(note)}</div>' for note in told)
    return f'<div style="overflow-x:auto">{table if lines else ""}{notes}</div>'


def _row(cells: Sequence[Text], line: Line) -> str:
    style = f"{_CELL};{NUMBERS}" if line.section == "metrics" else _CELL
    values = "".join(
        f'<td style="{style + _GOOD * (text.style == "green")}">{html.escape(text.plain)}</td>'
        for text in cells[1:]
    )
    return f'<tr><td style="{_CELL}">{html.escape(cells[0].plain)}</td>{values}</tr>'
