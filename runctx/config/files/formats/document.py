"""What does a format promise? Its two functions, what they exchange, and how its faults are told."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ....errors import ConfigError

MAX_DEPTH = 100
MAX_PARTS = 500_000
"""Keys and values in one file, with all that aliases stand for."""


@dataclass(frozen=True, slots=True)
class Document:
    """What a configuration file says."""

    values: dict[Any, Any]
    """As they were written: interpolations are text, `_base_` is a key like any other."""
    lines: dict[tuple[Any, ...], int]
    """The line on which a key stands, counted from 1, by the keys that lead to it; not inside lists."""


class Format(Protocol):
    """A way to write a configuration down."""

    def parse(self, data: bytes, path: Path) -> Document:
        """What `data`, the content of the file `path`, says.

        Raises
        ------
        ConfigError: it is broken or made to harm; made by `fault`.
        """
        ...

    def encode(self, values: Mapping[Any, Any]) -> bytes:
        """The content of a file that says these values.

        Raises
        ------
        ConfigError: one that the format cannot hold; the message names its key.
        """
        ...


def fault(path: Path, line: int | None, what: str, hint: str | None = None) -> ConfigError:
    """The error that something is wrong in a file.

    >>> print(fault(Path("c.yaml"), 3, "key 'lr' is given twice"))
    configuration file c.yaml, line 3: key 'lr' is given twice
    """
    place = f"configuration file {path}" + ("" if line is None else f", line {line}")
    return ConfigError(f"{place}: {what}", hint=hint)


def too_deep(path: Path, line: int | None) -> ConfigError:
    return fault(path, line, f"nested more than {MAX_DEPTH} deep")


def bound_parts(path: Path, text: str, marks: str) -> None:
    """Refuse a text that holds more parts than a configuration has; `marks` are the characters that begin one.

    Parsers are fast, but what is made of millions of parts takes minutes.
    """
    if sum(map(text.count, marks)) > MAX_PARTS:
        raise fault(path, None, f"more than {MAX_PARTS} keys and values")


def too_many_digits(path: Path, text: str) -> ConfigError:
    """For the only `ValueError` that parsers let through: Python makes no int of thousands of digits."""
    found = re.search(r"[0-9][0-9_]{4000}", text)
    line = text.count("\n", 0, found.start()) + 1 if found else None
    return fault(path, line, "a number of too many digits")


def lines_within(
    values: Mapping[Any, Any], found: Mapping[tuple[Any, ...], int]
) -> dict[tuple[Any, ...], int]:
    """The lines of the keys there are; a key whose line was not found stands where the mapping it is in does."""
    lines: dict[tuple[Any, ...], int] = {}

    def look(mapping: Mapping[Any, Any], path: tuple[Any, ...], line: int | None) -> None:
        for key, value in mapping.items():
            at = (*path, key)
            here = found.get(at, line)
            if here is not None:
                lines[at] = here
            if isinstance(value, Mapping):
                look(value, at, here)

    look(values, (), None)
    return lines
