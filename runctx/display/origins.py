"""Show who set each value of a configuration: a line for each key, below it the layers that were beaten."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from rich.text import Text

from ..model import Origin
from . import words
from .table import Table

MOST = 200
"""Keys that are shown unasked; `to_dict` and `--json` have all."""
_LONGEST = 120
"""Characters of a value that are shown."""
_HEADS = ("key", "value", "set by", "where")
_FROM, _BEAT = "  from", "  beat"
NOTHING = "the origins of these values were not recorded: code set them all, or an older runctx made the run"


class Said(NamedTuple):
    """One key: its value, and who set it."""

    key: str
    value: object
    origins: tuple[Origin, ...] = ()
    """The winner first, then those it beat."""
    unknown: str = ""
    """Why there is no value."""


def table(said: Sequence[Said], most: int | None = MOST, unread: Sequence[str] = ()) -> Table:
    """A line for each value and each layer.

    Parameters
    ----------
    most: keys that are shown; None: all.
    unread: keys that nobody read.
    """
    count = 4 if any(one.origins for one in said) else 2
    lines = list(_lines(said[:most]))
    return Table(
        heads=_HEADS[:count],
        rows=[_cells(line)[:count] for line in lines],
        notes=list(_notes(said, most, unread, count)) if said else (),
        instead="no configuration",
        whole=("set by",),
        further=[place for place, line in enumerate(lines) if line[0] in (_FROM, _BEAT)],
    )


def _cells(line: tuple[str, str, str, str]) -> list[Text]:
    further = line[0] in (_FROM, _BEAT)
    cells = [Text(cell, "dim" if further else "") for cell in line]
    cells[1].stylize("beaten" if line[0] == _BEAT else "" if further else "chosen")
    return cells


def _lines(said: Sequence[Said]) -> Iterator[tuple[str, str, str, str]]:
    """Of each key its value and the layer that won; what the value was computed from; those who were beaten."""
    for one in said:
        winner, *beaten = one.origins or (None,)
        shown = f"({words.line(one.unknown)})" if one.unknown else words.value(one.value, _LONGEST)
        yield words.line(one.key, 200), shown, *_who(winner)
        if winner is not None and (winner.reads or _is_computed(winner.value, one)):
            reads = f"reads {words.line(', '.join(winner.reads))}" if winner.reads else ""
            yield _FROM, words.value(winner.value, _LONGEST), "", reads
        for origin in beaten:
            yield _BEAT, words.value(origin.value, _LONGEST), *_who(origin)


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


def _notes(said: Sequence[Said], most: int | None, unread: Sequence[str], count: int) -> Iterator[str]:
    if most is not None and len(said) > most:
        yield f"… {len(said) - most} more keys: `part(key)` shows those below one"
    if unread:
        yield f"never read: {words.several(unread)}"
    if count == 2:
        yield NOTHING
