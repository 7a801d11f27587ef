"""Store values: plain data as MessagePack, which reading never executes, all else as a pickle, which needs trust.

Plain are None, bool, int, float, str, bytes, lists and dicts; the types of `_TYPES`; sets, numpy scalars and arrays
without objects, Python's own exceptions, and runs inside tasks. Subclasses of these are not. What MessagePack does not
know is an extension: the name of a type with its content, or an array.
"""

from __future__ import annotations

import builtins
import contextlib
import io
import math
import os
import pathlib
import pickle
import sys
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
from blake3 import blake3

from .. import said, tasks
from ..errors import RemoteError, ResultError
from ..redact import REDACTED, Redactor
from .labels import ADDRESS, kind_of, label

if TYPE_CHECKING:
    from .ledger import Fault

_PROTOCOL = 5
_PICKLE = b"\x80\x05"
"""How a pickle begins. As MessagePack that is an empty map with another value after it, so no plain data begin so."""


def dumps(value: Any) -> bytes:
    """A result as bytes.

    Raises
    ------
    TypeError: it, or something in it, can be neither encoded nor pickled; says what, where, and what to return.
    """
    try:
        return encode(value)
    except NotPlainError:
        pass
    try:
        return pickled(value)
    except TypeError as error:
        raise TypeError(
            f"the result cannot be stored: {error}\nhint: return plain data, arrays, or objects that can be pickled; "
            "of what is open or large, the path of a file"
        ) from error


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
        return _Unpickler(io.BytesIO(data)).load() if is_pickle else decode(data)
    except Exception as error:  # broken bytes may fail anywhere
        raise ResultError(
            f"{what} cannot be read: {type(error).__name__}: {error}",
            hint="it needs the modules and versions it was written with" if is_pickle else None,
        ) from error


# -- pickles ---------------------------------------------------------------------------------------------------------

_MOVED = {
    ("runctx.config.combinations.axes", "Point"): ("runctx.config.grid", "Point"),
    ("runctx.config.derivation.evaluation", "Derived"): ("runctx.config.derived", "Derived"),
    ("runctx.tasks.values.returned", "Returned"): ("runctx.past.record", "TaskRun"),
}
"""Where what results of 0.1.0 name is now."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        return super().find_class(*_MOVED.get((module, name), (module, name)))


def pickled(value: Any) -> bytes:
    """The value as a pickle; parts of `__main__`, and what has no name, travel by value.

    Raises
    ------
    TypeError: it, or something in it, cannot be pickled; says what and where.

    >>> pickle.loads(pickled(lambda x: x + 1))(1)
    2
    """
    try:
        data = pickle.dumps(value, _PROTOCOL)
        if b"__main__" not in data:  # that name is another module elsewhere
            return data
    except Exception:  # whatever it raises: cloudpickle knows more
        pass
    from .. import byvalue

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
    if kind is str and (len(value) > _LONGEST or not _is_unicode(value)):
        return None
    return msgspec.json.encode(value) if kind in (float, int, str, bool, NoneType) else None


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
            return {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}[value["float"]]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise ResultError(f"a result cannot be read: {type(error).__name__}: {error}") from error
    if isinstance(value, list):
        raise ResultError("a result cannot be read: expected a scalar, got a list")
    return value


# -- exceptions ------------------------------------------------------------------------------------------------------


def dump_error(error: BaseException, redactor: Redactor) -> bytes | None:
    """The exception as bytes; None where only its row can tell of it. Never raises.

    That is so if it does not come back as what it was (pickle calls its class with `args`), is larger than 16 MB, or
    holds a secret. Its cause and context do not travel: the text of its traceback has them.
    """

    def text(one: BaseException) -> str:
        return ADDRESS.sub("", said.message(one))

    try:
        data = dumps(error)
        again = loads(data, trusted=True)
        came_back = type(again) is type(error) and text(again) == text(error)
        if not came_back or len(data) > 16 << 20 or redactor.is_held_by(data):
            return None
        told = f"{said.message(error)}\n{said.asked(lambda: repr((error.args, vars(error))), error)}"
        return None if redactor.text(told).count(REDACTED) > told.count(REDACTED) else data
    except Exception:  # a class of the user's may fail in any way
        return None


def load_error(data: bytes | None, fault: Fault | None, *, trusted: bool) -> BaseException:
    """The exception again; a `RemoteError` with its name, text and traceback where it cannot be had. Never raises.

    Parameters
    ----------
    data: from `dump_error`.
    fault: what the task's row says of it; its traceback becomes the cause of what is returned.
    trusted: also load one that is a pickle. Python's own exceptions are plain data.
    """
    error: BaseException | None = None
    try:
        found = None if data is None else loads(data, trusted=trusted)
        error = found if isinstance(found, BaseException) else None
    except ResultError:
        pass
    if error is None:
        if fault is None:
            return RemoteError("a task failed, and its row does not say how")
        error = RemoteError(f"{fault.type}: {fault.message}", type=fault.type, traceback=fault.traceback)
    if (
        fault is not None and fault.traceback
    ):  # set like this because its class may forbid it: a frozen dataclass
        BaseException.__setattr__(error, "__cause__", said.RemoteTraceback(fault.traceback))
    return error


# -- plain data ------------------------------------------------------------------------------------------------------

ATOMS = frozenset({NoneType, bool, int, float, str, bytes})
"""Types that msgspec encodes as they are."""
_TEXT = frozenset({str})
_NAMED, _ARRAY = 1, 2
"""Codes of the extensions: `[name of the type, its content as MessagePack]` and `[dtype, shape, bytes]`."""
_DEEPEST = 100
"""Values in values; a fixed limit, because Python's own depends on how deep the caller is."""

