"""Keep the ledger of a map on disk: which tasks there are, who has which, and what became of each.

Tasks are written once, before the first worker starts. Claims are a log: entry n is a file of that name, made
exclusively by linking a complete file into place, which is atomic on local and network file systems alike. Whoever
makes it has read the n - 1 before it, so that all agree on the order, and no task is claimed twice. Rows are written by
one worker each, one append for each attempt at a task, so that a kill loses none.
"""

from __future__ import annotations

import itertools
import json
import mmap
import os
import pickle
import secrets
import struct
import time
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec

from .. import layout
from ..errors import LedgerError
from ..layout import TaskFiles
from ..model import Data, Kind
from . import keys as keys_
from . import labels
from .serialization import pickled

# -- what there is to do ---------------------------------------------------------------------------------------------

_PLACE = struct.Struct("<16sQQ")
"""Key of a task, and where in the payload it begins and ends."""


def keys_of(tasks: Sequence[Any]) -> list[str]:
    """A key for each task, from its content; the second of two equal tasks gets another.

    Raises
    ------
    LedgerError: a task cannot be pickled; names it.

    >>> keys_of([1, 2, 1])[:2] == keys_of([1, 2]), len(set(keys_of([1, 1])))
    (True, 2)
    """
    keys: list[str] = []
    try:
        keys.extend(map(keys_.key, tasks))
    except Exception as error:
        raise _refused(tasks[len(keys)], len(keys), error) from error
    if len(set(keys)) < len(keys):
        seen: dict[str, int] = {}
        for i, key in enumerate(keys):
            n = seen[key] = seen.get(key, 0) + 1
            if n > 1:
                keys[i] = keys_.key((key, n))
    return keys


def write_tasks(
    files: TaskFiles,
    tasks: Sequence[Any],
    keys: Sequence[str],
    wanted: Collection[int] | None,
    label: Callable[[Any], str] = labels.label,
) -> int:
    """Write key and label of all tasks, and those that are to be done as they are; returns how many these are.

    Parameters
    ----------
    wanted: numbers of the tasks to be done; None for all.
    label: short text of a task.

    Raises
    ------
    LedgerError: a task cannot be pickled; names it.
    """
    quoted = json.encoder.encode_basestring_ascii
    lines = [f'{{"key":"{key}","task":{quoted(label(t))}}}\n' for key, t in zip(keys, tasks, strict=True)]
    layout.write_atomically(files.todo, "".join(lines).encode())
    places, start = [], 0
    with open(files.payload, "wb", opener=lambda path, flags: os.open(path, flags, 0o600)) as payload:
        for i in range(len(tasks)) if wanted is None else wanted:
            try:
                end = start + payload.write(pickled(tasks[i]))
            except TypeError as error:
                raise _refused(tasks[i], i, error) from error
            places.append(_PLACE.pack(keys[i].encode(), start, end))
            start = end
    layout.write_atomically(files.index, b"".join(places))
    return len(places)


def _refused(task: Any, number: int, error: Exception) -> LedgerError:
    return LedgerError(
        f"task {number} ({labels.label(task)}) cannot be sent to workers: {error}",
        hint="use paths or numbers as tasks; open files and connections inside the function",
    )


class _Label(msgspec.Struct, frozen=True):
    key: str
    task: str


def read_labels(files: TaskFiles) -> dict[str, str]:
    """Key -> short text of every task, in order.

    Raises
    ------
    LedgerError: the file is missing or broken.
    """
    try:
        lines = msgspec.json.Decoder(_Label).decode_lines(layout.read_regular(files.todo))
        return {line.key: line.task for line in lines}
    except (OSError, ValueError) as error:  # ValueError: no JSON, no text, or other keys
        raise LedgerError(f"{files.todo}: {getattr(error, 'strerror', None) or error}") from error


class Todo:
    """The tasks that are to be done, by number; read where they are needed."""

    def __init__(self, files: TaskFiles) -> None:
        self._index, self._payload = _mapped(files.index), _mapped(files.payload)

    def __len__(self) -> int:
        return len(self._index) // _PLACE.size

    def key(self, number: int) -> str:
        return self.place(number)[0].decode()

    def keys(self) -> list[str]:
        return [key.decode() for key, *_ in _PLACE.iter_unpack(self._index)]

    def place(self, number: int) -> tuple[bytes, int, int]:
        """Key of a task, and where it lies."""
        return _PLACE.unpack_from(self._index, number * _PLACE.size)

    def task(self, start: int, end: int) -> Any:
        """The task that lies there, as it was given."""
        return pickle.loads(self._payload[start:end])  # noqa: S301 - written by this map a moment ago


