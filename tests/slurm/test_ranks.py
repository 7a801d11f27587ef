"""Tasks of one `srun` are in one run, on a real Slurm."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from runctx import Run
from tests.slurm.cluster import Local

PROGRAM = """\
import os, time
from pathlib import Path
from runctx import Run

rank = os.environ["SLURM_PROCID"]
with Run({"lr": 0.1}, stage="train") as run:
    run.log_async(loss=float(rank))
    Path(f"in-{rank}").touch()
    while os.environ["SLURM_NTASKS"] == "2" and len(list(Path().glob("in-*"))) < 2:
        time.sleep(0.01)
print(run.id)
"""


def test_ranks_of_srun(own_slurm: Local, tmp_path: Path) -> None:
    """Two tasks of a step are one run with the numbers of both; a batch script that runs alone is a run as ever."""
    (tmp_path / "train.py").write_text(PROGRAM)
    command = [sys.executable, "train.py"]
    ids = subprocess.run(
        ["srun", "-n2", "-O", "--time=5", *command],
        cwd=tmp_path,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        timeout=300,
    ).stdout.split()
    (folder,) = (tmp_path / "results/train").iterdir()
    past = Run.load(folder)
    assert ids == [past.id] * 2
    assert (past.status, past.lock.metrics["loss"].points) == ("done", 2)
    assert {name.partition("-")[0] for name in (path.name for path in (folder / "metrics").iterdir())} >= {
        "rank1"
    }
    subprocess.run(
        ["sbatch", "--wait", "-n1", "--time=5", "-o", "said", "--wrap", " ".join(command)],
        cwd=tmp_path,
        check=True,
        timeout=300,
    )
    assert len(list((tmp_path / "results/train").iterdir())) == 2
    assert "waits for" not in (tmp_path / "said").read_text()
