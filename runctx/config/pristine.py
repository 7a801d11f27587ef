"""Take an instance of a dataclass back to what it was before its `__post_init__` ran."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

from .classes import MISSING


class NotReproducedError(Exception):
    """`__post_init__` gives other values when it runs again on what can be known of the arguments."""


def has_post_init(cls: Any) -> bool:
    return hasattr(cls, "__dataclass_fields__") and hasattr(cls, "__post_init__")


def pristine(given: Any) -> Any:
    """A dataclass or an instance of one, with the values that its constructor was given.

    Which these were is found by making instances anew: they are those fewest fields that give an equal one. What has
    no `__post_init__` in it is returned as it is.

    Raises
    ------
    NotReproducedError: none gives an equal one; its text says which class.

    >>> @dataclasses.dataclass
    ... class Config:
    ...     epochs: int = 100
    ...     warmup: int = 0
    ...     def __post_init__(self):
    ...         self.warmup = self.warmup or self.epochs // 10
    >>> Config(epochs=50), pristine(Config(epochs=50))
    (Config(epochs=50, warmup=5), Config(epochs=50, warmup=0))
    """
    if isinstance(given, dict):
        values = {key: pristine(value) for key, value in given.items()}
        return values if any(values[key] is not given[key] for key in values) else given
    if isinstance(given, (list, tuple)) and type(given) in (list, tuple):
        parts = [pristine(value) for value in given]
        return type(given)(parts) if any(a is not b for a, b in zip(parts, given, strict=True)) else given
    if not dataclasses.is_dataclass(given):
        return given
    cls = given if isinstance(given, type) else type(given)
    fields = dataclasses.fields(cls)
    before = {f.name: _default(f) for f in fields}
    if not isinstance(given, type):
        now = {f.name: getattr(given, f.name, MISSING) for f in fields}
        before |= _arguments(given, before, now) if has_post_init(cls) else now
    values = {name: pristine(value) for name, value in before.items()}
    if not has_post_init(cls) and (all(values[name] is before[name] for name in values)):
        return given
    made = object.__new__(cls)
    for name, value in values.items():
        object.__setattr__(made, name, value)
    return made


def _default(field: dataclasses.Field[Any]) -> Any:
    factory: Any = field.default_factory
    if not is_unset(factory):
        return factory()
    return MISSING if is_unset(field.default) else field.default


def is_unset(default: Any) -> bool:
    """Whether a field has no default; a class that was sent to a worker holds a copy of `dataclasses.MISSING`."""
    return isinstance(default, type(dataclasses.MISSING))


def _arguments(given: Any, defaults: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    names = {f.name for f in dataclasses.fields(given) if f.init}
    changed = {k: v for k, v in now.items() if k in names and not equal(v, defaults[k])}
    tries = ({}, changed, *(_without(changed, name) for name in changed))
    arguments = next((some for some in tries if _gives(given, some)), None)
    if arguments is None:
        raise NotReproducedError(type(given).__name__)
    for name in [*arguments]:
        if _gives(given, fewer := _without(arguments, name)):
            arguments = fewer
    return arguments


def _without(arguments: dict[str, Any], name: str) -> dict[str, Any]:
    return {k: v for k, v in arguments.items() if k != name}


def _gives(given: Any, arguments: dict[str, Any]) -> bool:
    try:
        return equal(type(given)(**copy.deepcopy(arguments)), given)
    except Exception:  # it refuses these, or needs an InitVar
        return False


def equal(a: Any, b: Any) -> bool:
    """Whether two values are of one type and equal, dataclasses field by field."""
    if type(a) is not type(b):
        return False
    if dataclasses.is_dataclass(a) and not isinstance(a, type):
        names = [f.name for f in dataclasses.fields(a)]
        return all(equal(getattr(a, name, MISSING), getattr(b, name, MISSING)) for name in names)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(equal, a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    try:
        return bool(a == b or (a != a and b != b))
    except Exception:  # values of any type may refuse to be compared, as arrays do
        return False
