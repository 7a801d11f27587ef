"""What does runctx cost a cold process?"""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from .harness import Bench, Row, Sides, clock
from .peers import peer_python
from .workshop import Workshop

PROCESSES = 7
"""Cold processes behind each figure of a round: a single one swings by several milliseconds."""

HEAVY = (
    "mlflow",
    "joblib",
    "submitit",
    "pandas",
    "numpy",
    "rich",
    "IPython",
    "pygit2",
    "omegaconf",
    "loguru",
)


@contextmanager
def imports(workshop: Workshop) -> Iterator[Sides]:
    loaded = subprocess.run(
        [sys.executable, "-c", f"import runctx, sys; print(*[m for m in {HEAVY!r} if m in sys.modules])"],
        env=workshop.environ,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    workshop.note(f"`import runctx` loads of {', '.join(HEAVY)}: {', '.join(loaded) or 'none'}.")

    def cold(code: str) -> float:
        return clock(lambda: workshop.run([sys.executable, "-c", code], workshop.root))

    def net(module: str) -> float:
        """Above a bare process, of which one runs beside each."""
        return statistics.median(cold(f"import {module}") - cold("pass") for _ in range(PROCESSES))

    yield {"runctx": lambda _: net("runctx"), "omegaconf": lambda _: net("omegaconf")}


@contextmanager
def processes(workshop: Workshop) -> Iterator[Sides]:
    def script(name: str, python: str) -> float:
        root = workshop.repository(200, name)
        command = [python, str(root / "bench" / f"once_{name}.py")]
        return statistics.median(clock(lambda: workshop.run(command, root)) for _ in range(PROCESSES))

    script("runctx", sys.executable)
    if not list((workshop.repository(200, "runctx")).rglob("run.lock")):
        raise RuntimeError("the script left no run.lock")
    yield {
        "runctx": lambda _: script("runctx", sys.executable),
        "sacred": lambda _: script("sacred", peer_python()),
    }


BENCHES = (
    Bench(
        name="import",
        sides=imports,
        rows=(
            Row(
                what="`import runctx`, cold process, net of bare Python",
                against="`import omegaconf`, likewise",
                ours="runctx",
                peer="omegaconf",
                reach=1.3,
            ),
        ),
    ),
    Bench(
        name="process",
        sides=processes,
        rows=(
            Row(
                what="whole process: a script with one empty `with Run(cfg)`, repository of 200 files",
                against="the same script with sacred's FileStorageObserver",
                ours="runctx",
                peer="sacred",
                reach=0.5,
            ),
        ),
    ),
)
