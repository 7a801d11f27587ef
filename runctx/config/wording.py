"""How is what was seen told in a message?"""

from __future__ import annotations

from typing import Any

from ..errors import ConfigError


def short(value: Any) -> str:
    """For messages."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def message_of(error: BaseException) -> tuple[str, str | None]:
    """What OmegaConf has against a configuration, as message and hint of an error of ours."""
    if isinstance(error, ConfigError):
        return error.message, error.hint
    if isinstance(error, RecursionError):
        return "the configuration is nested too deep, or contains itself", None
    key = getattr(error, "full_key", None)
    return (f"config key {key}: " if key else "") + first_line(error), None


def first_line(error: BaseException) -> str:
    """Without the lines in which OmegaConf repeats itself."""
    return str(error).split("\n", 1)[0]
