"""What is known of a configuration that exists: which layer set each of its keys?"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

from omegaconf import DictConfig, ListConfig, Node, OmegaConf, UnionNode

from ..errors import ConfigError
from . import hydra
from .classes import is_structured, place_of
from .derivation.evaluation import DerivationError, anchored, told_of_cycle
from .derivation.references import cycle, needs_of
from .layers import Branch, Layer, Setting, dotted, leaves, plain
from .nearest import did_you_mean
from .pristine import NotReproducedError, pristine
from .trace import trace_of
from .wording import message_of


def tree_of(config: DictConfig, program: str = "the program") -> Branch:
    """The layers that made `config`, and on top the values that code assigned since then.

    Parameters
    ----------
    config: with or without a trace. Without one, what its dataclasses say is the lowest layer.
    program: what to call the place in the code that gave the values.
    """
    trace = trace_of(config)
    said_by_program = _Said(Layer(kind="program", name=program), None)
    if trace is None:
        return hydra.with_overrides(_node_tree(config, said_by_program))
    if trace.values is None:
        return trace.tree
    return _with_changes(trace.tree, trace.values, raw(config), said_by_program)


def completed(known: Branch, config: DictConfig) -> Branch:
    """`known`, with what the dataclasses in `config` say of keys that no layer mentions."""
    cls = OmegaConf.get_type(config)
    defaults = _class_tree(cls).children if is_structured(cls) else {}
    complete = Branch()
    for key, child in {**defaults, **known.children}.items():
        part = config._get_node(key)
        if isinstance(child, Branch) and isinstance(part, DictConfig):
            child = completed(child, part)
        complete.children[key] = child
    return complete


def raw(config: DictConfig) -> dict[Any, Any]:
    """Values as they were written, neither resolved nor converted."""
    values = _written(config)
    assert isinstance(values, dict)
    return anchored(values, config)


def _written(node: Any) -> Any:
    """What `OmegaConf.to_container(node, resolve=False)` gives, in a tenth of the time."""
    held = node.__dict__
    if "_content" not in held:
        return _unescaped(held["_val"])
    content = held["_content"]
    if isinstance(content, dict):
        return {_unescaped(key): _written(child) for key, child in content.items()}
    if isinstance(content, list):
        parts = map(_written, content)
        return list(parts) if isinstance(node, ListConfig) else tuple(parts)
    return _written(content) if isinstance(content, Node) else content


def _unescaped(value: Any) -> Any:
    # how OmegaConf 2.4 holds a text that is written `\\???`
    return str(value) if type(value).__name__ == "_EscapedMissing" else value


@dataclasses.dataclass(frozen=True, slots=True)
class _Said:
    layer: Layer
    line: int | None

    def __call__(self, value: Any) -> Setting:
        return Setting(value, self.layer, self.line)


def _node_tree(config: DictConfig, given: _Said) -> Branch:
    """What the dataclass of a mapping says; `given` says what differs from it."""
    cls = OmegaConf.get_type(config)
    known = _class_tree(cls) if is_structured(cls) else Branch()
    return _with_changes(known, plain(known), raw(config), given)


_class_trees: WeakKeyDictionary[Any, Branch] = WeakKeyDictionary()


def _class_tree(cls: Any) -> Branch:
    if cls not in _class_trees:  # holding a class takes OmegaConf longer than all else that is done here
        _class_trees[cls] = _read_class(cls)
    return _class_trees[cls]


def _read_class(cls: Any) -> Branch:
    place = place_of(cls)
    try:
        defaults = OmegaConf.structured(pristine(cls))
    except NotReproducedError:
        defaults = OmegaConf.structured(cls)
    branch = Branch()
    for key, value in raw(defaults).items():
        name, line = place.of(key)
        given = _Said(Layer(kind="default", name=name), line)
        part = defaults._get_node(key)
        if isinstance(part, UnionNode):  # of dataclasses
            part = part.__dict__["_content"]
        nested = isinstance(part, DictConfig) and isinstance(value, dict)
        branch.children[key] = _node_tree(part, given) if nested else (given(value),)
    return branch


def _with_changes(known: Branch, then: Any, now: Mapping[Any, Any], given: _Said) -> Branch:
    """`known`, with what `given` says where a value is no longer what it was."""
    current = Branch()
    for key, value in now.items():
        child = known.children.get(key)
        before = then.get(key) if isinstance(then, Mapping) else None
        if isinstance(value, Mapping):
            inner = child if isinstance(child, Branch) else Branch()
            current.children[key] = _with_changes(inner, before, value, given)
        elif isinstance(child, tuple):
            current.children[key] = child if _same(value, before) else (*child, given(value))
        else:
            current.children[key] = (given(value),)
    return current


def _same(a: Any, b: Any) -> bool:
    return type(a) is type(b) and bool(a == b or (a != a and b != b))


def located(
    error: BaseException, config: DictConfig | None = None, program: str = "the program"
) -> ConfigError:
    """The same as an error of ours, with key and layer as far as they are known."""
    if isinstance(error, DerivationError) and error.is_located:
        return error.with_traceback(None)  # whose frames are OmegaConf's and ours
    key = getattr(error, "full_key", None)
    if config is None:
        return ConfigError(*message_of(error))
    keys = cycle(needs_of(raw(config), {}), key)
    if keys:
        return ConfigError(*told_of_cycle(keys))
    root: Any = config._get_root()
    tree = tree_of(root, program)
    said = _said(tree, key) if key else None
    message, hint = message_of(error)
    unknown = _UNKNOWN.search(message)
    if unknown:
        hint = did_you_mean(unknown[1], [dotted(path) for path, _ in leaves(tree)])
    return ConfigError(f"{said.who}: {message}" if said else message, hint)


_UNKNOWN = re.compile(r"Interpolation key '([^']+)' not found")


def _said(tree: Branch, key: str) -> Setting | None:
    """What won at a key as OmegaConf writes it, `opt.betas[0]`; a list is one leaf."""
    here: Any = tree
    for name in re.split(r"[.\[\]]+", key.rstrip("]")):
        if isinstance(here, Branch):
            here = next((child for each, child in here.children.items() if str(each) == name), None)
    return here[-1] if isinstance(here, tuple) else None
