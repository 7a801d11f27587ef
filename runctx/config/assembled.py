"""Which configuration do a class and the layers above it make?"""

from __future__ import annotations

import re
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..errors import ConfigError
from .known import completed, raw, tree_of
from .layers import Branch, Path, Setting, leaves, merge, plain
from .trace import Trace, attach


def assemble(base: DictConfig, given: Branch, added: frozenset[Path] = frozenset()) -> DictConfig:
    """What `base` and the layers of `given` above it make, with its trace; `base` stays as it is.

    Parameters
    ----------
    base: a configuration; where it has dataclasses, these fix keys and types.
    added: paths that the dataclasses need not have.

    Raises
    ------
    ConfigError: a key that a dataclass does not have, or a value of a wrong type; the message names key and layer.
    """
    tree = merge(tree_of(base), given)
    values = plain(tree)
    try:
        config = _filled(base, values, added)
    except OmegaConfBaseException as error:
        raise _misfit(error, base, tree) from error
    except RecursionError as error:
        raise ConfigError("the configuration is nested too deep, or contains itself") from error
    attach(config, Trace(completed(tree, config), raw(config)))
    return config


def _filled(base: DictConfig, values: dict[Any, Any], added: frozenset[Path]) -> DictConfig:
    """`values`, with the dataclasses of `base` if it has any."""
    if OmegaConf.get_type(base) is dict:
        return OmegaConf.create(values)  # merging into an empty one would copy every node
    config = base.copy()
    OmegaConf.set_readonly(config, None)
    _make_room(config, values)
    for path in added:
        _let_in(config, path)
    config.merge_with(values)
    return config


def _make_room(config: DictConfig, values: dict[Any, Any]) -> None:
    """Empty the untyped mappings of `config`, whose entries merging would keep beside those of `values`."""
    for key, value in values.items():
        part = config._get_node(key) if key in config else None
        if not isinstance(part, DictConfig) or not isinstance(value, dict):
            continue
        if part._is_none() or part._is_missing() or part._is_interpolation():
            continue
        if OmegaConf.get_type(part) is dict:
            config[key] = {}
        else:
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


_STEP = re.compile(r"\[([^\]]+)\]|([^.\[]+)")


def _misfit(error: OmegaConfBaseException, base: DictConfig, tree: Branch) -> ConfigError:
    path, setting = _culprit(str(error.full_key or ""), base, tree)
    key = ".".join(map(str, path)) or "(top level)"
    what = str(error).split("\n", 1)[0].rstrip(".")
    told, _, meant = what.partition(". Did you mean: ")
    hint = f"did you mean {meant.rstrip('?')}?" if meant else None
    source = f"{setting.layer.kind} {setting.where}: " if setting else ""
    return ConfigError(f"{source}config key {key}: {told}", hint=hint)


def _culprit(full_key: str, base: DictConfig, tree: Branch) -> tuple[Path, Setting | None]:
    """The key that OmegaConf complained about, and who set it."""
    path: Path = ()
    here: Any = tree
    for bracketed, plain_key in _STEP.findall(full_key):
        if not isinstance(here, Branch):
            break
        name = bracketed or plain_key
        key = next((k for k in here.children if str(k) == name), name)
        path, here = (*path, key), here.children.get(key)
    if isinstance(here, Branch):
        # of a value where a mapping belongs, OmegaConf names only the mapping around it
        for under, leaf in leaves(here):
            if len(under) == 1 and not path and isinstance(base._get_node(under[0]), DictConfig):
                return under, leaf[-1]
        found = next(iter(leaves(here)), None)
        return path, found[1][-1] if found else None
    return path, here[-1] if here else None
