"""Which type do the dataclasses of a configuration declare at a place in it?"""

from __future__ import annotations

import types
import typing
from enum import Enum
from pathlib import PurePath
from typing import Any

from omegaconf import DictConfig, OmegaConf

from .classes import is_structured, types_by_field, types_of
from .layers import Path


def declared_type(config: DictConfig, path: Path) -> Any:
    """What the dataclasses in `config` say of the type at `path`; Any where they say nothing."""
    node: Any = config
    declared: Any = OmegaConf.get_type(config)
    for key in path:
        content = node.__dict__["_content"] if isinstance(node, DictConfig) else None
        node = content.get(key) if isinstance(content, dict) else None  # None, ??? and ${} have no keys
        declared = inner(declared, key) if node is None else _type_of(node)
    return declared


def _type_of(node: Any) -> Any:
    object_type = node._metadata.object_type
    is_class = isinstance(object_type, type) and is_structured(object_type)
    return object_type if is_class else node._metadata.type_hint


def declares(declared: Any, key: Any) -> bool:
    wanted, _ = required(declared)
    return is_structured(wanted) and key in types_by_field(wanted)


def required(declared: Any) -> tuple[Any, bool]:
    """A type without its `| None`, and whether it had one."""
    if typing.get_origin(declared) not in (typing.Union, types.UnionType):
        return declared, False
    arguments = typing.get_args(declared)
    others = [argument for argument in arguments if argument is not type(None)]
    return (others[0] if len(others) == 1 else Any), len(others) < len(arguments)


def takes_text(declared: Any) -> bool:
    """Whether values of this type are texts and nothing else, None aside."""
    wanted, _ = required(declared)
    return isinstance(wanted, type) and issubclass(wanted, (str, PurePath)) and not issubclass(wanted, Enum)


def inner(declared: Any, key: Any) -> Any:
    """The type of what lies under `key` of a value of the type `declared`; Any where nothing is said."""
    wanted, _ = required(declared)
    if isinstance(wanted, type) and is_structured(wanted):
        return types_of(wanted).get(key, Any)
    arguments = [argument for argument in typing.get_args(wanted) if argument is not Ellipsis]
    origin = typing.get_origin(wanted)
    if not arguments or not isinstance(origin, type):
        return Any
    if issubclass(origin, tuple) and isinstance(key, int):
        return arguments[key] if -len(arguments) <= key < len(arguments) else arguments[-1]
    return arguments[-1]


def key_type(declared: Any) -> Any:
    """The type of the keys of a mapping of the type `declared`; Any where nothing is said."""
    wanted, _ = required(declared)
    if isinstance(wanted, type) and is_structured(wanted):
        return str
    arguments = typing.get_args(wanted)
    return arguments[0] if len(arguments) == 2 and typing.get_origin(wanted) is dict else Any
