"""Runs in a real Jupyter kernel: rerun, interrupted, debugged, killed."""

from __future__ import annotations

import os
import queue
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.manager import KernelManager

import runctx
from runctx import Run

PACKAGE = str(Path(runctx.__file__).parents[1])
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
PATIENCE = 60
"""Seconds to wait for a kernel on a busy machine."""


@dataclass
class Shown:
    """What a cell showed."""

    stdout: str = ""
    stderr: str = ""
    results: list[dict[str, Any]] = field(default_factory=list)
    """What the front end may choose from, by mime type."""
    error: str = ""
    """Type of the exception that ended the cell."""
    traceback: str = ""
    ended: bool = False

    @property
    def text(self) -> str:
        """The short text of the cell's last value."""
        return str(self.results[-1]["text/plain"])


class Kernel:
    """A real kernel, driven cell by cell as a front end does."""

    def __init__(self, folder: Path, **env: str) -> None:
        self.folder = folder
        self._shown: dict[str, Shown] = {}
        self._manager = KernelManager()
        self._manager.start_kernel(
            cwd=str(folder),
            env=inherited()
            | {"PYTHONPATH": PACKAGE, "IPYTHONDIR": str(folder.parent / "ipython"), "JPY_SESSION_NAME": ""}
            | env,
        )
        self._client = self._manager.blocking_client()
        self._client.start_channels()
        self._client.wait_for_ready(timeout=PATIENCE)

    def run(self, code: str, answers: tuple[str, ...] = ()) -> Shown:
        """Execute a cell; whatever it asks for with `input` gets these answers."""
        return self.wait(self.begin(code, stdin=bool(answers)), answers=answers)

    def hidden(self, code: str) -> None:
        """Execute code as an editor does for itself: neither shown nor counted."""
        self.wait(str(self._client.execute(code, silent=True, store_history=False)))

    def value(self, expression: str) -> Any:
        """What an expression gives in the kernel."""
        shown = self.run(expression)
        assert not shown.error, shown
        return eval(shown.text)

    def begin(self, code: str, *, stdin: bool = False) -> str:
        return str(self._client.execute(code, allow_stdin=stdin))

    def wait(
        self, request: str, until: Callable[[Shown], bool] | None = None, answers: tuple[str, ...] = ()
    ) -> Shown:
        """What the cell shows: to its end, or until enough was shown (some comes after the end)."""
        shown = self._shown.setdefault(request, Shown())
        pending = list(answers)
        while not (until(shown) if until else shown.ended):
            if pending and self._client.stdin_channel.msg_ready():
                self._client.get_stdin_msg(timeout=PATIENCE)
                self._client.input(pending.pop(0))
            try:
                self._take(self._client.get_iopub_msg(timeout=0.05 if pending else PATIENCE))
            except queue.Empty:
                assert pending, shown
        return shown

    def _take(self, message: dict[str, Any]) -> None:
        shown = self._shown.setdefault(message["parent_header"].get("msg_id", ""), Shown())
        kind, content = message["msg_type"], message["content"]
        if kind == "stream":
            text = getattr(shown, content["name"]) + COLOUR.sub("", content["text"])
            setattr(shown, content["name"], text)
        elif kind in ("execute_result", "display_data"):
            shown.results.append(content["data"])
        elif kind == "error":
            shown.error = content["ename"]
            shown.traceback = COLOUR.sub("", "\n".join(content["traceback"]))
        elif kind == "status":
            shown.ended = content["execution_state"] == "idle"

    def interrupt(self) -> None:
        self._manager.interrupt_kernel()

    def complete(self, code: str) -> list[str]:
        """What TAB offers after this code."""
        reply = self._client.complete(code, reply=True, timeout=PATIENCE)
        return list(reply["content"]["matches"])

    def stop(self, *, kill: bool = False) -> None:
        """As the front end's shut down does it; or SIGKILL."""
        self._client.stop_channels()
        if self._manager.has_kernel:
            self._manager.shutdown_kernel(now=kill)


