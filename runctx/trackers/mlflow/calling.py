"""Call a logging function of the user's while a run is MLflow's active one, such that calling it again changes nothing.

Numbers and parameters are held back until the function has returned, for MLflow can delete neither, and numbers that
are there already are not added again. Files, tags and further runs are written at once; what was there before is noted
first, so that they are undone after an exception, or when a kill has left them.
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ...errors import TrackingError
from .artifacts import Artifacts, Called
from .description import BEGUN_BY, OURS
from .entity import Entity
from .names import is_taken

if TYPE_CHECKING:
    from ...past.record import Record

_one_at_a_time = threading.RLock()
"""The server that MLflow speaks to is a matter of the whole process."""
_VARIABLES = ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID")


def call(function: Callable[[Record], Any], run: Record, entity: Entity, artifacts: Artifacts) -> None:
    """Call it, and keep what it has left.

    Raises
    ------
    TrackingError: it changes a parameter, or MLflow does not take what it logs.
    Whatever the function raises: then nothing is left of it, nor of the call before.
    """
    entity.changed()
    revert(entity, artifacts)
    _undo(entity, artifacts)
    inventory, found = artifacts.inventory, entity.now
    tags: dict[str, list[str | None]] = {key: [value] for key, value in found.data.tags.items()}
    inventory.begun = before = Called(files=sorted(artifacts.names()), tags=tags)
    artifacts.keep()
    held = _Held(entity, artifacts)
    try:
        with _one_at_a_time, held.intercepting(), _active(entity):
            function(run)
        held.release()
    except BaseException:
        with contextlib.suppress(TrackingError):  # it is undone later, and what happened first is told
            _restore_status(entity, found)
            revert(entity, artifacts)
        raise
    _restore_status(entity, found)
    inventory.function = _left(entity, artifacts, before, held.params)
    inventory.begun = None
    artifacts.keep()


def revert(entity: Entity, artifacts: Artifacts) -> None:
    """Undo what a function has left that did not come to its end."""
    inventory = artifacts.inventory
    if inventory.begun is not None:
        entity.changed()
        inventory.function = _left(entity, artifacts, inventory.begun, ())
        inventory.function.runs += entity.begun_runs()
        _undo(entity, artifacts)
        inventory.begun = None
        artifacts.keep()


def _restore_status(entity: Entity, before: Any) -> None:
    """To be the active run is to be running; the end that is there stays."""
    entity.set_status(before.info.status)
    entity.changed()


def _left(entity: Entity, artifacts: Artifacts, before: Called, params: Any) -> Called:
    was = {key: values[0] for key, values in before.tags.items()}
    # a child may have told of itself meanwhile
    now = {key: value for key, value in entity.now.data.tags.items() if not key.startswith(OURS)}
    return Called(
        files=sorted(artifacts.names() - set(before.files)),
        params=sorted({*artifacts.inventory.function.params, *params}),
        tags={key: [was.get(key), value] for key, value in now.items() if was.get(key) != value},
        runs=artifacts.inventory.function.runs,
    )


def _undo(entity: Entity, artifacts: Artifacts) -> None:
    """Delete what the function has left that was called last; parameters stay, for MLflow cannot delete them."""
    function = artifacts.inventory.function
    artifacts.delete(function.files)
    entity.delete_runs(function.runs)
    now = entity.now.data.tags
    mine = {key: was for key, (was, since) in function.tags.items() if now.get(key) == since}
    entity.set(tags={key: was for key, was in mine.items() if was is not None})
    entity.delete_tags([key for key, was in mine.items() if was is None])
    artifacts.inventory.function = Called(params=function.params)
    if mine:
        entity.changed()


@contextlib.contextmanager
def _active(entity: Entity) -> Iterator[None]:
    """Make it the active run of this thread, within one of the user's own, if there is one."""
    import mlflow
    from mlflow.tracking import fluent

    variables = {name: os.environ.get(name) for name in _VARIABLES}
    outer = mlflow.active_run()
    # private: `set_experiment` cannot be taken back, and a run of another experiment than it said cannot be started
    experiment = fluent._active_experiment_id
    try:
        mlflow.set_tracking_uri(entity.database.address)
        fluent._active_experiment_id = entity.now.info.experiment_id
        with entity.database.asked(write=True):
            mlflow.start_run(run_id=entity.ref, nested=True, log_system_metrics=False)
        try:
            yield
        finally:
            if (run := mlflow.active_run()) and run.info.run_id == entity.ref:
                mlflow.flush_artifact_async_logging()  # which would start a run if there were none
            while (run := mlflow.active_run()) and (outer is None or run.info.run_id != outer.info.run_id):
                mlflow.end_run()
    finally:
        fluent._active_experiment_id = experiment
        mlflow.set_tracking_uri(None)  # what the user has set stands in the variable as well
        for name, value in variables.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


