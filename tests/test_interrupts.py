"""What a signal's handler raises is held back for a block, and comes out as it was raised."""

from __future__ import annotations

import signal
import sys
import traceback

import pytest

from runctx.interrupts import held_back


@pytest.fixture
def raising():
    """Make SIGUSR1 raise an error, for the time of a test."""
    before = signal.getsignal(signal.SIGUSR1)

    def install(error: Exception) -> None:
        def handler(number, frame):
            raise error

        signal.signal(signal.SIGUSR1, handler)

    yield install
    signal.signal(signal.SIGUSR1, before)


def _strike(at: int, error: Exception) -> tuple[int, BaseException | None]:
    """Signal ourselves at the n-th call in and around a held-back block; how many calls there were, what came out."""
    calls = 0

    def strike(frame, kind, argument):
        nonlocal calls
        if kind in ("call", "c_call", "c_return"):
            calls += 1
            if calls == at:
                signal.raise_signal(signal.SIGUSR1)

    raised: BaseException | None = None
    try:
        sys.setprofile(strike)
        with held_back():
            len("body")
    except BaseException as seen:
        raised = seen
    finally:
        sys.setprofile(None)
    return calls, raised


@pytest.mark.parametrize("error", [TimeoutError, ValueError, TypeError, KeyError])
def test_at_every_call(raising, error):
    """Whichever of our calls a signal arrives in, its handler's exception is neither swallowed nor chained to ours."""
    mine = error("mine")
    raising(mine)
    calls, nothing = _strike(0, mine)
    assert nothing is None
    assert calls > 20
    for at in range(1, calls):
        mine.__traceback__ = mine.__context__ = None
        handler = signal.getsignal(signal.SIGUSR1)
        _, raised = _strike(at, mine)
        signal.signal(signal.SIGUSR1, handler)
        assert raised is mine, f"at call {at} of {calls}"
        assert mine.__context__ is None, "".join(traceback.format_exception(mine))
