"""Show a configuration: its origins, its values as lines to compare, its digests, and all of it as another file."""

from __future__ import annotations

import functools
import json
import re
import types
from enum import Enum
from pathlib import Path as FilePath
from typing import Any, Literal, Union, get_args, get_origin

from omegaconf import Container, DictConfig, Node, OmegaConf

from .. import settings
from ..base import BaseRun
from ..errors import ConfigError
from ..redact import Redactor
from .explanation import Explanation, of_lock
from .fields import is_structured
from .interpolations import escaped
from .layers import Path, dotted, flat, plain
from .messages import short
from .origins import explained
from .resolve import config_of, open_config, to_plain

SAVE_DIR = "save_dir"
"""The top-level key that differs between runs which are otherwise the same."""


def explain(what: Any, key: str | None = None) -> Explanation:
    """Who set each value, and what did it beat: the winning layer of each key, then those below it.

    Parameters
    ----------
    what: a configuration, or a part of one; a dataclass or an instance of one; a dict; a run, live or past, of
        which its lock tells.
    key: dotted; only this key, or those below it.

    Raises
    ------
    ConfigError: it is no configuration, or has no such key. A value that cannot be computed is told as such.

    >>> from dataclasses import dataclass
    >>> @dataclass
    ... class Config:
    ...     lr: float = 0.1
    ...     epochs: int = 5
    >>> [origin.value for origin in explain(Config(lr=0.3))["lr"]]
    [0.3, 0.1]
    """
    redactor = Redactor(settings.load().redact)
    if isinstance(what, BaseRun):
        found = of_lock(what.lock)
    elif isinstance(what, DictConfig):
        root, path = _place(what)
        found = explained(root, redactor)
        found = found.part(dotted(path)) if path else found
    else:
        found = explained(config_of(what), redactor)
    return found if key is None else found.part(key)


def to_text(what: Any, *, redact: bool = True) -> str:
    """One line `key = value` for each value, sorted: what `diff` and a pull request can show.

    Keys are dotted, and quoted where they are not simple words. Values are resolved, and written in JSON on one
    line; paths and enums are strings, as in the lock. `NaN` and `Infinity` are written as Python's `json` does,
    bytes as `{"$bytes": "<hex>"}`, and a mapping in a list whose keys are not all strings, or look like that,
    as `{"$items": [[key, value], ...]}`. An empty mapping is a value.

    Parameters
    ----------
    what: a configuration, a dataclass or an instance of one, a dict, or a run, live or past.
    redact: write `<redacted>` for secrets, as a run does.

    Raises
    ------
    ConfigError: it cannot be held or resolved; names the key.

    >>> print(to_text({"opt": {"lr": 0.1, "betas": [0.9, 0.99]}, "name": "a", "twice": "${name}${name}"}), end="")
    name = "a"
    opt.betas = [0.9, 0.99]
    opt.lr = 0.1
    twice = "aa"
    """
    plain = to_plain(config_of(what))
    return _value_lines(Redactor(settings.load().redact).mapping(plain) if redact else plain)


def converted(source: str, suffix: str, *, resolve: bool = False) -> bytes:
    """The text of one file that says what `source` and its bases say.

    Parameters
    ----------
    source: a configuration file; `file#key.path` selects a mapping in it.
    suffix: of the format, such as .toml.
    resolve: write what interpolations and derived values give, and not how they are computed.

    Raises
    ------
    ConfigError: the source cannot be read or resolved, or the format cannot hold it; the message names the key.

    >>> from pathlib import Path
    >>> _ = Path("low.yaml").write_text("lr: 0.1\\nhalf: ${mul:${lr},0.5}\\n")
    >>> _ = Path("high.py").write_text("_base_ = 'low.yaml'\\nlr = 0.2\\n")
    >>> print(converted("high.py", ".toml").decode().strip())
    lr = 0.2
    half = "${mul:${lr},0.5}"
    >>> print(converted("high.py", ".toml", resolve=True).decode().strip())
    lr = 0.2
    half = 0.1
    """
    from .formats import encode  # most runs read and write no other format
    from .inherit import load_tree

    if not resolve:
        return encode(plain(load_tree(source)), suffix)
    return encode(escaped(to_plain(open_config(source))), suffix)


