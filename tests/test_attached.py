"""A run inside a task of `run.map`: what does it share with the run that maps, and what does that learn of it?"""

from __future__ import annotations

import copy
import logging
import os
import pickle
import random
import re
import shutil
import subprocess
import sys
import textwrap
from dataclasses import dataclass, replace
from pathlib import Path

import loguru
import numpy as np
import pytest

from runctx import Run
from runctx.errors import InputError, LedgerError, NoRunError, ResultError, TaskError
from runctx.hashing import Hashing, digest_file
from runctx.past.record import Record
from runctx.tasks import keys

LAUNCHERS = ("serial", "threading", "joblib")


@dataclass
class Config:
    input: str = "a.txt"
    lr: float = 0.1
    save_dir: str = ""
    started: str = "${now:%Y%m%d%H%M%S}"


def main(cfg):
    """As a user writes it, for one item."""
    with Run(cfg, inputs=[cfg.input], seed=0) as run:
        run.logger.info("lr={}", run.cfg.lr)
    return run


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The current folder: with a few files, outside any repository."""
    monkeypatch.chdir(tmp_path)
    for name in "abc":
        Path(f"{name}.txt").write_text(name)
    return tmp_path


def entered(cfg=None, **more):
    return Run(cfg, stage="parent", console=False, **more)


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_the_usual_main_can_be_mapped(here, launcher):
    """An unchanged `main(cfg)` that enters a run and returns it joins the run that maps: one folder, one lock."""
    with entered(Config) as run:
        results = run.map(main, ["a.txt", "b.txt"], into="input", launcher=launcher, n_jobs=2)
        plain = main(Config())  # not in a task: a run of its own
    assert [result.cfg.input for result in results] == ["a.txt", "b.txt"]
    assert {result.save_dir for result in results} == {run.save_dir}
    assert {result.id for result in results} == {run.id}
    assert plain.save_dir != run.save_dir
    assert len(list((here / "results").rglob("run.lock"))) == 2
    assert [(data.path, data.digest) for data in run.inputs] == [
        (name, digest_file(name)) for name in ("a.txt", "b.txt")
    ]


def test_equal_results_wherever_they_were_computed(here):
    """A returned run has the same digest from every launcher and in every folder."""
    digests = set()
    for launcher in LAUNCHERS:
        with entered({"input": "", "at": "${save_dir}/x", "save_dir": ""}) as run:
            run.map(main_of_dict, ["a.txt", "b.txt"], into="input", launcher=launcher, n_jobs=2)
        digests.add(run.lock.tasks[0].results)
    assert len(digests) == 1


def main_of_dict(cfg):
    with Run(cfg) as run:
        pass
    return {"run": run, "input": run.cfg.input}


def ask(cfg):
    """All that can be asked of a run, asked inside the block, and after it."""
    with Run(cfg, inputs=cfg.input, stage="own", save_dir="own", capture=True, console=True) as run:
        value = 7
        inside = told(run)
        assert run.locals["value"] == value
        assert run._repr_html_()
        assert len(run.lineage()) == 1
    assert run.locals["value"] == value
    assert Run.last is run
    assert copy.copy(run).id == run.id
    return inside, told(run)


def told(run):
    return {
        "id": run.id,
        "stage": run.stage,
        "status": run.status,
        "error": run.error,
        "started": run.cfg.started,
        "key": run.cfg.save_dir,
        "save_dir": str(run.save_dir),
        "path": os.fspath(run),
        "inputs": [data.path for data in run.inputs],
        "config": run.lock.config["input"],
        "seed": run.lock.seed,
        "upstream": run.upstream,
        "commit": run.commit,
        "repr": repr(run),
    }


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_everything_can_be_asked(here, launcher):
    """Whatever is asked of a run inside a task is answered: with the parent's, and with what is its own."""
    with entered(Config(input="c.txt"), inputs=["c.txt"]) as run:
        ((inside, after),) = run.map(ask, ["a.txt"], into="input", launcher=launcher, n_jobs=2)
        assert inside | {"status": "done", "repr": ""} == after | {"repr": ""}
        assert inside["status"] == "running"
        assert (inside["id"], inside["stage"]) == (run.id, "parent")
        assert inside["key"] == inside["save_dir"] == inside["path"] == str(run.save_dir)
        assert inside["started"] == run.cfg.started
        assert inside["inputs"] == ["c.txt", "a.txt"]
        assert inside["config"] == "a.txt"
        assert inside["seed"] is None
        assert "running" in inside["repr"]
        assert "done" in after["repr"]
    assert not (here / "own").exists()


