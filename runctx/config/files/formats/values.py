"""What can stand in a configuration file? What Python made of one, and what is to be written into one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import PurePath
from typing import Any

from ....errors import ConfigError
from ...derived import Derived
from ...layers import Path, dotted
from .document import MAX_DEPTH, MAX_PARTS

_PLAIN: tuple[type[Any], ...] = (bool, int, float, str, bytes)
_HINT = "use numbers, strings, bools, None, paths, enums, and lists and mappings of them"


class Unfit(Exception):  # noqa: N818 - it names the thing found
    """A value that cannot stand in a configuration."""

    def __init__(self, path: Path, what: str, hint: str | None = None) -> None:
        super().__init__(path, what, hint)
        self.path, self.what, self.hint = path, what, hint


def held(values: Mapping[Any, Any]) -> dict[Any, Any]:
    """A copy in types that a configuration holds: numpy scalars become Python's.

    Raises
    ------
    Unfit: a value or key of another type, or mappings that contain themselves.
    """
    return _copied(values, _as_held, tuples=True)


def written(
    values: Mapping[Any, Any], refuse: Callable[[Any, bool], str | None] = lambda value, is_key: None
) -> dict[Any, Any]:
    """A copy in the types that files have: dict, list, str, bytes, bool, int, float and None.

    Parameters
    ----------
    refuse: says of a scalar, and whether it is a key, why the format cannot hold it.

    Raises
    ------
    ConfigError: what cannot be written; the message names the key.
    """

    def scalar(value: Any, path: Path, is_key: bool) -> Any:
        plain = _as_written(_as_held(value, path, is_key), path)
        if why := refuse(plain, is_key):
            raise Unfit(path, why)
        return plain

    try:
        return _copied(values, scalar, tuples=False)
    except Unfit as unfit:
        key = dotted(unfit.path) or "(top level)"
        raise ConfigError(f"config key {key}: {unfit.what}", hint=unfit.hint) from None


def _copied(
    values: Mapping[Any, Any], scalar: Callable[[Any, Path, bool], Any], tuples: bool
) -> dict[Any, Any]:
    """A deep copy of mappings and lists, and of tuples as what they are or as lists."""
    parts = 0

    def copy(value: Any, path: Path) -> Any:
        nonlocal parts
        parts += 1
        if parts > MAX_PARTS:
            raise Unfit(path[:1], f"more than {MAX_PARTS} keys and values")
        if not isinstance(value, (Mapping, list, tuple)):
            return scalar(value, path, False)
        if len(path) == MAX_DEPTH:
            raise Unfit(path[:1], f"nested more than {MAX_DEPTH} deep, or contains itself")
        if isinstance(value, Mapping):
            mapping = {scalar(k, (*path, k), True): copy(v, (*path, k)) for k, v in value.items()}
            if len(mapping) != len(value):
                raise Unfit(path, "two of its keys would have the same text")
            return mapping
        items = [copy(item, (*path, at)) for at, item in enumerate(value)]
        return tuple(items) if tuples and isinstance(value, tuple) else items

    copied: dict[Any, Any] = copy(values, ())
    return copied


def _as_held(value: Any, path: Path, is_key: bool) -> Any:
    if type(value).__module__ == "numpy" and getattr(value, "ndim", None) == 0:
        value = value.item()
    if isinstance(value, (str, bytes, bool, int, float, Enum)) or (value is None and not is_key):
        return value
    if isinstance(value, PurePath) and not is_key:
        return value
    text = repr(value)
    text = text if len(text) <= 80 else text[:77] + "..."
    role = "key" if is_key else "value"
    raise Unfit(path[:-1] if is_key else path, f"a {role} cannot be {type(value).__name__} {text}", _HINT)


def _as_written(value: Any, path: Path) -> Any:
    if isinstance(value, Derived):
        raise Unfit(
            path,
            "a derived value is a function and cannot be written to a file",
            "write an interpolation such as ${mul:${batch_size},0.01}, or the values by `config convert --resolve`",
        )
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, PurePath):
        value = str(value)
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise Unfit(path, f"{value!r} is not valid Unicode") from error
    for plain in _PLAIN:  # of a subclass, what the encoders know
        if isinstance(value, plain):
            return plain(value)
    return value
