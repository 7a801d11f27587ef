"""How does a value, or an exception, get to the other side, and back from disk?

By pickle, and by cloudpickle what pickle refuses or could only find here: lambdas, classes from `__main__`. Exceptions
are taken apart, because pickle rebuilds one by calling its class with `args`, which fails, or does something else,
wherever a class has a constructor of its own.
"""

from __future__ import annotations

import builtins
import math
import pickle
from types import GetSetDescriptorType, MemberDescriptorType
from typing import Any, Protocol

import msgspec

from ...errors import RemoteError, ResultError
from ...redact import REDACTED, Redactor
from ...said import RemoteTraceback
from .labels import kind_of, label

_PROTOCOL = 5
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


# -- values ----------------------------------------------------------------------------------------------------------


def pack(value: Any) -> bytes:
    """The value as bytes, from which another process can make it again.

    Raises
    ------
    TypeError: it, or something in it, cannot be pickled; says what and where.

    >>> unpack(pack(lambda x: x + 1))(1)
    2
    """
    try:
        data = pickle.dumps(value, _PROTOCOL)
        if b"__main__" not in data:  # that name is another module elsewhere
            return data
    except Exception:  # whatever it raises: cloudpickle knows more
        pass
    return _pack_by_value(value)


def _pack_by_value(value: Any) -> bytes:
    from ... import byvalue

    try:
        return byvalue.dumps(value, protocol=_PROTOCOL)
    except Exception as error:
        where, culprit = _culprit(value)
        inside = f" because of {label(culprit)} at {where}" if where else ""
        raise TypeError(f"{kind_of(value)} cannot be pickled{inside}: {error}") from error


def _culprit(value: Any, most: int = 50) -> tuple[str, Any]:
    """The innermost part that cannot be pickled, and the way to it."""
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


def unpack(data: bytes, trusted: bool = True) -> Any:
    """The value again.

    Parameters
    ----------
    trusted: False builds plain data, numpy arrays and a few types of the standard library, and executes nothing.

    Raises
    ------
    ResultError: something in it is missing here, is not built without trust, or the bytes are broken.

    >>> unpack(pack({"acc": 0.9}), trusted=False)
    {'acc': 0.9}
    """
    if not trusted:
        from . import untrusted

        return untrusted.loads(data)
    try:
        return pickle.loads(data)  # noqa: S301 - the caller trusts who wrote it
    except Exception as error:
        raise ResultError(
            f"a result cannot be read: {type(error).__name__}: {error}",
            hint="it needs the modules and versions it was written with",
        ) from error


_LONGEST = 200
_NOT_FINITE = {b'{"float":"nan"}': math.nan, b'{"float":"inf"}': math.inf, b'{"float":"-inf"}': -math.inf}


def small(value: Any) -> bytes | None:
    """The value as JSON, if it is a small scalar that comes back from there as exactly what it is; else None.

    >>> small(0.93), small("ok"), small(float("inf")), small([1])
    (b'0.93', b'"ok"', b'{"float":"inf"}', None)
    """
    kind = type(value)
    if kind is float:
        if value - value == 0:
            return _encode(value)
        return (
            b'{"float":"nan"}' if value != value else b'{"float":"inf"}' if value > 0 else b'{"float":"-inf"}'
        )
    if kind is str:
        try:
            return _encode(value) if len(value) <= _LONGEST else None
        except UnicodeEncodeError:
            return None
    if kind is int:
        return _encode(value) if -(2**63) <= value < 2**63 else None
    return _encode(value) if kind is bool or value is None else None


def from_small(data: bytes) -> Any:
    """What `small` was given.

    Raises
    ------
    ResultError: it never gave these bytes.

    >>> from_small(b"0.93")
    0.93
    """
    if data in _NOT_FINITE:
        return _NOT_FINITE[data]
    try:
        value = _decode(data)
    except (ValueError, RecursionError) as error:
        raise ResultError(f"a result cannot be read: {error}") from error
    if isinstance(value, (dict, list)):
        raise ResultError("a result cannot be read: a scalar is due")
    return value


# -- exceptions ------------------------------------------------------------------------------------------------------

_MOST_RELATED = 50
"""Exceptions that travel together: causes, contexts, members of groups, arguments."""
_LARGEST_PART = 16 << 20
"""Bytes of one argument or attribute that travels."""
_ELSEWHERE = frozenset({"args", "exceptions", "obj"})
"""Told in another way; or, `obj`, what lacked an attribute: it may be anything, of any size."""


