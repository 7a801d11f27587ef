"""What did each layer say of each key, and who won?

A layer is one source of values: a dataclass, a file, an argument. Each is read into a tree, trees are merged
from the bottom up, and every leaf of the result remembers what the layers below the winner had said.
"""

from __future__ import annotations

import json
import re
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal, NamedTuple

from ..errors import ConfigError

Kind = Literal[
    "default",
    "program",
    "base file",
    "config file",
    "group file",
    "experiment",
    "overrides file",
    "override",
    "task",
    "__post_init__",
]
"""Of what kind a layer is, lowest first; `program` is what code gave or assigned, `task` what `run.map` laid."""

Path = tuple[Any, ...]
"""The keys from the top of a configuration to a place in it."""

REPLACE, DELETE = "_replace_", "_delete_"

MISSING = "???"
"""Says that a value must be given; said above one that was given, it says nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Layer:
    """One source of values."""

    kind: Kind
    name: str
    """Where it is found: a file, relative to the working folder where it lies below that, or `argument 3`."""


class Setting(NamedTuple):
    """What one layer says of one key."""

    value: Any
    """As it was written: interpolations and derivations are not computed yet."""
    layer: Layer
    line: int | None = None

    @property
    def where(self) -> str:
        return self.layer.name if self.line is None else f"{self.layer.name}:{self.line}"

    @property
    def who(self) -> str:
        """What a message about the value begins with: `config file train.yaml:3`."""
        return self.where if self.layer.kind == "program" else f"{self.layer.kind} {self.where}"


Leaf = tuple[Setting, ...]
"""All that was said of one key, lowest layer first: the last one won. A list is one leaf."""


class Branch:
    """A mapping in a tree of settings, and what it does to the mapping at the same place in lower layers."""

    __slots__ = ("children", "removed", "whole")

    def __init__(self) -> None:
        self.children: dict[Any, Branch | Leaf] = {}
        self.removed: frozenset[Any] = frozenset()
        """Keys of lower layers that end here."""
        self.whole = False
        """Whether everything of lower layers ends here."""


def tree(values: Mapping[Any, Any], layer: Layer, lines: Mapping[Path, int] | None = None) -> Branch:
    """Read nested mappings; `_replace_` and `_delete_` in them become what they mean.

    Parameters
    ----------
    lines: the line on which the key at a path stands, where that is known; counted from 1.

    Raises
    ------
    ConfigError: a marker with a value it cannot have, or mappings that contain themselves.

    >>> low = tree({"opt": {"name": "sgd", "momentum": 0.9}}, Layer(kind="config file", name="a.yaml"))
    >>> high = tree({"opt": {"_replace_": True, "name": "adam"}}, Layer(kind="override", name="argument 1"))
    >>> plain(merge(low, high))
    {'opt': {'name': 'adam'}}
    """
    try:
        return _branch(values, layer, lines or {}, ())
    except RecursionError as error:
        raise ConfigError(f"{layer.name} is nested too deep, or contains itself") from error


def _branch(values: Mapping[Any, Any], layer: Layer, lines: Mapping[Path, int], path: Path) -> Branch:
    branch = Branch()
    removed = set()
    for key, value in values.items():
        at = (*path, key)
        if key in (REPLACE, DELETE):
            here = Setting(value, layer, lines.get(at, lines.get(path)))
            if _is_whole(key, here):
                branch.whole = True
            elif key == DELETE and value is not False:
                removed.update(value)
        elif isinstance(value, Mapping):
            child = _branch(value, layer, lines, at)
            if child.whole and value.get(DELETE) is True and not child.children:
                removed.add(key)
            else:
                branch.children[key] = child
        else:
            branch.children[key] = (Setting(value, layer, lines.get(at)),)
    branch.removed = frozenset(removed)
    return branch


def _is_whole(marker: str, setting: Setting) -> bool:
    value = setting.value
    if isinstance(value, bool):
        return value
    nested = (Mapping, list, tuple)
    if (
        marker == DELETE
        and isinstance(value, (list, tuple))
        and not any(isinstance(key, nested) for key in value)
    ):
        return False
    raise ConfigError(
        f"{setting.where}: {marker} cannot be {value!r}",
        hint=f"write {marker}: true" + (", or a list of the keys to delete" if marker == DELETE else ""),
    )


def merge(lower: Branch, upper: Branch) -> Branch:
    """Both, deeply; where they disagree the upper one wins, and remembers the lower. Neither is modified.

    Merging is associative in the values, so that files can be merged before what they are laid upon is known.
    """
    merged = Branch()
    merged.whole = lower.whole or upper.whole
    merged.removed = lower.removed | upper.removed
    if not upper.whole:
        merged.children = {k: child for k, child in lower.children.items() if k not in upper.removed}
    for key, child in upper.children.items():
        below = lower.children.get(key)
        ended = upper.whole or key in upper.removed
        merged.children[key] = _over(below, _alone(child)) if ended else _beside(below, child)
    return merged


def _beside(below: Branch | Leaf | None, child: Branch | Leaf) -> Branch | Leaf:
    """`child` over `below`, of which the one that leaves the value open says nothing, as in OmegaConf."""
    if _is_open(child) and below is not None:
        return (*child, *below) if isinstance(child, tuple) and isinstance(below, tuple) else below
    return child if _is_open(below) and isinstance(child, Branch) else _over(below, child)


def _is_open(child: Branch | Leaf | None) -> bool:
    return isinstance(child, tuple) and bool(child[-1].value == MISSING)


def _over(below: Branch | Leaf | None, child: Branch | Leaf) -> Branch | Leaf:
    if isinstance(child, tuple):
        return (*below, *child) if isinstance(below, tuple) else child
    if isinstance(below, Branch):
        return merge(below, child)
    return child if below is None else _alone(child)


def _alone(child: Branch | Leaf) -> Branch | Leaf:
    """The same, letting nothing of lower layers through, while its leaves may still remember them."""
    if isinstance(child, tuple) or child.whole:
        return child
    alone = Branch()
    alone.children, alone.removed, alone.whole = child.children, child.removed, True
    return alone


def plain(branch: Branch) -> dict[Any, Any]:
    """The values that won, as they were written.

    >>> plain(tree({"a": {"b": 1}}, Layer(kind="program", name="train.py")))
    {'a': {'b': 1}}
    """
    return {
        key: child[-1].value if isinstance(child, tuple) else plain(child)
        for key, child in branch.children.items()
    }


def leaves(branch: Branch, path: Path = ()) -> Iterator[tuple[Path, Leaf]]:
    """Every leaf and the keys that lead to it."""
    for key, child in branch.children.items():
        if isinstance(child, tuple):
            yield (*path, key), child
        else:
            yield from leaves(child, (*path, key))


def below(branch: Branch, path: Path) -> Branch:
    """The same tree, mounted under the keys of `path`."""
    for key in reversed(path):
        outer = Branch()
        outer.children[key] = branch
        branch = outer
    return branch


def at(branch: Branch, path: Path) -> Branch | Leaf | None:
    """What lies at these keys; None if nothing does."""
    here: Branch | Leaf | None = branch
    for key in path:
        here = here.children.get(key) if isinstance(here, Branch) else None
    return here


def assigned(before: Branch, now: Branch) -> Branch:
    """What the program said since the layers of `before` were laid."""
    since = Branch()
    for path, leaf in leaves(now):
        then = at(before, path)
        if not isinstance(then, tuple) or len(leaf) > len(then):
            only = Branch()
            only.children[path[-1]] = leaf[-1:]
            since = merge(since, below(only, path[:-1]))
    return since


def flat(values: Mapping[Any, Any], whole: Container[str] = (), path: Path = ()) -> Iterator[tuple[str, Any]]:
    """Dotted key and value of nested plain data; an empty mapping is a value, and so is one at a key in `whole`."""
    for name, value in values.items():
        key = dotted((*path, name))
        if isinstance(value, dict) and value and key not in whole:
            yield from flat(value, whole, (*path, name))
        else:
            yield key, value


_BARE = re.compile(r"(?!(?:true|false|null|none)$)-*[A-Za-z_][A-Za-z0-9_-]*", re.IGNORECASE)


def dotted(path: Path) -> str:
    """The keys as one text, in the manner of TOML: different paths have different texts.

    >>> dotted(("opt", "lr")), dotted(("weights", 3, "a.b", "3"))
    ('opt.lr', 'weights.3."a.b"."3"')
    """
    return ".".join(map(_segment, path))


def _segment(key: Any) -> str:
    if isinstance(key, Enum):
        key = key.name
    if isinstance(key, str):
        return key if _BARE.fullmatch(key) else json.dumps(key, ensure_ascii=False)
    if isinstance(key, float):
        return f"[{key!r}]"  # its point separates no keys
    if isinstance(key, bytes):
        return f"[0x{key.hex()}]"
    return json.dumps(key) if key is None or isinstance(key, (bool, int)) else str(key)
