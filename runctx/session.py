"""What a run is once it has been entered: the base of a session of its own, and of one attached to another run's."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING, Any, Literal

from . import said
from .capture import program
from .errors import ConfigError, SaveDirError
from .model import Failure
from .redact import Redactor

if TYPE_CHECKING:
    import loguru
    from omegaconf import DictConfig

    from . import layout
    from .base import BaseRun
    from .capture.log import RunLog
    from .metrics.journal import Journal
    from .model import Lock, Status
    from .tasks.attached import Parent, Task


@dataclass(frozen=True, kw_only=True)
class Given:
    """What `Run` was called with."""

    cfg: Any
    inputs: tuple[tuple[str | None, str | os.PathLike[str]], ...]
    """Name and input of each."""
    stage: str | None
    save_dir: str | os.PathLike[str] | None
    resume: bool | BaseRun | str | os.PathLike[str]
    seed: int | None
    tags: tuple[str, ...]
    note: str
    capture: bool
    console: bool


class Session:
    """One entry of a run.

    Parameters
    ----------
    frame: of the user's code that enters it.
    """

    ends_with_process: bool
    """Whether it must still be left when its process ends."""
    task: Task | None = None
    """The task, or rank, in which it was entered."""
    cfg: DictConfig
    """Every value resolved."""
    files: layout.RunFiles
    log: RunLog
    redactor: Redactor
    journal: Journal | None = None
    """Takes the numbers that are logged."""

    def __init__(self, given: Given, frame: FrameType) -> None:
        self.given = given
        self.frame: FrameType | None = frame
        self.outermost: FrameType | None = None
        """The one in which everything else is called, of a run that `start()` has entered."""
        self.pid = os.getpid()
        self.state: Literal["new", "open", "leaving", "left"] = "new"
        self._locals: dict[str, Any] = {}

    @property
    def lock(self) -> Lock:
        """What is known so far."""
        raise NotImplementedError

    @property
    def logger(self) -> loguru.Logger:
        raise NotImplementedError

    def open_journal(self) -> Journal:
        """Make the journal, with the first number that is logged."""
        raise NotImplementedError

    def parent(self) -> Parent:
        """What whoever attaches to this run needs of it."""
        raise NotImplementedError

    def unresolved(self) -> DictConfig:
        """The configuration as it was given: what is derived follows when a task is laid on it.

        Raises
        ------
        ConfigError: it is not what it was at entry.
        """
        from . import config

        known = self.parent()
        base = config.open_anew(self.given.cfg)
        config.latest_runs(base).update(known.latest)
        again = base.copy()
        config.fill_in(again, known.started.astimezone(), os.fspath(known.save_dir))
        if config.to_plain(again) != config.to_plain(self.cfg):
            raise ConfigError(
                "the configuration that the run was given has been changed since the run was entered",
                hint="give Run a configuration of its own, and `run.map` what differs",
            )
        return base

    def map(self, function: Any, tasks: Any, into: str | None, **how: Any) -> Sequence[Any]:
        """`Run.map`, with arguments that were checked."""
        raise NotImplementedError

    def leave(self, error: BaseException | None, status: Status | None = None) -> None:
        raise NotImplementedError

    # -- the variables of the function that it was entered in --------------------------------------------------

    @property
    def locals(self) -> dict[str, Any]:
        """Now, or as it was left."""
        frame = self.frame  # which another thread may let go of
        return self._locals if frame is None else program.variables(frame)

    def keep_locals(self) -> None:
        """Keep the variables, and let go of the frames: they keep everything in them alive."""
        frame, self.frame, self.outermost = self.frame, None, None
        self._locals = {} if frame is None else program.variables(frame)

    def drop_locals(self) -> None:
        self._locals = {}


def refuse_save_dir(save_dir: str | os.PathLike[str] | None) -> None:
    if save_dir is not None:
        raise SaveDirError(
            f"save_dir={os.fspath(save_dir)!r} cannot be given to a resumed run",
            hint="leave save_dir out; a resumed run keeps its folder",
        )


def status_of(error: BaseException | None) -> Status:
    """done, failed or interrupted.

    >>> status_of(None), status_of(ValueError()), status_of(KeyboardInterrupt()), status_of(SystemExit(0))
    ('done', 'failed', 'interrupted', 'done')
    """
    if error is None or (isinstance(error, SystemExit) and error.code in (None, 0)):
        return "done"
    interrupted = (
        isinstance(error, (KeyboardInterrupt, GeneratorExit)) or type(error).__name__ in _ENDED_EARLY
    )
    return "interrupted" if interrupted else "failed"


_ENDED_EARLY = ("CancelledError", "TrialPruned")
"""Exceptions of asyncio and Optuna that are no failure."""


def failure(error: BaseException | None, redactor: Redactor) -> Failure | None:
    """What the lock says of it; None if it is no failure."""
    if error is None or status_of(error) == "done":
        return None
    # as code: a traceback quotes lines of it, with the literals they hold
    return Failure(
        type=said.kind(error),
        message=redactor.text(said.message(error)),
        traceback=redactor.text(said.traceback_text(error)),
    )
