"""Ask Slurm, by its own commands, about jobs, and tell it what to do with them.

A scheduler that does not answer, as one that is restarted or overloaded, leaves things unknown (`None`): that is never
taken for a job's end.
"""

from __future__ import annotations

import math
import os
import re
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ..errors import SettingsError

PATIENCE = 30.0
"""Seconds that a command may take. `scontrol` itself gives up on a controller that is gone after 18."""

ENDED = frozenset(
    {
        "BOOT_FAIL",
        "CANCELLED",
        "COMPLETED",
        "DEADLINE",
        "FAILED",
        "LAUNCH_FAILED",
        "NODE_FAIL",
        "OUT_OF_MEMORY",
        "PREEMPTED",
        "RECONFIG_FAIL",
        "REVOKED",
        "TIMEOUT",
    }
)
"""States in which nothing of a job runs, or will run; any other is a living one, also those that are new to us."""

_AT_ONCE = 500
"""Jobs that one command is asked about: its line has a limit."""

_ID = re.compile(r"[0-9]{1,12}(_[0-9]{1,12})?")
_TIME = re.compile(r"(?:([0-9]{1,9})-)?([0-9]{1,9})(?::([0-9]{1,9}))?(?::([0-9]{1,9}))?")
_REFUSED = re.compile(
    "SubmitJob"  # AssocMaxSubmitJobLimit, QOSMaxSubmitJobPerUserLimit, MaxSubmitJobsPerAccount, ...
    "|Invalid job array specification"
    "|temporarily unable to accept job"
    "|Resource temporarily unavailable"
)
_POLICY = "job submit limit"
"""In what sbatch says of any limit, after the line that names it."""
_OTHER_LIMIT = re.compile(r"error: (QOS|Assoc)\w+")

# Slurm signals every process of a job: its commands, started in one, must survive the signal that they are about.
# What the shell ignores stays ignored after exec
_SHIELDED = ("/bin/sh", "-c", 'trap "" TERM USR1 USR2; exec "$0" "$@"')


@dataclass(frozen=True, slots=True)
class Job:
    """The job that a process is part of."""

    id: str
    """`123`, or `123_4` for an element of an array: what the commands take."""
    restarts: int
    """How often Slurm started it again: 0 in its first life."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """A job that the scheduler still remembers."""

    id: str
    state: str = ""
    ends: str = ""
    """Epoch seconds; NONE without limit, N/A before it starts."""
    requeue: str = ""


def this_job() -> Job | None:
    """The job that this process runs in; None outside of Slurm."""
    number = os.environ.get("SLURM_ARRAY_JOB_ID")
    if number is None:
        job_id = os.environ.get("SLURM_JOB_ID", "")
    else:  # the number of its own that each element has beside is of no use to the commands
        job_id = f"{number}_{os.environ.get('SLURM_ARRAY_TASK_ID')}"
    if not _ID.fullmatch(job_id):
        return None
    restarts = os.environ.get("SLURM_RESTART_COUNT", "")
    return Job(id=job_id, restarts=int(restarts) if restarts.isdecimal() else 0)


def living(job_ids: Iterable[str]) -> set[str] | None:
    """Which of these still run, or wait, or will be started again; None if Slurm does not answer.

    A job that is just being ended (its processes have some seconds left) lives.

    Parameters
    ----------
    job_ids: `123_4` for an element of an array; `123` lives while any element does. What cannot be a job's id
        is not living.

    >>> living([])
    set()
    """
    wanted = {job_id for job_id in job_ids if _ID.fullmatch(job_id)}
    seen = _seen({_number(job_id) for job_id in wanted})
    if seen is None:
        return None
    here = {job.id for job in seen if job.state not in ENDED}
    return wanted & (here | {_number(job_id) for job_id in here})


def ending(job_ids: Iterable[str]) -> set[str]:
    """Which of these are just being ended: their processes have some seconds left."""
    wanted = {job_id for job_id in job_ids if _ID.fullmatch(job_id)}
    seen = _seen({_number(job_id) for job_id in wanted}) or ()
    return wanted & {job.id for job in seen if job.state == "COMPLETING"}


def state(job_id: str) -> str | None:
    """Slurm's word for how a job or an element is: `PENDING`, `RUNNING`, `TIMEOUT`, `NODE_FAIL`, ...

    None if Slurm does not answer, or knows nothing of it: of an element that was cancelled before it
    started nobody keeps a record.
    """
    if not _ID.fullmatch(job_id):
        return None
    seen = _seen({job_id})
    if seen is None:
        return None  # accounting may tell what was some seconds ago
    return next((job.state for job in seen if job.id == job_id), None) or _accounted(job_id)


def ends_at() -> float | None:
    """When this job's time is over, in epoch seconds: infinity without limit, None if nobody knows.

    The scheduler is asked, as a limit can be changed, and is nearer from the moment a job is preempted.
    """
    job = this_job()
    told = _one(job.id) if job else None
    ends = told.ends if told else os.environ.get("SLURM_JOB_END_TIME", "")
    if ends == "NONE":
        return math.inf
    return float(ends) if ends.isdecimal() else None


def may_requeue(job_id: str) -> bool | None:
    """Whether a job was submitted such that it can be started again; None if that is not known."""
    told = _one(job_id)
    return {"0": False, "1": True}.get(told.requeue) if told else None


def requeue(job_id: str) -> bool:
    """Have a job started again under its id; whether Slurm took it.

    It need not run any more. If it does, everything of it is ended **at once**: SIGTERM comes before this
    returns, SIGKILL some seconds later.
    """
    return _ID.fullmatch(job_id) is not None and _ask("scontrol", "requeue", job_id) is not None


def cancel(job_ids: Iterable[str], *, only_waiting: bool = False) -> bool:
    """End jobs and elements, whether they run or wait; whether Slurm took it. Those that are over do not matter."""
    options = ["--quiet", "--state=PENDING"] if only_waiting else ["--quiet"]
    wanted = {job_id for job_id in job_ids if _ID.fullmatch(job_id)}
    taken = [_ask("scancel", *options, *some) is not None for some in _batches(wanted)]
    return all(taken)


def largest_array() -> int | None:
    """How many elements an array can have here, at most, counted from 0; 1 where there are no arrays.

    None if Slurm does not answer.
    """
    told = _ask("scontrol", "show", "config")
    if told is None:
        return None
    # the index of the last one is below MaxArraySize. Each counts as a job of the cluster, for which a submission
    # of too many waits two minutes before it fails
    patterns = (
        r"^MaxArraySize\s*=\s*([0-9]{1,12})",
        r"\bmax_array_tasks=([0-9]{1,12})",
        r"^MaxJobCount\s*=\s*([0-9]{1,12})",
    )
    limits = [int(limit) for pattern in patterns for limit in re.findall(pattern, told, re.MULTILINE)]
    return max(1, min(limits)) if limits else None


def kill_wait() -> float:
    """Seconds from a job's SIGTERM to its SIGKILL; what is usual, if Slurm does not answer."""
    found = re.search(r"^KillWait\s*=\s*([0-9]{1,6})", _ask("scontrol", "show", "config") or "", re.MULTILINE)
    return float(found[1]) if found else 30.0


