"""`run.map`: what can be mapped over what, and which mistakes are told before anything starts."""

from __future__ import annotations

import functools
import operator
import re
import subprocess
import sys
import textwrap
from dataclasses import dataclass, field
from pathlib import Path

import numpy
import pandas
import pytest

from runctx import Run, derived, explain, grid
from runctx.errors import ConfigError, RunStateError, SettingsError, TaskError
from runctx.launchers import Joblib

LAUNCHERS = ("serial", "threading", "joblib")


@dataclass
class Data:
    input: str = "a.txt"
    size: int = 1


@dataclass
class Config:
    lr: float = 0.1
    warmup: float = derived(lambda cfg: cfg.lr * 10)
    data: Data = field(default_factory=Data)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The current folder, outside any repository."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(here):
    with Run(Config, stage="parent", console=False) as run:
        yield run


@pytest.fixture(params=LAUNCHERS)
def how(request):
    """Arguments that say where tasks run."""
    return {"launcher": request.param, "n_jobs": 2}


# -- what is mapped ---------------------------------------------------------------------------------------------------


class Scale:
    """Callable, with a method, and defined where the tests are."""

    def __init__(self, factor):
        self.factor = factor

    def __call__(self, value):
        return self.factor * value

    def times(self, value):
        return self.factor * value

    @classmethod
    def twice(cls, value):
        return cls(2)(value)


@functools.lru_cache
def cached(value):
    return value


def test_whatever_can_be_called(run, how):
    """Functions, built-in ones, methods, partial and callable objects, lambdas and closures can be mapped."""
    factor = 3
    functions = {
        abs: "abs",
        functools.partial(operator.mul, 3): "mul",
        Scale(3): "Scale",
        Scale(3).times: "times",
        Scale.twice: "twice",
        (lambda value: factor * value): "lambda",
        cached: "cached",
    }
    for function in functions:
        assert run.map(function, [1, -2], **how) == [function(1), function(-2)]
    assert [entry.name for entry in run.lock.tasks] == list(functions.values())


def test_no_tasks(run, how):
    """A map of nothing gives nothing, and is in the lock."""
    assert list(run.map(abs, [], **how)) == []
    assert list(run.map(abs, (x for x in ()), into="lr", **how)) == []
    assert [(entry.total, entry.done) for entry in run.lock.tasks] == [(0, 0), (0, 0)]


def test_tasks_of_any_iterable(run, how):
    """Tasks may come from a generator, which is read once, in the parent."""
    read = []
    assert run.map(str, (read.append(i) or i for i in range(5)), **how) == list("01234")
    assert read == [0, 1, 2, 3, 4]
    assert run.map(str, {"a": 1, "b": 2}, **how) == ["a", "b"]
    assert run.map(str, Path("x/y").parts, **how) == ["x", "y"]


def test_a_generator_that_fails(run):
    """An exception of the iterable is the caller's; nothing is left of the map, and its name is the next try's."""

    def tasks():
        yield 1
        raise OSError("no more")

    with pytest.raises(OSError, match="no more"):
        run.map(abs, tasks(), launcher="serial")
    assert run.lock.tasks == ()
    assert not (run.save_dir / "tasks").exists()
    run.map(abs, [1], launcher="serial")
    assert [entry.name for entry in run.lock.tasks] == ["abs"]


def test_after_the_end(here):
    """A run that has ended, or was never entered, maps nothing and says so."""
    with Run(stage="parent", console=False) as run:
        pass
    with pytest.raises(RunStateError, match="must be called before the run ends"):
        run.map(abs, [1])
    with pytest.raises(RunStateError, match="entered"):
        Run().map(abs, [1])


async def later(value):
    return value


NO_JOBS = "n_jobs must be an int other than 0"
WRONG = [
    ({"function": 3}, "must be a function; got 3"),
    ({"function": later}, r"async function .*\nhint: .*asyncio\.run"),
    ({"into": 3}, "into must be a key of the configuration or None; got 3"),
    *(({"retries": value}, "retries must be an int of at least 0") for value in (-1, "2")),
    *(({"n_jobs": value}, NO_JOBS) for value in (0, 1.5, "2")),
    ({"on_error": "ignore"}, "on_error must be one of 'raise', 'stop', 'return'; got 'ignore'"),
    ({"launcher": "no such backend"}, "launcher 'no such backend': "),
    *(({"launcher": value}, "unknown launcher") for value in (5, Joblib)),
    ({"tasks": 3}, "tasks must be a list; got 3"),
    ({"tasks": "a.txt", "into": "data.input"}, "would be split into characters"),
    ({"tasks": {"data.input": "a.txt"}, "into": ""}, "would be split into its keys"),
    ({"tasks": pandas.DataFrame({"input": ["a.txt"]})}, "would be split into the names of its columns"),
]


