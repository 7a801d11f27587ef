"""Which configuration was given: in the code, or by the name of a file?"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from .given import hold
from .trace import run_of


def open_config(given: Any) -> DictConfig:
    """As `hold`, and what a configuration file says, with all it builds upon, where its path is given.

    >>> _ = Path("c.yaml").write_text("lr: 0.1")
    >>> open_config("c.yaml").lr
    0.1
    """
    if not isinstance(given, (str, os.PathLike)):
        return hold(given)
    from .files.compose import lay_file  # most runs are not given a file

    return lay_file(hold(None), Path(given))


def open_anew(given: Any) -> DictConfig:
    """As `open_config`, for a run: that of an earlier run without what named its folder."""
    config = open_config(given)
    if run_of(config) is None:
        return config
    from .files.rerun import without_folder

    return without_folder(config)
