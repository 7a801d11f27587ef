"""Inputs of every odd kind, and inputs that change under the run: told, and no reason to fail."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from runctx import Run
from runctx import lock as lockfile

REWRITE = """Path('data/7.csv').write_text('9\\n')
    os.utime('data/7.csv', ns=(before.st_atime_ns, before.st_mtime_ns))"""
EMPTY = "blake3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"


def _only(root: Path):
    (file,) = root.glob("results/*/*/run.lock")
    return lockfile.read(file)


def _run(nursery, project: Path, inputs: list[str], body: str = "pass"):
    code = f"""
import os, shutil
from pathlib import Path
from runctx import Run
with Run({{"lr": 0.1}}, {inputs!r}, stage="odd", console=False) as run:
    {body}
"""
    ended = nursery.run(code, project)
    assert ended.left == []
    return ended


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("os.remove('data/7.csv')", True),
        ("shutil.rmtree('data')", True),
        ("shutil.rmtree('data'); Path('data').write_text('now a file')", True),
        ("os.truncate('data/7.csv', 0)", True),
        ("Path('data/7.csv').write_text('9')", True),
        ("Path('new').write_text('7\\\\n'); os.replace('new', 'data/7.csv')", True),
        ("Path('data/new.csv').touch()", True),
        ("os.remove('data/7.csv'); os.mkfifo('data/7.csv')", True),
        (f"before = os.stat('data/7.csv'); {REWRITE}", True),
        ("Path('data/7.csv').read_text()", False),
    ],
)
def test_changes_during_the_run(project, nursery, change, told):
    """An input that changed in any way after it was hashed is told; one that was only read is not."""
    ended = _run(nursery, project, ["data", "small.csv"], f"run._session.inputs.hashing.wait(10); {change}")
    assert ended.status == 0, ended.output
    data, other = _only(project).inputs
    assert data.digest and data.changed_during_run is told and not other.changed_during_run


@pytest.mark.parametrize(
    "change",
    ["os.truncate('big.bin', 10)", "os.remove('big.bin')", "os.remove('big.bin'); os.mkfifo('big.bin')"],
)
def test_changes_while_hashed(project, nursery, change):
    """An input pulled away while it is hashed is a change or an omission, and no crash."""
    with open(project / "big.bin", "wb") as big:
        big.truncate(400 << 20)
    ended = _run(nursery, project, ["big.bin"], change)
    assert ended.status == 0, ended.output
    lock = _only(project)
    (data,) = lock.inputs
    assert lock.status == "done"
    assert data.changed_during_run or any("big.bin" in omission.what for omission in lock.omissions)


def _bind(place: Path) -> None:
    import socket

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(place))


ODD = {
    "fifo": os.mkfifo,
    "socket": _bind,
    "loop": lambda place: place.symlink_to("odd"),
    "device": lambda place: place.symlink_to("/dev/zero"),
    "parent": lambda place: place.symlink_to(place.parent),
    "dangling": lambda place: place.symlink_to("nowhere"),
}


@pytest.mark.parametrize("kind", ODD)
def test_odd_things(project, nursery, kind):
    """What is no file is left out of a folder's digest and told; as an input it is a clear error, or told."""
    ODD[kind](project / "data" / "odd")
    ended = _run(nursery, project, ["small.csv", "data"])
    assert ended.status == 0, ended.output
    lock = _only(project)
    assert lock.status == "done" and lock.inputs[0].digest and lock.inputs[1].files == 600
    assert any("odd" in omission.what + omission.why for omission in lock.omissions)
    shutil.rmtree(project / "results")
    ended = _run(nursery, project, ["data/odd"])
    if ended.status == 0:
        lock = _only(project)
        assert kind == "parent" or any("odd" in omission.what for omission in lock.omissions)
    else:
        assert ended.output.splitlines()[-1].startswith(("runctx.errors.InputError:", "hint:"))
        assert "odd" in ended.output and not list(project.glob("results/*/*"))


def test_odd_names(project, nursery):
    """Empty files, and names that are no UTF-8 or hold line breaks, are hashed like all others."""
    names = [
        b"empty.csv",
        b"\xff\xfe.csv",
        b"two\nlines.csv",
        b" spaces ",
        b"-rf",
        "ümläut".encode(),
        b"x" * 255,
    ]
    (project / "odd").mkdir()
    for name in names:
        (project / "odd" / os.fsdecode(name)).touch()
    ended = _run(nursery, project, ["odd", *(f"odd/{os.fsdecode(name)}" for name in names)])
    assert ended.status == 0, ended.output
    lock = _only(project)
    assert lock.status == "done" and lock.inputs[0].files == len(names)
    assert {data.digest for data in lock.inputs[1:]} == {EMPTY}


def test_odd_outputs(project, nursery):
    """Whatever the user's code leaves in its folder, the run is sealed, and what is no file is told."""
    body = """os.mkfifo(run.save_dir / "pipe")
    os.symlink("/dev/zero", run.save_dir / "zero")
    os.symlink("loop", run.save_dir / "loop")
    os.symlink(".", run.save_dir / "self")
    os.mkdir(run.save_dir / "empty")
    os.mkdir(run.save_dir / "closed", 0)
    os.close(os.open(os.fsencode(run.save_dir) + b"/\\xff.bin", os.O_CREAT))
    (run.save_dir / "model.bin").write_bytes(b"weights")"""
    ended = _run(nursery, project, [], body)
    assert ended.status == 0, ended.output
    lock = _only(project)
    told = {omission.what for omission in lock.omissions}
    assert lock.status == "done" and {"pipe", "zero", "loop"} <= told
    assert [data.strength for data in lock.outputs if data.path == "model.bin"] == ["content"], lock.omissions


def test_inputs_given_oddly(project):
    """The same input twice, absolute and relative, and a folder with its own file are all recorded."""
    given = ["small.csv", "small.csv", str(project / "small.csv"), "data", "data/7.csv", "data/*.csv"]
    with Run(inputs=given, stage="odd", console=False) as run:
        pass
    assert [data.path for data in run.inputs] == given
    assert len({data.digest for data in run.inputs[:3]}) == 1 and all(data.digest for data in run.inputs)
