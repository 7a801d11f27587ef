"""Which values stand beside an axis in a terminal, and how are they written?"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

_DAY = 86_400
_UNITS = ((_DAY, "days"), (3_600, "hours"), (60, "minutes"), (1, "seconds"))
_FORMS = (
    (10, "%H:%M:%S.%f", 10),
    (600, "%H:%M:%S", None),
    (_DAY, "%H:%M", None),
    (300 * _DAY, "%m-%d %H:%M", None),
    (math.inf, "%Y-%m-%d", None),
)
"""Up to which span of time a moment is written how, and cut after how many letters."""


class Tick(NamedTuple):
    value: float
    text: str


def widened(low: float, high: float) -> tuple[float, float]:
    """Limits of an axis that shows these values and something around a single one.

    >>> widened(2.0, 2.0)
    (1.9, 2.1)
    """
    size = max(abs(low), abs(high))
    if high - low > 1e-12 * size and high - low > 1e-290:
        return low, high
    margin = max(0.05 * size, 1e-280) if size > 1e-290 else 1.0
    return max(low - margin, -sys.float_info.max), min(high + margin, sys.float_info.max)


def numbers(low: float, high: float, most: int, *, whole: bool = False) -> list[Tick]:
    """Multiples of 1, 2 or 5 times a power of ten, at most `most` + 1 of them.

    >>> [tick.text for tick in numbers(0.0, 0.93, 5)]
    ['0.0', '0.2', '0.4', '0.6', '0.8']
    """
    rough = high / max(most, 1) - low / max(most, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next((power * times for times in (1, 2, 5) if power * times >= rough), power * 10)
    step = max(step, 1.0) if whole else step
    values = [step * i for i in range(math.ceil(low / step), math.floor(high / step) + 1)]
    return [Tick(value, text) for value, text in zip(values, written(values, step), strict=True)]


def powers(low: float, high: float, most: int) -> list[Tick]:
    """Of a logarithmic axis, whose limits are exponents of ten; the values of the ticks are exponents, too.

    >>> powers(-3.0, 0.5, 5)
    [Tick(value=-3, text='1e-3'), Tick(value=-2, text='1e-2'), Tick(value=-1, text='1e-1'), Tick(value=0, text='1e0')]
    """
    every = max(1, math.ceil((high - low) / max(most, 1)))
    exponents = [n for n in range(math.ceil(low), math.floor(high) + 1) if n % every == 0]
    if len(exponents) > 1:
        return [Tick(n, f"1e{n}") for n in exponents]
    # less than two powers: round numbers between, as closely as they differ
    return [
        Tick(math.log10(tick.value), tick.text)
        for tick in numbers(10**low, 10 ** min(high, 308.25), most)
        if tick.value > 0
    ]


def moments(low: float, high: float, most: int) -> list[Tick]:
    """Of seconds since 1970, in local time; at equal distances."""
    form, cut = next((form, cut) for span, form, cut in _FORMS if high - low < span)
    values = [low + (high - low) * i / most for i in range(most + 1)]
    return [Tick(value, f"{datetime.fromtimestamp(value):{form}}"[:cut]) for value in values]


def unit(seconds: float) -> tuple[int, str]:
    """In which a duration is told: its length in seconds, and its name.

    >>> unit(7200.0)
    (60, 'minutes')
    """
    return next(((size, name) for size, name in _UNITS if seconds >= 3 * size), (1, "seconds"))


def written(values: Sequence[float], step: float) -> list[str]:
    """With as many digits as tell them apart."""
    size = max(map(abs, values), default=0.0)
    if size >= 1e6 or 0 < size < 1e-3:
        digits = max(0, math.ceil(math.log10(size / step)) if size else 0)
        return [f"{value:.{min(digits, 15)}e}" if value else "0" for value in values]
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return [f"{value:.{decimals}f}" for value in values]