def in_two_steps(cfg):
    first = Run(cfg, inputs=["a.txt"]).start()
    first.logger.info("outer")
    with Run({"inner": True}) as inner:
        inner.logger.info("inner")
        assert inner.cfg.inner
        doubled = inner.map(lambda x: 2 * x, [1, 2], launcher="joblib")
    first.finish()
    first.finish()
    assert inner.id == first.id
    left_open = Run(cfg, inputs=["b.txt"]).start()
    return doubled, left_open


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_start_finish_nested_and_forgotten(here, launcher):
    """Runs in runs in a task, maps in these, and a run that is never finished all end with the task."""
    with entered(Config) as run:
        ((doubled, forgotten),) = run.map(in_two_steps, [0.5], into="lr", launcher=launcher, n_jobs=2)
    assert doubled == [2, 4]
    assert forgotten.cfg.lr == 0.5
    assert {data.path for data in run.inputs} == {"a.txt", "b.txt"}
    log = (run.save_dir / "run.log").read_text()
    assert "[0.5] outer" in log
    assert "[0.5] inner" in log
    assert "[0.5] the task ended before finish()" in log
    assert len(run.lock.tasks) == 1


def failing(cfg):
    with Run(cfg) as run:
        secret = "unrelated"
        raise ValueError(f"no {run.cfg.lr} {secret}")


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_an_exception_in_the_block(here, launcher):
    """An exception of the block is the task's, and the run that maps goes on."""
    with entered(Config) as run:
        (error,) = run.map(failing, [0.5], into="lr", launcher=launcher, n_jobs=2, on_error="return")
        assert isinstance(error, ValueError)
        if launcher == "serial":
            assert Run.last.status == "failed"
            assert Run.last.error.type == "builtins.ValueError"
            assert Run.last.locals["secret"] == "unrelated"
    assert run.status == "done"
    assert run.lock.tasks[0].failed == 1


def weigh(_):
    """Whether this process still holds what tasks before this one had as variables."""
    import gc

    before = sum(isinstance(thing, Heavy) for thing in gc.get_objects())
    with Run({}):
        heavy = Heavy()
    del heavy
    return before


class Heavy:
    pass


def test_workers_let_go_of_variables(here):
    """A worker process keeps the variables of no task that is over."""
    with entered() as run:
        assert set(run.map(weigh, range(6), n_jobs=2)) == {0}


# -- the log ----------------------------------------------------------------------------------------------------------


def say(task):
    with Run({}) as run:
        run.logger.info("ours")
    loguru.logger.info("global")
    logging.getLogger("std").warning("standard")


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_lines_of_a_task_are_marked(here, launcher):
    """What a task says, through whichever logger, stands in run.log marked with the task, whatever that looks like."""
    tasks = ["images/1.png", "odd <red>{0}</red> {name}"]
    with entered() as run:
        run.map(say, tasks, launcher=launcher, n_jobs=2)
        run.logger.info("after")
    lines = (run.save_dir / "run.log").read_text().splitlines()
    for task in tasks:
        for word in ("ours", "global", "standard"):
            assert sum(line.endswith(f"- [{task}] {word}") for line in lines) == 1, lines
    assert any(line.endswith("- after") for line in lines)


def test_warm_workers_log_to_the_run_they_work_for(here):
    """A second run on the same warm processes finds its lines in its own log, and none in the first one's."""
    logs = []
    for word in ("first", "second"):
        with entered() as run:
            run.map(say, [word], n_jobs=2)
        logs.append((run.save_dir / "run.log").read_text())
    assert logs[0].count("[first]") == logs[1].count("[second]") == 3
    assert "[second]" not in logs[0]
    assert "[first]" not in logs[1]


