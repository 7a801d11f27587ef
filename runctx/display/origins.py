"""How is it shown who set each value? One line for each key, below it those who were beaten."""

from __future__ import annotations

import html as escaping
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table as Grid
from rich.text import Text

from ..model import Origin
from . import words

MOST = 200
"""Keys that are shown unasked; `to_dict` and `--json` have all."""

_LONGEST = 120
"""Characters of a value that are shown."""

_BEAT = "  beat"

NOTHING = "the origins of these values were not recorded: code set them all, or an older runctx made the run"


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

    @property
    def is_beaten(self) -> bool:
        return self.key == _BEAT


class Said(NamedTuple):
    """Of one key: what it came to, and who said so."""

    key: str
    value: object
    origins: tuple[Origin, ...] = ()
    """The winner first, then those it beat."""
    unknown: str = ""
    """Why there is no value."""


@dataclass(frozen=True)
class Table:
    """Of what was said, a line for each value and each layer; `html()` for a notebook, else for the terminal.

    Parameters
    ----------
    most: keys that are shown; None: all.
    unread: keys that nobody read.
    """

    told: Sequence[Said]
    most: int | None = MOST
    unread: Sequence[str] = ()

    @property
    def _names(self) -> tuple[str, ...]:
        known = any(said.origins for said in self.told)
        return ("key", "value", "set by", "where") if known else ("key", "value")

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if not self.told:
            yield Text("no configuration")
            return
        names = self._names
        grid = Grid(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        for name in names:
            grid.add_column(name, overflow="fold", no_wrap=name == "set by")
        for line in lines(self.told, self.most):
            style = "dim" if line.is_note else ""
            grid.add_row(*(Text(cell, style) for cell in line[: len(names)]))
        yield grid
        for note in self._notes():
            yield Text(note, "dim")

    def html(self) -> str:
        """Text that takes the page's colours; the lines of one key belong together, what was beaten is struck out."""
        if not self.told:
            return "<div>no configuration</div>"
        names = self._names
        head = "".join(f'<th style="{_CELL}break-word">{name}</th>' for name in names)
        body = "".join(_row(line, len(names)) for line in lines(self.told, self.most))
        notes = "".join(f'<div style="opacity:.65">{_text(note)}</div>' for note in self._notes())
        return (
            '<div style="overflow-x:auto"><table style="border-collapse:collapse">'
            f'<thead><tr style="{_PLAIN}">{head}</tr></thead><tbody>{body}</tbody></table>{notes}</div>'
        )

    def _notes(self) -> Iterator[str]:
        if self.most is not None and len(self.told) > self.most:
            yield f"… {len(self.told) - self.most} more keys: `part(key)` shows those below one"
        if self.unread:
            yield f"never read: {words.several(self.unread)}"
        if len(self._names) == 2:
            yield NOTHING


_CELL = "padding:1px 14px 1px 0;text-align:left;vertical-align:top;max-width:36em;overflow-wrap:"
_WRAPPING = ("break-word", "anywhere", "normal;white-space:nowrap", "anywhere")
"""Of each column: what is long breaks where it must, before a short key does."""
_PLAIN = "background:transparent"
"""Without the stripes of a notebook, which do not know what belongs together."""


def _row(line: Line, count: int) -> str:
    look = ";opacity:.65;font-size:.9em" if line.is_note else ";border-top:1px solid rgba(128,128,128,.3)"
    columns = [
        f'<td style="{_CELL}{wrapping}">{_text(cell)}</td>'
        for cell, wrapping in zip(line[:count], _WRAPPING, strict=False)
    ]
    if line.is_note:
        columns[0] = columns[0].replace("padding:1px 14px 1px 0", "padding:1px 14px 1px 1.5em")
    struck = line.is_beaten and "text-decoration:line-through;"
    weight = "" if line.is_note else "font-weight:bold;"
    columns[1] = columns[1].replace(_CELL, f"{struck or weight}{_CELL}", 1)
    return f'<tr style="{_PLAIN}{look}">{"".join(columns)}</tr>'


def lines(told: Sequence[Said], most: int | None) -> Iterator[Line]:
    """Of each key its value and the layer that won; what the value was computed from; those who were beaten."""
    for said in told[:most]:
        winner, *beaten = said.origins or (None,)
        shown = f"({words.line(said.unknown)})" if said.unknown else words.value(said.value, _LONGEST)
        yield Line(words.line(said.key, 200), shown, *_who(winner))
        if winner is not None and (winner.reads or _is_computed(winner.value, said)):
            reads = f"reads {words.line(', '.join(winner.reads))}" if winner.reads else ""
            yield Line("  from", words.value(winner.value, _LONGEST), "", reads)
        for origin in beaten:
            yield Line(_BEAT, words.value(origin.value, _LONGEST), *_who(origin))


def _who(origin: Origin | None) -> tuple[str, str]:
    return ("", "") if origin is None else (words.line(origin.layer, 40), words.line(origin.where, 300))


def _is_computed(written: object, said: Said) -> bool:
    """Whether an interpolation or a function made it; that a text became a number is no news."""
    if not isinstance(written, str) or written == "???":
        return False
    if said.unknown:
        return True
    differs = words.value(written) != words.value(said.value)
    return differs and not (isinstance(said.value, float) and _is_number(written))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _text(given: str) -> str:
    return escaping.escape(words.line(given, 400))
