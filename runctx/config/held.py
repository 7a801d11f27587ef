"""Which values can a configuration hold?"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig

from ..errors import ConfigError
from .classes import types_of
from .messages import short


def held(value: Any, key: str = "") -> Any:
    """The same value in types that OmegaConf holds; numpy scalars become Python's.

    Parameters
    ----------
    key: of the value, for errors.

    Raises
    ------
    ConfigError: OmegaConf holds nothing of that type; the message names the key.
    """
    if value is None or isinstance(value, (DictConfig, ListConfig, Enum)):
        return value
    if type(value).__module__ == "numpy" and hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        value = value.item()
    if isinstance(value, (bool, int, float, str, bytes)):
        return value
    if isinstance(value, os.PathLike):
        return Path(value)
    if isinstance(value, Mapping):
        return {k: held(v, f"{key}.{k}" if key else str(k)) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [held(v, f"{key}[{i}]") for i, v in enumerate(value)]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _held_instance(value, key)
    if (isinstance(value, type) and dataclasses.is_dataclass(value)) or hasattr(value, "__attrs_attrs__"):
        return value
    from .refusal import instead_of

    raise ConfigError(
        f"config key {key or '(top level)'} cannot hold {type(value).__name__} {short(value)}",
        hint=instead_of(type(value)),
    )


def is_no_bool(value: Any) -> bool:
    """Whether a value, or the text of one, is a number that OmegaConf takes for a bool although it is not 0 or 1."""
    if isinstance(value, str):
        value = int(value) if re.fullmatch(r"[+-]?[0-9]{1,9}", value) else 0
    return type(value) is int and value not in (0, 1)


_BOOLS = (bool, bool | None, list[bool], tuple[bool, ...])


def _held_instance(instance: Any, key: str) -> Any:
    new = object.__new__(type(instance))
    types = types_of(type(instance))
    for field in dataclasses.fields(instance):
        path = f"{key}.{field.name}" if key else field.name
        value = getattr(instance, field.name)
        wanted, parts = types[field.name], value if isinstance(value, (list, tuple)) else (value,)
        if wanted in _BOOLS and any(map(is_no_bool, parts)):
            raise ConfigError(f"{path} must be bool; got {value!r}", hint="write true or false")
        object.__setattr__(new, field.name, held(value, path))
    return new