@pytest.mark.parametrize(("wrong", "said"), WRONG, ids=[str(n) for n in range(len(WRONG))])
def test_wrong_arguments(run, wrong, said):
    """An argument that makes no sense is refused at once, with what was expected."""
    arguments = {"function": abs, "tasks": [1]} | wrong
    with pytest.raises((TypeError, ValueError, SettingsError), match=said):
        run.map(arguments.pop("function"), arguments.pop("tasks"), **arguments)
    assert not list(run.save_dir.glob("tasks/*/done"))


def test_a_configuration_was_expected(run):
    """Who forgets `into` is told of it, if every task fails for want of a configuration."""
    with pytest.raises(TaskError, match='into="key"'):
        run.map(lambda cfg: cfg.input, ["a.txt", "b.txt"], launcher="serial")
    with pytest.raises(TaskError) as caught:
        run.map(lambda path: path.stem if path == "a.txt" else 1, ["a.txt", "b.txt"], launcher="serial")
    assert "into" not in str(caught.value)


def inner(value):
    with Run({}) as attached:
        return list(attached.map(abs, [value, -value], launcher="joblib"))


def test_a_map_inside_a_task(run, how):
    """A map inside a task, of the run there or the one outside, does its tasks one after another."""
    assert run.map(inner, [-1], **how) == [[1, 1]]
    if how["launcher"] != "joblib":
        assert run.map(lambda value: list(run.map(abs, [value])), [-1], **how) == [[1]]
    assert all(entry.total == 1 for entry in run.lock.tasks)


def interrupted(_):
    raise KeyboardInterrupt


def test_ctrl_c_in_serial(here):
    """Ctrl-C in a serial map ends the map and the run as interrupted, and what was done is kept."""
    with pytest.raises(KeyboardInterrupt), Run(stage="parent", console=False) as run:
        run.map(lambda task: interrupted(task) if task else task, [0, 1, 2], launcher="serial")
    assert run.status == "interrupted"
    assert run.lock.tasks[0].done == 1
    said = "lambda: interrupted: 1 of 3 tasks done, 2 left; Run(..., resume=True) runs the rest"
    assert said in (run.save_dir / "run.log").read_text()


def test_a_line_at_the_end(here):
    """The log says how a map ended, in one line for each: also where nothing was left to do."""

    def half(value):
        return 1 / value

    with Run(stage="parent", console=False) as run:
        run.map(half, [], launcher="serial")
        run.map(half, [1, 2], launcher="serial")
        run.map(half, [0, 1, 2], launcher="serial", on_error="return")
    with Run(stage="parent", console=False, resume=run.save_dir) as again:
        again.map(half, [], launcher="serial")
        again.map(half, [1, 2], launcher="serial")
        with pytest.raises(TaskError):
            again.map(half, [0, 3, 1, 2], launcher="serial", on_error="stop")
    lines = re.findall(r"(\w+) +\| runctx - (half.*)", (run.save_dir / "run.log").read_text())
    assert [(level, re.sub(r"in [0-9.e-]+ s", "in 1 s", line)) for level, line in lines] == [
        ("INFO", "half: no tasks"),
        ("INFO", "half-2: 2 of 2 tasks done, in 1 s"),
        ("WARNING", "half-3: 2 of 3 tasks done, 1 failed, in 1 s"),
        ("INFO", "half: no tasks"),
        ("INFO", "half-2: all 2 tasks were done already"),
        ("WARNING", "half-3: 2 of 4 tasks done (2 of them earlier), 1 failed, 1 not run, in 1 s"),
    ]


def test_hints_lead_somewhere(run):
    """The hint of an error names the results and the rows only where there are any."""

    class Idle:
        name, in_process, waits = "idle", True, True

        def launch(self, plan):
            return self

        def wait(self):
            return "nobody came"

    with pytest.raises(TaskError, match="2 of 2 tasks did not run: nobody came") as caught:
        run.map(abs, [1, 2], launcher=Idle())
    assert "tracebacks" not in caught.value.hint and "`.results`" not in caught.value.hint
    assert "run.log" in caught.value.hint and "resume=" in caught.value.hint
    with pytest.raises(TaskError) as caught:
        run.map(lambda value: 1 / value, [0, 1], launcher="serial")
    assert (
        "tasks/lambda/done" in caught.value.hint
        and "`.results` of this error holds what succeeded" in caught.value.hint
    )


