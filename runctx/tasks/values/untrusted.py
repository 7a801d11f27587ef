"""How is a result read from disk without executing anything?

Pickle is a program. Here its instructions run in Python's own unpickler, cut down: what it may build is listed, each
thing by a function of ours that checks what it is built from; no other callable is called, no module of the user's is
imported, and no state is set but that of the types below. What numpy is given are states numpy itself computed.
"""

from __future__ import annotations

import io
import math
import os
import pathlib
import pickle
import re
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from typing import Any, NoReturn
from uuid import UUID
from zoneinfo import ZoneInfo

from ...errors import ResultError

_LONGEST_NUMBER = 10_000
"""Digits of a fraction: reducing longer ones takes time that grows with their square."""
_MOST_AXES = 64
"""Of a numpy array."""
_LARGEST_KEY = 1_000
"""Parts of a tuple that is hashed: Python follows nested ones without end, and shared ones again and again."""
_HASHED_AS_THEMSELVES = (1 << 61) - 1
"""Below it, two whole numbers have two hashes."""
_MOST_ALIKE = 100
"""Keys of the same hash: looking each up takes time that grows with their number."""
_HINT = "if you trust who wrote it, read it with trusted=True"


def loads(data: bytes) -> Any:
    """Plain data, what `collections`, `datetime`, `decimal`, `fractions`, `pathlib` and `uuid` hold, numpy arrays.

    Raises
    ------
    ResultError: anything else, named; or broken data.

    >>> loads(pickle.dumps({"acc": 0.9, "when": date(2025, 1, 1)}, 5))
    {'acc': 0.9, 'when': datetime.date(2025, 1, 1)}
    >>> loads(pickle.dumps(print, 5))
    Traceback (most recent call last):
    runctx.errors.ResultError: a result holds builtins.print, which is not built from a file
    hint: if you trust who wrote it, read it with trusted=True
    """
    try:
        return _Unpickler(data).load()
    except ResultError:
        raise
    except Exception as error:  # broken data may fail anywhere
        raise ResultError(f"a result cannot be read: {type(error).__name__}: {error}") from error


def _refuse(name: str) -> NoReturn:
    raise ResultError(f"a result holds {name}, which is not built from a file", hint=_HINT)


def _broken(why: str) -> NoReturn:
    raise ResultError(f"a result cannot be read: {why}")


# -- what may be built, from what ------------------------------------------------------------------------------------


def _check(arguments: Iterable[Any], *kinds: type) -> None:
    for argument in arguments:
        if type(argument) not in kinds:
            _broken(f"{type(argument).__name__} where {' or '.join(k.__name__ for k in kinds)} is due")


def _fraction(numerator: int, denominator: int) -> Fraction:
    _check((numerator, denominator), int)
    if max(numerator.bit_length(), denominator.bit_length()) > 3 * _LONGEST_NUMBER:
        _broken("a fraction of too many digits")
    return Fraction(numerator, denominator)


def _checked(kind: type, *allowed: type) -> Callable[..., Any]:
    def build(*arguments: Any) -> Any:
        _check(arguments, *allowed)
        return kind(*arguments)

    return build


def _moment(kind: type[Any]) -> Callable[..., Any]:
    def build(raw: bytes, zone: Any = None) -> Any:
        _check((raw,), bytes)
        _check((zone,), timezone, ZoneInfo, type(None))
        moment = kind(raw, zone) if zone is not None else kind(raw)
        return moment.replace()  # as it was packed, it was not checked

    return build


def _path(name: str) -> Callable[..., pathlib.PurePath]:
    here = {"PosixPath": "posix", "WindowsPath": "nt"}.get(name, os.name) == os.name
    kind = getattr(pathlib, name if here else f"Pure{name}")  # the other system's paths can only be looked at

    def build(*parts: str) -> pathlib.PurePath:
        _check(parts, str)
        return kind(*parts)  # type: ignore[no-any-return]

    return build


def _zone(key: str, from_cache: bool) -> ZoneInfo:
    _check((key,), str)
    return ZoneInfo(key)


