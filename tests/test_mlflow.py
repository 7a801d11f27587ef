"""Does MLflow show a run as it is on disk, once, and again when it has changed?"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runctx import layout, lock
from runctx.errors import DeletedError, TrackingError
from runctx.metrics.journal import Journal
from runctx.model import Failure, Lock, Omission, Tasks
from runctx.past.index import load
from runctx.past.record import Record
from runctx.settings import Settings
from runctx.trackers.mlflow import MLflow, database, names
from runctx.trackers.mlflow import description as described
from runctx.trackers.mlflow.tracker import MLflowView
from runctx.trackers.mlflow.ui import Server
from runctx.trackers.publication import Publication

from .pastruns import ESCAPE, START, child_of, make_lock, write_run

# what MLflow uses of SQLAlchemy is deprecated there
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")

_numbers = iter(range(1, 10_000))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose name would be misread in an address; all tests share its database."""
    root = tmp_path_factory.mktemp("mlflow") / "my project #1 100% é"
    root.mkdir()
    return root


@pytest.fixture(scope="module")
def tracker(project: Path) -> MLflow:
    return MLflow(Settings(root=project, max_artifact_size=1000))


@pytest.fixture
def make(project: Path) -> Any:
    """Makes a past run, the next in number: `make(config={...})`."""

    def make(*parents: Lock, **changes: Any) -> Record:
        number = next(_numbers)
        one = child_of(number, *parents, **changes) if parents else make_lock(number, **changes)
        return load(write_run(project, one))

    return make


def a_database(tracker: MLflow, path: Path) -> str:
    """Its address; a copy, for to make one takes seconds."""
    assert tracker.experiment_id
    shutil.copy(tracker.database.file, path)
    return f"sqlite:///{path}"


def publish(run: Record, tracker: MLflow, function: Any = None) -> str:
    """As a command does it, in a process of its own: nothing is remembered but what lies on disk."""
    with Publication(run.save_dir, tracker).begun(load(run.save_dir)) as sending:
        sending.describe("")
        sending.send()
        if function is not None:
            sending.call(function, "")
    return sending.view.ref


def entity(tracker: MLflow, ref: str) -> Any:
    return tracker.database.client.get_run(ref)


def gone(tracker: MLflow, ref: str) -> None:
    """As `mlflow gc` does it."""
    tracker.database.client._tracking_client.store._hard_delete_run(ref)


def view_of(run: Record, tracker: MLflow) -> MLflowView:
    return tracker.open(run, Publication(run.save_dir, tracker).state().ref)


def files(tracker: MLflow, ref: str) -> dict[str, bytes]:
    """All that MLflow has of a run in its folder of files, but for what we keep there."""
    from mlflow.utils.file_utils import local_file_uri_to_path

    root = Path(local_file_uri_to_path(entity(tracker, ref).info.artifact_uri))
    found = {path.relative_to(root).as_posix(): path for path in root.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if name != "runctx.json"}


def everything(tracker: MLflow, ref: str) -> Any:
    """All that MLflow shows of a run, so that it can be compared."""
    from mlflow import MlflowClient

    run = entity(tracker, ref)
    client = MlflowClient(tracker.database.uri)
    rows = {
        name: sorted(
            repr((one.step, one.timestamp, one.value)) for one in client.get_metric_history(ref, name)
        )
        for name in run.data.metrics
    }
    return dict(run.info), run.data.params, run.data.tags, rows, files(tracker, ref)


# -- names -------------------------------------------------------------------------------------------------

_odd = st.text(st.sampled_from("_x5f3dl/. :-=\né\ud800") | st.characters(), max_size=30)
_long = st.text(st.sampled_from("_x3dfl/.=a"), min_size=200, max_size=400)


def _is_taken(name: str) -> bool:
    from mlflow.exceptions import MlflowException
    from mlflow.utils.validation import _validate_metric

    try:
        _validate_metric(name, 0.0, 0, 0)
    except MlflowException:
        return False
    return not name.endswith("\n")  # taken by accident: a pattern's `$`


@given(_odd | _long)
def test_names_come_back(name: str) -> None:
    """Any text is mapped to a name that MLflow takes, and comes back from it."""
    assert _is_taken(names.mapped(name))
    assert names.original(names.mapped(name), names.memo(name)) == name


@given(_odd | _long, _odd | _long)
def test_names_never_meet(one: str, other: str) -> None:
    """Two names are two in MLflow."""
    assert (names.mapped(one) == names.mapped(other)) == (one == other)


