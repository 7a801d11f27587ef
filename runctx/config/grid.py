"""Combinations of values: all of a grid, values in step, or values drawn at random.

A combination is a mapping of dotted keys to values, laid over a configuration by `merged`. Its name is readable, the
same everywhere, and safe as the name of a file.
"""

from __future__ import annotations

import copy
import functools
import html
import itertools
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from fractions import Fraction
from itertools import pairwise
from pathlib import PurePath
from typing import Any, Literal, TypeVar, overload

from blake3 import blake3
from omegaconf import DictConfig, OmegaConf

from ..errors import ConfigError
from ..redact import Redactor
from .containers import hold, settled, unsettled
from .layers import Branch, Layer, merge, plain, tree
from .messages import short
from .origins import raw
from .overrides import lay_values
from .resolve import open_config
from .text import value_text

T = TypeVar("T")

Names = Mapping[Any, Any] | Callable[["Point"], str]
"""Key -> what to call it, or what to call its values: a list, or a dict from value to name."""

_MOST = 10_000_000
"""Combinations; they are kept in memory, a hundred bytes each."""
_SHOWN = 20
"""Combinations in a table."""


class Point(dict[str, Any]):
    """One combination: dotted keys and their values, in the order of the axes."""

    name: str = ""
    """Such as `lr=0.1,epochs=5`; other combinations of the same sequence have others."""


def grid(
    axes: Mapping[Any, Iterable[Any]],
    *,
    where: Callable[[Any], Any] | None = None,
    names: Names | None = None,
) -> Combinations:
    """All combinations of the values on each axis; the last axis changes fastest.

    Parameters
    ----------
    axes: dotted key -> its values, which may be mappings, taken for a whole part of the configuration. A tuple of
        keys has tuples of values: they change together.
    where: is given each combination as a configuration (`c.opt.lr`), and says whether to keep it.
    names: key -> a short name; or key -> names of its values, as a list or a dict; or a function that is given each
        combination and returns its name. Default: the last word of the key where that is unique, and the value.

    Raises
    ------
    ConfigError: an axis without values, a key on two axes, names that do not fit, more than ten million combinations,
        or whatever `where` raises.

    >>> for point in grid({"opt.lr": [0.1, 0.2], "epochs": [5, 10]}, where=lambda c: c.opt.lr * c.epochs < 2):
    ...     print(point.name, point)
    lr=0.1,epochs=5 {'opt.lr': 0.1, 'epochs': 5}
    lr=0.1,epochs=10 {'opt.lr': 0.1, 'epochs': 10}
    lr=0.2,epochs=5 {'opt.lr': 0.2, 'epochs': 5}
    """
    columns = _columns(axes, names)
    _check_count(map(len, columns))
    return _combinations(itertools.product(*columns), axes, where, names)


def zipped(
    axes: Mapping[Any, Iterable[Any]],
    *,
    where: Callable[[Any], Any] | None = None,
    names: Names | None = None,
) -> Combinations:
    """The first values of all axes together, then the second, and so on.

    Parameters and errors are those of `grid`; the axes must be of equal length.

    >>> [point.name for point in zipped({"lr": [0.1, 0.2], "epochs": [5, 10]})]
    ['lr=0.1,epochs=5', 'lr=0.2,epochs=10']
    """
    columns = _columns(axes, names)
    if len(set(map(len, columns))) > 1:
        lengths = ", ".join(f"{_text(key)}: {len(column)}" for key, column in zip(axes, columns, strict=True))
        raise ConfigError(
            f"zipped axes must have the same length; got {lengths}", hint="use grid(...) for all combinations"
        )
    return _combinations(zip(*columns, strict=True), axes, where, names)


