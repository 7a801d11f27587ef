"""Whatever the user gave becomes values that do not change any more, and gives the user's class back."""

from __future__ import annotations

import argparse
import contextlib
import copy
import os  # noqa: F401 - of annotations below
import subprocess
import sys
import traceback
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence  # noqa: F401 - of annotations below
from dataclasses import dataclass, field, make_dataclass
from datetime import date, datetime  # noqa: F401
from enum import Enum
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import ReadonlyConfigError

from runctx import Run, config, derived, from_cli
from runctx.errors import ConfigError
from tests.strategies import config_keys, nested

NOW = datetime(2025, 11, 21, 13, 5, 1, 123456)


class Colour(Enum):
    RED = 1
    BLUE = 2


@dataclass
class Optimizer:
    name: str = "sgd"
    lr: float = 0.1


@dataclass(frozen=True)
class Frozen:
    steps: int = 1
    opt: Optimizer = field(default_factory=Optimizer)
    save_dir: str = "results/${now:}"


@dataclass(slots=True)
class Slotted:
    path: Path = Path("a/b")
    colour: Colour = Colour.RED
    size: tuple[int, int] = (1, 2)
    one: Optimizer | None = None
    many: list[Optimizer] = field(default_factory=lambda: [Optimizer()])
    named: dict[str, Optimizer] = field(default_factory=lambda: {"k": Optimizer(lr=0.2)})
    by_number: dict[int, float] = field(default_factory=lambda: {3: 0.5})


@dataclass(frozen=True, slots=True, kw_only=True)
class Both:
    a: int = 1
    inner: Slotted = field(default_factory=Slotted)


@dataclass
class Child(Optimizer):
    momentum: float | None = None
    derived: int = field(default=3, init=False)


@dataclass
class Registry:
    free: dict[str, Any] = field(default_factory=lambda: {"a": {"b": 1}, "c": 2})
    both: Both = field(default_factory=Both)


@dataclass
class Required:
    x: int
    y: str = "${x}"
    z: int = MISSING


def resolved(given: Any, save_dir: str = "/made") -> DictConfig:
    cfg = config.open_config(given)
    config.fill_in(cfg, NOW, save_dir)
    return cfg


def plain(given: Any) -> dict[Any, Any]:
    return config.to_plain(resolved(given))


# -- what may be given -----------------------------------------------------------------------------


def test_every_kind_of_input(tmp_path: Path) -> None:
    """Classes, instances, mappings, namespaces and files of the same values give the same configuration."""
    (tmp_path / "c.yaml").write_text("name: sgd\nlr: 0.1\n")
    values = {"name": "sgd", "lr": 0.1}
    for given_ in (
        Optimizer,
        Optimizer(),
        values,
        OrderedDict(values),
        MappingProxyType(values),
        OmegaConf.create(values),
        OmegaConf.structured(Optimizer),
        argparse.Namespace(**values),
        tmp_path / "c.yaml",
        str(tmp_path / "c.yaml"),
    ):
        assert plain(given_) == values
    assert plain(None) == {}


