"""Read YAML: OmegaConf's loader decides what a scalar means, and each key keeps its line.

Differences from `OmegaConf.load`: text with a colon (`12:30`) is text, no number to base 60; a key that is given twice
is an error whatever its type; size and depth are bounded.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from ... import yamlfile
from ...errors import ConfigError
from ..files.values import MAX_DEPTH, MAX_PARTS, TOO_DEEP, TOO_MANY, Document, fault, text_of
from ..layers import Path as Keys

_TAG = "tag:yaml.org,2002:"
_MERGE = f"{_TAG}merge"
_SCALARS = frozenset(f"{_TAG}{kind}" for kind in ("str", "int", "float", "bool", "null", "binary"))
_TEXTS = frozenset({f"{_TAG}str", f"{_TAG}value", _MERGE})
"""Text, `=`, and `<<` as a value."""
# what OmegaConf.save makes of a path: nothing is called but Path
_PATHS = frozenset(
    f"{_TAG}python/object/apply:{module}.{kind}"
    for module in ("pathlib", "pathlib._local")
    for kind in ("Path", "PosixPath", "WindowsPath")
)
_COLLECTIONS = frozenset({f"{_TAG}map", f"{_TAG}seq"}) | _PATHS
_CLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


_NESTING: dict[type, int] = {
    yaml.MappingStartEvent: 1,
    yaml.SequenceStartEvent: 1,
    yaml.MappingEndEvent: -1,
    yaml.SequenceEndEvent: -1,
}


def parse(data: bytes, path: Path) -> Document:
    """What `data`, the content of the file `path`, says.

    Raises
    ------
    ConfigError: it is broken, or made to harm; names the line.
    """
    text_of(data, path)
    try:
        _refuse_bombs(data, path)
        loader = _yaml_loader()(data)
        top = loader.get_single_node()
        if top is None:
            return Document({}, {})
        nodes = _Nodes(path, loader)
        if b"*" in data:  # without an alias, what the events were counted as is all there is
            nodes.measure(top)
        values = nodes.value(top, ())
    except yaml.reader.ReaderError as error:
        line = data.count(b"\n", 0, error.position) + 1
        raise fault(path, line, f"{error.reason} (0x{error.character:02x})") from error
    except yaml.MarkedYAMLError as error:
        raise _marked(error, data, path) from error
    if values is None:
        return Document({}, {})
    if not isinstance(values, dict):
        raise nodes.fault(top, f"must be a mapping; got {_shown(top)}", "write `key: value`")
    return Document(values, nodes.lines)


def _refuse_bombs(data: bytes, path: Path) -> None:
    # the composer builds by recursion in C, which deep nesting crashes: look at the flat stream of events first
    depth = 0
    events: Iterable[Any] = yaml.parse(data, Loader=_CLoader)
    for parts, event in enumerate(events):
        depth += _NESTING.get(type(event), 0)
        if depth > MAX_DEPTH or parts > 2 * MAX_PARTS:  # a collection has two events
            what = TOO_DEEP if depth > MAX_DEPTH else TOO_MANY
            raise fault(path, event.start_mark.line + 1, what)


@functools.cache
def _yaml_loader() -> Any:
    """OmegaConf's loader: it decides what a scalar means, except that text with a colon (`12:30`) is text."""
    from omegaconf.omegaconf import get_yaml_loader  # type: ignore[attr-defined]

    theirs: Any = get_yaml_loader()
    colon = (f"{_TAG}str", re.compile(".*:"))
    resolvers = {
        first: [colon, *rules] if first and first in "+-0123456789" else rules
        for first, rules in theirs.yaml_implicit_resolvers.items()
    }
    members = {"yaml_constructors": theirs.yaml_constructors, "yaml_implicit_resolvers": resolvers}
    return type("Loader", (_CLoader,), members)  # that of OmegaConf 2.3 is the slow one


def _marked(error: yaml.MarkedYAMLError, data: bytes, path: Path) -> ConfigError:
    what = ", ".join(text for text in (error.context, error.problem) if text)
    hint = "put text with special characters into quotes"
    last, mark = data.rstrip().count(b"\n") + 1, error.problem_mark
    if mark is None or mark.line >= last:  # what the end of the text cuts off
        return fault(path, last, what, hint)
    return fault(path, mark.line + 1, f"column {mark.column + 1}: {what}", hint)