def sample(
    spaces: Mapping[Any, Space | Iterable[Any]],
    n: int,
    seed: int = 0,
    *,
    where: Callable[[Any], Any] | None = None,
    names: Names | None = None,
) -> Combinations:
    """`n` combinations drawn at random, the same ones on every machine for the same seed.

    A combination depends on the seed and its position only: the first ten of a hundred are `sample(..., 10)`, and
    an axis draws the same values whatever other axes there are. Equal combinations can be drawn twice. Without a
    seed every call draws the same.

    Parameters
    ----------
    spaces: dotted key -> `uniform`, `log_uniform` or `integers`, or values to choose from.
    where: as for `grid`; what it does not keep is drawn anew.

    Raises
    ------
    ConfigError: as `grid`; or `where` has kept too few of a thousand times `n`.

    >>> from runctx.config import integers, log_uniform
    >>> for point in sample({"lr": log_uniform(1e-5, 0.1), "layers": integers(1, 4)}, 3, seed=1):
    ...     print(point.name)
    lr=2.71655e-05,layers=2
    lr=0.00389221,layers=3
    lr=0.0209431,layers=2
    """
    if not isinstance(n, int) or n < 0:
        raise ConfigError(f"{n!r} combinations cannot be drawn")
    axes = {key: space for key, space in spaces.items() if not isinstance(space, Space)}
    choices: dict[Any, list[Entry]] = dict(zip(axes, _columns(axes, names), strict=True))

    def entry(key: Any, i: int) -> Entry:
        draw = int.from_bytes(blake3(f"{seed}\n{key}\n{i}".encode()).digest(length=8), "big")
        space = spaces[key]
        if isinstance(space, Space):
            return Entry(_keys(key), (space.at(draw),), i)
        return choices[key][int(integers(0, len(choices[key]) - 1).at(draw))]

    def drawn(count: int) -> Iterator[Row]:
        return (tuple(entry(key, i) for key in spaces) for i in range(count))

    if where is None:
        return _combinations(drawn(n), spaces, None, names)
    found = _combinations(drawn(1000 * n), spaces, where, names, most=n)
    if len(found) < n:
        raise ConfigError(
            f"`where` kept {len(found)} of {1000 * n} combinations; {n} are needed",
            hint="draw from narrower spaces",
        )
    return found


class Combinations(Sequence[Point]):
    """Combinations in a fixed order.

    `a * b` has every combination of one with one of the other, `a + b` has those of `a` and then those of `b`,
    equal ones twice.
    """

    def __init__(self, rows: Iterable[Row], called: Mapping[str, str | None]) -> None:
        self._rows = list(rows)
        self._called = called  # key -> what the user calls it
        self._keys = key_names(called)

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Point: ...
    @overload
    def __getitem__(self, index: slice) -> Combinations: ...
    def __getitem__(self, index: int | slice) -> Point | Combinations:
        if isinstance(index, slice):
            return Combinations(self._rows[index], self._called)
        return self._point(self._rows[index])

    def _point(self, row: Row) -> Point:
        point = Point()
        for entry in row:
            point.update(zip(entry.keys, copy.deepcopy(entry.values), strict=True))
        point.name = joined(entry.label(self._keys) for entry in row)
        return point

    def where(self, condition: Callable[[Any], Any]) -> Combinations:
        """Those that `condition` keeps; it is given each as a configuration.

        Raises
        ------
        ConfigError: it raised; names the combination.
        """
        return Combinations(self._kept(self._rows, condition), self._called)

    def _kept(self, rows: Iterable[Row], condition: Callable[[Any], Any]) -> Iterator[Row]:
        for row in rows:
            point = self._point(row)
            if _answer(condition, _as_config(point), "where", point):
                yield row

    def __mul__(self, other: object) -> Combinations:
        if not isinstance(other, Combinations):
            return NotImplemented
        _check_apart([*self._called, *other._called])
        _check_count([len(self), len(other)])
        rows = (a + b for a, b in itertools.product(self._rows, other._rows))
        return Combinations(rows, {**self._called, **other._called})

    def __add__(self, other: object) -> Combinations:
        if not isinstance(other, Combinations):
            return NotImplemented
        own = {key: name for key, name in other._called.items() if name or key not in self._called}
        return Combinations(self._rows + other._rows, {**self._called, **own})

    def __repr__(self) -> str:
        return "\n".join(
            [f"{len(self)} combinations", *(f"  {p.name}" for p in self[:_SHOWN]), *self._more()]
        )

    def _repr_html_(self) -> str:
        keys = "".join(f"<th>{html.escape(name)}</th>" for name in self._keys.values())
        lines = []
        for i, row in enumerate(self._rows[:_SHOWN]):
            cells = {key: text for entry in row for key, text in entry.texts.items()}  # no secret among them
            told = "".join(f"<td>{html.escape(cells.get(key, ''))}</td>" for key in self._keys)
            name = html.escape(self._point(row).name)
            lines.append(f'<tr><td>{i}</td><td style="text-align:left">{name}</td>{told}</tr>')
        head = f'<tr><th></th><th style="text-align:left">name</th>{keys}</tr>'
        more = "".join(f"<p>{line}</p>" for line in self._more())
        return f"<p>{len(self)} combinations</p><table>{head}{''.join(lines)}</table>{more}"

    def _more(self) -> list[str]:
        return [f"… {len(self) - _SHOWN} more"] if len(self) > _SHOWN else []


