"""The demo of the documentation, in a project of its own: how is it run as a script, and cell by cell?"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbclient
import nbformat

ROOT = Path(__file__).parent.parent
PATIENCE = 300
"""Seconds that one script or cell may take on a busy machine."""
CELL = re.compile(r"^# %%\n", re.MULTILINE)
GIT = ["-c", "user.name=t", "-c", "user.email=t@example.org"]


class Demo:
    """A repository that holds the scripts of `docs/demo` and nothing else.

    Parameters
    ----------
    folder: where it is made.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        for script in (ROOT / "docs/demo").glob("*.py"):
            shutil.copy(script, folder)
        (folder / ".gitignore").write_text("/results/\n/mlflow.db*\n/mlruns/\n__pycache__/\n")
        for arguments in (["init", "-q"], ["add", "-A"], [*GIT, "commit", "-q", "-m", "the demo"]):
            subprocess.run(["git", *arguments], cwd=folder, check=True)

    def script(self, name: str, *overrides: str) -> str:
        """What a script prints, run as `python name -o override ...`."""
        given = [part for override in overrides for part in ("-o", override)]
        done = subprocess.run(
            [sys.executable, name, *given],
            cwd=self.folder,
            env=_environment(),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def cells(self, name: str, *more: str) -> None:
        """Run the cells of a script in a real kernel, all but the last, and then some more."""
        _, *cells, _ = CELL.split((self.folder / name).read_text())
        book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in (*cells, *more)])
        resources = {"metadata": {"path": str(self.folder)}}
        client = nbclient.NotebookClient(book, timeout=PATIENCE, kernel_name="python3", resources=resources)
        client.execute(env=_environment())

    def runs(self, stage: str) -> list[Path]:
        """The folders of all runs of a stage, the oldest first."""
        return sorted((self.folder / "results" / stage).iterdir(), key=lambda path: path.stat().st_ctime_ns)

    def locks(self) -> list[Path]:
        """All locks there are."""
        return sorted((self.folder / "results").rglob("run.lock"))


def _environment() -> dict[str, str]:
    # ipykernel behaves otherwise under pytest
    inherited = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
    return inherited | {"PYTHONPATH": str(ROOT)}
