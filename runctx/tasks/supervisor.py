"""Look after the workers of one machine: start them, and put right what a death leaves behind.

A pool of processes cannot say which of its workers died: it only breaks, and takes the others with it. So every
task that was running then is run once more, alone, in a process of its own. A task that kills that process as
well has its row; the others are finished, an innocent victim as well as one that just needed the memory.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import BrokenExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from .. import layout
from ..errors import WorkerDiedError
from ..layout import TaskFiles
from ..model import Source
from ..redact import Redactor
from .ledger import Author, Fault, Ledger, Row, Writer
from .serialization import dump_error
from .shifts import Shift, dead_ones, read_all
from .worker import Terms, load_work

Start = Callable[[Terms, int], Iterable[str]]
"""Calls the terms that many times at once, each in a worker; returns what they returned."""

WHOLE = 0.8
"""Of a shift: a task that took as much, and was not finished when the machine was taken away, does not fit into one."""
MOST_LOSSES = 3
"""Workers that may die over one task, of whatever cause, before it counts as failed."""
BEAT = 10.0
"""Seconds between two signs of life."""
_DYING = 5.0
"""Seconds that killed workers may take to be gone."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One map, ready to be worked on; picklable."""

    save_dir: Path
    map: str
    run_id: str
    todo: int
    """How many tasks are to be done."""
    source: Source
    """The code, as the lock names it."""
    repository: Path | None
    """Its work tree; None outside a repository."""

    @property
    def files(self) -> TaskFiles:
        return TaskFiles(self.save_dir, self.map)

    def watch(self, start: Start, workers: int, **more: Any) -> Supervisor:
        """A shift in this process, which still has to be run; parameters as for `Supervisor`."""
        return Supervisor(self.files, start, workers, **more)


