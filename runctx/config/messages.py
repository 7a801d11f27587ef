"""Words for error messages: short values, reasons of OmegaConf, and the known names that a wrong one is near to."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from ..errors import ConfigError


def short(value: Any) -> str:
    """The `repr` of a value, cut to 80 characters."""
    return cut(repr(value))


def cut(text: str) -> str:
    return text if len(text) <= 80 else text[:77] + "..."


def message_of(error: BaseException) -> tuple[str, str | None]:
    """Message and hint for an error of OmegaConf."""
    if isinstance(error, ConfigError):
        return error.message, error.hint
    if isinstance(error, RecursionError):
        return "the configuration is nested too deep, or contains itself", None
    key = getattr(error, "full_key", None)
    return (f"config key {key}: " if key else "") + first_line(error), None


def first_line(error: BaseException) -> str:
    """Without the lines in which OmegaConf repeats itself."""
    return str(error).split("\n", 1)[0]


def nearest(name: str, known: Collection[str], count: int = 3) -> list[str]:
    """Of the dotted names in `known` those that `name` is most likely a slip of, the likeliest first.

    A name that ends in the very same key comes before one that is merely spelled alike.

    >>> nearest("lr", ["opt.lr", "opt.name", "epochs"])
    ['opt.lr']
    >>> nearest("epoch", ["opt.lr", "opt.name", "epochs"])
    ['epochs']
    """
    from difflib import get_close_matches  # only needed once something is wrong

    last = name.rpartition(".")[2]
    found = [other for other in known if other.rpartition(".")[2] == last]
    found += get_close_matches(name, known, count)
    ends = {other.rpartition(".")[2]: other for other in known}
    found += [ends[end] for end in get_close_matches(last, ends, count, cutoff=0.75)]
    return list(dict.fromkeys(found))[:count]


def did_you_mean(name: str, known: Collection[str]) -> str | None:
    """A hint with the nearest names; None if nothing is near."""
    found = nearest(name, known)
    return f"did you mean {' or '.join(found)}?" if found else None
