"""Lay layers upon a configuration, and say which layer is at fault where the values do not fit its dataclasses."""

from __future__ import annotations

import itertools
import typing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path as FilePath
from typing import Any, TypeVar

from omegaconf import Container, DictConfig, OmegaConf, flag_override
from omegaconf.errors import KeyValidationError, OmegaConfBaseException

from ..errors import ConfigError
from ..redact import Redactor
from .fields import (
    declared_type,
    declares,
    inner,
    is_structured,
    key_type,
    required,
    subclass_hint,
    type_text,
)
from .interpolations import nodes_in, provide
from .layers import DELETE, REPLACE, Branch, Layer, Leaf, Path, Setting, dotted, leaves, merge, plain
from .messages import did_you_mean, first_line, short
from .objects import is_no_bool
from .origins import Trace, attach, completed, note_run, raw, run_of, trace_of, tree_of

T = TypeVar("T")


def assemble(
    base: DictConfig, given: Branch, added: frozenset[Path] = frozenset(), lower: Branch | None = None
) -> DictConfig:
    """What `base` and the layers of `given` above it make, with its trace; `base` stays as it is.

    Parameters
    ----------
    base: a configuration; where it has dataclasses, these fix keys and types.
    added: paths that the dataclasses need not have.
    lower: the layers of `base`, where they are known already.

    Raises
    ------
    ConfigError: a key that a dataclass does not have, or a value of a wrong type; the message names key and layer.
    """
    before = trace_of(base)
    if before is not None and before.closed and given.children:
        raise ConfigError(
            f"{before.closed}.__post_init__ has run, and gives other values when it runs again on its own result: "
            "nothing can be laid on that",
            hint="give the class in place of an instance, or let it set fields with init=False only",
        )
    tree = merge(tree_of(base) if lower is None else lower, given)
    values = plain(tree)
    provide(values)  # OmegaConf parses interpolations as soon as it holds them
    _refuse_slips(base, tree)
    try:
        config = _filled(base, values, added)
    except OmegaConfBaseException as error:
        raise _misfit(error, base, tree, added) from error
    except RecursionError as error:
        raise ConfigError("the configuration is nested too deep, or contains itself") from error
    trace = Trace(completed(tree, config), raw(config))
    if before is not None:
        trace.below, trace.closed = (*before.below, before.reads), before.closed
        trace.resume = before.resume
    attach(config, trace)
    return config


def _refuse_slips(base: DictConfig, tree: Branch) -> None:
    """Raise a ConfigError for what OmegaConf takes: 2 as true, and the text None as a path."""
    for path, leaf in leaves(tree):
        value = leaf[-1].value
        if isinstance(value, (list, tuple)):
            if any(map(is_no_bool, value)):
                declared = declared_type(base, path)
                if required(inner(declared, 0))[0] is bool:
                    raise _no_fit(leaf[-1], path, value, declared)
        elif value in ("None", "null") or is_no_bool(value):
            declared = declared_type(base, path)
            wanted, optional = required(declared)
            if wanted is bool or (wanted is FilePath and optional):
                raise _no_fit(leaf[-1], path, value, declared)


def _no_fit(setting: Setting, path: Path, value: Any, declared: Any, inside: str = "") -> ConfigError:
    shown = short(Redactor().mapping({dotted(path): value})[dotted(path)])
    seen = "null" if value is None else f"{shown} ({type(value).__name__})"
    wrong = f"must be {type_text(declared)}; got {seen}{inside}"
    return ConfigError(f"{setting.who}: {dotted(path)} {wrong}", hint=_how(declared, value))


def _filled(base: DictConfig, values: dict[Any, Any], added: frozenset[Path]) -> DictConfig:
    """`values`, with the dataclasses of `base` if it has any."""
    if not _has_dataclasses(base):
        created = OmegaConf.create(values)  # merging into an empty one would copy every node
        if (folder := run_of(base)) is not None:
            note_run(created, folder)
        return created
    config = base.copy()
    _make_room(config, values)
    for path in added:
        _let_in(config, path)
    with thawed(config):  # OmegaConf 2.3 merges into a frozen dataclass, but not into one around others
        try:
            # unlike `merge_with` into frozen dataclasses, too
            OmegaConf.unsafe_merge(config, _with_classes(values, base))
        except Exception as error:
            config._format_and_raise(key=None, value=None, cause=error)
    return config


