"""Why did this result change? One context manager that records code, data, configuration and lineage."""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from .config import latest
from .errors import RunctxError
from .model import VERSION as __version__

if TYPE_CHECKING:
    from .config.cli import from_cli
    from .config.compose import compose
    from .config.derived import derived
    from .config.grid import grid
    from .config.text import explain, to_text
    from .past.index import runs
    from .run import Run

__all__ = [
    "Run",
    "RunctxError",
    "__version__",
    "compose",
    "derived",
    "explain",
    "from_cli",
    "grid",
    "runs",
    "to_text",
]

_HOME = {
    "Run": ".run",
    "compose": ".config.compose",
    "derived": ".config.derived",
    "explain": ".config.text",
    "from_cli": ".config.cli",
    "grid": ".config.grid",
    "runs": ".past.index",
    "to_text": ".config.text",
}


def __getattr__(name: str) -> Any:
    # a script that makes a run need not wait for what it does not use
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME[name], __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__


def _find_latest(stage: str) -> "os.PathLike[str]":
    from .past import index

    return index.latest(stage).save_dir


latest.find = _find_latest
