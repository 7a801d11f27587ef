"""Are runs brought to MLflow whole and once, however often, by whomever, and with whatever logging function?"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from runctx import Run, layout, lock
from runctx.cli.views import publish as command
from runctx.errors import RunctxError, RunStateError, TrackingError
from runctx.metrics.journal import Journal
from runctx.past.index import load
from runctx.past.legacy import record_of
from runctx.past.record import Record
from runctx.trackers.mlflow import MLflow
from runctx.trackers.publishing import bring_up_to_date, is_current, publish_all, settings_of

from .pastruns import child_of, make_lock, write_run
from .shipping import PATIENCE, until
from .shipping import Project as Shipped

# what MLflow and the libraries it stands on say of each other's interfaces while they are imported
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

POINTS = 3
STAGE = """
FACTOR = 2

def log_run(run):
    import mlflow
    mlflow.log_metric("score", run.cfg.lr * FACTOR)
    mlflow.log_text(f"lr {run.cfg.lr}", "notes/lr.txt")
    mlflow.log_table({"lr": [run.cfg.lr], "stage": [run.stage]}, "table.json")

def sick(run):
    import mlflow
    mlflow.log_text("so far", "so-far.txt")
    if run.cfg.lr == 0.5:
        raise SystemExit(3)
    if run.cfg.lr > 0.15:
        raise ValueError("too large")
