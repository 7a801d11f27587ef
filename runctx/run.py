"""The run: how is it entered, left, and what can be asked of it meanwhile?

The only place where the facts meet. Entry and exit are lists of steps; a step of ours that fails becomes an
omission and a warning, an exception of the user's is never swallowed, replaced or delayed.
"""

from __future__ import annotations

import atexit
import functools
import os
import re
import secrets
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from . import inputs as inputs_
from . import layout, liveness, notes, places, ranks, said, settings
from .capture import notebook, seeding
from .capture import program as caller
from .errors import RunStateError, SaveDirError
from .gathering import here, status_of
from .inputs import Inputs
from .interrupts import Interrupt, held_back
from .maps import Maps
from .model import VERSION, Failure, Lock
from .past.kept import Kept
from .recording import redacted
from .redact import SECRET_FILES, Redactor
from .tasks.work import attached
from .told import Told
from .viewed import Viewed
from .waiting import PATIENCE_AFTER_ERROR

if TYPE_CHECKING:
    import loguru
    from filelock import BaseFileLock
    from omegaconf import DictConfig

    from .launchers import Launcher
    from .logs import Capture
    from .model import (  # here, for Jedi completes nothing where a property's annotation is a Literal
        Command,
        Status,
    )
    from .past.record import Lineage, Record
    from .resume import Earlier
    from .tasks.work.attached import Task


_open: dict[int, Run] = {}
"""Runs of this process that have been entered and not left: what must still be sealed when it ends."""


