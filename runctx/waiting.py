"""How does the user see that a run is waiting for hashes, and how does she stop it?"""

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
    began = time.monotonic()
    shown_from, given_up = began + PATIENCE, began + (limit if limit is not None else float("inf"))
    bar = None
    try:
        while not hashing.wait(0.1):
            if interrupt or time.monotonic() > given_up:
                hashing.cancel()
                return
            if show and bar is None and time.monotonic() > shown_from:
                from tqdm import tqdm

                bar = tqdm(desc=what, unit="B", unit_scale=True, file=sys.stderr, leave=False)
            if bar is not None:
                done, bar.total = hashing.progress
                bar.update(done - bar.n)
    finally:
        if bar is not None:
            bar.close()