def inherited() -> dict[str, str]:
    """The environment, save for what makes ipykernel behave otherwise under pytest than for a user."""
    return {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}


def project(folder: Path) -> Path:
    """A repository with a module and the notebook, in which the kernel works."""
    folder.mkdir()
    for name, text in {".gitignore": "/results/\n", "model.py": "depth = 1\n", "digits.ipynb": "{}"}.items():
        (folder / name).write_text(text)
    for arguments in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "first"]):
        subprocess.run(["git", *arguments], cwd=folder, check=True)
    return folder


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    """The kernel of `digits.ipynb`, shared by all tests that leave it usable."""
    folder = project(tmp_path_factory.mktemp("kernel") / "project")
    shared = Kernel(folder, JPY_SESSION_NAME=str(folder / "digits.ipynb"))
    shared.run("import asyncio, importlib, os, subprocess, sys, runctx\nfrom runctx import Run, runs")
    yield shared
    shared.stop()


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Kernel]:
    """A kernel of its own, whose front end told no name."""
    own = Kernel(project(tmp_path / "project"))
    own.run("from runctx import Run")
    yield own
    own.stop()


def load(kernel: Kernel, name: str = "run") -> Any:
    return Run.load(kernel.value(f"str({name}.save_dir)"))


class TestIdentity:
    def test_stage_of_a_notebook(self, kernel):
        """The notebook names the stage, and the command is the notebook."""
        kernel.run("with Run({'lr': 0.1}) as run:\n    pass")
        past = load(kernel)
        assert (past.stage, past.status) == ("digits", "done")
        assert (past.command.kind, past.command.entry) == ("notebook", "digits.ipynb")
        assert past.save_dir.parent == kernel.folder / "results/digits"

    @pytest.mark.parametrize(
        ("code", "stage"),
        [
            ("run = digit_stage.main()", "digit_stage"),
            ("run = importlib.reload(digit_stage).main()", "digit_stage"),
            ("%%time\nrun = digit_stage.main()", "digit_stage"),
            ("%run digit_stage.py", "digit_stage"),
            ("def main():\n    with Run() as run:\n        return run\nrun = main()", "digits"),
            ("%%time\nwith Run() as run:\n    pass", "digits"),
            ("exec('with Run() as run: pass')", "digits"),
        ],
    )
    def test_stage_of_a_module(self, kernel, code, stage):
        """A module's run keeps the module's name however it is reached; what stands in a cell has the notebook's."""
        (kernel.folder / "digit_stage.py").write_text(
            "from runctx import Run\n\ndef main():\n    with Run() as run:\n        return run\n"
            "if __name__ == '__main__':\n    run = main()\n"
        )
        kernel.run("import digit_stage")
        assert not kernel.run(code).error
        assert kernel.value("run.stage") == stage

    def test_cells(self, kernel):
        """The lock has the executed cells, failed ones and the running one included."""
        kernel.run("x = 41")
        kernel.run("1/0")
        running = "with Run() as run:\n    answer = x + 1"
        kernel.run(running)
        assert [cell.code for cell in load(kernel).source.cells][-3:] == ["x = 41", "1/0", running]

    def test_secrets_in_cells(self, kernel):
        """No secret of a cell is written: neither a literal nor a value of the configuration."""
        kernel.run("api_key = 'sk-4fT9qLw2Zr8vKp1x'")
        kernel.run("with Run({'db': {'password': 'hunter2-b81c'}}) as run:\n    print('hunter2-b81c')")
        text = (load(kernel).save_dir / "run.lock").read_text()
        assert "sk-4fT9qLw2Zr8vKp1x" not in text and "hunter2-b81c" not in text
        assert "api_key = " in text

    def test_origins(self, kernel):
        """Values are from the cell that holds the class, and from the one that holds the function, line by line."""
        kernel.run(
            "from dataclasses import dataclass\n@dataclass\nclass Config:\n    lr: float = 0.1\n"
            "def main():\n    with Run(Config(lr=0.3)) as run:\n        pass\n    return run"
        )
        cell = f"In[{kernel.value('len(In) - 2')}]"
        kernel.run("run = main()")
        where = [(origin.layer, origin.where) for origin in load(kernel).origins["lr"]]
        assert where == [("program", f"{cell}:6"), ("default", f"{cell}:4")]

    def test_completion_reads_nothing(self, kernel):
        """Completing a configuration's keys does not count as reading them."""
        kernel.run("run = Run({'opt': {'lr': 0.1, 'name': 'sgd'}, 'layers': [1]}).start()")
        for typed in (
            "run.cfg.",
            "run.cfg.opt.",
            "run.cfg.opt.name.",
            "run.cfg.layers.",
            "run.cfg['opt'].lr.",
        ):
            kernel.complete(typed)
        kernel.run("run.cfg\nrun.cfg.opt.lr\nrun.finish()")
        assert load(kernel).keys_read == ("opt.lr",)

    def test_reloaded_module(self, kernel):
        """A module that was edited and reloaded between two runs is in the snapshot as it then was."""
        kernel.run("import model\nwith Run() as before:\n    pass")
        (kernel.folder / "model.py").write_text("depth = 2\nwidth = 3\n")
        kernel.run("importlib.reload(model)\nwith Run() as after:\n    assert model.depth == 2")
        for name, text in (("before", "depth = 1\n"), ("after", "depth = 2\nwidth = 3\n")):
            past = load(kernel, name)
            shown = subprocess.run(
                ["git", "cat-file", "blob", past.source.files["model.py"].removeprefix("git:")],
                cwd=kernel.folder, capture_output=True, text=True, check=True,
            )  # fmt: skip
            assert shown.stdout == text
            assert past.source.files["model.py"] == f"git:{git(kernel, f'{past.commit}:model.py')}"


