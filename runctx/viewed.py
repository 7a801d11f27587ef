"""Who shows the run elsewhere, while it goes on and at its end? Not its own process, which only tells of it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from . import layout, places
from .gathering import Gathering
from .model import Omission

if TYPE_CHECKING:
    from .metrics.journal import Journal
    from .tasks.work.attached import Task


class Viewed(Gathering):
    """A gathering whose numbers are kept, and shipped by somebody else."""

    _pid: int
    _task: Task | None
    _journal: Journal | None = None

    def __init__(self) -> None:
        super().__init__()
        self._announced: set[str] | None = None
        """Trackers that somebody sees to; None before anybody was told of the run."""

    def _opened_journal(self) -> Journal:
        """Of this run, made when it is first needed, by one of the threads that log at once."""
        from .metrics.journal import Journal

        self._announce()
        made = Journal(self.save_dir / layout.METRICS, self._lose_points)
        opened: Journal = vars(self).setdefault(
            "_journal", made
        )  # at one go, without a lock that a fork may copy
        return opened

    def _announce(self, trackers: Iterable[str] | None = None) -> None:
        """Have a process outside keep the views of this run up to date, until it has ended.

        Parameters
        ----------
        trackers: names of those that the user asked for; default: those that the project wants.
        """
        from .trackers import names_of

        wanted = set(names_of(self._wishes) if trackers is None else trackers)
        if os.getpid() != self._pid or not (wanted or self._wishes.system_metrics):
            return
        if self._announced is not None and wanted <= self._announced:
            return
        self._announced = wanted | (self._announced or set())
        with self._step("look at .gitignore"):
            if told := places.advice(self._wishes, self._snapshot.root, wanted):
                self._log.warn(told)
        try:
            from .trackers.shipper import spool

            spool.announce(self.save_dir, self._wishes, sorted(wanted))
        except Exception as error:  # nothing is lost: the run can be published at any time
            self._omit([Omission(what="views", why=f"{type(error).__name__}: {error}")])

    def _see_to_views(self) -> None:
        """Is somebody there who brings the end of the run, too? Forked children and workers may have logged as well."""
        if (self.save_dir / layout.METRICS).is_dir():
            self._announce()
        if self._announced is not None:
            from .trackers.shipper import spool

            spool.attend(self._wishes)

    def _lose_points(self, why: str) -> None:
        self._omit([Omission(what=layout.METRICS, why=f"points could not be written: {why}")])
