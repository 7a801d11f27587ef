"""The demo's `main(cfg)`, unchanged: a cell, a script, all cores, a cluster."""

from __future__ import annotations

import pytest

from runctx import Run
from tests.demo import ROOT, Demo
from tests.test_docs import PYTHON
from tests.test_four_ways import MAP

IMAGES = 600


@pytest.mark.slow
def test_four_ways_give_the_same(slurm, tmp_path):
    """As cell, script, joblib map and Slurm map, 600 images give equal digests of results, under one lock each time."""
    demo = Demo(tmp_path / "demo")
    demo.script("images.py", f"count={IMAGES}")
    demo.cells("measure.py", MAP.format(stage="cell", launcher="serial"))
    for launcher in ("serial", "joblib", "slurm"):
        demo.script("measure_all.py", f"launcher={launcher}")

    runs = [Run.load(folder) for folder in (*demo.runs("cell"), *demo.runs("measure_all"))]
    assert [run.lock.tasks[0].launcher for run in runs] == ["serial", "serial", "joblib", "slurm"]
    assert [(run.status, run.lock.tasks[0].done) for run in runs] == [("done", IMAGES)] * 4
    assert len({run.lock.tasks[0].results for run in runs}) == 1
    assert len(demo.locks()) == len([*runs, "images"])


@pytest.mark.slow
def test_the_script_of_the_page_runs(slurm, tmp_path):
    """What docs/map.md shows for Slurm does what it says: waits, or is collected later."""
    shown = next(code for code in PYTHON.findall((ROOT / "docs/map.md").read_text()) if "Slurm(" in code)
    demo = Demo(tmp_path / "demo")
    (demo.folder / "segment.py").write_text(shown)
    (demo.folder / "scans").mkdir()
    for number in range(6):
        (demo.folder / f"scans/{number}.txt").write_text("." * number)

    demo.script("segment.py")
    demo.script("segment.py", "wait=false")

    waited, submitted = map(Run.load, demo.runs("segment"))
    assert waited.status == "done"
    assert submitted.lock.status == "submitted"
    assert submitted.collect(wait=True).status == "done"
    assert list(submitted.results()) == list(waited.results()) == list(range(6))
