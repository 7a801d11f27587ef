"""A run that is entered inside a task of `run.map`, or in another rank: it joins the run that is there already."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from . import config, inputs, layout, ranks, settings, snapshot, upstream
from .capture import program, seeding
from .errors import RunStateError
from .redact import Redactor
from .session import Given, Session, failure, status_of
from .tasks import attached

if TYPE_CHECKING:
    import loguru

    from .model import Failure, Lock, Status


class AttachedSession(Session):
    """A session in a task: folder, log and lock are those of the run that maps it.

    Raises
    ------
    ConfigError, InputError: as for any run.
    """

    ends_with_process = False
    task: attached.Task

    def __init__(self, given: Given, task: attached.Task, frame: FrameType) -> None:
        super().__init__(replace(given, inputs=()), frame)
        parent = task.parent
        self.task = task
        self._program = program.place(frame)
        self.cfg = config.open_anew(given.cfg)
        config.latest_runs(self.cfg).update(parent.latest)
        started = parent.started.astimezone()
        config.fill_in(self.cfg, started, os.fspath(parent.save_dir), self._program)
        self.redactor = parent.redactor
        # before any text: it may hold the secrets met here
        self.redacted_cfg = parent.redactor.mapping(config.to_plain(self.cfg))
        paths = inputs.paths(
            given.inputs,
            layout.here() or Path(),
            parent.results,
            lambda text: config.interpolated(self.cfg, text, started),
        )
        self.inputs = task.read((name for name, _ in given.inputs), paths)
        self.files = layout.RunFiles(parent.save_dir)
        self.log, self.label, self.journal = parent.log, str(task), task.journal
        self._ended: tuple[Status, Failure | None] = ("running", None)
        self.state = "open"
        if given.seed is not None:
            seeding.seed_all(given.seed)

    @property
    def lock(self) -> Lock:
        """That of the run that maps, with what is this session's own."""
        known = attached.lock_of(self.parent())
        status, error = self._ended
        own = [one.data for one in self.inputs]
        earlier = upstream.find(
            [(data.path, Path(data.path)) for data in own],
            known=upstream.known_to(known),
            own=self.files.root,
        )
        return replace(
            known,
            origins=config.origins_of(self.cfg, self._program, self.redactor),
            status=status,
            error=error,
            seed=self.given.seed,
            config=self.redacted_cfg,
            config_digest=config.value_digest(self.redacted_cfg),
            inputs=(*known.inputs, *map(earlier.owned, own)),
            parents=earlier.parents,
            upstream=earlier.locks,
        )

    @property
    def logger(self) -> loguru.Logger:
        return self.log.logger.bind(task=self.label)

    def parent(self) -> attached.Parent:
        return self.task.parent

    def map(self, function: Any, tasks: Any, into: str | None, **how: Any) -> Sequence[Any]:
        from .tasks import mapping

        if not self.task.map:
            raise RunStateError(
                "run.map() was called in a process that was spawned with the run",
                hint="call it in the process that entered the run",
            )
        base = None if into is None else self.unresolved()
        return mapping.inside_a_task(
            function, tasks, into, base, how["retries"], how["on_error"], self.redactor
        )

    def leave(self, error: BaseException | None, status: Status | None = None) -> None:
        self.state = "left"
        self.keep_locals()
        self._ended = status or status_of(error), failure(error, self.redactor)


class RankSession(AttachedSession):
    """A session in a rank other than 0 of a distributed training: it joins the run of rank 0."""

    ends_with_process = True

    def __init__(self, given: Given, rank: ranks.Rank, frame: FrameType) -> None:
        place = program.folder()
        wishes = settings.load(place)
        redactor, results = Redactor(wishes.redact), wishes.root / wishes.results
        root = snapshot.find_repository(place)
        stage = given.stage and program.given_stage(given.stage)
        stage = stage or program.stage_of(frame, program.command(root, redactor), root)
        self._rank = ranks.attach(rank, rank.file(results, stage), results, redactor, console=given.console)
        super().__init__(given, self._rank, frame)
        self._rank.enter()
        for one in self.inputs:
            self.log.warn(f"not captured: input {one.data.path} of {self._rank}: rank 0 does not read it")
        if config.value_digest(self.redacted_cfg) != attached.lock_of(self._rank.parent).config_digest:
            self.log.warn(
                f"the configuration of {self._rank} is not that of rank 0, which is recorded; "
                f"with {ranks.OFF}=off each rank is a run of its own"
            )

    def map(self, function: Any, tasks: Any, into: str | None, **how: Any) -> Sequence[Any]:
        raise RunStateError(
            f"run.map() was called in {self._rank}, as in every rank",
            hint="call it in rank 0 only: its tasks would be done once for each rank",
        )

    def leave(self, error: BaseException | None, status: Status | None = None) -> None:
        super().leave(error, status)
        self._rank.leave(*self._ended)
