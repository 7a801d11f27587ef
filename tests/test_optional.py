"""Without pandas or flask, what needs them names them and says what to install."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from runctx import Run
from tests.demo import ROOT


def without(module: str, code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """A child process in which a module cannot be imported."""
    return subprocess.run(
        [sys.executable, "-c", f"import sys; sys.modules[{module!r}] = None\n{code}"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of two runs, one with a metric and tasks."""
    folder = tmp_path_factory.mktemp("optional")
    for lr in (0.1, 0.2):
        with Run({"lr": lr}, stage="fit", save_dir=folder / f"results/{lr}", console=False) as run:
            run.log_async(loss=lr)
            run.map(abs, [-1, 2], launcher="serial")
    return folder


TABLES = """
from runctx import Run, runs
found = runs("results")
for table in (found, found.compare(), found[0].metrics(), found[0].tasks):
    assert len(found) == 2 and repr(table)
    try:
        table.to_pandas()
    except ImportError as error:
        print(type(table).__name__, error, sep=": ")
"""


def test_tables_name_pandas(folder: Path) -> None:
    """Each of the four tables is read and printed without pandas; `.to_pandas()` names it and what to install."""
    done = without("pandas", TABLES, folder)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.partition(":")[0] for line in lines[::2]] == ["Runs", "Comparison", "Metrics", "TaskTable"]
    assert all("to_pandas needs pandas, which cannot be imported" in line for line in lines[::2])
    assert lines[1::2] == ["hint: pip install pandas"] * 4


def test_ui_names_flask(folder: Path) -> None:
    """`runctx ui` without flask says what to install before it publishes anything or makes a database."""
    before = sorted(folder.rglob("*"))
    done = without("flask", "from runctx.cli import main; sys.argv[1:] = ['ui']; main()", folder)
    assert (done.returncode, done.stdout) == (2, "")
    assert "MLflow's server needs flask, which is not installed" in done.stderr
    assert done.stderr.rstrip().endswith("hint: pip install mlflow")
    assert sorted(folder.rglob("*")) == before
