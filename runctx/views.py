"""Have a live run shown in trackers: by a process outside, which is only told of it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from . import layout, places
from .model import Omission
from .recorder import Recorder

if TYPE_CHECKING:
    from .settings import Settings


class Views:
    """Who was told to show a run.

    Parameters
    ----------
    root: the repository.
    """

    def __init__(self, recorder: Recorder, settings: Settings, root: Path | None) -> None:
        self._recorder, self._settings, self._root = recorder, settings, root
        self._pid = os.getpid()
        self._announced: set[str] | None = None
        """Trackers that somebody sees to; None before anybody was told of the run."""

    def announce(self, trackers: Iterable[str] | None = None) -> None:
        """Have a process outside keep the views of this run up to date, until it has ended.

        Parameters
        ----------
        trackers: names of those that the user asked for; default: those that the project wants.
        """
        from .trackers import names_of

        wanted = set(names_of(self._settings) if trackers is None else trackers)
        if os.getpid() != self._pid or not (wanted or self._settings.system_metrics):
            return
        if self._announced is not None and wanted <= self._announced:
            return
        self._announced = wanted | (self._announced or set())
        with self._recorder.step("look at .gitignore"):
            if told := places.advice(self._settings, self._root, wanted):
                self._recorder.log.warn(told)
        try:
            from .trackers import spool

            spool.announce(self._recorder.files.root, self._settings, sorted(wanted))
        except Exception as error:  # nothing is lost: the run can be published at any time
            self._recorder.omit([Omission(what="views", why=f"{type(error).__name__}: {error}")])

    def finish(self) -> None:
        """See to it that somebody brings the end of the run, too."""
        if (
            self._recorder.files.root / layout.METRICS
        ).is_dir():  # forked children may have logged, and workers
            self.announce()
        if self._announced is not None:
            from .trackers import spool

            spool.attend(self._settings)