def _attribute(of: Any, name: str) -> _Named:
    if of is ZoneInfo and name == "_unpickle":
        return _Named("zoneinfo.ZoneInfo._unpickle")
    _refuse(f"an attribute of {getattr(of, '__qualname__', type(of).__qualname__)}")


def _ordered() -> OrderedDict[Any, Any]:
    return OrderedDict()


def _counter(counts: Any) -> Counter[Any]:
    _check((counts,), dict)
    return Counter(counts)


def _defaultdict(factory: Any = None) -> defaultdict[Any, Any]:
    if factory is not None and not any(factory is kind for kind in _INERT.values()):
        _refuse("a defaultdict with a factory of its own")
    return defaultdict(factory)


def _deque(parts: Any = (), most: int | None = None) -> deque[Any]:
    _check((parts,), tuple, list)
    _check((most,), int, type(None))
    return deque(parts, most)


def _uuid() -> UUID:
    return UUID(int=0)


def _fill_uuid(made: UUID, state: Any) -> None:
    object.__setattr__(made, "int", UUID(int=state["int"]).int)


def _run(save_dir: str, id: str, config: dict[Any, Any]) -> Any:
    from .returned import untrusted

    _check((save_dir, id), str)
    _check((config,), dict)
    return untrusted(save_dir, id, config)


def _hashable(value: Any) -> Any:
    """The value, if its hash is found in bounded time."""
    parts = [value]
    for count, part in enumerate(parts):  # grows as it is read
        if count > _LARGEST_KEY:
            _broken("a key of too many parts")
        if type(part) is tuple:
            parts.extend(part[: _LARGEST_KEY + 1])
    return value


def _dtype(code: str, align: bool = False, copy: bool = True) -> Any:
    import numpy

    _check((code,), str)
    if not _PLAIN_DTYPE.fullmatch(code):
        _refuse(f"a numpy dtype {code[:80]!r}")
    return numpy.dtype(code, copy=True)


_PLAIN_DTYPE = re.compile(r"[biufcSUV]\d{1,9}|[mMO]8?")


def _fill_dtype(made: Any, state: Any) -> None:
    described = _described(made, state)
    if described.num != made.num:  # numpy takes any state for a dtype, and crashes on one of another kind
        _broken("a numpy dtype with the state of another")
    made.__setstate__(described.__reduce__()[2])


def _described(dtype: Any, state: Any) -> Any:
    """What a dtype should become: asked of numpy by its public constructor, which checks it."""
    import numpy

    version, order, base, names, fields, size, _, _, *rest = state
    if order not in ("<", ">", "=", "|"):
        _broken("a numpy dtype of no byte order")
    if base is not None:
        return numpy.dtype((_inner(base[0]), _shape(base[1])))
    if names is not None:
        _check(names, str)
        formats = [_inner(fields[name][0]) for name in names]
        offsets = [fields[name][1] for name in names]
        described = {"names": list(names), "formats": formats, "offsets": offsets, "itemsize": size}
        return numpy.dtype(described)  # type: ignore[call-overload]
    if dtype.kind in "mM" and version == 4:
        unit, count, *_ = rest[0][1]
        return numpy.dtype(f"{order}{dtype.kind}8[{int(count)}{bytes(unit).decode('ascii')}]")
    return dtype.newbyteorder(order) if order in ("<", ">") else dtype


def _inner(dtype: Any) -> Any:
    import numpy

    if not isinstance(dtype, numpy.dtype) or dtype.hasobject:
        _refuse("a numpy array of records that hold objects")
    return numpy.dtype(dtype, copy=True)  # one that nobody else can still change


def _shape(shape: Any) -> tuple[int, ...]:
    _check((shape,), tuple)
    _check(shape, int)
    if len(shape) > _MOST_AXES or any(n < 0 for n in shape):
        _broken("a numpy array of no shape")
    return tuple(shape)