class TestLoadedCode:
    """The lock says that code in memory is older than its file when it is, and only then."""

    NET = "def value():\n    return 1\n\nclass Net:\n    def forward(self):\n        return 1\n"

    def edit(self, kernel, name, old, new):
        (kernel.folder / name).write_text(self.NET.replace(old, new))
        kernel.run("import time; time.sleep(0.01)")

    def older(self, kernel):
        kernel.run("with Run(console=False) as run:\n    pass")
        whys = [omission.why.partition("older code of ")[2] for omission in load(kernel).omissions]
        return [why.partition(";")[0] for why in whys]

    def test_told_once(self, fresh):
        """The log says it once."""
        self.edit(fresh, "once.py", "", "")
        fresh.run("import once")
        self.edit(fresh, "once.py", "return 1", "return 22")
        assert self.older(fresh) == ["Net.forward, value"]
        assert (load(fresh).save_dir / "run.log").read_text().count("once.py: ") == 1

    def test_reload(self, fresh):
        """After an edit, until the module is reloaded; of what a cell took from it, until it is taken anew."""
        self.edit(fresh, "net.py", "", "")
        fresh.run("import importlib, net\nfrom net import value")
        assert self.older(fresh) == []
        self.edit(fresh, "net.py", "return 1", "return 22")
        assert self.older(fresh) == ["Net.forward, value"]
        fresh.run("importlib.reload(net)")
        assert self.older(fresh) == ["value"]
        fresh.run("from net import value")
        assert self.older(fresh) == []

    def test_autoreload(self, fresh):
        """`%autoreload 2` runs the new code, so nothing is said, however the file was edited."""
        self.edit(fresh, "net.py", "", "")
        fresh.run("%load_ext autoreload\n%autoreload 2\nimport net\nfrom net import Net, value")
        assert self.older(fresh) == []
        for old, new in (
            ("return 1", "return 22"),
            ("def value", "import os\n\n# a comment\n@staticmethod\ndef value"),
            ("class", "class Other:\n    pass\n\nclass"),
            ("(self):", "(self, x=3):\n        y = [self for _ in range(x)]"),
        ):
            self.edit(fresh, "net.py", old, new)
            assert self.older(fresh) == [], new

    def test_run(self, fresh):
        """`%run` executes the file anew, though the module that was imported before is still in memory."""
        text = "{}from runctx import Run\nwith Run(console=False) as run:\n    pass\n".format
        (fresh.folder / "net.py").write_text(text(self.NET))
        fresh.run("import net")
        (fresh.folder / "net.py").write_text(text(self.NET.replace("return 1", "return 22")))
        assert not fresh.run("%run net.py").error
        assert [o.why for o in load(fresh).omissions] == [] and self.older(fresh) == []


