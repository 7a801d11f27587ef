"""Values and exceptions arrive as what they were; what comes from a file executes nothing."""

from __future__ import annotations

import builtins
import collections
import dataclasses
import datetime
import decimal
import fractions
import io
import json
import os
import pathlib
import pickle
import pickletools
import struct
import subprocess
import sys
import threading
import traceback
import uuid
import zoneinfo
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runctx.errors import ConfigError, RemoteError, ResultError
from runctx.redact import Redactor
from runctx.tasks.values import pickles as values
from runctx.tasks.values.content import key
from runctx.tasks.values.pickles import pack, pack_error, unpack, unpack_error

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=5) | st.tuples(st.integers()), inner, max_size=4)
        | st.frozensets(st.integers(), max_size=4)
    ),
    max_leaves=20,
)
DATA = [
    *(
        1j,
        range(3),
        slice(1, None),
        bytearray(b"a"),
        {1, 2},
        frozenset("a"),
        2**3000,
        -(2**70),
        int,
        Ellipsis,
    ),
    *(uuid.UUID(int=5), fractions.Fraction(1, 3), decimal.Decimal("1.50"), decimal.Decimal("NaN")),
    *(pathlib.PurePosixPath("a/b"), pathlib.Path("c"), pathlib.PureWindowsPath("a")),
    *(collections.deque([1], 3), collections.Counter("aab"), collections.OrderedDict(b=1, a=2)),
    *(collections.defaultdict(list, a=[1]), collections.defaultdict(None, a=1)),
    *(datetime.date(2025, 1, 2), datetime.time(1, 2), datetime.timedelta(1, 2, 3)),
    *(
        datetime.datetime(2025, 1, 2, tzinfo=datetime.UTC),
        datetime.timezone(datetime.timedelta(hours=1), "x"),
    ),
    datetime.datetime(2025, 1, 2, tzinfo=zoneinfo.ZoneInfo("UTC")),
    *(
        np.float32(1.5),
        np.int64(3),
        np.bool_(True),
        np.str_("abc"),
        np.datetime64("2025-01-01"),
        np.complex64(1j),
    ),
    *(
        np.longdouble(1.5),
        np.zeros(1, [("a", "i4")])[0],
        np.dtype("f4"),
        np.dtype([("a", "i4"), ("b", ">f8", 2)]),
    ),
]
ARRAYS = [
    *(
        np.arange(3),
        np.arange(6).reshape(2, 3).T,
        np.arange(10)[::2],
        np.array([]),
        np.zeros((0, 3)),
        np.array(5),
    ),
    *(
        np.array(["ab", "c"]),
        np.array([b"a"]),
        np.zeros(2, "M8[ns]"),
        np.zeros(2, "m8[3D]"),
        np.ones(2, ">f4"),
    ),
    *(np.array([1, "a", [2]], object), np.array([[None, 1]], object), np.zeros((2, 3), np.longdouble)),
    *(
        np.zeros(2, [("a", "i4"), ("b", "f8", 2)]),
        np.zeros(3, np.dtype([("a", "u1"), ("b", "f8")], align=True)),
    ),
    np.zeros(2, [("a", [("b", "i2"), ("c", "S3")])]),
]


@given(plain)
def test_plain_data_come_back(value: Any) -> None:
    """With trust and without, they are what they were."""
    for trusted in (True, False):
        assert key(unpack(pack(value), trusted=trusted)) == key(value)


@pytest.mark.parametrize("value", DATA, ids=repr)
def test_the_standard_library_s_data_come_back_without_trust(value: Any) -> None:
    """Dates, numbers, paths, collections, and numpy's scalars."""
    again, same = unpack(pack(([value], [value])), trusted=False)
    assert type(again[0]) is type(value)
    assert key(again) == key(same) == key([value])