# -- over a configuration ----------------------------------------------------------------------------------


@overload
def merged(config: Mapping[Any, Any], point: Mapping[str, Any]) -> DictConfig: ...
@overload
def merged(config: type[T], point: Mapping[str, Any]) -> T: ...
@overload
def merged(config: T, point: Mapping[str, Any]) -> T: ...
def merged(config: Any, point: Mapping[str, Any]) -> Any:
    """`config` with the values of a combination: an override like those of the command line.

    On what `compose` made, `{"model": "wide"}` chooses a group again. What is derived follows, and `explain` names
    the combination. `config` stays as it is.

    Parameters
    ----------
    config: that of `from_cli`, or anything that it takes.
    point: dotted keys and values, as `grid` makes them, or any mapping of that kind. `+key` adds a new key.

    Raises
    ------
    ConfigError: a key that `config` does not have, or a value of a wrong type; names key and combination.

    >>> merged({"opt": {"lr": 0.1}, "warmup": "${opt.lr}"}, {"opt.lr": 0.2}).warmup
    0.2
    """
    name = getattr(point, "name", "") or grid({key: [value] for key, value in point.items()})[0].name
    return _laid(config, point, Layer(kind="override", name=name))


def with_task(config: Any, into: str, task: Any, called: str = "") -> DictConfig:
    """`config` with a task of `run.map` set at the key `into`; with "", the task is a combination.

    Parameters
    ----------
    called: short text of the task, without secrets.

    Raises
    ------
    ConfigError: as `merged`, and names the task; or with "" the task is no mapping; or there is no configuration.

    >>> with_task({"input": "", "stem": "${input}"}, "input", "a.png").stem
    'a.png'
    """
    if not into and not isinstance(task, Mapping):
        hint = 'name the key that takes it: run.map(fn, tasks, into="input")'
        if hasattr(task, "to_dict"):  # a row of a DataFrame
            hint = 'frame.to_dict("records") gives the rows of a DataFrame as such'
        raise ConfigError(
            f"task {called}: what is merged into the configuration must be a mapping, not {type(task).__name__}",
            hint=hint,
        )
    try:
        return _laid(config, {into: task} if into else task, Layer(kind="task", name=called))
    except ConfigError as error:
        if config:
            raise
        where = f"at {into!r}" if into else "in it"
        raise ConfigError(
            f"task {called}: the run has no configuration, and so no place {where}",
            hint="give it one: Run(Config()); or leave `into` out, and the function gets the task",
        ) from error


def _laid(config: Any, point: Mapping[str, Any], layer: Layer) -> DictConfig:
    base = unsettled(config) if isinstance(config, DictConfig) else open_config(config)
    return settled(lay_values(point, layer, base))


