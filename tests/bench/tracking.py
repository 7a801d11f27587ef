"""What does it cost to have numbers shipped to MLflow, how soon are they there, and how fast are many?"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from .harness import Bench, Row, Sides
from .peers import child
from .workshop import Workshop

STEPS = 5_000
PATIENCE = 60
"""Seconds until a number that is not there is one that was lost."""
LOOKS = 10
"""Numbers whose way is timed in one round."""
MANY = 1_000_000

_QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_LOGGING_LEVEL": "ERROR"}


@contextmanager
def beside_silence(workshop: Workshop) -> Iterator[Sides]:
    root = workshop.repository(200, "stream")
    with (
        child(workshop, "ours_stream.py", cwd=root, RUNCTX_TRACKING="mlflow", **_QUIET) as shipped,
        child(workshop, "ours_stream.py", cwd=root, RUNCTX_TRACKING="off") as silent,
    ):
        per_step = silent.ask("work_of_a_millisecond")

        def latency(_: int) -> float:
            shipped.ask("open")
            try:
                return max(_seen(root / "mlflow.db", shipped.ask("log")) for _ in range(LOOKS))
            finally:
                shipped.ask("close")

        yield {
            "shipped": lambda _: shipped.ask("loop", steps=STEPS, work=per_step),
            "silent": lambda _: silent.ask("loop", steps=STEPS, work=per_step),
            "latency": latency,
            "3 s": lambda _: 3.0,
        }


def _seen(database: Path, logged: dict[str, float]) -> float:
    """Seconds until the number is in the database."""
    while (waited := time.time() - logged["time"]) < PATIENCE:
        try:
            with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=1)) as store:
                if store.execute("SELECT 1 FROM metrics WHERE value = ?", (logged["value"],)).fetchone():
                    return time.time() - logged["time"]
        except sqlite3.Error:
            pass  # it is being made
        time.sleep(0.02)
    raise RuntimeError(f"not seen after {waited:.0f} s")


@contextmanager
def beside_log_batch(workshop: Workshop) -> Iterator[Sides]:
    root = workshop.repository(200, "publish")
    ours, theirs = workshop.fresh("published"), workshop.fresh("by-hand")

    def points(number: int) -> int:
        return MANY if number else MANY // 100

    with (
        child(workshop, "ours_stream.py", cwd=root, RUNCTX_TRACKING="off", **_QUIET) as runctx,
        child(workshop, "peer_log_batch.py", cwd=theirs, **_QUIET) as mlflow,
    ):

        def published(number: int) -> float:
            folder = str(ours / str(number))
            runctx.ask("make", folder=folder, points=points(number))
            told = runctx.ask("publish", folder=folder, database=str(ours / f"{number}.db"))
            return _checked(told, points(number))

        yield {
            "runctx": published,
            "mlflow": lambda number: _checked(
                mlflow.ask("log", points=points(number), database=str(theirs / f"{number}.db")),
                points(number),
            ),
        }


def _checked(told: dict[str, float], points: int) -> float:
    if told["points"] != points:
        raise RuntimeError(f"{told['points']} of {points} points are there")
    return told["seconds"]


BENCHES = (
    Bench(
        name="ship",
        sides=beside_silence,
        rows=(
            Row(
                what="5 000 steps of 1 ms, two numbers each, shipped to MLflow meanwhile",
                against="the same, numbers on disk only",
                ours="shipped",
                peer="silent",
                reach=1.05,
            ),
            Row(
                what="from `log_async` to MLflow's sqlite while the run goes on, slowest of 10",
                against="three seconds",
                ours="latency",
                peer="3 s",
                reach=1.0,
            ),
        ),
    ),
    Bench(
        name="publish",
        sides=beside_log_batch,
        most=1,
        rows=(
            Row(
                what="`publish` of a run with 1 000 000 numbers to MLflow, sqlite",
                against="`log_batch` of 1 000 by hand",
                ours="runctx",
                peer="mlflow",
                reach=1.3,
            ),
        ),
    ),
)
