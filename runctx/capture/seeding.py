"""Seed the random generators that are in use."""

from __future__ import annotations

import operator
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, SupportsIndex

from ..model import Omission

_SEEDED = ("numpy", "torch")


def whole(seed: SupportsIndex) -> int:
    """The seed as a plain int, whether Python's or numpy's.

    Raises
    ------
    TypeError: it is no whole number.

    >>> whole("7")
    Traceback (most recent call last):
    TypeError: seed must be an int; got '7' (str)
    """
    try:
        return int(operator.index(seed))
    except TypeError:
        raise TypeError(f"seed must be an int; got {seed!r} ({type(seed).__name__})") from None


def seed_all(seed: int) -> frozenset[str]:
    """Seed `random`, and numpy and torch where they are imported; names those that were seeded.

    Parameters
    ----------
    seed: any whole number; numpy's legacy generator takes it modulo 2**32, as torch's does modulo 2**64.

    >>> sorted(seed_all(7) & {"random"})
    ['random']
    """
    random.seed(seed)
    seeded = {"random"}
    if (numpy := sys.modules.get("numpy")) is not None:
        numpy.random.seed(seed % 2**32)
        seeded.add("numpy")
    if (torch := sys.modules.get("torch")) is not None:
        torch.manual_seed(seed % 2**64)  # on every device
        seeded.add("torch")
    return frozenset(seeded)


@contextmanager
def kept() -> Iterator[None]:
    """The generators go on afterwards as if nothing had been drawn from them meanwhile.

    >>> random.seed(7)
    >>> with kept():
    ...     _ = random.random()
    >>> random.random() == random.Random(7).random()
    True
    """
    numpy, torch = (sys.modules.get(name) for name in _SEEDED)
    python = random.getstate()
    legacy = None if numpy is None else numpy.random.get_state()
    cpu = None if torch is None else torch.get_rng_state()
    devices = torch.cuda.get_rng_state_all() if torch is not None and torch.cuda.is_initialized() else None
    try:
        yield
    finally:
        random.setstate(python)
        late = sys.modules.get("numpy")
        if late is not None:  # which may have been imported meanwhile
            fresh = late.random.RandomState().get_state() if numpy is None else legacy
            late.random.set_state(fresh)
        if torch is not None:
            torch.set_rng_state(cpu)
            if devices is not None:
                torch.cuda.set_rng_state_all(devices)


def unseeded(seeded: frozenset[str]) -> tuple[Omission, ...]:
    """Libraries with generators of their own that were imported only after `seed_all`.

    Numpy only if something has drawn from its global generator: joblib imports it, too, and draws nothing.
    """
    late = [name for name in _SEEDED if name in sys.modules and name not in seeded]
    return tuple(
        Omission(what=f"seed of {name}", why=f"{name} was imported after the run had seeded the generators")
        for name in late
        if name != "numpy" or not _is_untouched(sys.modules[name])
    )


def _is_untouched(numpy: Any) -> bool:
    """Whether the global generator is as it was when numpy was imported.

    MT19937 then stands before the last word of its state, and the first word is this one; a draw moves on, and when the
    words are used up others take their place.
    """
    name, words, place, has_gauss, _ = numpy.random.get_state()
    return bool(name == "MT19937" and place == 623 and words[0] == 0x80000000 and not has_gauss)