"""


class Project:
    """A project with past runs, and with a database of MLflow's that has some of them.

    Parameters
    ----------
    root: its folder.
    """

    def __init__(self, root: Path) -> None:
        self.root, self._made = root, 0
        root.mkdir()
        (root / "pyproject.toml").write_text("[tool.runctx]\nexperiment = 'tests'\n")
        (root / "stage.py").write_text(STAGE)

    def tracker(self) -> MLflow:
        """One that remembers nothing."""
        return MLflow(settings_of(self.root))

    def make(self, *parents: Record, **changes: Any) -> Record:
        """The next past run; it has logged some numbers and left a file."""
        self._made += 1
        locks = [parent.lock for parent in parents]
        told = child_of(self._made, *locks, **changes) if parents else make_lock(self._made, **changes)
        folder = write_run(self.root, told)
        log(folder, POINTS)
        (folder / "model.txt").write_text(f"model {self._made}")
        return load(folder)

    def shown(self, *runs: Record) -> dict[str, Any]:
        """Id of each of these runs, else of all -> everything that MLflow shows of it; each run once."""
        from mlflow import MlflowClient
        from mlflow.entities import ViewType

        client = MlflowClient(self.tracker().database.uri)
        ids = [one.experiment_id for one in client.search_experiments()]
        found = client.search_runs(ids, run_view_type=ViewType.ALL, max_results=5000)
        wanted = {run.id for run in runs}
        told = [(one.data.tags["runctx.id"], one) for one in found]
        chosen = [(id, one) for id, one in told if not wanted or id in wanted]
        assert len(dict(chosen)) == len(chosen), "a run is there twice"
        return {id: _everything(client, one) for id, one in chosen}


def _everything(client: Any, run: Any) -> dict[str, Any]:
    from mlflow.utils.file_utils import local_file_uri_to_path

    root = Path(local_file_uri_to_path(run.info.artifact_uri))
    return {
        "ref": run.info.run_id,
        "status": run.info.status,
        "info": dict(run.info),
        "params": run.data.params,
        "tags": run.data.tags,
        "metrics": {
            name: [
                (one.step, one.value, one.timestamp)
                for one in client.get_metric_history(run.info.run_id, name)
            ]
            for name in run.data.metrics
        },
        "files": {
            path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()
        },
    }


def log(folder: Path, points: int, **numbers: float) -> None:
    journal = Journal(folder / "metrics", lose=pytest.fail)
    for step in range(points):
        journal.append(numbers or {"loss": 1 / (step + 1), "acc": step / points}, step)


def rewrite(run: Record, **changes: Any) -> Record:
    """Seal it anew."""
    lock.write(layout.RunFiles(run.save_dir).lock, replace(run.lock, **changes))
    return load(run.save_dir)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """All tests share its database, for making one takes seconds; each makes its own runs."""
    return Project(tmp_path_factory.mktemp("publish") / "project")


@pytest.fixture(autouse=True)
def _here(project: Project, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(project.root)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    sys.modules.pop("stage", None)


def call(*arguments: str, code: int = 0) -> Any:
    """`runctx publish` in this process, with plain data."""
    done = CliRunner().invoke(command, [*map(str, arguments), "--json"])
    assert done.exit_code == code, (done.output, done.exception)
    return json.loads(done.stdout)["runs"]


def outcomes(told: list[dict[str, Any]]) -> dict[str, str]:
    return {Path(one["path"]).name: one["outcome"] for one in told}


# -- one run -----------------------------------------------------------------------------------------------


def test_a_run_is_published_with_those_before_it(project: Project) -> None:
    """Publishing a run shows it with its numbers and files, below the run that it read from."""
    first = project.make()
    second = project.make(first)
    third = project.make(second)
    third.publish()
    shown = project.shown(first, second, third)
    assert set(shown) == {first.id, second.id, third.id}
    for parent, child in ((first, second), (second, third)):
        assert shown[child.id]["tags"]["mlflow.parentRunId"] == shown[parent.id]["ref"]
    for run in (first, second, third):
        assert [step for step, _, _ in shown[run.id]["metrics"]["loss"]] == list(range(POINTS))
        assert shown[run.id]["files"]["model.txt"] == (run.save_dir / "model.txt").read_bytes()


def test_what_is_wrong_with_an_earlier_run_is_no_concern(project: Project) -> None:
    """A run is published although one that it read from is broken, or gone."""
    broken, gone = project.make(), project.make()
    child = project.make(broken, gone)
    layout.RunFiles(broken.save_dir).lock.write_text("status: [")
    shutil.rmtree(gone.save_dir)
    child.publish()
    assert set(project.shown(broken, gone, child)) == {child.id}


def test_publishing_again_changes_nothing(project: Project) -> None:
    """Published again, by an object or by the command, with a logging function or without, MLflow has what it had."""
    from_here = load_function()
    runs = [project.make() for _ in range(2)]
    paths = [str(run.save_dir) for run in runs]
    for run in runs:
        run.publish(from_here)
    before = project.shown(*runs)
    for run in runs:
        load(run.save_dir).publish(from_here)
    call(*paths)
    call(*paths, "--with", "stage:log_run")
    call(*paths, "--with", "stage:log_run", "--stale")
    assert project.shown(*runs) == before
    assert {name for one in before.values() for name in one["files"]} >= {"notes/lr.txt", "table.json"}


def load_function(name: str = "log_run") -> Any:
    from runctx.trackers.logging_function import load as load_named

    return load_named(f"stage:{name}")


def test_only_what_has_changed_is_sent(project: Project) -> None:
    """New numbers are sent without describing the run again, and a lock that has changed without sending them again."""
    run, tracker = project.make(), project.tracker()
    first = bring_up_to_date(run, tracker)
    assert (first.described, first.numbers, first.changed) == (True, 2 * POINTS, True)
    assert is_current(run, tracker)
    log(run.save_dir, 2, more=0.5)
    assert not is_current(run, tracker)
    second = bring_up_to_date(run, tracker)
    assert (second.described, second.numbers) == (False, 2)
    run = rewrite(run, status="failed")
    assert not is_current(run, tracker)
    third = bring_up_to_date(run, tracker)
    assert (third.described, third.numbers) == (True, 0)
    assert is_current(run, tracker)
    assert not bring_up_to_date(run, tracker).changed
    assert project.shown(run)[run.id]["status"] == "FAILED"


def test_a_run_that_has_crashed_is_told_anew(project: Project) -> None:
    """A run whose process is gone is described again, although its lock has not changed."""
    with subprocess.Popen(["sleep", "600"]) as process:
        here = replace(make_lock().command, host=os.uname().nodename, pid=process.pid)
        run, tracker = project.make(status="running", seconds=None, command=here), project.tracker()
        bring_up_to_date(run, tracker)
        assert is_current(run, tracker)
        assert project.shown(run)[run.id]["status"] == "RUNNING"
        process.kill()
    assert not is_current(load(run.save_dir), tracker)
    bring_up_to_date(load(run.save_dir), tracker)
    assert project.shown(run)[run.id]["status"] == "KILLED"


@dataclass
class Opt:
    name: str
    betas: list[float]


@dataclass
class Config:
    lr: float
    opt: Opt


def test_a_function_is_given_the_run(project: Project) -> None:
    """A logging function is called with the object it was given to, which has its own class of configuration."""

    run, seen = Run.load(project.make().save_dir, Config), []
    run.publish(seen.append)
    assert seen == [run]
    assert seen[0] is run
    assert isinstance(seen[0].cfg, Config)


def test_an_exception_comes_last(project: Project) -> None:
    """What a logging function raises reaches the caller, when all else is published and what it left is taken back."""
    run = project.make()
    with pytest.raises(ValueError, match="too large"):
        rewrite(run, config={"lr": 0.3}).publish(load_function("sick"))
    shown = project.shown(run)[run.id]
    assert shown["status"] == "FINISHED"
    assert "model.txt" in shown["files"]
    assert len(shown["metrics"]["loss"]) == POINTS
    told = call(run.save_dir, "--with", "stage:sick", "--stale", code=1)
    line = next(n for n, text in enumerate(STAGE.splitlines(), 1) if "too large" in text)
    assert told[0]["error"] == f"ValueError: too large (stage.py:{line}, in sick)"
    assert told[0]["traceback"].splitlines()[1].endswith(f'/stage.py", line {line}, in sick')


def test_a_live_run_is_published(project: Project, tmp_path: Path) -> None:
    """Inside its block a run is shown as far as it is known; its end follows by itself."""
    shipped = Shipped(tmp_path / "live", RUNCTX_TRACKING="off")
    code = """
