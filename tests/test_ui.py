"""`runctx ui`: MLflow's own server, seen through a real browser."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from runctx import Run, places
from runctx.errors import TrackingError
from runctx.past import index
from runctx.settings import Settings
from runctx.snapshot.patterns import matcher
from runctx.trackers.mlflow.ui import HOST, Server
from tests.demo import ROOT, Demo

if TYPE_CHECKING:
    from playwright.sync_api import Page

PATIENCE = 180
"""Seconds for anything on a busy machine."""
LOGS = """
from runctx import Run

with Run() as run:
    run.log_async(loss=0.5)
"""
SCREENSHOTS = os.environ.get("RUNCTX_SCREENSHOTS")
"""If set, the pictures in docs/ are made anew."""


class Shown:
    """`runctx ui` in a project, in a process of its own, up to its end."""

    def __init__(self, folder: Path, *options: str, **environ: str) -> None:
        if "--port" not in options:
            options = ("--port", str(free_port()), *options)
        self.said = folder.parent / f"{folder.name}.ui.log"
        with self.said.open("w") as said:
            self.process = subprocess.Popen(
                [sys.executable, "-c", "from runctx.cli import main; main()", "ui", "--json", *options],
                cwd=folder,
                env={**os.environ, "PYTHONPATH": str(ROOT), **environ},
                stdout=subprocess.PIPE,
                stderr=said,
                text=True,
            )

    def address(self) -> str:
        """As soon as it answers."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.said.read_text()
        return str(json.loads(line)["address"])

    def end(self, number: int = signal.SIGTERM) -> int:
        """Its exit code."""
        self.process.send_signal(number)
        code = self.process.wait(PATIENCE)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


def free_port() -> int:
    with socket.create_server((HOST, 0)) as probe:
        return int(probe.getsockname()[1])


def answers(address: str) -> bool:
    connection = http.client.HTTPConnection(HOST, int(address.split("/")[2].rpartition(":")[2]), timeout=30)
    with contextlib.closing(connection):
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == http.client.OK
        except OSError:
            return False


def goes_on(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def wait_until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.2)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """Its runs: two of `prepare`, three that learn from the first, one that measures."""
    demo = Demo(tmp_path_factory.mktemp("ui") / "digits")
    demo.script("prepare.py")
    for lr in (0.5, 0.1):
        demo.script("train.py", f"lr={lr}")
    demo.script("images.py", "count=5")
    demo.script("measure.py")
    return demo


@pytest.fixture(scope="module")
def address(demo: Demo) -> Iterator[str]:
    shown = Shown(demo.folder)
    try:
        address = shown.address()
        yield address
    finally:
        code = shown.end()
    assert code == 0
    assert not answers(address)


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    from playwright.sync_api import sync_playwright

    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.fail("there is no Chromium on this machine: apt-get install chromium")
    options = ["--no-sandbox"] if os.getuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=options)
        page = browser.new_page(viewport={"width": 2600, "height": 900})
        page.set_default_timeout(PATIENCE * 1000)
        yield page
        browser.close()


def path_id(path: Path) -> str:
    return Run.load(path).id


def picture(page: Page, name: str) -> None:
    if SCREENSHOTS:
        before = page.viewport_size
        page.set_viewport_size({"width": 1400, "height": 900})
        page.wait_for_timeout(2000)  # until charts and columns have found their places
        page.screenshot(path=ROOT / "docs" / name)
        assert before is not None
        page.set_viewport_size(before)


def dismiss(page: Page) -> None:
    """What covers a page at the first visit."""
    assistant = page.get_by_role("button", name="Close").first
    assistant.or_(page.get_by_test_id("saved-views-trigger")).first.wait_for()
    if assistant.is_visible():
        assistant.click()


def test_the_demos_runs_are_shown_with_all_that_belongs_to_them(demo: Demo, address: str, page: Page) -> None:
    """The table has every run with status, commit, parameters, metrics; a run's page also its curve and its parent."""
    (prepared,) = (Run.load(path) for path in demo.runs("prepare"))
    trained = Run.load(demo.runs("train")[0])
    page.goto(address)
    page.get_by_text("matching runs").wait_for()
    dismiss(page)
    for run in map(Run.load, (path.parent for path in demo.locks())):
        page.get_by_role("link", name=run.id).wait_for()
    columns = (
        "metrics.`accuracy`",
        "metrics.`loss`",
        "params.`lr`",
        "params.`test_share`",
        "tags.`runctx.status`",
    )
    for column in columns:
        page.locator(f".ag-header-cell[col-id='{column}']").wait_for()
    table = page.locator(".ag-body-viewport").inner_text()
    assert table.count(prepared.commit[:6]) == table.count("\ndone") == len(demo.locks())
    picture(page, "mlflow-runs.png")

    page.get_by_role("link", name=trained.id).first.click()
    page.get_by_text("About this run").wait_for()
    text = page.locator("body").inner_text()
    for part in ("shuffle_seed", "test_share"):
        assert part not in text
    for part in (*trained.cfg, "loss", "accuracy", "Finished", trained.commit[:7], "train.py"):
        assert str(part) in text
    picture(page, "mlflow-run.png")

    page.get_by_role("tab", name="Model metrics").click()
    page.get_by_text("loss", exact=True).first.wait_for()
    curve = page.locator(".js-plotly-plot path.js-line").first
    curve.wait_for(state="attached")
    assert len(re.findall(r"[LC]", curve.get_attribute("d") or "")) >= 10
    picture(page, "mlflow-curve.png")

    page.get_by_role("tab", name="Overview").click()
    links = page.get_by_role("link", name=prepared.id)
    links.nth(1).wait_for()
    described, parent = links.all()
    href = str(parent.get_attribute("href"))
    assert (described.get_attribute("href") or "").endswith(href.rpartition("#")[2])
    parent.click()
    page.wait_for_url(lambda url: url.partition("?")[0].endswith(href))
    page.get_by_text("test_share").first.wait_for()
    for path in demo.runs("train"):
        page.get_by_role("link", name=path_id(path)).first.wait_for()


