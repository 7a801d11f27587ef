"""Programs that log, and what of it can be seen in MLflow's database meanwhile."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

PATIENCE = 300.0
"""Seconds; on a machine that is busy with other things as well."""

PROGRAM = """
import sys
from runctx import Run

with Run({"lr": 0.1}, console=False) as run:
    print(run.save_dir, flush=True)
    n = 0
    for line in sys.stdin:
        for n in range(n, n + int(line)):
            run.log_async({"loss": float(n), "odd name=1": -float(n)}, step=n)
        n += 1
        print(n, flush=True)
print({"mlflow", "requests"} & set(sys.modules))
"""
"""Logs as many numbers as each line of its stdin says, and tells at its end whom it might have waited for."""
NOBODY = "set()"


def until(condition: Callable[[], Any], what: str) -> Any:
    """What the condition gives, once that is true."""
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < deadline, f"never came: {what}"
        time.sleep(0.05)
    return found


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One run, as MLflow's database has it."""

    status: str
    numbers: dict[str, list[tuple[int, float]]]
    """Name of each metric -> step and value, as often as they are there."""


class Project:
    """A folder whose runs are shown, with shippers of its own.

    Parameters
    ----------
    root: the folder to make.
    variables: environment of its programs, beside ours.
    """

    def __init__(self, root: Path, **variables: str) -> None:
        root.mkdir()
        (root / "pyproject.toml").write_text("[tool.runctx]\nexperiment = 'shipping'\n")
        self.root, self.cache, self.database = root, root / "cache", root / "mlflow.db"
        self.environ = {
            **os.environ,
            "RUNCTX_TRACKING": "mlflow",
            "RUNCTX_CACHE": str(self.cache),
            **variables,
        }

    def start(self, code: str = PROGRAM, **variables: str) -> Program:
        return Program(self.root, code, {**self.environ, **variables})

    def runctx(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "runctx.cli", *arguments],
            cwd=self.root,
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def shown(self) -> dict[str, Shown]:
        """Id of each run -> what can be seen of it now."""
        return shown(self.database)

    def shippers(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if any(str(self.cache) in argument for argument in process.cmdline()):
                    found.append(process)
        return [process for process in found if process.status() != psutil.STATUS_ZOMBIE]

    def kill_shippers(self) -> None:
        while found := self.shippers():
            for process in found:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            psutil.wait_procs(found, timeout=PATIENCE)

    def log(self) -> str:
        """What the shippers said."""
        return "".join(file.read_text() for file in self.cache.glob("shipper/*/*/log"))

    def announced(self) -> list[Path]:
        return [*self.cache.glob("shipper/*/*/*/*.json")]

    @contextlib.contextmanager
    def in_use(self) -> Iterator[Project]:
        try:
            yield self
        finally:
            print(self.log())  # seen where a test fails
            self.kill_shippers()


class Program:
    """One program that logs."""

    def __init__(self, root: Path, code: str, environ: dict[str, str]) -> None:
        script = root / "train.py"
        script.write_text(code)
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", str(script)],
            cwd=root,
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.save_dir = Path(self._line())
        self.id = self._id()

    def log(self, count: int) -> int:
        """Log so many numbers; how many it has logged in all."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{count}\n")
        self.process.stdin.flush()
        return int(self._line())

    def end(self) -> str:
        """Let it come to its end; what it said then."""
        output, _ = self.process.communicate(timeout=PATIENCE)
        assert self.process.returncode == 0
        return output.strip()

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()

    def _line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"it ended with {self.process.wait()}"
        return line.strip()

    def _id(self) -> str:
        from runctx import Run

        return Run.load(self.save_dir).id


def shown(database: Path) -> dict[str, Shown]:
    """Id of each run -> what of it is in MLflow's database; nothing, if it cannot be read now."""
    if not database.exists():
        return {}
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=60)) as connection:
        try:
            runs = connection.execute("SELECT run_uuid, name, status FROM runs").fetchall()
            rows = connection.execute("SELECT run_uuid, key, step, value FROM metrics").fetchall()
        except sqlite3.OperationalError:  # just being made
            return {}
    found = {uuid: Shown(status=status, numbers={}) for uuid, _, status in runs}
    for uuid, key, step, value in rows:
        if uuid in found:
            found[uuid].numbers.setdefault(key, []).append((step, value))
    for one in found.values():
        for numbers in one.numbers.values():
            numbers.sort()
    names = {uuid: name for uuid, name, _ in runs}
    assert len(set(names.values())) == len(names), f"two views of one run: {names}"
    return {names[uuid]: one for uuid, one in found.items()}


def counted(to: int, sign: int = 1) -> list[tuple[int, float]]:
    """What PROGRAM has logged of one metric, each number once."""
    return [(n, sign * float(n)) for n in range(to)]