@contextmanager
def thawed(config: DictConfig) -> Iterator[None]:
    """Let frozen dataclasses in a configuration be modified meanwhile."""
    parts = (part for part in (config, *nodes_in(config)) if isinstance(part, Container))
    frozen = [part for part in parts if part._get_node_flag("readonly")]
    for part in frozen:
        OmegaConf.set_readonly(part, None)
    try:
        yield
    finally:
        for part in frozen:
            OmegaConf.set_readonly(part, True)


def _with_classes(value: Any, node: Any) -> Any:
    """`value`, where elements of lists keep the subclass that `node` has in their place."""
    content = node.__dict__.get("_content") if isinstance(node, Container) else None
    if isinstance(value, dict) and isinstance(content, dict):
        return {key: _with_classes(part, content.get(key)) for key, part in value.items()}
    if isinstance(value, (list, tuple)) and isinstance(content, (list, tuple)):
        declared = getattr(node._metadata, "element_type", Any)
        pairs = itertools.zip_longest(value, content[: len(value)])
        return type(value)(_element(part, child, declared) for part, child in pairs)
    return value


def _element(part: Any, child: Any, declared: Any) -> Any:
    part = _with_classes(part, child)
    cls: Any = OmegaConf.get_type(child) if isinstance(child, DictConfig) else None
    if not isinstance(part, dict) or not is_structured(cls) or cls is declared:
        return part
    return OmegaConf.merge(OmegaConf.structured(cls), part)


def _has_dataclasses(config: DictConfig) -> bool:
    if OmegaConf.get_type(config) is not dict:
        return True
    parts = config.__dict__["_content"]
    return isinstance(parts, dict) and any(
        _has_dataclasses(part) for part in parts.values() if isinstance(part, DictConfig)
    )


def _make_room(config: DictConfig, values: dict[Any, Any]) -> None:
    """Make the untyped mappings of `config` lose what `values` no longer has, and the typed ones have what is new."""
    if OmegaConf.get_type(config) is dict:
        with flag_override(config, ["struct", "readonly"], False):
            for key in [key for key in config if key not in values]:
                del config[key]
    element, _ = required(config._metadata.element_type)
    for key, value in values.items():
        if is_structured(element) and key not in config and isinstance(value, dict):
            with flag_override(
                config, "readonly", False
            ):  # OmegaConf 2.3 merges into no new one that is frozen
                config[key] = OmegaConf.structured(element)
        part = config._get_node(key) if key in config else None
        if not isinstance(part, DictConfig) or not isinstance(value, dict):
            continue
        if not (part._is_none() or part._is_missing() or part._is_interpolation()):
            _make_room(part, value)


def _let_in(config: DictConfig, path: Path) -> None:
    here: Any = config
    for key in path[:-1]:
        if not isinstance(here, DictConfig):
            return
        OmegaConf.set_struct(here, False)
        here = here._get_node(key)
    if isinstance(here, DictConfig):
        OmegaConf.set_struct(here, False)