@pytest.mark.parametrize("shape", [Optimizer, Frozen, Slotted, Both, Child], ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("make", [True, False], ids=["instance", "class"])
def test_the_class_comes_back(shape: Any, make: bool) -> None:
    """From a past run's values `to_class` makes an instance of the class, equal to the one that was given."""
    given_ = shape() if make else shape
    back = config.to_class(plain(given_), shape)
    assert type(back) is shape
    if shape is Frozen:  # its save_dir is the folder that was made
        assert back == Frozen(save_dir="/made")
    else:
        assert back == shape()


def test_changed_values_come_back_too() -> None:
    """Not the defaults but what the run used comes back, in the types of the class."""
    given_ = Slotted(
        path=Path("x"), colour=Colour.BLUE, size=(3, 4), one=Optimizer(name="adam"), many=[], by_number={1: 1}
    )
    back = config.to_class(plain(given_), Slotted)
    assert back == given_


def test_the_default_entries_of_a_mapping_do_not_return() -> None:
    """A mapping that the run had without an entry of the class's default comes back without it."""
    given_ = Registry(
        free={"a": {}}, both=Both(inner=Slotted(named={"j": Optimizer("x")}, by_number={1: 1.5}))
    )
    assert config.to_class(plain(given_), Registry) == given_
    assert config.to_class({"free": {}}, Registry) == Registry(free={})
    assert config.to_class({}, Registry) == Registry()


def test_values_that_do_not_fit_the_class_are_named() -> None:
    """The message names key and class; the hint names the likely reason, a class changed since the run."""
    for values, key in (({"opt": {"lr": "x"}}, "opt.lr"), ({"gone": 1}, "gone"), ({"steps": None}, "steps")):
        with pytest.raises(ConfigError, match=f"config key {key}: does not fit Frozen: ") as caught:
            config.to_class(values, Frozen)
        assert "changed since" in (caught.value.hint or "")


def test_numpy_scalars_become_numbers() -> None:
    """Values that numpy computed are recorded as Python's, in mappings and in classes."""
    values = {
        "a": np.float32(0.5),
        "b": [np.int64(3)],
        "c": {"d": np.bool_(True)},
        "e": np.str_("x"),
        "f": np.array(2),
    }
    assert repr(plain(values)) == "{'a': 0.5, 'b': [3], 'c': {'d': True}, 'e': 'x', 'f': 2}"
    assert plain(Optimizer(lr=np.float64(0.3))) == {"name": "sgd", "lr": 0.3}  # type: ignore[arg-type]


def test_paths_and_enums_become_text() -> None:
    """They are written as any reader understands them."""
    assert plain({"p": Path("/x"), "c": Colour.RED, "l": [Path("y")]}) == {"p": "/x", "c": "RED", "l": ["y"]}


LOOP: dict[str, Any] = {}
LOOP["again"] = [LOOP]
DEEP: dict[str, Any] = {}
for _ in range(2000):
    DEEP = {"k": DEEP}


@pytest.mark.parametrize(
    ("given_", "told"),
    [
        ({"a": {"b": [0, {1, 2}]}}, "config key a.b[1] cannot hold set {1, 2}"),
        ({"a": {"f": print}}, "config key a.f cannot hold builtin_function_or_method"),
        ({"a": datetime(2025, 1, 1)}, "config key a cannot hold datetime"),
        ({"a": np.zeros(3)}, "config key a cannot hold ndarray"),
        ({"a": 1j}, "config key a cannot hold complex 1j"),
        ({"a": "x" * 1000, "b": {"y" * 1000}}, "config key b cannot hold set"),
        (Optimizer(lr={1}), "config key lr cannot hold set {1}"),  # type: ignore[arg-type]
        (Frozen(opt=Optimizer(lr=object())), "config key opt.lr cannot hold object"),  # type: ignore[arg-type]
        (Optimizer(lr="fast"), "config key lr: Value 'fast'"),  # type: ignore[arg-type]
        ({(1, 2): 3}, "Incompatible key type 'tuple'"),
        ({"a": {None: 3}}, "Incompatible key type 'NoneType'"),
        (argparse.Namespace(out=sys.stdout), "config key out cannot hold"),
        (3, "cannot be made of 3 (int)"),
        ([1], "cannot be made of [1] (list)"),
        (OmegaConf.create([1]), "cannot be made of [1] (ListConfig)"),
        (object(), "cannot be made of <object object"),
        (LOOP, "nested too deep, or contains itself"),
        (DEEP, "nested too deep, or contains itself"),
        ({"a": "${b}", "b": "${a}"}, "computed from each other: a -> b -> a"),
        ({"n": {"a": "${nothing}"}}, "config key n.a: Interpolation key 'nothing' not found"),
        ({"n": {"a": "${nothing:1}"}}, "config key n.a: Unsupported interpolation type nothing"),
        ({"n": {"a": "${oc.env:RUNCTX_NOTHING}"}}, "config key n.a: "),
        ({"n": {"a": "${b"}}, "config key n.a: "),
        ({"a": "???", "n": {"x": "???"}}, "a, n.x have no value; write a=... n.x=..."),
        (Required, "x, z have no value; write x=... z=..."),
        ("nothing.yaml", "configuration file nothing.yaml does not exist (looked in "),
    ],
)
def test_what_cannot_be_held_is_named(given_: Any, told: str) -> None:
    """The error says which key, and what was seen there, shortened."""
    with pytest.raises(ConfigError) as caught:
        plain(given_)
    assert told in caught.value.message
    assert len(caught.value.message) < 300


@pytest.mark.parametrize("text", ["- 1\n", "a: [", "a: !!python/name:os.system\n", "\0", "3"])
def test_a_file_that_is_no_configuration(tmp_path: Path, text: str) -> None:
    """A broken file is refused with its name."""
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"configuration file .*c\.yaml"):
        config.open_config(tmp_path / "c.yaml")