def is_refused_for_limit(error: str) -> bool:
    """Whether a submission failed for being too many jobs at once: fewer, or later, may be taken.

    Parameters
    ----------
    error: what `sbatch` said.

    >>> is_refused_for_limit("sbatch: error: Batch job submission failed: Invalid job array specification")
    True
    >>> is_refused_for_limit("sbatch: error: invalid partition specified: gpu")
    False
    """
    return _REFUSED.search(error) is not None or (_POLICY in error and not _OTHER_LIMIT.search(error))


def seconds(time: str | int) -> float:
    """A time limit as Slurm writes it, in seconds; infinity for UNLIMITED and for zero, as Slurm has it.

    Parameters
    ----------
    time: `minutes`, `minutes:seconds`, `hours:minutes:seconds`, `days-hours`, `days-hours:minutes` or
        `days-hours:minutes:seconds`.

    Raises
    ------
    SettingsError: it is none of these.

    >>> seconds("01:00:00"), seconds("1-12"), seconds(30), seconds("2:30")
    (3600.0, 129600.0, 1800.0, 150.0)
    """
    text = str(time).strip()
    if text.upper() in ("UNLIMITED", "INFINITE"):
        return math.inf
    found = _TIME.fullmatch(text)
    if found is None:
        raise SettingsError(
            f"invalid time limit for Slurm: {text[:80]!r}",
            hint='minutes, "HH:MM:SS", "D-HH", "D-HH:MM:SS" or "UNLIMITED"',
        )
    days, *clock = found.groups()
    numbers = [int(number) for number in clock if number is not None]
    units = (3600, 60, 1) if days or len(numbers) == 3 else (60, 1)
    total = int(days or 0) * 86_400 + sum(n * unit for n, unit in zip(numbers, units, strict=False))
    return float(total) or math.inf


def _one(job_id: str) -> _Seen | None:
    """What the scheduler remembers of one job; None if it does not, or does not answer."""
    seen = _seen({job_id}) if _ID.fullmatch(job_id) else None
    return next((job for job in seen or () if job.id == job_id), None)


def _seen(job_ids: set[str]) -> list[_Seen] | None:
    """What the scheduler remembers of these: ended ones for some minutes. Elements of arrays one by one.

    None if it does not answer.
    """
    options = ("--noheader", "--all", "--array", "--states=all")
    fields = "--Format=JobArrayID:32,State:32,EndTime:32,Requeue:8"
    seen = []
    for some in _batches(job_ids):
        told = _ask("squeue", *options, fields, f"--jobs={','.join(some)}")
        if told is None:
            return None
        rows = (line.split() for line in told.splitlines())
        seen += [_Seen(*row[:4]) for row in rows if row and _ID.fullmatch(row[0])]
    return seen


def _accounted(job_id: str) -> str | None:
    """How accounting has it that a job ended, of whose lives the last counts."""
    told = _ask("sacct", "--noheader", "--parsable2", "--allocations", "--format=State", f"--jobs={job_id}")
    words = (told or "").split("\n")
    last = next((line for line in reversed(words) if line.strip()), None)
    return last and last.split()[0]  # CANCELLED by 1000


def _ask(*command: str) -> str | None:
    """What one of Slurm's commands says; None if it fails. Of a job that it has forgotten: nothing."""
    try:
        told = subprocess.run(
            [*_SHIELDED, *command],
            env=_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=PATIENCE,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    if told.returncode == 0:
        return told.stdout
    return "" if command[0] == "squeue" and "Invalid job id" in told.stderr else None


def _environment() -> dict[str, str]:
    """Ours, less what would change the commands' answers: `SQUEUE_STATES`, `SCANCEL_INTERACTIVE`, ..."""
    options = ("SQUEUE_", "SACCT_", "SCANCEL_", "SCONTROL_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(options)}
    return kept | {"LC_ALL": "C", "SLURM_TIME_FORMAT": "%s"}


def _batches(job_ids: Iterable[str]) -> Iterator[list[str]]:
    ordered = sorted(job_ids)
    for begin in range(0, len(ordered), _AT_ONCE):
        yield ordered[begin : begin + _AT_ONCE]


def _number(job_id: str) -> str:
    """The number that an element shares with its array."""
    return job_id.partition("_")[0]
