"""What a run gives to its maps, and what it takes into its lock of them."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING

from .layout import TaskFiles, here
from .recorder import Recorder
from .tasks.attached import Noted

if TYPE_CHECKING:
    from .model import Tasks
    from .run_inputs import RunInputs
    from .tasks.ledger import Final


class Maps:
    """The maps of one entry of a run."""

    def __init__(self, recorder: Recorder, inputs: RunInputs) -> None:
        self._recorder, self._inputs = recorder, inputs
        self.waited: dict[str, bool] = {}
        """Name of each map of this entry -> whether it was waited for."""
        self.go_on = False
        """Whether tasks go on without the run."""
        self.stopped_waiting = False
        """Whether Ctrl-C has ended a map while its tasks were waited for."""
        self.noted = Noted()
        """What workers noted."""

    def new_name(self, wanted: str) -> str:
        """The first name that no map of this entry has; several threads may map at once."""
        with self._recorder.mutex:
            names = itertools.chain([wanted], (f"{wanted}-{n}" for n in itertools.count(2)))
            name = next(name for name in names if name not in self.waited)
            self.waited[name] = True
            return name

    def entry(self, name: str) -> Tasks | None:
        """What the lock says of a map."""
        return next((entry for entry in self._recorder.lock.tasks if entry.name == name), None)

    def note(self, entry: Tasks) -> None:
        """Into the lock at once: a run that is killed later knows of it already."""
        with self._recorder.mutex:
            self._replace(entry)
            self._recorder.write()

    def gather(self, files: TaskFiles, final: Final, show: bool = False) -> None:
        """Into the lock, what workers know that it should tell."""
        from .tasks import attached, inputs

        recorder = self._recorder
        with recorder.step(f"inputs of the tasks of {files.name}"), recorder.mutex:
            upstream = self._inputs.upstream
            recorder.lock, self._inputs.upstream = inputs.joined(
                recorder.lock, files, final, here() or Path(), upstream, show=show
            )
        with recorder.step(f"what the workers of {files.name} noted"):
            self.noted = self.noted.joined(attached.read_notes(files))

    def finish(self) -> None:
        """Of maps that nobody waited for, or that only an earlier entry called: what became of their tasks."""
        recorder = self._recorder
        if not recorder.lock.tasks:
            return  # most runs have none, and need not load what looks after them
        from .tasks import collect

        for entry in recorder.lock.tasks:
            if not self.waited.get(entry.name, False) or self._may_go_on(entry):
                with recorder.step(f"tasks of {entry.name}"):
                    self._fold(entry)
        if self.go_on and recorder.lock.status == "done":
            recorder.update(status="submitted")
        elif self.go_on:
            waited = self.stopped_waiting and recorder.lock.status == "interrupted"
            recorder.omit([collect.WAITED if waited else collect.LATER])

    def _fold(self, entry: Tasks) -> None:
        from .tasks import collect

        found = collect.fold(self._recorder.lock, self._recorder.files.root, entry)
        self.gather(found.rows.files, found.rows.final)
        if entry.name not in self.waited:
            return  # its entry stays until it is called again
        self._replace(found.entry)
        if found.left:
            self.go_on = True
        elif found.entry.failed and self._recorder.lock.status == "done":
            self._recorder.update(status="failed", error=found.failure())

    def _may_go_on(self, entry: Tasks) -> bool:
        """Whether it was only the waiting that was interrupted: others work on a map, or a scheduler has jobs of it."""
        from .tasks import results, shifts

        if not results.unfinished(entry):
            return False
        folder = self._recorder.files.root
        jobs = TaskFiles(folder, entry.name).jobs
        return jobs.is_dir() or shifts.may_go_on(folder, shifts.processes(self._recorder.lock))

    def _replace(self, entry: Tasks) -> None:
        known = {one.name: one for one in self._recorder.lock.tasks}
        self._recorder.update(tasks=tuple((known | {entry.name: entry}).values()))
