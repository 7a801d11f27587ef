"""What was read is noted, what was only looked at is not, and nothing else of a configuration changes."""

from __future__ import annotations

import copy
import dataclasses
import enum
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from runctx.config import interpolations
from runctx.config.assemble import assemble
from runctx.config.layers import Kind, Layer, dotted, tree
from runctx.config.origins import Trace, attach, raw, trace_of, tree_of
from runctx.config.reads import keys_read, never_read, watch


class Mode(enum.Enum):
    FAST = 1


@dataclasses.dataclass
class Inner:
    lr: float = 0.1
    steps: int | str = 3


@dataclasses.dataclass
class Config:
    name: str = "x"
    mode: Mode = Mode.FAST
    layers: list[int] = dataclasses.field(default_factory=lambda: [1, 2])
    empty: list[int] = dataclasses.field(default_factory=list)
    nothing: int | None = None
    union: int | str | None = None
    opt: Inner | None = dataclasses.field(default_factory=Inner)
    no_opt: Inner | None = None
    path: Path = Path("a")
    same: str = "${name}"


ALL = ("empty", "layers", "mode", "name", "no_opt", "nothing", "opt.lr", "opt.steps", "path", "same", "union")


def watched(values: Any) -> DictConfig:
    config: DictConfig = OmegaConf.create(values)
    attach(config, Trace(tree_of(config), raw(config)))
    watch(config)
    return config


def keys_of(config: DictConfig, read: Callable[[Any], Any]) -> tuple[str, ...]:
    before = set(keys_read(config))
    read(config)
    return tuple(sorted(set(keys_read(config)) - before))


@pytest.mark.parametrize(
    ("read", "keys"),
    [
        (lambda c: c.opt.lr, ("opt.lr",)),
        (lambda c: c["opt"]["lr"], ("opt.lr",)),
        (lambda c: c.get("name"), ("name",)),
        (lambda c: c.opt.steps, ("opt.steps",)),
        (lambda c: c.nothing, ("nothing",)),
        (lambda c: c.union, ("union",)),
        (lambda c: c.no_opt, ("no_opt",)),
        (lambda c: c.mode, ("mode",)),
        (lambda c: dict(**c.opt), ("opt.lr", "opt.steps")),
        (lambda c: dict(c.opt), ("opt.lr", "opt.steps")),
        (lambda c: list(c.opt.items()), ("opt.lr", "opt.steps")),
        (lambda c: list(c.opt.values()), ("opt.lr", "opt.steps")),
        (lambda c: c.layers[0], ("layers",)),
        (lambda c: len(c.empty), ("empty",)),
        (lambda c: [*c.layers], ("layers",)),
        (lambda c: 1 in c.layers, ("layers",)),
        (lambda c: c.same, ("name", "same")),
        (lambda c: "name" in c, ("name",)),
        (lambda c: OmegaConf.select(c, "opt.lr"), ("opt.lr",)),
        (lambda c: OmegaConf.select(c, "layers[1]"), ("layers",)),
        (lambda c: OmegaConf.to_container(c.opt), ("opt.lr", "opt.steps")),
        (lambda c: OmegaConf.to_object(c.opt), ("opt.lr", "opt.steps")),
        (lambda c: OmegaConf.to_container(c), ALL),
        (lambda c: OmegaConf.to_container(c, resolve=True), ALL),
        (lambda c: OmegaConf.to_object(c), ALL),
        (lambda c: pickle.dumps(c), ALL),
        (lambda c: OmegaConf.create({"a": "${opt.lr}"}, parent=c.opt).a, ("opt.lr",)),
        (lambda c: c == OmegaConf.structured(Config), ALL),
    ],
)
def test_reading(read: Callable[[Any], Any], keys: tuple[str, ...]) -> None:
    """Each way to get at a value counts as reading, of exactly the keys that were handed out."""
    assert keys_of(watched(Config), read) == keys


@pytest.mark.parametrize(
    "look",
    [
        repr,
        str,
        OmegaConf.to_yaml,
        lambda c: OmegaConf.to_yaml(c, resolve=True),
        OmegaConf.missing_keys,
        lambda c: OmegaConf.is_missing(c, "name"),
        lambda c: OmegaConf.is_interpolation(c, "same"),
        lambda c: OmegaConf.set_readonly(c, True),
        lambda c: c.opt,
        lambda c: [*c],
        len,
        dir,
        lambda c: c.keys(),
        lambda c: c.copy(),
        copy.copy,
        copy.deepcopy,
        lambda c: OmegaConf.merge(c, {"opt": {"lr": 0.5}}),
        lambda c: OmegaConf.get_type(c, "opt"),
        watch,
        tree_of,
        keys_read,
    ],
)
def test_looking_is_not_reading(look: Callable[[Any], Any]) -> None:
    """Printing, listing, copying and merging hand no value to anyone: no key counts as read by them, but later."""
    config = watched(Config)
    assert keys_of(config, look) == ()
    assert keys_of(config, lambda c: c.name) == ("name",)


