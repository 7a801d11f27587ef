"""Which combinations of values shall be run?

A combination is a mapping of dotted keys to values, laid over a configuration by `merged`. Axes are put together
by four small classes that know how many combinations they have and what each consists of, and build none
before it is asked for.
"""

from __future__ import annotations

import bisect
import copy
import functools
import html
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, overload

from ...errors import ConfigError
from ...redact import Redactor
from ..layers import Path
from . import naming
from .spaces import Integers, Space

if TYPE_CHECKING:
    from omegaconf import DictConfig

T = TypeVar("T")

Key = str | tuple[str, ...]
"""A dotted key; or several whose values go together."""

Names = Mapping[Any, Any] | Callable[["Point"], str]
"""Key -> what to call it, or what to call its values: a list, or a dict from value to name."""

_MANY = 20
"""Combinations that a table shows."""


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
    ConfigError: an axis without values, a key on two axes, names that do not fit, or whatever `where` raises.

    >>> for point in grid({"opt.lr": [0.1, 0.2], "epochs": [5, 10]}, where=lambda c: c.opt.lr * c.epochs < 2):
    ...     print(point.name, point)
    lr=0.1,epochs=5 {'opt.lr': 0.1, 'epochs': 5}
    lr=0.1,epochs=10 {'opt.lr': 0.1, 'epochs': 10}
    lr=0.2,epochs=5 {'opt.lr': 0.2, 'epochs': 5}
    """
    given = _Names.of(names)
    parts = [_axis(key, values, given) for key, values in axes.items()]
    return _finished(_Product(_apart(parts)), given, where)


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
    given = _Names.of(names)
    parts = [_axis(key, values, given) for key, values in axes.items()]
    if len({len(part) for part in parts}) > 1:
        lengths = ", ".join(f"{_shown(part.keys)}: {len(part)}" for part in parts)
        raise ConfigError(f"axes of different lengths go in step: {lengths}", hint="grid(...) combines all")
    return _finished(_InStep(_apart(parts)), given, where)


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
    given = _Names.of(names)
    if where is None:
        return _finished(_drawn(spaces, range(n), seed, given), given, None)
    kept: list[int] = []
    for start in range(0, 1000 * n, max(n, 1)):
        batch = Combinations(_drawn(spaces, range(start, start + max(n, 1)), seed, given))
        kept += [start + i for i in _kept(batch, where)]
        if len(kept) >= n:
            return _finished(_drawn(spaces, kept[:n], seed, given), given, None)
    if n:
        raise ConfigError(
            f"`where` has kept {len(kept)} of {1000 * n} combinations, {n} were wanted",
            hint="draw from narrower spaces",
        )
    return _finished(_drawn(spaces, range(0), seed, given), given, None)


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
    from omegaconf import DictConfig

    from ..commandline.overrides import lay_values
    from ..layers import Layer
    from ..resolved import open_config

    held = config if isinstance(config, DictConfig) else open_config(config)
    layer = Layer(kind="override", name=getattr(point, "name", "") or name_of(point))
    return lay_values(point, layer, held)


def name_of(point: Mapping[str, Any]) -> str:
    """What a combination of these values is called.

    >>> name_of({"opt.lr": 0.1, "epochs": 5})
    'lr=0.1,epochs=5'
    """
    axes = [_axis(key, [value], _Names()) for key, value in point.items()]
    return Combinations(_Product(_apart(axes)))[0].name


class Combinations(Sequence[Point]):
    """Combinations in a fixed order, each made when it is asked for.

    `a * b` has every combination of one with one of the other, `a + b` has those of `a` and then those of `b`,
    equal ones twice.
    """

    def __init__(self, source: _Source) -> None:
        self._source = source
        self._called = _called(source.axes())

    def __len__(self) -> int:
        return len(self._source)

    @overload
    def __getitem__(self, index: int) -> Point: ...
    @overload
    def __getitem__(self, index: slice) -> Combinations: ...
    def __getitem__(self, index: int | slice) -> Point | Combinations:
        positions = range(len(self))[index]
        if isinstance(positions, range):
            return Combinations(_Chosen(self._source, positions))
        point, parts = Point(), []
        for axis, i in self._source.at(positions):
            for key, value in zip(axis.keys, axis.values[i], strict=True):
                point[key] = copy.deepcopy(value) if isinstance(value, (dict, list)) else value
            parts += axis.named(i, self._called)
        point.name = naming.joined(parts)
        return point

    def where(self, condition: Callable[[Any], Any]) -> Combinations:
        """Those that `condition` keeps; it is given each as a configuration.

        Raises
        ------
        ConfigError: it raised; names the combination.
        """
        return Combinations(_Chosen(self._source, tuple(_kept(self, condition))))

    def __mul__(self, other: object) -> Combinations:
        if not isinstance(other, Combinations):
            return NotImplemented
        return Combinations(_Product(_apart((self._source, other._source))))

    def __add__(self, other: object) -> Combinations:
        if not isinstance(other, Combinations):
            return NotImplemented
        return Combinations(_Joined((self._source, other._source)))

    def __repr__(self) -> str:
        rows = [point.name for point in itertools.islice(self, _MANY)]
        more = [f"… {len(self) - _MANY} more"] if len(self) > _MANY else []
        return "\n".join([f"{len(self)} combinations", *(f"  {row}" for row in (*rows, *more))])

    def _repr_html_(self) -> str:
        left = 'style="text-align:left"'
        head = f"<th></th><th {left}>name</th>"
        head += "".join(f"<th>{html.escape(name)}</th>" for name in self._called.values())
        rows = [(self[i].name, self._cells(i)) for i in range(min(len(self), _MANY))]
        body = "".join(
            f"<tr><td>{i}</td><td {left}>{html.escape(name)}</td>{row}</tr>"
            for i, (name, row) in enumerate(rows)
        )
        more = f"<p>… {len(self) - _MANY} more</p>" if len(self) > _MANY else ""
        return f"<p>{len(self)} combinations</p><table><tr>{head}</tr>{body}</table>{more}"

    def _cells(self, index: int) -> str:
        """Named as in the name of the combination: no secret is shown."""
        cells = {name: cell for axis, i in self._source.at(index) for name, cell in axis.cells(i)}
        return "".join(f"<td>{html.escape(cells.get(key, ''))}</td>" for key in self._called)


# -- what combinations consist of --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Axis:
    """Keys whose values change together."""

    keys: tuple[str, ...]
    values: tuple[tuple[Any, ...], ...]
    names: tuple[str, ...] | None = None
    """What its values are called, if the user says so."""
    whole: bool = False
    """Whether such a name is that of the whole combination."""
    called: dict[str, str] = field(default_factory=dict)
    """What its keys are called, where the user says so."""

    def __len__(self) -> int:
        return len(self.values)

    def axes(self) -> tuple[_Axis, ...]:
        return (self,)

    def at(self, index: int) -> Iterator[tuple[_Axis, int]]:
        yield self, index

    def named(self, index: int, called: Mapping[str, str]) -> list[str]:
        """Its parts of the name of a combination."""
        if self.names is None:
            return [f"{called[key]}={cell}" for key, cell in self.cells(index)]
        if self.whole:
            return [self.names[index]]
        return ["+".join(called[key] for key in self.keys) + "=" + self.names[index]]

    def cells(self, index: int) -> Iterator[tuple[str, str]]:
        """What the value of each key is called."""
        for key, value in zip(self.keys, self.values[index], strict=True):
            if self.names is not None and not self.whole:
                yield key, self.names[index]
            else:
                yield key, str(index) if _is_secret(key, value) else naming.of_value(value)


def _is_secret(key: str, value: Any) -> bool:
    """Whether the value, or a part of it, must not be told: a name ends in logs and paths."""
    given = {key: value}
    return Redactor().mapping(given) != given


class _Source(Protocol):
    def __len__(self) -> int: ...
    def axes(self) -> tuple[_Axis, ...]: ...
    def at(self, index: int) -> Iterator[tuple[_Axis, int]]:
        """The axes that the combination at `index` is made of, and where on each it lies."""


@dataclass(frozen=True, slots=True)
class _Several:
    parts: tuple[_Source, ...]

    def axes(self) -> tuple[_Axis, ...]:
        return tuple(axis for part in self.parts for axis in part.axes())


class _Product(_Several):
    __slots__ = ()

    def __len__(self) -> int:
        return math.prod(map(len, self.parts))

    def at(self, index: int) -> Iterator[tuple[_Axis, int]]:
        positions = []
        for part in reversed(self.parts):
            index, position = divmod(index, len(part))
            positions.append(position)
        for part, position in zip(self.parts, reversed(positions), strict=True):
            yield from part.at(position)


class _InStep(_Several):
    __slots__ = ()

    def __len__(self) -> int:
        return min(map(len, self.parts), default=0)

    def at(self, index: int) -> Iterator[tuple[_Axis, int]]:
        for part in self.parts:
            yield from part.at(index)


class _Joined(_Several):
    __slots__ = ()

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def at(self, index: int) -> Iterator[tuple[_Axis, int]]:
        ends = list(itertools.accumulate(map(len, self.parts)))
        which = bisect.bisect_right(ends, index)
        yield from self.parts[which].at(index - (ends[which - 1] if which else 0))


@dataclass(frozen=True, slots=True)
class _Chosen:
    source: _Source
    indices: Sequence[int]

    def __len__(self) -> int:
        return len(self.indices)

    def axes(self) -> tuple[_Axis, ...]:
        return self.source.axes()

    def at(self, index: int) -> Iterator[tuple[_Axis, int]]:
        return self.source.at(self.indices[index])


def _apart(parts: Iterable[_Source]) -> tuple[_Source, ...]:
    """The same, if no key is in two of them."""
    parts, seen = tuple(parts), set[str]()
    for part in parts:
        keys = {key for axis in part.axes() for key in axis.keys}
        if seen & keys:
            raise ConfigError(
                f"key {min(seen & keys)} is on two axes", hint="`a + b` has the combinations of both"
            )
        seen |= keys
    return parts


# -- how they are made -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Names:
    """What the user calls keys, values, or whole combinations."""

    by_key: Mapping[Any, Any] = field(default_factory=dict)
    by_point: Callable[[Point], str] | None = None

    @classmethod
    def of(cls, given: Names | None) -> _Names:
        if given is None:
            return cls()
        return cls(by_point=given) if callable(given) else cls(by_key=given)

    def of_keys(self, key: Key) -> dict[str, str]:
        keys = key if isinstance(key, tuple) else (key,)
        short = self.by_key.get(key)
        if isinstance(short, str):
            return {keys[0]: naming.checked(short)} if len(keys) == 1 else {}
        return {
            one: naming.checked(self.by_key[one]) for one in keys if isinstance(self.by_key.get(one), str)
        }

    def of_values(self, key: Key, values: Sequence[Any]) -> tuple[str, ...] | None:
        given = self.by_key.get(key)
        if given is None or isinstance(given, str):
            return None
        try:
            names = [given[value] for value in values] if isinstance(given, Mapping) else list(given)
        except (KeyError, TypeError) as error:
            raise ConfigError(f"names of {_shown(key)}: none for the value {error}") from error
        if len(names) != len(values):
            raise ConfigError(f"names of {_shown(key)}: {len(names)} for {len(values)} values")
        if len(set(names)) < len(names):
            raise ConfigError(f"names of {_shown(key)}: two values have one name: {_shown(names)}")
        return tuple(map(naming.checked, names))


def _axis(key: Any, values: Any, names: _Names) -> _Axis:
    keys = key if isinstance(key, tuple) else (key,)
    if not keys or not all(isinstance(one, str) for one in keys) or len(set(keys)) < len(keys):
        raise ConfigError(f"{key!r} is no key of an axis", hint='give "opt.lr", or a tuple of such keys')
    if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Iterable):
        hint = "sample(...) draws from it" if isinstance(values, Space) else None
        raise ConfigError(
            f"axis {_shown(key)}: a list of values was expected, not {_short(values)}", hint=hint
        )
    points = list(values)
    if not points:
        raise ConfigError(f"axis {_shown(key)} has no values")
    rows = [(value,) for value in points] if isinstance(key, str) else [_row(keys, value) for value in points]
    held = tuple(tuple(map(_held, keys, row)) for row in rows)
    return _Axis(keys, held, names.of_values(key, points), called=names.of_keys(key))


def _row(keys: tuple[str, ...], values: Any) -> tuple[Any, ...]:
    row = tuple(values) if isinstance(values, Iterable) and not isinstance(values, (str, Mapping)) else ()
    if len(row) != len(keys):
        raise ConfigError(
            f"axis {_shown(keys)}: {len(keys)} values were expected together, not {_short(values)}"
        )
    return row


def _held(key: str, value: Any) -> Any:
    """As a configuration holds it: a number of numpy becomes Python's."""
    if type(value) in (bool, int, float, str, type(None)):
        return value
    from ..known import raw
    from ..resolved import open_config

    return raw(open_config({key: value}))[key]


