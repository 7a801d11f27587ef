"""What tells one run of a listing from the others? What is not as in most runs of its stage."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from ..past.comparison import ABSENT
from ..past.row import Row
from . import words

_MOST = 8
"""Keys that are shown of one run."""


class Differences(NamedTuple):
    """As text, for each row what differs, and below all rows what is usual."""

    of_rows: list[dict[str, str]]
    """For each row, key -> value; empty where the row has no such key and most have one."""
    usual: dict[str, dict[str, str]]
    """Each stage -> key -> the value of more than half of its runs, of the keys that some row shows."""

    @property
    def notes(self) -> list[str]:
        """What is usual, a line for each stage."""
        return [
            f"usual{f' in {words.line(stage, 40)}' if len(self.usual) > 1 else ''}: {' '.join(shown(values))}"
            for stage, values in self.usual.items()
            if values
        ]


def shown(values: Mapping[str, str]) -> list[str]:
    """
    >>> shown({"lr": "0.1", "momentum": ""})
    ['lr=0.1', 'no momentum']
    """
    told = [f"{key}={value}" if value else f"no {key}" for key, value in values.items()]
    return told if len(told) <= _MOST else [*told[: _MOST - 1], f"… {len(told) - _MOST + 1} more"]


def differences(rows: Sequence[Row], most: int | None = None, besides: Collection[str] = ()) -> Differences:
    """Of the first rows what is not as in more than half of all runs of their stage.

    A value that follows from others is told only if nothing else of the run differs. A folder for each run is
    no difference: `save_dir` never counts.

    Parameters
    ----------
    most: how many rows are told of; all count.
    besides: keys that are left out, as they are shown otherwise.
    """
    stages: dict[str, list[Row]] = {}
    for row in rows:
        if row.status != "broken":
            stages.setdefault(row.stage, []).append(row)
    rows = rows[:most]
    varying = {
        stage: _varying(stages[stage], besides)
        for stage in {row.stage: None for row in rows if row.status != "broken"}
    }
    of_rows = [{} if row.status == "broken" else _differing(row, varying[row.stage]) for row in rows]
    seen: dict[str, set[str]] = {stage: set() for stage in stages}
    for row, values in zip(rows, of_rows, strict=True):
        if values:
            seen[row.stage].update(values)
    usual = {
        stage: {key.name: key.usual for key in keys.values() if key.name in seen[stage] and key.usual}
        for stage, keys in varying.items()
    }
    return Differences(of_rows, usual)


class _Key(NamedTuple):
    name: str
    usual: str
    """Text of the value that more than half of the runs have; empty if there is none."""
    texts: Mapping[str, str]
    """The other values: their `repr` -> text."""


def _varying(rows: Sequence[Row], besides: Collection[str]) -> dict[str, _Key]:
    keys = dict.fromkeys(
        key
        for row in rows
        for key in row.config
        if key.rpartition(".")[2] != "save_dir" and key not in besides
    )
    told = {key: _told(key, [row.config.get(key, ABSENT) for row in rows]) for key in keys}
    return {key: one for key, one in told.items() if one.texts}


def _told(key: str, values: Sequence[Any]) -> _Key:
    ((most, count),) = Counter(map(repr, values)).most_common(1)
    texts = texts_apart({repr(value): value for value in values})
    usual = texts.pop(most) if 2 * count > len(values) else ""
    return _Key(words.line(key, 40), usual, texts)


def texts_apart(values: Mapping[str, Any]) -> dict[str, str]:
    """Of each name's value, as short as tells them apart; empty where there is none."""
    texts: dict[str, str] = {}
    for longest in (24, 80):
        texts = {
            name: "" if value is ABSENT else words.short(value, longest) for name, value in values.items()
        }
        if len(set(texts.values())) == len(texts):
            break
    return texts


def _differing(row: Row, varying: Mapping[str, _Key]) -> dict[str, str]:
    found = {}
    for key, told in varying.items():
        value = repr(row.config.get(key, ABSENT))
        if value in told.texts:
            found[key] = told.name, told.texts[value]
    own = {key: pair for key, pair in found.items() if key not in row.derived}
    return dict((own or found).values())
