"""The runs before a run, and what each read of another: from one lock, which holds all locks before it."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..model import Data, Lock

if TYPE_CHECKING:
    from ..display.lineage import LineageView


@dataclass(frozen=True, kw_only=True, slots=True)
class Edge:
    """`child` read from `parent`."""

    parent: str
    """Id of a run."""
    child: str
    inputs: tuple[Data, ...] = ()
    """What it read; empty if its lock does not say."""


def known_runs(lock: Lock) -> dict[str, Lock]:
    """Id -> lock, of the run itself and of all before it."""
    return {lock.id: lock, **{earlier.id: earlier for earlier in lock.upstream if earlier.id != lock.id}}


def edges(lock: Lock) -> tuple[Edge, ...]:
    """All that lead to the run, the nearest first; what would lead from a run to itself is cut.

    A parent that is named but not told of is the end of an edge all the same.
    """
    known = known_runs(lock)
    before: dict[str, set[str]] = {}
    found: list[Edge] = []
    pending = deque([lock.id])
    while pending:
        child = pending.popleft()
        if child in before:
            continue
        before[child] = set()
        for parent in dict.fromkeys(known[child].parents) if child in known else ():
            if _reaches(before, parent, child):
                continue
            before[child].add(parent)
            inputs = tuple(data for data in known[child].inputs if data.run == parent)
            found.append(Edge(parent=parent, child=child, inputs=inputs))
            pending.append(parent)
    return tuple(found)


def _reaches(before: Mapping[str, set[str]], start: str, goal: str) -> bool:
    pending, seen = [start], {start}
    while pending:
        run = pending.pop()
        if run == goal:
            return True
        fresh = before.get(run, set()) - seen
        seen |= fresh
        pending += fresh
    return False


def ancestors(lock: Lock, known: Mapping[str, Lock]) -> tuple[Lock, ...]:
    """The locks among `known` of all runs before this one, oldest first."""
    found: dict[str, Lock] = {}
    pending = list(lock.parents)
    while pending:
        id = pending.pop()
        if id in known and id not in found and id != lock.id:
            found[id] = known[id]
            pending += known[id].parents
    return tuple(sorted(found.values(), key=lambda earlier: (earlier.started, earlier.id)))


def view(lock: Lock, statuses: Mapping[str, str]) -> LineageView:
    """The run and all before it, to be shown; `statuses`: by id, where known better than the locks say."""
    from ..display.lineage import LineageView

    return LineageView(root=lock.id, runs=known_runs(lock), statuses=statuses, edges=edges(lock))