def confess(cfg):
    with Run(cfg) as run:
        run.logger.info("with {}", cfg.api_key)
        logging.getLogger("std").warning("std %s", cfg.api_key)
    if cfg.api_key.endswith("2"):
        raise ValueError(f"refused {cfg.api_key}")
    return run


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_secrets_of_a_task_stay_out(here, launcher):
    """A secret that only a task's configuration holds gets into no file that is kept."""
    secret = "-".join(("hunter", "secret"))  # which the copy of this file does not hold
    keys = [f"{secret}-1", f"{secret}-2"]
    with entered({"api_key": ""}) as run:
        results = run.map(confess, keys, into="api_key", launcher=launcher, n_jobs=2, on_error="return")
    assert results[0].cfg.api_key == "<redacted>"
    kept = [path for path in run.save_dir.rglob("*") if path.is_file()]
    assert not [path for path in kept if secret.encode() in path.read_bytes()]


# -- inputs -----------------------------------------------------------------------------------------------------------


def read(paths):
    with Run({}, inputs=[paths] if isinstance(paths, str) else paths):
        pass


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_many_inputs_become_one_with_a_manifest(here, launcher):
    """More than twenty files and folders that tasks read stand in the lock as one, whose manifest b3sum can check."""
    Path("data/folder").mkdir(parents=True)
    names = [f"data/{i}.txt" for i in range(30)]
    for name in [*names, "data/folder/x", "data/folder/y"]:
        Path(name).write_text(name)
    with entered() as run:
        run.map(read, [*names, "data/folder", "data/1*.txt"], launcher=launcher, n_jobs=2)
    (data,) = run.inputs
    assert (data.path, data.kind, data.files, data.strength) == ("data", "files", 32, "content")
    manifest = (run.save_dir / data.manifest).read_bytes()
    (hashed,) = Hashing(["data"], base=here, cache=None).join()
    assert (manifest, data.digest) == (hashed.manifest, hashed.data.digest)
    assert Run.load(run.save_dir).inputs == run.inputs


def test_few_inputs_stand_one_by_one(here):
    """Up to twenty inputs of tasks, folders and large files too, are told as if the run itself had been given them."""
    Path("folder").mkdir()
    Path("folder/x").write_text("x")
    Path("large.bin").write_bytes(bytes(3 << 20))
    named = {"text": "a.txt", "all": "folder", "big": "large.bin", "some": "*.txt"}
    given = list(named.values())
    with entered() as run:
        run.map(read, [{name: path} for name, path in named.items()], n_jobs=2)
        run.map(read, [[path] for path in given], launcher="serial")
    with entered(inputs=dict(sorted(named.items(), key=lambda item: item[1]))) as other:
        pass
    for mine, its in zip(run.inputs, other.inputs, strict=True):
        assert replace(mine, manifest=None) == replace(its, manifest=None)
        assert (mine.manifest is None) == (its.manifest is None)
        if its.manifest:
            assert (run.save_dir / mine.manifest).read_bytes() == (other.save_dir / its.manifest).read_bytes()


def test_inputs_of_the_parent_are_not_told_twice(here):
    """What lies in an input of the parent's, or in the run's own folder, is no input of its own."""
    Path("data").mkdir()
    Path("data/x").write_text("x")
    with entered(inputs=["data", "a.txt"]) as run:
        (run.save_dir / "made.txt").write_text("made")
        paths = ["data/x", "data", "a.txt", str(here / "a.txt"), str(run.save_dir / "made.txt")]
        run.map(read, paths, launcher="serial")
    assert [data.path for data in run.inputs] == ["data", "a.txt"]


def test_a_missing_input_is_the_tasks_failure(here):
    """A task whose run names an input that is not there fails with an InputError; the others go on."""
    with entered() as run:
        with pytest.raises(TaskError) as caught:
            run.map(read, ["a.txt", "nowhere.txt"], n_jobs=2)
        assert isinstance(caught.value.results[1], InputError)
        assert "nowhere.txt" in str(caught.value)
    assert [data.path for data in run.inputs] == ["a.txt"]


