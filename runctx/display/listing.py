"""How are many runs shown in the terminal? A line each, or two where one is too long."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.padding import Padding
from rich.text import Text

from ..past.columns import Column
from ..past.row import Row
from . import words
from .beside import beside
from .differences import Differences, differences, shown
from .terminal import status

_HEADS = ("run", "status", "started", "took", "commit")


@dataclass(frozen=True)
class Listing:
    """A table with a few metrics, and of the configuration what tells the runs apart.

    Parameters
    ----------
    total: how many runs there are, where `rows` are only the first.
    legend: whether it is said below what is usual, and what the star means.
    columns: what is shown of each run in place of all that.
    hints: sentences that are said below.
    """

    rows: Sequence[Row]
    total: int
    legend: bool = True
    columns: Sequence[Column] = ()
    hints: Sequence[str] = ()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if not self.rows:
            yield Text("no runs")
        else:
            told = differences(() if self.columns else self.rows)
            yield from _table(self._lines(told), options.max_width)
            yield from (Text(note, "dim") for note in self._notes(told))
        yield from (Text(f"hint: {words.line(hint)}", "dim") for hint in self.hints)

    def _lines(self, told: Differences) -> list[_Line]:
        """A line for each run, the first of all with the heads."""
        more = beside(self.rows, self.columns)
        if self.columns:
            cells, last = [[_name(row)] for row in self.rows], [Text() for _ in self.rows]
        else:
            cells, last = [*map(_cells, self.rows)], [*map(_last, self.rows, told.of_rows)]
        heads = _bold(_HEADS[: len(cells[0])])
        top = _Line(heads, more.heads, Text("differs in", "bold") if any(last) else Text())
        return [top, *map(_Line, cells, more.of_rows, last)]

    def _notes(self, told: Differences) -> Iterator[str]:
        if self.total > len(self.rows):
            yield f"… {self.total - len(self.rows)} more"
        if self.legend and not self.columns:
            yield from told.notes
            if any(row.dirty for row in self.rows):
                yield words.DIRTY


class _Line(NamedTuple):
    cells: list[Text]
    beside: list[str]
    last: Text
    """Of any length."""


def _table(lines: Sequence[_Line], width: int) -> Iterator[RenderableType]:
    """What is beside the runs gets columns if they fit; the rest stands on a line below where it does not fit."""
    heads = lines[0].beside
    wide = [line.cells + (_bold(heads) if line is lines[0] else [*map(Text, line.beside)]) for line in lines]
    if sum(_widths(wide)) <= width:
        table, last = wide, [line.last for line in lines]
    else:
        table = [line.cells for line in lines]
        last = [lines[0].last, *(_labelled(heads, line) for line in lines[1:])]
    widths = _widths(table)
    below = any(text.cell_len > width - sum(widths) for text in last)
    for cells, text in zip(table, last, strict=True):
        for cell, wanted in zip(cells, widths, strict=True):
            cell.pad_right(wanted - cell.cell_len)
        whole = Text().join(cells)
        yield whole if below else whole.append_text(text)
        if below and text:
            yield Padding(text, (0, 0, 0, 4))


def _widths(table: Sequence[Sequence[Text]]) -> list[int]:
    return [max(cell.cell_len for cell in column) + 2 for column in zip(*table, strict=True)]


def _labelled(heads: Sequence[str], line: _Line) -> Text:
    told = [part for part in zip(heads, line.beside, strict=True) if part[1]]
    text = line.last.copy()
    for head, value in told:
        text.append("  " if text else "").append(f"{head} ", "dim").append(value)
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