class Run(Maps, Viewed, Kept):
    """Everything between entry and exit is recorded in one folder, under one lock.

    Entered inside a task of `run.map`, it joins the run that maps: it has that one's folder, log, start and id, and no
    lock of its own. `stage`, `save_dir`, `resume`, `capture` and `console` give way; configuration, `inputs` and
    `seed` count, for this task.

    Parameters
    ----------
    cfg: the configuration: a dataclass or an instance of one, a dict, a DictConfig, the path of a YAML file.
    inputs: what is read: files, folders, globs, earlier runs or their names (a stage: its newest run that is done);
        one, several, or a dict whose keys are their names. None is no input, `~` and variables are expanded.
        They are hashed in the background, without delay.
    stage: name of what is done; default: that of the module in which the run is entered, in a cell that of the
        notebook, at a prompt `console`.
    save_dir: folder to make for this run; default: `cfg.save_dir`, else `results/<stage>/<yymmdd-HHMMSS>`. If it
        exists, the next free `<name>-2`, `<name>-3`, ... is made.
    resume: an earlier run to go on with, in its folder and under its id: its name as `Run.load` takes it, or True for
        the newest one of this stage and configuration that did not come to its end (if there is none, a new run is
        made). `run.map` does what is not done yet; `${now:...}` means the first start.
    seed: seeds random, numpy and torch where they are imported, and is recorded.
    tags, note: said of the run from the beginning; `run.tag`, `run.note = ...` and `runctx tag` change them later.
    capture: also write what is printed, by C code and child processes too, to run.log.
    console: show log lines on stderr too.

    Raises
    ------
    ConfigError: the configuration cannot be held; names the key. InputError: an input does not exist.
    SettingsError: a setting of the project is wrong; names its file.
    SaveDirError: no folder can be made. All at entry, and then no folder of the run is on disk.
    NoRunError: there is no run to resume. RunStateError: the run to resume, or tasks of it, still go on, or it is of
        another stage; if it had another configuration, it is a ConfigError. All at entry, and then the earlier run is
        as it was.

    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> with Run({"lr": 0.1}, stage="train", save_dir=f"{folder}/first", console=False) as run:
    ...     _ = (run.save_dir / "model.txt").write_text(f"lr={run.cfg.lr}")
    >>> run.status, [output.path for output in run.outputs]
    ('done', ['model.txt'])
    >>> Run.load(f"{folder}/first").cfg.lr
    0.1
    """

    last: ClassVar[Run | None] = None
    """The run of this process that ended last: after an error in a function, `Run.last.locals` are its variables."""

    def __init__(
        self,
        cfg: Any = None,
        inputs: Inputs = (),
        *,
        stage: str | None = None,
        save_dir: str | os.PathLike[str] | None = None,
        resume: bool | Told | str | os.PathLike[str] = False,
        seed: int | None = None,
        tags: str | Iterable[str] = (),
        note: str = "",
        capture: bool = False,
        console: bool = True,
    ) -> None:
        super().__init__()
        self._given_cfg = cfg
        self._given_inputs = inputs_.given(inputs)
        self._given_stage = stage
        self._given_save_dir = save_dir
        if resume is not False:
            _refuse_save_dir(save_dir)
        self._given_resume = resume
        self._earlier: Earlier | None = None
        self._not_resumed: str | None = None
        """Why the newest unfinished run is not resumed, if one was looked for; empty if there is none."""
        self._seed = None if seed is None else seeding.whole(seed)
        self._tags, self._note = notes.check(tags, note), note
        self._capture = capture
        self._console = console
        self._state: Literal["new", "open", "leaving", "left"] = "new"
        self._frame: FrameType | None = None
        self._outermost: FrameType | None = None
        self._locals: dict[str, Any] = {}
        self._alive: BaseFileLock | None = None
        self._captured: Capture | None = None
        self._task: Task | None = None
        self._rank: ranks.Attached | None = None
        """Which this is, if it is not rank 0."""
        self._meeting: Path | None = None
        """Where the other ranks find this run, if there are some."""

    # -- what she asks of it -------------------------------------------------------------------------------

    @staticmethod
    def load(which: Told | str | os.PathLike[str], cls: type | None = None) -> Record:
        """A past run: same attributes, nothing executed, no network.

        Parameters
        ----------
        which: a path in the run's folder, its id or the beginning of it, `latest`, or a stage: its newest run.
        cls: dataclass that `cfg` should be an instance of, with keys that `+key=...` had added as attributes; default:
            a read-only DictConfig.

        Raises
        ------
        NoRunError: there is no such run, or several. LockError: its lock is broken; names file and key.
        """
        from .past import index

        return index.load(which, cls)

    @staticmethod
    def latest(stage: str | None = None, cls: type | None = None) -> Record:
        """The newest run of a stage that is done; without a stage, of all.

        Parameters
        ----------
        stage: its exact name.
        cls: as for `load`.

        Raises
        ------
        NoRunError: none is done; says what there is.
        """
        from .past import index

        return index.latest(stage, cls)

    @property
    def lock(self) -> Lock:
        """What run.lock says, or will say, as far as it is known; inside a task, with what is this run's own."""
        self._require_entered("lock")
        return self._lock if self._task is None else self._lock_in_task(self._task)

    @property
    def status(self) -> Status:
        """running, done, failed or interrupted."""
        return self.lock.status

    @property
    def upstream(self) -> tuple[Record, ...]:
        """The earlier runs this one reads from directly."""
        from .past import record

        return record.parents(self.lock, self.save_dir)

    def lineage(self) -> Lineage:
        """All earlier runs this one depends on: prints as a tree, shows as a picture in notebooks."""
        from .past.record import Lineage, Record

        return Lineage(Record(self.save_dir, self.lock))

    @property
    def cfg(self) -> DictConfig:
        """The configuration, every value resolved once, read-only."""
        self._require_entered("cfg")
        return self._cfg

    @property
    def save_dir(self) -> Path:
        """The folder made for this run alone; absolute."""
        self._require_entered("save_dir")
        return self._files.root

    @property
    def logger(self) -> loguru.Logger:
        """Writes to the console and to run.log."""
        self._require_entered("logger")
        logger = self._log.logger
        return logger if self._task is None else logger.bind(task=self._label)

    @property
    def locals(self) -> dict[str, Any]:
        """Variables of the function (or cell) the run was entered in: now, or as the run left them.

        Only the run that ended last keeps them, so that a notebook does not hold every model it ever trained.
        """
        frame = self._frame  # which another thread may let go of
        return self._locals if frame is None else _variables(frame)

    def __fspath__(self) -> str:
        return os.fspath(self.save_dir)

    def __reduce__(self) -> str | tuple[Any, ...]:
        # as multiprocessing's own locks are sent
        spawning = sys.modules.get("multiprocessing.context")
        if self._state == "open" and spawning is not None and spawning.get_spawning_popen() is not None:
            from . import config

            parent = self._as_parent() if self._task is None else self._task.parent
            return _in_child, (parent, str(self._task or ""), config.to_plain(self._cfg))
        if self._task is None or not self._entered:
            raise TypeError(
                "a run lives in one process: give others run.save_dir, or what they need of run.cfg; "
                "a function that run.map calls may enter a Run of its own, which joins the one that maps\n"
                "hint: a spawned process gets it when it starts: Process(target=work, args=(run,)), or initargs=(run,)"
            )
        from .tasks.values.returned import Returned

        parent = self._task.parent
        return Returned, (os.fspath(parent.save_dir), parent.id, self._redacted_cfg)

    def __repr__(self) -> str:
        if not self._entered:
            return "<Run, not entered>"
        from .display import words

        return f"<Run {self.id}: {self.status}, {words.path(self.save_dir)}>"

    def _repr_html_(self) -> str | None:
        from .display.run import RunView
        from .tasks.table import failed_in

        if not self._entered:
            return None
        said = notes.readable(self.save_dir)
        failed = failed_in(self.save_dir, self.lock)
        return RunView(
            lock=self.lock, status=self.status, failed=failed, tags=said.tags, note=said.note
        ).html()

    @property
    def _entered(self) -> bool:
        return hasattr(self, "_lock") or (self._task is not None and hasattr(self, "_log"))

    def _require_entered(self, name: str) -> None:
        if not self._entered:
            raise RunStateError(
                f"run.{name} is available only after the run has been entered",
                hint="`with Run(...) as run:` or `run = Run(...).start()`",
            )

    def _require_open(self, name: str) -> None:
        self._require_entered(name)
        if self._state != "open":
            raise RunStateError(
                f"run.{name} must be called before the run ends", hint="call it inside the block"
            )

    # -- numbers -------------------------------------------------------------------------------------------

    def log_async(
        self, metrics: Mapping[str, Any] | None = None, /, *, step: int | None = None, **named: Any
    ) -> None:
        """Log numbers: one line in `metrics/`, which no kill can lose once this has returned.

        Never waits for anything but the operating system, and never fails for want of room: that is a warning and
        an omission. Inside a task of `run.map` the numbers are marked with the task's key.

        Parameters
        ----------
        metrics, named: name -> number: Python's, numpy's and torch's scalars, NaN and infinities too.
        step: a whole number.

        Raises
        ------
        TypeError: a value is no number; names it, and nothing is written. RunStateError: the run has ended.

        >>> import tempfile
        >>> with Run(save_dir=f"{tempfile.mkdtemp()}/fit", console=False) as run:
        ...     run.log_async(loss=0.3, step=7)
        >>> run.metrics()["loss"].values
        (0.3,)
        """
        if self._state != "open":
            self._require_open("log_async()")
        if metrics:
            named = {**metrics, **named}
        # the run that maps may be asked as well, and in threads that a task starts only its own run knows it
        task = attached.current.get() or self._task
        journal = self._journal or self._opened_journal()
        try:
            journal.append(named, step, None if task is None else task.key)
        except TypeError as error:
            error._render_traceback_ = functools.partial(said.rendered, error)  # type: ignore[attr-defined]
            raise error.with_traceback(None) from None

    def _own_redactor(self) -> Redactor:
        self._require_entered("tag()")
        return self._redactor

    def publish(self, fn: Callable[[Any], Any] | None = None) -> None:
        if self._rank is None:  # rank 0 does it for all
            super().publish(fn)

    publish.__doc__ = Kept.publish.__doc__

    def _to_publish(self) -> tuple[Record, settings.Settings]:
        from .past.record import Record
        from .trackers.publishing import wanted_by

        self._require_entered("publish()")
        if self._task is not None or attached.current.get() is not None:
            raise RunStateError(
                "run.publish() was called inside a task of run.map",
                hint="call it after the map, on the run that maps; what tasks log is published with it",
            )
        if self._state == "open":
            self._announce(wanted_by(self._wishes))
        return Record(self.save_dir, self._lock), self._wishes

    # -- many tasks ----------------------------------------------------------------------------------------

    def map(
        self,
        function: Callable[[Any], Any],
        tasks: Iterable[Any],
        *,
        into: str | None = None,
        launcher: str | Launcher = "joblib",
        n_jobs: int = -1,
        retries: int = 0,
        on_error: Literal["raise", "stop", "return"] = "raise",
    ) -> Sequence[Any]:
        """Call a function for every task, all under this run; their results, in the order of the tasks.

        Parameters
        ----------
        function: may be a lambda, a closure or defined in a notebook; a `Run` that it enters joins this one.
        tasks: anything that can be pickled; equal content is recognised when the run is resumed.
        into: None calls `function(task)`; a key calls `function(cfg)`, the configuration with the task set there;
            "" merges the task, a mapping of dotted keys such as a point of `grid`, into the configuration.
        launcher: "joblib" (processes of this machine), "threading", "serial", a joblib backend, or `Slurm(...)`.
        n_jobs: how many at once, as joblib counts: -1 for all processors.
        retries: how often a failed task is tried again.
        on_error: "raise" one error when all have been run, "stop" at the first, "return" exceptions in their places.

        Raises
        ------
        TaskError: tasks failed; it lists them, and its `results` holds the others.
        ConfigError: a task does not fit the configuration. LedgerError: one cannot be sent to a worker.

        >>> import tempfile
        >>> with Run(save_dir=f"{tempfile.mkdtemp()}/squares", console=False) as run:
        ...     list(run.map(lambda x: x * x, [1, 2, 3], launcher="serial"))
        [1, 4, 9]
        """
        from .launchers import launcher_of
        from .tasks import fanout

        self._require_open("map()")
        if self._rank is not None:
            raise RunStateError(
                f"run.map() was called in {self._rank}, as in every rank",
                hint="call it in rank 0 only: its tasks would be done once for each rank",
            )
        if self._task is not None and not self._task.map:
            raise RunStateError(
                "run.map() was called in a process that was spawned with the run",
                hint="call it in the process that entered the run",
            )
        fanout.checked(function, tasks, into, n_jobs, retries, on_error)
        base = None if into is None else self._unresolved()
        if (task := attached.current.get()) is not None:
            redactor = task.parent.redactor
            return fanout.inside_a_task(function, tasks, into, base, retries, on_error, redactor)
        self._announce()  # tasks may log in processes of their own
        name = self._new_name(fanout.folder_name(function))
        before = self._map_called(name)
        try:
            chosen = launcher_of(launcher, n_jobs)
            self._called[name] = chosen.waits
            return fanout.fan_out(
                fanout.Order(
                    function=function,
                    tasks=list(tasks),
                    into=into,
                    launcher=chosen,
                    retries=retries,
                    on_error=on_error,
                    config=base,
                    parent=self._as_parent(),
                    source=self._lock.source,
                    repository=self._snapshot.root,
                    name=name,
                    before=before,
                    gather=self._gather_tasks,
                    note=self._note_tasks,
                    omit=self._omit,
                    show=self._console,
                )
            )
        except BaseException as error:
            self._stopped_waiting = isinstance(error, KeyboardInterrupt)
            if self._map_called(name) is before:  # nothing was begun: another try takes this one's place
                del self._called[name]
            raise

    # -- entry and exit ------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self._enter(sys._getframe(1))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._leave(error)

    def start(self) -> Self:
        """Enter the run, for code cut into cells; `finish()` leaves it.

        A run that has ended goes on, in its folder and under its id, as a resumed one does: after an error in a cell,
        say. Starting another of the same stage at the top level of the same notebook or script, as rerunning the first
        cell does, first finishes the forgotten run as interrupted. A script that comes to its end finishes its run.
        """
        frame = caller.frame_of_user(sys._getframe(1))
        for forgotten in [run for run in list(_open.values()) if run._forgotten_in(frame, self)]:
            forgotten._log.warn(
                f"run {forgotten.id} was not finished before the next start(); it is marked interrupted"
            )
            forgotten._leave(None, status="interrupted")
        if self._state == "left" and self._task is None:
            self._reopen(frame)
        else:
            self._enter(frame)
        self._outermost = caller.outermost(frame)
        notebook.call_after_cells(_finish_failed)
        return self

    def _reopen(self, frame: FrameType) -> None:
        """Begin one more session of a run that has ended; if that fails, it is as before."""
        ended = dict(vars(self))
        vars(self).clear()
        Run.__init__(self)
        kept = ("_given_", "_seed", "_capture", "_console")
        vars(self).update({name: value for name, value in ended.items() if name.startswith(kept)})
        self._given_save_dir, self._given_resume = None, os.fspath(ended["_files"].root)
        try:
            self._enter(frame)
        except BaseException:
            vars(self).clear()
            vars(self).update(ended)
            raise

    def finish(self, error: BaseException | None = None) -> None:
        """Leave the run and seal its lock; doing it twice changes nothing.

        Parameters
        ----------
        error: the exception that ended the work, if one did.
        """
        self._require_entered("finish()")
        self._leave(error)

    def _forgotten_in(self, frame: FrameType, successor: Run) -> bool:
        mine = self._frame
        if mine is None or self is successor:  # another thread is leaving it
            return False
        at_top_level = frame.f_locals is frame.f_globals and mine.f_locals is mine.f_globals
        same_stage = self._given_stage == successor._given_stage
        return at_top_level and mine.f_globals is frame.f_globals and same_stage

    def _enter(self, frame: FrameType) -> None:
        if self._state == "open":
            raise RunStateError(f"run {self.id} is open already", hint="go on with it, or call run.finish()")
        if self._state != "new":
            raise RunStateError(
                f"run {self.id} has ended, and `with` enters a run once",
                hint="run.start() goes on with it; Run(...) makes another",
            )
        self._frame = frame = caller.frame_of_user(frame)
        if (task := attached.current.get()) is not None:
            self._attach(task, frame)
            return
        if (rank := ranks.of_process()) is not None and rank.number > 0:
            self._attach_to_rank_0(rank, frame)
            return
        _finish_failed()
        try:
            with held_back():
                self._begin(frame)
        except BaseException as error:
            if hasattr(self, "_log"):
                self._hashing.cancel()  # nothing was done with the inputs
                self._leave(error)
            else:
                self._discard()
            raise

    def _attach(self, task: Task, frame: FrameType) -> None:
        """Inside a task: the folder, the log and the lock are those of the run that maps it."""
        from . import config

        parent, self._program = task.parent, _place_of(frame)
        cfg = config.open_anew(self._given_cfg)
        config.latest_runs(cfg).update(parent.latest)
        config.fill_in(cfg, parent.started.astimezone(), os.fspath(parent.save_dir), self._program)
        # before any text: it may hold the secrets met here
        self._redactor, self._redacted_cfg = parent.redactor, parent.redactor.mapping(config.to_plain(cfg))
        paths = inputs_.paths(
            self._given_inputs,
            here() or Path(),
            parent.results,
            lambda text: config.interpolated(cfg, text, parent.started.astimezone()),
        )
        self._inputs_in_task = task.reading.begin((name for name, _ in self._given_inputs), paths)
        self._given_inputs = ()
        self._cfg, self._files = cfg, layout.RunFiles(parent.save_dir)
        self._log, self._label, self._journal = parent.log, str(task), task.journal
        self._ended: tuple[Status, Failure | None] = ("running", None)
        self._pid, self._task, self._state = os.getpid(), task, "open"
        task.at_end.append(self._leave_with_task)
        if self._seed is not None:
            seeding.seed_all(self._seed)

    def _attach_to_rank_0(self, rank: ranks.Rank, frame: FrameType) -> None:
        """In another rank of a distributed training: likewise those of the run of rank 0."""
        from . import config, snapshot
        from .capture import program as command

        place = command.folder()
        wishes = settings.load(place)
        redactor, results = Redactor(wishes.redact), wishes.root / wishes.results
        root = snapshot.find_repository(place)
        file = rank.file(results, self._wanted_stage(frame, command.command(root, redactor), root))
        _load()  # while rank 0 enters
        self._rank = ranks.attach(rank, file, results, redactor, console=self._console)
        self._attach(self._rank, frame)
        self._rank.enter()
        _open[id(self)] = self  # a script may end without `finish()` here, too
        for one in self._inputs_in_task:
            self._log.warn(f"not captured: input {one.data.path} of {self._rank}: rank 0 does not read it")
        if config.value_digest(self._redacted_cfg) != attached.lock_of(self._rank.parent).config_digest:
            self._log.warn(
                f"the configuration of {self._rank} is not that of rank 0, which is recorded; "
                f"with {ranks.OFF}=off each rank is a run of its own"
            )

    def _wanted_stage(self, frame: FrameType, invoked: Command, root: Path | None) -> str:
        from .capture import program as command

        given = self._given_stage
        return command.given_stage(given) if given else caller.stage_of(frame, invoked, root)

    def _lock_in_task(self, task: Task) -> Lock:
        from . import config, upstream

        known = attached.lock_of(task.parent)
        status, error = self._ended
        own = [one.data for one in self._inputs_in_task]
        earlier = upstream.find(
            [(data.path, Path(data.path)) for data in own],
            known=upstream.known_to(known),
            own=task.parent.save_dir,
        )
        return replace(
            known,
            origins=config.origins_of(self._cfg, self._program, self._redactor),
            status=status,
            error=error,
            seed=self._seed,
            config=self._redacted_cfg,
            config_digest=config.value_digest(self._redacted_cfg),
            inputs=(*known.inputs, *map(earlier.owned, own)),
            parents=earlier.parents,
            upstream=earlier.locks,
        )

    def _leave_with_task(self, keep: bool) -> None:
        """The task is over; `keep`: somebody may still ask for the variables."""
        if self._state == "open":
            self._log.warn(f"[{self._label}] the task ended before finish(); its run is marked interrupted")
            self._leave(None, status="interrupted")
        if not keep:
            self._locals = {}

    def _begin(self, frame: FrameType) -> None:
        from . import config, snapshot, upstream
        from .capture import environment
        from .capture import program as command
        from .hashing import Hashing

        entered = datetime.now(UTC)
        place = command.folder()
        wishes = settings.load(place)
        redactor = Redactor(wishes.redact)
        redactor.learn_environment(os.environ)
        root = snapshot.find_repository(place)
        invoked = command.command(root, redactor)
        stage = self._wanted_stage(frame, invoked, root)
        program = _place_of(frame)

        cfg = config.open_anew(self._given_cfg)
        config.refuse_missing(cfg)  # `???` is no input
        chosen = config.choices_of(cfg)
        results = wishes.root / wishes.results
        rank = ranks.of_process()
        self._meeting = None if rank is None else rank.file(results, stage)
        earlier = self._find_earlier(cfg, results, stage, redactor, program)
        started = earlier.lock.started if earlier else entered
        local = started.astimezone()
        stamp = f"{local:%y%m%d-%H%M%S}"
        if earlier:
            config.latest_runs(cfg).update(earlier.lock.latest)
        if earlier:
            stage, run_id = earlier.lock.stage, earlier.lock.id
        else:
            run_id = f"{stage.replace('/', '-')}-{stamp}-{secrets.token_hex(3)}"
        base = here() or Path()
        paths = tuple(
            inputs_.paths(
                self._given_inputs,
                base,
                results,
                lambda text: config.interpolated(cfg, text, local),
            )
        )
        hashing = Hashing(paths, base=base, cache=layout.cache_dir(), on_done=self._note_inputs)
        outer = next((run for run in reversed(list(_open.values())) if _is_inside(frame, run._frame)), None)
        parent = None if outer is None else outer.id
        origin = upstream.find(
            ((path, base / path) for path in paths), known=upstream.Upstream(inside=parent)
        )
        wanted = (
            earlier.folder
            if earlier
            else Path(self._given_save_dir or config.save_dir_of(cfg, local) or results / stage / stamp)
        )
        # before the folder is made, so that a run killed here leaves nothing half done behind
        taken = snapshot.take(
            place,
            branch=wishes.branch,
            include=wishes.include,
            exclude=(
                *wishes.exclude,
                *SECRET_FILES,
                *_inside(root, results, base / wanted),
                *places.patterns(wishes, root),
            ),
            inputs=tuple(os.path.join(base, path) for path in paths),
            max_file_size=wishes.max_file_size,
            max_snapshot_size=wishes.max_snapshot_size,
            show=self._console,
            message=f"{run_id}\n\nThe work tree as run {run_id} found it.",
            cache=layout.cache_dir(),
        )

        machine = environment.environment(wishes.variables, redactor)
        _load()
        if earlier:
            folder = earlier.folder
            config.fill_in(cfg, local, os.fspath(folder), program)
        else:
            folder = _make_folder(cfg, wanted, local, program)
        self._pid, self._clock = os.getpid(), time.perf_counter()
        self._wishes, self._redactor = wishes, redactor
        self._files, self._cfg = layout.RunFiles(folder.resolve()), cfg
        self._snapshot, self._hashing, self._upstream = taken, hashing, origin
        plain = config.to_plain(cfg)
        values = redactor.mapping(plain)  # before any text: it may hold the secrets met here
        self._lock = Lock(
            runctx=VERSION,
            id=run_id,
            stage=stage,
            status="running",
            started=started,
            resumed=entered if earlier else None,
            save_dir=_relative(self._files.root, taken.root),
            command=replace(invoked, argv=tuple(map(redactor.text, invoked.argv))),
            seed=self._seed,
            config=values,
            choices=chosen,
            latest=dict(config.latest_runs(cfg)),
            source=taken.source,
            inputs=tuple(
                replace(origin.owned(data), name=name)
                for data, (name, _) in zip(hashing.inputs, self._given_inputs, strict=True)
            ),
            parent=parent,
            parents=origin.parents,
            upstream=origin.locks,
            environment=machine,
            tasks=earlier.lock.tasks if earlier else (),
            sessions=earlier.sessions if earlier else (),
            omissions=redacted((*taken.omissions, *origin.omissions), redactor),
        )
        found = self._lock.omissions
        # runs among them, and those that these read from, would stay alive as long as this one
        self._given_inputs = tuple(
            (name, path) for (name, _), path in zip(self._given_inputs, paths, strict=True)
        )
        self._state = "open"
        _open[id(self)] = self
        self._open_folder(plain, program)
        if self._meeting is not None:
            with self._step("what other ranks need"):
                ranks.announce(self._meeting, self.save_dir, run_id)
        self._tell(found)  # what is found from here on is told where it is found
        if (cache := layout.homeless_cache()) is not None:
            self._log.warn(
                f"there is no home to write to: the cache is in {cache}; RUNCTX_CACHE names another place"
            )
        with self._step("look at .gitignore"):
            self._advise_ignoring(root, wishes)
        if self._seed is not None:
            self._seeded = seeding.seed_all(self._seed)
        if wishes.system_metrics:
            self._announce()
        if paths:
            hashing.start()

    def _find_earlier(
        self, cfg: DictConfig, results: Path, stage: str, redactor: Redactor, program: str
    ) -> Earlier | None:
        """The run to go on with, which from here on is nobody else's."""
        from . import config

        wanted, given = self._given_resume, stage if self._given_stage else None
        if wanted is False and (wanted := config.resume_of(self._given_cfg)):
            given = stage  # a script may enter runs of several stages
            _refuse_save_dir(self._given_save_dir)
        if wanted is False:
            return None
        from . import resume

        def as_recorded(then: Lock, folder: Path) -> dict[Any, Any]:
            again = config.open_config(cfg)
            config.latest_runs(again).update(then.latest)
            config.fill_in(again, then.started.astimezone(), os.fspath(folder), program)
            values = redactor.mapping(config.to_plain(again))
            return redactor.mapping(values) if config.origins_of(again, program, redactor) else values

        if wanted is True:
            self._earlier, self._not_resumed = resume.newest(results, stage, as_recorded)
        else:
            self._earlier = resume.take_up(wanted, results, given, as_recorded)
        self._alive = self._earlier.alive if self._earlier else None
        return self._earlier

    def _advise_ignoring(self, root: Path | None, wishes: settings.Settings) -> None:
        from .snapshot.ignores import is_ignored

        if root is None or is_ignored(root, self.save_dir):
            return
        results = Path(os.path.abspath(wishes.root / wishes.results))
        folder = results if _below(self.save_dir, results) and _below(results, root) else self.save_dir
        line = f"/{folder.relative_to(root).as_posix()}/"
        self._log.warn(f"git does not ignore {folder}: add the line {line} to {root / '.gitignore'}")

    def _open_folder(self, plain: dict[Any, Any], program: str) -> None:
        """Liveness lock, log, config.yaml and the first run.lock: from here on, any kill leaves a readable run."""
        from . import config, lock
        from .logs import RunLog

        self._log = RunLog(self._files.log, self.id, console=self._console, redact=self._redactor.text)
        self._log.activate()
        if self._alive is None:
            with self._step("liveness lock"):
                self._alive = liveness.hold(self._files.alive)
        self._trace_config(plain, program)
        try:
            layout.write_atomically(self._files.config, config.to_yaml(self._lock.config))
            lock.write(self._files.lock, self._lock)
        except OSError as error:
            folder = self.save_dir
            self._discard()
            raise SaveDirError(
                f"cannot write to save_dir {str(folder)!r}: {error.strerror or error}",
                hint="free space there, or choose another place by RUNCTX_RESULTS or Run(..., save_dir=...)",
            ) from error
        if self._tags or self._note:
            with self._step("tags and note"):
                notes.change(self.save_dir, self._redactor, add=self._tags, note=self._note or None)
            self._tags, self._note = (), ""  # opened again, it has what was made of them meanwhile
        if self._snapshot.root is None or self._lock.command.kind == "notebook":
            with self._step("source"):
                self._collect_source()  # no commit holds the code, or the cells: take it now, in case of a kill
                lock.write(self._files.lock, self._lock)
        if self._earlier is not None:
            with self._step("files of the earlier session"):
                self._earlier.clear()
        self._log.say("INFO", f"{self._beginning()} {self.id} in {_relative(self.save_dir, here())}")
        if self._not_resumed:
            self._log.warn(f"not resumed: {self._not_resumed}")
        if self._capture:
            with self._step("captured output"):
                self._captured = self._log.capture()

    def _trace_config(self, plain: dict[Any, Any], program: str) -> None:
        """Where its values come from, what they are the same as, and from now on which of them are read."""
        from . import config

        with self._step("origins of the configuration"):
            origins = config.origins_of(self._cfg, program, self._redactor)
            if origins:  # among those that were beaten are secrets that may stand in other values
                self._update(origins=origins, config=self._redactor.mapping(self._lock.config))
        with self._step("digests of the configuration"):
            self._update(
                config_digest=config.value_digest(self._lock.config),
                config_structure=config.structure_digest(self._cfg, plain),
                config_subclasses=config.subclasses_in(self._cfg),
            )
        with self._step("keys that are read"):
            config.watch(self._cfg)
        config.note_run(self._cfg, os.fspath(self.save_dir))

    def _beginning(self) -> str:
        if self._earlier is not None:
            return f"resuming {self._lock.sessions[-1].status} run"
        return "started run" if self._not_resumed is None else "nothing to resume; started run"

    def _discard(self) -> None:
        """A run that could not be entered leaves nothing behind, an earlier one as it was, and may be entered again."""
        self._state = "new"
        _open.pop(id(self), None)
        if hasattr(self, "_log"):
            self._log.close()
        if self._alive is not None:
            self._alive.release()
        if self._earlier is None and hasattr(self, "_files"):
            shutil.rmtree(self._files.root, ignore_errors=True)  # made for this run alone, a moment ago
        for name in ("_log", "_files", "_lock"):
            vars(self).pop(name, None)

    def _leave(self, error: BaseException | None, status: Status | None = None) -> None:
        if self._state != "open" or os.getpid() != self._pid:  # a forked child leaves its parent's run alone
            return
        if self._task is not None:
            self._state = "left"
            _open.pop(id(self), None)
            self._keep_locals()
            self._ended = status or status_of(error), self._failure(error)
            if self._rank is not None:
                self._rank.leave(*self._ended)
            return
        try:
            self._end(error, status)
        except BaseException as struck:
            if self._state == "open":  # a signal's handler raised in the moment before signals are held back
                self._end(error or struck, status)
            raise
        if self._raised is not None and error is None:
            raise self._raised

    def _end(self, error: BaseException | None, status: Status | None) -> None:
        with held_back() as interrupt:
            # from here the hashing thread begins nothing, and the first update waits for what it has begun
            self._state = "leaving"
            try:
                with self._step("variables"):
                    self._keep_locals()
                self._update(status=status or status_of(error), error=self._failure(error))
                with self._step("what is known at the end"):
                    self._gather(interrupt)
                with held_back():  # a second Ctrl-C cuts the waiting short, but not the writing
                    if (interrupt or self._raised) and self._lock.status == "done":
                        self._update(status="interrupted")
                    self._seal()
            finally:
                self._state = "left"
                _open.pop(id(self), None)
                del self._hashing, self._snapshot  # megabytes of manifests, for as long as the run is kept

    def _keep_locals(self) -> None:
        frame, self._frame, self._outermost = self._frame, None, None  # they keep everything in them alive
        self._locals = {} if frame is None else _variables(frame)
        if Run.last is not None and Run.last is not self:
            Run.last._locals = {}
        Run.last = self

    def _gather(self, interrupt: Interrupt) -> None:
        """Everything that is known only at the end."""
        with self._step("captured output"):
            if self._captured is not None:
                self._captured.stop()
        with self._step("tasks"):
            self._look_at_tasks()
        if self._meeting is not None:
            with self._step("other ranks"):
                patience = PATIENCE_AFTER_ERROR if self._lock.status == "done" else 0.0
                self._omit(ranks.await_others(self.save_dir, patience))
        with self._step("inputs"):
            self._join_inputs(interrupt)
        if not self._tasks_go_on:  # else they may still write
            with self._step("outputs"):
                self._collect_outputs(interrupt)
        with self._step("summary of the metrics"):
            if self._journal is not None:
                self._journal.close()
            self._sum_up_metrics()
        with self._step("source"):
            self._collect_source()
        with self._step("environment"):
            from .capture import environment

            here = environment.environment(self._wishes.variables, self._redactor)
            self._update(environment=replace(here, packages=self._noted.packages | here.packages))
        if self._seed is not None:
            self._omit(seeding.unseeded(self._seeded))
        with self._step("keys that were read"):
            self._collect_reads(interrupt)
        with self._step("views"):
            self._see_to_views()

    def _seal(self) -> None:
        from . import lock

        self._update(seconds=round(time.perf_counter() - self._clock, 3))
        more = (
            "; its tasks are still running; `runctx collect` seals it" if self.status == "submitted" else ""
        )
        self._log.say(_LEVEL[self.status], f"{self.status} after {self._lock.seconds:.3g} s{more}")
        with self._step("log"):
            self._log.close()
        self._update(omissions=(*self._lock.omissions, *self._log.omissions))
        with self._step("run.lock"), self._mutex:
            # waiting for the disk takes milliseconds: worth it where a power cut would cost more than that
            lock.write(self._files.lock, self._lock, durable=(self._lock.seconds or 0) > _WORTH_WAITING)
        with self._step("liveness lock"):
            if self._alive is not None:
                self._alive.release()


