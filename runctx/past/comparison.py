"""Compare runs side by side: what differs, what is equal, and which run was best."""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from .. import lock as locks
from ..base import BaseRun
from ..display import words
from ..display.table import Comparison as Table
from ..errors import NoRunError, QueryError
from ..model import SYSTEM, Lock, Summary
from ..notes import NO_NOTES, Notes, readable
from .query import direction
from .record import known_runs
from .row import logged

if TYPE_CHECKING:
    import pandas  # type: ignore[import-untyped]


class _Absent:
    """Stands for a value that a run does not have; null is another thing."""

    def __repr__(self) -> str:
        return "ABSENT"

    def __reduce__(self) -> str:
        return "ABSENT"


ABSENT = _Absent()
_MOST_LINES = 100
"""Of a table; `--json` has all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One value, of all runs."""

    section: str
    """`run`, `config`, `metrics`, `inputs`, `packages` or `environment`."""
    key: str
    values: tuple[Any, ...]
    """One for each run; `ABSENT` where it has no such value."""
    best: tuple[int, ...] = ()
    """Places of the best values of a metric, if its name says whether more is better."""

    @property
    def name(self) -> str:
        """As it is called in expressions, where it can be asked for: `status`, `config.lr`, `metrics.loss.min`."""
        return self.key if self.section == "run" else f"{self.section}.{self.key}"

    @property
    def differs(self) -> bool:
        return len(set(map(repr, self.values))) > 1

    @property
    def is_folded(self) -> bool:
        """True if it is a package that only some of the runs have imported."""
        return self.section == "packages" and ABSENT in self.values


@dataclass(frozen=True, kw_only=True, slots=True)
class Side:
    """One of the runs."""

    lock: Lock
    status: str
    folder: Path | None
    notes: Notes
    metrics: Mapping[str, Summary]
    """As they are now; those of the machine left out."""


class Comparison:
    """The differences between runs, in the order of the runs; shows as a table.

    Parameters
    ----------
    runs: two or more.
    hints: sentences that are said below the table.

    Raises
    ------
    LockError: the lock of one is broken. QueryError: there are less than two.
    """

    def __init__(self, runs: Sequence[BaseRun], hints: Sequence[str] = ()) -> None:
        if len(runs) < 2:
            hint = "; ".join(hints) or "`runctx ls` lists all runs"
            raise QueryError(f"compare needs at least two runs; got {'one' if runs else 'none'}", hint=hint)
        self.sides = tuple(map(_side, runs))
        self.hints = tuple(hints)

    @functools.cached_property
    def lines(self) -> tuple[Line, ...]:
        """Everything that is compared."""
        return tuple(_lines(self.sides))

    @property
    def differing(self) -> tuple[Line, ...]:
        return tuple(line for line in self.lines if line.differs)

    @property
    def equal(self) -> tuple[Line, ...]:
        return tuple(line for line in self.lines if not line.differs)

    @property
    def names(self) -> tuple[str, ...]:
        """Of each run the beginning of its id that no other has; `runctx show` understands it."""
        ids = [side.lock.id for side in self.sides]
        short = [id.rpartition("-")[0] for id in ids]
        times = Counter(short)
        return tuple(name if name and times[name] == 1 else id for name, id in zip(short, ids, strict=True))

    def to_dict(self) -> dict[str, Any]:
        """`runs`: what they are; `differs`: section -> key -> a value of each, or None; `equal`: the value of all."""
        plain: dict[str, Any] = {
            "runs": [
                {
                    "id": side.lock.id,
                    "path": None if side.folder is None else os.fspath(side.folder),
                    "started": locks.to_plain(side.lock.started),
                }
                for side in self.sides
            ],
            "differs": {},
            "equal": {},
        }
        for line in self.lines:
            value = _plain(line.values) if line.differs else line.values[0]
            plain["differs" if line.differs else "equal"].setdefault(line.section, {})[line.key] = value
        return plain

    def to_pandas(self, *, equal: bool = False) -> pandas.DataFrame:
        """A column for each run, under its id; a line for each value that differs.

        Parameters
        ----------
        equal: also a line for each that does not.

        Raises
        ------
        ImportError: pandas is not installed.
        """
        from .. import optional

        pandas = optional.pandas("to_pandas")

        lines = self.lines if equal else self.differing
        return pandas.DataFrame(
            [_plain(line.values) for line in lines],
            index=[line.name for line in lines],
            columns=[side.lock.id for side in self.sides],
            dtype=object,
        )

    def table(self, *, equal: bool = False, hints: bool = True) -> Table:
        """For a terminal and for a notebook: a column for each run, and in a line what is equal.

        Parameters
        ----------
        equal: also a line for each value that is equal.
        hints: whether those of the comparison stand below.
        """
        shown = [line for line in self.differing if not line.is_folded]
        lines = (self.lines if equal else shown)[:_MOST_LINES]
        hints_below = [f"hint: {words.line(hint)}" for hint in self.hints if hints]
        return Table(
            heads=["", *(words.line(name, 80) for name in self.names)],
            rows=[_cells(line) for line in lines],
            notes=[*self._notes(equal), *hints_below],
            numbers=[place for place, line in enumerate(lines) if line.section == "metrics"],
        )

    def _notes(self, equal: bool) -> Iterator[str]:
        differing, same = self.differing, self.equal
        if not differing:
            yield "no difference"
        folded = [] if equal else [line.key for line in differing if line.is_folded]
        if folded:
            yield f"imported by only some of them: {words.count(len(folded), 'package')} ({words.several(folded, 6)})"
        left_out = len(self.lines if equal else differing) - len(folded) - _MOST_LINES
        if left_out > 0:
            yield f"… {left_out} more; --json has all"
        if same and not equal:
            yield f"equal: {', '.join(_summed_up(same))}"

    def __rich__(self) -> Table:
        return self.table()

    def __repr__(self) -> str:
        return words.as_text(self.table())

    def _repr_html_(self) -> str:
        return self.table().html()


