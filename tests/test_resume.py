"""A run that is resumed: same folder, same id; what is done stays done, and nothing of earlier entries is lost."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from runctx import Run, from_cli, layout, lock
from runctx.config import merged
from runctx.errors import (
    ConfigError,
    LedgerError,
    LockError,
    NoRunError,
    RunStateError,
    SaveDirError,
    TaskError,
)
from runctx.past import index

CONFIG = {
    "lr": 0.1,
    "moment": "${now:%H%M%S%f}",
    "file": "${save_dir}/x",
    "save_dir": None,
    "api_key": "hunter2",
}


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where nothing else is; results of console-like runs lie in its `results`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RUNCTX_RESULTS", str(tmp_path / "results"))
    return tmp_path


class Calls:
    """A function that notes what it was called with, and fails for some of it."""

    __name__ = "calls"

    def __init__(self, *bad: object) -> None:
        self.bad = set(bad)
        self.seen: list[object] = []

    def __call__(self, task: object) -> object:
        self.seen.append(task)
        if task in self.bad:
            raise ValueError(f"bad {task}")
        return f"{task}!"


def attempt(tasks, bad=(), **options) -> tuple[Run, Calls, list[object]]:
    """A run of one map, resumed or new; the error of its tasks is swallowed."""
    calls = Calls(*bad)
    results: list[object] = []
    run = Run(CONFIG, **{"stage": "train", "console": False, **options})
    try:
        with run:
            results = list(run.map(calls, tasks, launcher="serial"))
    except TaskError:
        pass
    return run, calls, results


def test_does_the_rest():
    """Done tasks are not run again, failed ones are, and results are those of all."""
    first, _, _ = attempt("abc", bad="b")
    again, calls, results = attempt("abc", resume=first.save_dir)
    assert calls.seen == ["b"]
    assert results == ["a!", "b!", "c!"]
    assert (again.status, again.lock.tasks[0].done, again.lock.tasks[0].failed) == ("done", 3, 0)


def test_same_run():
    """Folder, id and start stay, the log goes on, and sessions tell the earlier entries."""
    first, _, _ = attempt("abc", bad="b")
    second, _, _ = attempt("abc", bad="b", resume=first.save_dir / "tasks")
    third, _, _ = attempt("abc", resume=first.id)
    assert {run.save_dir for run in (first, second, third)} == {first.save_dir}
    assert {run.id for run in (first, second, third)} == {first.id}
    assert third.started == first.started < second.lock.resumed < third.lock.resumed
    told = lock.read(first.save_dir)
    assert [(one.status, one.started) for one in told.sessions] == [
        ("failed", first.started),
        ("failed", second.lock.resumed),
    ]
    assert (told.sessions[0].pid, told.sessions[0].seconds) == (os.getpid(), first.seconds)
    said = (first.save_dir / layout.LOG).read_text()
    assert said.count("resuming failed run") == 2 and said.count("failed after") == 2
    assert told.error is None


def test_values_stay():
    """`${now:...}` means the first start, and secrets are no difference."""
    first, _, _ = attempt("a", bad="a")
    again, _, _ = attempt("a", resume=True)
    assert again.id == first.id
    assert again.cfg == first.cfg
    assert "hunter2" not in (again.save_dir / layout.LOCK).read_text()


def test_reordered_and_extended():
    """A list in another order, with more tasks and with equal ones, gives each task its own result."""
    first, _, _ = attempt(["a", "b", "b"])
    again, calls, results = attempt(["b", "c", "a", "b", "b"], resume=first.save_dir)
    assert sorted(calls.seen) == ["b", "c"]  # the third b is new
    assert results == ["b!", "c!", "a!", "b!", "b!"]
    assert (again.lock.tasks[0].total, again.lock.tasks[0].done) == (5, 5)


def test_shortened():
    """What is no longer asked for does not count."""
    first, _, _ = attempt("abc", bad="c")
    again, calls, results = attempt("b", resume=first.save_dir)
    assert (calls.seen, results, again.status, again.lock.tasks[0].total) == ([], ["b!"], "done", 1)


def test_newest_unfinished():
    """`resume=True` takes the newest run of this stage and configuration that did not come to its end."""
    old, _, _ = attempt("ab", bad="a")
    new, _, _ = attempt("ab", bad="a")
    attempt("ab", bad="a", stage="other")
    attempt("ab")
    with pytest.raises(ValueError), Run({**CONFIG, "lr": 0.2}, stage="train", console=False):
        raise ValueError
    again, calls, _ = attempt("ab", resume=True)
    assert (again.id, calls.seen) == (new.id, ["a"])
    assert attempt("ab", resume=True)[0].id == old.id


def test_newest_of_none():
    """Without one, `resume=True` is a new run, and the log says so."""
    done, _, _ = attempt("a")
    run, calls, _ = attempt("a", resume=True)
    assert run.id != done.id and calls.seen == ["a"]
    assert "nothing to resume; started run" in (run.save_dir / layout.LOG).read_text()
    assert not run.lock.sessions and run.lock.resumed is None


def test_unfinished_one_that_differs():
    """A new run warns which keys differ from the newest unfinished run of its stage."""
    attempt("a", bad="a")
    new, _, _ = attempt("a", bad="a")
    with Run({**CONFIG, "lr": 0.2}, stage="train", resume=True, console=False) as run:
        pass
    said = (run.save_dir / layout.LOG).read_text()
    assert f"not resumed: run {new.id} had a different configuration: lr is 0.2 (was 0.1)" in said
    assert said.count("not resumed") == 1
    assert "not resumed" not in (attempt("a", resume=True)[0].save_dir / layout.LOG).read_text()


SCRIPT = """
import sys
from dataclasses import dataclass
from runctx import Run, from_cli

