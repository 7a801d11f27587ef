"""What can be asked of a run, live or past, that stands in its lock."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .model import Command, Data, Environment, Failure, Lock, Omission, Origin, Source


class Told:
    """Attributes that are the lock's; `Run` and `Record` say where the lock comes from."""

    @property
    def lock(self) -> Lock:
        """Everything that was recorded."""
        raise NotImplementedError

    @property
    def save_dir(self) -> Path:
        """The run's folder; absolute."""
        raise NotImplementedError

    @property
    def id(self) -> str:
        """`<stage>-<yymmdd>-<HHMMSS>-<6 hex>`; stays when the folder is moved."""
        return self.lock.id

    @property
    def stage(self) -> str:
        """Name of what was done."""
        return self.lock.stage

    @property
    def started(self) -> datetime:
        """With zone, UTC."""
        return self.lock.started

    @property
    def seconds(self) -> float | None:
        """How long it took; None while it runs, or if it never ended."""
        return self.lock.seconds

    @property
    def error(self) -> Failure | None:
        """What ended the run, if it failed or was interrupted."""
        return self.lock.error

    @property
    def command(self) -> Command:
        """What was started, where, by whom."""
        return self.lock.command

    @property
    def seed(self) -> int | None:
        """What the random generators were seeded with."""
        return self.lock.seed

    @property
    def origins(self) -> dict[str, tuple[Origin, ...]]:
        """Dotted key -> who set it, the winner first, then those it beat; `explain(run)` shows it as a table."""
        return self.lock.origins

    @property
    def keys_read(self) -> tuple[str, ...]:
        """Dotted keys of the configuration that were read; known when the run has ended."""
        return self.lock.keys_read

    @property
    def source(self) -> Source:
        """The code."""
        return self.lock.source

    @property
    def commit(self) -> str | None:
        """Hex of the commit that holds the work tree: `git checkout <commit>`. None outside a repository."""
        commit = self.lock.source.commit
        return commit and commit.removeprefix("git:")

    @property
    def inputs(self) -> tuple[Data, ...]:
        """What is read; a digest is None until it is known."""
        return self.lock.inputs

    @property
    def outputs(self) -> tuple[Data, ...]:
        """What was saved; known when the run has ended."""
        return self.lock.outputs

    @property
    def environment(self) -> Environment:
        """Where it runs."""
        return self.lock.environment

    @property
    def omissions(self) -> tuple[Omission, ...]:
        """Everything that was not captured, and why."""
        return self.lock.omissions
