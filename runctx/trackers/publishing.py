"""Bring runs up to date in trackers: those that a run read from first, and only what has changed.

`run.publish`, the commands and the shipper all publish by this module. Doing it again changes nothing, and what was
interrupted goes on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blake3 import blake3

from .. import layout, lock, settings
from ..errors import DeletedError, TrackingError
from ..interrupts import held_back
from ..metrics import journal
from . import logging_function, names_of, tracker_of
from .publication import Publication
from .tracker import Extensible, Identified, Restorable, Tracker

if TYPE_CHECKING:
    from ..past.record import Record
    from ..settings import Settings

DEFAULT = "mlflow"
"""Where runs are published on request, in a project that wants no tracker by itself."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What became of one run in one tracker."""

    path: Path
    """The run's folder."""
    tracker: str
    """Its name."""
    destination: str
    """Where it has its views."""
    ref: str | None = None
    """What it calls the view of the run."""
    described: bool = False
    """True if anything but numbers was said."""
    numbers: int = 0
    """How many were sent."""
    called: bool = False
    """True if the logging function was called."""
    restored: bool = False
    """True if the view had been deleted there, and is back."""
    deleted: bool = False
    """True if the view was deleted there, and was left so."""
    error: BaseException | None = None
    """Why it was not published, or not to the end."""

    @property
    def changed(self) -> bool:
        return self.described or self.called or self.restored or self.numbers > 0


# -- one run in one tracker --------------------------------------------------------------------------------

_MAY_HAVE_ENDED = re.compile(rb"^status: *['\"]?running", re.MULTILINE)
"""Only then may the status be another than the lock's own word."""
_UNFINISHED = "unfinished"
"""In place of a digest: to be described again when all numbers are there."""


def bring_up_to_date(
    run: Record,
    tracker: Tracker,
    *,
    function: Callable[[Any], Any] | None = None,
    known_as: str | None = None,
    given: Any = None,
    again: bool = False,
    restore: bool = False,
    patience: float = 60.0,
    most: int | None = None,
) -> Outcome:
    """Describe the run if what there is to say has changed, send the numbers that are new, call the function.

    A view that somebody has deleted stays so, unless `restore`. The runs that it read from come first, as far as they
    have no view yet, so that it can name theirs.

    Parameters
    ----------
    run: what is known of it now.
    function: the user's, called when all else is done, if the tracker takes functions.
    known_as: the digest of the function, where many runs are published with it.
    given: what it is called with; default: `run`.
    again: describe it whether it has changed or not.
    restore: bring a view back that was deleted there.
    patience: seconds to wait for another who publishes the same run.
    most: stop after about so many numbers; then there may be more.

    Raises
    ------
    TrackingError: the destination does not take it, or another has been publishing it all the time.
    LockError, NoRunError: the run cannot be read.
    Whatever the function raises; all else is published then.
    """
    said = digest(run, tracker)  # before its lock is read: what will be described is at least as new
    _bring_parents(run, tracker, patience, {run.id})
    outcome = _nothing(run, tracker)
    while True:
        try:
            with Publication(run.save_dir, tracker).begun(run, patience) as sending:
                numbers = sending.send(most)  # before anybody is told that the run has ended
                finished = most is None or numbers < most
                before = sending.state.described
                describe = again or (before != said and (finished or not before))
                if describe:
                    sending.describe(said if finished else _UNFINISHED)
                called = function is not None and isinstance(sending.view, Extensible)
                if function is not None and called:
                    call = function if given is None else lambda _: function(given)
                    sending.call(call, _call_digest(known_as or logging_function.digest(function), said))
                ref = sending.view.ref
                return replace(outcome, ref=ref, described=describe, numbers=numbers, called=called)
        except DeletedError as error:
            if not restore or outcome.restored or not isinstance(tracker, Restorable):
                return replace(outcome, ref=error.ref, deleted=True)
            tracker.restore(error.ref)
            outcome = replace(outcome, restored=True)


