"""A comparison shows what differs between runs, all of it, and nothing else."""

from __future__ import annotations

import json
import math
import os
import pickle
import shlex
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from runctx import Run
from runctx.cli import browse as command
from runctx.display.words import as_text
from runctx.errors import LockError, NoRunError, QueryError
from runctx.lock import encode
from runctx.model import Data, Lock, Summary
from runctx.past.comparison import ABSENT, Comparison
from runctx.past.index import compare, runs
from runctx.past.record import Record
from tests.pastruns import child_of, make_lock, write_run
from tests.strategies import locks
from tests.test_display import CONTROL, hostile, tags_of


def known(number: int = 0, **changes: Any) -> Record:
    """A run without a folder."""
    return Record(None, make_lock(number, **changes))


def summary(*numbers: float) -> Summary:
    return Summary(last=numbers[-1], min=min(numbers), max=max(numbers), points=len(numbers))


def differing(*sides: Record) -> dict[str, tuple[Any, ...]]:
    return {line.name: line.values for line in Comparison(sides).differing}


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("RUNCTX_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "project"
    root.mkdir()
    monkeypatch.chdir(root)
    return root


class TestLaws:
    @given(st.lists(locks, min_size=2, max_size=3))
    @settings(max_examples=40)
    def test_any_locks(self, some: list[Lock]):
        """Whatever is compared, each value is either equal or differs, and what is shown is harmless."""
        found = Comparison([Record(None, one) for one in some])
        assert (
            len(found.differing) + len(found.equal)
            == len(found.lines)
            == len({line.name for line in found.lines})
        )
        assert all(len(line.values) == len(some) for line in found.lines)
        turned = Comparison([Record(None, one) for one in reversed(some)])
        assert {line.name for line in turned.differing} == {line.name for line in found.differing}
        tags_of(found._repr_html_())
        assert not CONTROL.search(as_text(found.table(equal=True)) + repr(found))

    @given(locks)
    @settings(max_examples=30)
    def test_a_run_and_itself(self, one: Lock):
        """Between a run and itself there is no difference, also where a number is none."""
        one = replace(one, metrics={"loss": summary(math.nan)})
        found = Comparison([Record(None, one)] * 2)
        assert found.differing == () and "no difference" in repr(found)


class TestWhatIsCompared:
    def test_configuration(self):
        """Each key whose values differ, or that a run does not have; a null is another thing than none."""
        one = known(config={"lr": 0.1, "opt": {"name": "sgd"}, "n": None, "same": [1], "save_dir": "a"})
        other = known(config={"lr": 0.2, "opt": {"name": "sgd", "b": 1}, "same": [1], "save_dir": "b"})
        assert differing(one, other) == {
            "config.lr": (0.1, 0.2),
            "config.n": (None, ABSENT),
            "config.opt.b": (ABSENT, 1),
        }
        assert Comparison([one, other]).to_dict()["differs"]["config"]["n"] == [None, None]

    def test_types_count(self):
        """1, 1.0 and true are three values."""
        assert len(differing(*(known(config={"n": n}) for n in (1, 1.0, True)))) == 1

    def test_metrics(self):
        """The last value of each, and the best where it is another; the best of all runs is marked."""
        metrics = (
            {"val/loss": summary(1.0, 0.5, 0.7), "acc": summary(0.9)},
            {"val/loss": summary(0.6), "acc": summary(0.8)},
        )
        found = Comparison([known(metrics=one) for one in metrics])
        told = {line.name: (line.values, line.best) for line in found.differing}
        assert told == {
            "metrics.acc": ((0.9, 0.8), (0,)),
            "metrics.val/loss": ((0.7, 0.6), (1,)),
            "metrics.val/loss.min": ((0.5, 0.6), (0,)),
        }

    def test_numbers_and_marks_are_aligned(self):
        """Numbers stand point below point, and "(best)" beside the best alone."""
        some = (
            {"acc": summary(0.9), "loss": summary(449976.5)},
            {"acc": summary(0.75), "loss": summary(450000.0)},
        )
        lines = [
            line.rstrip()
            for line in as_text(
                Comparison([known(n, metrics=one) for n, one in enumerate(some)])
            ).splitlines()
        ]
        told = {line.split()[0]: line for line in lines if line}
        acc, loss = told["metrics.acc"], told["metrics.loss"]
        assert loss.split() == ["metrics.loss", "449976.5", "(best)", "450000"]
        assert acc.split() == ["metrics.acc", "0.9", "(best)", "0.75"]
        assert acc.index("0.9") + 1 == loss.index(".5") and acc.index("(best)") == loss.index("(best)")
        assert acc.index(".75") == loss.index("450000") + 6

    def test_packages_of_one_side(self):
        """Packages that only some runs imported are counted and named below the table; `--all` lists them."""
        environments = [
            replace(make_lock().environment, packages={"numpy": one, **more})
            for one, more in (("1", {}), ("2", {"pandas": "3", "b": "4"}))
        ]
        found = Comparison([known(n, environment=one) for n, one in enumerate(environments)])
        for told in (repr(found), found._repr_html_()):
            assert "packages.numpy" in told and "packages.pandas" not in told
            assert "imported by only some of them: 2 packages (pandas, b)" in " ".join(told.split())
        assert "packages.pandas" in as_text(found.table(equal=True)) and "only some" not in as_text(
            found.table(equal=True)
        )
        assert found.to_dict()["differs"]["packages"] == {
            "numpy": ["1", "2"],
            "pandas": [None, "3"],
            "b": [None, "4"],
        }

    def test_metrics_of_unknown_sense(self):
        """Where a name does not say whether more is better, least and greatest are told, and none is the best."""
        found = Comparison([known(metrics={"x": summary(1.0, 3.0, 2.0)}), known(metrics={"x": summary(2.5)})])
        assert {line.name: line.best for line in found.differing} == {
            f"metrics.x{p}": () for p in ("", ".min", ".max")
        }

    def test_equally_good(self):
        """Runs that share the best value share the mark; what is no number, or is not there, never has it."""
        all_of_them = (
            {"acc": summary(0.9)},
            {"acc": summary(0.9)},
            {"acc": summary(math.nan)},
            {},
            {"acc": summary(0.1)},
        )
        (line,) = Comparison([known(metrics=one) for one in all_of_them]).differing
        assert line.best == (0, 1) and line.values[3] is ABSENT

    def test_system_metrics(self):
        """What the machine was doing is not compared."""
        assert differing(known(metrics={"system/cpu": summary(1.0)}), known(metrics={})) == {}

    def test_everything_else(self):
        """Status, error, duration, seed, commit, inputs, packages and the machine are compared."""
        one, other = (
            make_lock(1),
            make_lock(2, seconds=2.0, seed=3, status="interrupted", config=make_lock(1).config),
        )
        data = Data(path="d.csv", kind="file", digest="blake3:" + "a" * 64)
        one = replace(
            one, inputs=(data,), environment=replace(one.environment, packages={"numpy": "1", "a": "1"})
        )
        other = replace(
            other,
            inputs=(replace(data, digest=None, strength="skipped"),),
            environment=replace(other.environment, packages={"numpy": "2", "a": "1"}, devices=("H100",)),
        )
        assert differing(Record(None, one), Record(None, other)) == {
            "status": ("done", "interrupted"),
            "seconds": (1.5, 2.0),
            "seed": (ABSENT, 3),
            "commit": (f"{1:040x}", f"{2:040x}"),
            "inputs.d.csv": ("blake3:" + "a" * 64, "not hashed (skipped)"),
            "packages.numpy": ("1", "2"),
            "environment.devices": ([], ["H100"]),
        }

    def test_inputs_from_runs(self):
        """What was read of an earlier run is named by its stage, whatever that run's folder was called."""
        models = [make_lock(n) for n in (1, 2)]
        first, second = (child_of(5, model, seconds=1.0) for model in models)
        other = replace(second.inputs[0], digest="blake3:" + "cd" * 32)
        assert differing(Record(None, first), Record(None, second)) == {}
        found = differing(Record(None, first), Record(None, replace(second, inputs=(other, other))))
        assert list(found) == ["inputs.train: model.bin", "inputs.train: model.bin (2)"]


class TestShown:
    def test_table(self, monkeypatch):
        """Runs are columns; below, in a line, what is equal."""
        monkeypatch.setenv("COLUMNS", "80")
        told = repr(
            Comparison(
                [
                    known(n, metrics={"acc": summary(n / 4)}, config={"lr": n, **dict.fromkeys("abcdef", 1)})
                    for n in (1, 2)
                ]
            )
        )
        lines = told.split("\n")
        assert max(map(len, lines)) <= 80
        assert [line.split() for line in lines[:4]] == [
            [make_lock(1).id, make_lock(2).id],
            ["commit", f"{'0' * 12}…{'0' * 10}1", f"{'0' * 12}…{'0' * 10}2"],
            ["config.lr", "1", "2"],
            ["metrics.acc", "0.25", "0.5", "(best)"],
        ]
        assert "equal: stage, status, seconds, 6 keys of config" in " ".join(told.split())

    @pytest.mark.parametrize("count", [2, 3, 7, 30])
    def test_many_runs(self, monkeypatch, count):
        """However many runs there are, no line is longer than 80 columns, and every run and value is there."""
        monkeypatch.setenv("COLUMNS", "80")
        told = repr(Comparison([known(n, config={"lr": n + 0.5, "name": f"run{n}"}) for n in range(count)]))
        assert max(map(len, told.split("\n"))) <= 80
        assert all(f" {n}.5 " in f"{told} ".replace("\n", " ") and f"run{n}" in told for n in range(count))

    def test_names(self):
        """Runs are told apart by as much of their ids as that takes."""
        ids = ("train-251121-120000-aa", "train-251121-120000-bb", "train-251121-130000-cc", "odd")
        assert Comparison([known(id=id) for id in ids]).names == (
            ids[0],
            ids[1],
            "train-251121-130000",
            "odd",
        )

    def test_values_stay_apart(self):
        """Values that differ are shown as different, however long they are or late they differ."""
        told = [f"{n:.1f}{'0' * 60}{n}{'0' * 60}" for n in (1, 2)]
        (line,) = [
            line
            for line in repr(Comparison([known(config={"a": t}) for t in told])).split("\n")
            if "config.a" in line
        ]
        assert len({*line.split()}) == 3
        near = repr(
            Comparison([known(metrics={"acc": summary(value)}) for value in (0.12345678, 0.12345679)])
        )
        assert "0.12345678" in near and "0.12345679" in near

    def test_page(self):
        """In a notebook it is a table, in which the best stands out."""
        page = Comparison([known(metrics={"acc": summary(n)}) for n in (0.5, 0.75)])._repr_html_()
        assert tags_of(page).count("th") == 3 and "0.75 (best)" in page and "font-weight:bold" in page

    def test_hostile(self):
        """Nothing of a lock steers a terminal or a page."""
        found = Comparison([Record(None, hostile()), known()])
        tags_of(found._repr_html_())
        assert not CONTROL.search(repr(found)) and "\\x1b" in repr(found)

    def test_pandas(self):
        """A data frame has a line for each value that differs, and on request for those that do not."""
        frame = Comparison([known(n, config={"lr": n, "k": 1}) for n in (1, 2)]).to_pandas()
        assert list(frame.loc["config.lr"]) == [1, 2] and list(frame.columns) == [
            make_lock(n).id for n in (1, 2)
        ]
        assert "config.k" not in frame.index
        whole = Comparison([known(n, config={"lr": n, "k": 1}) for n in (1, 2)]).to_pandas(equal=True)
        assert list(whole.loc["config.k"]) == [1, 1]

    def test_absent_is_one_thing(self):
        """What stands for a missing value is the same after pickling."""
        assert pickle.loads(pickle.dumps(ABSENT)) is ABSENT


class TestRuns:
    @pytest.fixture(autouse=True)
    def some(self, project) -> None:
        for n in range(4):
            write_run(project, make_lock(n, metrics={"acc": summary(n / 4)}, config={"lr": n / 10, "k": 1}))

    def test_of_runs(self):
        """`runs().compare()` compares all of them, in their order; what cannot be read is left out, and that is said.

        A listing does not see that a lock is broken in a part that it does not read, nor that a run goes meanwhile.
        """
        assert runs().compare().to_dict()["differs"]["config"] == {"lr": [0.3, 0.2, 0.1, 0.0]}
        some = runs()
        Path("results/train/2/run.lock").write_text("[")
        lock = Path("results/train/1/run.lock")
        lock.write_text(lock.read_text() + "outputs: 3\n")
        assert [row.status for row in runs().rows] == ["broken", "done", "done", "done"]
        for found in (runs().compare(), some.compare()):
            assert [side.lock.id for side in found.sides] == [make_lock(3).id, make_lock(0).id]
            broken = sorted(hint.partition("run.lock:")[0] for hint in found.hints)
            assert broken == [f"left out a run: {Path('results/train', name).resolve()}/" for name in "12"]
        shutil.rmtree("results/train/2")
        assert len(some.compare().sides) == 2

    def test_by_name(self):
        """`compare` takes runs, folders and ids; two at least."""
        live = Run.load("results/train/1")
        assert compare(live, "results/train/2", make_lock(3).id).to_dict()["differs"]["config"]["lr"] == [
            0.1,
            0.2,
            0.3,
        ]
        with pytest.raises(QueryError, match="needs at least two runs; got one"):
            compare(live)
        with pytest.raises(QueryError, match=r"got none\nhint: no run has config\.q"):
            runs(where="config.q == 1").compare()
        with pytest.raises(NoRunError):
            compare(live, "nothing")
        Path("results/train/2/run.lock").write_text("[")
        with pytest.raises(LockError):
            compare(live, "results/train/2")

    def test_of_what_goes_on(self):
        """A run that goes on is compared by what it has logged so far; one whose folder is gone by its lock."""
        with Run({"lr": 0.1, "k": 1}, console=False) as run:
            run.log_async({"acc": 0.875, "system/cpu": 1})
            found = compare("results/train/3", run)
            assert {line.name: line.values for line in found.differing}["metrics.acc"] == (0.75, 0.875)
        past = Run.load("results/train/1")
        assert past.lock
        shutil.rmtree("results/train/1")
        assert compare(past, run).to_dict()["differs"]["metrics"] == {"acc": [0.25, 0.875]}

    def told(self, *arguments: str) -> Any:
        done = CliRunner().invoke(command.compare, [*arguments, "--json"], catch_exceptions=False)
        assert done.exit_code == 0
        return json.loads(done.stdout)

    def test_command(self):
        """`runctx compare` takes paths, ids, `latest`, folders, globs and expressions, in the order given."""
        told = self.told("results/train/1", "latest", make_lock(2).id)
        assert told["differs"]["config"]["lr"] == [0.1, 0.3, 0.2]
        assert [Path(run["path"]).name for run in told["runs"]] == ["1", "3", "2"]
        assert told["equal"]["config"] == {"k": 1}
        assert len(self.told()["runs"]) == len(self.told("results/t*")["runs"]) == 4
        assert len(self.told("--limit", "2")["runs"]) == 2
        assert self.told("--where", "metrics.acc > 0.3")["differs"]["metrics"] == {"acc": [0.75, 0.5]}

    def test_one_stage(self):
        """A stage means its newest run; what compares all of its runs is said, and does."""
        with pytest.raises(QueryError, match="'train' is a stage") as caught:
            CliRunner().invoke(command.compare, ["train"], catch_exceptions=False, standalone_mode=False)
        where = """--where 'stage == "train"'"""
        assert where in (caught.value.hint or "") and len(self.told(*shlex.split(where))["runs"]) == 4

    def test_code_of_two(self):
        """Of two runs of different commits it is said how to see what differs in the code, from the older on."""
        for number, commit in ((1, "a" * 40), (3, "b" * 40)):
            made = make_lock(number)
            made = replace(made, source=replace(made.source, commit=f"git:{commit}"))
            Path(f"results/train/{number}/run.lock").write_bytes(encode(made))
        done = CliRunner().invoke(command.compare, ["latest", "results/train/1"])
        assert f"hint: `git diff {'a' * 12} {'b' * 12}` shows" in done.stderr
        for named in (["latest", "results/train/3"], ["results/train/*"]):
            assert "git diff" not in CliRunner().invoke(command.compare, named).stderr

    def test_table_of_command(self, monkeypatch):
        """A pipe gets a line for each value, however many runs; `--all` has what is equal; hints go to stderr."""
        monkeypatch.delenv("COLUMNS", raising=False)
        done = CliRunner().invoke(command.compare, ["--all", "--where", "config.kk is None", "--limit", "3"])
        assert done.exit_code == 0
        words = [line.split() for line in done.stdout.splitlines()]
        assert ["config.lr", "0.3", "0.2", "0.1"] in words and ["config.k", "1", "1", "1"] in words
        assert done.stderr.startswith("hint: no run has config.kk") and "1 more; --limit 0" in done.stderr
        assert os.sep not in done.stdout
