"""When do two values have equal content?

Equal content has equal canonical bytes: in any process, on any host, whatever the hash seed, the order in which a
dict or set was filled, and which equal parts happen to be one object. They are MessagePack: plain data stand for
themselves, all else is tagged, so that no two kinds of value can be mistaken for each other. An object counts as
what pickle would keep of it, large parts by their digest.
"""

from __future__ import annotations

import copyreg
import functools
import pickle
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterable
from enum import Enum
from pathlib import PurePath
from types import CodeType, FunctionType, ModuleType, NoneType
from typing import Any

import msgspec
from blake3 import blake3

from .labels import kind_of
from .labels import label as label

_encode = msgspec.msgpack.Encoder(order="deterministic").encode
_ATOMS = frozenset({NoneType, bool, int, float, str, bytes})
_NEGATIVE_NAN = b"\xcb\xff\xf8"
"""How one begins: which sign a NaN has depends on the processor, and it is a NaN all the same."""
_DEEPEST = 60
"""Values in values: a limit of our own, for how far Python can go depends on where it starts."""
_INLINE = 256
"""Bytes up to which a part stands in the whole, and not its digest: shared parts cannot blow it up."""


def digest(value: Any, size: int = 16) -> str:
    """Digest of what a value holds; equal for equal content, however it came about.

    Types count: `1`, `1.0` and `True` differ, as do `(1,)` and `[1]`. Functions and classes count by their qualified
    name; a function that cannot be imported by it (a lambda, one from `__main__`) also by its code, defaults and
    closure. A NaN has no sign.

    Parameters
    ----------
    size: bytes of the digest.

    Raises
    ------
    TypeError: the value cannot be pickled, so that nobody can say what it holds.

    >>> digest({"lr": 0.1, "epochs": 5}) == digest({"epochs": 5, "lr": 0.1})
    True
    >>> digest("a.png")
    'blake3:ed6d1eccd6db7a1b2a0bb2efc0329a94'
    """
    return f"blake3:{blake3(canonical(value)).hexdigest(length=size)}"


def key(value: Any) -> str:
    """What a task is known by in the ledger: the first 16 hex digits of its digest.

    Raises
    ------
    TypeError: the value cannot be pickled.

    >>> key("a.png")
    'ed6d1eccd6db7a1b'
    """
    return blake3(canonical(value)).digest(length=8).hex()


def canonical(value: Any) -> bytes:
    """The bytes that equal content has in common.

    Raises
    ------
    TypeError: the value cannot be pickled.
    """
    plain = _plain(value)
    if plain is not None:
        return plain
    try:
        try:
            return _Walk().form(value)
        except _CyclicError:
            return _Walk(numbered=True).form(value)
    except (_DeepError, RecursionError):  # yet perhaps not too deep for pickle
        return _tagged("pickle", _pickled(value))


def _plain(value: Any) -> bytes | None:
    """The quick way, for what MessagePack tells apart by itself: a scalar, or one list or dict of them."""
    kind = type(value)
    if kind in _ATOMS:
        pass
    elif kind is dict:
        if not _ATOMS.issuperset(map(type, value.values())):
            return None
    elif kind is not list or not _ATOMS.issuperset(map(type, value)):
        return None
    try:
        data = _encode(value)
    except (
        OverflowError,
        TypeError,
        UnicodeEncodeError,
    ):  # a large integer, a key that is no text, a surrogate
        return None
    return None if _NEGATIVE_NAN in data else data


class _CyclicError(Exception):
    """A value contains itself."""


class _DeepError(Exception):
    """A value is nested too deeply to be followed."""


