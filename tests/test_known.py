"""What is known of a configuration is what OmegaConf says of it, only sooner."""

from __future__ import annotations

import dataclasses
from typing import Any

import attrs
import omegaconf
import pytest
from hypothesis import assume, given
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from runctx.config.containers import hold
from runctx.config.layers import leaves
from runctx.config.origins import raw, tree_of
from runctx.errors import ConfigError
from tests.strategies import config_keys, nested


@dataclasses.dataclass
class Inner:
    lr: float = MISSING
    steps: int | str = 3
    same: str = "${steps}"


@dataclasses.dataclass
class Config:
    inner: Inner = dataclasses.field(default_factory=Inner)
    none: Inner | None = None
    missing: Inner = MISSING
    elsewhere: Inner = "${inner}"  # type: ignore[assignment]
    pair: tuple[int, int] = (1, 2)
    many: list[Inner] = dataclasses.field(default_factory=lambda: [Inner(lr=0.1)])
    union: int | str | None = None
    later: int | str = MISSING


def types(value: Any) -> Any:
    if isinstance(value, dict):
        return {(type(key), key): types(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [type(value), *map(types, value)]
    return type(value)


def test_raw_of_a_class() -> None:
    """Values are as they were written, whatever kind of field holds them."""
    config = OmegaConf.structured(Config)
    expected = OmegaConf.to_container(config, resolve=False)
    assert raw(config) == expected
    assert types(raw(config)) == types(expected)


@given(nested(config_keys))
def test_raw(values: dict[Any, Any]) -> None:
    """They are what `to_container` gives, types included, down to escaped texts."""
    try:
        config = OmegaConf.create({"values": values, "escaped": ["\\???", "\\\\???", "???"], "\\???": 1})
    except OmegaConfBaseException:  # OmegaConf holds it no better
        assume(False)
    expected = OmegaConf.to_container(config, resolve=False)
    assert repr(raw(config)) == repr(expected)
    assert types(raw(config)) == types(expected)


@attrs.define
class ByAttrs:
    lr: float = 0.1


@dataclasses.dataclass
class EitherOr:
    opt: Inner | Config = dataclasses.field(default_factory=lambda: Inner(lr=0.1))


def test_defaults_of_classes_of_attrs_are_defaults() -> None:
    """What a class of attrs says is a default, with the line of its field."""
    (((_, leaf),)) = leaves(tree_of(OmegaConf.structured(ByAttrs)))
    assert (leaf[-1].layer.kind, leaf[-1].value) == ("default", 0.1)
    assert leaf[-1].line is not None


def test_defaults_in_a_union_of_classes_are_defaults() -> None:
    """Of a field that holds one of several dataclasses, the default is nobody else's value."""
    if not hasattr(omegaconf, "TupleConfig"):  # 2.3, which holds no such field
        with pytest.raises(ConfigError, match=r"EitherOr\.opt: a configuration cannot hold the type"):
            hold(EitherOr)
        return
    said = [leaf[-1] for _, leaf in leaves(tree_of(OmegaConf.structured(EitherOr)))]
    assert [(each.layer.kind, each.value) for each in said[:2]] == [("default", 0.1), ("default", 3)]
    assert {each.layer.kind for each in said} == {"default"}