_in_order = msgspec.msgpack.Encoder()
_sorted = msgspec.msgpack.Encoder(order="deterministic")


class NotPlainError(TypeError):
    """A value is not plain data."""


def encode(value: Any, *, canonical: bool = False) -> bytes:
    """The value as MessagePack.

    Parameters
    ----------
    canonical: give equal content equal bytes, for digests: dicts are sorted, an array is a digest of its numbers, and a
        run inside a task is its configuration. These bytes cannot be decoded.

    Raises
    ------
    NotPlainError: it, or something in it, is not plain data; or it contains itself.

    >>> decode(encode({"acc": 0.9, "shape": (2, 3)}))
    {'acc': 0.9, 'shape': (2, 3)}
    """
    encoder = _sorted if canonical else _in_order
    try:
        try:
            return encoder.encode(value if type(value) in ATOMS else _Walk(encoder).tree(value))
        except (OverflowError, UnicodeEncodeError):  # an int of more than 64 bits, or half a character
            return encoder.encode(_Walk(encoder, careful=True).tree(value))
    except (ValueError, RecursionError) as error:
        raise NotPlainError(str(error)) from error


def decode(data: bytes) -> Any:
    """The value again; nothing in the bytes is executed, whoever wrote them.

    Raises
    ------
    Exception: of any class, if `encode` did not write these bytes.
    """
    return _decoder.decode(data)