# -- axes --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """One entry of an axis: the values that its keys have together."""

    keys: tuple[str, ...]
    values: tuple[Any, ...]
    index: int
    """Its position on the axis."""
    name: str = ""
    """What the user calls it."""
    is_whole: bool = False
    """Whether that is the name of the whole combination."""

    def label(self, called: Mapping[str, str]) -> str:
        """Its part of the name of a combination."""
        if self.is_whole:
            return self.name
        if self.name:
            return "+".join(called[key] for key in self.keys) + "=" + self.name
        return ",".join(f"{called[key]}={text}" for key, text in self.texts.items())

    @functools.cached_property
    def texts(self) -> dict[str, str]:
        """What the value of each key is called; of a secret, only its position: names end in logs and paths."""
        texts = {}
        for key, value in zip(self.keys, self.values, strict=True):
            is_secret = Redactor().mapping({key: value}) != {key: value}
            named = self.name if self.name and not self.is_whole else None
            texts[key] = named or (str(self.index) if is_secret else value_name(value))
        return texts


Row = tuple[Entry, ...]
"""The entries that make one combination, one of each axis."""


def _columns(axes: Mapping[Any, Any], names: Names | None) -> list[list[Entry]]:
    """The entries of each axis."""
    own = {} if callable(names) or names is None else names
    return [_column(key, values, own) for key, values in axes.items()]


def _column(key: Any, values: Any, own: Mapping[Any, Any]) -> list[Entry]:
    keys = _keys(key)
    if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Iterable):
        hint = "sample(...) draws from it" if isinstance(values, Space) else None
        raise ConfigError(f"axis {_text(key)}: must be a list of values; got {short(values)}", hint=hint)
    values = list(values)
    if not values:
        raise ConfigError(f"axis {_text(key)} has no values")
    names = _value_names(key, values, own.get(key)) or itertools.repeat("")
    rows = [(value,) if isinstance(key, str) else _together(keys, value) for value in values]
    return [
        Entry(keys, tuple(map(_plain_value, keys, row)), i, name)
        for i, (row, name) in enumerate(zip(rows, names, strict=False))
    ]


def _keys(key: Any) -> tuple[str, ...]:
    keys = key if isinstance(key, tuple) else (key,)
    if not keys or not all(isinstance(one, str) for one in keys) or len(set(keys)) < len(keys):
        raise ConfigError(f"{key!r} is no key of an axis", hint='give "opt.lr", or a tuple of such keys')
    return keys


def _together(keys: tuple[str, ...], values: Any) -> tuple[Any, ...]:
    row = tuple(values) if isinstance(values, Iterable) and not isinstance(values, (str, Mapping)) else ()
    if len(row) != len(keys):
        raise ConfigError(f"axis {_text(keys)}: each entry must have {len(keys)} values; got {short(values)}")
    return row


def _plain_value(key: str, value: Any) -> Any:
    """As a configuration holds it: a number of numpy becomes Python's."""
    return value if type(value) in (bool, int, float, str, type(None)) else raw(hold({key: value}))[key]


def _value_names(key: Any, values: Sequence[Any], given: Any) -> list[str] | None:
    if given is None or isinstance(given, str):
        return None
    try:
        names = [given[value] for value in values] if isinstance(given, Mapping) else list(given)
    except (KeyError, TypeError) as error:
        raise ConfigError(f"names of {_text(key)}: no name for the value {error}") from error
    if len(names) != len(values):
        raise ConfigError(f"names of {_text(key)}: {len(names)} for {len(values)} values")
    if len(set(names)) < len(names):
        raise ConfigError(f"names of {_text(key)}: two values have one name: {_text(names)}")
    return [checked(name) for name in names]


def _text(keys: Any) -> str:
    return ", ".join(map(str, keys)) if isinstance(keys, (tuple, list)) else str(keys)


