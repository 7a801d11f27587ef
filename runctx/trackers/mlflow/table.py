"""What does MLflow's table of runs show at first? All runs, with their parameters and metrics.

Left alone, that table shows neither parameters nor metrics, and runs only where those that they read from are unfolded.
MLflow keeps a named view of it as a tag of the experiment.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .tracker import MLflow

KEY = "runctx"
"""Name of the view."""
_TAG = f"mlflow.sharedViewState.{KEY}"
_LOOKED_AT = 200
"""Runs, the newest, that the columns are chosen by."""
_PARAMS, _METRICS = 10, 6
"""Most columns of each kind."""
_ORDER = "attributes.`Created`"
"""The newest first: another name of the usual order, by which MLflow folds runs below those they read from."""
_LONGEST = 60
"""Characters of a name that makes a column."""


def page(experiment: str, *, arranged: bool = True) -> str:
    """Address of the table, within MLflow; without this type, it shows the page of language models' traces."""
    view = f"&viewStateShareKey={KEY}" if arranged else ""
    return f"#/experiments/{experiment}/runs?workflowType=machine_learning{view}"


def arrange(tracker: MLflow) -> None:
    """Choose what the table shows by the runs that are there now.

    Raises
    ------
    TrackingError: the destination does not take it.
    """
    from mlflow.entities import ExperimentTag, ViewType

    experiment, store = tracker.experiment_id, tracker.database.store
    with tracker.database.asked(write=True):
        runs = store.search_runs([experiment], "", ViewType.ACTIVE_ONLY, max_results=_LOOKED_AT)
        state = json.dumps({"orderByKey": _ORDER, "orderByAsc": False, "selectedColumns": columns(runs)})
        before = store.get_experiment(experiment).tags.get(_TAG)
        if before is None or json.loads(before).get("state") != state:
            # it is as it was when the view was made: the moment is part of the format, and shown nowhere
            view = {"name": KEY, "createdAt": 0, "updatedAt": 0, "state": state}
            store.set_experiment_tag(experiment, ExperimentTag(_TAG, json.dumps(view)))


def columns(runs: Sequence[Any]) -> list[str]:
    """Of MLflow's table: first what tells most runs apart."""
    params: dict[str, Counter[str]] = {}
    metrics: Counter[str] = Counter()
    for run in runs:
        for name, value in run.data.params.items():
            params.setdefault(name, Counter())[value] += 1
        metrics.update(name for name in run.data.metrics if not name.startswith("system/"))
    # in how many runs a parameter is not what it usually is, and then in how many it is at all
    telling = sorted(params, key=lambda name: (-_varied(params[name]), -params[name].total(), name))
    often = sorted(metrics, key=lambda name: (-metrics[name], name))
    return [
        *_named("attributes", ["Version"]),
        *_named("metrics", _short(often)[:_METRICS]),
        *_named("params", _short(telling)[:_PARAMS]),
        *_named("tags", ["runctx.stage", "runctx.status"]),
    ]


def _varied(values: Counter[str]) -> int:
    return values.total() - values.most_common(1)[0][1]


def _named(group: str, names: Iterable[str]) -> list[str]:
    return [f"{group}.`{name}`" for name in names]


def _short(names: Iterable[str]) -> list[str]:
    return [name for name in names if len(name) <= _LONGEST]
