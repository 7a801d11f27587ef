"""What does it cost to look at ten thousand finished runs?"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from .harness import Bench, Row, Sides
from .peers import child
from .workshop import Workshop

RUNS = 10_000


@contextmanager
def ten_thousand_runs(workshop: Workshop) -> Iterator[Sides]:
    ours, theirs = workshop.fresh("runs"), workshop.fresh("mlflow")
    cache, project = workshop.fresh("index-cache"), workshop.repository(200, "browse")
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_LOGGING_LEVEL": "ERROR"}
    with (
        child(workshop, "ours_browse.py", cwd=project, RUNCTX_CACHE=str(cache)) as runctx,
        child(workshop, "peer_mlflow.py", cwd=theirs, **quiet) as mlflow,
    ):
        lines = runctx.ask("make", root=str(ours), count=RUNS)
        workshop.note(f"Each of the {RUNS} runs of runctx has a run.lock of its own, of {lines} lines.")
        mlflow.ask("make", database=str(theirs / "mlflow.db"), count=RUNS)

        def from_nothing(_: int) -> float:
            shutil.rmtree(cache, ignore_errors=True)
            return checked(runctx.ask("read", root=str(ours)))

        yield {
            "from nothing": from_nothing,
            "warm": lambda _: checked(runctx.ask("read", root=str(ours))),
            "frame": lambda _: checked(runctx.ask("read_frame", root=str(ours))),
            "filter": lambda _: checked(runctx.ask("read_some", root=str(ours))),
            "mlflow": lambda _: checked(mlflow.ask("read")),
        }


def checked(answer: dict[str, float]) -> float:
    if answer["runs"] != RUNS:
        raise RuntimeError(f"{answer['runs']} of {RUNS} runs seen")
    return answer["seconds"]


BENCHES = (
    Bench(
        name="browse",
        sides=ten_thousand_runs,
        rows=(
            Row(
                what="`runs()` over 10 000 finished runs, all rows, index warm",
                against="`mlflow.search_runs` over as many, sqlite",
                ours="warm",
                peer="mlflow",
                reach=0.02,
            ),
            Row(
                what="the same, index from nothing",
                against="the same",
                ours="from nothing",
                peer="mlflow",
                reach=0.6,
            ),
            Row(
                what="the same as a pandas.DataFrame, index warm",
                against="the same",
                ours="frame",
                peer="mlflow",
                reach=0.1,
            ),
            Row(
                what="the same, of which `.where` chooses half by configuration and metric, as a DataFrame",
                against="`mlflow.search_runs`, all rows as a DataFrame",
                ours="filter",
                peer="mlflow",
                reach=0.03,
            ),
        ),
    ),
)
