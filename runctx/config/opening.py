"""Open the configuration that an object, a file or a run stands for."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from .containers import hold
from .post_init import settled
from .trace import run_of


def open_config(source: Any) -> DictConfig:
    """As `hold`; of the path of a configuration file, what the file and all it builds upon say.

    >>> _ = Path("c.yaml").write_text("lr: 0.1")
    >>> open_config("c.yaml").lr
    0.1
    """
    if not isinstance(source, (str, os.PathLike)):
        return hold(source)
    from .files.compose import lay_file  # most runs are not given a file

    return lay_file(hold(None), Path(source))


def open_anew(source: Any) -> DictConfig:
    """As `open_config`, for a new run: the configuration of an earlier run without what named its folder."""
    config = open_config(source)
    if run_of(config) is None:
        return config
    from .files.rerun import without_folder

    return without_folder(config)


def config_of(source: Any) -> DictConfig:
    """The same, with what `__post_init__` sets; of a run, live or past, its configuration."""
    if isinstance(source, DictConfig):
        return source
    if not isinstance(source, Mapping) and not dataclasses.is_dataclass(source) and hasattr(source, "cfg"):
        return config_of(source.cfg)
    return settled(open_config(source))