class Fault(Protocol):
    """What a row says of an exception."""

    @property
    def type(self) -> str: ...
    @property
    def message(self) -> str: ...
    @property
    def traceback(self) -> str: ...


class Failed(Protocol):
    """A row of a task that failed."""

    @property
    def error(self) -> Fault | None: ...


class _Apart(msgspec.Struct, omit_defaults=True, array_like=True):
    """An exception taken apart; what is pickled in it stays so until it is asked for."""

    name: str
    """Qualified name of its class."""
    kind: bytes
    """Its class, if that can be pickled."""
    message: str
    args: list[_Part]
    attributes: dict[str, _Part]
    notes: list[str]
    members: list[_Apart] | None = None
    """Of a group."""
    cause: _Apart | None = None
    context: _Apart | None = None
    quiet: bool = False
    """Whether the context is not shown."""


class _Part(msgspec.Struct, omit_defaults=True, array_like=True):
    """An argument or attribute: pickled, or an exception itself, or only told."""

    data: bytes | None = None
    error: _Apart | None = None
    text: str = ""


_decode_apart = msgspec.msgpack.Decoder(_Apart).decode  # while there is one thread: msgspec wants no two here


def pack_error(error: BaseException, redactor: Redactor | None = None) -> bytes | None:
    """The exception as bytes: class, arguments, attributes, notes, cause, context, members. Never raises.

    An argument that cannot be pickled, or holds a secret, becomes its text, an attribute is left out; both are, above
    16 MB. None if nothing can be kept, so that its row must do.

    Parameters
    ----------
    redactor: takes secrets out, before anything is kept.
    """
    try:
        return msgspec.msgpack.encode(_take_apart(error, redactor or Redactor(), set()))
    except Exception:  # a class of the user's may fail in any way: the row still tells of it
        return None


def unpack_error(data: bytes | None, row: Failed, trusted: bool = True) -> BaseException:
    """The exception again: of the same class, without calling its constructor. Never raises.

    Parameters
    ----------
    data: from `pack_error`.
    row: what the task's row says of it, for the stand-in (`RemoteError`) of one whose class cannot be had.
    trusted: False builds Python's own exceptions of plain data, and executes nothing.
    """
    said = row.error
    try:
        if data is not None:
            apart = _decode_apart(data)
            made = _put_together(apart, trusted)
            if isinstance(made, RemoteError) and made.type == apart.name and said is not None:
                made.traceback = said.traceback
            return made
    except Exception:  # broken data, or a class that cannot be made: the row still tells of it
        pass
    if said is None:
        return RemoteError("a task failed, and nothing says how")
    return RemoteError(f"{said.type}: {said.message}", type=said.type, traceback=said.traceback)


def with_traceback_text(error: BaseException, text: str) -> BaseException:
    """The same exception; where it is shown, so is the traceback it had in another process.

    The text becomes the cause of the first exception in its chain, so that its own cause and context stay.

    >>> print(with_traceback_text(ValueError("x"), "Traceback: line 3").__cause__)
    <BLANKLINE>
    Traceback: line 3
    """
    first = error
    for _ in range(_MOST_RELATED):
        earlier = first.__cause__ or (None if first.__suppress_context__ else first.__context__)
        if earlier is None or isinstance(earlier, RemoteTraceback):
            break
        first = earlier
    _set(first, "__cause__", RemoteTraceback(text))
    return error


def _take_apart(error: BaseException, redactor: Redactor, seen: set[int]) -> _Apart:
    seen.add(id(error))
    clean = redactor.text

    def related(other: BaseException | None) -> _Apart | None:
        if other is None or id(other) in seen or len(seen) >= _MOST_RELATED:
            return None
        return _take_apart(other, redactor, seen)

    def part(value: Any) -> _Part:
        if isinstance(value, BaseException):
            return _Part(error=related(value), text=label(value, redactor=redactor))
        if type(value) is str:
            value = clean(value)
        try:
            data = pack(value)
        except Exception:
            data = None
        fits = data is not None and len(data) <= _LARGEST_PART and not _is_secret(value, data, redactor)
        return _Part(data=data if fits else None, text=label(value, redactor=redactor))

    members = None
    args: tuple[Any, ...] = error.args
    if isinstance(error, BaseExceptionGroup):
        members = [packed for member in error.exceptions if (packed := related(member)) is not None]
        args = (error.message,)
    kind = type(error)
    return _Apart(
        name=f"{kind.__module__}.{kind.__qualname__}",
        kind=_packed_class(kind),
        message=clean(_message(error)),
        args=[part(arg) for arg in args],
        attributes={name: part(value) for name, value in _attributes(error).items()},
        notes=[clean(note) for note in getattr(error, "__notes__", ()) if isinstance(note, str)],
        members=members,
        cause=related(error.__cause__),
        context=related(error.__context__),
        quiet=error.__suppress_context__,
    )