def test_what_was_given_is_never_modified() -> None:
    """Entering a run changes nothing of the caller's: no value, no flag, no nested part."""
    mapping = {"a": "${now:}", "n": {"l": [1, {"c": "${a}"}]}, "save_dir": "x", "np": np.float32(1)}
    instance = Both(inner=Slotted(one=Optimizer(name="${now:}")))
    tree = OmegaConf.create({"root": 5, "part": {"x": "${root}", "y": ["${..x}"]}, "save_dir": "x"})
    before = copy.deepcopy((mapping, instance, OmegaConf.to_container(tree)))
    for given_ in (mapping, instance, tree, tree.part):
        resolved(given_)
    assert (mapping, instance, OmegaConf.to_container(tree)) == before
    assert not OmegaConf.is_readonly(tree)
    tree.part.y.append(3)


def test_a_read_only_configuration_can_be_given() -> None:
    """A DictConfig that the user froze is resolved like any other, in our copy."""
    tree = OmegaConf.create({"a": {"b": "${now:}", "c": r"\${literal}"}, "save_dir": "x"})
    OmegaConf.set_readonly(tree, True)
    assert plain(tree) == {"a": {"b": "251121-130501", "c": "${literal}"}, "save_dir": "/made"}


def test_part_of_a_configuration_can_be_given() -> None:
    """Interpolations into the rest of the tree still resolve."""
    tree = OmegaConf.create({"root": 5, "part": {"x": "${root}", "y": "${..root}"}})
    assert plain(tree.part) == {"x": 5, "y": 5}


# -- what it becomes -------------------------------------------------------------------------------


def test_now_is_the_start_of_the_run_everywhere() -> None:
    """`${now:...}` is one instant, in save_dir and in every key, however often it is read."""
    given_ = {"a": "${now:%Y-%m-%d %H:%M:%S.%f}", "n": {"b": "${now:%f}"}, "save_dir": "r/${now:}/${n.b}"}
    cfg = config.open_config(given_)
    assert config.save_dir_of(cfg, NOW) == "r/251121-130501/123456"
    config.fill_in(cfg, NOW, "/made")
    assert (cfg.a, cfg.n.b, cfg.a, cfg.save_dir) == ("2025-11-21 13:05:01.123456", "123456", cfg.a, "/made")


@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_a_resolver_of_hydra_may_be_there_first(first: str) -> None:
    """Hydra registers `now` too: both orders work, and each run's values are resolved once."""
    theirs = (
        "import time, warnings; from omegaconf import OmegaConf; warnings.simplefilter('ignore')\n"
        "OmegaConf.register_new_resolver('now', lambda p: time.strftime(p), use_cache=True, replace=True)\n"
    )
    ours = "from runctx import config\n"
    code = (ours + theirs if first == "ours" else theirs + ours) + (
        "import datetime\n"
        "cfg = config.open_config({'a': '${now:%Y}', 'save_dir': 'r/${now:%Y}'})\n"
        "assert config.save_dir_of(cfg, datetime.datetime.now()).startswith('r/20')\n"
        "config.fill_in(cfg, datetime.datetime.now(), 'made')\n"
        "assert cfg.a.startswith('20') and not config.OmegaConf.is_interpolation(cfg, 'a')\n"
    ).replace("config.OmegaConf", "OmegaConf")
    subprocess.run([sys.executable, "-c", "from omegaconf import OmegaConf\n" + code], check=True, timeout=60)


