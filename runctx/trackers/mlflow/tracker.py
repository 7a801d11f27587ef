"""Show runs in MLflow: one MLflow run for each run's folder, all of a project in one experiment."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ...errors import DeletedError, TrackingError
from ...notes import readable
from . import calling, description, names
from .artifacts import KEPT, Artifacts, choose
from .database import Database
from .entity import Entity, find

if TYPE_CHECKING:
    from ...metrics.follower import Number
    from ...past.record import Record
    from ...settings import Settings

_USER = 256
"""Characters of a user's name that MLflow takes."""
_LISTED = 50_000
"""Runs that a server lists at most."""


class MLflow:
    """One MLflow run for each run's folder, all of a project in one experiment.

    Parameters
    ----------
    wishes: `tracking_uri`, `experiment` and `max_artifact_size` of a project, and where it is.
    """

    name = "mlflow"

    def __init__(self, wishes: Settings) -> None:
        self.database = Database(wishes)
        self.destination = self.database.destination
        variable = os.environ.get("MLFLOW_EXPERIMENT_NAME")
        self.experiment = (wishes.experiment or variable or self.database.root.name or "runctx")[:500]
        self.max_artifact_size = wishes.max_artifact_size
        self._group: tuple[Any, Any] = (None, None)

    def identity(self) -> str:
        """Of the experiment as it was made, and of the way runs are described in it."""
        made = self.group.creation_time
        return f"{self.experiment_id} {made} {description.VERSION} {self.max_artifact_size}"

    @property
    def experiment_id(self) -> str:
        """Of the project's experiment."""
        return str(self.group.experiment_id)

    def open(self, run: Record, ref: str | None) -> MLflowView:
        """Its MLflow run, which is made if there is none."""
        found = (find(self.database, ref) if ref else None) or self._search(run.id)
        fresh = found is None or found.info.run_id != ref
        if found is None:
            try:
                found = self._create(run)
            except TrackingError:
                self._group = None, None  # the server may have another database by now
                raise
        elif found.info.lifecycle_stage != "active":
            raise DeletedError(
                f"MLflow at {self.destination}: run {run.id} was deleted there",
                hint=f"`runctx publish {run.id}` restores it",
                ref=found.info.run_id,
            )
        return MLflowView(self, found, fresh)

    def remove(self, run: Record, ref: str | None) -> bool:
        """Delete its MLflow run, what its logging functions have begun, and all files; `mlflow gc` forgets them."""
        file = self.database.file
        if file is not None and not file.exists():
            return False
        found = (find(self.database, ref) if ref else None) or self._search(run.id)
        if found is None or found.info.lifecycle_stage != "active":
            return False
        view = MLflowView(self, found, False)
        view.entity.delete_runs(view.entity.begun_runs())
        view.artifacts.delete([*view.artifacts.names(), KEPT])
        view.entity.delete_runs([view.ref])
        return True

    def is_missing(self, ref: str) -> bool:
        return self._missing(ref)

    def restore(self, ref: str) -> None:
        client = self.database.client
        with self.database.asked(write=True):
            client.restore_run(ref)

    @cached_property
    def _missing(self) -> Callable[[str], bool]:
        """Asked once for all runs. A server lists what was deleted, but not what `mlflow gc` removed."""
        experiment, client = self.experiment_id, self.database.client
        with self.database.asked():
            if self.database.file is not None:  # the client takes seconds where only ids are wanted
                with contextlib.closing(sqlite3.connect(self.database.file)) as connection:
                    rows = connection.execute("SELECT run_uuid FROM runs WHERE lifecycle_stage = 'active'")
                    there = {ref for (ref,) in rows}
                return lambda ref: ref not in there
            from mlflow.entities import ViewType

            deleted = client.search_runs([experiment], "", ViewType.DELETED_ONLY, max_results=_LISTED)
            return {run.info.run_id for run in deleted}.__contains__

    @property
    def group(self) -> Any:
        """The project's experiment, as MLflow says; made if there is none, and asked for once."""
        client = self.database.client
        if self._group[0] is not client:
            with self.database.asked(write=True):
                self._group = client, self._find_group(client)
        group = self._group[1]
        if group.lifecycle_stage != "active":
            self._group = None, None  # it may be restored
            raise TrackingError(
                f"MLflow at {self.destination}: experiment {self.experiment!r} was deleted there",
                hint=f"restore it (`mlflow experiments restore -x {group.experiment_id}`), or set `experiment`",
            )
        return group

    def _find_group(self, client: Any) -> Any:
        from mlflow.exceptions import MlflowException

        found = client.get_experiment_by_name(self.experiment)
        if found is not None:
            return found
        artifacts = self.database.artifacts
        location = None if artifacts is None else (artifacts / _folder(self.experiment)).as_uri()
        try:
            return client.get_experiment(client.create_experiment(self.experiment, location))
        except MlflowException:  # another process was faster
            found = client.get_experiment_by_name(self.experiment)
            if found is None:
                raise
            return found

    def _search(self, id: str) -> Any:
        experiment, client = self.experiment_id, self.database.client
        wanted = f"tags.`{description.ID}` = '{names.mapped(id)}'"
        with self.database.asked():
            from mlflow.entities import ViewType

            found = client.search_runs([experiment], wanted, ViewType.ALL, max_results=1)
        return found[0] if found else None

    def _create(self, run: Record) -> Any:
        experiment, client = self.experiment_id, self.database.client
        tags = {description.ID: names.mapped(run.id), "mlflow.user": run.lock.command.user[:_USER]}
        with self.database.asked(write=True):
            return client.create_run(
                experiment, description.milliseconds(run.lock), tags, run.id[: names.LONGEST]
            )


