"""How a run ended, from the exception that left its block."""

from __future__ import annotations

from . import said
from .model import Failure, Status
from .redact import Redactor


def status_of(error: BaseException | None) -> Status:
    """done, failed or interrupted.

    >>> status_of(None), status_of(ValueError()), status_of(KeyboardInterrupt()), status_of(SystemExit(0))
    ('done', 'failed', 'interrupted', 'done')
    """
    if error is None or (isinstance(error, SystemExit) and error.code in (None, 0)):
        return "done"
    interrupted = (
        isinstance(error, (KeyboardInterrupt, GeneratorExit)) or type(error).__name__ in _ENDED_EARLY
    )
    return "interrupted" if interrupted else "failed"


_ENDED_EARLY = ("CancelledError", "TrialPruned")
"""Exceptions of asyncio and Optuna that are no failure."""


def failure(error: BaseException | None, redactor: Redactor) -> Failure | None:
    """What the lock says of it; None if it is no failure."""
    if error is None or status_of(error) == "done":
        return None
    # as code: a traceback quotes lines of it, with the literals they hold
    return Failure(
        type=said.kind(error),
        message=redactor.text(said.message(error)),
        traceback=redactor.text(said.traceback_text(error)),
    )