@given(_odd | st.text("abc/.- :_", max_size=20))
def test_names_that_mlflow_takes_stay(name: str) -> None:
    """Unless they look as if they had been mapped."""
    assert names.mapped(name) == name or "_x" in name or not _is_taken(name)


# -- where it is -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "variable", "wanted"),
    [
        ("", None, "sqlite:////p/mlflow.db"),
        ("sqlite:///a/b.db", None, "sqlite:////p/a/b.db"),
        ("sqlite:////a/b.db", "http://else", "sqlite:////a/b.db"),
        ("", "sqlite:///b.db", "sqlite:///{cwd}/b.db"),
        ("", "http://there:5000", "http://there:5000"),
        ("https://me:hunter22@there/x?token=abc&a=1", None, "https://there/x?token=%3Credacted%3E&a=1"),
        ("postgresql://me:hunter22@there/x", None, "postgresql://there/x"),
        ("postgresql://me:hunter/22?#@there/x", None, "postgresql://there/x"),
        ("postgresql://me:hun[ter22@there:1/x@y", None, "postgresql://there:1/x@y"),
        ("http://there:5000/x@y", None, "http://there:5000/x@y"),
        ("http://[:1", None, "http://[:1"),
        ("runs", None, "/p/runs"),
    ],
)
def test_destination(
    setting: str, variable: str | None, wanted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The setting, else MLflow's own variable, else a file in the project; absolute, and without credentials."""
    monkeypatch.chdir(tmp_path)
    if variable is not None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", variable)
    tracker = MLflow(Settings(root=Path("/p"), tracking_uri=setting))
    assert tracker.destination == wanted.format(cwd=tmp_path)


def test_nothing_is_loaded_before_a_run_is_opened() -> None:
    """To know where MLflow is takes no time."""
    code = (
        "import sys; from pathlib import Path; from runctx.settings import Settings;"
        "from runctx.trackers import tracker_of; tracker_of('mlflow', Settings(root=Path('/p'))).destination;"
        "sys.exit('mlflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


@pytest.mark.parametrize(
    ("uri", "wanted"),
    [
        ("sqlite:///notes.txt", "not a database"),
        ("sqlite:///folder", "folder"),
        ("sqlite:///notes.txt/x.db", "notes.txt"),
        ("sqlite://", "in memory"),
        ("sqlite:///:memory:", "in memory"),
        ("folder", "hint: "),
        ("nonsense://x", "hint: "),
        ("http://me:hunter22@127.0.0.1:9", "127.0.0.1:9"),
    ],
)
def test_destinations_that_are_none(uri: str, wanted: str, make: Any, tmp_path: Path) -> None:
    """What is wrong is said at once, with a hint and without credentials: a server that is gone, a file, a folder."""
    (tmp_path / "notes.txt").write_text("no database")
    (tmp_path / "folder").mkdir()
    with pytest.raises(TrackingError, match=wanted) as caught:
        MLflow(Settings(root=tmp_path, tracking_uri=uri)).open(make(), None)
    assert caught.value.hint
    assert "hunter22" not in str(caught.value)


ANSWERS = {
    "401": (401, "text/plain", b"You are not authenticated."),
    "401 as JSON": (401, "application/json", b'{"detail": "Not authenticated"}'),
    "403": (403, "text/html", b"<h1>403 Forbidden</h1>"),
    "403 of MLflow": (403, "application/json", b'{"error_code": "PERMISSION_DENIED", "message": "no"}'),
    "page": (200, "text/html; charset=utf-8", b"<form>Sign in</form>"),
    "redirect": (200, "text/html", b"<form>Sign in</form>"),
    "404": (404, "text/html", b"nothing here"),
    "not JSON": (200, "text/plain", b"hello"),
}


class _Answers(BaseHTTPRequestHandler):
    server: Any

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("content-length") or 0))
        status, kind, body = ANSWERS[self.server.way]
        if self.server.way == "redirect" and self.path != "/login":
            status, body = 302, b""
        self.send_response(status)
        self.send_header("location", "/login")
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.mark.parametrize("way", ANSWERS)
def test_a_server_that_asks_for_credentials_is_told(way: str, tmp_path: Path) -> None:
    """401, 403 and a page for people to log in get a hint about credentials; other answers do not."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Answers) as server:
        server.way = way  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        with pytest.raises(TrackingError) as caught:
            _ = MLflow(Settings(root=tmp_path, tracking_uri=address)).experiment_id
        server.shutdown()
    assert ("MLFLOW_TRACKING_TOKEN" in (caught.value.hint or "")) == (way not in ("404", "not JSON"))


def test_a_locked_database_is_told(make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever holds the file or our lock beside it, it is a clear error after a while."""
    monkeypatch.setattr(database, "_PATIENCE", 0.1)
    tracker = MLflow(Settings(root=tmp_path))
    other = sqlite3.connect(tmp_path / "mlflow.db")
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(TrackingError, match=r"locked(?s:.*)hint: another program"):
        tracker.open(make(), None)
    other.close()
    alone = MLflow(Settings(root=tmp_path)).database.alone()
    with alone, pytest.raises(TrackingError, match=r"hint: another program"):
        tracker.open(make(), None)


