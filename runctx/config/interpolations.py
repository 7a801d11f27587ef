"""Interpolations in texts: the keys that `${...}` reads, and the operators that `${mul:...}` calls."""

from __future__ import annotations

import functools
import graphlib
import itertools
import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from omegaconf import Node, OmegaConf, UnionNode
from omegaconf.errors import GrammarParseError, InterpolationResolutionError
from omegaconf.grammar_parser import parse

from ..errors import ConfigError
from .layers import Path, dotted
from .messages import short

_MOST = 1_000
"""Interpolations in one text: OmegaConf needs a millisecond for each."""


class DerivationError(ConfigError, InterpolationResolutionError):
    """A value cannot be computed from others."""

    _initialized = True  # tells OmegaConf that the message is complete
    is_located = True
    """Whether the message says in which file the fault is."""


def error_at(node: Any, message: str, hint: str | None = None) -> DerivationError:
    """An error of an interpolation at a node; whoever knows the layers adds the file."""
    error = DerivationError(f"config key {dotted(path_of(node))}: {message}", hint)
    error.is_located, error.full_key = False, node._get_full_key(None)
    return error


def failure_of(error: BaseException) -> BaseException | None:
    """The error of the function that failed; OmegaConf 2.3 takes the cause of what passes through it."""
    is_ours = isinstance(error, DerivationError) and error.is_located
    return error.__cause__ or (error.__context__ if is_ours else None)


def path_of(node: Any) -> Path:
    """The keys that lead to a node."""
    keys: list[Any] = []
    while (parent := node._get_parent_container()) is not None:
        keys.append(node._key())
        node = parent
    return tuple(reversed(keys))


def node_at(config: Any, path: Path) -> Any:
    """The node that these keys lead to, as it is."""
    for key in path:
        config = config._get_node(key)
    return config


def children_of(node: Any) -> Iterator[tuple[Any, Any]]:
    """Keys and nodes directly in a container, as they are: not where interpolations lead."""
    content = node.__dict__.get("_content")
    pairs = (
        content.items()
        if isinstance(content, dict)
        else enumerate(content)
        if type(content) in (list, tuple)
        else ()
    )
    for key, child in pairs:
        if isinstance(child, UnionNode) and isinstance(child.__dict__["_content"], Node):
            child = child.__dict__["_content"]
        yield key, child


def nodes_in(node: Any) -> Iterator[Any]:
    """Every node in a container, each before those in it."""
    for _, child in children_of(node):
        yield child
        if "_content" in child.__dict__:
            yield from nodes_in(child)


_INTERPOLATION = re.compile(r"(\\*)\$\{")


def escaped(value: Any) -> Any:
    """Resolved values as they are written: a literal `${` must not be read back as an interpolation."""
    if isinstance(value, str):
        return _INTERPOLATION.sub(lambda m: m[1] * 2 + r"\${", value) if "${" in value else value
    if isinstance(value, dict):
        return {k: escaped(v) for k, v in value.items()}
    return [escaped(v) for v in value] if isinstance(value, list) else value


# -- what they read ----------------------------------------------------------------------------------------


class Reference(NamedTuple):
    """What one interpolation in a text names: the `..opt.lr` of `${..opt.lr}`."""

    start: int
    """Where in the text it begins."""
    dots: int
    """How many containers it goes up; 0 for the root."""
    keys: tuple[str | None, ...]
    """None for a key that is computed itself: that of `${models.${name}}`."""


_TAKE_A_KEY = ("oc.select", "oc.deprecated", "oc.dict.keys", "oc.dict.values")
"""Resolvers whose first argument is the key of a value."""


@functools.lru_cache(4096)
def references(text: str) -> tuple[Reference, ...]:
    """What the interpolations in `text` name, also those within others, from left to right.

    None where OmegaConf cannot read the text: resolving it says why.

    >>> references("${mul:${.width},${sizes[0]}}")
    (Reference(start=8, dots=1, keys=('width',)), Reference(start=18, dots=0, keys=('sizes', '0')))
    """
    if not 0 < text.count("${") <= _MOST:
        return ()
    try:
        return tuple(sorted(_found(parse(text)), key=lambda reference: reference.start))
    except (GrammarParseError, RecursionError):
        return ()


