"""Which numbers lie between two others, evenly or at random, and are the same on every machine?

Logarithms and powers are those of `decimal`, which are correctly rounded: those of C differ in the last digit from
one platform to another.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Context, Decimal
from fractions import Fraction
from itertools import pairwise
from typing import Any

from ...errors import ConfigError

_exactly = Context(prec=40)
_DIGITS = 6
"""Significant ones that a number is rounded to, so that it can be read and typed."""

_BITS = 64


@dataclass(frozen=True, slots=True)
class Uniform:
    low: float
    high: float

    def at(self, draw: int) -> float:
        share = Fraction(draw, 2**_BITS)
        value = Fraction(self.low) + (Fraction(self.high) - Fraction(self.low)) * share
        # relative to the width: of 1000 to 1001 six digits would leave a hundred numbers
        places = _DIGITS - Decimal(repr(self.high - self.low)).adjusted()
        return _within(self.low, float(round(value, places)), self.high)


@dataclass(frozen=True, slots=True)
class LogUniform:
    low: float
    high: float

    def at(self, draw: int) -> float:
        value = _between(self.low, self.high, Fraction(draw, 2**_BITS))
        return _within(self.low, _rounded(value, _DIGITS), self.high)


@dataclass(frozen=True, slots=True)
class Integers:
    low: int
    high: int

    def at(self, draw: int) -> int:
        return self.low + (draw * (self.high - self.low + 1) >> _BITS)


Space = Uniform | LogUniform | Integers
"""What values are drawn from: `at` gives the one that belongs to a number of 64 bits."""


def uniform(low: float, high: float) -> Uniform:
    """Any number between, all equally likely; rounded to a millionth of the width.

    Raises
    ------
    ConfigError: `low` is not below `high`.
    """
    _check_bounds("uniform", low, high)
    return Uniform(float(low), float(high))


def log_uniform(low: float, high: float) -> LogUniform:
    """Any number between, all orders of magnitude equally likely; rounded to six digits.

    Raises
    ------
    ConfigError: `low` is not below `high`, or not above 0.
    """
    _check_bounds("log_uniform", low, high)
    _check_positive("log_uniform", low, high)
    return LogUniform(float(low), float(high))


def integers(low: int, high: int) -> Integers:
    """Any whole number from `low` to `high`, both included, all equally likely.

    Raises
    ------
    ConfigError: `low` is above `high`, or one is no whole number.
    """
    if not all(isinstance(bound, int) for bound in (low, high)) or low > high or high - low >= 2**_BITS:
        raise ConfigError(f"integers({low!r}, {high!r}): needs two ints, the smaller first")
    return Integers(low, high)


def spaced(first: float, last: float, count: int) -> list[float]:
    """`count` numbers from `first` to `last`, both included, at equal distances.

    Raises
    ------
    ConfigError: there is no such number, or `count` is less than 1.

    >>> spaced(0, 1, 5), spaced(0.1, 0.3, 3)
    ([0.0, 0.25, 0.5, 0.75, 1.0], [0.1, 0.2, 0.3])
    """
    _check_numbers("spaced", first, last, count)
    low, high = Fraction(repr(float(first))), Fraction(repr(float(last)))  # 0.1 is a tenth
    return _steps(first, last, count, lambda share: _decimal(low + (high - low) * share))


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
    return _steps(first, last, count, lambda share: _between(first, last, share))


def _steps(first: float, last: float, count: int, at: Callable[[Fraction], Decimal]) -> list[float]:
    """Rounded to six digits, or to as many as keep them different and in order."""
    exact = [at(Fraction(i, count - 1)) for i in range(1, count - 1)]
    ends = [float(first), float(last)][: min(count, 2)]
    numbers: list[float] = []
    for digits in range(_DIGITS, 18):
        numbers = [ends[0], *(_rounded(value, digits) for value in exact), *ends[1:]]
        if all(a < b for a, b in pairwise(numbers)) or all(a > b for a, b in pairwise(numbers)):
            break
    return numbers


def _between(low: float, high: float, share: Fraction) -> Decimal:
    """The number that lies at this share of the way from `low` to `high`, as measured by logarithms."""
    start, end = (_exactly.ln(Decimal(repr(float(bound)))) for bound in (low, high))
    way = _exactly.multiply(_exactly.subtract(end, start), _decimal(share))
    return _exactly.exp(_exactly.add(start, way))


def _decimal(value: Fraction) -> Decimal:
    return _exactly.divide(Decimal(value.numerator), Decimal(value.denominator))


def _rounded(value: Decimal, digits: int) -> float:
    return float(Context(prec=digits).plus(value))


def _within(low: float, value: float, high: float) -> float:
    return min(max(low, value), high)


def _check_bounds(name: str, low: float, high: float) -> None:
    if not _is_number(low) or not _is_number(high) or not low < high or not math.isfinite(high - low):
        raise ConfigError(f"{name}({low!r}, {high!r}): needs two numbers, the smaller first")


def _check_numbers(name: str, first: float, last: float, count: int) -> None:
    if not _is_number(first) or not _is_number(last) or not isinstance(count, int) or count < 1:
        raise ConfigError(f"{name}({first!r}, {last!r}, {count!r}): needs two numbers and a count")


def _check_positive(name: str, *bounds: float) -> None:
    if min(bounds) <= 0:
        raise ConfigError(f"{name}{bounds!r}: both numbers must be above 0")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)
