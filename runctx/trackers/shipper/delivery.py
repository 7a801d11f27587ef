"""How do the runs that are followed get to one tracker? In turns, again and again, with patience where it fails."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ...errors import RunctxError
from ...past.record import Record
from ...settings import Settings
from .. import tracker_of
from ..publishing import bring_up_to_date, is_current
from ..tracker import Tracker
from .followed import Followed

LOOK = 0.5
"""Seconds between two looks at what is new."""
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
    say: writes to the shipper's log.
    """

    def __init__(
        self,
        name: str,
        wishes: Settings,
        runs: Mapping[Path, Followed],
        say: Callable[[str], None],
    ) -> None:
        self.name = name
        self._wishes, self._runs, self._say = wishes, runs, say
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
        """Whose turn it is, who has waited longest first."""
        wanted = [
            run
            for run in list(self._runs.values())
            if self.name in run.trackers - run.delivered - run.given_up and not run.gone
        ]
        self._turns = {run: self._turns.get(run) or _Turns() for run in wanted}
        now = time.monotonic()
        return sorted(
            (run for run in wanted if self._turns[run].due <= now), key=lambda run: self._turns[run].due
        )

    def _take_turn(self, run: Followed, turns: _Turns) -> None:
        began = time.monotonic()
        ended = run.ended  # before looking at what there is
        try:
            more = self._bring(run)
        except Exception as error:  # a tracker may be the user's own, and raise anything
            self._failed(run, turns, ended, error)
            return
        if turns.pause:
            self._say(f"{run.save_dir}: {self.name} takes it again")
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
        outcome = bring_up_to_date(record, self._tracker, patience=WAITING, most=TURN)
        return outcome.numbers >= TURN

    def _failed(self, run: Followed, turns: _Turns, ended: bool, error: Exception) -> None:
        now = time.monotonic()
        if not turns.pause:
            said = error if isinstance(error, RunctxError) else f"{type(error).__name__}: {error}"
            self._say(f"{run.save_dir}: {self.name}: {said}")
        turns.pause = min(2 * turns.pause or FIRST_PAUSE, LONGEST_PAUSE)
        turns.due = now + turns.pause
        if ended:
            turns.failing_since = turns.failing_since or now
            if now - turns.failing_since >= run.patience:
                run.given_up.add(self.name)
                self._say(f"{run.save_dir}: {self.name} does not take it; left for later")
