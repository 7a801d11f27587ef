"""Which value does a text on the command line mean, and how is a value written there?

The grammar is Hydra's, as far as values go: numbers, `true`, `null`, `[1, 2]`, `{a: 1}`, quoted strings, and everything
else is text as it stands. It is not YAML: `12:30`, `yes` and `0x10` are text, `1e-3` is a number.
"""

from __future__ import annotations

import json
import re
from enum import Enum
from pathlib import PurePath
from typing import Any

from ...errors import ConfigError
from ..declared import inner, key_type, required, takes_text
from ..derivation.derived import Derived

MAX_DEPTH = 100
"""Lists and mappings inside each other."""

_INTEGER = re.compile(r"[+-]?(?:0|[1-9](?:_?[0-9])*)")
_FLOAT = re.compile(
    r"[+-]?(?:(?:(?:0|[1-9](?:_?[0-9])*)\.|(?:0|[1-9](?:_?[0-9])*)?\.[0-9](?:_?[0-9])*)(?:e[+-]?[0-9](?:_?[0-9])*)?"
    r"|(?:0|[1-9](?:_?[0-9])*)e[+-]?[0-9](?:_?[0-9])*|inf|nan)",
    re.IGNORECASE,
)
_QUOTED = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"", re.DOTALL)
_SPACE = re.compile(r"[ \t\r\n]*")
_WORDS: dict[str, bool | None] = {"true": True, "false": False, "null": None}


class BrokenLiteral(ValueError):  # noqa: N818 - it names the thing found
    """A text that begins like a list, a mapping or a quoted string, and is none."""


class Bare(str):
    """Text without quotes: whether it is a number or a string depends on where it goes."""

    __slots__ = ()


def read(text: str, declared: Any = Any) -> Any:
    """The value that `text` means for a field of the type `declared`.

    A field that is declared as `str` or `Path` takes the text as it stands, only surrounding quotes are
    removed: `name=5` is "5", and `name=null` is "null" unless the field may be None. Where it may, `None`
    means the same, but for a `str`, of which it is a value.

    Raises
    ------
    BrokenLiteral: with what is wrong, and where in the text.

    >>> read("[1, 1e-3, {a: x y}]"), read("12:30"), read("5", str), read("null", str | None)
    ([1, 0.001, {'a': 'x y'}], '12:30', '5', None)
    """
    stripped = text.strip(" \t\r\n")
    if takes_text(declared) and not _QUOTED.fullmatch(stripped):
        return _typed(Bare(text), declared)
    if stripped[:1] in ("[", "{", "'", '"'):
        return _typed(_Reader(stripped).whole(), declared)
    return _typed(Bare(stripped), declared)


def scalar(text: str) -> Any:
    """What text without quotes means where no type is declared.

    >>> [scalar(text) for text in ("3", "1_000", ".5", "True", "null", "007", "None")]
    [3, 1000, 0.5, True, None, '007', 'None']
    """
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    if _INTEGER.fullmatch(text):
        try:
            return int(text)
        except ValueError:  # Python reads 4300 digits and no more
            raise BrokenLiteral(f"a number of {len(text)} digits is too long") from None
    return float(text) if _FLOAT.fullmatch(text) else str(text)


def unquoted(text: str) -> str:
    """Of a text in quotes: in double quotes the escapes of JSON count, in single ones `\\'` and `\\\\` alone."""
    inner = text[1:-1]
    if "\\" not in inner:
        return inner
    return (_ESCAPE if text[0] == '"' else _ESCAPED_QUOTE).sub(_meant, inner)


_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_ESCAPED_QUOTE = re.compile(r"\\(['\\])")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", '"': '"', "'": "'", "\\": "\\", "/": "/"}


def _meant(escape: re.Match[str]) -> str:
    if len(escape[1]) == 5:
        return chr(int(escape[1][1:], 16))
    return _ESCAPES.get(escape[1], escape[0])


class _Pairs(list[tuple[str, Any]]):
    """A mapping whose keys have no type yet: `1` and `'1'` may turn out to be different or the same."""


