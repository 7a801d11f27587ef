"""Read keys and values from text; the types that the dataclasses of a configuration declare decide.

OmegaConf's grammar reads the text, as in Hydra: numbers, `true`, `null`, `[1, 2]`, `{a: 1}`, `'in quotes'`, and
everything else is text as it stands. It is not YAML: `12:30`, `yes` and `0x10` are text, `1e-3` is a number.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from enum import Enum
from typing import Any

from omegaconf.errors import GrammarParseError
from omegaconf.grammar_parser import parse
from omegaconf.grammar_visitor import GrammarVisitor

from .fields import inner, key_type, required, takes_text
from .layers import Path

# -- texts ---------------------------------------------------------------------------------------------------------

QUOTED = r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\""
"""The pattern of a text in quotes; `.` must match newlines."""

_QUOTED = re.compile(QUOTED, re.DOTALL)


class ValueSyntaxError(ValueError):
    """A text that begins like a list, a mapping or a quoted string, and is none."""


class Word(str):
    """A text without quotes; the type of its field decides whether it is the text or the `value`."""

    value: Any
    """The number, bool or None that the text stands for where no type is declared, or else the text."""

    def __new__(cls, text: str, value: Any) -> Word:
        word = super().__new__(cls, text)
        word.value = value
        return word


def read(text: str, declared: Any = Any) -> Any:
    """The value that `text` means for a field of the type `declared`.

    A field that is declared as `str` or `Path` takes the text as it stands, only surrounding quotes are
    removed: `name=5` is "5", and `name=null` is "null" unless the field may be None. Where it may, `None`
    means the same, but for a `str`, of which it is a value.

    Raises
    ------
    ValueSyntaxError: a list, mapping or quoted string is broken; says where.

    >>> read("[1, 1e-3, {a: x y}]"), read("12:30"), read("5", str), read("null", str | None)
    ([1, 0.001, {'a': 'x y'}], '12:30', '5', None)
    """
    stripped = text.strip(" \t\r\n")
    if takes_text(declared) and not _QUOTED.fullmatch(stripped):
        return _typed(Word(text, text), declared)
    return _typed(_parsed(stripped), declared)


def word(text: str) -> Word:
    """A text without quotes, and what it stands for.

    >>> [word(text).value for text in ("3", "1_000", ".5", "True", "null", "007", "None", "a b")]
    [3, 1000, 0.5, True, None, '007', 'None', 'a b']
    """
    if text.startswith(_OPENING) or (text.isidentifier() and text.lower() not in _NOT_TEXT):
        return Word(text, text)  # most keys are: the grammar takes a tenth of a millisecond
    found: Word = _parsed(text)
    return found


_OPENING = ("[", "{", "'", '"')
_NOT_TEXT = frozenset({"true", "false", "null", "inf", "nan"})


def unquoted(text: str) -> str:
    r"""A text without its quotes: in double quotes the escapes of JSON count, in single ones `\'` and `\\` alone."""
    escape = _ESCAPE if text[0] == '"' else _ESCAPED_QUOTE
    return escape.sub(_unescaped, text[1:-1])


_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_ESCAPED_QUOTE = re.compile(r"\\(['\\])")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", '"': '"', "'": "'", "\\": "\\", "/": "/"}


def _unescaped(escape: re.Match[str]) -> str:
    if len(escape[1]) == 5:
        return chr(int(escape[1][1:], 16))
    return _ESCAPES.get(escape[1], escape[0])


def _parsed(text: str) -> Any:
    """A `Word`, a quoted string, or lists and `_Pairs` of them."""
    if text.startswith("}"):  # ends OmegaConf's lexer in a plain Exception
        return Word(text, text)
    try:
        return _Reader(text).visit(parse(_UNKNOWN.sub(_known, text), "singleElement", "VALUE_MODE"))
    except (GrammarParseError, RecursionError, ValueError) as error:
        if text.startswith(_OPENING):
            raise ValueSyntaxError(_problem(error)) from None
        return Word(text, text)


# The grammar knows no character but these, and no quoted keys. What it does not know is replaced, character by
# character, by one that may stand in any word; the text is then taken from where it was.
_UNKNOWN = re.compile(
    rf"(?P<key>{QUOTED})(?=\s*:)|(?P<quoted>{QUOTED})|(?P<line>[\r\n])|[^\w/+.$%*@?|:\[\]{{}},'\" \t\\-]",
    re.DOTALL | re.ASCII,
)


def _known(unknown: re.Match[str]) -> str:
    return unknown["quoted"] or (" " if unknown["line"] else "|" * len(unknown[0]))


_SEEN = re.compile(r"(?:input|at:?) '(.*?)'(?: expecting .*)?$", re.DOTALL)


def _problem(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "lists and mappings are nested too deep"
    if isinstance(error, ValueSyntaxError) or not isinstance(error, GrammarParseError):
        return str(error)
    seen = _SEEN.search(str(error))
    if seen is None or seen[1] == "<EOF>":
        return "a bracket, a brace or a quote is not closed"
    return f"unexpected {seen[1].strip() or 'space'}"


class _Pairs(list[tuple[str, Any]]):
    """A mapping whose keys have no type yet: `1` and `'1'` may turn out to be different or the same."""


class _Reader(GrammarVisitor):
    """Take values from OmegaConf's parse tree; words keep their text, and interpolations are texts."""

    def __init__(self, text: str) -> None:
        super().__init__(None, None, None)
        self.text = text

    def text_of(self, ctx: Any) -> str:
        return self.text[ctx.start.start : ctx.stop.stop + 1]

    def visitElement(self, ctx: Any) -> Any:
        return self.visit(ctx.getChild(0))

    def visitPrimitive(self, ctx: Any) -> Word:
        text = self.text_of(ctx)
        if text[0] in "'\"":
            raise ValueSyntaxError(f"unexpected : after {text[:20]}")
        is_one_token = ctx.getChildCount() == 1 and hasattr(ctx.getChild(0), "symbol")
        value = self._createPrimitive(ctx) if is_one_token else text
        return Word(text, text if isinstance(value, str) else value)

    def visitDictKey(self, ctx: Any) -> str:
        text = self.text_of(ctx)
        return unquoted(text) if text[0] in "'\"" else self.visitPrimitive(ctx)

    def visitQuotedValue(self, ctx: Any) -> str:
        return unquoted(self.text_of(ctx))

    def visitDictContainer(self, ctx: Any) -> Any:
        pairs = range(1, ctx.getChildCount() - 1, 2)
        return _Pairs(self.visitDictKeyValuePair(ctx.getChild(i)) for i in pairs)

    def visitSequence(self, ctx: Any) -> Generator[Any, None, None]:
        # OmegaConf adds an empty text for a missing value, after the last comma too
        after_comma = True
        for child in ctx.getChildren():
            if not hasattr(child, "symbol"):
                yield self.visitElement(child), ""
            elif after_comma:
                raise ValueSyntaxError("a value is missing before a comma")
            after_comma = hasattr(child, "symbol")


