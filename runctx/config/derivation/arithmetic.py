"""What do `${mul:${batch_size},0.01}` and its like give?

The operators are registered when a configuration that calls them comes to us, and only those that nobody else has
registered: `mul` is a common name, and OmegaConf lets nobody register a name that is taken.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterator
from typing import Any

from ...errors import ConfigError
from ..layers import dotted
from ..messages import short
from . import resolvers
from .evaluation import DerivationError, path_of

_LARGEST = 2**1024
"""What integers stay below, as floats do: a text of a few bytes must not keep a machine busy."""


def _power(base: Any, exponent: Any) -> Any:
    whole = isinstance(base, int) and isinstance(exponent, int)
    if whole and abs(base) > 1 and exponent * (abs(base).bit_length() - 1) >= _LARGEST.bit_length():
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


def provide(values: Any) -> None:
    """Register the operators that `values`, nested plain data, call.

    Raises
    ------
    ConfigError: a text has more interpolations than OmegaConf, at a millisecond for each, reads in bearable time.
    """
    called = set()
    for text in _texts(values):
        called.update(_CALL.findall(text))
        if text.count("${") > _MOST_INTERPOLATIONS:
            raise ConfigError(
                f"more than {_MOST_INTERPOLATIONS} interpolations in one text: {short(str(text))}"
            )
    for name in called & OPERATORS.keys():
        resolvers.register(name, _resolver(name))


_MOST_INTERPOLATIONS = 1_000
_CALL = re.compile(r"\$\{\s*([a-z]+)\s*:")


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        if "${" in value:
            yield value
    elif isinstance(value, (dict, list, tuple)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _texts(part)


def _resolver(name: str) -> Callable[..., Any]:
    function, least, most = OPERATORS[name]

    def compute(*operands: Any, _node_: Any) -> Any:
        try:
            _check(operands, least, most)
            result = function(*operands)
            if isinstance(result, int) and abs(result) >= _LARGEST:
                raise OverflowError("the result is too large")
            return result
        except (ArithmeticError, TypeError, ValueError) as error:
            call = f"{name}({', '.join(map(short, operands))})"
            fault = DerivationError(f"config key {dotted(path_of(_node_))}: {call}: {error}")
            fault.is_located, fault.full_key = False, _node_._get_full_key(None)
            raise fault from None

    return compute


def _check(operands: tuple[Any, ...], least: int, most: int | None) -> None:
    for operand in operands:
        if isinstance(operand, bool) or not isinstance(operand, (int, float)):
            raise TypeError(f"{short(operand)} is not a number")
    if len(operands) < least or (most is not None and len(operands) > most):
        wanted = f"{least}" if least == most else f"{least} or more" if most is None else f"{least} to {most}"
        raise TypeError(f"takes {wanted} numbers; got {len(operands)}")