def _mapped(path: Path) -> mmap.mmap | bytes:
    with open(layout.open_regular(path), "rb") as stream:
        if stream.seek(0, 2) == 0:
            return b""  # an empty file cannot be mapped
        return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)


# -- who has which tasks ---------------------------------------------------------------------------------------------

Spans = tuple[tuple[int, int], ...]
"""Runs of numbers, each from the first up to, but not including, the last."""

_PATIENCE = 60.0
"""Seconds for which a network file system may go on not to show an entry that is there."""


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """One entry of the log of claims."""

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
    """One reader's, and perhaps writer's, view of the log of claims.

    Taking tasks says that all taken before are finished. Tasks that a worker will not do, because it stops or is dead,
    are given back, by itself or by whoever finds it dead. A log belongs to one session: a resumed map has a new folder
    of the same name; workers of the old session hold on to the folder they knew, and can neither read nor write it.

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
        try:
            self._log = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise LedgerError(f"{folder}: no log of claims: {error.strerror or error}") from error
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

        def entry() -> Entry | None:
            wanted = list(itertools.islice(self._returned, most))
            wanted += range(self._fresh, min(self.total, self._fresh + most - len(wanted)))
            if not wanted or worker in self.dismissed:
                return None
            return Entry(worker, shift, take=spans(wanted), longest=round(self.longest, 6))

        taken = self._make(entry)
        return list(numbers(taken.take)) if taken else []

    def take_these(self, worker: str, shift: str, wanted: Sequence[int]) -> list[int]:
        """Claim these, as far as they have been given back and are still free."""

        def entry() -> Entry | None:
            found = [task for task in wanted if task in self._returned]
            return Entry(worker, shift, take=spans(found)) if found else None

        taken = self._make(entry)
        return list(numbers(taken.take)) if taken else []

    def give_back(self, worker: str, shift: str, tasks: Sequence[int]) -> bool:
        """Give back what the worker itself took and has not begun; False if it was dismissed meanwhile."""

        def entry() -> Entry | None:
            if worker in self.dismissed:
                return None
            return Entry(worker, shift, give=spans(tasks), longest=round(self.longest, 6))

        return self._make(entry) is not None

    def dismiss(
        self,
        dead: str,
        unfinished: Sequence[int],
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

        def entry() -> Entry | None:
            if dead in self.dismissed or not set(unfinished).issubset(self.held.get(dead, ())):
                return None
            return Entry(
                worker,
                shift,
                take=spans(keep),
                give=spans(unfinished),
                of=dead,
                lost=tuple(lost),
                longest=round(longest, 6),
            )

        return self._make(entry) is not None

    def read_on(self) -> None:
        """Read the entries that have been made since."""
        while (data := self._entry(self._read + 1)) is not None:
            try:
                self._apply(_entry_decoder.decode(data))
            except ValueError as error:
                path = self._path(self._read + 1)
                raise LedgerError(f"{path}: no entry of the log of claims: {error}") from error
            self._read += 1

    def _make(self, entry: Callable[[], Entry | None]) -> Entry | None:
        """Make the next entry, which depends on all before it; None if it turns out that there is none to make."""
        while True:
            self.read_on()
            made = entry()
            if made is None or self._append(made):
                return made

    def _apply(self, entry: Entry) -> None:
        """What an entry changes; all of it, or nothing and a ValueError."""
        giver = entry.of or entry.worker
        given, taken = self._checked(entry.give), self._checked(entry.take)
        if entry.worker in self.dismissed or giver in self.dismissed:
            raise ValueError("it comes after the dismissal of its worker")
        gone = set(given)
        if not gone.issubset(self.held.get(giver, ())):
            raise ValueError(f"{giver} gives back what it does not have")
        returned = self._returned | dict.fromkeys(given) if given else self._returned
        fresh = [task for task in taken if task not in returned]
        if fresh and fresh != list(range(self._fresh, self._fresh + len(fresh))):
            raise ValueError(f"{entry.worker} takes what is not free")

        if entry.of:
            self.dismissed.add(entry.of)
            self.held.pop(entry.of, None)
        elif given:
            self.held[giver] = [task for task in self.held[giver] if task not in gone]
        for task in gone.intersection(entry.lost):
            self.losses[task] = self.losses.get(task, 0) + 1
        if taken:
            self.shift_of[entry.worker] = entry.shift
            self.held[entry.worker] = taken
            for task in taken:
                returned.pop(task, None)
        self._returned = returned
        self._fresh += len(fresh)
        self.longest = max(self.longest, entry.longest)

    def _checked(self, spans: Spans) -> list[int]:
        """Of tasks that there are, each once."""
        count = 0
        for first, end in spans:
            count += end - first
            if not 0 <= first < end <= self.total or count > self.total:
                raise ValueError(f"it names tasks beyond the {self.total} there are")
        found = list(numbers(spans))
        if len(spans) > 1 and len(set(found)) != len(found):
            raise ValueError("it names a task twice")
        return found

    def _path(self, number: int) -> Path:
        """For messages: the folder that is at this place now may be another one."""
        return self._folder / f"{number:06}"

    def _entry(self, number: int) -> bytes | None:
        most = 4096 + 64 * self.total  # every task given, taken and lost by itself
        try:  # whatever may lie there in place of a file, nobody waits for it
            descriptor = os.open(f"{number:06}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=self._log)
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
            os.link(draft, f"{number:06}", src_dir_fd=self._log, dst_dir_fd=self._log)
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
                name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666, dir_fd=self._log
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
            if f"{number:06}" in os.listdir(self._log) and self._entry(number) is not None:
                return
            if time.monotonic() - began > _PATIENCE:
                raise LedgerError(f"{self._path(number)}: exists and cannot be seen")


_entry_decoder = msgspec.json.Decoder(Entry)


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
    return itertools.chain.from_iterable(itertools.starmap(range, spans))


# -- what became of each task ----------------------------------------------------------------------------------------


class Author(msgspec.Struct, frozen=True, omit_defaults=True):
    """The first line of a worker's rows: who wrote them, where, with which code."""

    worker: str
    shift: str
    host: str
    pid: int
    started: float
    """Seconds since 1970."""
    commit: str | None = None
    """`git:hex` of the snapshot of the code that ran."""
    slurm_job: str | None = None