def _combinations(
    rows: Iterable[Row],
    axes: Iterable[Any],
    where: Callable[[Any], Any] | None,
    names: Names | None,
    most: int | None = None,
) -> Combinations:
    keys = [key for axis in axes for key in _keys(axis)]
    _check_apart(keys)
    own = {} if callable(names) or names is None else names
    for key in own:
        if key not in keys and key not in axes:
            raise ConfigError(f"names of {_text(key)}: no such axis")
    called = {key: checked(own[key]) if isinstance(own.get(key), str) else None for key in keys}
    if where is not None:
        rows = itertools.islice(Combinations((), called)._kept(rows, where), most)
    found = Combinations(rows, called)
    return _renamed(found, names) if callable(names) else found


def _renamed(combinations: Combinations, name_of: Callable[[Point], str]) -> Combinations:
    rows: list[Row] = []
    owners: dict[str, Point] = {}
    for i, point in enumerate(combinations):
        name = checked(_answer(name_of, point, "names", point))
        if owners.setdefault(name, point) != point:
            raise ConfigError(f"names: {owners[name].name} and {point.name} are both called {name}")
        rows.append((Entry(tuple(point), tuple(point.values()), i, name, is_whole=True),))
    return Combinations(rows, combinations._called)


def _check_apart(keys: Sequence[str]) -> None:
    twice = [key for key in keys if keys.count(key) > 1]
    if twice:
        raise ConfigError(f"key {min(twice)} is on two axes", hint="`a + b` has the combinations of both")


def _check_count(lengths: Iterable[int]) -> None:
    count = math.prod(lengths)
    if count > _MOST:
        raise ConfigError(f"{count} combinations are too many", hint="draw some of them: sample(...)")


def _answer(function: Callable[[Any], Any], argument: Any, what: str, point: Point) -> Any:
    """What a function of the user gives for a combination."""
    try:
        return function(argument)
    except Exception as error:
        first_line = str(error).split("\n", 1)[0]
        no_key = isinstance(error, (AttributeError, KeyError))
        raise ConfigError(
            f"`{what}` failed for {point.name}: {type(error).__name__}: {first_line}",
            hint="it is given the keys on the axes, and no others" if no_key else None,
        ) from error


def _as_config(point: Point) -> DictConfig:
    branch, layer = Branch(), Layer(kind="override", name=point.name)
    for key, value in point.items():
        for word in reversed(words_of(key)):
            value = {int(word) if word.isdecimal() else word.strip('"'): value}
        branch = merge(branch, tree(value, layer))
    config: DictConfig = OmegaConf.create(plain(branch))
    return config


# -- names ---------------------------------------------------------------------------------------------------------

_LONGEST_VALUE = 32
_LONGEST = 160
"""Bytes: a file system takes 255, and something may be put before or behind."""
_HEX_DIGITS = 10
"""Of a digest: in ten thousand values, one chance in ten thousand that two have the same."""

_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


def value_name(value: Any) -> str:
    """A name that no other value has.

    Numbers and simple words stand for themselves, a list is joined by `+`; what is long, odd, or could be taken
    for something else is shortened and has a digest after `~`.

    >>> value_name(0.1), value_name("adam"), value_name([64, 32]), value_name(None), value_name("0.1")
    ('0.1', 'adam', '64+32', 'none', '0.1~c57e10b092')
    """
    name = _plain_name(value)
    if name is not None and len(name) <= _LONGEST_VALUE:
        return name
    plain = _without_classes(value)
    text = plain if isinstance(plain, str) else value_text(plain)
    return _shortened(text, f"{type(plain).__name__} {value_text(plain)}", 20)


def _plain_name(value: Any) -> str | None:
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Enum):
        return _plain_name(value.name)
    if isinstance(value, int):
        return str(value) if value.bit_length() < 128 else None
    if isinstance(value, float):
        return repr(value).replace("+", "")
    if isinstance(value, str):
        return value if _PLAIN.fullmatch(value) and not _reads_as_other(value) else None
    if isinstance(value, (list, tuple)) and value:
        names = [None if isinstance(item, (list, tuple)) else _plain_name(item) for item in value]
        return "+".join(map(str, names)) + "+" * (len(names) == 1) if None not in names else None
    return None


