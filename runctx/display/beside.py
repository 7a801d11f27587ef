"""Which values stand beside the runs of a listing? Those that were asked for, or a few metrics that most runs have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from ..past.columns import SYSTEM, Column, column
from ..past.row import Row
from . import words

_MOST = 3
"""Metrics that are shown unasked."""


class Beside(NamedTuple):
    """As text."""

    heads: list[str]
    of_rows: list[list[str]]
    """For each row as many texts as there are heads; empty where it has no such value."""


def beside(rows: Sequence[Row], asked: Sequence[Column] = ()) -> Beside:
    """What is shown of each run."""
    columns = asked or _usual(rows)
    return Beside(_heads(columns), [[_text(one, row) for one in columns] for row in rows])


def _usual(rows: Sequence[Row]) -> list[Column]:
    counts = Counter(name for row in rows for name in row.metrics if not name.startswith(SYSTEM))
    names = sorted(counts, key=lambda name: (-counts[name], name))
    return [column(f"metrics.{name}") for name in names[:_MOST]]


def _heads(columns: Sequence[Column]) -> list[str]:
    """Without `config.` and `metrics.`, where that leaves them apart."""
    short = [words.line(one.name.removeprefix(f"{one.section}."), 40) for one in columns]
    return short if len({*short}) == len(short) else [words.line(one.name, 48) for one in columns]


def _text(one: Column, row: Row) -> str:
    value = one.of(row)
    if value is None:
        return ""
    return words.number(value) if one.needs_metrics else words.short(value, 40)