def _is_secret(value: Any, data: bytes, redactor: Redactor) -> bool:
    """Whether a secret stands in a value, or its pickle."""
    if redactor.is_held_by(data):
        return True
    return isinstance(value, (dict, list, tuple)) and REDACTED in redactor.text(repr(value))


def _packed_class(kind: type[BaseException]) -> bytes:
    try:
        return pack(kind)
    except TypeError:
        return b""


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return label(error.args)


def _attributes(error: BaseException) -> dict[str, Any]:
    """What it holds beside its arguments: in slots, in fields of Python's own classes, in its dict."""
    found = {}
    for base in type(error).__mro__:
        for name, descriptor in vars(base).items():
            if name in _ELSEWHERE or name.startswith("__"):
                continue
            if isinstance(descriptor, (MemberDescriptorType, GetSetDescriptorType)):
                try:
                    value = descriptor.__get__(error)
                except AttributeError:  # not set
                    continue
                if value is not None or base.__module__ != "builtins":  # Python's own show a None as text
                    found[name] = value
    return found | {name: value for name, value in vars(error).items() if name != "__notes__"}


def _put_together(apart: _Apart, trusted: bool) -> BaseException:
    kind = _class(apart, trusted)
    made: BaseException
    if kind is None:
        made = RemoteError(f"{apart.name}: {apart.message}", type=apart.name)
    else:
        made = _bare(kind, apart, trusted)
        for name, part in apart.attributes.items():
            try:
                _set(made, name, _value(part, trusted))
            except (
                _LostError,
                AttributeError,
                TypeError,
            ):  # cannot be had here, or follows from the arguments
                continue
    if apart.notes:
        _set(made, "__notes__", apart.notes)
    cause = None if apart.cause is None else _put_together(apart.cause, trusted)
    _set(made, "__cause__", cause)
    _set(made, "__context__", cause if apart.context is None else _put_together(apart.context, trusted))
    _set(made, "__suppress_context__", apart.quiet)
    return made


_set = object.__setattr__
"""As a class may forbid it in its own way: a frozen dataclass does."""


def _class(apart: _Apart, trusted: bool) -> type[BaseException] | None:
    if trusted:
        try:
            kind = unpack(apart.kind)
        except ResultError:
            return None
    else:
        kind = getattr(builtins, apart.name.removeprefix("builtins."), None)
    return kind if isinstance(kind, type) and issubclass(kind, BaseException) else None


def _bare(kind: type[BaseException], apart: _Apart, trusted: bool) -> BaseException:
    """An exception with its arguments, made without its constructor: by one of Python's own classes it derives from."""
    args = tuple(_value(part, trusted, told=True) for part in apart.args)
    if apart.members is not None and issubclass(kind, BaseExceptionGroup):
        members = [_put_together(member, trusted) for member in apart.members]
        group: BaseException = BaseExceptionGroup.__new__(kind, args[0], members)
        return group
    for base in kind.__mro__:
        if base.__module__ == "builtins" and issubclass(base, BaseException):
            try:
                made: BaseException = base.__new__(kind, *args)
            except TypeError:  # the class is laid out after another of its bases
                continue
            _set(made, "args", args)
            return made
    raise TypeError(f"{kind} cannot be made")


class _LostError(Exception):
    """A part cannot be had here."""


def _value(part: _Part, trusted: bool, told: bool = False) -> Any:
    """An argument or attribute; where it cannot be had, what was told of it, or _LostError."""
    if part.error is not None:
        return _put_together(part.error, trusted)
    if part.data is not None:
        try:
            return unpack(part.data, trusted)
        except ResultError:
            pass
    if told:
        return part.text
    raise _LostError