@pytest.mark.parametrize(
    "given_", [{"steps": 1, "opt": {"lr": 0.1}, "l": [1]}, Frozen(), Both(), Optimizer()]
)
def test_writing_raises_and_names_the_key(given_: Any) -> None:
    """The configuration of a run cannot be changed, at any depth, in any way; the error names the key."""
    cfg = resolved(given_)
    before = config.to_plain(cfg)
    key = next(iter(cfg))
    with pytest.raises(ReadonlyConfigError, match=f"full_key: {key}"):
        setattr(cfg, key, 3)
    with pytest.raises(ReadonlyConfigError, match=f"full_key: {key}"):
        cfg[key] = 3
    with pytest.raises(ReadonlyConfigError):
        del cfg[key]
    for inner in (value for value in cfg.values() if isinstance(value, DictConfig)):
        with pytest.raises(ReadonlyConfigError, match=r"full_key: \w+\.\w+"):
            inner[next(iter(inner))] = 3
    if "l" in cfg:
        with pytest.raises(ReadonlyConfigError, match=r"full_key: l\[1\]"):
            cfg.l.append(2)
    assert config.to_plain(cfg) == before


@dataclass(frozen=True)
class Sized:
    sizes: list[int] = field(default_factory=lambda: [1, 2])
    rows: list[list[int]] = field(default_factory=lambda: [[1], [2]])


@pytest.mark.parametrize("made", ["run", "load", "copy", "class", "task"])
def test_frozen_lists_can_be_added(made: str, tmp_path: Path) -> None:
    """`cfg.sizes + [10]` and its like make a new list, which can be changed; what was frozen stays as it is."""
    if made == "load":
        with Run(Sized, save_dir=tmp_path / "run", console=False):
            pass
        cfg = Run.load(tmp_path / "run").cfg
    elif made == "class":
        cfg = from_cli(Sized, [])
    else:
        cfg = resolved(config.with_task(Sized, "sizes", [1, 2]) if made == "task" else Sized)
        cfg = copy.deepcopy(cfg) if made == "copy" else cfg
    sums = [cfg.sizes + [10], [3] + cfg.sizes, (3,) + cfg.sizes, cfg.sizes + cfg.sizes]  # noqa: RUF005
    assert sums == [[1, 2, 10], [3, 1, 2], [3, 1, 2], [1, 2, 1, 2]]
    assert sum(cfg.rows, []) == [1, 2] and sum([cfg.sizes], []) == [1, 2]  # noqa: RUF017
    assert cfg.rows[0] + cfg.sizes[1:] == [1, 2]
    sums[0].append(4)
    with pytest.raises(ReadonlyConfigError):
        cfg.sizes += [4]
    assert cfg == {"sizes": [1, 2], "rows": [[1], [2]]}


def test_adding_a_list_is_reading_it() -> None:
    """A list that is only added to another has been read."""
    cfg = resolved(from_cli(Sized, ["sizes=[5]"]))
    config.watch(cfg)
    assert cfg.sizes + [1] == [5, 1]  # noqa: RUF005
    assert config.keys_read(cfg) == ("sizes",) and not config.never_read(cfg)


def _refused(annotation: str, default: Any = None) -> Any:
    cls = make_dataclass("Refused", [("x", annotation, field(default_factory=lambda: default))])
    cls.__module__ = __name__
    return make_dataclass("Outer", [("inner", cls, field(default_factory=cls))])


