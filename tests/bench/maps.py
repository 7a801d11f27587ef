"""What does it cost to map a function over many tasks?"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from .harness import Bench, Row, Sides
from .peers import child
from .workshop import PROJECT, Absent, Workshop

MANY = 10_000
NAPS, NAP = 1_000, 0.01
MOST = 100_000
ON_SLURM, SLURM_NAP = 200, 0.05


@contextmanager
def beside_joblib(workshop: Workshop) -> Iterator[Sides]:
    root = workshop.repository(200, "maps")
    with (
        child(workshop, "ours_map.py", cwd=root) as ours,
        child(workshop, "peer_joblib.py", cwd=root) as joblib,
    ):

        def resumed(_: int) -> float:
            ours.ask("unfinished", tasks=MANY)
            return float(ours.ask("resumed", tasks=MANY))

        yield {
            "many": lambda _: ours.ask("many", tasks=MANY),
            "joblib": lambda _: joblib.ask("many", tasks=MANY),
            "naps": lambda _: ours.ask("naps", tasks=NAPS, seconds=NAP),
            "ideal": lambda _: NAPS * NAP / 2,
            "bytes": lambda _: ours.ask("disk")["bytes"],
            "files": lambda _: ours.ask("disk")["files"],
            "resumed": resumed,
            "memory": lambda _: ours.ask("memory", tasks=MOST),
            "1 s": lambda _: 1.0,
            "2 MB": lambda _: 2e6,
            "20 files": lambda _: 20,
            "150 MB": lambda _: 150e6,
        }


@contextmanager
def beside_submitit(workshop: Workshop) -> Iterator[Sides]:
    root = workshop.repository(200, "slurm")
    with (
        slurm(workshop, cpus=2, array=ON_SLURM + 1) as conf,
        child(workshop, "ours_map.py", cwd=root, SLURM_CONF=conf) as ours,
        child(workshop, "peer_submitit.py", cwd=root, SLURM_CONF=conf) as peer,
    ):
        yield {
            "runctx": lambda _: ours.ask("slurm", tasks=ON_SLURM, seconds=SLURM_NAP),
            "submitit": lambda _: peer.ask("slurm", tasks=ON_SLURM, seconds=SLURM_NAP),
        }


@contextmanager
def slurm(workshop: Workshop, cpus: int, array: int) -> Iterator[str]:
    """A cluster of two nodes, beside the tests' own; where its configuration is."""
    cluster = [sys.executable, str(PROJECT / "tests" / "slurm" / "cluster.py")]
    environ = {**workshop.environ, "RUNCTX_SLURM_FOLDER": str(workshop.fresh("c"))}
    up = [*cluster, "up", "--nodes", "2", "--cpus", str(cpus), "--array", str(array)]
    try:
        told = subprocess.run(up, env=environ, capture_output=True, text=True)
        if told.returncode:
            raise Absent(f"no Slurm: {(told.stderr.strip() or 'it does not start').splitlines()[-1]}")
        told = subprocess.run([*cluster, "env"], env=environ, capture_output=True, text=True, check=True)
        found = re.search(r"SLURM_CONF=['\"]?([^'\"\s]+)", told.stdout)
        assert found is not None, told.stdout
        yield found[1]
    finally:
        subprocess.run([*cluster, "down"], env=environ, capture_output=True)


BENCHES = (
    Bench(
        name="map",
        sides=beside_joblib,
        rows=(
            Row(
                what="10 000 trivial tasks, 2 processes, workers warm, with ledger and results on disk",
                against="bare `joblib.Parallel`",
                ours="many",
                peer="joblib",
                reach=2.0,
            ),
            Row(
                what="1 000 tasks of 10 ms, 2 processes",
                against="ideal: 5 s",
                ours="naps",
                peer="ideal",
                reach=1.05,
            ),
            Row(
                what="bytes on disk for 10 000 tasks, results included",
                against="2 MB",
                ours="bytes",
                peer="2 MB",
                reach=1.0,
                unit="B",
            ),
            Row(
                what="files on disk for 10 000 tasks",
                against="20",
                ours="files",
                peer="20 files",
                reach=1.0,
                unit="files",
            ),
            Row(
                what="resume of 10 000 tasks of which 9 990 are done, from entry to sealed lock",
                against="one second",
                ours="resumed",
                peer="1 s",
                reach=1.0,
            ),
            Row(
                what="memory of the parent, at its peak, above the start: 100 000 tasks, results unread",
                against="150 MB",
                ours="memory",
                peer="150 MB",
                reach=1.0,
                unit="B",
            ),
        ),
    ),
    Bench(
        name="slurm",
        sides=beside_submitit,
        most=2,
        rows=(
            Row(
                what="Slurm: 200 tasks of 50 ms on 2 nodes, from entry to sealed lock",
                against="bare `submitit.map_array`, one task for each job",
                ours="runctx",
                peer="submitit",
                reach=0.2,
            ),
        ),
    ),
)
