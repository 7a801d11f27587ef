"""Send one run to one tracker, and keep in the run's folder how far that has come.

Whoever publishes, the shipper or a command, holds the run's lock for this tracker meanwhile. What is kept can be lost:
then everything is sent again.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

import blake3
import msgspec

from .. import layout
from ..errors import RunctxError, TrackingError
from ..metrics.follower import Follower, Place
from ..tasks.ledger import read_labels
from .tracker import Extensible, Removing, Tracker, View

if TYPE_CHECKING:
    from ..past.record import Record

BATCH = 1000
"""Numbers that are sent at once: as many as MLflow takes."""


class State(msgspec.Struct, omit_defaults=True):
    """What is kept between two looks."""

    ref: str | None = None
    """What the tracker calls the view; None before the first."""
    places: dict[str, Place] = {}
    """Name of each journal -> how far its numbers were sent."""
    described: str = ""
    """Digest of what was said of the run."""
    function: str = ""
    """Digest of the logging function that was called last; empty if none was."""


class Publication:
    """One run in one tracker.

    Parameters
    ----------
    save_dir: the run's folder.
    """

    def __init__(self, save_dir: Path, tracker: Tracker) -> None:
        self.save_dir, self.tracker = save_dir, tracker
        name = f"{tracker.name}-{blake3.blake3(tracker.destination.encode()).hexdigest()[:8]}"
        self.file = layout.RunFiles(save_dir).published(name)

    def state(self) -> State:
        """What is known; nothing, if it was lost or is broken."""
        try:
            return msgspec.json.decode(layout.read_regular(self.file), type=State)
        except (OSError, ValueError):
            return State()

    @contextlib.contextmanager
    def begun(self, run: Record, patience: float = 60.0) -> Iterator[Sending]:
        """The view of the run, for as long as nobody else writes to it.

        Parameters
        ----------
        patience: seconds to wait for another who does.

        Raises
        ------
        TrackingError: the destination cannot be reached, or another has been writing all the time.
        """
        if self.file in _calling.get():
            raise TrackingError(
                f"{self.save_dir}: the logging function publishes the run that it is called with",
                hint="leave run.publish() out of it; the run is being published already",
            )
        with self._alone(patience):
            state = self.state()
            view = self.tracker.open(run, state.ref)
            try:
                if view.fresh:
                    state = State()
                state.ref = view.ref
                self.keep(state)
                yield Sending(self, run, view, state)
            finally:
                view.close()
            if view.ref != state.ref:  # it was put in order at the end
                state.ref = view.ref
                self.keep(state)

    def removed(self, run: Record, patience: float = 60.0) -> bool:
        """Remove the view of the run; whether there was one. Raises as `begun`."""
        assert isinstance(self.tracker, Removing)
        with self._alone(patience):
            return self.tracker.remove(run, self.state().ref)

    @contextlib.contextmanager
    def _alone(self, patience: float) -> Iterator[None]:
        from filelock import FileLock, Timeout

        try:
            self._make_room()
            held = FileLock(self.file.with_suffix(".lock"), timeout=patience, thread_local=False)
            held.acquire()
        except Timeout:
            raise TrackingError(
                f"{self.save_dir}: another process is still publishing it to {self.tracker.name} after {patience:g} s",
                hint="try again when it has ended",
            ) from None
        except (OSError, NotImplementedError):
            yield  # a run that cannot be written to, e.g. in an archive: nothing is kept, and all is sent again
            return
        try:
            yield
        finally:
            held.release()

    def _make_room(self) -> None:
        state = layout.RunFiles(self.save_dir).state
        if link := layout.find_link(self.save_dir, (layout.STATE,)):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), link)
        if not state.exists():  # a folder from before runctx, which git may hold
            state.mkdir(exist_ok=True)
            (state / ".gitignore").write_text("*\n")
        self.file.parent.mkdir(exist_ok=True)

    def keep(self, state: State) -> None:
        """Write down how far it has come, if the folder can be written to."""
        with contextlib.suppress(OSError):
            self._make_room()
            layout.write_atomically(self.file, msgspec.json.encode(state))


class Sending:
    """What can be done while a view is held."""

    def __init__(self, publication: Publication, run: Record, view: View, state: State) -> None:
        self._publication, self.run, self.view, self.state = publication, run, view, state
        self._places: dict[str, int | None] = {}
        folder = publication.save_dir / layout.METRICS
        self._follower = Follower(folder, state.places, self._place_of_task)

    def send(self, most: int | None = None) -> int:
        """Send the numbers that are new, in batches; how many they were.

        Parameters
        ----------
        most: stop after about so many.
        """
        sent = 0
        while most is None or sent < most:
            try:
                numbers = self._follower.batch(BATCH)
            except OSError as error:
                raise TrackingError(f"{self._follower.folder}: {error}") from error
            if not numbers:
                break
            self.view.log(numbers)
            self.keep()
            sent += len(numbers)
        return sent

    def describe(self, digest: str) -> None:
        """Say all that is not a number, and keep the digest of it."""
        parents = {}
        for parent in self.run.upstream:
            if parent.found:
                with contextlib.suppress(RunctxError):
                    ref = Publication(parent.save_dir, self._publication.tracker).state().ref
                    if ref is not None:
                        parents[parent.id] = ref
        self.view.describe(self.run, parents)
        self.state.described = digest
        self.keep()

    def call(self, function: Callable[[Record], Any], digest: str) -> None:
        """Call the user's logging function, and keep its digest once it has returned."""
        if not isinstance(self.view, Extensible):
            raise TrackingError(f"{self._publication.tracker.name} does not support logging functions")
        described, self.state.described, self.state.function = self.state.described, "", ""
        self.keep()  # whoever goes on after a kill describes the run again, and so undoes what the function had left
        outer = _calling.set(_calling.get() | {self._publication.file})
        try:
            self.view.call(function, self.run)
            self.state.function = digest
        finally:
            _calling.reset(outer)
            self.state.described = described
            self.keep()

    def keep(self) -> None:
        """Write down how far it has come."""
        self.state.ref = self.view.ref
        self._publication.keep(self.state)

    def _place_of_task(self, key: str) -> int | None:
        """The place of a task among the tasks of its map; maps may begin while their run is followed."""
        if key not in self._places:
            self._places[key] = None
            save_dir = self._publication.save_dir
            for todo in sorted((save_dir / layout.TASKS).glob("*/" + layout.TODO)):
                with contextlib.suppress(RunctxError):
                    keys = read_labels(layout.TaskFiles(save_dir, todo.parent.name))
                    self._places.update((key, place) for place, key in enumerate(keys))
        return self._places[key]


_calling: ContextVar[frozenset[Path]] = ContextVar("calling", default=frozenset())
"""Runs whose logging functions are being called: to wait for their ends would be in vain."""