class _Walk:
    """Turn a value into what msgspec encodes as it is.

    Parameters
    ----------
    careful: look at each int and text, for msgspec refuses some.
    """

    def __init__(self, encoder: msgspec.msgpack.Encoder, careful: bool = False) -> None:
        self._encoder, self._careful = encoder, careful
        self._canonical = encoder is _sorted
        self._inside: set[int] = set()
        """Identities of the values around the present one."""

    def tree(self, value: Any) -> Any:
        kind = type(value)
        if kind in ATOMS:
            return self._exact(value) if self._careful else value
        if id(value) in self._inside or len(self._inside) == _DEEPEST:
            raise NotPlainError("a value contains itself, or is nested too deeply")
        self._inside.add(id(value))
        if kind is list:
            is_flat = not self._careful and ATOMS.issuperset(map(type, value))
            tree = value if is_flat else [self.tree(part) for part in value]
        elif kind is dict:
            tree = self._dict(value)
        elif kind is set or kind is frozenset:
            tree = self._named(kind.__name__, _raw(sorted(map(self._bytes, value))))
        elif kind in _TYPES:
            tree = self._named(kind.__name__, self.tree(_TYPES[kind][0](value)))
        else:
            tree = self._other(value, kind)
        self._inside.discard(id(value))
        return tree

    def _bytes(self, value: Any) -> bytes:
        return self._encoder.encode(self.tree(value))

    def _named(self, name: str, tree: Any) -> msgspec.msgpack.Ext:
        return msgspec.msgpack.Ext(_NAMED, _in_order.encode([name, self._encoder.encode(tree)]))

    def _exact(self, value: Any) -> Any:
        if type(value) is int and not -(2**63) <= value < 2**64:
            return self._named("int", value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))
        if type(value) is str and not _is_unicode(value):
            return self._named("str", value.encode("utf-8", "surrogatepass"))
        return value

    def _dict(self, value: dict[Any, Any]) -> Any:
        if _TEXT.issuperset(map(type, value)) and not (self._careful and not all(map(_is_unicode, value))):
            if not self._careful and ATOMS.issuperset(map(type, value.values())):
                return value
            return {name: self.tree(part) for name, part in value.items()}
        pairs = [(self._bytes(name), self._bytes(part)) for name, part in value.items()]
        if self._canonical:
            pairs.sort()
        return self._named("dict", _raw(part for pair in pairs for part in pair))

    def _other(self, value: Any, kind: type) -> Any:
        numpy: Any = sys.modules.get("numpy")  # whoever has such a value has imported it
        if numpy is not None and kind is numpy.ndarray:
            return self._array(value, list(value.shape))
        if numpy is not None and issubclass(kind, numpy.generic):
            return self._array(numpy.asarray(value), None)
        if issubclass(kind, BaseException) and kind.__module__ == "builtins":
            _, arguments, *state = value.__reduce__()
            if not any(state):
                return self._named("exception", self.tree([kind.__name__, list(arguments)]))
        if (kind.__module__, kind.__name__) in _RUNS:
            returned, arguments = value.__reduce__()
            parts = returned(*arguments).content if self._canonical else list(arguments)
            return self._named("run", self.tree(parts))
        raise NotPlainError(f"{kind.__module__}.{kind.__qualname__} is not plain data")

    def _array(self, value: Any, shape: list[int] | None) -> Any:
        import numpy
        from numpy.lib import format

        if self._canonical:  # how numbers lie in memory does not count
            value = value.astype(value.dtype.newbyteorder("<"), copy=False)
        if value.dtype.hasobject:
            raise NotPlainError("an array of objects is not plain data")
        if (
            value.dtype.char in "gG"
        ):  # of the 16 bytes of a long double 10 count; the others are what lay there
            value = numpy.positive(value, out=numpy.zeros_like(value))
        described = format.dtype_to_descr(value.dtype)
        if format.descr_to_dtype(described) != value.dtype:
            raise NotPlainError(f"an array of {value.dtype} is not plain data")
        content = numpy.ascontiguousarray(value).reshape(-1).view(numpy.uint8).data if value.nbytes else b""
        if self._canonical:
            content = blake3(content).digest()
        parts = [self.tree(described), shape, content]
        return msgspec.msgpack.Ext(_ARRAY, _in_order.encode(parts))


