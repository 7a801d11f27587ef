"""How does a function read a configuration that it must not modify?"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from omegaconf import DictConfig, ListConfig, Node, OmegaConf

Read = Callable[[DictConfig, Any, Node], Any]
"""Is told of each key that is read: its mapping, the key, what lies there. Gives the value, or PASS."""

PASS = object()


class View(DictConfig):
    """A mapping as a function sees it: a configuration like any other, but read-only, and it tells what is read.

    It is read-only by itself: a flag on the configuration would be seen by other threads, which put it back in the
    wrong order.
    """

    def _get_node(self, key: Any, *args: Any, **kwargs: Any) -> Any:
        seen, read = self.__dict__["_seen"]
        node = seen._get_node(key, *args, **kwargs)
        if isinstance(node, Node):
            read(seen, key, node)
        return view(node, read) if _is_mapping(node) else node

    def _get_impl(self, key: Any, default_value: Any, *args: Any, **kwargs: Any) -> Any:
        seen, read = self.__dict__["_seen"]
        node = seen._get_node(key, validate_access=False)
        value = read(seen, key, node) if isinstance(node, Node) else PASS
        if value is PASS:
            value = seen._get_impl(key, default_value, *args, **kwargs)
        return view(value, read)


def view(value: Any, read: Read) -> Any:
    """`value` for reading only."""
    if isinstance(value, ListConfig):
        value = value.copy()
        OmegaConf.set_readonly(value, True)
        return value
    if not _is_mapping(value) or isinstance(value, View):
        return value
    seen = object.__new__(View)
    seen.__dict__.update(value.__dict__)
    metadata = seen.__dict__["_metadata"] = copy.copy(value._metadata)
    metadata.flags = {**(metadata.flags or {}), "readonly": True}
    seen.__dict__["_flags_cache"] = None
    seen.__dict__["_seen"] = (value, read)
    return seen


def _is_mapping(value: Any) -> bool:
    return (
        isinstance(value, DictConfig)
        and not value._is_none()
        and not value._is_missing()
        and not value._is_interpolation()
    )
