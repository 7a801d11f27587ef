"""Let lists of a read-only configuration be added to other lists: `cfg.sizes + [10]`, `sum([cfg.a, cfg.b], [])`.

OmegaConf makes the sum below the same parent, so that it is read-only before it holds anything.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from omegaconf import ListConfig


def _sum(beside: ListConfig, *parts: Iterable[Any]) -> ListConfig:
    total = ListConfig([], parent=beside._get_parent(), flags={"readonly": False})
    for part in parts:
        total.extend(part)
    return total


def _add(self: ListConfig, other: Iterable[Any]) -> ListConfig:
    return _sum(self, self, other)


def _add_to(self: ListConfig, other: Iterable[Any]) -> ListConfig:
    return _sum(self, other, self)


ListConfig.__add__ = _add  # type: ignore[method-assign]
ListConfig.__radd__ = _add_to  # type: ignore[method-assign]
