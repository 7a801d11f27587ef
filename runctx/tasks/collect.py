"""Collect tasks that went on without their run: fold their rows into its lock, and seal it.

By any process that sees the run's folder; of several that do so at once, one writes.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from .. import layout, liveness, outputs, settings
from .. import lock as lockfile
from ..errors import LedgerError, RunStateError
from ..interrupts import held_back
from ..layout import RunFiles
from ..metrics import series
from ..model import Failure, Lock, Omission, Tasks
from ..waiting import wait_for
from . import inputs, shifts
from .attached import read_notes
from .ledger import Rows, Todo, read_labels
from .mapping import failure
from .results import Results, summary, unfinished
from .table import files_of

LOOK = 1.0
"""Seconds between two looks while waiting."""
PATIENCE = 60.0
"""Seconds for which another process that collects the same run is waited for."""

LATER = Omission(
    what="outputs", why="tasks are still running and may write outputs; `runctx collect` records them"
)
WAITED = Omission(
    what="outputs",
    why="the wait for the tasks was interrupted and they still run; `runctx collect` records them",
)
_REST = Omission(
    what="the rest of the block",
    why="the wait for its tasks was interrupted, and they were collected later; "
    "Run(..., resume=...) does what follows them",
)
_UNFINISHED_BLOCK = Omission(
    what="the rest of the run",
    why="the process was killed before the end of the block; its tasks were collected; "
    "Run(..., resume=...) runs the rest",
)


def collect(save_dir: Path, *, wait: bool = False, show: bool = False) -> Lock:
    """Fold what tasks have written into the lock, and seal it; doing it twice changes nothing.

    Parameters
    ----------
    wait: wait for tasks that still go on.
    show: whether there may be a progress bar.

    Raises
    ------
    RunStateError: the run has no tasks, or is still running; or tasks go on, and `wait` is False.
    LedgerError: what the tasks have written is broken.
    """
    while True:
        known = lockfile.read(save_dir)
        _check(known, save_dir)
        if is_sealed(known):
            return known
        _await(known, save_dir, wait, show)
        with _alone(known, save_dir):
            known = lockfile.read(save_dir)
            if is_sealed(known):  # somebody was quicker
                return known
            _check(known, save_dir)
            found = [fold(known, save_dir, entry) for entry in known.tasks]
            if not any(one.left for one in found) or not shifts.at_work(save_dir, known):
                return _seal(known, save_dir, found)


def is_sealed(known: Lock) -> bool:
    """True if a lock says all there is to say: its block has ended, and no task went on after it."""
    return known.status not in ("running", "submitted") and not {LATER, WAITED} & set(known.omissions)


def _check(known: Lock, save_dir: Path) -> None:
    if not known.tasks:
        raise RunStateError(
            f"run {known.id} ({known.status}) has no tasks to collect",
            hint="only runs that called `run.map` can be collected",
        )
    who = known.command
    if known.status == "running" and liveness.is_alive(save_dir, who.host, who.pid):
        raise RunStateError(
            f"run {known.id} is still running (process {who.pid} on {who.host}) and collects its tasks itself",
            hint="`runctx status` shows its progress",
        )


# -- rows ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Folded:
    """One map, as its rows tell of it now."""

    entry: Tasks
    labels: Mapping[str, str]
    """Key -> short text of every task."""
    rows: Rows

    @property
    def left(self) -> bool:
        """True if tasks are to be done yet."""
        return unfinished(self.entry)

    @property
    def ended(self) -> float:
        """When the last task did: seconds since 1970."""
        return max((row.started + row.seconds for _, row in self.rows.final.values()), default=0.0)

    def failure(self) -> Failure:
        """Of the run, because tasks failed or were not run."""
        results = Results(self.rows.files, list(self.labels), self.rows, trusted=False)
        error = failure(self.entry, self.labels, self.rows, results)
        faults = (self.rows.final[key][1].error for key in self.entry.failed_keys[:1])
        return Failure(
            type=f"{type(error).__module__}.{type(error).__qualname__}",
            message=str(error),
            traceback="".join(fault.traceback for fault in faults if fault is not None),
        )


def fold(known: Lock, save_dir: Path, entry: Tasks) -> Folded:
    """What became of the tasks of a map, by its files.

    Raises
    ------
    LedgerError: a file is broken.
    """
    rows = Rows(files_of(save_dir, entry))
    labels = read_labels(rows.files)
    rows.read_on()
    try:  # what failed in an earlier session, and is to be done again in the one that goes on, is not over
        wanted = set(Todo(rows.files).keys())
        names = {shift.name for shift in shifts.read_all(rows.files)}
        rows.final = {
            key: (worker, row)
            for key, (worker, row) in rows.final.items()
            if row.status != "failed" or key not in wanted or rows.author(worker).shift in names
        }
    except OSError:
        pass  # none goes on
    entry = summary(entry, list(labels), rows.final, rows.authors.values(), known.source.commit)
    return Folded(entry=entry, labels=labels, rows=rows)


# -- waiting ---------------------------------------------------------------------------------------------------------


def _await(known: Lock, save_dir: Path, wait: bool, show: bool) -> None:
    """Return when no task is left, or nobody works any more."""
    with _bar(show and wait) as advance:
        while True:
            began = time.monotonic()
            found = [fold(known, save_dir, entry) for entry in known.tasks]
            advance([one.entry for one in found])
            if not any(one.left for one in found) or not (working := shifts.at_work(save_dir, known)):
                return
            if not wait:
                total, done, failed = (
                    sum(getattr(one.entry, what) for one in found) for what in ("total", "done", "failed")
                )
                more = f" and {len(working) - 3} more" if len(working) > 3 else ""
                raise RunStateError(
                    f"tasks of run {known.id} are still running: {done} of {total} done, {failed} failed; "
                    f"running on: {', '.join(working[:3])}{more}",
                    hint="`runctx collect --wait` (or `collect(wait=True)`) waits for them; "
                    "`runctx status` shows their progress",
                )
            time.sleep(max(LOOK, 5 * (time.monotonic() - began)))  # reading many rows takes its time


@contextmanager
def _bar(show: bool) -> Iterator[Callable[[Sequence[Tasks]], None]]:
    if not show:
        yield lambda _: None
        return
    import sys

    from tqdm import tqdm

    with tqdm(desc="tasks", file=sys.stderr, leave=False, unit="task", disable=None) as bar:

        def advance(entries: Sequence[Tasks]) -> None:
            bar.total = sum(entry.total for entry in entries)
            bar.update(sum(entry.done + entry.failed for entry in entries) - bar.n)
            bar.refresh()

        yield advance


@contextmanager
def _alone(known: Lock, save_dir: Path) -> Iterator[None]:
    """Nobody else resumes or collects the run meanwhile."""
    from filelock import Timeout

    path = RunFiles(save_dir).alive
    if link := layout.find_link(save_dir):
        raise LedgerError(
            f"{link} is a link, and tasks are collected into the run's own folder only",
            hint="replace the link by the file or folder itself",
        )
    try:
        held = liveness.hold(path, PATIENCE)
    except Timeout:
        raise RunStateError(
            f"another process is resuming or collecting run {known.id}",
            hint=f"try again when it has ended; `fuser {path}` shows the process",
        ) from None
    except (OSError, NotImplementedError) as error:
        if isinstance(error, PermissionError) or not os.access(save_dir, os.W_OK):
            raise LedgerError(
                f"{save_dir}: cannot be written to: {error}", hint="who made the run can collect it"
            ) from error
        yield  # a file system without locks
        return
    try:
        yield
    finally:
        held.release()


# -- sealing ---------------------------------------------------------------------------------------------------------


def _seal(known: Lock, save_dir: Path, found: Sequence[Folded]) -> Lock:
    sealed = replace(known, tasks=tuple(one.entry for one in found), seconds=_seconds(known, found))
    sealed = _with_status(sealed, found)
    kept = tuple(omission for omission in sealed.omissions if omission not in (LATER, WAITED))
    sealed = replace(sealed, omissions=kept)
    for one in found:
        sealed, _ = inputs.joined(sealed, one.rows.files, one.rows.final, _cwd(known, save_dir))
        workers = read_notes(one.rows.files)
        packages = workers.packages | sealed.environment.packages
        sealed = replace(
            sealed,
            environment=replace(sealed.environment, packages=packages),
            keys_read=tuple(sorted(workers.keys_read.union(sealed.keys_read))),
        )
    sealed = _with_metrics(_with_outputs(sealed, save_dir), save_dir)
    lockfile.write(RunFiles(save_dir).lock, sealed, durable=True)
    for one in found:
        shutil.rmtree(one.rows.files.state, ignore_errors=True)
    _log(sealed, save_dir)
    return sealed


def _cwd(known: Lock, save_dir: Path) -> Path:
    """Where the run's relative paths started, as far as that can be told now."""
    cwd, inside = Path(known.command.cwd), Path(known.save_dir).parts
    if cwd.is_absolute() or save_dir.parts[-len(inside) :] != inside:
        return cwd
    return Path(*save_dir.parts[: -len(inside)]) / cwd


