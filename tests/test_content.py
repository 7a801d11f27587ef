"""Equal content has equal keys, everywhere; what differs has others; and a task can be told on one line."""

from __future__ import annotations

import copy
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import math
import os
import pathlib
import pickle
import subprocess
import sys
import threading
import uuid
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from runctx import grid
from runctx.tasks.keys import canonical, digest, key
from runctx.tasks.labels import label


@dataclasses.dataclass(frozen=True)
class Setting:
    lr: float = 0.1
    tags: frozenset[str] = frozenset({"a", "b"})

    @functools.cached_property
    def slow(self) -> int:
        return 1


@dataclasses.dataclass(frozen=True, slots=True)
class Slotted:
    lr: float = 0.1


class Colour(enum.Enum):
    RED = 1
    BLUE = "blue"


class Words(str):
    pass


Pair = namedtuple("Pair", "a b")


class Node:
    """Knows its neighbours, which know it."""

    def __init__(self, name: str) -> None:
        self.name, self.neighbours = name, []


def ring(size: int) -> Node:
    nodes = [Node(str(i)) for i in range(size)]
    for i, node in enumerate(nodes):
        node.neighbours = [nodes[i - 1], nodes[(i + 1) % size]]
    return nodes[0]


def different() -> list[Any]:
    """Values of which no two have equal content."""
    return [
        *(None, False, True, 0, 1, -1, 2**63, 2**64, -(2**70), 0.0, -0.0, 1.0, math.nan, math.inf, 1j),
        *(1 + 0j, "", "1", "a", "\ud800", "x" * 300, Words("a"), b"", b"1", bytearray(b"1"), "y" * 300),
        *((), (1,), [], [1], [1.0], [[1]], [(1,)], {1}, frozenset({1}), {"a", "b"}, {(1, 2), ("a", None)}),
        *(deque([1]), {}, {"a": 1}, {"a": 1.0}, {"b": 1}, {1: 1}, {"1": 1}, {1: "a", "a": 1}, {(1, 2): 3}),
        *({"\ud800": 1}, OrderedDict(a=1, b=2), OrderedDict(b=2, a=1), Counter("aab")),
        *(defaultdict(int, a=1), defaultdict(list, a=1), range(3), slice(3), Ellipsis, int, str, len),
        *(math.sin, Setting, os.path.join, "builtins.int", pathlib.PurePosixPath("a")),
        *(pathlib.PurePosixPath("a/b"), pathlib.PureWindowsPath("a"), uuid.UUID(int=1)),
        *(decimal.Decimal("1"), decimal.Decimal("1.0"), fractions.Fraction(1), datetime.date(2025, 1, 1)),
        *(datetime.datetime(2025, 1, 1), datetime.datetime(2025, 1, 1, tzinfo=datetime.UTC)),
        *(datetime.timedelta(1), Setting(), Setting(0.2), Slotted(), Slotted(0.2), Colour.RED),
        *(Colour.BLUE, "blue", Pair(1, 2), (1, 2), lambda x: x + 1, lambda x: x + 2),
        *(functools.partial(len), functools.partial(max, 1), ring(2), ring(3), np.float64(1)),
        *(np.float32(1), np.int64(1), np.bool_(True), np.longdouble(1), np.datetime64("2025-01-01")),
        *(np.array([1]), np.array([[1]]), np.array([1.0]), np.array([1, 2]), np.array([1, "a"], object)),
        *(np.array([]), np.array(["a"]), np.array([b"a"]), np.zeros(1, "i2"), np.zeros(1, "<f4")),
        *(np.zeros(1, np.longdouble), np.zeros(1, [("a", "i4")]), np.zeros(1, [("b", "i4")])),
        *(np.ma.array([1], mask=[True]), np.ma.array([1]), pd.Series([1]), pd.Series([1.0])),
        *(pd.Series([1], name="a"), pd.Index([1]), pd.Series(["a"]), pd.DataFrame({"a": [1]})),
        *(pd.DataFrame({"b": [1]}), pd.DataFrame({"a": [1]}, index=[5]), pd.NA, pd.NaT),
        *(pd.Series(["a"], dtype="category"), pd.Series(pd.to_datetime(["2025-01-01"], utc=True))),
        *(pd.Series([None]), OmegaConf.create({"a": 1}), OmegaConf.create([1]), np.add, np.subtract),
        *(re_raising,),
    ]


