"""Work through the tasks of a map: claim a batch, run one task after another, and write a row for each attempt."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import multiprocessing
import os
import pickle
import platform
import re
import secrets
import signal
import stat
import sys
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from multiprocessing import process
from pathlib import Path
from typing import Any

import msgspec

from .. import layout, said
from ..capture import seeding
from ..layout import TaskFiles
from .attached import Parent, Task, current, write_notes
from .keys import digest
from .labels import Labels
from .ledger import Author, Claims, Fault, Read, Row, Todo, Writer
from .serialization import dump_error, dumps, small

BATCH = 0.1
"""Seconds of work that a worker claims at once: long enough to make claiming cheap, short enough to end together."""
GROWTH = 8
"""By how much a batch may be larger than the one before: the first tasks may be the quickest."""
LOOK = 0.2
"""Seconds between two looks at whether to stop."""
SIGNALS = (signal.SIGTERM, signal.SIGUSR2)
"""What schedulers send before they take a machine away."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What to do with each task; travels to the workers by cloudpickle."""

    function: Callable[[Any], Any]
    labels: Labels
    config: Any
    """What the run was given, unresolved; None where tasks are not laid on a configuration."""
    retries: int
    stop_on_error: bool
    parent: Parent
    commit: str | None

    def call(self, task: Any) -> Any:
        """The function of the task."""
        self.labels.learn(task)
        if self.labels.into is None:
            return self.function(task)
        from .. import config

        text = self.labels.text(task)
        return self.function(config.with_task(self.config, self.labels.into, task, text))


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
    """True on another machine than the run's, which a scheduler may take away."""
    prepare: Callable[[], None] | None = None
    """What to do first of all in the worker's process, before anything of the user's is imported."""
    pid: int = 0
    """The process whose child a worker is, and without which it stops; 0: none."""
    cwd: str = ""
    """The folder in which every task starts, whatever tasks before it did; empty: where the worker happens to be."""
    original: Callable[[str], str] | None = None
    """Gives the project's own file for one that a worker imported, where these are stand-ins; picklable."""
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
        if self.call:
            mark = TaskFiles(self.save_dir, self.map).shift(self.shift).with_suffix(f".{self.call}")
            try:
                os.close(os.open(mark, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            except FileExistsError:
                return ""
        if self.prepare is not None:
            self.prepare()
        worker = Worker(self)
        worker.run()
        if worker.is_orphaned():
            os._exit(0)  # nobody hears of it, and a pool would keep this process for minutes
        return worker.name


class Worker:
    """One worker of a shift."""

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
        self.longest: float | None = None
        """Seconds of the longest task so far."""
        self._in_process = self.files.function in at_hand
        self._look_at = time.perf_counter() + LOOK
        self._orphaned = terms.pid not in (0, os.getppid())
        in_main_thread = threading.current_thread() is threading.main_thread()
        self._cwd = terms.cwd if in_main_thread else ""  # which threads share
        self._interruptible = in_main_thread and not terms.pid
        self._stops = (
            os.fspath(self.files.stop),
            os.fspath(self.files.shift(terms.shift).with_suffix(".stop")),
        )

    def run(self) -> None:
        """Until nothing is left; nothing that a task does gets out of here."""
        token = current.set(self.task)
        if self.terms.elsewhere:
            _survive(SIGNALS)
        elif self.terms.pid:
            _survive((signal.SIGINT,))
        if self.terms.pid:
            settle_in_pool()
        from ..capture.log import marked

        log = self.parent.log
        log.activate()
        self._go_home()
        try:
            with marked(self.task):
                if self.terms.only:
                    self._run_batch(self.terms.only, final=True)
                else:
                    self._run_batches()
            if not self._in_process:
                keys_read: tuple[str, ...] = ()
                if self.work.config is not None:
                    from .. import config

                    keys_read = config.keys_read(self.work.config)
                write_notes(self.files, self.name, self.parent, keys_read, self.terms.original or str)
        finally:
            log.deactivate()
            current.reset(token)
            self.rows.close()
            self.task.journal.close()

    # -- between tasks -------------------------------------------------------------------------------------

    def _run_batches(self) -> None:
        size, done, busy = 1, 0, 0.0
        while not self._must_stop():
            self.claims.longest = max(self.claims.longest, self.longest or 0.0)
            batch = self.claims.take(self.name, self.terms.shift, size)
            if not batch:
                return
            began = time.perf_counter()
            done += self._run_batch(batch)
            busy += time.perf_counter() - began
            fair = self.claims.free // (2 * self.terms.workers) + 1
            size = max(1, min(fair, size * GROWTH, int(BATCH * done / max(busy, 1e-6))))

    def _run_batch(self, batch: Sequence[int], final: bool = False) -> int:
        """Run a batch; how many were run. If tasks turn out to take long, the rest is shared out again."""
        given_up = time.perf_counter() + 10 * BATCH
        timed = self.terms.deadline is not None
        for i, number in enumerate(batch):
            now = time.perf_counter()
            if now > self._look_at or (timed and self._runs_out()):
                self._look_at = now + LOOK
                if self._must_stop() or (now > given_up and i > 0 and not final):
                    self.claims.give_back(self.name, self.terms.shift, batch[i:])
                    return i
            place, attempt = self.todo.place(number), 1
            while not self._attempt(*place, attempt, last=attempt > self.work.retries):
                attempt += 1
        return len(batch)

    def is_orphaned(self) -> bool:
        """True if the process that it is a child of is gone."""
        return self._orphaned or self.terms.pid not in (0, os.getppid())

    def _must_stop(self) -> bool:
        if self.is_orphaned() or self._runs_out() or any(map(os.path.exists, self._stops)):
            return True
        self.claims.read_on()
        return self.name in self.claims.dismissed

    def _runs_out(self) -> bool:
        """True if the longest task so far would no longer fit into the time that is left.

        The first task of a worker has to do with what there is: no later shift has more.
        """
        if self.terms.deadline is None:
            return False
        longest = 0.0 if self.longest is None else max(self.longest, self.claims.longest)
        return time.time() + longest + self.terms.margin > self.terms.deadline

    # -- one task ------------------------------------------------------------------------------------------

    def _attempt(self, key: bytes, start: int, end: int, attempt: int, last: bool) -> bool:
        """Run a task and write its row; True if no attempt follows."""
        started, began = time.time(), time.perf_counter()
        try:
            try:
                task = self.todo.task(start, end)
                self.task.key, self.task.value = key.decode(), task
                if (
                    self.parent.seed is not None
                ):  # the same numbers for the same task, whoever runs it and when
                    seeding.seed_all((self.parent.seed + int(key, 16)) % 2**32)
                result = self.work.call(task)
            finally:
                if os.getpid() != self.pid:  # a child that the task forked has come back from it
                    os._exit(0)
                seconds = time.perf_counter() - began
                self.longest = max(self.longest or 0.0, seconds)
                self._go_home()
            reads = self._leave_task()
            # the row of a success, as JSON: put together by hand, for it is made for every task
            value = small(result)
            line = b'{"key":"%b","status":"done","started":%.3f,"seconds":%.6f%b,%b,"digest":"%b"%b}\n' % (
                key,
                started,
                seconds,
                b',"attempt":%d' % attempt if attempt > 1 else b"",
                b'"at":[%d,%d]' % self.rows.store(dumps(result)) if value is None else b'"value":' + value,
                digest(result).encode(),
                b',"inputs":' + msgspec.json.encode(reads) if reads else b"",
            )
        except BaseException as error:
            reads = self._leave_task()
            if self._interruptible and isinstance(error, KeyboardInterrupt):
                raise  # the user's; where none can come from her, it is the task's own
            self._write_failure(key, started, seconds, attempt, error, last, reads)
            return last
        self.rows.append(line)
        return True

    def _go_home(self) -> None:
        if not self._cwd:
            return
        try:
            away = os.getcwd() != self._cwd
        except OSError:  # it was deleted
            away = True
        if away:
            with contextlib.suppress(
                OSError
            ):  # not there, on this machine or any more: the tasks' own affair
                os.chdir(self._cwd)

    def _leave_task(self) -> list[Read]:
        """End the runs inside the task that are still open; what they read."""
        task = self.task
        if task.at_end:
            for leave in task.at_end:
                leave(self._in_process)
            task.at_end = []
        task.key, task.value, reads = "", None, task.inputs
        if reads:
            task.inputs = []
        return reads

    def _write_failure(
        self,
        key: bytes,
        started: float,
        seconds: float,
        attempt: int,
        error: BaseException,
        last: bool,
        reads: list[Read],
    ) -> None:
        redactor, original = self.parent.redactor, self.terms.original or str
        packed = dump_error(error, redactor)
        try:
            at = None if packed is None else self.rows.store(packed)
        except OSError:  # a full disk may still have room for a row
            at = None
        text = _FILE.sub(lambda found: found[1] + original(found[2]), said.traceback_text(error))
        fault = Fault(
            type=said.kind(error),
            message=redactor.text(said.message(error))[:10_000],
            traceback=redactor.text(text)[-100_000:],
        )
        self.rows.add(
            Row(
                key=key.decode(),
                status="failed" if last else "retried",
                started=round(started, 3),
                seconds=round(seconds, 6),
                attempt=attempt,
                at=at,
                error=fault,
                inputs=tuple(reads),
            )
        )
        if last and self.work.stop_on_error:
            self.files.stop.touch()
            self._look_at = 0.0


_FILE = re.compile(r'^([ |]*File ")([^"\n]+)', re.MULTILINE)
"""In a traceback."""


# -- what to do with tasks -------------------------------------------------------------------------------------------

at_hand: dict[Path, Work] = {}
"""Of maps whose workers are threads of this process, or the process itself: nothing needs to travel."""

_loaded: dict[Path, tuple[tuple[int, int], Work]] = {}


def load_work(files: TaskFiles) -> Work:
    """Read once by each process, though many workers of a map may come to it one after another."""
    if files.function in at_hand:
        return at_hand[files.function]
    found = files.function.stat()
    stamp = found.st_ino, found.st_mtime_ns
    known = _loaded.get(files.function)
    if known is None or known[0] != stamp:
        with open(files.function, "rb") as stream:
            work = pickle.load(stream)  # noqa: S301 - written by this map a moment ago
        if work.config is not None:
            from .. import config

            config.watch(work.config)
        _loaded.clear()
        known = _loaded[files.function] = stamp, work
    return known[1]


def write_work(files: TaskFiles, work: Work) -> None:
    """Where the workers of a map find it."""
    from .. import byvalue, config

    with config.unnoticed():  # its workers see which keys are read
        data = byvalue.dumps(work, source=True)
    layout.write_atomically(files.function, data, mode=0o600)


# -- signals ---------------------------------------------------------------------------------------------------------


def _survive(signals: Collection[signal.Signals]) -> None:
    """Go on with the task when a terminal, or a scheduler that wants the machine back, signals all processes.

    The shift is told as well, and ends the workers in time. Children of a task die as usual.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    for number in signals:
        signal.signal(number, _go_on)
    _restore_in_children(tuple(signals))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)  # the shift has had them blocked until we are here


def _go_on(number: int, _: Any) -> None:
    pass


@functools.cache
def _restore_in_children(signals: tuple[signal.Signals, ...]) -> None:
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


# -- the process of a pool -------------------------------------------------------------------------------------------


@functools.cache
def settle_in_pool() -> None:
    """Let tasks leave children and threads behind in this process of a pool; once, before the first task.

    The pool learns of a death from a pipe that breaks, and of an end from a process that exits. A child that a task
    forked holds on to the pipe, and a thread that it left running keeps the process from exiting: both would make the
    parent wait for as long as they live.
    """
    pipes = _pipes_to_parent()
    for descriptor in pipes:
        os.set_inheritable(descriptor, False)  # by programs that a task starts

    def let_go() -> None:  # the numbers stay taken, for objects that would close whatever had them next
        nothing = os.open(os.devnull, os.O_WRONLY)
        for descriptor in pipes:
            os.dup2(nothing, descriptor, inheritable=False)
        os.close(nothing)

    os.register_at_fork(after_in_child=let_go)
    # private, but what the pools use themselves; multiprocessing's own finalizers come after threads from 3.13 on
    threading._register_atexit(_exit, os.getpid())  # type: ignore[attr-defined]
    # else new interpreters that a task starts (`spawn`, `forkserver`) would look for the pool's own way, and fail
    multiprocessing.set_start_method(None, force=True)


def _pipes_to_parent() -> list[int]:
    """Writing ends, but for what multiprocessing itself shares with all descendants."""
    shared = {
        getattr(getattr(sys.modules.get(f"{name}.resource_tracker"), "_resource_tracker", None), "_fd", None)
        for name in ("multiprocessing", "joblib.externals.loky.backend")
    }
    found = []
    try:
        numbers = [int(name) for name in os.listdir("/proc/self/fd")]
    except OSError:
        return []  # no Linux
    for number in numbers:
        try:
            writing = fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY
            if number > 2 and number not in shared and writing and stat.S_ISFIFO(os.fstat(number).st_mode):
                found.append(number)
        except OSError:
            pass  # the one that listed the folder
    return found


def _exit(pid: int) -> None:
    """Do not wait for threads that tasks left running."""
    if os.getpid() != pid:
        return
    if any(not one.daemon and one is not threading.main_thread() for one in threading.enumerate()):
        for child in process.active_children():
            child.kill()
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (AttributeError, OSError, ValueError):
                pass  # closed by a task
        os._exit(0)
