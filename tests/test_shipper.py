"""Views are kept up to date by a process outside the user's, whatever becomes of it, of the tracker or of the run."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from runctx import Run, layout
from runctx.liveness import is_held
from runctx.metrics import series
from tests.shipping import NOBODY, PATIENCE, Program, Project, Shown, counted, until


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """One for several tests, as MLflow takes seconds to be loaded: they share a shipper."""
    with Project(tmp_path_factory.mktemp("shared") / "project").in_use() as made:
        yield made


@pytest.fixture
def own_project(tmp_path: Path) -> Iterator[Project]:
    with Project(tmp_path / "project").in_use() as made:
        yield made


def arrived(project: Project, program: Program, count: int, status: str = "FINISHED") -> bool:
    """Whether all of its numbers are there, and its status."""
    found = project.shown().get(program.id, Shown(status="", numbers={}))
    return found.status == status and len(found.numbers.get("loss", ())) >= count


def check(project: Project, program: Program, count: int) -> None:
    """Everything has arrived, exactly once."""
    until(lambda: arrived(project, program, count), f"{count} numbers; {project.log()}")
    found = project.shown()[program.id].numbers
    assert found.pop("loss") == counted(count)
    (other,) = found.values()
    assert other == counted(count, -1)


# -- in fair weather ---------------------------------------------------------------------------------------


def test_every_process_and_thread_is_followed(project: Project) -> None:
    """What forked children, threads and tasks in other processes log arrives, though only they log."""
    program = project.start(
        """
import os, threading
from runctx import Run