@dataclass
class Config:
    lr: float = 0.1
    wait: bool = False

def work(task):
    if task and sys.argv[-1] == "--fail":
        raise ValueError("bad")
    return task

if "--fail" in sys.argv:
    cfg = from_cli(Config, [argument for argument in sys.argv[1:] if argument != "--fail"])
else:
    cfg = from_cli(Config)
with Run(cfg, console=True) as run:
    print(run.id, run.save_dir, flush=True)
    if cfg.wait:
        sys.stdin.read()
    run.map(work, [0, 1, 2], launcher="serial")
"""


def shell(*arguments: str) -> subprocess.CompletedProcess[str]:
    Path("train.py").write_text(SCRIPT)
    command = [sys.executable, "train.py", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_from_the_shell(project):
    """`--resume` takes the newest unfinished run of this configuration, `--resume RUN` the one that is named."""
    first = shell("lr=0.3", "--fail")
    assert first.returncode == 1
    id, folder = first.stdout.split()
    for arguments in (["--resume", id], ["--resume", folder], ["--resume=latest"], ["--resume", "train"]):
        again = shell(*arguments, "lr=0.3", "--fail")
        assert again.stdout.split() == [id, folder], again.stderr
    other = shell("--resume", id)
    assert "had a different configuration: lr is 0.1 (was 0.3)" in other.stderr and other.returncode == 1
    new = shell("lr=0.4", "--resume")
    assert "lr is 0.4 (was 0.3)" in new.stderr and new.stdout.split()[0] != id and not new.returncode
    last = shell("--resume", "lr=0.3")  # what follows is no name of a run
    assert last.stdout.split() == [id, folder] and not last.returncode
    told = lock.read(Path(folder))
    assert (told.status, len(told.sessions), told.tasks[0].done) == ("done", 5, 3)
    assert "no run in" in shell("--resume", "nothing").stderr


def test_one_that_still_goes_on(project):
    """`--resume` beside a process that does the same is an error, not everything a second time."""
    Path("train.py").write_text(SCRIPT)
    command = [sys.executable, "train.py", "wait=true"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as going:
        id = going.stdout.readline().split()[0]
        beside = subprocess.run([*command, "--resume"], capture_output=True, text=True, timeout=60, input="")
        going.stdin.close()
        going.wait(60)
    assert beside.returncode == 1 and not beside.stdout
    assert f"run {id} is still running: process {going.pid} on" in beside.stderr
    assert len(index.runs().rows) == 1


def test_the_command_line_and_a_save_dir():
    """A configuration that asks to resume cannot be given another folder, and one made of it asks the same."""
    cfg = merged(from_cli(CONFIG, ["--resume"]), {"lr": 0.2})
    with pytest.raises(SaveDirError, match="cannot be given to a resumed run"):
        Run(cfg, save_dir="elsewhere").start()
    with pytest.raises(RunStateError, match="is of stage 'train', not 'other'"):
        first, _, _ = attempt("a", bad="a")
        Run(from_cli(CONFIG, ["--resume", first.id]), stage="other").start()


def test_crashed_is_resumed():
    """A run whose process is gone is unfinished, and its session says crashed."""
    first, _, _ = attempt("ab", bad="b")
    file = first.save_dir / layout.LOCK
    from dataclasses import replace

    gone = replace(first.lock.command, pid=2**22 + 1)
    lock.write(file, replace(first.lock, status="running", seconds=None, error=None, command=gone))
    again, calls, _ = attempt("ab", resume=True)
    assert (again.id, calls.seen) == (first.id, ["b"])
    assert [(one.status, one.seconds) for one in again.lock.sessions] == [("crashed", None)]


def test_another_configuration():
    """It is refused, with the keys that differ, and the run stays as it was."""
    first, _, _ = attempt("a", bad="a")
    before = {path: path.read_bytes() for path in first.save_dir.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError) as caught:
        Run({**CONFIG, "lr": 0.2, "new": {"a": 1}}, stage="train", resume=first.save_dir).start()
    assert "lr is 0.2 (was 0.1); new.a is 1 (was not set)" in caught.value.message
    assert {path: path.read_bytes() for path in first.save_dir.rglob("*") if path.is_file()} == before


def test_many_differences():
    """Only some are listed."""
    first, _, _ = attempt("a")
    with pytest.raises(ConfigError, match="and 4 more"):
        Run({f"k{n}": n for n in range(5)}, resume=first.save_dir).start()


def test_alive():
    """A run that is still running is refused, and it is said who it is."""
    with Run(CONFIG, stage="train", console=False) as run:
        with pytest.raises(RunStateError, match=f"still running: process {os.getpid()} on"):
            Run(CONFIG, resume=run.save_dir, console=False).start()
        with pytest.raises(RunStateError, match=f"still running: process {os.getpid()} on"):
            attempt("a", resume=True)  # all would be done twice
        other = Run({**CONFIG, "lr": 0.2}, stage="train", resume=True, console=False)
        with other:  # as a sweep does
            assert other.id != run.id
        assert "not resumed" not in (other.save_dir / layout.LOG).read_text()
        assert run.status == "running"
    assert lock.read(run.save_dir).status == "done"


def test_two_at_once():
    """Of several that resume the same run at once, exactly one does."""
    first, _, _ = attempt("a", bad="a")
    together, over = threading.Barrier(4), threading.Event()
    outcomes: list[str] = []

    def resume() -> None:
        together.wait()
        try:
            with Run(CONFIG, resume=first.save_dir, console=False):
                outcomes.append("entered")
                over.wait(60)
        except RunStateError:
            outcomes.append("refused")
            if outcomes.count("refused") == 3:
                over.set()

    threads = [threading.Thread(target=resume) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["entered", "refused", "refused", "refused"]
    told = lock.read(first.save_dir)
    assert (told.status, len(told.sessions)) == ("done", 1)


def test_another_stage():
    """A run's own stage stays; one that was asked for by name must be it."""
    first, _, _ = attempt("a", bad="a")
    again, _, _ = attempt("a", resume=first.save_dir, stage=None)
    assert again.stage == "train"
    with pytest.raises(RunStateError, match="is of stage 'train', not 'other'"):
        attempt("a", resume=first.save_dir, stage="other")