@pytest.mark.parametrize("value", ARRAYS, ids=lambda a: f"{a.dtype}-{a.shape}")
def test_arrays_come_back_without_trust(value: np.ndarray[Any, Any]) -> None:
    """Of any type, shape and order; they are writable, as they were."""
    again, same = unpack(pack((value, value)), trusted=False)
    assert type(again) is np.ndarray
    assert (again.dtype, again.shape, again.flags.writeable) == (value.dtype, value.shape, True)
    assert key(again) == key(value)
    assert again is same


class Mine:
    pass


class Calls:
    def __init__(self, function: Any, *arguments: Any, state: Any = None) -> None:
        self.call = (function, arguments, state)

    def __reduce__(self) -> Any:
        return self.call if self.call[2] is not None else self.call[:2]


called: list[Any] = []


def call(*arguments: Any) -> None:
    called.append(arguments)


HOSTILE = [
    *(
        Calls(os.system, "exit"),
        Calls(eval, "call()"),
        Calls(call, 1),
        Calls(open, os.devnull),
    ),
    *(
        Calls(getattr, pathlib.Path, "touch"),
        Calls(pathlib.Path.touch, pathlib.Path("a")),
        Calls(list, range(10**12)),
    ),
    *(
        Calls(bytes, 10**12),
        Calls(set, range(10**12)),
        Calls(fractions.Fraction, "1e999999999"),
        Mine(),
        Mine,
        call,
    ),
    *(
        Calls(collections.defaultdict, call),
        Calls(str.format, "{0.__class__}", 1),
        Calls(__import__, "antigravity"),
    ),
    *(
        Calls(np.load, "a.npy"),
        Calls(np.dtype, "O,O"),
        Calls(np.ndarray, (10**12,)),
        np.ma.array([1]),
        pd.Series([1]),
    ),
    *(
        Calls(collections.OrderedDict, [(1, 2)]),
        Calls(collections.Counter, "abc"),
        Calls(datetime.date, 1, 2, 3),
    ),
    *(
        Calls(collections.deque, "abc"),
        Calls(range, "a"),
        Calls(collections.OrderedDict, state={"update": 1}),
    ),
    *(
        Calls(collections.Counter, {}, state=(None, {"update": 1})),
        [datetime.date],
        print,
        np.float64,
        Calls(dict),
    ),
]


@pytest.mark.parametrize("value", HOSTILE, ids=[str(i) for i in range(len(HOSTILE))])
def test_nothing_is_executed_without_trust(value: Any) -> None:
    """Whatever else a file would have called, built or changed is refused, and named where it has a name."""
    data = pickle.dumps(value, 5)
    with pytest.raises(ResultError):
        unpack(data, trusted=False)
    assert not called


def test_what_is_refused_is_named() -> None:
    """With what to do about it."""
    with pytest.raises(ResultError, match=r"test_values\.Mine.*not built from a file") as caught:
        unpack(pickle.dumps(Mine()), trusted=False)
    assert "trusted=True" in str(caught.value)


def program(*steps: bytes) -> bytes:
    return b"\x80\x05" + b"".join(steps) + b"."


def name(module: str, attribute: str) -> bytes:
    return b"".join(b"\x8c" + bytes([len(t)]) + t.encode() for t in (module, attribute)) + b"\x93"


