"""Hold what code gives as a configuration in containers of OmegaConf, and run the `__post_init__` of its dataclasses.

`__post_init__` runs on the values after all layers. What it sets is a layer above all others: it is taken away before
another layer is laid, and computed again after that.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
from collections.abc import Iterator, Mapping
from types import FunctionType
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..errors import ConfigError
from .assemble import assemble, thawed
from .derived import evaluation, rooted
from .fields import MISSING, is_structured, place_of, refusal
from .interpolations import failure_of, node_at, nodes_in, path_of, provide
from .layers import Branch, Layer, Leaf, Path, Setting, assigned, at, below, dotted, leaves, merge, tree
from .messages import first_line, message_of, short
from .objects import NotReproducedError, equal, has_post_init, held, object_of, pristine, put, run_post_init
from .origins import Trace, attach, located, raw, trace_of, tree_of


def hold(given: Any) -> DictConfig:
    """The configuration as OmegaConf holds it, not yet resolved; what was given is never modified.

    Parameters
    ----------
    given: a dataclass or an instance of one, a mapping, a DictConfig, an argparse.Namespace, or None for no
        configuration.

    Raises
    ------
    ConfigError: it cannot be held; the message names the key.

    >>> hold({"lr": 0.1, "opt": {"name": "sgd"}}).opt.name
    'sgd'
    """
    if isinstance(given, argparse.Namespace):
        given = vars(given)
    try:
        if isinstance(given, DictConfig):
            root: Any = given._get_root()
            config = unsettled(node_at(root.copy(), path_of(given)))  # of a part, all that it may read
        elif given is None or isinstance(given, Mapping):
            values = rooted(held(given or {}))
            provide(values)  # OmegaConf parses interpolations as soon as it holds them
            config = OmegaConf.create(values)
        else:
            config = _of_class(given)
        if trace_of(config) is None:
            provide(raw(config))
        return config
    except (OmegaConfBaseException, RecursionError) as error:
        raise ConfigError(*message_of(error)) from None


def _of_class(given: Any) -> DictConfig:
    """With the values before `__post_init__`."""
    if not is_structured(given):
        hint = "give a dataclass, a dict, a DictConfig, or the path of a configuration file"
        if hasattr(given, "model_dump"):
            hint = "give its .model_dump()"
        elif isinstance(given, ListConfig):
            hint = "give a mapping: {'items': [...]}"
        raise ConfigError(
            f"a configuration cannot be made of {short(given)} ({type(given).__name__})", hint=hint
        )
    try:
        given = given if isinstance(given, type) else held(given)
        try:
            config: DictConfig = OmegaConf.structured(pristine(given))
            return config
        except NotReproducedError as error:
            config, name = OmegaConf.structured(given), str(error)
    except ConfigError:
        raise
    except Exception as error:  # of OmegaConf, or of what evaluates annotations
        raise refusal(given) or error from None
    if isinstance(given, type) and has_post_init(given):
        raise ConfigError(
            f"{given.__name__}.__post_init__ cannot run: a default is an instance of {name}, whose own __post_init__ "
            "gives other values when it runs again",
            hint=f"let {name}.__post_init__ set fields with init=False only",
        )
    trace = Trace(tree_of(config), raw(config))
    trace.closed = name
    attach(config, trace)
    return config


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


def is_open(config: DictConfig) -> bool:
    """True if there is a `__post_init__` that has not run yet, and nothing is missing that it may need."""
    trace = trace_of(config)
    if trace is not None and (trace.before is not None or trace.closed):
        return False
    nodes = [config, *nodes_in(config)]
    if not any(has_post_init(OmegaConf.get_type(node)) for node in nodes if "_content" in node.__dict__):
        return False
    return not any(node._is_missing() and not is_computed(config, path_of(node)) for node in nodes)


def is_computed(config: DictConfig, path: Path) -> bool:
    """True for a field that only `__post_init__` sets."""
    cls = OmegaConf.get_type(node_at(config, path[:-1]))
    field = getattr(cls, "__dataclass_fields__", {}).get(path[-1]) if path else None
    return has_post_init(cls) and field is not None and not field.init


def run(config: DictConfig, layers: Branch) -> tuple[Branch, set[str]]:
    """Run every `__post_init__`, those of inner dataclasses first, and set in place what it changes.

    Returns
    -------
    `layers` with theirs on top, and the dotted keys that their code names.
    """
    found: dict[Path, type] = {}
    reads: set[str] = set()

    def ready(instance: Any, path: Path, hint: Any) -> None:
        cls = type(instance)
        if not has_post_init(cls):
            return
        before = copy.deepcopy(instance)
        run_post_init(instance)
        for name in getattr(instance, "__dict__", {}):
            if name not in cls.__dataclass_fields__ and not name.startswith("_") and not hasattr(cls, name):
                raise ConfigError(
                    f"{cls.__name__}.__post_init__ sets {name}, which is no field and would be lost",
                    hint=f"declare it: {name}: TYPE = field(init=False)",
                )
        named = _names_in_code(cls)
        reads.update(dotted((*path, f.name)) for f in dataclasses.fields(cls) if f.name in named)
        for changed in _changes(before, instance, ()):
            found[(*path, *changed)] = cls

    with evaluation(config):
        whole = object_of(config, ready, OmegaConf.get_type(config))
    with thawed(config):
        for path, cls in {_up_to_list(whole, path): cls for path, cls in found.items()}.items():
            said: Branch | Leaf | None = at(layers, path)
            is_set = isinstance(said, tuple) and said[-1].layer.kind != "default"
            if is_set and isinstance(said, tuple) and is_computed(config, path):
                raise ConfigError(
                    f"{said[-1].who}: config key {dotted(path)} is computed by {cls.__name__}.__post_init__",
                    hint="it has init=False: set what it is computed from",
                )
            try:
                put(config, path, held(_at(whole, path), dotted(path)))
            except (OmegaConfBaseException, ConfigError) as error:
                why = error.message if isinstance(error, ConfigError) else first_line(error)
                raise ConfigError(f"{cls.__name__}.__post_init__ sets {dotted(path)}: {why}") from error
            layers = merge(layers, below(_layer_of(cls, path[-1], _at(raw(config), path)), path[:-1]))
    keys = {dotted(path) for path, _ in leaves(layers)}
    return layers, {key for key in keys if any(f"{key}.".startswith(f"{read}.") for read in reads)}


def _layer_of(cls: type, key: Any, value: Any) -> Branch:
    """That the `__post_init__` of a class has set this key."""
    owner = next(base for base in cls.__mro__ if "__post_init__" in base.__dict__)
    code = getattr(owner.__dict__["__post_init__"], "__code__", None)
    layer = Layer(kind="__post_init__", name=place_of(owner)[0])
    branch = Branch()
    if isinstance(value, dict):
        inside = tree(value, layer)
        inside.whole = True
        branch.children[key] = inside
    else:
        branch.children[key] = (Setting(value, layer, getattr(code, "co_firstlineno", None)),)
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


def _names_in_code(cls: type) -> set[str]:
    """Names that the methods of a class mention: what its `__post_init__` may read."""
    values = (value for base in cls.__mro__ for value in vars(base).values())
    codes = [value.__code__ for value in values if isinstance(value, FunctionType)]
    return {name for code in codes if code.co_filename != "<string>" for name in code.co_names}


def _at(value: Any, path: Path) -> Any:
    for key in path:
        value = getattr(value, key) if dataclasses.is_dataclass(value) else value[key]
    return value


def _up_to_list(whole: Any, path: Path) -> Path:
    """The path up to the first list on it, which is one value."""
    return next((path[:n] for n in range(len(path)) if isinstance(_at(whole, path[:n]), (list, tuple))), path)