@pytest.mark.parametrize(
    ("annotation", "default", "hint"),
    [
        ("Callable[[int], int]", len, "write str, the name, in place of Callable[[int], int]"),
        ("Sequence[int]", [1], "write list[int] in place of Sequence[int]"),
        ("set[int]", {1}, "write list[int] in place of set[int]"),
        ("Mapping[str, float]", {}, "write dict[str, float] in place of Mapping[str, float]"),
        ("date | None", None, "write str, in ISO format, in place of date"),
        ("np.float32", np.float32(1), "write float in place of float32"),
        ("np.int64", np.int64(1), "write int in place of int64"),
        ("list[set[str]]", [], "write list[str] in place of set[str]"),
        ("os.PathLike[str]", "x", "write Path in place of PathLike[str]"),
        ("type", int, "write str, the name, in place of type"),
        ("object", 1, "write str, int, float, bool"),
    ],
)
@pytest.mark.parametrize("how", ["open_config", "from_cli", "Run"])
def test_a_type_that_cannot_be_held_is_told_with_the_one_to_write(
    annotation: str, default: Any, hint: str, how: str, tmp_path: Path
) -> None:
    """Class and field are named where OmegaConf knows nothing of a type, and what to declare instead."""
    cls = _refused(annotation, default)
    with pytest.raises(ConfigError) as caught:
        if how == "from_cli":
            from_cli(cls, [])
        elif how == "Run":
            Run(cls, save_dir=tmp_path / "run", console=False).start()
        else:
            config.open_config(cls)
    assert "Refused.x: a configuration cannot hold the type " in caught.value.message
    assert (caught.value.hint or "").startswith(hint)


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        ({1}, "list[Any] in place of set"),
        (len, "str, the name,"),
        (datetime(2025, 1, 1), "str, in ISO format"),
    ],
)
def test_a_value_that_cannot_be_held_is_told_with_what_to_write(value: Any, hint: str) -> None:
    """In a dict, too, the hint names the type that holds the same."""
    with pytest.raises(ConfigError) as caught:
        config.open_config({"a": {"b": value}})
    assert hint in (caught.value.hint or "")


@pytest.mark.parametrize("annotation", ["Tensor", "list[Tensor]", "np.nothing"])
def test_an_annotation_that_cannot_be_evaluated_is_named(annotation: str) -> None:
    """A name that is imported for type checkers only is told with class and field, as a ConfigError."""
    with pytest.raises(ConfigError, match=r"^Refused\.x: the type .* cannot be evaluated: ") as caught:
        from_cli(_refused(annotation), [])
    assert "TYPE_CHECKING" in (caught.value.hint or "")


@dataclass
class Switches:
    on: bool = False
    maybe: bool | None = None
    many: list[bool] = field(default_factory=list)
    out: Path | None = Path("out")


@pytest.mark.parametrize(
    ("key", "value"), [("on", 2), ("on", -1), ("on", "2"), ("maybe", 2), ("many", [1, 2])]
)
@pytest.mark.parametrize("how", ["from_cli", "merged", "instance"])
def test_a_number_is_no_bool(key: str, value: Any, how: str) -> None:
    """`b=2` for a bool is refused, whoever gives it."""
    with pytest.raises(ConfigError, match=r"must be .*bool.*; got ") as caught:
        if how == "from_cli":
            from_cli(Switches, [f"{key}={value!r}"])
        elif how == "merged":
            config.merged(Switches, {key: value})
        else:
            config.open_config(Switches(**{key: value}))
    assert caught.value.hint == (None if key == "many" and how != "instance" else "write true or false")


def test_zero_and_one_are_bools() -> None:
    """A bool can be written 0 and 1."""
    cfg = from_cli(Switches, ["on=1", "maybe=0", "many=[0,1]"])
    assert (cfg.on, cfg.maybe, cfg.many) == (True, False, [False, True])


@pytest.mark.parametrize("text", ["null", "None", "NULL"])
def test_no_path(text: str) -> None:
    """`null` and `None` mean none where a path may be None, and are no file names there."""
    assert from_cli(Switches, [f"out={text}", f"maybe={text}"]).out is None
    with pytest.raises(ConfigError, match=r"must be Path \| None; got 'None'"):
        config.merged(Switches, {"out": "None"})


@dataclass
class Prepared:
    lr: float = 0.1
    prepared: str = MISSING


@pytest.mark.parametrize("given_", [Prepared, Prepared(), {"prepared": "???"}])
def test_a_mandatory_input_is_told_in_one_line(given_: Any, tmp_path: Path) -> None:
    """`???` as an input is a value that is missing, not a pattern of names with three letters."""
    (tmp_path / "abc").touch()
    with (
        contextlib.chdir(tmp_path),
        pytest.raises(ConfigError, match=r"^prepared has no value; write prepared=\.\.\.$"),
    ):
        Run(given_, inputs=["???"], save_dir=tmp_path / "run", console=False).start()
    assert not (tmp_path / "run").exists()