def re_raising(error: BaseException) -> None:
    raise error


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=5) | st.integers() | st.tuples(st.integers()), inner, max_size=4)
        | st.sets(st.text(max_size=3) | st.integers() | st.none(), max_size=4)
        | st.frozensets(st.integers() | st.tuples(st.text(max_size=2)), max_size=4)
    ),
    max_leaves=20,
)


def model(value: Any) -> str:
    """What a value holds, by the plainest means there are."""
    name = type(value).__name__
    if isinstance(value, dict):
        return f"{name}{sorted((model(k), model(v)) for k, v in value.items())}"
    if isinstance(value, (set, frozenset)):
        return f"{name}{sorted(map(model, value))}"
    if isinstance(value, (list, tuple)):
        return f"{name}{list(map(model, value))}"
    return f"{name} {value!r}"


def refilled(value: Any) -> Any:
    """Equal, made of other objects, and filled in another order."""
    if isinstance(value, dict):
        return {refilled(k): refilled(v) for k, v in reversed(value.items())}
    if isinstance(value, (list, tuple, set, frozenset)):
        parts = [refilled(part) for part in value]
        return type(value)(reversed(parts) if isinstance(value, (set, frozenset)) else parts)
    return pickle.loads(pickle.dumps(value))


@given(plain)
def test_the_order_of_filling_does_not_matter(value: Any) -> None:
    """A copy whose dicts and sets were filled the other way round has the same content."""
    assert canonical(refilled(value)) == canonical(value)


@given(plain, plain)
def test_equal_keys_mean_equal_content(a: Any, b: Any) -> None:
    """Two values have one key if and only if a plain description of them, types included, is the same."""
    assert (key(a) == key(b)) == (model(a) == model(b))
    assert key([a, b]) != key([b, a]) or model(a) == model(b)


def test_different_contents_have_different_keys() -> None:
    """Types, shapes, names and order count wherever they are part of what a value holds."""
    seen: dict[str, Any] = {}
    for value in different():
        assert key(value) not in seen, (value, seen[key(value)])
        seen[key(value)] = value


def keys() -> list[str]:
    return [key(value) for value in (*different(), different()[-40:], Words("é"), ring(5))]