def value_digest(config: Any) -> str:
    """`blake3:hex` of keys and values, the top-level `save_dir` aside: equal for the same configuration.

    Parameters
    ----------
    config: as for `to_text`; but a dict is taken as it stands: resolved values, as a lock holds them. Of a run,
        what its lock says.

    Raises
    ------
    ConfigError: it cannot be held or resolved.

    >>> value_digest({"lr": 0.1, "save_dir": "a"}) == value_digest({"lr": 0.1, "save_dir": "b"})
    True
    """
    if isinstance(config, BaseRun) and config.lock.config_digest:
        return config.lock.config_digest  # of values without the secrets, which no lock holds
    plain = config if type(config) is dict else to_plain(config_of(config))
    return _digest(_value_lines({key: value for key, value in plain.items() if key != SAVE_DIR}))


def structure_digest(config: Any, plain: dict[Any, Any] | None = None) -> str:
    """`blake3:hex` of the structure: equal for one experiment with other numbers.

    Parameters and errors are those of `structure`; of a run, what its lock says.

    >>> structure_digest({"lr": 0.1, "epochs": 5}) == structure_digest({"epochs": 90, "lr": 0.3})
    True
    >>> structure_digest({"lr": 0.1}) == structure_digest({"lr": 1})
    False
    """
    if isinstance(config, BaseRun) and config.lock.config_structure:
        return config.lock.config_structure  # the types that were declared are known no more
    return _digest(structure(config, plain))


def _digest(text: str) -> str:
    from blake3 import blake3

    return "blake3:" + blake3(text.encode()).hexdigest()


def _place(config: DictConfig) -> tuple[DictConfig, Path]:
    """The whole that a configuration is part of, and where in it; a list is one value."""
    path: Path = ()
    root: Any = config
    while (parent := root._get_parent()) is not None:
        path = (root._key(), *path) if isinstance(parent, DictConfig) else ()
        root = parent
    return (root, path) if isinstance(root, DictConfig) else (config, ())


# -- values --------------------------------------------------------------------------------------------------------


def _value_lines(plain: dict[Any, Any]) -> str:
    return "".join(sorted(_escaped(f"{key} = {value_text(value)}\n") for key, value in flat(plain)))


