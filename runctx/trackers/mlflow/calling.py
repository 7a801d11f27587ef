"""How does a logging function of the user's write into a run in MLflow, such that calling it again changes nothing?

The MLflow run is made the active one of this thread, by the stack that `mlflow.active_run` reads: its status stays
what it is. Numbers and parameters are held back until the function has returned, for MLflow can delete neither, and
numbers that are there already are not added again. Files, tags and further runs, which it can delete, are written at
once; what was there before is noted first, so that they are undone after an exception, or when a kill has left them.
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ...errors import TrackingError
from .artifacts import Called
from .described import BEGUN_BY, OURS

if TYPE_CHECKING:
    from ...past.record import Record
    from .tracker import MLflowView

_one_at_a_time = threading.RLock()
"""Which tracking server MLflow speaks to is a matter of the whole process."""


def called(view: MLflowView, function: Callable[[Record], Any], run: Record) -> None:
    """Call it, and keep what it has left.

    Raises
    ------
    TrackingError: it changes a parameter, or MLflow does not take what it logs.
    Whatever the function raises: then nothing is left of it, nor of the call before.
    """
    view.changed()
    view.revert()
    _undo(view)
    inventory, entity = view.artifacts.inventory, view.entity
    before = Called(
        files=sorted(view.artifacts.names()), tags={key: [value] for key, value in entity.data.tags.items()}
    )
    inventory.begun = before
    view.artifacts.keep()
    held = _Held(entity)
    try:
        with _one_at_a_time, _active(view, entity), _held_back(view, held):
            function(run)
        held.release(view)
    except BaseException:
        with contextlib.suppress(TrackingError):  # it is undone later, and what happened first is told
            _keep_status(view, entity.info)
            revert(view)
        raise
    _keep_status(view, entity.info)
    inventory.function = _left(view, before, held)
    inventory.begun = None
    view.artifacts.keep()


def revert(view: MLflowView) -> None:
    """Undo what a function has left that did not come to its end."""
    inventory = view.artifacts.inventory
    if inventory.begun is not None:
        view.changed()
        inventory.function = _left(view, inventory.begun, None)
        inventory.function.runs += view.begun_runs()
        _undo(view)
        inventory.begun = None
        view.artifacts.keep()


def _keep_status(view: MLflowView, before: Any) -> None:
    """A function may well have ended the run."""
    view.changed()
    now = view.entity.info
    if (now.status, now.end_time) != (before.status, before.end_time):
        view.set_status(before.status, before.end_time)
        view.changed()


def _left(view: MLflowView, before: Called, held: _Held | None) -> Called:
    was = {key: values[0] for key, values in before.tags.items()}
    # a child may have told of itself meanwhile
    now = {key: value for key, value in view.entity.data.tags.items() if not key.startswith(OURS)}
    return Called(
        files=sorted(view.artifacts.names() - set(before.files)),
        params=sorted({*view.artifacts.inventory.function.params, *(held.params if held else ())}),
        tags={key: [was.get(key), value] for key, value in now.items() if was.get(key) != value},
        runs=view.artifacts.inventory.function.runs,
    )


def _undo(view: MLflowView) -> None:
    """Delete what the function has left that was called last; parameters stay, for MLflow cannot delete them."""
    function = view.artifacts.inventory.function
    if function.files:
        view.artifacts.delete(function.files)
    view.discard(function.runs)
    now = view.entity.data.tags
    mine = {key: was for key, (was, since) in function.tags.items() if now.get(key) == since}
    view.say(tags={key: was for key, was in mine.items() if was is not None})
    view.unsay([key for key, was in mine.items() if was is None])
    view.artifacts.inventory.function = Called(params=function.params)
    if mine:
        view.changed()


# -- while it is called ------------------------------------------------------------------------------------


class _Held:
    """Numbers and parameters of one run, until the function has returned."""

    def __init__(self, entity: Any) -> None:
        self._known: dict[str, str] = dict(entity.data.params)
        self.metrics: list[Any] = []
        self.params: dict[str, str] = {}

    def hold(self, metrics: Sequence[Any], params: Sequence[Any]) -> None:
        """
        Raises
        ------
        TrackingError: a parameter has another value already. MlflowException: what MLflow takes from nobody.
        """
        from mlflow.utils.validation import _validate_batch_log_data

        _validate_batch_log_data(metrics, params, [])
        for param in params:
            was = self._known.setdefault(param.key, param.value)
            if was != param.value:
                raise TrackingError(
                    f"parameter {param.key!r} is already {was!r:.200} in MLflow; got {param.value!r:.200}",
                    hint=f"MLflow cannot change a parameter; use mlflow.set_tag({param.key!r}, ...) instead",
                )
            self.params[param.key] = param.value
        self.metrics += metrics

    def release(self, view: MLflowView) -> None:
        """Write what is new."""
        there = view.entity.data.params
        view.say({key: value for key, value in self.params.items() if key not in there})
        by_name: dict[str, dict[int, list[Any]]] = {}
        for metric in self.metrics:
            by_name.setdefault(metric.key, {}).setdefault(metric.step, []).append(metric)
        view.add([metric for name, steps in by_name.items() for metric in _new(view, name, steps)])


def _new(view: MLflowView, name: str, steps: dict[int, list[Any]]) -> Iterator[Any]:
    """Of one metric, those that are not the newest of their step already; they become so."""
    from mlflow import MlflowClient
    from mlflow.entities import Metric

    there: dict[int, list[Any]] = {}
    if name in view.entity.data.metrics:
        with view.database.asked():
            for metric in MlflowClient(view.database.uri).get_metric_history(view.ref, name):
                there.setdefault(metric.step, []).append(metric)
    for step, metrics in steps.items():
        newest = sorted(there.get(step, ()), key=lambda metric: metric.timestamp)[-len(metrics) :]
        if _values(newest) == _values(metrics):
            continue
        moment = newest[-1].timestamp if newest else -1
        for one in metrics:
            moment = max(one.timestamp, moment + 1)
            yield Metric(name, one.value, moment, step, one.model_id, one.dataset_name, one.dataset_digest)


def _values(metrics: Sequence[Any]) -> list[float | None]:
    """As the database gives them back: infinities are the largest numbers there."""
    largest = 1.7976931348623157e308
    return [
        None if math.isnan(one.value) else min(max(float(one.value), -largest), largest) for one in metrics
    ]


@contextlib.contextmanager
def _held_back(view: MLflowView, held: _Held) -> Iterator[None]:
    """What the function logs to this run goes to `held`, by whichever of MLflow's ways; tags are written at once."""
    from mlflow.entities import RunTag
    from mlflow.tracking._tracking_service.utils import _get_store
    from mlflow.utils.async_logging.run_operations import RunOperations

    store, ref = _get_store(view.database.uri), view.ref  # the one that MLflow's functions use
    log_batch, set_tag, create_run = store.log_batch, store.set_tag, store.create_run

    def batch(run_id: str, metrics: Any = (), params: Any = (), tags: Any = ()) -> None:
        if run_id == ref:
            held.hold(metrics, params)
            metrics = params = ()
        if metrics or params or tags:
            with view.database.alone():
                log_batch(run_id, list(metrics), list(params), list(tags))

    def tag(run_id: str, tag: Any) -> None:
        with view.database.alone():
            set_tag(run_id, tag)

    def later(run_id: str, metrics: Any = (), params: Any = (), tags: Any = ()) -> Any:
        batch(run_id, metrics, params, tags)
        return RunOperations([])

    def create(experiment_id: str, user_id: str, start_time: int, tags: Any, run_name: str) -> Any:
        told = [*(tags or ()), RunTag(BEGUN_BY, ref)]  # by which it is found after a kill
        with view.database.alone():
            made = create_run(experiment_id, user_id, start_time, told, run_name)
        view.artifacts.inventory.function.runs.append(made.info.run_id)
        return made

    ours = {
        "create_run": create,
        "log_batch": batch,
        "log_batch_async": later,
        "log_metric": lambda run_id, metric: batch(run_id, [metric]),
        "log_param": lambda run_id, param: batch(run_id, (), [param]),
        "set_tag": tag,
    }
    before = {name: store.__dict__[name] for name in ours if name in store.__dict__}
    store.__dict__.update(ours)
    try:
        yield
    finally:
        for name in ours:
            del store.__dict__[name]
        store.__dict__.update(before)


@contextlib.contextmanager
def _active(view: MLflowView, entity: Any) -> Iterator[None]:
    """Make it the active run of this thread, within one of the user's own, if there is one."""
    import mlflow
    from mlflow.tracking import fluent
    from mlflow.tracking._tracking_service import utils

    uri, variables = utils._tracking_uri, {name: os.environ.get(name) for name in _VARIABLES}
    stack, experiment = fluent._active_run_stack.get(), fluent._active_experiment_id
    runs = list(stack)
    try:
        mlflow.set_tracking_uri(view.database.uri)
        fluent._active_experiment_id = entity.info.experiment_id
        stack.append(mlflow.ActiveRun(entity))
        yield
        mlflow.flush_artifact_async_logging()
    finally:
        stack[:] = runs
        fluent._active_experiment_id = experiment
        mlflow.set_tracking_uri(uri)
        for name, value in variables.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


_VARIABLES = ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID")