def test_a_database_that_is_gone_is_made_anew(tracker: MLflow, make: Any, tmp_path: Path) -> None:
    """Also by a process that had it open: what it writes does not go to a file that nobody sees."""
    a_database(tracker, tmp_path / "mlflow.db")
    tracker, run = MLflow(Settings(root=tmp_path)), make()
    first, identity = publish(run, tracker), tracker.identity()
    (tmp_path / "mlflow.db").unlink()
    second = publish(run, tracker)
    assert second != first
    assert tracker.identity() != identity
    with sqlite3.connect(tmp_path / "mlflow.db") as connection:
        assert connection.execute("SELECT run_uuid FROM runs").fetchall() == [(second,)]
    connection.close()


MAKERS = """
import os, signal, sys
from pathlib import Path
from runctx.settings import Settings
from runctx.trackers.mlflow import MLflow
import mlflow
from sqlalchemy import event
from sqlalchemy.engine import Engine
root, *moments = sys.argv[1:]
for moment in map(int, moments):
    pid = os.fork()
    if not pid:
        left = iter(range(moment))
        @event.listens_for(Engine, "before_cursor_execute")
        def count(*arguments):
            if next(left, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)
        MLflow(Settings(root=Path(root))).experiment_id
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL, moment
    assert not Path(root, "mlflow.db").exists()
MLflow(Settings(root=Path(root))).experiment_id
"""
"""Kills processes that make a database, each before a statement of another number; the last one makes it."""


def test_a_kill_while_a_database_is_made_leaves_none(tmp_path: Path) -> None:
    """Whenever it comes; the next process makes it, with the rights that the user's mask leaves to the group."""
    moments = map(str, (0, 1, 20, 60, 150, 250, 300))
    command = [sys.executable, "-c", MAKERS, os.fspath(tmp_path), *moments]
    done = subprocess.run(command, timeout=300, capture_output=True, text=True, umask=0o002)
    assert done.returncode == 0, done.stderr
    modes = {file.name: oct(file.stat().st_mode & 0o777) for file in tmp_path.iterdir()}
    assert modes == {"mlflow.db": "0o664", "mlflow.db.lock": "0o664"}


def test_a_database_that_was_half_made_is_made_anew(tmp_path: Path) -> None:
    """MLflow can neither use nor complete it, and nothing is in it."""
    with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db")) as connection:
        connection.executescript(
            "CREATE TABLE experiments (id INTEGER); CREATE TABLE alembic_version (version_num TEXT);"
            "INSERT INTO alembic_version VALUES ('451aebb31d03')"
        )
    assert MLflow(Settings(root=tmp_path)).experiment_id == "1"
    assert not list(tmp_path.glob("*.new*"))


def test_a_database_of_something_else_stays(tmp_path: Path) -> None:
    """It has rows, though none of MLflow's."""
    with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db")) as connection:
        connection.execute("CREATE TABLE mine AS SELECT 42 AS answer")
    assert MLflow(Settings(root=tmp_path)).experiment_id == "1"
    with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db")) as connection:
        assert connection.execute("SELECT answer FROM mine").fetchone() == (42,)


def test_a_path_that_is_quoted_in_an_address(make: Any, tmp_path: Path) -> None:
    """Database and files lie in the project, whatever it is called, and nothing lies beside it."""
    root = tmp_path / "q?x a%20b%3F"
    root.mkdir()
    run = make(config={"lr": 0.5})
    tracker = MLflow(Settings(root=root))
    assert files(tracker, publish(run, tracker)).keys() == {"config.yaml", "run.lock"}
    assert [path.name for path in tmp_path.iterdir()] == [root.name]
    assert {path.name for path in root.iterdir()} == {"mlflow.db", "mlflow.db.lock", "mlruns"}


def test_a_path_that_is_too_long_is_told(tmp_path: Path) -> None:
    """SQLite cannot open it: the error says why, and nothing of a database is made."""
    root = tmp_path.joinpath(*["x" * 199] * 5)
    root.mkdir(parents=True)
    with pytest.raises(TrackingError, match=r"bytes; SQLite opens at most 500\nhint: .*`tracking_uri`"):
        _ = MLflow(Settings(root=root)).experiment_id
    assert not (root / "mlflow.db").exists()


