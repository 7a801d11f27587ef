"""How is a row of the table measured? In rounds: all sides in turn (A B A B ...), one ratio for each."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass

from .workshop import Absent, Workshop

Side = Callable[[int], float]
"""Does the work of one round, whose number it gets, and says how many seconds it took."""

Sides = dict[str, Side]
"""By name, in the order in which they take turns."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table: two sides of a bench, and the ratio we want to reach."""

    what: str
    """What ours does."""
    against: str
    """What the peer does."""
    ours: str
    peer: str
    reach: float
    """Largest ratio ours / peer that counts as met."""
    unit: str = "s"
    """Of what the sides return: seconds, bytes (B), or things."""


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Sides that take turns on the same data, and the rows their times give."""

    name: str
    rows: tuple[Row, ...]
    sides: Callable[[Workshop], AbstractContextManager[Sides]]
    """Makes the data, gives the sides, cleans up."""
    most: int = 1000
    """Rounds: fewer than are asked for where a side takes minutes."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """A row with its figures."""

    bench: str
    what: str
    against: str
    reach: float
    unit: str
    rounds: int
    ours: float
    """Median of the rounds."""
    peer: float
    """Likewise."""
    ratio: float
    """Median of the rounds' ratios; not the ratio of the medians, so that a slow minute hits both sides."""
    low: float
    """Smallest ratio of a round."""
    high: float
    """Largest ratio of a round."""

    @property
    def met(self) -> bool:
        return self.ratio <= self.reach

    def as_dict(self) -> dict[str, object]:
        return {**asdict(self), "met": self.met}


@dataclass(frozen=True, kw_only=True)
class Missing:
    """A row that could not be measured, and why."""

    bench: str
    what: str
    against: str
    reach: float
    unit: str
    ours: float | None
    """Median of the rounds, if this side at least did run."""
    peer: float | None
    """Likewise."""
    why: str

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def measure(bench: Bench, workshop: Workshop, rounds: int) -> Iterator[Result | Missing]:
    """Run all sides of a bench in turn; one round goes before that does not count.

    A side that cannot run (`Absent`) or fails makes every row that needs it `Missing`; the others go on.
    """
    times: dict[str, list[float]] = {}
    broken: dict[str, str] = {}
    try:
        with bench.sides(workshop) as sides:
            for number in range(min(rounds, bench.most) + 1):
                for name, side in sides.items():
                    if name in broken:
                        continue
                    try:
                        seconds = side(number)
                    except Exception as error:  # whatever it is, the other rows are still worth having
                        broken[name] = explain(error)
                        continue
                    if number > 0:
                        times.setdefault(name, []).append(seconds)
    except Exception as error:
        broken.update({name: explain(error) for row in bench.rows for name in (row.ours, row.peer)})
    for row in bench.rows:
        why = broken.get(row.ours) or broken.get(row.peer)
        if why is not None:
            yield Missing(
                bench=bench.name,
                what=row.what,
                against=row.against,
                reach=row.reach,
                unit=row.unit,
                ours=median(times.get(row.ours)),
                peer=median(times.get(row.peer)),
                why=why,
            )
        else:
            yield compare(bench.name, row, times[row.ours], times[row.peer])


def compare(bench: str, row: Row, ours: list[float], peer: list[float]) -> Result:
    ratios = [a / b for a, b in zip(ours, peer, strict=True)]
    return Result(
        bench=bench,
        what=row.what,
        against=row.against,
        reach=row.reach,
        unit=row.unit,
        rounds=len(ratios),
        ours=statistics.median(ours),
        peer=statistics.median(peer),
        ratio=statistics.median(ratios),
        low=min(ratios),
        high=max(ratios),
    )


def median(times: list[float] | None) -> float | None:
    return statistics.median(times) if times else None


def explain(error: Exception) -> str:
    if isinstance(error, Absent):
        return str(error)
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[-1] if lines else ''}"


def clock(work: Callable[[], object]) -> float:
    """Seconds of wall clock that `work` takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
