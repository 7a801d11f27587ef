"""Encode plain data as MessagePack, and decode it again without executing anything.

Plain are None, bool, int, float, str, bytes, lists and dicts; the types of `_TYPES`; sets, numpy scalars and arrays
without objects, Python's own exceptions, and runs inside tasks. Subclasses of these are not. What MessagePack does not
know is an extension: the name of a type with its content, or an array.
"""

from __future__ import annotations

import builtins
import math
import pathlib
import sys
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from types import NoneType
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
from blake3 import blake3

_ATOMS = frozenset({NoneType, bool, int, float, str, bytes})
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
            return encoder.encode(_Walk(encoder).tree(value))
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
        if kind in _ATOMS:
            return self._exact(value) if self._careful else value
        if id(value) in self._inside or len(self._inside) == _DEEPEST:
            raise NotPlainError("a value contains itself, or is nested too deeply")
        self._inside.add(id(value))
        if kind is list:
            is_flat = not self._careful and _ATOMS.issuperset(map(type, value))
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
        if type(value) is str and not is_unicode(value):
            return self._named("str", value.encode("utf-8", "surrogatepass"))
        return value

    def _dict(self, value: dict[Any, Any]) -> Any:
        if _TEXT.issuperset(map(type, value)) and not (self._careful and not all(map(is_unicode, value))):
            if not self._careful and _ATOMS.issuperset(map(type, value.values())):
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
        described = format.dtype_to_descr(value.dtype)
        if format.descr_to_dtype(described) != value.dtype:
            raise NotPlainError(f"an array of {value.dtype} is not plain data")
        content = numpy.ascontiguousarray(value).reshape(-1).view(numpy.uint8).data if value.nbytes else b""
        if self._canonical:
            content = blake3(content).digest()
        parts = [self.tree(described), shape, content]
        return msgspec.msgpack.Ext(_ARRAY, _in_order.encode(parts))


def is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _raw(parts: Iterable[bytes]) -> list[msgspec.Raw]:
    return list(map(msgspec.Raw, parts))


# -- decoding --------------------------------------------------------------------------------------------------------


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
    from .returned import of_results

    return of_results(*parts)


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
    pathlib.PosixPath: _path(pathlib.PosixPath),
    pathlib.WindowsPath: _path(pathlib.WindowsPath),
    pathlib.PurePosixPath: _path(pathlib.PurePosixPath),
    pathlib.PureWindowsPath: _path(pathlib.PureWindowsPath),
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

_RUNS = {("runctx.run", "Run"), ("runctx.tasks.values.returned", "Returned")}
