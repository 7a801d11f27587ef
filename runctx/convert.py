"""Make the model's classes from plain dicts.

A module of its own, because msgspec looks at a class when it first meets it, and two threads that do so at the same
moment crash the process: while a module is imported, there is only one. What only writes locks never loads it.
"""

from __future__ import annotations

from typing import Any

import msgspec

from .model import Lock, Origin, Summary

Mismatch = msgspec.ValidationError
"""Raised for a key that is missing or of the wrong type."""

msgspec.json.Decoder(Lock)


_ENTRIES: dict[str, Any] = {"origins": tuple[Origin, ...], "metrics": Summary}
"""What the mappings of free keys hold, if not text."""


def to_lock(plain: dict[Any, Any]) -> Lock:
    """The lock that plain data describe; keys it does not know are passed over."""
    return msgspec.convert(plain, Lock)


def fits(mapping: str, value: Any) -> bool:
    """Whether a mapping of free keys, by the name of its field, can have this entry."""
    try:
        msgspec.convert(value, _ENTRIES.get(mapping, str))
    except Mismatch:
        return False
    return True
