"""How is a configuration read from and written to YAML?

What `OmegaConf.load` makes of a text, `1e-3` a number and `2001-01-01` none included, is what is read here, with
two exceptions: `12:30` is text, not a number to base 60, and a key that is given twice is an error.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from .... import yamlfile
from ....errors import ConfigError
from .document import MAX_DEPTH, MAX_PARTS, Document, fault, too_deep
from .source import text_of
from .values import written


def encode(values: Mapping[Any, Any]) -> bytes:
    return yamlfile.dump(written(values)) if values else b""


def parse(data: bytes, path: Path) -> Document:
    text_of(data, path)
    building = _Building(path)
    try:
        for event in _events(data):
            building.take(event)
    except yaml.reader.ReaderError as error:
        line = data.count(b"\n", 0, error.position) + 1
        raise fault(path, line, f"{error.reason} (0x{error.character:02x})") from error
    except yaml.MarkedYAMLError as error:
        raise _told(error, data, path) from error
    return building.document()


def _told(error: yaml.MarkedYAMLError, data: bytes, path: Path) -> ConfigError:
    what = ", ".join(text for text in (error.context, error.problem) if text)
    last, mark = data.rstrip().count(b"\n") + 1, error.problem_mark
    if mark is None or mark.line >= last:  # what the end of the text cuts off
        return fault(path, last, what, _QUOTE)
    return fault(path, mark.line + 1, f"column {mark.column + 1}: {what}", _QUOTE)


_QUOTE = "put text with special characters into quotes"
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _events(data: bytes) -> Iterator[Any]:
    events: Iterator[Any] = yaml.parse(data, Loader=_Loader)
    return events


_NOTHING: Any = object()
_MERGE: Any = object()
"""The key `<<`."""


class _Open:
    """A mapping or list whose end has not been read yet."""

    __slots__ = ("anchor", "height", "key", "key_line", "line", "lines", "merged", "parts", "tag", "value")

    def __init__(self, value: Any, event: Any, line: int, parts: int) -> None:
        self.value = value
        self.anchor: str | None = event.anchor
        self.tag: str | None = event.tag
        self.line = line
        self.parts = parts
        """How many there were in the file before it."""
        self.height = 1
        """How deep the deepest mapping or list in it lies, itself included."""
        self.key = _NOTHING
        self.key_line = 0
        self.lines: dict[Any, int] = {}
        self.merged: list[dict[Any, Any]] = []
        """What `<<` stands for; of two with the same key the later one wins."""


class _Building:
    """Values made from the flat stream of events: no recursion that deep nesting could crash, and an alias is
    known by how much it stands for before it is followed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._open: list[_Open] = []
        self._parts = 0
        self._anchors: dict[str, tuple[Any, int, int]] = {}  # value, parts, height
        self._lines: dict[int, dict[Any, int]] = {}
        """Lines of the keys of a mapping, by its id. Each mapping sets its own when it ends, so that an id that
        was another's before says nothing old."""
        self._top: Any = _NOTHING

    def document(self) -> Document:
        if self._top in (_NOTHING, None):
            return Document({}, {})
        lines: dict[tuple[Any, ...], int] = {}
        self._list_lines(self._top, (), lines)
        return Document(self._top, lines)

    def _list_lines(
        self, mapping: dict[Any, Any], path: tuple[Any, ...], lines: dict[tuple[Any, ...], int]
    ) -> None:
        own = self._lines[id(mapping)]
        for key, value in mapping.items():
            at = (*path, key)
            lines[at] = own[key]
            if type(value) is dict:
                self._list_lines(value, at, lines)

    def take(self, event: Any) -> None:
        kind = type(event)
        line = event.start_mark.line + 1
        if kind is yaml.ScalarEvent:
            value = self._scalar(event, line)
            self._put(value, line)
            if event.anchor and value is not _MERGE:
                self._anchors[event.anchor] = (value, 1, 0)
        elif kind is yaml.AliasEvent:
            self._alias(event.anchor, line)
        elif kind is yaml.MappingStartEvent:
            self._start({}, event, line, _MAPPING_TAGS)
        elif kind is yaml.SequenceStartEvent:
            self._start([], event, line, _SEQUENCE_TAGS)
        elif kind is yaml.MappingEndEvent or kind is yaml.SequenceEndEvent:
            self._end()
        elif kind is yaml.DocumentStartEvent and self._top is not _NOTHING:
            raise self._fault(line, "a second document begins", "one file holds one configuration")

    def _fault(self, line: int, what: str, hint: str | None = None) -> ConfigError:
        return fault(self._path, line, what, hint)

    def _start(self, value: Any, event: Any, line: int, tags: frozenset[str | None]) -> None:
        if event.tag not in tags:
            raise self._refused(event.tag, line)
        if len(self._open) == MAX_DEPTH:
            raise too_deep(self._path, line)
        self._open.append(_Open(value, event, line, self._parts))

    def _refused(self, tag: str, line: int) -> ConfigError:
        return self._fault(line, f"the tag {tag[:80]} is not read", "write plain values")

    def _end(self) -> None:
        ended = self._open.pop()
        value = ended.value
        if type(value) is dict:
            if ended.merged:
                value = self._with_merged(ended)
            self._lines[id(value)] = ended.lines
        elif ended.tag in _PATH_TAGS:
            if not all(type(part) is str for part in value):
                raise self._fault(ended.line, f"a path cannot be made of {_called(value)}")
            value = Path(*value)
        self._put(value, ended.line, height=ended.height)
        if ended.anchor:
            self._anchors[ended.anchor] = (value, self._parts - ended.parts, ended.height)

    def _with_merged(self, ended: _Open) -> dict[Any, Any]:
        merged: dict[Any, Any] = {}
        for mapping in ended.merged:
            lines = self._lines[id(mapping)]
            for key, value in mapping.items():
                if key not in ended.value:
                    merged[key] = value
                    ended.lines[key] = lines[key]
        return {**merged, **ended.value}

    def _alias(self, name: str, line: int) -> None:
        if any(opened.anchor == name for opened in self._open):
            raise self._fault(line, f"the alias *{name} contains itself")
        if name not in self._anchors:
            raise self._fault(line, f"unknown alias *{name}", f"define it before its use: &{name}")
        value, parts, height = self._anchors[name]
        if len(self._open) + height > MAX_DEPTH:
            raise too_deep(self._path, line)
        self._put(value, line, parts, height)

    def _put(self, value: Any, line: int, parts: int = 1, height: int = 0) -> None:
        """Set the next value, or key, of the innermost collection."""
        self._parts += parts
        if self._parts > MAX_PARTS:
            raise self._fault(line, f"more than {MAX_PARTS} keys and values, with all that aliases stand for")
        if not self._open:
            if type(value) is not dict and value is not None:
                what = f"must be a mapping; got {_called(value)}"
                raise self._fault(line, what, "write `key: value`")
            self._top = value
            return
        around = self._open[-1]
        if height >= around.height:
            around.height = height + 1
        if type(around.value) is list:
            around.value.append(value)
        elif around.key is _NOTHING:
            self._put_key(around, value, line)
        elif around.key is _MERGE:
            around.key = _NOTHING
            around.merged += self._mergeable(value, line)
        else:
            around.value[around.key] = value
            around.lines[around.key] = around.key_line
            around.key = _NOTHING

    def _put_key(self, around: _Open, key: Any, line: int) -> None:
        if key is not _MERGE:
            if key is None or isinstance(key, (dict, list, Path)):
                raise self._fault(line, f"a key cannot be {_called(key)}", "write it in quotes")
            if key in around.value:
                first = around.lines[key]
                raise self._fault(
                    line, f"key {key!r:.80} is given twice, first on line {first}", "remove one"
                )
        around.key = key
        around.key_line = line

    def _mergeable(self, value: Any, line: int) -> list[dict[Any, Any]]:
        mappings = value[::-1] if type(value) is list else [value]  # of a list the first one wins
        for mapping in mappings:
            if type(mapping) is not dict:
                raise self._fault(line, f"<< takes a mapping or a list of mappings; got {_called(mapping)}")
        return mappings

    def _scalar(self, event: Any, line: int) -> Any:
        text: str = event.value
        if event.tag is None or event.tag == "!":
            if not event.implicit[0]:
                return text
            if text == "<<" and self._open and self._open[-1].key is _NOTHING:
                return _MERGE if type(self._open[-1].value) is dict else text
            construct = _meaning(text)
        elif event.tag in _SCALAR_TAGS:
            construct = _SCALAR_TAGS[event.tag]
        else:
            raise self._refused(event.tag, line)
        try:
            return construct(text)
        except (ValueError, KeyError, OverflowError) as error:
            kind = construct.__name__.strip("_")
            raise self._fault(line, f"not readable as {kind}: {text[:80]!r}") from error