def _typed(value: Any, declared: Any) -> Any:
    if isinstance(value, Word):
        return _word_for(value, declared)
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
            raise ValueSyntaxError(f"key {name} is given twice")
        mapping[key] = _typed(part, inner(declared, key))
    return mapping


def _word_for(text: Word, declared: Any) -> Any:
    wanted, optional = required(declared)
    is_name = isinstance(wanted, type) and issubclass(wanted, Enum) and text in wanted.__members__
    if optional and (text.lower() == "null" or (text == "None" and wanted is not str and not is_name)):
        return None
    return str(text) if is_name or takes_text(wanted) or isinstance(text.value, str) else text.value


# -- keys ----------------------------------------------------------------------------------------------------------

_KEY = re.compile(
    rf"(?P<quoted>{QUOTED})|\[(?P<index>{QUOTED}|[^\[\]='\"]*)\]|(?P<bare>[^.\[\]=\s'\"]+)", re.DOTALL
)
_HEX = re.compile(r"0x(?:[0-9a-f]{2})*")
_MAX_KEYS = 100


def split_keys(text: str, start: int = 0) -> tuple[Path, int]:
    """The keys from `start` on, as users and `layers.dotted` write them, and where they end.

    A key without quotes is a `Word`: the keys that are there decide whether `3` is a number. Without a key, after
    a point too, and beyond a hundred keys, there are none.

    >>> split_keys("layers[0].'a.b' = 1")
    (('layers', '0', 'a.b'), 15)
    """
    keys: list[Any] = []
    at = start
    while key := _KEY.match(text, at):
        keys.append(_key(key))
        at = key.end()
        if text.startswith(".", at):
            at += 1
        elif not text.startswith("[", at):
            return (tuple(keys), at) if len(keys) <= _MAX_KEYS else ((), start)
    return (), start


def _key(match: re.Match[str]) -> Any:
    text = (match["quoted"] or match["index"] or match["bare"] or "").strip(" \t")
    if text[:1] in ("'", '"'):
        return unquoted(text)
    in_brackets = match["bare"] is None
    if in_brackets and _HEX.fullmatch(text):
        return bytes.fromhex(text[2:])
    key = word(text)
    if isinstance(key.value, float):  # its point separates no keys, and `inf` is a word
        return key.value if in_brackets else Word(text, text)
    return key
