"""Expressions choose the runs that they are true of, and nothing in them is ever executed."""

from __future__ import annotations

import math
import operator
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runctx import Run
from runctx.errors import QueryError
from runctx.model import Summary
from runctx.past.cache import Entry
from runctx.past.index import runs
from runctx.past.query import MOST_CHARACTERS, Query, column
from runctx.past.row import Row
from runctx.past.runs import Runs
from tests.pastruns import START, make_lock, write_run

CONFIG = ("lr", "opt.name", "a-b", "n")
METRICS = ("acc", "train/loss", "acc.max")
numbers = st.integers(-3, 3) | st.sampled_from([0.5, -0.25, math.nan, math.inf])
values = st.one_of(
    st.none(), st.booleans(), numbers, st.sampled_from(["", "sgd", "b"]), st.lists(numbers, max_size=2)
)
summaries = st.builds(Summary, last=numbers, min=numbers, max=numbers, points=st.integers(1, 3))
rows = st.builds(
    Row,
    id=st.sampled_from(["a", "b", "c"]),
    stage=st.sampled_from(["train", "test"]),
    status=st.sampled_from(["done", "failed"]),
    started=st.just(START),
    seconds=st.none() | st.floats(0, 3),
    dirty=st.booleans(),
    config=st.dictionaries(st.sampled_from(CONFIG), values, max_size=4),
    metrics=st.dictionaries(st.sampled_from(METRICS), summaries, max_size=3),
)


def plain(row: Row) -> dict[str, Any]:
    """What each name of the generated expressions stands for."""
    told: dict[str, Any] = {
        name: getattr(row, name) for name in ("id", "stage", "status", "seconds", "dirty")
    }
    told |= {f"config[{key!r}]": value for key, value in row.config.items()}
    told["config.lr"] = row.config.get("lr")
    told["config.opt.name"] = told["config['opt'].name"] = row.config.get("opt.name")
    for name in METRICS:
        if name in row.metrics:
            parts = ((part, getattr(row.metrics[name], part)) for part in ("last", "min", "max", "points"))
            told |= {f"metrics[{name!r}].{part}": value for part, value in parts}
            told[f"metrics[{name!r}]"] = told[f"metrics.{name}"] = row.metrics[name].last
    return told


NAMES = (
    *("id", "stage", "status", "seconds", "dirty", "config.lr", "config.opt.name", "config['opt'].name"),
    *("config['a-b']", "config['n']", "metrics.acc", "metrics.train/loss", "metrics['train/loss'].min"),
    *("metrics['train/loss'].points", "metrics['acc'].min"),
)
OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "in": lambda a, b: a in b,
    "not in": lambda a, b: a not in b,
}
Test = Callable[[dict[str, Any]], bool]
literals = st.one_of(
    st.integers(-3, 3),
    st.sampled_from([0.5, True, "sgd", "done"]),
    st.lists(st.integers(-3, 3) | st.just("done")),
)
names = st.sampled_from(NAMES).map(lambda name: (name, lambda told: told.get(name)))
operands = names | literals.map(lambda value: (repr(value), lambda told: value))


def compared(one: Any, op: str, other: Any) -> bool:
    try:
        return one is not None and other is not None and bool(OPERATORS[op](one, other))
    except TypeError:
        return False


def chained(parts: list[Any], ops: list[str]) -> tuple[str, Test]:
    text = parts[0][0] + "".join(f" {op} {part[0]}" for op, part in zip(ops, parts[1:], strict=True))
    pairs = list(zip(parts, ops, parts[1:], strict=False))
    return text, lambda told: all(compared(one[1](told), op, other[1](told)) for one, op, other in pairs)


