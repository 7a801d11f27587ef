"""Does anybody still work on the tasks of a run, or is going to?"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ...layout import STATE, TASKS, TaskFiles
from ...model import Lock

if TYPE_CHECKING:
    from .shift import Shift


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
    from .shift import is_dead, read_all

    return (one for one in read_all(files) if (one.host, one.pid) not in gone and not is_dead(one))


def _jobs(files: TaskFiles) -> set[str]:
    """The ids of all jobs that were ever submitted for a map."""
    if not files.jobs.is_dir():
        return set()
    from ...launchers.slurm.submission import submitted

    return submitted(files)


def _begun(files: TaskFiles) -> set[str]:
    from .shift import read_all

    return {one.slurm_job for one in read_all(files) if one.slurm_job}


def _in_slurm(jobs: set[str]) -> set[str]:
    """Those that run or wait; all, if Slurm does not answer."""
    from ...launchers.slurm import scheduler

    living = scheduler.living(jobs)
    return jobs if living is None else living