def _found(tree: Any) -> Iterator[Reference]:
    kind, count = type(tree).__name__, tree.getChildCount()
    if kind == "InterpolationNodeContext":
        parts = [tree.getChild(i) for i in range(1, count - 1)]  # without ${ and }
        texts = [part.getText() for part in parts]
        dots = len(list(itertools.takewhile(".".__eq__, texts)))
        keys = [text for text in texts if text not in (".", "[", "]")]
        first = getattr(parts[0], "symbol", None) or parts[0].start
        yield Reference(first.start, dots, tuple(None if "${" in key else _unescaped(key) for key in keys))
    elif kind == "InterpolationResolverContext" and tree.getChild(1).getText() in _TAKE_A_KEY:
        yield from _argument(tree.getChild(3))
    for i in range(count):
        yield from _found(tree.getChild(i))


def _unescaped(key: str) -> str:
    return re.sub(r"\\([\\.\[\]:=])", r"\1", key)


def _argument(sequence: Any) -> Iterator[Reference]:
    """The key that is the first argument of a resolver, if it is written out."""
    if type(sequence).__name__ == "SequenceContext":
        text = sequence.getText().split(",")[0]
        key = text.strip("'\"")
        if re.fullmatch(r"[\w$@%+*?|/.\[\]-]+", key):
            dots = len(key) - len(key.lstrip("."))
            start = sequence.start.start + text.index(key)
            yield Reference(start, dots, tuple(re.findall(r"[^.\[\]]+", key)))


def rebound(text: str, own: frozenset[str], depth: int) -> str:
    """`text`, at that depth of a tree, whose references to the tree's `own` top-level keys have become relative.

    >>> rebound("${width} ${.width} ${other}", frozenset({"width"}), 2)
    '${..width} ${.width} ${other}'
    """
    for start, dots, keys in reversed(references(text)):
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
    for path, text in texts_in(values):
        if dotted(path) not in computed and (found := references(text)):
            read = (_target(reference, path, values) for reference in found)
            needs[dotted(path)] = tuple(dict.fromkeys(dotted(one) for one in read if one))
    return needs


def texts_in(value: Any, path: Path = ()) -> Iterator[tuple[Path, str]]:
    """The texts with interpolations, and the keys that lead to them."""
    if isinstance(value, str):
        if "${" in value:
            yield path, value
    elif isinstance(value, (dict, list, tuple)):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from texts_in(part, (*path, key))


def _target(reference: Reference, path: Path, values: Any) -> Path:
    """The path that a reference at `path` names; up to a key that is computed, or a value that leads elsewhere."""
    target: Path = path[: max(0, len(path) - reference.dots)] if reference.dots else ()
    here = values
    for key in target:
        here = here[key]
    for name in reference.keys:
        parts = here if isinstance(here, dict) else dict(enumerate(here if isinstance(here, list) else ()))
        key = name if name in parts else next((key for key in parts if str(key) == name), None)
        if key is None:
            break
        target, here = (*target, key), parts[key]
    return target


def cycle(needs: Mapping[str, tuple[str, ...]], first: str | None = None) -> list[str] | None:
    """Keys of which each reads the next, and the last is the first again; beginning with `first` if that is one."""
    try:
        graphlib.TopologicalSorter(needs).prepare()
        return None
    except graphlib.CycleError as error:
        keys: list[str] = error.args[1][:0:-1]  # there each is read by the next
    start = keys.index(first) if first in keys else 0
    return [*keys[start:], *keys[:start], keys[start]]


def cycle_message(keys: list[str]) -> tuple[str, str]:
    """Message and hint of an error."""
    return f"config keys are computed from each other: {' -> '.join(keys)}", "give one of them a value"


