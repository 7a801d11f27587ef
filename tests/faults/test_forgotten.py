"""A run that is started and never finished: what the process's end makes of it."""

from __future__ import annotations

import pytest

from runctx import lock as lockfile

START = """
import os, signal, sys
from runctx import Run

def work():
    run = Run({{"lr": 0.1}}, ["data"], stage="forgotten", console=False).start()
    (run.save_dir / "model.bin").write_bytes(b"weights")
    {inside}

work()
{after}
"""


def _locks(root):
    return [lockfile.read(file) for file in root.glob("results/*/*/run.lock")]


@pytest.mark.parametrize(
    ("after", "exit_code", "status"),
    [
        ("", 0, "done"),
        ("sys.exit(3)", 3, "interrupted"),
        ("raise ValueError('mine')", 1, "failed"),
        ("os.kill(os.getpid(), signal.SIGINT)", -2, "interrupted"),
        ("os.kill(os.getpid(), signal.SIGTERM)", -15, "running"),
        ("os._exit(4)", 4, "running"),
        ("sys.excepthook = lambda *error: print('hers'); raise ValueError('mine')", 1, "failed"),
        ("os.chdir('/'); sys.stderr = sys.stdout = None", 0, "done"),
        ("os.close(1); os.close(2)", 0, "done"),
    ],
)
@pytest.mark.parametrize("place", ["inside", "after"])
def test_endings(project, nursery, place, after, exit_code, status):
    """Done at the end of the script, failed after an exception, interrupted by an exit, left after a kill."""
    code = START.format(**{"inside": "pass", "after": "", place: after or "pass"})
    ended = nursery.run(code, project)
    assert (ended.status, ended.left) == (exit_code, []), ended
    (lock,) = _locks(project)
    assert lock.status == status
    if status == "failed":
        assert lock.error is not None and lock.error.message == "mine"
        assert ended.output.count("Traceback") == ("hers" not in ended.output)
    if status != "running":
        assert lock.inputs[0].digest and lock.outputs, lock.omissions


def test_several(project, nursery):
    """All forgotten runs are sealed, the later ones first or last; a finished one stays as it is."""
    code = """
    from runctx import Run
    runs = [Run(stage=f"stage-{n}", console=False).start() for n in range(3)]
    runs[1].finish()
    """
    ended = nursery.run(code, project)
    assert (ended.status, ended.left) == (0, []), ended.output
    assert {lock.stage: lock.status for lock in _locks(project)} == {
        "stage-0": "done",
        "stage-1": "done",
        "stage-2": "done",
    }


def test_started_again(project, nursery):
    """Starting a stage again at top level ends the forgotten run as interrupted, and only that one."""
    code = """
    from runctx import Run
    first = Run({"n": 1}, stage="a", console=False).start()
    def inner():
        return Run({"n": 2}, stage="a", console=False).start()
    kept = inner()
    second = Run({"n": 3}, stage="a", console=False).start()
    assert (first.status, kept.status, second.status) == ("interrupted", "running", "running")
    kept.finish()
    second.finish()
    """
    ended = nursery.run(code, project)
    assert (ended.status, ended.left) == (0, []), ended.output
    assert {lock.config["n"]: lock.status for lock in _locks(project)} == {
        1: "interrupted",
        2: "done",
        3: "done",
    }
