"""What lies in a run's folder beside its lock, and can be asked of a live run as of a past one?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..layout import METRICS
from ..told import Told

if TYPE_CHECKING:
    from ..tasks.table import TaskTable
    from ..trackers.metrics import Metrics


class Kept(Told):
    """Attributes that are read from files; each is read when it is asked for."""

    @property
    def tasks(self) -> TaskTable:
        """What became of each task of `run.map` so far; prints as a table, `.failed` are those that failed.

        Raises
        ------
        LedgerError: a file of theirs is missing or broken; names it.
        """
        from ..tasks import table

        return table.read(self.save_dir, self.lock)

    def metrics(self) -> Metrics:
        """Name -> the numbers that were logged, with steps, times and tasks; read from disk. `.to_pandas()` is a table.

        Raises
        ------
        LedgerError: a file in `metrics/` is broken; names it.
        """
        from ..trackers import metrics

        return metrics.read(self.save_dir / METRICS)