def _side(run: BaseRun) -> Side:
    status = getattr(run, "status", run.lock.status)
    try:
        folder = run.save_dir
    except NoRunError:  # all that is known of it stands in a later run's lock
        folder = None
    found = logged(folder, status) if folder is not None else {}
    metrics = {name: one for name, one in (found or run.lock.metrics).items() if not name.startswith(SYSTEM)}
    notes = NO_NOTES if folder is None else readable(folder)
    return Side(lock=run.lock, status=status, folder=folder, notes=notes, metrics=metrics)


def _plain(values: Sequence[Any]) -> list[Any]:
    return [None if value is ABSENT else value for value in values]


# -- what is compared --------------------------------------------------------------------------------------


def _lines(sides: Sequence[Side]) -> Iterator[Line]:
    yield from _side_by_side("run", [_of_run(side) for side in sides])
    yield from _side_by_side("config", [_config(side.lock) for side in sides])
    yield from _of_metrics(sides)
    yield from _side_by_side("inputs", [_inputs(side.lock) for side in sides])
    yield from _side_by_side("packages", [side.lock.environment.packages for side in sides])
    keys = ("python", "platform", "cpu", "devices")
    machines = [{"devices": [], **locks.to_plain(side.lock.environment)} for side in sides]
    yield from _side_by_side("environment", [{key: one[key] for key in keys} for one in machines])


def _side_by_side(section: str, sides: Sequence[Mapping[str, Any]]) -> Iterator[Line]:
    for key in dict.fromkeys(key for side in sides for key in side):
        yield Line(section=section, key=key, values=tuple(side.get(key, ABSENT) for side in sides))


def _of_run(side: Side) -> dict[str, Any]:
    lock = side.lock
    values = {
        "stage": lock.stage,
        "status": side.status,
        "error": lock.error and lock.error.type.removeprefix("builtins."),
        "seconds": lock.seconds,
        "seed": lock.seed,
        "tags": ", ".join(side.notes.tags) or None,
        "note": side.notes.note or None,
        "commit": lock.source.commit and lock.source.commit.removeprefix("git:"),
    }
    return {key: value for key, value in values.items() if value is not None}


