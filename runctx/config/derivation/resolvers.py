"""How is a resolver registered with the OmegaConf that is installed?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from omegaconf import OmegaConf


def register(name: str, resolver: Callable[..., Any]) -> None:
    """Let `${name:...}` call `resolver`, unless somebody else has that name already."""
    if not OmegaConf.has_resolver(name):
        _register(name, resolver)


# `register_new_resolver` is deprecated in 2.4, and what 2.3 calls `register_resolver` is older and passes texts only:
# that of 2.4 has options
_register: Callable[..., None] = (
    OmegaConf.register_resolver
    if getattr(getattr(OmegaConf, "register_resolver", None), "__kwdefaults__", None)
    else OmegaConf.register_new_resolver
)