def test_completion_is_not_reading() -> None:
    """Jedi and IPython may evaluate what stands before the cursor: no key counts as read by that."""
    config = watched(Config)
    for package in ("jedi.inference.compiled.access", "IPython.core.guarded_eval", "debugpy.server"):
        names = {"__name__": package, "config": config}
        exec("value = config.opt.lr, config.layers, list(config.opt.items())", names)
    assert keys_read(config) == ()
    exec("value = config.opt.lr", {"__name__": "__main__", "config": config})
    assert keys_read(config) == ("opt.lr",)


def test_resolver_reads_for_its_caller() -> None:
    """What a resolver reads counts when its result is read, and does not when it is only looked at."""
    interpolations.register("runctx_test_twice", lambda _root_: 2 * _root_.a)
    try:
        config = watched({"a": 1, "b": "${runctx_test_twice:}", "c": 0})
        OmegaConf.to_yaml(config, resolve=True)
        exec("value = config.b", {"__name__": "runctx.somewhere", "config": config})
        assert keys_read(config) == ()
        assert config.b == 2
        assert keys_read(config) == ("a", "b")
    finally:
        OmegaConf.clear_resolver("runctx_test_twice")


@pytest.mark.parametrize("twin", [DictConfig.copy, copy.deepcopy, lambda c: OmegaConf.merge(c, {"new": 1})])
def test_copies_are_watched(twin: Callable[[Any], Any]) -> None:
    """What is read of a copy, or of a copy of a part, counts as read."""
    config = watched({"a": {"b": 1, "l": [1]}, "u": 3, "n": None})
    assert keys_of(config, lambda c: twin(c).a.b) == ("a.b",)
    assert keys_of(config, lambda c: c.a.copy().l) == ("a.l",)
    assert keys_of(config, lambda c: OmegaConf.create({"other": c}).other.u) == ("u",)


def test_union_copies_are_watched() -> None:
    """A field of several types is watched in copies as well, whatever it holds."""
    config = watched(Config)
    twin = config.copy()
    assert keys_of(config, lambda c: (twin.opt.steps, twin.union, twin.no_opt)) == (
        "no_opt",
        "opt.steps",
        "union",
    )


def test_nodes_are_as_before() -> None:
    """A watched configuration prints, compares, copies and pickles like any other, before and after reading."""
    plain = OmegaConf.structured(Config)
    config = watched(Config)
    assert repr(config) == repr(plain)
    assert OmegaConf.to_yaml(config) == OmegaConf.to_yaml(plain)
    for key in plain:
        assert type(config._get_node(key)).__name__ == type(plain._get_node(key)).__name__
        assert isinstance(config._get_node(key), type(plain._get_node(key)))
    assert dir(config) == dir(plain)
    assert config == plain and plain == config
    for mine, other in [(config._get_node(key), plain._get_node(key)) for key in plain]:
        assert type(mine) is type(other)  # all have been read by now, and a hot loop pays nothing
        assert mine.__dict__.keys() == other.__dict__.keys()


def test_types_are_still_checked() -> None:
    """A value of a wrong type, an unknown key, and a write to a frozen configuration fail as they did."""
    config = watched(Config)
    with pytest.raises(OmegaConfBaseException, match="could not be converted to Float"):
        config.opt.lr = "fast"
    with pytest.raises(OmegaConfBaseException, match="nam"):
        _ = config.nam
    config.opt.lr = 1.0
    config.layers.append(3)
    config.no_opt = Inner(lr=2.0)
    assert (config.opt.lr, config.layers, config.no_opt.lr) == (1.0, [1, 2, 3], 2.0)
    OmegaConf.set_readonly(config, True)
    with pytest.raises(OmegaConfBaseException, match="read-only"):
        config.name = "y"


def test_threads_may_read_at_once() -> None:
    """Many threads that read the same keys for the first time all get their values, and each key is noted."""
    for _ in range(20):
        config = watched({f"k{i}": [i] for i in range(50)})
        start, seen = threading.Barrier(4), []

        def read(
            config: DictConfig = config, start: threading.Barrier = start, seen: list[Any] = seen
        ) -> None:
            start.wait()
            seen.append(OmegaConf.to_container(config))

        threads = [threading.Thread(target=read) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert seen == [{f"k{i}": [i] for i in range(50)}] * 4
        assert len(keys_read(config)) == 50


_PARTS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=3).filter(lambda t: "$" not in t and t != "???"),
    lambda part: (
        st.dictionaries(st.text(max_size=4) | st.integers(), part, max_size=3) | st.lists(part, max_size=3)
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["a", "b", "c d", "e.f"]), _PARTS, max_size=4))
def test_every_leaf_can_be_read(values: dict[str, Any]) -> None:
    """Whatever a configuration holds, handing all on reads each leaf of its layers, and gives what it gave before."""
    try:
        plain = OmegaConf.to_container(OmegaConf.create(values))
    except OmegaConfBaseException:
        return
    config = watched(values)
    trace = trace_of(config)
    assert trace is not None
    from runctx.config.layers import leaves

    assert repr(config) and keys_read(config) == ()
    assert OmegaConf.to_container(config) == plain
    read = set(keys_read(config))
    assert read == {dotted(path) for path, _ in leaves(trace.tree)}


