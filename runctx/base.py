"""What can be asked of any run, live or past: what its lock says, and the files beside it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import notes
from .layout import METRICS

if TYPE_CHECKING:
    from .metrics.series import Metrics
    from .model import Command, Data, Environment, Failure, Lock, Omission, Origin, Source
    from .past.record import Record
    from .redact import Redactor
    from .settings import Settings
    from .tasks.table import TaskTable


class BaseRun:
    """The attributes that `Run` and `Record` share; files are read when they are asked for."""

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

    # -- files beside the lock -----------------------------------------------------------------------------

    def plain(self, key: str | None = None) -> Any:
        """The configuration, or what lies at a dotted key of it, as dicts, lists, strings and numbers.

        For libraries that want these: `lgb.train(run.plain("params"), ...)`, `json.dump(run.plain(), file)`. A path is
        its text and an Enum its name; they may be changed, and nothing of the run changes with them.

        Raises
        ------
        ConfigError: there is no such key.

        >>> import tempfile
        >>> from runctx import Run
        >>> with Run({"opt": {"betas": [0.9, 0.99]}}, save_dir=f"{tempfile.mkdtemp()}/a", console=False) as run:
        ...     run.plain("opt")
        {'betas': [0.9, 0.99]}
        """
        from . import config

        return config.plain_of(config.open_config(self.cfg), key)

    @property
    def cfg(self) -> Any:
        """The configuration."""
        raise NotImplementedError

    @property
    def tasks(self) -> TaskTable:
        """What became of each task of `run.map` so far; prints as a table, `.failed` are those that failed.

        Raises
        ------
        LedgerError: a file of theirs is missing or broken; names it.
        """
        from .tasks import table

        return table.read(self.save_dir, self.lock)

    def metrics(self) -> Metrics:
        """Name -> the numbers that were logged, with steps, times and tasks; read from disk. `.to_pandas()` is a table.

        Raises
        ------
        LedgerError: a file in `metrics/` is broken; names it.
        """
        from .metrics import series

        return series.read(self.save_dir / METRICS)

    @property
    def tags(self) -> tuple[str, ...]:
        """What it was tagged with; `tag` and `untag` change it.

        Raises
        ------
        NotesError: the file that holds them is broken; names it.
        """
        return notes.read(self.save_dir).tags

    @property
    def note(self) -> str:
        """What somebody noted of it; it can be assigned to at any time. Raises as `tags`."""
        return notes.read(self.save_dir).note

    @note.setter
    def note(self, text: str) -> None:
        notes.change(self.save_dir, self._own_redactor(), note=text)

    def tag(self, *tags: str) -> None:
        """Add tags, now or long after it has ended; they lie beside its lock. Secrets in them are redacted.

        Raises
        ------
        NotesError: one is empty, too long or of several lines; or they cannot be written.

        >>> import tempfile
        >>> from runctx import Run
        >>> with Run(save_dir=f"{tempfile.mkdtemp()}/first", tags=["baseline"], console=False) as run:
        ...     pass
        >>> run.tag("good")
        >>> run.note = "diverges at step 900"
        >>> run.tags, run.note
        (('baseline', 'good'), 'diverges at step 900')
        """
        notes.change(self.save_dir, self._own_redactor(), add=tags)

    def untag(self, *tags: str) -> None:
        """Remove tags, those that are there. Raises as `tag`."""
        notes.change(self.save_dir, self._own_redactor(), remove=tags)

    def _own_redactor(self) -> Redactor:
        """Knows what is secret in this run, or at least in its project."""
        raise NotImplementedError

    def publish(self, fn: Callable[[Any], Any] | None = None) -> None:
        """Show this run in MLflow, or wherever the project's setting `tracking` says; again, it is brought up to date.

        There it has its configuration, status, code, lineage, numbers and files, the runs that it read from too.
        Of a run that goes on, what is known so far; its end follows by itself.

        Parameters
        ----------
        fn: called last, with this run, while it is MLflow's active run: `mlflow.log_figure` and the like add to it.
            What an earlier call has left is replaced.

        Raises
        ------
        TrackingError: the destination cannot be reached, or does not take it; everything is in the run's folder.
        RunStateError: inside a task of `run.map`.
        Whatever `fn` raises; all else is published then.

        >>> import tempfile
        >>> from runctx import Run
        >>> with Run({"lr": 0.1}, save_dir=f"{tempfile.mkdtemp()}/first", console=False) as run:
        ...     run.log_async(loss=0.3, step=7)
        >>> run.publish()  # doctest: +SKIP
        """
        from .trackers import publishing

        run, wishes = self._to_publish()
        publishing.publish(run, wishes, fn, given=self)

    def _to_publish(self) -> tuple[Record, Settings]:
        """What is known of the run now, and what its project wants."""
        raise NotImplementedError