import sys
from runctx import Run
calls = []
def log_run(run):
    import mlflow
    calls.append(run)
    mlflow.log_text(run.status, "status.txt")
with Run({"lr": 0.1}, console=False) as run:
    run.log_async(loss=0.5)
    run.publish(log_run)
    assert calls == [run]
    print(run.id, flush=True)
    sys.stdin.readline()
    run.log_async(loss=0.25)
"""
    with shipped.in_use():
        program = subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=shipped.root,
            env=shipped.environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        with program:
            assert program.stdin is not None and program.stdout is not None
            id = program.stdout.readline().strip()
            live = shipped.shown()[id]
            assert (live.status, live.numbers) == ("RUNNING", {"loss": [(0, 0.5)]})
            program.stdin.write("\n")
            program.stdin.close()
        assert program.returncode == 0
        ended = until(lambda: (now := shipped.shown()[id]).status == "FINISHED" and now, "the end of the run")
        assert ended.numbers == {"loss": [(0, 0.5), (1, 0.25)]}


def test_tasks_publish_nothing(project: Project) -> None:
    """Publishing a run inside a task of it is refused, with what to do instead."""

    def task(number: int) -> None:
        with Run({"lr": 0.1}, console=False) as inner:
            inner.publish()

    with Run({"lr": 0.1}, stage="mapped", console=False) as run:
        found = run.map(task, [1], launcher="serial", on_error="return")
        assert isinstance(found[0], RunStateError)
        assert "after the map" in str(found[0])


# -- where -------------------------------------------------------------------------------------------------


def runctx(root: Path, *arguments: str, wait: bool = True) -> subprocess.Popen[str]:
    """The command, in a process of its own."""
    code = "from runctx.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=root,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.fspath(Path(__file__).parent.parent)},
    )
    if wait:
        process.wait(PATIENCE)
    return process


def test_a_database_that_was_made_anew_gets_everything(project: Project, tmp_path: Path) -> None:
    """Where a database is no longer the one it was, all runs are published again: what was kept says nothing then."""
    elsewhere = Project(tmp_path / "anew")
    (elsewhere.root / "pyproject.toml").write_text("[tool.runctx]\nexperiment = 'anew'\n")
    runs = [elsewhere.make() for _ in range(3)]
    project.make().publish()  # so that there is a database
    shutil.copy(project.root / "mlflow.db", elsewhere.root)
    assert all(outcome.changed for outcome in publish_all(runs, quick=True))
    assert not any(outcome.changed for outcome in publish_all(runs, quick=True))
    (elsewhere.root / "mlflow.db").unlink()
    shutil.copy(project.root / "mlflow.db", elsewhere.root)
    with runctx(elsewhere.root, "publish", "--json") as process:  # this one has the old file open
        assert process.stdout is not None
        told = json.load(process.stdout)
    assert outcomes(told["runs"]) == dict.fromkeys((run.save_dir.name for run in runs), "published")


def test_what_was_deleted_in_mlflow_is_restored_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of many it is left deleted, and that is said; named by itself it is restored; removed for good, made anew."""
    from mlflow import MlflowClient

    project = Project(tmp_path / "project")  # its own: it publishes all runs of it
    monkeypatch.chdir(project.root)
    run, other = project.make(config={"lr": 0.5}), project.make()
    stage = os.path.dirname(run.save_dir)
    call(run.id, other.id)
    before = project.shown(run, other)
    client = MlflowClient(project.tracker().database.uri)

    def delete() -> None:
        client.delete_run(before[run.id]["ref"])

    delete()
    for many in ((), (stage,), (f"{stage}*",), ("--where", "config.lr == 0.5")):
        assert outcomes(call(*many))[run.save_dir.name] == "deleted", many
    rewrite(run, seconds=1.0)
    done = CliRunner().invoke(command, [stage])
    assert "deleted        1  mlflow: mlflow.db" in done.stdout
    assert "hint: what was deleted there is left so; `runctx publish RUN` restores a run" in done.stderr
    assert project.shown(run)[run.id]["info"]["lifecycle_stage"] == "deleted"

    assert outcomes(call(run.id)) == {run.save_dir.name: "restored"}
    now = project.shown(run, other)
    assert now[run.id]["info"]["lifecycle_stage"] == "active"
    assert (now[run.id]["metrics"], now[other.id]) == (before[run.id]["metrics"], before[other.id])
    for name in (run.id, os.fspath(run.save_dir), os.path.relpath(run.save_dir)):
        delete()
        assert outcomes(call(name)) == {run.save_dir.name: "restored"}
        assert project.shown(run, other) == now
    delete()
    load(run.save_dir).publish()
    assert project.shown(run)[run.id]["info"]["lifecycle_stage"] == "active"

    delete()
    uri = project.tracker().database.uri
    gc = ("gc", "--run-ids", before[run.id]["ref"], "--backend-store-uri", uri, "--tracking-uri", uri)
    subprocess.run([sys.executable, "-m", "mlflow", *gc], check=True, capture_output=True, timeout=PATIENCE)
    assert outcomes(call())[run.save_dir.name] == "published"
    assert project.shown(run)[run.id]["info"]["lifecycle_stage"] == "active"
    assert project.shown(run)[run.id]["metrics"] == before[run.id]["metrics"]