def _array(raw: Any, dtype: Any, shape: Any, order: Any) -> Any:
    """A new array; its content is as large as it says."""
    import numpy

    shape = _shape(shape)
    count = math.prod(shape)
    if isinstance(dtype, numpy.dtype) and dtype.kind == "O" and dtype.shape == ():
        _check((raw,), list)
        array = numpy.empty(len(raw), object)
        for i, part in enumerate(raw):  # one by one: of a list of lists numpy would make axes
            array[i] = part
    else:
        _check((raw,), bytes, bytearray)
        array = numpy.frombuffer(bytearray(raw), _inner(dtype)) if raw else numpy.empty(0, _inner(dtype))
    if len(array) != count:
        _broken(f"a numpy array has {len(array)} items where {count} are due")
    return array.reshape(shape, order="F" if order in ("F", True) else "C")


def _scalar(dtype: Any, raw: Any = b"") -> Any:
    return _array(raw, dtype, (1,), "C")[0]


def _unfilled_array(kind: Any, shape: Any, code: Any) -> Any:
    import numpy

    if kind is not numpy.ndarray:
        _refuse("a numpy array of an unknown class")
    return numpy.ndarray((0,), "b")


def _fill_array(made: Any, state: Any) -> None:
    _, shape, dtype, order, raw = state
    made.__setstate__(_array(raw, dtype, shape, order).__reduce__()[2])


# -- by which name -------------------------------------------------------------------------------------------------


class _Named:
    """Stands for something that is only ever called, and cannot be reached."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


_INERT: dict[str, Any] = {
    f"builtins.{kind.__name__}": kind
    for kind in (
        bool,
        int,
        float,
        complex,
        str,
        bytes,
        bytearray,
        list,
        tuple,
        dict,
        set,
        frozenset,
        range,
        slice,
        object,
    )
} | {"builtins.Ellipsis": Ellipsis, "builtins.NotImplemented": NotImplemented, "zoneinfo.ZoneInfo": ZoneInfo}
"""Values that are told by a name."""

_BUILDERS: dict[str, Callable[..., Any]] = {
    "builtins.complex": _checked(complex, float, int),
    "builtins.range": _checked(range, int),
    "builtins.slice": _checked(slice, int, float, str, type(None)),
    "builtins.getattr": _attribute,
    "zoneinfo.ZoneInfo._unpickle": _zone,
    "fractions.Fraction": _fraction,
    "decimal.Decimal": _checked(Decimal, str),
    "datetime.date": _moment(date),
    "datetime.time": _moment(time),
    "datetime.datetime": _moment(datetime),
    "datetime.timedelta": _checked(timedelta, int),
    "datetime.timezone": _checked(timezone, timedelta, str),
    "collections.OrderedDict": _ordered,
    "collections.Counter": _counter,
    "collections.defaultdict": _defaultdict,
    "collections.deque": _deque,
    "uuid.UUID": _uuid,
    "runctx.tasks.values.returned.Returned": _run,
    **{
        f"{module}.{name}": _path(name)
        for module in ("pathlib", "pathlib._local")
        for name in ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")
    },
    "numpy.dtype": _dtype,
    **{f"numpy.{core}.numeric._frombuffer": _array for core in ("_core", "core")},
    **{f"numpy.{core}.multiarray._reconstruct": _unfilled_array for core in ("_core", "core")},
    **{f"numpy.{core}.multiarray.scalar": _scalar for core in ("_core", "core")},
}
_FILLERS: dict[str, Callable[[Any, Any], None]] = {
    "uuid.UUID": _fill_uuid,
    "numpy.dtype": _fill_dtype,
    **{f"numpy.{core}.multiarray._reconstruct": _fill_array for core in ("_core", "core")},
}
"""What a state that comes after the object does to it."""

_INSTRUCTIONS = re.compile(
    "load_(proto|frame|mark|pop|pop_mark|memoize|binget|long_binget|stop|stack_global|reduce|newobj|build"
    "|none|true|false|binint|binint1|binint2|long1|long4|binfloat|short_binunicode|binunicode|binunicode8"
    "|short_binbytes|binbytes|binbytes8|bytearray8|empty_list|append|appends|empty_dictionary|setitem|setitems"
    "|empty_set|additems|frozenset|empty_tuple|tuple|tuple1|tuple2|tuple3)"
)
"""Of pickle's, those that protocol 5 writes for the values above."""


