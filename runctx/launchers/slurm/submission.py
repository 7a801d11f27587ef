"""How does a job get into Slurm's queue? Through submitit, as often and as large as the cluster takes."""

from __future__ import annotations

import math
import os
import secrets
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from ... import layout
from ...errors import LaunchError
from ...layout import TaskFiles
from . import scheduler

UNLIMITED_MINUTES = 0
"""What sbatch takes for no limit."""
NOTICE = 30
"""Seconds before the end at which Slurm signals a job; it may come half a minute earlier."""

# a job that is preempted while it starts must not die of the signal, and finds out by itself
_PYTHON = ("/bin/sh", "-c", 'trap "" USR2; exec "$0" "$@"', sys.executable)


@dataclass(frozen=True, kw_only=True)
class Request:
    """What each job asks for; picklable, for jobs submit their successors."""

    partition: str | None
    seconds: float
    cpus: int
    gpus: int | None
    mem: str | None
    setup: tuple[str, ...]
    options: dict[str, Any] = field(default_factory=dict)


def submit(
    request: Request, files: TaskFiles, name: str, element: Callable[[], None], count: int
) -> list[str]:
    """Submit up to `count` jobs that each call `element`, as arrays as large as may be; their ids.

    Fewer, or none, if the cluster takes no more at present.

    Raises
    ------
    LaunchError: the cluster refuses them for another reason; with its words.
    """
    import submitit

    if absent := [command for command in ("sbatch", "srun", "squeue") if shutil.which(command) is None]:
        raise LaunchError(
            f"no Slurm on this machine: {', '.join(absent)} not found on the PATH",
            hint="submit from a login node, or use another launcher such as 'joblib'",
        )
    executor = submitit.AutoExecutor(
        folder=folder_of(files), cluster="slurm", slurm_python=shlex.join(_PYTHON)
    )
    executor.update_parameters(**_parameters(request, name))
    ids: list[str] = []
    size = min(count, scheduler.largest_array() or 1)
    while len(ids) < count and size > 0:
        some = min(size, count - len(ids))
        try:
            taken = _submitted(executor, element, some)
        except LaunchError:
            if ids:
                break  # some have been taken: they will do
            raise
        if taken is None:
            size = some // 2
            continue
        _note(files, taken)
        ids += taken
    return ids


def folder_of(files: TaskFiles) -> Path:
    """Of submitit: what it gives to jobs, and what they say."""
    return files.root / layout.STATE / "jobs" / files.name


def submitted(files: TaskFiles) -> set[str]:
    """The ids of all jobs that were ever submitted for a map."""
    found: set[str] = set()
    for path in files.jobs.glob("*.json"):
        try:
            found.update(msgspec.json.decode(layout.read_regular(path), type=list[str]))
        except (OSError, ValueError):
            continue
    return found


def _note(files: TaskFiles, ids: list[str]) -> None:
    files.jobs.mkdir(parents=True, exist_ok=True)
    layout.write_atomically(files.jobs / f"{secrets.token_hex(4)}.json", msgspec.json.encode(ids))


def _submitted(executor: Any, element: Callable[[], None], count: int) -> list[str] | None:
    """None if that is too many at once."""
    from submitit.core.utils import FailedJobError

    with _outside_of_any_job():
        for attempt in range(3):
            try:
                jobs = (
                    executor.map_array(_call, [element] * count) if count > 1 else [executor.submit(element)]
                )
                return [job.job_id for job in jobs]
            except FailedJobError as error:
                said = str(error).strip()
                if scheduler.is_refused_for_limit(said):
                    return None
                if said or attempt == 2:  # without a word: a signal to this job has hit sbatch
                    raise LaunchError(
                        f"Slurm refused the job: {said or 'sbatch died'}",
                        hint="check the arguments of Slurm(...); `sinfo` lists partitions and their limits",
                    ) from error
                time.sleep(0.5)
    return None


def _call(element: Callable[[], None]) -> None:
    element()


def _parameters(request: Request, name: str) -> dict[str, Any]:
    minutes = UNLIMITED_MINUTES if math.isinf(request.seconds) else max(1, math.ceil(request.seconds / 60))
    extra = {key.replace("_", "-"): value for key, value in request.options.items()}
    if extra.get("requeue") is False:
        del extra["requeue"]
        extra["no-requeue"] = True
    told: dict[str, Any] = {
        "name": name,
        "timeout_min": minutes,
        "cpus_per_task": request.cpus,
        "gpus_per_node": request.gpus,
        "slurm_partition": request.partition,
        "slurm_signal_delay_s": NOTICE if request.seconds > 10 * NOTICE else 1,
        "slurm_array_parallelism": 10**6,
        "slurm_setup": list(request.setup) or None,
        "slurm_stderr_to_stdout": True,
        # since Slurm 22.05 a step does not have the job's processors unless it asks for them, too
        "slurm_srun_args": [f"--cpus-per-task={request.cpus}"],
    }
    if request.mem is not None:
        extra["mem"] = request.mem
    if extra:
        told["slurm_additional_parameters"] = extra
    return {key: value for key, value in told.items() if value is not None}


@contextmanager
def _outside_of_any_job() -> Iterator[None]:
    """A job that submits another must not hand its own variables on; but the cluster stays the same."""
    import submitit

    conf = os.environ.get("SLURM_CONF")
    with submitit.helpers.clean_env():
        if conf is not None:
            os.environ["SLURM_CONF"] = conf
        yield
