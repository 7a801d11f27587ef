"""Values and exceptions arrive as what they were; what comes from a file executes nothing."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import fractions
import json
import os
import pathlib
import pickle
import subprocess
import sys
import threading
import traceback
import uuid
import warnings
import zoneinfo
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runctx import Run
from runctx.errors import ConfigError, RemoteError, ResultError
from runctx.redact import Redactor
from runctx.tasks.keys import key
from runctx.tasks.serialization import (
    dump_error,
    dumps,
    from_small,
    load_error,
    loads,
    small,
)

zones = st.none() | st.timezones() | st.just(datetime.timezone(datetime.timedelta(hours=-1), "x"))
scalars = (
    *(st.none(), st.booleans(), st.integers(), st.floats(), st.complex_numbers(), st.binary(), st.uuids()),
    *(st.text(st.characters()), st.decimals(), st.fractions(), st.dates(), st.timedeltas()),
    *(st.datetimes(timezones=zones), st.times(timezones=zones), st.text("ab/.").map(pathlib.PurePosixPath)),
)
hashable = st.one_of(*scalars).filter(lambda value: "sNaN" not in str(value)) | st.tuples(
    st.integers(), st.text(max_size=2)
)
plain = st.recursive(
    st.one_of(*scalars),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(hashable, inner, max_size=4)
        | st.dictionaries(st.text(max_size=5), inner, max_size=4)
        | st.sets(hashable, max_size=4)
        | st.frozensets(hashable, max_size=4)
    ),
    max_leaves=20,
)
DATA = [
    *(bytearray(b"a"), {1, 2}, frozenset("a"), 2**3000, -(2**70), uuid.UUID(int=5), fractions.Fraction(1, 3)),
    *(pathlib.PurePosixPath("a/b"), pathlib.Path("c"), pathlib.PureWindowsPath("a"), decimal.Decimal("sNaN")),
    *(collections.deque([1], 3), collections.Counter("aab"), collections.OrderedDict(b=1, a=2)),
    *(datetime.time(1, 2), datetime.timedelta(1, 2, 3), datetime.UTC, zoneinfo.ZoneInfo("UTC")),
    datetime.datetime(2025, 10, 26, 2, 30, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin"), fold=1),
    *(np.float32(1.5), np.int64(3), np.bool_(True), np.str_("abc"), np.str_(""), np.datetime64("2025-01-01")),
    *(np.complex64(1j), np.longdouble(1.5), np.zeros(1, [("a", "i4")])[0]),
]
ARRAYS = [
    *(np.arange(3), np.arange(6).reshape(2, 3).T, np.arange(10)[::2], np.array([]), np.zeros((0, 3))),
    *(np.array(5), np.array(["ab", "c"]), np.array([], "U1"), np.array([b"a"]), np.zeros(2, "M8[ns]")),
    *(np.zeros(2, "m8[3D]"), np.ones(2, ">f4"), np.zeros((2, 3), np.longdouble), np.zeros(2, "V5")),
    *(np.zeros(2, [("a", "i4"), ("b", ">f8", 2)]), np.zeros(2, [("a", [("b", "i2"), ("c", "S3")])])),
    np.zeros(3, np.dtype([("a", "u1"), ("b", "f8")], align=True)),
]


def same(a: Any, b: Any) -> bool:
    """Equal, of equal types, in the same order; a NaN is a NaN."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return same(list(a.items()), list(b.items()))
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return key(a) == key(b) and (repr(a) == repr(b) or isinstance(a, (set, frozenset)))


@pytest.fixture
def no_pickle(monkeypatch):
    """To load a pickle is to execute it."""
    monkeypatch.setattr(pickle, "loads", lambda _: pytest.fail("a pickle was loaded"))


@given(plain)
def test_plain_data_come_back(value: Any) -> None:
    """Without trust they are what they were: types, order of dicts, zones, digits."""
    assert same(loads(dumps(value), trusted=False), value)