_Python: Any = pickle._Unpickler


class _Unpickler(_Python):  # type: ignore[misc]
    """Python's own unpickler in Python, with fewer instructions, and checks in those that build something."""

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data))
        self._size = len(data)
        self._alike: Counter[tuple[int, int]] = Counter()
        """Into what, and hash -> how many keys of that hash."""
        self._unfilled: dict[int, tuple[Any, Callable[[Any, Any], None]]] = {}
        """Objects whose state is still to come. It may come once: what lies in use elsewhere must not change."""

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        if full in _INERT:
            return _INERT[full]
        if full == "numpy.ndarray":  # named, but never called
            import numpy

            return numpy.ndarray
        if full not in _BUILDERS:
            _refuse(full[:200])
        return _Named(full)

    def _build(self, of: Any, arguments: Any) -> Any:
        name = of.name if type(of) is _Named else f"builtins.{of.__name__}" if type(of) is type else ""
        if name not in _BUILDERS or type(arguments) is not tuple:
            _refuse(f"a call of {name or type(of).__qualname__}")
        made = _BUILDERS[name](*arguments)
        if fill := _FILLERS.get(name):
            self._unfilled[id(made)] = (made, fill)
        return made

    def load_reduce(self) -> None:
        arguments = self.stack.pop()
        self.stack[-1] = self._build(self.stack[-1], arguments)

    def load_build(self) -> None:
        state = self.stack.pop()
        made = self.stack[-1]
        if id(made) not in self._unfilled:
            _refuse(f"a {type(made).__qualname__} with a state of its own")
        _, fill = self._unfilled.pop(id(made))
        fill(made, state)

    load_newobj = load_reduce

    def load_setitem(self) -> None:
        value = self.stack.pop()
        self._set([self.stack.pop(), value])

    def load_setitems(self) -> None:
        self._set(self.pop_mark())

    def _set(self, items: list[Any]) -> None:
        into = self._target(items, dict, OrderedDict, defaultdict, Counter)
        for key, value in zip(items[::2], items[1::2], strict=True):
            into[self._key(into, key)] = value

    def load_append(self) -> None:
        item = self.stack.pop()
        self._target([item], list, deque).append(item)

    def load_appends(self) -> None:
        items = self.pop_mark()
        self._target(items, list, deque).extend(items)

    def load_additems(self) -> None:
        items = self.pop_mark()
        into = self._target(items, set)
        into.update(self._key(into, item) for item in items)

    def load_frozenset(self) -> None:
        items = self.pop_mark()
        self.stack.append(frozenset(self._key(items, item) for item in items))

    def _key(self, into: Any, key: Any) -> Any:
        """The key, if Python finds its place in bounded time."""
        if type(key) in (str, bytes) or (type(key) is int and abs(key) < _HASHED_AS_THEMSELVES):
            return key  # of these nobody can choose the hash
        alike = id(into), hash(_hashable(key))
        self._alike[alike] += 1
        if self._alike[alike] > _MOST_ALIKE:
            _broken("a set or dict of keys that are made to collide")
        return key

    def load_bytearray8(self) -> None:
        size = int.from_bytes(self.read(8), "little")
        if size > self._size:
            _broken("it ends too early")
        self.stack.append(bytearray(self.read(size)))

    def load_stop(self) -> None:
        self._only_values(self.stack[-1:])
        super().load_stop()

    def _target(self, items: list[Any], *kinds: type) -> Any:
        """What the items go into, if they may."""
        self._only_values(items)
        _check(self.stack[-1:], *kinds)
        return self.stack[-1]

    def _only_values(self, items: list[Any]) -> None:
        for item in items:
            if type(item) is _Named:
                _refuse(item.name)


_Unpickler.dispatch = {
    opcode: getattr(_Unpickler, method.__name__)
    for opcode, method in _Python.dispatch.items()
    if _INSTRUCTIONS.fullmatch(method.__name__)
}
