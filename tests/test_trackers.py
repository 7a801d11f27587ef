"""Every tracker keeps the contract; what TensorBoard reads is what was logged."""

from __future__ import annotations

import json
import math
import os
import re
import socket
import subprocess
import sys
import textwrap
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from runctx import Run, settings
from runctx.errors import SettingsError, TrackingError
from runctx.metrics.follower import Number
from runctx.past.record import Record
from runctx.settings import Settings
from runctx.testing import TrackerContract
from runctx.trackers import Tracker, tracker_of
from runctx.trackers.mlflow import MLflow
from runctx.trackers.publication import Publication
from runctx.trackers.tensorboard import TensorBoard

# -- TensorBoard -------------------------------------------------------------------------------------------


class TestTensorBoard(TrackerContract):
    def tracker(self, root: Path) -> TensorBoard:
        return TensorBoard(Settings(root=root))

    def unreachable(self, root: Path) -> Tracker:
        (root / "occupied").touch()
        return TensorBoard(Settings(root=root / "occupied"))

    def numbers(self, tracker: Tracker, ref: str) -> Iterable[Number]:
        return [
            Number(value.tag, value.tensor.float_val[0], event.step, round(event.wall_time * 1000))
            for event, value in summaries(tracker, ref)
            if value.metadata.plugin_data.plugin_name == "scalars"
        ]

    def described(self, tracker: Tracker, ref: str) -> Any:
        return sorted(
            (value.tag, str(value))
            for _, value in summaries(tracker, ref)
            if value.metadata.plugin_data.plugin_name != "scalars"
        )


def summaries(tracker: Tracker, ref: str) -> Iterator[tuple[Any, Any]]:
    """What TensorBoard's own reader finds in the folder that holds the file of `ref`."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    (numbers,) = Path(tracker.destination).glob(f"*/{ref.partition(':')[0]}")
    for path in sorted(numbers.parent.glob("*tfevents*")):
        for event in EventFileLoader(os.fspath(path)).Load():
            for value in event.summary.value:
                yield event, value


@pytest.fixture
def logged(tmp_path: Path) -> Record:
    """A run with forty numbers of two metrics."""
    with Run({"lr": 0.5}, stage="fit", save_dir=tmp_path / "fit", console=False) as run:
        for step in range(20):
            run.log_async(loss=1 / (step + 1), acc=step / 20, step=step)
    return Run.load(run.save_dir)


def published(run: Record, tracker: Tracker) -> str:
    with Publication(run.save_dir, tracker).begun(run) as sending:
        sending.describe("")
        sending.send()
    return sending.view.ref


def test_tensorboard_starts_over_where_the_file_is_not_what_was_kept(logged: Record, tmp_path: Path) -> None:
    """Cut, longer, gone, a pipe or a link: a new file is written from the journals, and nothing else is touched."""
    tracker = TensorBoard(Settings(root=tmp_path))
    precious = tmp_path / "precious"
    precious.write_text("x" * 10_000)
    wanted = TestTensorBoard().numbers(tracker, published(logged, tracker))

    def piped(file: Path) -> None:
        file.unlink()
        os.mkfifo(file)

    def linked(file: Path) -> None:
        file.unlink()
        file.symlink_to(precious)

    def resized(size: int) -> Callable[[Path], None]:
        return lambda file: os.truncate(file, size)

    sizes = (0, 10, 60, 1000, 5000)
    for damage in (Path.unlink, piped, linked, *map(resized, sizes)):
        (file,) = (tmp_path / "tensorboard").glob("*/*.numbers.runctx")
        damage(file)
        with Publication(logged.save_dir, tracker).begun(logged) as sending:
            assert sending.view.fresh and sending.send() == 40
        assert TestTensorBoard().numbers(tracker, sending.view.ref) == wanted
        assert len(list(file.parent.glob("*.numbers.runctx"))) == 1
    assert precious.read_text() == "x" * 10_000


def test_numbers_are_put_in_the_order_of_their_steps(tmp_path: Path) -> None:
    """Once the run has ended, for TensorBoard forgets later steps when an earlier one comes; nothing is sent again."""
    tracker = TensorBoard(Settings(root=tmp_path))
    with Run(stage="map", save_dir=tmp_path / "map", console=False) as run:
        for step in (4, 2, 0, 5, 3, 1):
            run.log_async(acc=step / 8, step=step)
            published(Run.load(run.save_dir), tracker)
    ended = Run.load(run.save_dir)
    for _ in range(2):
        found = TestTensorBoard().numbers(tracker, published(ended, tracker))
        assert [(one.step, one.value) for one in found] == [(step, step / 8) for step in range(6)]
        with Publication(run.save_dir, tracker).begun(ended) as sending:
            assert not sending.view.fresh and sending.send() == 0


def test_an_interrupted_rearrangement_starts_over(logged: Record, tmp_path: Path) -> None:
    """Whoever is killed before the new file's name is kept leaves a view that is built again."""
    tracker = TensorBoard(Settings(root=tmp_path))
    numbers = [Number("acc", step / 8, step, 1000 + step) for step in (3, 1, 2)]
    view = tracker.open(logged, None)
    for number in numbers:
        view.log([number])
    kept = view.ref
    view.close()
    assert view.ref != kept
    again = TensorBoard(Settings(root=tmp_path)).open(logged, kept)
    assert again.fresh
    again.log(numbers)
    again.close()
    assert [one.step for one in TestTensorBoard().numbers(tracker, again.ref)] == [1, 2, 3]


