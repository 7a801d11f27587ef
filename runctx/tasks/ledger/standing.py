"""How far is a map? What was claimed, and what was written down, side by side.

At every moment each task that is to be done is free, claimed or done, and one of these only.
"""

from __future__ import annotations

from collections.abc import Collection

from ...layout import TaskFiles
from .claims import Claims
from .rows import Rows
from .todo import Todo


class Ledger:
    """The ledger of the map that goes on now, as one process sees it.

    Parameters
    ----------
    files: of the map.
    """

    def __init__(self, files: TaskFiles) -> None:
        self.todo = Todo(files)
        self.claims = Claims(files.claims, len(self.todo))
        self.idle_since: dict[str, float] = {}
        """Worker -> when it finished the last task it has a row for: seconds since 1970."""
        self._rows = Rows(files)
        self._final: set[str] = set()

    def unfinished(self, worker: str) -> list[int]:
        """What a worker holds, as far as the log was read, and has no row for; in its order."""
        held = self.claims.held.get(worker, ())
        if not held:
            return []
        # the shift writes the row that a dead worker could not
        for author, rows in self._rows.new(frozenset((worker, self.claims.shift_of[worker]))):
            self._final |= {row.key for row in rows if row.status != "retried"}
            self.idle_since[author] = rows[-1].started + rows[-1].seconds
        return [number for number in held if self.todo.key(number).decode() not in self._final]

    def is_over(self) -> bool:
        """Whether every task has been done."""
        self.claims.read_on()
        return self.claims.free == 0 and not any(map(self.unfinished, list(self.claims.held)))

    def bury(self, dead: Collection[str], shift: str) -> list[int]:
        """Give back what the workers of dead shifts had, and return what they were running.

        Parameters
        ----------
        dead: names of shifts that are over for certain.
        shift: who does so.
        """
        self.claims.read_on()
        lost = []
        for worker in [w for w in self.claims.held if self.claims.shift_of[w] in dead]:
            unfinished = self.unfinished(worker)
            if unfinished and self.claims.dismiss(
                worker, unfinished, worker=shift, shift=shift, lost=unfinished[:1]
            ):
                lost.append(unfinished[0])
        return lost
