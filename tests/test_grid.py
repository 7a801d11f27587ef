"""Combinations have a fixed order, names that stay, and lie over a configuration as overrides do."""

from __future__ import annotations

import itertools
import math
import pickle
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from joblib import Parallel, delayed
from omegaconf import OmegaConf

from runctx.config import open_config
from runctx.config.derived import Derived, derived
from runctx.config.grid import (
    Combinations,
    Point,
    grid,
    integers,
    log_spaced,
    log_uniform,
    merged,
    sample,
    spaced,
    uniform,
    value_name,
    zipped,
)
from runctx.config.layers import at
from runctx.config.origins import trace_of
from runctx.errors import ConfigError
from runctx.tasks.serialization import loads
from tests.strategies import nested, scalars, texts

SAFE = re.compile(r"[A-Za-z0-9_.,=+~-]{1,160}")


def names(combinations: Combinations) -> list[str]:
    return [point.name for point in combinations]


class TestGrid:
    def test_order(self):
        """All combinations, the last axis fastest, keys as they were given; without axes, one that changes nothing."""
        points = grid({"opt.lr": [0.1, 0.2], "epochs": [5, 10, 20]})
        assert [tuple(point.values()) for point in points] == list(itertools.product([0.1, 0.2], [5, 10, 20]))
        assert list(points[0]) == ["opt.lr", "epochs"]
        assert names(points)[:2] == ["lr=0.1,epochs=5", "lr=0.1,epochs=10"]
        assert (list(grid({})), names(grid({}) + grid({"lr": [1]}))) == ([{}], ["base", "lr=1"])

    def test_is_a_sequence_of_dicts(self):
        """Indices count from both ends, and each point is a dict of its own."""
        points = grid({"a": [1, 2], "b": [{"x": [1]}, {"x": [2]}]})
        assert (len(points), points[-1]) == (4, {"a": 2, "b": {"x": [2]}})
        assert isinstance(points[0], dict) and points[2] in points
        points[0]["b"]["x"].append(9)
        assert points[0]["b"] == {"x": [1]}
        with pytest.raises(IndexError):
            points[4]

    def test_too_many(self):
        """What no memory holds is refused at once."""
        axes = {f"k{i}": range(10) for i in range(12)}
        for make in (lambda: grid(axes), lambda: grid({"a": range(10_000)}) * grid({"b": range(10_000)})):
            with pytest.raises(ConfigError, match=r"10{8,12} combinations are too many"):
                make()

    def test_where(self):
        """A condition sees each combination as a configuration, whole parts and keys with dots included."""
        axes = {"opt": [{"lr": 0.1}, {"lr": 0.3}], "opt.wd": [0, 1], '"a.b"': ["x"], "n[0]": [2]}
        points = grid(
            axes, where=lambda c: c.opt.lr > 0.2 and c.opt.wd == 0 and c["a.b"] == "x" and c.n[0] == 2
        )
        assert list(points) == [{"opt": {"lr": 0.3}, "opt.wd": 0, '"a.b"': "x", "n[0]": 2}]

    def test_where_that_raises(self):
        """The error names the combination and what was wrong."""
        with pytest.raises(ConfigError, match=r"`where` failed for lr=0.1,n=0: ZeroDivisionError: "):
            grid({"lr": [0.1], "n": [0]}, where=lambda c: 1 / c.n)
        with pytest.raises(ConfigError, match="epochs") as caught:
            grid({"lr": [0.1]}, where=lambda c: c.epochs > 1)
        assert caught.value.hint == "it is given the keys on the axes, and no others"

    def test_axes_of_several_keys(self):
        """A tuple of keys takes tuples of values: they change together."""
        points = grid({("opt.lr", "opt.wd"): [(0.1, 1e-4), (0.2, 0)], "seed": [1, 2]})
        assert names(points)[1:3] == ["lr=0.1,wd=0.0001,seed=2", "lr=0.2,wd=0,seed=1"]

    def test_values_of_numpy(self):
        """Numbers of numpy are those of Python, and named so."""
        points = grid({"lr": numpy.linspace(0.5, 1, 2), "n": numpy.arange(1, 2), "p": [(1, 2)]})
        assert repr(dict(points[0])) == "{'lr': 0.5, 'n': 1, 'p': [1, 2]}"

    @pytest.mark.parametrize(
        ("axes", "message"),
        [
            ({"lr": []}, "axis lr has no values"),
            ({"lr": 0.1}, "must be a list of values"),
            ({"lr": "abc"}, "must be a list of values"),
            ({"lr": {"a": 1}}, "must be a list of values"),
            ({3: [1]}, "3 is no key"),
            ({(): [1]}, "is no key"),
            ({("a", "a"): [(1, 1)]}, "is no key"),
            ({("a", "b"): [(1, 2, 3)]}, "a, b: each entry must have 2 values"),
            ({("a", "b"): [1]}, "each entry must have 2 values"),
            ({"a": [1], ("a", "b"): [(1, 2)]}, "key a is on two axes"),
            ({"a": [object()]}, "config key a cannot hold object"),
        ],
    )
    def test_wrong_axes(self, axes, message):
        """An axis that is none is an error that names it."""
        with pytest.raises(ConfigError, match=message):
            grid(axes)