def _drawn(spaces: Mapping[Any, Any], indices: Sequence[int], seed: int, names: _Names) -> _Source:
    axes = []
    for key, given in spaces.items():
        numbers = [_number(seed, key, i) for i in indices]
        if isinstance(given, Space):
            values = tuple((given.at(number),) for number in numbers)
            axes.append(_Axis((key,), values, called=names.of_keys(key)))
        else:
            choice = _axis(key, given, names)
            drawn = [Integers(0, len(choice) - 1).at(number) for number in numbers]
            values = tuple(choice.values[i] for i in drawn)
            axes.append(
                replace(choice, values=values, names=choice.names and tuple(choice.names[i] for i in drawn))
            )
    return _InStep(_apart(axes))


def _number(seed: int, key: Key, index: int) -> int:
    """64 bits that only depend on these three."""
    from blake3 import blake3

    return int.from_bytes(blake3(f"{seed}\n{key}\n{index}".encode()).digest(length=8), "big")


def _finished(source: _Source, names: _Names, where: Callable[[Any], Any] | None) -> Combinations:
    unknown = [key for key in names.by_key if not any(_is_of(key, axis) for axis in source.axes())]
    if unknown:
        raise ConfigError(f"names of {_shown(unknown[0])}: there is no such axis")
    combinations = Combinations(source)
    if where is not None:
        combinations = combinations.where(where)
    return combinations if names.by_point is None else _renamed(combinations, names.by_point)


