"""What has a run to do with its maps: what does it give them, and what does it take into its lock of them?"""

from __future__ import annotations

import itertools
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import layout
from .errors import ConfigError
from .gathering import Gathering, here

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from .layout import TaskFiles
    from .model import Tasks
    from .tasks.results import Final
    from .tasks.work.attached import Parent, Task


class Maps(Gathering):
    """A gathering that looks at tasks as well."""

    _given_cfg: Any
    _seed: int | None
    _task: Task | None

    def __init__(self) -> None:
        super().__init__()
        self._called: dict[str, bool] = {}
        """Names of the maps of this entry; whether they were waited for."""
        self._tasks_go_on = False
        self._stopped_waiting = False
        """Whether Ctrl-C has ended a map while its tasks were waited for."""

    def _new_name(self, wanted: str) -> str:
        """Of a map: the first that none of this entry has; several threads may map at once."""
        with self._mutex:
            names = itertools.chain([wanted], (f"{wanted}-{n}" for n in itertools.count(2)))
            name = next(name for name in names if name not in self._called)
            self._called[name] = True
            return name

    def _map_called(self, name: str) -> Tasks | None:
        return next((entry for entry in self._lock.tasks if entry.name == name), None)

    def _unresolved(self) -> DictConfig:
        """The configuration as it was given: what is derived follows when a task is laid on it."""
        from . import config

        known = self._lock if self._task is None else self._task.parent
        base = config.open_anew(self._given_cfg)
        config.latest_runs(base).update(known.latest)
        again = base.copy()
        config.fill_in(again, known.started.astimezone(), os.fspath(self.save_dir))
        if config.to_plain(again) != config.to_plain(self._cfg):
            raise ConfigError(
                "the configuration that the run was given has been changed since the run was entered",
                hint="give Run a configuration of its own, and `run.map` what differs",
            )
        return base

    def _as_parent(self) -> Parent:
        from .tasks.work.attached import Parent

        return Parent(
            save_dir=self.save_dir,
            id=self.id,
            started=self._lock.started,
            latest=self._lock.latest,
            results=self._wishes.root / self._wishes.results,
            log=self._log,
            seed=self._seed,
            redactor=self._redactor,
            cwd=os.fspath(here() or ""),
            covered=tuple(
                os.path.abspath(root)
                for data, root in zip(self._hashing.inputs, self._hashing.roots, strict=True)
                if data.kind != "glob"  # which does not hold all that lies where it starts
            ),
            root=self._snapshot.root,
            modules=frozenset(sys.modules),
        )

    def _look_at_tasks(self) -> None:
        """Of maps that nobody waited for, or that only an earlier entry called: what became of their tasks."""
        if not self._lock.tasks:
            return  # most runs have none, and need not load what looks after them
        from .tasks import collect

        for entry in self._lock.tasks:
            if not self._called.get(entry.name, False) or self._may_go_on(entry):
                with self._step(f"tasks of {entry.name}"):
                    self._look_at_map(entry)
        if self._tasks_go_on and self._lock.status == "done":
            self._update(status="submitted")
        elif self._tasks_go_on:
            waited = self._stopped_waiting and self._lock.status == "interrupted"
            self._omit([collect.WAITED if waited else collect.LATER])

    def _look_at_map(self, entry: Tasks) -> None:
        from .tasks import collect

        found = collect.fold(self._lock, self.save_dir, entry)
        self._gather_tasks(found.files, found.final)
        if entry.name not in self._called:
            return  # its entry stays until it is called again
        self._replace_tasks(found.entry)
        if found.left:
            self._tasks_go_on = True
        elif found.entry.failed and self._lock.status == "done":
            self._update(status="failed", error=found.failure())

    def _may_go_on(self, entry: Tasks) -> bool:
        """Whether it was only the waiting that was interrupted: others work on a map, or a scheduler has jobs of it."""
        from .tasks import fold
        from .tasks.work import presence

        if not fold.unfinished(entry):
            return False
        jobs = layout.TaskFiles(self.save_dir, entry.name).jobs
        return jobs.is_dir() or presence.may_go_on(self.save_dir, presence.processes(self._lock))

    def _replace_tasks(self, entry: Tasks) -> None:
        known = {one.name: one for one in self._lock.tasks}
        self._update(tasks=tuple((known | {entry.name: entry}).values()))

    def _note_tasks(self, entry: Tasks) -> None:
        """Into the lock at once: a run that is killed later knows of it already."""
        from . import lock

        with self._mutex:
            self._replace_tasks(entry)
            lock.write(self._files.lock, self._lock)

    def _gather_tasks(self, files: TaskFiles, final: Final) -> None:
        """What workers know that the lock should tell."""
        from .tasks import inputs
        from .tasks.work import noted

        with self._step(f"inputs of the tasks of {files.name}"), self._mutex:
            told, earlier = inputs.joined(self._lock, files, final, here() or Path(), self._upstream)
            self._lock, self._upstream = told, earlier
        with self._step(f"what the workers of {files.name} noted"):
            self._noted = self._noted.joined(noted.read(files))
