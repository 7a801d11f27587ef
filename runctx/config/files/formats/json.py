"""How is a configuration read from and written to JSON?"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .document import MAX_DEPTH, Document, bound_parts, fault, too_deep, too_many_digits
from .source import text_of
from .values import written


def encode(values: Mapping[Any, Any]) -> bytes:
    return (json.dumps(written(values, _refuse), indent=2, ensure_ascii=False) + "\n").encode()


def _refuse(value: Any, is_key: bool) -> str | None:
    if is_key and not isinstance(value, str):
        return f"a key in JSON must be a str; got {value!r}"
    return "JSON cannot hold bytes" if isinstance(value, bytes) else None


def parse(data: bytes, path: Path) -> Document:
    text = text_of(data, path)
    if not text.strip():
        return Document({}, {})
    bound_parts(path, text, ",:[{")
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise fault(path, error.lineno, f"column {error.colno}: {error.msg}") from error
    except RecursionError as error:
        _lines(text, path)  # which names the line
        raise too_deep(path, None) from error
    except ValueError as error:
        raise too_many_digits(path, text) from error
    if not isinstance(values, dict):
        raise fault(
            path, 1, f"the top level must be an object; got {type(values).__name__}", 'write {"key": value}'
        )
    return Document(values, _lines(text, path))


_TOKEN = re.compile(r'("(?:[^"\\]|\\.)*+")(\s*+:)?|[{}\[\]]')


def _lines(text: str, path: Path) -> dict[tuple[Any, ...], int]:
    """The line of each key in a text that is known to be JSON."""
    lines: dict[tuple[Any, ...], int] = {}
    here: list[_Open] = []
    line, counted = 1, 0
    for token in _TOKEN.finditer(text):
        key, colon = token.groups()
        if key and not colon:
            continue
        line += text.count("\n", counted, token.start())
        counted = token.start()
        mark = text[counted]
        if mark in "{[":
            if len(here) == MAX_DEPTH:
                raise too_deep(path, line)
            here.append(_Open(here[-1].inner if here else (), mark == "{"))
        elif mark in "}]":
            here.pop()
        else:
            here[-1].meet(json.loads(key), line, path, lines)
    return lines


class _Open:
    """An object or array whose end has not been read yet."""

    __slots__ = ("_at", "_met", "inner")

    def __init__(self, at: tuple[Any, ...] | None, is_object: bool) -> None:
        self._at = at if is_object else None
        self._met: dict[str, int] = {}
        self.inner: tuple[Any, ...] | None = None
        """The keys that lead to the value of the last key; None in arrays."""

    def meet(self, key: str, line: int, path: Path, lines: dict[tuple[Any, ...], int]) -> None:
        if key in self._met:
            raise fault(
                path, line, f"key {key!r:.80} is given twice, first on line {self._met[key]}", "remove one"
            )
        self._met[key] = line
        if self._at is not None:
            self.inner = (*self._at, key)
            lines[self.inner] = line
