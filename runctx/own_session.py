"""A run in a folder of its own: the steps of entering it, and those of leaving it.

A step of ours that fails becomes an omission and a warning. An exception of the user's is never swallowed, replaced or
delayed.
"""

from __future__ import annotations

import functools
import os
import re
import secrets
import shutil
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from . import (
    config,
    layout,
    liveness,
    notes,
    outputs,
    places,
    ranks,
    settings,
    snapshot,
    yamlfile,
)
from . import inputs as inputs_
from .capture import environment, notebook, program, seeding, source
from .capture.console import Capture
from .capture.log import RunLog, listen
from .errors import SaveDirError
from .interrupts import Interrupt, held_back
from .maps import Maps
from .model import VERSION, Lock, Omission, Status
from .recorder import Recorder, redacted
from .redact import SECRET_FILES, Redactor
from .run_inputs import RunInputs, patience
from .session import Given, Session, failure, refuse_save_dir, status_of
from .tasks import attached
from .views import Views
from .waiting import PATIENCE_AFTER_ERROR, wait_for

if TYPE_CHECKING:
    import loguru
    from filelock import BaseFileLock

    from .metrics.journal import Journal
    from .resume import Earlier


class OwnSession(Session):
    """A session that has its own folder and lock.

    Parameters
    ----------
    inside: id of the run in whose block it is entered.
    """

    ends_with_process = True

    def __init__(self, given: Given, frame: FrameType, inside: str | None) -> None:
        super().__init__(given, frame)
        self._entered = datetime.now(UTC)
        self._inside = inside
        self._earlier: Earlier | None = None
        self._not_resumed: str | None = None
        """Why the newest unfinished run is not resumed, if one was looked for; empty if there is none."""
        self._alive: BaseFileLock | None = None
        self._captured: Capture | None = None
        self._seeded: frozenset[str] = frozenset()

    # -- what is asked of it -----------------------------------------------------------------------------------

    @property
    def lock(self) -> Lock:
        return self.recorder.lock

    @property
    def logger(self) -> loguru.Logger:
        return self.log.logger

    def open_journal(self) -> Journal:
        """Make the journal, or take that of another thread which logs at once."""
        from .metrics.journal import Journal

        self.views.announce()
        made = Journal(self.files.root / layout.METRICS, self._lose_points)
        # at one go, without a lock that a fork may copy
        opened: Journal = vars(self).setdefault("journal", made)
        return opened

    def _lose_points(self, why: str) -> None:
        self.recorder.omit([Omission(what=layout.METRICS, why=f"points could not be written: {why}")])

    def parent(self) -> attached.Parent:
        hashing = self.inputs.hashing
        return attached.Parent(
            save_dir=self.files.root,
            id=self.lock.id,
            started=self.lock.started,
            latest=self.lock.latest,
            results=self._results,
            log=self.log,
            seed=self.given.seed,
            redactor=self.redactor,
            cwd=os.fspath(layout.here() or ""),
            covered=tuple(
                os.path.abspath(root)
                for data, root in zip(hashing.inputs, hashing.roots, strict=True)
                if data.kind != "glob"  # which does not hold all that lies where it starts
            ),
            root=self._snapshot.root,
            modules=frozenset(sys.modules),
        )

    def map(self, function: Any, tasks: Any, into: str | None, **how: Any) -> Sequence[Any]:
        from .launchers import launcher_of
        from .past import record  # noqa: F401 - it builds the runs that tasks return
        from .tasks import mapping

        base = None if into is None else self.unresolved()
        if (task := attached.current.get()) is not None:
            return mapping.inside_a_task(
                function, tasks, into, base, how["retries"], how["on_error"], task.parent.redactor
            )
        self.views.announce()  # tasks may log in processes of their own
        name = self.maps.new_name(mapping.folder_name(function))
        before = self.maps.entry(name)
        try:
            launcher = launcher_of(how["launcher"], how["n_jobs"])
            self.maps.waited[name] = launcher.waits
            return mapping.fan_out(
                mapping.Order(
                    function=function,
                    tasks=list(tasks),
                    into=into,
                    launcher=launcher,
                    retries=how["retries"],
                    on_error=how["on_error"],
                    config=base,
                    parent=self.parent(),
                    source=self.lock.source,
                    repository=self._snapshot.root,
                    name=name,
                    before=before,
                    gather=self.maps.gather,
                    note=self.maps.note,
                    omit=self.recorder.omit,
                    show=self.given.console,
                )
            )
        except BaseException as error:
            self.maps.stopped_waiting = isinstance(error, KeyboardInterrupt)
            if self.maps.entry(name) is before:  # nothing was begun: another try takes this one's place
                del self.maps.waited[name]
            raise

    # -- entry -------------------------------------------------------------------------------------------------

    def enter(self) -> None:
        """Do all steps of the entry."""
        with held_back():
            self._look_around()
            self._resolve_config()
            self._find_inputs()
            self._take_snapshot()
            self._make_folder()
            self._begin_lock()
            self._open_folder()
            self._begin_work()

    def _look_around(self) -> None:
        """The project, how the program was started, and the stage."""
        place = program.folder()
        self.settings = settings.load(place)
        self.redactor = Redactor(self.settings.redact)
        self.redactor.learn_environment(os.environ)
        self._place, self._root = place, snapshot.find_repository(place)
        self._results = self.settings.root / self.settings.results
        self._command = program.command(self._root, self.redactor)
        assert self.frame is not None
        self._program = program.place(self.frame)
        wanted = self.given.stage and program.given_stage(self.given.stage)
        self._stage = wanted or program.stage_of(self.frame, self._command, self._root)

    def _resolve_config(self) -> None:
        """The configuration but for `save_dir`; the run to resume, if one is wanted; id and start."""
        self.cfg = cfg = config.open_anew(self.given.cfg)
        config.refuse_missing(cfg)  # `???` is no input
        self._choices = config.choices_of(cfg)
        rank = ranks.of_process()
        self._meeting = None if rank is None else rank.file(self._results, self._stage)
        """Where the other ranks find this run, if there are some."""
        self._find_earlier()
        if self._earlier:
            then = self._earlier.lock
            self._stage, self._id, self._started = then.stage, then.id, then.started
            config.latest_runs(cfg).update(then.latest)
        else:
            self._started = self._entered
            self._id = f"{self._stage.replace('/', '-')}-{self._stamp}-{secrets.token_hex(3)}"

    @property
    def _local(self) -> datetime:
        """What `${now:...}` means."""
        return self._started.astimezone()

    @property
    def _stamp(self) -> str:
        return f"{self._local:%y%m%d-%H%M%S}"

    def _find_earlier(self) -> None:
        """The run to go on with, which from here on is nobody else's."""
        wanted, stage = self.given.resume, self._stage if self.given.stage else None
        if wanted is False and (wanted := config.resume_of(self.given.cfg)):
            stage = self._stage  # a script may enter runs of several stages
            refuse_save_dir(self.given.save_dir)
        if wanted is False:
            return
        from . import resume

        def as_recorded(then: Lock, folder: Path) -> dict[Any, Any]:
            again = config.open_config(self.cfg)
            config.latest_runs(again).update(then.latest)
            config.fill_in(again, then.started.astimezone(), os.fspath(folder), self._program)
            values = self.redactor.mapping(config.to_plain(again))
            secret = config.origins_of(again, self._program, self.redactor)
            return self.redactor.mapping(values) if secret else values

        if wanted is True:
            self._earlier, self._not_resumed = resume.newest(self._results, self._stage, as_recorded)
        else:
            self._earlier = resume.take_up(wanted, self._results, stage, as_recorded)
        self._alive = self._earlier.alive if self._earlier else None

    def _find_inputs(self) -> None:
        base = layout.here() or Path()
        paths = tuple(
            inputs_.paths(
                self.given.inputs,
                base,
                self._results,
                lambda text: config.interpolated(self.cfg, text, self._local),
            )
        )
        names = tuple(name for name, _ in self.given.inputs)
        self.inputs = RunInputs(names, paths, base, self._inside)
        # runs among them, and those that these read from, would stay alive as long as this one
        self.given = replace(self.given, inputs=tuple(zip(names, paths, strict=True)))
        self._wanted_folder = Path(
            self._earlier.folder
            if self._earlier
            else self.given.save_dir
            or config.save_dir_of(self.cfg, self._local)
            or self._results / self._stage / self._stamp
        )

    def _take_snapshot(self) -> None:
        """Before the folder is made, so that a run killed here leaves nothing half done behind."""
        wishes, base = self.settings, self.inputs.base
        results = _patterns_of(self._root, self._results, base / self._wanted_folder)
        self._snapshot = snapshot.take(
            self._place,
            branch=wishes.branch,
            include=wishes.include,
            exclude=(*wishes.exclude, *SECRET_FILES, *results, *places.patterns(wishes, self._root)),
            inputs=tuple(os.path.join(base, path) for path in self.inputs.paths),
            max_file_size=wishes.max_file_size,
            max_snapshot_size=wishes.max_snapshot_size,
            show=self.given.console,
            message=f"{self._id}\n\nThe work tree as run {self._id} found it.",
            cache=layout.cache_dir(),
        )

    def _make_folder(self) -> None:
        """With all that the first lock needs, so that hardly any kill leaves a folder without one."""
        self._environment = environment.environment(self.settings.variables, self.redactor)
        _load()
        folder = self._wanted_folder if self._earlier else layout.make_exclusively(self._wanted_folder)
        try:
            config.fill_in(self.cfg, self._local, os.fspath(folder), self._program)
        except BaseException:
            if not self._earlier:
                folder.rmdir()  # nothing of the run is on disk yet
            raise
        self._clock = time.perf_counter()
        self.files = layout.RunFiles(folder.resolve())

    def _begin_lock(self) -> None:
        self._plain = config.to_plain(self.cfg)
        values = self.redactor.mapping(self._plain)  # before any text: it may hold the secrets met here
        earlier, upstream = self._earlier, self.inputs.upstream
        first = Lock(
            runctx=VERSION,
            id=self._id,
            stage=self._stage,
            status="running",
            started=self._started,
            resumed=self._entered if earlier else None,
            save_dir=layout.relative(self.files.root, self._snapshot.root),
            command=replace(self._command, argv=tuple(map(self.redactor.text, self._command.argv))),
            seed=self.given.seed,
            config=values,
            choices=self._choices,
            latest=dict(config.latest_runs(self.cfg)),
            source=self._snapshot.source,
            inputs=self.inputs.at_entry,
            parent=self._inside,
            parents=upstream.parents,
            upstream=upstream.locks,
            environment=self._environment,
            tasks=earlier.lock.tasks if earlier else (),
            sessions=earlier.sessions if earlier else (),
            omissions=redacted((*self._snapshot.omissions, *upstream.omissions), self.redactor),
        )
        self._found_at_entry = first.omissions
        self.recorder = self.inputs.recorder = Recorder(first, self.files, self.redactor)
        self.views = Views(self.recorder, self.settings, self._snapshot.root)
        self.maps = Maps(self.recorder, self.inputs)

    def _open_folder(self) -> None:
        """Liveness lock, log, config.yaml and the first run.lock: from here on, any kill leaves a readable run."""
        recorder = self.recorder
        self.log = RunLog(self.files.log, self._id, console=self.given.console, redact=self.redactor.text)
        recorder.log, self.state = self.log, "open"
        self.log.activate()
        if self._alive is None:
            with recorder.step("liveness lock"):
                self._alive = liveness.hold(self.files.alive)
        self._trace_config()
        try:
            layout.write_atomically(self.files.config, config.to_yaml(self.lock.config))
            recorder.write()
        except OSError as error:
            self.state = "new"
            raise SaveDirError(
                f"cannot write to save_dir {str(self.files.root)!r}: {error.strerror or error}",
                hint="free space there, or choose another place by RUNCTX_RESULTS or Run(..., save_dir=...)",
            ) from error
        if self.given.tags or self.given.note:
            with recorder.step("tags and note"):
                notes.change(
                    self.files.root, self.redactor, add=self.given.tags, note=self.given.note or None
                )
            # opened again, it has what was made of them meanwhile
            self.given = replace(self.given, tags=(), note="")
        if self._snapshot.root is None or self.lock.command.kind == "notebook":
            with recorder.step("source"):
                self._collect_source()  # no commit holds the code, or the cells: take it now, in case of a kill
                recorder.write()
        if self._earlier is not None:
            with recorder.step("files of the earlier session"):
                self._earlier.clear()

    def _trace_config(self) -> None:
        """Where its values come from, what they are the same as, and from now on which of them are read."""
        recorder = self.recorder
        with recorder.step("origins of the configuration"):
            origins = config.origins_of(self.cfg, self._program, self.redactor)
            if origins:  # among those that were beaten are secrets that may stand in other values
                recorder.update(origins=origins, config=self.redactor.mapping(self.lock.config))
        with recorder.step("digests of the configuration"):
            recorder.update(
                config_digest=config.value_digest(self.lock.config),
                config_structure=config.structure_digest(self.cfg, self._plain),
                config_subclasses=config.subclasses_in(self.cfg),
            )
        with recorder.step("keys that are read"):
            config.watch(self.cfg)
        config.note_run(self.cfg, os.fspath(self.files.root))

    def _begin_work(self) -> None:
        """Say that the run goes on, and begin what goes on in the background."""
        recorder, log = self.recorder, self.log
        log.say("INFO", f"{self._beginning} {self._id} in {layout.relative(self.files.root, layout.here())}")
        if self._not_resumed:
            log.warn(f"not resumed: {self._not_resumed}")
        if self.given.capture:
            with recorder.step("captured output"):
                self._captured = log.capture()
        if self._meeting is not None:
            with recorder.step("what other ranks need"):
                ranks.announce(self._meeting, self.files.root, self._id)
        recorder.tell(self._found_at_entry)  # what is found later is told where it is found
        if (cache := layout.homeless_cache()) is not None:
            log.warn(
                f"there is no home to write to: the cache is in {cache}; RUNCTX_CACHE names another place"
            )
        with recorder.step("look at .gitignore"):
            self._advise_ignoring()
        if self.given.seed is not None:
            self._seeded = seeding.seed_all(self.given.seed)
        if self.settings.system_metrics:
            self.views.announce()
        self.inputs.start()

    @property
    def _beginning(self) -> str:
        if self._earlier is not None:
            return f"resuming {self.lock.sessions[-1].status} run"
        return "started run" if self._not_resumed is None else "nothing to resume; started run"

    def _advise_ignoring(self) -> None:
        from .snapshot import is_ignored

        root, save_dir = self._root, self.files.root
        if root is None or is_ignored(root, save_dir):
            return
        results = Path(os.path.abspath(self._results))
        folder = results if _is_below(save_dir, results) and _is_below(results, root) else save_dir
        line = f"/{folder.relative_to(root).as_posix()}/"
        self.log.warn(f"git does not ignore {folder}: add the line {line} to {root / '.gitignore'}")

    def give_up(self) -> None:
        """After a failed entry: nothing stays of a run that has no lock yet, and an earlier one stays as it was."""
        if self.state == "open":
            self.inputs.hashing.cancel()  # nothing was done with the inputs
            return
        if hasattr(self, "log"):
            self.log.close()
        if self._alive is not None:
            self._alive.release()
        if self._earlier is None and hasattr(self, "files"):
            shutil.rmtree(self.files.root, ignore_errors=True)  # made for this run alone, a moment ago

    # -- exit --------------------------------------------------------------------------------------------------

    def leave(self, error: BaseException | None, status: Status | None = None) -> None:
        recorder = self.recorder
        with held_back() as interrupt:
            self.state = "leaving"
            self.inputs.close()  # the first update waits for what the hashing thread has begun
            try:
                with recorder.step("variables"):
                    self.keep_locals()
                recorder.update(status=status or status_of(error), error=failure(error, self.redactor))
                with recorder.step("what is known at the end"):
                    self._gather(interrupt)
                with held_back():  # a second Ctrl-C cuts the waiting short, but not the writing
                    if (interrupt or recorder.raised) and self.lock.status == "done":
                        recorder.update(status="interrupted")
                    self._seal()
            finally:
                self.state = "left"
                del self.inputs.hashing, self._snapshot  # megabytes, for as long as the run is kept
        if recorder.raised is not None and error is None:
            raise recorder.raised

    def _gather(self, interrupt: Interrupt) -> None:
        """Everything that is known only at the end."""
        step = self.recorder.step
        with step("captured output"):
            if self._captured is not None:
                self._captured.stop()
        with step("tasks"):
            self.maps.finish()
        with step("other ranks"):
            if self._meeting is not None:
                wait = PATIENCE_AFTER_ERROR if self.lock.status == "done" else 0.0
                self.recorder.omit(ranks.await_others(self.files.root, wait))
        with step("inputs"):
            self.inputs.join(interrupt, show=self.given.console)
        with step("outputs"):
            if not self.maps.go_on:  # else they may still write
                self._collect_outputs(interrupt)
        with step("summary of the metrics"):
            self._sum_up_metrics()
        with step("source"):
            self._collect_source()
        with step("environment"):
            here = environment.environment(self.settings.variables, self.redactor)
            packages = self.maps.noted.packages | here.packages
            self.recorder.update(environment=replace(here, packages=packages))
        if self.given.seed is not None:
            self.recorder.omit(seeding.unseeded(self._seeded))
        with step("keys that were read"):
            self._collect_reads(interrupt)
        with step("views"):
            self.views.finish()

    def _collect_outputs(self, interrupt: Interrupt) -> None:
        save_dir, limit = self.files.root, patience(self.recorder)
        found = outputs.collect(
            save_dir,
            own=outputs.folders_of(self.lock, save_dir),
            maps=tuple(entry.name for entry in self.lock.tasks),
            max_bytes=self.settings.max_output_size,
            cache=layout.cache_dir(),
            wait=lambda hashing: wait_for(
                hashing, "hashing outputs", interrupt, show=self.given.console, limit=limit
            ),
        )
        if found.manifest:
            layout.write_atomically(self.files.outputs, found.manifest)
        self.recorder.update(outputs=found.data)
        self.recorder.omit(found.omissions)

    def _sum_up_metrics(self) -> None:
        if self.journal is not None:
            self.journal.close()
        folder = self.files.root / layout.METRICS
        if folder.is_dir():  # most runs without it need not load what reads them
            from .metrics import series

            self.recorder.update(metrics=series.summaries(folder))

    def _collect_source(self) -> None:
        found = source.collect(self._snapshot, self.files.source, elsewhere=self.maps.noted.modules)
        cells = tuple(replace(cell, code=self.redactor.text(cell.code)) for cell in notebook.executed_cells())
        known = self.lock.source
        copies = layout.SOURCE if found.copied else known.copies
        self.recorder.update(source=replace(known, files=found.files, copies=copies, cells=cells))
        self.recorder.omit(found.omissions)

    def _collect_reads(self, interrupt: Interrupt) -> None:
        elsewhere = self.maps.noted.keys_read
        self.recorder.update(keys_read=tuple(sorted(elsewhere.union(config.keys_read(self.cfg)))))
        if self.lock.status != "done" or interrupt:
            return  # she has not come to where they are read
        unread = [
            f"{key}, set by {setting.where}"
            for key, setting in config.never_read(self.cfg).items()
            if key not in elsewhere
        ]
        if unread:
            more = f"; and {len(unread) - 5} more" if len(unread) > 5 else ""
            self.log.warn(f"never read: {'; '.join(unread[:5])}{more}")

    def _seal(self) -> None:
        recorder = self.recorder
        seconds = round(time.perf_counter() - self._clock, 3)
        recorder.update(seconds=seconds)
        status = self.lock.status
        more = "; its tasks are still running; `runctx collect` seals it" if status == "submitted" else ""
        self.log.say(_LEVEL[status], f"{status} after {seconds:.3g} s{more}")
        with recorder.step("log"):
            self.log.close()
        recorder.update(omissions=(*self.lock.omissions, *self.log.omissions))
        with recorder.step("run.lock"):
            # waiting for the disk takes milliseconds: worth it where a power cut would cost more than that
            recorder.write(durable=seconds > _WORTH_WAITING)
        with recorder.step("liveness lock"):
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


@functools.cache
def _load() -> None:
    """Load all that the first run.lock needs, before there is a folder that a kill could leave without one."""
    import filelock  # noqa: F401

    listen()
    yamlfile.dump({})
    for late in ("origins_of", "value_digest", "structure_digest", "watch", "to_yaml"):
        getattr(config, late)
    config.fill_in(config.open_config({"now": "${now:%H}"}), datetime.now(UTC), "", "")


def _patterns_of(root: Path | None, *folders: Path) -> Iterable[str]:
    """Patterns of folders inside the repository that the snapshot never takes up: results are not source."""
    for folder in folders:
        normal = Path(os.path.normpath(folder))
        if root is not None and _is_below(normal, root):
            yield f"re:^{re.escape(normal.relative_to(root).as_posix())}/"


def _is_below(folder: Path, root: Path) -> bool:
    return folder != root and folder.is_relative_to(root)