# what is no character, moves the cursor, or turns the direction of a line: all of it stands inside quotes
_UNSEEN = re.compile("[\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


def _escaped(line: str) -> str:
    if line.isascii() and "\x7f" not in line:
        return line
    return _UNSEEN.sub(lambda m: f"\\u{ord(m[0]):04x}", line)


_encode = json.JSONEncoder(ensure_ascii=False).encode


def value_text(value: Any) -> str:
    """One value in JSON, on one line."""
    try:
        return _encode(_as_json(value))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{type(value).__name__} {short(value)} cannot be written: {error}") from error


def _as_json(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"$bytes": value.hex()}
    if isinstance(value, (list, tuple)):
        return [_as_json(item) for item in value]
    if not isinstance(value, dict):
        return value
    if all(isinstance(key, str) and not key.startswith("$") for key in value):
        return {key: _as_json(value[key]) for key in sorted(value)}
    pairs = [[_as_json(key), _as_json(item)] for key, item in value.items()]
    return {"$items": sorted(pairs, key=lambda pair: _encode(pair[0]))}


# -- structure -----------------------------------------------------------------------------------------------------

_Shape = dict[Any, Any] | str
"""Key -> shape, of a mapping; of any other value, its type."""
_Classes = tuple[Any, ...]
"""The classes around a value: one that contains itself is only named there."""

_NAMES: dict[Any, str] = {type(None): "null"} | {cls: cls.__name__ for cls in (bool, int, float, str, bytes)}


def structure(config: Any, plain: dict[Any, Any] | None = None) -> str:
    """One line `key: type` for each value, sorted, the top-level `save_dir` aside.

    Two configurations with the same keys, and values of the same types, are of one experiment with other numbers. Types
    are `bool`, `int`, `float`, `str` (paths and enums, too), `bytes`, `null`, `list[...]` with the types of its
    elements, and `{}` for an empty mapping. Where a value does not tell its type, the dataclass does: `None` in a
    field that may be an int, an empty list of a list of ints. A field of several types has them all. A class that
    contains itself is only named where it does.

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
    return "".join(sorted(_escaped(f"{key}: {_text(part)}\n") for key, part in flat(shape)))


def _text(shape: _Shape) -> str:
    """On one line, as it stands in a list."""
    if isinstance(shape, str):
        return shape
    return "{" + ", ".join(sorted(f"{dotted((key,))}: {_text(part)}" for key, part in shape.items())) + "}"


def _shape(value: Any, hint: Any, node: Any, above: _Classes) -> _Shape:
    """That of `value`, which the field of type `hint` holds in `node`; None: nothing is declared."""
    if value is None or len(_members(hint)) > 1 or _is_unset(value, node):
        return _declared(hint, above)
    if isinstance(value, dict):
        cls = _only_member(hint)
        return str(cls.__name__) if cls in above else _mapping(value, node, above, cls)
    if isinstance(value, (list, tuple)):
        return _list(value, hint, node, above)
    return _name(type(value))


def _mapping(value: dict[Any, Any], node: Any, above: _Classes, cls: Any = None) -> dict[Any, Any]:
    if isinstance(node, Node) and not isinstance(node, DictConfig):
        node = node._maybe_dereference_node()
    if not isinstance(node, DictConfig):
        return {key: _shape(item, Any, None, above) for key, item in value.items()}
    above = (*above, *(c for c in (cls, OmegaConf.get_type(node)) if is_structured(c)))
    shape: dict[Any, Any] = {}
    for key, item in value.items():
        child: Any = node._get_node(key, validate_access=False)
        shape[key] = _shape(item, Any if child is None else child._metadata.ref_type, child, above)
    return shape


def _list(values: Any, hint: Any, node: Any, above: _Classes) -> str:
    element = _element_of(hint)
    if len(_members(element)) > 1 or not values:
        return "list[]" if element is Any else f"list[{_text(_declared(element, above))}]"
    if isinstance(node, Node) and not isinstance(node, Container):
        node = node._maybe_dereference_node()
    found = set()
    for index, value in enumerate(values):
        is_nested = isinstance(value, (dict, list, tuple)) and isinstance(node, Container)
        found.add(_text(_shape(value, element, node._get_node(index) if is_nested else None, above)))
    return f"list[{' | '.join(sorted(found))}]"


def _is_unset(value: Any, node: Any) -> bool:
    """True if only the type is known of it: `???`, or an interpolation in a class that nobody filled in."""
    if node is None or not isinstance(value, str) or not (value == "???" or "${" in value):
        return False
    return bool(node._is_missing() or (node._is_interpolation() and node._value() == value))


def _declared(hint: Any, above: _Classes) -> _Shape:
    """The shape of what a field of this type holds when it holds something."""
    members = _members(hint)
    if len(members) > 1:
        return " | ".join(sorted({_text(_declared(member, above)) for member in members}))
    cls = members[0] if members else Any
    if cls is Any:
        return "null"
    if is_structured(cls):
        return str(cls.__name__) if cls in above else _of_class(cls, above)
    origin = get_origin(cls) or cls
    if origin in (list, tuple):
        return f"list[{_text(_declared(_element_of(cls), above))}]"
    if origin is dict:
        return {}
    if origin is Literal:
        return " | ".join(sorted({_name(type(one)) for one in get_args(cls)}))
    return _name(cls)


@functools.lru_cache(256)
def _of_class(cls: Any, above: _Classes) -> dict[Any, Any]:
    node = OmegaConf.structured(cls)
    values: Any = OmegaConf.to_container(node, resolve=False, enum_to_str=True)
    return _mapping(values, node, above, cls)


def _name(cls: Any) -> str:
    if cls in _NAMES:
        return _NAMES[cls]
    is_text = isinstance(cls, type) and issubclass(cls, (FilePath, Enum, str))
    return "str" if is_text else getattr(cls, "__name__", str(cls))


@functools.lru_cache(1024)
def _members(hint: Any) -> tuple[Any, ...]:
    """The types that a union has beside None."""
    if get_origin(hint) in (Union, types.UnionType):
        return tuple(member for arg in get_args(hint) for member in _members(arg))
    return () if hint is type(None) else (hint,)


def _only_member(hint: Any) -> Any:
    members = _members(hint)
    return members[0] if len(members) == 1 else Any


def _element_of(hint: Any) -> Any:
    hint = _only_member(hint)
    is_list = (get_origin(hint) or hint) in (list, tuple)
    elements = tuple(arg for arg in get_args(hint) if arg is not ...) if is_list else ()
    return Union[elements] if elements else Any  # noqa: UP007 - made of a tuple
