"""Take the configuration of a run, its config.yaml or an object, for a new one, which has a folder of its own.

It holds resolved values. `save_dir` and all that was computed from it are taken as they were written: else the new run
would write into the old folder, or beside it under a number.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from .. import layout, lock
from ..errors import RunctxError
from ..model import Lock, Origin
from .layers import Branch, Layer, Leaf, at, dotted, leaves, tree
from .layers import Path as Keys
from .objects import put
from .origins import note_run, raw, run_of, trace_of

_SAVE_DIR = "save_dir"


def for_a_new_run(file: Path, values: dict[Any, Any]) -> dict[Any, Any]:
    """The values of a configuration file; where it is the config.yaml of a run, without that run's folder."""
    if file.name != layout.CONFIG or _SAVE_DIR not in values or not os.path.isfile(file.parent / layout.LOCK):
        return values
    try:
        past = lock.read(file.parent)
    except RunctxError:
        return values  # nothing says how the folder was named
    return _as_written(values, (), _from_the_folder(past))


def without_folder(config: DictConfig) -> DictConfig:
    """`config` in place, where it was made of a run's; what was set since then stays."""
    folder = run_of(config)
    if folder is None or _SAVE_DIR not in config:
        return config
    try:
        past = lock.read(Path(folder))
    except RunctxError:
        return config
    origins, trace = _from_the_folder(past), trace_of(config)
    layers = trace.tree if trace is not None and trace.values is None else Branch()
    program = Layer(kind="program", name="")
    now, then = tree(raw(config), program), tree(past.config, program)
    with read_write(config), open_dict(config):
        for path, leaf in leaves(then):
            origin, settings, written = origins.get(dotted(path)), at(layers, path), None
            if origin is None or _text(at(now, path)) != _text(leaf):
                continue
            if isinstance(settings, tuple):  # the program is the same, and knows what its code computes
                given = [one.value for one in settings if one.layer.kind != "__post_init__"]
                written = given[-1] if given else None
            elif not _was_computed_by_code(origin, leaf[-1].value):
                written = origin.value
            with suppress(OmegaConfBaseException):  # a class may refuse null
                put(config, path, written)
    note_run(config, None)
    return config


def _text(said: Branch | Leaf | None) -> str | None:
    """A value as a lock has it: a path is a text there."""
    return str(said[-1].value) if isinstance(said, tuple) else None


def _from_the_folder(past: Lock) -> dict[str, Origin]:
    """`save_dir` and the keys that were computed from it, as far as the lock says."""
    winners = {key: origins[0] for key, origins in past.origins.items() if origins}
    found = {_SAVE_DIR}
    while more := {key for key, origin in winners.items() if key not in found and _reads(origin, found)}:
        found |= more
    return {key: winners[key] for key in found if key in winners}


def _reads(origin: Origin, keys: set[str]) -> bool:
    if isinstance(origin.value, list):  # one key, of whose parts the lock says nothing
        return any(f"${{{key}" in repr(origin.value) for key in keys)
    return not keys.isdisjoint(origin.reads)


def _as_written(values: Mapping[Any, Any], path: Keys, written: Mapping[str, Origin]) -> dict[Any, Any]:
    found = {}
    for key, value in values.items():
        origin = written.get(dotted((*path, key)))
        if origin is None:
            found[key] = _as_written(value, (*path, key), written) if isinstance(value, Mapping) else value
        elif not _was_computed_by_code(origin, value):  # else the class, or the code, computes it again
            found[key] = origin.value
    return found


def _was_computed_by_code(origin: Origin, value: Any) -> bool:
    """Whether what the lock has is the source of a function, and neither an interpolation nor a value."""
    text = str(origin.value)
    return "${" not in text and re.fullmatch(re.escape(text) + r"(-\d+)?", str(value)) is None
