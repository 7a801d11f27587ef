"""Prepare the points of curves for a picture: smoothed, and thinned out so that no spike is lost."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]

LEAST = 1e-300
"""What is smaller has no place on a logarithmic axis."""


def drawable(y: Numbers, log: bool = False) -> Numbers:
    """NaN in place of what has no place on the axis.

    >>> drawable(np.array([1.0, np.inf, -2.0]), log=True).tolist()
    [1.0, nan, nan]
    """
    with np.errstate(invalid="ignore"):
        return np.where(np.isfinite(y) & ((y > LEAST) | (not log)), y, np.nan)


def smoothed(y: Numbers, weight: float) -> Numbers:
    """Exponential moving average, without the pull towards zero that it has at its start.

    Parameters
    ----------
    weight: of what was before, from 0 to less than 1. NaN stays, and is passed over.

    >>> smoothed(np.array([4.0, 4.0, np.nan, 1.0]), 0.5).round(2).tolist()
    [4.0, 4.0, nan, 2.29]
    """
    if not weight:
        return y
    told, mean, share = y.copy(), 0.0, 0.0
    there = np.flatnonzero(~np.isnan(y)).tolist()
    for i, value in zip(there, y[there].tolist(), strict=True):
        mean = weight * mean + (1 - weight) * value
        share = weight * share + (1 - weight)
        told[i] = mean / share
    if there:
        told.clip(y[there].min(), y[there].max(), out=told)  # the largest numbers are rounded to infinities
    return told


def thinned(x: Numbers, y: Numbers, columns: int) -> tuple[Numbers, Numbers]:
    """At most four points in each of `columns` equal parts of the way: the first, the last, the lowest, the highest.

    A part without numbers keeps one NaN, where the curve is interrupted. Few points stay as they are.

    Parameters
    ----------
    x: rising. y: as long.
    """
    if len(x) <= 4 * columns:
        return x, y
    part = (columns * places(x, float(x[0]), float(x[-1]))).astype(np.int64).clip(0, columns - 1)
    there = np.flatnonzero(~np.isnan(y))
    of = part[there]
    first = np.flatnonzero(np.diff(of, prepend=-1))
    last = np.flatnonzero(np.diff(of, append=columns))
    by_height = np.lexsort((y[there], of))  # in each part from the lowest to the highest
    kept = np.concatenate((first, last, by_height[first], by_height[last]))
    empty, where = np.unique(part, return_index=True)
    gaps = where[~np.isin(empty, of)]
    chosen = np.unique(np.concatenate((there[kept], gaps)))
    return x[chosen], y[chosen]


def places(values: Numbers, low: float, high: float) -> Numbers:
    """Where values lie between `low`, which is 0, and `high`, which is 1.

    >>> places(np.array([1.0, 2.0]), 1.0, 3.0).tolist()
    [0.0, 0.5]
    """
    if not math.isfinite(high - low):
        values, low, high = values / 2, low / 2, high / 2
    return (values - low) / (high - low) if high > low else np.full(len(values), 0.5)


_UNITS = ((86_400, "days"), (3_600, "hours"), (60, "minutes"), (1, "seconds"))


def unit(seconds: float) -> tuple[int, str]:
    """The unit that a duration is written in: its length in seconds, and its name.

    >>> unit(7200.0)
    (60, 'minutes')
    """
    return next(((size, name) for size, name in _UNITS if seconds >= 3 * size), (1, "seconds"))
