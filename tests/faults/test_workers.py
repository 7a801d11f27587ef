"""Tasks that do the worst to their worker: each has a clear row, the others are done, and nothing is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from runctx import Run
from runctx import lock as lockfile
from runctx.layout import TaskFiles
from runctx.tasks.ledger import Rows, read_labels

HANGING = 120.0
"""Seconds after which a program is taken for hanging."""

PROGRAM = """
import ctypes, os, resource, signal, subprocess, sys, threading, time
from runctx import Run

def bad(x):
{bad}

def task(x):
    with open(f"ran-{{x}}", "a") as said:
        said.write("x")
    return bad(x) if x in {which} else x

with Run({{"lr": 0.1}}, save_dir="run", console=False, capture={capture}) as run:
    run.map(task, range({count}), n_jobs={n_jobs}, on_error={on_error!r}, retries={retries})
# not ru_maxrss, which is inherited from the process that started this one
peak = open("/proc/self/status").read().partition("VmHWM:")[2].split()[0]
print("peak", int(peak) // 1024, file=sys.stderr)
"""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a program that mapped."""

    folder: Path
    status: int
    printed: int
    """Bytes."""
    errors: str
    left: list[int]
    """Processes of its session that are still there."""

    @property
    def lock(self):
        return lockfile.read(self.folder / "run")

    def rows(self) -> list:
        """The rows that count, in the order of the tasks."""
        files = TaskFiles(self.folder / "run", "task")
        final = Rows(files).read_on()

        return [final[key][1] for key in read_labels(files)]

    def check(self, which: range | tuple[int, ...], count: int, kind: str, message: str) -> None:
        """The bad tasks failed like this, all others are done, there is one lock, and nobody is left."""
        assert (self.status, self.left) == (0, []), self.errors
        for number, row in enumerate(self.rows()):
            if number in which and kind:
                assert (row.status, row.error.type) == ("failed", kind)
                assert message in row.error.message
            else:
                assert row.status == "done", (number, row)
        (entry,) = self.lock.tasks
        failed = len(which) if kind else 0
        assert (entry.total, entry.done, entry.failed) == (count, count - failed, failed)
        assert self.lock.status == "done"
        assert len(list(self.folder.rglob("run.lock"))) == 1


def session_of(leader: int) -> list[int]:
    """Living processes of a session."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, session = stat.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(session) == leader and state not in "ZX":
            found.append(int(stat.parent.name))
    return found


def start(folder: Path, code: str) -> subprocess.Popen[bytes]:
    (folder / "program.py").write_text(code)
    with (folder / "stderr").open("wb") as errors:
        return subprocess.Popen(
            [sys.executable, "program.py"],
            cwd=folder,
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=errors,
        )


def ended(program: subprocess.Popen[bytes], folder: Path) -> Outcome:
    """Read what it prints until it has ended; who is left of its session, after some patience, is ended."""
    deadline = time.monotonic() + HANGING
    printed = 0
    while chunk := os.read(program.stdout.fileno(), 1 << 20):
        printed += len(chunk)
    status = program.wait(HANGING)
    while (left := session_of(program.pid)) and time.monotonic() < deadline:
        time.sleep(0.02)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    program.stdout.close()
    return Outcome(
        folder=folder,
        status=status,
        printed=printed,
        errors=(folder / "stderr").read_text(errors="replace"),
        left=left,
    )


def program(bad: str, **more: object) -> str:
    known = {"which": (3,), "count": 8, "n_jobs": 2, "on_error": "return", "retries": 0, "capture": False}
    body = textwrap.indent(textwrap.dedent(bad).strip(), "    ")
    return PROGRAM.format(bad=body, **{**known, **more})


DIED = "runctx.errors.WorkerDiedError"

DEEDS = {
    "is killed from inside": ("os.kill(os.getpid(), signal.SIGKILL)", DIED, "SIGKILL"),
    "exits": ("os._exit(3)", DIED, "EXIT(3)"),
    "crashes": ("ctypes.string_at(0)", DIED, "SIGSEGV"),
    "sets an alarm": ("signal.alarm(1); time.sleep(60)", DIED, "SIGALRM"),
    "calls sys.exit": ("sys.exit(3)", "builtins.SystemExit", "3"),
    "interrupts itself": ("raise KeyboardInterrupt('mine')", "builtins.KeyboardInterrupt", "mine"),
    "recurses": ("return bad(x)", "builtins.RecursionError", "recursion"),
    "returns what cannot be pickled": ("return (y for y in [x])", "builtins.TypeError", "cannot be pickled"),
    "returns a lock": ("return {'held': threading.Lock()}", "builtins.TypeError", "held"),
    "raises what cannot be told": (
        """
        class Odd(Exception):
            def __init__(self, a, b): super().__init__(a)
            def __str__(self): raise ValueError
            def __reduce__(self): raise ValueError
        raise Odd(1, 2)
        """,
        "__main__.bad.<locals>.Odd",
        "cannot be put into words",
    ),
    "closes all files": ("os.closerange(0, 4096); return x", "", ""),
    "goes elsewhere": ("os.chdir('/'); return x", "", ""),
    "minds no signal": (
        """
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        return x
        """,
        "",
        "",
    ),
    "starts threads that never end": (
        "threading.Thread(target=threading.Event().wait).start(); return x",
        "",
        "",
    ),
    "forks, and both return": ("os.fork(); return x", "", ""),
    "forks a child that fails": (
        """
        if os.fork() == 0:
            raise ValueError
        return x
        """,
        "",
        "",
    ),
    "forks a child that outlives it": (
        """
        if os.fork() == 0:
            time.sleep(3)
            os._exit(0)
        return x
        """,
        "",
        "",
    ),
    "forks a child that outlives it, and dies": (
        """
        if os.fork() == 0:
            time.sleep(3)
            os._exit(0)
        os._exit(3)
        """,
        DIED,
        "EXIT(3)",
    ),
    "starts a program that holds stdout, and dies": (
        "subprocess.Popen(['sleep', '3'], close_fds=False); os._exit(3)",
        DIED,
        "EXIT(3)",
    ),
    "may write no large files": (
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, -1)); return os.urandom(100_000)",
        "builtins.OSError",
        "File too large",
    ),
}


@pytest.mark.parametrize("deed", DEEDS)
def test_a_task_that(tmp_path, deed):
    """Whatever a task does, its row tells of it, the others are done, and the program ends with nobody left."""
    bad, kind, message = DEEDS[deed]
    outcome = ended(start(tmp_path, program(bad)), tmp_path)
    outcome.check((3,), 8, kind, message)


@pytest.mark.parametrize(
    "deed", ["is killed from inside", "closes all files", "starts threads that never end"]
)
def test_with_one_worker_a_task_that(tmp_path, deed):
    """One job is a process of its own as well, which a task may kill."""
    bad, kind, message = DEEDS[deed]
    outcome = ended(start(tmp_path, program(bad, n_jobs=1)), tmp_path)
    outcome.check((3,), 8, kind, message)


def test_many_that_kill_their_worker(tmp_path):
    """A fifth of all tasks kill their worker: these failed, all others are done, each of those at most twice."""
    which = tuple(range(2, 50, 5))
    bad = "os.kill(os.getpid(), signal.SIGKILL)"
    outcome = ended(start(tmp_path, program(bad, which=which, count=50)), tmp_path)
    outcome.check(which, 50, DIED, "SIGKILL")


def test_a_worker_killed_from_outside(tmp_path):
    """A worker that another process kills loses nothing: what it was at is done by the next."""
    bad = """
    if not os.path.exists("killed"):
        open("pid", "w").write(f"{os.getpid()}.")
        time.sleep(120)
    return x
    """
    running = start(tmp_path, program(bad))
    path = tmp_path / "pid"
    deadline = time.monotonic() + HANGING
    while not (path.exists() and path.read_text().endswith(".")) and time.monotonic() < deadline:
        time.sleep(0.01)
    (tmp_path / "killed").touch()
    os.kill(int(path.read_text()[:-1]), signal.SIGKILL)
    ended(running, tmp_path).check((3,), 8, "", "")


def test_a_task_that_had_a_second_chance(tmp_path):
    """With retries, a task that killed its worker is tried again; one of its earlier rows may be there already."""
    bad = """
    tries = len(open("ran-3").read())
    if tries % 2 == 1:
        raise ValueError("first")
    if tries < 5:
        os._exit(3)
    return x
    """
    outcome = ended(start(tmp_path, program(bad, retries=2)), tmp_path)
    outcome.check((3,), 8, "", "")


@pytest.mark.parametrize(("capture", "megabytes"), [(False, 1024), (True, 64)])
def test_a_task_that_prints_much(tmp_path, capture, megabytes):
    """What tasks print goes where the program's prints go, and through nobody's memory."""
    bad = f"""
    line = b"x" * 1023 + b"\\n"
    for _ in range({megabytes}):
        left = line * 1024
        while left:
            left = left[os.write(1, left):]
    return x
    """
    outcome = ended(start(tmp_path, program(bad, capture=capture)), tmp_path)
    outcome.check((3,), 8, "", "")
    assert outcome.printed >= megabytes << 20
    assert int(outcome.errors.split("peak ")[1]) < 300
    if capture:
        assert (tmp_path / "run/run.log").stat().st_size >= megabytes << 20
        (tmp_path / "run/run.log").unlink()


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_ctrl_c(tmp_path, n_jobs):
    """Ctrl-C ends the workers and comes out as what it is; the run is interrupted, and can be resumed."""
    running = start(tmp_path, program("time.sleep(120)", which=(2, 3), n_jobs=n_jobs, on_error="raise"))
    deadline = time.monotonic() + HANGING
    while not (tmp_path / "ran-2").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(running.pid, signal.SIGINT)
    outcome = ended(running, tmp_path)
    assert (outcome.status, outcome.left) == (-signal.SIGINT, []), outcome.errors
    assert "KeyboardInterrupt" in outcome.errors.splitlines()[-1]
    assert outcome.lock.status == "interrupted"
    (entry,) = outcome.lock.tasks
    assert (entry.total, entry.failed) == (8, 0)
    assert 2 <= entry.done < 8

    code = program("return x", which=(2, 3)).replace('save_dir="run"', 'resume="run"')
    ended(start(tmp_path, code), tmp_path).check((), 8, "", "")
    done = [len((tmp_path / f"ran-{x}").read_text()) for x in range(8)]
    assert done[:2] == [1, 1]


def test_tasks_start_in_one_folder(tmp_path, monkeypatch):
    """A task that goes elsewhere, or a process that was elsewhere before, sends no other task there."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other").mkdir()

    def where(x: int) -> str:
        here = os.getcwd()
        os.chdir("/")
        return here

    with Run(save_dir="run", console=False) as run:
        assert set(run.map(where, range(6), n_jobs=2)) == {os.fspath(tmp_path)}
        assert set(run.map(where, range(6), launcher="serial")) == {os.fspath(tmp_path)}
        os.chdir("other")
        assert set(run.map(where, range(6), n_jobs=2)) == {os.fspath(tmp_path / "other")}
