import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import runctx
from runctx.capture import notebook

PACKAGE = str(Path(runctx.__file__).parents[1])

EXECUTE = """
import json, sys
import nbclient, nbformat
cells, folder, env = json.load(sys.stdin)
book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
resources = {"metadata": {"path": folder}}
nbclient.NotebookClient(book, timeout=60, allow_errors=True, resources=resources).execute(env=env)
"""
ASK = """
import json, os
from dataclasses import asdict
from pathlib import Path
from runctx.capture import notebook
from runctx.capture import program as command

def ask(label, since=0):
    root = Path(os.environ["ROOT"])
    told = command.command(root)
    answer = {
        "label": label,
        "in_kernel": notebook.in_kernel(),
        "path": None if notebook.notebook_path() is None else str(notebook.notebook_path()),
        "cells": [asdict(cell) for cell in notebook.executed_cells(since)],
        "names": sorted(notebook.user_namespace() or ()),
        "command": asdict(told),
        "stage": command.stage_name(told),
        "modules": [name for name in command.project_modules(root) if "runctx" not in name],
    }
    with open(os.environ["TOLD"], "a") as file:
        file.write(json.dumps(answer) + "\\n")
"""
SCRIPT = "import ask\nif __name__ == '__main__':\n    ask.ask('script')\n"
CELLS = [
    "import ask\nx = 41",
    "%time y = x + 1",
    "!true",
    "1/0",
    "# only words\nask.ask('cell')",
    "",
    "async def later(): ask.ask('awaited', since=6)\nawait later()",
    "%run script.py a b",
    "ask.ask('after the script', since=8)",
    "!{sys.executable} script.py",
    "import joblib, sys\njoblib.Parallel(2)(joblib.delayed(ask.ask)('worker') for _ in range(2))\n0",
    "import subprocess, sys; subprocess.run([sys.executable, 'script.py'], check=True)",
    "big = '''" + "x" * 600_000 + "'''",
    "big = '''" + "y" * 600_000 + "'''\nask.ask('long history')",
    "__vsc_ipynb_file__ = '/books/told by the editor.ipynb'\nask.ask('editor')",
    "%reset -f",
    "import ask; ask.ask('reset')",
]


def execute(tmp_path, cells, **env):
    """Runs the cells in a real kernel; what they asked, by label."""
    told = tmp_path / "told.jsonl"
    (tmp_path / "ask.py").write_text(ASK)
    (tmp_path / "script.py").write_text(SCRIPT)
    env = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(tmp_path), PACKAGE]),
        "IPYTHONDIR": str(tmp_path / "ipython"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "TOLD": str(told),
        "ROOT": str(tmp_path),
        **env,
    }
    done = subprocess.run(
        [sys.executable, "-c", EXECUTE],
        input=json.dumps([cells, str(tmp_path), env]),
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert told.exists(), done.stderr
    answers = [json.loads(line) for line in told.read_text().splitlines()]
    return {answer["label"]: answer for answer in answers} | {"all": answers}


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    """One session of a kernel whose front end told nothing."""
    return execute(tmp_path_factory.mktemp("kernel"), CELLS, JPY_SESSION_NAME="")


def numbers(answer):
    return [cell["number"] for cell in answer["cells"]]


def test_no_notebook():
    """Outside a notebook there is no kernel, no path, no cell and no namespace."""
    assert not notebook.in_kernel()
    assert notebook.notebook_path() is None
    assert notebook.executed_cells() == ()
    assert notebook.user_namespace() is None


def test_cells_as_typed(kernel):
    """Cells come as typed, under the kernel's numbers, failed ones and the running one included."""
    assert [(cell["number"], cell["code"]) for cell in kernel["cell"]["cells"]] == list(
        enumerate(CELLS[:5], 1)
    )


def test_cells_since(kernel):
    """Asked for cells since a number, earlier ones are left out; a cell that awaits is there."""
    assert [cell["code"] for cell in kernel["awaited"]["cells"]] == [CELLS[6]]
    assert numbers(kernel["after the script"]) == [8]


def test_namespace(kernel):
    """The user's variables are there."""
    assert {"x", "y", "ask"} <= set(kernel["cell"]["names"])


def test_a_notebook_is_the_command(kernel):
    """A cell's command is a notebook without the kernel's own arguments."""
    told = kernel["cell"]
    assert told["in_kernel"] and told["path"] is None
    assert (told["command"]["kind"], told["command"]["entry"], told["command"]["argv"]) == (
        "notebook",
        "",
        [],
    )
    assert told["stage"] == "notebook"
    assert told["modules"] == ["ask"]


def test_a_script_run_in_a_notebook(kernel):
    """During `%run` the script is the command, with its arguments, and afterwards the notebook is again."""
    told = next(answer for answer in kernel["all"] if answer["label"] == "script")
    assert told["in_kernel"]
    assert (told["command"]["kind"], told["command"]["entry"]) == ("script", "script.py")
    assert told["command"]["argv"] == ["script.py", "a", "b"]
    assert told["stage"] == "script" and set(told["modules"]) == {"__main__", "ask"}
    assert kernel["after the script"]["command"]["kind"] == "notebook"


def test_a_process_started_in_a_notebook(kernel):
    """A script that a cell starts as a process of its own is no notebook."""
    told = [answer for answer in kernel["all"] if answer["label"] == "script"][-1]
    assert not told["in_kernel"] and told["path"] is None
    assert told["command"]["kind"] == "script" and told["command"]["argv"] == ["script.py"]


def test_workers_of_a_notebook(kernel):
    """A joblib worker of a notebook says notebook, and shows none of the kernel's arguments."""
    told = kernel["worker"]
    assert (told["command"]["kind"], told["command"]["argv"]) == ("notebook", [])


def test_long_history(kernel):
    """Of a history that is too long the newest cells are kept, and the first entry says which are missing."""
    first, last = kernel["long history"]["cells"]
    assert last["code"].endswith("ask.ask('long history')")
    assert first["number"] == last["number"] - 1
    assert first["code"].startswith(f"# cells 1 to {first['number']} left out")


def test_path_told_by_the_editor(kernel):
    """VS Code's variable names the notebook, and with it the stage."""
    assert kernel["editor"]["path"] == "/books/told by the editor.ipynb"
    assert kernel["editor"]["command"]["entry"] == "/books/told by the editor.ipynb"
    assert kernel["editor"]["stage"] == "told-by-the-editor"


def test_reset(kernel):
    """After the user resets the session, its history starts anew and nothing breaks."""
    assert kernel["reset"]["cells"][-1]["code"] == CELLS[-1]


@pytest.mark.parametrize(
    ("session", "exists", "entry"),
    [
        ("{folder}/books/book.ipynb", True, "books/book.ipynb"),
        ("root/book.ipynb", True, "book.ipynb"),
        ("unseen/book.ipynb", False, "unseen/book.ipynb"),
        ("console-1-5dd1", False, ""),
    ],
)
def test_path_told_by_jupyter(tmp_path, session, exists, entry):
    """The Jupyter server's session name is the notebook's path, absolute or not; a console's is not."""
    if exists:
        (tmp_path / "books").mkdir()
        (tmp_path / entry).write_text("{}")
    told = execute(
        tmp_path, ["import ask; ask.ask('cell')"], JPY_SESSION_NAME=session.format(folder=tmp_path)
    )
    assert told["cell"]["command"]["entry"] == entry
    assert told["cell"]["stage"] == ("book" if entry else "notebook")
