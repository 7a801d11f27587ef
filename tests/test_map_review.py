"""`run.map` against the grain: hostile files, odd exceptions, misuse, several maps at once."""

from __future__ import annotations

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy
import pytest

from runctx import Run
from runctx.cli import main
from runctx.errors import LedgerError, ResultError, RunStateError, TaskError
from runctx.layout import TaskFiles
from runctx.metrics import journal, series
from runctx.tasks import results as results_module
from runctx.tasks.progress import Watched


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def double(x):
    return [x, x]


def halve(x):
    return 1 / x


@pytest.fixture
def past():
    with Run(stage="past", console=False) as run:
        run.log_async(loss=1)
        run.map(double, [1, 2, 3], launcher="serial")
    return Run.load(run.save_dir)


def the_only(folder: Path) -> Path:
    (found,) = folder.iterdir()
    return found


# -- hostile files ----------------------------------------------------------------------------------------------------


def test_pipes_in_the_place_of_results_and_metrics(past):
    """A pipe in the place of a file that is read later blocks nobody."""
    for folder in (TaskFiles(past.save_dir, "double").kept / "results", past.save_dir / "metrics"):
        file = the_only(folder)
        file.unlink()
        os.mkfifo(file)
    with pytest.raises(LedgerError, match="not a regular file"):
        past.results()[0]
    with pytest.raises(LedgerError, match="not a regular file"):
        past.metrics()


@pytest.mark.parametrize("which", ["todo", "done", "metrics"])
def test_files_of_any_size(past, which):
    """A file that claims to have gigabytes is told of and not read; a view of the run does without it."""
    kept = TaskFiles(past.save_dir, "double").kept
    file = {
        "todo": kept / "todo.jsonl",
        "done": the_only(kept / "done"),
        "metrics": the_only(past.save_dir / "metrics"),
    }[which]
    os.truncate(file, 20 << 30)
    with pytest.raises(
        LedgerError, match="has more than" if which == "metrics" else "21474836480 bytes, more than"
    ):
        past.metrics() if which == "metrics" else past.tasks
    assert past._repr_html_()


def test_bytes_that_are_no_text(past):
    """Rows, tasks and metrics that are no UTF-8 are broken files, and named; so are numbers that are none."""
    files = TaskFiles(past.save_dir, "double")
    for line in (b'{"time":1,"values":{"\xff":1}}\n', b'{"time":1,"values":{"a":"one"}}\n'):
        the_only(past.save_dir / "metrics").write_bytes(line)
        with pytest.raises(LedgerError, match="no point of a metric"):
            past.metrics()
    the_only(files.done()).write_bytes(b'{"worker":"\xff"}\n')
    with pytest.raises(LedgerError, match="line 1"):
        past.tasks
    files.todo.write_bytes(b'{"key":"a","task":"\xff"}\n')
    with pytest.raises(LedgerError, match=r"todo\.jsonl"):
        past.tasks


def test_many_workers_and_few_descriptors(past, monkeypatch):
    """Reading results of thousands of workers keeps few files open, and in several threads gives each its own."""
    monkeypatch.setattr(results_module, "_MOST_OPEN", 1)
    with Run(stage="many", console=False) as run:
        found = run.map(double, range(200), launcher="threading", n_jobs=4)
    assert len(run.tasks) == 200
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(found.__getitem__, range(200))) == [[i, i] for i in range(200)]
    assert len(found._open) == 1


# -- displays ---------------------------------------------------------------------------------------------------------


class Own:
    """A class that is not read without trust."""


def test_results_can_always_be_shown():
    """The representation of results reads no large ones, and fails for none."""
    with Run(stage="shown", console=False) as run:
        tasks = [Own(), numpy.zeros(10**6), "x" * 500]
        found = run.map(lambda task: task, tasks, launcher="serial")
    assert "<8000" in repr(found) and len(repr(found)) < 400
    untrusted = Run.load(run.save_dir).results()
    assert "<ResultError>" in repr(untrusted)
    with pytest.raises(ResultError):
        untrusted[0]