def _called(value: Any) -> str:
    kinds = {dict: "a mapping", list: "a list", type(None): "nothing (null)"}
    return kinds.get(type(value)) or f"{value!r:.80}"


_FIRST = frozenset("yYnNtTfFoO~-+0123456789.")
"""How text begins that could mean something else."""

_BOOLS = {"yes": True, "true": True, "on": True, "no": False, "false": False, "off": False}
_WORDS = {
    **{form: value for word, value in _BOOLS.items() for form in (word, word.title(), word.upper())},
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
}

_INT = re.compile(r"[-+]?(?:0b[01_]+|0x[0-9a-fA-F_]+|0[0-7_]*|[1-9][0-9_]*)")
# that of PyYAML, and that of OmegaConf, which needs neither point nor sign: 1e3
_FLOAT = re.compile(
    r"""[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+][0-9]+)?
    |   [-+]?[0-9]+(?:_[0-9]+)*\.[0-9_]*[eE][0-9]+
    |   [-+]?[0-9]+(?:_[0-9]+)*[eE][-+]?[0-9]+
    |   \.[0-9][0-9_]*(?:[eE][-+][0-9]+)?
    |   [-+]?\.(?:inf|Inf|INF)
    |   \.(?:nan|NaN|NAN)""",
    re.VERBOSE,
)