comparisons = st.lists(st.sampled_from(sorted(OPERATORS)), min_size=1, max_size=2).flatmap(
    lambda ops: st.lists(operands, min_size=len(ops) + 1, max_size=len(ops) + 1).map(
        lambda parts: chained(parts, ops)
    )
)
leaves = st.one_of(
    comparisons,
    names.map(lambda name: (f"{name[0]} is None", lambda told: name[1](told) is None)),
    names.map(lambda name: (f"{name[0]} is not None", lambda told: name[1](told) is not None)),
    names.map(lambda name: (name[0], lambda told: bool(name[1](told)))),
)
expressions: st.SearchStrategy[tuple[str, Test]] = st.recursive(
    leaves,
    lambda inner: st.one_of(
        inner.map(lambda one: (f"not ({one[0]})", lambda told: not one[1](told))),
        st.tuples(inner, inner).map(
            lambda two: (f"({two[0][0]}) and ({two[1][0]})", lambda told: two[0][1](told) and two[1][1](told))
        ),
        st.tuples(inner, inner).map(
            lambda two: (f"({two[0][0]}) or ({two[1][0]})", lambda told: two[0][1](told) or two[1][1](told))
        ),
    ),
    max_leaves=4,
)


def many(*given: Row) -> Runs:
    """Runs without folders, each at a place of its own."""
    return Runs([Entry(f"/{n}".encode(), b"", 0.0, False, b"", row) for n, row in enumerate(given)])


def places(found: Runs) -> list[bytes]:
    return [entry.path for entry in found._entries]


def row(**changes: Any) -> Row:
    return Row(**{"id": "a", "stage": "train", "status": "done", "started": START, **changes})


def summary(*numbers: float) -> Summary:
    return Summary(last=numbers[-1], min=min(numbers), max=max(numbers), points=len(numbers))


class TestLaws:
    @given(st.lists(rows, max_size=5), expressions)
    @settings(max_examples=300)
    def test_what_is_chosen(self, all_of_them, expression):
        """Chosen is what Python's own comparisons choose, where a missing value makes each of them false."""
        text, wanted = expression
        found = many(*all_of_them).where(text)
        assert places(found) == [f"/{n}".encode() for n, one in enumerate(all_of_them) if wanted(plain(one))]

    @given(st.text(max_size=40) | st.text("config.metrics<>=()[]' 019andornot", max_size=40))
    @settings(max_examples=300)
    def test_any_text(self, text):
        """Any text is an expression, or an error of ours."""
        try:
            Query(text)(row(config={"lr": 1}))
        except QueryError as error:
            assert "expression" in error.message

    @given(
        st.lists(rows, max_size=6),
        st.sampled_from(["seconds", "config.lr", "metrics.acc", "status"]),
        st.booleans(),
    )
    @settings(max_examples=100)
    def test_sorting(self, all_of_them, key, reverse):
        """Sorted runs are the same runs; the missing and what is no number are last; sorting twice changes nothing."""
        found = many(*all_of_them).sort(key, reverse=reverse)
        assert sorted(places(found)) == places(many(*all_of_them))
        told = [column(key).of(one) for one in found.measured]
        there = [value is not None and value == value for value in told]
        assert there == sorted(there, reverse=True)
        numeric = [value for value in told if isinstance(value, (int, float)) and value == value]
        assert numeric == sorted(numeric, reverse=reverse)
        assert places(found.sort(key, reverse=reverse)) == places(found)


