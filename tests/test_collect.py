"""Tasks that go on without their run: it is submitted, and whoever collects it seals its lock."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from runctx import Run, layout, lock
from runctx.cli import main
from runctx.errors import RunStateError, TaskError
from runctx.launchers import scheduler
from runctx.past import index, record
from runctx.tasks import collect, shifts, supervisor
from tests.detached import Detached
from tests.pastruns import make_lock, write_run


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RUNCTX_RESULTS", str(tmp_path / "results"))
    return tmp_path


@pytest.fixture
def launcher() -> Iterator[Detached]:
    made = Detached()
    yield made
    made.kill()


def gated(gate: Path) -> Callable[[int], int]:
    """A function whose tasks wait until a file of the task's number, or `all`, is there; 13 fails."""

    def work(task: int) -> int:
        import time

        while not ((gate / str(task)).exists() or (gate / "all").exists()):
            time.sleep(0.01)
        (gate / f"out-{task}").write_text("x")
        if task == 13:
            raise ValueError("thirteen")
        return task * 2

    return work


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    (tmp_path / "gate").mkdir()
    return tmp_path / "gate"


def submit(launcher: Detached, gate: Path, tasks) -> Run:
    with Run({"lr": 0.1}, stage="train", console=False) as run:
        (run.save_dir / "early.txt").write_text("early")
        run.map(gated(gate), tasks, launcher=launcher)
    return run


def until(condition: Callable[[], bool]) -> None:
    while not condition():
        time.sleep(0.01)


def test_submitted(launcher, gate):
    """A block that ends before its tasks leaves a lock that says so, and hashes nothing that they may write."""
    run = submit(launcher, gate, [1, 2])
    told = lock.read(run.save_dir)
    assert (told.status, told.outputs, run.status) == ("submitted", (), "submitted")
    assert (told.tasks[0].total, told.tasks[0].done, told.tasks[0].launcher) == (2, 0, "detached")
    assert Run.load(run.save_dir).status == "submitted"
    assert [row.status for row in index.runs().rows] == ["submitted"]


def test_collected(launcher, gate):
    """Rows are folded in, outputs are hashed, and the lock says done; doing it twice changes nothing."""
    run = submit(launcher, gate, [1, 2])
    (run.save_dir / "late.txt").write_text("late")
    (gate / "all").touch()
    past = Run.load(run.save_dir).collect(wait=True)
    told = lock.read(run.save_dir)
    assert past.lock == told
    assert (told.status, told.error, told.omissions == run.omissions) == ("done", None, True)
    assert (told.tasks[0].total, told.tasks[0].done, told.tasks[0].failed) == (2, 2, 0)
    assert [data.path for data in told.outputs] == ["early.txt", "late.txt"]
    assert all(data.digest for data in told.outputs)
    assert list(past.results()) == [2, 4]
    assert told.seconds >= run.seconds
    assert "collected: done, 2 of 2 tasks done" in (run.save_dir / layout.LOG).read_text()
    before = (run.save_dir / layout.LOCK).read_bytes()
    Run.load(run.save_dir).collect()
    assert (run.save_dir / layout.LOCK).read_bytes() == before
    assert not shifts._maps(run.save_dir)


def test_failed(launcher, gate):
    """Failed tasks make it failed, with an error that lists them; a resume does these, and no others."""
    (gate / "all").touch()
    run = submit(launcher, gate, [1, 13])
    told = Run.load(run.save_dir).collect(wait=True).lock
    assert told.status == "failed"
    assert told.error.type == "runctx.errors.TaskError"
    assert "1 of 2 tasks failed\n  13: ValueError: thirteen" in told.error.message
    assert told.error.traceback.endswith("ValueError: thirteen\n")
    for out in gate.glob("out-*"):
        out.unlink()
    again = Run({"lr": 0.1}, stage="train", resume=True, console=False)
    with pytest.raises(TaskError, match="1 of 2 tasks failed"), again:
        again.map(gated(gate), [1, 13], launcher="serial")
    assert again.id == run.id and [out.name for out in gate.glob("out-*")] == ["out-13"]


def test_still_going_on(launcher, gate):
    """Without waiting, it is said how far the tasks are, and nothing changes."""
    run = submit(launcher, gate, [1, 2, 3])
    (gate / "1").touch()
    until(lambda: Run.load(run.save_dir).tasks.counts.get("done") == 1)
    before = (run.save_dir / layout.LOCK).read_bytes()
    with pytest.raises(RunStateError) as caught:
        Run.load(run.save_dir).collect()
    assert "are still running: 1 of 3 done, 0 failed; running on: process" in caught.value.message
    assert (run.save_dir / layout.LOCK).read_bytes() == before
    with pytest.raises(RunStateError, match="are still running"):
        Run({"lr": 0.1}, resume=run.save_dir).start()


