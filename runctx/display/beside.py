"""Which values stand beside the runs of a listing? What was asked for, and metrics that most of them have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from ..past.columns import SYSTEM, Column, column, direction
from ..past.row import Row
from . import words
from .differences import texts_apart

_MOST = 6
"""Metrics that are shown unasked, where there is room."""


class Beside(NamedTuple):
    """As text."""

    heads: list[str]
    of_rows: list[list[str]]
    """For each row as many texts as there are heads; blank where it has no such value."""


def beside(rows: Sequence[Row], columns: Sequence[Column]) -> Beside:
    """The values of these columns, numbers point below point."""
    texts = [_texts(one, rows) for one in columns]
    return Beside(_heads(columns), [[text[place] for text in texts] for place in range(len(rows))])


def usual_metrics(rows: Sequence[Row], besides: Sequence[Column]) -> list[Column]:
    """What most runs have logged, a loss or a score first; without what is shown already."""
    counts = Counter(name for row in rows for name in row.metrics if not name.startswith(SYSTEM))
    most = max(counts.values(), default=0)
    names = sorted(counts, key=lambda name: (-counts[name], direction(name) is None, name))
    shown = {one.name for one in besides}
    return [
        column(f"metrics.{name}")
        for name in names
        if 2 * counts[name] > most and f"metrics.{name}" not in shown
    ][:_MOST]


def _heads(columns: Sequence[Column]) -> list[str]:
    """Without `config.` and `metrics.`, where that leaves them apart."""
    short = [one.name.removeprefix(f"{one.section}.") for one in columns]
    names = short if len({*short}) == len(short) else [one.name for one in columns]
    texts = texts_apart(dict(zip(names, names, strict=True)))
    return [texts[name] for name in names]


def _texts(one: Column, rows: Sequence[Row]) -> list[str]:
    values = [one.of(row) for row in rows]
    if not all(
        value is None or (isinstance(value, (int, float)) and not isinstance(value, bool)) for value in values
    ):
        return ["" if value is None else words.short(value, 40) for value in values]
    write = words.number if one.needs_metrics else words.value
    return words.aligned(["" if value is None else write(value) for value in values]) if values else []
