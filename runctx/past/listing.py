"""Show many runs as a table: a line each, with metrics, and of the configuration what tells them apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from rich.text import Text

from ..display import words
from ..display.table import Listing, status
from ..model import SYSTEM
from .query import Column, column, direction
from .row import Row

_HEADS = ("run", "status", "started", "took", "commit")
_MOST_METRICS = 6
"""Metrics that are shown unasked, where there is room."""
_MOST_KEYS = 8
"""Keys that are shown of one run."""


def listing(
    rows: Sequence[Row],
    most: int | None = None,
    *,
    legend: bool = True,
    count: bool = True,
    columns: Sequence[Column] = (),
    besides: Sequence[Column] = (),
    hints: Sequence[str] = (),
) -> Listing:
    """The table of these runs.

    Parameters
    ----------
    rows: all that were found: what differs is what is not as in most of them.
    most: how many are shown; None: all.
    legend: whether the notes say what is usual, and what the star means.
    count: whether the notes say how many more there are.
    columns: what is shown of each run in place of all that.
    besides: what is shown of each run before its metrics.
    hints: sentences below.
    """
    shown = rows[:most]
    notes = [f"… {len(rows) - len(shown)} more"] * (count and len(shown) < len(rows))
    if columns:
        differing, asked = Differences([{} for _ in shown], {}), [*columns]
    else:
        keys = {one.name.removeprefix("config.") for one in besides if one.section == "config"}
        differing, asked = differences(rows, most, keys), [*besides, *_usual_metrics(shown, besides)]
        notes += differing.notes * legend + [words.DIRTY] * (legend and any(row.dirty for row in shown))
    values = [_texts(one, shown) for one in asked]
    fixed = _HEADS[:1] if columns else _HEADS
    return Listing(
        heads=[*fixed, *_heads(asked), "differs in"],
        rows=[
            [*_cells(row)[: len(fixed)], *(Text(column[place], "number") for column in values), last]
            for place, (row, last) in enumerate(
                zip(
                    shown,
                    [Text()] * len(shown) if columns else map(_last, shown, differing.of_rows),
                    strict=True,
                )
            )
        ],
        notes=[*notes, *(f"hint: {words.line(hint)}" for hint in hints)],
        instead="no runs",
        whole=_HEADS,
        fixed=len(fixed),
        asked=len(columns or besides),
    )


def name(row: Row) -> str:
    """The name of a run in a listing: its id, or its folder if its lock cannot be read."""
    return words.path(row.path) if row.status == "broken" else words.line(row.id, 80)


def short_names(rows: Sequence[Row]) -> list[str]:
    """The ids; without the letters at their end unless these are needed to tell them apart."""
    short = [row.id.rpartition("-")[0] for row in rows]
    if all(short) and len(set(short)) == len(short):
        return [words.line(one, 80) for one in short]
    return [name(row) for row in rows]


def _cells(row: Row) -> list[Text]:
    share = f" {row.tasks_done}/{row.tasks}" if row.tasks and row.status in _COUNTED else ""
    return [
        Text(name(row)),
        status(row.status).append(share),
        Text(words.when(row.started)),
        Text(words.took(row.seconds)),
        Text(words.commit(row.commit, row.dirty)),
    ]


_COUNTED = ("done", "failed", "interrupted")
"""Statuses of runs whose locks know how many tasks were done."""


def _last(row: Row, values: Mapping[str, str]) -> Text:
    parts = [Text(f"#{words.line(tag, 100)}", "cyan") for tag in row.tags]
    if row.error:
        broken = row.status == "broken"
        short = words.line(row.error, 200) if broken else words.line(row.error.rpartition(".")[2], 60)
        parts.append(Text(short, "red"))
    for one in key_values(values):
        key, sign, value = one.partition("=")
        parts.append(Text.assemble((key + sign, "dim"), value))
    return Text(" ").join(parts)


def _usual_metrics(rows: Sequence[Row], besides: Sequence[Column]) -> list[Column]:
    """Metrics that most runs have logged, a loss or a score first; without those shown already."""
    counts = Counter(name for row in rows for name in row.metrics if not name.startswith(SYSTEM))
    most = max(counts.values(), default=0)
    names = sorted(counts, key=lambda name: (-counts[name], direction(name) is None, name))
    shown = {one.name for one in besides}
    usual = [name for name in names if 2 * counts[name] > most and f"metrics.{name}" not in shown]
    return [column(f"metrics.{name}") for name in usual[:_MOST_METRICS]]


def _heads(columns: Sequence[Column]) -> list[str]:
    """Without `config.` and `metrics.`, where that leaves them apart."""
    short = [one.name.removeprefix(f"{one.section}.") for one in columns]
    names = short if len({*short}) == len(short) else [one.name for one in columns]
    texts = words.texts_apart(dict(zip(names, names, strict=True)))
    return [texts[name] for name in names]


def _texts(one: Column, rows: Sequence[Row]) -> list[str]:
    """The values of a column; numbers point below point."""
    values = [one.of(row) for row in rows]
    if not all(
        value is None or (isinstance(value, (int, float)) and not isinstance(value, bool)) for value in values
    ):
        return ["" if value is None else words.short(value, 40) for value in values]
    write = words.number if one.needs_metrics else words.value
    return words.aligned(["" if value is None else write(value) for value in values]) if values else []


# -- what tells one run from the others ---------------------------------------------------------------------


class Differences(NamedTuple):
    """As text, for each row what differs, and below all rows what is usual."""

    of_rows: list[dict[str, str]]
    """For each row, key -> value; empty where the row has no such key and most have one."""
    usual: dict[str, dict[str, str]]
    """Each stage -> key -> the value of more than half of its runs, of the keys that some row shows."""

    @property
    def notes(self) -> list[str]:
        """The usual values, a line for each stage."""
        several = len(self.usual) > 1
        return [
            f"usual{f' in {words.line(stage, 40)}' if several else ''}: {' '.join(key_values(values))}"
            for stage, values in self.usual.items()
            if values
        ]


def key_values(values: Mapping[str, str]) -> list[str]:
    """
    >>> key_values({"lr": "0.1", "momentum": ""})
    ['lr=0.1', 'no momentum']
    """
    texts = [f"{key}={value}" if value else f"no {key}" for key, value in values.items()]
    if len(texts) <= _MOST_KEYS:
        return texts
    return [*texts[: _MOST_KEYS - 1], f"… {len(texts) - _MOST_KEYS + 1} more"]


def differences(rows: Sequence[Row], most: int | None = None, besides: Collection[str] = ()) -> Differences:
    """Of the first rows what is not as in more than half of all runs of their stage.

    A value that follows from others is shown only if nothing else of the run differs. A folder for each run is
    no difference: `save_dir` never counts.

    Parameters
    ----------
    most: how many rows are asked about; all count.
    besides: keys that are left out, as they are shown otherwise.
    """
    stages: dict[str, list[Row]] = {}
    for row in rows:
        if row.status != "broken":
            stages.setdefault(row.stage, []).append(row)
    rows = rows[:most]
    asked = dict.fromkeys(row.stage for row in rows if row.status != "broken")
    varying = {stage: dict(_varying(stages[stage], besides)) for stage in asked}
    of_rows = [{} if row.status == "broken" else _differing(row, varying[row.stage]) for row in rows]
    seen = {(row.stage, name) for row, values in zip(rows, of_rows, strict=True) for name in values}
    usual = {
        stage: {key.name: key.usual for key in keys.values() if key.usual and (stage, key.name) in seen}
        for stage, keys in varying.items()
    }
    return Differences(of_rows, usual)


class _Key(NamedTuple):
    name: str
    usual: str
    """Text of the value that more than half of the runs have; empty if there is none."""
    texts: Mapping[str, str]
    """The other values: their `repr` -> text."""


_MISSING = "missing"
"""In place of the `repr` of a value that a row does not have; no value's own."""


def _varying(rows: Sequence[Row], besides: Collection[str]) -> Iterator[tuple[str, _Key]]:
    for key in dict.fromkeys(key for row in rows for key in row.config):
        if key.rpartition(".")[2] == "save_dir" or key in besides:
            continue
        values = {repr(row.config[key]): row.config[key] for row in rows if key in row.config}
        ((most, count),) = Counter(_value(row, key) for row in rows).most_common(1)
        texts = {**words.texts_apart(values), _MISSING: ""}
        usual = texts.pop(most) if 2 * count > len(rows) else ""
        if set(texts) - {_MISSING} or any(key not in row.config for row in rows):
            yield key, _Key(words.line(key, 40), usual, texts)


def _value(row: Row, key: str) -> str:
    return repr(row.config[key]) if key in row.config else _MISSING


def _differing(row: Row, varying: Mapping[str, _Key]) -> dict[str, str]:
    values = {key: (_value(row, key), one) for key, one in varying.items()}
    found = {key: (one.name, one.texts[value]) for key, (value, one) in values.items() if value in one.texts}
    own = {key: pair for key, pair in found.items() if key not in row.derived}
    return dict((own or found).values())
