"""The protocols of trackers and their views; `runctx.testing.TrackerContract` tests them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from ..metrics.follower import Number
    from ..past.record import Record


class Tracker(Protocol):
    """Where runs can be looked at. Made with the settings of a project: `Tracker(settings)`."""

    name: str
    """Of its kind, e.g. `mlflow`; part of file names."""

    destination: str
    """Where the views are, e.g. an address without credentials: two that differ hold different views."""

    def open(self, run: Record, ref: str | None) -> View:
        """The one view of this run, made if there is none.

        Parameters
        ----------
        ref: what the view of this run was last called; None if nothing is known of one. There may be one all the same.

        Raises
        ------
        TrackingError: the destination cannot be reached, or does not take it.
        DeletedError: the view was deleted there; only of a tracker that is `Restorable`.
        """
        ...


class View(Protocol):
    """One run, as a tracker shows it. Every method raises TrackingError where the destination does not take it."""

    @property
    def ref(self) -> str:
        """What finds it again; kept in the run's folder after each call, and only then counts as known."""
        ...

    @property
    def fresh(self) -> bool:
        """Whether nothing is known of what it holds: every number will be sent again."""
        ...

    def log(self, numbers: Sequence[Number]) -> None:
        """Add numbers, however many. What is sent again, going on from a `ref` that was kept, is there once."""
        ...

    def describe(self, run: Record, parents: Mapping[str, str]) -> None:
        """Say all that is not a number: name, status, configuration, code, files, lineage. Again, it is updated.

        Parameters
        ----------
        parents: id -> `ref` of the earlier runs it read from directly, as far as they have a view here.
        """
        ...

    def close(self) -> None:
        """Nothing more is sent; `ref` is asked for once again."""
        ...


@runtime_checkable
class Extensible(Protocol):
    """A view that the user's own functions can add to."""

    def call(self, function: Callable[[Record], Any], run: Record) -> None:
        """Call it so that what it logs goes to this view; what an earlier call has left is replaced.

        Raises
        ------
        Whatever the function raises.
        """
        ...


@runtime_checkable
class Restorable(Protocol):
    """A tracker in which people delete views, and which can restore them."""

    def is_missing(self, ref: str) -> bool:
        """Whether a view was deleted or removed before this was first asked. Quick, for it is asked for every run.

        Raises
        ------
        TrackingError: the destination cannot be reached.
        """
        ...

    def restore(self, ref: str) -> None:
        """Undo the deletion of a view.

        Raises
        ------
        TrackingError: the destination cannot be reached, or does not do it.
        """
        ...


@runtime_checkable
class Identified(Protocol):
    """A tracker that can say whether what is known of its views still holds, without looking for each of them."""

    def identity(self) -> str:
        """Of what holds the views, and of the way runs are described there; another, once either has changed.

        Quick, for it is asked for every run.

        Raises
        ------
        TrackingError: the destination cannot be reached.
        """
        ...


@runtime_checkable
class Removing(Protocol):
    """A tracker that can remove its view of a run."""

    def remove(self, run: Record, ref: str | None) -> bool:
        """Remove the view of this run, and the copies of files in it; whether there was one.

        Parameters
        ----------
        ref: what the view was last called; None if nothing is known of one. There may be one all the same.

        Raises
        ------
        TrackingError: the destination cannot be reached, or does not do it.
        """
        ...
