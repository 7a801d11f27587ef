"""The run: everything between entry and exit is recorded."""

from __future__ import annotations

import atexit
import functools
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from . import inputs as inputs_
from . import notes, ranks, said
from .base import BaseRun
from .capture import notebook, program, seeding
from .errors import RunStateError
from .inputs import Inputs
from .redact import Redactor
from .session import Given, Session, refuse_save_dir
from .tasks import attached

if TYPE_CHECKING:
    import loguru
    from omegaconf import DictConfig

    from .launchers import Launcher
    from .model import (  # here, for Jedi completes nothing where a property's annotation is a Literal
        Lock,
        Status,
    )
    from .past.record import Lineage, Record
    from .settings import Settings


_open: dict[int, Run] = {}
"""Runs of this process that have been entered and not left: what must still be sealed when it ends."""


class Run(BaseRun):
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

    _session: Session | None = None
    """From entry on."""

    def __init__(
        self,
        cfg: Any = None,
        inputs: Inputs = (),
        *,
        stage: str | None = None,
        save_dir: str | os.PathLike[str] | None = None,
        resume: bool | BaseRun | str | os.PathLike[str] = False,
        seed: int | None = None,
        tags: str | Iterable[str] = (),
        note: str = "",
        capture: bool = False,
        console: bool = True,
    ) -> None:
        if resume is not False:
            refuse_save_dir(save_dir)
        self._given = Given(
            cfg=cfg,
            inputs=inputs_.given(inputs),
            stage=stage,
            save_dir=save_dir,
            resume=resume,
            seed=None if seed is None else seeding.whole(seed),
            tags=notes.check(tags, note),
            note=note,
            capture=capture,
            console=console,
        )

    # -- what she asks of it -------------------------------------------------------------------------------

    @staticmethod
    def load(which: BaseRun | str | os.PathLike[str], cls: type | None = None) -> Record:
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
        return self._entered("lock").lock

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
        return self._entered("cfg").cfg

    @property
    def save_dir(self) -> Path:
        """The folder made for this run alone; absolute."""
        return self._entered("save_dir").files.root

    @property
    def logger(self) -> loguru.Logger:
        """Writes to the console and to run.log."""
        return self._entered("logger").logger

    @property
    def locals(self) -> dict[str, Any]:
        """Variables of the function (or cell) the run was entered in: now, or as the run left them.

        Only the run that ended last keeps them, so that a notebook does not hold every model it ever trained.
        """
        return {} if self._session is None else self._session.locals

    def __fspath__(self) -> str:
        return os.fspath(self.save_dir)

    def __reduce__(self) -> str | tuple[Any, ...]:
        session = self._session
        # as multiprocessing's own locks are sent
        spawning = sys.modules.get("multiprocessing.context")
        is_spawning = spawning is not None and spawning.get_spawning_popen() is not None
        if session is not None and session.state == "open" and is_spawning:
            from . import config

            return _in_child, (session.parent(), str(session.task or ""), config.to_plain(session.cfg))
        if session is None or session.task is None:
            raise TypeError(
                "a run lives in one process: give others run.save_dir, or what they need of run.cfg; "
                "a function that run.map calls may enter a Run of its own, which joins the one that maps\n"
                "hint: a spawned process gets it when it starts: Process(target=work, args=(run,)), or initargs=(run,)"
            )
        from .past.record import TaskRun

        parent = session.parent()
        return TaskRun, (os.fspath(parent.save_dir), parent.id, session.lock.config)

    def __repr__(self) -> str:
        if self._session is None:
            return "<Run, not entered>"
        from .display import words

        return f"<Run {self.id}: {self.status}, {words.path(self.save_dir)}>"

    def _repr_html_(self) -> str | None:
        from .display.run import RunView
        from .tasks.table import failed_in

        if self._session is None:
            return None
        said, failed = notes.readable(self.save_dir), failed_in(self.save_dir, self.lock)
        return RunView(
            lock=self.lock, status=self.status, failed=failed, tags=said.tags, note=said.note
        ).html()

    def _entered(self, name: str) -> Session:
        if self._session is None:
            raise RunStateError(
                f"run.{name} is available only after the run has been entered",
                hint="`with Run(...) as run:` or `run = Run(...).start()`",
            )
        return self._session

    def _opened(self, name: str) -> Session:
        session = self._entered(name)
        if session.state != "open":
            raise RunStateError(
                f"run.{name} must be called before the run ends", hint="call it inside the block"
            )
        return session

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
        session = self._session
        if session is None or session.state != "open":
            session = self._opened("log_async()")
        if metrics:
            named = {**metrics, **named}
        # the run that maps may be asked as well, and in threads that a task starts only its own run knows it
        task = attached.current.get() or session.task
        journal = session.journal or session.open_journal()
        try:
            journal.append(named, step, None if task is None else task.key)
        except TypeError as error:
            error._render_traceback_ = functools.partial(said.rendered, error)  # type: ignore[attr-defined]
            raise error.with_traceback(None) from None

    def _own_redactor(self) -> Redactor:
        return self._entered("tag()").redactor

    def publish(self, fn: Callable[[Any], Any] | None = None) -> None:
        if not isinstance(self._entered("publish()").task, ranks.Attached):  # rank 0 does it for all
            super().publish(fn)

    publish.__doc__ = BaseRun.publish.__doc__

    def _to_publish(self) -> tuple[Record, Settings]:
        from .own_session import OwnSession
        from .past.record import Record
        from .trackers.publishing import wanted_by

        session = self._entered("publish()")
        if not isinstance(session, OwnSession) or attached.current.get() is not None:
            raise RunStateError(
                "run.publish() was called inside a task of run.map",
                hint="call it after the map, on the run that maps; what tasks log is published with it",
            )
        if session.state == "open":
            session.views.announce(wanted_by(session.settings))
        return Record(self.save_dir, self.lock), session.settings

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
        from .tasks import mapping

        session = self._opened("map()")
        mapping.checked(function, tasks, into, n_jobs, retries, on_error)
        return session.map(
            function, tasks, into, launcher=launcher, n_jobs=n_jobs, retries=retries, on_error=on_error
        )

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
        frame = program.frame_of_user(sys._getframe(1))
        for forgotten in [run for run in list(_open.values()) if run._is_forgotten_in(frame, self)]:
            forgotten._entered("start()").log.warn(
                f"run {forgotten.id} was not finished before the next start(); it is marked interrupted"
            )
            forgotten._leave(None, status="interrupted")
        self._enter(frame, again=True)
        if self._session is not None:
            self._session.outermost = program.outermost(frame)
        notebook.call_after_cells(_finish_failed)
        return self

    def finish(self, error: BaseException | None = None) -> None:
        """Leave the run and seal its lock; doing it twice changes nothing.

        Parameters
        ----------
        error: the exception that ended the work, if one did.
        """
        self._entered("finish()")
        self._leave(error)

    def _is_forgotten_in(self, frame: FrameType, successor: Run) -> bool:
        mine = self._session.frame if self._session else None
        if mine is None or self is successor:  # another thread is leaving it
            return False
        at_top_level = frame.f_locals is frame.f_globals and mine.f_locals is mine.f_globals
        same_stage = self._given.stage == successor._given.stage
        return at_top_level and mine.f_globals is frame.f_globals and same_stage

    def _enter(self, frame: FrameType, *, again: bool = False) -> None:
        """Begin a session; `again`: one more of a run that has ended, whose earlier one stays if this fails."""
        given, known = self._given, self._session
        if known is not None and known.state == "open":
            raise RunStateError(f"run {self.id} is open already", hint="go on with it, or call run.finish()")
        if known is not None and not (again and known.task is None):
            raise RunStateError(
                f"run {self.id} has ended, and `with` enters a run once",
                hint="run.start() goes on with it; Run(...) makes another",
            )
        if known is not None:
            given = replace(given, save_dir=None, resume=os.fspath(self.save_dir))
        frame = program.frame_of_user(frame)
        if (task := attached.current.get()) is not None:
            from .attached_session import AttachedSession

            self._session = AttachedSession(given, task, frame)
            task.at_end.append(self._end_with_task)
        elif (rank := ranks.of_process()) is not None and rank.number > 0:
            from .attached_session import RankSession

            self._session = RankSession(given, rank, frame)
            _open[id(self)] = self  # a script may end without `finish()` here, too
        else:
            self._enter_folder(given, frame)
        assert self._session is not None
        self._given = self._session.given

    def _enter_folder(self, given: Given, frame: FrameType) -> None:
        from .own_session import OwnSession

        _finish_failed()
        around = (run for run in reversed(list(_open.values())) if run is not self)
        outer = next(
            (run for run in around if run._session and program.is_inside(frame, run._session.frame)), None
        )
        session = OwnSession(given, frame, None if outer is None else outer.id)
        try:
            session.enter()
        except BaseException as error:
            session.give_up()
            if session.state == "open":  # its folder is there, and tells of the error
                self._session, _open[id(self)] = session, self
                self._leave(error)
            raise
        self._session = session
        _open[id(self)] = self

    def _leave(self, error: BaseException | None, status: Status | None = None) -> None:
        session = self._session
        if session is None or session.state != "open" or os.getpid() != session.pid:
            return  # a forked child leaves its parent's run alone
        try:
            session.leave(error, status)
        except BaseException as struck:
            if (
                session.state == "open"
            ):  # a signal's handler raised in the moment before signals are held back
                session.leave(error or struck, status)
            raise
        finally:
            _open.pop(id(self), None)
            if Run.last is not None and Run.last is not self and Run.last._session is not None:
                Run.last._session.drop_locals()
            Run.last = self

    def _end_with_task(self, keep: bool) -> None:
        """The task is over; `keep`: somebody may still ask for the variables."""
        session = self._session
        assert session is not None
        if session.state == "open":
            session.log.warn(
                f"[{session.task}] the task ended before finish(); its run is marked interrupted"
            )
            self._leave(None, status="interrupted")
        if not keep:
            session.drop_locals()


