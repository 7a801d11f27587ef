"""How is a value written that is computed from others, and what does it read where it is mounted?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from ...errors import ConfigError
from ..layers import Branch, Leaf
from . import written
from .evaluation import DerivationError, Derived, evaluation
from .references import rebound

__all__ = [
    "DerivationError",
    "Derived",
    "as_subtree",
    "derived",
    "evaluation",
    "rooted",
    "source_of",
    "where",
]

T = TypeVar("T")


def derived(fn: Callable[..., T]) -> T:
    """A value that is computed from others whenever it is read; a run computes it once, after all overrides.

    Parameters
    ----------
    fn: gets the mapping that the value was written in: of a field the dataclass, in a dict or a Python config file
        the top of that, wherever it is mounted. If it has a second parameter, that is the whole configuration.
        It can modify neither.

    Raises
    ------
    ConfigError: on reading, if `fn` raises, gives a value of a wrong type, or reads what is computed from its own
        result; the message names the key.

    >>> from dataclasses import dataclass
    >>> from omegaconf import OmegaConf
    >>> @dataclass
    ... class Config:
    ...     batch_size: int = 256
    ...     lr: float = derived(lambda c: 0.01 * c.batch_size / 128)
    >>> cfg = OmegaConf.structured(Config)
    >>> cfg.lr
    0.02
    >>> cfg.batch_size = 128
    >>> cfg.lr
    0.01
    """
    if not callable(fn):
        raise ConfigError(
            f"derived() needs a function; got {fn!r}", hint="write derived(lambda c: 2 * c.width)"
        )
    value: Any = Derived(fn, written.source_of(fn), written.place_of(fn))
    return value  # type: ignore[no-any-return]


def source_of(value: Derived) -> str:
    """How its function reads: the text of a lambda, the name of another.

    >>> source_of(derived(lambda c: 0.01 * c.batch_size / 128))
    'lambda c: 0.01 * c.batch_size / 128'
    """
    return value.source


def where(value: Derived) -> tuple[str, int]:
    """File and line of its function; ("", 0) where that is unknown."""
    return value.place


def rooted(values: Mapping[Any, Any]) -> dict[Any, Any]:
    """The same values, of which the derived ones read from the top of this mapping, wherever it is mounted."""
    return {key: _rooted(value, 1) for key, value in values.items()}


def _rooted(value: Any, distance: int) -> Any:
    if isinstance(value, Derived):
        return value.at(distance)
    if type(value) is dict:
        return {k: _rooted(v, distance + 1) for k, v in value.items()}
    if type(value) is list or type(value) is tuple:
        return type(value)(_rooted(v, distance + 1) for v in value)
    return value


def as_subtree(branch: Branch) -> Branch:
    """The same tree, reading its own keys first wherever it is mounted.

    `${lr}` in it becomes its own `lr` if it has one, and stays that of the whole configuration otherwise.
    """
    return _mounted(branch, frozenset(map(str, branch.children)), 1)


def _mounted(branch: Branch, own: frozenset[str], depth: int) -> Branch:
    result = Branch()
    result.removed, result.whole = branch.removed, branch.whole
    for key, child in branch.children.items():
        if isinstance(child, Branch):
            result.children[key] = _mounted(child, own, depth + 1)
        else:
            result.children[key] = _mounted_leaf(child, own, depth)
    return result


def _mounted_leaf(leaf: Leaf, own: frozenset[str], depth: int) -> Leaf:
    return tuple(setting._replace(value=_mounted_value(setting.value, own, depth)) for setting in leaf)


def _mounted_value(value: Any, own: frozenset[str], depth: int) -> Any:
    if isinstance(value, Derived):
        return value.at(depth)
    if isinstance(value, str):
        return rebound(value, own, depth)
    if type(value) is dict:
        return {k: _mounted_value(v, own, depth + 1) for k, v in value.items()}
    if type(value) is list or type(value) is tuple:
        return type(value)(_mounted_value(v, own, depth + 1) for v in value)
    return value
