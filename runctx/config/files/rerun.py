"""Read the config.yaml of a past run for a new one, which has a folder of its own.

That file holds resolved values. What named the old run's folder, `save_dir` and all that was computed from it, is taken
as it was written: else the new run would write into the old folder, or beside it under a number.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ... import layout, lock
from ...errors import RunctxError
from ...model import Lock, Origin
from ..layers import Path as Keys
from ..layers import dotted

_KEY = "save_dir"


def for_a_new_run(file: Path, values: dict[Any, Any]) -> dict[Any, Any]:
    """The values of a configuration file; where it is the config.yaml of a run, without that run's folder."""
    if file.name != layout.CONFIG or _KEY not in values or not os.path.isfile(file.parent / layout.LOCK):
        return values
    try:
        past = lock.read(file.parent)
    except RunctxError:
        return values  # nothing tells how the folder was named
    return _written_anew(values, (), {key: past.origins[key][0] for key in _of_folder(past)})


def _of_folder(past: Lock) -> set[str]:
    """`save_dir` and the keys that were computed from it, as far as the lock tells."""
    said = {key: origins[0] for key, origins in past.origins.items() if origins}
    found = {_KEY} & said.keys()
    while more := {
        key for key, origin in said.items() if key not in found and _reads(origin, {*found, _KEY})
    }:
        found |= more
    return found


def _reads(origin: Origin, keys: set[str]) -> bool:
    if isinstance(origin.value, list):  # one key, of whose parts the lock tells nothing
        return any(f"${{{key}" in repr(origin.value) for key in keys)
    return not keys.isdisjoint(origin.reads)


def _written_anew(values: Mapping[Any, Any], path: Keys, written: Mapping[str, Origin]) -> dict[Any, Any]:
    found = {}
    for key, value in values.items():
        here = (*path, key)
        origin = written.get(dotted(here))
        if origin is not None:
            if not _was_computed_by_code(origin, value):  # else the class, or the code, computes it again
                found[key] = origin.value
        else:
            found[key] = _written_anew(value, here, written) if isinstance(value, Mapping) else value
    return found


def _was_computed_by_code(origin: Origin, value: Any) -> bool:
    """Whether what the lock has is the source of a function, and neither an interpolation nor a value."""
    text = str(origin.value)
    return "${" not in text and re.fullmatch(re.escape(text) + r"(-\d+)?", str(value)) is None