def test_status_of_what_has_ended_says_how_tasks_failed():
    """Once a map has ended, its status still tells the exceptions of its last failed tasks."""
    with Run(stage="ended", console=False) as run:
        run.map(halve, [1, 0], launcher="serial", on_error="return")
    (told,) = Watched(run.save_dir).look(run.lock)
    assert [(one.task, one.type) for one in told.failures] == [("0", "builtins.ZeroDivisionError")]
    the_only(TaskFiles(run.save_dir, "halve").done()).unlink()
    (told,) = Watched(run.save_dir).look(run.lock)
    assert (told.done, told.failed) == (1, 1)


# -- exceptions -------------------------------------------------------------------------------------------------------


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def test_an_exception_that_cannot_be_put_into_words():
    """It is listed as what it is, and does not take the place of the one error for all."""

    def fails(x):
        raise Unspeakable(x)

    with Run(stage="words", console=False) as run:
        with pytest.raises(TaskError, match="Unspeakable: <Unspeakable cannot be put into words") as caught:
            run.map(fails, [1, 2], launcher="serial")
        assert isinstance(caught.value.__cause__, Unspeakable)


def test_secrets_in_messages():
    """What a message says beside a secret name is kept out of rows and exceptions, as it is out of the lock."""

    def connects(x):
        raise ConnectionError(f"tried password='hunter{x}secret'")

    with Run(stage="secret", console=False) as run:
        run.map(connects, [22], launcher="serial", on_error="return")
    kept = [file for file in TaskFiles(run.save_dir, "connects").kept.rglob("*") if file.is_file()]
    assert kept and not any(b"hunter22" in file.read_bytes() for file in kept)


# -- misuse -----------------------------------------------------------------------------------------------------------


def test_a_function_that_is_called_like_the_second_map_of_another():
    """Each map has a name of its own, whatever functions are called."""

    def odd(x):
        return x

    odd.__name__ = "double-2"
    with Run(console=False) as run:
        for function in (odd, double, double):
            run.map(function, [1], launcher="serial")
    assert [entry.name for entry in run.lock.tasks] == ["double-2", "double", "double-3"]


# -- several at once --------------------------------------------------------------------------------------------------


def test_threads_that_map_in_one_run():
    """Several threads may map at once: each gets its own results, and the lock tells of all."""
    with Run(console=False) as run, ThreadPoolExecutor(3) as pool:
        maps = [pool.submit(run.map, double, range(n), launcher="threading", n_jobs=2) for n in (5, 6, 7)]
        failing = pool.submit(run.map, halve, [0], launcher="serial")
        for n, one in zip((5, 6, 7), maps, strict=True):
            assert one.result() == [[i, i] for i in range(n)]
        assert isinstance(failing.exception(), TaskError)
    assert sorted(entry.name for entry in run.lock.tasks) == ["double", "double-2", "double-3", "halve"]


def test_maps_of_coroutines():
    """A coroutine maps in a thread, and others go on."""

    async def both(run):
        return await asyncio.gather(
            *(asyncio.to_thread(run.map, double, [n], launcher="threading") for n in (1, 2))
        )

    with Run(console=False) as run:
        assert asyncio.run(both(run)) == [[[1, 1]], [[2, 2]]]


# -- inside a task ----------------------------------------------------------------------------------------------------


def test_a_map_in_a_task_heeds_what_it_was_told():
    """`retries` and `on_error` count there, too."""
    calls = []

    def inner(x):
        calls.append(x)
        return 1 / x

    def outer(how):
        with Run(console=False) as run:
            return run.map(inner, [1, 0, 2], **how)

    with Run(console=False) as run:
        (returned,) = run.map(outer, [{"on_error": "return", "retries": 2}], launcher="serial")
        assert [type(one) for one in returned] == [float, ZeroDivisionError, float]
        assert calls == [1, 0, 0, 0, 2]
        with pytest.raises(TaskError) as caught:
            run.map(outer, [{}], launcher="serial")
        assert isinstance(caught.value.__cause__, ZeroDivisionError)