@pytest.mark.parametrize("id", ["../../escaped", "/etc/x", ".", "", "a\0b", "n" * 5000, "µ" * 90, "\ud800"])
def test_no_run_escapes_the_folder(logged: Record, tmp_path: Path, id: str) -> None:
    """An id is what somebody's lock says."""
    import dataclasses

    hostile = Record(logged.save_dir, dataclasses.replace(logged.lock, id=id))
    tracker = TensorBoard(Settings(root=tmp_path / "project"))
    tracker.open(hostile, None).close()
    (folder,) = (path for path in Path(tracker.destination).iterdir())
    assert folder.resolve().parent == Path(tracker.destination)
    assert [path.name for path in (tmp_path / "project").iterdir()] == ["tensorboard"]


def test_a_full_disk_spoils_nothing(logged: Record, tmp_path: Path) -> None:
    """Whoever goes on after half a record writes a new file."""
    import resource

    tracker = TensorBoard(Settings(root=tmp_path))
    numbers = [Number("loss", step / 8, step, 1000 + step) for step in range(100)]
    view = tracker.open(logged, None)
    view.log(numbers[:50])
    size = int(view.ref.partition(":")[2])
    child = os.fork()
    if not child:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, size + 100))
        try:
            view.log(numbers[50:])
        except TrackingError:
            os._exit(0 if int(view.ref.partition(":")[2]) == size else 2)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    view = tracker.open(logged, view.ref)
    assert view.fresh
    view.log(numbers)
    view.close()
    assert TestTensorBoard().numbers(tracker, view.ref) == numbers


def test_the_identity_is_that_of_the_folder(tmp_path: Path) -> None:
    """The same for everybody; another one when the folder was removed."""
    tracker = TensorBoard(Settings(root=tmp_path))
    first = tracker.identity()
    assert TensorBoard(Settings(root=tmp_path)).identity() == first
    (tmp_path / "tensorboard/.runctx").unlink()
    assert tracker.identity() != first
    (tmp_path / "file").touch()
    with pytest.raises(TrackingError):
        TensorBoard(Settings(root=tmp_path / "file")).identity()


def test_without_tensorboard_it_is_said(tmp_path: Path, logged: Record) -> None:
    """With what to install; the project's runs are not concerned."""
    program = f"""
        import sys
        sys.modules["tensorboard"] = None
        from pathlib import Path
        from runctx import Run
        from runctx.settings import Settings
        from runctx.trackers import tracker_of
        tracker = tracker_of("tensorboard", Settings(root=Path({str(tmp_path)!r})))
        try:
            tracker.open(Run.load({str(logged.save_dir)!r}), None)
        except Exception as error:
            print(type(error).__name__, error.hint)
    """
    told = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, cwd=tmp_path
    )
    assert told.stdout == "TrackingError pip install 'runctx[tensorboard]'\n", told.stderr


@pytest.fixture
def serve() -> Iterator[Callable[[Path], Callable[..., Any]]]:
    """Starts TensorBoard for a folder, on loopback; asks its pages for JSON."""
    begun: list[subprocess.Popen[bytes]] = []

    def start(folder: Path) -> Callable[..., Any]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [sys.executable, "-m", "tensorboard.main", "--logdir", os.fspath(folder)]
        more = ["--host", "127.0.0.1", "--port", str(port), "--reload_interval", "1"]
        log = folder.parent / "tensorboard.log"
        with log.open("wb") as stream:
            begun.append(
                subprocess.Popen([*command, *more], stdout=stream, stderr=stream, start_new_session=True)
            )

        def ask(page: str, **query: str) -> Any:
            where = f"http://127.0.0.1:{port}/data/plugin/{page}?{urllib.parse.urlencode(query)}"
            with urllib.request.urlopen(where, timeout=60) as answer:
                return json.load(answer)

        def until(wanted: Callable[[Any], bool], page: str, **query: str) -> Any:
            limit = time.monotonic() + 120
            while True:
                try:
                    if wanted(found := ask(page, **query)):
                        return found
                except OSError:  # it is not up yet, or knows nothing of the run yet
                    assert begun[-1].poll() is None, log.read_text()
                assert time.monotonic() < limit, log.read_text()
                time.sleep(0.05)

        return until

    yield start
    for process in begun:
        os.killpg(process.pid, 9)  # its reader is another process
        process.wait()


