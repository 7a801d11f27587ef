"""What does one more run cost in a process that is already warm?"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from contextlib import contextmanager

from .harness import Bench, Row, Sides, clock
from .peers import child, peer_python
from .workshop import Workshop

RUNS = 10
"""Runs behind each figure of a round."""


@contextmanager
def beside_sacred(workshop: Workshop) -> Iterator[Sides]:
    python = peer_python()
    ours, theirs = workshop.repository(200, "runctx"), workshop.repository(200, "sacred")
    with (
        child(workshop, "ours_run.py", cwd=ours) as runctx,
        child(workshop, "peer_sacred.py", cwd=theirs, python=python) as sacred,
    ):
        yield {
            "runctx": lambda _: statistics.median(runctx.ask("run") for _ in range(RUNS)),
            "sacred": lambda _: statistics.median(sacred.ask("run") for _ in range(RUNS)),
        }


@contextmanager
def beside_git_status(workshop: Workshop) -> Iterator[Sides]:
    root = workshop.repository(10_000, "runs")
    status = ["git", "status", "--porcelain", "-uall"]
    with child(workshop, "ours_run.py", cwd=root) as runctx:
        yield {
            "runctx": lambda _: statistics.median(runctx.ask("run") for _ in range(RUNS)),
            "git": lambda _: statistics.median(
                clock(lambda: workshop.run(status, root)) for _ in range(RUNS)
            ),
        }


BENCHES = (
    Bench(
        name="run",
        sides=beside_sacred,
        rows=(
            Row(
                what="warm `with Run(cfg)`, 20 keys, no inputs, repository of 200 files",
                against="sacred's file observer, warm",
                ours="runctx",
                peer="sacred",
                reach=0.25,
            ),
        ),
    ),
    Bench(
        name="run-10000",
        sides=beside_git_status,
        rows=(
            Row(
                what="the same in a clean repository of 10 000 files",
                against="`git status --porcelain -uall` there",
                ours="runctx",
                peer="git",
                reach=2.0,
            ),
        ),
    ),
)
