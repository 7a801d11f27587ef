"""Is this inside a task, and what does a run that is entered there share with its parent?"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..logs import RunLog


@dataclass(frozen=True, kw_only=True)
class Parent:
    """What tasks need of the run that maps them; picklable."""

    save_dir: Path
    id: str
    started: datetime
    """What `${now:...}` means in a task, too."""
    log: RunLog
    seed: int | None
    """From which every task gets a seed of its own."""
    covered: tuple[str, ...] = ()
    """Absolute paths of the parent's own inputs: what lies there is hashed with them."""


@dataclass(slots=True)
class Task:
    """The task that a worker is at; its worker changes it from one task to the next."""

    parent: Parent
    map: str
    """Name of the map, which is the folder below `tasks/`."""
    key: str = ""
    inputs: list[tuple[str, str | None, int]] = field(default_factory=list)
    """Path, digest (None: not hashed) and bytes of what runs inside the task said they read."""


current: ContextVar[Task | None] = ContextVar("runctx_task", default=None)
"""The task this thread is at; the only state of the package that is not a run's."""