class Fault(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """The exception that ended an attempt."""

    type: str
    """Qualified name of its class, e.g. `builtins.ValueError`."""
    message: str
    traceback: str = ""
    """As Python prints it, without local values."""


class Read(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """An input of a run inside a task, as it was when that run was entered."""

    path: str
    """As given; absolute if the task was in another folder than its parent."""
    bytes: int
    """Of a file."""
    mtime: int = 0
    """Nanoseconds since 1970, of a file."""
    kind: Kind = "file"
    name: str | None = None
    """Of an input that was given in a dict: its key."""

    @property
    def data(self) -> Data:
        """As a lock tells it before it is hashed."""
        return Data(path=self.path, kind=self.kind, bytes=self.bytes, strength="skipped", name=self.name)


class Row(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One attempt at one task."""

    key: str
    """Of the task, from its content."""
    status: Literal["done", "failed", "retried"]
    """`retried` failed too, and another attempt followed."""
    started: float
    """Seconds since 1970."""
    seconds: float
    attempt: int = 1
    value: msgspec.Raw = msgspec.Raw()
    """The result, if it is a small scalar."""
    at: tuple[int, int] | None = None
    """Else where it (or the exception) lies in the worker's results: offset and size in bytes."""
    digest: str = ""
    """`blake3:hex` of the result's content."""
    error: Fault | None = None
    inputs: tuple[Read | list[Any], ...] = ()
    """What runs inside the task said they read; a list in rows of early builds, which hashed it."""


Final = dict[str, tuple[str, Row]]
"""Key -> the worker and the row that count: of several attempts a success, else the last."""

_MOST = 1 << 32
"""Bytes that one worker may have added between two looks."""

_row_decoder = msgspec.json.Decoder(Row)
_author_decoder = msgspec.json.Decoder(Author)


@dataclass(slots=True)
class _Tail:
    """How far a file has been read."""

    path: Path
    author: Author | None = None
    offset: int = 0
    line: int = 0


@dataclass(slots=True)
class Rows:
    """The rows of a map, read as they come; what was read once is not read again.

    Parameters
    ----------
    files: of the map.
    """

    files: TaskFiles
    final: Final = field(default_factory=dict)
    """What became of each task, as far as `read_on` has read."""
    _tails: dict[str, _Tail] = field(default_factory=dict)

    @property
    def authors(self) -> dict[str, Author]:
        """Worker -> what it said of itself, as far as rows were read."""
        return {worker: tail.author for worker, tail in self._tails.items() if tail.author is not None}

    def author(self, worker: str) -> Author:
        """What a worker of which rows were read said of itself."""
        author = self._tails[worker].author
        assert author is not None
        return author

    def read_on(self) -> Final:
        """Read what has been written since; returns what became of each task.

        Raises
        ------
        LedgerError: a line is no row; names file and line.
        """
        for worker, rows in self.new():
            for row in rows:
                known = self.final.get(row.key)
                if known is None or (
                    known[1].status != "done" and (row.status == "done" or row.started >= known[1].started)
                ):
                    self.final[row.key] = worker, row
        return self.final

    def new(self, workers: Collection[str] | None = None) -> Iterator[tuple[str, list[Row]]]:
        """Worker, and the rows it has written since; for all workers, or some.

        Raises
        ------
        LedgerError: a line is no row; names file and line.
        """
        try:
            with os.scandir(self.files.done()) as entries:
                # a pipe would block for ever; a link may lead in circles, and whoever opens it says so
                found = [entry.name for entry in entries if entry.is_symlink() or entry.is_file()]
        except FileNotFoundError:
            return
        for name in sorted(name.removesuffix(".jsonl") for name in found if name.endswith(".jsonl")):
            if workers is None or name in workers:
                tail = self._tails.setdefault(name, _Tail(self.files.done(name)))
                if rows := _read(tail):
                    yield name, rows


def _read(tail: _Tail) -> list[Row]:
    try:
        data = layout.read_regular(tail.path, tail.offset, most=_MOST)
    except OSError as error:
        raise LedgerError(f"{tail.path}: {error.strerror or error}") from error
    end = data.rfind(b"\n") + 1  # what follows is not complete, or never will be
    if end == 0:
        return []
    start = 0
    if tail.author is None:
        start = data.index(b"\n") + 1
        try:
            tail.author = _author_decoder.decode(data[: start - 1])
        except ValueError as error:
            raise LedgerError(f"{tail.path}: line 1 does not say which worker wrote it: {error}") from error
        tail.line = 1
    try:
        rows: list[Row] = _row_decoder.decode_lines(data[start:end])
    except ValueError as error:
        raise LedgerError(f"{tail.path}: {_wrong_line(tail.line, data[start:end]) or error}") from error
    tail.offset += end
    tail.line += len(rows)
    return rows


def _wrong_line(before: int, data: bytes) -> str | None:
    for number, line in enumerate(data.split(b"\n"), before + 1):
        try:
            _row_decoder.decode(line)
        except ValueError as wrong:
            return f"line {number} is no row: {wrong}"
    return None


class Writer:
    """Appends the rows of one worker, and its results; each row by one write.

    Both files are made with the first row, so that a worker that came too late leaves nothing.
    """

    def __init__(self, files: TaskFiles, author: Author) -> None:
        self._files, self._author = files, author
        self._rows = self._results = -1

    def store(self, data: bytes) -> tuple[int, int]:
        """Append a result; offset and size."""
        if self._results < 0:
            self._results = _open(self._files.results(self._author.worker))
        at = os.fstat(self._results).st_size, len(data)
        _write(self._results, data)
        return at

    def append(self, line: bytes) -> None:
        """Append one row, given as JSON with the end of line."""
        if self._rows < 0:
            self._rows = _open(self._files.done(self._author.worker))
            # without the torn last line of a process of that name that died
            size = os.fstat(self._rows).st_size
            whole = os.pread(self._rows, size, 0).rfind(b"\n") + 1
            if whole != size:
                os.ftruncate(self._rows, whole)
            if whole == 0:
                _write(self._rows, msgspec.json.encode(self._author) + b"\n")
        if os.write(self._rows, line) != len(line):
            raise OSError("the disk is full: a row was written in part")

    def add(self, row: Row) -> None:
        """Append one row."""
        self.append(msgspec.json.encode(row) + b"\n")

    def close(self) -> None:
        """Safe to call twice."""
        for descriptor in (self._rows, self._results):
            if descriptor >= 0:
                os.close(descriptor)
        self._rows = self._results = -1


def _open(path: Path) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


# -- all of it, side by side -----------------------------------------------------------------------------------------


class Ledger:
    """The ledger of the map that goes on now: at every moment each task is free, claimed or done.

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
        self._over: set[str] = set()

    def unfinished(self, worker: str) -> list[int]:
        """What a worker holds, as far as the log was read, and has no row for; in its order."""
        held = self.claims.held.get(worker, ())
        if not held:
            return []
        # the shift writes the row that a dead worker could not
        for author, rows in self._rows.new((worker, self.claims.shift_of[worker])):
            self._over |= {row.key for row in rows if row.status != "retried"}
            self.idle_since[author] = rows[-1].started + rows[-1].seconds
        return [number for number in held if self.todo.key(number) not in self._over]

    def is_over(self) -> bool:
        """True if every task has been done."""
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
