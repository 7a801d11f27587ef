"""Who set each value of a configuration, and what did it beat? The answer: to be asked, printed, shown.

It needs no OmegaConf, so that `runctx show RUN --explain` answers from a lock alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from ..model import Lock, Origin
from ..redact import REDACTED
from .layers import flat
from .messages import did_you_mean

if TYPE_CHECKING:
    from ..display.table import Table


@dataclass(frozen=True, slots=True)
class Unknown:
    """Stands where a key has no value: nobody set it, or it cannot be computed."""

    why: str


@dataclass(frozen=True, repr=False)
class Explanation(Mapping[str, tuple[Origin, ...]]):
    """Dotted key -> what was said of it: by the layer that won, then by those it beat, the nearest first.

    Printed it is a table, in a notebook too; `to_dict()` is for programs. Secrets are redacted everywhere.

    >>> told = Explanation(
    ...     resolved={"lr": 0.3},
    ...     origins={
    ...         "lr": (
    ...             Origin(layer="override", where="argument 3", value=0.3),
    ...             Origin(layer="default", where="train.py:9", value=0.1),
    ...         )
    ...     },
    ... )
    >>> print(told)
    key     value  set by    where
    lr      0.3    override  argument 3
      beat  0.1    default   train.py:9
    >>> told["lr"][0].where
    'argument 3'
    """

    resolved: Mapping[str, Any]
    """Dotted key -> its value in the end, or `Unknown`."""
    origins: Mapping[str, tuple[Origin, ...]] = field(default_factory=dict)
    """What is known of who set it; a key need not be among them."""
    unread: tuple[str, ...] | None = None
    """Keys that nobody read; None if it is not known, as before the end of a run."""

    def __getitem__(self, key: str) -> tuple[Origin, ...]:
        return self.origins.get(key, ()) if key in self.resolved else self.origins[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.resolved)

    def __len__(self) -> int:
        return len(self.resolved)

    __hash__ = None  # type: ignore[assignment]  # as of any mapping

    def part(self, key: str) -> Explanation:
        """Only that key, or those below it.

        Raises
        ------
        ConfigError: there is none.
        """
        chosen = [name for name in self if name == key or name.startswith(f"{key}.")]
        if not chosen:
            known = dict.fromkeys([*self, *(above for name in self for above in _around(name))])
            raise ConfigError(f"unknown config key {key}", hint=did_you_mean(key, known))
        return Explanation(
            {name: self.resolved[name] for name in chosen},
            {name: self.origins[name] for name in chosen if name in self.origins},
            None if self.unread is None else tuple(name for name in self.unread if name in chosen),
        )

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Plain data: `value` (or `unknown`: why there is none) and `origins` of each key, and, if known, `read`."""
        return {
            key: {**_told(value), "origins": _plain(self[key]), **self._read(key)}
            for key, value in self.resolved.items()
        }

    def _read(self, key: str) -> dict[str, bool]:
        return {} if self.unread is None else {"read": key not in self.unread}

    def table(self, **options: Any) -> Table:
        """To be printed by rich, or as HTML; options are those of `runctx.display.tables.origins`."""
        from ..display.tables import Value, origins

        said = [
            Value(key, None, self[key], value.why)
            if isinstance(value, Unknown)
            else Value(key, value, self[key])
            for key, value in self.resolved.items()
        ]
        return origins(said, unread=self.unread or (), **options)

    def __rich__(self) -> Table:
        return self.table()

    def __repr__(self) -> str:
        from ..display.words import as_text

        return as_text(self.__rich__())

    def _repr_html_(self) -> str:
        return self.table().html()


def of_lock(lock: Lock) -> Explanation:
    """What a lock tells; without origins, only the values."""
    resolved = dict(flat(lock.config, lock.origins))
    for key in lock.origins:
        if key not in resolved:
            resolved[key] = Unknown("not in the configuration")
    for secret in [key for key, value in resolved.items() if value == REDACTED and key not in lock.origins]:
        below = [key for key in lock.origins if key.startswith(f"{secret}.")]  # as it hides a whole mapping
        resolved.update(dict.fromkeys(below, REDACTED))
        if below:
            del resolved[secret]
    return Explanation(resolved, lock.origins, _unread(resolved, lock.keys_read))


def _unread(keys: Iterable[str], read: tuple[str, ...]) -> tuple[str, ...] | None:
    """A key counts as read with any around it or below it; nothing is known where not one was noted."""
    if not read:
        return None
    noted = {*read}
    with_below = noted.union(*map(_around, read))
    return tuple(key for key in keys if key not in with_below and noted.isdisjoint(_around(key)))


def _told(value: Any) -> dict[str, Any]:
    return {"unknown": value.why} if isinstance(value, Unknown) else {"value": value}


def _plain(origins: tuple[Origin, ...]) -> list[dict[str, Any]]:
    return [
        {
            "layer": origin.layer,
            "where": origin.where,
            "value": origin.value,
            **({"reads": list(origin.reads)} if origin.reads else {}),
        }
        for origin in origins
    ]


def _around(key: str) -> Iterator[str]:
    while "." in key:
        key = key.rpartition(".")[0]
        yield key
