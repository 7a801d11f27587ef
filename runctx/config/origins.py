"""Keep the layers of a configuration with it, wherever it is copied to, and tell which of them set each key."""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from omegaconf import Container, DictConfig, ListConfig, Node, OmegaConf, UnionNode

from ..errors import ConfigError
from ..model import Origin
from ..redact import REDACTED, Redactor
from .derived import Derived, anchored, evaluation
from .explanation import Explanation, Unknown
from .fields import is_structured, place_of
from .interpolations import DerivationError, cycle, cycle_message, needs_of, node_at, provide
from .layers import MISSING, Branch, Layer, Leaf, Setting, at, dotted, leaves, plain, tree
from .layers import Path as Keys
from .messages import did_you_mean, message_of
from .objects import NotReproducedError, equal, pristine

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
        return _hydra_choices()
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
        return _with_hydra_overrides(_node_tree(config, program_layer))
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
    values = _unresolved(config)
    assert isinstance(values, dict)
    return anchored(values, config)


def _unresolved(node: Any) -> Any:
    """What `OmegaConf.to_container(node, resolve=False)` gives, in a tenth of the time."""
    held = node.__dict__
    if "_content" not in held:
        return _unescaped(held["_val"])
    content = held["_content"]
    if isinstance(content, dict):
        return {_unescaped(key): _unresolved(child) for key, child in content.items()}
    if isinstance(content, list):
        parts = map(_unresolved, content)
        return list(parts) if isinstance(node, ListConfig) else tuple(parts)
    return _unresolved(content) if isinstance(content, Node) else content


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
    try:
        defaults = OmegaConf.structured(pristine(cls))
    except NotReproducedError:
        defaults = OmegaConf.structured(cls)
    branch = Branch()
    for key, value in raw(defaults).items():
        name, line = place_of(cls, key)
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
            current.children[key] = child if equal(value, before) else (*child, given(value))
        else:
            current.children[key] = (given(value),)
    return current


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
    layers = tree_of(root, program)
    said = _setting_at(layers, key) if key else None
    message, hint = message_of(error)
    unknown = _UNKNOWN.search(message)
    if unknown:
        hint = did_you_mean(unknown[1], [dotted(path) for path, _ in leaves(layers)])
    return ConfigError(f"{said.who}: {message}" if said else message, hint)


_UNKNOWN = re.compile(r"Interpolation key '([^']+)' not found")


def _setting_at(tree: Branch, key: str) -> Setting | None:
    """What won at a key as OmegaConf writes it, `opt.betas[0]`; a list is one leaf."""
    here: Any = tree
    for name in re.split(r"[.\[\]]+", key.rstrip("]")):
        if isinstance(here, Branch):
            here = next((child for each, child in here.children.items() if str(each) == name), None)
    return here[-1] if isinstance(here, tuple) else None


# -- origins -------------------------------------------------------------------------------------------------------


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


def explained(config: DictConfig, redactor: Redactor) -> Explanation:
    """The value and the origins of each key, secrets redacted; a value that cannot be computed is told as such."""
    tree = tree_of(config)
    with evaluation(config) as computed:
        resolved = _resolved(config, [path for path, _ in leaves(tree)])
    needs = needs_of(raw(config), computed.needs) | getattr(trace_of(config), "needs", {})
    return Explanation(*_told(tree, resolved, needs, redactor))


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


def _resolved(config: DictConfig, paths: list[Keys]) -> dict[Keys, Any]:
    """The value of each leaf; `Unknown` where there is none."""
    found: dict[Keys, Any] = {}
    try:
        values: Any = OmegaConf.to_container(config, resolve=True)
    except Exception:  # one cannot be computed, which may raise whatever the user's code does: which one?
        values = None
    for path in paths:
        try:
            value = values
            for key in path if values is not None else ():
                value = value[key]
            if values is None:
                node = node_at(config, path)._dereference_node()
                is_config = OmegaConf.is_config(node)
                value = OmegaConf.to_container(node, resolve=True) if is_config else node._value()
            is_unset = isinstance(value, str) and value == MISSING
            found[path] = Unknown("nobody set it") if is_unset else value
        except Exception as error:
            found[path] = Unknown(f"{type(error).__name__}: {str(error).partition(chr(10))[0]}")
    return found


# -- in a job of Hydra ---------------------------------------------------------------------------------------------

_TASK, _CHOICES = "hydra.overrides.task", "hydra.runtime.choices"


def _with_hydra_overrides(known: Branch) -> Branch:
    """`known`, where a key that an override of this job set says so; it must have the value still."""
    job = _hydra_job()
    for number, text in () if job is None else _hydra_overrides(job):
        for path, value in _set_by_hydra(text):
            child = at(known, path)
            if isinstance(child, tuple) and child[-1].value == value and type(child[-1].value) is type(value):
                below = child[:-1] if child[-1].layer.kind == "program" else child
                around = at(known, path[:-1])
                assert isinstance(around, Branch)
                around.children[path[-1]] = (*below, Setting(value, Layer(kind="override", name=number)))
    return known


def _hydra_choices() -> dict[str, str]:
    """Group -> what was chosen of it for this job; nothing outside of one. Hydra's own groups are not among them."""
    job = _hydra_job()
    chosen = OmegaConf.select(job, _CHOICES) if job is not None else None
    return {
        str(group): str(name) for group, name in (chosen or {}).items() if not str(group).startswith("hydra/")
    }


def _hydra_job() -> Any:
    module = sys.modules.get("hydra.core.hydra_config")  # which a job has imported
    config = module.HydraConfig if module is not None else None
    return config.instance().cfg if config is not None and config.initialized() else None


def _hydra_overrides(job: Any) -> list[tuple[str, str]]:
    """Each override of the job, and where it was given: a sweep makes them of one argument."""
    texts = list(OmegaConf.select(job, _TASK) or ())
    arguments = {text: f"argument {n}" for n, text in enumerate(sys.argv[1:], 1)}
    return [(arguments.get(text, f"Hydra's {text.partition('=')[0]}"), text) for text in texts]


def _set_by_hydra(text: str) -> list[tuple[Keys, Any]]:
    parser = import_module("hydra.core.override_parser.overrides_parser").OverridesParser.create()
    override = parser.parse_override(text)
    if override.is_delete() or override.is_sweep_override():
        return []
    path, value = tuple(override.key_or_group.replace("/", ".").split(".")), override.value()
    if not isinstance(value, dict):
        return [(path, value)]
    inside = tree(value, Layer(kind="override", name=""))
    return [((*path, *below), leaf[-1].value) for below, leaf in leaves(inside)]
