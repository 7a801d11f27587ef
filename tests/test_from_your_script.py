"""A file with cells, through a day: in VS Code's interactive window, as a script, imported, mapped."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import runctx
from runctx import Run, runs

from .test_kernel import Kernel, inherited

PAGE = (Path(__file__).parents[1] / "docs/from-your-script.md").read_text()
BLOCKS = re.findall(r"^```python\n# ([\w. ]+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
FILES = {name: code for name, code in BLOCKS if name.endswith(".py")}
RELOAD, FAIL, INSPECT, GO_ON = (code for name, code in BLOCKS if name.endswith("cell"))
MEAN = FILES["model.py"].replace("sum(values)", "sum(values) / len(values)")
MENDED = FILES["model.py"].replace("sum(values)", "sum(values) / max(1, len(values))")
PACKAGE = str(Path(runctx.__file__).parents[1])


def cells_of(text: str) -> list[str]:
    """What an editor sends for each cell of a file."""
    return [cell for cell in re.split(r"^# %%\n", text, flags=re.MULTILINE) if cell.strip()]


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Any]]:
    """The project after that day, and its runs, the first first."""
    folder = tmp_path_factory.mktemp("day") / "project"
    (folder / "data").mkdir(parents=True)
    for name, text in FILES.items():
        (folder / name).write_text(text)
    for name, text in {"a": "1\n2\n", "b": "3\n", "empty": ""}.items():
        (folder / f"data/{name}.csv").write_text(text)
    (folder / ".gitignore").write_text("/results/\n__pycache__/\n")
    for arguments in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "first"]):
        subprocess.run(["git", *arguments], cwd=folder, check=True)

    kernel = Kernel(folder)
    try:
        kernel.hidden(f"__file__ = {str(folder / 'train.py')!r}")
        for cell in cells_of(FILES["train.py"]):
            assert not kernel.run(cell).error
        for model, cell, error in (
            (MEAN, RELOAD, ""),
            (MEAN, FAIL, "ZeroDivisionError"),
            (MEAN, INSPECT, ""),
            (MENDED, f"importlib.reload(model)\n{GO_ON}", ""),
        ):
            (folder / "model.py").write_text(model)
            shown = kernel.run(cell)
            assert shown.error == error, shown
        # the file with the cells is edited as well, and sent anew
        edited = FILES["train.py"].replace("scale: float = 1.0", "scale: float = 10.0")
        (folder / "train.py").write_text(edited)
        for cell in cells_of(edited):
            assert not kernel.run(cell).error
    finally:
        kernel.stop()
    for command in (["train.py", "scale=3"], ["study.py"], ["night.py"]):
        subprocess.run(
            [sys.executable, *command], cwd=folder, env=inherited() | {"PYTHONPATH": PACKAGE}, check=True
        )
    made = [Run.load(row.path) for row in runs(folder / "results").rows]
    return folder, sorted(made, key=lambda run: run.lock.started)


def test_one_stage(day):
    """All runs of the file are of its stage, and lie side by side, one folder each."""
    folder, made = day
    assert {run.stage for run in made} == {"train"}
    assert len({run.save_dir for run in made}) == len(made) == 8
    assert {run.save_dir.parent for run in made} == {folder / "results/train"}


def test_what_each_run_was(day):
    """Each lock says what was started, with which configuration, and how it ended."""
    _, made = day
    told = [
        (run.command.kind, run.command.entry, run.command.argv[1:], run.cfg.scale, run.status) for run in made
    ]
    assert told == [
        ("notebook", "train.py", (), 1.0, "done"),
        ("notebook", "train.py", (), 2.0, "done"),
        ("notebook", "train.py", (), 1.0, "done"),
        ("notebook", "train.py", (), 10.0, "done"),
        ("script", "train.py", ("scale=3",), 3.0, "done"),
        ("script", "study.py", (), 4.0, "done"),
        ("script", "study.py", (), 5.0, "done"),
        ("script", "night.py", (), 6.0, "done"),
    ]
    assert [len(run.lock.sessions) for run in made] == [0, 0, 1, 0, 0, 0, 0, 0]
    assert [task.done for run in made for task in run.lock.tasks] == [2]


def test_the_code_that_ran(day):
    """Each lock has the files as they were when they ran, the cells, and no doubt about any of it."""
    folder, made = day
    shown = [
        subprocess.check_output(["git", "show", f"{run.commit}:model.py"], cwd=folder, text=True)
        for run in made
    ]
    assert shown == [FILES["model.py"], MEAN, MENDED] + [MENDED] * 5
    for run in made:
        assert run.omissions == ()
        assert {"train.py", "model.py"} <= set(run.lock.source.files)
        assert bool(run.lock.source.cells) == (run.command.kind == "notebook")


def test_who_set_each_value(day):
    """A default is of the cell that was executed, or of the file, and its line there holds it."""
    folder, made = day
    for run in made:
        default = run.lock.origins["scale"][-1]
        place, line = default.where.rsplit(":", 1)
        if run.command.kind == "notebook":
            text = next(cell.code for cell in run.lock.source.cells if place == f"In[{cell.number}]")
        else:
            text = (folder / place).read_text()
        assert text.splitlines()[int(line) - 1].split() == ["scale:", "float", "=", str(default.value)]


def test_the_numbers(day):
    """Input, output and metric belong to each other in every run."""
    _, made = day
    expected = {"a": 1.5, "b": 3.0}
    scores = [run.metrics()["score"].values if run.lock.metrics else () for run in made]
    assert scores[0] == (3.0,) and scores[2] == ()
    for run in made:
        names = [Path(data.path).stem for data in run.inputs]
        assert [output.path for output in run.outputs] == [f"{name}.txt" for name in names]
        if run is not made[0] and names != ["empty"]:
            for name in names:
                text = (run.save_dir / f"{name}.txt").read_text()
                assert float(text) == expected[name] * run.cfg.scale
