"""Say which field of a dataclass a configuration cannot hold, and which type to write instead."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import inspect
import numbers
import os
import sys
import types
import typing
import uuid
from collections import abc
from collections.abc import Iterator
from typing import Any

from omegaconf import OmegaConf

from ..errors import ConfigError
from .classes import is_structured, type_text, types_by_field, types_of


def refusal(given: Any) -> ConfigError | None:
    """The error to raise for a dataclass, or an instance of one, that OmegaConf refuses; None if its types are fine."""
    for cls in _classes(given if isinstance(given, type) else type(given), set()):
        for name in types_by_field(cls):
            owner, written = _written(cls, name)
            try:
                hint = _evaluated(owner, name, written)
            except Exception as error:  # evaluating an annotation runs whatever stands in it
                return ConfigError(
                    f"{cls.__name__}.{name}: the type {written} cannot be evaluated: {error}",
                    hint="import its name when the program runs, not only under `if TYPE_CHECKING:`, or write Any",
                )
            if not _is_held(name, hint):
                return ConfigError(
                    f"{cls.__name__}.{name}: a configuration cannot hold the type {type_text(hint)}",
                    hint=instead_of(hint),
                )
    return None


def instead_of(hint: Any) -> str:
    """What to write in place of a type that a configuration cannot hold.

    >>> from collections.abc import Sequence
    >>> instead_of(dict[str, Sequence[int]]), instead_of(datetime.date)
    ('write list[int] in place of Sequence[int]', 'write str, in ISO format, in place of date')
    """
    kind = typing.get_origin(hint) or hint
    if kind is typing.Literal:  # of which only OmegaConf 2.4 knows
        return f"write str or an Enum in place of {type_text(hint)}"
    arguments = [
        part for part in typing.get_args(hint) if not isinstance(part, list) and part is not Ellipsis
    ]
    for part in arguments:
        if part is not type(None) and not _is_held("x", part):
            return instead_of(part)
    texts = [type_text(part) for part in arguments] or ["Any"]
    text = next(
        (text for classes, text in _INSTEAD if isinstance(kind, type) and issubclass(kind, classes)), ""
    )
    if not text:
        return "write Any" if _is_union(hint) else f"write {_HELD}"
    return f"write {text.format(', '.join(texts), texts[-1])} in place of {type_text(hint)}"


_HELD = "str, int, float, bool, bytes, Path, Any, an Enum, a dataclass, or list, tuple or dict of these"

_INSTEAD: tuple[tuple[Any, str], ...] = (
    ((types.FunctionType, types.BuiltinFunctionType, type), "str, the name,"),
    (datetime.timedelta, "float, the seconds,"),
    ((datetime.date, datetime.time), "str, in ISO format,"),
    (uuid.UUID, "str"),
    (os.PathLike, "Path"),
    (numbers.Integral, "int"),
    ((decimal.Decimal, numbers.Real), "float"),
    (numbers.Complex, "list[float], both parts,"),
    (abc.Mapping, "dict[str, {1}]"),
    (abc.Iterable, "list[{0}]"),
    (abc.Callable, "str, the name,"),
)
"""Classes, and what holds the same; numpy's scalars are numbers, and its arrays can be iterated."""


def _classes(cls: type, known: set[type]) -> Iterator[type]:
    """The class and those of its fields, inner ones first."""
    if cls in known:
        return
    known.add(cls)
    for hint in types_of(cls).values():
        for part in _parts(hint):
            if isinstance(part, type) and is_structured(part):
                yield from _classes(part, known)
    yield cls


def _parts(hint: Any) -> Iterator[Any]:
    yield hint
    for argument in typing.get_args(hint):
        yield from _parts(argument)


def _written(cls: type, name: str) -> tuple[type, Any]:
    """The class in which a field stands, and its type as it is written there."""
    for owner in cls.__mro__:
        if name in (written := inspect.get_annotations(owner)):
            return owner, written[name]
    return cls, types_by_field(cls)[name]


def _evaluated(owner: type, name: str, written: Any) -> Any:
    alone = types.SimpleNamespace(__annotations__={name: written})
    scope = vars(sys.modules[owner.__module__]) if owner.__module__ in sys.modules else {}
    return typing.get_type_hints(alone, {**scope, **vars(owner)} if isinstance(written, str) else scope)[name]


def _is_held(name: str, hint: Any) -> bool:
    try:
        OmegaConf.structured(dataclasses.make_dataclass("Probe", [(name, hint, "???")]))
        return True
    except Exception:  # OmegaConf raises an AssertionError for some
        return False


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (typing.Union, types.UnionType)
