"""What the notebooks show is true."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from tests.notebooks import NOTEBOOKS, execute

COLOUR = re.compile(r"\x1b\[[0-9;]*m")
MACHINE = re.compile(r"(?<![\w.<>/:-])/[\w.-]+/[\w.-]+")
"""An absolute path."""

every = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(book):
    return [cell for cell in book.cells if cell.cell_type == "code"]


def shape(book):
    """What kinds of output each cell has, without their words: these tell the time."""
    return [
        [(output.output_type, output.get("name"), output.get("ename")) for output in cell.outputs]
        for cell in code_cells(book)
    ]


def words(book):
    """All text that the outputs hold, without colours."""
    texts = []
    for output in (output for cell in code_cells(book) for output in cell.outputs):
        shown = [data for kind, data in output.get("data", {}).items() if not kind.startswith("image/")]
        texts += [output.get("text", ""), *output.get("traceback", ()), *shown]
    return COLOUR.sub("", "\n".join(texts))


@pytest.fixture(scope="module")
def fresh(request, tmp_path_factory):
    """A copy of the notebook, executed in a repository of its own as Jupyter would."""
    project = tmp_path_factory.mktemp("notebooks") / "project"
    project.mkdir()
    copy = Path(shutil.copy(request.param, project))
    for arguments in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "first"]):
        subprocess.run(["git", *arguments], cwd=project, check=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JPY_SESSION_NAME", str(copy))
        return request.param, project, execute(copy, project)


each = pytest.mark.parametrize("fresh", NOTEBOOKS, ids=lambda path: path.stem, indirect=True)


def test_there_are_notebooks():
    """There is something to test."""
    assert NOTEBOOKS


@each
def test_runs_to_its_end(fresh):
    """A notebook runs from top to bottom; only a cell that says so may fail, and it does."""
    _, _, book = fresh
    failing = [cell for cell in code_cells(book) if any(o.output_type == "error" for o in cell.outputs)]
    assert [cell.metadata.get("tags") for cell in failing] == [["raises-exception"]] * len(failing)
    assert len(failing) == sum("raises-exception" in c.metadata.get("tags", ()) for c in code_cells(book))


@each
def test_leaves_its_folder_alone(fresh):
    """A notebook makes no file and no branch in the repository it lies in."""
    _, project, _ = fresh
    told = subprocess.check_output(["git", "status", "--short", "--ignored"], cwd=project, text=True)
    branches = subprocess.check_output(["git", "branch", "--list"], cwd=project, text=True)
    assert (told, branches.split()) == ("", ["*", "main"])


@each
def test_committed_outputs_are_of_this_code(fresh):
    """What is committed shows what the cells show now, save for times and names."""
    committed, _, book = fresh
    assert shape(nbformat.read(committed, as_version=4)) == shape(book), "run `make notebooks`"


@every
def test_committed_with_outputs(path):
    """A notebook is committed as executed from top to bottom, with pictures."""
    cells = code_cells(nbformat.read(path, as_version=4))
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert any("text/html" in output.get("data", ()) for cell in cells for output in cell.outputs)


@every
def test_committed_without_the_machine(path):
    """The committed file names no folder, interpreter, host or user of the machine it was executed on."""
    book = nbformat.read(path, as_version=4)
    assert MACHINE.findall(words(book)) == []
    assert sys.prefix not in words(book) and os.uname().nodename + ":" not in words(book)
    assert book.metadata == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }


@every
def test_small(path):
    """A notebook is small enough to be read in a review."""
    assert path.stat().st_size < 200_000