def _config(lock: Lock) -> dict[str, Any]:
    """Dotted keys; a folder for each run is no difference."""
    return {key: value for key, value in words.leaves(lock.config) if key.rpartition(".")[2] != "save_dir"}


def _inputs(lock: Lock) -> dict[str, str]:
    """Path -> digest; of what an earlier run saved, the path in its folder, which is another one each time."""
    known, found, times = known_runs(lock), {}, Counter[str]()
    for data in lock.inputs:
        run = known.get(data.run or "")
        path = data.path if run is None else f"{run.stage}: {words.inside(data, run)}"
        times[path] += 1
        name = path if times[path] == 1 else f"{path} ({times[path]})"
        found[name] = data.digest or f"not hashed ({data.strength})"
    return found


# -- metrics -----------------------------------------------------------------------------------------------


def _of_metrics(sides: Sequence[Side]) -> Iterator[Line]:
    """The last value of each; and the best, or the least and the greatest, where it is another."""
    for name in sorted({name for side in sides for name in side.metrics}):
        found = [side.metrics.get(name) for side in sides]
        mode = direction(name)
        better = _FUNCTIONS[mode] if mode else None
        last = _parts(found, "last")
        yield Line(section="metrics", key=name, values=last, best=_best(last, better))
        for part in _FUNCTIONS:
            values = _parts(found, part)
            if mode in (None, part) and repr(values) != repr(last):
                yield Line(section="metrics", key=f"{name}.{part}", values=values, best=_best(values, better))


_FUNCTIONS: dict[str, Callable[..., float]] = {"min": min, "max": max}


def _parts(found: Sequence[Summary | None], part: str) -> tuple[Any, ...]:
    return tuple(ABSENT if one is None else getattr(one, part) for one in found)


def _best(values: Sequence[Any], better: Callable[..., float] | None) -> tuple[int, ...]:
    there = ((place, value) for place, value in enumerate(values) if value is not ABSENT)
    numbers = {place: value for place, value in there if value == value}
    if better is None or len(set(numbers.values())) < 2:
        return ()
    wanted = better(numbers.values())
    return tuple(place for place, value in numbers.items() if value == wanted)


# -- how it is shown ---------------------------------------------------------------------------------------


def _cells(line: Line) -> list[Text]:
    """Its name, and the value of each run, as short as tells the runs apart."""
    cells = [Text(words.short(line.name, 60), "dim")]
    for place, text in enumerate(_texts(line)):
        best = place in line.best
        cell = Text(text + " (best)" * best, "green" if best else "")
        cell.stylize("number" if line.section == "metrics" else "")
        cell.stylize("chosen" if best else "")
        cells.append(cell)
    return cells


def _texts(line: Line) -> list[str]:
    short = _SHORT.get(line.key if line.section == "run" else line.section)
    if short is not None:
        texts = ["" if value is ABSENT or value is None else short(value) for value in line.values]
        if len({*texts}) == len({*map(repr, line.values)}):
            return texts
    apart = words.texts_apart({repr(value): value for value in line.values if value is not ABSENT})
    return [apart.get(repr(value), "") for value in line.values]


def _digest(value: str) -> str:
    algorithm, colon, hexadecimal = value.partition(":")
    return words.line(f"{algorithm}{colon}{hexadecimal[:8]}", 40)


_SHORT: dict[str, Callable[[Any], str]] = {
    "seconds": words.took,
    "commit": lambda value: words.commit(value, False),
    "metrics": words.number,
    "inputs": _digest,
}


def _summed_up(lines: Sequence[Line]) -> Iterator[str]:
    for section, count in Counter(line.section for line in lines).items():
        names = [words.line(line.name, 40) for line in lines if line.section == section]
        few = section == "run" or count <= 4
        yield ", ".join(names) if few else f"{count} {'keys of ' * (section == 'config')}{section}"
