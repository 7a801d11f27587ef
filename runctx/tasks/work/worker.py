"""How does a worker get through tasks? It claims a batch, runs one after another, and writes a row for each."""

from __future__ import annotations

import functools
import os
import pickle
import platform
import re
import secrets
import signal
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from ... import said
from ...layout import TaskFiles
from ...waiting import PATIENCE_AFTER_ERROR
from ..ledger.claims import Claims
from ..ledger.rows import Author, Fault, Read, Row, Writer
from ..ledger.todo import Todo
from ..values import content, labels, serialization
from ..values.exceptions import dump_error
from . import noted, pooled
from .attached import Parent, Task, current
from .reading import brief

BATCH = 0.1
"""Seconds of work that a worker claims at once: long enough to make claiming cheap, short enough to end together."""
GROWTH = 8
"""By how much a batch may be larger than the one before: the first tasks may be the quickest."""
LOOK = 0.2
"""Seconds after which a worker looks around: is it still wanted?"""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What to do with each task; travels to the workers by cloudpickle."""

    function: Callable[[Any], Any]
    into: str | None
    config: Any
    """What the run was given, unresolved; None where tasks are not laid on a configuration."""
    retries: int
    stop_on_error: bool
    parent: Parent
    commit: str | None

    @property
    def keys_read(self) -> tuple[str, ...]:
        """Of the configuration, by tasks of this process."""
        from ... import config

        return () if self.config is None else config.keys_read(self.config)

    def call(self, task: Any) -> Any:
        """The function of the task."""
        redactor = self.parent.redactor
        redactor.learn({self.into: task} if self.into else task)  # before anything is said of it
        if self.into is None:
            return self.function(task)
        from ... import config

        called = labels.of_task(task, self.into, redactor)
        return self.function(config.with_task(self.config, self.into, task, called))


@dataclass(frozen=True, kw_only=True)
class Terms:
    """The terms of one shift, for each of its workers; picklable."""

    save_dir: Path
    map: str
    shift: str
    workers: int
    """How many work at the same time, on all machines: nobody takes more than its share."""
    deadline: float | None = None
    """Seconds since 1970 at which the machine is taken away."""
    margin: float = 0.0
    """Seconds before it by which the last task should be finished."""
    elsewhere: bool = False
    """Whether this is another machine than the run's, which a scheduler may take away."""
    prepare: Callable[[], None] | None = None
    """What to do first of all in the worker's process, before anything of the user's is imported."""
    pid: int = 0
    """The process whose child a worker is, and without which it stops; 0: none."""
    cwd: str = ""
    """The folder in which every task starts, whatever tasks before it did; empty: where the worker happens to be."""
    original: Callable[[str], str] | None = None
    """The project's own file for one that a worker imported, where these are stand-ins; picklable."""
    call: str = ""
    """A name for this one call, if the pool may repeat calls whose worker has died: that is for the shift to do."""
    only: tuple[int, ...] = ()
    """Do these, which are claimed already, and no others."""
    worker: str = ""
    """The name under which these are claimed."""

    def __call__(self) -> str:
        """Work until there is nothing left to do, or no time; a launcher calls it once for each worker.

        Returns the worker's name: it has given back all that it did not do.
        """
        if self.call and not self._is_first_call():
            return ""
        if self.prepare is not None:
            self.prepare()
        worker = Worker(self)
        worker.run()
        if worker.is_orphaned():
            os._exit(0)  # nobody hears of it, and a pool would keep this process for minutes
        return worker.name

    def _is_first_call(self) -> bool:
        mark = TaskFiles(self.save_dir, self.map).shift(self.shift).with_suffix(f".{self.call}")
        try:
            os.close(os.open(mark, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            return False
        return True


class Worker:
    """One worker: from here on everything is about what it does between two tasks, and in one."""

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        self.files = TaskFiles(terms.save_dir, terms.map)
        self.name = terms.worker or f"{terms.shift}-{secrets.token_hex(3)}"
        self.work = load_work(self.files)
        self.todo = Todo(self.files)
        self.claims = Claims(self.files.claims, len(self.todo))
        self.pid = os.getpid()
        self.rows = Writer(
            self.files,
            Author(
                worker=self.name,
                shift=terms.shift,
                host=platform.node(),
                pid=self.pid,
                started=round(time.time(), 3),
                commit=self.work.commit,
                slurm_job=os.environ.get("SLURM_JOB_ID"),
            ),
        )
        parent = self.work.parent
        if terms.elsewhere:  # one writer for a file, as network file systems know no appending
            log = self.files.log(terms.shift)
            log.parent.mkdir(parents=True, exist_ok=True)
            parent = replace(parent, log=parent.log.at(log))
        self.parent = parent
        self.task = Task(parent, terms.map)
        self.longest = 0.0
        self._fresh = True
        self._in_process = self.files.function in at_hand
        self._look_at = time.perf_counter() + LOOK
        self._orphaned = terms.pid not in (0, os.getppid())
        in_main_thread = threading.current_thread() is threading.main_thread()
        self._cwd = terms.cwd if in_main_thread else ""  # which threads share
        self._interruptible = in_main_thread and not terms.pid

    def run(self) -> None:
        """Until nothing is left; nothing that a task does gets out of here."""
        token = current.set(self.task)
        if self.terms.elsewhere:
            _bear(SIGNALS)
        elif self.terms.pid:
            _bear((signal.SIGINT,))
        if self.terms.pid:
            pooled.settle()
        from ...capture.log import marked

        log = self.parent.log
        log.activate()
        if self._cwd:
            _stay_in(self._cwd)
        try:
            with marked(self.task):
                if self.terms.only:
                    self._through(list(self.terms.only), final=True)
                else:
                    self._batches()
            if not self._in_process:
                noted.note(
                    self.files, self.name, self.parent, self.work.keys_read, self.terms.original or str
                )
        finally:
            log.deactivate()
            current.reset(token)
            self.rows.close()
            self.task.journal.close()

    # -- between tasks -------------------------------------------------------------------------------------

    def _batches(self) -> None:
        size, done, busy = 1, 0, 0.0
        while not self._must_stop():
            self.claims.longest = max(self.claims.longest, self.longest)
            batch = self.claims.take(self.name, self.terms.shift, size)
            if not batch:
                return
            began = time.perf_counter()
            done += self._through(batch)
            busy += time.perf_counter() - began
            fair = self.claims.free // (2 * self.terms.workers) + 1
            size = max(1, min(fair, size * GROWTH, int(BATCH * done / max(busy, 1e-6))))

    def _through(self, batch: Sequence[int], final: bool = False) -> int:
        """Run a batch; how many were run. What turns out to take long is shared out again."""
        given_up = time.perf_counter() + 10 * BATCH
        timed = self.terms.deadline is not None
        for i, number in enumerate(batch):
            now = time.perf_counter()
            if now > self._look_at or (timed and self._runs_out()):
                self._look_at = now + LOOK
                if self._must_stop() or (now > given_up and i > 0 and not final):
                    self.claims.give_back(self.name, self.terms.shift, batch[i:])
                    return i
            self._attempts(number)
        return len(batch)

    def is_orphaned(self) -> bool:
        """Whether the process that it is a child of is gone."""
        return self._orphaned or self.terms.pid not in (0, os.getppid())

    def _must_stop(self) -> bool:
        if self.is_orphaned():
            return True
        if self._runs_out() or os.path.exists(self.files.stop):
            return True
        if os.path.exists(self.files.shift(self.terms.shift).with_suffix(".stop")):
            return True
        self.claims.read_on()
        return self.name in self.claims.dismissed

    def _runs_out(self) -> bool:
        """Whether the longest task so far would no longer fit into the time that is left.

        The first task of a worker has to do with what there is: no later shift has more.
        """
        if self.terms.deadline is None:
            return False
        longest = 0.0 if self._fresh else max(self.longest, self.claims.longest)
        return time.time() + longest + self.terms.margin > self.terms.deadline

    # -- one task ------------------------------------------------------------------------------------------

    def _attempts(self, number: int) -> None:
        key, start, end = self.todo.place(number)
        for attempt in range(1, self.work.retries + 2):
            if self._attempt(key, start, end, attempt, last=attempt > self.work.retries):
                return

    def _attempt(self, key: bytes, start: int, end: int, attempt: int, last: bool) -> bool:
        """Whether it is over with the task."""
        started, began = time.time(), time.perf_counter()
        try:
            try:
                task = self.todo.task(start, end)
                self.task.begin(key.decode(), task)
                if self.work.parent.seed is not None:
                    _seed(self.work.parent.seed, key)
                result = self.work.call(task)
            finally:
                if os.getpid() != self.pid:  # a child that the task forked has come back from it
                    os._exit(0)
                seconds = time.perf_counter() - began
                self.longest, self._fresh = max(self.longest, seconds), False
                if self._cwd:
                    _stay_in(self._cwd)
            reads = self.task.end(self.rows.store, keep=self._in_process)
            line = self._line(key, started, seconds, attempt, result, reads)
        except BaseException as error:
            if self._interruptible and isinstance(error, KeyboardInterrupt):
                self.task.end(self.rows.store, keep=self._in_process, patience=0)
                raise  # the user's; where none can come from her, it is the task's own
            self._failed(key, started, seconds, attempt, error, last)
            return last
        self.rows.append(line)
        return True

    def _line(
        self, key: bytes, started: float, seconds: float, attempt: int, result: Any, reads: Sequence[Read]
    ) -> bytes:
        """The row of a success, as JSON: put together by hand, for it is made for every task."""
        where = serialization.small(result)
        if where is not None:
            where = b'"value":' + where
        else:
            where = b'"at":[%d,%d]' % self.rows.store(serialization.dumps(result))
        tries = b',"attempt":%d' % attempt if attempt > 1 else b""
        inputs = b',"inputs":' + msgspec.json.encode(brief(reads)) if reads else b""
        digest = content.digest(result).encode()
        return b'{"key":"%b","status":"done","started":%.3f,"seconds":%.6f%b,%b,"digest":"%b"%b}\n' % (
            key,
            started,
            seconds,
            tries,
            where,
            digest,
            inputs,
        )

    def _failed(
        self, key: bytes, started: float, seconds: float, attempt: int, error: BaseException, last: bool
    ) -> None:
        reads = self.task.end(self.rows.store, keep=self._in_process, patience=PATIENCE_AFTER_ERROR)
        packed = dump_error(error, self.parent.redactor)
        try:
            at = None if packed is None else self.rows.store(packed)
        except OSError:  # a full disk may still have room for a row
            at = None
        self.rows.add(
            Row(
                key=key.decode(),
                status="failed" if last else "retried",
                started=round(started, 3),
                seconds=round(seconds, 6),
                attempt=attempt,
                at=at,
                error=fault(error, self.parent.redactor.text, self.terms.original or str),
                inputs=reads,
            )
        )
        if last and self.work.stop_on_error:
            self.files.stop.touch()
            self._look_at = 0.0


def fault(error: BaseException, redact: Callable[[str], str], original: Callable[[str], str] = str) -> Fault:
    """An exception in words, without secrets; `original` gives the user's own file for one that stands in for it."""
    text = _FILE.sub(lambda found: found[1] + original(found[2]), said.traceback_text(error))
    return Fault(
        type=said.kind(error),
        message=redact(said.message(error))[:10_000],
        traceback=redact(text)[-100_000:],
    )


_FILE = re.compile(r'^([ |]*File ")([^"\n]+)', re.MULTILINE)
"""In a traceback."""


def _stay_in(folder: str) -> None:
    try:
        if here() != folder:
            os.chdir(folder)
    except OSError:
        pass  # it is not there, on this machine or any more: relative paths are the tasks' own affair


def here() -> str:
    """The current folder; empty if it was deleted."""
    try:
        return os.getcwd()
    except OSError:
        return ""


def _bear(signals: Collection[signal.Signals]) -> None:
    """Go on with the task when a terminal, or a scheduler that wants the machine back, signals all processes.

    The shift is told as well, and ends the workers in time. What a task itself starts dies as usual.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    for number in signals:
        signal.signal(number, _go_on)
    _hand_down_nothing(tuple(signals))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)  # the shift has had them blocked until we are here


def _go_on(number: int, _: Any) -> None:
    """Nothing else."""


@functools.cache
def _hand_down_nothing(signals: tuple[signal.Signals, ...]) -> None:
    """A child that a task forks dies of them as usual, also of one that comes while it is made: held back, not lost."""
    mask = threading.local()

    def hold() -> None:
        mask.before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)

    def release() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask.before)

    def release_child() -> None:
        for number in signals:
            if signal.getsignal(number) is _go_on:
                signal.signal(number, signal.SIG_DFL)
        release()

    os.register_at_fork(before=hold, after_in_parent=release, after_in_child=release_child)


SIGNALS = (signal.SIGTERM, signal.SIGUSR2)
"""What schedulers send before they take a machine away."""


def _seed(seed: int, key: bytes) -> None:
    """The same numbers for the same task, whoever runs it and when."""
    from ...capture import seeding

    seeding.seed_all((seed + int(key, 16)) % 2**32)


at_hand: dict[Path, Work] = {}
"""Of maps whose workers are threads of this process, or the process itself: nothing needs to travel."""

_known: dict[Path, tuple[tuple[int, int], Work]] = {}


def load_work(files: TaskFiles) -> Work:
    """Read once by each process, though many workers of a map may come to it one after another."""
    if files.function in at_hand:
        return at_hand[files.function]
    found = files.function.stat()
    stamp = found.st_ino, found.st_mtime_ns
    known = _known.get(files.function)
    if known is None or known[0] != stamp:
        with open(files.function, "rb") as stream:
            work = pickle.load(stream)  # noqa: S301 - written by this map a moment ago
        if work.config is not None:
            from ... import config

            config.watch(work.config)
        _known.clear()
        known = _known[files.function] = stamp, work
    return known[1]


def write_work(files: TaskFiles, work: Work) -> None:
    """Where the workers of a map find it."""
    from ... import byvalue, config, layout

    with config.unnoticed():  # its workers see which keys are read
        data = byvalue.dumps(work, source=True)
    layout.write_atomically(files.function, data, mode=0o600)
