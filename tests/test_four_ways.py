"""The demo's `main(cfg)` gives the same wherever it is called; on a cluster too, says tests/slurm/test_four_ways.py."""

from __future__ import annotations

import ast

import pytest

from runctx import Run
from tests.demo import Demo

MAP = """
import os
import measure_all
folder = os.path.relpath(Run.latest("images").save_dir)  # as the configuration of measure_all names it
with Run(Config(), inputs=[folder], stage={stage!r}) as run:
    images = sorted(map(str, measure_all.Path(folder).glob("*.pgm")))
    run.map(main, images, into="input", launcher={launcher!r})
"""
"""A cell that maps the `main` of an earlier one."""


@pytest.mark.slow
def test_each_way_gives_the_same(tmp_path):
    """A `main(cfg)` of one image gives equal results one by one, in a cell and mapped; under one lock each time."""
    demo = Demo(tmp_path / "demo")
    demo.script("images.py", "count=60")

    demo.cells("measure.py", *(MAP.format(stage=f"cell-{way}", launcher=way) for way in ("serial", "joblib")))
    demo.script("measure_all.py", "launcher=serial")
    demo.script("measure_all.py", "launcher=joblib")
    demo.script("measure_all.py", "launcher=threading")
    one = ast.literal_eval(demo.script("measure.py"))

    in_cells = [*demo.runs("cell-serial"), *demo.runs("cell-joblib")]
    mapped = [Run.load(folder) for folder in (*in_cells, *demo.runs("measure_all"))]
    assert [run.lock.tasks[0].launcher for run in mapped] == ["serial", "joblib"] * 2 + ["threading"]
    assert [(run.status, run.lock.tasks[0].done) for run in mapped] == [("done", 60)] * 5
    assert len({run.lock.tasks[0].results for run in mapped}) == 1
    assert all(run.results()[0] == one for run in mapped)
    assert len(demo.locks()) == len([*mapped, "images", "measure"])


@pytest.mark.slow
def test_the_parent_lists_the_images_once(tmp_path):
    """Inputs of tasks that lie in an input of their parent are in its manifest, and nowhere else."""
    demo = Demo(tmp_path / "demo")
    demo.script("images.py", "count=20")
    demo.script("measure_all.py", "launcher=serial")

    (run,) = map(Run.load, demo.runs("measure_all"))
    (images,) = map(Run.load, demo.runs("images"))
    assert [(data.kind, data.run) for data in run.lock.inputs] == [("folder", images.id)]
    assert len(list((run.save_dir / "inputs").iterdir())) == 1
    assert run.lock.inputs[0].files == 20
