"""What became of tasks that go on without their run? Their rows are folded into its lock, and it is sealed.

By any process that sees the run's folder; of several that do so at once, one writes.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from .. import layout, liveness, settings
from .. import lock as lockfile
from ..errors import LedgerError, RunStateError
from ..layout import RunFiles, TaskFiles
from ..metrics import series
from ..model import Failure, Lock, Omission, Tasks
from . import inputs
from .fanout import failure
from .fold import folded, unfinished
from .ledger import todo
from .ledger.rows import Rows
from .results import Final, Results, final_rows
from .table import files_of
from .work import noted, presence

if TYPE_CHECKING:
    from ..hashing import Hashing

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
            if not any(one.left for one in found) or not presence.at_work(save_dir, known):
                return _seal(known, save_dir, found)


def is_sealed(known: Lock) -> bool:
    """Whether a lock says all there is to say: its block has ended, and no task went on after it."""
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


# -- rows --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Folded:
    """One map, as its rows tell of it now."""

    files: TaskFiles
    entry: Tasks
    names: Sequence[tuple[str, str]]
    """Key and short text of every task."""
    final: Final

    @property
    def left(self) -> bool:
        """Whether tasks are to be done yet."""
        return unfinished(self.entry)

    @property
    def ended(self) -> float:
        """When the last task did: seconds since 1970."""
        return max((row.started + row.seconds for _, row in self.final.values()), default=0.0)

    def failure(self) -> Failure:
        """Of the run, because tasks failed or were not run."""
        keys = [key for key, _ in self.names]
        results = Results(self.files, keys, self.final, trusted=False)
        error = failure(self.entry, lambda i: self.names[i][1], keys, self.final, results, self.files)
        faults = (self.final[key][1].error for key in self.entry.failed_keys[:1])
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
    files = files_of(save_dir, entry)
    names = todo.read_names(files)
    rows = Rows(files)
    final = final_rows(rows)
    for key in _again(files, rows, final):
        del final[key]
    keys = [key for key, _ in names]
    entry = folded(entry, keys, final, rows.authors.values(), known.source.commit)
    return Folded(files=files, entry=entry, names=names, final=final)


def _again(files: TaskFiles, rows: Rows, final: Final) -> list[str]:
    """What failed in an earlier session, and is to be done again in the one that goes on."""
    try:
        wanted = set(todo.Todo(files).keys())
    except OSError:
        return []  # none goes on
    from .work.presence import read_all

    shifts = {shift.name for shift in read_all(files)}
    authors = rows.authors
    return [
        key
        for key, (worker, row) in final.items()
        if row.status == "failed" and key in wanted and authors[worker].shift not in shifts
    ]


# -- waiting -----------------------------------------------------------------------------------------------


def _await(known: Lock, save_dir: Path, wait: bool, show: bool) -> None:
    """Return when no task is left, or nobody works any more."""
    with _bar(show and wait) as advance:
        while True:
            began = time.monotonic()
            found = [fold(known, save_dir, entry) for entry in known.tasks]
            advance(found)
            if not any(one.left for one in found):
                return
            working = presence.at_work(save_dir, known)
            if not working:
                return
            if not wait:
                raise _going_on(known, found, working)
            time.sleep(max(LOOK, 5 * (time.monotonic() - began)))  # reading many rows takes its time


def _going_on(known: Lock, found: Sequence[Folded], working: Sequence[str]) -> RunStateError:
    total, done, failed = (
        sum(getattr(one.entry, what) for one in found) for what in ("total", "done", "failed")
    )
    return RunStateError(
        f"tasks of run {known.id} are still running: {done} of {total} done, {failed} failed; "
        f"running on: {', '.join(working[:3])}{f' and {len(working) - 3} more' if len(working) > 3 else ''}",
        hint="`runctx collect --wait` (or `collect(wait=True)`) waits for them; `runctx status` shows their progress",
    )


@contextmanager
def _bar(show: bool) -> Iterator[Callable[[Sequence[Folded]], None]]:
    if not show:
        yield lambda _: None
        return
    import sys

    from tqdm import tqdm

    with tqdm(desc="tasks", file=sys.stderr, leave=False, unit="task", disable=None) as bar:

        def advance(found: Sequence[Folded]) -> None:
            bar.total = sum(one.entry.total for one in found)
            bar.update(sum(one.entry.done + one.entry.failed for one in found) - bar.n)
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


# -- sealing -----------------------------------------------------------------------------------------------


def _seal(known: Lock, save_dir: Path, found: Sequence[Folded]) -> Lock:
    sealed = replace(known, tasks=tuple(one.entry for one in found), seconds=_seconds(known, found))
    sealed = _judged(sealed, found)
    known_later = (omission for omission in sealed.omissions if omission not in (LATER, WAITED))
    sealed = replace(sealed, omissions=tuple(known_later))
    for one in found:
        sealed, _ = inputs.joined(sealed, one.files, one.final, _cwd(known, save_dir))
        workers = noted.read(one.files)
        packages = workers.packages | sealed.environment.packages
        sealed = replace(
            sealed,
            environment=replace(sealed.environment, packages=packages),
            keys_read=tuple(sorted(workers.keys_read.union(sealed.keys_read))),
        )
    sealed = _with_metrics(_with_outputs(sealed, save_dir), save_dir)
    lockfile.write(RunFiles(save_dir).lock, sealed, durable=True)
    for one in found:
        shutil.rmtree(one.files.state, ignore_errors=True)
    _say(sealed, save_dir)
    return sealed


def _cwd(known: Lock, save_dir: Path) -> Path:
    """Where the run's relative paths started, as far as that can be told now."""
    cwd, inside = Path(known.command.cwd), Path(known.save_dir).parts
    if cwd.is_absolute() or save_dir.parts[-len(inside) :] != inside:
        return cwd
    return Path(*save_dir.parts[: -len(inside)]) / cwd


def _judged(known: Lock, found: Sequence[Folded]) -> Lock:
    """With status and error."""
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
    from .. import outputs
    from ..interrupts import held_back
    from ..waiting import wait_for

    with held_back() as interrupt:

        def wait(hashing: Hashing) -> None:
            wait_for(hashing, "hashing outputs", interrupt, show=True)

        found = outputs.collect(
            save_dir,
            own=outputs.folders_of(known, save_dir),
            maps=tuple(entry.name for entry in known.tasks),
            max_bytes=settings.load(save_dir).max_output_size,
            cache=layout.cache_dir(),
            wait=wait,
        )
    if found.manifest:
        layout.write_atomically(RunFiles(save_dir).outputs, found.manifest)
    new = (omission for omission in found.omissions if omission not in known.omissions)
    return replace(known, outputs=found.data, omissions=(*known.omissions, *new))


def _say(sealed: Lock, save_dir: Path) -> None:
    """Into the run's log, too."""
    from ..capture.log import RunLog

    log = RunLog(RunFiles(save_dir).log, sealed.id, console=False)
    done, total = (sum(getattr(entry, what) for entry in sealed.tasks) for what in ("done", "total"))
    log.say("INFO", f"collected: {sealed.status}, {done} of {total} tasks done")
    log.close()


def _with_metrics(sealed: Lock, save_dir: Path) -> Lock:
    try:
        return replace(sealed, metrics=series.summaries(save_dir / layout.METRICS))
    except LedgerError as error:
        lost = Omission(what="summary of the metrics", why=error.message)
        return replace(sealed, omissions=(*(o for o in sealed.omissions if o != lost), lost))