class _Walk:
    """One way through a value.

    Parameters
    ----------
    numbered: tell an object met again by the number of its first visit, as a value that contains itself needs;
        otherwise by what it holds, so that it does not matter which equal parts are one object.
    """

    def __init__(self, numbered: bool = False) -> None:
        self._numbered = numbered
        self._known: dict[int, bytes | None] = {}
        self._depth = 0
        self._kept: list[Any] = []  # an id is only good as long as its object lives

    def form(self, value: Any) -> bytes:
        if type(value) in _ATOMS:
            return _atom(value)
        if self._depth == _DEEPEST:
            raise _DeepError
        identity = id(value)
        if identity in self._known:
            if (known := self._known[identity]) is None:
                raise _CyclicError
            return known
        self._kept.append(value)
        self._known[identity] = _tagged("again", _encode(len(self._kept))) if self._numbered else None
        self._depth += 1
        data = _plain(value) or self._shaped(value)
        self._depth -= 1
        if len(data) > _INLINE:
            data = _tagged("digest", blake3(data).digest())
        if not self._numbered:
            self._known[identity] = data
        return data

    def _shaped(self, value: Any) -> bytes:
        kind = type(value)
        if shape := _SHAPES.get(kind):
            return shape(self, value)
        for module, name, shape in _FOREIGN:  # never imported from here: who has such a value has the module
            known = getattr(sys.modules.get(module), name, None)
            if isinstance(known, type) and issubclass(kind, known):
                return shape(self, value)
        for base, shape in _BASES:
            if issubclass(kind, base):
                return shape(self, value)
        return self._object(value)

    def _parts(self, values: Iterable[Any]) -> bytes:
        return _joined(map(self.form, values))

    def _list(self, value: list[Any]) -> bytes:
        return self._parts(value)

    def _tuple(self, value: tuple[Any, ...]) -> bytes:
        return _tagged("tuple", self._parts(value))

    def _set(self, value: Iterable[Any]) -> bytes:
        return _tagged(type(value).__name__, _joined(sorted(map(self.form, value))))

    def _dict(self, value: dict[Any, Any]) -> bytes:
        formed = {name: msgspec.Raw(self.form(part)) for name, part in value.items()}
        try:
            return _encode(formed)
        except (TypeError, UnicodeEncodeError):  # a key that is no text, or none that can be written
            return _tagged("dict", self._pairs(value.items()))

    def _pairs(self, pairs: Iterable[tuple[Any, Any]], in_order: bool = False) -> bytes:
        formed = [(self.form(name), part) for name, part in pairs]
        if not in_order:
            formed.sort(key=lambda pair: pair[0])
        return _joined(form for name, part in formed for form in (name, self.form(part)))

    def _bytearray(self, value: bytearray) -> bytes:
        return _tagged("bytearray", value)

    def _path(self, value: PurePath) -> bytes:
        return _tagged(type(value).__name__, _atom(str(value)))

    def _enum(self, value: Enum) -> bytes:
        return _tagged("enum", self.form(type(value)), self.form(value.value))

    def _named(self, value: Any) -> bytes:
        return _tagged("global", _atom(_qualified(value)))

    def _module(self, value: ModuleType) -> bytes:
        return _tagged("module", _atom(value.__name__))

    def _function(self, value: FunctionType) -> bytes:
        if _is_importable(value):
            return self._named(value)
        closure = [cell.cell_contents for cell in value.__closure__ or () if _is_filled(cell)]
        parts = (value.__code__, value.__defaults__, value.__kwdefaults__, closure)
        return _tagged("function", _atom(_qualified(value)), self._parts(parts))

    def _code(self, value: CodeType) -> bytes:
        signature = (value.co_argcount, value.co_posonlyargcount, value.co_kwonlyargcount, value.co_flags)
        names = (value.co_names, value.co_varnames, value.co_freevars, value.co_cellvars)
        return _tagged("code", self._parts((value.co_code, value.co_consts, signature, names)))

    def _point(self, value: dict[str, Any]) -> bytes:
        return self.form(dict(value))  # its name depends on the other points: it is what it holds

    def _past(self, value: Any) -> bytes:
        return _tagged("run", _atom(value.id))

    def _returned(self, value: Any) -> bytes:
        """Of a run inside a task: what comes back of it."""
        rebuild, arguments = value.__reduce__()
        return _tagged("returned", self.form(rebuild(*arguments).content))

    def _array(self, value: Any) -> bytes:
        numpy, dtype = sys.modules["numpy"], value.dtype
        if type(value) not in (numpy.ndarray, numpy.memmap):
            if isinstance(value, numpy.ma.MaskedArray):
                return _tagged("masked", self._parts((value.data, numpy.ma.getmaskarray(value))))
            return self._object(value)
        if dtype.hasobject or dtype.char in "gG":  # of a long double, some bytes are left to chance
            items = map(repr, value.ravel()) if dtype.char in "gG" else value.ravel().tolist()
            return _tagged("array", self._parts((str(dtype), list(value.shape))), self._parts(items))
        if dtype.kind in "fc":
            signed = numpy.isnan(value) & (numpy.signbit(value.real) | numpy.signbit(value.imag))
            if signed.any():
                value = numpy.where(numpy.isnan(value), numpy.array(numpy.nan, dtype), value)
        dtype = dtype.newbyteorder("<")  # how numbers lie in memory does not count
        value = value.astype(dtype, copy=False)
        described = dtype.str if dtype.names is None else str(dtype.descr)
        content = numpy.ascontiguousarray(value)
        raw = content.reshape(-1).view(numpy.uint8).data if content.nbytes else b""
        return _tagged("array", self._parts((described, list(value.shape))), blake3(raw).digest())

    def _scalar(self, value: Any) -> bytes:
        content = repr(value) if value.dtype.char in "gG" else value.item()
        return _tagged("scalar", self._parts((value.dtype.newbyteorder("<").str, content)))

    def _tensor(self, value: Any) -> bytes:
        try:
            plain = value.detach().resolve_conj().resolve_neg().cpu().contiguous()
            raw = plain.reshape(-1).view(sys.modules["torch"].uint8).numpy().data
        except (
            RuntimeError,
            TypeError,
            NotImplementedError,
            AttributeError,
        ):  # sparse, quantized, without data
            return self._object(value)
        return _tagged("tensor", self._parts((str(value.dtype), list(value.shape))), blake3(raw).digest())

    def _configuration(self, value: Any) -> bytes:
        convert = sys.modules["omegaconf"].OmegaConf.to_container
        try:
            plain = convert(value, resolve=True)
        except Exception:  # an interpolation that cannot be resolved here counts as it is written
            plain = convert(value, resolve=False)
        return _tagged("configuration", self.form(plain))

    def _frame(self, value: Any) -> bytes:
        columns = [self._column(value.iloc[:, i]) for i in range(value.shape[1])]
        return _tagged("frame", self.form(value.index), self.form(value.columns), _joined(columns))

    def _series(self, value: Any) -> bytes:
        return _tagged("series", self.form(value.index), self.form(value.name), self._column(value))

    def _index(self, value: Any) -> bytes:
        return _tagged("index", self.form(list(value.names)), self._column(value))

    def _column(self, value: Any) -> bytes:
        if isinstance(value.dtype, sys.modules["numpy"].dtype):
            return self.form(value.to_numpy())
        categories = getattr(value.dtype, "categories", None)  # how they are kept in memory does not count
        return self._parts(
            (str(value.dtype), None if categories is None else list(categories), value.tolist())
        )

    def _object(self, value: Any) -> bytes:
        try:
            reduced = _reduced(value)
        except Exception:  # whatever it raises: cloudpickle knows more than pickle
            return _tagged("pickle", _pickled(value))
        if isinstance(reduced, str):
            module = getattr(value, "__module__", None) or pickle.whichmodule(value, reduced)  # type: ignore[attr-defined]
            return _tagged("global", _atom(f"{module}.{reduced}"))
        rebuild, arguments, state, items, pairs = (*reduced, None, None, None)[:5]
        return _tagged(
            "object",
            self._parts((rebuild, arguments, _lasting(type(value), state))),
            self._parts(items or ()),
            self._pairs(pairs or (), in_order=isinstance(value, OrderedDict)),
        )


