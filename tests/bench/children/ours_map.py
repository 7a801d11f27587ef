"""Maps of runctx, one after the other, in one run whose workers stay warm."""

import math
import os
import re
import time
from pathlib import Path

from serve import serve

from runctx import Run
from runctx.launchers import Slurm

run = Run(stage="bench", console=False).start()
last = {}


def trivial(i):
    return i + 1


def nap(seconds):
    time.sleep(seconds)


def half(i):
    if i % 1000 == 7 and not os.path.exists("mended"):
        raise ValueError(i)
    return i


def many(tasks):
    """All results read, as joblib gives them."""
    start = time.perf_counter()
    results = list(run.map(trivial, range(tasks), n_jobs=2))
    seconds = time.perf_counter() - start
    assert results == list(range(1, tasks + 1))
    return seconds


def naps(tasks, seconds):
    start = time.perf_counter()
    run.map(nap, [seconds] * tasks, n_jobs=2)
    return time.perf_counter() - start


def disk():
    """Bytes and files that the last map of `many` has left."""
    folder = max((run.save_dir / "tasks").glob("trivial*"), key=lambda path: path.stat().st_mtime)
    files = [path for path in folder.rglob("*") if path.is_file()]
    state = [path for path in (run.save_dir / ".runctx" / "tasks").rglob("*") if path.is_file()]
    return {"bytes": sum(path.stat().st_size for path in files + state), "files": len(files) + len(state)}


def unfinished(tasks):
    """A run in which one task of a thousand has failed."""
    Path("mended").unlink(missing_ok=True)
    with Run(stage="resumed", console=False) as broken:
        broken.map(half, range(tasks), n_jobs=2, on_error="return")
    Path("mended").touch()
    last["broken"] = os.fspath(broken.save_dir)


def resumed(tasks):
    start = time.perf_counter()
    with Run(stage="resumed", console=False, resume=last["broken"]) as again:
        results = again.map(half, range(tasks), n_jobs=2)
    seconds = time.perf_counter() - start
    assert results == list(range(tasks))
    return seconds


def memory(tasks):
    """Bytes by which this process is larger, at its peak, with all results at hand and none read."""
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    results = run.map(trivial, range(tasks), n_jobs=2)
    peak = resident("VmHWM")
    assert len(results) == tasks
    return peak - before


def resident(what):
    return 1024 * int(re.search(rf"^{what}:\s+(\d+)", Path("/proc/self/status").read_text(), re.MULTILINE)[1])


def slurm(tasks, seconds):
    """From the submission to the sealed lock; jobs on two nodes."""
    start = time.perf_counter()
    with Run(stage="slurm", console=False) as submitted:
        submitted.map(nap, [seconds] * tasks, launcher=Slurm(workers=2, cpus=2, time=10))
    taken = time.perf_counter() - start
    assert submitted.lock.tasks[0].done == tasks and math.isfinite(taken)
    return taken


serve(
    {
        "many": many,
        "naps": naps,
        "disk": disk,
        "unfinished": unfinished,
        "resumed": resumed,
        "memory": memory,
        "slurm": slurm,
    }
)
