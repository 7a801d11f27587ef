"""Store results: plain data as MessagePack, all else as a pickle, which is loaded only with trust."""

from __future__ import annotations

import io
import math
import pickle
from typing import Any

import msgspec

from ...errors import ResultError
from . import plain
from .labels import kind_of, label

_PROTOCOL = 5
_PICKLE = b"\x80\x05"
"""How a pickle begins. As MessagePack that is an empty map with another value after it, so that no plain data do."""
_HINT = (
    "return plain data, arrays, or objects that can be pickled; of what is open or large, the path of a file"
)


def dumps(value: Any) -> bytes:
    """A result as bytes.

    Raises
    ------
    TypeError: it, or something in it, can be neither encoded nor pickled; says what, where, and what to return.
    """
    try:
        return plain.encode(value)
    except plain.NotPlainError:
        pass
    try:
        return pickled(value)
    except TypeError as error:
        raise TypeError(f"the result cannot be stored: {error}\nhint: {_HINT}") from error


def loads(data: bytes, *, trusted: bool, what: str = "a result") -> Any:
    """The value again.

    Parameters
    ----------
    trusted: also load pickles, which may execute whatever is in them.
    what: the name of the value in errors.

    Raises
    ------
    ResultError: the bytes are a pickle and not trusted, something in them is missing here, or they are broken.

    >>> loads(dumps({"acc": 0.9}), trusted=False)
    {'acc': 0.9}
    >>> loads(dumps({"acc": print}), trusted=False)
    Traceback (most recent call last):
    runctx.errors.ResultError: a result is a pickle, and to load a pickle is to execute it
    hint: if you trust who wrote it, read it with trusted=True
    """
    is_pickle = data.startswith(_PICKLE)
    if is_pickle and not trusted:
        raise ResultError(
            f"{what} is a pickle, and to load a pickle is to execute it",
            hint="if you trust who wrote it, read it with trusted=True",
        )
    try:
        return _Unpickler(io.BytesIO(data)).load() if is_pickle else plain.decode(data)
    except Exception as error:  # broken bytes may fail anywhere
        raise ResultError(
            f"{what} cannot be read: {type(error).__name__}: {error}",
            hint="it needs the modules and versions it was written with" if is_pickle else None,
        ) from error


_MOVED = {
    "runctx.config.combinations.axes": "runctx.config.grid",
    "runctx.config.derivation.evaluation": "runctx.config.derived",
}
"""Where what results of 0.1.0 name is now."""


class _Unpickler(pickle.Unpickler):
    """Build, and execute, what a pickle says: for callers who trust whoever wrote it."""

    def find_class(self, module: str, name: str) -> Any:
        return super().find_class(_MOVED.get(module, module), name)


def pickled(value: Any) -> bytes:
    """The value as a pickle; parts of `__main__`, and what has no name, travel by value.

    Raises
    ------
    TypeError: it, or something in it, cannot be pickled; says what and where.

    >>> pickle.loads(pickled(lambda x: x + 1))(1)
    2
    """
    from ... import byvalue

    try:
        data = pickle.dumps(value, _PROTOCOL)
        if b"__main__" not in data:  # that name is another module elsewhere
            return data
    except Exception:  # whatever it raises: cloudpickle knows more
        pass
    try:
        return byvalue.dumps(value, protocol=_PROTOCOL)
    except Exception as error:
        where, culprit = _culprit(value)
        inside = f" because of {label(culprit)} at {where}" if where else ""
        raise TypeError(f"{kind_of(value)} cannot be pickled{inside}: {error}") from error


def _culprit(value: Any, most: int = 50) -> tuple[str, Any]:
    """The way to the innermost part that cannot be pickled, and that part."""
    import cloudpickle

    where = ""
    for _ in range(most):
        if type(value) in (list, tuple):
            parts = [(f"[{i}]", part) for i, part in enumerate(value[:most])]
        elif type(value) is dict:
            parts = [(f"[{key!r:.80}]", part) for key, part in list(value.items())[:most]]
        else:
            parts = [(f".{name}", part) for name, part in list(getattr(value, "__dict__", {}).items())[:most]]
        for step, part in parts:
            try:
                cloudpickle.dumps(part, _PROTOCOL)
            except Exception:
                where, value = where + step, part
                break
        else:
            break
    return where, value


# -- small results, which stand in their rows ------------------------------------------------------------------------

_LONGEST = 200
"""Characters of a text that stands in a row."""
_NOT_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def small(value: Any) -> bytes | None:
    """The value as JSON, if it is a small scalar that comes back from there as exactly what it is; else None.

    >>> small(0.93), small("ok"), small(float("inf")), small([1])
    (b'0.93', b'"ok"', b'{"float":"inf"}', None)
    """
    kind = type(value)
    if kind is float and not math.isfinite(value):
        return b'{"float":"%b"}' % repr(value).encode()
    if kind is int and not -(2**63) <= value < 2**63:
        return None
    if kind is str and (len(value) > _LONGEST or not plain.is_unicode(value)):
        return None
    return msgspec.json.encode(value) if kind in (float, int, str, bool, type(None)) else None


def from_small(data: bytes) -> Any:
    """What `small` was given.

    Raises
    ------
    ResultError: `small` did not write these bytes.

    >>> from_small(b"0.93")
    0.93
    """
    try:
        value = msgspec.json.decode(data)
        if isinstance(value, dict):
            return _NOT_FINITE[value["float"]]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise ResultError(f"a result cannot be read: {type(error).__name__}: {error}") from error
    if isinstance(value, list):
        raise ResultError("a result cannot be read: expected a scalar, got a list")
    return value