_WORTH_WAITING = 1.0
"""Seconds of work."""

_LEVEL: dict[Status, str] = {
    "done": "SUCCESS",
    "submitted": "INFO",
    "failed": "ERROR",
    "interrupted": "WARNING",
}

_OF_IPYTHON = frozenset({"In", "Out", "exit", "quit", "get_ipython", "open"})


def _variables(frame: FrameType) -> dict[str, Any]:
    found = dict(frame.f_locals)
    if frame.f_locals is not frame.f_globals:
        return found
    return {k: v for k, v in found.items() if not k.startswith("_") and k not in _OF_IPYTHON}


def _in_child(parent: attached.Parent, key: str, plain: dict[Any, Any]) -> Run:
    """A run in a process that was spawned with it: it logs there, and ends with the process."""
    run = Run(plain)
    run._frame = sys._getframe()
    run._attach(attached.Task(parent, "", key=key), run._frame)
    return run


def _is_inside(frame: FrameType, other: FrameType | None) -> bool:
    """Whether `other` goes on in `frame`, or in one that called it; all cells of a notebook count as one frame."""
    at: FrameType | None = frame
    while at is not None and other is not None:
        one_module = at.f_globals is other.f_globals
        if at is other or (one_module and at.f_code.co_name == other.f_code.co_name == "<module>"):
            return True
        at = at.f_back
    return False


