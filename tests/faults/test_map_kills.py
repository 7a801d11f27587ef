"""Killed at any moment of a map, and resumed: every task is done, and done once, and the lock can always be read."""

from __future__ import annotations

import collections
import itertools
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from runctx import Run
from runctx import lock as lockfile
from runctx.layout import TaskFiles
from runctx.liveness import exists
from runctx.tasks.ledger import Rows

SEED = int(os.environ.get("FAULTS_SEED", "20"))
LIMIT = 120.0
"""Seconds after which what should happen soon is taken for not happening."""

MAP = """
import os, sys, time
from pathlib import Path
from runctx import Run

marks = Path({marks!r})

def work(task):
    with open(marks / str(task), "ab", buffering=0) as mark:
        mark.write(b"x")
    time.sleep({seconds})
    return task * task

if __name__ == "__main__":
    with Run({{"lr": 0.1}}, stage="train", resume=True, console=False) as run:
        results = list(run.map(work, {tasks}, n_jobs=2))
    assert results == [task * task for task in {tasks}]
"""


@pytest.fixture
def marks(project: Path) -> Path:
    """A file for each task that was begun, with a byte for each time."""
    (project / "marks").mkdir()
    return project / "marks"


@contextmanager
def started(
    project: Path, marks: Path, tasks: str, seconds: float = 0.002
) -> Iterator[subprocess.Popen[bytes]]:
    """The program, in a group of its own."""
    (project / "map.py").write_text(MAP.format(marks=str(marks), tasks=tasks, seconds=seconds))
    root = str(Path(__file__).parents[2])
    process = subprocess.Popen(
        [sys.executable, "map.py"],
        cwd=project,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": root},
    )
    try:
        yield process
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()


def until(condition) -> None:
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline, "it does not happen"
        time.sleep(0.001)


def begun(marks: Path) -> int:
    return sum(1 for _ in marks.iterdir())


def done_rows(folder: Path, name: str) -> collections.Counter[str]:
    """How often each task was done."""
    rows = itertools.chain.from_iterable(new for _, new in Rows(TaskFiles(folder, name)).new())
    return collections.Counter(row.key for row in rows if row.status == "done")


def test_everything_killed(project, marks):
    """Parent and workers killed together, again and again: only what was in flight is begun once more."""
    chance = random.Random(SEED)
    total, kills = 400, 0
    while True:
        target = begun(marks) + chance.randint(1, 60)
        with started(project, marks, f"range({total})", seconds=0.01) as process:
            while process.poll() is None and begun(marks) < target:
                time.sleep(0.001)
            if target < total:
                os.killpg(process.pid, signal.SIGKILL)
            assert process.wait(LIMIT) in (0, -signal.SIGKILL)
            kills += process.returncode != 0
        (folder,) = (project / "results/train").iterdir()
        told = lockfile.read(folder)
        if told.status == "done":
            break
        assert (told.status, Run.load(folder).status) == ("running", "crashed")
    assert kills
    often = done_rows(folder, "work")
    assert len(often) == total and set(often.values()) == {1}
    begun_in_all = sum(path.stat().st_size for path in marks.iterdir())
    assert total <= begun_in_all <= total + 2 * kills
    # the last kill may have come when the lock was sealed already
    assert {one.status for one in told.sessions} == {"crashed"} and len(told.sessions) in (kills, kills - 1)
    assert (told.tasks[0].total, told.tasks[0].done) == (total, total)
    assert list(Run.load(folder).results()) == [task * task for task in range(total)]


def test_parent_killed(project, marks):
    """Workers whose parent was killed stop by themselves, and what they finished counts."""
    with started(project, marks, "range(100_000)", seconds=0.005) as process:
        until(lambda: len(_workers(project)) == 2)
        os.kill(process.pid, signal.SIGKILL)
        process.wait(LIMIT)
        (folder,) = (project / "results/train").iterdir()
        workers = _workers(project)
        until(lambda: not any(map(exists, workers)))
    often = done_rows(folder, "work")
    assert set(often.values()) == {1}
    assert begun(marks) == len(often), "a worker that stops by itself leaves nothing half done"
    told = Run.load(folder).collect().lock
    assert (told.status, told.tasks[0].done, told.tasks[0].failed) == ("interrupted", len(often), 0)


def _workers(project: Path) -> list[int]:
    """Processes that have written rows."""
    pids = []
    for folder in (project / "results/train").glob("*"):
        rows = Rows(TaskFiles(folder, "work"))
        list(rows.new())
        pids += [author.pid for author in rows.authors.values()]
    return pids


