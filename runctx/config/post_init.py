"""Run the `__post_init__` of the dataclasses in a configuration, on the values after all layers.

What it sets is a layer above all others. It is taken away before another layer is laid, and computed again after that.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from types import FunctionType
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..errors import ConfigError
from .assembled import assemble, thawed
from .classes import MISSING, place_of
from .derived import evaluation
from .held import held
from .interpolations import failure_of, path_of
from .layers import Branch, Layer, Leaf, Path, Setting, assigned, at, below, dotted, leaves, merge, tree
from .messages import first_line
from .objects import object_of, put, run_post_init
from .pristine import equal, has_post_init
from .trace import Trace, attach, located, raw, trace_of, tree_of


def settled(config: DictConfig) -> DictConfig:
    """`config` with what `__post_init__` sets; itself where there is none, or a mandatory value is missing.

    Raises
    ------
    ConfigError: it raised, or set what the configuration cannot hold; the message names the class.
    """
    if not is_open(config):
        return config
    before, done = trace_of(config), config.copy()
    try:
        layers, read = run(done, tree_of(config))
    except OmegaConfBaseException as error:
        raise located(error, config) from failure_of(error)
    trace = Trace(layers, raw(done))
    trace.before = config
    if before is not None:
        trace.reads, trace.below, trace.forks = before.reads, before.below, before.forks
        trace.composed, trace.resume = before.composed, before.resume
    trace.reads |= read
    attach(done, trace)
    return done


def is_open(config: DictConfig) -> bool:
    """Whether there is a `__post_init__` that has not run yet, and nothing is missing that it may need."""
    trace = trace_of(config)
    if trace is not None and (trace.before is not None or trace.closed):
        return False
    return _has_post_init(config) and not any(
        node._is_missing() and not is_computed(config, path_of(node)) for node in _nodes(config)
    )


def is_computed(config: DictConfig, path: Path) -> bool:
    """Whether a field is one that only `__post_init__` sets."""
    cls = OmegaConf.get_type(_node(config, path[:-1]))
    field = getattr(cls, "__dataclass_fields__", {}).get(path[-1])
    return has_post_init(cls) and field is not None and not field.init


def unsettled(config: DictConfig) -> DictConfig:
    """The configuration without what `__post_init__` set, but with what code assigned since then."""
    trace = trace_of(config)
    if trace is None or trace.before is None or config._get_root() is not config:
        return config
    since = assigned(trace.tree, tree_of(config))
    if not since.children:
        return trace.before.copy()
    made = assemble(trace.before, since)
    now = trace_of(made)
    if trace.composed is not None and now is not None:
        now.composed = dataclasses.replace(trace.composed, above=merge(trace.composed.above, since))
    return made


def run(config: DictConfig, layers: Branch) -> tuple[Branch, set[str]]:
    """Run every `__post_init__`, those of inner dataclasses first, and set in place what it changes.

    Returns
    -------
    `layers` with theirs on top, and the dotted keys that their code names.
    """
    found = {}
    reads: set[str] = set()

    def ready(instance: Any, path: Path, hint: Any) -> None:
        cls = type(instance)
        if not has_post_init(cls):
            return
        before = copy.deepcopy(instance)
        run_post_init(instance)
        _refuse_undeclared(instance)
        named = _names_in_code(cls)
        reads.update(dotted((*path, f.name)) for f in dataclasses.fields(cls) if f.name in named)
        for changed in _changes(before, instance, ()):
            found[(*path, *changed)] = cls

    with evaluation(config):
        whole = object_of(config, ready, OmegaConf.get_type(config))
    with thawed(config):
        for path, cls in {_to_list(whole, path): cls for path, cls in found.items()}.items():
            _refuse_override(layers, config, path, cls)
            try:
                put(config, path, held(_at(whole, path), dotted(path)))
            except (OmegaConfBaseException, ConfigError) as error:
                why = error.message if isinstance(error, ConfigError) else first_line(error)
                raise ConfigError(f"{cls.__name__}.__post_init__ sets {dotted(path)}: {why}") from error
            layers = merge(layers, below(_said(_at(raw(config), path), path[-1], cls), path[:-1]))
    keys = {dotted(path) for path, _ in leaves(layers)}
    return layers, {key for key in keys if any(key == read or key.startswith(f"{read}.") for read in reads)}


def _said(value: Any, key: Any, cls: type) -> Branch:
    """That the `__post_init__` of a class has set this key."""
    owner = next(base for base in cls.__mro__ if "__post_init__" in base.__dict__)
    code = getattr(owner.__dict__["__post_init__"], "__code__", None)
    layer, line = (
        Layer(kind="__post_init__", name=place_of(owner).name),
        getattr(code, "co_firstlineno", None),
    )
    branch = Branch()
    if isinstance(value, dict):
        inside = tree(value, layer)
        inside.whole = True
        branch.children[key] = inside
    else:
        branch.children[key] = (Setting(value, layer, line),)
    return branch


def _changes(before: Any, after: Any, path: Path) -> Iterator[Path]:
    """The keys at which they differ; a list is one value, and so is a mapping of which keys have gone."""
    if type(before) is type(after) and dataclasses.is_dataclass(after):
        for field in dataclasses.fields(after):
            values = getattr(before, field.name, MISSING), getattr(after, field.name, MISSING)
            yield from _changes(*values, (*path, field.name))
    elif isinstance(before, dict) and isinstance(after, dict) and before.keys() <= after.keys():
        for key, value in after.items():
            yield from _changes(before.get(key, MISSING), value, (*path, key))
    elif not equal(before, after):
        yield path


def _refuse_undeclared(instance: Any) -> None:
    cls = type(instance)
    for name in getattr(instance, "__dict__", {}):
        if name not in cls.__dataclass_fields__ and not name.startswith("_") and not hasattr(cls, name):
            raise ConfigError(
                f"{cls.__name__}.__post_init__ sets {name}, which is no field and would be lost",
                hint=f"declare it: {name}: TYPE = field(init=False)",
            )


def _refuse_override(layers: Branch, config: DictConfig, path: Path, cls: type) -> None:
    said: Branch | Leaf | None = at(layers, path)
    if isinstance(said, tuple) and said[-1].layer.kind != "default" and is_computed(config, path):
        raise ConfigError(
            f"{said[-1].who}: config key {dotted(path)} is computed by {cls.__name__}.__post_init__",
            hint="it has init=False: set what it is computed from",
        )


def _names_in_code(cls: type) -> set[str]:
    """Names that the methods of a class mention: what its `__post_init__` may read."""
    methods = [
        value for base in cls.__mro__ for value in vars(base).values() if isinstance(value, FunctionType)
    ]
    written = [method.__code__ for method in methods if method.__code__.co_filename != "<string>"]
    return {name for code in written for name in code.co_names}


# -- places in configurations and objects --------------------------------------------------------------------


def _has_post_init(node: Any) -> bool:
    return has_post_init(OmegaConf.get_type(node)) or any(
        _has_post_init(child) for child in _children(node) if "_content" in child.__dict__
    )


def _nodes(node: Any) -> Iterator[Any]:
    for child in _children(node):
        yield child
        yield from _nodes(child)


def _children(node: Any) -> Any:
    content = node.__dict__.get("_content")
    return (
        content.values()
        if isinstance(content, dict)
        else content
        if isinstance(content, (list, tuple))
        else ()
    )


def _node(config: Any, path: Path) -> Any:
    for key in path:
        config = config._get_node(key)
    return config


def _at(value: Any, path: Path) -> Any:
    for key in path:
        value = getattr(value, key) if dataclasses.is_dataclass(value) else value[key]
    return value


def _to_list(whole: Any, path: Path) -> Path:
    """The path up to the first list on it, which is one value."""
    return next((path[:n] for n in range(len(path)) if isinstance(_at(whole, path[:n]), (list, tuple))), path)
