"""How far has one run come in one tracker, and how does it go on from there?

Whoever publishes, the shipper or a command, holds the run's lock for this tracker meanwhile, and keeps how far it
has come in the run's folder. What is kept can be lost: then everything is sent again.
"""

from __future__ import annotations

import contextlib
import errno
import functools
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
        self._file = layout.RunFiles(save_dir).published(name)

    def state(self) -> State:
        """What is known; nothing, if it was lost or is broken."""
        try:
            return msgspec.json.decode(layout.read_regular(self._file), type=State)
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
        if self._file in _calling.get():
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
                self._keep(state)
                yield Sending(self, run, view, state)
            finally:
                view.close()
            if view.ref != state.ref:  # it was put in order at the end
                state.ref = view.ref
                self._keep(state)

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
            held = FileLock(self._file.with_suffix(".lock"), timeout=patience, thread_local=False)
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
        self._refuse_links()
        state = layout.RunFiles(self.save_dir).state
        if not state.exists():  # a folder from before runctx, which git may hold
            state.mkdir(exist_ok=True)
            (state / ".gitignore").write_text("*\n")
        self._file.parent.mkdir(exist_ok=True)

    def _refuse_links(self) -> None:
        if link := layout.find_link(self.save_dir, (layout.STATE,)):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), link)

    def _keep(self, state: State) -> None:
        with contextlib.suppress(OSError):
            self._refuse_links()
            layout.write_atomically(self._file, msgspec.json.encode(state))


class Sending:
    """What can be done while a view is held."""

    def __init__(self, publication: Publication, run: Record, view: View, state: State) -> None:
        self._publication, self.run, self.view, self._state = publication, run, view, state
        folder = publication.save_dir
        position = functools.partial(_position, folder, {})
        self._follower = Follower(folder / layout.METRICS, state.places, position)

    @property
    def state(self) -> State:
        return self._state

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
            self._kept()
            sent += len(numbers)
        return sent

    def describe(self, digest: str) -> None:
        """Say all that is not a number, and keep the digest of it."""
        self.view.describe(self.run, self._parents())
        self._state.described = digest
        self._kept()

    def call(self, function: Callable[[Record], Any], digest: str) -> None:
        """Call the user's logging function, and keep its digest once it has returned."""
        if not isinstance(self.view, Extensible):
            raise TrackingError(f"{self._publication.tracker.name} does not support logging functions")
        self._state.function = ""
        self._kept()
        outer = _calling.set(_calling.get() | {self._publication._file})
        try:
            self.view.call(function, self.run)
        finally:
            _calling.reset(outer)
        self._state.function = digest
        self._kept()

    def _kept(self) -> None:
        self._state.ref = self.view.ref
        self._publication._keep(self._state)

    def _parents(self) -> dict[str, str]:
        found = {}
        for parent in self.run.upstream:
            if parent.found:
                with contextlib.suppress(RunctxError):
                    ref = Publication(parent.save_dir, self._publication.tracker).state().ref
                    if ref is not None:
                        found[parent.id] = ref
        return found


_calling: ContextVar[frozenset[Path]] = ContextVar("calling", default=frozenset())
"""What is kept of the runs whose logging functions are being called: to wait for their ends would be in vain."""


def _position(save_dir: Path, known: dict[str, int | None], key: str) -> int | None:
    """The place of a task among the tasks of its map; maps may begin while their run is followed."""
    if key not in known:
        known[key] = None
        for todo in sorted((save_dir / layout.TASKS).glob("*/" + layout.TODO)):
            with contextlib.suppress(RunctxError):
                names = read_labels(layout.TaskFiles(save_dir, todo.parent.name))
                known.update((name, place) for place, name in enumerate(names))
    return known[key]
