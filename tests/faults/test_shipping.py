"""Killed at any moment: what was logged before is on disk, and in MLflow, exactly once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from runctx import Run
from runctx.metrics import journal
from tests.shipping import PATIENCE, shown

KILLS = 500
SEED = int(os.environ.get("FAULTS_SEED", "20"))

PROGRAM = """
import json, mmap, os, random, signal, sys, time
from runctx import Run

KILLS, SEED = map(int, sys.argv[1:])
chance = random.Random(SEED)
returned = memoryview(mmap.mmap(-1, KILLS * 8)).cast("q")  # an item is set at one go: a kill leaves no half of it

with Run(console=False) as run:
    run.log_async(warm=1)
    for child in range(KILLS):
        pid = os.fork()
        if pid == 0:
            for n in range(500):
                run.log_async({f"child{child % 10}": n}, step=child * 1_000_000 + n)
                returned[child] = n + 1
            signal.pause()  # on a busy machine the kill may come late
        time.sleep(chance.uniform(0, 0.001))
        os.kill(pid, signal.SIGKILL)
        assert os.WIFSIGNALED(os.waitpid(pid, 0)[1])
print(json.dumps([str(run.save_dir), returned.tolist()]))
"""


def test_what_was_logged_before_a_kill(tmp_path: Path) -> None:
    """Each number whose call had returned is in the journal and, once published, in MLflow: exactly once."""
    (tmp_path / "pyproject.toml").write_text("[tool.runctx]\nexperiment = 'kills'\n")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(KILLS), str(SEED)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=3 * PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    folder, confirmed = json.loads(done.stdout)
    run = Run.load(folder)

    found: dict[int, list[int]] = {child: [] for child in range(KILLS)}
    for point in journal.read(run.save_dir / "metrics"):
        if point.step is not None:
            child, n = divmod(point.step, 1_000_000)
            assert point.values == {f"child{child % 10}": float(n)}
            found[child].append(n)
    for child, count in enumerate(confirmed):
        # what was written when the kill came before the call had returned is there as well
        assert sorted(found[child]) in (list(range(count)), list(range(count + 1)))
    assert sum(confirmed) > KILLS

    published = subprocess.run(
        [sys.executable, "-c", "import sys; from runctx import Run; Run.load(sys.argv[1]).publish()", folder],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=3 * PATIENCE,
    )
    assert published.returncode == 0, published.stderr
    view = shown(tmp_path / "mlflow.db")[run.id]
    assert view.numbers.pop("warm") == [(0, 1.0)]
    in_journal = sorted(
        (child * 1_000_000 + n, float(n)) for child, numbers in found.items() for n in numbers
    )
    assert sorted(number for numbers in view.numbers.values() for number in numbers) == in_journal
