"""Derived values: computed from what a configuration holds, in an order nobody has to give, wherever it is mounted."""

from __future__ import annotations

import copy
import math
import pickle
import subprocess
import sys
import textwrap
from dataclasses import dataclass, field, make_dataclass
from datetime import datetime
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf
from omegaconf.grammar_parser import parse

from runctx.config import fill_in, open_config, to_plain
from runctx.config.assemble import assemble
from runctx.config.derived import Derived, as_subtree, derived, rooted
from runctx.config.interpolations import OPERATORS, provide
from runctx.config.layers import Branch, Layer, below, merge, plain, tree
from runctx.config.origins import raw, trace_of
from runctx.errors import ConfigError

# ruff: noqa: RUF009, E501, C416  # `derived` gives a value that nothing can modify; code that is read as text

FILE = Layer(kind="config file", name="a.yaml")


class Mode(Enum):
    FAST = 1
    SLOW = 2


@dataclass
class Optimizer:
    lr: float = derived(lambda c: 0.1 * c.factor)
    factor: int = 3


@dataclass
class Config:
    batch_size: int = 256
    lr: float = derived(lambda c: 0.01 * c.batch_size / 128)
    steps: int = derived(lambda c: c.batch_size // 2)
    big: bool = derived(lambda c: c.batch_size > 100)
    name: str = derived(lambda c: f"b{c.batch_size}")
    mode: Mode = derived(lambda c: Mode.FAST if c.big else Mode.SLOW)
    sizes: list[int] = derived(lambda c: [c.batch_size, 2])
    mixed: list[int] = field(default_factory=lambda: [derived(lambda c: c.batch_size), 2])
    perhaps: int | None = derived(lambda c: None)
    either: int | str = derived(lambda c: c.name)
    opt: Optimizer = field(default_factory=Optimizer)
    made: Optimizer = derived(lambda c: Optimizer(lr=1.0, factor=c.steps))
    far: int = derived(lambda c, root: root.opt.factor)


VALUES = {
    "batch_size": 256, "lr": 0.02, "steps": 128, "big": True, "name": "b256", "mode": "FAST", "sizes": [256, 2],
    "mixed": [256, 2], "perhaps": None, "either": "b256", "opt": {"lr": 0.1 * 3, "factor": 3},
    "made": {"lr": 1.0, "factor": 128}, "far": 3,
}  # fmt: skip


def filled(given_: Any) -> DictConfig:
    config = open_config(given_)
    fill_in(config, datetime(2025, 11, 21), "made")
    return config


def needs(config: DictConfig) -> dict[str, tuple[str, ...]]:
    trace = trace_of(config)
    assert trace is not None
    return trace.needs


def error_of(given_: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        filled(given_)
    return str(caught.value)


def mounted(values: dict[str, Any], *path: str, **around: Any) -> DictConfig:
    subtree = below(as_subtree(tree(values, FILE)), path)
    return assemble(OmegaConf.create({}), merge(tree(around, FILE), subtree))


# -- values ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [Config, Config(), OmegaConf.structured(Config), {**Config().__dict__}])
def test_every_type_of_field_can_be_derived(shape: Any) -> None:
    """The run has the values, in the field's type, however the configuration was given."""
    assert to_plain(filled(shape)) == VALUES


def test_plain_omegaconf_computes_too() -> None:
    """A configuration that never meets a run computes its derived values as well, and keeps their types."""
    config = OmegaConf.structured(Config)
    assert (config.lr, config.mode, config.made.factor, config.mixed[0]) == (0.02, Mode.FAST, 128, 256)
    assert (OmegaConf.get_type(config.made), config.sizes) == (Optimizer, [256, 2])


def test_a_value_follows_assignments_until_the_run_resolves_it() -> None:
    """Derived values are computed on reading; a run's are computed once."""
    config = open_config(Config)
    config.batch_size = 128
    assert (config.lr, config.name, config.mixed[0]) == (0.01, "b128", 128)
    fill_in(config, datetime(2025, 11, 21), "made")
    assert (raw(config)["lr"], raw(config)["mixed"]) == (0.01, [128, 2])


def test_an_explicit_value_beats_the_derivation() -> None:
    """Whoever sets a derived key has set it."""
    config = assemble(OmegaConf.structured(Config), tree({"lr": 0.5, "batch_size": 64}, FILE))
    assert (config.lr, config.steps) == (0.5, 32)
    assert filled(Config(lr=0.5)).lr == 0.5


def test_a_mapping_or_list_becomes_configuration() -> None:
    """What a function returns has attributes, numpy's scalars become numbers, and part of what it read may be given on."""
    config = filled({"n": 2, "opt": derived(lambda c: {"lr": c.n, "more": [{"k": np.float32(0.5)}]})})
    assert (config.opt.lr, config.opt.more[0].k, type(config.opt.more[0].k)) == (2, 0.5, float)
    for value in (np.float64(0.5), np.array(0.5)):
        result = filled({"x": derived(lambda c, value=value: value)}).x
        assert (result, type(result)) == (0.5, float)
    read = {"a": {"x": 1, "l": [1, "${..x}"]}, "b": derived(lambda c: c.a), "c": derived(lambda c: c.a.l)}
    config = filled(read)
    assert (to_plain(config)["b"], config.c) == ({"x": 1, "l": [1, 1]}, [1, 1])
    with pytest.raises(ConfigError, match="opt"):
        filled({"opt": derived(lambda c: {"bad": {1}})})


def test_each_function_runs_once_whatever_the_order() -> None:
    """A run computes each value once, however many others read it, and however they are ordered."""
    calls = []

    def fibonacci(i: int) -> Any:
        def value(c: Any) -> Any:
            calls.append(i)
            return c[f"k{i + 1}"] + c[f"k{i + 2}"]

        return value

    config = filled({**{f"k{i}": derived(fibonacci(i)) for i in range(60)}, "k60": 1, "k61": 1})
    assert (config.k0, len(calls)) == (4052739537881, 60)


def test_a_function_cannot_modify_what_it_reads() -> None:
    """The configuration that a function gets is read-only at every depth, and writable afterwards."""

    def assign(c: Any) -> None:
        c.opt.lr = 2

    for fn in (assign, lambda c: c.l.append(3), lambda c: c.update({"l": 1}), lambda c, root: root.pop("l")):
        given_ = {"x": derived(fn), "opt": {"lr": 1}, "l": [1]}
        assert "read-only" in error_of(given_)
    config = open_config({"x": derived(lambda c: c.opt.lr), "opt": {"lr": 1}})
    assert config.x == 1
    config.opt.lr = 5
    assert config.x == 5


def test_what_a_function_gets_is_a_configuration_like_any_other() -> None:
    """Every way of reading works on it."""

    def read(c: Any) -> list[Any]:
        several = dict(**c.opt), dict(c.opt.items()), OmegaConf.to_container(c.opt, resolve=True), {**c.opt}
        assert all(each == {"lr": 1, "k": 1} for each in several)
        assert "lr" in c.opt and len(c.opt) == 2 and isinstance(c.opt, DictConfig) and c.l == [3]
        return [OmegaConf.select(c, "opt.lr"), c.get("none", 7), c.opt.k, c["opt"]["k"], c.l[0]]

    assert filled({"x": derived(read), "opt": {"lr": 1, "k": "${.lr}"}, "l": [3]}).x == [1, 7, 1, 1, 3]


# -- errors ------------------------------------------------------------------------------------------------------


def test_an_exception_names_key_place_and_cause() -> None:
    """The error says which function failed, where it is, and why."""
    line = sys._getframe().f_lineno + 1
    told = error_of({"opt": {"lr": derived(lambda c: c.a / c.b)}, "a": 1, "b": 0})
    assert "config key opt.lr: derived value (lambda c: c.a / c.b)" in told
    assert f"test_derived.py:{line} failed: ZeroDivisionError: division by zero" in told


def test_the_cause_is_there_for_the_debugger() -> None:
    """The run's error keeps the function's own exception, which begins in the function."""
    with pytest.raises(ConfigError) as caught:
        filled({"x": derived(lambda c: [][1])})
    cause = caught.value.__cause__
    assert isinstance(cause, IndexError) and cause.__traceback__
    assert cause.__traceback__.tb_frame.f_code.co_name == "<lambda>"
    again = pickle.loads(pickle.dumps(caught.value))
    assert (type(again), str(again)) == (type(caught.value), str(caught.value))


@pytest.mark.parametrize(
    "values, chain",
    [
        ({"a": derived(lambda c: c.b), "b": derived(lambda c: c.a)}, "a -> b -> a"),
        ({"a": derived(lambda c: c.a)}, "a -> a"),
        ({"a": "${b}", "b": "${c.d}", "c": {"d": "${a}"}}, "a -> b -> c.d -> a"),
        ({"a": derived(lambda c: c.b), "b": "${mul:${c},2}", "c": "${a}"}, "a -> b -> c -> a"),
        ({"x": {"a": derived(lambda c: c.x.b), "b": "${.a}"}}, "x.a -> x.b -> x.a"),
    ],
)
def test_a_cycle_is_named_key_by_key(values: dict[str, Any], chain: str) -> None:
    """Functions and interpolations that need each other are told in the order in which they read."""
    assert f"computed from each other: {chain}\n" in error_of(values)


def test_a_cycle_can_be_broken() -> None:
    """Reading one key of an ordinary configuration tells the same; a value given for one ends it."""
    config = OmegaConf.create({"a": derived(lambda c: c.b), "b": "${a}"})
    with pytest.raises(ConfigError, match="a -> b -> a"):
        config.a
    config.b = 3
    assert config.a == 3


@pytest.mark.parametrize(
    "key, value", [("lr", "fast"), ("steps", 1.5), ("mode", "NONE"), ("big", [1]), ("lr", None)]
)
def test_a_wrong_type_names_key_and_type(key: str, value: Any) -> None:
    """The declared type holds for results as it does for given values."""
    told = error_of(Config(**{key: derived(lambda c: value)}))
    assert f"config key {key}: " in told and f"of type {type(value).__name__}" in told


def test_an_endless_function_is_an_error() -> None:
    """A function that calls itself without end does not take the interpreter with it."""

    def endless(c: Any) -> Any:
        return endless(c)

    assert "config key x" in error_of({"x": derived(endless)})
    with pytest.raises(ConfigError, match="derived"):
        derived(3)  # type: ignore[arg-type]


def test_a_text_holds_no_function() -> None:
    """What was written without being resolved, and is read again, says what it lacks."""
    text = OmegaConf.to_yaml(OmegaConf.structured(Config))
    assert "lambda c: 0.01 * c.batch_size / 128" in text
    with pytest.raises(ConfigError, match=r"key lr: .* is a derived value; its function is not in the file"):
        OmegaConf.create(text).lr
    expected = (
        "config key batch: ${derived:'lambda c: 2'} is a derived value; its function is not in the file"
    )
    assert expected in error_of(OmegaConf.create("batch: \"${derived:'lambda c: 2'}\""))


CALCULATIONS: list[Any] = [
    *(lambda lr: lr + 1, lambda lr: 1 + lr, lambda lr: "x" + lr, lambda lr: lr - 1, lambda lr: 1 - lr),
    *(lambda lr: lr * 2, lambda lr: 2 * lr, lambda lr: lr / 2, lambda lr: 2 / lr, lambda lr: lr // 2),
    *(lambda lr: 2 // lr, lambda lr: lr % 2, lambda lr: lr**2, lambda lr: 2**lr, lambda lr: -lr, abs),
    *(lambda lr: lr < 1, lambda lr: lr >= 1, lambda lr: max(lr, 1), round, int, float),
    *(lambda lr: round(lr, 2), math.sqrt, range, lambda lr: f"{lr:.3f}", lambda lr: f"{lr:>9}"),
]


def test_a_placeholder_says_what_it_is() -> None:
    """An instance of the dataclass by itself holds only the function: it reads well, and does not calculate."""
    lr: Any = Config().lr
    assert repr(lr) == "<derived: lambda c: 0.01 * c.batch_size / 128>"
    assert str(lr) == "${derived:'lambda c: 0.01 * c.batch_size / 128'}"
    for calculate in CALCULATIONS:
        with pytest.raises(TypeError, match="is not computed"):
            calculate(lr)
    assert f"{lr}" == str(lr)
    assert lr != 0.01  # comparing for equality is no calculation: dataclasses are compared field by field


# -- where it is written -----------------------------------------------------------------------------------------


def test_what_a_function_gets() -> None:
    """A dataclass reads from itself, through layers that lose its class too; a second parameter is the whole."""
    config = open_config({"factor": 99, "opt": Optimizer(factor=5)})
    assert config.opt.lr == assemble(config, tree({"x": 1}, FILE)).opt.lr == 0.5
    values = rooted({"x": 1, "sum": derived(lambda c, root: c.x + root.x), "one": derived(lambda c, k=2: k)})
    config = mounted(values, "sub", x=10)
    assert (config.sub.sum, config.sub.one) == (11, 2)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("${x}", "${...x}"),
        ("${.x}", "${.x}"),
        (r"\${x}", r"\${x}"),
        ("${mul:${x},${other}}", "${mul:${...x},${other}}"),
        ("${f:'${x}', \"${x}\"}", "${f:'${...x}', \"${...x}\"}"),
        ("${f:'x'}", "${f:'x'}"),
        ("${x.${x}}", "${...x.${...x}}"),
        ("${${x}}", "${${...x}}"),
        ("${oc.select:'x.y'}", "${oc.select:'...x.y'}"),
        ("${oc.dict.keys:x}", "${oc.dict.keys:...x}"),
        ("${xx}", "${xx}"),
        ("${oc.env:x}", "${oc.env:x}"),
        ("${", "${"),
    ],
)
def test_a_subtree_reads_its_own_keys(text: str, expected: str) -> None:
    """Of the interpolations in a mounted tree those that name a key of its own become relative, no others."""
    branch = as_subtree(tree({"x": 1, "a": {"b": {"c": text}}}, FILE))
    assert plain(branch)["a"]["b"]["c"] == expected


@pytest.mark.parametrize("text", ["${" * 500, "${" * 900 + "x" + "}" * 900, "${f:" * 900 + "}" * 900])
def test_hostile_texts_are_an_error_of_the_configuration(text: str) -> None:
    """Interpolations nested without end end in one, where they are resolved, and not before."""
    assert plain(as_subtree(tree({"x": text}, FILE))) == {"x": text}
    error_of({"x": text})


@pytest.mark.parametrize("text", ["${x}" * 1_000_000, "${" * 1_000_000 + "x" + "}" * 1_000_000])
def test_a_million_interpolations_in_a_text_are_refused(text: str) -> None:
    """Before OmegaConf reads them, which would take it many minutes."""
    mounted_text = as_subtree(tree({"x": 1, "a": text}, FILE))
    for hold in (lambda: open_config({"a": text}), lambda: assemble(OmegaConf.create({}), mounted_text)):
        with pytest.raises(ConfigError, match="more than 1000 interpolations in one text"):
            hold()


def test_markers_of_a_subtree_stay() -> None:
    """What a tree does to lower layers it does where it is mounted."""
    branch = tree({"a": {"_replace_": True, "x": "${b}"}, "b": 1, "_delete_": ["c"]}, FILE)
    bound = as_subtree(branch)
    part = bound.children["a"]
    assert isinstance(part, Branch) and part.whole and bound.removed == {"c"}
    assert plain(branch)["a"] == {"x": "${b}"}


NAMES = st.sampled_from(["a", "b", "c"])
TEXTS = "${n}|${ n }|${[n]}|${mul:${n},2}|it's ${n}|${deep.x}|\\${n}|${deep.${key}}|${oc.select:n}|${oc.select:none,5}|${list[1]}"
REFERENCE = st.sampled_from(TEXTS.split("|"))
TREES = st.recursive(
    REFERENCE | st.integers(),
    lambda inner: st.dictionaries(NAMES, inner, max_size=3) | st.lists(inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(NAMES, TREES, max_size=3),
    st.lists(st.sampled_from(["n", "deep", "m"]), min_size=1, max_size=3),
)
def test_mounting_changes_no_value(generated: dict[str, Any], path: list[str]) -> None:
    """A tree that reads only itself has the same values anywhere, whatever keys of the same names lie around it."""
    own = {
        "n": 3,
        "deep": {"x": 4},
        "list": [1, "${n}"],
        "key": "x",
        "all": derived(lambda c: c.n + c.deep.x),
        "inner": {"up": [derived(lambda c: c.n)]},
    }
    values = rooted({**generated, **own})
    alone = to_plain(open_config(values))
    around = {key: 77 for key in ("n", "key", "list") if key != path[0]}
    config = mounted(values, *path, **around)
    for key in path:
        config = config[key]
    assert to_plain(config) == alone


# -- what was read -----------------------------------------------------------------------------------------------


def test_the_trace_knows_what_was_read() -> None:
    """Of each computed value, the keys it was computed from; interpolations and functions alike."""
    config = filled(
        {
            "n": 1, "o": {"a": "${n}", "b": derived(lambda c: c.o.a + c.l[0]), "c": "${.a} ${mul:${n},2}"}, "l": [1, 2],
            "e": "${l[1]}", "which": "a", "f": "${o.${which}}", "g": "${oc.select:n}", "h": derived(lambda c: c.o.get("z", c.n)),
        }
    )  # fmt: skip
    found = needs(config)
    assert found["o.a"] == ("n",)
    assert found["o.b"] == ("o.a", "l")
    assert found["o.c"] == ("o.a", "n")
    assert found["e"] == ("l.1",)
    assert set(found["f"]) == {"o", "which"}
    assert (found["g"], found["h"]) == (("n",), ("n",))


def test_the_final_trace_keeps_layers_and_reads() -> None:
    """A run's configuration knows who set each key, and shares what was read with the one it was given."""
    config = assemble(OmegaConf.structured(Config), tree({"batch_size": 64}, FILE))
    config.steps = 3
    copied = open_config(config)
    fill_in(copied, datetime(2025, 11, 21), "made", program="train.py:3")
    before, after = trace_of(config), trace_of(copied)
    assert before and after and after.values is None and after.reads is before.reads
    said = after.tree.children
    assert [setting.value for setting in said["batch_size"]] == [256, 64]  # type: ignore[union-attr]
    assert isinstance(said["lr"][-1].value, Derived) and said["steps"][-1].where == "train.py:3"  # type: ignore[index]


def test_a_part_of_a_configuration_stands_alone_afterwards() -> None:
    """It has read what it needs from around it, and keeps its own layers only."""
    whole = open_config({"n": 2, "part": {"x": "${n}", "y": derived(lambda c: c.n)}})
    config = filled(whole.part)
    trace = trace_of(config)
    assert (to_plain(config), config._get_parent()) == ({"x": 2, "y": 2}, None)
    assert trace and list(trace.tree.children) == ["x", "y"]
    assert whole.part.x == 2


# -- elsewhere ---------------------------------------------------------------------------------------------------

SCRIPT = """
import pickle, sys
from dataclasses import dataclass
from runctx.config.assemble import assemble
from runctx import derived
from runctx.config.layers import Layer, tree
from omegaconf import OmegaConf

def twice(c):
    return 2 * c.n

def times(factor):
    return derived(lambda c: factor * c.n)

@dataclass
class Config:
    n: int = 2
    a: float = derived(lambda c: 0.5 * c.n)
    b: int = derived(twice)
    c: int = times(7)
    d: float = 0.0

def use(cfg):
    cfg.n = 4
    return [cfg.a, cfg.b, cfg.c, cfg.d]

config = assemble(OmegaConf.structured(Config), tree({"d": "${mul:${n},10}"}, Layer(kind="override", name="argument 1")))
"""


def run(code: str, folder: Path) -> str:
    (folder / "script.py").write_text(code)
    done = subprocess.run([sys.executable, "script.py"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_fresh_interpreter_computes(tmp_path: Path) -> None:
    """Lambdas, closures and functions of `__main__` travel by plain pickle, with their resolvers."""
    run(SCRIPT + "plain = OmegaConf.create({'n': 2, 'a': times(3)})\n"
        "open('cfg', 'wb').write(pickle.dumps([plain, OmegaConf.create({'n': 3, 'b': derived(twice)})]))", tmp_path)  # fmt: skip
    told = run("import pickle\na, b = pickle.load(open('cfg', 'rb'))\nprint(a.a, b.b)", tmp_path)
    assert told == "6 6\n"


def test_workers_compute(tmp_path: Path) -> None:
    """What joblib hands to its workers follows assignments there, arithmetic included."""
    told = run(SCRIPT + "if __name__ == '__main__':\n    from joblib import Parallel, delayed\n"
               "    print(Parallel(n_jobs=2)(delayed(use)(config) for _ in range(2)))", tmp_path)  # fmt: skip
    assert told == "[[2.0, 8, 28, 40.0], [2.0, 8, 28, 40.0]]\n"


def test_copies_are_the_same_value() -> None:
    """A pickled function is not a change that somebody made; another closure is."""
    first: Any = derived(lambda c: c.n)
    assert pickle.loads(pickle.dumps(first)) == first and copy.deepcopy(first) is first

    def times(factor: Any) -> Any:
        return derived(lambda c: factor * c.n)

    assert times(2) == times(2) and times(2) != times(3) and times(np.ones(2)) != times(np.ones(2))
    assert len({times(2), times(2)}) == 1 and first != str(first)


def outer(c: Any) -> int:
    return 1


class Callable_:
    def __call__(self, c: Any) -> int:
        return 2


def test_its_source_can_be_shown() -> None:
    """A lambda is its text, alone; another function is its name; and nothing ever raises."""
    lambdas: list[Any] = [
        derived(lambda c: 0.01 * c.batch_size / 128), derived(lambda c: (c.a + 1)), derived(lambda: (1)),
        derived(lambda c: c.a if c.b else (c.d)), derived(lambda c, r: [x for x in c.l]), derived(lambda c: "ä" + c.s),
        derived(lambda c: c.f(
            1,
            2,
        )),
    ]  # fmt: skip
    assert [each.source for each in lambdas] == [
        "lambda c: 0.01 * c.batch_size / 128", "lambda c: c.a + 1", "lambda: 1", "lambda c: c.a if c.b else (c.d)",
        "lambda c, r: [x for x in c.l]", 'lambda c: "ä" + c.s', "lambda c: c.f( 1, 2, )",
    ]  # fmt: skip
    assert all(parse(each) for each in lambdas)
    others: list[Any] = [
        derived(outer),
        derived(partial(outer)),
        derived(Callable_()),
        derived(len),
        derived(int),
    ]
    assert [each.source for each in others] == ["outer", "outer", "Callable_", "len", "int"]
    assert others[0].place[0].endswith("test_derived.py") and others[3].place == ("", 0)
    space: dict[str, Any] = {}
    exec(compile("f = lambda c: c.x", "<nowhere>", "exec"), space)
    assert derived(space["f"]).source == "lambda c: ..."
    assert filled({"x": derived(len), "f": derived(space["f"])} | {"y": 1}).x == 3


# -- arithmetic --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, expected",
    [
        ("${add:${n},2,3}", 9),
        ("${sub:${n},0.5}", 3.5),
        ("${mul:${n},0.01}", 0.04),
        ("${mul:${n},2,2}", 16),
        ("${div:${n},8}", 0.5),
        ("${floordiv:9,${n}}", 2),
        ("${mod:9,${n}}", 1),
        ("${pow:${n},2}", 16),
        ("${pow:${n},-1}", 0.25),
        ("${neg:${n}}", -4),
        ("${abs:-3}", 3),
        ("${min:${n},2,3}", 2),
        ("${max:${n},2}", 4),
        ("${round:2.5}", 2),
        ("${round:1234,-2}", 1200),
        ("${round:5,-999999999999}", 0),  # at once
        ("${round:2.345,1}", 2.3),
        ("${floor:-2.5}", -3),
        ("${ceil:2.1}", 3),
        ("${round:${mul:0.1,${add:${n},11}}}", 2),
    ],
)
def test_arithmetic(text: str, expected: float) -> None:
    """The operators are Python's, and so are the types of their results."""
    result = filled({"n": 4, "x": text}).x
    assert (result, type(result)) == (expected, type(expected))


@pytest.mark.parametrize(
    "text, told",
    [
        ("${div:${n},0}", "div(4, 0): division by zero"),
        ("${mul:${n},a}", "mul(4, 'a'): 'a' is not a number"),
        ("${mul:${n},true}", "True is not a number"),
        ("${add:${n},null}", "None is not a number"),
        ("${sub:1,2,3}", "sub(1, 2, 3): takes 2 numbers; got 3"),
        ("${add:1}", "takes 2 or more numbers"),
        ("${pow:10,9999999999}", "too large"),
        ("${pow:-8,0.5}", "a root of a negative number"),
        ("${mul:${pow:10,300},${pow:10,300}}", "too large"),
        ("${round:1,2,3}", "takes 1 to 2"),
        ("${neg:[1]}", "[1] is not a number"),
        ("${floor:.inf}", "floor("),
        ("${round:1,0.5}", "round(1, 0.5)"),
    ],
)
def test_wrong_arithmetic_names_key_operator_and_operands(text: str, told: str) -> None:
    """Numbers only, and results that end."""
    message = error_of({"n": 4, "opt": {"x": text}})
    assert "config key opt.x: " in message and told in message


CHILD = """
import warnings; warnings.simplefilter("error")
from omegaconf import OmegaConf
from runctx import config
from datetime import datetime
from runctx.config.interpolations import _register as register
{before}
cfg = config.open_config({{"x": "${{mul:2,3}}", "y": "${{add:1,2}}"}})
config.fill_in(cfg, datetime.now(), "made")
{after}
print(cfg.x, cfg.y)
"""


@pytest.mark.parametrize(
    "before, after, told",
    [
        ("register('mul', lambda a, b: 'theirs')", "", "theirs 3"),
        ("", "register('sub', lambda a, b: 'theirs')", "6 3"),
        ("OmegaConf.create({'a': '${sub:1,2}'})", "register('sub', lambda a, b: 'theirs')", "6 3"),
    ],
)
def test_an_operator_of_the_user_is_left_alone(before: str, after: str, told: str, tmp_path: Path) -> None:
    """A name that a user has registered stays theirs, and one that no configuration of ours calls stays free."""
    assert run(textwrap.dedent(CHILD.format(before=before, after=after)), tmp_path) == told + "\n"


def test_every_operator_is_registered_when_it_is_called() -> None:
    """All of them, and nothing else that a text may say."""
    provide({"a": [f"${{{name}:1}}" for name in OPERATORS], "b": "${nothing:1} mul"})
    assert all(OmegaConf.has_resolver(name) for name in OPERATORS) and not OmegaConf.has_resolver("nothing")


def test_literal_interpolations_stay_literal() -> None:
    """A text that reads like an interpolation, escaped or made by a function, is not resolved again."""
    config = filled({"a": r"\${b}", "b": 1, "c": derived(lambda c: "${b}"), "d": "${a}", "e": "${c}"})
    assert (config.a, config.c, config.d, config.e) == ("${b}",) * 4


@dataclass
class Part:
    lr: float = 0.1
    name: str = "sgd"


PARTS: list[tuple[Any, Any, Any]] = [
    (Part, {"lr": 3}, {"lr": 3.0, "name": "sgd"}),
    (Part, Part(lr=5.0), {"lr": 5.0, "name": "sgd"}),
    (Part | None, None, None),
    (list[Part], [{"lr": 3}], [{"lr": 3.0, "name": "sgd"}]),
    (list[int], [1, "2"], [1, 2]),
    (tuple[int, int], (1, "2"), (1, 2)),  # OmegaConf 2.3 knows no tuples of several types
]


@pytest.mark.parametrize(("declared", "given", "expected"), PARTS)
def test_nested_results_are_what_the_field_declares(declared: Any, given: Any, expected: Any) -> None:
    """A mapping given for a dataclass becomes one, with its other defaults, and elements get their types."""
    cls = make_dataclass("Cls", [("part", declared, field(default=derived(lambda c: given)))])
    assert OmegaConf.structured(cls).part == expected
    config = open_config(cls)
    fill_in(config, datetime(2025, 11, 21), "made")
    assert config.part == expected


@pytest.mark.parametrize(
    ("declared", "given"),
    [
        (Part, {"rate": 3}),
        (Part, [1]),
        (Part, 3),
        (Part, None),
        (list[int], [1, "a"]),
        (list[int], 3),
        (dict[str, int], {"a": "b"}),
        (tuple[int, str], (1, "a", "b")),
    ],
)
def test_nested_results_that_do_not_fit_are_named(declared: Any, given: Any) -> None:
    """The error says which key, which function, what it gave, and what the field wants."""
    cls = make_dataclass("Cls", [("part", declared, field(default=derived(lambda c: given)))])
    with pytest.raises(
        ConfigError, match=r"config key part: derived value .* at .*test_derived\.py:\d+ gave"
    ):
        fill_in(open_config(cls), datetime(2025, 11, 21), "made")