def test_not_done_twice(launcher, gate):
    """`resume=True` passes over no run whose tasks go on: an older run, or a new one, would do them again."""
    with pytest.raises(ZeroDivisionError), Run({"lr": 0.1}, stage="train", console=False):
        raise ZeroDivisionError
    run = submit(launcher, gate, [1])
    with pytest.raises(RunStateError, match=f"cannot resume run {run.id} yet") as caught:
        Run({"lr": 0.1}, stage="train", resume=True, console=False).start()
    assert "process" in caught.value.message and f"collect --wait {run.save_dir}" in caught.value.hint
    assert len(index.runs().rows) == 2
    with Run({"lr": 0.2}, stage="train", resume=True, console=False) as other:
        pass
    assert other.id != run.id
    (gate / "all").touch()
    assert Run.load(run.save_dir).collect(wait=True).status == "done"


def test_results_follow(launcher, gate):
    """What `run.map` returned has the results as they come; until then it names the task that is awaited."""
    with Run({"lr": 0.1}, stage="train", console=False) as run:
        results = run.map(gated(gate), [1, 2], launcher=launcher)
    past = Run.load(run.save_dir).results()
    assert [str(result) for result in results] == ["task 1 was not run", "task 2 was not run"]
    (gate / "1").touch()
    until(lambda: results[0] == 2)
    assert isinstance(results[1], TaskError)
    (gate / "all").touch()
    Run.load(run.save_dir).collect(wait=True)
    assert repr(results) == "<2 results: [2, 4]>"
    assert list(results) == [2, 4] == results[:]
    assert list(past) == [2, 4]


def test_nobody_left(launcher, gate):
    """Where nobody works and tasks are left, it is interrupted; a resume does the rest."""
    run = submit(launcher, gate, [1, 2, 3])
    (gate / "1").touch()
    until(lambda: Run.load(run.save_dir).tasks.counts.get("done") == 1)
    launcher.kill()
    assert Run.load(run.save_dir).status == "submitted"
    told = Run.load(run.save_dir).collect().lock
    assert (told.status, told.tasks[0].done) == ("interrupted", 1)
    assert "2 of 3 tasks did not run" in told.error.message and "resume=" in told.error.message
    (gate / "all").touch()
    with Run({"lr": 0.1}, stage="train", resume=True, console=False) as again:
        assert list(again.map(gated(gate), [1, 2, 3], launcher="serial")) == [2, 4, 6]
    assert (again.id, again.status) == (run.id, "done")


def test_resumed_and_submitted_again(launcher, gate):
    """What failed in an earlier entry and is being done again is not failed, but still to be done."""
    (gate / "all").touch()
    run = submit(launcher, gate, [13, 1])
    assert Run.load(run.save_dir).collect(wait=True).status == "failed"
    (gate / "all").unlink()
    with Run({"lr": 0.1}, stage="train", resume=True, console=False) as again:
        again.map(gated(gate), [13, 1], launcher=launcher)
    entry = lock.read(run.save_dir).tasks[0]
    assert (again.status, entry.done, entry.failed) == ("submitted", 1, 0)
    with pytest.raises(RunStateError, match="1 of 2 done, 0 failed"):
        Run.load(run.save_dir).collect()
    (gate / "all").touch()
    assert Run.load(run.save_dir).collect(wait=True).status == "failed"


def test_several_at_once(launcher, gate):
    """Of several that collect at once one writes, and all see the same."""
    run = submit(launcher, gate, [1, 2])
    together = threading.Barrier(4)
    seen: list[lock.Lock] = []

    def work() -> None:
        together.wait()
        seen.append(Run.load(run.save_dir).collect(wait=True).lock)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    (gate / "all").touch()
    for thread in threads:
        thread.join()
    assert len(seen) == 4 and all(told == seen[0] for told in seen) and seen[0].status == "done"
    assert (run.save_dir / layout.LOG).read_text().count("collected:") == 1


def test_all_done_at_the_end(launcher, gate):
    """Tasks that are over when the block ends need no collecting."""
    (gate / "all").touch()
    with Run({"lr": 0.1}, stage="train", console=False) as run:
        run.map(gated(gate), [1, 2], launcher=launcher)
        until(lambda: run.tasks.counts.get("done") == 2)
    assert (run.status, run.lock.tasks[0].done) == ("done", 2)
    assert lock.read(run.save_dir).status == "done"