def test_for_the_user_alone(run):
    """What holds tasks and configuration as they are, secrets too, can be read by nobody else."""
    modes = {}

    class Looking:
        name, in_process, waits = "looking", False, True

        def launch(self, plan):
            files = plan.files
            for path in (files.state.parent, files.function, files.payload):
                modes[path.name] = oct(path.stat().st_mode & 0o777)
            return self

        def wait(self):
            return "it has been seen"

    with pytest.raises(TaskError, match="it has been seen"):
        run.map(abs, [1], launcher=Looking())
    assert modes == {"tasks": "0o700", "function.pickle": "0o600", "todo.pickles": "0o600"}


# -- tasks laid on the configuration ----------------------------------------------------------------------------------


def read_config(cfg):
    with Run(cfg) as run:
        text = repr(explain(run))
    return run.cfg.lr, run.cfg.warmup, run.cfg.data.input, text


def test_points_of_a_grid(run, how):
    """`into=""` merges combinations: what is derived follows, and `explain` inside names the combination."""
    points = grid({"lr": [0.2, 0.4], "data.input": ["b", "c"]})
    results = run.map(read_config, points, into="", **how)
    assert [result[:3] for result in results] == [
        (lr, lr * 10, name) for lr in (0.2, 0.4) for name in ("b", "c")
    ]
    for point, result in zip(points, results, strict=True):
        assert point.name in result[3]


def test_a_nested_key(run, how):
    """A task may be set at any dotted key."""
    results = run.map(read_config, ["b", "c"], into="data.input", **how)
    assert [result[2] for result in results] == ["b", "c"]
    assert all(result[:2] == (0.1, 1.0) for result in results)


@pytest.mark.parametrize(
    ("into", "task", "named"),
    [("nowhere", 1, "nowhere"), ("data.inptu", "a", "data.inptu"), ("", 5, "mapping"), ("lr", "fast", "lr")],
)
def test_a_key_that_is_not_there(run, into, task, named):
    """A key that the configuration lacks, or a task that never fits, is told before anything starts."""
    with pytest.raises(ConfigError, match=named):
        run.map(read_config, [task, task], into=into)
    assert not (run.save_dir / "tasks").exists()


@pytest.mark.parametrize(
    ("into", "task", "said"),
    [
        ("data.inptu", "scans/0.txt", "task scans/0.txt: unknown config key data.inptu"),
        ("data.size", "many", "task many: data.size must be int"),
        ("", {"data.inptu": "b"}, "task {'data.inptu': 'b'}: unknown config key data.inptu"),
        ("", pandas.Series({"lr": 0.1, "data.size": 2}), 'frame.to_dict("records")'),
    ],
)
def test_the_task_is_named(run, into, task, said):
    """What does not fit is told as a task, not as an override that nobody has written, on a line and a hint."""
    with pytest.raises(ConfigError, match=re.escape(said)) as caught:
        run.map(read_config, [task], into=into)
    assert "override" not in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 2


def test_a_run_without_configuration(here):
    """Where there is no configuration to lay tasks on, that is said; a key may be added all the same."""
    with Run(stage="parent", console=False) as run:
        for into, task in (("input", "a.txt"), ("", {"input": "a.txt"})):
            with pytest.raises(ConfigError, match="the run has no configuration"):
                run.map(read_config, [task], into=into)
        assert run.map(lambda cfg: cfg.input, ["a.txt"], into="+input", launcher="serial") == ["a.txt"]


def test_numbers_of_numpy(run, how):
    """Numbers of numpy are set as a configuration holds them; the names of combinations and keys stay."""
    sizes = run.map(lambda cfg: cfg.data.size, numpy.array([3, 4]), into="data.size", **how)
    assert [(size, type(size)) for size in sizes] == [(3, int), (4, int)]
    points = [{"data.size": numpy.int64(5), "lr": numpy.float32(0.5)}]
    assert run.map(lambda cfg: [cfg.data.size, cfg.lr], points, into="", **how) == [[5, 0.5]]


@dataclass
class Secret:
    api_key: int = 0


def test_a_secret_is_not_named(here, how):
    """Of a task that is set at the key of a secret nothing is told, where it does not fit."""
    with Run(Secret, stage="parent", console=False) as run:
        for tasks in (["hunter2"], [1, "hunter3"]):
            with pytest.raises((ConfigError, TaskError), match="<redacted>: ") as caught:
                run.map(lambda cfg: cfg.api_key, tasks, into="api_key", **how)
            assert "hunter" not in str(caught.value)