class TestNames:
    @pytest.mark.parametrize(
        ("value", "name"),
        [
            (1e16, "1e16"),
            (1e-5, "1e-05"),
            (-0.0, "-0.0"),
            (float("nan"), "nan"),
            (True, "true"),
            (None, "none"),
            (5, "5"),
            ("resnet-50_v1.5", "resnet-50_v1.5"),
            ([64, 32], "64+32"),
            ([64], "64+"),
            (["a", None, 1.5], "a+none+1.5"),
            ("5", "5~bed78a37bf"),
            ("true", "true~7e5d1f60fb"),
            ("", "value~965af2d03d"),
            ("../../etc/passwd", "etc-passwd~d8d93be00d"),
            (Path("data/x"), "data-x~3e522e9b32"),
            ({"name": "adam", "lr": 0.1}, "lr-0.1-name-adam~ce8ab33624"),
            ("x" * 100, "xxxxxxxxxxxxxxxxxxxx~6534b1a0b3"),
            ([], "value~7ae0645a34"),
            (b"\x00", "bytes-00~be5b0d4a28"),
        ],
        ids=repr,
    )
    def test_frozen(self, value, name):
        """Values are called what they were in every release; what is not plain has a digest."""
        assert value_name(value) == name

    @given(st.lists(scalars | nested(texts) | st.lists(scalars), min_size=2, max_size=2))
    def test_distinct(self, values):
        """Different values have different names, each safe as a name of a file."""
        first, second = map(value_name, values)
        assert SAFE.fullmatch(first)
        assert (first == second) == (_typed(values[0]) == _typed(values[1]))

    @given(texts.filter(bool))
    def test_keys(self, key):
        """Whatever the key, the name is safe."""
        assert SAFE.fullmatch(grid({key: [1]})[0].name)

    def test_short_keys(self):
        """The last word of a key where only one has it, else as many as it takes."""
        keys = ["lr", "opt.lr", "a.opt.lr", "model.depth", "layers[0]", "+new.key"]
        name = grid({key: [1] for key in keys})[0].name
        assert name == "lr=1,opt.lr=1,a.opt.lr=1,depth=1,layers.0=1,key=1"

    def test_long_names(self):
        """A name is never longer than a file may be called, and still no other's."""
        points = names(grid({f"some.rather.long_key_{i}": [1.5, 2.5] for i in range(8)}))
        assert all(SAFE.fullmatch(name) for name in points) and len(set(points)) == 256

    def test_own_names(self):
        """Keys and values, those that go together too, are called as the user says."""
        axes = {"opt.lr": [0.1, 0.2], ("a", "b"): [(1, 2), (3, 4)], "model": [{"n": 1}, {"n": 2}]}
        own = {"opt.lr": "rate", ("a", "b"): ["low", "high"], "model": ["small", "large"]}
        assert names(grid(axes, names=own))[-1] == "rate=0.2,a+b=high,model=large"
        assert names(grid({"lr": [0.1]}, names={"lr": {0.1: "slow"}})) == ["lr=slow"]
        assert names(grid({("a", "b"): [(1, 2)]}, names={"a": "x"})) == ["x=1,b=2"]

    def test_names_by_function(self):
        """A function is given each combination and names it."""
        points = grid({"opt.lr": [0.1, 0.2], "n": [1]}, names=lambda point: f"run-{point['opt.lr']}")
        assert names(points) == ["run-0.1", "run-0.2"]
        assert names(points * grid({"seed": [1, 2]}))[:2] == ["run-0.1,seed=1", "run-0.1,seed=2"]
        with pytest.raises(ConfigError, match=r"lr=0.1 and lr=0.2 are both called x"):
            grid({"lr": [0.1, 0.2]}, names=lambda point: "x")

    @pytest.mark.parametrize(
        ("own", "message"),
        [
            ({"lr": ["a"]}, "names of lr: 1 for 2 values"),
            ({"lr": ["a", "a"]}, "two values have one name"),
            ({"lr": {0.1: "a"}}, "no name for the value 0.2"),
            ({"rl": "x"}, "names of rl: no such axis"),
            ({"lr": ["a/b", "c"]}, "'a/b' cannot be the name"),
            ({"lr": ["..", "c"]}, "cannot be the name"),
            ({"lr": ["a\n", "c"]}, "cannot be the name"),
            ({"lr": ["x" * 200, "c"]}, "cannot be the name"),
            ({"lr": [1, 2]}, "1 cannot be the name"),
            ({"lr": "n"}, "lr and n are both called n"),
            (lambda point: 3, "3 cannot be the name"),
            (lambda point: point["x"], "`names` failed for lr=0.1,n=1: KeyError"),
        ],
    )
    def test_wrong_names(self, own, message):
        """Names that do not fit are an error that says which."""
        with pytest.raises(ConfigError, match=message):
            grid({"lr": [0.1, 0.2], "n": [1]}, names=own)

    def test_names_hold_no_secrets(self):
        """Of a secret only its position is shown: a name ends in logs and paths."""
        points = grid({"db.password": ["hunter22", "hunter33"]})
        assert names(points) == ["password=0", "password=1"]
        assert points[0]["db.password"] == "hunter22"
        assert "hunter" not in repr(points) + points._repr_html_()
        parts = grid(
            {"db": [{"user": "ada", "password": "hunter22"}], "url": ["https://ada:hunter22@host/x"]}
        )
        assert names(parts) == ["db=0,url=0"]


