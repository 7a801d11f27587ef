"""What do combinations consist of, and how many are there?

Axes are put together by four small classes that know how many combinations they have and what each consists of,
and build none before it is asked for.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from ...errors import ConfigError
from ...redact import Redactor
from ..messages import short
from . import naming
from .spaces import Integers, Space

Key = str | tuple[str, ...]
"""A dotted key; or several whose values go together."""

Names = Mapping[Any, Any] | Callable[["Point"], str]
"""Key -> what to call it, or what to call its values: a list, or a dict from value to name."""


class Point(dict[str, Any]):
    """One combination: dotted keys and their values, in the order of the axes."""

    name: str = ""
    """Such as `lr=0.1,epochs=5`; other combinations of the same sequence have others."""


@dataclass(frozen=True, slots=True)
class Axis:
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

    def axes(self) -> tuple[Axis, ...]:
        return (self,)

    def at(self, index: int) -> Iterator[tuple[Axis, int]]:
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


class Source(Protocol):
    def __len__(self) -> int: ...
    def axes(self) -> tuple[Axis, ...]: ...
    def at(self, index: int) -> Iterator[tuple[Axis, int]]:
        """The axes that the combination at `index` is made of, and where on each it lies."""


@dataclass(frozen=True, slots=True)
class Several:
    parts: tuple[Source, ...]

    def axes(self) -> tuple[Axis, ...]:
        return tuple(axis for part in self.parts for axis in part.axes())


class Product(Several):
    __slots__ = ()

    def __len__(self) -> int:
        return math.prod(map(len, self.parts))

    def at(self, index: int) -> Iterator[tuple[Axis, int]]:
        positions = []
        for part in reversed(self.parts):
            index, position = divmod(index, len(part))
            positions.append(position)
        for part, position in zip(self.parts, reversed(positions), strict=True):
            yield from part.at(position)


class InStep(Several):
    __slots__ = ()

    def __len__(self) -> int:
        return min(map(len, self.parts), default=0)

    def at(self, index: int) -> Iterator[tuple[Axis, int]]:
        for part in self.parts:
            yield from part.at(index)


class Joined(Several):
    __slots__ = ()

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def at(self, index: int) -> Iterator[tuple[Axis, int]]:
        ends = list(itertools.accumulate(map(len, self.parts)))
        which = bisect.bisect_right(ends, index)
        yield from self.parts[which].at(index - (ends[which - 1] if which else 0))


@dataclass(frozen=True, slots=True)
class Chosen:
    source: Source
    indices: Sequence[int]

    def __len__(self) -> int:
        return len(self.indices)

    def axes(self) -> tuple[Axis, ...]:
        return self.source.axes()

    def at(self, index: int) -> Iterator[tuple[Axis, int]]:
        return self.source.at(self.indices[index])


def apart(parts: Iterable[Source]) -> tuple[Source, ...]:
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


@dataclass(frozen=True, slots=True)
class Naming:
    """What the user calls keys, values, or whole combinations."""

    by_key: Mapping[Any, Any] = field(default_factory=dict)
    by_point: Callable[[Point], str] | None = None

    @classmethod
    def of(cls, given: Names | None) -> Naming:
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
            raise ConfigError(f"names of {shown(key)}: no name for the value {error}") from error
        if len(names) != len(values):
            raise ConfigError(f"names of {shown(key)}: {len(names)} for {len(values)} values")
        if len(set(names)) < len(names):
            raise ConfigError(f"names of {shown(key)}: two values have one name: {shown(names)}")
        return tuple(map(naming.checked, names))


def axis_of(key: Any, values: Any, names: Naming) -> Axis:
    keys = key if isinstance(key, tuple) else (key,)
    if not keys or not all(isinstance(one, str) for one in keys) or len(set(keys)) < len(keys):
        raise ConfigError(f"{key!r} is no key of an axis", hint='give "opt.lr", or a tuple of such keys')
    if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Iterable):
        hint = "sample(...) draws from it" if isinstance(values, Space) else None
        raise ConfigError(f"axis {shown(key)}: must be a list of values; got {short(values)}", hint=hint)
    points = list(values)
    if not points:
        raise ConfigError(f"axis {shown(key)} has no values")
    rows = [(value,) for value in points] if isinstance(key, str) else [_row(keys, value) for value in points]
    held = tuple(tuple(map(_held, keys, row)) for row in rows)
    return Axis(keys, held, names.of_values(key, points), called=names.of_keys(key))


def _row(keys: tuple[str, ...], values: Any) -> tuple[Any, ...]:
    row = tuple(values) if isinstance(values, Iterable) and not isinstance(values, (str, Mapping)) else ()
    if len(row) != len(keys):
        raise ConfigError(f"axis {shown(keys)}: each entry must have {len(keys)} values; got {short(values)}")
    return row


def _held(key: str, value: Any) -> Any:
    """As a configuration holds it: a number of numpy becomes Python's."""
    if type(value) in (bool, int, float, str, type(None)):
        return value
    from ..containers import hold
    from ..trace import raw

    return raw(hold({key: value}))[key]


def drawn(spaces: Mapping[Any, Any], indices: Sequence[int], seed: int, names: Naming) -> Source:
    axes = []
    for key, given in spaces.items():
        numbers = [_number(seed, key, i) for i in indices]
        if isinstance(given, Space):
            values = tuple((given.at(number),) for number in numbers)
            axes.append(Axis((key,), values, called=names.of_keys(key)))
        else:
            choice = axis_of(key, given, names)
            drawn = [Integers(0, len(choice) - 1).at(number) for number in numbers]
            values = tuple(choice.values[i] for i in drawn)
            axes.append(
                replace(choice, values=values, names=choice.names and tuple(choice.names[i] for i in drawn))
            )
    return InStep(apart(axes))


def _number(seed: int, key: Key, index: int) -> int:
    """64 bits that only depend on these three."""
    from blake3 import blake3

    return int.from_bytes(blake3(f"{seed}\n{key}\n{index}".encode()).digest(length=8), "big")


def called_keys(axes: Iterable[Axis]) -> dict[str, str]:
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


def shown(keys: Any) -> str:
    return ", ".join(map(str, keys)) if isinstance(keys, (tuple, list)) else str(keys)