def _is_of(key: Any, axis: _Axis) -> bool:
    return key in axis.keys or key == axis.keys


def _renamed(combinations: Combinations, name: Callable[[Point], str]) -> Combinations:
    """The same, all of them made, since each has to be asked for its name."""
    points = list(combinations)
    given = [naming.checked(_asked(name, point, "names", point)) for point in points]
    owners: dict[str, Point] = {}
    for called, point in zip(given, points, strict=True):
        if owners.setdefault(called, point) != point:
            raise ConfigError(f"names: {owners[called].name} and {point.name} are both called {called}")
    keys = tuple(key for axis in combinations._source.axes() for key in axis.keys)
    rows = tuple(tuple(point[key] for key in keys) for point in points)
    return Combinations(_Axis(keys, rows, tuple(given), whole=True))


def _kept(combinations: Combinations, condition: Callable[[Any], Any]) -> Iterator[int]:
    for i, point in enumerate(combinations):
        if _asked(condition, _as_config(point), "where", point):
            yield i


def _asked(function: Callable[[Any], Any], argument: Any, what: str, point: Point) -> Any:
    try:
        return function(argument)
    except Exception as error:
        said = str(error).split("\n", 1)[0]
        no_key = isinstance(error, (AttributeError, KeyError))
        raise ConfigError(
            f"`{what}` failed for {point.name}: {type(error).__name__}: {said}",
            hint="it is given the keys on the axes, and no others" if no_key else None,
        ) from error