@pytest.mark.parametrize("value", DATA, ids=repr)
def test_scalars_and_collections_come_back(no_pickle: None, value: Any) -> None:
    """Those of the standard library and numpy's, also inside others."""
    assert same(loads(dumps([{"a": (value,)}]), trusted=False), [{"a": (value,)}])


@pytest.mark.parametrize("value", ARRAYS, ids=lambda a: f"{a.dtype}-{a.shape}")
def test_arrays_come_back(no_pickle: None, value: np.ndarray[Any, Any]) -> None:
    """Of any type without objects and any shape; they can be written to, as they could."""
    again = loads(dumps(value), trusted=False)
    assert type(again) is np.ndarray
    assert (again.dtype, again.shape, again.flags.writeable) == (value.dtype, value.shape, True)
    assert again.tobytes() == value.tobytes()


class Mine:
    def __init__(self, acc: float = 0.5) -> None:
        self.acc = acc


class Words(str):
    pass


Pair = collections.namedtuple("Pair", "a b")
cyclic: list[Any] = []
cyclic.append({"parent": cyclic, "children": [cyclic, cyclic]})
deep: list[Any] = []
for _ in range(200):
    deep = [deep]
OTHERS = [
    *(Mine(), Mine, print, lambda x: x, Words("a"), Pair(1, 2), range(3), pd.Series([1]), np.ma.array([1])),
    *(np.array([1, "a"], object), collections.defaultdict(list), np.float64, cyclic, deep),
]


@pytest.mark.parametrize("value", OTHERS, ids=[str(i) for i in range(len(OTHERS))])
def test_all_else_needs_trust(value: Any) -> None:
    """It is a pickle: without trust an error says so and what to do; with trust it comes back."""
    data = dumps([value])
    with pytest.raises(ResultError, match="the result of x is a pickle, and to load") as caught:
        loads(data, trusted=False, what="the result of x")
    assert caught.value.hint is not None and "trusted=True" in caught.value.hint
    assert type(loads(data, trusted=True)[0]) is type(value)


called: list[Any] = []


def call(*arguments: Any) -> None:
    called.append(arguments)


class Calls:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def named(name: str, content: Any) -> bytes:
    inner = msgspec.msgpack.encode([name, msgspec.msgpack.encode(content)])
    return msgspec.msgpack.encode(msgspec.msgpack.Ext(1, inner))


def array(*parts: Any) -> bytes:
    return msgspec.msgpack.encode(msgspec.msgpack.Ext(2, msgspec.msgpack.encode(parts)))


