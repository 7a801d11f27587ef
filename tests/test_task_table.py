"""What became of each task is read from files that may be broken or hostile; nothing is executed."""

from __future__ import annotations

import os
import pickle
import re
from dataclasses import replace
from pathlib import Path

import pytest

from runctx import Run, lock
from runctx.errors import LedgerError, LockError, NoRunError, ResultError, TaskError
from runctx.layout import TaskFiles
from runctx.past.record import Record
from runctx.tasks import collect
from runctx.tasks.table import TaskTable
from tests.pastruns import ESCAPE, make_lock
from tests.test_display import CONTROL, tags_of


def invert(x: float) -> float:
    return 1 / x


def large(x: int) -> list[int]:
    return [x] * 10


class Unknown:
    """A class of the user's, which is not built without trust."""

    def __init__(self, x: int) -> None:
        self.x = x


@pytest.fixture
def past(tmp_path) -> Record:
    """A run that mapped twice: one task of `invert` failed."""
    with Run(stage="t", save_dir=tmp_path / "run", console=False) as run:
        run.map(invert, [1, 2, 0, 4], launcher="serial", on_error="return")
        run.map(large, [5, 6], launcher="serial")
    return Run.load(run.save_dir)


def rows_file(past: Record, name: str = "invert") -> Path:
    (file,) = TaskFiles(past.save_dir, name).done().iterdir()
    return file


def edit(file: Path, before: str, after: str) -> None:
    text = file.read_text()
    assert before in text
    file.write_text(text.replace(before, after))


class TestTable:
    def test_rows(self, past):
        """One row for each task of every map, in order, with what it gave and who ran it."""
        table = past.tasks
        assert [(row.map, row.task, row.status) for row in table] == [
            ("invert", "1", "done"),
            ("invert", "2", "done"),
            ("invert", "0", "failed"),
            ("invert", "4", "done"),
            ("large", "5", "done"),
            ("large", "6", "done"),
        ]
        assert [row.value for row in table["invert"]] == [1.0, 0.5, None, 0.25]
        assert all(row.seconds >= 0 and row.attempts == 1 and row.worker and row.host for row in table)
        assert all(row.started >= past.started for row in table[1:])
        failed = table[2].error
        assert (failed.type, failed.message) == ("builtins.ZeroDivisionError", "division by zero")
        assert "in invert" in failed.traceback
        assert all(row.bytes > 0 and row.value is None for row in table["large"])

    def test_parts(self, past):
        """One map, those that failed and a slice are tables again; counts add up."""
        table = past.tasks
        assert table.maps == ("invert", "large")
        assert table.counts == {"done": 5, "failed": 1}
        assert [row.task for row in table.failed] == ["0"] and isinstance(table[:2], TaskTable)
        assert len(table["large"]) == 2 and table["large"].maps == ("large",)
        with pytest.raises(KeyError, match="no map 'small': invert, large"):
            table["small"]

    def test_live(self, tmp_path):
        """A run that goes on has the table as well; what was not run is told as that."""
        with Run(stage="t", save_dir=tmp_path / "run", console=False) as run:
            assert len(run.tasks) == 0 and repr(run.tasks) == "no tasks"
            run.map(invert, [1], launcher="serial")
            assert run.tasks.counts == {"done": 1}
            with pytest.raises(TaskError):
                run.map(invert, [0, 1, 2], launcher="serial", on_error="stop")
            assert run.tasks["invert-2"].counts == {"failed": 1, "not run": 2}
            assert (run.tasks[-1].started, run.tasks[-1].attempts) == (None, 0)

    def test_attempts(self, tmp_path):
        """A task that was tried again is one row, of its last attempt."""
        with Run(stage="t", save_dir=tmp_path / "run", console=False) as run:
            run.map(invert, [0], launcher="serial", retries=2, on_error="return")
        (row,) = Run.load(run.save_dir).tasks
        assert (row.status, row.attempts) == ("failed", 3)
        assert re.search(r"tries", repr(Run.load(run.save_dir).tasks))

    def test_tried_once(self, past):
        """A task of which only the first of two attempts is known counts as not run, in the lock as in the table."""
        edit(rows_file(past), '"status":"failed"', '"status":"retried"')
        entry = past.lock.tasks[0]
        told = collect.fold(past.lock, past.save_dir, entry).entry
        counts = past.tasks["invert"].counts
        assert (told.done, told.failed, told.failed_keys) == (counts["done"], 0, ())
        assert (counts["retried"], "failed" in counts) == (1, False)
        assert told.total - told.done == counts["retried"]

    def test_pandas(self, past):
        """One line per task."""
        frame = past.tasks.to_pandas()
        assert list(frame["task"]) == ["1", "2", "0", "4", "5", "6"]
        assert frame["error"][2] == "builtins.ZeroDivisionError: division by zero"
        assert [row["task"] for row in past.tasks.to_dicts()] == list(frame["task"])

    def test_no_folder(self):
        """Of a run whose folder is gone there is no table."""
        with pytest.raises(NoRunError):
            _ = Record(None, make_lock()).tasks


