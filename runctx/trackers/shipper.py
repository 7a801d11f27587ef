"""Keep the views of runs up to date while they go on: one process outside the user's, for all runs of a project.

`python -m runctx.trackers.shipper SPOOL` follows the runs that were announced there until each has arrived, and leaves.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from .. import layout, liveness, settings
from ..errors import RunctxError
from ..metrics.system import Watch
from ..past.record import Record
from ..redact import Redactor
from ..settings import Settings
from . import tracker_of
from .publishing import bring_up_to_date, is_current
from .spool import Note, Spool
from .tracker import Tracker

if TYPE_CHECKING:
    from filelock import BaseFileLock

TICK = 0.25
"""Seconds between two looks at the runs."""
LINGER = 5.0
"""Seconds without a run after which it leaves: the next one of a script that is rerun need not start another."""
PATIENCE = 300.0
"""Seconds for which a tracker that does not take an ended run is tried."""
MOST_REFUSED = 3
"""Of the runs that were set aside: when so many have failed again, the rest is left to another time."""
NICENESS = 5
"""On a machine that is busy with the training it still gets a quarter of a processor. With 19, loading MLflow alone
took a minute and a half there, and that work is not saved, but only put off."""
LONGEST_LOG = 1 << 20
"""Bytes."""
LOOK = 0.5
"""Seconds between two looks at what is new in a run."""
SHARE = 4
"""After so many times what a turn took comes the next one of the same run: the user's work goes first."""
LATEST = 2.0
"""Seconds after which it comes in any case."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds after a failure; each is twice the one before."""
WAITING = 5.0
"""Seconds to wait for somebody else who publishes the same run."""
TURN = 10_000
"""Numbers that one run may send before it is another's turn."""


def main(folder: str) -> None:
    """Work for a spool until nothing is left in it, or leave at once if another does."""
    spool = Spool(Path(folder))
    _behave()
    seen: set[Path] = set()  # what cannot be removed is no reason to go on for ever
    while (announced := set(spool.announced())) - seen:
        seen |= announced
        held = _hold(spool)
        if held is None:
            return
        try:
            Shipper(spool).work()
        finally:
            held.release()
        # who announces a run as this leaves sees the lock held or free: if held, this look comes later


@dataclass(kw_only=True, eq=False)
class Followed:
    """One run, until all of it has arrived.

    Announced anew, as a resumed run is, it is another: what was known of its end counts no more.
    """

    save_dir: Path
    trackers: frozenset[str]
    notes: frozenset[Path]
    """Files that announced it."""
    patience: float
    """Seconds for which a tracker that fails is tried, once the run has ended."""
    ended: bool = False
    """Whether nobody logs any more: what is on disk is all there will be."""
    gone: bool = False
    """Whether it was deleted."""
    delivered: set[str] = field(default_factory=set)
    """Trackers that have all of it."""
    given_up: set[str] = field(default_factory=set)
    """Trackers that did not take it in time."""
    _stamp: tuple[int, int, int] | None = None
    _record: Record | None = None

    @property
    def over(self) -> bool:
        """Whether there is nothing left to do."""
        return self.gone or (self.ended and self.trackers <= self.delivered | self.given_up)

    @property
    def logged(self) -> bool:
        """Whether there is anything to show: a number, or a view that somebody asked for."""
        kept = layout.RunFiles(self.save_dir).published("x").parent
        return any((self.save_dir / layout.METRICS).glob("*.jsonl")) or any(kept.glob("*.json"))

    def look(self) -> None:
        """See whether it goes on; the lock is read again only when it was written again.

        A run that was submitted has ended here: what its jobs log later is nobody's on this machine.
        """
        try:
            found = os.stat(layout.RunFiles(self.save_dir).lock)
        except (FileNotFoundError, NotADirectoryError, ValueError):  # or what can be no path, e.g. "a\0b"
            self.gone = True
            return
        except OSError:
            return  # a file system that is away for a while
        stamp = found.st_ino, found.st_mtime_ns, found.st_size
        if self._record is None or stamp != self._stamp:
            self._stamp, self._record = stamp, Record(self.save_dir)
        try:
            self.ended = self._record.status != "running"
        except RunctxError:
            self.ended = True  # a broken lock, which the trackers will refuse


