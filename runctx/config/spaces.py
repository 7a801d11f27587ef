"""Numbers between two others: evenly spaced, or drawn at random.

They are computed in decimal numbers and rounded to what a person would write. So 0.2 lies between 0.1 and 0.3, and
every machine gives the same digits: logarithms and powers of C differ in the last one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Context, Decimal
from itertools import pairwise
from typing import Any, Literal

from ..errors import ConfigError

_EXACT = Context(prec=40)
_DIGITS = 6
"""Significant digits of a number, so that it can be read and typed."""
_BITS = 64
"""Of the random number that belongs to a draw."""


@dataclass(frozen=True, slots=True)
class Space:
    """What values are drawn from."""

    kind: Literal["uniform", "log_uniform", "integers"]
    low: float
    high: float

    def at(self, draw: int) -> float:
        """The value that belongs to a random number of 64 bits."""
        if self.kind == "integers":
            return int(self.low) + (draw * int(self.high - self.low + 1) >> _BITS)
        if self.kind == "log_uniform":
            value = _rounded(_multiplied(self.low, self.high, draw, 2**_BITS), _DIGITS)
        else:
            # relative to the width: of 1000 to 1001 six digits would leave a hundred numbers
            places = _DIGITS - Decimal(repr(self.high - self.low)).adjusted()
            value = float(round(_added(self.low, self.high, draw, 2**_BITS), places))
        return min(max(self.low, value), self.high)


def uniform(low: float, high: float) -> Space:
    """Any number between, all equally likely; rounded to a millionth of the width.

    Raises
    ------
    ConfigError: `low` is not below `high`.
    """
    return _bounded("uniform", low, high)


def log_uniform(low: float, high: float) -> Space:
    """Any number between, all orders of magnitude equally likely; rounded to six digits.

    Raises
    ------
    ConfigError: `low` is not below `high`, or not above 0.
    """
    space = _bounded("log_uniform", low, high)
    _check_positive("log_uniform", low, high)
    return space


def integers(low: int, high: int) -> Space:
    """Any whole number from `low` to `high`, both included, all equally likely.

    Raises
    ------
    ConfigError: `low` is above `high`, or one is no whole number.
    """
    if not all(isinstance(bound, int) for bound in (low, high)) or low > high or high - low >= 2**_BITS:
        raise ConfigError(f"integers({low!r}, {high!r}): needs two ints, the smaller first")
    return Space("integers", low, high)


def spaced(first: float, last: float, count: int) -> list[float]:
    """`count` numbers from `first` to `last`, both included, at equal distances.

    Raises
    ------
    ConfigError: there is no such number, or `count` is less than 1.

    >>> spaced(0, 1, 5), spaced(0.1, 0.3, 3)
    ([0.0, 0.25, 0.5, 0.75, 1.0], [0.1, 0.2, 0.3])
    """
    _check_numbers("spaced", first, last, count)
    return _steps(_added, first, last, count)


def log_spaced(first: float, last: float, count: int) -> list[float]:
    """`count` numbers from `first` to `last`, both included, each the same multiple of the one before.

    Raises
    ------
    ConfigError: there is no such number, a bound is not above 0, or `count` is less than 1.

    >>> log_spaced(1e-4, 0.1, 4), log_spaced(1, 10, 3)
    ([0.0001, 0.001, 0.01, 0.1], [1.0, 3.16228, 10.0])
    """
    _check_numbers("log_spaced", first, last, count)
    _check_positive("log_spaced", first, last)
    return _steps(_multiplied, first, last, count)


def _steps(between: Callable[..., Decimal], first: float, last: float, count: int) -> list[float]:
    """Rounded to six digits, or to as many as keep them different and in order."""
    inner = [between(first, last, i, count - 1) for i in range(1, count - 1)]
    numbers: list[float] = []
    for digits in range(_DIGITS, 18):
        numbers = [float(first), *(_rounded(value, digits) for value in inner), float(last)][:count]
        if all(a < b for a, b in pairwise(numbers)) or all(a > b for a, b in pairwise(numbers)):
            break
    return numbers


def _added(low: float, high: float, part: int, of: int) -> Decimal:
    """The number after `part` of so many equal distances. 0.1 is a tenth here."""
    start, end = Decimal(repr(float(low))), Decimal(repr(float(high)))
    return _EXACT.divide(_EXACT.fma(end, part, _EXACT.multiply(start, of - part)), of)


def _multiplied(low: float, high: float, part: int, of: int) -> Decimal:
    """The number after `part` of so many equal multiples."""
    start, end = Decimal(repr(float(low))), Decimal(repr(float(high)))
    return _EXACT.multiply(start, _EXACT.power(_EXACT.divide(end, start), _EXACT.divide(part, of)))


def _rounded(value: Decimal, digits: int) -> float:
    return float(Context(prec=digits).plus(value))


def _bounded(kind: Literal["uniform", "log_uniform"], low: float, high: float) -> Space:
    if not _is_number(low) or not _is_number(high) or not low < high or not math.isfinite(high - low):
        raise ConfigError(f"{kind}({low!r}, {high!r}): needs two numbers, the smaller first")
    return Space(kind, float(low), float(high))


def _check_numbers(name: str, first: float, last: float, count: int) -> None:
    if not _is_number(first) or not _is_number(last) or not isinstance(count, int) or count < 1:
        raise ConfigError(f"{name}({first!r}, {last!r}, {count!r}): needs two numbers and a count")


def _check_positive(name: str, *bounds: float) -> None:
    if min(bounds) <= 0:
        raise ConfigError(f"{name}{bounds!r}: both numbers must be above 0")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)