def test_runs_that_begin_meanwhile_appear(demo: Demo, address: str, page: Page) -> None:
    """As long as `runctx ui` goes on, a run that logs no number is published as well."""
    demo.script("prepare.py")
    new = Run.load(demo.runs("prepare")[-1]).id

    def is_there() -> bool:
        page.goto(address)
        page.reload()
        page.get_by_text("matching runs").wait_for()
        return page.get_by_role("link", name=new).count() == 1

    wait_until(is_there)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_server_ends_with_the_command(tmp_path: Path, number: int) -> None:
    """Ctrl-C, `kill` and a closed terminal take it along with all its processes, though it is just starting."""
    (tmp_path / "project").mkdir()
    shown = Shown(tmp_path / "project", "--no-publish")
    command = psutil.Process(shown.process.pid)
    wait_until(lambda: command.children(recursive=True))
    children = command.children(recursive=True)
    assert shown.end(number) == 0
    wait_until(lambda: not any(map(goes_on, children)))


def test_a_port_in_use_is_said(tmp_path: Path) -> None:
    """The command ends with 2, names the port, and starts nothing."""
    with socket.create_server((HOST, 0)) as other:
        port = other.getsockname()[1]
        shown = Shown(tmp_path, "--port", str(port))
        assert shown.process.wait(PATIENCE) == 2
        shown.end()
    assert f"error: port {port} is in use" in shown.said.read_text()
    assert not list(tmp_path.iterdir())


def test_what_a_server_said_that_does_not_start_is_told(tmp_path: Path) -> None:
    """The error holds the server's own words, without waiting for what will not come."""
    (tmp_path / "mlflow.db").write_text("no database" * 1000)
    with (
        Server(f"sqlite:///{tmp_path}/mlflow.db", tmp_path, free_port()) as server,
        pytest.raises(TrackingError, match="file is not a database"),
    ):
        server.wait(PATIENCE)


def test_a_server_that_is_there_already_is_named(demo: Demo, address: str) -> None:
    """Where the project's runs go to a server, they are published there, its page is named, and no other is started."""
    server = address.partition("/#")[0]
    shown = Shown(demo.folder, RUNCTX_TRACKING_URI=server, RUNCTX_EXPERIMENT="elsewhere")
    named = shown.address()
    assert shown.process.wait(PATIENCE) == 0
    shown.end()
    assert re.fullmatch(rf"{server}/#/experiments/\d+/runs\?workflowType=machine_learning", named)
    assert named.split("/")[5] != address.split("/")[5]


def test_what_trackers_write_is_not_taken_for_source(make_repo: Callable[..., Path]) -> None:
    """A database that git does not ignore is in no snapshot, and makes no tree dirty; what to add is said."""
    root = make_repo({"train.py": LOGS, ".gitignore": "/results/\n"})
    run = [sys.executable, "train.py"]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    first = subprocess.run(
        run, cwd=root, env=environ, capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    assert "git does not ignore" not in first.stderr  # without trackers there will be none
    assert "/mlflow.db* and /mlruns/" in str(places.advice(Settings(root=root), root))
    both = places.advice(Settings(root=root), root, {"mlflow", "tensorboard"})
    assert "MLflow and TensorBoard will keep runs: add the lines" in str(both) and "/tensorboard/ to" in str(
        both
    )
    for name in ("mlflow.db", "mlflow.db.lock", "mlflow.db-journal", "mlruns/1/artifacts/run.lock"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("x")
    assert places.advice(Settings(root=root), root) is None  # once it is there, nothing more is said
    assert "the line /tensorboard/ to" in str(places.advice(Settings(root=root), root, {"tensorboard"}))
    subprocess.run(run, cwd=root, env=environ, check=True, capture_output=True, timeout=PATIENCE)
    newest = index.runs(root / "results")[0]
    assert not newest.lock.source.dirty
    assert newest.commit == Run.load(index.runs(root / "results")[1].save_dir).commit


def test_a_database_of_ones_own_and_the_folder_of_tensorboard_are_results(tmp_path: Path) -> None:
    """Wherever the settings put them; but a folder `tensorboard` is source in a project without that tracker."""
    named = matcher(places.patterns(Settings(root=tmp_path, tracking_uri="sqlite:///a/b.db"), tmp_path))
    assert [
        named(path) for path in ("a/b.db", "a/b.db.lock", "a/b.db-wal", "a/b.dbx", "tensorboard/x.py")
    ] == [
        *(True, True, True),
        *(False, False),
    ]
    named = matcher(places.patterns(Settings(root=tmp_path, tracking=("tensorboard",)), tmp_path))
    assert named("tensorboard/x")
    assert not named("tensorboard.py")