def test_tensorboard_itself_shows_the_run(
    logged: Record, tmp_path: Path, serve: Callable[[Path], Callable[..., Any]]
) -> None:
    """Its numbers, its description and its parameters; and what comes while it looks."""
    tracker = TensorBoard(Settings(root=tmp_path / "project"))
    with Run({"lr": 0.25}, inputs=[logged.save_dir], save_dir=tmp_path / "next", console=False) as run:
        for step in (2, 0, 1):
            run.log_async({"val/acc": step, "odd": math.inf}, step=step)
            published(Run.load(run.save_dir), tracker)
        until = serve(Path(tracker.destination))
        text = until(bool, "text/text", run=run.id, tag="run")
        assert "running" in text[0]["text"] and logged.id in text[0]["text"]
    published(Run.load(run.save_dir), tracker)
    rows = until(lambda rows: len(rows) == 3, "scalars/scalars", run=run.id, tag="val/acc")
    assert [row[1:] for row in rows] == [[0, 0], [1, 1], [2, 2]]
    (odd, *_) = until(bool, "scalars/scalars", run=run.id, tag="odd")
    assert odd[2] == "Infinity"
    (text,) = until(lambda texts: "done" in texts[0]["text"], "text/text", run=run.id, tag="run")
    (config,) = until(bool, "text/text", run=run.id, tag="config")
    assert "lr" in config["text"] and "0.25" in config["text"]


# -- MLflow ------------------------------------------------------------------------------------------------


# MLflow brings along more than it uses, and what that warns of
@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")
class TestMLflow(TrackerContract):
    def tracker(self, root: Path) -> MLflow:
        return MLflow(Settings(root=root))

    def unreachable(self, root: Path) -> Tracker:
        return MLflow(Settings(root=root, tracking_uri="http://127.0.0.1:1"))

    def numbers(self, tracker: Tracker, ref: str) -> Iterable[Number]:
        from runctx.trackers.mlflow import names

        assert isinstance(tracker, MLflow)
        entity = tracker.database.client.get_run(ref)
        for name in entity.data.metrics:
            for row in tracker.database.client.get_metric_history(ref, name):
                value = math.copysign(math.inf, row.value) if abs(row.value) > 1e308 else row.value
                yield Number(names.original(name, entity.data.tags), value, row.step, row.timestamp)

    def described(self, tracker: Tracker, ref: str) -> Any:
        assert isinstance(tracker, MLflow)
        entity = tracker.database.client.get_run(ref)
        folder = Path(urllib.parse.urlparse(entity.info.artifact_uri).path)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        said = entity.info.to_dictionary() if hasattr(entity.info, "to_dictionary") else dict(entity.info)
        return said, entity.data.params, entity.data.tags, [(p.name, p.read_bytes()) for p in files]


# -- the user's own ----------------------------------------------------------------------------------------

MINE = """
import json
from pathlib import Path


class Mine:
    name = "mine"

    def __init__(self, settings):
        self.destination = str(settings.root / "mine")

    def open(self, run, ref):
        return Page(Path(self.destination), run, ref)


class Page:
    def __init__(self, folder, run, ref):
        folder.mkdir(parents=True, exist_ok=True)
        self.ref, self.fresh, self.file = run.id, ref != run.id, folder / f"{run.id}.json"
        if self.fresh or not self.file.exists():
            self.fresh = True
            self.file.write_text(json.dumps([{}, []]))

    def log(self, numbers):
        said, rows = json.loads(self.file.read_text())
        known = {json.dumps(row) for row in rows}
        rows += [list(number) for number in numbers if json.dumps(list(number)) not in known]
        self.file.write_text(json.dumps([said, rows]))

    def describe(self, run, parents):
        _, rows = json.loads(self.file.read_text())
        self.file.write_text(json.dumps([{"status": run.status, "parents": run.lock.parents}, rows]))

    def close(self):
        pass
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project that names a tracker of its own."""
    (tmp_path / "my_module.py").write_text(MINE)
    (tmp_path / "my_broken.py").write_text("1 / 0")
    (tmp_path / "pyproject.toml").write_text('[tool.runctx]\ntracking = ["my_module:Mine", "tensorboard"]\n')
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path  # nothing is logged here, which would start a shipper
    sys.modules.pop("my_module", None)


def test_a_project_names_its_own_tracker(mine: Path, logged: Record) -> None:
    """As `module:Class`, beside ours; a run is published to all of them."""
    wishes = settings.load(mine, environ={})
    for name in wishes.tracking:
        tracker = tracker_of(name, wishes)
        ref = published(logged, tracker)
        assert published(logged, tracker) == ref
    said, rows = json.loads((mine / "mine" / f"{logged.id}.json").read_text())
    assert said == {"status": "done", "parents": []}
    assert len(rows) == 40
    assert len(list((mine / "tensorboard" / logged.id).iterdir())) == 2


@pytest.mark.parametrize(
    "name",
    [
        "",
        "mine",
        "my_module:",
        "my_module:Other",
        ":Mine",
        "my_module:Mine:x",
        "no.such:Thing",
        "a b:c",
        "my_broken:X",
    ],
)
def test_a_tracker_that_is_not_there_is_named(mine: Path, name: str) -> None:
    """With what can stand in its place."""
    with pytest.raises(SettingsError, match=re.escape(repr(name))) as caught:
        tracker_of(name, Settings())
    assert "module:Class" in str(caught.value.hint)
