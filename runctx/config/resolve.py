"""Make the configuration of a run from what the user gave: open it, resolve each value once, and freeze it."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from datetime import datetime
from pathlib import Path
from typing import Any

from omegaconf import Container, DictConfig, ListConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import InterpolationKeyError, OmegaConfBaseException

from .. import yamlfile
from ..errors import ConfigError, RunctxError
from ..redact import REDACTED
from . import latest
from .containers import hold, is_computed, is_open, run, settled
from .derived import Derived, derived_in, evaluation
from .interpolations import (
    OPERATORS,
    error_at,
    escaped,
    failure_of,
    needs_of,
    node_at,
    nodes_in,
    path_of,
    provide,
    register,
    texts_in,
)
from .layers import Branch, at, dotted, leaves
from .messages import message_of, short
from .origins import Trace, attach, located, raw, run_of, trace_of, tree_of

# -- opening -------------------------------------------------------------------------------------------------------


def open_config(source: Any) -> DictConfig:
    """As `hold`; of the path of a configuration file, what the file and all it builds upon say.

    >>> _ = Path("c.yaml").write_text("lr: 0.1")
    >>> open_config("c.yaml").lr
    0.1
    """
    if not isinstance(source, (str, os.PathLike)):
        return hold(source)
    from .compose import lay_file

    return lay_file(hold(None), Path(source))


def open_anew(source: Any) -> DictConfig:
    """As `open_config`, for a new run: the configuration of an earlier run without what named its folder."""
    config = open_config(source)
    if run_of(config) is None:
        return config
    from .rerun import without_folder

    return without_folder(config)


def config_of(source: Any) -> DictConfig:
    """The same, with what `__post_init__` sets; of a run, live or past, its configuration."""
    if isinstance(source, DictConfig):
        return source
    if not isinstance(source, Mapping) and not dataclasses.is_dataclass(source) and hasattr(source, "cfg"):
        return config_of(source.cfg)
    return settled(open_config(source))


# -- resolvers -----------------------------------------------------------------------------------------------------

_instant: ContextVar[datetime | None] = ContextVar("runctx_instant", default=None)


def _now(pattern: str = "%y%m%d-%H%M%S") -> str:
    return (_instant.get() or datetime.now()).strftime(pattern)


def _latest(stage: str, *, _root_: Any, _node_: Any) -> str:
    """The folder of the newest run of a stage that is done; looked for once for each configuration."""
    known = latest_runs(_root_)
    if stage not in known:
        try:
            known[stage] = os.path.relpath(latest.find(stage))
        except RunctxError as error:
            raise error_at(_node_, error.message, error.hint) from None
    return known[stage]


register("now", _now)  # Hydra registers one of the same meaning
register("latest", _latest)


def latest_runs(config: DictConfig) -> dict[str, str]:
    """Stage -> folder, of each `${latest:STAGE}` resolved in a configuration; what is added is not looked for."""
    root: Any = config._get_root()
    runs: dict[str, str] = OmegaConf.get_cache(root)["latest"]  # which copies of it take along
    return runs


# -- resolving -----------------------------------------------------------------------------------------------------


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
        _refuse_redacted(plain, trace.tree)
        if "save_dir" in config or runs or _mentions(plain, "${"):
            for part in (config, *nodes_in(config)):  # a frozen dataclass is read-only at its own level
                if isinstance(part, (DictConfig, ListConfig)):
                    OmegaConf.set_readonly(part, None)
        if isinstance(plain.get("save_dir"), Derived):  # its function is asked for the last time
            with evaluation(config) as computed:
                computed.value_of(config._get_node("save_dir"))
            if config._get_root() is config:
                trace.needs = computed.needs
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


_INPUT = "<input>"


def refuse_missing(config: DictConfig) -> None:
    """Raise a ConfigError if a mandatory value (`???`) is missing, and `__post_init__` will not set it."""
    if not is_open(config):
        _refuse_missing(config)


def _refuse_missing(config: DictConfig) -> None:
    if not _mentions(raw(config), "???"):
        return
    paths = [path_of(node) for node in nodes_in(config) if node._is_missing()]
    missing = sorted(dotted(path) for path in paths if not is_computed(config, path)) or sorted(
        map(dotted, paths)
    )
    if missing:
        given = " ".join(f"{key}=..." for key in missing)
        raise ConfigError(
            f"{', '.join(missing)} {'has' if len(missing) == 1 else 'have'} no value; write {given}"
        )


def _refuse_redacted(plain: dict[Any, Any], tree: Branch) -> None:
    def is_redacted(text: str) -> bool:
        return text == REDACTED or f":{REDACTED}@" in text  # the password in an address

    for path, leaf in leaves(tree) if _any_text(plain, is_redacted) else ():
        if _any_text(leaf[-1].value, is_redacted):
            key = dotted(path)
            raise ConfigError(
                f"{leaf[-1].who}: {key} is {REDACTED}: secrets are never written to files",
                hint=f"set it by an override, {key}=..., or from the environment: {key}='${{oc.env:NAME}}'",
            )


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


def _resolve(config: DictConfig, plain: dict[Any, Any]) -> dict[str, tuple[str, ...]]:
    """Resolve in place; gives what each computed value was computed from."""
    provide(plain)
    with evaluation(config) as computed:
        results = [computed.value_of(node_at(config, path)) for path, _ in derived_in(plain)]
        values: Any = {}
        if _any_text(plain, _may_be_literal) or any(_mentions(_plain(one), "${") for one in results):
            values = OmegaConf.to_container(config, resolve=True)
        try:
            OmegaConf.resolve(config)
        except OmegaConfBaseException:
            OmegaConf.to_container(
                config, resolve=True
            )  # fails likewise, and names the key in OmegaConf 2.3 too
            raise
        # `OmegaConf.resolve` strips the escape of a literal `${`, and would resolve again
        for path, text in texts_in(values):
            here: Any = config
            for key in path[:-1]:
                here = here[key]
            here[path[-1]] = escaped(text)
    return needs_of(plain, computed.needs) if config._get_root() is config else {}


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value, resolve=False) if isinstance(value, Container) else value


_OTHER_CALL = re.compile(rf"\$\{{\s*(?!(?:{'|'.join(OPERATORS)})\s*:)[A-Za-z_][\w.-]*\s*:")


def _may_be_literal(text: str) -> bool:
    """True if resolving may give a text that is literally `${...}`: escapes do, and resolvers of others."""
    if "${" not in text or isinstance(text, Derived):
        return False
    return "\\" in text or bool(_OTHER_CALL.search(text))


def _mentions(value: Any, mark: str) -> bool:
    return _any_text(value, lambda text: mark in text)


def _any_text(value: Any, test: Callable[[str], bool]) -> bool:
    """True if a text in nested plain data passes: most configurations need none of OmegaConf's slow walks."""
    if isinstance(value, str):
        return test(value)
    parts: Iterable[Any] = value.values() if isinstance(value, dict) else value
    return isinstance(value, (dict, list)) and any(_any_text(part, test) for part in parts)


# -- plain data ----------------------------------------------------------------------------------------------------


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


def to_yaml(plain: dict[Any, Any]) -> bytes:
    """The text of config.yaml: `OmegaConf.load` gives the same values back."""
    return yamlfile.dump(escaped(plain))


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


# -- sums of lists -------------------------------------------------------------------------------------------------
# `cfg.sizes + [10]` and `sum([cfg.a, cfg.b], [])` work for a read-only configuration, too: OmegaConf gives the sum
# the parent of the list, so that it is read-only before it holds anything.


def _sum(beside: ListConfig, *parts: Iterable[Any]) -> ListConfig:
    total = ListConfig([], parent=beside._get_parent(), flags={"readonly": False})
    for part in parts:
        total.extend(part)
    return total


def _add(self: ListConfig, other: Iterable[Any]) -> ListConfig:
    return _sum(self, self, other)


def _add_to(self: ListConfig, other: Iterable[Any]) -> ListConfig:
    return _sum(self, other, self)


SUMS = frozenset(function.__code__ for function in (_sum, _add, _add_to))
"""What passes lists on to whoever adds them."""
ListConfig.__add__ = _add  # type: ignore[method-assign]
ListConfig.__radd__ = _add_to  # type: ignore[method-assign]
