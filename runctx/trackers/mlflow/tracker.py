"""How does a run get into MLflow, and stay as it is on disk?"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ... import places
from ...errors import DeletedError, TrackingError
from ...notes import readable
from . import described, names
from .artifacts import KEPT, Artifacts, as_json, choose
from .database import Database

if TYPE_CHECKING:
    from ...metrics.follower import Number
    from ...past.record import Record
    from ...settings import Settings

_METRICS, _OTHERS, _USER = 1000, 100, 256
"""What MLflow takes: metrics at once; parameters and tags at once; characters of a user's name."""
_LISTED = 50_000
"""Runs that a server lists at most."""
_CHARACTERS = 150_000
"""Of what is sent at once: a server takes a million bytes, and a character can be six."""


class MLflow:
    """One MLflow run for each run's folder, all of a project in one experiment.

    Parameters
    ----------
    wishes: `tracking_uri`, `experiment` and `max_artifact_size` of a project, and where it is.
    """

    name = "mlflow"

    def __init__(self, wishes: Settings) -> None:
        self._wishes, self.database = wishes, Database(wishes)
        self.destination = self.database.destination
        self.experiment = (
            wishes.experiment
            or os.environ.get("MLFLOW_EXPERIMENT_NAME")
            or self.database.root.name
            or "runctx"
        )[:500]
        self.max_artifact_size = wishes.max_artifact_size
        self._group: tuple[Any, Any] = (None, None)

    def identity(self) -> str:
        """Of the experiment as it was made, and of the way runs are described in it."""
        made = self.group.creation_time
        return f"{self.experiment_id} {made} {described.VERSION} {self.max_artifact_size}"

    @property
    def experiment_id(self) -> str:
        """Of the project's experiment."""
        return str(self.group.experiment_id)

    def open(self, run: Record, ref: str | None) -> MLflowView:
        """Its MLflow run, which is made if there is none."""
        found = (self.fetched(ref) if ref else None) or self._searched(run.id)
        fresh = found is None or found.info.run_id != ref
        if found is None:
            try:
                found = self._created(run)
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
        file = places.database(self._wishes)
        if file is not None and not file.exists():
            return False
        found = (self.fetched(ref) if ref else None) or self._searched(run.id)
        if found is None or found.info.lifecycle_stage != "active":
            return False
        view = MLflowView(self, found, False)
        view.discard(view.begun_runs())
        view.artifacts.delete([*view.artifacts.names(), KEPT])
        view.discard([view.ref])
        return True

    def is_missing(self, ref: str) -> bool:
        return self._missing(ref)

    def restore(self, ref: str) -> None:
        with self.database.asked(write=True):
            self.database.store.restore_run(ref)

    @cached_property
    def _missing(self) -> Callable[[str], bool]:
        """Asked once for all runs. A server lists what was deleted, but not what `mlflow gc` removed."""
        experiment, store = self.experiment_id, self.database.store
        from mlflow.entities import ViewType

        with self.database.asked():
            if (engine := getattr(store, "engine", None)) is None:
                deleted = store.search_runs([experiment], "", ViewType.DELETED_ONLY, max_results=_LISTED)
                return {run.info.run_id for run in deleted}.__contains__
            from mlflow.store.tracking.dbmodels.models import SqlRun
            from sqlalchemy import select

            with engine.connect() as connection:
                there = set(
                    connection.scalars(select(SqlRun.run_uuid).where(SqlRun.lifecycle_stage == "active"))
                )
            return lambda ref: ref not in there

    @property
    def group(self) -> Any:
        """The project's experiment, as MLflow says; made if there is none, and asked for once."""
        store = self.database.store
        if self._group[0] is not store:
            with self.database.asked(write=True):
                self._group = store, self._found_group(store)
        group = self._group[1]
        if group.lifecycle_stage != "active":
            self._group = None, None  # it may be restored
            raise TrackingError(
                f"MLflow at {self.destination}: experiment {self.experiment!r} was deleted there",
                hint=f"restore it (`mlflow experiments restore -x {group.experiment_id}`), or set `experiment`",
            )
        return group

    def _found_group(self, store: Any) -> Any:
        from mlflow.exceptions import MlflowException

        found = store.get_experiment_by_name(self.experiment)
        if found is not None:
            return found
        artifacts = self.database.artifacts
        location = None if artifacts is None else (artifacts / _folder(self.experiment)).as_uri()
        try:
            return store.get_experiment(store.create_experiment(self.experiment, location, []))
        except MlflowException:  # another process was faster
            found = store.get_experiment_by_name(self.experiment)
            if found is None:
                raise
            return found

    def fetched(self, ref: str) -> Any:
        """MLflow's entity; None if there is none.

        Raises
        ------
        TrackingError: it cannot be asked.
        """
        store = self.database.store
        from mlflow.exceptions import MlflowException

        with self.database.asked():
            try:
                return store.get_run(ref)
            except MlflowException as error:
                if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                    return None
                raise

    def _searched(self, id: str) -> Any:
        experiment = self.experiment_id
        from mlflow.entities import ViewType

        wanted = f"tags.`{described.ID}` = '{described.tag_value(id)}'"
        with self.database.asked():
            found = self.database.store.search_runs([experiment], wanted, ViewType.ALL, max_results=1)
        return found[0] if found else None

    def _created(self, run: Record) -> Any:
        experiment = self.experiment_id
        from mlflow.entities import RunTag

        with self.database.asked(write=True):
            return self.database.store.create_run(
                experiment,
                run.lock.command.user[:_USER],
                described.milliseconds(run.lock),
                [RunTag(described.ID, described.tag_value(run.id))],
                run.id[: names.LONGEST],
            )


