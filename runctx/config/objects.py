"""Make instances of the dataclasses of a configuration, subclasses of declared ones included."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, Node, OmegaConf, UnionNode
from omegaconf.errors import OmegaConfBaseException

from ..errors import ConfigError
from ..model import Origin
from .classes import is_structured, types_of
from .layers import Path, dotted
from .messages import first_line
from .pristine import is_unset
from .values import inner, required

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
    if isinstance(content, dict):
        cls: Any = OmegaConf.get_type(node)
        if not is_structured(cls):
            return {k: object_of(child, ready, inner(hint, k), (*path, k)) for k, child in content.items()}
        if not hasattr(cls, "__dataclass_fields__"):
            return OmegaConf.to_object(node)  # a class of attrs has converters and validators
        hints, instance = types_of(cls), object.__new__(cls)
        for field in dataclasses.fields(cls):
            if not (child := content[field.name])._is_missing():
                value = object_of(child, ready, hints.get(field.name, Any), (*path, field.name))
                object.__setattr__(instance, field.name, value)
        ready(instance, path, hint)
        for key, child in content.items():
            if key not in hints and cls.__dictoffset__ and not child._is_missing():
                object.__setattr__(instance, key, object_of(child, ready, Any, (*path, key)))
        return instance
    if isinstance(content, (list, tuple)):
        values = [object_of(child, ready, inner(hint, i), (*path, i)) for i, child in enumerate(content)]
        return tuple(values) if _is_tuple(hint) or isinstance(content, tuple) else values
    return node._value()


def _is_tuple(hint: Any) -> bool:
    wanted, _ = required(hint)
    return (typing.get_origin(wanted) or wanted) is tuple


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
    added = [key for key, said in (origins or {}).items() if said and said[-1].layer != "default"]
    return object_of(_typed(plain, cls, (), subclasses or {}, cls, added), _restored, cls)


def _restored(instance: Any, path: Path, hint: Any) -> None:
    if hasattr(instance, "__post_init__"):
        values = {
            f.name: getattr(instance, f.name)
            for f in dataclasses.fields(instance)
            if hasattr(instance, f.name)
        }
        run_post_init(instance)
        for name, value in values.items():
            object.__setattr__(instance, name, value)


def run_post_init(instance: Any) -> None:
    """Call `__post_init__` with the defaults of its `InitVar`s.

    Raises
    ------
    ConfigError: it raised; names the class.
    """
    cls = type(instance)
    variables = [f for f in cls.__dataclass_fields__.values() if f._field_type is dataclasses._FIELD_INITVAR]  # type: ignore[attr-defined]
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


def _typed(
    value: Any, hint: Any, path: Path, subclasses: Mapping[str, str], outer: Any, added: Sequence[str]
) -> Any:
    """The same values, with a mapping that is typed in place of each that a dataclass is declared for."""
    from .resolved import escaped

    declared, _ = required(hint)
    if isinstance(value, Mapping) and is_structured(declared):
        cls = _subclass(declared, subclasses.get(dotted(path)), path)
        config: DictConfig = OmegaConf.structured(cls)
        OmegaConf.set_readonly(config, False)
        hints = types_of(cls)
        for key, part in value.items():
            at = (*path, key)
            part = _typed(part, hints.get(key, Any), at, subclasses, outer, added)
            if key not in hints and any(f"{name}.".startswith(f"{dotted(at)}.") for name in added):
                OmegaConf.set_struct(config, not cls.__dictoffset__)  # with slots it has no place for it
            try:
                put(config, (key,), part)
            except OmegaConfBaseException as error:
                raise ConfigError(
                    f"config key {dotted(at)}: does not fit {outer.__name__}: {first_line(error)}",
                    hint=subclass_hint(cls, key)
                    or "the class may have changed since the run: load without it to get plain values",
                ) from error
        return config
    if isinstance(value, Mapping):
        return {k: _typed(v, inner(hint, k), (*path, k), subclasses, outer, added) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_typed(v, inner(hint, i), (*path, i), subclasses, outer, added) for i, v in enumerate(value)]
    return escaped(value)


def put(config: DictConfig, path: Path, value: Any) -> None:
    """Set a value in place of the one that is there, and convert it to the type that is declared."""
    *above, last = path
    parent: Any = config
    for key in above:
        parent = parent._get_node(key)
    if is_structured(value) or isinstance(
        value, (dict, DictConfig)
    ):  # which merging would lay on what is there
        parent[last] = {} if type(value) is dict else value
    if not is_structured(value) and not isinstance(value, DictConfig):
        OmegaConf.unsafe_merge(parent, {last: value})  # which converts, as assigning does no more


def _subclass(declared: Any, name: str | None, path: Path) -> Any:
    if name is None:
        return declared
    found = [cls for cls in _below(declared) if cls.__qualname__ == name]
    if not found:
        raise ConfigError(
            f"config key {dotted(path)}: was of class {name}, a subclass of {declared.__name__} that is not known here",
            hint="import the module that defines it",
        )
    return found[-1]  # the newest, where a cell defined it again


def subclass_hint(declared: Any, key: Any) -> str | None:
    """For a key that a dataclass does not have, but a subclass of it."""
    found = [cls.__name__ for cls in _below(declared) if key in types_of(cls)]
    if not found or key in types_of(declared):
        return None
    return f"{key} is a field of {found[-1]}; only code can choose {found[-1]}(...) in place of {declared.__name__}"


def _below(cls: Any) -> Iterator[Any]:
    for each in cls.__subclasses__():
        yield each
        yield from _below(each)
