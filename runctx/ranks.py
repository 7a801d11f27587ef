"""Join the ranks of a distributed training: those other than 0 attach to the run of rank 0, as tasks do.

torchrun, srun and mpirun start one program several times. Rank 0 makes the run, and leaves a small file in the results
folder, named after what the launcher gives to all ranks alike. The others wait for this file.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from . import layout, liveness
from .errors import LockError, NoRunError, RunStateError
from .model import Failure, Lock, Omission, Status
from .redact import Redactor
from .tasks.attached import Parent, Task

OFF = "RUNCTX_RANKS"
"""Variable that makes every process a run of its own, if it is `off`."""
FOLDER = ".ranks"
"""In the results folder."""
PATIENCE = 300.0
"""Seconds for which rank 0's run is waited for."""
_SIGN = 2.0
"""Seconds of waiting after which it is said."""
_KEPT = 86_400.0
"""Seconds after which a file in the folder is of no use."""

_LAUNCHERS = (
    # rank, number of ranks, what must be there, what tells one start from another if it is there
    (
        "RANK",
        "WORLD_SIZE",
        ("MASTER_ADDR", "MASTER_PORT"),
        ("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT"),
    ),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", ("PMIX_NAMESPACE",), ()),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", ("OMPI_MCA_ess_base_jobid",), ()),
    ("SLURM_PROCID", "SLURM_NTASKS", ("SLURM_JOB_ID", "SLURM_STEP_ID"), ("SLURM_RESTART_COUNT",)),
    ("PMI_RANK", "PMI_SIZE", ("PMI_PORT",), ()),
)


@dataclass(frozen=True, kw_only=True)
class Rank:
    """This process, as its launcher counts it."""

    number: int
    shared: tuple[str, ...]
    """What all ranks of one start have in common, and no other start."""

    def file(self, results: Path, stage: str) -> Path:
        """Where rank 0 says which run is this process' next one of this stage."""
        _entered[stage] += 1
        name = "\0".join((*self.shared, stage, str(_entered[stage])))
        return results / FOLDER / f"{hashlib.blake2b(name.encode(), digest_size=16).hexdigest()}.json"


_entered: Counter[str] = Counter()
"""Stage -> runs of it that this process has entered: the second of rank 1 is the second of rank 0."""


def of_process(environ: Mapping[str, str] = os.environ) -> Rank | None:
    """Which rank this process is; None if it is alone.

    >>> of_process({"SLURM_PROCID": "0", "SLURM_NTASKS": "1", "SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0"})
    >>> of_process({"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}).number
    1
    """
    if environ.get(OFF, "").lower() == "off":
        return None
    for rank, size, needed, further in _LAUNCHERS:
        number, ranks = environ.get(rank, ""), environ.get(size, "")
        if number.isdecimal() and ranks.isdecimal() and int(ranks) > 1 and all(map(environ.get, needed)):
            return Rank(
                number=int(number),
                shared=tuple(f"{name}={environ.get(name, '')}" for name in (*needed, *further)),
            )
    return None


def announce(file: Path, save_dir: Path, run_id: str) -> None:
    """Rank 0's run has a lock: the other ranks may attach."""
    shutil.rmtree(_states(save_dir), ignore_errors=True)  # of an earlier entry
    file.parent.mkdir(parents=True, exist_ok=True)
    for old in file.parent.glob("*.json"):
        with contextlib.suppress(OSError):
            if time.time() - old.stat().st_mtime > _KEPT:
                old.unlink()
    said = {"save_dir": os.fspath(save_dir), "id": run_id, "time": time.time()}
    layout.write_atomically(file, json.dumps(said).encode())


def await_others(save_dir: Path, patience: float) -> Iterator[Omission]:
    """Wait a moment for ranks that are still in the run; what is missing of them, and which of them failed."""
    began = time.monotonic()
    while "running" in (states := _read_states(save_dir)).values() and time.monotonic() - began < patience:
        time.sleep(0.02)
    for name, state in states.items():
        if state == "running":
            yield Omission(
                what=name, why="was still running when rank 0 ended: what it added later is not in the lock"
            )
        elif state != "done":
            yield Omission(what=name, why=state)


