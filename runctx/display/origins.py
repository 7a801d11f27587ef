"""How is it shown who set each value? One line for each key, below it those who were beaten."""

from __future__ import annotations

import html as escaping
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table as Grid
from rich.text import Text

from ..config.explanation import Explanation, Unknown
from ..model import Origin
from . import words

MOST = 200
"""Keys that are shown unasked; `to_dict` and `--json` have all."""

_LONGEST = 120
"""Characters of a value that are shown."""

NOTHING = "who set these values was not recorded: code gave all of them, or an earlier runctx made the run"


class Line(NamedTuple):
    """Of the table; empty is what does not apply."""

    key: str
    value: str
    layer: str = ""
    where: str = ""

    @property
    def is_note(self) -> bool:
        """Whether it says more of the key above."""
        return self.key.startswith(" ")


@dataclass(frozen=True)
class Table:
    """For the terminal.

    Parameters
    ----------
    most: keys that are shown; None: all.
    """

    told: Explanation
    most: int | None = MOST

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if not self.told:
            yield Text("no configuration")
            return
        names = ("key", "value", "set by", "where") if self.told.origins else ("key", "value")
        grid = Grid(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        for name in names:
            grid.add_column(name, overflow="fold", no_wrap=name == "set by")
        for line in lines(self.told, self.most):
            style = "dim" if line.is_note else ""
            grid.add_row(*(Text(cell, style) for cell in line[: len(names)]))
        yield grid
        for note in _notes(self.told, self.most):
            yield Text(note, "dim")


def html(told: Explanation) -> str:
    """For a notebook: text that takes the page's colours."""
    if not told:
        return "<div>no configuration</div>"
    names = ("key", "value", "set by", "where") if told.origins else ("key", "value")
    head = "".join(f'<th style="{_CELL}break-word">{name}</th>' for name in names)
    body = "".join(_row(line[: len(names)], line.is_note) for line in lines(told, MOST))
    notes = "".join(f'<div style="opacity:.65">{_text(note)}</div>' for note in _notes(told, MOST))
    return (
        '<div style="overflow-x:auto"><table style="border-collapse:collapse">'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{notes}</div>"
    )


_CELL = "padding:1px 14px 1px 0;text-align:left;vertical-align:top;max-width:36em;overflow-wrap:"
_WRAPPING = ("break-word", "anywhere", "normal;white-space:nowrap", "anywhere")
"""Of each column: what is long breaks where it must, before a short key does."""


def _row(cells: tuple[str, ...], is_note: bool) -> str:
    style = ' style="opacity:.65;font-size:.9em"' if is_note else ""
    columns = [
        f'<td style="{_CELL}{wrapping}">{_text(cell)}</td>'
        for cell, wrapping in zip(cells, _WRAPPING, strict=False)
    ]
    if is_note:
        columns[0] = columns[0].replace("padding:1px 14px 1px 0", "padding:1px 14px 1px 1.5em")
    return f"<tr{style}>{''.join(columns)}</tr>"


def lines(told: Explanation, most: int | None) -> Iterator[Line]:
    """Of each key its value and the layer that won; what the value was computed from; those who were beaten."""
    for key, value in islice(told.resolved.items(), most):
        winner, *beaten = told[key] or (None,)
        shown = f"({words.line(value.why)})" if isinstance(value, Unknown) else words.value(value, _LONGEST)
        yield Line(words.line(key, 200), shown, *_who(winner))
        if winner is not None and (winner.reads or _is_computed(winner.value, value)):
            reads = f"reads {words.line(', '.join(winner.reads))}" if winner.reads else ""
            yield Line("  from", words.value(winner.value, _LONGEST), "", reads)
        for origin in beaten:
            yield Line("  beat", words.value(origin.value, _LONGEST), *_who(origin))


def _who(origin: Origin | None) -> tuple[str, str]:
    return ("", "") if origin is None else (words.line(origin.layer, 40), words.line(origin.where, 300))


def _is_computed(written: object, value: object) -> bool:
    """Whether an interpolation or a function made it; that a text became a number is no news."""
    if not isinstance(written, str) or written == "???":
        return False
    if isinstance(value, float):
        return words.value(written) != words.value(value) and not _is_number(written)
    return isinstance(value, Unknown) or words.value(written) != words.value(value)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _notes(told: Explanation, most: int | None) -> Iterator[str]:
    if most is not None and len(told) > most:
        yield f"… {len(told) - most} more keys: `part(key)` shows those below one"
    if not told.origins:
        yield NOTHING


def _text(given: str) -> str:
    return escaping.escape(words.line(given, 400))
