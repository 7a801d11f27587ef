"""Programs that map tasks over Slurm jobs, as a user would write them: each in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from runctx.layout import TaskFiles
from runctx.tasks.shifts import jobs_of
from tests.slurm.cluster import until

WORK = '''\
"""What tasks do. Each is [number, seconds, folder]: it leaves a byte in a file of its own, and takes its time."""

import multiprocessing
import os
import signal
import subprocess
import time

VERSION = "submitted"


def mark(task):
    number, _, folder = task
    with open(f"{folder}/{number}", "ab") as file:
        file.write(b"x")
        return file.tell()


def work(task):
    mark(task)
    time.sleep(task[1])
    return task[0]


def share(task):
    """Waits until two jobs are at work."""
    mark(task)
    met = os.path.join(os.path.dirname(task[2]), "met")
    os.makedirs(met, exist_ok=True)
    open(os.path.join(met, os.environ["SLURM_JOB_ID"]), "a").close()
    while len(os.listdir(met)) < 2:
        time.sleep(0.02)
    return task[0]


def version(task):
    mark(task)
    import late

    return [VERSION, late.VERSION]


def fail(task):
    work(task)
    if task[0] % 3 == 0:
        raise Peculiar(task[0], "of no use")
    return task[0]


def leave(task):
    work(task)
    if task[0] == 2:
        os._exit(3)
    return task[0]


def too_long(task):
    mark(task)
    time.sleep(task[1] if task[0] else 600)
    return task[0]


def children(task):
    """Starts processes in each of the usual ways, and ends some by SIGTERM."""
    ended = []
    for method in ("fork", "spawn", "forkserver"):
        for seconds in (0, 600):
            child = multiprocessing.get_context(method).Process(target=time.sleep, args=(seconds,))
            child.start()
            if seconds:
                child.terminate()
            child.join()
            ended.append(child.exitcode)
    with multiprocessing.Pool(2) as pool:  # which it leaves by `terminate`
        ended.append(pool.apply(abs, (-1,)))
    program = subprocess.Popen(["sleep", "600"])
    program.terminate()
    return [*ended, program.wait()]


def kill_job(task):
    work(task)
    if task[0] == 2:
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)
    return task[0]


def kill_job_once(task):
    if task[0] == 2 and mark(task) == 1:
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)
    return task[0]


class Peculiar(Exception):
    def __init__(self, number, words):
        super().__init__(f"{number} is {words}")
        self.number = number
'''

PROGRAM = """\
import json
import sys

import work
from runctx import Run
from runctx.launchers import Slurm

VERSION = "submitted"


def own(task):
    return [VERSION, *work.version(task)]


if __name__ == "__main__":
    order = json.loads(sys.argv[1])
    function = own if order["function"] == "own" else getattr(work, order["function"])
    with Run(stage="map", console=False, **order["run"]) as run:
        results = run.map(function, order["tasks"], launcher=Slurm(**order["slurm"]), **order["options"])
        if order["slurm"].get("wait", True):
            print(json.dumps(list(results)))
"""


class Project:
    """A repository with the program, and the runs that it makes, each in a folder of its own.

    Parameters
    ----------
    folder: for both; jobs whose output is below it are those of the test.
    """

    def __init__(self, folder: Path, git: bool = True) -> None:
        self.folder, self.code = folder, folder / "code"
        self.code.mkdir(parents=True)
        self.write(work=WORK, program=PROGRAM, late='VERSION = "submitted"\n')
        if git:
            for arguments in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "first"]):
                subprocess.run(["git", *arguments], cwd=self.code, check=True)

    def write(self, **modules: str) -> None:
        for name, text in modules.items():
            (self.code / f"{name}.py").write_text(text)

    def start(
        self,
        name: str,
        function: str = "work",
        *,
        tasks: int,
        seconds: float = 0.0,
        run: dict[str, Any] | None = None,
        options: dict[str, Any] | None = None,
        environment: dict[str, str] | None = None,
        **slurm: Any,
    ) -> Program:
        """Start the program; it maps a function of `work` and goes on by itself."""
        place = self.folder / name
        marks = place / "marks"
        marks.mkdir(parents=True, exist_ok=True)
        order = {
            "function": function,
            "tasks": [[number, seconds, str(marks)] for number in range(tasks)],
            "run": run or {"save_dir": str(place / "run")},
            "slurm": {"time": 5, **slurm},
            "options": options or {},
        }
        with (place / "stdout").open("w") as stdout, (place / "stderr").open("w") as stderr:
            process = subprocess.Popen(
                [sys.executable, "program.py", json.dumps(order)],
                cwd=self.code,
                env=os.environ | (environment or {}),
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )
        return Program(place, process, function)


class Program:
    """One run, as its files tell it."""

    def __init__(self, place: Path, process: subprocess.Popen[bytes], function: str) -> None:
        self.place, self.process = place, process
        self.save_dir = place / "run"
        self.files = TaskFiles(self.save_dir, function)

    def wait(self, seconds: float = 300) -> int:
        return self.process.wait(seconds)

    def results(self) -> Any:
        """What the map gave; it must have gone well."""
        code = self.wait()
        assert code == 0, self.said()
        return json.loads((self.place / "stdout").read_text())

    def said(self) -> str:
        return (self.place / "stderr").read_text()

    def until(self, condition: Callable[[], object], seconds: float = 120, *, what: str) -> None:
        """Wait until it holds, but not longer than the program runs."""
        until(lambda: condition() or self.process.poll() is not None, seconds, what=what)
        assert condition(), f"the program ended before {what}: {self.said()}"

    def jobs(self) -> list[str]:
        """Submitted so far, while the map goes on."""
        return sorted(jobs_of(self.files), key=lambda job: [int(part) for part in job.split("_")])

    def authors(self) -> list[dict[str, Any]]:
        """Workers that have written rows."""
        return [lines[0] for lines in self._written()]

    def rows(self, status: str = "done") -> list[dict[str, Any]]:
        return [row for lines in self._written() for row in lines[1:] if row["status"] == status]

    def shifts(self) -> set[str]:
        """Shifts whose workers have written rows."""
        return {author["shift"] for author in self.authors()}

    def _written(self) -> list[list[dict[str, Any]]]:
        texts = [path.read_text() for path in sorted(self.files.done().glob("*.jsonl"))]
        return [[json.loads(line) for line in text.split("\n")[:-1]] for text in texts if "\n" in text]

    def begun(self) -> Counter[int]:
        """How often each task was begun."""
        return Counter({int(path.name): path.stat().st_size for path in (self.place / "marks").iterdir()})

    def check_each_once(self, tasks: int, begun_twice: int = 0) -> None:
        """Every task has one row, and was begun once; more often only so many, that were taken from their workers."""
        assert sorted(Counter(row["key"] for row in self.rows()).values()) == [1] * tasks
        again = sum(count - 1 for count in self.begun().values())
        assert set(self.begun()) == set(range(tasks))
        assert again <= begun_twice, self.begun()