def _typed(value: Any) -> str:
    """Equal for equal values of the same types, in whatever order a mapping has its keys."""
    if isinstance(value, dict):
        return "dict" + repr(sorted((_typed(key), _typed(item)) for key, item in value.items()))
    if isinstance(value, list):
        return repr([_typed(item) for item in value])
    return f"{type(value).__name__} {value!r}"


class TestAlgebra:
    def test_zipped(self):
        """Axes go in step; different lengths are an error that says which."""
        points = zipped({"lr": [0.1, 0.2], "n": [1, 2]}, where=lambda c: c.n > 1)
        assert list(points) == [{"lr": 0.2, "n": 2}]
        with pytest.raises(ConfigError, match="lr: 1, n: 2"):
            zipped({"lr": [0.1], "n": [1, 2]})

    def test_product_and_sum(self):
        """`*` combines, `+` puts one behind the other, and names tell all of them apart."""
        a, b = grid({"opt.lr": [1, 2]}), zipped({"x": ["u", "v"], "y": [1, 2]})
        assert list(a * b) == list(grid({"opt.lr": [1, 2], ("x", "y"): [("u", 1), ("v", 2)]}))
        assert list(a + b) == [*a, *b]
        assert names(a + grid({"sched.lr": [1]})) == ["opt.lr=1", "opt.lr=2", "sched.lr=1"]
        assert len((a + b) * grid({"z": [1]}).where(lambda c: False)) == 0
        assert names((a + b)[1:3] * grid({"s": [0]})) == ["lr=2,s=0", "x=u,y=1,s=0"]
        assert names(a + a) == ["lr=1", "lr=2", "lr=1", "lr=2"]
        with pytest.raises(ConfigError, match=r"key opt.lr is on two axes"):
            a * a
        for wrong in (lambda: a * 2, lambda: a + None):
            with pytest.raises(TypeError):
                wrong()

    @given(st.lists(st.integers(1, 3), min_size=1, max_size=3), st.data())
    @settings(max_examples=50)
    def test_agrees_with_lists(self, lengths, data):
        """Whatever is done to combinations gives what is done to the list of them, and pickles."""
        points = grid({f"k{i}": list(range(n)) for i, n in enumerate(lengths)})
        listed = list(points)
        cut = data.draw(st.slices(len(listed)))
        assert list(points[cut]) == listed[cut]
        assert list(points.where(lambda c: sum(c.values()) % 2)) == [p for p in listed if sum(p.values()) % 2]
        product = points[cut] * grid({"x": [1, 2]}, names=lambda p: f"n{p['x']}")
        assert list(product) == [{**p, "x": x} for p in listed[cut] for x in (1, 2)]
        assert len(set(names(points))) == len(listed)
        again = pickle.loads(pickle.dumps(product))
        assert (list(again), names(again)) == (list(product), names(product))

    def test_old_results_are_read(self):
        """What results of earlier versions name by its old module is found."""
        assert loads(b"\x80\x05crunctx.config.combinations.axes\nPoint\n.", trusted=True) is Point
        assert loads(b"\x80\x05crunctx.config.derivation.evaluation\nDerived\n.", trusted=True) is Derived

    def test_tables(self):
        """Printed and in a notebook they are short tables, and what is in them is escaped."""
        points = grid({"a": list(range(100)), "<b>": ["<script>"]})
        assert repr(points).splitlines()[0] == "100 combinations"
        shown = points._repr_html_()
        assert "… 80 more" in repr(points) and "… 80 more" in shown
        assert "<script>" not in shown and "<b>" not in shown
        assert ">name</th>" in shown and points[0].name in shown
        assert repr(grid({"a": [1]}) + grid({"b": [2]})).splitlines()[1:] == ["  a=1", "  b=2"]


