"""Runs of runctx that log numbers, and are published."""

import contextlib
import os
import sqlite3
import time

from serve import serve

from runctx import Run


def burn(work):
    total = 0
    for n in range(work):
        total += n
    return total


def work_of_a_millisecond():
    """How many turns of an empty loop one takes: found once, so that all sides do the same work."""
    best = min(timed(lambda: burn(1_000_000)) for _ in range(5))
    return int(1_000_000 * 0.001 / best)


def timed(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def loop(steps, work):
    with Run({"lr": 0.1}, console=False) as run:
        start = time.perf_counter()
        for step in range(steps):
            burn(work)
            run.log_async(loss=1 / (step + 1), accuracy=step / steps, step=step)
        return time.perf_counter() - start


open_runs = []


def open_run():
    open_runs.append(Run({"lr": 0.1}, console=False).start())


def log():
    """One number that was never there before."""
    now = time.time()
    open_runs[-1].log_async(now=now)
    return {"time": now, "value": now}


def close_run():
    open_runs.pop().finish()


def make(folder, points):
    with Run({"lr": 0.1}, save_dir=folder, console=False) as run:
        for step in range(points // 2):
            run.log_async(loss=1 / (step + 1), accuracy=step / points, step=step)


def publish(folder, database):
    import mlflow  # noqa: F401 - its import is not what is measured

    os.environ["RUNCTX_TRACKING"], os.environ["RUNCTX_TRACKING_URI"] = "mlflow", f"sqlite:///{database}"
    try:
        seconds = timed(lambda: Run.load(folder).publish())
    finally:
        os.environ["RUNCTX_TRACKING"] = "off"
    with contextlib.closing(sqlite3.connect(database)) as store:
        (points,) = store.execute("SELECT count(*) FROM metrics").fetchone()
    return {"seconds": seconds, "points": points}


serve(
    {
        "work_of_a_millisecond": work_of_a_millisecond,
        "loop": loop,
        "open": open_run,
        "log": log,
        "close": close_run,
        "make": make,
        "publish": publish,
    }
)
