"""Which keys do the interpolations of a configuration read?"""

from __future__ import annotations

import graphlib
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from omegaconf.errors import GrammarParseError
from omegaconf.grammar_parser import parse

from ..layers import Path, dotted


class Reference(NamedTuple):
    """What one interpolation in a text names: the `..opt.lr` of `${..opt.lr}`."""

    start: int
    """Where in the text it begins."""
    dots: int
    """How many containers it goes up; 0 for the root."""
    keys: tuple[str | None, ...]
    """None for a key that is computed itself: that of `${models.${name}}`."""


# Nearly all interpolations are plain, and OmegaConf's parser needs 0.1 ms for each.
_KEY = r"[\w$@%+*?|/-]+"
_KEYS = rf"(?:{_KEY}|\[{_KEY}\])(?:\.{_KEY}|\[{_KEY}\])*"
_NODE = re.compile(rf"\$\{{\s*((\.*)({_KEYS}))\s*\}}", re.ASCII)
_CALL = re.compile(r"\$\{\s*[A-Za-z_]\w*\s*:", re.ASCII)  # a name with a point may be one of _TAKE_A_KEY
_EACH = re.compile(_KEY, re.ASCII)

_TAKE_A_KEY = {"oc.select", "oc.deprecated", "oc.dict.keys", "oc.dict.values"}
"""Resolvers whose first argument is the key of a value."""


def references(text: str) -> list[Reference]:
    """What the interpolations in `text` name, also those within others, from left to right.

    Raises
    ------
    GrammarParseError: OmegaConf does not read `text` either.

    >>> references("${mul:${.width},${sizes[0]}}")
    [Reference(start=8, dots=1, keys=('width',)), Reference(start=18, dots=0, keys=('sizes', '0'))]
    """
    if "'" in text or '"' in text or "\\" in text:
        return _parsed(text)
    found = []
    at = text.find("${")
    while at >= 0:
        if node := _NODE.match(text, at):
            found.append(Reference(node.start(1), len(node[2]), tuple(_EACH.findall(node[3]))))
        elif not _CALL.match(text, at):
            return _parsed(text)
        at = text.find("${", at + 2)
    return found


def _parsed(text: str) -> list[Reference]:
    return sorted(_walk(parse(text)), key=lambda reference: reference.start) if "${" in text else []


def _walk(tree: Any) -> Iterator[Reference]:
    kind = type(tree).__name__
    if kind == "InterpolationNodeContext":
        yield _node_reference(tree)
    elif kind == "InterpolationResolverContext" and tree.getChild(1).getText() in _TAKE_A_KEY:
        yield from _argument_reference(tree.getChild(3))
    for i in range(tree.getChildCount()):
        yield from _walk(tree.getChild(i))


def _node_reference(tree: Any) -> Reference:
    dots, keys, start = 0, [], -1
    for i in range(1, tree.getChildCount() - 1):  # without ${ and }
        child = tree.getChild(i)
        symbol = getattr(child, "symbol", None)
        if start < 0:
            start = symbol.start if symbol else child.start.start
        if symbol is None:
            is_computed = child.getText().startswith("${")
            keys.append(None if is_computed else re.sub(r"\\([\\.\[\]:=])", r"\1", child.getText()))
        elif symbol.text == "." and not keys:
            dots += 1
    return Reference(start, dots, tuple(keys))


_ARGUMENT = re.compile(rf"(?P<quote>['\"]?)(?P<all>(\.*)({_KEYS}))(?P=quote)", re.ASCII)


def _argument_reference(sequence: Any) -> Iterator[Reference]:
    if type(sequence).__name__ != "SequenceContext":
        return
    first = sequence.getChild(0)
    if argument := _ARGUMENT.fullmatch(first.getText()):
        start = first.start.start + argument.start("all")
        yield Reference(start, len(argument[3]), tuple(_EACH.findall(argument[4])))


def rebound(text: str, own: frozenset[str], depth: int) -> str:
    """`text`, at that depth of a tree, whose references to the tree's `own` top-level keys have become relative.

    >>> rebound("${width} ${.width} ${other}", frozenset({"width"}), 2)
    '${..width} ${.width} ${other}'
    """
    if "${" not in text:
        return text
    try:
        found = references(text)
    except (GrammarParseError, RecursionError):
        return text  # whoever resolves it tells
    for start, dots, keys in reversed(found):
        if dots == 0 and keys[0] in own:
            text = text[:start] + "." * depth + text[start:]
    return text


def needs_of(values: Any, computed: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """Key -> the keys it is computed from, of all values that are computed.

    Parameters
    ----------
    values: of the whole configuration, not resolved.
    computed: the same of derived values, whose functions alone know.
    """
    needs = dict(computed)
    for path, text in _texts(values, ()):
        key = dotted(path)
        if key in computed:
            continue
        try:
            found = references(text)
        except (GrammarParseError, RecursionError):
            continue
        if found:
            read = (_meant(reference, path, values) for reference in found)
            needs[key] = tuple(dict.fromkeys(dotted(p) for p in read if p))
    return needs


def _texts(value: Any, path: Path) -> Iterator[tuple[Path, str]]:
    if isinstance(value, str):
        if "${" in value:
            yield path, value
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from _texts(part, (*path, key))
    elif isinstance(value, (list, tuple)):
        for i, part in enumerate(value):
            yield from _texts(part, (*path, i))


def _meant(reference: Reference, path: Path, values: Any) -> Path:
    """The path that a reference at `path` names; up to a key that is computed, or a value that leads elsewhere."""
    meant: Path = path[: max(0, len(path) - reference.dots)] if reference.dots else ()
    here = values
    for key in meant:
        here = here[key]
    for name in reference.keys:
        if isinstance(here, dict):
            key = next((k for k in (name, *here) if str(k) == name and k in here), None)
        else:
            key = int(name) if isinstance(here, list) and name and name.isdecimal() else None
        if key is None or (isinstance(here, list) and key >= len(here)):
            break
        meant, here = (*meant, key), here[key]
    return meant


def cycle(needs: Mapping[str, tuple[str, ...]], first: str | None = None) -> list[str] | None:
    """Keys of which each reads the next, and the last is the first again; beginning with `first` if that is one."""
    try:
        graphlib.TopologicalSorter(needs).prepare()
        return None
    except graphlib.CycleError as error:
        keys: list[str] = error.args[1][:0:-1]  # there each is read by the next
    start = keys.index(first) if first in keys else 0
    return [*keys[start:], *keys[:start], keys[start]]