def is_current(run: Record, tracker: Tracker, function: str | None = None) -> bool:
    """True if nothing is to be done, as far as can be known without looking at the view.

    For many runs: the lock is read, and not understood.

    Parameters
    ----------
    function: digest of a logging function; it was the last to be called, with the run as it is now.

    Raises
    ------
    TrackingError: the destination cannot be reached.
    """
    if not isinstance(tracker, Identified):
        return False  # the views may be gone
    state = Publication(run.save_dir, tracker).state()
    if state.described != (said := digest(run, tracker)):
        return False
    if function is not None and state.function != _call_digest(function, said):
        return False
    try:
        return all(
            path.name in state.places and state.places[path.name].offset >= path.stat().st_size
            for path in journal.files(run.save_dir / layout.METRICS)
        )
    except OSError:
        return False


def digest(run: Record, tracker: Tracker) -> str:
    """Of all that a tracker is told of a run, but for its numbers."""
    files = layout.RunFiles(run.save_dir)
    try:
        told = layout.read_regular(files.lock)
    except OSError:
        told = lock.encode(run.lock)  # from before there were locks
    status = run.status if _MAY_HAVE_ENDED.search(told) else ""
    place = tracker.identity() if isinstance(tracker, Identified) else ""
    parts = [place.encode(), status.encode(), told]
    with suppress(OSError):
        parts += filter(None, [layout.read_regular(files.notes)])
    hasher = blake3()
    for part in parts:
        hasher.update(b"%d:" % len(part) + part)
    return hasher.hexdigest(length=16)


def _bring_parents(run: Record, tracker: Tracker, patience: float, begun: set[str]) -> None:
    """The earliest first; what is wrong with an earlier run is no concern of this one."""
    for parent in run.upstream:
        if not parent.found:
            continue
        with suppress(Exception):  # a tracker of the project's may raise anything
            said, state = digest(parent, tracker), Publication(parent.save_dir, tracker).state()
            known = state.described == said if isinstance(tracker, Identified) else state.ref is not None
            if parent.id not in begun and not known:
                begun.add(parent.id)
                _bring_parents(parent, tracker, patience, begun)
                with Publication(parent.save_dir, tracker).begun(parent, patience) as sending:
                    sending.send()
                    if sending.state.described != said:
                        sending.describe(said)


def _nothing(run: Record, tracker: Tracker) -> Outcome:
    return Outcome(path=run.save_dir, tracker=tracker.name, destination=tracker.destination)


def _call_digest(function: str, said: str) -> str:
    """Of a call: which function it was, and of what run, as it was then."""
    return blake3(f"{function} {said}".encode()).hexdigest(length=16)


# -- as a project wants it ---------------------------------------------------------------------------------


def settings_of(save_dir: Path) -> Settings:
    """Of the project that a run's folder lies in; of the current folder's, if it lies in none.

    Raises
    ------
    SettingsError: the settings are wrong.
    """
    own = settings.load(save_dir.parent)
    is_project = any((own.root / name).exists() for name in ("pyproject.toml", ".git"))
    return own if is_project else settings.load()


def wanted_by(wishes: Settings) -> tuple[str, ...]:
    """Names of the trackers that a project's runs are published to: those it wants by itself, else MLflow."""
    return names_of(wishes) or (DEFAULT,)