def _meaning(text: str) -> Callable[[str], Any]:
    """What makes the value that text without quotes and tag stands for."""
    if text in _WORDS:
        return _WORDS.__getitem__
    if text[0] not in _FIRST:
        return str
    if _INT.fullmatch(text):
        return _int
    return _float if _FLOAT.fullmatch(text) else str


def _int(text: str) -> int:
    if len(text) > yamlfile.MAX_DIGITS:
        raise ValueError(f"more than {yamlfile.MAX_DIGITS} digits")
    digits = text.replace("_", "")
    sign = -1 if digits.startswith("-") else 1
    digits = digits.lstrip("+-")
    for prefix, base in (("0b", 2), ("0x", 16), ("0", 8)):
        if digits.startswith(prefix) and digits != "0":
            return sign * int(digits.removeprefix(prefix), base)
    return sign * int(digits)


def _float(text: str) -> float:
    digits = text.replace("_", "").lower()
    return float(digits.replace(".inf", "inf").replace(".nan", "nan"))


def _bool(text: str) -> bool:
    return _BOOLS[text.lower()]


def _null(text: str) -> None:
    return None


def _binary(text: str) -> bytes:
    return base64.decodebytes(text.encode("ascii"))


_TAG = "tag:yaml.org,2002:"
_SCALAR_TAGS: dict[str, Callable[[str], Any]] = {
    f"{_TAG}str": str,
    f"{_TAG}int": _int,
    f"{_TAG}float": _float,
    f"{_TAG}bool": _bool,
    f"{_TAG}null": _null,
    f"{_TAG}binary": _binary,
}
# what OmegaConf.save makes of a path: nothing is called but Path
_PATH_TAGS = frozenset(
    f"{_TAG}python/object/apply:{module}.{kind}"
    for module in ("pathlib", "pathlib._local")
    for kind in ("Path", "PosixPath", "WindowsPath")
)
_MAPPING_TAGS = frozenset({None, "!", f"{_TAG}map"})
_SEQUENCE_TAGS = frozenset({None, "!", f"{_TAG}seq"}) | _PATH_TAGS
