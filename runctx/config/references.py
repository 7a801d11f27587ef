"""Which keys does an interpolation read, and how is it written so that it reads those of its own tree?"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from omegaconf import grammar_parser


class Reference(NamedTuple):
    """A node interpolation in a text: `${..opt.lr}`."""

    start: int
    """Position of its first dot or key."""
    dots: int
    """How far up it starts; 0 at the root."""
    keys: tuple[str, ...] | None
    """The keys it names; None if a key is itself computed."""
    first: str | None
    """The first key, if that is not computed."""


_KEY = r"[^\s.:\[\]{}$,=\\'\"]+"
_NODE = re.compile(rf"\$\{{\s*(\.*)((?:{_KEY}|\[{_KEY}\])(?:\.{_KEY}|\[{_KEY}\])*)\s*\}}")
_CALL = re.compile(r"\$\{\s*[A-Za-z_][\w.-]*\s*:")
_STEP = re.compile(_KEY)


def references(text: str) -> list[Reference]:
    """The node interpolations in `text`, inner ones of others too; in the order of their positions."""
    if "\\" in text or "'" in text or '"' in text:
        return _parsed(text)
    found = []
    at = text.find("${")
    while at >= 0:
        if node := _NODE.match(text, at):
            keys = tuple(_STEP.findall(node[2]))
            found.append(Reference(node.start(1), len(node[1]), keys, keys[0]))
        elif not _CALL.match(text, at):
            return _parsed(text)
        at = text.find("${", at + 2)
    return found


def _parsed(text: str) -> list[Reference]:
    tree = grammar_parser.parse(text)
    return sorted(_walk(tree))


def _walk(tree: Any) -> Iterator[Reference]:
    if type(tree).__name__ == "InterpolationNodeContext":
        yield _reference(tree)
    for i in range(tree.getChildCount()):
        yield from _walk(tree.getChild(i))


def _reference(node: Any) -> Reference:
    dots, keys, start = 0, [], None
    for i in range(1, node.getChildCount() - 1):
        child = node.getChild(i)
        symbol = getattr(child, "symbol", None)
        if start is None:
            start = symbol.start if symbol else child.start.start
        if symbol is None:
            literal = type(child.getChild(0)).__name__ != "InterpolationContext"
            keys.append(re.sub(r"\\([\\.\[\]:=])", r"\1", child.getText()) if literal else None)
        elif symbol.text == "." and not keys:
            dots += 1
    names = tuple(k for k in keys if k is not None)
    assert start is not None
    return Reference(start, dots, names if len(names) == len(keys) else None, keys[0] if keys else None)


def rebound(text: str, own: frozenset[str], dots: int) -> str:
    """`text`, in which absolute references to `own` keys have become relative: `dots` lead to the mapping of these."""
    for reference in reversed(references(text)):
        if reference.dots == 0 and reference.first in own:
            text = text[: reference.start] + "." * dots + text[reference.start :]
    return text