class TestShown:
    def test_all(self, past):
        """A short table has all tasks in order, and the map where there are several."""
        lines = repr(past.tasks).splitlines()
        assert lines[0].split() == ["map", "task", "status", "took", "worker", "value", "or", "error"]
        assert [line.split()[:3] for line in lines[1:4]] == [
            ["invert", "1", "done"],
            ["invert", "2", "done"],
            ["invert", "0", "failed"],
        ]
        assert lines[3].endswith("ZeroDivisionError: division by zero")
        assert lines[-1] == "6 tasks: 5 done, 1 failed"

    def test_bounded(self, tmp_path):
        """Of many tasks those that failed are shown first, and how many are not shown."""
        with Run(stage="t", save_dir=tmp_path / "run", console=False) as run:
            run.map(invert, [1, 2] * 40 + [0], launcher="serial", on_error="return")
        lines = repr(run.tasks).splitlines()
        assert lines[1].split()[:2] == ["0", "failed"] and lines[2].split()[:2] == ["1", "done"]
        assert len(lines) == 1 + 1 + 10 + 1
        assert lines[-1] == "81 tasks: 80 done, 1 failed; 70 are not shown"

    def test_page(self, past):
        """In a notebook it is a table, with the status in its colour."""
        text = past.tasks._repr_html_()
        assert tags_of(text).count("tr") == 7 and "division by zero" in text

    def test_hostile(self, tmp_path):
        """What a task says of itself steers neither terminal nor page."""

        def fail(task: str) -> None:
            raise ValueError(task)

        with Run(stage="t", save_dir=tmp_path / "run", console=False) as run:
            run.map(fail, [ESCAPE], launcher="serial", on_error="return")
        edit(TaskFiles(run.save_dir, "fail").todo, '"task":"', '"task":"\\u001b[2J<script>')
        assert not CONTROL.search(repr(run.tasks)) and "\\x1b[2J" in repr(run.tasks)
        tags_of(run.tasks._repr_html_())


class TestResults:
    def test_lazy(self, past):
        """Results are read by the map's name, each when it is asked for."""
        found = past.results("invert")
        assert (found[0], found[3], len(found)) == (1.0, 0.25, 4)
        assert isinstance(found[2], ZeroDivisionError)
        assert past.results("large") == [[5] * 10, [6] * 10]

    def test_names(self, past, tmp_path):
        """Of several maps one must be named; of one it need not be; an unknown one is an error that names all."""
        with pytest.raises(ResultError, match=r"several maps\nhint: name one: 'invert', 'large'"):
            past.results()
        with pytest.raises(ResultError, match="no map 'small'"):
            past.results("small")
        with Run(stage="t", save_dir=tmp_path / "one", console=False) as run:
            with pytest.raises(ResultError, match="has no results"):
                Run.load(run.save_dir).results()
            run.map(large, [1], launcher="serial")
        assert Run.load(run.save_dir).results() == [[1] * 10]

    def test_trust(self, tmp_path):
        """What is no plain data is built only for who trusts it."""
        with Run(stage="t", save_dir=tmp_path / "run", console=False) as run:
            run.map(Unknown, [7], launcher="serial")
        record = Run.load(run.save_dir)
        with pytest.raises(ResultError):
            record.results()[0]
        assert record.results(trusted=True)[0].x == 7

    def test_nothing_is_executed(self, past, tmp_path):
        """Results that were replaced by code do not run it."""
        (file,) = (past.save_dir / "tasks/large/results").iterdir()

        class Evil:
            def __reduce__(self):
                return os.mkdir, (str(tmp_path / "owned"),)

        at = past.tasks["large"][0].bytes
        file.write_bytes(pickle.dumps(Evil())[:at].ljust(at, b".") + file.read_bytes()[at:])
        assert len(past.tasks) == 6
        with pytest.raises(ResultError):
            past.results("large")[0]
        assert not (tmp_path / "owned").exists()

    def test_damaged(self, past):
        """A result whose bytes were changed is not passed for the one that its row names."""
        (file,) = (past.save_dir / "tasks/large/results").iterdir()
        data = file.read_bytes()
        assert data.count(b"\x05") == 10
        file.write_bytes(data.replace(b"\x05", b"\x07", 1))
        with pytest.raises(ResultError, match="does not match its row"):
            past.results("large")[0]
        assert past.results("large", trusted=True)[0] == [7] + [5] * 9

    def test_larger_than_memory(self, past):
        """A row that names more bytes than there are is refused before memory is taken for them."""
        edit(rows_file(past, "large"), '"at":[0,', '"at":[0,1' + "0" * 15)
        assert past.tasks["large"][0].bytes > 10**15
        with pytest.raises(LedgerError, match="ends before the result"):
            past.results("large")[0]