class Shipper:
    """Follows the runs of one spool; alone, as long as it works."""

    def __init__(self, spool: Spool) -> None:
        self.spool = spool
        self.runs: dict[Path, Followed] = {}
        """Folder -> run."""
        self._read: set[Path] = set()
        """Announcements that are being followed."""
        self._deliveries: dict[str, Delivery] = {}
        self._wishes: Settings | None = None
        self._watch: Watch | None = None
        self._aside = spool.aside()
        """What earlier ones set aside, to be tried once."""
        self._refused = 0

    def work(self) -> None:
        """Returns a while after the last run has arrived."""
        last = time.monotonic()
        try:
            while self.runs or time.monotonic() - last < LINGER:
                self.take_in()
                for run in list(self.runs.values()):
                    run.look()
                if self._watch is not None:
                    self._watch.look(run.save_dir for run in self.runs.values() if not run.ended)
                for run in [run for run in self.runs.values() if run.over]:
                    self._let_go(run)
                if self._aside and not self.runs:
                    self._recall()
                if self.runs:
                    last = time.monotonic()
                time.sleep(TICK)
        finally:
            for delivery in self._deliveries.values():
                delivery.stop()

    def take_in(self) -> None:
        """Follow what was announced since the last look."""
        for file in self.spool.announced():
            if file not in self._read:
                self._read.add(file)
                self._follow(file, PATIENCE)

    def _follow(self, file: Path, patience: float) -> None:
        note = self.spool.read(file)
        wishes = None if note is None else self._settings(note)
        if note is None or wishes is None:
            file.unlink(missing_ok=True)
            return
        before = self.runs.get(note.save_dir)
        run = Followed(
            save_dir=note.save_dir,
            trackers=frozenset(note.trackers) | (before.trackers if before else frozenset()),
            notes=frozenset([file]) | (before.notes if before else frozenset()),
            patience=patience,
        )
        run.look()
        self.runs[note.save_dir] = run
        for name in run.trackers - set(self._deliveries):
            self._deliveries[name] = Delivery(name, wishes, self.runs)

    def _settings(self, note: Note) -> Settings | None:
        """Of the project, which all runs of a spool have in common; None if they cannot be read."""
        if self._wishes is None:
            try:
                self._wishes = settings.load(note.root)
            except RunctxError as error:
                say(f"{note.root}: {error}")
                return None
            if self._wishes.system_metrics:
                self._watch = Watch(self._wishes.system_metrics)
        return self._wishes

    def _let_go(self, run: Followed) -> None:
        """It has arrived, was deleted, or is left to another time."""
        del self.runs[run.save_dir]
        for file in run.notes:
            with contextlib.suppress(OSError):
                if run.given_up and not run.gone:
                    self.spool.set_aside(file)
                else:
                    file.unlink()
        if run.given_up and not run.patience:
            self._refused += 1

    def _recall(self) -> None:
        """Try what was set aside, one after another, while there is nothing else to do."""
        if self._refused >= MOST_REFUSED:
            self._aside.clear()
            return
        with contextlib.suppress(OSError):  # gone by now
            file = self.spool.recall(self._aside.pop(0))
            self._read.add(file)
            self._follow(file, patience=0.0)


@dataclass(eq=False)
class _Turns:
    """Of one run."""

    due: float = 0.0
    pause: float = 0.0
    """Seconds, after the last failure; 0 if it went well."""
    failing_since: float | None = None
    """Since when, of the time after the run has ended."""