# -- operators ---------------------------------------------------------------------------------------------


def register(name: str, resolver: Callable[..., Any]) -> None:
    """Let `${name:...}` call `resolver`, unless somebody else has that name already."""
    if not OmegaConf.has_resolver(name):
        _register(name, resolver)


# `register_new_resolver` is deprecated in 2.4, and what 2.3 calls `register_resolver` is older and passes texts only:
# that of 2.4 has options
_register: Callable[..., None] = (
    OmegaConf.register_resolver
    if getattr(getattr(OmegaConf, "register_resolver", None), "__kwdefaults__", None)
    else OmegaConf.register_new_resolver
)

_LARGEST = 2**1024
"""What integers stay below, as floats do: a text of a few bytes must not keep a machine busy."""


def _power(base: Any, exponent: Any) -> Any:
    if isinstance(base, int) and isinstance(exponent, int) and abs(base) > 1 and exponent > 1024:
        raise OverflowError("the result is too large")
    result = base**exponent
    if isinstance(result, complex):
        raise ValueError("a root of a negative number")
    return result


def _round(number: Any, *digits: Any) -> Any:
    # beyond all digits of an integer, 10**-digits would be computed for the same 0
    return round(number, *(max(n, -10_000) if isinstance(n, int) else n for n in digits))


OPERATORS: dict[str, tuple[Callable[..., Any], int, int | None]] = {
    "add": (lambda *numbers: sum(numbers[1:], numbers[0]), 2, None),
    "sub": (operator.sub, 2, 2),
    "mul": (lambda *numbers: math.prod(numbers[1:], start=numbers[0]), 2, None),
    "div": (operator.truediv, 2, 2),
    "floordiv": (operator.floordiv, 2, 2),
    "mod": (operator.mod, 2, 2),
    "pow": (_power, 2, 2),
    "neg": (operator.neg, 1, 1),
    "abs": (abs, 1, 1),
    "min": (lambda *numbers: min(numbers), 1, None),
    "max": (lambda *numbers: max(numbers), 1, None),
    "round": (_round, 1, 2),
    "floor": (math.floor, 1, 1),
    "ceil": (math.ceil, 1, 1),
}
"""Name -> what Python does, and how many numbers it takes: at least, at most."""

_CALL = re.compile(r"\$\{\s*([a-z]+)\s*:")


def provide(values: Any) -> None:
    """Register the operators that `values`, nested plain data, call.

    Others keep their names: `mul` is a common one, and OmegaConf lets nobody register a name that is taken.

    Raises
    ------
    ConfigError: a text has more interpolations than OmegaConf reads in bearable time.
    """
    for _, text in texts_in(values):
        if text.count("${") > _MOST:
            raise ConfigError(f"more than {_MOST} interpolations in one text: {short(str(text))}")
        for name in OPERATORS.keys() & _CALL.findall(text):
            register(name, _resolver(name, *OPERATORS[name]))


def _resolver(name: str, function: Callable[..., Any], least: int, most: int | None) -> Callable[..., Any]:
    def compute(*operands: Any, _node_: Any) -> Any:
        try:
            _check(operands, least, most)
            result = function(*operands)
            if isinstance(result, int) and abs(result) >= _LARGEST:
                raise OverflowError("the result is too large")
            return result
        except (ArithmeticError, TypeError, ValueError) as error:
            raise error_at(_node_, f"{name}({', '.join(map(short, operands))}): {error}") from None

    return compute


def _check(operands: tuple[Any, ...], least: int, most: int | None) -> None:
    for operand in operands:
        if isinstance(operand, bool) or not isinstance(operand, (int, float)):
            raise TypeError(f"{short(operand)} is not a number")
    if len(operands) < least or (most is not None and len(operands) > most):
        wanted = f"{least}" if least == most else f"{least} or more" if most is None else f"{least} to {most}"
        raise TypeError(f"takes {wanted} numbers; got {len(operands)}")
