"""Test that a launcher does what `run.map` relies on."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from ..errors import TaskError, WorkerDiedError
from ..launchers import Launcher
from ..model import Tasks
from ..run import Run


class LauncherContract:
    """What every launcher promises; a subclass says how one is made, and pytest does the rest.

    `launcher` is the one thing to write. `folder` is to be replaced where workers do not see `tmp_path`, and
    `survives_deaths` is to be set where workers are processes whose death costs no more than the task they are at.

    >>> from runctx.launchers import Joblib
    >>> class TestTwoProcesses(LauncherContract):
    ...     survives_deaths = True
    ...
    ...     def launcher(self):
    ...         return Joblib(n_jobs=2)
    """

    survives_deaths = False
    """Whether the death of a worker is one failed task, and not the end of the test."""

    def launcher(self) -> Launcher:
        """A launcher that waits for its tasks, ready for use; made anew for each map."""
        raise NotImplementedError

    @pytest.fixture
    def folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """An empty folder that workers see, outside any repository: runs go there."""
        monkeypatch.chdir(tmp_path)
        return tmp_path

    def run(self, folder: Path, **more: Any) -> Run:
        """The run that maps, not entered yet."""
        where = more if "resume" in more else {"save_dir": folder / "run", **more}
        return Run(stage="contract", console=False, **where)

    @pytest.mark.parametrize("kind", ["many", "none", "closure", "lambda", "large"])
    def test_results_are_in_the_order_of_the_tasks(self, folder: Path, kind: str) -> None:
        """Whatever function and results: each is there, as what it was, where its task stood; the lock counts them."""
        factor = 3

        def times(x: int) -> int:
            return factor * x

        function, tasks, wanted = {
            "many": (_double, range(60), [2 * x for x in range(60)]),
            "none": (_double, [], []),
            "closure": (times, [1, 2], [3, 6]),
            "lambda": (lambda x: x - factor, [1, 2], [-2, -1]),
            "large": (_collected, [1, 300_000], [(bytes(n), {"n": [n]}) for n in (1, 300_000)]),
        }[kind]
        with self.run(folder) as run:
            assert list(run.map(function, tasks, launcher=self.launcher())) == wanted
        assert run.status == "done"
        for entry in run.lock.tasks:
            assert (entry.total, entry.done, entry.failed) == (len(wanted), len(wanted), 0)
            assert entry.launcher == self.launcher().name

    def test_two_maps_of_a_run_are_apart(self, folder: Path) -> None:
        """The same function mapped twice has two entries in the lock, and results of its own."""
        with self.run(folder) as run:
            first = run.map(_double, [1, 2], launcher=self.launcher())
            second = run.map(_double, [1, 5], launcher=self.launcher())
            assert (list(first), list(second)) == ([2, 4], [2, 10])
        assert [entry.name for entry in run.lock.tasks] == ["_double", "_double-2"]

    def test_failures_are_told_and_the_rest_is_done(self, folder: Path) -> None:
        """One error lists what failed, of the class it had, and holds the results of all others."""
        with self.run(folder) as run:
            with pytest.raises(TaskError, match="2 of 12 tasks failed") as caught:
                run.map(_odd_ones, range(12), launcher=self.launcher())
            results = list(caught.value.results)
        assert [str(result) if x in (3, 7) else result for x, result in enumerate(results)] == [
            f"{x} is odd" if x in (3, 7) else x for x in range(12)
        ]
        assert isinstance(caught.value.__cause__, ValueError)
        entry = _only_map(run)
        assert (entry.done, entry.failed, len(entry.failed_keys)) == (10, 2, 2)

    @pytest.mark.parametrize(
        ("task", "kind", "text"),
        [(1, SystemExit, "3"), (2, Exception, "cannot be pickled"), (3, ValueError, "3")],
    )
    def test_failures_of_every_kind_can_be_returned(
        self, folder: Path, task: int, kind: type[BaseException], text: str
    ) -> None:
        """An error, `sys.exit` and a result that cannot be pickled are failures of their tasks, and of no others."""
        with self.run(folder) as run:
            results = run.map(_ends_oddly, [0, task, 5], launcher=self.launcher(), on_error="return")
            assert (results[0], results[2]) == (0, 5)
            assert isinstance(results[1], kind)
            assert text in str(results[1])

    def test_tracebacks_name_the_file_and_quote_the_line(self, folder: Path) -> None:
        """A function that travels by value fails in the file and line where it was written."""

        def fails(x: int) -> None:
            raise ValueError(x)  # here

        with self.run(folder) as run:
            results = run.map(fails, [1], launcher=self.launcher(), on_error="return")
            told = str(results[0].__cause__)
        line = fails.__code__.co_firstlineno + 1
        assert f'File "{__file__}", line {line}, in fails' in told
        assert "raise ValueError(x)  # here" in told

    def test_the_first_failure_can_end_the_map(self, folder: Path) -> None:
        """`on_error="stop"` begins no more tasks; a resumed run does the rest, and nothing that was done."""
        tasks = [os.fspath(folder / f"ran-{number}") for number in range(40)]
        with pytest.raises(TaskError), self.run(folder) as run:
            run.map(_not_before_mended, tasks, launcher=self.launcher(), on_error="stop")
        entry = _only_map(run)
        assert entry.failed >= 1
        assert entry.done + entry.failed <= entry.total
        (folder / "mended").touch()
        with self.run(folder, resume=folder / "run") as again:
            assert list(again.map(_not_before_mended, tasks, launcher=self.launcher())) == tasks
        assert (_only_map(again).done, _only_map(again).failed) == (40, 0)
        assert {Path(task).read_text() for task in tasks} == {"x"}

    def test_failed_tasks_are_tried_again(self, folder: Path) -> None:
        """`retries` gives a task another chance, and what it gives then counts."""
        tasks = [os.fspath(folder / f"tried-{number}") for number in range(4)]
        with self.run(folder) as run:
            assert list(run.map(_second_time, tasks, launcher=self.launcher(), retries=1)) == ["ok"] * 4
        assert (_only_map(run).done, _only_map(run).failed) == (4, 0)

    def test_the_death_of_a_worker_is_a_failed_task(self, folder: Path) -> None:
        """A worker that is killed takes the task with it that it was at, and no other."""
        if not self.survives_deaths:
            return
        with self.run(folder) as run:
            results = list(run.map(_die, range(8), launcher=self.launcher(), on_error="return"))
        assert isinstance(results.pop(5), WorkerDiedError)
        assert results == [0, 1, 2, 3, 4, 6, 7]
        assert (_only_map(run).done, _only_map(run).failed) == (7, 1)

    def test_a_run_in_a_task_joins_the_run_that_maps(self, folder: Path) -> None:
        """It has the same folder and no lock of its own, what it logs arrives, and `into` sets a key for each task."""
        with Run({"lr": 0.1, "data": {"size": 1}}, save_dir=folder / "run", console=False) as run:
            places = run.map(_run_inside, ["a", "b"], launcher=self.launcher())
            assert set(places) == {os.fspath(run.save_dir)}
            results = run.map(_configured, [1, 2], into="data.size", launcher=self.launcher())
            assert list(results) == [0.1, 0.2]
        logs = "".join(path.read_text() for path in sorted(run.save_dir.rglob("*.log")))
        assert "this is a" in logs
        assert "this is b" in logs
        assert len(list(folder.rglob("run.lock"))) == 1


def _only_map(run: Run) -> Tasks:
    (entry,) = run.lock.tasks
    return entry


def _double(x: int) -> int:
    return 2 * x


def _collected(n: int) -> tuple[bytes, dict[str, list[int]]]:
    return bytes(n), {"n": [n]}


def _odd_ones(x: int) -> int:
    if x in (3, 7):
        raise ValueError(f"{x} is odd")
    return x


def _not_before_mended(task: str) -> str:
    if task.endswith("ran-3") and not Path(task).with_name("mended").exists():
        raise ValueError("not yet")
    with open(task, "a") as stream:
        stream.write("x")
    return task


def _second_time(task: str) -> str:
    if not Path(task).exists():
        Path(task).touch()
        raise ValueError("the first time")
    return "ok"


def _ends_oddly(x: int) -> Any:
    if x == 1:
        raise SystemExit(3)
    if x == 3:
        raise ValueError(x)
    return (y for y in range(x)) if x == 2 else x


def _die(x: int) -> int:
    if x == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return x


def _run_inside(name: str) -> str:
    with Run({"name": name}) as run:
        run.logger.info("this is {}", run.cfg.name)
        return os.fspath(run.save_dir)


def _configured(cfg: Any) -> float:
    return float(round(cfg.lr * cfg.data.size, 6))