class TestNames:
    def test_metrics(self):
        """Without a part the last value is meant; of two readings of a name the longer one that the run has."""
        short = row(metrics={"acc": summary(0.5, 0.9, 0.7), "train/loss": summary(2.0)})
        assert Query("metrics.acc == metrics.acc.last == 0.7 and metrics.acc.min == 0.5")(short)
        assert Query("metrics.acc.max == 0.9 and metrics.acc.points == 3")(short)
        assert Query("metrics.train/loss == 2 and metrics.train/loss.max == metrics['train/loss'].max")(short)
        both = row(metrics={"acc": summary(0.5), "acc.max": summary(8.0, 9.0)})
        assert Query("metrics.acc.max == 9 and metrics.acc.max.min == 8 and metrics['acc.max.min'] == 8")(
            both
        )

    def test_config(self):
        """Keys are dotted, odd ones in brackets; a part of a configuration is no value."""
        one = row(config={"opt.lr": 0.1, "a-b": 1, "3": 2, "lambda": [1, 2]})
        for text in (
            "config.opt.lr == 0.1",
            "config['opt.lr'] == 0.1",
            "config['opt'].lr > 0",
            "config[3] == 2",
        ):
            assert Query(text)(one), text
        for text in (
            "config['a-b'] == 1",
            "config['lambda'] == (1, 2)",
            "2 in config['lambda']",
            "config.opt is None",
        ):
            assert Query(text)(one), text

    def test_a_runs_own(self):
        """What every run has is asked for by its name."""
        one = row(
            status="failed", error="builtins.ValueError", dirty=True, tasks=3, tasks_done=2, parents=("p",)
        )
        for text in (
            "error == 'ValueError'",
            "dirty",
            "tasks_done < tasks",
            "'p' in parents and parents == ['p']",
            "status in ('failed',)",
        ):
            assert Query(text)(one), text
        assert not Query("commit == 'ab'")(one) and Query("commit is None and seconds is None")(one)

    @pytest.mark.parametrize(
        ("text", "hint"),
        [
            ("lr < 1", "config.lr"),
            ("statsu == 'done'", "did you mean status?"),
            ("config < 1", "config.lr"),
            ("metrics > 1", "metrics.loss"),
            ("config.debug == true", "write True"),
            ("id.__class__ == 1", "id has no parts"),
        ],
    )
    def test_no_such_name(self, text, hint):
        """A name that can mean nothing is an error that says what was probably meant."""
        with pytest.raises(QueryError, match=re.escape(hint)):
            Query(text)

    def test_no_run_has_it(self):
        """A name that none of the runs has is no error: what was probably meant is said."""
        found = many(row(config={"lr": 1, "null": None}, metrics={"val/acc": summary(1.0)}))
        assert found.where("config.lrr < 1").hints == ("no run has config.lrr; did you mean config.lr?",)
        assert "metrics.val/acc" in found.where("metrics.val/ac > 0").hints[0]
        assert found.where("config.null is None and config.lr == 1 or metrics.val/acc.max > 2").hints == ()
        assert many().where("config.lr < 1").hints == ()
        told = found.where("config.xyzzy < 1").where("config.lr == 1").sort("metrics.q")
        assert told.hints == ("no run has config.xyzzy",)
        assert "hint: no run has config.xyzzy" in repr(told) and "config.xyzzy" in told._repr_html_()


class TestMissing:
    def test_comparisons_are_false(self):
        """A value that a run does not have, or that is null, is neither equal nor unequal to anything."""
        one = row(config={"null": None})
        for name in ("config.null", "config.none", "metrics.loss", "seconds"):
            for op in ("==", "!=", "<", ">="):
                assert not Query(f"{name} {op} 1")(one) and not Query(f"1 {op} {name}")(one)
            assert Query(f"{name} is None and not {name}")(one) and not Query(f"{name} is not None")(one)

    def test_what_cannot_be_compared(self):
        """A text is never less than a number; texts and numbers are unequal."""
        one = row(config={"name": "sgd", "betas": [1]})
        for text in (
            "config.name < 1",
            "config.name >= 1",
            "1 in config.name",
            "config.betas > 1",
            "'a' in seconds",
        ):
            assert not Query(text)(one), text
        assert Query("config.name != 1 and config.betas != 1")(one)

    def test_not_a_number(self):
        """What is no number equals nothing, itself included: so it is found."""
        assert Query("metrics.loss != metrics.loss")(row(metrics={"loss": summary(math.nan)}))


