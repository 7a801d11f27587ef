"""Who works on the tasks of a run, and who is going to: shifts, by their files, and jobs in Slurm's queue."""

from __future__ import annotations

import os
import platform
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from ... import layout
from ...layout import STATE, TASKS, TaskFiles
from ...liveness import exists
from ...model import Lock


class Shift(msgspec.Struct, frozen=True, omit_defaults=True):
    """What others can know of a shift: the file in `shifts/`."""

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


SILENCE = 120.0
"""Seconds without one after which a shift that nobody can look at counts as dead."""


def read_all(files: TaskFiles) -> list[Shift]:
    """All shifts of a map so far, the earliest first; a broken file counts for nothing."""
    found: list[Shift] = []
    now: float | None = None
    here = platform.node()
    for path in files.shift("x").parent.glob("*.json"):
        try:
            with open(layout.open_regular(path), "rb") as stream:
                shift = _decoder.decode(stream.read())
                touched = os.fstat(stream.fileno()).st_mtime
        except (OSError, ValueError):
            continue
        if not shift.ended and shift.host != here:
            now = _clock(path.parent) if now is None else now
            shift = msgspec.structs.replace(shift, quiet=max(0.0, now - touched))
        found.append(shift)
    return sorted(found, key=lambda shift: (shift.began, shift.name))


_decoder = msgspec.json.Decoder(Shift)


def _clock(folder: Path) -> float:
    """What time it is for the file system, whose clock need not be that of this machine."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            return os.fstat(file.fileno()).st_mtime
    except OSError:  # not ours to write to
        return time.time()


def is_dead(shift: Shift) -> bool:
    """Whether a shift is over: for certain, or because nothing was heard of it for long."""
    if shift.ended:
        return True
    return not exists(shift.pid) if shift.host == platform.node() else shift.quiet > SILENCE


def dead_ones(shifts: Sequence[Shift]) -> set[str]:
    """Names of those that are over."""
    return {shift.name for shift in shifts if is_dead(shift)}


def may_go_on(save_dir: str | os.PathLike[str] | None, processes: set[tuple[str, int]]) -> bool:
    """Whether tasks of a run seem to go on without it; cheap, as listings need it.

    Parameters
    ----------
    processes: host and number of the run's own processes, which are known to be gone.
    """
    if save_dir is None:
        return False
    return any(
        next(_living(files, processes), None) is not None or not _jobs(files) <= _begun(files)
        for files in maps(Path(save_dir))
    )


def at_work(save_dir: Path, lock: Lock) -> list[str]:
    """Who works on the tasks of a run whose own process is gone, or will; in words. Asks Slurm where it has jobs."""
    found = []
    for files in maps(save_dir):
        jobs = _jobs(files)
        queued = _in_slurm(jobs) if jobs else set()
        for shift in _living(files, processes(lock)):
            if shift.slurm_job is None or shift.slurm_job in queued:
                job = f", Slurm job {shift.slurm_job}" if shift.slurm_job else ""
                found.append(f"process {shift.pid} on {shift.host}{job}")
                queued.discard(shift.slurm_job or "")
        found += [f"Slurm job {job}" for job in sorted(queued)]
    return found


def queued(files: TaskFiles, working: Sequence[Shift]) -> set[str]:
    """Jobs of a map that will work on it and do not yet: those in Slurm's queue.

    Parameters
    ----------
    working: shifts that live.
    """
    waiting = _jobs(files) - {shift.slurm_job for shift in working if shift.slurm_job}
    if not waiting:
        return set()
    from ...launchers.slurm import scheduler

    living = scheduler.living(waiting)
    return waiting - _begun(files) if living is None else living


def processes(lock: Lock) -> set[tuple[str, int]]:
    """Host and number of the processes that the run itself was, or is."""
    return {(lock.command.host, lock.command.pid), *((one.host, one.pid) for one in lock.sessions)}


def maps(save_dir: Path) -> list[TaskFiles]:
    """The maps of a run that have not come to their end."""
    try:
        return [TaskFiles(save_dir, name) for name in sorted(os.listdir(save_dir / STATE / TASKS))]
    except OSError:
        return []


def _living(files: TaskFiles, gone: set[tuple[str, int]]) -> Iterator[Shift]:
    return (one for one in read_all(files) if (one.host, one.pid) not in gone and not is_dead(one))


def _jobs(files: TaskFiles) -> set[str]:
    """The ids of all jobs that were ever submitted for a map."""
    if not files.jobs.is_dir():
        return set()
    from ...launchers.slurm.submission import submitted

    return submitted(files)


def _begun(files: TaskFiles) -> set[str]:
    return {one.slurm_job for one in read_all(files) if one.slurm_job}


def _in_slurm(jobs: set[str]) -> set[str]:
    """Those that run or wait; all, if Slurm does not answer."""
    from ...launchers.slurm import scheduler

    living = scheduler.living(jobs)
    return jobs if living is None else living
