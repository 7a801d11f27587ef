"""What differs between runs, side by side?"""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import lock as locks
from ..errors import NoRunError, QueryError
from ..model import Lock, Summary
from ..notes import NO_NOTES, Notes, readable
from ..told import Told
from .columns import SYSTEM, direction
from .lineage import inside, known_runs
from .measured import summaries
from .record import load
from .row import leaves

if TYPE_CHECKING:
    import pandas  # type: ignore[import-untyped]


class _Absent:
    """What stands in the place of a value that a run does not have; null is another thing."""

    def __repr__(self) -> str:
        return "ABSENT"

    def __reduce__(self) -> str:
        return "ABSENT"


ABSENT = _Absent()


def compare(*runs: Told | str | os.PathLike[str]) -> Comparison:
    """What differs between these runs.

    Parameters
    ----------
    runs: two or more, live or past, or their names as `Run.load` takes them.

    Raises
    ------
    NoRunError: there is no such run. LockError: its lock is broken. QueryError: there are less than two.

    >>> import tempfile
    >>> from runctx import Run
    >>> with Run({"lr": 0.1, "n": 1}, save_dir=f"{tempfile.mkdtemp()}/a", console=False) as a:
    ...     a.log_async(acc=0.8)
    >>> with Run({"lr": 0.2, "n": 1}, save_dir=f"{tempfile.mkdtemp()}/b", console=False) as b:
    ...     b.log_async(acc=0.9)
    >>> found = compare(a, b)
    >>> found.to_dict()["differs"]["config"], found.to_dict()["equal"]["config"]
    ({'lr': [0.1, 0.2]}, {'n': 1})
    >>> [(line.name, line.values, line.best) for line in found.differing if line.section == "metrics"]
    [('metrics.acc', (0.8, 0.9), (1,))]
    """
    return Comparison([run if isinstance(run, Told) else load(run) for run in runs])


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
    """What differs between runs, in the order of the runs; shows as a table.

    Parameters
    ----------
    runs: two or more.
    hints: sentences that are said below the table.

    Raises
    ------
    LockError: the lock of one is broken. QueryError: there are less than two.
    """

    def __init__(self, runs: Sequence[Told], hints: Sequence[str] = ()) -> None:
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
        told: dict[str, Any] = {"runs": [_told(side) for side in self.sides], "differs": {}, "equal": {}}
        for line in self.lines:
            value = list(map(_plain, line.values)) if line.differs else line.values[0]
            told["differs" if line.differs else "equal"].setdefault(line.section, {})[line.key] = value
        return told

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
            [[*map(_plain, line.values)] for line in lines],
            index=[line.name for line in lines],
            columns=[side.lock.id for side in self.sides],
            dtype=object,
        )

    def __repr__(self) -> str:
        from ..display.comparison import Table
        from ..display.plain import as_text

        return as_text(Table(self))

    def _repr_html_(self) -> str:
        from ..display.comparison import as_html

        return as_html(self)


def _side(run: Told) -> Side:
    status = getattr(run, "status", run.lock.status)
    try:
        folder = run.save_dir
    except NoRunError:  # all that is known of it stands in a later run's lock
        folder = None
    found = summaries(folder, status) if folder is not None else {}
    metrics = {
        name: told for name, told in (found or run.lock.metrics).items() if not name.startswith(SYSTEM)
    }
    notes = NO_NOTES if folder is None else readable(folder)
    return Side(lock=run.lock, status=status, folder=folder, notes=notes, metrics=metrics)


def _plain(value: Any) -> Any:
    return None if value is ABSENT else value


def _told(side: Side) -> dict[str, Any]:
    folder = None if side.folder is None else os.fspath(side.folder)
    return {"id": side.lock.id, "path": folder, "started": locks.to_plain(side.lock.started)}


# -- what is compared --------------------------------------------------------------------------------------


def _lines(sides: Sequence[Side]) -> Iterator[Line]:
    yield from _side_by_side("run", [_of_run(side) for side in sides])
    yield from _side_by_side("config", [_config(side.lock) for side in sides])
    yield from _of_metrics(sides)
    yield from _side_by_side("inputs", [_inputs(side.lock) for side in sides])
    yield from _side_by_side("packages", [side.lock.environment.packages for side in sides])
    yield from _side_by_side("environment", [_environment(side.lock) for side in sides])


def _side_by_side(section: str, sides: Sequence[Mapping[str, Any]]) -> Iterator[Line]:
    for key in dict.fromkeys(key for side in sides for key in side):
        yield Line(section=section, key=key, values=tuple(side.get(key, ABSENT) for side in sides))


def _of_run(side: Side) -> dict[str, Any]:
    lock = side.lock
    told = {
        "stage": lock.stage,
        "status": side.status,
        "error": lock.error and lock.error.type.removeprefix("builtins."),
        "seconds": lock.seconds,
        "seed": lock.seed,
        "tags": ", ".join(side.notes.tags) or None,
        "note": side.notes.note or None,
        "commit": lock.source.commit and lock.source.commit.removeprefix("git:"),
    }
    return {key: value for key, value in told.items() if value is not None}


def _config(lock: Lock) -> dict[str, Any]:
    """Dotted keys; a folder for each run is no difference."""
    return {key: value for key, value in leaves(lock.config) if key.rpartition(".")[2] != "save_dir"}


def _inputs(lock: Lock) -> dict[str, str]:
    """Path -> digest; of what an earlier run saved, the path in its folder, which is another one each time."""
    known, found, times = known_runs(lock), {}, Counter[str]()
    for data in lock.inputs:
        run = known.get(data.run or "")
        path = data.path if run is None else f"{run.stage}: {inside(data, run)}"
        times[path] += 1
        name = path if times[path] == 1 else f"{path} ({times[path]})"
        found[name] = data.digest or f"not hashed ({data.strength})"
    return found


def _environment(lock: Lock) -> dict[str, Any]:
    where = lock.environment
    return {
        "python": where.python,
        "platform": where.platform,
        "cpu": where.cpu,
        "devices": list(where.devices),
    }


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
    return tuple(ABSENT if told is None else getattr(told, part) for told in found)


def _best(values: Sequence[Any], better: Callable[..., float] | None) -> tuple[int, ...]:
    there = ((place, value) for place, value in enumerate(values) if value is not ABSENT)
    numbers = {place: value for place, value in there if value == value}
    if better is None or len(set(numbers.values())) < 2:
        return ()
    wanted = better(numbers.values())
    return tuple(place for place, value in numbers.items() if value == wanted)
