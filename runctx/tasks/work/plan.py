"""What is a launcher told of a map? Where its ledger is, and how a shift of it is worked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...layout import TaskFiles

if TYPE_CHECKING:
    from ...model import Source
    from .shift import Start, Watch


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One map, ready to be worked on; picklable."""

    save_dir: Path
    map: str
    run_id: str
    todo: int
    """How many tasks are to be done."""
    source: Source
    """The code, as the lock names it."""
    repository: Path | None
    """Its work tree; None outside a repository."""

    @property
    def files(self) -> TaskFiles:
        return TaskFiles(self.save_dir, self.map)

    def watch(self, start: Start, workers: int, **more: Any) -> Watch:
        """A shift in this process, which still has to be run; parameters as for `tasks.work.shift.Watch`."""
        from .shift import Watch

        return Watch(self.save_dir, self.map, start, workers, **more)