def _misfit(
    error: OmegaConfBaseException, base: DictConfig, tree: Branch, added: frozenset[Path]
) -> ConfigError:
    """What is wrong, at which key, and which layer set it."""
    said = list(leaves(tree))
    # OmegaConf may name only the mapping around it
    found = _first_wrong(said, lambda some: _objection(base, some, added))
    if found is None:
        return ConfigError(first_line(error).rstrip("."))
    (path, leaf), error = said[found[0]], found[1]
    setting = leaf[-1]
    unknown = _unknown(base, path)
    if unknown is not None:
        known = [dotted(each) for each, _ in leaves(tree_of(base))]
        around, _ = required(declared_type(base, unknown[:-1]))
        hint = subclass_hint(around, unknown[-1])
        hint = hint or did_you_mean(dotted(unknown), known) or marker_meant(setting.layer, unknown)
        return ConfigError(f"{setting.who}: unknown config key {dotted(unknown)}", hint=hint)
    path, value = _where_a_mapping_is(base, path, setting.value)
    declared = declared_type(base, path)
    redactor = Redactor()
    redactor.mapping({dotted(path): value})
    why = redactor.text(first_line(error).rstrip("."))
    if declared is Any or isinstance(error, KeyValidationError):
        return ConfigError(f"{setting.who}: {dotted(path)}: {why}")
    inside = f" ({why})" if isinstance(value, (list, dict)) else ""
    if isinstance(value, list) and all(type(part) in (bool, int, float, str, type(None)) for part in value):
        wrong = _first_wrong(
            value, lambda some: _objection(base, [(path, (setting._replace(value=some),))], added)
        )
        inside = "" if wrong is None else f"; element {wrong[0]} does not fit"
    return _no_fit(setting, path, value, declared, inside)


def _first_wrong(
    parts: list[T], objection: Callable[[list[T]], OmegaConfBaseException | None]
) -> tuple[int, OmegaConfBaseException] | None:
    """Position of a part that does not fit by itself, found by halving; None if each does."""
    first, error = 0, None
    while len(parts) > 1 or error is None:
        half = parts[: (len(parts) + 1) // 2]
        error = objection(half)
        if error is None and len(parts) > 1:
            first += len(half)
            half = parts[len(half) :]
            error = objection(half)
        if error is None:
            return None
        parts = half
    return first, error


def marker_meant(layer: Layer, path: Path) -> str | None:
    """A hint for a key of a file that is a slip of one which steers how files are read."""
    return None if layer.kind in ("override", "task") else did_you_mean(str(path[-1]), _MARKERS)


_MARKERS = ("_base_", "_groups_", REPLACE, DELETE)


def _objection(
    base: DictConfig, said: list[tuple[Path, Leaf]], added: frozenset[Path]
) -> OmegaConfBaseException | None:
    """What OmegaConf has against these leaves alone."""
    values: dict[Any, Any] = {}
    for path, leaf in said:
        here = values
        for key in path[:-1]:
            here = here.setdefault(key, {})
        here[path[-1]] = leaf[-1].value
    try:
        _filled(base, values, added)
    except OmegaConfBaseException as error:
        return error
    return None


def _unknown(base: DictConfig, path: Path) -> Path | None:
    """The path as far as it leads to a key that its dataclass does not have; None if all have theirs."""
    for n, key in enumerate(path):
        around, _ = required(declared_type(base, path[:n]))
        if is_structured(around) and not declares(around, key):
            return path[: n + 1]
    return None


def _where_a_mapping_is(base: DictConfig, path: Path, value: Any) -> tuple[Path, Any]:
    """Path and value of the mapping that was given where none belongs, if that is what is wrong."""
    for n in range(1, len(path)):
        wanted, _ = required(declared_type(base, path[:n]))
        if wanted is not Any and not is_structured(wanted) and key_type(wanted) is Any:
            for key in reversed(path[n:]):
                value = {key: value}
            return path[:n], value
    return path, value


def _how(declared: Any, value: Any) -> str | None:
    wanted, optional = required(declared)
    if isinstance(wanted, type) and issubclass(wanted, Enum):
        meant = did_you_mean(value, wanted.__members__) if isinstance(value, str) else None
        return f"{meant} " * bool(meant) + f"write one of {', '.join(wanted.__members__)}"
    if value in ("None", "none", "null", "~") and optional:
        return "write null for None"
    if value is None:
        return "declare it as `| None` to allow null"
    if wanted is bool:
        return "write true or false"
    element, _ = required(inner(declared, 0))
    if isinstance(value, (list, tuple)) and is_structured(element):
        hints = (subclass_hint(element, key) for part in value if isinstance(part, dict) for key in part)
        return next(filter(None, hints), None)
    if typing.get_origin(wanted) in (list, tuple) and not isinstance(value, (list, tuple)):
        return "write a list as [1, 2]"
    return None