CELLS_OF_A_FILE = """\
from dataclasses import dataclass
from runctx import Run, from_cli

@dataclass
class Config:
    lr: float = 0.1

def main(cfg):
    with Run(cfg) as run:
        return run

if __name__ == "__main__":
    run = main(from_cli(Config))
"""


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    """The kernel of an interactive window that shows `fit.py`, whose cells were executed."""
    shared = Kernel(project(tmp_path_factory.mktemp("window") / "project"))
    for name in ("fit.py", "script.py"):
        (shared.folder / name).write_text(CELLS_OF_A_FILE)
    shared.hidden(f"__file__ = {str(shared.folder / 'fit.py')!r}")
    assert not shared.run(CELLS_OF_A_FILE).error
    yield shared
    shared.stop()


class TestInteractiveWindow:
    """VS Code sends the cells of a file to a kernel in which it has set `__file__` by a hidden request."""

    def test_the_file_is_the_notebook(self, window):
        """The lock says notebook, names the file, and has no argument of the kernel; the file names the stage."""
        past = load(window)
        assert (past.command.kind, past.command.entry, past.command.argv) == ("notebook", "fit.py", ())
        assert (past.stage, past.save_dir.parent) == ("fit", window.folder / "results/fit")

    def test_the_arguments_are_not_the_users(self, window):
        """`from_cli` reads no argument of the kernel, in its workers either, and its errors are exceptions."""
        assert window.value("from_cli(Config).lr") == 0.1
        window.run("from joblib import Parallel, delayed")
        assert window.value("[cfg.lr for cfg in Parallel(2)([delayed(from_cli)(Config)] * 2)]") == [0.1, 0.1]
        assert window.run("from_cli(Config, ['lrs=1'])").error == "ConfigError"

    def test_a_script_that_is_run_has_its_own(self, window):
        """`%run script.py lr=0.5` is that script, with its arguments; afterwards the file is the notebook again."""
        for code, lr, kind, stage in (
            ("%run script.py lr=0.5", 0.5, "script", "script"),
            (CELLS_OF_A_FILE, 0.1, "notebook", "fit"),
            ("%run -i script.py lr=0.5", 0.5, "script", "script"),
            (CELLS_OF_A_FILE, 0.1, "notebook", "notebook"),  # `-i` has overwritten `__file__`
            ("%run -m script lr=0.5", 0.5, "module", "script"),
        ):
            assert not window.run(code).error
            past = load(window)
            assert (past.cfg.lr, past.command.kind, past.stage) == (lr, kind, stage), code

    def test_a_file_that_was_never_saved(self, window):
        """A file that is not on disk yet names the stage all the same."""
        window.hidden("__file__ = '/nowhere/Untitled-1.py'")
        assert not window.run(CELLS_OF_A_FILE).error
        past = load(window)
        assert (past.command.kind, past.stage) == ("notebook", "Untitled-1")
        window.hidden(f"__file__ = {str(window.folder / 'fit.py')!r}")


def git(kernel: Kernel, name: str) -> str:
    """The id of what git calls by this name."""
    return subprocess.check_output(["git", "rev-parse", name], cwd=kernel.folder, text=True).strip()