_SHAPES: dict[type, Callable[[_Walk, Any], bytes]] = {
    list: _Walk._list,
    tuple: _Walk._tuple,
    dict: _Walk._dict,
    set: _Walk._set,
    frozenset: _Walk._set,
    bytearray: _Walk._bytearray,
    FunctionType: _Walk._function,
    CodeType: _Walk._code,
    ModuleType: _Walk._module,
}
_FOREIGN: tuple[tuple[str, str, Callable[[_Walk, Any], bytes]], ...] = (
    ("runctx.config.grid", "Point", _Walk._point),
    ("runctx.run", "Run", _Walk._returned),
    ("runctx.tasks.values.returned", "Returned", _Walk._returned),
    ("runctx.past.record", "Record", _Walk._past),
    ("numpy", "ndarray", _Walk._array),
    ("numpy", "generic", _Walk._scalar),
    ("pandas", "DataFrame", _Walk._frame),
    ("pandas", "Series", _Walk._series),
    ("pandas", "Index", _Walk._index),
    ("omegaconf", "DictConfig", _Walk._configuration),
    ("omegaconf", "ListConfig", _Walk._configuration),
    ("torch", "Tensor", _Walk._tensor),
)
_BASES: tuple[tuple[type, Callable[[_Walk, Any], bytes]], ...] = (
    (PurePath, _Walk._path),
    (Enum, _Walk._enum),
    (type, _Walk._named),
)