def test_experiments(make: Any, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Named by the setting, MLflow's variable, or the project; files lie in the project; a deleted one is told."""
    assert MLflow(Settings(root=project)).experiment == project.name
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "other")
    assert MLflow(Settings(root=project)).experiment == "other"
    tracker = MLflow(Settings(root=project, experiment="a/b: c"))
    publish(make(), tracker)
    found = tracker.database.client.get_experiment_by_name("a/b: c")
    assert (project / "mlruns").as_uri() in found.artifact_location
    tracker.database.client.delete_experiment(found.experiment_id)
    with pytest.raises(TrackingError, match="was deleted"):
        publish(make(), MLflow(Settings(root=project, experiment="a/b: c")))


# -- one run for ever --------------------------------------------------------------------------------------


def test_one_run_for_ever(tracker: MLflow, make: Any) -> None:
    """However often it is opened, and whether what is known of it was lost, or it was deleted and restored."""
    run = make(config={"lr": 0.5})
    first = publish(run, tracker)
    assert publish(run, tracker) == first
    assert not view_of(run, tracker).fresh
    lost = tracker.open(run, None)
    assert (lost.ref, lost.fresh) == (first, True)
    assert tracker.open(run, "no such run").ref == first
    tracker.database.client.delete_run(first)
    for known in (first, None):
        with pytest.raises(DeletedError, match="was deleted there\nhint: `runctx publish") as caught:
            tracker.open(run, known)
        assert caught.value.ref == first
    assert tracker.is_missing(first)
    tracker.restore(first)
    assert view_of(run, tracker).ref == first
    assert entity(tracker, first).info.lifecycle_stage == "active"
    gone(tracker, first)
    again = tracker.open(run, first)
    assert again.fresh and again.ref != first


def test_odd_ids_are_found_again(tracker: MLflow, make: Any) -> None:
    """An id that a broken or hostile lock has is an id, and no query."""
    for id in ("' OR 1=1 --", '"`\\', "x" * 300, "é\n"):
        run = make(id=id)
        assert tracker.open(run, None).ref == tracker.open(run, None).ref


# -- described ---------------------------------------------------------------------------------------------


def test_described(tracker: MLflow, make: Any) -> None:
    """Name, status, times, parameters, code, what went wrong, and tasks."""
    run = make(
        status="failed",
        config={"lr": 0.1, "opt": {"name": "sgd", "betas": [0.9, None]}, "f": True, "n": None, "f1@": ""},
        seed=7,
        error=Failure(type="builtins.ValueError", message="no", traceback=""),
        tasks=(Tasks(name="main", function="m.main", launcher="joblib", total=3, done=2, failed=1),),
        omissions=(Omission(what="x", why="y"),),
    )
    found = entity(tracker, publish(run, tracker))
    assert found.data.params == {
        "lr": "0.1",
        "opt.name": "sgd",
        "opt.betas": "[0.9, null]",
        "f": "true",
        "n": "null",
        "f1_x40_": "",
    }
    info, tags, begun = found.info, found.data.tags, int(run.started.timestamp() * 1000)
    assert (info.run_name, info.status, info.start_time, info.end_time) == (
        run.id,
        "FAILED",
        begun,
        begun + 1500,
    )
    assert tags["runctx.status"] == "failed"
    assert tags["mlflow.source.git.commit"] == tags["runctx.commit"] == run.commit
    assert tags["mlflow.user"] == info.user_id == "ada"
    assert (tags["runctx.seed"], tags["runctx.dirty"], tags["runctx.omissions"]) == ("7", "true", "1")
    assert tags["runctx.error"] == "builtins.ValueError: no"
    assert tags["runctx.tasks"] == "main: 2 of 3 done, 1 failed"
    note = tags[described.NOTE]
    assert note.startswith("**failed** after 1.5 s")
    assert "`builtins.ValueError: no`" in note and "`train.py`" in note


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ("done", "FINISHED"),
        ("failed", "FAILED"),
        ("interrupted", "KILLED"),
        ("submitted", "RUNNING"),
        ("running", "KILLED"),  # its process is gone: it has crashed
    ],
)
def test_statuses(said: str, wanted: str, tracker: MLflow, make: Any) -> None:
    """Each of ours is one of MLflow's."""
    command = replace(make_lock().command, host=os.uname().nodename, pid=2**22 + 1)
    assert entity(tracker, publish(make(status=said, command=command), tracker)).info.status == wanted