def test_block_fails_meanwhile(launcher, gate):
    """A block that fails stays failed; what its tasks do is collected all the same."""
    with pytest.raises(ZeroDivisionError), Run({"lr": 0.1}, stage="train", console=False) as run:
        run.map(gated(gate), [1, 2], launcher=launcher)
        raise ZeroDivisionError
    told = lock.read(run.save_dir)
    assert (told.status, collect.LATER in told.omissions) == ("failed", True)
    (gate / "all").touch()
    (run.save_dir / "late.txt").touch()
    told = Run.load(run.save_dir).collect(wait=True).lock
    assert (told.status, told.tasks[0].done, collect.LATER in told.omissions) == ("failed", 2, False)
    assert told.error.type == "builtins.ZeroDivisionError"
    assert [data.path for data in told.outputs] == ["late.txt"]


class Impatient(Detached):
    """One that is waited for, until Ctrl-C."""

    waits = True

    def launch(self, plan):
        super().launch(plan)
        return self

    def wait(self) -> None:
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    "tasks, ended, status", [([1, 2], 2, "done"), ([1, 13], 2, "failed"), ([1, 2], 1, "interrupted")]
)
def test_waiting_is_interrupted(gate, tasks, ended, status):
    """Ctrl-C ends the wait, not the tasks elsewhere: what becomes of all of them is what becomes of the run."""
    launcher = Impatient()
    with pytest.raises(KeyboardInterrupt), Run({"lr": 0.1}, stage="train", console=False) as run:
        run.map(gated(gate), tasks, launcher=launcher)
    told = lock.read(run.save_dir)
    assert (told.status, told.omissions[-1]) == ("interrupted", collect.WAITED)
    if ended == len(tasks):
        (gate / "all").touch()
    else:
        (gate / "1").touch()
        until(lambda: run.tasks.counts.get("done") == 1)
        launcher.kill()
    told = Run.load(run.save_dir).collect(wait=True).lock
    launcher.kill()
    assert (told.status, told.tasks[0].done + told.tasks[0].failed) == (status, ended)
    assert (told.error and told.error.type) == {
        "done": None,
        "failed": "runctx.errors.TaskError",
        "interrupted": "builtins.KeyboardInterrupt",
    }[status]
    assert told.omissions[:-1] == run.omissions[:-1] or status == "interrupted"
    assert (told.omissions[-1:] == (collect._REST,)) == (status != "interrupted")


def test_killed_while_it_goes_on(gate, project):
    """A run whose process was killed while its tasks go on shows as submitted, and is collected as interrupted."""
    code = f"""
        import os, signal, sys, time
        from pathlib import Path
        from runctx import Run
        from tests.detached import Detached
        from tests.test_collect import gated
        launcher = Detached()
        with Run({{"lr": 0.1}}, stage="train", console=False) as run:
            run.map(gated(Path({str(gate)!r})), [1, 2], launcher=launcher)
            print(launcher.children[0].pid, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
    """
    (project / "program.py").write_text(textwrap.dedent(code))
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    ended = subprocess.run([sys.executable, "program.py"], stdout=subprocess.PIPE, text=True, env=environ)
    assert ended.returncode == -signal.SIGKILL, ended
    (folder,) = (project / "results/train").iterdir()
    try:
        assert (lock.read(folder).status, Run.load(folder).status) == ("running", "submitted")
        assert record.row_now(folder).status == "submitted"
        assert [row.status for row in index.runs().rows] == ["submitted"]
        (gate / "all").touch()
        told = Run.load(folder).collect(wait=True).lock
    finally:
        os.killpg(int(ended.stdout), signal.SIGKILL) if Run.load(folder).status == "submitted" else None
    assert (told.status, told.error, told.tasks[0].done) == ("interrupted", None, 2)
    assert "its tasks were collected" in told.omissions[-1].why
    with Run({"lr": 0.1}, stage="train", resume=True, console=False) as again:
        assert list(again.map(gated(gate), [1, 2], launcher="serial")) == [2, 4]
    assert (again.status, again.lock.sessions[0].status) == ("done", "interrupted")


def test_nothing_to_collect():
    """A run without tasks, and one that still runs, say so."""
    with Run(console=False) as run:
        with pytest.raises(RunStateError, match="no tasks to collect"):
            Run.load(run.save_dir).collect()
        run.map(abs, [1], launcher="serial")
        with pytest.raises(RunStateError, match="is still running \\(process"):
            Run.load(run.save_dir).collect()
    assert Run.load(run.save_dir).collect().status == "done"


