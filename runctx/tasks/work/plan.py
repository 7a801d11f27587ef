"""What is a launcher, and what is it told of a map? Where its ledger is, and how a shift of it is worked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

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


class Launched(Protocol):
    """The workers of one map, once they were asked for."""

    def wait(self) -> str | None:
        """Return when every task has been done, or nobody works any more, and why; may do the work itself.

        Whatever it raises ends the map, and leaves the ledger such that the run can be resumed.
        """


class Launcher(Protocol):
    """Where tasks run."""

    @property
    def name(self) -> str:
        """As the lock tells it."""

    @property
    def in_process(self) -> bool:
        """Whether workers are this process or its threads: then nothing has to be pickled."""

    @property
    def waits(self) -> bool:
        """Whether `run.map` waits for the tasks; else it returns at once, and `collect` is called later."""

    def launch(self, plan: Plan) -> Launched:
        """Start workers; `plan` says for what, and gives what they call.

        Raises
        ------
        RunctxError: it is not possible here.
        """
