"""Many at once: processes, threads, tasks, forks and pools keep their runs apart, and none is lost."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from runctx import Run
from runctx import lock as lockfile

SWARM = """
import sys
from pathlib import Path
from runctx import Run

me = sys.argv[1]
for n in range(10):
    Path(f"scratch_{me}.txt").write_text(str(n))
    with Run({"n": n}, ["data", "small.csv"], stage="swarm", console=False) as run:
        (run.save_dir / "who.txt").write_text(me)
"""

HUNDRED = """
import os
from runctx import Run

go, start = os.pipe()
children = []
for n in range(100):
    child = os.fork()
    if child == 0:
        os.close(start)
        os.read(go, 1)
        with Run({"n": n}, stage="same", console=False):
            pass
        os._exit(0)
    children.append(child)
os.close(start)
assert [os.waitpid(child, 0)[1] for child in children] == [0] * 100
"""


def _locks(root: Path):
    return [lockfile.read(file) for file in root.glob("results/**/run.lock")]


def _git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True, text=True).stdout


def _python(root: Path, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    (root / "program.py").write_text(textwrap.dedent(code))
    command = [sys.executable, "program.py", *arguments]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=60)


def test_eight_processes(project, tmp_path, monkeypatch):
    """Eighty runs of eight processes on one repository and cache are whole, and all their commits kept."""
    monkeypatch.setenv("RUNCTX_CACHE", str(tmp_path / "cache"))
    (project / "program.py").write_text(SWARM)
    swarm = [subprocess.Popen([sys.executable, "program.py", str(n)], cwd=project) for n in range(8)]
    assert [one.wait(60) for one in swarm] == [0] * 8
    locks = _locks(project)
    assert len({lock.save_dir for lock in locks}) == len({lock.id for lock in locks}) == 80
    assert {lock.status for lock in locks} == {"done"}
    with Run(inputs=["data", "small.csv"], stage="alone", console=False) as alone:
        pass
    assert {tuple(data.digest for data in lock.inputs) for lock in locks} == {
        tuple(data.digest for data in alone.inputs)
    }
    kept = {f"git:{commit}" for commit in _git(project, "rev-list", "run_logs").split()}
    lost = [lock for lock in locks if lock.source.commit not in kept]
    assert not lost, [lock.omissions for lock in lost]
    cache = sqlite3.connect(tmp_path / "cache/hashes.sqlite")
    assert cache.execute("pragma integrity_check").fetchone() == ("ok",)
    cache.close()
    _git(project, "fsck", "--strict")


def test_hundred_in_one_second(project, nursery):
    """A hundred processes that start the same stage in the same second get a hundred folders."""
    ended = nursery.run(HUNDRED, project)
    assert (ended.status, ended.left) == (0, []), ended.output
    locks = _locks(project)
    assert len(locks) == len({lock.save_dir for lock in locks}) == 100
    assert {lock.status for lock in locks} == {"done"}
    assert {lock.config["n"] for lock in locks} == set(range(100))
    (commit,) = {lock.source.commit for lock in locks}
    assert commit == "git:" + _git(project, "rev-parse", "run_logs").strip()


def test_hundred_after_a_kill(project, nursery):
    """The lock that a killed process left on the log branch is removed once, though a hundred find it."""
    nursery.run("from runctx import Run\nwith Run(stage='first', console=False): pass", project)
    lock = project / ".git/refs/heads/run_logs.lock"
    lock.touch()
    os.utime(lock, (1e9, 1e9))
    ended = nursery.run(HUNDRED, project)
    assert (ended.status, ended.left) == (0, []), ended.output
    kept = {f"git:{commit}" for commit in _git(project, "rev-list", "run_logs").split()}
    assert {found.source.commit for found in _locks(project)} <= kept
    assert not lock.exists()


@pytest.mark.parametrize("leaving", ["raise ValueError('mine')", "sys.exit(3)", "os._exit(0)", "pass"])
def test_fork_in_the_body(project, nursery, leaving):
    """However a forked child leaves the with-block, the parent's run stays open, alive and whole."""
    code = f"""
import fcntl, os, sys
from runctx import Run, lock

with Run({{"lr": 0.1}}, ["small.csv"], stage="forks", console=False) as run:
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        run.logger.info("from the child")
        {leaving}
    else:
        os.waitpid(child, 0)
        assert lock.read(run.save_dir).status == "running"
        with open(run.save_dir / ".runctx/alive.lock") as alive:
            try:
                fcntl.flock(alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print("alive")
        run.logger.info("from the parent")
if os.getpid() != parent:
    os._exit(0)
assert run.status == "done"
"""
    ended = nursery.run(code, project)
    assert (ended.status, ended.left) == (0, []), ended.output
    assert "alive" in ended.output.split()
    (lock,) = _locks(project)
    assert lock.status == "done" and lock.inputs[0].digest
    (log,) = project.glob("results/*/*/run.log")
    assert "from the child" in log.read_text() and "from the parent" in log.read_text()


