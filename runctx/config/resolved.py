"""What is the configuration of this run: from what the user gave to values that no longer change?"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextvars import ContextVar
from datetime import datetime
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import InterpolationKeyError, OmegaConfBaseException

from .. import yamlfile
from ..errors import ConfigError, RunctxError
from ..redact import REDACTED
from . import concatenation  # noqa: F401 - what is frozen here can be added to other lists
from .derived import Derived, derived_in, evaluation
from .interpolations import OPERATORS, error_at, failure_of, needs_of, path_of, provide, register
from .layers import Branch, at, dotted, leaves
from .layers import Path as Keys
from .messages import message_of, short
from .post_init import is_computed, is_open, run, settled
from .trace import Trace, attach, located, raw, trace_of, tree_of

_instant: ContextVar[datetime | None] = ContextVar("runctx_instant", default=None)


def _now(pattern: str = "%y%m%d-%H%M%S") -> str:
    return (_instant.get() or datetime.now()).strftime(pattern)


register("now", _now)  # Hydra registers one of the same meaning


def _latest(stage: str, *, _root_: Any, _node_: Any) -> str:
    """The folder of the newest run of a stage that is done; looked for once for each configuration."""
    known = latest_runs(_root_)
    if stage not in known:
        known[stage] = _looked_for(stage, _node_)
    return known[stage]


def _looked_for(stage: str, node: Any) -> str:
    from ..past import index

    try:
        return os.path.relpath(index.latest(stage).save_dir)
    except RunctxError as error:
        raise error_at(node, error.message, error.hint) from None


register("latest", _latest)


def latest_runs(config: DictConfig) -> dict[str, str]:
    """Stage -> folder, of each `${latest:STAGE}` resolved in a configuration; what is added is not looked for."""
    root: Any = config._get_root()
    runs: dict[str, str] = OmegaConf.get_cache(root)["latest"]  # which copies of it take along
    return runs


def save_dir_of(config: DictConfig, now: datetime) -> str | None:
    """`config.save_dir`, resolved; None if the config has none, or it is None or ''."""
    if "save_dir" not in config or (OmegaConf.is_missing(config, "save_dir") and not is_open(config)):
        return None
    token = _instant.set(now)
    try:
        value = settled(config).save_dir
    except OmegaConfBaseException as error:
        refuse_missing(config)  # which may be why
        raise located(error, config) from failure_of(error)
    finally:
        _instant.reset(token)
    if value is not None and not isinstance(value, (str, Path)):
        raise ConfigError(f"save_dir must be a path; got {short(value)}")
    return os.fspath(value) if value else None


def fill_in(config: DictConfig, now: datetime, save_dir: str, program: str = "the program") -> None:
    """Resolve every value once, in place, and freeze: what was `${now:...}` stays what it is.

    Its trace is final then: it keeps the layers, and knows what each computed value was computed from.

    Parameters
    ----------
    now: local time of the run's start, what `${now:...}` means.
    save_dir: the folder that was really made; replaces `config.save_dir` where the config has that key.
    program: what to call the place in the code that gave the values.

    Raises
    ------
    ConfigError: a value that cannot be computed, a mandatory value (`???`) that nobody set, or a secret that
        stands as `<redacted>` in what was given; the message names key and layer.
    """
    token = _instant.set(now)
    try:
        trace = _final_trace(config, program)
        plain = raw(config)
        runs = is_open(config)
        refuse_missing(config)
        if _mentions(plain, REDACTED):
            _refuse_redacted(trace.tree)
        if "save_dir" in config or runs or _mentions(plain, "${"):
            for part in _containers(config):  # a frozen dataclass is read-only at its own level
                OmegaConf.set_readonly(part, None)
        if isinstance(plain.get("save_dir"), Derived):  # its function is asked for the last time
            trace.needs = _needs_of_folder(config)
            plain["save_dir"] = save_dir
        if "save_dir" in config:
            config.save_dir = save_dir
        if runs:
            trace.tree, read = run(config, trace.tree)
            trace.reads |= read
            _refuse_missing(config)
            if "save_dir" in config:
                config.save_dir = save_dir
            plain = raw(config)
        if _mentions(plain, "${"):
            trace.needs |= _resolve(config, plain)
    except (OmegaConfBaseException, RecursionError) as error:
        # without OmegaConf's own traceback; that of a function which failed is its cause
        raise located(error, config, program) from failure_of(error)
    finally:
        _instant.reset(token)
    root: Any = config._get_root()
    OmegaConf.copy_cache(from_config=root, to_config=config)
    config._set_parent(None)  # a part of another configuration has read there all that it needs
    attach(config, trace)
    OmegaConf.set_readonly(config, True)


_INPUT = "<input>"


def interpolated(config: DictConfig, text: str, now: datetime) -> str:
    """A text of the code, as it would be in `config`; where it names no key of it, as it is.

    An instance of a dataclass holds `${...}` and derived values as they were written, and so does what the code reads
    of it.

    Parameters
    ----------
    now: what `${now:...}` means.

    Raises
    ------
    ConfigError: a value cannot be computed.

    >>> interpolated(OmegaConf.create({"data": "/scratch"}), "${data}/a.csv", datetime.now())
    '/scratch/a.csv'
    """
    if "${" not in text:
        return text
    around = config.copy()
    token = _instant.set(now)
    try:
        with read_write(around), open_dict(around):
            around[_INPUT] = text
            return str(around[_INPUT])
    except InterpolationKeyError:
        return text  # `${HOME}` is no key
    except OmegaConfBaseException as error:
        message, hint = message_of(error)
        message = message.removeprefix(f"config key {dotted((_INPUT,))}: ")
        raise ConfigError(f"input {text!r}: {message}", hint) from failure_of(error)
    finally:
        _instant.reset(token)
        latest_runs(config).update(latest_runs(around))


def refuse_missing(config: DictConfig) -> None:
    """Raise a ConfigError if a mandatory value (`???`) is missing, and `__post_init__` will not set it."""
    if not is_open(config):
        _refuse_missing(config)


def _refuse_missing(config: DictConfig) -> None:
    if not _mentions(raw(config), "???"):
        return
    paths = [path_of(node) for node in _missing(config)]
    missing = sorted(dotted(path) for path in paths if not is_computed(config, path)) or sorted(
        map(dotted, paths)
    )
    if missing:
        given = " ".join(f"{key}=..." for key in missing)
        raise ConfigError(
            f"{', '.join(missing)} {'has' if len(missing) == 1 else 'have'} no value; write {given}"
        )


def _missing(config: DictConfig) -> Iterator[Any]:
    """Nodes without a value; those that interpolate one are not among them."""
    for part in _containers(config):
        for key in part if isinstance(part, DictConfig) else range(len(part)):
            if (node := part._get_node(key))._is_missing():
                yield node


def _refuse_redacted(tree: Branch) -> None:
    for path, leaf in leaves(tree):
        if _is_redacted(leaf[-1].value):
            key = dotted(path)
            raise ConfigError(
                f"{leaf[-1].who}: {key} is {REDACTED}: secrets are never written to files",
                hint=f"set it by an override, {key}=..., or from the environment: {key}='${{oc.env:NAME}}'",
            )


def _is_redacted(value: Any) -> bool:
    if isinstance(value, str):
        return value == REDACTED or f":{REDACTED}@" in value  # the password in an address
    if isinstance(value, dict):
        return any(map(_is_redacted, value.values()))
    return isinstance(value, list) and any(map(_is_redacted, value))


def _final_trace(config: DictConfig, program: str) -> Trace:
    root: Any = config._get_root()
    before = trace_of(config)
    if root is config:
        trace = Trace(tree_of(config, program), None)
        if before:
            trace.reads, trace.below = before.reads, before.below
        return trace
    path = path_of(config)
    part = at(tree_of(root, program), path)
    trace = Trace(part if isinstance(part, Branch) else Branch(), None)
    trace.within = (before, dotted(path)) if before else None
    return trace


def _needs_of_folder(config: DictConfig) -> dict[str, tuple[str, ...]]:
    with evaluation(config) as computed:
        computed.value_of(config._get_node("save_dir"))
    is_whole = config._get_root() is config
    return {key: tuple(read) for key, read in computed.reads.items()} if is_whole else {}


def _resolve(config: DictConfig, plain: dict[Any, Any]) -> dict[str, tuple[str, ...]]:
    """Resolve in place; gives what each computed value was computed from."""
    provide(plain)
    with evaluation(config) as computed:
        results = [computed.value_of(_node(config, path)) for path, _ in derived_in(plain)]
        may_be_literal = any(_mentions(_unwrapped(result), "${") for result in results) or _calls_or_escapes(
            plain
        )
        values = OmegaConf.to_container(config, resolve=True) if may_be_literal else {}
        literal = list(_interpolation_like(values))
        try:
            OmegaConf.resolve(config)
        except OmegaConfBaseException:
            OmegaConf.to_container(
                config, resolve=True
            )  # fails likewise, and names the key in OmegaConf 2.3 too
            raise
        for path, text in literal:
            _set(config, path, escaped(text))
    if config._get_root() is not config:
        return {}
    return needs_of(plain, {key: tuple(read) for key, read in computed.reads.items()})


def _unwrapped(value: Any) -> Any:
    return OmegaConf.to_container(value, resolve=False) if OmegaConf.is_config(value) else value


def _node(config: Any, path: Keys) -> Any:
    for key in path:
        config = config._get_node(key)
    return config


_OTHER_CALL = re.compile(rf"\$\{{\s*(?!(?:{'|'.join(OPERATORS)})\s*:)[A-Za-z_][\w.-]*\s*:")


def _calls_or_escapes(value: Any) -> bool:
    """Whether resolving may give a text that is literally `${...}`: escapes do, and resolvers of others."""
    if isinstance(value, str):
        return (
            "${" in value
            and not isinstance(value, Derived)
            and ("\\" in value or bool(_OTHER_CALL.search(value)))
        )
    if isinstance(value, dict):
        return any(map(_calls_or_escapes, value.values()))
    return isinstance(value, list) and any(map(_calls_or_escapes, value))


def _containers(config: Any) -> Iterator[Any]:
    """The configuration and every mapping and list in it."""
    yield config
    for _, part in _parts(config):
        yield from _containers(part)


def _parts(config: Any) -> Iterator[tuple[Any, Any]]:
    """Key and value of the mappings and lists directly in `config`; not where interpolations lead."""
    for key in list(config) if isinstance(config, DictConfig) else range(len(config)):
        if not OmegaConf.is_missing(config, key) and not OmegaConf.is_interpolation(config, key):
            part = config[key]
            if isinstance(part, (DictConfig, ListConfig)):
                yield key, part


def _mentions(value: Any, mark: str) -> bool:
    """Whether a text in nested plain data holds it: most configurations need none of OmegaConf's slow walks."""
    if isinstance(value, str):
        return mark in value
    if isinstance(value, dict):
        return any(_mentions(v, mark) for v in value.values())
    return isinstance(value, list) and any(_mentions(v, mark) for v in value)