def test_the_project_of_a_run_counts(project: Project, tmp_path: Path) -> None:
    """A run goes where the project says that its folder lies in; if it lies in none, where the current one says."""
    other = tmp_path / "other"
    other.mkdir()
    (other / "pyproject.toml").write_text("[tool.runctx]\ntracking_uri = 'sqlite:///here.db'\n")
    inside, outside = write_run(other, make_lock(1)), write_run(tmp_path / "nowhere", make_lock(2))
    assert settings_of(inside).tracking_uri == "sqlite:///here.db"
    assert settings_of(outside).root == project.root


def test_a_destination_that_is_gone_is_not_asked_for_every_run(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a server does not answer, the first run says so and the others are not tried."""
    runs = [project.make() for _ in range(20)]
    monkeypatch.setenv("RUNCTX_TRACKING_URI", "http://me:hunter22@127.0.0.1:9")
    tried = []
    monkeypatch.setattr(MLflow, "open", lambda *given: tried.append(given) or pytest.fail())
    told = call(*(run.save_dir for run in runs), code=1)
    assert set(outcomes(told).values()) == {"failed"}
    assert tried == []
    assert "hunter22" not in json.dumps(told)
    assert "traceback" not in told[0]
    assert [list((run.save_dir / ".runctx").glob("*/*.json")) for run in runs] == [[]] * len(runs)


def test_a_tracker_without_functions_says_so(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A logging function that no tracker of the project takes is an error, once the run is published there."""
    run = project.make()
    monkeypatch.setenv("RUNCTX_TRACKING", "tensorboard")
    with pytest.raises(TrackingError, match="tensorboard does not support logging functions"):
        run.publish(load_function())
    assert list((project.root / "tensorboard").glob("**/*tfevents*"))


# -- many runs ---------------------------------------------------------------------------------------------


def test_one_failing_run_does_not_stop_the_rest(project: Project) -> None:
    """Of many runs those that cannot be published are named, with the reason, and all others are."""
    runs = [project.make(config={"lr": lr}) for lr in (0.1, 0.2, 0.1, 0.5)]
    layout.RunFiles(runs[2].save_dir).lock.write_text("status: [")
    done = CliRunner().invoke(command, [*(str(run.save_dir) for run in runs), "--with", "stage:sick"])
    assert done.exit_code == 1
    assert "published      1" in done.stdout
    assert "failed         3" in done.stdout
    assert "SystemExit: 3" in done.stdout
    assert "ValueError: too large" in done.stdout
    assert "not a readable lock" in done.stdout
    assert set(project.shown(*runs[:2])) == {run.id for run in runs[:2]}


ODD = """
class Odd:
    name = destination = "odd"

    def __init__(self, wishes):
        pass

    def identity(self):
        raise ZeroDivisionError("odd")

    def open(self, run, ref):
        raise AssertionError("never came here")
"""


def test_a_tracker_that_raises_anything_stops_nothing(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a class of the project's raises is told of each run, and its runs are published elsewhere all the same."""
    (project.root / "odd.py").write_text(ODD)
    monkeypatch.syspath_prepend(project.root)
    monkeypatch.setenv("RUNCTX_TRACKING", "odd:Odd,tensorboard")
    parent = project.make()
    told = call(parent.save_dir, project.make(parent).save_dir, code=1)
    assert [(one["tracker"], one["outcome"]) for one in told] == [
        ("odd", "failed"), ("tensorboard", "published"),
    ] * 2  # fmt: skip
    assert told[0]["error"] == "ZeroDivisionError: odd (odd.py:9, in identity)"


def test_stale_calls_only_what_was_not_called(project: Project) -> None:
    """With --stale a function is called for runs whose last call was another's, or that have changed, and no others."""
    runs = [project.make() for _ in range(3)]
    paths = [str(run.save_dir) for run in runs]
    first, second, third = (run.save_dir.name for run in runs)
    call(*paths[:2], "--with", "stage:log_run")
    assert outcomes(call(*paths, "--with", "stage:log_run", "--stale")) == {
        first: "unchanged",
        second: "unchanged",
        third: "published",
    }
    rewrite(runs[1], config={"lr": 7.0})
    told = outcomes(call(*paths, "--with", "stage:log_run", "--stale"))
    assert told == {first: "unchanged", second: "published", third: "unchanged"}
    (project.root / "stage.py").write_text(STAGE.replace("FACTOR = 2", "FACTOR = 3"))
    sys.modules.pop("stage")
    told = outcomes(call(*paths, "--with", "stage:log_run", "--stale"))
    assert set(told.values()) == {"published"}
    scores = {id: one["metrics"]["score"][-1][1] for id, one in project.shown(*runs).items()}
    assert scores == {run.id: load(run.save_dir).cfg.lr * 3 for run in runs}
    (project.root / "stage.py").write_text(STAGE)


def test_runs_are_chosen(project: Project) -> None:
    """Runs are named by folder, glob, id or expression, each is published once, the oldest first."""
    runs = [project.make(stage="chosen", config={"lr": float(number)}) for number in range(3)]
    names = [run.save_dir.name for run in runs]
    assert list(outcomes(call("results/chosen"))) == names
    assert list(outcomes(call("results/chos*", runs[0].id, f"{runs[0].save_dir}/model.txt"))) == names
    assert list(outcomes(call(runs[1].id))) == [names[1]]
    assert list(outcomes(call("results/chosen", "--where", "config.lr > 0.5"))) == names[1:]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing-there"], "is called 'nothing-there'"),
        (["results", "--with", "stage:nothing"], "no function 'nothing' in stage"),
        (["results", "--with", "stage"], "does not name a function"),
        (["results", "--where", "lr <"], ""),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is(
    project: Project, arguments: list[str], message: str
) -> None:
    """A run, a function or an expression that cannot be had ends the command before a run is published."""
    done = CliRunner().invoke(command, arguments)
    assert isinstance(done.exception, RunctxError)
    assert message in done.exception.message
    assert done.exception.hint


INTERRUPTED = """
import os, pathlib, signal, time

def in_the_middle():
    if pathlib.Path("twice").exists():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
    pathlib.Path("reached").touch()
    while not pathlib.Path("go").exists():
        time.sleep(0.01)
"""


@pytest.mark.parametrize("how", ["Ctrl-C", "Ctrl-C twice", "kill -9"])
def test_what_was_interrupted_goes_on(project: Project, tmp_path: Path, how: str) -> None:
    """Publishing that is interrupted in the middle, however, leaves nothing broken; the same command does the rest."""
    reached, go, twice = (project.root / name for name in ("reached", "go", "twice"))
    for mark in (reached, go, twice):
        mark.unlink(missing_ok=True)
    stage = f"interrupted-{how.replace(' ', '-')}"
    runs = [project.make(stage=stage, config={"lr": float(number)}) for number in range(8)]
    middle = "    if run.cfg.lr == 4.0:\n        in_the_middle()\n    import mlflow\n    mlflow.log_metric"
    (project.root / "stage.py").write_text(
        INTERRUPTED + STAGE.replace("    import mlflow\n    mlflow.log_metric", middle)
    )
    command = ["publish", f"results/{stage}", "--with", "stage:log_run", "--stale"]
    if how == "Ctrl-C twice":
        twice.touch()
    with runctx(project.root, *command, wait=False) as process:
        if how != "Ctrl-C twice":
            until(lambda: reached.exists() or process.poll() is not None, "the run in the middle")
            process.send_signal(signal.SIGKILL if how == "kill -9" else signal.SIGINT)
        if how == "Ctrl-C":
            go.touch()
        output, said = process.communicate(timeout=PATIENCE)
    go.touch()
    twice.unlink(missing_ok=True)
    assert process.returncode == (-signal.SIGKILL if how == "kill -9" else 130), said
    if how != "kill -9":
        assert "hint: the same command continues" in said
        assert f"published {5 if how == 'Ctrl-C' else 4:>6}" in output
    before = project.shown(*runs)
    assert set(before) == {run.id for run in runs[:5]}
    told = outcomes(call(*command[1:]))
    again = [run.save_dir.name for run in runs[5 if how == "Ctrl-C" else 4 :]]
    assert [name for name, outcome in told.items() if outcome == "published"] == again
    after = project.shown(*runs)
    for run in runs:
        assert after[run.id]["status"] == "FINISHED"
        assert [value for _, value, _ in after[run.id]["metrics"]["score"]] == [run.cfg.lr * 2]
        assert len(after[run.id]["metrics"]["loss"]) == POINTS
        assert {"notes/lr.txt", "table.json", "model.txt"} <= set(after[run.id]["files"])
    assert all(after[run.id] == before[run.id] for run in runs[:4])
    assert set(outcomes(call(*command[1:])).values()) == {"unchanged"}
    assert project.shown(*runs) == after
    (project.root / "stage.py").write_text(STAGE)


# -- from before runctx ------------------------------------------------------------------------------------


def old_folder(root: Path, name: str = "2024-01-31_12-30-00", config: str = "lr: 0.1\n") -> Path:
    folder = root / name
    (folder / "plots").mkdir(parents=True)
    (folder / "config.yaml").write_text(config)
    (folder / "model.txt").write_text("old")
    (folder / "plots/curve.txt").write_text("..")
    return folder


def test_a_folder_without_a_lock_is_published(project: Project, tmp_path: Path) -> None:
    """A folder from before runctx is shown with its configuration and files; nothing is written in it but `.runctx`."""
    folder = old_folder(project.root / "old")
    for _ in range(2):
        told = call(folder, "--with", "stage:log_run")
        run = record_of(folder)
        (shown,) = project.shown(run).values()
        assert told[0]["ref"] == shown["ref"]
        assert shown["params"] == {"lr": "0.1"}
        assert shown["tags"]["runctx.stage"] == "old"
        assert {"model.txt", "plots/curve.txt", "notes/lr.txt"} <= set(shown["files"])
        assert {entry.name for entry in folder.iterdir()} == {".runctx", "config.yaml", "model.txt", "plots"}
        assert (folder / ".runctx/.gitignore").read_text() == "*\n"  # git may hold the folder
    assert outcomes(call("old/*", "--with", "stage:log_run", "--stale")) == {folder.name: "unchanged"}
    moved = folder.rename(project.root / "old-moved")
    moved = shutil.copytree(
        moved, tmp_path / "elsewhere" / folder.name, ignore=shutil.ignore_patterns(".runctx")
    )
    assert record_of(moved).id == run.id


def test_an_old_folder_starts_when_its_name_says(tmp_path: Path) -> None:
    """The time in a folder's name is when it started, in local time; else that of its oldest file."""
    wanted = datetime(2024, 1, 31, 12, 30, 0).astimezone(UTC)
    names = (
        "2024-01-31_12-30-00",
        "240131-123000",
        "20240131-123000-2",
        "2024-01-31/12-30-00",
        "x-20240131_123000",
    )
    assert [record_of(old_folder(tmp_path, name)).started for name in names] == [wanted] * len(names)
    for name in ("no time", "99999999-999999", "241331-123000"):
        folder = old_folder(tmp_path, name)
        os.utime(folder / "model.txt", (1e9, 1e9))
        assert record_of(folder).started.timestamp() == 1e9


@pytest.mark.parametrize(
    "config",
    [
        "a: &a [x, x]\nb: [*a, *a]\n",
        "!!python/object/apply:os.system ['touch owned']",
        "- 1\n- 2\n",
        "a: [" * 200,
        "a: 1\na: 2\n",
        "x" * 2_000_000,
        "\x00",
    ],
)
def test_a_hostile_configuration_is_left_out(tmp_path: Path, config: str) -> None:
    """A configuration that is not plain YAML, or too large, is told as an omission; the rest is published."""
    run = record_of(old_folder(tmp_path, config=config))
    assert run.lock.config == {}
    assert "config.yaml" in [omission.what for omission in run.omissions]
    assert not (tmp_path / "owned").exists()


def test_secrets_of_an_old_folder_stay_there(project: Project) -> None:
    """What an old configuration holds under a secret key reaches MLflow in no form."""
    folder = old_folder(project.root / "secret", config="lr: 0.1\ndb_password: hunter22\n")
    for other in ("hparams.yaml", ".hydra/overrides.yaml"):
        (folder / other).parent.mkdir(exist_ok=True)
        (folder / other).write_text("- db_password=hunter22\n")
    call(folder)
    (shown,) = project.shown(record_of(folder)).values()
    assert "hunter22" not in repr(shown)
    assert "hparams.yaml" in shown["tags"]["runctx.not_copied"]


def test_old_folders_are_named(project: Project) -> None:
    """A folder without runs is published only when it is named, or has a configuration beside others that match."""
    old = project.root / "mixed"
    old_folder(old, "first")
    (old / "figures").mkdir()
    (old / "figures/a.txt").write_text("a")
    (old / "empty").mkdir()
    run = write_run(old, make_lock(77))
    assert set(outcomes(call("mixed/*"))) == {"first", run.name}
    assert set(outcomes(call("mixed/figures"))) == {"figures"}
    assert call("mixed/empty") == []