class MLflowView:
    """One run in MLflow.

    Parameters
    ----------
    found: as MLflow's client gives it.
    """

    def __init__(self, tracker: MLflow, found: Any, fresh: bool) -> None:
        self._tracker = tracker
        self.entity = Entity(tracker.database, found)
        self.artifacts = Artifacts(tracker.database, found.info.artifact_uri)
        self.ref, self.fresh = self.entity.ref, fresh

    def log(self, numbers: Sequence[Number]) -> None:
        """Add numbers; those that are there already stay as they are."""
        from mlflow.entities import Metric

        spelled = {name: names.mapped(name) for name in {number.name for number in numbers}}
        if shortened := {tag: text for name in spelled for tag, text in names.memo(name).items()}:
            self.entity.set(tags=shortened)
        self.entity.add([Metric(spelled[one.name], one.value, one.moment, one.step) for one in numbers])

    def describe(self, run: Record, parents: Mapping[str, str]) -> None:
        """Say all that is not a number, and change nothing that is said already."""
        calling.revert(self.entity, self.artifacts)
        lock, found, notes = run.lock, self.entity.now, readable(run.save_dir)
        links = {id: self._link(id, parents.get(id), run.id) for id in lock.parents}
        said = description.describe(lock, run.status, links, description.children(found.data.tags), notes)
        texts = {}
        if said.long_values:
            text = json.dumps(said.long_values, indent=1, ensure_ascii=False)
            texts[description.LONG_VALUES] = text.encode("utf-8", "backslashreplace")
        chosen = choose(run.save_dir, lock, texts, self._tracker.max_artifact_size)
        before, inventory = found.data.params, self.artifacts.inventory
        tags = said.tags | said.changed(before, frozenset(inventory.function.params))
        if chosen.left_out:
            tags["runctx.not_copied"] = description.listed(chosen.left_out)
        self.entity.set({name: value for name, value in said.params.items() if name not in before}, tags)
        self.entity.delete_tags(description.stale(found.data.tags, tags))
        info = found.info
        if (info.run_name, info.status) != (said.name, said.status) or said.end not in (None, info.end_time):
            self.entity.set_status(said.status, said.end, said.name)
        self.artifacts.bring(chosen.files)
        self.entity.changed()

    def call(self, function: Callable[[Record], Any], run: Record) -> None:
        """Call it while this is MLflow's active run; what an earlier call has left is replaced."""
        calling.call(function, run, self.entity, self.artifacts)

    def close(self) -> None:
        """Nothing is held open."""

    def _link(self, id: str, parent: str | None, child: str) -> str | None:
        """The address of a parent's page; its page gets a link to this one."""
        if parent is None:
            return None
        known: str = self.entity.now.data.tags.get(names.mapped(description.PARENT + id), "")
        if known.endswith(f"/runs/{parent}"):
            return known
        database = self._tracker.database
        with database.asked(write=True):
            found = find(database, parent)
            if found is None:
                return None
            tags = dict(found.data.tags)
            key = names.mapped(description.CHILD + child)
            own = description.page(self.entity.now.info.experiment_id, self.ref)
            active = found.info.lifecycle_stage == "active"
            if active and tags.get(key) != own and (key in tags or description.room_for_child(tags)):
                children = description.children(tags | {key: own})
                note = description.with_children(tags.get(description.NOTE, ""), children)
                Entity(database, found).set(tags={key: own, description.NOTE: note})
        return description.page(found.info.experiment_id, parent)


def _folder(experiment: str) -> str:
    """A name for its folder of files."""
    return names.mapped(experiment).replace("/", "-").replace(":", "-").strip(". ")[:100] or "runs"