def assembled(kind: Kind, values: dict[str, Any]) -> DictConfig:
    config = assemble(
        OmegaConf.create({"lr": 0.1, "n": 1}), tree(values, Layer(kind=kind, name="argument 3"))
    )
    watch(config)
    return config


@pytest.mark.parametrize("kind", ["override", "overrides file"])
def test_never_read(kind: Kind) -> None:
    """What a command line set and nobody read is named, with who set it."""
    config = assembled(kind, {"lr": 0.2, "optt": {"name": "adam"}})
    assert config.lr == 0.2
    assert {key: setting.where for key, setting in never_read(config).items()} == {"optt.name": "argument 3"}


@pytest.mark.parametrize("kind", ["config file", "experiment", "program", "base file"])
def test_never_read_is_about_the_command_line(kind: Kind) -> None:
    """A file may say more than one script reads."""
    assert never_read(assembled(kind, {"lr": 0.2, "unused": 1})) == {}


def test_what_the_run_reads() -> None:
    """`save_dir` and what was computed into it are read by the run; what a value needs is read with it."""
    config = assembled("override", {"save_dir": "results/x", "batch": 256, "rate": 0.2, "tag": "x"})
    trace = trace_of(config)
    assert trace is not None
    trace.needs = {"lr": ("rate",), "rate": ("batch", "lr"), "save_dir": ("tag",)}
    assert config.lr == 0.1
    assert keys_read(config) == ("batch", "lr", "rate", "save_dir", "tag")
    assert never_read(config) == {}


@pytest.mark.parametrize("base", [{"lr": 0.1, "n": 1, "l": [1]}, Inner])
def test_layers_laid_on_a_watched_one(base: Any) -> None:
    """A configuration made from one that is watched has reads of its own, and tells the other, too."""
    below = watched(base)
    argument = Layer(kind="override", name="argument 3")
    config = assemble(below, tree({"lr": 0.2}, argument))
    watch(config)
    watch(config)
    assert config.lr == 0.2
    assert keys_read(config) == ("lr",)
    assert never_read(config) == {}
    assert keys_of(config, lambda c: c.copy().lr) == ()
    assert keys_of(config, OmegaConf.to_container) == tuple(sorted(set(config) - {"lr"}))


def test_read_below_is_not_never_read() -> None:
    """What a script read of its configuration before it laid more upon it was not set in vain."""
    below = assembled("override", {"lr": 0.2, "n": 2})
    assert below.n == 2
    config = assemble(below, tree({"lr": 0.3}, Layer(kind="override", name="lr=0.3")))
    watch(config)
    assert keys_read(config) == ()
    assert list(never_read(config)) == ["lr"]


def test_without_layers() -> None:
    """A configuration that has no layers is left alone."""
    config = OmegaConf.create({"a": 1})
    watch(config)
    assert (config.a, keys_read(config), never_read(config)) == (1, (), {})


def test_in_another_process() -> None:
    """A configuration that was pickled unread can be read where it arrives, and counts there."""
    code = (
        "import pickle, sys\n"
        "config = pickle.load(sys.stdin.buffer)\n"
        "from runctx.config.reads import keys_read, watch\n"
        "watch(config); config.a.b; print(config, keys_read(config))"
    )
    config = watched({"a": {"b": 1}, "c": [1]})
    sent = pickle.dumps(config)
    done = subprocess.run(
        [sys.executable, "-c", code], input=sent, capture_output=True, check=True, timeout=60
    )
    assert done.stdout.decode() == "{'a': {'b': 1}, 'c': [1]} ('a.b',)\n"


def test_in_a_forked_process() -> None:
    """What a forked child reads is not known here, and so nothing is said to have never been read."""
    code = (
        "import os\n"
        "from runctx import from_cli\n"
        "from runctx.config.reads import never_read\n"
        "config = from_cli({'a': 1}, ['a=2'])\n"
        "unread = list(never_read(config))\n"
        "child = os.fork()\n"
        "if not child: os._exit(config.a)\n"
        "os.waitpid(child, 0)\n"
        "print(unread, never_read(config), list(never_read(from_cli({'a': 1}, ['a=2']))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=60)
    assert done.stdout.decode() == "['a'] {} ['a']\n"
