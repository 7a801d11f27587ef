"""Turn instances of dataclasses into values that OmegaConf holds, and configurations back into instances."""

from __future__ import annotations

import copy
import dataclasses
import os
import re
import typing
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from pathlib import Path as FilePath
from typing import Any

from omegaconf import DictConfig, ListConfig, Node, OmegaConf, UnionNode
from omegaconf.errors import OmegaConfBaseException

from ..errors import ConfigError
from ..model import Origin
from .fields import (
    MISSING,
    inner,
    instead_of,
    is_structured,
    required,
    subclass_hint,
    subclasses_of,
    types_of,
)
from .interpolations import escaped
from .layers import Path, dotted
from .messages import first_line, short

# -- from instances to values --------------------------------------------------------------------------------------


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
    if type(value).__module__ == "numpy" and getattr(value, "ndim", None) == 0:
        value = value.item()
    if isinstance(value, (bool, int, float, str, bytes)):
        return value
    if isinstance(value, os.PathLike):
        return FilePath(value)
    if isinstance(value, Mapping):
        return {k: held(v, f"{key}.{k}" if key else str(k)) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [held(v, f"{key}[{i}]") for i, v in enumerate(value)]
    if isinstance(value, type) or not dataclasses.is_dataclass(value):
        if is_structured(value):
            return value
        raise ConfigError(
            f"config key {key or '(top level)'} cannot hold {type(value).__name__} {short(value)}",
            hint=instead_of(type(value)),
        )
    types, values = types_of(type(value)), {}
    for field in dataclasses.fields(value):
        path, part = (f"{key}.{field.name}" if key else field.name), getattr(value, field.name)
        parts = part if isinstance(part, (list, tuple)) else (part,)
        if types[field.name] in _BOOLS and any(map(is_no_bool, parts)):
            raise ConfigError(f"{path} must be bool; got {part!r}", hint="write true or false")
        values[field.name] = held(part, path)
    return _instance(type(value), values)


_BOOLS = (bool, bool | None, list[bool], tuple[bool, ...])


def is_no_bool(value: Any) -> bool:
    """True for a number, or the text of one, that OmegaConf takes for a bool although it is not 0 or 1."""
    if isinstance(value, str):
        value = int(value) if re.fullmatch(r"[+-]?[0-9]{1,9}", value) else 0
    return type(value) is int and value not in (0, 1)


def _instance(cls: type, values: Mapping[str, Any]) -> Any:
    """An instance with these values of its fields; no constructor is called."""
    made: Any = object.__new__(cls)
    for name, value in values.items():
        object.__setattr__(made, name, value)
    return made


def has_post_init(cls: Any) -> bool:
    return hasattr(cls, "__dataclass_fields__") and hasattr(cls, "__post_init__")


class NotReproducedError(Exception):
    """`__post_init__` gives other values when it runs again on what can be known of the arguments."""


def pristine(given: Any) -> Any:
    """A dataclass or an instance of one, with the values that its constructor was given.

    They are found by making instances anew: they are those fewest fields that give an equal one. What has no
    `__post_init__` in it is returned as it is.

    Raises
    ------
    NotReproducedError: none gives an equal one; its text is the name of the class.

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
    if type(given) in (list, tuple):
        parts = [pristine(value) for value in given]
        return type(given)(parts) if any(a is not b for a, b in zip(parts, given, strict=True)) else given
    if not dataclasses.is_dataclass(given):
        return given
    cls = given if isinstance(given, type) else type(given)
    before = {field.name: _default(field) for field in dataclasses.fields(cls)}
    if given is not cls:
        now = {name: getattr(given, name, MISSING) for name in before}
        before = before | _arguments(given, before, now) if has_post_init(cls) else now
    values = {name: pristine(value) for name, value in before.items()}
    is_same = not has_post_init(cls) and all(values[name] is before[name] for name in values)
    return given if is_same else _instance(cls, values)


def _default(field: dataclasses.Field[Any]) -> Any:
    factory: Any = field.default_factory
    if not is_unset(factory):
        return factory()
    return MISSING if is_unset(field.default) else field.default


def is_unset(default: Any) -> bool:
    """True if a field has no default; a class that was sent to a worker holds a copy of `dataclasses.MISSING`."""
    return isinstance(default, type(dataclasses.MISSING))


def _arguments(given: Any, defaults: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    names = {f.name for f in dataclasses.fields(given) if f.init}
    changed = {k: v for k, v in now.items() if k in names and not equal(v, defaults[k])}

    def gives(arguments: dict[str, Any]) -> bool:
        try:
            return equal(type(given)(**copy.deepcopy(arguments)), given)
        except Exception:  # it refuses these, or needs an InitVar
            return False

    def fewer(arguments: dict[str, Any], name: str) -> dict[str, Any]:
        return {k: v for k, v in arguments.items() if k != name}

    tries = ({}, changed, *(fewer(changed, name) for name in changed))
    arguments = next((some for some in tries if gives(some)), None)
    if arguments is None:
        raise NotReproducedError(type(given).__name__)
    for name in [*arguments]:
        if gives(without := fewer(arguments, name)):
            arguments = without
    return arguments


def equal(a: Any, b: Any) -> bool:
    """True if two values are of one type and equal, dataclasses field by field; NaN equals NaN."""
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


def run_post_init(instance: Any) -> None:
    """Call `__post_init__` with the defaults of its `InitVar`s.

    Raises
    ------
    ConfigError: it raised; names the class.
    """
    cls = type(instance)
    fields = cls.__dataclass_fields__.values()
    variables = [f for f in fields if f._field_type is dataclasses._FIELD_INITVAR]  # type: ignore[attr-defined]
    for variable in variables:
        if is_unset(variable.default):
            raise ConfigError(
                f"{cls.__name__}.__post_init__ needs the InitVar {variable.name}, which a configuration does not hold",
                hint=f"give {variable.name} a default, or make it a field",
            )
    try:
        instance.__post_init__(*(variable.default for variable in variables))
    except Exception as error:
        raise ConfigError(f"{cls.__name__}.__post_init__: {type(error).__name__}: {error}") from error


# -- from a configuration to instances -----------------------------------------------------------------------------

Ready = Callable[[Any, Path, Any], None]
"""Is given an instance whose fields are set, the keys that lead to it, and the type that is declared there."""


def object_of(node: Any, ready: Ready, hint: Any = Any, path: Path = ()) -> Any:
    """What a node holds, resolved: instances of dataclasses, dicts, lists, tuples and values.

    Constructors are not called; `ready` is given each instance, those inside others first. A field without a value
    stays without one. A key that is no field, as `+key=` adds it, is an attribute, as OmegaConf has it.
    """
    try:
        node = node._dereference_node()
    except OmegaConfBaseException as error:
        error.full_key = error.full_key or node._get_full_key(None)  # which OmegaConf does not know here
        raise
    if isinstance(node, UnionNode) and isinstance(node.__dict__["_content"], Node):
        node = node.__dict__["_content"]
    content = node.__dict__.get("_content", node)
    if isinstance(content, (list, tuple)):
        values = [object_of(child, ready, inner(hint, i), (*path, i)) for i, child in enumerate(content)]
        wanted, _ = required(hint)
        is_tuple = (typing.get_origin(wanted) or wanted) is tuple or isinstance(content, tuple)
        return tuple(values) if is_tuple else values
    if not isinstance(content, dict):
        return node._value()
    cls: Any = OmegaConf.get_type(node)
    if not is_structured(cls):
        return {k: object_of(child, ready, inner(hint, k), (*path, k)) for k, child in content.items()}
    if not hasattr(cls, "__dataclass_fields__"):
        return OmegaConf.to_object(node)  # a class of attrs has converters and validators
    hints = types_of(cls)
    there = {name: content[name] for name in _field_names(cls) if not content[name]._is_missing()}
    instance = _instance(
        cls, {n: object_of(child, ready, hints.get(n, Any), (*path, n)) for n, child in there.items()}
    )
    ready(instance, path, hint)
    for key, child in content.items():
        if key not in hints and cls.__dictoffset__ and not child._is_missing():
            object.__setattr__(instance, key, object_of(child, ready, Any, (*path, key)))
    return instance


def _field_names(cls: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(cls)]


def subclasses_in(config: DictConfig) -> dict[str, str]:
    """Dotted key -> qualified name of the class there, where it is a subclass of the one that is declared."""
    found = {}

    def note(instance: Any, path: Path, hint: Any) -> None:
        declared, _ = required(hint)
        if is_structured(declared) and type(instance) is not declared:
            found[dotted(path)] = type(instance).__qualname__

    cls = OmegaConf.get_type(config)
    if is_structured(cls):
        object_of(config, note, cls)
    return found


def to_class(
    plain: Mapping[Any, Any],
    cls: Any,
    subclasses: Mapping[str, str] | None = None,
    origins: Mapping[str, Sequence[Origin]] | None = None,
) -> Any:
    """An instance of the dataclass `cls` with these values.

    `__post_init__` runs, but the values stay those that are given: what it set is among them.

    Parameters
    ----------
    subclasses: what `subclasses_in` gave.
    origins: who set each key; one that no class declared need not be a field.

    Raises
    ------
    ConfigError: the values do not fit the class; the message names the key.
    """
    named = subclasses or {}
    added = [f"{key}." for key, said in (origins or {}).items() if said and said[-1].layer != "default"]

    def typed(value: Any, hint: Any, path: Path) -> Any:
        """The same values, with a typed mapping in place of each that a dataclass is declared for."""
        declared, _ = required(hint)
        if isinstance(value, (list, tuple)):
            return [typed(v, inner(hint, i), (*path, i)) for i, v in enumerate(value)]
        if not isinstance(value, Mapping):
            return escaped(value)
        if not is_structured(declared):
            return {k: typed(v, inner(hint, k), (*path, k)) for k, v in value.items()}
        found = _subclass(declared, named.get(dotted(path)), path)
        config: DictConfig = OmegaConf.structured(found)
        OmegaConf.set_readonly(config, False)
        hints = types_of(found)
        for key, part in value.items():
            name = dotted((*path, key))
            part = typed(part, hints.get(key, Any), (*path, key))
            if key not in hints and any(one.startswith(f"{name}.") for one in added):
                OmegaConf.set_struct(config, not found.__dictoffset__)  # with slots it has no place for it
            try:
                put(config, (key,), part)
            except OmegaConfBaseException as error:
                raise ConfigError(
                    f"config key {name}: does not fit {cls.__name__}: {first_line(error)}",
                    hint=subclass_hint(found, key)
                    or "the class may have changed since the run: load without it to get plain values",
                ) from error
        return config

    def restore(instance: Any, path: Path, hint: Any) -> None:
        if has_post_init(type(instance)):
            names = (name for name in _field_names(instance) if hasattr(instance, name))
            values = {name: getattr(instance, name) for name in names}
            run_post_init(instance)
            for name, value in values.items():
                object.__setattr__(instance, name, value)

    return object_of(typed(plain, cls, ()), restore, cls)


def _subclass(declared: Any, name: str | None, path: Path) -> Any:
    if name is None:
        return declared
    found = [cls for cls in subclasses_of(declared) if cls.__qualname__ == name]
    if not found:
        raise ConfigError(
            f"config key {dotted(path)}: was of class {name}, a subclass of {declared.__name__} that is not known here",
            hint="import the module that defines it",
        )
    return found[-1]  # the newest, where a cell defined it again


def put(config: DictConfig, path: Path, value: Any) -> None:
    """Set a value in place of the one that is there, and convert it to the type that is declared."""
    *above, last = path
    parent: Any = config
    for key in above:
        parent = parent._get_node(key)
    if is_structured(value) or isinstance(value, (dict, DictConfig)):  # merging would lay it on what is there
        parent[last] = {} if type(value) is dict else value
    if not is_structured(value) and not isinstance(value, DictConfig):
        OmegaConf.unsafe_merge(parent, {last: value})  # which converts, as assigning does no more