def _interpolation_like(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], str]]:
    """Where a value is literally `${...}`: `OmegaConf.resolve` strips the escape, and would resolve again."""
    if isinstance(value, str) and "${" in value:
        yield path, value
    elif isinstance(value, (dict, list)):
        for k, v in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _interpolation_like(v, (*path, k))


def _set(config: Any, path: tuple[Any, ...], value: str) -> None:
    for key in path[:-1]:
        config = config[key]
    config[path[-1]] = value


def to_plain(config: DictConfig) -> dict[Any, Any]:
    """Values, resolved, as dicts, lists and scalars: paths and enums become strings.

    Raises
    ------
    ConfigError: one cannot be resolved; the message names key and layer.
    """
    try:
        plain = OmegaConf.to_container(config, resolve=True, enum_to_str=True)
    except (OmegaConfBaseException, RecursionError) as error:
        raise located(error, config) from failure_of(error)
    assert isinstance(plain, dict)
    return {k: _written(v) for k, v in plain.items()}


def _written(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _written(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_written(v) for v in value]
    return str(value) if isinstance(value, Path) else value


_INTERPOLATION = re.compile(r"(\\*)\$\{")


def to_yaml(plain: dict[Any, Any]) -> bytes:
    """The text of config.yaml: `OmegaConf.load` gives the same values back."""
    return yamlfile.dump(escaped(plain))


def escaped(value: Any) -> Any:
    """Resolved values as they are written: a literal `${` must not be read back as an interpolation."""
    if isinstance(value, str):
        return _INTERPOLATION.sub(lambda m: m[1] * 2 + r"\${", value) if "${" in value else value
    if isinstance(value, dict):
        return {k: escaped(v) for k, v in value.items()}
    if isinstance(value, list):
        return [escaped(v) for v in value]
    return value


def from_plain(plain: dict[Any, Any]) -> DictConfig:
    """A past run's values, read-only.

    Raises
    ------
    ConfigError: a key or value that no run of ours could have had.
    """
    try:
        config: DictConfig = OmegaConf.create(escaped(plain))
    except (OmegaConfBaseException, RecursionError) as error:
        raise located(error) from None
    OmegaConf.set_readonly(config, True)
    return config