def _is_unicode(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def _raw(parts: Iterable[bytes]) -> list[msgspec.Raw]:
    return list(map(msgspec.Raw, parts))


def _extension(code: int, data: memoryview) -> Any:
    if code == _ARRAY:
        return _decoded_array(*_array_decoder.decode(data))
    name, content = _named_decoder.decode(data)
    return _BUILDERS[name](_decoder.decode(content))


def _decoded_array(described: Any, shape: list[int] | None, content: memoryview) -> Any:
    import numpy
    from numpy.lib import format

    dtype = format.descr_to_dtype(described)
    if dtype.hasobject or min(shape or (), default=0) < 0:
        raise ValueError("an array of objects, or of no shape")
    if dtype.itemsize * math.prod(shape or ()) != len(content):
        raise ValueError(f"an array of {shape} times {dtype} in {len(content)} bytes")
    array = numpy.array(numpy.ndarray(shape or (), dtype, content))
    return array[()] if shape is None else array


_named_decoder = msgspec.msgpack.Decoder(tuple[str, memoryview])
_array_decoder = msgspec.msgpack.Decoder(tuple[Any, list[int] | None, memoryview], ext_hook=_extension)
_decoder = msgspec.msgpack.Decoder(ext_hook=_extension)


def _exception(parts: list[Any]) -> BaseException:
    name, arguments = parts
    kind = getattr(builtins, name)
    if not (isinstance(kind, type) and issubclass(kind, BaseException)):
        raise ValueError(f"{name} is not an exception")
    return kind(*arguments)


def _run(parts: list[Any]) -> Any:
    """From a file that may be hostile: no folder is looked at but the one whose results are read."""
    _, id, config = parts
    folder = tasks.results_folder.get()
    if folder is None or not (isinstance(id, str) and type(config) is dict):
        raise ValueError("expected a run, among the results of its parent")
    return tasks.build_run(os.fspath(folder), id, config)


@contextlib.contextmanager
def results_of(save_dir: Path) -> Iterator[None]:
    """What is read meanwhile are results of this run."""
    token = tasks.results_folder.set(save_dir)
    try:
        yield
    finally:
        tasks.results_folder.reset(token)


def _moment(kind: type[Any]) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    def parts(value: Any) -> list[Any]:
        return [value.replace(tzinfo=None, fold=0).isoformat(), value.tzinfo, value.fold]

    def build(parts: list[Any]) -> Any:
        return kind.fromisoformat(parts[0]).replace(tzinfo=parts[1], fold=parts[2])

    return parts, build


def _path(kind: type[pathlib.PurePath]) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    here = kind in (type(pathlib.Path()), pathlib.PurePosixPath, pathlib.PureWindowsPath)
    return str, kind if here else getattr(pathlib, f"Pure{kind.__name__}")  # of another system


_TYPES: dict[type, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    tuple: (list, tuple),
    bytearray: (bytes, bytearray),
    complex: (lambda number: [number.real, number.imag], lambda parts: complex(*parts)),
    Decimal: (str, Decimal),
    Fraction: (lambda value: [value.numerator, value.denominator], lambda parts: Fraction(*parts)),
    UUID: (lambda value: value.hex, UUID),
    date: (date.isoformat, date.fromisoformat),
    time: _moment(time),
    datetime: _moment(datetime),
    timedelta: (
        lambda value: [value.days, value.seconds, value.microseconds],
        lambda parts: timedelta(*parts),
    ),
    timezone: (lambda zone: list(zone.__getinitargs__()), lambda parts: timezone(*parts)),
    ZoneInfo: (lambda zone: zone.key, ZoneInfo),
    deque: (lambda value: [list(value), value.maxlen], lambda parts: deque(*parts)),
    Counter: (dict, Counter),
    OrderedDict: (lambda value: list(map(list, value.items())), OrderedDict),
    **{
        kind: _path(kind)
        for kind in (
            pathlib.PosixPath,
            pathlib.WindowsPath,
            pathlib.PurePosixPath,
            pathlib.PureWindowsPath,
        )
    },
}
"""Type -> its content, and the value from its content."""

_BUILDERS: dict[str, Callable[[Any], Any]] = {
    **{kind.__name__: build for kind, (_, build) in _TYPES.items()},
    "int": lambda content: int.from_bytes(content, "big", signed=True),
    "str": lambda content: content.decode("utf-8", "surrogatepass"),
    "set": set,
    "frozenset": frozenset,
    "dict": lambda pairs: dict(zip(pairs[::2], pairs[1::2], strict=True)),
    "exception": _exception,
    "run": _run,
}

_RUNS = {("runctx.run", "Run"), ("runctx.past.record", "TaskRun")}