class _Nodes:
    """The values of YAML nodes, and the lines of their keys."""

    def __init__(self, path: Path, loader: Any) -> None:
        self._path, self._loader = path, loader
        self._sizes: dict[yaml.Node, tuple[int, int] | None] = {}
        self.lines: dict[Keys, int] = {}

    def fault(self, node: yaml.Node, what: str, hint: str | None = None) -> ConfigError:
        return fault(self._path, node.start_mark.line + 1, what, hint)

    def measure(self, node: yaml.Node) -> tuple[int, int]:
        """How many parts a node has, and how deep it is, with all that aliases in it stand for.

        Raises
        ------
        ConfigError: too many, too deep, or it contains itself.
        """
        if node not in self._sizes:
            self._sizes[node] = None
            sizes = [self.measure(child) for child in _children(node)]
            parts = 1 + sum(size for size, _ in sizes)
            height = max((height for _, height in sizes), default=0) + (not isinstance(node, yaml.ScalarNode))
            if parts > MAX_PARTS:
                raise self.fault(node, f"{TOO_MANY}, with all that aliases stand for")
            if height > MAX_DEPTH:
                raise self.fault(node, TOO_DEEP)
            self._sizes[node] = parts, height
        size = self._sizes[node]
        if size is None:
            raise self.fault(node, "an alias stands for what contains it")
        return size

    def value(self, node: yaml.Node, keys: Keys | None) -> Any:
        """The value of a node at `keys`, whose lines are kept; None for one inside a list."""
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        if node.tag not in _COLLECTIONS:
            raise self.fault(node, f"the tag {node.tag[:80]} is not read", "write plain values")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, keys)
        items = [self.value(item, None) for item in node.value]
        if node.tag not in _PATHS:
            return items
        if not all(isinstance(item, str) for item in items):
            raise self.fault(node, f"a path cannot be made of {items!r:.80}")
        return Path(*items)

    def _mapping(self, node: yaml.MappingNode, keys: Keys | None) -> dict[Any, Any]:
        values: dict[Any, Any] = {}
        for key_node, part in node.value:
            if key_node.tag == _MERGE:
                values |= self._merged(part, keys)
        first: dict[Any, int] = {}
        for key_node, part in node.value:
            if key_node.tag == _MERGE:
                continue
            key = self._key(key_node)
            if key in first:
                what = f"key {key!r:.80} is given twice, first on line {first[key]}"
                raise self.fault(key_node, what, "remove one")
            first[key] = key_node.start_mark.line + 1
            here = None if keys is None else (*keys, key)
            if here is not None:
                self.lines[here] = first[key]
            values[key] = self.value(part, here)
        return values

    def _merged(self, node: yaml.Node, keys: Keys | None) -> dict[Any, Any]:
        """What `<<` stands for; of a list the first mapping wins."""
        values: dict[Any, Any] = {}
        for source in reversed(node.value) if isinstance(node, yaml.SequenceNode) else [node]:
            if not isinstance(source, yaml.MappingNode):
                what = f"<< takes a mapping or a list of mappings; got {_shown(source)}"
                raise self.fault(source, what)
            values |= self._mapping(source, keys)
        return values

    def _key(self, node: yaml.Node) -> Any:
        key = self._scalar(node) if isinstance(node, yaml.ScalarNode) else None
        if key is None:
            raise self.fault(node, f"a key cannot be {_shown(node)}", "write it in quotes")
        return key

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        if node.tag in _TEXTS:
            return node.value
        if node.tag not in _SCALARS:
            raise self.fault(node, f"the tag {node.tag[:80]} is not read", "write plain values")
        try:
            if node.tag == f"{_TAG}int" and len(node.value) > yamlfile.MAX_DIGITS:
                raise ValueError("too many digits")
            return self._loader.construct_object(node)
        except (ValueError, KeyError, IndexError, OverflowError) as error:
            kind = node.tag.removeprefix(_TAG)
            raise self.fault(node, f"not readable as {kind}: {node.value[:80]!r}") from error


def _children(node: yaml.Node) -> Iterable[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return itertools.chain.from_iterable(node.value)
    return node.value if isinstance(node, yaml.SequenceNode) else ()


def _shown(node: yaml.Node) -> str:
    if isinstance(node, yaml.ScalarNode):
        return "nothing (null)" if node.tag == f"{_TAG}null" else f"{node.value!r:.80}"
    return "a mapping" if isinstance(node, yaml.MappingNode) else "a list"
