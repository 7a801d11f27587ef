"""What does the shipper know of a run that was announced? What it says now, and which trackers have all of it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from ... import layout
from ...errors import RunctxError
from ...past.record import Record


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
        return any((self.save_dir / layout.METRICS).glob("*.jsonl")) or any(
            layout.RunFiles(self.save_dir).published("x").parent.glob("*.json")
        )

    def look(self) -> None:
        """Whether it goes on; the lock is read again only when it was written again.

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
