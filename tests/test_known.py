"""What is known of a configuration is what OmegaConf says of it, only sooner."""

from __future__ import annotations

import dataclasses
from typing import Any

from hypothesis import assume, given
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from runctx.config.known import raw
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
    pair: tuple[int, str] = (1, "a")
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
