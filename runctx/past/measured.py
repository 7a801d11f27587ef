"""What became of a run's metrics so far? Its lock knows once it has ended; until then its journals do."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from ..errors import LedgerError
from ..layout import METRICS
from ..model import Lock, Summary
from .row import Row

_UNSEALED = ("running", "submitted", "crashed")


def measured(row: Row) -> Row:
    """The row with the metrics as they are now."""
    found = summaries(row.path, row.status)
    return replace(row, metrics=found) if found else row


def with_metrics(lock: Lock, folder: str | os.PathLike[str], status: str) -> Lock:
    """The lock with the metrics as they are now."""
    found = summaries(folder, status)
    return replace(lock, metrics=found) if found else lock


def summaries(folder: str | os.PathLike[str], status: str) -> dict[str, Summary]:
    """Of a run that is not sealed, what its journals say; nothing for others, and where a journal is broken.

    Parameters
    ----------
    status: as a listing says it.
    """
    if status not in _UNSEALED:
        return {}
    from ..trackers import metrics

    try:
        return metrics.summaries(Path(folder) / METRICS)
    except LedgerError:
        return {}  # `run.metrics()` says which file, and what is wrong with it
