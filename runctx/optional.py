"""Import what is not installed with runctx."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def pandas(wanted_by: str) -> Any:
    """The module.

    Raises
    ------
    ImportError: it is not installed; says so, and what wanted it.
    """
    try:
        return import_module("pandas")
    except ImportError as error:
        raise ImportError(
            f"{wanted_by} needs pandas, which cannot be imported: {error}\nhint: pip install pandas",
            name="pandas",
        ) from error