def _in_child(parent: attached.Parent, key: str, plain: dict[Any, Any]) -> Run:
    """A run in a process that was spawned with it: it logs there, and ends with the process."""
    from .attached_session import AttachedSession

    run = Run(plain)
    run._session = AttachedSession(run._given, attached.Task(parent, "", key=key), sys._getframe())
    return run


def _finish_failed(_result: Any = None) -> None:
    """Finish the runs whose function was ended by an error that an interactive session has shown.

    A run that was started at the top level goes on: so does the user, in the next cell.
    """
    error = getattr(sys, "last_value", None)
    for run in list(_open.values()):
        frame = None if run._session is None else run._session.frame
        if error is None or frame is None or frame.f_locals is frame.f_globals:
            continue
        if program.has_ended_in(frame, error):
            run._leave(error)


@atexit.register
def _finish_forgotten() -> None:
    _finish_failed()
    is_prompt = hasattr(sys, "ps1")  # where the last error is one that the user has seen and gone on after
    error = None if is_prompt else getattr(sys, "last_value", None)
    for run in list(_open.values()):
        session = run._session
        if session is None or os.getpid() != session.pid:
            continue
        frames = (session.frame, session.outermost)
        if error is not None:
            run._leave(error)
        elif not is_prompt and all(frame is not None and program.has_returned(frame) for frame in frames):
            run._leave(None)
        else:
            session.log.warn(f"the process ends before finish(); run {run.id} is marked interrupted")
            run._leave(None, status="interrupted")