def test_what_has_changed_is_updated(tracker: MLflow, make: Any) -> None:
    """A run that was resumed goes on; what MLflow cannot change is told by a tag, as long as it is so."""
    run = make(config={"lr": 0.1, "gone": 1}, seed=3)
    ref = publish(run, tracker)
    resumed = replace(
        run.lock,
        status="submitted",
        resumed=START + timedelta(days=1),
        config={"lr": 0.2, "new": 5},
        seed=None,
    )
    lock.write(layout.RunFiles(run.save_dir).lock, resumed)
    assert publish(run, tracker) == ref
    found = entity(tracker, ref)
    assert found.info.status == "RUNNING"
    assert found.data.params == {"lr": "0.1", "gone": "1", "new": "5"}
    assert found.data.tags["runctx.changed.lr"] == "0.2"
    assert found.data.tags["runctx.changed.gone"] == "no longer set"
    assert "runctx.seed" not in found.data.tags
    lock.write(layout.RunFiles(run.save_dir).lock, replace(resumed, status="done", config=run.lock.config))
    publish(run, tracker)
    found = entity(tracker, ref)
    assert found.info.end_time == int((START + timedelta(days=1, seconds=1.5)).timestamp() * 1000)
    assert {key for key in found.data.tags if key.startswith("runctx.changed.")} == {"runctx.changed.new"}


def test_limits_are_kept(tracker: MLflow, make: Any) -> None:
    """Long values are files, keys and texts of any length and kind are taken, and nothing is Markdown."""
    run = make(
        config={
            "long": "x" * 7000,
            "k" * 400: 1,
            "nul": "\0" * 4000,
            ESCAPE: ESCAPE,
            "many": {str(i): i for i in range(250)},
        },
        error=Failure(type="E", message=f"`{ESCAPE}` [x](javascript:y)\n# {'z' * 9000}", traceback=""),
        omissions=tuple(Omission(what="w" * 300, why="y" * 300) for _ in range(100)),
        stage="`<b>x</b>",
    )
    ref = publish(run, tracker)
    before = everything(tracker, ref)
    found = entity(tracker, ref)
    assert json.loads(files(tracker, ref)["long_values.json"]) == {"long": "x" * 7000, "nul": "\\0" * 4000}
    assert "7000 characters, see long_values.json" in found.data.params["long"]
    assert found.data.params[names.mapped("k" * 400)] == "1"
    assert len(found.data.params) == 254
    assert all(len(value) <= 8000 for value in found.data.tags.values())
    outside = found.data.tags[described.NOTE].split("`")[::2]  # what is no code
    assert not any(part in "".join(outside) for part in ("<", "javascript", "#", "\x1b"))
    publish(run, tracker)
    assert everything(tracker, ref) == before


def test_lineage(tracker: MLflow, make: Any) -> None:
    """A child is below its first parent, names all, and each of them names it, by their pages."""
    one, two = make(), make()
    refs = publish(one, tracker), publish(two, tracker)
    child = make(one.lock, two.lock)
    ref = publish(child, tracker)
    found = entity(tracker, ref)
    assert found.data.tags["mlflow.parentRunId"] == refs[0]
    for parent, its in zip((one, two), refs, strict=True):
        page = described.page(found.info.experiment_id, its)
        assert found.data.tags[f"runctx.parent.{parent.id}"] == page
        assert f"[`{parent.id}`]({page})" in found.data.tags[described.NOTE]
        own = described.page(found.info.experiment_id, ref)
        assert f"[`{child.id}`]({own})" in entity(tracker, its).data.tags[described.NOTE]


def test_lineage_of_what_is_not_there(tracker: MLflow, make: Any) -> None:
    """A parent without a view, or with one that is gone, is named without a link."""
    parent = make()
    child = make(parent.lock)
    found = entity(tracker, publish(child, tracker))
    assert found.data.tags[f"runctx.parent.{parent.id}"] == "not published"
    assert f"`{parent.id}`" in found.data.tags[described.NOTE]
    gone(tracker, publish(parent, tracker))
    publish(child, tracker)
    again = publish(parent, tracker)
    publish(child, tracker)
    assert entity(tracker, view_of(child, tracker).ref).data.tags["mlflow.parentRunId"] == again