def test_command(launcher, gate):
    """`runctx collect` seals, and tells counts; what cannot be collected exits with 2 and a hint."""
    run = submit(launcher, gate, [1, 2])
    told = CliRunner().invoke(main, ["collect", str(run.save_dir)])
    assert told.exit_code == 2 and "are still running: 0 of 2 done" in told.output and "hint: " in told.output
    (gate / "all").touch()
    told = CliRunner().invoke(main, ["collect", "latest", "--wait"])
    assert (told.exit_code, told.output) == (0, f"{run.id}: done\nwork: 2 of 2 done, 0 failed\n")
    told = CliRunner().invoke(main, ["collect", "latest", "--json"])
    assert msgspec.json.decode(told.stdout)["status"] == "done"


# -- who is at work ----------------------------------------------------------------------------------------


def shift_of(run: lock.Lock, folder: Path, **changes) -> Path:
    """A shift of another process, as it tells of itself."""
    files = layout.TaskFiles(folder, "work")
    one = shifts.Shift(name="abc", host="elsewhere", pid=1, workers=1, began=1.0)
    path = files.shift("abc")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.encode(msgspec.structs.replace(one, **changes)))
    return path


def crashed(tmp_path: Path) -> tuple[lock.Lock, Path]:
    known = make_lock(1, status="running", seconds=None)
    return known, write_run(
        tmp_path, replace(known, command=replace(known.command, host=_here(), pid=2**22 + 1))
    )


def _here() -> str:
    import platform

    return platform.node()


def test_in_the_queue(tmp_path, monkeypatch):
    """Jobs of Slurm count as queued unless they work; if Slurm does not answer, those that never began."""
    known, folder = crashed(tmp_path)
    shift_of(known, folder, slurm_job="1", host=_here(), pid=os.getpid())
    files = layout.TaskFiles(folder, "work")
    files.jobs.mkdir()
    (files.jobs / "a.json").write_bytes(msgspec.json.encode(["1", "2", "3"]))
    (working,) = shifts.read_all(files)
    monkeypatch.setattr(scheduler, "living", lambda jobs: set(jobs) - {"3"})
    assert shifts.queued_jobs(files, [working]) == {"2"}
    assert shifts.queued_jobs(files, []) == {"1", "2"}, "requeued"
    monkeypatch.setattr(scheduler, "living", lambda jobs: None)
    assert shifts.queued_jobs(files, []) == {"2", "3"}


def test_other_machine(tmp_path):
    """A shift elsewhere lives as long as its file is touched, by the clock of the file system."""
    known, folder = crashed(tmp_path)
    assert Run.load(folder).status == "crashed"
    path = shift_of(known, folder)
    assert Run.load(folder).status == "submitted"
    long_ago = time.time() - 2 * shifts.SILENCE
    os.utime(path, (long_ago, long_ago))
    assert Run.load(folder).status == record.row_now(folder).status == "crashed"


@pytest.mark.parametrize("changes", [{"ended": True}, {"host": _here(), "pid": 2**22 + 2}])
def test_over(tmp_path, changes):
    """A shift that said its end, or whose process is gone, is nobody."""
    known, folder = crashed(tmp_path)
    shift_of(known, folder, **changes)
    assert Run.load(folder).status == "crashed"


def test_own_process(tmp_path):
    """A shift that was the run's own process has gone with it, whoever has its number now."""
    known, folder = crashed(tmp_path)
    known = lock.read(folder)
    here = replace(known.command, host=_here(), pid=os.getpid())
    shift_of(known, folder, host=_here(), pid=os.getpid())
    assert shifts.may_go_on(folder, {(known.command.host, known.command.pid)})
    assert not shifts.may_go_on(folder, shifts.processes(replace(known, command=here)))
    assert not shifts.at_work(folder, replace(known, command=here))


def test_signs_of_life(tmp_path, monkeypatch):
    """A shift that works touches its file."""
    monkeypatch.setattr(supervisor, "BEAT", 0.01)
    with Run(console=False) as run:

        def work(_: int) -> bool:
            (path,) = layout.TaskFiles(run.save_dir, "work").shift("x").parent.glob("*.json")
            os.utime(path, (1, 1))
            until(lambda: path.stat().st_mtime > 1)
            return True

        assert list(run.map(work, [1], launcher="serial")) == [True]