with Run(console=False) as run:
    print(run.save_dir, flush=True)
    child = os.fork()
    if child == 0:
        for n in range(100):
            run.log_async(child=n, step=n)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0

    def log(name):
        for n in range(100):
            run.log_async({name: n}, step=n)

    threads = [threading.Thread(target=log, args=(f"thread{n}",)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    def task(n):
        with Run(console=False) as inner:
            inner.log_async(task=n)

    run.map(task, range(20), n_jobs=2)
"""
    )
    program.end()
    until(
        lambda: project.shown().get(program.id, Shown(status="", numbers={})).status == "FINISHED",
        project.log(),
    )
    numbers = project.shown()[program.id].numbers
    steps = [(n, float(n)) for n in range(100)]
    assert numbers.pop("task") == steps[:20]
    assert numbers == dict.fromkeys(("child", "thread0", "thread1", "thread2"), steps)


def test_a_run_that_logs_nothing_is_not_shown(own_project: Project) -> None:
    """A run whose tasks might have logged, and did not, makes no database; the shipper leaves by itself."""
    program = own_project.start(
        """
from runctx import Run
with Run(console=False) as run:
    print(run.save_dir, flush=True)
    run.map(abs, [1, 2], launcher="serial")
"""
    )
    program.end()
    until(lambda: not own_project.shippers() and not own_project.announced(), "the shipper's end")
    assert not own_project.database.exists()


def test_off_is_off(own_project: Project) -> None:
    """A project without trackers has no shipper, and nothing of it is loaded."""
    program = own_project.start(
        """
import sys
from runctx import Run
with Run(console=False) as run:
    print(run.save_dir, flush=True)
    run.log_async(loss=1)
    run.map(abs, [1, 2], launcher="serial")
print([name for name in sys.modules if "shipper" in name or name.startswith("mlflow")])
""",
        RUNCTX_TRACKING="off",
    )
    assert program.end() == "[]"
    assert not (own_project.cache / "shipper").exists()


def test_the_users_process_stays_light(own_project: Project) -> None:
    """A program that logs loads no mlflow, has no child, and gets no warning; the shipper has nothing of hers."""
    program = own_project.start(
        """
import os, sys, time
from runctx import Run
with Run(console=False) as run:
    print(run.save_dir, flush=True)
    run.log_async(loss=1)
    input()
    loaded = [name for name in sys.modules if name.startswith(("mlflow", "psutil", "pandas"))]
print(loaded)
"""
    )
    shipper = until(
        lambda: [one for one in own_project.shippers() if one.ppid() != program.process.pid], "it"
    )[0]
    own = os.getsid(program.process.pid)
    assert os.getsid(shipper.pid) != own
    until(lambda: shipper.nice() > os.getpriority(os.PRIO_PROCESS, 0) and shipper.cwd() == "/", "its manners")
    pipes = {os.readlink(f"/proc/{program.process.pid}/fd/{n}") for n in (0, 1)}
    theirs = {
        os.readlink(file) for file in Path(f"/proc/{shipper.pid}/fd").iterdir() if os.path.lexists(file)
    }
    assert not pipes & theirs
    assert program.process.stdin is not None
    program.process.stdin.write("\n")
    assert program.end() == "[]"


# -- in foul weather ---------------------------------------------------------------------------------------


def test_a_killed_shipper_is_replaced(project: Project) -> None:
    """Its end is no concern of the training; what it has not brought is brought by another, exactly once."""
    program = project.start()
    program.log(1500)
    until(lambda: arrived(project, program, 1500, "RUNNING"), f"numbers of a live run; {project.log()}")
    program.log(3000)  # it may be in the middle of these
    project.kill_shippers()
    program.log(90)
    program.end()
    check(project, program, 4590)


def test_a_killed_program_is_told(project: Project) -> None:
    """A program that is killed has lost nothing, and its view says that it was killed."""
    program = project.start()
    program.log(10)
    program.kill()
    until(
        lambda: arrived(project, program, 10, "KILLED"), f"the end of a run that was killed; {project.log()}"
    )


def test_a_locked_database_costs_nothing(own_project: Project) -> None:
    """While another program keeps the database locked, the training goes on; then all is delivered."""
    first = own_project.start()
    first.log(1)
    first.end()
    check(own_project, first, 1)
    seconds = float(os.environ.get("SHIPPING_LOCKED", "5"))
    program = own_project.start()
    with contextlib.closing(sqlite3.connect(own_project.database, isolation_level=None, timeout=60)) as other:
        other.execute("BEGIN EXCLUSIVE")
        began = time.monotonic()
        program.log(2000)
        assert program.end() == NOBODY
        time.sleep(max(0.0, began + seconds - time.monotonic()))
        other.execute("ROLLBACK")
    check(own_project, program, 2000)


@contextlib.contextmanager
def mlflow_server(root: Path, port: int) -> Iterator[None]:
    """A real server, which is killed at the end."""
    code = f"""
import os, warnings
warnings.simplefilter("ignore")
os.environ["_MLFLOW_SERVER_FILE_STORE"] = "sqlite:///{root}/server.db"
os.environ["_MLFLOW_SERVER_ARTIFACT_ROOT"] = "{root}/artifacts"
os.environ["_MLFLOW_SERVER_ARTIFACT_DESTINATION"] = "{root}/artifacts"
os.environ["_MLFLOW_SERVER_SERVE_ARTIFACTS"] = "true"
import uvicorn
from mlflow.server.fastapi_app import app
uvicorn.run(app, host="127.0.0.1", port={port}, log_level="error")
"""
    server = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        until(lambda: server.poll() is not None or answers(port), "the server")
        assert server.poll() is None
        yield
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=10):
            return True
    except OSError:
        return False


def test_a_server_comes_and_goes(tmp_path: Path) -> None:
    """Before there is a server, and while it is gone, training and its end are not held up; nothing is lost."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    made = Project(tmp_path / "project", MLFLOW_TRACKING_URI=f"http://ada:s3cret-word@127.0.0.1:{port}")
    made.database = tmp_path / "server.db"
    with made.in_use() as project:
        early = project.start()
        early.log(100)
        assert early.end() == NOBODY
        until(lambda: "mlflow" in project.log(), "a complaint")
        with mlflow_server(tmp_path, port):
            program = project.start()
            program.log(100)
            until(
                lambda: arrived(project, program, 100, "RUNNING"), f"numbers of a live run; {project.log()}"
            )
        program.log(100)
        assert program.end() == NOBODY
        with mlflow_server(tmp_path, port):
            check(project, early, 100)
            check(project, program, 200)
        files = [file.read_bytes() for file in project.cache.rglob("*") if file.is_file()]
        assert not any(b"s3cret-word" in content for content in files)


def test_a_fresh_database_is_met_by_four(own_project: Project) -> None:
    """Four programs at once, with a shipper each: the database is made once, and has everything."""
    programs = [own_project.start(RUNCTX_CACHE=str(own_project.cache / str(n))) for n in range(4)]
    for program in programs:
        program.log(50)
    for program in programs:
        program.end()
    for program in programs:
        check(own_project, program, 50)


def test_two_shippers_for_one_spool(own_project: Project) -> None:
    """One of them leaves; the other goes on."""
    program = own_project.start(
        """
from runctx import Run
with Run(console=False) as run:
    print(run.save_dir, flush=True)
    run.map(abs, [1], launcher="serial")
    input()
"""
    )
    (held,) = until(lambda: [*own_project.cache.glob("shipper/*/*/shipper.lock")], "a shipper")
    until(lambda: is_held(held), "the shipper's lock")
    first = until(lambda: [one for one in own_project.shippers() if one.ppid() != program.process.pid], "it")
    second = subprocess.run(
        [sys.executable, "-m", "runctx.trackers.shipper", str(held.parent)],
        env=own_project.environ,
        timeout=PATIENCE,
    )
    assert second.returncode == 0
    assert own_project.shippers() == first
    assert program.process.stdin is not None
    program.process.stdin.write("\n")
    program.end()


# -- the machine -------------------------------------------------------------------------------------------


def test_system_metrics(own_project: Project) -> None:
    """On request the shipper looks at the machine and at the run's processes, without any tracker."""
    program = own_project.start(
        """
import subprocess, sys
from runctx import Run
with Run(console=False) as run:
    print(run.save_dir, flush=True)
    child = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    input()
    child.kill()
    child.wait()
""",
        RUNCTX_TRACKING="off",
        RUNCTX_SYSTEM_METRICS="1",
    )
    folder = program.save_dir / layout.METRICS
    until(lambda: len(series.read(folder).get("system/process_cpu_percent", ())) >= 3, own_project.log())
    assert program.process.stdin is not None
    program.process.stdin.write("\n")
    program.end()
    past = Run.load(program.save_dir)
    seen = past.metrics()
    assert {
        "system/cpu_percent",
        "system/disk_percent",
        "system/memory_percent",
        "system/process_cpu_percent",
        "system/process_memory_bytes",
    } <= set(seen)
    assert max(seen["system/process_cpu_percent"].values) > 1  # the child's
    assert min(seen["system/process_memory_bytes"].values) > 1e6
    steps = seen["system/cpu_percent"].steps
    assert list(steps) == sorted(steps)
    assert past.lock.metrics["system/memory_percent"].max <= 100
    assert not past.lock.omissions or all(one.what != "metrics" for one in past.lock.omissions)
    assert not own_project.database.exists()