def change(number):
    with Run({}, inputs=["a.txt"]):
        Path("a.txt").write_text(f"changed {number}")


def test_an_input_that_changed_between_tasks(here):
    """Two tasks that found different files under one path: the lock says so, and has what was there at the end."""
    with entered() as run:
        run.map(change, range(3), launcher="serial")
    (data,) = run.inputs
    assert data.changed_during_run
    assert data.digest == digest_file("a.txt")
    assert any("a.txt" in omission.why for omission in run.omissions)


def read_and_remove(path):
    with Run({}, inputs=[path]):
        os.remove(path)


def test_an_input_that_a_task_removed(here):
    """A file that is gone when the map has ended has no digest, and the lock says why."""
    with entered() as run:
        run.map(read_and_remove, ["a.txt"], launcher="serial")
        run.map(read, ["b.txt"], launcher="serial")
    assert [(data.path, data.digest is None) for data in run.inputs] == [("a.txt", True), ("b.txt", False)]
    assert "a.txt" in [omission.what for omission in run.omissions]


@pytest.mark.parametrize("many", [False, True])
def test_inputs_from_other_runs_are_upstream(here, many):
    """What tasks read out of an earlier run's folder makes that run a parent, be it one file or many."""
    with Run(stage="earlier", console=False) as earlier:
        for i in range(30):
            (earlier.save_dir / f"{i}.txt").write_text(str(i))
    with entered() as run:
        run.map(read, [str(earlier.save_dir / f"{i}.txt") for i in range(30 if many else 2)], n_jobs=2)
    assert run.lock.parents == (earlier.id,)
    assert {data.run for data in run.inputs} == {earlier.id}
    assert [record.id for record in Run.load(run.save_dir).upstream] == [earlier.id]


def upstream_of(path):
    with Run({}, inputs=[path]) as run:
        return [record.id for record in run.upstream]


def test_upstream_is_known_inside_the_task(here):
    """A run inside a task knows the earlier runs it reads from."""
    with Run(stage="earlier", console=False) as earlier:
        (earlier.save_dir / "x").write_text("x")
    with entered() as run:
        assert run.map(upstream_of, [str(earlier.save_dir / "x")], n_jobs=2)[0] == [earlier.id]


def test_inputs_of_maps_and_of_the_run_do_not_mix(here):
    """Inputs of the run stay first, in their order, whichever inputs its maps bring."""
    with entered(inputs=["b.txt", "a.txt"]) as run:
        run.map(read, ["c.txt"], launcher="serial")
    assert [data.path for data in run.inputs] == ["b.txt", "a.txt", "c.txt"]
    assert all(data.digest == digest_file(data.path) for data in run.inputs)


# -- what comes back --------------------------------------------------------------------------------------------------


def test_a_returned_run_is_a_past_run(here):
    """What comes back of a run inside a task is a past run, read without trust too, and found when the folder moved."""
    with entered(Config) as run:
        mapped = run.map(main, ["a.txt"], into="input", n_jobs=2)
        assert mapped[0].status == "running"
    assert isinstance(mapped[0], Record)
    assert mapped[0].status == "done"
    assert mapped[0].lineage().to_dict()["run"] == run.id
    moved = Path(shutil.move(run.save_dir, here / "moved"))
    for trusted in (False, True):
        (loaded,) = Run.load(moved).results(trusted=trusted)
        assert (loaded.save_dir, loaded.id, loaded.cfg.input) == (moved, run.id, "a.txt")
        assert keys.digest(loaded) == keys.digest(pickle.loads(pickle.dumps(loaded)))


def test_a_returned_run_follows_no_path_it_does_not_trust(here):
    """Read without trust, a returned run is of the folder it was read from, whatever folder it names."""
    from runctx.past.record import TaskRun
    from runctx.tasks.serialization import dumps, loads, results_of

    data = dumps([TaskRun("/etc", "x-251121-120000-abc123", {"lr": 1})])
    with results_of(here):
        assert loads(data, trusted=False)[0].save_dir == here
    with entered() as run:
        pass
    with results_of(run.save_dir), pytest.raises(NoRunError, match="was not found"):
        loads(data, trusted=False)[0].lock
    with pytest.raises(ResultError):
        loads(data, trusted=False)


