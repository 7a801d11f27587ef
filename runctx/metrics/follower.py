"""Follow the journals of a run that goes on: give out what was logged since the last look.

The numbers are a function of the files and of the place that was kept: whoever goes on from there, after a kill too,
gives out what had not been given out, equal to the last digit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from .. import layout
from . import journal

_LATEST = 253_402_300_799.0
"""The end of the year 9999, in seconds since 1970: trackers take no later moment."""


class Number(NamedTuple):
    """One number of one metric, as a tracker gets it."""

    name: str
    value: float
    step: int
    """As logged; without one, how many the writer had logged under this name before, or the place of the task."""
    moment: int
    """Milliseconds since 1970, within what trackers take; never twice the same for one name, step and writer."""


class Place(msgspec.Struct):
    """How far one journal was followed."""

    offset: int = 0
    """Bytes that were read."""
    counts: dict[str, int] = {}
    """Name -> numbers so far that were logged without a step."""
    latest: dict[str, tuple[int, int]] = {}
    """Name -> the highest step and the newest moment so far."""
    broken: int = 0
    """Lines that are no points, and were passed over."""


class Follower:
    """Gives out what is new in the journals of one run, from where `places` say.

    Parameters
    ----------
    folder: `metrics` in the run's folder; need not exist yet.
    places: name of each journal -> how far it was followed; moves on as numbers are given out.
    position: the place of the task with this key among its siblings, if it has one.

    >>> import tempfile
    >>> own = journal.Journal(Path(tempfile.mkdtemp()) / "metrics", lose=print)
    >>> own.append({"loss": 0.5}); own.append({"loss": 0.3})
    >>> follower = Follower(own.folder, {})
    >>> [(number.value, number.step) for number in follower.batch()], follower.batch()
    ([(0.5, 0), (0.3, 1)], [])
    """

    def __init__(
        self,
        folder: Path,
        places: dict[str, Place],
        position: Callable[[str], int | None] = lambda key: None,
    ) -> None:
        self.folder, self.places, self._position = folder, places, position

    def batch(self, most: int = 1000) -> list[Number]:
        """The next numbers, of whole lines; more than `most` only where one line has more; empty if nothing is new.

        Raises
        ------
        OSError: a journal cannot be read.
        """
        found: list[Number] = []
        for path in journal.files(self.folder):
            place = self.places.setdefault(path.name, Place())
            with open(layout.open_regular(path), "rb") as stream:
                stream.seek(place.offset)
                while len(found) < most:
                    line = stream.readline(journal.LONGEST_LINE)
                    if not line.endswith(b"\n") and len(line) < journal.LONGEST_LINE:
                        break  # the rest of the line is still to come, or never will
                    place.offset += len(line)
                    found.extend(self._numbers(line, place))
        return found

    def _numbers(self, line: bytes, place: Place) -> Iterator[Number]:
        try:
            point = journal.decode(line)
        except ValueError:
            place.broken += 1
            return
        for name, value in point.values.items():
            step = point.step
            if step is None and point.task is not None:
                step = self._position(point.task)
            if step is None:
                step = place.counts.get(name, 0)
                place.counts[name] = step + 1
            moment = int(min(max(point.time, 0.0), _LATEST) * 1000)
            highest, newest = place.latest.get(name, (step, -1))
            if step <= highest:
                moment = max(moment, newest + 1)  # equal numbers in one millisecond are two all the same
            place.latest[name] = max(step, highest), max(moment, newest)
            yield Number(name, float(value), step, moment)