@dataclass
class ForLibraries:
    params: dict[str, Any] = field(default_factory=lambda: {"metric": ["auc", {"at": 5}], "lr": 0.1})
    out: Path = Path("a/b")
    colour: Colour = Colour.RED
    unused: int = 1


def test_plain_values(tmp_path: Path) -> None:
    """`run.plain()` gives Python's own dicts and lists, whole or of one key; that is reading them."""
    with Run(from_cli(ForLibraries, ["unused=2"]), save_dir=tmp_path / "run", console=False) as run:
        params = run.plain("params")
        assert (type(params), type(params["metric"]), type(params["metric"][1])) == (dict, list, dict)
        params["metric"].append("changed")
        assert run.cfg.params.metric == ["auc", {"at": 5}]
        with pytest.raises(ConfigError, match=r"^unknown key 'parms'"):
            run.plain("parms")
        with pytest.raises(ConfigError, match=r"^unknown key 'unused\.x'"):
            run.plain("unused.x")
    assert run.keys_read == ("params.lr", "params.metric")
    assert "never read: unused" in (tmp_path / "run" / "run.log").read_text()
    back = Run.load(run.save_dir, ForLibraries)
    assert (
        back.plain()
        == run.plain()
        == {
            "params": {"metric": ["auc", {"at": 5}], "lr": 0.1},
            "out": "a/b",
            "colour": "RED",
            "unused": 2,
        }
    )
    assert back.plain("params.metric.1.at") == 5


def test_keys_complete() -> None:
    """A shell completes `cfg.` and `cfg.opt.`: the keys are attributes that `dir` knows."""
    cfg = resolved(Frozen())
    assert {"steps", "opt", "save_dir"} <= set(dir(cfg))
    assert {"name", "lr"} <= set(dir(cfg.opt))


def test_literal_interpolations_stay_literal() -> None:
    """An escaped `${...}` is text: in the run, in what is written, and in what is read back."""
    texts = {
        "a.b": r"\${x}",
        1: r"\${y}",
        "l": [{"k": r"\${now:}"}],
        "mixed": r"\${x} ${now:}",
        "n": {"b": r"\\\${x}"},
    }
    shown = {
        "a.b": "${x}",
        1: "${y}",
        "l": [{"k": "${now:}"}],
        "mixed": "${x} 251121-130501",
        "n": {"b": r"\${x}"},
    }
    assert plain(texts) == shown
    assert config.to_plain(config.from_plain(shown)) == shown


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        ({}, None),
        ({"save_dir": None}, None),
        ({"save_dir": ""}, None),
        ({"save_dir": "???"}, None),
        ({"save_dir": "a/${name}", "name": "b"}, "a/b"),
        ({"save_dir": Path("a")}, "a"),
        (Frozen(), "results/251121-130501"),
    ],
)
def test_save_dir(given_: Any, expected: str | None) -> None:
    """The configuration may say where the run goes, or leave it open."""
    assert config.save_dir_of(config.open_config(given_), NOW) == expected


@pytest.mark.parametrize("save_dir", [3, {"a": 1}, ["x"], True, "${nothing}"])
def test_a_save_dir_that_is_none_is_named(save_dir: Any) -> None:
    """What cannot be a path is refused at its key."""
    with pytest.raises(ConfigError, match=r"save_dir must be a path|config key save_dir: "):
        config.save_dir_of(config.open_config({"save_dir": save_dir}), NOW)


# -- what is written -------------------------------------------------------------------------------


@given(nested(config_keys))
def test_config_yaml_gives_the_values_back(
    tmp_path_factory: pytest.TempPathFactory, values: dict[Any, Any]
) -> None:
    """`OmegaConf.load(config.yaml)` has the resolved values, of the same types, whatever the texts."""
    path = tmp_path_factory.getbasetemp() / "config.yaml"
    path.write_bytes(config.to_yaml(values))
    assert repr(OmegaConf.to_container(OmegaConf.load(path), resolve=True)) == repr(values)


