"""A run's default stage is the file in which the `Run` stands, however that code is reached."""

from __future__ import annotations

import os
import subprocess
import sys
import zipapp
from pathlib import Path

import pytest

import runctx
from runctx.capture.program import frame_of_user

PACKAGE = str(Path(runctx.__file__).parents[1])

MAIN = """
from runctx import Run

def main():
    with Run(console=False) as run:
        print("stage", run.stage)

def begin():
    run = Run(console=False).start()
    print("stage", run.stage)
    run.finish()
"""
SCRIPT = f"{MAIN}\nif __name__ == '__main__':\n    main()\n"
LAB = """
import contextlib
from runctx import Run

@contextlib.contextmanager
def experiment():
    with Run(console=False) as run:
        yield run

def launched(function):
    with Run(console=False) as run:
        function(run)
"""
RUN = "from runctx import Run\nwith Run(console=False) as run: print('stage', run.stage)"
USES_LAB = "import lab\nwith lab.experiment() as run: print('stage', run.stage)\n"
FILES = {
    "train.py": SCRIPT,
    "driver.py": "import train\ntrain.main()\ntrain.begin()\n",
    "pkg/__init__.py": MAIN,
    "pkg/__main__.py": SCRIPT,
    "pkg/fit.py": SCRIPT,
    "test_it.py": f"import train\n{MAIN}\ndef test_it():\n    main()\n    train.main()\n",
    "site-packages/lab.py": LAB,
    "site-packages/owned/__init__.py": "",
    "site-packages/owned/score.py": SCRIPT,
    "with_lab.py": f"{USES_LAB}lab.launched(lambda run: print('stage', run.stage))\n",
    "ways.py": f"""
import contextlib, importlib, threading
import train
from runctx import Run

with contextlib.ExitStack() as stack:
    print("stage", stack.enter_context(Run(console=False)).stage)
exec({RUN!r})
exec(compile({RUN!r}, "<made>", "exec"), {{}})
for function in (train.main, importlib.reload(train).main, __import__("pkg").main):
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()
""",
    "workers.py": f"""
import joblib
import train
{MAIN}
if __name__ == "__main__":
    for function in (main, train.main):
        joblib.Parallel(n_jobs=2)([joblib.delayed(function)()])
""",
}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    root = tmp_path_factory.mktemp("stages") / "repo"
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (root / ".gitignore").write_text("/results/\n*.pyz\n__pycache__/\n")
    zipapp.create_archive(root / "pkg", root / "app.pyz")
    for arguments in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "first"]):
        subprocess.run(["git", *arguments], cwd=root, check=True)
    return root


@pytest.mark.parametrize(
    ("args", "stdin", "stages"),
    [
        (["train.py"], "", ["train"]),
        (["-m", "pkg.fit"], "", ["fit"]),
        (["-m", "pkg"], "", ["pkg"]),
        (["app.pyz"], "", ["app"]),
        (["-m", "cProfile", "-o", os.devnull, "train.py"], "", ["train"]),
        (["driver.py"], "", ["train", "train"]),
        (["-c", "import train; train.main()"], "", ["train"]),
        (["-"], "import train; train.main()", ["train"]),
        (["-c", RUN], "", ["console"]),
        (["-"], RUN, ["console"]),
        (["-c", f"def main():\n    {RUN!r}\n    exec({RUN!r})\nmain()"], "", ["console"]),
        (["-m", "IPython", "-c", f"import train; train.main()\n{RUN}"], "", ["train", "console"]),
        (["-m", "IPython", "-c", "%run train.py"], "", ["train"]),
        (["-m", "IPython", "-c", "%run train.py\nmain()"], "", ["train", "train"]),
        (["-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", "test_it.py"], "", ["test_it", "train"]),
        (["ways.py"], "", ["ways", "ways", "ways", "train", "train", "pkg"]),
        (["workers.py"], "", ["workers", "train"]),
        (["with_lab.py"], "", ["with_lab", "with_lab"]),
        (["-c", USES_LAB], "", ["console"]),
        (["-m", "owned.score"], "", ["score"]),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_the_file_in_which_the_run_stands(project, args, stdin, stages):
    """The file of the `Run` names the stage, imported or not; a prompt is `console`; tools do not count."""
    done = subprocess.run(
        [sys.executable, *args],
        cwd=project,
        env=os.environ
        | {
            "PYTHONPATH": os.pathsep.join([str(project), str(project / "site-packages"), PACKAGE]),
            "IPYTHONDIR": str(project.parent / "ipython"),
        },
        input=stdin,
        capture_output=True,
        text=True,
        timeout=120,
    )
    said = [line.removeprefix("stage ") for line in done.stdout.splitlines() if line.startswith("stage ")]
    assert said == stages, done.stdout + done.stderr


def test_the_variables_are_those_of_the_user(tmp_path, monkeypatch):
    """A run that a tool enters has the variables of the function that asked the tool for it."""
    import contextlib

    monkeypatch.chdir(tmp_path)

    def function():
        batch = 3
        with contextlib.ExitStack() as stack:
            return stack.enter_context(runctx.Run(console=False)), batch

    run, _ = function()
    assert run.locals["batch"] == 3
    assert frame_of_user(sys._getframe()) is sys._getframe()