def _place_of(frame: FrameType) -> str:
    """What to call the place in the code that entered a run, e.g. `train.py:42`."""
    file = frame.f_code.co_filename
    name = notebook.cell_name(file) or (_relative(Path(file), here()) if os.path.isabs(file) else file)
    return f"{name}:{frame.f_lineno}"


def _refuse_save_dir(save_dir: str | os.PathLike[str] | None) -> None:
    if save_dir is not None:
        raise SaveDirError(
            f"save_dir={os.fspath(save_dir)!r} cannot be given to a resumed run",
            hint="leave save_dir out; a resumed run keeps its folder",
        )


@functools.cache
def _load() -> None:
    """Load all that the first run.lock needs, before there is a folder that a kill could leave without one."""
    import filelock  # noqa: F401

    from . import config, yamlfile
    from .logs import runlog

    runlog.listen()
    yamlfile.dump({})
    for late in ("origins_of", "value_digest", "structure_digest", "watch", "to_yaml"):
        getattr(config, late)
    config.fill_in(config.open_config({"now": "${now:%H}"}), datetime.now(UTC), "", "")


def _make_folder(cfg: DictConfig, wanted: Path, local: datetime, program: str) -> Path:
    from . import config

    folder = layout.make_exclusively(wanted)
    try:
        config.fill_in(cfg, local, os.fspath(folder), program)
    except BaseException:
        folder.rmdir()  # nothing of the run is on disk yet
        raise
    return folder


