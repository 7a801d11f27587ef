"""Wait for hashes, with a progress bar, until Ctrl-C."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .hashing import Hashing
    from .interrupts import Interrupt

PATIENCE_AFTER_ERROR = 5.0
"""Seconds that an error of the user's, of a run or of a task, waits at most for what is still to be hashed."""
PATIENCE = 1.0
"""Seconds of waiting after which a progress bar appears."""


def wait_for(
    hashing: Hashing, what: str, interrupt: Interrupt, *, show: bool, limit: float | None = None
) -> None:
    """Return when everything is hashed; on Ctrl-C cancel the rest, which is then recorded as skipped.

    Parameters
    ----------
    what: what the progress bar says.
    show: whether there may be one.
    limit: seconds after which the rest is cancelled too.
    """
    if hashing.wait(0.02):
        return
    from .capture import console

    began = time.monotonic()
    shown_from, given_up = began + PATIENCE, began + (limit if limit is not None else float("inf"))
    bar: _Bar | _Lines | None = None
    try:
        while not hashing.wait(0.1):
            if interrupt or time.monotonic() > given_up:
                hashing.cancel()
                return
            if show and bar is None and time.monotonic() > shown_from:
                bar = _Bar(what) if console.is_terminal("stderr") else _Lines(what)
            if bar is not None:
                bar.update(*hashing.progress)
    finally:
        if bar is not None:
            bar.close(*hashing.progress)


class _Bar:
    """In a terminal."""

    def __init__(self, what: str) -> None:
        from tqdm import tqdm

        self._bar = tqdm(desc=what, unit="B", unit_scale=True, file=sys.stderr, leave=False)

    def update(self, done: int, total: int | None) -> None:
        self._bar.total = total
        self._bar.update(done - self._bar.n)

    def close(self, done: int, total: int | None) -> None:
        self._bar.close()


class _Lines:
    """One line at the start and one at the end, where a bar would be drawn below itself again and again."""

    def __init__(self, what: str) -> None:
        from .capture import console

        self._what, self._began = what, time.monotonic()
        console.say(f"{what} ...\n", console.stream_for_messages())

    def update(self, done: int, total: int | None) -> None:
        pass

    def close(self, done: int, total: int | None) -> None:
        from .capture import console
        from .display import words

        of = "" if total in (done, None) else f" of {words.size(total or 0)}"
        took = words.took(time.monotonic() - self._began + PATIENCE)
        console.say(f"{self._what}: {words.size(done)}{of} in {took}\n", console.stream_for_messages())
