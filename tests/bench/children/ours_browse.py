"""Ten thousand finished runs of runctx, read as a table."""

import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from serve import serve
from settings20 import SETTINGS

from runctx import Run, lock, runs
from runctx.layout import RunFiles
from runctx.model import Summary


def make(root, count):
    """One real run with four inputs; then its lock, as another run's, in as many folders of their own."""
    inputs = sorted(path for path in Path("bench").glob("*.py"))[:4]
    with Run(SETTINGS, inputs=inputs, console=False) as run:
        pass
    for number in range(count):
        started = run.lock.started - timedelta(minutes=number)
        folder = Path(root) / "results" / "train" / f"{started:%y%m%d-%H%M%S}"
        folder.mkdir(parents=True)
        another = replace(
            run.lock,
            id=f"train-{started:%y%m%d-%H%M%S}-{number:06x}",
            started=started,
            save_dir=str(folder),
            config={**SETTINGS, "seed": number, "lr": 1 / (number + 1)},
            metrics={"acc": last(number % 100 / 100), "loss": last(1 - number % 100 / 100)},
        )
        lock.write(RunFiles(folder).lock, another)
    return len(RunFiles(folder).lock.read_text().splitlines())


def last(value):
    return Summary(last=value, min=0.0, max=value, points=1)


def read(root):
    """All runs, each row with its configuration."""
    start = time.perf_counter()
    rows = runs(f"{root}/results").rows
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "runs": sum(row.status == "done" and len(row.config) == 20 for row in rows)}


def read_frame(root):
    """The same as a pandas.DataFrame, as MLflow returns it."""
    start = time.perf_counter()
    frame = runs(f"{root}/results").to_pandas()
    return {"seconds": time.perf_counter() - start, "runs": len(frame)}


def read_some(root):
    """Half of them, chosen by configuration and metric; all that were looked at count."""
    start = time.perf_counter()
    found = runs(f"{root}/results")
    frame = found.where("config.lr < 0.5 and metrics.acc.max >= 0.5").to_pandas()
    seconds = time.perf_counter() - start
    if not len(found) * 0.49 < len(frame) <= len(found) / 2 or "metrics.acc.last" not in frame:
        raise RuntimeError(f"{len(frame)} runs of {len(found)}")
    return {"seconds": seconds, "runs": len(found)}


serve({"make": make, "read": read, "read_frame": read_frame, "read_some": read_some})