class TestErrors:
    @pytest.mark.parametrize(
        ("code", "kind"),
        [
            ("Run({'a': '${nowhere}'}).start()", "ConfigError"),
            ("Run(inputs=['nowhere.csv']).start()", "InputError"),
            ("with Run() as run: run.log_async(loss='high')", "TypeError"),
            ("with Run() as run: run.log_async({'': 1})", "TypeError"),
            ("with Run() as run: run.map(lambda n: 1 / n, [0], launcher='serial')", "TaskError"),
            ("Run.load('nowhere')", "NoRunError"),
            ("from runctx import runs; runs().where('config.')", "QueryError"),
        ],
    )
    def test_our_frames_are_hidden(self, kernel, code, kind):
        """An error that the user can put right shows the line in the cell, and none of ours."""
        shown = kernel.run(f"{code}  # this line")
        assert shown.error == kind and "# this line" in shown.traceback and kind in shown.traceback
        inside = [line for line in shown.traceback.splitlines() if re.search(r"runctx/\w+(/\w+)*\.py", line)]
        assert inside == []


class TestRerun:
    @pytest.mark.parametrize("how", ["", "%%time\n", "await asyncio.sleep(0)\n"], ids=["", "magic", "await"])
    def test_started_again(self, kernel, how):
        """Running the first of several cells again ends the forgotten run as interrupted, and says so."""
        first = f"{how}run = Run({{'lr': 0.1}}).start()"
        kernel.run(first)
        forgotten = load(kernel)
        assert forgotten.status == "running"
        shown = kernel.run(first)
        assert forgotten.id in shown.stdout and "interrupted" in shown.stdout
        kernel.run("answer = 42")
        kernel.run("run.finish()")
        assert (Run.load(forgotten).status, load(kernel).status) == ("interrupted", "done")

    def test_workers_say_on_stdout_too(self, kernel):
        """Log lines of tasks are shown as those of the cell, not on the ground of errors."""
        kernel.run("def work(n):\n    with Run() as run:\n        run.logger.info('task {}', n)")
        request = kernel.begin("with Run() as run: _ = [*run.map(work, [1, 2], n_jobs=2)]")
        shown = kernel.wait(request, until=lambda shown: shown.ended and shown.stdout.count("task ") >= 2)
        assert not shown.error and "INFO" not in shown.stderr

    def test_log_lines_stay_with_their_cell(self, kernel):
        """A log line is shown by the cell that said it, not by the one that started the run."""
        first = kernel.run("run = Run().start()\nrun.logger.info('one')")
        second = kernel.run("run.logger.info('two')")
        third = kernel.run("run.finish()")
        assert "one" in first.stdout and "two" not in first.stdout
        assert "two" in second.stdout and "one" not in second.stdout
        assert "done" in third.stdout
        assert first.stderr + second.stderr + third.stderr == ""
        assert [word for word in ("one", "two") if word in (load(kernel).save_dir / "run.log").read_text()]

    def test_two_stages_at_once(self, kernel):
        """Runs of two stages may be open side by side."""
        kernel.run("a = Run(stage='a').start()\nb = Run(stage='b').start()")
        kernel.run("a.finish()\nb.finish()")
        assert (load(kernel, "a").status, load(kernel, "b").status) == ("done", "done")