def test_one_task_that_does_not_fit(run, how):
    """A task of a wrong type fails alone; the error says which task, and which key."""
    with pytest.raises(TaskError) as caught:
        run.map(read_config, [1, 2, "many"], into="data.size", **how)
    assert [isinstance(result, Exception) for result in caught.value.results] == [False, False, True]
    assert isinstance(caught.value.results[2], ConfigError)
    assert "many: ConfigError: task many: data.size must be int" in str(caught.value)
    assert "data.size" in str(caught.value)


KEYS = """\
    import sys
    from dataclasses import dataclass
    from runctx import Run, from_cli

    @dataclass
    class Config:
        input: str = ""
        lr: float = 0.1
        unused: int = 1
        outside: int = 1

    def main(cfg):
        assert cfg.outside == 2
        with Run(cfg) as run:
            return run.cfg.lr

    if __name__ == "__main__":
        for launcher in ("serial", "threading", "joblib"):
            with Run(from_cli(Config), console=False) as run:
                assert run.map(main, ["a", "b"], into="input", launcher=launcher, n_jobs=2) == [0.5, 0.5]
            assert run.keys_read == ("lr", "outside"), (launcher, run.keys_read)
            log = (run.save_dir / "run.log").read_text()
            assert "never read: unused, set by argument 2" in log, (launcher, log)
    """


def test_keys_that_only_tasks_read(here):
    """Keys of the configuration that tasks read, wherever they run, were read; those that nobody read are told."""
    Path("program.py").write_text(textwrap.dedent(KEYS))
    arguments = ["lr=0.5", "unused=2", "outside=2"]
    done = subprocess.run([sys.executable, "program.py", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_configuration_that_was_changed(here):
    """A configuration that the caller changed since the run was entered is refused: whose values would count?"""
    given = {"lr": 0.1}
    with Run(given, stage="parent", console=False) as run:
        given["lr"] = 0.2
        with pytest.raises(ConfigError, match="changed"):
            run.map(read_config, [1], into="lr")


# -- where functions are defined --------------------------------------------------------------------------------------

PROGRAM = """\
    from dataclasses import dataclass
    from runctx import Run

    OFFSET = 10

    @dataclass
    class Config:
        x: int = 0

    @dataclass
    class Result:
        value: int

    def shifted(cfg):
        with Run(cfg) as run:
            return Result(run.cfg.x + OFFSET)

    if __name__ == "__main__":
        OFFSET = 20
        for launcher in ("serial", "threading", "joblib"):
            with Run(Config, console=False) as run:
                assert run.map(shifted, [1, 2], into="x", launcher=launcher, n_jobs=2) == [Result(21), Result(22)]
                assert run.map(lambda x: Result(x + OFFSET), [1], launcher=launcher) == [Result(21)]
            print(run.lock.tasks[0].results)
    """


def test_functions_and_variables_of_a_script(here):
    """Functions, classes and variables of `__main__` reach the workers as they are, with equal results everywhere."""
    Path("program.py").write_text(textwrap.dedent(PROGRAM))
    done = subprocess.run([sys.executable, "program.py"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(set(done.stdout.split())) == 1


PRINTING = """\
    from runctx import Run

    def say(word):
        print(f"said {word}\\n", end="")  # at one go, for workers share where they print

    if __name__ == "__main__":
        for capture in (False, True, False, True):
            with Run(console=False, capture=capture) as run:
                run.map(say, ["a", "b"], n_jobs=2)
            log = (run.save_dir / "run.log").read_text()
            assert ("said a" in log, "said b" in log) == (capture, capture), log
    """


def test_a_script_edited_while_its_tasks_run(here):
    """The traceback of a task quotes the line that ran, not what stands there by now."""
    program = """\
        from pathlib import Path
        from runctx import Run

        def edit_and_fail(task):
            script = Path(__file__)
            script.write_text(script.read_text().replace("as it ran", "as it is now"))
            raise ValueError(task)  # as it ran

        if __name__ == "__main__":
            with Run(console=False) as run:
                print(run.map(edit_and_fail, [1], on_error="return")[0].__cause__)
        """
    Path("program.py").write_text(textwrap.dedent(program))
    said = subprocess.run([sys.executable, "program.py"], check=True, capture_output=True, text=True).stdout
    assert (
        f'File "{here / "program.py"}", line 7, in edit_and_fail\n    raise ValueError(task)  # as it ran'
        in said
    )


def test_what_warm_workers_print_is_captured(here):
    """With `capture=True`, prints of workers are in the log of their run, though they worked for another before."""
    Path("program.py").write_text(textwrap.dedent(PRINTING))
    done = subprocess.run([sys.executable, "program.py"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
