"""What a configuration file holds: its values and lines, their limits, and how its faults are named."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path, PurePath
from typing import Any

from ...errors import ConfigError
from ..layers import DELETE, REPLACE, dotted
from ..layers import Path as Keys

BASE = "_base_"

MARKERS = frozenset({BASE, DELETE, REPLACE})
"""Keys of a Python file that begin with `_` and are read all the same."""

MAX_DEPTH = 100
MAX_PARTS = 500_000
"""Keys and values in one file, with all that aliases stand for."""

TOO_DEEP = f"nested more than {MAX_DEPTH} deep"
TOO_MANY = f"more than {MAX_PARTS} keys and values"


@dataclass(frozen=True, slots=True)
class Document:
    """What a configuration file says."""

    values: dict[Any, Any]
    """As they were written: interpolations are text, `_base_` is a key like any other."""
    lines: dict[Keys, int]
    """Of YAML, the line on which a key stands, counted from 1, by the keys that lead to it; not inside lists."""


def fault(path: Path, line: int | None, what: str, hint: str | None = None) -> ConfigError:
    """The error that something is wrong in a file."""
    place = f"configuration file {path}" + ("" if line is None else f", line {line}")
    return ConfigError(f"{place}: {what}", hint)


def text_of(data: bytes, path: Path) -> str:
    """The text that the bytes of a file are, without a byte order mark.

    Raises
    ------
    ConfigError: not UTF-8.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        what = f"byte 0x{error.object[error.start]:02x} is not UTF-8"
        raise fault(path, line, what, "save it as UTF-8") from error


def copied(values: Mapping[Any, Any], scalar: Callable[[Any, Keys, bool], Any]) -> dict[Any, Any]:
    """A deep copy, of which `scalar(value, keys, is_key)` makes every key and every single value.

    Raises
    ------
    ConfigError: nested too deep, in itself for example, or too large; names the key.
    """
    parts = 0

    def copy(value: Any, keys: Keys) -> Any:
        nonlocal parts
        parts += 1
        if parts > MAX_PARTS:
            raise key_fault(keys[:1], TOO_MANY, "keep it small")
        if not isinstance(value, (Mapping, list, tuple)):
            return scalar(value, keys, False)
        if len(keys) == MAX_DEPTH:
            raise key_fault(keys[:1], f"{TOO_DEEP}, or contains itself", "keep it flat")
        if isinstance(value, Mapping):
            mapping = {
                scalar(key, (*keys, key), True): copy(part, (*keys, key)) for key, part in value.items()
            }
            if len(mapping) < len(value):
                raise key_fault(keys, "two of its keys would have the same text")
            return mapping
        items = [copy(item, (*keys, at)) for at, item in enumerate(value)]
        return tuple(items) if isinstance(value, tuple) else items

    whole: dict[Any, Any] = copy(values, ())
    return whole


def key_fault(keys: Keys, what: str, hint: str | None = None) -> ConfigError:
    """The error that something is wrong at a key."""
    return ConfigError(f"config key {dotted(keys) or '(top level)'}: {what}", hint)


def python_value(value: Any, keys: Keys, is_key: bool) -> Any:
    """A single value that a configuration can hold; a scalar of numpy becomes Python's.

    Raises
    ------
    ConfigError: it is of another type.
    """
    if type(value).__module__ == "numpy" and getattr(value, "ndim", None) == 0:
        value = value.item()
    if isinstance(value, (str, bytes, bool, int, float, Enum)):
        return value
    if (value is None or isinstance(value, PurePath)) and not is_key:
        return value
    text = repr(value)
    raise key_fault(
        keys[:-1] if is_key else keys,
        f"a {'key' if is_key else 'value'} cannot be {type(value).__name__} "
        f"{text if len(text) <= 80 else text[:77] + '...'}",
        "use numbers, strings, bools, None, paths, enums, and lists and mappings of them",
    )