@pytest.mark.parametrize("launcher", ["serial", "threading"])
def test_numbers_that_the_mapping_run_logs_in_a_task(launcher):
    """They are marked with the task, though it is the run outside that was asked."""
    with Run(console=False) as run:
        run.map(lambda x: run.log_async(v=x), [1, 2], launcher=launcher, n_jobs=2)
        run.log_async(v=3)
    points = sorted(zip(run.metrics()["v"].values, run.metrics()["v"].tasks, strict=True))
    keys = [row.key for row in run.tasks]
    assert points == [(1, keys[0]), (2, keys[1]), (3, None)]


# -- numbers ----------------------------------------------------------------------------------------------------------


def test_no_numbers_after_the_end():
    """A sealed run takes none, nor does one whose task is over, which would mark them with another task."""
    left = []

    def leaves(x):
        with Run(console=False) as inner:
            left.append(inner)

    with Run(console=False) as run:
        run.map(leaves, [1], launcher="serial")
        with pytest.raises(RunStateError, match="must be called before the run ends"):
            left[0].log_async(v=1)
    with pytest.raises(RunStateError, match="must be called before the run ends"):
        run.log_async(v=1)
    assert run.metrics() == {}


def test_a_name_that_cannot_be_written():
    """A metric's name that is no text in UTF-8 is refused, like a value that is no number."""
    with Run(console=False) as run, pytest.raises(TypeError, match="name"):
        run.log_async({"a\udcff": 1})


def test_half_a_line(tmp_path, monkeypatch):
    """A disk that was full for a moment costs the points of that moment, and none that follow."""
    lost = []
    one = journal.Journal(tmp_path / "metrics", lost.append)
    one.append({"a": 1})
    write = os.write
    with monkeypatch.context() as full:
        full.setattr(journal.os, "write", lambda descriptor, data: write(descriptor, data[:7]))
        one.append({"a": 2})
    one.append({"a": 3})
    assert series.read(tmp_path / "metrics")["a"].values == (1, 3)
    assert len(lost) == 1


def test_threads_of_a_task_log_to_its_run():
    """In a thread that a task starts, the run that the task entered still knows it."""

    def starts(x):
        with Run(console=False) as inner:
            thread = threading.Thread(target=inner.log_async, args=({"v": x},))
            thread.start()
            thread.join()

    with Run(console=False) as run:
        run.map(starts, [5], launcher="serial")
    assert run.metrics()["v"].tasks == (run.tasks[0].key,)


def test_commands_on_a_run_with_broken_files(past):
    """Each command says in one line what is wrong, or does without it."""
    from click.testing import CliRunner

    os.truncate(TaskFiles(past.save_dir, "double").todo, 20 << 30)
    for command in ("show", "status", "collect", "ls"):
        done = CliRunner().invoke(main, [command, *[str(past.save_dir)] * (command != "ls")])
        assert done.exit_code == 0, done.output


def test_one_earlier_map_with_broken_files():
    """At the end of a resumed run a map whose files are gone is an omission, and the others are looked at."""
    with Run(console=False) as first:
        first.map(double, [1], launcher="serial")
        first.map(halve, [1], launcher="serial")
    the_only(TaskFiles(first.save_dir, "double").done()).write_bytes(b"no row\n")
    with Run(resume=first.save_dir, console=False) as again:
        pass
    assert again.status == "done"
    assert [entry.name for entry in again.lock.tasks] == ["double", "halve"]
    assert [one.what for one in again.omissions if "tasks" in one.what] == ["tasks of double"]


def test_maps_keep_their_order():
    """The lock tells of maps in the order in which they were begun, however often they are gone on with."""
    with Run(console=False) as first:
        first.map(double, [1], launcher="serial")
        first.map(halve, [1], launcher="serial")
    with Run(resume=first.save_dir, console=False) as again:
        again.map(double, [1, 2], launcher="serial")
    assert [(entry.name, entry.total) for entry in again.lock.tasks] == [("double", 2), ("halve", 1)]
