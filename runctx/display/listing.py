"""How are many runs shown in the terminal? A line each, or two where one is too long."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.padding import Padding
from rich.text import Text

from ..past.columns import Column
from ..past.row import Row
from . import words
from .beside import beside, usual_metrics
from .differences import Differences, differences, shown
from .terminal import status

_HEADS = ("run", "status", "started", "took", "commit")


@dataclass(frozen=True)
class Listing:
    """A table with metrics, and of the configuration what tells the runs apart.

    Parameters
    ----------
    rows: all that were found: what differs is what is not as in most of them.
    most: how many are shown; None: all.
    legend: whether it is said below what is usual, and what the star means.
    count: whether it is said below how many more there are.
    columns: what is shown of each run in place of all that.
    besides: what is shown of each run before its metrics.
    hints: sentences that are said below.
    """

    rows: Sequence[Row]
    most: int | None = None
    legend: bool = True
    count: bool = True
    columns: Sequence[Column] = ()
    besides: Sequence[Column] = ()
    hints: Sequence[str] = ()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if not self.rows:
            yield Text("no runs")
        else:
            shown = self.rows[: self.most]
            told = Differences([], {}) if self.columns else differing(self.rows, self.most, self.besides)
            asked = len(self.columns or self.besides)
            yield from _table(self._lines(shown, told), options.max_width, asked)
            yield from (Text(note, "dim") for note in self._notes(shown, told))
        yield from (Text(f"hint: {words.line(hint)}", "dim") for hint in self.hints)

    def _lines(self, rows: Sequence[Row], told: Differences) -> list[_Line]:
        """A line for each run, the first of all with the heads."""
        if self.columns:
            more = beside(rows, self.columns)
            cells, last = [[_name(row)] for row in rows], [Text() for _ in rows]
        else:
            more = beside(rows, [*self.besides, *usual_metrics(rows, self.besides)])
            cells, last = [*map(_cells, rows)], [*map(_last, rows, told.of_rows)]
        heads = _bold(_HEADS[: len(cells[0])])
        top = _Line(heads, more.heads, Text("differs in", "bold") if any(last) else Text())
        return [top, *map(_Line, cells, more.of_rows, last)]

    def _notes(self, shown: Sequence[Row], told: Differences) -> Iterator[str]:
        if self.count and len(shown) < len(self.rows):
            yield f"… {len(self.rows) - len(shown)} more"
        if self.legend and not self.columns:
            yield from told.notes
            if any(row.dirty for row in shown):
                yield words.DIRTY


def differing(rows: Sequence[Row], most: int | None, besides: Sequence[Column]) -> Differences:
    """What tells the first runs from the others, besides the keys that have a column."""
    keys = {one.name.removeprefix("config.") for one in besides if one.section == "config"}
    return differences(rows, most, keys)


class _Line(NamedTuple):
    cells: list[Text]
    beside: list[str]
    last: Text
    """Of any length."""


def _table(lines: Sequence[_Line], width: int, asked: int) -> Iterator[RenderableType]:
    """A line for each run, with as many columns as there is room for; two, where that leaves out what has to be there.

    Parameters
    ----------
    asked: how many of the values beside the runs have to be there.
    """
    wide = [
        line.cells + (_bold(line.beside) if line is lines[0] else [*map(Text, line.beside)]) for line in lines
    ]
    widths, least = _widths(wide), len(lines[0].cells)
    longest = max(line.last.cell_len for line in lines)
    enough = min(least + max(asked, _ENOUGH), len(widths))
    count, last = _fitting(widths, width - longest), [line.last for line in lines]
    below = count < enough
    if below:
        count = max(_fitting(widths, width + 2), least)
        last[1:] = [_labelled(lines[0].beside, line, count - least) for line in lines[1:]]
    for cells, text in zip(wide, last, strict=True):
        for cell, wanted in zip(cells[:count], widths, strict=False):
            cell.pad_right(wanted - cell.cell_len)
        whole = Text().join(cells[:count])
        yield whole if below else whole.append_text(text)
        if below and text:
            yield Padding(text, (0, 0, 0, 4))


_ENOUGH = 3
"""Values beside the runs that have to be there, if there are so many."""


def _fitting(widths: Sequence[int], room: int) -> int:
    """How many columns fit."""
    return sum(total <= room for total in itertools.accumulate(widths))


def _widths(table: Sequence[Sequence[Text]]) -> list[int]:
    return [max(cell.cell_len for cell in column) + 2 for column in zip(*table, strict=True)]


def _labelled(heads: Sequence[str], line: _Line, first: int) -> Text:
    text = line.last.copy()
    for head, value in [*zip(heads, line.beside, strict=True)][first:]:
        if value.strip():
            text.append("  " if text else "").append(f"{head} ", "dim").append(value.strip())
    return text


def _bold(heads: Sequence[str]) -> list[Text]:
    return [Text(head, "bold") for head in heads]


def _name(row: Row) -> Text:
    return Text(words.told(row))


def _cells(row: Row) -> list[Text]:
    return [
        _name(row),
        status(row.status).append(words.share(row)),
        Text(words.when(row.started)),
        Text(words.took(row.seconds)),
        Text(words.commit(row.commit, row.dirty)),
    ]


def _last(row: Row, values: Mapping[str, str]) -> Text:
    what = Text(" ".join(words.tags(row)), "cyan")
    if row.error:
        what.append(" " if what else "").append(words.error(row), "red")
    for one in shown(values):
        key, sign, value = one.partition("=")
        what.append(" " if what else "").append(key + sign, "dim").append(value)
    return what
