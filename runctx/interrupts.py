"""Hold back Ctrl-C, and whatever a signal's handler raises, until a step has finished."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # in the Python ones of `signal` errors are swallowed
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGALRM", "SIGVTALRM", "SIGXCPU", "SIGUSR1", "SIGUSR2")
_SIGNALS = tuple(getattr(signal, name) for name in _NAMES if hasattr(signal, name))
"""Those whose handlers commonly raise: Ctrl-C, time limits, a cluster that wants its node back."""


class Interrupt:
    """What a signal's handler raised while that was held back: true from then on."""

    __slots__ = ("error", "over")

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self.over = False

    def __bool__(self) -> bool:
        return self.error is not None


@contextmanager
def held_back() -> Iterator[Interrupt]:
    """Let the block finish when Ctrl-C arrives, and raise it after the block; a second one raises at once.

    So for whatever a signal's handler of the user's raises, a time limit for instance. The handler itself
    runs at once, and one that does not raise changes nothing.

    The block is given an `Interrupt`, which is true from the first of them on: whatever waits in it should
    stop. Does nothing outside the main thread, where Python delivers no signals.

    >>> with held_back() as interrupt:
    ...     bool(interrupt)
    False
    """
    interrupt = Interrupt()
    stand_ins = {}
    if threading.get_ident() == threading.main_thread().ident:  # current_thread() swallows a KeyError
        for number in _SIGNALS:
            handler = _signal.getsignal(number)
            if callable(handler):
                stand_ins[number] = (_stand_in(handler, interrupt), handler)
    try:
        for number, (stand_in, _) in stand_ins.items():
            _signal.signal(number, stand_in)
        yield interrupt
    except Exception:
        if not interrupt:
            raise
    finally:
        interrupt.over = True  # should one more come now, a stand-in that stays in place holds nothing back
        for number, (stand_in, handler) in stand_ins.items():
            if _signal.getsignal(number) is stand_in:  # the user's own may have put another in its place
                _signal.signal(number, handler)
    if interrupt.error is not None:
        raise interrupt.error


def _stand_in(
    handler: Callable[[int, FrameType | None], Any], interrupt: Interrupt
) -> Callable[[int, FrameType | None], None]:
    def note(number: int, frame: FrameType | None) -> None:
        ours = sys.exception()
        try:
            handler(number, frame)
        except BaseException as error:
            if interrupt or interrupt.over:
                raise
            _detach(error, ours)
            interrupt.error = error

    return note


def _detach(error: BaseException, ours: BaseException | None) -> None:
    """Nothing was handled where it will be raised: no "During handling of the above exception" there."""
    while error.__context__ is not None and error.__context__ is not ours:
        error = error.__context__
    error.__context__ = None
