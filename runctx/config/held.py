"""Which values can a configuration hold?"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig

from ..errors import ConfigError
from .wording import short


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
    raise ConfigError(
        f"config key {key or '(top level)'} cannot hold {type(value).__name__} {short(value)}",
        hint="use numbers, strings, bools, None, paths, enums, lists and mappings of them",
    )


def _held_instance(instance: Any, key: str) -> Any:
    new = object.__new__(type(instance))
    for field in dataclasses.fields(instance):
        path = f"{key}.{field.name}" if key else field.name
        object.__setattr__(new, field.name, held(getattr(instance, field.name), path))
    return new