class TestGoingOn:
    """After an error one goes on in cells."""

    STARTED = "def train(cfg):\n    run = Run(cfg).start()\n    batch = [1, 0]\n    1 / batch[1]\n"

    def test_started_again(self, kernel):
        """A run that an error has ended is started again, in its folder, and finished in a later cell."""
        assert kernel.run("with Run() as run:\n    1/0").error == "ZeroDivisionError"
        failed = load(kernel)
        assert not kernel.run("run.start()").error
        assert (load(kernel).id, load(kernel).status) == (failed.id, "running")
        kernel.run("(run.save_dir / 'late.txt').write_text('x')")
        assert not kernel.run("run.finish()").error
        past = Run.load(failed)
        assert (past.status, [session.status for session in past.lock.sessions]) == ("done", ["failed"])
        assert [output.path for output in past.outputs] == ["late.txt"]

    def test_an_error_in_a_later_cell(self, kernel):
        """A run that a cell has started stays open when a later cell fails."""
        kernel.run("run = Run().start()")
        kernel.run("1/0")
        assert load(kernel).status == "running"
        kernel.run("run.finish()")
        assert load(kernel).status == "done"

    @pytest.mark.parametrize("how", ["train({'lr': 0.1})", "%time train({'lr': 0.1})", "%run -i trains.py"])
    def test_started_in_a_function_that_failed(self, kernel, how):
        """The run of a function that failed is failed, with error and variables, whatever happens next."""
        (kernel.folder / "trains.py").write_text(
            "from runctx import Run\n" + self.STARTED + "train({'lr': 0.1})"
        )
        kernel.run(self.STARTED)
        kernel.run(how)
        assert kernel.value("Run.last.status, Run.last.error.type") == (
            "failed",
            "builtins.ZeroDivisionError",
        )
        assert kernel.value("Run.last.locals['batch']") == [1, 0]
        kernel.run("mistyped")
        first = kernel.value("str(Run.last.save_dir)")
        kernel.run(how)
        second = kernel.value("str(Run.last.save_dir)")
        assert first != second
        assert [Run.load(path).status for path in (first, second)] == ["failed", "failed"]

    def test_returned_from_a_function(self, kernel):
        """A run that a function has started and returned stays open, though an error was before it."""
        kernel.run("1/0")
        kernel.run("def begin():\n    return Run().start()")
        kernel.run("run = begin()")
        kernel.run("1/0")
        assert load(kernel).status == "running"
        kernel.run("run.finish()")


class TestInterrupt:
    @pytest.mark.parametrize(
        "waiting",
        [
            "import time; time.sleep(600)",
            "subprocess.run(['sleep', '600'])",
            # in one long sleep the kernel itself would not notice before the next message
            "while True: await asyncio.sleep(0.05)",
        ],
    )
    def test_interrupted(self, kernel, waiting):
        """The stop button ends the run as interrupted and the cell as it always does; the kernel goes on."""
        request = kernel.begin(f"with Run() as run:\n    print('ready')\n    {waiting}")
        kernel.wait(request, until=lambda shown: "ready" in shown.stdout)
        kernel.interrupt()
        shown = kernel.wait(request)
        assert shown.error in ("KeyboardInterrupt", "CancelledError")
        assert load(kernel).status == "interrupted"
        kernel.run("with Run() as run:\n    pass")
        assert load(kernel).status == "done"

    def test_killed(self, fresh):
        """A run whose kernel is killed reads as crashed, and has what was known when it started."""
        fresh.run("run = Run({'lr': 0.1}).start()\nrun.logger.info('last words')")
        past = load(fresh)
        assert (past.stage, past.status) == ("notebook", "running")
        fresh.stop(kill=True)
        again = Run.load(past.save_dir)
        assert (again.status, again.cfg.lr) == ("crashed", 0.1)
        assert "last words" in (again.save_dir / "run.log").read_text()

    def test_shut_down(self, fresh):
        """A run that is open when its kernel is shut down is interrupted, whatever failed before it."""
        fresh.run("1/0")
        fresh.run("run = Run().start()")
        past = load(fresh)
        fresh.stop()
        again = Run.load(past.save_dir)
        assert (again.status, again.error) == ("interrupted", None)


FAILING = """
def train():
    global run
    batch = [1, 2, 0]
    with Run() as run:
        for value in batch:
            share = 1 / value
train()
"""