class TestBroken:
    def test_line(self, past):
        """A row that is none gives an error with file and line."""
        file = rows_file(past)
        edit(file, '"status":"failed"', '"status":"perhaps"')
        with pytest.raises(LedgerError, match=f"{re.escape(str(file))}: line 4 is no row: .*perhaps"):
            _ = past.tasks

    @pytest.mark.parametrize("value", ['"value":[1]', '"started":1e300,"value":1'])
    def test_value(self, past, value):
        """A value that no worker writes, too, names the file."""
        edit(rows_file(past), '"value":0.5', value)
        with pytest.raises(LedgerError, match=re.escape(str(rows_file(past)))):
            _ = past.tasks

    def test_torn(self, past):
        """The last line, if it is not complete, was never written."""
        file = rows_file(past)
        file.write_bytes(file.read_bytes()[:-5])
        assert [row.status for row in past.tasks["invert"]] == ["done", "done", "failed", "not run"]

    def test_missing(self, past):
        """Without the list of tasks there is an error that names it."""
        files = TaskFiles(past.save_dir, "invert")
        files.todo.unlink()
        with pytest.raises(LedgerError, match=re.escape(str(files.todo))):
            _ = past.tasks

    def test_pipes(self, past):
        """A pipe or folder in the place of a file blocks nobody."""
        os.mkfifo(TaskFiles(past.save_dir, "invert").done("pipe"))
        TaskFiles(past.save_dir, "invert").done("folder").mkdir()
        assert len(past.tasks) == 6
        todo = TaskFiles(past.save_dir, "invert").todo
        todo.unlink()
        os.mkfifo(todo)
        with pytest.raises(LedgerError, match="not a regular file"):
            _ = past.tasks

    @pytest.mark.parametrize("name", ["../../elsewhere", "/etc", "a\0b", "", "..", "x/y", "x" * 300])
    def test_name(self, past, name):
        """No path that a lock gives leads out of its folder."""
        entry = replace(past.lock.tasks[0], name=name)
        lock.write(past.save_dir / "run.lock", replace(past.lock, tasks=(entry,)))
        with pytest.raises(LockError, match="cannot be the name of a map"):
            _ = Run.load(past.save_dir).tasks
        assert Run.load(past.save_dir)._repr_html_()


class TestAltered:
    def test_untouched(self, past):
        """Rows are those that the lock was sealed with."""
        assert past.tasks.altered == ()
        assert repr(past.tasks).count("sealed") == 0

    def test_edited(self, past):
        """Where they are not, the table says so, and results are refused."""
        digest = past.tasks[1].digest
        edit(rows_file(past), digest, "blake3:" + "0" * 32)
        assert past.tasks.altered == ("invert",) and past.tasks["large"].altered == ()
        assert "the rows of invert were changed after the lock was sealed" in repr(past.tasks)
        with pytest.raises(LedgerError, match="the rows differ from those that the lock was sealed with"):
            past.results("invert")
        assert past.results("large")[0] == [5] * 10

    def test_not_sealed_yet(self, past):
        """Of a run that goes on, rows come later than its lock."""
        lock.write(past.save_dir / "run.lock", replace(past.lock, status="submitted"))
        edit(rows_file(past), past.tasks[1].digest, "blake3:" + "0" * 32)
        assert Run.load(past.save_dir).tasks.altered == ()


def test_a_folder_of_the_user(tmp_path):
    """The folder of a map is no output; what a user saves in a folder of that name is told of, with maps or without."""
    with Run(stage="t", save_dir=tmp_path / "mapped", console=False) as run:
        run.map(invert, [1], launcher="serial")
        (run.save_dir / "tasks/mine.csv").write_text("1")
    assert [o.what for o in run.omissions if "own files" in o.why] == ["tasks/mine.csv"]
    assert run.outputs == ()
    with Run(stage="t", save_dir=tmp_path / "bare", console=False) as run:
        (run.save_dir / "tasks").mkdir()
    assert [o.what for o in run.omissions if "own files" in o.why] == ["tasks"]