def _as_config(point: Point) -> DictConfig:
    from omegaconf import OmegaConf

    from ..layers import Branch, Layer, merge, plain, tree

    laid, layer = Branch(), Layer(kind="override", name=point.name)
    for key, value in point.items():
        for part in reversed(_path(key)):
            value = {part: value}
        laid = merge(laid, tree(value, layer))
    config: DictConfig = OmegaConf.create(plain(laid))
    return config


@functools.lru_cache(256)
def _path(key: str) -> Path:
    from ..commandline.literals import Bare
    from ..commandline.overrides import Token, parsed
    from ..layers import Layer

    keys = parsed(Token(f"{key}=", Layer(kind="override", name="combination"))).keys
    return tuple(int(part) if isinstance(part, Bare) and part.isdecimal() else str(part) for part in keys)


def _called(axes: Iterable[_Axis]) -> dict[str, str]:
    """What each key is called in names."""
    called: dict[str, str] = {}
    keys: list[str] = []
    for axis in axes:
        keys += axis.keys
        called |= axis.called
    called = {**naming.of_keys(dict.fromkeys(keys)), **called}
    by_name: dict[str, str] = {}
    for key, name in called.items():
        if by_name.setdefault(name, key) != key:
            raise ConfigError(f"names: {by_name[name]} and {key} are both called {name}")
    return called


def _shown(keys: Any) -> str:
    return ", ".join(map(str, keys)) if isinstance(keys, (tuple, list)) else str(keys)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
