"""Show a table in a terminal and in a notebook, from one description.

A cell is a `Text` of rich. The names of its styles are rich's, and a few of ours that only a notebook shows: rich
ignores what it does not know.
"""

from __future__ import annotations

import html
import itertools
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.padding import Padding
from rich.table import Table as Grid
from rich.text import Text

from . import words

STATUSES = {
    "running": "blue",
    "submitted": "cyan",
    "done": "green",
    "failed": "red",
    "crashed": "red",
    "interrupted": "yellow",
    "retried": "yellow",
    "broken": "magenta",
}
"""The colour of each status of a run or a task."""
COLOURS = {
    "blue": "#3b82d6",
    "cyan": "#1a9ba1",
    "green": "#2f9e57",
    "red": "#d9483b",
    "yellow": "#c9831a",
    "magenta": "#b04fc4",
}
"""On a page: of medium brightness, so that they stand out on white and on black."""
GREY = "#8a8a8a"
_CSS = {
    **{name: f"color:{colour}" for name, colour in COLOURS.items()},
    "bold": "font-weight:bold",
    "dim": "opacity:.65",
    # what only a page shows
    "number": "white-space:pre;font-variant-numeric:tabular-nums;font-family:monospace",
    "whole": "white-space:nowrap",
    "chosen": "font-weight:bold",
    "beaten": "text-decoration:line-through",
}
_CELL = "padding:2px 12px 2px 0;text-align:left;vertical-align:top;"
_WHOLE, _WRAPPED = "white-space:nowrap", "max-width:36em;overflow-wrap:anywhere"
_FURTHER = ";opacity:.65;font-size:.9em"
_FIRST = ";border-top:1px solid rgba(128,128,128,.3)"


def status(name: str) -> Text:
    """A status in its colour."""
    return Text(words.line(name, 20), STATUSES.get(name, ""), no_wrap=True)


def colour(status: str) -> str:
    """The colour of a status on a page."""
    return COLOURS.get(STATUSES.get(status, ""), GREY)


def as_html(text: Text) -> str:
    """Text with its styles, for a page."""
    edges = sorted({0, len(text), *(edge for span in text.spans for edge in (span.start, span.end))})
    parts = []
    for start, end in itertools.pairwise(edges):
        styles = [text.style, *(s.style for s in text.spans if s.start <= start and end <= s.end)]
        css = ";".join(_CSS[style] for style in styles if isinstance(style, str) and style in _CSS)
        part = html.escape(words.lines(text.plain[start:end])).replace("\n", "<br/>")
        parts.append(f'<span style="{css}">{part}</span>' if css else part)
    return "".join(parts)


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows below heads, and notes below the rows.

    Parameters
    ----------
    heads: one for each column.
    rows: as many cells each as there are heads.
    notes: lines below.
    instead: what is shown if there are no rows.
    whole: heads of columns that a terminal never wraps.
    further: places of rows that say more of the row above them.
    pictures: an SVG for each row, which a notebook shows behind the first cell; or none.
    """

    heads: Sequence[str]
    rows: Sequence[Sequence[Text]]
    notes: Sequence[str] = ()
    instead: str = ""
    whole: Collection[str] = ()
    further: Collection[int] = ()
    pictures: Sequence[str] = ()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self.rows:
            yield from self.lines(options.max_width)
        elif self.instead:
            yield Text(self.instead)
        yield from (Text(note, "dim") for note in self.notes)

    def lines(self, width: int) -> Iterator[RenderableType]:
        """The rows and their heads, in a terminal of this width."""
        grid = Grid(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        for head in self.heads:
            grid.add_column(Text(head), overflow="fold", no_wrap=head in self.whole)
        for row in self.rows:
            grid.add_row(*row)
        yield grid

    def html(self) -> str:
        """The table for a notebook; text takes the page's colours, in the light and in the dark."""
        if not self.rows and not self.notes:
            return f"<div>{self.instead}</div>"
        # without the stripes of a notebook, which do not know which rows belong together
        plain = "background:transparent" if self.further else ""
        heads = [Text(head, "bold") for head in self.heads]
        body = "".join(self._row(place, row, plain) for place, row in enumerate(self.rows))
        table = (
            f'<table style="border-collapse:collapse"><thead><tr style="{plain}">{self._cells(heads, "", "th")}</tr>'
            f"</thead><tbody>{body}</tbody></table>"
        )
        shown = table if self.rows else f"<div>{self.instead}</div>" if self.instead else ""
        notes = "".join(f'<div style="opacity:.65">{as_html(Text(note))}</div>' for note in self.notes)
        return f'<div style="overflow-x:auto">{shown}{notes}</div>'

    def _row(self, place: int, row: Sequence[Text], plain: str) -> str:
        look = (_FURTHER if place in self.further else _FIRST) if self.further else ""
        if place in self.further:  # which is dim as a whole
            row = [Text(cell.plain, spans=cell.spans) for cell in row]
        picture = self.pictures[place] if self.pictures else ""
        return f'<tr style="{plain}{look}">{self._cells(row, picture)}</tr>'

    def _cells(self, row: Sequence[Text], picture: str, tag: str = "td") -> str:
        cells = []
        for place, (head, cell) in enumerate(zip(self.heads, row, strict=True)):
            wrapping = _WHOLE if head in self.whole else _WRAPPED if place else ""
            cells.append(f'<{tag} style="{_CELL}{wrapping}">{as_html(cell)}</{tag}>')
        if self.pictures:
            cells.insert(1, f'<{tag} style="{_CELL}">{picture}</{tag}>')
        return "".join(cells)