class TestLooking:
    def test_error(self, kernel):
        """After an error in a function, the run tells what failed, with the function's variables."""
        assert kernel.run(FAILING).error == "ZeroDivisionError"
        assert kernel.value("run.status, run.error.type") == ("failed", "builtins.ZeroDivisionError")
        assert kernel.value("{k: v for k, v in run.locals.items() if k != 'run'}") == {
            "batch": [1, 2, 0],
            "value": 0,
            "share": 0.5,
        }

    def test_debug(self, kernel):
        """`%debug` opens at the user's line, as if there were no run."""
        kernel.run(FAILING)
        shown = kernel.run("%debug", answers=("p ('seen', value, batch)", "q"))
        assert "('seen', 0, [1, 2, 0])" in shown.stdout
        assert "share = 1 / value" in shown.stdout

    def test_traceback_again(self, kernel):
        """`%tb` shows the traceback again, of the user's cell alone."""
        kernel.run(FAILING)
        shown = kernel.run("%tb")
        assert "share = 1 / value" in shown.traceback and "run.py" not in shown.traceback

    def test_locals_of_a_cell(self, kernel):
        """In a cell, `run.locals` are the user's variables, without IPython's."""
        kernel.run("%reset -f\nfrom runctx import Run\nwith Run() as run:\n    loss = 0.5")
        assert kernel.value("sorted(run.locals)") == ["Run", "loss", "run"]
        kernel.run("import asyncio, importlib, os, subprocess, sys, runctx\nfrom runctx import Run, runs")

    def test_locals_of_an_awaiting_cell(self, kernel):
        """A cell that awaits is a cell like any other."""
        kernel.run("with Run() as run:\n    awaited = await asyncio.sleep(0, result=7)")
        assert kernel.value("run.status, run.locals['awaited'], 'In' in run.locals") == ("done", 7, False)

    @pytest.mark.parametrize(
        ("typed", "offered"),
        [
            ("run.sav", "save_dir"),
            ("run.sta", "status"),
            ("run.cfg.op", "optimizer"),
            ("run.cfg.optimizer.lra", "lrate_decay"),
            ("run.lock.con", "config"),
            ("run.logger.inf", "info"),
        ],
    )
    def test_completion(self, kernel, typed, offered):
        """TAB completes what a run has, and the keys of its configuration, nested ones too."""
        kernel.run("with Run({'optimizer': {'lr': 0.1, 'lrate_decay': 0.5}, 'epochs': 5}) as run:\n    pass")
        assert offered in [match.rpartition(".")[2] for match in kernel.complete(typed)]

    def test_rich_display(self, kernel):
        """A run, a past run, its lineage and the table of runs show themselves, once each, as HTML."""
        kernel.run("with Run(stage='first') as first:\n    (first.save_dir / 'a.csv').write_text('1')")
        kernel.run("with Run(inputs=[first], stage='second') as run:\n    pass")
        for shown in ("run", "Run.load(run)", "Run.load(run).lineage()", "runs()"):
            (result,) = kernel.run(shown).results
            assert "second" in result["text/html"] and "second" in result["text/plain"]
        assert "first" in kernel.run("Run.load(run).lineage()").results[0]["text/html"]

    def test_not_entered(self, kernel):
        """A run that was not entered shows itself too."""
        (result,) = kernel.run("Run({'lr': 0.1})").results
        assert "not entered" in result["text/plain"]


