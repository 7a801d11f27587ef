"""Ten thousand runs in MLflow's sqlite store, and read as a table."""

import sqlite3
import time
import uuid

import mlflow
from serve import serve
from settings20 import SETTINGS

REAL = 100
"""Runs that are logged through the client; the others are copies of them, row by row."""


def make(database, count):
    """Ten thousand runs of 20 parameters, 2 metrics and 4 hashes.

    Through the client they would take minutes: so the first hundred are, and the rest are copies of their
    rows under new ids. `read` then counts what MLflow itself sees.
    """
    mlflow.set_tracking_uri(f"sqlite:///{database}")
    mlflow.set_experiment("bench")
    for number in range(REAL):
        with mlflow.start_run(run_name=f"run-{number}"):
            mlflow.log_params({**SETTINGS, "seed": number})
            mlflow.log_metrics({"acc": number / REAL, "loss": 1 - number / REAL})
            mlflow.set_tags({f"input.{n}": f"blake3:{n:064x}" for n in range(4)})
    store = sqlite3.connect(database)
    with store:
        originals = [row[0] for row in store.execute("SELECT run_uuid FROM runs")]
        for number in range(REAL, count):
            copy_run(store, originals[number % REAL], uuid.uuid4().hex)
    store.close()


def copy_run(store, original, copy):
    for table in ("runs", "params", "metrics", "latest_metrics", "tags"):
        columns = [row[1] for row in store.execute(f"PRAGMA table_info({table})") if row[1] != "run_uuid"]
        names = ", ".join(columns)
        store.execute(
            f"INSERT INTO {table} (run_uuid, {names}) SELECT ?, {names} FROM {table} WHERE run_uuid = ?",
            (copy, original),
        )


def read():
    start = time.perf_counter()
    table = mlflow.search_runs(max_results=50_000)
    return {"seconds": time.perf_counter() - start, "runs": len(table)}


serve({"make": make, "read": read})