NESTED_KEY = b"}" + b")" + b"\x85" * 100_000 + b"K\x01s"
SHARED_KEY = b"})" + b"2\x86" * 60 + b"K\x01s"
DTYPE = name("numpy", "dtype") + b"\x8c\x02V8\x89\x88\x87R"
COLLIDING = b"".join(b"\x8a\x0a" + (n * (2**61 - 1)).to_bytes(10, "little") for n in range(60_000))
"""Whole numbers that all have the hash 0."""
BOMBS = [
    b"\x96" + struct.pack("<Q", 2**50),
    b"\x8e" + struct.pack("<Q", 2**50),
    b"r" + struct.pack("<I", 2**31) + b"N",
    b"\x8b" + struct.pack("<i", 2**31 - 1),
    NESTED_KEY,
    SHARED_KEY,
    b"\x8f()" + b"2\x86" * 60 + b"\x90",
    name("fractions", "Fraction") + b"\x8a\xff" + b"\x7f" * 255 + b"N\x86R",
    b"cos\nsystem\n)R",
    b"(S'ls'\nios\nsystem\n",
    b"\x82\x01",
    b"Pid\n",
    b"NQ",
    name("uuid", "UUID") + b")\x81}\x8c\x03intN" + b"sb",
    name("uuid", "UUID") + b")\x81}\x8c\x03intK\x01sb}b",
    name("builtins", "dict") + b"}\x8c\x01aK\x01sb",
    b"]" + name("builtins", "getattr") + b"a",
    name("datetime", "datetime") + b"C\x0a" + b"\x00\x00\x01\x01\xff\xff\xff\x00\x00\x00" + b"\x85R",
    DTYPE + b"(K\x03\x8c\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK?tb}b",
    name("numpy._core.numeric", "_frombuffer") + b"(C\x04aaaa" + DTYPE + b"K\x01\x85\x8c\x01CtR",
    name("numpy._core.numeric", "_frombuffer") + b"(C\x04aaaa" + DTYPE + b"J\xff\xff\xff\x7f\x85\x8c\x01CtR",
    b"\x8f(" + COLLIDING + b"\x90",
    b"(" + COLLIDING + b"\x91",
    b"}(" + COLLIDING + b"u",
]


@pytest.mark.parametrize("steps", BOMBS, ids=[str(i) for i in range(len(BOMBS))])
def test_programs_that_pickle_never_writes_are_refused(steps: bytes) -> None:
    """Bombs, state set twice or on classes, calls by other instructions: an error in bounded time and memory."""
    with pytest.raises(ResultError):
        unpack(program(steps), trusted=False)


MUTATE = """
import pickle, random, sys, warnings
import numpy as np
from runctx.errors import ResultError
from runctx.tasks.values import pickles
warnings.simplefilter("ignore")
dice = random.Random(int(sys.argv[1]))
arrays = [
    *(np.arange(6.0).reshape(2, 3), np.zeros(2, ">i2"), np.zeros(2, "M8[25us]"), np.array(["2020"], "M8[D]")),
    *(np.zeros(3, [("a", "<i4"), ("b", "M8[D]"), ("c", "f8", (2, 2))]), np.array(["a", "bc"]), np.zeros(2, "V5")),
]
packed = [pickle.dumps(value, 5) for array in arrays for value in (array, array.dtype, array[0])]
for _ in range(5000):
    data = bytearray(dice.choice(packed))
    at = dice.randrange(len(data))
    data[at : at + dice.randrange(3)] = bytes([dice.choice(b"<>|=,()i48fVMmOSUNK")]) * dice.randrange(3)
    try:
        value = pickles.unpack(bytes(data), trusted=False)
    except ResultError:
        continue
    try:
        repr(value), pickle.dumps(value)
    except (ValueError, TypeError, OverflowError, SystemError):  # of characters and dates that are none
        pass
"""