def there(seed: str, program: str = "from tests.test_content import keys; print(*keys())") -> str:
    """What a program prints in another process."""
    root = str(pathlib.Path(__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_keys_are_the_same_in_another_process() -> None:
    """Whatever the hash seed of the process that asks."""
    assert there("1") == there("2")
    assert there("1").split() == keys()


def test_a_copy_has_the_key_of_the_original() -> None:
    """Pickled and back, every kind of value holds what it held, but for masked arrays, whose pickles differ."""
    for value in different():
        if isinstance(value, np.ma.MaskedArray):
            continue
        try:
            again = pickle.loads(pickle.dumps(value))
        except (pickle.PicklingError, AttributeError):
            continue  # a lambda
        assert key(again) == key(value), value


def test_it_does_not_matter_which_equal_parts_are_one_object() -> None:
    """Neither for texts, interned or not, nor for lists."""
    text, parts = "".join(["a", "b c"]), [1, {2}]
    assert key(["ab c", "ab c"]) == key([text, "ab c"])
    assert key([parts, parts]) == key([parts, copy.deepcopy(parts)])


@pytest.mark.parametrize("depth", [55, 70, 200])
def test_nested_and_cyclic_values_have_keys(depth: int) -> None:
    """As deep as pickle goes; equal wherever on the stack they are asked for."""
    value: list[Any] = []
    for _ in range(depth):
        value = [value]

    def deeper(levels: int) -> str:
        return deeper(levels - 1) if levels else key(value)

    assert deeper(0) == deeper(200) == key(copy.deepcopy(value))
    cyclic: list[Any] = [value]
    cyclic.append(cyclic)
    assert key(cyclic) == key(copy.deepcopy(cyclic)) != key([value])


def test_how_numbers_lie_in_memory_does_not_count() -> None:
    """Neither the order of an array's bytes, nor that of its axes in memory."""
    array = np.arange(6.0).reshape(2, 3)
    assert key(array) == key(np.asfortranarray(array)) == key(np.hstack([array, array])[:, :3])
    assert key(np.array([1.5], ">f4")) == key(np.array([1.5], "<f4"))


def test_what_is_plain_in_an_object_counts_by_content() -> None:
    """In an object's pickle, sets are sorted, texts need not be one object, and a class is its name."""
    text = "".join(["a", "b c"])
    assert key([Setting(tags=frozenset("ab")), "ab c"]) == key([Setting(tags=frozenset("ba")), text])
    assert key([Setting(), text, text]) == key([Setting(), "ab c", "ab c"])
    assert key(Setting()) != key(Setting(0.2)) != key(Slotted(0.2))


MAIN = """
import dataclasses
from runctx.tasks.keys import key

@dataclasses.dataclass
class Setting:
    lr: float
    tags: set

print(key(Setting(0.1, {"a", "b", "c"})), key([lambda x: x + 1]))
"""


def test_objects_of_a_script_have_the_same_keys_when_it_runs_again() -> None:
    """A resumed map finds tasks of classes that stand in the script itself."""
    assert len({there(seed, MAIN) for seed in "123"}) == 1


def test_a_combination_is_what_it_holds() -> None:
    """Its name depends on the others: a longer sweep finds the tasks that a shorter one has done."""
    few, many = grid({"lr": [0.1]}), grid({"lr": [0.1, 0.2], "epochs": [1]})
    assert key(next(iter(few))) == key({"lr": 0.1})
    assert key({"lr": 0.2, "epochs": 1}) in {key(point) for point in many}


def test_a_function_counts_by_what_it_does_or_is_called() -> None:
    """A lambda by code, defaults and closure; recursive ones as well."""

    def make(n: int, default: int = 0) -> Any:
        return lambda x, y=default: x + y + n

    assert key(make(1)) == key(make(1))
    assert len({key(make(1)), key(make(2)), key(make(1, 3))}) == 3

    def down(n: int) -> int:
        return down(n - 1) if n else 0

    assert key(down) == key(down)


def test_what_nobody_can_pickle_is_refused() -> None:
    """With an error that says so."""
    with pytest.raises(TypeError, match="dict has no content to compare: it cannot be pickled"):
        key({"a": [threading.Lock()]})


def test_a_digest_tells_its_algorithm() -> None:
    """And has as many bytes as asked for, of which a key is the beginning."""
    assert digest([1], 4) == "blake3:" + digest([1]).removeprefix("blake3:")[:8]
    assert digest([1]).removeprefix("blake3:").startswith(key([1]))


class Rude:
    def __repr__(self) -> str:
        raise RuntimeError("no")


@given(plain)
def test_a_label_is_one_short_line(value: Any) -> None:
    """Of whatever value: printable, and no longer than asked for."""
    text = label(value, 30)
    assert len(text) <= 30 and text.isprintable()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a.png", "a.png"),
        (pathlib.PurePosixPath("a/b.png"), "a/b.png"),
        ("a\n\x1b[31mb\u202ec", "a [31mb c"),
        ((1,), "(1,)"),
        ([[[[1]]]], "[[[…]]]"),
        (list(range(10**6)), "[0, 1, 2, 3, 4, 5, …]"),
        (Setting(0.5, frozenset("a")), "Setting(lr=0.5, tags={'a'})"),
        (10**500, "<int of 1661 bits>"),
        (np.zeros((1000, 1000)), "<numpy.ndarray 1000×1000>"),
        ({"user": {"password": "hunter22"}}, "{'user': {'password': '<redacted>'}}"),
        ("https://me:hunter22@host/a", "https://me:<redacted>@host/a"),
        (len, "<built-in function len>"),
        (deque(range(2000)), "<collections.deque of 2000>"),
        (set(), "set()"),
    ],
)
def test_what_a_label_says(value: Any, text: str) -> None:
    """A path as it is; of all else the beginning; of what is large, how large; nothing of what is secret."""
    assert label(value) == text


def test_labels_without_a_representation() -> None:
    """A class that fails, or has none of its own, is named; a combination has its own name."""
    assert label(Rude()).endswith("Rude>")
    assert " at 0x" not in label([Node("a"), threading.Lock(), lambda: 1])
    assert label(next(iter(grid({"lr": [0.1]})))) == "lr=0.1"
    assert label("x" * 100, 9) == "xxx…xxxxx"
