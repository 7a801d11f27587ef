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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, overload

from blake3 import blake3
from omegaconf import DictConfig, OmegaConf

from ..errors import ConfigError
from ..redact import Redactor
from . import naming
from .containers import hold
from .layers import Branch, Layer, merge, plain, tree
from .messages import short
from .opening import open_config
from .overrides import lay_values
from .post_init import settled, unsettled
from .spaces import Space, integers
from .trace import raw

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
        self._keys = naming.key_names(called)

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
        point.name = naming.joined(entry.label(self._keys) for entry in row)
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
            texts[key] = named or (str(self.index) if is_secret else naming.value_name(value))
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
    return [naming.checked(name) for name in names]


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
    called = {key: naming.checked(own[key]) if isinstance(own.get(key), str) else None for key in keys}
    if where is not None:
        rows = itertools.islice(Combinations((), called)._kept(rows, where), most)
    found = Combinations(rows, called)
    return _renamed(found, names) if callable(names) else found


def _renamed(combinations: Combinations, name_of: Callable[[Point], str]) -> Combinations:
    rows: list[Row] = []
    owners: dict[str, Point] = {}
    for i, point in enumerate(combinations):
        name = naming.checked(_answer(name_of, point, "names", point))
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
        for word in reversed(naming.words_of(key)):
            value = {int(word) if word.isdecimal() else word.strip('"'): value}
        branch = merge(branch, tree(value, layer))
    config: DictConfig = OmegaConf.create(plain(branch))
    return config