def _reads_as_other(text: str) -> bool:
    """Whether a text is also the name of a number, a bool or None."""
    try:
        float(text)
    except ValueError:
        return text.lower() in ("true", "false", "none", "null")
    return True


def _without_classes(value: Any) -> Any:
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, (list, tuple)):
        return [_without_classes(item) for item in value]
    if isinstance(value, dict):
        return {_without_classes(key): _without_classes(item) for key, item in value.items()}
    return value


def key_names(called: Mapping[str, str | None]) -> dict[str, str]:
    """What the user calls each key, else as many of its last words as tell it from the others.

    >>> key_names({"opt.lr": None, "sched.lr": None, "model.epochs": None, "batch_size": "bs"})
    {'opt.lr': 'opt.lr', 'sched.lr': 'sched.lr', 'model.epochs': 'epochs', 'batch_size': 'bs'}
    """
    words = {key: words_of(key) for key in called}
    names: dict[str, str] = {}
    owners: dict[str, str] = {}
    for key, own in called.items():
        others = [parts for other, parts in words.items() if other != key]
        names[key] = name = own or _key_name(words[key], others)
        if owners.setdefault(name, key) != key:
            raise ConfigError(f"names: {owners[name]} and {key} are both called {name}")
    return names


def words_of(key: str) -> tuple[str, ...]:
    return tuple(re.findall(r'"(?:[^"\\]|\\.)*"|[^."\[\]]+', key.removeprefix("+"))) or (key,)


def _key_name(words: tuple[str, ...], others: list[tuple[str, ...]]) -> str:
    count = 2 if words[-1].isdigit() else 1  # an element of a list
    while count < len(words) and any(words[-count:] == other[-count:] for other in others):
        count += 1
    name = ".".join(words[-count:])
    return name if _PLAIN.fullmatch(name) and len(name) <= _LONGEST_VALUE else _shortened(name, name, 20)


_USABLE = re.compile(r"(?!\.{1,2}$)(?! )[^\x00-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029/\\]+(?<! )")


def joined(parts: Iterable[str]) -> str:
    """One name, of bounded length; `base` for no parts."""
    name = ",".join(parts) or "base"
    return name if len(name.encode()) <= _LONGEST else _shortened(name, name, _LONGEST - 20, ",=+~")


def checked(name: Any) -> str:
    """A name that the user gives, if a file can be called so."""
    if isinstance(name, str) and _USABLE.fullmatch(name) and len(name.encode()) <= _LONGEST:
        return name
    raise ConfigError(
        f"{short(name)} cannot be the name of a combination",
        hint=f"use at most {_LONGEST} characters, without / \\ and control characters",
    )


def _shortened(text: str, whole: str, length: int, also: str = "") -> str:
    words = re.sub(f"[^A-Za-z0-9_.{re.escape(also)}]+", "-", text)[:length].strip("-.")
    digest = blake3(whole.encode("utf-8", "surrogatepass")).hexdigest()[:_HEX_DIGITS]
    return f"{words or 'value'}~{digest}"


# -- spaces and spaced numbers -------------------------------------------------------------------------------------
# Numbers are rounded to what a person would write: 0.2 lies between 0.1 and 0.3, and every machine gives the same.

_DIGITS = 6
"""Significant digits of a number, so that it can be read and typed."""
_BITS = 64
"""Of the random number that belongs to a draw."""


@dataclass(frozen=True, slots=True)
class Space:
    """What values are drawn from."""

    kind: Literal["uniform", "log_uniform", "integers"]
    low: float
    high: float

    def at(self, draw: int) -> float:
        """The value that belongs to a random number of 64 bits."""
        if self.kind == "integers":
            return int(self.low) + (draw * int(self.high - self.low + 1) >> _BITS)
        share = Fraction(draw, 2**_BITS)
        if self.kind == "log_uniform":
            value = float(f"{_multiplied(self.low, self.high, share):.{_DIGITS}g}")
        else:
            # relative to the width: of 1000 to 1001 six digits would leave a hundred numbers
            exponent = int(f"{self.high - self.low:e}".partition("e")[2])
            value = float(round(_added(self.low, self.high, share), _DIGITS - exponent))
        return min(max(self.low, value), self.high)


