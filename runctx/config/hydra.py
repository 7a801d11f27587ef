"""Say what Hydra's command line set, of a configuration that one of its jobs was given, and which groups it chose."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

from omegaconf import OmegaConf

from .layers import Branch, Layer, Path, Setting, at, leaves, tree

_TASK, _CHOICES = "hydra.overrides.task", "hydra.runtime.choices"


def with_overrides(known: Branch) -> Branch:
    """`known`, where a key that an override of this job set says so; it must have the value still."""
    job = _job()
    for number, text in () if job is None else _overrides(job):
        for path, value in _set_by(text):
            child = at(known, path)
            if isinstance(child, tuple) and child[-1].value == value and type(child[-1].value) is type(value):
                below = child[:-1] if child[-1].layer.kind == "program" else child
                around = at(known, path[:-1])
                assert isinstance(around, Branch)
                around.children[path[-1]] = (*below, Setting(value, Layer(kind="override", name=number)))
    return known


def choices() -> dict[str, str]:
    """Group -> what was chosen of it for this job; nothing outside of one. Hydra's own groups are not among them."""
    job = _job()
    chosen = OmegaConf.select(job, _CHOICES) if job is not None else None
    return {
        str(group): str(name) for group, name in (chosen or {}).items() if not str(group).startswith("hydra/")
    }


def _job() -> Any:
    module = sys.modules.get("hydra.core.hydra_config")  # which a job has imported
    config = module.HydraConfig if module is not None else None
    return config.instance().cfg if config is not None and config.initialized() else None


def _overrides(job: Any) -> list[tuple[str, str]]:
    """Each override of the job, and where it was given: a sweep makes them of one argument."""
    texts = list(OmegaConf.select(job, _TASK) or ())
    arguments = {text: f"argument {n}" for n, text in enumerate(sys.argv[1:], 1)}
    return [(arguments.get(text, f"Hydra's {text.partition('=')[0]}"), text) for text in texts]


def _set_by(text: str) -> list[tuple[Path, Any]]:
    parser = import_module("hydra.core.override_parser.overrides_parser").OverridesParser.create()
    override = parser.parse_override(text)
    if override.is_delete() or override.is_sweep_override():
        return []
    path, value = tuple(override.key_or_group.replace("/", ".").split(".")), override.value()
    if not isinstance(value, dict):
        return [(path, value)]
    inside = tree(value, Layer(kind="override", name=""))
    return [((*path, *below), leaf[-1].value) for below, leaf in leaves(inside)]
