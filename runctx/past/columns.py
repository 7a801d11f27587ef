"""Name the values of runs, by which they are chosen, sorted and listed.

`status` and its like are a run's own; `config.opt.lr` is a value of its configuration, and `metrics.loss.min` the
least of a metric's values: `last`, `min`, `max` or `points`, and without any of these the last. The name of a metric
may itself hold dots: the longest that the run has is meant.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..config.messages import nearest
from ..errors import QueryError
from ..model import SYSTEM, Summary
from .row import Row

PARTS = tuple(Summary.__dataclass_fields__)


@dataclass(frozen=True, slots=True)
class Column:
    """One value of each run.

    >>> column("metrics.loss").needs_metrics, column("status").needs_metrics
    (True, False)
    """

    name: str
    """As it is written, e.g. `metrics.loss.min`."""
    of: Callable[[Row], Any]
    """None where the run has no such value, or has null."""
    section: Literal["config", "metrics", "tags", ""] = ""
    """The attribute of a row that holds it; empty for what every run has."""

    @property
    def needs_metrics(self) -> bool:
        return self.section == "metrics"


def column(name: str) -> Column:
    """The column that is called `name`.

    Raises
    ------
    QueryError: no value can be called so.

    >>> from datetime import datetime, UTC
    >>> row = Row(id="a", stage="a", status="done", started=datetime.now(UTC), config={"opt.lr": 0.1})
    >>> column("config.opt.lr").of(row), column("metrics.loss").of(row)
    (0.1, None)
    """
    if name in _OWN:
        return Column(name, _OWN[name])
    section, dot, key = name.partition(".")
    if section == "config" and dot:
        return Column(name, lambda row: row.config.get(key), "config")
    if section == "metrics" and dot:
        return Column(name, _of_metric(key), "metrics")
    if section == "tags" and dot:
        return Column(name, lambda row: key in row.tags or None, "tags")
    raise QueryError(f"unknown name {name!r}", hint=_slip(name))


def _of_metric(name: str) -> Callable[[Row], Any]:
    shorter, _, part = name.rpartition(".")

    def value(row: Row) -> Any:
        if name in row.metrics:
            return row.metrics[name].last
        if part in PARTS and shorter in row.metrics:
            return getattr(row.metrics[shorter], part)
        return None

    return value


def started(row: Row) -> str | None:
    """Local date and time, to the second, e.g. `2026-11-21T15:04:05`."""
    if row.started is None:
        return None
    try:
        return f"{row.started.astimezone():%Y-%m-%dT%H:%M:%S}"
    except (OverflowError, ValueError, OSError):  # the first and last days of the calendar
        return f"{row.started:%Y-%m-%dT%H:%M:%S}"


def _error(row: Row) -> str | None:
    return row.error and row.error.removeprefix("builtins.")


def _attribute(name: str) -> Callable[[Row], Any]:
    return lambda row: getattr(row, name)


_PLAIN = ("id", "stage", "status", "seconds", "commit", "dirty", "path", "tasks", "tasks_done")
_OWN: dict[str, Callable[[Row], Any]] = {
    **{name: _attribute(name) for name in _PLAIN},
    "started": started,
    "error": _error,
    "parents": lambda row: list(row.parents),  # as the lists of a configuration
    "tags": lambda row: list(row.tags) or None,
    "note": _attribute("note"),
}
_BRACKETS = re.compile(r"\[(['\"]?)(.*?)\1\]")


def _slip(name: str) -> str:
    said = {"true": "True", "false": "False", "null": "None", "none": "None"}.get(name.lower())
    if said:
        return f"write {said}"
    plain = _BRACKETS.sub(r".\2", name)
    if plain != name:  # as in an expression, where a name alone is meant
        return f"write {plain}"
    first, _, rest = name.partition(".")
    if first in _OWN and rest:
        return f"{first} has no parts"
    if first in ("config", "metrics"):
        return f"name a key, for example {first}.{'lr' if first == 'config' else 'loss'}"
    alike = nearest(name, _OWN, 1)
    return f"did you mean {alike[0] if alike else f'config.{name} or metrics.{name}'}?"


def unmet(columns: Iterable[Column], rows: Sequence[Row]) -> Iterator[str]:
    """A sentence for each value that none of the runs has, with the name that was probably meant."""
    for one in columns:
        if rows and one.section and all(one.of(row) is None for row in rows):
            known = {key for row in rows for key in getattr(row, one.section)}
            key = one.name.partition(".")[2]
            if key not in known:  # else all have null
                hint = meant(key, known, f"{one.section}.")
                if hint is None and one.needs_metrics:
                    hint = other_metrics(key, known)
                yield f"no run has {one.name}" + (f"; {hint}" if hint else "")


def other_metrics(name: str, known: Collection[str]) -> str | None:
    """A hint with the metrics there are, those first that are called like this one; None if it is one of them."""
    there = sorted(one for one in known if not one.startswith(SYSTEM))
    first = list(dict.fromkeys([*nearest(name, there), *there]))
    more = f" … {len(first) - _MOST} more" if len(first) > _MOST else ""
    return f"there are: {', '.join(first[:_MOST])}{more}" if there and name not in known else None


_MOST = 10
"""Metrics that a hint names."""


def meant(name: str, known: Collection[str], prefix: str = "") -> str | None:
    """A hint with the names, after a prefix, that are most like this one."""
    found = [] if name in known else [f"{prefix}{one}" for one in nearest(name, known)]
    return f"did you mean {' or '.join(found)}?" if found else None


def in_order(rows: Sequence[Row], by: Column, *, reverse: bool = False) -> list[int]:
    """The places of the rows, sorted: numbers before texts before all else; what is missing, or no number, is last."""
    values = [by.of(row) for row in rows]
    there = [n for n, value in enumerate(values) if value is not None and value == value]
    missing = [n for n, value in enumerate(values) if value is None or value != value]
    return sorted(there, key=lambda n: _rank(values[n]), reverse=reverse) + missing


def _rank(value: Any) -> tuple[int, Any]:
    if isinstance(value, (bool, int, float)):
        return 0, value
    return (1, value) if isinstance(value, str) else (2, repr(value))


def direction(metric: str) -> Literal["min", "max"] | None:
    """Whether less or more of a metric is better, as far as the words of its name tell.

    A name that begins with `neg`, as those of scikit-learn's scorers, is turned round; a weight or a scale of a loss
    is no loss.

    >>> direction("val/loss"), direction("top1_acc"), direction("neg_mean_squared_error"), direction("loss_scale")
    ('min', 'max', 'max', None)
    """
    pieces = re.split(r"[^a-z0-9]+", metric.lower())
    names = [*pieces, *_BETWEEN.sub(" ", metric).lower().split()]
    low, high, neither = (any(map(kind.fullmatch, names)) for kind in (_LOW, _HIGH, _NEITHER))
    if neither or not (low or high):
        return None
    return "min" if low is not (pieces[0] == "neg") else "max"


_BETWEEN = re.compile(r"[^A-Za-z0-9]+|(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
"""What is between two words, in `BCELoss` too."""
_LOW = re.compile(
    r"(\w*loss|errors?|err|mse|rmse|mae|s?mape|r?msle|nll|crps|ppl|perplexity|[wc]er|eer|fid|kid|lpips"
    r"|brier|ece|regret|cost)\d*"
)
_HIGH = re.compile(
    r"(acc|\w*accuracy|auc|auroc|auprc|map|f1|fscore|precision|recall|specificity|sensitivity|score|reward|return|bleu"
    r"|rouge|meteor|m?iou|jaccard|dice|r2|mcc|kappa|ndcg|mrr|psnr|ssim)\d*"
)
_NEITHER = re.compile(r"weights?|scale|coef|coefficient|lambda|threshold|count|size|steps|seconds|time")
"""Words of what belongs to a loss or a score, and is none."""


def best_of(metric: str, mode: str) -> Column:
    """What `best` goes by: the greatest or the least value a metric had, or the part of it that is named."""
    name = metric.removeprefix("metrics.")
    of_part = _of_metric(name)

    def value(row: Row) -> Any:
        found = row.metrics.get(name)
        return of_part(row) if found is None else getattr(found, mode)

    return Column(f"metrics.{name}", value, "metrics")