def uniform(low: float, high: float) -> Space:
    """Any number between, all equally likely; rounded to a millionth of the width.

    Raises
    ------
    ConfigError: `low` is not below `high`.
    """
    return _bounded("uniform", low, high)


def log_uniform(low: float, high: float) -> Space:
    """Any number between, all orders of magnitude equally likely; rounded to six digits.

    Raises
    ------
    ConfigError: `low` is not below `high`, or not above 0.
    """
    space = _bounded("log_uniform", low, high)
    _check_positive("log_uniform", low, high)
    return space


def integers(low: int, high: int) -> Space:
    """Any whole number from `low` to `high`, both included, all equally likely.

    Raises
    ------
    ConfigError: `low` is above `high`, or one is no whole number.
    """
    if not all(isinstance(bound, int) for bound in (low, high)) or low > high or high - low >= 2**_BITS:
        raise ConfigError(f"integers({low!r}, {high!r}): needs two ints, the smaller first")
    return Space("integers", low, high)


def spaced(first: float, last: float, count: int) -> list[float]:
    """`count` numbers from `first` to `last`, both included, at equal distances.

    Raises
    ------
    ConfigError: there is no such number, or `count` is less than 1.

    >>> spaced(0, 1, 5), spaced(0.1, 0.3, 3)
    ([0.0, 0.25, 0.5, 0.75, 1.0], [0.1, 0.2, 0.3])
    """
    _check_numbers("spaced", first, last, count)
    return _steps(_added, first, last, count)


def log_spaced(first: float, last: float, count: int) -> list[float]:
    """`count` numbers from `first` to `last`, both included, each the same multiple of the one before.

    Raises
    ------
    ConfigError: there is no such number, a bound is not above 0, or `count` is less than 1.

    >>> log_spaced(1e-4, 0.1, 4), log_spaced(1, 10, 3)
    ([0.0001, 0.001, 0.01, 0.1], [1.0, 3.16228, 10.0])
    """
    _check_numbers("log_spaced", first, last, count)
    _check_positive("log_spaced", first, last)
    return _steps(_multiplied, first, last, count)


def _steps(between: Callable[..., Any], first: float, last: float, count: int) -> list[float]:
    """Rounded to six digits, or to as many as keep them different and in order."""
    inner = [float(between(first, last, Fraction(i, count - 1))) for i in range(1, count - 1)]
    numbers: list[float] = []
    for digits in range(_DIGITS, 18):
        numbers = [float(first), *(float(f"{value:.{digits}g}") for value in inner), float(last)][:count]
        if all(a < b for a, b in pairwise(numbers)) or all(a > b for a, b in pairwise(numbers)):
            break
    return numbers


def _added(low: float, high: float, share: Fraction) -> Fraction:
    """The number after this share of the distance; 0.1 is a tenth here."""
    start, end = Fraction(repr(float(low))), Fraction(repr(float(high)))
    return start + (end - start) * share


def _multiplied(low: float, high: float, share: Fraction) -> float:
    return math.exp(math.log(low) + (math.log(high) - math.log(low)) * share)


def _bounded(kind: Literal["uniform", "log_uniform"], low: float, high: float) -> Space:
    if not _is_number(low) or not _is_number(high) or not low < high or not math.isfinite(high - low):
        raise ConfigError(f"{kind}({low!r}, {high!r}): needs two numbers, the smaller first")
    return Space(kind, float(low), float(high))


def _check_numbers(name: str, first: float, last: float, count: int) -> None:
    if not _is_number(first) or not _is_number(last) or not isinstance(count, int) or count < 1:
        raise ConfigError(f"{name}({first!r}, {last!r}, {count!r}): needs two numbers and a count")


def _check_positive(name: str, *bounds: float) -> None:
    if min(bounds) <= 0:
        raise ConfigError(f"{name}{bounds!r}: both numbers must be above 0")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)