class _Reader:
    """Reads one literal from left to right, each character once; texts without quotes stay `Bare`."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def whole(self) -> Any:
        value = self.value(0)
        if self.at < len(self.text):
            raise self.broken("unexpected text")
        return value

    def value(self, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise BrokenLiteral(f"lists and mappings are nested deeper than {MAX_DEPTH}")
        start = self.peek()
        if start == "[":
            return self.items(depth)
        if start == "{":
            return self.pairs(depth)
        return self.word(",]}")

    def items(self, depth: int) -> list[Any]:
        items: list[Any] = []
        while not self.closes("]", first=not items):
            items.append(self.value(depth + 1))
        return items

    def pairs(self, depth: int) -> _Pairs:
        pairs = _Pairs()
        while not self.closes("}", first=not pairs):
            key = self.word(":,]}")
            if self.peek() != ":":
                raise self.broken("expected `key: value`")
            self.at += 1
            self.peek()
            pairs.append((key, self.value(depth + 1)))
        return pairs

    def closes(self, bracket: str, *, first: bool) -> bool:
        """Go on to the next part, over the comma; or over the closing bracket."""
        if first:
            self.at += 1  # the opening bracket
        elif self.peek() == ",":
            self.at += 1
        elif self.peek() != bracket:
            raise self.broken(f"expected `,` or `{bracket}`")
        if self.peek() != bracket:
            return False
        self.at += 1
        self.peek()
        return True

    def word(self, ends: str) -> str:
        quoted = _QUOTED.match(self.text, self.at)
        if quoted:
            self.at = quoted.end()
            self.peek()
            return unquoted(quoted[0])
        if self.peek() in ("'", '"'):
            raise self.broken("the quote is not closed")
        start = self.at
        while (char := self.text[self.at : self.at + 1]) and char not in ends:
            if char in "[{":
                raise self.broken(f"unexpected `{char}`")
            self.at = self.after_interpolation() if self.text.startswith("${", self.at) else self.at + 1
        word = self.text[start : self.at].rstrip(" \t\r\n")
        if not word:
            raise self.broken("expected a value")
        return Bare(word)

    def after_interpolation(self) -> int:
        """Where `${...}` ends, which may hold commas, brackets and further interpolations."""
        depth = 0
        for part in _IN_INTERPOLATION.finditer(self.text, self.at):
            if part[0] in ("'", '"'):
                break
            depth += part[0].endswith("{")
            depth -= part[0] == "}"
            if depth == 0:
                return part.end()
        raise self.broken("`${`, or a quote in it, is not closed")

    def peek(self) -> str:
        """The next character that is no space; empty at the end."""
        space = _SPACE.match(self.text, self.at)
        self.at = space.end() if space else self.at
        return self.text[self.at : self.at + 1]

    def broken(self, problem: str) -> BrokenLiteral:
        seen = self.text[self.at : self.at + 20]
        return BrokenLiteral(f"{problem} " + (f"at {seen!r}" if seen else "at the end"))


_IN_INTERPOLATION = re.compile(_QUOTED.pattern + r"|['\"]|\$\{|\{|\}", re.DOTALL)


def _typed(value: Any, declared: Any) -> Any:
    if isinstance(value, Bare):
        return _scalar_for(value, declared)
    if isinstance(value, _Pairs):
        return _mapping(value, declared)
    if isinstance(value, list):
        return [_typed(part, inner(declared, i)) for i, part in enumerate(value)]
    return value


def _mapping(pairs: _Pairs, declared: Any) -> dict[Any, Any]:
    keys = key_type(declared)
    mapping: dict[Any, Any] = {}
    for name, part in pairs:
        key = _typed(name, keys)
        if key in mapping:
            raise BrokenLiteral(f"key {name} is given twice")
        mapping[key] = _typed(part, inner(declared, key))
    return mapping


def _scalar_for(text: str, declared: Any) -> Any:
    wanted, optional = required(declared)
    is_name = isinstance(wanted, type) and issubclass(wanted, Enum) and text in wanted.__members__
    if optional and (text.lower() == "null" or (text == "None" and wanted is not str and not is_name)):
        return None
    return str(text) if is_name or takes_text(wanted) else scalar(text)


_PLAIN = re.compile(r"[\w./%@+*?|=-][\w./%@+*?|=:-]*")


def written(value: Any) -> str:
    """The text that `read` gives this value for; without spaces, so that most of it needs no quotes in a shell.

    Raises
    ------
    ConfigError: a value that no text stands for.

    >>> written({"betas": [0.9, 0.999], "name": "adam", "id": "007", "step": "5", "note": "a, b"})
    "{betas:[0.9,0.999],name:adam,id:007,step:'5',note:'a, b'}"
    """
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, Enum):
        return _text(value.name)
    if isinstance(value, (str, PurePath)) and not isinstance(value, Derived):
        return _text(str(value))
    if isinstance(value, int) and abs(value) < 10**4000:
        return int.__repr__(value)
    if isinstance(value, float):
        return float.__repr__(value)
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(written, value)) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{_key(key)}:{written(part)}" for key, part in value.items()) + "}"
    raise ConfigError(
        f"a value of type {type(value).__name__} cannot be written as an override",
        hint="use numbers, strings, bools, None, and lists and mappings of them",
    )


def _key(key: Any) -> str:
    text = written(key)
    return text if not isinstance(key, str) or text[0] in "'\"" or ":" not in text else _quoted(key)


def _text(text: str) -> str:
    plain = _PLAIN.fullmatch(text) and isinstance(scalar(text), str)
    return text if plain else _quoted(text)


def _quoted(text: str) -> str:
    return (
        f"'{text}'"
        if text.isprintable() and not re.search(r"['\\]", text)
        else json.dumps(text, ensure_ascii=False)
    )
