"""Code that only jobs imported is the project's own in the lock, not the checkout they imported it from."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from runctx import Run
from tests.slurm.cluster import Cluster

PROGRAM = """
from runctx import Run
from runctx.launchers import Slurm
import work

if __name__ == "__main__":
    with Run(save_dir="results/run", console=False) as run:
        assert run.map(work.task, range(4), launcher=Slurm(time=5)) == [1, 2, 3, 4]
"""
WORK = "def task(i):\n    import late\n    return i + late.ONE\n"


def test_a_module_that_only_jobs_imported(slurm: Cluster, make_repo: Callable[..., Path]) -> None:
    """Its path and blob are those of the snapshot, and large files that jobs see as they are now are omissions."""
    files = {"program.py": PROGRAM, "work.py": WORK, "late.py": "ONE = 1\n", ".gitignore": "results/\n"}
    root = make_repo({**files, "table.csv": "1\n" * 6_000_000})
    subprocess.run([sys.executable, "program.py"], cwd=root, check=True, timeout=120)
    lock = Run.load(root / "results" / "run").lock
    blob = subprocess.check_output(["git", "rev-parse", "HEAD:late.py"], cwd=root, text=True).strip()
    assert lock.source.files["late.py"] == f"git:{blob}"
    assert [omission.what for omission in lock.omissions] == ["submitted code: table.csv"]
