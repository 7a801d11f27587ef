"""Who has which tasks? A log that every worker reads, and that only who has read all of it can write on.

Entry n is a file of that name, made exclusively: a complete file is linked into place, which is atomic on local
and network file systems alike. Whoever makes it has read the n - 1 before it, so that all agree on the order,
and what is claimed and what is free is a function of the log: no task is claimed twice.

Taking tasks says that all taken before are finished. Tasks that a worker will not do, because it stops or is
dead, are given back, by itself or by whoever finds it dead.

A log belongs to one session: a resumed map has a new folder of the same name, which workers of the old session, who
hold on to the folder they knew, can neither read nor write.
"""

from __future__ import annotations

import itertools
import os
import secrets
import time
import weakref
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from ...errors import LedgerError

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
    LedgerError: the log is broken or gone, or the file system cannot link files.

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
        self._log = _opened(folder)
        weakref.finalize(self, os.close, self._log)
        self._read = 0
        self._fresh = 0  # from here on, nobody has ever taken any
        self._returned: dict[int, None] = {}  # a set that keeps its order

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
            wanted = list(itertools.islice(self._returned, most))
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
        longest: float = 0.0,
    ) -> bool:
        """Give back, for a dead worker, what it had and did not finish.

        False if somebody else has done so, or if it has gone on meanwhile and is not dead at all.

        Parameters
        ----------
        unfinished: of what it held.
        worker, shift: who does so.
        lost: what it was running when it died.
        keep: of the unfinished, what `worker` takes itself at once.
        longest: seconds for which it had been running a task.
        """
        unfinished = list(unfinished)
        while True:
            self.read_on()
            if dead in self.dismissed or not set(unfinished).issubset(self.held.get(dead, ())):
                return False
            entry = Entry(
                worker,
                shift,
                take=spans(keep),
                give=spans(unfinished),
                of=dead,
                lost=tuple(lost),
                longest=round(longest, 6),
            )
            if self._append(entry):
                return True

    def read_on(self) -> None:
        """Read the entries that have been made since."""
        while (data := self._entry(self._read + 1)) is not None:
            path = self._path(self._read + 1)
            try:
                self._apply(_decoder.decode(data))
            except (msgspec.DecodeError, ValueError) as error:
                raise LedgerError(f"{path}: no entry of the log of claims: {error}") from error
            self._read += 1

    def _apply(self, entry: Entry) -> None:
        """What an entry changes; all of it, or nothing and a ValueError."""
        giver = entry.of or entry.worker
        given, taken = self._numbers(entry.give), self._numbers(entry.take)
        if entry.worker in self.dismissed or giver in self.dismissed:
            raise ValueError("it comes after the dismissal of its worker")
        left = self.held.get(giver, [])
        if given:
            gone = set(given)
            if not gone.issubset(left):
                raise ValueError(f"{giver} gives back what it does not have")
            left = [task for task in left if task not in gone]
        returned = self._returned | dict.fromkeys(given) if given else self._returned
        fresh = [task for task in taken if task not in returned]
        if fresh and fresh != list(range(self._fresh, self._fresh + len(fresh))):
            raise ValueError(f"{entry.worker} takes what is not free")

        if entry.of:
            self.dismissed.add(entry.of)
            self.held.pop(entry.of, None)
        elif given:
            self.held[giver] = left
        for task in set(given).intersection(entry.lost):
            self.losses[task] = self.losses.get(task, 0) + 1
        if taken:
            self.shift_of[entry.worker] = entry.shift
            self.held[entry.worker] = taken
            for task in taken:
                returned.pop(task, None)
        self._returned = returned
        self._fresh += len(fresh)
        self.longest = max(self.longest, entry.longest)

    def _numbers(self, spans: Spans) -> list[int]:
        """Of tasks that there are, each once."""
        if sum(end - first for first, end in spans) > self.total or not all(
            0 <= first < end <= self.total for first, end in spans
        ):
            raise ValueError(f"it names tasks beyond the {self.total} there are")
        found = list(numbers(spans))
        if len(set(found)) != len(found):
            raise ValueError("it names a task twice")
        return found

    def _path(self, number: int) -> Path:
        """For messages: the folder that is at this place now may be another one."""
        return self._folder / _name(number)

    def _entry(self, number: int) -> bytes | None:
        most = 4096 + 64 * self.total  # every task given, taken and lost by itself
        try:
            descriptor = os.open(_name(number), os.O_RDONLY | _NO_WAITING, dir_fd=self._log)
            with open(descriptor, "rb") as stream:
                data = stream.read(most + 1) or b""
        except FileNotFoundError:
            return None
        except OSError as error:
            raise LedgerError(f"{self._path(number)}: cannot be read: {error.strerror or error}") from error
        if len(data) > most:
            raise LedgerError(f"{self._path(number)}: no entry of the log of claims: more than {most} bytes")
        return data

    def _append(self, entry: Entry) -> bool:
        """Make the next entry; False if another was quicker, whose entry can be read then."""
        number = self._read + 1
        draft = self._draft(msgspec.json.encode(entry))
        try:
            os.link(draft, _name(number), src_dir_fd=self._log, dst_dir_fd=self._log)
        except FileExistsError:
            # two names: it is ours, and an answer of the file server had got lost
            if os.stat(draft, dir_fd=self._log).st_nlink != 2:
                self._await(number)
                return False
        except OSError as error:
            raise LedgerError(
                f"{self._path(number)}: cannot create a hard link: {error.strerror or error}",
                hint="tasks are claimed by hard links; choose a save_dir on a file system that supports them",
            ) from error
        finally:
            self._unlink(draft)
        self._apply(entry)
        self._read += 1
        return True

    def _draft(self, data: bytes) -> str:
        """A complete file; one that a killed worker leaves behind has a name that nobody reads."""
        name = f".{secrets.token_hex(6)}"
        try:
            descriptor = os.open(
                name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _CLOSING, 0o666, dir_fd=self._log
            )
            with open(descriptor, "wb") as stream:
                stream.write(data)
        except FileNotFoundError as error:
            raise LedgerError(
                f"{self._folder}: the folder is gone; the map has ended, or the run was resumed elsewhere"
            ) from error
        except OSError as error:
            self._unlink(name)
            raise LedgerError(f"{self._folder}: cannot be written to: {error.strerror or error}") from error
        return name

    def _unlink(self, name: str) -> None:
        try:
            os.unlink(name, dir_fd=self._log)
        except OSError:
            pass  # nobody reads it

    def _await(self, number: int) -> None:
        """A network file system may remember for some time that a file was not there."""
        began = time.monotonic()
        for pause in itertools.chain((0.0, 0.05), itertools.repeat(0.5)):
            time.sleep(pause)
            if _name(number) in os.listdir(self._log) and self._entry(number) is not None:
                return
            if time.monotonic() - began > _PATIENCE:
                raise LedgerError(f"{self._path(number)}: exists and cannot be seen")


_CLOSING = getattr(os, "O_CLOEXEC", 0)
_NO_WAITING = _CLOSING | getattr(os, "O_NONBLOCK", 0)
"""For whatever may lie there in place of a file."""


def _opened(folder: Path) -> int:
    try:
        return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | _CLOSING)
    except OSError as error:
        raise LedgerError(f"{folder}: no log of claims: {error.strerror or error}") from error


def _name(number: int) -> str:
    return f"{number:06}"


_decoder = msgspec.json.Decoder(Entry)


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