def _atom(value: Any) -> bytes:
    try:
        return _encode(abs(value) if value != value else value)
    except OverflowError:
        return _tagged("int", value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))
    except UnicodeEncodeError:
        return _tagged("str", value.encode("utf-8", "surrogatepass"))


def _tagged(tag: str, *contents: bytes | bytearray) -> bytes:
    return _encode(msgspec.msgpack.Ext(1, _encode([tag, *contents])))


def _joined(forms: Iterable[bytes]) -> bytes:
    return _encode([msgspec.Raw(form) for form in forms])


def _qualified(value: Any) -> str:
    module = getattr(value, "__module__", None)
    # multiprocessing's name for the same module
    return f"{'__main__' if module == '__mp_main__' else module}.{value.__qualname__}"


def _is_importable(function: FunctionType) -> bool:
    if function.__module__ in ("__main__", "__mp_main__"):
        return False
    found: Any = sys.modules.get(function.__module__)
    for name in function.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is function


def _is_filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:  # a variable that is not set yet
        return False
    return True


def _reduced(value: Any) -> str | tuple[Any, ...]:
    """How pickle would rebuild it."""
    reduce = copyreg.dispatch_table.get(type(value))
    reduced = reduce(value) if reduce is not None else value.__reduce_ex__(4)
    assert isinstance(reduced, (str, tuple))
    return reduced


def _lasting(kind: type, state: Any) -> Any:
    """The state of an object, without what it only remembers: a cached property."""
    if isinstance(state, tuple) and len(state) == 2:  # of an object with slots
        return tuple(_lasting(kind, part) for part in state)
    if type(state) is dict and (cached := _cached_properties(kind)):
        return {name: part for name, part in state.items() if name not in cached}
    return state


@functools.lru_cache(maxsize=256)
def _cached_properties(kind: type) -> frozenset[str]:
    return frozenset(
        name
        for base in kind.__mro__
        for name, attribute in vars(base).items()
        if isinstance(attribute, functools.cached_property)
    )


def _pickled(value: Any) -> bytes:
    import cloudpickle

    try:
        data: bytes = cloudpickle.dumps(value, protocol=4)
    except Exception as error:
        raise TypeError(
            f"{kind_of(value)} has no content to compare: it cannot be pickled ({error})"
        ) from error
    return data
