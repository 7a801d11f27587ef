"""Tell who works on the tasks of a run, or will: shifts, by their files, and jobs in Slurm's queue.

A shift is one span of work of some workers on one machine, looked after by one process.
"""

from __future__ import annotations

import os
import platform
import secrets
import tempfile
import time
from collections.abc import Collection, Iterable
from pathlib import Path

import msgspec

from .. import layout
from ..layout import STATE, TASKS, TaskFiles
from ..liveness import exists
from ..model import Lock

SILENCE = 120.0
"""Seconds without a sign of life after which a shift that nobody can look at counts as dead."""


class Shift(msgspec.Struct, frozen=True, omit_defaults=True):
    """The file of a shift in `shifts/`."""

    name: str
    host: str
    pid: int
    workers: int
    began: float
    """Seconds since 1970."""
    deadline: float | None = None
    slurm_job: str | None = None
    """`123`, or `123_4` of an array."""
    life: int = 0
    """How often Slurm had started that job again before."""
    ended: bool = False
    """It will not come back: nobody works in it any more."""
    quiet: float = 0.0
    """Seconds for which a shift on another machine has given no sign of life; not in the file, but its age."""

    @property
    def is_dead(self) -> bool:
        """True if it is over: for certain, or because nothing was heard of it for long."""
        if self.ended:
            return True
        return not exists(self.pid) if self.host == platform.node() else self.quiet > SILENCE


_decoder = msgspec.json.Decoder(Shift)


def read_all(files: TaskFiles) -> list[Shift]:
    """All shifts of a map so far, the earliest first; a broken file is skipped."""
    found: list[Shift] = []
    now: float | None = None
    for path in files.shift("x").parent.glob("*.json"):
        try:
            with open(layout.open_regular(path), "rb") as stream:
                shift = _decoder.decode(stream.read())
                touched = os.fstat(stream.fileno()).st_mtime
        except (OSError, ValueError):
            continue
        if not shift.ended and shift.host != platform.node():
            now = _clock(path.parent) if now is None else now
            shift = msgspec.structs.replace(shift, quiet=max(0.0, now - touched))
        found.append(shift)
    return sorted(found, key=lambda shift: (shift.began, shift.name))


def _clock(folder: Path) -> float:
    """The file system's time, whose clock need not be that of this machine."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            return os.fstat(file.fileno()).st_mtime
    except OSError:  # not ours to write to
        return time.time()


def dead_ones(shifts: Iterable[Shift]) -> set[str]:
    """Names of those that are over."""
    return {shift.name for shift in shifts if shift.is_dead}


# -- jobs ------------------------------------------------------------------------------------------------------------


def note_jobs(files: TaskFiles, ids: Collection[str]) -> None:
    """Keep the ids of jobs that were submitted for a map."""
    files.jobs.mkdir(parents=True, exist_ok=True)
    layout.write_atomically(files.jobs / f"{secrets.token_hex(4)}.json", msgspec.json.encode(list(ids)))


def jobs_of(files: TaskFiles) -> set[str]:
    """The ids of all jobs that were ever submitted for a map."""
    found: set[str] = set()
    for path in files.jobs.glob("*.json"):
        try:
            found.update(msgspec.json.decode(layout.read_regular(path), type=list[str]))
        except (OSError, ValueError):
            continue
    return found


def queued_jobs(files: TaskFiles, working: Iterable[Shift]) -> set[str]:
    """Jobs of a map that will work on it and do not yet: those in Slurm's queue.

    Parameters
    ----------
    working: shifts that live.
    """
    waiting = jobs_of(files) - {shift.slurm_job for shift in working if shift.slurm_job}
    living = _living(waiting)
    return waiting - _begun(files) if living is None else living


def _begun(files: TaskFiles) -> set[str]:
    return {shift.slurm_job for shift in read_all(files) if shift.slurm_job}


def _living(jobs: set[str]) -> set[str] | None:
    """Those that run or wait; None if Slurm does not answer."""
    if not jobs:
        return set()
    from ..launchers import scheduler

    return scheduler.living(jobs)


# -- runs ------------------------------------------------------------------------------------------------------------


def processes(lock: Lock) -> set[tuple[str, int]]:
    """Host and number of the processes that the run itself was, or is."""
    return {(lock.command.host, lock.command.pid), *((one.host, one.pid) for one in lock.sessions)}


def may_go_on(save_dir: str | os.PathLike[str] | None, gone: set[tuple[str, int]]) -> bool:
    """True if tasks of a run seem to go on without it; cheap, as listings need it.

    Parameters
    ----------
    gone: host and number of the run's own processes, which are known to be gone.
    """
    if save_dir is None:
        return False
    return any(_working(files, gone) or not jobs_of(files) <= _begun(files) for files in _maps(save_dir))


def at_work(save_dir: Path, lock: Lock) -> list[str]:
    """Who works on the tasks of a run whose own process is gone, or will; in words. Asks Slurm where it has jobs."""
    found = []
    for files in _maps(save_dir):
        jobs = jobs_of(files)
        living = _living(jobs)
        left = jobs if living is None else living
        for shift in _working(files, processes(lock)):
            if shift.slurm_job is None or shift.slurm_job in left:
                job = f", Slurm job {shift.slurm_job}" if shift.slurm_job else ""
                found.append(f"process {shift.pid} on {shift.host}{job}")
                left.discard(shift.slurm_job or "")
        found += [f"Slurm job {job}" for job in sorted(left)]
    return found


def _maps(save_dir: str | os.PathLike[str]) -> list[TaskFiles]:
    """The maps of a run that have not come to their end."""
    try:
        return [TaskFiles(save_dir, name) for name in sorted(os.listdir(Path(save_dir) / STATE / TASKS))]
    except OSError:
        return []


def _working(files: TaskFiles, gone: set[tuple[str, int]]) -> list[Shift]:
    return [one for one in read_all(files) if (one.host, one.pid) not in gone and not one.is_dead]
