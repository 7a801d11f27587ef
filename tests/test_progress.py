"""A map that goes on is seen: by a bar beside it, and by `runctx status` from any other process."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import msgspec
import nbclient
import nbformat
import pytest

from runctx import Run, lock
from runctx.errors import LedgerError, TaskError
from runctx.layout import TaskFiles
from runctx.tasks.ledger import Author, Fault, Row, Writer
from runctx.tasks.progress import MapStatus, Tally, Watched
from tests.pastruns import make_lock, write_run
from tests.test_cli import MAIN, told
from tests.test_display import MAPPED
from tests.test_kernel import Kernel, inherited

PATIENCE = 100.0
"""Seconds after which something will not come any more."""

PROGRAM = """
import sys, time
from pathlib import Path
from runctx import Run

folder = Path(sys.argv[1])

def work(task):
    if task == 1:
        raise ValueError("no luck")
    while task > 2 and not (folder / "go").exists():
        time.sleep(0.01)
    return task

if __name__ == "__main__":
    with Run(stage="slow", save_dir=folder / "run") as run:
        run.map(work, range(8), launcher="threading", n_jobs=2, on_error="return")
    print("over")
"""
"""Three tasks are over at once, one of which fails; the others wait for a file."""


def eventually(ask: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not ask():
        assert time.monotonic() < end
        time.sleep(0.02)


@contextmanager
def going_on(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process whose map has come to the tasks that wait."""
    (folder / "slow.py").write_text(PROGRAM)
    arguments = [sys.executable, str(folder / "slow.py"), str(folder)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as child:
        try:
            eventually(lambda: (folder / "run/run.lock").exists())
            eventually(lambda: [(one.done, one.failed) for one in seen(folder)] == [(2, 1)])
            eventually(lambda: seen(folder)[0].in_work >= 2)
            yield child
        finally:
            child.kill()


def seen(folder: Path) -> list[MapStatus]:
    return Watched(folder / "run").look(lock.read(folder / "run"))


class TestStatus:
    def test_map_that_goes_on(self, tmp_path):
        """From the files alone: what is done, failed, in work and left, how fast, by whom, and what went wrong last."""
        with going_on(tmp_path) as child:
            (one,) = seen(tmp_path)
            assert (one.name, one.total, one.in_work + one.left) == ("work", 8, 5)
            assert one.rate > 0 and one.seconds_left > 0 and one.workers == 2
            (shift,) = one.shifts
            assert (shift.state, shift.pid, shift.workers) == ("working", child.pid, 2)
            assert [(f.task, f.type, f.message) for f in one.failures] == [
                ("1", "builtins.ValueError", "no luck")
            ]
            assert "2 of 8 done (25 %), 1 failed, " in told("status", str(tmp_path / "run"))
            (tmp_path / "go").touch()
            assert child.communicate(timeout=PATIENCE)[0] == "over\n"
        (one,) = seen(tmp_path)
        assert (one.done, one.failed, one.in_work, one.left, one.shifts) == (7, 1, 0, 0, ())

    def test_killed(self, tmp_path):
        """Where all were killed it is seen that nobody works any more, and no time is foretold."""
        with going_on(tmp_path) as child:
            child.send_signal(signal.SIGKILL)
            child.wait()
            (one,) = seen(tmp_path)
            assert (one.done, one.failed, one.in_work + one.left) == (2, 1, 5)
            assert (one.workers, one.seconds_left, one.shifts[0].state) == (0, None, "gone")
            assert "crashed" in told("status", str(tmp_path / "run")).splitlines()[0]

    def test_watch(self, tmp_path):
        """Watching ends with the run; for programs each look is a line."""
        with going_on(tmp_path) as child:
            command = [*MAIN, "status", "--watch", "--json", str(tmp_path / "run")]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watching:
                assert watching.stdout is not None
                first = json.loads(watching.stdout.readline())
                (tmp_path / "go").touch()
                child.communicate(timeout=PATIENCE)
                *_, last = map(json.loads, watching.stdout)
                assert watching.wait(PATIENCE) == 0
        assert (first["status"], first["maps"][0]["done"]) == ("running", 2)
        assert (last["status"], last["maps"][0]["done"], last["maps"][0]["left"]) == ("done", 7, 0)

    def test_watch_in_a_terminal(self, tmp_path):
        """There it is drawn in one place, and ends with the run."""
        with Run(stage="t", save_dir=tmp_path / "run", console=False) as run:
            run.map(abs, [1, 2], launcher="serial")
        text = in_a_terminal([*MAIN, "status", "--watch", str(run.save_dir)])
        assert "2 of 2 done (100 %)" in text and text.endswith("\x1b[?25h"), "the cursor is there again"

    def test_resumed(self, tmp_path):
        """What failed before, and is to be done again, is not told as failed."""
        with pytest.raises(TaskError), Run(stage="t", save_dir=tmp_path / "run", console=False) as run:
            run.map(lambda x: 1 / x, [0, 1], launcher="serial")
        states = []

        class Looking:
            name, in_process, waits = "looking", True, True

            def launch(self, plan):
                return self

            def wait(self):
                states.extend(seen(tmp_path))

        with pytest.raises(TaskError), Run(stage="t", resume=run.save_dir, console=False) as again:
            again.map(lambda x: 1 / x, [0, 1], launcher=Looking())
        (one,) = states
        assert (one.total, one.done, one.failed, one.in_work, one.left) == (2, 1, 0, 0, 1)

    @pytest.mark.parametrize("status", ["done", "failed", "interrupted"])
    def test_ended(self, tmp_path, status):
        """Of a run that has ended it is what the lock says."""
        folder = write_run(tmp_path, make_lock(status=status, tasks=(MAPPED, replace(MAPPED, name="main-2"))))
        one, other = Watched(folder).look(lock.read(folder))
        assert (one.name, one.total, one.done, one.failed, one.left, other.name) == (
            "main",
            9,
            6,
            2,
            1,
            "main-2",
        )
        shown = told("status", str(folder))
        assert "main  6 of 9 done (66 %), 2 failed, 1 left" in shown and "abababababababab" in shown
        plain = json.loads(told("status", "--json", str(folder)))
        assert (plain["status"], [one["name"] for one in plain["maps"]]) == (status, ["main", "main-2"])

    def test_without_tasks(self, tmp_path):
        """A run without a map says so."""
        assert "no tasks" in told("status", str(write_run(tmp_path, make_lock())))

    def test_broken(self, tmp_path):
        """A broken ledger of a map that goes on is an error that names the file."""
        with going_on(tmp_path):
            claims = TaskFiles(tmp_path / "run", "work").claims
            (claims / "999999").touch()
            entry = next(f for f in sorted(claims.iterdir()) if f.name.isdigit())
            entry.write_bytes(b"{")
            with pytest.raises(LedgerError, match=re.escape(str(entry))):
                seen(tmp_path)


# -- the bar -----------------------------------------------------------------------------------------------


def in_a_terminal(command: list[str], interrupt_at: str = "") -> str:
    """What a process writes to its terminal; Ctrl-C is pressed once that text has been seen."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update(TERM="xterm-256color", COLUMNS="100")
        os.execv(command[0], command)
    text, end = b"", time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if select.select([terminal], [], [], 0.1)[0]:
            try:
                text += os.read(terminal, 100_000)
            except OSError:  # nobody is left at the other end
                break
        if interrupt_at and interrupt_at.encode() in text:
            os.write(terminal, b"\x03")
            interrupt_at = ""
    else:
        os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(terminal)
    return text.decode()


def bar_program(folder: Path, tasks: int, options: str = "") -> list[str]:
    """A map whose tasks are over once the bar was seen to tell of three of them."""
    (folder / "bar.py").write_text(
        PROGRAM.replace("from runctx import Run", "from runctx import Run\nfrom runctx.tasks import progress")
        .replace("folder = ", "progress.PATIENCE, progress._PACE = 0.0, 0.02\nfolder = ")
        .replace("range(8)", f"range({tasks})")
        .replace('folder / "run"', f'folder / "run"{options}')
    )
    return [sys.executable, str(folder / "bar.py"), str(folder)]


class TestBar:
    def test_terminal(self, tmp_path):
        """In a terminal it tells what is done and what failed; Ctrl-C leaves a clean line, and the run interrupted."""
        text = in_a_terminal(bar_program(tmp_path, 8), interrupt_at="3/8, 1 failed")
        assert "work:  38%|" in text and "3/8, 1 failed" in text
        drawn = text.rpartition("/8")[2]
        assert re.search(r"\r +\r", drawn), "the bar is wiped out"
        assert "Traceback" in drawn and lock.read(tmp_path / "run").status == "interrupted"
        assert "/8" not in (tmp_path / "run/run.log").read_text()

    def test_pipe(self, tmp_path):
        """A file or pipe gets no bar, nor does who wants none on the console."""
        (tmp_path / "go").touch()
        done = subprocess.run(bar_program(tmp_path, 8), capture_output=True, text=True, timeout=PATIENCE)
        assert done.stdout == "over\n" and "/8" not in done.stderr
        text = in_a_terminal(bar_program(tmp_path, 8, ", console=False"))
        assert text.replace("\r", "") == "over\n"

    def test_notebook(self, tmp_path):
        """In a notebook there is a bar, too; where ipywidgets is missing, one of letters, and no warning."""
        (tmp_path / "project").mkdir()
        kernel = Kernel(tmp_path / "project")
        try:
            kernel.run(
                "import sys, warnings; sys.modules['ipywidgets'] = None; warnings.simplefilter('error')"
            )
            kernel.run("from runctx import Run; from runctx.tasks import progress; import time")
            kernel.run("progress.PATIENCE, progress._PACE = 0.0, 0.02")
            tasks = "[0.1, 0.2, 0.3, 0.4]"
            cell = f"with Run(stage='t') as run: run.map(time.sleep, {tasks}, launcher='threading', n_jobs=1)"
            shown = kernel.run(cell)
        finally:
            kernel.stop(kill=True)
        assert not shown.error and "Warning" not in shown.stderr.replace("WARNING", "")
        assert re.search(r"sleep: +\d+%\|", shown.stderr)

    def test_stored_notebook(self, tmp_path):
        """A notebook keeps a bar that is complete: the last tasks are shown before the widget is closed."""
        cell = f"""
            import time
            from runctx import Run
            from runctx.tasks import progress
            progress.PATIENCE, progress._PACE = 0.0, 100.0
            with Run(stage="t", save_dir={str(tmp_path / "run")!r}) as run:
                run.map(time.sleep, [0.1] * 12, launcher="threading", n_jobs=1)
            """
        book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(textwrap.dedent(cell))])
        nbclient.NotebookClient(book, timeout=PATIENCE, kernel_name="python3").execute(env=inherited())
        (shown,) = [output.data for output in book.cells[0].outputs if output.output_type == "display_data"]
        assert "12/12" in shown["text/plain"]
        state = book.metadata.widgets["application/vnd.jupyter.widget-state+json"]["state"]
        (bar,) = [one["state"] for one in state.values() if one["model_name"] == "FloatProgressModel"]
        assert (bar["value"], bar["max"], bar["bar_style"]) == (12, 12, "success")


class TestTally:
    @pytest.fixture
    def files(self, tmp_path) -> TaskFiles:
        return TaskFiles(tmp_path, "m")

    def written(self, files: TaskFiles, worker: str, *states: str) -> None:
        writer = Writer(files, Author(worker=worker, shift="s", host="h", pid=1, started=0.0))
        for state in states:
            fault = Fault(type="E", message=',"status":"done",', traceback='{"status":"failed",')
            error = None if state == "done" else fault
            writer.add(Row(key="0" * 16, status=state, started=0.0, seconds=0.0, error=error))
        writer.close()

    def test_counts(self, files):
        """Rows are counted as they come, whatever their texts say; those of earlier sessions are not."""
        self.written(files, "a", "done", "failed")
        tally = Tally(files)
        self.written(files, "b", "done", "retried", "failed", "done")
        tally.read_on()
        tally.read_on()
        assert (tally.done, tally.failed) == (2, 1)

    def test_torn(self, files):
        """A row counts once it is whole."""
        tally = Tally(files)
        self.written(files, "a", "done")
        row = msgspec.json.encode(Row(key="0" * 16, status="done", started=0.0, seconds=0.0)) + b"\n"
        file = files.done("a")
        for part, expected in ((row[:-1], 1), (row[-1:], 2)):
            with open(file, "ab") as stream:
                stream.write(part)
            tally.read_on()
            assert tally.done == expected

    def test_long(self, files):
        """A file is read piece by piece; a row longer than a piece holds nothing up."""
        tally = Tally(files)
        self.written(files, "a", "done")
        with open(files.done("a"), "ab") as stream:
            stream.write(b'{"key":"1","status":"failed","message":"' + b"x" * (3 << 20) + b'"}\n')
            stream.write(b'{"key":"1","status":"done",}\n' * 100_000)
        tally.read_on()
        assert (tally.done, tally.failed) == (100_001, 1)

    def test_nothing_there(self, files):
        """Before the first row there is nothing to count, and no error."""
        tally = Tally(files)
        tally.read_on()
        assert (tally.done, tally.failed) == (0, 0)
