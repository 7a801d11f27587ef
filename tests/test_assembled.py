"""A class and the layers above it make one configuration."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any

import attrs
import pytest
from omegaconf import OmegaConf

from runctx.config import open_config
from runctx.config.assemble import assemble
from runctx.config.layers import Layer, leaves, tree
from runctx.errors import ConfigError


@dataclass
class Opt:
    lr: float = 0.1
    wd: float = 0.0


@dataclass
class Sgd(Opt):
    momentum: float = 0.9


@dataclass(frozen=True)
class Data:
    name: str = "digits"
    n: int | None = None


@dataclass
class WithFrozen:
    data: Data = field(default_factory=Data)
    sets: dict[str, Data] = field(default_factory=lambda: {"a": Data()})
    maybe: Data | None = None


@dataclass
class Config:
    opt: Opt = field(default_factory=Opt)
    parts: dict[str, Opt] = field(default_factory=lambda: {"a": Sgd(), "b": Opt()})
    free: dict[str, Any] = field(default_factory=lambda: {"x": {"y": 1, "z": 2}})


def above(base, values):
    return assemble(open_config(base), tree(values, Layer(kind="override", name="argument 1")))


@pytest.mark.parametrize("base", [{"opt": Opt, "n": 1}, {"in": {"opt": Opt()}}, Config])
def test_dataclasses_fix_types_wherever_they_lie(base):
    """A value of a wrong type is refused also where a dataclass lies inside of plain mappings."""
    values = (
        {"in": {"opt": {"lr": "fast"}}}
        if isinstance(base, dict) and "in" in base
        else {"opt": {"lr": "fast"}}
    )
    with pytest.raises(ConfigError, match=r"argument 1: (in\.)?opt\.lr must be float; got 'fast'"):
        above(base, values)


def test_dataclasses_in_mappings_stay_what_they_are():
    """Laying values on a mapping of dataclasses keeps the class of each entry, and its other values."""
    config = above(Config, {"parts": {"a": {"lr": 1}}})
    assert OmegaConf.get_type(config.parts.a) is Sgd
    assert (config.parts.a, config.parts.b) == (
        {"lr": 1.0, "wd": 0.0, "momentum": 0.9},
        {"lr": 0.1, "wd": 0.0},
    )


@pytest.mark.parametrize("free", [{"x": {"_delete_": ["z"]}}, {"x": {"_replace_": True, "y": 1}}])
def test_what_was_deleted_is_gone(free):
    """An entry of an untyped mapping that a layer deletes is not kept by the dataclass around it."""
    assert above(Config, {"free": free}).free == {"x": {"y": 1}}
    assert above({"opt": Opt, "free": {"x": {"y": 1, "z": 2}}}, {"free": free}).free == {"x": {"y": 1}}


def test_a_mapping_gives_way_to_a_value_and_back():
    """In an untyped mapping a layer may put a value where a mapping was, and the other way round."""
    config = above({"opt": Opt, "a": {"b": 1}, "c": 2}, {"a": 5, "c": {"d": 6}})
    assert (config.a, config.c) == (5, {"d": 6})


@pytest.mark.parametrize(
    "values",
    [
        {"data": {"n": 3}},
        {"sets": {"a": {"n": 3}, "b": {"name": "letters"}}},
        {"maybe": {"n": 3}},
        {"data": {"name": "letters"}, "sets": {"_delete_": ["a"], "c": {"n": 1}}},
    ],
)
def test_layers_are_laid_over_frozen_dataclasses(values):
    """A dataclass that is frozen takes what files and overrides say like any other, wherever it lies."""
    config = above(WithFrozen, values)
    for path, leaf in leaves(tree(values, Layer(kind="override", name="argument 1"))):
        assert OmegaConf.select(config, ".".join(path)) == leaf[-1].value
    assert ("a" in config.sets) == ("_delete_" not in values.get("sets", {}))
    assert OmegaConf.get_type(config.data) is Data


def test_the_base_stays_as_it_is():
    """Assembling modifies nothing that was given, even where entries are deleted."""
    base = open_config(Config)
    OmegaConf.set_struct(base, True)
    OmegaConf.set_readonly(base, True)
    assemble(base, tree({"free": {"_delete_": ["x"]}}, Layer(kind="override", name="argument 1")))
    assert base == open_config(Config)


@attrs.define
class ByAttrs:
    opt: Opt = attrs.field(default=Opt())  # OmegaConf 2.3 calls no factories of attrs


@pytest.mark.parametrize("key", ["lr", "lrr"])
def test_classes_of_attrs_name_the_key(key):
    """What does not fit a class of attrs is told with its whole key, as for a dataclass."""
    with pytest.raises(ConfigError, match=rf"argument 1: (unknown config key )?opt\.{key}\b"):
        above(ByAttrs, {"opt": {key: "fast"}})


class Mode(enum.Enum):
    fast = 1
    slow = 2


@dataclass
class Slips:
    sizes: list[int] = field(default_factory=list)
    mode: Mode = Mode.fast


@pytest.mark.parametrize(
    "said, message, hint",
    [
        (
            {"sizes": [3, "a", 5]},
            "sizes must be list[int]; got [3, 'a', 5] (list); element 1 does not fit",
            None,
        ),
        (
            {"sizes": [3, None]},
            "sizes must be list[int]; got [3, None] (list); element 1 does not fit",
            None,
        ),
        (
            {"mode": "fsat"},
            "mode must be Mode; got 'fsat' (str)",
            "did you mean fast? write one of fast, slow",
        ),
        ({"_base": "x.yaml"}, "unknown config key _base", "did you mean _base_?"),
        ({"base": "x.yaml"}, "unknown config key base", "did you mean _base_?"),
    ],
)
def test_slips_are_told_in_the_words_of_the_configuration(said, message, hint):
    """What is wrong with an element, an Enum or a marker is said with what was meant, in no words of OmegaConf."""
    with pytest.raises(ConfigError) as caught:
        assemble(open_config(Slips), tree(said, Layer(kind="config file", name="c.yaml")))
    assert caught.value.message == f"config file c.yaml: {message}"
    assert caught.value.hint == hint