class Trackers:
    """Those of the projects that runs belong to; each is made once."""

    def __init__(self) -> None:
        self._wishes: dict[Path, Settings] = {}
        self._made: dict[Settings, tuple[Tracker, ...]] = {}
        self._lost: dict[tuple[str, str], TrackingError] = {}

    def of(self, wishes: Settings) -> tuple[Tracker, ...]:
        """The trackers of a project.

        Raises
        ------
        SettingsError: there is no tracker of a name. TrackingError: what it needs is not there.
        """
        if wishes not in self._made:
            self._made[wishes] = tuple(tracker_of(name, wishes) for name in wanted_by(wishes))
        return self._made[wishes]

    def of_run(self, save_dir: Path) -> tuple[Tracker, ...]:
        """Those of the project that a run's folder lies in; raises as `of`."""
        beside = save_dir.parent  # where thousands of others are, which are asked for as well
        if beside not in self._wishes:
            self._wishes[beside] = settings_of(save_dir)
        return self.of(self._wishes[beside])

    def lost(self, tracker: Tracker) -> TrackingError | None:
        """Why this one cannot be reached, if that is known."""
        return self._lost.get((tracker.name, tracker.destination))

    def note(self, tracker: Tracker, error: TrackingError) -> None:
        """A run could not be published: can any other be?"""
        wishes = next(wishes for wishes, made in self._made.items() if tracker in made)
        kind: Any = type(tracker)
        try:
            again = kind(wishes)  # which remembers nothing
            if isinstance(again, Identified):
                again.identity()
        except Exception:  # a tracker of the project's may raise anything
            self._lost[tracker.name, tracker.destination] = error


def publish(run: Record, wishes: Settings, function: Callable[[Any], Any] | None, given: Any) -> None:
    """Describe the run anew, send the numbers that are new and call the function, in all trackers of a project.

    Parameters
    ----------
    given: what the function is called with.

    Raises
    ------
    As `bring_up_to_date`; TrackingError also if there is a function, and none of the trackers takes it.
    """
    trackers = Trackers().of(wishes)
    outcomes = [
        bring_up_to_date(run, tracker, function=function, given=given, again=True, restore=True)
        for tracker in trackers
    ]
    if function is not None and not any(outcome.called for outcome in outcomes):
        names = ", ".join(tracker.name for tracker in trackers)
        raise TrackingError(
            f"the logging function was not called: {names} does not support logging functions",
            hint='add MLflow to the trackers: tracking = ["mlflow", ...] in [tool.runctx]',
        )


def publish_all(
    runs: Iterable[Record],
    *,
    function: Callable[[Any], Any] | None = None,
    stale: bool = False,
    quick: bool = False,
    restore: Collection[Path] = (),
) -> Iterator[Outcome]:
    """Bring many runs up to date, one after another; an outcome for each run and tracker. One failing stops no other.

    Ctrl-C lets the run that is just being published be finished; a second one does not.

    Parameters
    ----------
    function: called for each.
    stale: only for those whose last call was another's, or that have changed since.
    quick: look at no view of a run that has not changed; whether it is there is asked once for all.
    restore: folders of runs whose views are brought back if they were deleted there.

    Raises
    ------
    SettingsError, TrackingError: the trackers of a project cannot be had.
    """
    trackers = Trackers()
    known_as = None if function is None else logging_function.digest(function)
    asked = stale or (quick and function is None)

    def tried(run: Record, tracker: Tracker) -> Outcome:
        nothing = _nothing(run, tracker)
        if (lost := trackers.lost(tracker)) is not None:
            return replace(nothing, error=lost)
        try:
            if asked and is_current(run, tracker, known_as):
                ref = Publication(run.save_dir, tracker).state().ref
                if ref is None or not isinstance(tracker, Restorable) or not tracker.is_missing(ref):
                    return nothing
            back = run.save_dir in restore
            return bring_up_to_date(run, tracker, function=function, known_as=known_as, restore=back)
        except (Exception, SystemExit) as error:  # the user's function, or tracker, may raise anything
            if isinstance(error, TrackingError):
                trackers.note(tracker, error)
            return replace(nothing, error=error)

    for run in runs:
        for tracker in trackers.of_run(run.save_dir):
            outcome = None
            try:
                with held_back():
                    outcome = tried(run, tracker)
            finally:
                if outcome is not None:  # of a run that was finished after Ctrl-C, too
                    yield outcome
