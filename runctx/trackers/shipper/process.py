"""What does the shipper do? It follows the runs that were announced until each has arrived, and leaves."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from ... import liveness, settings
from ...errors import RunctxError
from ...metrics.system import Watch
from ...redact import Redactor
from ...settings import Settings
from .delivery import Delivery
from .followed import Followed
from .spool import Note, Spool

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
                self._take_in()
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

    def _take_in(self) -> None:
        for file in self.spool.announced():
            if file not in self._read:
                self._read.add(file)
                self._follow(file, PATIENCE)

    def _follow(self, file: Path, patience: float) -> None:
        note = self.spool.read(file)
        if note is None or not self._know(note):
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
            assert self._wishes is not None
            self._deliveries[name] = Delivery(name, self._wishes, self.runs, say)

    def _know(self, note: Note) -> bool:
        """The settings of the project, which all runs of a spool have in common."""
        if self._wishes is None:
            try:
                self._wishes = settings.load(note.root)
            except RunctxError as error:
                say(f"{note.root}: {error}")
                return False
            if self._wishes.system_metrics:
                self._watch = Watch(self._wishes.system_metrics)
        return True

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
    """The user's work goes first; her folders, and the terminal, are hers.

    Its turn at the disk is as good as any: others wait for whoever is in the middle of a file system's journal.
    """
    os.chdir("/")
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        os.nice(NICENESS)
    with contextlib.suppress(OSError):  # where sessions share the processor, each has a niceness of its own
        Path("/proc/self/autogroup").write_text(str(NICENESS))