@given(nested(config_keys))
def test_a_past_configuration_has_its_values(values: dict[Any, Any]) -> None:
    """From recorded values comes a read-only configuration of the same values."""
    cfg = config.from_plain(values)
    assert repr(config.to_plain(cfg)) == repr(values)
    assert OmegaConf.is_readonly(cfg)


@given(nested(config_keys, st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False)))
def test_resolving_keeps_what_is_resolved(values: dict[Any, Any]) -> None:
    """Values without interpolations are recorded as given, keys of every type included."""
    values.pop("save_dir", None)
    assert repr(plain(values)) == repr(values)


@dataclass
class Late:
    need: str = "???"
    base_lr: float = 0.1
    lr: Any = 0.1
    sizes: list[Any] = field(default_factory=lambda: [1])
    api_key: str = "abcdefgh"
    url: str = ""


@dataclass
class LatePostInit(Late):
    def __post_init__(self) -> None:
        self.base_lr *= 2


@pytest.mark.parametrize("cls", [Late, LatePostInit])
@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["lr=${basse_lr}"], "override argument 2: config key lr: Interpolation key 'basse_lr'", "base_lr"),
        (["sizes=['${nothing}']"], "override argument 2: config key sizes[0]: Interpolation key", None),
        (["lr=${div:1,0}"], "override argument 2: config key lr: div(1, 0): division by zero", None),
        (["need=???"], "need has no value; write need=...", None),
        (["api_key=<redacted>"], "override argument 2: api_key is <redacted>", "oc.env"),
        (["--config", "c.yaml"], "config file c.yaml:2: api_key is <redacted>", "override"),
        (["url='http://me:<redacted>@host'"], "override argument 2: url is <redacted>", None),
    ],
)
def test_what_is_wrong_late_names_its_layer(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cls: type,
    arguments: list[str],
    message: str,
    hint: str | None,
) -> None:
    """What only a run finds wrong names the key and who gave the value, without OmegaConf's traceback."""
    monkeypatch.chdir(tmp_path)
    Path("c.yaml").write_text("need: x\napi_key: <redacted>\n")
    given = ["need=x", *arguments] if arguments != ["need=???"] else []
    with pytest.raises(ConfigError) as caught:
        config.fill_in(from_cli(cls, given), NOW, "made")
    assert caught.value.message.startswith(message)
    assert hint is None or hint in (caught.value.hint or "")
    assert "omegaconf" not in "".join(traceback.format_exception(caught.value))


def test_a_redacted_value_that_is_beaten_is_none() -> None:
    """`<redacted>` is an error only where it would be used: an override, or code, may give the secret."""
    cfg = config.merged({"api_key": "<redacted>"}, {"api_key": "abcdefgh"})
    config.fill_in(cfg, NOW, "made")
    assert cfg.api_key == "abcdefgh"


def test_a_save_dir_of_a_missing_value_says_which() -> None:
    """Where the folder depends on a value that nobody gave, the error is about that value."""
    with pytest.raises(ConfigError, match=r"^need has no value; write need=\.\.\.$"):
        config.save_dir_of(config.open_config({"need": "???", "save_dir": "out/${need}"}), NOW)


def _fails(c: Any) -> float:
    return 1 / c.zero


@pytest.mark.parametrize("key", ["lr", "save_dir"])
def test_a_failing_derivation_is_told_once(key: str) -> None:
    """Its cause is the function's own error, whose traceback begins in the function."""
    cfg = config.open_config({"zero": 0, key: derived(_fails)})
    with pytest.raises(ConfigError, match="ZeroDivisionError") as caught:
        config.save_dir_of(cfg, NOW) if key == "save_dir" else config.fill_in(cfg, NOW, "made")
    cause = caught.value.__cause__
    assert isinstance(cause, ZeroDivisionError) and cause.__cause__ is None
    assert [frame.name for frame in traceback.extract_tb(cause.__traceback__)] == ["_fails"]
