"""Which combinations of values shall be run?

A combination is a mapping of dotted keys to values, laid over a configuration by `merged`.
"""

from __future__ import annotations

import copy
import functools
import html
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, overload

from ...errors import ConfigError
from ..layers import Path
from . import naming
from .axes import (
    Axis,
    Chosen,
    InStep,
    Joined,
    Names,
    Naming,
    Point,
    Product,
    Source,
    apart,
    axis_of,
    called_keys,
    drawn,
    shown,
)
from .spaces import Space

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from ..layers import Layer

T = TypeVar("T")

_MANY = 20
"""Combinations that a table shows."""


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
    given = Naming.of(names)
    parts = [axis_of(key, values, given) for key, values in axes.items()]
    return _finished(Product(apart(parts)), given, where)


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
    given = Naming.of(names)
    parts = [axis_of(key, values, given) for key, values in axes.items()]
    if len({len(part) for part in parts}) > 1:
        lengths = ", ".join(f"{shown(part.keys)}: {len(part)}" for part in parts)
        raise ConfigError(
            f"zipped axes must have the same length; got {lengths}", hint="use grid(...) for all combinations"
        )
    return _finished(InStep(apart(parts)), given, where)


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
    given = Naming.of(names)
    if where is None:
        return _finished(drawn(spaces, range(n), seed, given), given, None)
    kept: list[int] = []
    for start in range(0, 1000 * n, max(n, 1)):
        batch = Combinations(drawn(spaces, range(start, start + max(n, 1)), seed, given))
        kept += [start + i for i in _kept(batch, where)]
        if len(kept) >= n:
            return _finished(drawn(spaces, kept[:n], seed, given), given, None)
    if n:
        raise ConfigError(
            f"`where` kept {len(kept)} of {1000 * n} combinations; {n} are needed",
            hint="draw from narrower spaces",
        )
    return _finished(drawn(spaces, range(0), seed, given), given, None)


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
    from ..layers import Layer

    return _laid(config, point, Layer(kind="override", name=getattr(point, "name", "") or name_of(point)))


def _laid(config: Any, point: Mapping[str, Any], layer: Layer) -> DictConfig:
    from omegaconf import DictConfig

    from ..opening import open_config
    from ..overrides import lay_values
    from ..post_init import settled, unsettled

    held = unsettled(config) if isinstance(config, DictConfig) else open_config(config)
    return settled(lay_values(point, layer, held))


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
    from ..layers import Layer

    if not into and not isinstance(task, Mapping):
        raise _no_mapping(task, called)
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


def _no_mapping(task: Any, called: str) -> ConfigError:
    if hasattr(task, "to_dict"):  # a row of a DataFrame
        hint = 'frame.to_dict("records") gives the rows of a DataFrame as such'
    else:
        hint = 'name the key that takes it: run.map(fn, tasks, into="input")'
    return ConfigError(
        f"task {called}: what is merged into the configuration must be a mapping, not {type(task).__name__}",
        hint=hint,
    )


def name_of(point: Mapping[str, Any]) -> str:
    """What a combination of these values is called.

    >>> name_of({"opt.lr": 0.1, "epochs": 5})
    'lr=0.1,epochs=5'
    """
    axes = [axis_of(key, [value], Naming()) for key, value in point.items()]
    return Combinations(Product(apart(axes)))[0].name


class Combinations(Sequence[Point]):
    """Combinations in a fixed order, each made when it is asked for.

    `a * b` has every combination of one with one of the other, `a + b` has those of `a` and then those of `b`,
    equal ones twice.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._called = called_keys(source.axes())

    def __len__(self) -> int:
        return len(self._source)

    @overload
    def __getitem__(self, index: int) -> Point: ...
    @overload
    def __getitem__(self, index: slice) -> Combinations: ...
    def __getitem__(self, index: int | slice) -> Point | Combinations:
        positions = range(len(self))[index]
        if isinstance(positions, range):
            return Combinations(Chosen(self._source, positions))
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
        return Combinations(Chosen(self._source, tuple(_kept(self, condition))))

    def __mul__(self, other: object) -> Combinations:
        if not isinstance(other, Combinations):
            return NotImplemented
        return Combinations(Product(apart((self._source, other._source))))

    def __add__(self, other: object) -> Combinations:
        if not isinstance(other, Combinations):
            return NotImplemented
        return Combinations(Joined((self._source, other._source)))

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


# -- how they are made -------------------------------------------------------------------------------------


def _finished(source: Source, names: Naming, where: Callable[[Any], Any] | None) -> Combinations:
    unknown = [key for key in names.by_key if not any(_is_of(key, axis) for axis in source.axes())]
    if unknown:
        raise ConfigError(f"names of {shown(unknown[0])}: no such axis")
    combinations = Combinations(source)
    if where is not None:
        combinations = combinations.where(where)
    return combinations if names.by_point is None else _renamed(combinations, names.by_point)


def _is_of(key: Any, axis: Axis) -> bool:
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
    return Combinations(Axis(keys, rows, tuple(given), whole=True))


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
    from ..layers import Layer
    from ..overrides import Token, parsed
    from ..values import Word

    keys = parsed(Token(f"{key}=", Layer(kind="override", name="combination"))).keys
    return tuple(int(part) if isinstance(part, Word) and part.isdecimal() else str(part) for part in keys)
