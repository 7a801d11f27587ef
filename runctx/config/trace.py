"""Keep the layers of a configuration with it, wherever it is copied to, and tell which of them set each key."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from omegaconf import Container, DictConfig, ListConfig, Node, OmegaConf, UnionNode

from ..errors import ConfigError
from . import hydra
from .classes import is_structured, place_of
from .derived import anchored
from .interpolations import DerivationError, cycle, cycle_message, needs_of, provide
from .layers import Branch, Layer, Setting, dotted, leaves, plain
from .layers import Path as Keys
from .messages import did_you_mean, message_of
from .pristine import NotReproducedError, pristine

_FLAG = (
    "runctx"  # OmegaConf copies, merges and pickles a node's flags with it, and asks only for its own by name
)
_RUN = "runctx_run"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Composition:
    """What `compose` was given, so that a group can be chosen again."""

    root: Path
    base: DictConfig
    """What lies below the files."""
    groups: dict[str, tuple[str, ...] | None]
    """Dotted group -> its choices, lowest first; None for a group that is left out."""
    above: Branch
    """What lies above the files: layers that were laid upon them, and what code assigned in between."""
    added: frozenset[Keys] = frozenset()
    """Paths in `above` that dataclasses need not have."""


class Trace:
    """Where a configuration comes from and which of its keys were read; shared by all its copies.

    Parameters
    ----------
    tree: its layers.
    values: what they made, neither resolved nor converted: what differs from it was assigned later.
        None for a configuration that cannot change any more.
    """

    __slots__ = (
        "before",
        "below",
        "closed",
        "composed",
        "forks",
        "needs",
        "reads",
        "resume",
        "tree",
        "values",
        "within",
    )

    def __init__(self, tree: Branch, values: dict[Any, Any] | None) -> None:
        self.tree = tree
        self.values = values
        self.reads: set[str] = set()
        """Dotted keys."""
        self.below: tuple[set[str], ...] = ()
        """What was read of the configurations that this one was laid upon."""
        self.forks = 0
        """How often the process had been forked when it began to note what is read."""
        self.needs: dict[str, tuple[str, ...]] = {}
        """Of a configuration that cannot change any more: key of a computed value -> keys it was computed from."""
        self.within: tuple[Trace, str] | None = None
        """Of a configuration that was a part of another: what is read of that, below this dotted key, is read of it."""
        self.composed: Composition | None = None
        """For a configuration that `compose` made, whatever layers were laid upon it since."""
        self.before: DictConfig | None = None
        """The configuration without what `__post_init__` set, once that has run."""
        self.resume: bool | str = False
        """What `--resume` asked for, as `Run(resume=...)` takes it."""
        self.closed = ""
        """The class whose `__post_init__` has run in the program, and cannot run again: no layer can be laid."""

        provide(values)

    def __setstate__(self, state: tuple[None, dict[str, Any]]) -> None:
        for name, value in state[1].items():
            setattr(self, name, value)
        provide(self.values)  # a worker has registered nothing yet

    def __deepcopy__(self, memo: Any) -> Trace:
        return self


def attach(config: Container, trace: Trace) -> None:
    config._set_flag(_FLAG, [trace])  # type: ignore[list-item]


def trace_of(config: Container) -> Trace | None:
    """That of the configuration `config` is part of; None if it was made without layers."""
    trace: Any = config._get_root()._get_node_flag(_FLAG)
    return trace if isinstance(trace, Trace) else None


def note_run(config: Container, folder: str | None) -> None:
    """Note of which run `config` is the configuration, also for what is made of it."""
    config._set_flag(_RUN, [folder])  # type: ignore[list-item]


def run_of(config: Container) -> str | None:
    """The folder of the run whose configuration `config` was, or was made of."""
    folder: str | None = config._get_root()._get_node_flag(_RUN)  # type: ignore[assignment]
    return folder


def resume_of(given: Any) -> bool | str:
    """What the command line that made a configuration says of `resume`."""
    trace = trace_of(given) if isinstance(given, Container) else None
    return trace.resume if trace is not None else False


def choices_of(config: Container) -> dict[str, str]:
    """Group -> what was chosen, several by commas; of a configuration that was not composed, of the Hydra job."""
    trace = trace_of(config)
    if trace is None or trace.composed is None:
        return hydra.choices()
    return {group: ",".join(names) for group, names in trace.composed.groups.items() if names}


# -- layers --------------------------------------------------------------------------------------------------------


def tree_of(config: DictConfig, program: str = "the program") -> Branch:
    """The layers that made `config`, and on top the values that code assigned since then.

    Parameters
    ----------
    config: with or without a trace. Without one, the defaults of its dataclasses are the lowest layer.
    program: the name of the layer of what the code gave.
    """
    trace = trace_of(config)
    program_layer = partial(Setting, layer=Layer(kind="program", name=program))
    if trace is None:
        return hydra.with_overrides(_node_tree(config, program_layer))
    if trace.values is None:
        return trace.tree
    return _with_changes(trace.tree, trace.values, raw(config), program_layer)


def completed(known: Branch, config: DictConfig) -> Branch:
    """`known`, with the defaults of the dataclasses in `config` for keys that no layer has."""
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


def _node_tree(config: DictConfig, given: Callable[[Any], Setting]) -> Branch:
    """The defaults of the dataclass of a mapping, and above them what `given` set otherwise."""
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
        given = partial(Setting, layer=Layer(kind="default", name=name), line=line)
        part = defaults._get_node(key)
        if isinstance(part, UnionNode):  # of dataclasses
            part = part.__dict__["_content"]
        nested = isinstance(part, DictConfig) and isinstance(value, dict)
        branch.children[key] = _node_tree(part, given) if nested else (given(value),)
    return branch


def _with_changes(
    known: Branch, then: Any, now: Mapping[Any, Any], given: Callable[[Any], Setting]
) -> Branch:
    """`known`, and above it the values that `given` has changed since `then`."""
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
        return ConfigError(*cycle_message(keys))
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