def test_save_dir_too():
    """A resumed run keeps its folder."""
    with pytest.raises(SaveDirError, match="cannot be given to a resumed run"):
        Run(CONFIG, save_dir="elsewhere", resume=True)


def test_nothing_there(tmp_path):
    """No run, or a broken one, is said so."""
    with pytest.raises(NoRunError):
        Run(CONFIG, resume=tmp_path).start()
    with pytest.raises(NoRunError):
        Run(CONFIG, resume="train-123").start()
    first, _, _ = attempt("a", bad="a")
    (first.save_dir / layout.LOCK).write_text("schema: [")
    with pytest.raises(LockError):
        Run(CONFIG, resume=first.save_dir).start()
    assert attempt("a", resume=True)[0].status == "done"  # a new run


def test_failed_entry(tmp_path):
    """An entry that fails leaves the earlier run as it was, and free for others."""
    first, _, _ = attempt("a", bad="a")
    before = (first.save_dir / layout.LOCK).read_bytes()
    with pytest.raises(FileNotFoundError):
        Run(CONFIG, ["not-there.csv"], resume=first.save_dir, console=False).start()
    assert (first.save_dir / layout.LOCK).read_bytes() == before
    assert attempt("a", resume=first.save_dir)[0].status == "done"


def test_written_anew(tmp_path):
    """Inputs, manifests and outputs are those of the last entry."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "data.csv").write_text(name)
    with Run(CONFIG, ["one"], console=False) as first:
        (first.save_dir / "model.bin").write_text("first")
    with Run(CONFIG, ["two"], resume=first.save_dir, console=False) as again:
        (again.save_dir / "model.bin").unlink()
    assert [data.path for data in again.inputs] == ["two"]
    assert [path.name for path in (again.save_dir / layout.INPUTS).iterdir()] == ["two.b3"]
    assert again.outputs == () and not (again.save_dir / layout.OUTPUTS).exists()


@pytest.mark.parametrize(
    "name", sorted(layout.OWN | {"tasks/calls/done/x.jsonl", "metrics/x.jsonl", ".runctx/alive.lock"})
)
def test_nothing_is_written_through_a_link(tmp_path, name):
    """A run in whose folder something of ours is a link is not resumed, and what the link leads to stays."""
    first, _, _ = attempt("ab", bad="b")
    own, elsewhere = first.save_dir / name, tmp_path / "elsewhere"
    if own.exists():
        own.rename(elsewhere)
    else:
        own.parent.mkdir(exist_ok=True)
        elsewhere.write_text("precious")
    own.symlink_to(elsewhere)
    before = tree(elsewhere)
    for named in (first.save_dir, True):
        with pytest.raises(RunStateError, match="is a link"):
            attempt("ab", resume=named)
    assert tree(elsewhere) == before


def tree(root: Path) -> dict[str, bytes]:
    """Every file below a folder, or the file itself."""
    files = [path for path in (root, *root.rglob("*")) if path.is_file()]
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def test_a_link_that_leads_in_circles(tmp_path):
    """Where a worker's rows should be, it is a broken ledger, and says where."""
    first, _, _ = attempt("ab", bad="b")
    loop = first.save_dir / "tasks" / "calls" / "done" / "x.jsonl"
    loop.symlink_to(loop.name)
    with pytest.raises(LedgerError, match=r"x\.jsonl"):
        list(Run.load(first.save_dir).results())