class Delivery:
    """Brings runs to one tracker, in a thread of its own: a tracker that hangs holds up no other.

    Parameters
    ----------
    name: of the tracker.
    runs: those that are followed; changes meanwhile.
    """

    def __init__(self, name: str, wishes: Settings, runs: Mapping[Path, Followed]) -> None:
        self.name = name
        self._wishes, self._runs = wishes, runs
        self._tracker: Tracker | None = None
        self._turns: dict[Followed, _Turns] = {}
        self._leave = threading.Event()
        self._thread = threading.Thread(target=self._work, name=f"runctx-{name}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Returns when nothing is under way."""
        self._leave.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._leave.is_set():
            due = self._due()
            for run in due:
                self._take_turn(run, self._turns[run])
            self._leave.wait(0 if due else LOOK / 2)

    def _due(self) -> list[Followed]:
        """Runs whose turn it is; the one that has waited longest first."""
        wanted = [
            run
            for run in list(self._runs.values())
            if self.name in run.trackers - run.delivered - run.given_up and not run.gone
        ]
        self._turns = {run: self._turns.get(run) or _Turns() for run in wanted}
        now = time.monotonic()
        due = [run for run in wanted if self._turns[run].due <= now]
        return sorted(due, key=lambda run: self._turns[run].due)

    def _take_turn(self, run: Followed, turns: _Turns) -> None:
        began = time.monotonic()
        ended = run.ended  # before looking at what there is
        try:
            more = self._bring(run)
        except Exception as error:  # a tracker may be the user's own, and raise anything
            self._fail(run, turns, ended, error)
            return
        if turns.pause:
            say(f"{run.save_dir}: {self.name} takes it again")
        turns.pause, turns.failing_since = 0.0, None
        if ended and not more:
            run.delivered.add(self.name)
        now = time.monotonic()
        turns.due = now if more else now + min(max(LOOK, SHARE * (now - began)), LATEST)

    def _bring(self, run: Followed) -> bool:
        """Whether there is more than could be sent in one turn."""
        if not run.logged:
            return False
        if self._tracker is None:
            self._tracker = tracker_of(self.name, self._wishes)
        record = Record(run.save_dir)  # its lock may have been written since the last turn
        if is_current(record, self._tracker):
            return False
        return bring_up_to_date(record, self._tracker, patience=WAITING, most=TURN).numbers >= TURN

    def _fail(self, run: Followed, turns: _Turns, ended: bool, error: Exception) -> None:
        now = time.monotonic()
        if not turns.pause:
            said = error if isinstance(error, RunctxError) else f"{type(error).__name__}: {error}"
            say(f"{run.save_dir}: {self.name}: {said}")
        turns.pause = min(2 * turns.pause or FIRST_PAUSE, LONGEST_PAUSE)
        turns.due = now + turns.pause
        if ended:
            turns.failing_since = turns.failing_since or now
            if now - turns.failing_since >= run.patience:
                run.given_up.add(self.name)
                say(f"{run.save_dir}: {self.name} does not take it; left for later")


def say(text: str) -> None:
    """One line in the log, which stays short: what a library prints goes there as well."""
    with contextlib.suppress(OSError):
        if os.fstat(2).st_size > LONGEST_LOG:
            os.ftruncate(2, 0)
        line = Redactor().text(" ".join(text.split()))
        print(f"{datetime.now():%Y-%m-%d %H:%M:%S} {line}", file=sys.stderr, flush=True)


def _hold(spool: Spool) -> BaseFileLock | None:
    from filelock import Timeout

    try:
        return liveness.hold(spool.lock, patience=1.0)
    except Timeout:
        return None
    except (OSError, NotImplementedError) as error:
        say(f"{spool.lock}: {error}")
        return None


def _behave() -> None:
    """The user's work goes first, and keeps its folders and its terminal."""
    os.chdir("/")
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        os.nice(NICENESS)
    with contextlib.suppress(OSError):  # where sessions share the processor, each has a niceness of its own
        Path("/proc/self/autogroup").write_text(str(NICENESS))


if __name__ == "__main__":
    main(sys.argv[1])