class TestTexts:
    def test_times(self):
        """A date is compared as far as it is written, in local time."""
        moment = datetime(2026, 11, 21, 15, 4, 5).astimezone()
        one = row(started=moment)
        for text in (
            "started == '2026-11-21'",
            "started > '2026-11-20' and started >= '2026-11' and not started > '2026-11'",
            "'2026-11-21 15' <= started < '2026-11-21 15:30'",
            "started == '2026-11-21T15:04:05'",
            "started in ['2025', '2026-11-21'] and started not in ['2026-12']",
            "started != '2026-11-22' and '11-21' in started",
        ):
            assert Query(text)(one), text
        for wrong in ("yesterday", "21.11.2026", "2026-11-21T15:00Z", ""):
            with pytest.raises(QueryError, match="no date"):
                Query(f"started > {wrong!r}")
        for text in ("started > 2026", "2026 < started", "started in ['2026', 11]", "started == ['2026']"):
            with pytest.raises(QueryError, match=r"compared with texts(.|\n)*2026-11-21 15:30"):
                Query(text)
        assert not Query("started > '2026'")(row(started=None))

    def test_commits(self):
        """A commit is found by its beginning."""
        one = row(commit="1a2b" * 10)
        assert Query("commit == '1a2b' and commit in ['ffff', '1a2b1a'] and commit != '1b'")(one)
        assert not Query("commit == '2b' or commit not in ['1a']")(one)
        for text in ("commit == 12345678", "commit == ['1a2b']", "12345678 == commit"):
            with pytest.raises(QueryError, match="in quotes"):
                Query(text)


class TestRefused:
    @pytest.mark.parametrize(
        "text",
        [
            "__import__('os').system('touch owned')",
            "().__class__.__bases__[0].__subclasses__()",
            "9**9**9",
            "config.lr < 2*3",
            "-config.lr < 2",
            "config[config.lr] == 1",
            "config[0:1] == 1",
            "[x for x in config]",
            "(lambda: 1)()",
            "f'{config}' == ''",
            "config.lr if dirty else 1",
            "(x := 1) == 1",
            "config.lr == b'1'",
            "config.lr == 1j",
            "config.lr == {'a': 1}",
            "config.lr is 1",
            "config.lr == None",
            "status == 'done' or 'failed'",
            "metrics.a / metrics.b > 1",
            "config.a.b() == 1",
            "open('x')",
            "",
            " ",
            "lr <",
            "config.lr = 1",
            "config.lr < 1 && dirty",
            "'\\x00' == id and \x00",
            "await x",
            "*id",
            "'\\d' == id or (",
        ],
    )
    def test_what_is_more_than_a_comparison(self, text, tmp_path, monkeypatch):
        """Calls, arithmetic and all else that could do something are refused, and nothing is done."""
        monkeypatch.chdir(tmp_path)
        with pytest.raises(QueryError, match="expression"):
            Query(text)
        assert not [*tmp_path.iterdir()]

    @pytest.mark.parametrize(
        "text",
        [
            "id == '" + "x" * 100_000 + "'",
            "not " * 900 + "dirty",
            "(" * 1500 + "dirty" + ")" * 1500,
            "config" + ".a" * 1900 + " == 1",
            "id == " + "[" * 150 + "]" * 150,
            "metrics.a" + "/a" * 1900 + " < 1",
            "id == " + "-" * 3000 + "1",
            "9" * MOST_CHARACTERS + " < seconds or 1",
            " and ".join(["dirty"] * 100) + " and (" * 50 + "dirty" + ")" * 50 + "(",
        ],
    )
    def test_too_much(self, text):
        """What is too long or too deep is refused at once."""
        with pytest.raises(QueryError):
            Query(text)

    def test_long_and_flat(self):
        """Many conditions side by side are no problem."""
        assert Query(" and ".join(["stage == 'train'"] * 150))(row())

    def test_where_the_fault_is(self):
        """The error shows the place by a caret, in characters as they are printed, and never a control character."""
        expression = "config['ü\x1b[2J'] < 1 and config.lr < 2*3"
        with pytest.raises(QueryError) as caught:
            Query(expression)
        where, text, caret = caught.value.message.split("\n")
        assert f"at column {expression.index('2*3') + 1}:" in where
        assert text[caret.index("^") :] == "2*3" and "\x1b" not in text
        assert caught.value.hint == "write the result"
        for unfinished in ("config.lr <", "config.lr < 1 and"):
            with pytest.raises(QueryError, match=rf"at column {len(unfinished) + 1}:"):
                Query(unfinished)
        with pytest.raises(QueryError) as caught:
            Query("x" * 300 + " < 1")
        assert max(map(len, caught.value.message.split("\n"))) < 400

    @pytest.mark.parametrize(
        ("text", "hint"),
        [
            ("config.lr = 1", "`==` compares"),
            ("dirty && dirty", "`and`"),
            ("!dirty", "`not`"),
            ("config.val-loss < 1", "config['a-b']"),
            ("status == 'done' or 'failed'", "status in"),
            ("config.lr == None", "x is None"),
        ],
    )
    def test_hints(self, text, hint):
        """Usual slips are told what to write."""
        with pytest.raises(QueryError, match=re.escape(hint)):
            Query(text)