def test_many_children(tracker: MLflow, make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page names some of them: all are below it in any case."""
    monkeypatch.setattr(described, "_LISTED", 3)
    parent = make()
    ref = publish(parent, tracker)
    for _ in range(5):
        publish(make(parent.lock), tracker)
    tags = entity(tracker, ref).data.tags
    assert sum(key.startswith(described.CHILD) for key in tags) == 3
    assert tags[described.NOTE].count("](#/experiments/") == 3


# -- files -------------------------------------------------------------------------------------------------


def test_files(tracker: MLflow, make: Any, tmp_path: Path) -> None:
    """Lock, log, configuration and small outputs; no secrets, nothing from elsewhere, nothing of our state."""
    (tmp_path / "outside.txt").write_text("outside")
    run = make(config={"lr": "a ${b}"})
    folder = run.save_dir
    (folder / "run.log").write_text("log")
    (folder / "outputs.b3").symlink_to(tmp_path / "outside.txt")
    (folder / "sub/deep").mkdir(parents=True)
    (folder / "sub/deep/small é.txt").write_text("small")
    (folder / "large.bin").write_bytes(b"x" * 1001)
    (folder / ".env").write_text("SECRET=1")
    (folder / "sub/id_rsa").write_text("secret")
    (folder / "link").symlink_to(tmp_path / "outside.txt")
    (folder / "folder").symlink_to(tmp_path)
    (folder / "inside").symlink_to("sub/deep/small é.txt")
    (folder / "runctx.json").write_text("{}")
    (folder / "new\nline").write_text("odd")
    os.mkfifo(folder / "pipe")
    (folder / ".runctx/x").parent.mkdir(exist_ok=True)
    (folder / ".runctx/x").write_text("state")
    ref = publish(run, tracker)
    found = files(tracker, ref)
    assert set(found) == {"run.lock", "run.log", "config.yaml", "sub/deep/small é.txt", "inside"}
    assert found["run.lock"] == layout.RunFiles(folder).lock.read_bytes()
    assert found["config.yaml"] == b"lr: a \\${b}\n"
    left = entity(tracker, ref).data.tags["runctx.not_copied"]
    assert "large.bin" in left and ".env" in left and left.startswith("5 outputs")


def test_files_that_change(tracker: MLflow, make: Any) -> None:
    """What has changed is copied again, what was deleted goes, what others have put there stays."""
    from mlflow import MlflowClient

    run = make()
    for name in ("same", "other", "gone"):
        (run.save_dir / name).write_text(name)
    ref = publish(run, tracker)
    MlflowClient(tracker.database.uri).log_text(ref, "mine", "mine.txt")
    (run.save_dir / "other").write_text("changed")
    (run.save_dir / "gone").unlink()
    publish(run, tracker)
    found = files(tracker, ref)
    assert (found["same"], found["other"], found["mine.txt"]) == (b"same", b"changed", b"mine")
    assert "gone" not in found


def test_all_files_together_are_bounded(tracker: MLflow, make: Any) -> None:
    """The smallest come first, up to ten times the limit of one."""
    run = make()
    for number in range(15):
        (run.save_dir / f"{number:02}").write_bytes(b"x" * 900)
    found = files(tracker, publish(run, tracker))
    assert sum(name.isdigit() for name in found) == 11


# -- the user's own logging --------------------------------------------------------------------------------


def test_a_logging_function(tracker: MLflow, make: Any) -> None:
    """MLflow's plain functions write into the run; called again, nothing changes; its status stays."""
    import mlflow

    def function(run: Record, value: float = 0.9) -> None:
        mlflow.log_metric("acc", value)
        mlflow.log_metrics({"nan": float("nan"), "inf": float("inf")}, step=3)
        for step, loss in enumerate((3.0, 2.0, value)):
            mlflow.log_metric("loss", loss, step=step)
            mlflow.log_metric("twice", loss, step=1)
        mlflow.log_metric("later", value, synchronous=False)
        mlflow.log_param("mine", "x")
        mlflow.log_params({"lr": "0.5"})  # as it is already
        mlflow.set_tag("note", f"{value}")
        mlflow.log_text(f"{value} of {run.id}", "texts/a.txt")
        mlflow.log_dict({"a": value}, "a.json")
        mlflow.log_table({"x": [1, 2]}, "table.json")
        mlflow.log_table({"x": [3]}, "table.json")
        assert mlflow.active_run().info.run_id == view.ref

    run = make(config={"lr": 0.5})
    view = view_of(run, tracker)
    ref = publish(run, tracker, function)
    found = entity(tracker, ref)
    assert found.info.status == "FINISHED"
    assert (found.data.metrics["acc"], found.data.metrics["loss"], found.data.metrics["later"]) == (
        0.9,
        0.9,
        0.9,
    )
    assert (found.data.params["mine"], found.data.tags["note"]) == ("x", "0.9")
    assert {"texts/a.txt", "a.json", "table.json"} < files(tracker, ref).keys()
    before = everything(tracker, ref)
    assert publish(run, tracker, function) == ref
    assert everything(tracker, ref) == before
    publish(run, tracker, functools.partial(function, value=0.7))
    found = entity(tracker, ref)
    assert (found.data.metrics["acc"], found.data.metrics["twice"], found.data.tags["note"]) == (
        0.7,
        0.7,
        "0.7",
    )
    assert files(tracker, ref)["a.json"] == b'{\n  "a": 0.7\n}'


def test_another_logging_function_replaces_the_first(tracker: MLflow, make: Any) -> None:
    """Files and tags of the first go, what it had changed comes back; what is the run's own stays."""
    import mlflow

    def first(run: Record) -> None:
        mlflow.log_text("x", "mine/x.txt")
        mlflow.set_tags({"mine": "1", described.NOTE: "my own page"})

    run = make()
    (run.save_dir / "model").write_text("m")
    ref = publish(run, tracker)
    before = everything(tracker, ref)
    publish(run, tracker, first)
    assert entity(tracker, ref).data.tags[described.NOTE] == "my own page"
    publish(run, tracker, lambda run: None)
    assert everything(tracker, ref) == before


@pytest.mark.parametrize("fails", [False, True])
def test_runs_that_a_logging_function_begins_are_replaced(tracker: MLflow, make: Any, fails: bool) -> None:
    """However often it is called, there are those of its last call; none, if that failed."""
    import mlflow

    def folds(run: Record) -> None:
        for fold in range(2):
            with mlflow.start_run(nested=True):
                mlflow.log_metric("fold", fold)

    def half(run: Record) -> None:
        folds(run)
        raise ValueError("half")

    def begun() -> list[float]:
        found = tracker.database.client.search_runs(
            [tracker.experiment_id], f"tags.mlflow.parentRunId = '{ref}'"
        )
        return sorted(one.data.metrics["fold"] for one in found)

    run = make()
    ref = publish(run, tracker, folds)
    assert begun() == [0, 1]
    if fails:
        with pytest.raises(ValueError, match="half"):
            publish(run, tracker, half)
        assert begun() == []
    else:
        publish(run, tracker, folds)
        assert begun() == [0, 1]


def test_a_logging_function_that_fails(tracker: MLflow, make: Any) -> None:
    """Its exception comes out, and the run is as it was described: no number, parameter, tag or file of it is left."""
    import mlflow

    def function(run: Record) -> None:
        mlflow.log_metric("a", 1)
        mlflow.log_param("b", 2)
        mlflow.log_text("c", "c.txt")
        mlflow.set_tags({"d": "4", described.NOTE: "mine"})
        mlflow.end_run()
        raise KeyboardInterrupt

    run = make()
    ref = publish(run, tracker)
    before = everything(tracker, ref)
    with pytest.raises(KeyboardInterrupt):
        publish(run, tracker, function)
    assert everything(tracker, ref) == before
    assert mlflow.active_run() is None


KILLED = """
import os, sys
from pathlib import Path
from runctx.past.index import load
from runctx.settings import Settings
from runctx.trackers.mlflow import MLflow
def function(run):
    import mlflow
    mlflow.log_metric("a", 1)
    mlflow.set_tag("d", "4")
    mlflow.log_text("c", "c.txt")
    with mlflow.start_run(nested=True):
        os.kill(os.getpid(), 9)
run = load(sys.argv[2])
MLflow(Settings(root=Path(sys.argv[1]), max_artifact_size=1000)).open(run, None).call(function, run)
"""


def test_a_logging_function_that_is_killed(tracker: MLflow, make: Any, project: Path) -> None:
    """What it had left is undone when the run is described next."""
    run = make()
    ref = publish(run, tracker)
    before = everything(tracker, ref)
    done = subprocess.run([sys.executable, "-c", KILLED, project, run.save_dir], timeout=300)
    assert done.returncode == -signal.SIGKILL
    assert entity(tracker, ref).data.tags["d"] == "4"
    assert len(begun := view_of(run, tracker).entity.begun_runs()) == 1
    publish(run, tracker)
    assert everything(tracker, ref) == before
    assert entity(tracker, begun[0]).info.lifecycle_stage == "deleted"


def test_mistakes_in_a_logging_function(tracker: MLflow, make: Any) -> None:
    """A parameter that would change says what to do; what MLflow does not take fails where it is logged."""
    import mlflow

    seen = []

    def function(run: Record) -> None:
        with pytest.raises(TrackingError, match=r"'lr' is already '0.5' in MLflow(?s:.*)mlflow.set_tag"):
            mlflow.log_param("lr", 3)
        with pytest.raises(mlflow.MlflowException):
            mlflow.log_metric("a=b", 3)
        seen.append(run.id)

    publish(run := make(config={"lr": 0.5}), tracker, function)
    assert seen == [run.id]


def test_a_logging_function_leaves_the_users_mlflow_alone(
    tracker: MLflow, make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Her server, experiment and active run are as they were, and so is what another thread logs meanwhile."""
    import mlflow
    from mlflow.tracking import fluent

    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "")
    monkeypatch.setattr(fluent, "_active_experiment_id", None)
    uri = a_database(tracker, tmp_path / "mine.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)  # first, for MLflow sets it as well, for ever
    mlflow.set_tracking_uri(uri)
    client, begun, go_on = mlflow.MlflowClient(uri), threading.Event(), threading.Event()

    def elsewhere() -> None:
        begun.wait(60)
        client.log_metric(outer.info.run_id, "elsewhere", 1.0)
        go_on.set()

    def function(run: Record) -> None:
        assert mlflow.get_tracking_uri() == tracker.database.uri
        begun.set()
        assert go_on.wait(60)
        mlflow.log_metric("inner", 1)
        with mlflow.start_run(nested=True):
            mlflow.log_metric("nested", 1)

    try:
        with mlflow.start_run(experiment_id="0") as outer:
            thread = threading.Thread(target=elsewhere)
            thread.start()
            ref = publish(make(), tracker, function)
            thread.join()
            mlflow.log_metric("outer", 1)
            assert mlflow.active_run() is outer
        assert (mlflow.get_tracking_uri(), os.environ["MLFLOW_TRACKING_URI"]) == (uri, uri)
        assert client.get_run(outer.info.run_id).data.metrics == {"outer": 1, "elsewhere": 1}
        assert entity(tracker, ref).data.metrics == {"inner": 1}
        assert fluent._active_experiment_id is None
    finally:
        mlflow.set_tracking_uri(None)


# -- over a server -----------------------------------------------------------------------------------------


def test_over_a_server(tracker: MLflow, make: Any, tmp_path: Path) -> None:
    """Numbers, files, the user's logging and all else, once and again; when it is gone, that is told."""
    import mlflow

    def function(run: Record) -> None:
        mlflow.log_metric("acc", 0.9)
        mlflow.log_text("text", "folder/text.txt")
        mlflow.log_table({"x": [1]}, "table.json")
        mlflow.set_tag("mine", "1")

    def seen() -> Any:
        def walk(folder: str | None) -> Iterator[str]:
            for one in client.list_artifacts(ref, folder):
                yield from walk(one.path) if one.is_dir else (one.path,)

        found = client.get_run(ref)
        rows = {name: len(client.get_metric_history(ref, name)) for name in found.data.metrics}
        return dict(found.info), found.data.params, found.data.tags, rows, sorted(walk(None))

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    run = make(config={"lr": 0.5})
    (run.save_dir / "sub").mkdir()
    (run.save_dir / "sub/a b%20é.txt").write_text("output")
    (run.save_dir / "sub/a b é.txt").write_text("output")
    log = Journal(run.save_dir / layout.METRICS, lose=pytest.fail)
    for value in (0.5, float("nan"), float("-inf")):
        log.append({"f1@0.5": value, "loss": 1})
    with Server(a_database(tracker, tmp_path / "server.db"), tmp_path / "artifacts", port) as server:
        server.wait()
        tracker = MLflow(Settings(root=tmp_path, tracking_uri=server.address))
        client = mlflow.MlflowClient(server.address)
        ref = publish(run, tracker, function)
        before = seen()
        assert before[2]["mine"] == "1"
        assert before[3] == {"f1_x40_0.5": 3, "loss": 3, "acc": 1}
        assert before[4] == [
            "config.yaml",
            "folder/text.txt",
            "run.lock",
            "runctx.json",
            "sub/a b é.txt",
            "table.json",
        ]
        assert publish(run, tracker, function) == ref
        assert seen() == before
        assert tracker.open(run, None).ref == ref
        client.delete_run(ref)
        fresh = MLflow(Settings(root=tmp_path, tracking_uri=server.address))
        assert fresh.is_missing(ref) and not fresh.is_missing("another")
        fresh.restore(ref)
        assert tracker.open(run, ref).ref == ref
        (run.save_dir / "sub/a b é.txt").unlink()
        publish(run, tracker)
        assert "sub/a b é.txt" not in seen()[4]
    with pytest.raises(TrackingError, match="hint: check that the server runs"):
        publish(run, tracker)