class _Held:
    """Numbers and parameters of one run, until the function has returned."""

    def __init__(self, entity: Entity, artifacts: Artifacts) -> None:
        self._entity, self._artifacts = entity, artifacts
        self._known: dict[str, str] = dict(entity.now.data.params)
        self.metrics: list[Any] = []
        self.params: dict[str, str] = {}

    @contextlib.contextmanager
    def intercepting(self) -> Iterator[None]:
        """Hold back what is logged to this run, by whichever of MLflow's ways: all of them lead through its client."""
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param
        from mlflow.utils.async_logging.run_operations import RunOperations

        ref, alone = self._entity.ref, self._entity.database.alone
        log_batch, create_run = MlflowClient.log_batch, MlflowClient.create_run
        set_terminated = MlflowClient.set_terminated

        def batch(
            client: Any,
            run_id: str,
            metrics: Any = (),
            params: Any = (),
            tags: Any = (),
            synchronous: Any = None,
        ) -> Any:
            if run_id == ref:
                self.hold(metrics, params)
                metrics = params = ()
            if metrics or params or tags:
                with alone():
                    return log_batch(client, run_id, metrics, params, tags, synchronous)
            return None if synchronous in (None, True) else RunOperations([])

        def metric(
            client: Any,
            run_id: str,
            key: str,
            value: float,
            timestamp: int | None = None,
            step: int | None = None,
            synchronous: Any = None,
            **more: Any,
        ) -> Any:
            one = Metric(key, value, timestamp or time.time_ns() // 1_000_000, step or 0, **more)
            return batch(client, run_id, [one], synchronous=synchronous)

        def param(client: Any, run_id: str, key: str, value: Any, synchronous: Any = None) -> Any:
            done = batch(client, run_id, params=[Param(key, str(value))], synchronous=synchronous)
            return value if done is None else done

        def create(
            client: Any, experiment_id: str, start_time: Any = None, tags: Any = None, run_name: Any = None
        ) -> Any:
            told = {**(tags or {}), BEGUN_BY: ref}  # by which it is found after a kill
            with alone():
                made = create_run(client, experiment_id, start_time, told, run_name)
            self._artifacts.inventory.function.runs.append(made.info.run_id)
            return made

        def terminated(
            client: Any, run_id: str, status: str | None = None, end_time: int | None = None
        ) -> None:
            if run_id != ref:
                set_terminated(client, run_id, status, end_time)

        ours = {
            "create_run": create,
            "log_batch": batch,
            "log_metric": metric,
            "log_param": param,
            "set_terminated": terminated,
        }
        before = {name: getattr(MlflowClient, name) for name in ours}
        for name, method in ours.items():
            setattr(MlflowClient, name, method)
        try:
            yield
        finally:
            for name, method in before.items():
                setattr(MlflowClient, name, method)

    def hold(self, metrics: Sequence[Any], params: Sequence[Any]) -> None:
        """
        Raises
        ------
        TrackingError: a parameter has another value already. MlflowException: what MLflow takes from nobody.
        """
        from mlflow import MlflowException

        for one in (*metrics, *params):
            if not is_taken(one.key):
                raise MlflowException(
                    f"invalid name {one.key!r}: MLflow takes letters, digits and _ - . : / space"
                )
        for one in metrics:
            try:
                float(one.value)
            except (TypeError, ValueError) as error:
                raise MlflowException(
                    f"metric {one.key!r} must be a number; got {one.value!r:.80}"
                ) from error
        for param in params:
            was = self._known.setdefault(param.key, param.value)
            if was != param.value:
                raise TrackingError(
                    f"parameter {param.key!r} is already {was!r:.200} in MLflow; got {param.value!r:.200}",
                    hint=f"MLflow cannot change a parameter; use mlflow.set_tag({param.key!r}, ...) instead",
                )
            self.params[param.key] = param.value
        self.metrics += metrics

    def release(self) -> None:
        """Write what is new."""
        there = self._entity.now.data.params
        self._entity.set({key: value for key, value in self.params.items() if key not in there})
        by_name: dict[str, dict[int, list[Any]]] = {}
        for metric in self.metrics:
            by_name.setdefault(metric.key, {}).setdefault(metric.step, []).append(metric)
        self._entity.add([new for name, steps in by_name.items() for new in _new(self._entity, name, steps)])


def _new(entity: Entity, name: str, steps: dict[int, list[Any]]) -> Iterator[Any]:
    """Of one metric, those that are not the newest of their step already; they become so."""
    from mlflow.entities import Metric

    there: dict[int, list[Any]] = {}
    if name in entity.now.data.metrics:
        with entity.database.asked():
            for metric in entity.database.client.get_metric_history(entity.ref, name):
                there.setdefault(metric.step, []).append(metric)
    for step, metrics in steps.items():
        newest = sorted(there.get(step, ()), key=lambda metric: metric.timestamp)[-len(metrics) :]
        if _values(newest) == _values(metrics):
            continue
        moment = newest[-1].timestamp if newest else -1
        for one in metrics:
            moment = max(one.timestamp, moment + 1)
            yield Metric(
                name, float(one.value), moment, step, one.model_id, one.dataset_name, one.dataset_digest
            )


def _values(metrics: Sequence[Any]) -> list[float | None]:
    """As the database gives them back: infinities are the largest numbers there."""
    largest = 1.7976931348623157e308
    return [
        None if math.isnan(one.value) else min(max(float(one.value), -largest), largest) for one in metrics
    ]