def test_another_map_of_the_name():
    """A lambda is known by its code: results of one never pass for those of another."""
    with Run(console=False) as first:
        first.map(lambda x: x + 1, [1, 2], launcher="serial")
        first.map(lambda x: x * 10, [1, 2], launcher="serial")
    with Run(resume=first.save_dir, console=False) as again:
        with pytest.raises(RunStateError, match="the map 'lambda' of this run was started with"):
            again.map(lambda x: x * 10, [1, 2], launcher="serial")
        assert list(again.map(lambda x: x + 1, [1, 2], launcher="serial")) == [2, 3]  # its place was kept
        assert list(again.map(lambda x: x * 10, [1, 2], launcher="serial")) == [10, 20]
    with Run(resume=first.save_dir, console=False) as third:
        assert list(third.map(lambda x: x + 1, [1, 2, 3], launcher="serial")) == [2, 3, 4]


def test_laid_elsewhere():
    """Tasks that were laid on another key were other tasks."""
    with Run({"a": 0, "b": 0}, console=False) as first:
        first.map(_sum, [1, 2], into="a", launcher="serial")
    again = Run({"a": 0, "b": 0}, resume=first.save_dir, console=False)
    with again, pytest.raises(RunStateError, match="into='a'; got into='b'"):
        again.map(_sum, [1, 2], into="b", launcher="serial")


def _sum(cfg) -> int:
    return cfg.a + cfg.b


def test_not_called_again():
    """The entry of a map stays until it is called again."""
    first, _, _ = attempt("ab")
    with Run(CONFIG, resume=first.save_dir, console=False):
        pass
    told = lock.read(first.save_dir)
    assert (told.status, told.tasks) == ("done", first.lock.tasks)
    assert list(Run.load(first.save_dir).results()) == ["a!", "b!"]


def test_interrupted_before_the_rest():
    """What failed earlier, and was to be done again, counts as not run until it is."""
    first, _, _ = attempt("ab", bad="ab")
    calls = Calls()

    def stop(task: object) -> object:
        if task == "b":
            raise KeyboardInterrupt
        return calls(task)

    stop.__name__, stop.__qualname__, stop.__module__ = (
        "calls",
        type(calls).__qualname__,
        type(calls).__module__,
    )
    with pytest.raises(KeyboardInterrupt), Run(CONFIG, resume=first.save_dir, console=False) as again:
        again.map(stop, "ab", launcher="serial")
    entry = again.lock.tasks[0]
    assert (again.status, entry.total, entry.done, entry.failed) == ("interrupted", 2, 1, 0)


def test_processes():
    """Workers of another process go on with what those of the first left."""
    first, _, _ = attempt(range(6), bad=[1, 4])
    with Run(CONFIG, resume=first.save_dir, console=False) as again:
        results = list(again.map(Calls(), range(6), n_jobs=2))
    assert results == [f"{n}!" for n in range(6)]
    rows = [row for row in again.tasks if row.status == "done"]
    assert len(rows) == 6 and len({row.worker for row in rows}) > 1


def test_listed():
    """A resumed run is listed as any other, at its first start."""
    first, _, _ = attempt("a", bad="a")
    attempt("a", resume=True)
    (row,) = index.runs().rows
    assert (row.id, row.status, row.started) == (first.id, "done", first.started)