class TestSample:
    SPACES: ClassVar = {
        "lr": log_uniform(1e-5, 0.1),
        "n": integers(1, 4),
        "drop": uniform(0, 0.5),
        "opt": ["sgd", "adam"],
    }

    def test_frozen(self):
        """The same seed gives the same combinations in every release, process, and platform."""
        expected = [
            (1.24941e-05, 4, 0.0884706, "adam"),
            (2.7252e-05, 2, 0.4835004, "adam"),
            (0.0101548, 2, 0.0880447, "sgd"),
        ]
        assert [tuple(point.values()) for point in sample(self.SPACES, 3, seed=7)] == expected

    @given(st.integers(0, 30), st.integers(0, 30), st.integers())
    @settings(max_examples=30)
    def test_more_of_the_same(self, few, more, seed):
        """A combination does not depend on how many are drawn, nor on the other axes."""
        longer = sample(self.SPACES, few + more, seed)
        assert list(sample(self.SPACES, few, seed)) == list(longer[:few])
        alone = sample({"n": self.SPACES["n"]}, few, seed)
        assert [point["n"] for point in alone] == [point["n"] for point in longer[:few]]

    def test_where_draws_anew(self):
        """As many as wanted are drawn of those that a condition keeps; the first do not depend on how many."""

        def keep(c):
            return c.opt == "adam" and c.n > 1

        points = sample(self.SPACES, 20, seed=1, where=keep)
        assert len(points) == 20 and all(point["opt"] == "adam" and point["n"] > 1 for point in points)
        assert list(sample(self.SPACES, 5, seed=1, where=keep)) == list(points[:5])
        with pytest.raises(ConfigError, match="kept 0 of 1000"):
            sample({"a": [1]}, 1, where=lambda c: c.a > 1)
        assert list(sample({"a": [1]}, 0, where=lambda c: False)) == []

    def test_spaces(self):
        """Values lie where they should, the ends of whole numbers included, and spread over it."""
        points = sample({**self.SPACES, ("a", "b"): [(1, 2), (3, 4)]}, 400, seed=3)
        assert {point["n"] for point in points} == {1, 2, 3, 4}
        assert {(point["a"], point["b"]) for point in points} == {(1, 2), (3, 4)}
        assert all(0 <= point["drop"] <= 0.5 and 1e-5 <= point["lr"] <= 0.1 for point in points)
        assert 160 < sum(point["lr"] < 1e-3 for point in points) < 240  # the middle of the logarithms
        assert 160 < sum(point["drop"] < 0.25 for point in points) < 240
        assert all(len(name) < 80 for name in names(points))

    def test_names_of_choices(self):
        """Names of values are kept for those that were drawn."""
        points = sample({"opt": [{"n": 1}, {"n": 2}]}, 10, names={"opt": ["one", "two"]})
        assert {(point["opt"]["n"], point.name) for point in points} == {(1, "opt=one"), (2, "opt=two")}

    @pytest.mark.parametrize(
        "wrong",
        [
            lambda: uniform(1, 1),
            lambda: uniform(0, math.inf),
            lambda: uniform("a", "b"),
            lambda: log_uniform(0, 1),
            lambda: log_uniform(2, 1),
            lambda: integers(2, 1),
            lambda: integers(0.5, 1),
            lambda: integers(0, 2**70),
            lambda: spaced(0, 1, 0),
            lambda: spaced(0, math.nan, 2),
            lambda: log_spaced(-1, 1, 3),
            lambda: sample({"a": [1]}, -1),
            lambda: sample({"a": []}, 1),
            lambda: sample({3: uniform(0, 1)}, 1),
        ],
    )
    def test_wrong_spaces(self, wrong):
        """Bounds that bound nothing are an error."""
        with pytest.raises(ConfigError):
            wrong()