@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
def test_pools(project, method):
    """Pools of every kind work within a run, and make no runs of their own."""
    code = f"""
    import multiprocessing
    from runctx import Run

    def square(n):
        return n * n

    if __name__ == "__main__":
        with Run(stage="pools", console=False) as run:
            with multiprocessing.get_context({method!r}).Pool(2) as pool:
                assert pool.map(square, range(10)) == [n * n for n in range(10)]
    """
    ended = _python(project, code)
    assert ended.returncode == 0, ended.stderr
    (lock,) = _locks(project)
    assert lock.status == "done"


def test_ten_threads(project):
    """Runs in ten threads at once are separate, each with its own lines and digests."""
    runs: list[Run] = []
    barrier = threading.Barrier(10)

    def work(n: int) -> None:
        barrier.wait()
        with Run({"n": n}, ["data", "small.csv"], stage=f"thread-{n % 2}", console=False) as run:
            runs.append(run)
            run.logger.info("line of {}", n)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({run.save_dir for run in runs}) == 10
    assert len({tuple(data.digest for data in run.inputs) for run in runs}) == 1
    for run in runs:
        assert lockfile.read(run.save_dir).status == "done"
        said = [line for line in (run.save_dir / "run.log").read_text().splitlines() if "line of" in line]
        assert len(said) == 1 and said[0].endswith(f"line of {run.cfg.n}")


def test_tasks(project):
    """Runs in tasks of asyncio are separate; a cancelled one is interrupted, the others are not."""

    async def work(n: int, all_in: asyncio.Barrier) -> Run:
        with Run({"n": n}, ["small.csv"], stage="task", console=False) as run:
            runs.append(run)
            await all_in.wait()
            run.logger.info("line of {}", n)
            await asyncio.sleep(60 if n == 3 else 0)
        return run

    async def main() -> list[object]:
        all_in = asyncio.Barrier(6)
        tasks = [asyncio.create_task(work(n, all_in)) for n in range(5)]
        await all_in.wait()
        await asyncio.wait([task for n, task in enumerate(tasks) if n != 3])
        tasks[3].cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    runs: list[Run] = []
    ended = asyncio.run(main())
    assert isinstance(ended[3], asyncio.CancelledError)
    statuses = {run.cfg.n: lockfile.read(run.save_dir).status for run in runs}
    assert statuses == {0: "done", 1: "done", 2: "done", 3: "interrupted", 4: "done"}
    for run in runs:
        assert (run.save_dir / "run.log").read_text().count("line of") == 1


def test_ctrl_c_under_asyncio(project, nursery):
    """Ctrl-C while asyncio waits cancels the task: the run is interrupted, the exit code that of Ctrl-C."""
    code = """
    import asyncio, os, signal
    from runctx import Run

    async def main():
        with Run(stage="task", console=False):
            asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGINT)
            await asyncio.sleep(60)

    asyncio.run(main())
    """
    ended = nursery.run(code, project)
    assert ended.status == -2, ended.output
    (lock,) = _locks(project)
    assert lock.status == "interrupted"