def _inside(root: Path | None, *folders: Path) -> tuple[str, ...]:
    """Patterns of folders inside the repository that the snapshot never takes up: results are not source."""
    if root is None:
        return ()
    normal = [Path(os.path.normpath(folder)) for folder in folders]
    return tuple(
        f"re:^{re.escape(folder.relative_to(root).as_posix())}/" for folder in normal if _below(folder, root)
    )


def _below(folder: Path, root: Path) -> bool:
    return folder != root and folder.is_relative_to(root)


def _relative(path: Path, base: Path | None) -> str:
    inside = base is not None and path.is_relative_to(base.resolve())
    return path.relative_to(base.resolve()).as_posix() if inside and base is not None else path.as_posix()


def _finish_failed(_result: Any = None) -> None:
    """Finish the runs whose function was ended by an error that an interactive session has shown.

    A run that was started at the top level goes on: so does the user, in the next cell.
    """
    error = getattr(sys, "last_value", None)
    for run in list(_open.values()):
        frame = run._frame
        if error is None or frame is None or frame.f_locals is frame.f_globals:
            continue
        if caller.has_ended_in(frame, error):
            run._leave(error)


@atexit.register
def _finish_forgotten() -> None:
    _finish_failed()
    is_prompt = hasattr(sys, "ps1")  # where the last error is one that the user has seen and gone on after
    error = None if is_prompt else getattr(sys, "last_value", None)
    for run in list(_open.values()):
        if os.getpid() != run._pid:
            continue
        frames = (run._frame, run._outermost)
        if error is not None:
            run._leave(error)
        elif not is_prompt and all(frame is not None and caller.has_returned(frame) for frame in frames):
            run._leave(None)
        else:
            run._log.warn(f"the process ends before finish(); run {run.id} is marked interrupted")
            run._leave(None, status="interrupted")