def _states(save_dir: Path) -> Path:
    return layout.RunFiles(save_dir).state / "ranks"


def _read_states(save_dir: Path) -> dict[str, str]:
    found = {}
    for path in sorted(_states(save_dir).glob("rank *")):
        with contextlib.suppress(OSError):
            found[path.name] = layout.read_regular(path, most=1 << 16).decode("utf-8", "replace")
    return found


def find(file: Path, number: int) -> tuple[Path, Lock]:
    """Folder and lock of rank 0's run; waits for it.

    Raises
    ------
    RunStateError: it was not there in time.
    """
    began, said = time.monotonic(), False
    while (found := _look(file)) is None:
        waited = time.monotonic() - began
        if waited > PATIENCE:
            raise RunStateError(
                f"rank {number} waited {PATIENCE:.0f} s for the run of rank 0, which should be named in {file}",
                hint=f"all ranks must enter the same runs and see this folder; {OFF}=off gives each rank its own run",
            )
        if waited > _SIGN and not said:
            said = True
            print(f"runctx: rank {number} waits for the run of rank 0", file=sys.stderr, flush=True)
        time.sleep(0.05)
    return found


def _look(file: Path) -> tuple[Path, Lock] | None:
    from . import lock

    try:
        said = json.loads(layout.read_regular(file, most=1 << 16))
        folder = Path(said["save_dir"])
        known = lock.read(folder)
    except (OSError, ValueError, KeyError, TypeError, LockError, NoRunError):
        return None
    if known.id != said["id"]:
        return None
    # an earlier start may have had the same address and port: its run has ended, and before this process began
    alive = known.status == "running" and liveness.is_alive(folder, known.command.host, known.command.pid)
    return (folder, known) if alive or said["time"] > _started() else None


def _started() -> float:
    import psutil

    return float(psutil.Process().create_time())


@dataclass
class Attached(Task):
    """A rank other than 0, inside the run of rank 0; what it logs is marked with its name."""

    number: int = 0
    marks: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def __str__(self) -> str:
        return self.key

    @property
    def writer(self) -> str:
        return f"rank{self.number}-"

    def enter(self) -> None:
        from .capture.log import marked

        self._say("running")
        self.parent.log.activate()
        self.marks.enter_context(marked(self))

    def leave(self, status: Status, error: Failure | None) -> None:
        """Say how it ended, and close its files."""
        log = self.parent.log
        state: str = status
        if error is not None:
            state = f"{status}: {error.type.rpartition('.')[2]}: {error.message}"
            log.say("ERROR", f"{status}\n{error.traceback.rstrip()}")
        self._say(state)
        with contextlib.suppress(ValueError):  # it is left in another thread than it was entered in
            self.marks.close()
        log.close()
        self.journal.close()

    def _say(self, state: str) -> None:
        folder = _states(self.parent.save_dir)
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            layout.write_atomically(folder / self.key, state[:10_000].encode())


def attach(rank: Rank, file: Path, results: Path, redactor: Redactor, *, console: bool) -> Attached:
    """This rank's place in the run of rank 0.

    Raises
    ------
    RunStateError: there is none in time.
    """
    from .capture.log import RunLog

    folder, known = find(file, rank.number)
    files = layout.RunFiles(folder)
    # a network file system knows no appending by several machines
    path = files.log if known.command.host == platform.node() else files.rank_log(rank.number)
    log = RunLog(path, known.id, console=console, redact=redactor.text)
    return Attached(
        parent=Parent(
            save_dir=folder,
            id=known.id,
            started=known.started,
            latest=known.latest,
            results=results,
            log=log,
            seed=known.seed,
            redactor=redactor,
            cwd=os.getcwd(),
            covered=tuple(os.path.abspath(data.path) for data in known.inputs if data.kind != "glob"),
        ),
        map="",
        key=f"rank {rank.number}",
        number=rank.number,
    )
