"""Store the exception of a task: itself if it survives, else by name and text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ... import said
from ...errors import RemoteError, ResultError
from ...redact import REDACTED, Redactor
from .labels import ADDRESS
from .serialization import dumps, loads

if TYPE_CHECKING:
    from ..ledger.rows import Fault

_LARGEST = 16 << 20
"""Bytes of an exception that is stored."""


def dump_error(error: BaseException, redactor: Redactor) -> bytes | None:
    """The exception as bytes; None where only its row can tell of it. Never raises.

    That is so if it does not come back as what it was (pickle calls its class with `args`), is larger than 16 MB, or
    holds a secret. Its cause and context do not travel: the text of its traceback has them.
    """
    try:
        data = dumps(error)
        again = loads(data, trusted=True)
        came_back = type(again) is type(error) and _text(again) == _text(error)
        return (
            data if came_back and len(data) <= _LARGEST and not _has_secret(error, data, redactor) else None
        )
    except Exception:  # a class of the user's may fail in any way
        return None


def _text(error: BaseException) -> str:
    return ADDRESS.sub("", said.message(error))


def _has_secret(error: BaseException, data: bytes, redactor: Redactor) -> bool:
    if redactor.is_held_by(data):
        return True
    text = f"{said.message(error)}\n{said.asked(lambda: repr((error.args, vars(error))), error)}"
    return redactor.text(text).count(REDACTED) > text.count(REDACTED)


def load_error(data: bytes | None, fault: Fault | None, *, trusted: bool) -> BaseException:
    """The exception again; a `RemoteError` with its name, text and traceback where it cannot be had. Never raises.

    Parameters
    ----------
    data: from `dump_error`.
    fault: what the task's row says of it.
    trusted: also load one that is a pickle. Python's own exceptions are plain data.
    """
    try:
        if data is not None and isinstance(error := loads(data, trusted=trusted), BaseException):
            return error
    except ResultError:
        pass
    if fault is None:
        return RemoteError("a task failed, and its row does not say how")
    return RemoteError(f"{fault.type}: {fault.message}", type=fault.type, traceback=fault.traceback)


def with_traceback_text(error: BaseException, text: str) -> BaseException:
    """The same exception, caused by the text of the traceback it had in another process.

    >>> print(with_traceback_text(ValueError("x"), "Traceback: line 3").__cause__)
    <BLANKLINE>
    Traceback: line 3
    """
    BaseException.__setattr__(
        error, "__cause__", said.RemoteTraceback(text)
    )  # its class may forbid it: a frozen dataclass
    return error
