"""Who has which tasks? A log that every worker reads, and that only who has read all of it can write on.

Entry n is a file of that name, made exclusively: a complete file is linked into place, which is atomic on local
and network file systems alike. Whoever makes it has read the n - 1 before it, so that all agree on the order,
and what is claimed and what is free is a function of the log: no task is claimed twice.

Taking tasks says that all taken before are finished. Tasks that a worker will not do, because it stops or is
dead, are given back, by itself or by whoever finds it dead.
"""

from __future__ import annotations

import itertools
import os
import secrets
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from ..errors import LedgerError

Spans = tuple[tuple[int, int], ...]
"""Runs of numbers, each from the first up to, but not including, the last."""

_PATIENCE = 60.0
"""Seconds for which a network file system may go on not to show an entry that is there."""


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of the log."""

    worker: str
    """Who takes."""
    shift: str
    """The shift it works in."""
    take: Spans = ()
    give: Spans = ()
    """What goes back, before anything is taken."""
    of: str = ""
    """Who had it; empty: the worker itself."""
    lost: tuple[int, ...] = ()
    """What the other was running when it died."""
    longest: float = 0.0
    """Seconds of the longest task the worker has met so far."""


class Claims:
    """One reader's, and perhaps writer's, view of the log.

    Parameters
    ----------
    folder: of the log; must exist.
    total: number of tasks; they are numbered from 0.

    Raises
    ------
    LedgerError: the log is broken, or the file system cannot link files.

    >>> import tempfile
    >>> claims = Claims(Path(tempfile.mkdtemp()), total=10)
    >>> claims.take("a", "here", 3), claims.take("b", "here", 3)
    ([0, 1, 2], [3, 4, 5])
    >>> claims.give_back("a", "here", [1, 2])
    True
    >>> claims.take("b", "here", 9)
    [1, 2, 6, 7, 8, 9]
    """

    def __init__(self, folder: Path, total: int) -> None:
        self.total = total
        self.held: dict[str, list[int]] = {}
        """Worker -> what it took last, and has not given back, in its order."""
        self.shift_of: dict[str, str] = {}
        """Worker -> the shift it works in."""
        self.dismissed: set[str] = set()
        """Workers whose tasks somebody else gave back: should one still be alive, it must stop."""
        self.losses: dict[int, int] = {}
        """Task -> how many workers died while they ran it."""
        self.longest = 0.0
        """Seconds of the longest task that any worker had met when it took tasks."""
        self._folder = folder
        self._read = 0
        self._fresh = 0  # from here on, nobody has ever taken any
        self._returned: list[int] = []

    @property
    def free(self) -> int:
        """How many tasks nobody has, as far as the log was read."""
        return len(self._returned) + self.total - self._fresh

    def take(self, worker: str, shift: str, most: int) -> list[int]:
        """Claim up to `most` tasks, those given back first; none if none are free or the worker is dismissed."""
        while True:
            self.read_on()
            if worker in self.dismissed:
                return []
            wanted = self._returned[:most]
            wanted += range(self._fresh, min(self.total, self._fresh + most - len(wanted)))
            if not wanted or self._append(
                Entry(worker, shift, take=spans(wanted), longest=round(self.longest, 6))
            ):
                return wanted

    def take_these(self, worker: str, shift: str, wanted: Sequence[int]) -> list[int]:
        """Claim these, as far as they have been given back and are still free."""
        while True:
            self.read_on()
            found = [task for task in wanted if task in self._returned]
            if not found or self._append(Entry(worker, shift, take=spans(found))):
                return found

    def give_back(self, worker: str, shift: str, tasks: Sequence[int]) -> bool:
        """Give back what the worker itself took and has not begun; False if it was dismissed meanwhile."""
        while True:
            self.read_on()
            if worker in self.dismissed:
                return False
            if self._append(Entry(worker, shift, give=spans(tasks), longest=round(self.longest, 6))):
                return True

    def dismiss(
        self,
        dead: str,
        unfinished: Iterable[int],
        *,
        worker: str,
        shift: str,
        lost: Sequence[int] = (),
        keep: Sequence[int] = (),
    ) -> bool:
        """Give back, for a dead worker, what it had and did not finish; False if somebody else has done so.

        Parameters
        ----------
        unfinished: of what it held.
        worker, shift: who does so.
        lost: what it was running when it died.
        keep: of the unfinished, what `worker` takes itself at once.
        """
        unfinished = list(unfinished)
        while True:
            self.read_on()
            if dead in self.dismissed:
                return False
            entry = Entry(worker, shift, take=spans(keep), give=spans(unfinished), of=dead, lost=tuple(lost))
            if self._append(entry):
                return True

    def read_on(self) -> None:
        """Read the entries that have been made since."""
        while (data := self._entry(self._read + 1)) is not None:
            self._apply(_decoded(data, self._path(self._read + 1)))
            self._read += 1

    def _apply(self, entry: Entry) -> None:
        giver = entry.of or entry.worker
        given = list(numbers(entry.give))
        if entry.of:
            self.dismissed.add(entry.of)
            self.held.pop(entry.of, None)
        elif given:
            self.held[giver] = [task for task in self.held.get(giver, ()) if task not in set(given)]
        for task in entry.lost:
            self.losses[task] = self.losses.get(task, 0) + 1
        self._returned += given
        taken = list(numbers(entry.take))
        if taken:
            self.shift_of[entry.worker] = entry.shift
            self.held[entry.worker] = taken
            if self._returned:
                gone = set(taken)
                self._returned = [task for task in self._returned if task not in gone]
            self._fresh = max(self._fresh, taken[-1] + 1)
        self.longest = max(self.longest, entry.longest)

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:06}"

    def _entry(self, number: int) -> bytes | None:
        try:
            return self._path(number).read_bytes()
        except FileNotFoundError:
            return None

    def _append(self, entry: Entry) -> bool:
        """Make the next entry; False if another was quicker, whose entry can be read then."""
        path = self._path(self._read + 1)
        draft = self._folder / f".{secrets.token_hex(6)}"
        draft.write_bytes(msgspec.json.encode(entry))
        try:
            os.link(draft, path)
        except FileExistsError:
            if draft.stat().st_nlink != 2:  # else it is ours: an answer of the file server had got lost
                self._await(path)
                return False
        except OSError as error:
            raise LedgerError(
                f"{path}: cannot be linked into place: {error.strerror or error}",
                hint="tasks are shared out by hard links: give the run a save_dir on a file system that has them",
            ) from error
        finally:
            draft.unlink()
        self._apply(entry)
        self._read += 1
        return True

    def _await(self, path: Path) -> None:
        """A network file system may remember for some time that a file was not there."""
        began = time.monotonic()
        for pause in itertools.chain((0.0, 0.05), itertools.repeat(0.5)):
            time.sleep(pause)
            if os.path.exists(path):
                return
            os.listdir(self._folder)  # makes it look again
            if time.monotonic() - began > _PATIENCE:
                raise LedgerError(f"{path}: exists and cannot be seen")


_decoder = msgspec.json.Decoder(Entry)


def _decoded(data: bytes, path: Path) -> Entry:
    try:
        return _decoder.decode(data)
    except msgspec.DecodeError as error:
        raise LedgerError(f"{path}: no entry of the log of claims: {error}") from error


def spans(tasks: Iterable[int]) -> Spans:
    """Numbers as runs, in the order given.

    >>> spans([4, 5, 6, 1])
    ((4, 7), (1, 2))
    """
    runs: list[tuple[int, int]] = []
    for task in tasks:
        if runs and runs[-1][1] == task:
            runs[-1] = (runs[-1][0], task + 1)
        else:
            runs.append((task, task + 1))
    return tuple(runs)


def numbers(spans: Spans) -> Iterator[int]:
    """The numbers in runs."""
    for first, end in spans:
        yield from range(first, end)
