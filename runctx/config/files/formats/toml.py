"""How is a configuration read from and written to TOML?"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

import tomli_w

from ....errors import ConfigError
from .document import MAX_DEPTH, Document, bound_parts, fault, lines_within, too_deep, too_many_digits
from .source import text_of
from .values import written


def encode(values: Mapping[Any, Any]) -> bytes:
    return tomli_w.dumps(written(values, _refuse)).encode()


def _refuse(value: Any, is_key: bool) -> str | None:
    if is_key and not isinstance(value, str):
        return f"a key in TOML must be a str; got {value!r}"
    if value is None:
        return "TOML has no null"
    return "TOML cannot hold bytes" if isinstance(value, bytes) else None


def parse(data: bytes, path: Path) -> Document:
    text = text_of(data, path).replace("\r\n", "\n")
    bound_parts(path, text, ",=[")
    lines = _lines(text, path)
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _told(error, text, path) from error
    except RecursionError as error:
        raise too_deep(path, None) from error
    except ValueError as error:
        raise too_many_digits(path, text) from error
    plain = _without_dates(values, path)
    return Document(plain, lines_within(plain, lines))


def _told(error: tomllib.TOMLDecodeError, text: str, path: Path) -> ConfigError:
    what, _, place = str(error).rpartition(" (at ")
    if found := re.match(r"line (\d+), (column \d+)", place):
        return fault(path, int(found[1]), f"{found[2]}: {what}")
    return fault(path, text.count("\n") + 1, what)  # at the end of the document


def _without_dates(value: Any, path: Path, depth: int = 0) -> Any:
    """A configuration has no dates: they are text, as ISO 8601 writes them."""
    if depth > MAX_DEPTH:
        raise too_deep(path, None)
    if isinstance(value, dict):
        return {key: _without_dates(item, path, depth + 1) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_dates(item, path, depth + 1) for item in value]
    return value.isoformat() if isinstance(value, (date, datetime, time)) else value


# possessive: what is long must not be gone through again from each of its characters
_STRING = r'"(?:[^"\\\n]|\\[^\n])*+"|' r"'[^'\n]*+'"
_NAME = rf"(?:[A-Za-z0-9_-]++|{_STRING})"
_PART = re.compile(_NAME)
_DOTTED = rf"{_NAME}(?:[ \t]*\.[ \t]*{_NAME})*+"
_STATEMENT = re.compile(rf"[ \t\n]*+(?:\#[^\n]*+\n[ \t\n]*+)*+(?:(?P<table>\[\[?)[ \t]*)?(?P<key>{_DOTTED})")
_LONG_STRING = r'''"""(?:[^"\\]|\\.|"{1,2}(?!"))*+"{3,5}|''' r"'''(?:[^']|'{1,2}(?!'))*+'{3,5}"
# what could hide a line break or a bracket comes first; a quote that nothing closes comes last
_TOKEN = re.compile(
    rf"(?P<long>{_LONG_STRING})|\#[^\n]*+|(?P<dotted>{_DOTTED})|(?P<mark>[\[\]{{}}\n])|(?P<open>[\"'])",
    re.DOTALL,
)


def _lines(text: str, path: Path) -> dict[tuple[Any, ...], int]:
    """The lines of headers and keys; of a text that is not TOML, of those before the mistake.

    It runs before the parser, which takes quadratic time for keys of very many parts.
    """
    lines: dict[tuple[Any, ...], int] = {}
    table: tuple[Any, ...] = ()
    line, position = 1, 0
    while statement := _STATEMENT.match(text, position):
        line += text.count("\n", position, statement.start("key"))
        key = _parts(statement["key"], path, line)
        if statement["table"]:
            table = at = key
        else:
            at = (*table, *key)
        for length in range(1, len(at) + 1):
            lines.setdefault(at[:length], line)
        position = _end(text, statement.end(), path, line)
        line += text.count("\n", statement.start("key"), position)
    return lines


def _end(text: str, position: int, path: Path, line: int) -> int:
    """Where the statement ends: at the first line break outside of brackets and strings."""
    depth = 0
    for token in _TOKEN.finditer(text, position):
        mark = token["mark"]
        if token["open"]:
            break
        if token["dotted"]:
            _parts(token["dotted"], path, line)
        elif mark == "\n" and depth <= 0:
            return token.end()
        elif mark:
            depth += (mark in "[{") - (mark in "]}")
        if depth > MAX_DEPTH:
            raise too_deep(path, line)
    return len(text)


def _parts(key: str, path: Path, line: int) -> tuple[Any, ...]:
    parts = tuple(_text(part) for part in _PART.findall(key))
    if len(parts) > MAX_DEPTH:
        raise too_deep(path, line)
    return parts


def _text(part: str) -> str:
    if part.startswith('"'):
        try:
            text: str = tomllib.loads(f"key = {part}")["key"]
        except tomllib.TOMLDecodeError:  # the parser will say so
            return part
        return text
    return part.strip("'")