def _with_status(known: Lock, found: Sequence[Folded]) -> Lock:
    waited = known.status == "interrupted" and WAITED in known.omissions
    if known.status not in ("running", "submitted") and not waited:
        return known  # how its block ended stays true
    wrong = next((one for one in found if one.entry.failed or one.left), None)
    error = None if wrong is None else wrong.failure()
    if known.status == "running":
        return replace(
            known, status="interrupted", error=error, omissions=(*known.omissions, _UNFINISHED_BLOCK)
        )
    if any(one.left for one in found):
        return known if waited else replace(known, status="interrupted", error=error)
    if waited:
        known = replace(known, omissions=(*known.omissions, _REST))
    return replace(known, status="failed" if error else "done", error=error)


def _seconds(known: Lock, found: Sequence[Folded]) -> float | None:
    """To the end of the last task, if that was later than the block's."""
    began = (known.resumed or known.started).timestamp()
    last = max((one.ended for one in found), default=0.0) - began
    return round(max(last, known.seconds or 0.0), 3) if last > 0 or known.seconds else known.seconds


def _with_outputs(known: Lock, save_dir: Path) -> Lock:
    with held_back() as interrupt:
        found = outputs.collect(
            save_dir,
            own=outputs.folders_of(known, save_dir),
            maps=tuple(entry.name for entry in known.tasks),
            max_bytes=settings.load(save_dir).max_output_size,
            cache=layout.cache_dir(),
            wait=lambda hashing: wait_for(hashing, "hashing outputs", interrupt, show=True),
        )
    if found.manifest:
        layout.write_atomically(RunFiles(save_dir).outputs, found.manifest)
    new = (omission for omission in found.omissions if omission not in known.omissions)
    return replace(known, outputs=found.data, omissions=(*known.omissions, *new))


def _with_metrics(sealed: Lock, save_dir: Path) -> Lock:
    try:
        return replace(sealed, metrics=series.summaries(save_dir / layout.METRICS))
    except LedgerError as error:
        lost = Omission(what="summary of the metrics", why=error.message)
        return replace(sealed, omissions=(*(o for o in sealed.omissions if o != lost), lost))


def _log(sealed: Lock, save_dir: Path) -> None:
    from ..capture.log import RunLog

    log = RunLog(RunFiles(save_dir).log, sealed.id, console=False)
    done, total = (sum(getattr(entry, what) for entry in sealed.tasks) for what in ("done", "total"))
    log.say("INFO", f"collected: {sealed.status}, {done} of {total} tasks done")
    log.close()
