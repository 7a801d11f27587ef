"""Which layer set each key of a configuration, and what did it beat?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any

from omegaconf import DictConfig, OmegaConf

from .. import settings
from ..model import Origin
from ..redact import REDACTED, Redactor
from ..told import Told
from .derived import Derived, evaluation
from .explanation import Explanation, Unknown, of_lock
from .interpolations import needs_of
from .layers import MISSING, Branch, Leaf, Setting, dotted, leaves
from .layers import Path as Keys
from .opening import open_config
from .post_init import settled
from .trace import raw, trace_of, tree_of


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
    if isinstance(what, Told):
        found = of_lock(what.lock)
    elif isinstance(what, DictConfig):
        root, path = _place(what)
        found = _explained(root)
        found = found.part(dotted(path)) if path else found
    else:
        found = _explained(settled(open_config(what)))
    return found if key is None else found.part(key)


def origins_of(
    config: DictConfig, program: str = "the program", redactor: Redactor | None = None
) -> dict[str, tuple[Origin, ...]]:
    """Dotted key -> who set it, the winner first, then those it beat, the nearest first; secrets redacted.

    Parameters
    ----------
    program: what to call the place in the code that gave values.
    redactor: decides what is secret; it learns the secrets of all layers.

    Returns
    -------
    Only what was computed, if code gave everything and there is no other layer to tell of.
    """
    tree = tree_of(config, program)
    keys = {dotted(path): leaf for path, leaf in leaves(tree)}
    if all(len(leaf) == 1 and leaf[0].layer.kind == "program" for leaf in keys.values()):
        keys = {key: leaf for key, leaf in keys.items() if _is_computed(leaf[0].value)}
    if not keys:
        return {}
    needs = getattr(trace_of(config), "needs", {})
    origins = _told(tree, {}, needs, redactor or Redactor())[1]
    return {key: origins[key] for key in keys}


def _is_computed(value: Any) -> bool:
    if isinstance(value, (Mapping, list, tuple)):
        return any(map(_is_computed, value.values() if isinstance(value, Mapping) else value))
    return isinstance(value, str) and "${" in value


def _explained(config: DictConfig) -> Explanation:
    tree = tree_of(config)
    with evaluation(config) as computed:
        resolved = _resolved(config, tree)
    needs = needs_of(raw(config), {key: tuple(read) for key, read in computed.reads.items()})
    needs |= getattr(trace_of(config), "needs", {})
    return Explanation(*_told(tree, resolved, needs, Redactor(settings.load().redact)))


def _told(
    tree: Branch, resolved: Mapping[Keys, Any], needs: Mapping[str, Iterable[str]], redactor: Redactor
) -> tuple[dict[str, Any], dict[str, tuple[Origin, ...]]]:
    """What came of each key, and who said what of it: both without secrets."""
    clean = redactor.mapping(_by_key(tree, resolved, redactor))
    shown, origins = {}, {}
    for path, leaf in leaves(tree):
        said = _said(leaf)
        values = _at(clean, path)
        if values is None:  # its key, or that of a mapping around it, is secret
            values = [*(_hidden(one.value) for one in said), _hidden(resolved.get(path))]
        key = dotted(path)
        reads = [tuple(needs.get(key, ())), *[()] * len(said)]
        shown[key] = values[-1]
        origins[key] = tuple(
            Origin(layer=one.layer.kind, where=redactor.text(one.where), value=value, reads=read)
            for one, value, read in zip(said, values, reads, strict=False)
        )
    return shown, origins


def _said(leaf: Leaf) -> list[Setting]:
    """The winner first; a layer that left the value to others was not beaten."""
    return [leaf[-1], *(one for one in reversed(leaf[:-1]) if one.value != MISSING)]


def _by_key(
    branch: Branch, resolved: Mapping[Keys, Any], redactor: Redactor, path: Keys = ()
) -> dict[Any, Any]:
    """In the shape of the configuration, by which secrets are known: of each key what was said, and its value."""
    found: dict[Any, Any] = {}
    for name, child in branch.children.items():
        here = (*path, name)
        if isinstance(child, Branch):
            found[name] = _by_key(child, resolved, redactor, here)
        else:
            values = (*(one.value for one in _said(child)), resolved.get(here))
            found[name] = [_written(value, redactor) for value in values]
    return found


def _at(nested: Any, path: Keys) -> list[Any] | None:
    for key in path:
        if not isinstance(nested, dict):
            return None
        nested = nested[key]
    return nested if isinstance(nested, list) else None


def _hidden(value: Any) -> Any:
    return value if value in (None, "", MISSING) or isinstance(value, (bool, Unknown)) else REDACTED


_PLAIN = (bool, int, float, str, bytes, Unknown)


def _written(value: Any, redactor: Redactor) -> Any:
    """As a lock can hold it; of a derived value, its source."""
    if isinstance(value, Derived):
        return redactor.text(value.source)
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, Mapping):
        return {_written(key, redactor): _written(part, redactor) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_written(part, redactor) for part in value]
    return value if value is None or isinstance(value, _PLAIN) else str(value)


# -- what came of it ---------------------------------------------------------------------------------------


def _resolved(config: DictConfig, tree: Branch) -> dict[Keys, Any]:
    """The value of each leaf; `Unknown` where there is none."""
    paths = [path for path, _ in leaves(tree)]
    try:
        values = OmegaConf.to_container(config, resolve=True)
        return {path: _value(_select(values, path)) for path in paths}
    except Exception:  # one cannot be computed, which may raise whatever the user's code does: which one?
        return {path: _computed(config, path) for path in paths}


def _select(values: Any, path: Keys) -> Any:
    for key in path:
        values = values[key]
    return values


def _computed(config: DictConfig, path: Keys) -> Any:
    node: Any = config
    try:
        for key in path:
            node = node._get_node(key)
        value = node._dereference_node()
        value = OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value._value()
    except Exception as error:
        return Unknown(f"{type(error).__name__}: {str(error).partition(chr(10))[0]}")
    return _value(value)


def _value(value: Any) -> Any:
    return Unknown("nobody set it") if isinstance(value, str) and value == MISSING else value


def _place(config: DictConfig) -> tuple[DictConfig, Keys]:
    """The whole that a configuration is part of, and where in it; a list is one value."""
    path: Keys = ()
    root: Any = config
    while (parent := root._get_parent()) is not None:
        path = (root._key(), *path) if isinstance(parent, DictConfig) else ()
        root = parent
    return (root, path) if isinstance(root, DictConfig) else (config, ())
