"""Hold what code gives as a configuration in containers of OmegaConf: classes, instances, mappings."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..errors import ConfigError
from .classes import is_structured
from .derived import rooted
from .held import held
from .interpolations import path_of, provide
from .messages import message_of, short
from .post_init import unsettled
from .pristine import NotReproducedError, has_post_init, pristine
from .refusal import refusal
from .trace import Trace, attach, raw, trace_of, tree_of


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
    try:
        config = _held(given)
        if trace_of(config) is None:
            provide(raw(config))
        return config
    except (OmegaConfBaseException, RecursionError) as error:
        raise ConfigError(*message_of(error)) from None


def _held(given: Any) -> DictConfig:
    if given is None:
        return OmegaConf.create({})
    if isinstance(given, argparse.Namespace):
        given = vars(given)
    if isinstance(given, DictConfig):
        root: Any = given._get_root()
        copied = root.copy()  # of a part, all that it may read
        for key in path_of(given):
            copied = copied._get_node(key)
        assert isinstance(copied, DictConfig)
        return unsettled(copied)
    if not isinstance(given, Mapping):
        return _structured(given)
    values = rooted(held(given))
    provide(values)  # OmegaConf parses interpolations as soon as it holds them
    return OmegaConf.create(values)


def _structured(given: Any) -> DictConfig:
    if is_structured(given):
        try:
            return _of_class(given if isinstance(given, type) else held(given))
        except ConfigError:
            raise
        except Exception as error:  # of OmegaConf, or of what evaluates annotations
            raise refusal(given) or error from None
    hint = "give a dataclass, a dict, a DictConfig, or the path of a configuration file"
    if hasattr(given, "model_dump"):
        hint = "give its .model_dump()"
    elif isinstance(given, ListConfig):
        hint = "give a mapping: {'items': [...]}"
    raise ConfigError(f"a configuration cannot be made of {short(given)} ({type(given).__name__})", hint=hint)


def _of_class(given: Any) -> DictConfig:
    """With the values before `__post_init__`, which runs when all layers are laid."""
    try:
        config: DictConfig = OmegaConf.structured(pristine(given))
        return config
    except NotReproducedError as error:
        config, name = OmegaConf.structured(given), str(error)
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