class Supervisor:
    """One shift, seen by the process that looks after it.

    Parameters
    ----------
    files: of the map.
    start: starts workers and waits for them; raises `BrokenExecutor`, or what the pool raises, where some died.
    workers: how many at once, here.
    everyone: how many at once, on all machines.
    deadline: seconds since 1970 at which this machine is taken away.
    margin: seconds before it by which all should be finished.
    children: whether workers are children of this process, and end with it.
    elsewhere: whether this is another machine than the run's: workers log to a file of this shift, and go on with
        their task when the scheduler's signals reach them.
    prepare: what each worker does first of all; picklable.
    original: the project's own file for one that a worker imported, where these are stand-ins; picklable.
    slurm_job, life: of the job that this process is.
    dead: names of those shifts that are over for certain; is given all there are.
    """

    def __init__(
        self,
        files: TaskFiles,
        start: Start,
        workers: int,
        *,
        everyone: int = 0,
        deadline: float | None = None,
        margin: float = 0.0,
        children: bool = False,
        elsewhere: bool = False,
        prepare: Callable[[], None] | None = None,
        original: Callable[[str], str] | None = None,
        slurm_job: str | None = None,
        life: int = 0,
        dead: Callable[[Sequence[Shift]], set[str]] = dead_ones,
    ) -> None:
        self.files = files
        self.shift = Shift(
            name=secrets.token_hex(3),  # short, for it is part of the names of files
            host=platform.node(),
            pid=os.getpid(),
            workers=workers,
            began=round(time.time(), 3),
            deadline=deadline,
            slurm_job=slurm_job,
            life=life,
        )
        self.ledger = Ledger(self.files)
        self.claims = self.ledger.claims
        self._path = files.shift(self.shift.name)
        self._start, self._dead = start, dead
        self._terms = Terms(
            save_dir=files.root,
            map=files.name,
            shift=self.shift.name,
            workers=max(everyone, workers),
            deadline=deadline,
            margin=margin,
            pid=os.getpid() if children else 0,
            elsewhere=elsewhere,
            prepare=prepare,
            original=original,
            cwd=os.fspath(layout.here() or ""),
        )
        self._halted: float | None = None
        self._killed = threading.Event()
        self._over = threading.Event()
        self._attempted = self.shift.began
        self._suspects: list[tuple[str, int]] = []
        """Name to work under, and task, of those that may have killed their worker."""
        self._left: set[str] = set()
        """Workers that went in good order."""
        self._writer: Writer | None = None

    def run(self) -> None:
        """Work until there is nothing left to do here, or no time.

        Raises
        ------
        Exception: of the pool itself, if it cannot work at all.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True)
        layout.write_atomically(self._path, msgspec.json.encode(self.shift))
        threading.Thread(target=self._beat, name="runctx-shift", daemon=True).start()
        try:
            self._rounds()
        except BaseException:
            self.stop()  # of workers that are not ours to end, some may go on
            raise
        finally:
            self._over.set()
            if self._writer is not None:
                self._writer.close()
            ended = msgspec.structs.replace(self.shift, ended=True)
            with contextlib.suppress(OSError):  # the map may be over, and this folder gone
                layout.write_atomically(self._path, msgspec.json.encode(ended))

    def halt(self, kill: Callable[[], None]) -> None:
        """The machine is being taken away: end all workers, and give back what they had; from another thread.

        Parameters
        ----------
        kill: ends the workers; returns when they are dead.
        """
        self.stop()  # of workers that start just now
        self._halted = self._halted or time.time()
        kill()
        self._killed.set()

    def stop(self) -> None:
        """Let the workers of this shift finish their tasks, and begin no others."""
        with contextlib.suppress(OSError):  # the map may be over, and this folder gone
            self._path.with_suffix(".stop").touch()

    @property
    def left(self) -> int:
        """How many tasks nobody has; more may be given back."""
        self.claims.read_on()
        return self.claims.free

    def _beat(self) -> None:
        """Give signs of life."""
        while not self._over.wait(BEAT):
            with contextlib.suppress(OSError):  # the map may be over, and the file gone
                os.utime(self._path)

    def _rounds(self) -> None:
        idle = 0
        while True:
            free = self.left
            broken = self._attempt(self._terms, self.shift.workers) if free else None
            again = self._halted is None and self._recover() | self._bury_others()
            while self._suspects and self._halted is None:
                self._run_alone(*self._suspects.pop(0))
            if self._halted is not None:
                self._killed.wait(_DYING)  # else one of them might still write a row
                self._give_all_back(self._halted)
                return
            if broken is not None:
                idle = idle + 1 if self.left == free else 0
                if idle > MOST_LOSSES:
                    raise broken  # workers die before they begin anything
            elif not again:
                return

    def _attempt(self, terms: Terms, workers: int) -> Exception | None:
        """What the pool raised because a worker died."""
        self._attempted = time.time()
        try:
            self._left |= set(self._start(terms, workers))
        except Exception as error:
            broken = isinstance(error, BrokenExecutor) or type(error).__name__ == "KilledWorker"  # Dask's
            if broken or self._halted is not None:
                return error
            self._recover()
            raise
        return None

    def _mine(self) -> list[str]:
        """Workers of this shift that have claimed something."""
        self.claims.read_on()
        return [worker for worker in self.claims.held if self.claims.shift_of[worker] == self.shift.name]

    def _give_all_back(self, moment: float) -> None:
        """What the workers of this shift had when they were ended; what had all the time there is has failed."""
        in_time = self.shift.deadline is not None and moment >= self.shift.deadline  # not taken away before
        waiting = {worker for worker, _ in self._suspects}
        for worker in self._mine():
            unfinished = self.ledger.unfinished(worker)
            if not unfinished:
                continue
            running, since = unfinished[0], max(self._attempted, self.ledger.idle_since.get(worker, 0.0))
            ran = moment - since if in_time and worker not in waiting else 0.0
            too_long = ran > WHOLE * (moment - self.shift.began)
            self.claims.dismiss(
                worker,
                unfinished,
                worker=self.shift.name,
                shift=self.shift.name,
                keep=[running] if too_long else [],
                longest=0.0 if too_long else ran,
            )
            if too_long:
                why = f"the task ran for {moment - since:.0f} s, into the time limit of its job; no attempt follows"
                hint = "raise Slurm(time=...), or split the task"
                self._fail(running, WorkerDiedError(why, hint), 1, since)

    def _recover(self) -> bool:
        """Give back what dead workers of this shift, all of whose workers are gone, had; was there any?"""
        found = False
        for worker in self._mine():
            unfinished = self.ledger.unfinished(worker) if worker not in self._left else []
            alone = f"{worker}-again"
            if unfinished and self.claims.dismiss(
                worker,
                unfinished,
                worker=alone,
                shift=self.shift.name,
                lost=unfinished[:1],
                keep=unfinished[:1],
            ):
                self._left.add(alone)  # seen to at once, by `_run_alone`
                self._suspects.append((alone, unfinished[0]))
                found = True
        return found

    def _bury_others(self) -> bool:
        """Give back what dead shifts had; was there any? A task over which worker after worker dies has failed."""
        name = self.shift.name
        others = [worker for worker in self.claims.held if self.claims.shift_of[worker] != name]
        if not any(map(self.ledger.unfinished, others)):
            return False
        lost = self.ledger.bury(self._dead(read_all(self.files)) - {name}, name)
        for number in lost:
            losses = self.claims.losses[number]
            if losses >= MOST_LOSSES and number in self.claims.take_these(name, name, [number]):
                why = f"{losses} workers died or were stopped while running this task"
                self._fail(number, WorkerDiedError(why), losses)
        return bool(lost)

    def _run_alone(self, worker: str, number: int) -> None:
        """Run one task that may have killed its worker, in a pool of one."""
        attempts = load_work(self.files).retries + 1
        terms = replace(self._terms, only=(number,), worker=worker)
        for attempt in range(1, attempts + 1):
            began = time.time()
            broken = self._attempt(terms, 1)
            if self._halted is not None or not self.ledger.unfinished(worker):
                return
            if attempt == attempts:
                error = WorkerDiedError(_how(broken), "what the task printed is in the log")
                self._fail(number, error, attempt, began)

    def _fail(self, number: int, error: WorkerDiedError, attempt: int, began: float | None = None) -> None:
        """Write the row that a dead worker could not write."""
        now = time.time()
        if self._writer is None:
            s = self.shift
            self._writer = Writer(
                self.files, Author(worker=s.name, shift=s.name, host=s.host, pid=s.pid, started=s.began)
            )
        packed = dump_error(error, Redactor())
        self._writer.add(
            Row(
                key=self.ledger.todo.key(number),
                status="failed",
                started=round(began or now, 3),
                seconds=round(now - (began or now), 6),
                attempt=attempt,
                at=None if packed is None else self._writer.store(packed),
                error=Fault(type=f"{type(error).__module__}.{type(error).__name__}", message=error.message),
            )
        )


_EXIT_CODES = re.compile(r"exit codes? of the workers? (?:are|is) \{([^}]*)\}")


def _how(broken: Exception | None) -> str:
    """How a worker died, by what the pool says."""
    what = "the process that ran only this task died"
    if codes := _EXIT_CODES.search(str(broken)):
        killed = " (perhaps out of memory)" if "SIGKILL" in codes[1] else ""
        return f"{what} with {codes[1]}{killed}"
    return what if broken is None else f"{what} ({type(broken).__name__})"