HOSTILE = {
    "pickle that calls": pickle.dumps(Calls(call, 1), 5),
    "older pickle": pickle.dumps(Calls(call, 1), 2),
    "text pickle": pickle.dumps(Calls(call, 1), 0),
    "pickle of an array of calls": pickle.dumps(np.array([Calls(call, 1)], object), 5),
    "empty": b"",
    "torn": dumps([1, 2, 3])[:-1],
    "more than one value": dumps(1) + dumps(2),
    "no such extension": msgspec.msgpack.encode(msgspec.msgpack.Ext(3, b"")),
    "a moment of MessagePack's own that is none": msgspec.msgpack.encode(msgspec.msgpack.Ext(-1, b"abc")),
    "no such type": named("os.system", "exit"),
    "a builder's name": named("__import__", "antigravity"),
    "a function as an exception": named("exception", ["print", ["called"]]),
    "a class as an exception": named("exception", ["bytearray", [10**12]]),
    "an exception elsewhere": named("exception", ["os.error", []]),
    "an exception of other arguments": named("exception", ["UnicodeDecodeError", [1]]),
    "no exception at all": named("exception", 5),
    "a zone elsewhere": named("ZoneInfo", "../../../../etc/passwd"),
    "a zone at a path": named("ZoneInfo", "/etc/passwd"),
    "a set of lists": named("set", [[1]]),
    "a key without a value": named("dict", [1, 2, 3]),
    "a key that is a list": named("dict", [[], 2]),
    "no date": named("date", "2025-13-01"),
    "no number": named("Decimal", "one"),
    "a fraction of nothing": named("Fraction", [1, 0]),
    "a path of a number": named("PosixPath", 5),
    "a run that is not among its parent's results": named("run", ["/etc", "x", {}]),
    "a dtype of objects": array("O", [1], b"12345678"),
    "records of objects": array([["a", "O"]], [1], b"12345678"),
    "objects in records": array("O,O", [1], b"1234567812345678"),
    "a dtype of too many bytes": array("(1000000000,1000000000)f8", [1], b""),
    "no dtype": array("os.system", [1], b""),
    "a dtype of a number": array(5, [1], b""),
    "more numbers than bytes": array("<f8", [10**12], b"12345678"),
    "more numbers than there can be": array("<f8", [2**62, 2**62], b""),
    "fewer than no numbers": array("<f8", [-1], b"12345678"),
    "too many axes": array("<f8", [1] * 100, b"12345678"),
    "a list of four billion": b"\xdd\xff\xff\xff\xff",
    "a dict of four billion": b"\xdf\xff\xff\xff\xff",
    "four billion bytes": b"\xc6\xff\xff\xff\xff",
    "an extension of four billion bytes": b"\xc9\xff\xff\xff\xff\x01",
    "lists without end": b"\x91" * 100_000,
    "no text": b"\xa1\xff",
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_hostile_bytes_execute_nothing(no_pickle: None, data: bytes, tmp_path: pathlib.Path) -> None:
    """A ResultError in bounded time and memory, and nothing was called, imported or opened."""
    with pytest.raises(ResultError):
        loads(data, trusted=False)
    assert not called


@given(st.sampled_from([*DATA, *ARRAYS, ValueError(1), KeyError("a")]), st.data())
def test_broken_bytes_give_a_clear_error(value: Any, data: Any) -> None:
    """A byte changed, or the end cut off: a value that can be shown, or a ResultError, and nothing else."""
    packed = bytearray(dumps([value, (value, 1)]))
    at = data.draw(st.integers(0, len(packed) - 1))
    packed[at] = data.draw(st.integers(0, 255))
    for broken in (bytes(packed), bytes(packed[:at])):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of numpy, of dtypes that are written in an old way
            try:
                again = loads(broken, trusted=False)
            except ResultError:
                continue
            try:
                repr(again)
            except (ValueError, TypeError):  # characters and dates that are none
                pass


def test_a_class_that_is_gone_is_named() -> None:
    """With trust, what cannot be found here gives a ResultError too."""
    with pytest.raises(ResultError, match=r"Gone[\s\S]*hint: it needs the modules"):
        loads(pickle.dumps(Mine(), 5).replace(b"Mine", b"Gone"), trusted=True)


SCRIPT = """
import dataclasses, sys
from runctx.redact import Redactor
from runctx.tasks.serialization import dump_error
from runctx.tasks.serialization import dumps

@dataclasses.dataclass
class Result:
    acc: float

class Mine(Exception):
    pass

def make(x):
    return Result(x)

sys.stdout.buffer.write(dumps((make, Result(0.5), lambda x: x + 1, dump_error(Mine(1, 2), Redactor()))))
"""


def test_what_main_defines_is_there_in_another_process() -> None:
    """Classes, functions, lambdas and exceptions of a script or a notebook travel whole."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, check=True)
    make, result, plus_one, error = loads(done.stdout, trusted=True)
    assert (make(0.7).acc, result.acc, plus_one(1)) == (0.7, 0.5, 2)
    assert type(make(1)) is type(result)
    arrived = load_error(error, None, trusted=True)
    assert (type(arrived).__name__, arrived.args) == ("Mine", (1, 2))


def test_what_cannot_be_stored_says_where() -> None:
    """The innermost part, the way to it, and what to return."""
    with pytest.raises(
        TypeError, match=r"dict cannot be pickled because of .*lock.* at \['a'\]\[1\][\s\S]*hint: return"
    ):
        dumps({"a": [1, threading.Lock()]})


@given(st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=250))
def test_small_values_come_back_exactly(value: Any) -> None:
    """From one line of JSON that any reader can read; what is not small is not."""
    data = small(value)
    if data is None:
        assert isinstance(value, (int, str))
        return
    assert same(from_small(data), value)
    assert b"\n" not in data
    json.loads(data)


@pytest.mark.parametrize(
    "value", [[1], {}, 2**63, -(2**63) - 1, "x" * 201, "\ud800", np.float64(1), b"a", ()]
)
def test_other_values_are_not_small(value: Any) -> None:
    """Neither large ones, nor those that JSON would bring back as something else."""
    assert small(value) is None


@pytest.mark.parametrize(
    "data", [b"", b"nan", b"[1]", b"{}", b'{"float":"x"}', b'{"float":[]}', b"[" * 100_000, b"\xff"]
)
def test_json_that_small_never_wrote_is_refused(data: bytes) -> None:
    """A row may be broken, or made by somebody else."""
    with pytest.raises(ResultError):
        from_small(data)


# -- exceptions ------------------------------------------------------------------------------------------------------


class TwoArguments(Exception):
    def __init__(self, code: int, why: str) -> None:
        super().__init__(f"{why} ({code})")


class KeywordOnly(ValueError):
    def __init__(self, *, code: int) -> None:
        super().__init__(f"code {code}")


class Twice(Exception):
    def __init__(self, code: object, why: str = "bad") -> None:
        super().__init__(f"{why} ({code})")


class Rude(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no")


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    code: int

    def __reduce__(self) -> Any:
        return Frozen, (self.code,)


def noted(error: BaseException) -> BaseException:
    error.add_note("seen")
    return error


PYTHONS_OWN = [
    *(ValueError(), KeyError("a"), OSError("a"), FileNotFoundError(2, "no", "f.txt"), SystemExit(3)),
    *(
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
        StopIteration(5),
        KeyboardInterrupt(),
        MemoryError(),
    ),
    *(SyntaxError("m", ("f", 1, 2, "t", 1, 3)), NameError("x"), RecursionError("deep"), AssertionError()),
    *(BaseExceptionGroup("b", [KeyboardInterrupt()]), ExceptionGroup("g", [ValueError(1), KeyError(2)])),
]
OTHER_CLASSES = [
    *(noted(ValueError(1)), ImportError("no", name="n", path="p"), json.JSONDecodeError("no", "doc", 1)),
    *(subprocess.CalledProcessError(1, "ls"), np.linalg.LinAlgError("x"), ConfigError("m", "h"), Rude(1)),
    *(Frozen(5), RemoteError("m", type="a.B"), ExceptionGroup("g", [Rude(1)]), ValueError(Mine())),
]
NOT_REBUILT = [
    *(TwoArguments(3, "bad"), KeywordOnly(code=4), Twice(5), ValueError(threading.Lock())),
    *(ExceptionGroup("g", [TwoArguments(1, "x")]), ValueError(b"x" * (17 << 20))),
]
FIELDS = (
    "args errno filename strerror name path start object lineno msg code value returncode hint type __notes__"
)


def fault(kind: str = "a.B", message: str = "m", text: str = "Traceback of then\n") -> Any:
    return SimpleNamespace(type=kind, message=message, traceback=text)


def again(error: BaseException, trusted: bool = True) -> BaseException:
    return load_error(dump_error(error, Redactor()), fault(), trusted=trusted)


def described(error: BaseException) -> Any:
    fields = {name: repr(getattr(error, name, None)) for name in FIELDS.split()}
    return (
        type(error),
        {} if hasattr(error, "exceptions") else fields,
        list(map(described, getattr(error, "exceptions", ()))),
    )


@pytest.mark.parametrize("error", PYTHONS_OWN, ids=repr)
def test_python_s_own_exceptions_arrive(no_pickle: None, error: BaseException) -> None:
    """Without trust as well, with arguments and fields."""
    assert described(again(error, trusted=False)) == described(error)


@pytest.mark.parametrize("error", OTHER_CLASSES, ids=lambda e: type(e).__name__)
def test_exceptions_that_can_be_pickled_arrive(error: BaseException) -> None:
    """With trust as what they were; without, only name, text and traceback do."""
    arrived = again(error)
    if not isinstance(error.args[0], Mine):
        assert described(arrived) == described(error)
    with pytest.raises(type(error)):
        raise arrived
    stand_in = again(error, trusted=False)
    assert isinstance(stand_in, RemoteError)
    assert (stand_in.type, stand_in.traceback) == ("a.B", "Traceback of then\n")


@pytest.mark.parametrize("error", NOT_REBUILT, ids=lambda e: type(e).__name__)
def test_other_exceptions_have_a_stand_in(error: BaseException) -> None:
    """One that pickle would not bring back as it was, or that is huge, is its name, text and traceback."""
    assert dump_error(error, Redactor()) is None
    stand_in = again(error)
    assert isinstance(stand_in, RemoteError)
    assert (str(stand_in), stand_in.type, stand_in.traceback) == ("a.B: m", "a.B", "Traceback of then\n")


def test_broken_bytes_of_an_exception_have_a_stand_in() -> None:
    """As have the bytes of a class that is not here, and those of a value that is no exception."""
    packed = dump_error(ConfigError("m"), Redactor())
    assert packed is not None
    for data in (packed.replace(b"ConfigError", b"ConfigOrror"), None, b"\xff", packed[:-3], dumps(1)):
        assert isinstance(load_error(data, fault(), trusted=True), RemoteError)
    assert isinstance(load_error(None, None, trusted=False), RemoteError)


def secretive() -> list[BaseException]:
    plain, attribute, note, inside = (
        ConnectionError("hunter22"),
        ConnectionError(),
        ValueError(1),
        ValueError(1),
    )
    attribute.password = "hunter22"  # type: ignore[attr-defined]
    note.add_note("with hunter22!")
    inside.headers = SimpleNamespace(sent=["hunter22"])  # type: ignore[attr-defined]
    return [
        plain,
        attribute,
        note,
        inside,
        ValueError("tried password='other99'"),
        ValueError({"api_key": "k1"}),
    ]


@pytest.mark.parametrize("error", secretive(), ids=repr)
def test_secrets_in_exceptions_stay_here(error: BaseException) -> None:
    """An exception that holds one, known by its value or by its name, is not stored; its redacted row stands for it."""
    redactor = Redactor()
    redactor.learn({"password": "hunter22"})
    assert dump_error(error, redactor) is None


@pytest.mark.parametrize("error", [ValueError("late"), Frozen(1)])
def test_the_traceback_of_then_is_shown(error: BaseException) -> None:
    """Before the exception, and once."""
    error = again(error)
    shown = "".join(traceback.format_exception(error))
    assert shown.count("Traceback of then") == 1
    assert shown.index("Traceback of then") < shown.index(type(error).__name__)


# -- folders of earlier versions -------------------------------------------------------------------------------------


def test_results_of_0_1_0_are_read() -> None:
    """Rows as they are; results, which were pickles, with trust only; failures by name and text."""
    past = Run.load(os.path.join(os.path.dirname(__file__), "data", "map-0.1.0"))
    assert past.tasks.counts == {"done": 2, "failed": 1} and not past.tasks.altered
    one, two, error = past.results(trusted=True)
    assert (one, two) == (1, [2, 2])
    assert isinstance(error, RemoteError) and error.type == "builtins.FileNotFoundError"
    assert str(error) == "builtins.FileNotFoundError: [Errno 2] no such file: 'a.txt'"
    assert "in work" in str(error.__cause__)
    untrusted = past.results()
    assert untrusted[0] == 1
    with pytest.raises(
        ResultError, match=r"\.pickles: the result of task 2 is a pickle[\s\S]*hint: .*trusted=True"
    ):
        untrusted[1]