class TestCapture:
    SAYING = """
with Run(capture=True) as run:
    print("python says")
    os.write(1, b"descriptor says\\n")
    libc.puts(b"c says")
    libc.fflush(None)
    subprocess.run([sys.executable, "-c", "print('child says')"], check=True)
    print("on stderr", file=sys.stderr)
print("afterwards")
"""
    LINES = ("python says", "descriptor says", "c says", "child says", "on stderr")

    def test_everything_is_heard_once(self, kernel):
        """`capture=True` writes what the cell, C code and child processes print to run.log, once each."""
        kernel.run("import ctypes; libc = ctypes.CDLL(None)")
        assert not kernel.run(self.SAYING).error
        log = (load(kernel).save_dir / "run.log").read_text()
        assert {line: log.count(line) for line in self.LINES} == dict.fromkeys(self.LINES, 1)
        assert "afterwards" not in log
        assert load(kernel).omissions == ()

    def test_the_cell_shows_it_too(self, kernel):
        """What is captured is shown as ever, and the next cell prints as ever."""
        kernel.run("import ctypes; libc = ctypes.CDLL(None)")
        request = kernel.begin(self.SAYING)
        expected = (*self.LINES[:-1], "afterwards")
        shown = kernel.wait(
            request, until=lambda shown: shown.ended and all(line in shown.stdout for line in expected)
        )
        assert {line: shown.stdout.count(line) for line in expected} == dict.fromkeys(expected, 1)
        assert "on stderr" in shown.stderr
        assert kernel.run("print('next cell')").stdout == "next cell\n"

    def test_over_several_cells(self, kernel):
        """What later cells print, and the error one of them ends in, is in run.log; `finish()` ends it."""
        kernel.run("run = Run(capture=True).start()")
        kernel.run("print('second cell')")
        kernel.run("1/0")
        kernel.run("run.finish()\nprint('afterwards')")
        log = (load(kernel).save_dir / "run.log").read_text()
        assert log.count("second cell") == 1 and "ZeroDivisionError" in log and "afterwards" not in log


def test_a_main_of_a_cell_can_be_mapped(kernel: Kernel) -> None:
    """What cells define (a main that enters a run, a lambda, a variable) reaches worker processes as it is now."""
    kernel.run("""
from dataclasses import dataclass
@dataclass
class Config:
    x: int = 0
offset = 10
def shifted(cfg):
    with Run(cfg, inputs=["model.py"]) as run:
        run.logger.info("shifted")
        return run.cfg.x + offset
outer = Run(Config, stage="mapped", console=False).start()""")
    mapped = "list(outer.map(shifted, [1, 2], into='x', launcher={!r}, n_jobs=2))"
    assert kernel.value(mapped.format("joblib")) == [11, 12]
    kernel.run("offset = 20")
    assert kernel.value(mapped.format("joblib")) == [21, 22]
    assert kernel.value(mapped.format("serial")) == [21, 22]
    assert kernel.value("list(outer.map(lambda x: x + offset, [1], n_jobs=2))") == [21]
    shown = kernel.run("returned = outer.map(lambda x: Run({'x': x}).start(), [5], n_jobs=2)[0]; returned")
    assert shown.text.startswith("<Record mapped-"), shown
    assert kernel.value("returned.cfg.x, returned.id == outer.id") == (5, True)
    assert not kernel.run("outer.finish()").error
    assert kernel.value("[data.path for data in outer.inputs]") == ["model.py"]
    assert kernel.value("(outer.save_dir / 'run.log').read_text().count('[1] shifted')") == 3
    assert kernel.value("Run.last is outer, outer.locals['offset']") == (True, 20)


def test_a_function_of_a_cell_that_fails_in_a_worker(kernel: Kernel) -> None:
    """The traceback names the cell and quotes its line, which is in no file that a worker could read."""
    shown = kernel.run(
        """
def fails(task):
    raise ValueError(task)  # here

with runctx.Run(stage="cell", console=False) as run:
    error = run.map(fails, [1], on_error="return")[0]
print(error.__cause__)
"""
    )
    assert re.search(
        r'File "In\[\d+\]", line 2, in fails\n    raise ValueError\(task\)  # here', shown.stdout
    )


def test_a_module_reloaded_between_two_maps(kernel: Kernel) -> None:
    """Warm workers do not go on with a module as it was before it was edited and reloaded."""
    (kernel.folder / "edited.py").write_text("def value(_):\n    return 1\n")
    kernel.run("import edited")
    kernel.run("outer = Run(stage='edited', console=False).start()")
    assert kernel.value("list(outer.map(edited.value, [0, 0], n_jobs=2))") == [1, 1]
    (kernel.folder / "edited.py").write_text("def value(_):\n    return 22\n")
    kernel.run("importlib.reload(edited)")
    assert kernel.value("list(outer.map(edited.value, [0, 0], n_jobs=2))") == [22, 22]
    assert not kernel.run("outer.finish()").error