@pytest.mark.parametrize("seed", ["1", "2"])
def test_no_mutated_array_ends_the_process(seed: str) -> None:
    """Whatever a file says of a dtype (its byte order, its fields, its base), the reader lives."""
    done = subprocess.run([sys.executable, "-c", MUTATE, seed], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@given(st.sampled_from([*DATA, *ARRAYS]), st.data())
def test_broken_bytes_give_a_clear_error(value: Any, data: Any) -> None:
    """A byte changed, or the end cut off: a value, or a ResultError, and nothing else."""
    packed = bytearray(pack(value))
    at = data.draw(st.integers(0, len(packed) - 1))
    packed[at] = data.draw(st.integers(0, 255))
    for broken in (bytes(packed), bytes(packed[:at])):
        try:
            unpack(broken, trusted=False)
        except ResultError:
            pass


def test_a_class_that_is_gone_is_named() -> None:
    """With trust, what cannot be found here gives a ResultError too."""
    data = pickle.dumps(Mine(), 5).replace(b"Mine", b"Gone")
    with pytest.raises(ResultError, match="Gone"):
        unpack(data)


SCRIPT = """
import dataclasses, sys
from runctx.tasks.values.pickles import pack

@dataclasses.dataclass
class Result:
    acc: float

def make(x):
    return Result(x)

sys.stdout.buffer.write(pack((make, Result(0.5), lambda x: x + 1)))
"""


def test_what_main_defines_is_there_in_another_process() -> None:
    """Classes, functions and lambdas of a script or a notebook travel whole."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, check=True)
    make, result, plus_one = unpack(done.stdout)
    assert (make(0.7).acc, result.acc, plus_one(1)) == (0.7, 0.5, 2)
    assert type(make(1)) is type(result)


def test_what_cannot_be_packed_says_where() -> None:
    """The innermost part, and the way to it."""
    with pytest.raises(TypeError, match=r"dict cannot be pickled because of .*lock.* at \['a'\]\[1\]"):
        pack({"a": [1, threading.Lock()]})


@given(st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=250))
def test_small_values_come_back_exactly(value: Any) -> None:
    """From one line of JSON that any reader can read; what is not small is not."""
    data = values.small(value)
    if data is None:
        assert isinstance(value, (int, str))
        return
    again = values.from_small(data)
    assert type(again) is type(value)
    assert key(again) == key(value)
    assert b"\n" not in data
    json.loads(data)


@pytest.mark.parametrize(
    "value", [[1], {}, 2**63, -(2**63) - 1, "x" * 201, "\ud800", np.float64(1), b"a", ()]
)
def test_other_values_are_not_small(value: Any) -> None:
    """Neither large ones, nor those that JSON would bring back as something else."""
    assert values.small(value) is None


@pytest.mark.parametrize("data", [b"", b"nan", b"[1]", b"{}", b'{"float":"x"}', b"[" * 100_000, b"\xff"])
def test_json_that_small_never_wrote_is_refused(data: bytes) -> None:
    """A row may be broken, or made by somebody else."""
    with pytest.raises(ResultError):
        values.from_small(data)


# -- exceptions ------------------------------------------------------------------------------------------------------


class TwoArguments(Exception):
    def __init__(self, code: int, why: str) -> None:
        super().__init__(f"{why} ({code})")
        self.code, self.why = code, why


class KeywordOnly(ValueError):
    def __init__(self, *, code: int) -> None:
        self.code = code

    def __str__(self) -> str:
        return f"code {self.code}"


class Slotted(OSError):
    __slots__ = ("where",)

    def __init__(self, where: str) -> None:
        super().__init__(2, "not there", "f.txt")
        self.where = where


class Both(ConfigError, KeyError):
    pass


class OwnNew(Exception):
    def __new__(cls, a: int, b: int, c: int) -> OwnNew:
        return super().__new__(cls, a, b)

    def __init__(self, a: int, b: int, c: int) -> None:
        self.c = c


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    code: int


class Group(ExceptionGroup):
    def __new__(cls, errors: list[Exception]) -> Group:
        return super().__new__(cls, "mine", errors)

    def __init__(self, errors: list[Exception]) -> None:
        self.count = len(errors)


def decoding_error() -> UnicodeDecodeError:
    return UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad")


ERRORS = [
    *(
        TwoArguments(3, "bad"),
        KeywordOnly(code=4),
        Slotted("here"),
        Both("what", "hint"),
        OwnNew(1, 2, 3),
        Frozen(5),
    ),
    *(
        ValueError(),
        KeyError("a"),
        OSError("a"),
        FileNotFoundError(2, "no", "f.txt"),
        OSError(13, "no"),
        SystemExit(3),
    ),
    *(decoding_error(), UnicodeEncodeError("ascii", "é", 0, 1, "bad"), StopIteration(5), KeyboardInterrupt()),
    *(
        ImportError("no", name="n", path="p"),
        SyntaxError("m", ("f", 1, 2, "t", 1, 3)),
        NameError("x", name="y"),
    ),
    *(
        json.JSONDecodeError("no", "doc", 1),
        subprocess.CalledProcessError(1, "ls"),
        RemoteError("m", type="a.B"),
    ),
    *(
        MemoryError(),
        RecursionError("deep"),
        np.linalg.LinAlgError("x"),
        np.exceptions.AxisError(3, 2),
        AssertionError(),
    ),
    *(
        ExceptionGroup("g", [ValueError(1), TwoArguments(1, "x")]),
        Group([ValueError(1)]),
        io.UnsupportedOperation("r"),
    ),
    *(
        BaseExceptionGroup("b", [KeyboardInterrupt()]),
        ConfigError("m", "h"),
        TimeoutError(),
        BlockingIOError(1, "a", 3),
    ),
]
FIELDS = (
    "errno",
    "filename",
    "strerror",
    "name",
    "path",
    "code",
    "value",
    "start",
    "object",
    "lineno",
    "msg",
    "where",
)


def row(kind: str = "a.B", message: str = "m", text: str = "Traceback of then\n") -> Any:
    return SimpleNamespace(error=SimpleNamespace(type=kind, message=message, traceback=text))


def again(error: BaseException, trusted: bool = True) -> BaseException:
    packed = pack_error(error)
    assert packed is not None
    return unpack_error(packed, row(), trusted=trusted)


def told(error: BaseException) -> Any:
    state = {name: getattr(error, name, None) for name in FIELDS}
    members = [told(member) for member in getattr(error, "exceptions", ())]
    args = () if members else error.args
    return (
        type(error),
        args,
        str(error),
        state,
        members,
        {k: v for k, v in vars(error).items() if k != "__notes__"},
    )


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: type(e).__name__)
def test_an_exception_arrives_as_what_it_was(error: BaseException) -> None:
    """Class, arguments, attributes, text and notes, whatever its constructor takes."""
    object.__setattr__(error, "__notes__", ["seen"])
    arrived = again(error)
    assert told(arrived) == told(error)
    assert arrived.__notes__ == ["seen"]
    with pytest.raises(type(error)):
        raise arrived


def test_causes_and_contexts_arrive() -> None:
    """As a chain of exceptions, also where it is a circle."""
    try:
        try:
            try:
                1 / 0
            finally:
                {}["a"]
        except KeyError as inner:
            raise TwoArguments(1, "b") from inner
    except TwoArguments as error:
        arrived = again(error)
    assert type(arrived.__cause__) is KeyError
    assert arrived.__context__ is arrived.__cause__
    assert type(arrived.__cause__.__context__) is ZeroDivisionError
    circle = ValueError(1)
    circle.__context__ = TypeError(2)
    circle.__context__.__context__ = circle
    assert type(again(circle).__context__) is TypeError


def test_parts_that_cannot_travel_are_told_or_left_out() -> None:
    """An argument becomes its text, an attribute is left out; an exception in either travels as one."""
    error = ValueError(threading.Lock(), TwoArguments(1, "x"), b"x" * (17 << 20))
    error.lock, error.first = threading.Lock(), TwoArguments(2, "y")
    arrived = again(error)
    text, inner, large = arrived.args
    assert text == "<unlocked _thread.lock object>"
    assert told(inner) == told(error.args[1])
    assert isinstance(large, str)
    assert "lock" not in vars(arrived)
    assert told(arrived.first) == told(error.first)


def test_a_class_made_in_a_function_arrives() -> None:
    """A class that no module holds travels with its exception, and is the same here if it came from here."""

    class Local(TwoArguments):
        pass

    arrived = again(Local(1, "x"))
    assert type(arrived) is Local
    assert told(arrived) == told(Local(1, "x"))


NOTEBOOK = """
import sys
from runctx.tasks.values.pickles import pack_error

class Mine(Exception):
    def __init__(self, a, b):
        super().__init__(a)
        self.b = b

sys.stdout.buffer.write(pack_error(Mine(1, 2)))
"""


def test_a_class_from_another_main_arrives() -> None:
    """As from a cell of a notebook."""
    done = subprocess.run([sys.executable, "-c", NOTEBOOK], capture_output=True, check=True)
    arrived = unpack_error(done.stdout, row())
    assert (type(arrived).__name__, arrived.args, arrived.b) == ("Mine", (1,), 2)


def test_a_class_that_is_not_here_has_a_stand_in() -> None:
    """Which keeps name, message and traceback; as does one without bytes, or with broken ones."""
    packed = pack_error(TwoArguments(1, "x"))
    assert packed is not None
    for data in (packed.replace(b"TwoArguments", b"TwoOrguments"), None, b"\xff", packed[:-3]):
        arrived = unpack_error(data, row("tests.TwoOrguments", "x (1)"))
        assert isinstance(arrived, RemoteError)
        assert arrived.type.endswith("TwoOrguments")
        assert "x (1)" in str(arrived)
        assert arrived.traceback == "Traceback of then\n"
    assert isinstance(unpack_error(None, SimpleNamespace(error=None)), RemoteError)


def test_exceptions_without_trust() -> None:
    """Python's own are built of plain data; any other has a stand-in, and nothing is imported."""
    assert told(again(FileNotFoundError(2, "no", "f"), trusted=False)) == told(
        FileNotFoundError(2, "no", "f")
    )
    assert isinstance(again(TwoArguments(1, "x"), trusted=False), RemoteError)
    hostile = ValueError(Calls(os._exit, 3))
    assert isinstance(again(hostile, trusted=False).args[0], str)
    packed = pack_error(ValueError(1))
    assert packed is not None
    for other in (b"builtins.print_______"[:19], b"builtins.__import__"):
        data = packed.replace(b"\xb3builtins.ValueError", b"\xb3" + other)
        arrived = unpack_error(data, row(), trusted=False)
        assert isinstance(arrived, RemoteError)
    assert builtins.ValueError is ValueError


def test_secrets_in_exceptions_stay_here() -> None:
    """What the caller takes out of texts is in no text that is packed."""
    redactor = Redactor()
    redactor.learn({"password": "hunter22"})
    error = ConnectionError("login with hunter22")
    error.password = "hunter22"
    error.add_note("hunter22!")
    error.headers = SimpleNamespace(sent=["hunter22"])
    packed = pack_error(error, redactor)
    assert packed is not None
    assert b"hunter22" not in packed
    assert str(unpack_error(packed, row())) == "login with <redacted>"


class Rude(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no")

    def __repr__(self) -> str:
        raise RuntimeError("no")


def test_an_exception_that_fails_to_speak_arrives() -> None:
    """A `__str__` that raises harms nobody."""
    assert again(Rude(1)).args == (1,)


def test_the_traceback_of_then_is_shown() -> None:
    """Before the exception, and before what it came from, which it still has; once, also if it is set twice."""
    error = ValueError("late")
    error.__cause__ = KeyError("early")
    for _ in range(2):
        values.with_traceback_text(error, "Traceback of then\n")
    shown = "".join(traceback.format_exception(error))
    assert isinstance(error.__cause__, KeyError)
    assert shown.count("Traceback of then") == 1
    assert shown.index("Traceback of then") < shown.index("early") < shown.index("late")


def test_programs_are_written_with_protocol_five() -> None:
    """The instructions that reading without trust allows are those of this protocol."""
    assert next(pickletools.genops(pack(1)))[1] == 5