class TestSpaced:
    @pytest.mark.parametrize(
        ("numbers", "expected"),
        [
            (spaced(0, 1, 11), [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]),
            (spaced(-30, 5, 8), [-30.0, -25.0, -20.0, -15.0, -10.0, -5.0, 0.0, 5.0]),
            (spaced(-0.3, 0.3, 3), [-0.3, 0.0, 0.3]),
            (spaced(3, 4, 1), [3.0]),
            (spaced(3, 4, 2), [3.0, 4.0]),
            (spaced(1, 2, 4), [1.0, 1.33333, 1.66667, 2.0]),
            (log_spaced(1e-4, 1, 5), [0.0001, 0.001, 0.01, 0.1, 1.0]),
            (log_spaced(100, 1, 3), [100.0, 10.0, 1.0]),
        ],
    )
    def test_round_numbers(self, numbers, expected):
        """Numbers are those that a person would write."""
        assert numbers == expected

    @pytest.mark.parametrize("between", [spaced, log_spaced])
    @given(st.floats(1e-12, 1e3), st.floats(1.001, 1e9), st.integers(2, 50))
    def test_in_order(self, between, first, factor, count):
        """Bounds are exact, numbers rise, and none is twice there."""
        numbers = between(first, first * factor, count)
        assert (numbers[0], numbers[-1], len(set(numbers))) == (first, first * factor, count)
        assert numbers == sorted(numbers)


@dataclass
class Opt:
    lr: float = 0.1


@dataclass
class Config:
    batch_size: int = 64
    opt: Opt = field(default_factory=Opt)
    layers: list[int] = field(default_factory=lambda: [1, 2])
    warmup: float = derived(lambda c: c.batch_size / 64)
    twice: float = "${mul:${opt.lr},2}"  # type: ignore[assignment]


def computed(config: Any) -> tuple[float, float]:
    """What a task of a map returns."""
    return config.warmup, config.twice


class TestMerged:
    @pytest.mark.parametrize(
        "config", [Config, Config(), open_config(Config)], ids=["class", "instance", "config"]
    )
    def test_derived_values_follow(self, config):
        """Values computed from others follow a combination, whatever it is laid on, and that stays as it is."""
        points = grid({"batch_size": [128, 256], "opt.lr": [0.5]})
        assert [computed(merged(config, point)) for point in points] == [(2.0, 1.0), (4.0, 1.0)]
        assert computed(open_config(config)) == (1.0, 0.2)

    def test_in_workers(self):
        """The same in processes of joblib, which get configuration and combination by pickling."""
        config = open_config(Config)
        points = grid({"batch_size": [128, 256], "opt.lr": [0.5, 1]})
        results = Parallel(n_jobs=2)(delayed(lambda p: computed(merged(config, p)))(p) for p in points)
        assert results == [(2.0, 1.0), (2.0, 2.0), (4.0, 1.0), (4.0, 2.0)]

    def test_origins(self):
        """Who set a value is an override that is called as the combination."""
        point = grid({"opt.lr": [0.5], "batch_size": [1]})[0]
        for each in (point, dict(point)):  # a mapping that is no point has a name all the same
            trace = trace_of(merged(open_config(Config), each))
            assert trace is not None
            leaf = at(trace.tree, ("opt", "lr"))
            assert isinstance(leaf, tuple)
            assert [(s.layer.kind, s.value) for s in leaf] == [("default", 0.1), ("override", 0.5)]
            assert leaf[-1].layer.name == "lr=0.5,batch_size=1"

    def test_whole_parts(self):
        """A mapping lies over a part, and takes its place with `_replace_`; an element of a list is set."""
        config = OmegaConf.create({"opt": {"lr": 0.1, "name": "sgd"}, "n": [1, 2]})
        assert merged(config, {"opt": {"lr": 1}, "n[1]": 5}) == {"opt": {"lr": 1, "name": "sgd"}, "n": [1, 5]}
        assert merged(config, {"opt": {"_replace_": True, "beta": 1}}).opt == {"beta": 1}
        assert merged(config, {"+opt.beta": 2}).opt.beta == 2

    def test_wrong_points(self):
        """A key that is not there, or a wrong type, is an error that names key and combination."""
        config = open_config(Config)
        with pytest.raises(ConfigError, match=r"lrr=1: unknown config key opt.lrr"):
            merged(config, {"opt.lrr": 1})
        with pytest.raises(ConfigError, match=r"batch_size=many.*batch_size"):
            merged(config, {"batch_size": "many"})
        with pytest.raises(ConfigError, match=r"opt.lrr"):
            merged(OmegaConf.create({"opt": {"lr": 1}}), {"opt.lrr": 1})
