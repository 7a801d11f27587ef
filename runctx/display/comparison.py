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
        cells, width = _cells(self.comparison, self.equal), options.max_width
        if len(cells) > 1:
            yield from _whole(cells, width) or _whole(_in_two_lines(cells), width) or _least(cells, width)
        hints = self.comparison.hints if self.hints else ()
        for note in (*_notes(self.comparison, self.equal), *map(_hint, hints)):
            yield Text(note, "dim")


_Cells = Sequence[Sequence[Text]]


def _whole(cells: _Cells, width: int) -> list[RenderableType]:
    """The table as it is; nothing if it is too wide."""
    return _folded(cells, width) if sum(_widths(cells)) - 2 <= width else []


def _least(cells: _Cells, width: int) -> list[RenderableType]:
    """Folded, with the runs as columns or as lines, whichever is shorter."""
    turned = [*zip(*cells, strict=True)]
    return min((_folded(table, width) for table in (_in_two_lines(cells), turned)), key=len)


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


def _cells(comparison: Comparison, equal: bool) -> list[list[Text]]:
    """The first line has the names of the runs, each further one a value's, and that of each run."""
    lines = (comparison.lines if equal else comparison.differing)[:_MOST_LINES]
    top = [Text(), *(Text(words.line(name, 80), "bold") for name in comparison.names)]
    return [top, *([Text(words.line(line.name, 60), "dim"), *_values(line)] for line in lines)]


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
    left_out = len(comparison.lines if equal else differing) - _MOST_LINES
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
_GOOD = "#2f9e57"


def as_html(comparison: Comparison) -> str:
    """A column for each run; the page can be moved sideways."""
    top, *lines = _cells(comparison, equal=False)
    head = "".join(f'<th style="{_CELL}">{html.escape(cell.plain)}</th>' for cell in top)
    body = "".join(f"<tr>{''.join(map(_cell, line))}</tr>" for line in lines)
    table = (
        f'<table style="border-collapse:collapse"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    )
    told = (*_notes(comparison, equal=False), *map(_hint, comparison.hints))
    notes = "".join(f'<div style="opacity:.65">{html.escape(note)}</div>' for note in told)
    return f'<div style="overflow-x:auto">{table if lines else ""}{notes}</div>'


def _cell(text: Text) -> str:
    style = f"{_CELL};color:{_GOOD};font-weight:bold" if text.style == "green" else _CELL
    return f'<td style="{style}">{html.escape(text.plain)}</td>'