class MLflowView:
    """One run in MLflow.

    Parameters
    ----------
    entity: MLflow's own view of it, as it is now.
    """

    def __init__(self, tracker: MLflow, entity: Any, fresh: bool) -> None:
        self._tracker, self._database = tracker, tracker.database
        self._entity: Any = entity
        self.ref: str = entity.info.run_id
        self.fresh = fresh
        self.artifacts = Artifacts(self._database, entity.info.artifact_uri)

    def log(self, numbers: Sequence[Number]) -> None:
        """Add numbers; those that are there already stay as they are."""
        from mlflow.entities import Metric

        spelled = {name: names.mapped(name) for name in {number.name for number in numbers}}
        if shortened := {tag: text for name in spelled for tag, text in names.memo(name).items()}:
            self.say(tags=shortened)
        self.add([Metric(spelled[one.name], one.value, one.moment, one.step) for one in numbers])

    def describe(self, run: Record, parents: Mapping[str, str]) -> None:
        """Say all that is not a number, and change nothing that is said already."""
        self.revert()
        lock, entity, notes = run.lock, self.entity, readable(run.save_dir)
        links = {id: self._told_to(id, parents.get(id), run.id) for id in lock.parents}
        said = described.described(lock, run.status, links, described.children(entity.data.tags), notes)
        texts = {described.LONG_VALUES: as_json(said.long_values)} if said.long_values else {}
        chosen = choose(run.save_dir, lock, texts, self._tracker.max_artifact_size)
        before, inventory = entity.data.params, self.artifacts.inventory
        tags = said.tags | said.changed(before, frozenset(inventory.function.params))
        if chosen.left_out:
            tags["runctx.not_copied"] = described.listed(chosen.left_out)
        self.say({name: value for name, value in said.params.items() if name not in before}, tags)
        self.unsay(described.stale(entity.data.tags, tags))
        info = entity.info
        if (info.run_name, info.status) != (said.name, said.status) or said.end not in (None, info.end_time):
            self.set_status(said.status, said.end, said.name)
        self.artifacts.bring(chosen.files)
        self._entity = None

    def call(self, function: Callable[[Record], Any], run: Record) -> None:
        """Call it while this is MLflow's active run; what an earlier call has left is replaced."""
        from .calling import called

        called(self, function, run)

    def close(self) -> None:
        """Nothing is held open."""

    # -- what `calling` needs as well ----------------------------------------------------------------------

    @property
    def database(self) -> Database:
        return self._database

    @property
    def entity(self) -> Any:
        """As it is now; asked for again when it was changed."""
        if self._entity is None:
            self._entity = self._tracker.fetched(self.ref)
            if self._entity is None:
                raise TrackingError(
                    f"MLflow at {self._tracker.destination}: run {self.ref} was removed in the meantime",
                    hint="publish it again to make a new one",
                )
        return self._entity

    def changed(self) -> None:
        """It has been changed: ask again."""
        self._entity = None

    def add(self, metrics: Sequence[Any]) -> None:
        """Add MLflow's metrics."""
        longest = max((len(metric.key) for metric in metrics), default=0)
        most = min(_METRICS, _CHARACTERS // (longest + 25))
        for start in range(0, len(metrics), most):
            with self._database.asked(write=True):
                self._database.store.log_batch(self.ref, metrics[start : start + most], [], [])

    def say(self, params: Mapping[str, str] | None = None, tags: Mapping[str, str] | None = None) -> None:
        """Set parameters that are not there, and the tags that differ."""
        self._said(self.ref, params or {}, tags or {}, self.entity.data.tags)

    def unsay(self, tags: Sequence[str]) -> None:
        """Delete tags."""
        for key in tags:
            with self._database.asked(write=True):
                self._database.store.delete_tag(self.ref, key)

    def begun_runs(self) -> list[str]:
        """What logging functions have begun that were called for this one."""
        experiment = self.entity.info.experiment_id
        from mlflow.entities import ViewType

        wanted = f"tags.`{described.BEGUN_BY}` = '{self.ref}'"
        with self._database.asked():
            found = self._database.store.search_runs([experiment], wanted, ViewType.ACTIVE_ONLY)
        return [one.info.run_id for one in found]

    def discard(self, refs: Sequence[str]) -> None:
        """Delete other runs, as far as they are there."""
        for ref in refs:
            found = self._tracker.fetched(ref)
            if found is not None and found.info.lifecycle_stage == "active":
                with self._database.asked(write=True):
                    self._database.store.delete_run(ref)

    def set_status(self, status: str, end: int | None, name: str | None = None) -> None:
        """Milliseconds since 1970; None leaves what is there."""
        from mlflow.entities import RunStatus

        with self._database.asked(write=True):
            self._database.store.update_run_info(self.ref, RunStatus.from_string(status), end, name)

    def revert(self) -> None:
        """Undo what a logging function has left that did not come to its end."""
        if self.artifacts.inventory.begun is not None:
            from .calling import revert

            revert(self)

    # ------------------------------------------------------------------------------------------------------

    def _said(
        self, ref: str, params: Mapping[str, str], tags: Mapping[str, str], there: Mapping[str, str]
    ) -> None:
        from mlflow.entities import Param, RunTag

        new = [Param(key, value) for key, value in params.items()]
        other = [RunTag(key, value) for key, value in tags.items() if there.get(key) != value]
        for batch in _batches([*new, *other]):
            with self._database.asked(write=True):
                kinds = ([one for one in batch if isinstance(one, kind)] for kind in (Param, RunTag))
                self._database.store.log_batch(ref, [], *kinds)

    def _told_to(self, id: str, parent: str | None, child: str) -> str | None:
        """Tell a parent of its child; the address of the parent's page."""
        known = self.entity.data.tags.get(names.mapped(described.PARENT + id), "")
        if parent is None or known.endswith(f"/runs/{parent}"):
            return known if parent is not None else None
        with self._database.asked(write=True):
            other = self._tracker.fetched(parent)
            if other is None:
                return None
            tags = dict(other.data.tags)
            key = names.mapped(described.CHILD + child)
            own = described.page(self.entity.info.experiment_id, self.ref)
            active = other.info.lifecycle_stage == "active"
            if active and tags.get(key) != own and (key in tags or described.room_for_child(tags)):
                told = tags | {key: own}
                note = described.with_children(tags.get(described.NOTE, ""), described.children(told))
                self._said(parent, {}, {key: own, described.NOTE: note}, tags)
        return described.page(other.info.experiment_id, parent)


def _batches(entities: Sequence[Any]) -> Iterator[list[Any]]:
    batch: list[Any] = []
    size = 0
    for one in entities:
        size += len(one.key) + len(one.value)
        if len(batch) == _OTHERS or (batch and size > _CHARACTERS):
            yield batch
            batch, size = [], len(one.key) + len(one.value)
        batch.append(one)
    if batch:
        yield batch


def _folder(experiment: str) -> str:
    """A name for its folder of files."""
    return names.mapped(experiment).replace("/", "-").replace(":", "-").strip(". ")[:100] or "runs"