class TestRuns:
    @pytest.fixture
    def some(self, tmp_path) -> Runs:
        for n, acc in enumerate(([0.1, 0.9, 0.5], [0.8, 0.7], [math.nan], [])):
            metrics = (
                {"acc": Summary(last=acc[-1], min=min(acc), max=max(acc), points=len(acc))} if acc else {}
            )
            write_run(tmp_path, make_lock(n, metrics=metrics))
        return runs(tmp_path)

    def numbers(self, found: Runs) -> list[int]:
        return [int(one.id[-6:], 16) for one in found.rows]

    def test_where(self, some, tmp_path):
        """`runs(where=...)` chooses as `.where` does, from the locks and from what is remembered of them."""
        assert self.numbers(some.where("metrics.acc.max > 0.75")) == [1, 0]
        for _ in range(2):
            assert self.numbers(runs(tmp_path, where="metrics.acc > 0.5 and config.lr < 1")) == [1]
        assert self.numbers(some.where("metrics.acc is None")) == [3]
        assert [one.id for one in some.where("config.lr > 0.15")] == [make_lock(3).id, make_lock(2).id]

    def test_sort(self, some):
        """Runs without a number come last, whichever way the others are sorted."""
        assert self.numbers(some.sort("metrics.acc.max")) == [1, 0, 3, 2]
        assert self.numbers(some.sort("metrics.acc.max", reverse=True)) == [0, 1, 3, 2]
        assert self.numbers(some.sort("config.lr").sort("stage")) == [0, 1, 2, 3]
        with pytest.raises(QueryError, match=r"config\.lr"):
            some.sort("lr")

    def test_best(self, some):
        """The best value that a metric ever had counts, or the part that is named; of equals the first run."""
        assert self.numbers(Runs([some._entries[some.index(some.best("acc"))]])) == [0]
        assert some.best("acc.last").id == make_lock(1).id
        assert some.best("acc", "min").id == make_lock(0).id
        assert some.best("metrics.acc.min").id == make_lock(1).id
        assert many(*[row(metrics={"acc": summary(1.0)})] * 2).best("acc")._save_dir == Path("/0")

    @pytest.mark.parametrize(
        ("names", "mode"),
        [
            (
                (
                    "val_loss",
                    "train/loss",
                    "BCELoss",
                    "valLoss",
                    "logloss",
                    "loss.last",
                    "rmse",
                    "test_error",
                ),
                "min",
            ),
            (("wer", "FID", "mean_squared_error_mse", "MAPE", "val-ppl", "neg_score"), "min"),
            (
                ("accuracy", "val/f1", "roc_auc", "top1_acc", "acc5", "mAP50", "r2_score", "valAccuracy"),
                "max",
            ),
            (("recall@10", "neg_log_loss", "neg_root_mean_squared_error", "episode/return"), "max"),
            (
                (
                    "x",
                    "lr",
                    "loss_scale",
                    "loss_weight",
                    "score_threshold",
                    "map_size",
                    "samples",
                    "glossary",
                ),
                None,
            ),
        ],
    )
    def test_direction(self, names, mode):
        """The name of a metric says whether low or high is best; where it does not, `best` asks for `mode`."""
        for name in names:
            found = many(*(row(metrics={name: summary(value)}) for value in (1.0, 2.0)))
            if mode is None:
                with pytest.raises(
                    QueryError, match=rf'better\nhint: write best\(\'{re.escape(name)}\', "min"\)'
                ):
                    found.best(name)
                continue
            assert found.best(name) == found[0 if mode == "min" else 1]

    def test_best_of_none(self, some):
        """Where no run has a number for a metric that is said, with those there are, the nearest first."""
        with pytest.raises(QueryError, match=r"none of these 4 runs .*'ac'\nhint: there are: acc"):
            some.best("ac")
        logged = {name: summary(0.5) for name in ("system/cpu", *map(str, range(10)), "loss")}
        with pytest.raises(QueryError) as several:
            many(row(metrics=logged)).best("los")
        assert several.value.hint == "there are: loss, 0, 1, 2, 3, 4, 5, 6, 7, 8 … 1 more"
        assert some.where("metrics.zzz < 1").hints == ("no run has metrics.zzz; there are: acc",)
        with pytest.raises(QueryError, match="none of these 1 runs"):
            some.where("metrics.acc.points == 1").best("acc")
        with pytest.raises(QueryError) as all_nan:
            some[1:2].best("acc")
        assert all_nan.value.hint is None
        with pytest.raises(ValueError, match="'max' or 'min'"):
            some.best("acc", "most")  # type: ignore[arg-type]

    def test_slices_keep_hints(self, some):
        """What was noticed is said of a part of the runs, too."""
        assert some.where("config.lrr is None")[:1].hints


