"""Take the configuration of a run, its config.yaml or an object, for a new one, which has a folder of its own.

It holds resolved values. What named the old run's folder, `save_dir` and all that was computed from it, is taken
as it was written: else the new run would write into the old folder, or beside it under a number.
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

from ... import layout, lock
from ...errors import RunctxError
from ...model import Lock, Origin
from ..layers import Branch, Layer, Leaf, at, dotted, leaves, tree
from ..layers import Path as Keys
from ..objects import put
from ..trace import note_run, raw, run_of, trace_of

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


def without_folder(config: DictConfig) -> DictConfig:
    """`config` in place, where it was made of a run's; what was set since then stays."""
    folder = run_of(config)
    if folder is None or _KEY not in config:
        return config
    try:
        past = lock.read(Path(folder))
    except RunctxError:
        return config
    keys, trace = _of_folder(past), trace_of(config)
    known = trace.tree if trace is not None and trace.values is None else Branch()
    now, then = (tree(values, _ANY) for values in (raw(config), past.config))
    with read_write(config), open_dict(config):
        for path, leaf in leaves(then):
            if dotted(path) not in keys or _text(at(now, path)) != _text(leaf):
                continue
            origin, said, written = past.origins[dotted(path)][0], at(known, path), None
            if isinstance(said, tuple):  # the program is the same, and knows what its code computes
                given = [one.value for one in said if one.layer.kind != "__post_init__"]
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


_ANY = Layer(kind="program", name="")


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
