"""When are two configurations those of one experiment with other numbers?

When they have the same keys, and values of the same types. Where a value does not tell its type, the dataclass
does: `None` in a field that may be an int, an empty list of a list of ints.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Iterator
from enum import Enum
from pathlib import Path as FilePath
from typing import Any, Literal, Union, get_args, get_origin

from omegaconf import DictConfig, OmegaConf
from omegaconf.base import Node
from omegaconf.basecontainer import BaseContainer

from ..told import Told
from .classes import is_structured
from .layers import Path, dotted
from .opening import config_of
from .resolved import to_plain
from .text import SAVE_DIR, digest_of, escaped

_Shape = dict[Any, Any] | str
"""Key -> shape, of a mapping; of any other value, its type."""
_Classes = tuple[Any, ...]

_NOTHING = "null"
_NAMES: dict[Any, str] = {
    bool: "bool",
    int: "int",
    float: "float",
    str: "str",
    bytes: "bytes",
    type(None): _NOTHING,
}


def structure(config: Any, plain: dict[Any, Any] | None = None) -> str:
    """One line `key: type` for each value, sorted, the top-level `save_dir` aside.

    Types are `bool`, `int`, `float`, `str` (paths and enums, too), `bytes`, `null`, `list[...]` with the types of
    its elements, and `{}` for an empty mapping. A field that may be None has the type it has otherwise, a field of
    several types has them all. A class that contains itself is only named where it does.

    Parameters
    ----------
    config: as for `to_text`; but a dict is taken as it stands: resolved values, as a lock holds them.
    plain: its resolved values, where they are at hand.

    Raises
    ------
    ConfigError: it cannot be held or resolved.

    >>> print(structure({"opt": {"lr": 0.1, "betas": [0.9, 0.99]}, "epochs": 5}), end="")
    epochs: int
    opt.betas: list[float]
    opt.lr: float
    """
    node = None if type(config) is dict else config_of(config)
    if plain is None:
        plain = config if node is None else to_plain(node)
    shape = _mapping({key: value for key, value in plain.items() if key != SAVE_DIR}, node, ())
    return "".join(sorted(f"{escaped(line)}\n" for line in _lines(shape, ())))


def structure_digest(config: Any, plain: dict[Any, Any] | None = None) -> str:
    """`blake3:hex` of the structure: equal for one experiment with other numbers.

    Parameters and errors are those of `structure`; of a run, what its lock says.

    >>> structure_digest({"lr": 0.1, "epochs": 5}) == structure_digest({"epochs": 90, "lr": 0.3})
    True
    >>> structure_digest({"lr": 0.1}) == structure_digest({"lr": 1})
    False
    """
    if isinstance(config, Told) and config.lock.config_structure:
        return config.lock.config_structure  # the types that were declared are known no more
    return digest_of(structure(config, plain))


def _lines(shape: dict[Any, Any], above: Path) -> Iterator[str]:
    for key, inner in shape.items():
        path = (*above, key)
        if isinstance(inner, dict) and inner:
            yield from _lines(inner, path)
        else:
            yield f"{dotted(path)}: {_text(inner)}"


def _text(shape: _Shape) -> str:
    """On one line, as it stands in a list."""
    if isinstance(shape, str):
        return shape
    return "{" + ", ".join(sorted(f"{dotted((key,))}: {_text(inner)}" for key, inner in shape.items())) + "}"


# -- what a value tells ------------------------------------------------------------------------------------


def _shape(value: Any, hint: Any, node: Node | None, above: _Classes) -> _Shape:
    """That of `value`, which the field of type `hint` holds in `node`; None: nothing is declared."""
    if value is None or _is_union(hint) or _is_unset(value, node):
        return _declared(hint, above)
    if isinstance(value, dict):
        cls = _without_none(hint)
        return cls.__name__ if cls in above else _mapping(value, node, above, cls)
    if isinstance(value, (list, tuple)):
        return _list(value, hint, node, above)
    return _NAMES.get(type(value)) or _name(type(value))


def _mapping(value: dict[Any, Any], node: Node | None, above: _Classes, cls: Any = None) -> dict[Any, Any]:
    if node is not None and not isinstance(node, DictConfig):
        node = node._maybe_dereference_node()
    if not isinstance(node, DictConfig):
        return {key: _shape(item, Any, None, above) for key, item in value.items()}
    here = tuple(c for c in (cls, OmegaConf.get_type(node)) if is_structured(c))
    shape: dict[Any, Any] = {}
    for key, item in value.items():
        child = node._get_node(key, validate_access=False)
        assert child is None or isinstance(child, Node)
        hint = child._metadata.ref_type if child is not None else Any
        shape[key] = _shape(item, hint, child, (*above, *here))
    return shape


def _list(values: Any, hint: Any, node: Node | None, above: _Classes) -> str:
    element = _element_of(hint)
    if _is_union(element) or not values:
        return _list_of("" if element is Any else _declared(element, above))
    if node is not None and not isinstance(node, BaseContainer):
        node = node._maybe_dereference_node()
    found = set()
    for index, value in enumerate(values):
        child: Any = None
        if isinstance(value, (dict, list, tuple)) and isinstance(node, BaseContainer):
            child = node._get_node(index)
        found.add(_text(_shape(value, element, child, above)))
    return _list_of(" | ".join(sorted(found)))


def _list_of(element: _Shape) -> str:
    return f"list[{_text(element)}]"


def _is_unset(value: Any, node: Node | None) -> bool:
    """Whether only the type is known of it: `???`, or an interpolation in a class that nobody filled in."""
    if node is None or not isinstance(value, str) or not (value == "???" or "${" in value):
        return False
    return node._is_missing() or (node._is_interpolation() and node._value() == value)


# -- what a type tells -------------------------------------------------------------------------------------


def _declared(hint: Any, above: _Classes) -> _Shape:
    """The shape of what a field of this type holds when it holds something."""
    members = _members(hint)
    if len(members) > 1:
        return " | ".join(sorted({_text(_declared(member, above)) for member in members}))
    cls = members[0] if members else Any
    if cls is Any:
        return _NOTHING
    if is_structured(cls):
        return cls.__name__ if cls in above else _of_class(cls, above)
    if _origin(cls) in (list, tuple):
        return _list_of(_declared(_element_of(cls), above))
    if _origin(cls) is dict:
        return {}
    if _origin(cls) is Literal:
        return " | ".join(sorted({_NAMES.get(type(one)) or _name(type(one)) for one in get_args(cls)}))
    return _NAMES.get(cls) or _name(cls)


@functools.lru_cache(256)
def _of_class(cls: Any, above: _Classes) -> dict[Any, Any]:
    node = OmegaConf.structured(cls)
    values = OmegaConf.to_container(node, resolve=False, enum_to_str=True)
    assert isinstance(values, dict)
    return _mapping(values, node, above, cls)


def _name(cls: Any) -> str:
    return (
        "str"
        if isinstance(cls, type) and issubclass(cls, (FilePath, Enum, str))
        else getattr(cls, "__name__", str(cls))
    )


def _origin(hint: Any) -> Any:
    return get_origin(hint) or hint


def _is_union(hint: Any) -> bool:
    return len(_members(hint)) > 1


def _without_none(hint: Any) -> Any:
    members = _members(hint)
    return members[0] if len(members) == 1 else Any


@functools.lru_cache(1024)
def _members(hint: Any) -> tuple[Any, ...]:
    """The types that a union has beside None."""
    if get_origin(hint) in (Union, types.UnionType):
        return tuple(member for arg in get_args(hint) for member in _members(arg))
    return () if hint is type(None) else (hint,)


def _element_of(hint: Any) -> Any:
    hint = _without_none(hint)
    types_ = tuple(arg for arg in get_args(hint) if arg is not ...) if _origin(hint) in (list, tuple) else ()
    return Union[types_] if types_ else Any  # noqa: UP007 - made of a tuple
