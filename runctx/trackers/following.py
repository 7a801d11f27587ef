"""What has a run logged since the last look?

A follower reads every journal from where it stopped, and its place can be kept. The numbers it gives out are a
function of the files and the place alone: whoever goes on from a place that was kept, after a kill too, gives out
what had not been given out, equal to the last digit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from .. import layout
from . import journal


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
            if len(found) >= most:
                break
            self._follow(path, place, found, most)
        return found

    def _follow(self, path: Path, place: Place, found: list[Number], most: int) -> None:
        descriptor = layout.open_regular(path)
        with open(descriptor, "rb") as stream:
            stream.seek(place.offset)
            size = _CHUNK
            while len(found) < most:
                data = stream.read(size)
                whole = data.rfind(b"\n") + 1
                if not whole:
                    if len(data) < size:
                        return  # the rest of a line is still to come, or never will
                    if size < _LONGEST:
                        size *= 2
                    else:  # no line of ours
                        place.broken += 1
                        place.offset += len(data)
                    stream.seek(place.offset)
                    continue
                for line in data[:whole].splitlines(keepends=True):
                    if len(found) >= most:
                        return
                    place.offset += len(line)
                    found.extend(self._numbers(line, place))
                stream.seek(place.offset)

    def _numbers(self, line: bytes, place: Place) -> Iterator[Number]:
        try:
            (point,) = journal.decode(line)
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


_CHUNK, _LONGEST = 1 << 20, 1 << 26
"""Bytes of one read, and of the longest line: one call may log thousands of numbers with long names."""
_LATEST = 253_402_300_799.0
"""The end of the year 9999: what lies beyond, a journal of anybody's may say, and no tracker takes."""