def test_a_live_run_in_a_closure(here):
    """The mapping run itself cannot travel to other processes, and the error says what to do; in threads it can."""
    with entered() as run:
        with pytest.raises(LedgerError, match="a run lives in one process"):
            run.map(lambda x: (run.save_dir, x), [1], n_jobs=2)
        with pytest.raises(LedgerError, match="a run lives in one process"):
            run.map(str, [run], n_jobs=2)
        assert not (run.save_dir / "tasks").exists()
        assert run.map(lambda x: run.cfg is not None, [1], launcher="threading") == [True]
        assert run.lock.tasks[0].name == "lambda"
        run.map(lambda x: run.logger.info("from outside"), ["t"], launcher="serial")
    assert "[t] from outside" in (run.save_dir / "run.log").read_text()


# -- seeds ------------------------------------------------------------------------------------------------------------


def draw(_):
    return random.random(), float(np.random.rand())


def draw_in_a_run(seed):
    with Run({}, seed=seed):
        return draw(None)


def test_every_task_has_a_seed_of_its_own(here):
    """With a seed, tasks draw their own numbers, the same wherever they run, and the parent goes on as if alone."""
    drawn, after = [], []
    for launcher in ("serial", "joblib"):
        with entered(seed=7) as run:
            drawn.append(list(run.map(draw, range(4), launcher=launcher, n_jobs=2)))
            after.append(draw(None))
    assert drawn[0] == drawn[1]
    assert len(set(drawn[0])) == 4
    assert after[0] == after[1]
    with entered(seed=7):
        assert draw(None) == after[0]


def test_a_run_inside_a_task_seeds_as_it_says(here):
    """The seed of a run inside a task is what it says, whatever its parent's."""
    with entered(seed=7) as run:
        mapped = run.map(draw_in_a_run, [3, 4, 3], n_jobs=2)
    with Run({}, seed=3, console=False):
        assert mapped[0] == mapped[2] == draw(None)
    assert mapped[1] != mapped[0]


# -- code -------------------------------------------------------------------------------------------------------------


PROJECT = {
    "only_there.py": "VALUE = 1\n",
    "work.py": """\
        def value(_):
            import only_there
            return only_there.VALUE
        """,
    "program.py": """\
        import os, sys
        from runctx import Run
        import work

        with Run(console=False) as run:
            assert list(run.map(work.value, [1, 2], n_jobs=2)) == [1, 1]
            assert "only_there" not in sys.modules
            with open("only_there.py", "w") as file:
                file.write("VALUE = 22\\n")
            assert list(run.map(work.value, [1, 2], n_jobs=2)) == [22, 22]
            pids = [set(run.map(lambda _: os.getpid(), range(4), n_jobs=2)) for _ in range(3)]
            assert len(set().union(*pids)) <= 2, pids
            os.environ["NEW"] = "new"
            assert list(run.map(os.getenv, ["NEW"], n_jobs=2)) == ["new"]
        """,
}


def test_modules_of_workers_belong_to_the_code(make_repo):
    """A module that only workers import is in the lock; edited between two maps, warm workers import it anew."""
    root = make_repo({name: textwrap.dedent(text) for name, text in PROJECT.items()})
    subprocess.run([sys.executable, "program.py"], cwd=root, check=True)
    lock = Run.load(sorted((root / "results" / "program").iterdir())[0]).lock
    assert set(lock.source.files) >= {"only_there.py", "work.py", "program.py"}
    blob = subprocess.run(
        ["git", "rev-parse", "HEAD:only_there.py"], cwd=root, capture_output=True, text=True, check=True
    )
    assert lock.source.files["only_there.py"] == "git:" + blob.stdout.strip()
    assert any("only_there.py" in omission.what for omission in lock.omissions)
    assert not re.search(r"imported", " ".join(p.name for p in (root / "results").rglob("*")))