# -- a line for each run ------------------------------------------------------------------------------------

_ENOUGH = 3
"""Values beside the runs that a terminal shows in columns, if there are so many."""


@dataclass(frozen=True, kw_only=True)
class Listing(Table):
    """A line for each row, with as many columns as fit; two lines where that leaves out what has to be there.

    The last column stands behind those that fit, and is of any length.

    Parameters
    ----------
    fixed: how many columns are always there.
    asked: how many of the columns behind these were asked for.
    """

    fixed: int
    asked: int = 0

    def lines(self, width: int) -> Iterator[RenderableType]:
        *heads, last_head = self.heads
        lines = [[Text(head, "bold") for head in heads], *([*row[:-1]] for row in self.rows)]
        last = [
            Text(last_head if any(row[-1] for row in self.rows) else "", "bold"),
            *(r[-1] for r in self.rows),
        ]
        widths = _widths(lines)
        count = _fitting(widths, width - max(text.cell_len for text in last))
        below = count < min(self.fixed + max(self.asked, _ENOUGH), len(widths))
        if below:
            count = max(_fitting(widths, width + 2), self.fixed)
            last[1:] = [self._labelled(row, count) for row in self.rows]
        for cells, text in zip(lines, last, strict=True):
            whole = _padded(cells[:count], widths)
            yield whole if below else whole.append_text(text)
            if below and text:
                yield Padding(text, (0, 0, 0, 4))

    def _labelled(self, row: Sequence[Text], first: int) -> Text:
        """The cells that have no column, each behind its head."""
        text = row[-1].copy()
        for head, cell in [*zip(self.heads, row[:-1], strict=False)][first:]:
            if value := cell.plain.strip():
                text.append("  " if text else "").append(f"{head} ", "dim").append(value)
        return text


def _widths(lines: Sequence[Sequence[Text]]) -> list[int]:
    return [max(cell.cell_len for cell in column) + 2 for column in zip(*lines, strict=True)]


def _fitting(widths: Sequence[int], room: int) -> int:
    """How many columns fit."""
    return sum(total <= room for total in itertools.accumulate(widths))


def _padded(cells: Sequence[Text], widths: Sequence[int]) -> Text:
    line = Text()
    for cell, width in zip(cells, widths, strict=False):
        line.append_text(cell).append(" " * (width - cell.cell_len))
    return line


# -- a column for each run ----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Comparison(Table):
    """A column for each thing that is compared; a line for each, where a terminal has no room for all columns.

    Parameters
    ----------
    numbers: places of rows whose cells are numbers.
    """

    numbers: Collection[int] = ()

    def lines(self, width: int) -> Iterator[RenderableType]:
        heads = [Text(head, "bold") for head in self.heads]
        upright = [heads, *self._upright()]
        two_lines = [*_in_two_lines(self.heads), *upright[1:]]
        for table in (upright, two_lines):
            if sum(_widths(table)) - 2 <= width:
                yield from _folded(table, width)
                return
        rows = [
            [row[0], *_aligned(row[1:])] if place in self.numbers else row
            for place, row in enumerate(self.rows)
        ]
        turned = [[*column] for column in zip(heads, *rows, strict=True)]
        yield from min((_folded(table, width) for table in (two_lines, turned)), key=len)

    def html(self) -> str:
        return Table.html(replace(self, rows=self._upright())) if self.rows else super().html()

    def _upright(self) -> list[list[Text]]:
        """The rows; numbers of one column stand point below point."""
        rows = [[*row] for row in self.rows]
        for column in range(1, len(self.heads)):
            aligned = _aligned([rows[place][column] for place in self.numbers])
            for place, cell in zip(self.numbers, aligned, strict=True):
                rows[place][column] = cell
        return rows


def _aligned(cells: Sequence[Text]) -> list[Text]:
    made = [
        Text(text, cell.style)
        for text, cell in zip(words.aligned([c.plain for c in cells]), cells, strict=True)
    ]
    for text, cell in zip(made, cells, strict=True):
        for span in cell.spans:
            text.stylize(span.style)
    return made


def _in_two_lines(names: Sequence[str]) -> list[list[Text]]:
    """The names of runs are long; their columns may be narrow."""
    middles = [name.find("-", len(name) // 2 - 1) + 1 for name in names]
    return [
        [Text(name[:middle], "bold") for name, middle in zip(names, middles, strict=True)],
        [Text(name[middle:], "bold") for name, middle in zip(names, middles, strict=True)],
    ]


def _folded(lines: Sequence[Sequence[Text]], width: int) -> list[RenderableType]:
    """The columns that do not fit go on below, after the first column again."""
    widths = _widths(lines)
    shown: list[RenderableType] = []
    first = 1
    while first < len(widths):
        last = first + max(1, _fitting(widths[first:], width + 2 - widths[0]))
        shown += [Text()] * bool(shown)
        shown += [_padded([line[0], *line[first:last]], [widths[0], *widths[first:last]]) for line in lines]
        first = last
    return shown