AT_CALL = """
import os, signal, sys
from pathlib import Path
from runctx import Run
from runctx.errors import TaskError

marks = Path({marks!r})

def work(task):
    with open(marks / str(task), "ab", buffering=0) as mark:
        mark.write(b"x")
    if task % 7 == 3 and {bad}:
        raise ValueError(task)
    return task * task

calls = 0

def strike(frame, kind, argument):
    global calls
    if kind in ("call", "c_return"):
        calls += 1
        if calls == {at!r} or (kind == "call" and frame.f_code.co_name == {at!r}):
            os.kill(os.getpid(), signal.SIGKILL)

sys.setprofile(strike)
try:
    with Run({{"lr": 0.1}}, stage="train", resume={resume!r}, console=False) as run:
        (run.save_dir / "model.bin").write_text("weights")
        results = list(run.map(work, {tasks}, launcher="serial"))
except TaskError:
    pass
sys.setprofile(None)
print(calls)
"""


def _program(marks: Path, **changes) -> str:
    return AT_CALL.format(**{"marks": str(marks), "bad": False, "at": None, "resume": True, **changes})


def test_any_call_of_a_resume(project, marks, nursery):
    """At whatever call a resumed run is killed, its lock stays readable, and the next resume does the rest."""
    chance = random.Random(SEED)
    nursery.run(_program(marks, bad=True, tasks="range(10)"), project)
    (folder,) = (project / "results/train").iterdir()
    first = lockfile.read(folder)
    assert first.status == "failed"
    path = str(folder)
    whole = nursery.run(_program(marks, bad=True, tasks="range(20)", resume=path), project)
    calls, kills = int(whole.output.split()[-1]), 0
    for size in range(21, 61):
        tasks = f"range({size})"
        at = chance.randint(1, calls)
        ended = nursery.run(_program(marks, bad=True, at=at, resume=path, tasks=tasks), project)
        assert ended.status in (0, -signal.SIGKILL), ended.output
        kills += ended.status != 0
        told = lockfile.read(folder)
        assert (told.id, told.started) == (first.id, first.started), (
            f"killed at call {at}, FAULTS_SEED={SEED}"
        )
        assert told.sessions[0].status == "failed" and told.sessions[0].started == first.started
        assert Run.load(folder).status in ("crashed", "failed")
    assert kills > 10
    last = nursery.run(_program(marks, tasks="range(60)", resume=path), project)
    assert last.status == 0, last.output
    told = lockfile.read(folder)
    assert (told.status, told.tasks[0].total, told.tasks[0].done) == ("done", 60, 60)
    assert [data.path for data in told.outputs] == ["model.bin"]
    assert list(Run.load(folder).results()) == [task * task for task in range(60)]
    often = done_rows(folder, "work")
    assert len(often) == 60 and set(often.values()) == {1}
    good = [path for path in marks.iterdir() if int(path.name) % 7 != 3]
    assert sum(path.stat().st_size for path in good) <= len(good) + kills


@pytest.mark.parametrize(
    "moment",
    [
        "make_exclusively",
        "_open_folder",
        "note",
        "keys_of",
        "write_tasks",
        "launch",
        "summary",
        "_gather",
        "_seal",
    ],
)
def test_this_moment(project, marks, nursery, moment):
    """Killed as the first lock is written, as todo is, as rows are folded: a run of its own, or one that is resumed."""
    ended = nursery.run(_program(marks, at=moment, tasks="range(10)"), project)
    assert ended.status == -signal.SIGKILL, ended.output
    before = [path.parent for path in (project / "results/train").glob("*/run.lock")]
    ended = nursery.run(_program(marks, tasks="range(10)"), project)
    assert ended.status == 0, ended.output
    (file,) = (project / "results/train").glob("*/run.lock")
    told = lockfile.read(file)
    assert (told.status, told.tasks[0].done, len(told.sessions)) == ("done", 10, len(before))
    assert set(done_rows(file.parent, "work").values()) == {1}
    assert sum(path.stat().st_size for path in marks.iterdir()) <= 11


@pytest.mark.parametrize(
    "moment", ["fold", "joined", "_with_status", "_with_outputs", "write", "rmtree", "_log"]
)
def test_collect_killed(project, marks, nursery, moment):
    """Killed as it collects: the next one does the rest."""
    nursery.run(_program(marks, at="_gather", tasks="range(10)"), project)
    (folder,) = (project / "results/train").iterdir()
    code = f"""
        import os, signal, sys
        from runctx import Run
        def strike(frame, kind, argument):
            if kind == "call" and frame.f_code.co_name == {moment!r}:
                os.kill(os.getpid(), signal.SIGKILL)
        sys.setprofile(strike)
        Run.load({str(folder)!r}).collect()
    """
    ended = nursery.run(code, project)
    assert ended.status == -signal.SIGKILL, ended.output
    told = Run.load(folder).collect().lock
    assert (told.status, told.tasks[0].done) == ("interrupted", 10)