class TestUnsealed:
    def test_running(self, tmp_path, monkeypatch):
        """A run that goes on is chosen by what it has logged so far, once somebody asks for metrics."""
        monkeypatch.chdir(tmp_path)
        with Run({"lr": 0.1}, stage="a", console=False) as run:
            run.log_async(loss=0.5)
            run.log_async(loss=0.25)
            found = runs()
            assert found.rows[0].metrics == {}
            assert len(found.where("metrics.loss == 0.25 and metrics.loss.max == 0.5")) == 1
            assert found.best("loss").id == run.id
            assert found.to_dicts()[0]["metrics"] == {
                "loss": {"last": 0.25, "min": 0.25, "max": 0.5, "points": 2}
            }
        assert len(runs(where="metrics.loss.points == 2 and status == 'done'")) == 1

    def test_crashed(self, tmp_path, monkeypatch):
        """A listing shows what a killed run had logged, as it does of one that goes on."""
        monkeypatch.chdir(tmp_path)
        code = "import os; from runctx import Run; run = Run(console=False).start(); run.log_async(loss=0.5)"
        assert subprocess.run([sys.executable, "-c", f"{code}; os.kill(os.getpid(), 9)"]).returncode == -9
        shown = runs(where="status == 'crashed'").shown(10)
        assert [row.metrics["loss"].last for row in shown] == [0.5]

    def test_broken_journal(self, tmp_path, monkeypatch):
        """A journal that cannot be read leaves a run without metrics, and stops nothing."""
        monkeypatch.chdir(tmp_path)
        with Run({"lr": 0.1}, stage="a", console=False) as run:
            run.log_async(loss=0.5)
            (run.save_dir / "metrics/x.jsonl").write_text("{]\n")
            assert len(runs(where="metrics.loss is None")) == 1
            (run.save_dir / "metrics/x.jsonl").unlink()
