"""Who set each value of a configuration, and what did it beat? The answer: to be asked, printed, shown.

It needs no OmegaConf, so that `runctx show RUN --explain` answers from a lock alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import ConfigError
from ..model import Lock, Origin
from ..redact import REDACTED
from .layers import dotted
from .nearest import did_you_mean


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
            raise ConfigError(f"the configuration has no key {key}", hint=did_you_mean(key, _prefixes(self)))
        return Explanation(
            {name: self.resolved[name] for name in chosen},
            {name: self.origins[name] for name in chosen if name in self.origins},
        )

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Plain data: `value` (or `unknown`: why there is none) and `origins` of each key."""
        return {key: {**_told(value), "origins": _plain(self[key])} for key, value in self.resolved.items()}

    def __rich__(self) -> Any:
        from ..display import origins

        return origins.Table(self)

    def __repr__(self) -> str:
        from ..display import terminal

        return terminal.as_text(self.__rich__())

    def _repr_html_(self) -> str:
        from ..display import origins

        return origins.html(self)


def of_lock(lock: Lock) -> Explanation:
    """What a lock tells; without origins, only the values."""
    resolved = dict(_values(lock.config, (), lock.origins))
    for key in lock.origins:
        if key not in resolved:
            resolved[key] = Unknown("not in the configuration")
    for secret in [key for key, value in resolved.items() if value == REDACTED and key not in lock.origins]:
        below = [key for key in lock.origins if key.startswith(f"{secret}.")]  # as it hides a whole mapping
        resolved.update(dict.fromkeys(below, REDACTED))
        if below:
            del resolved[secret]
    return Explanation(resolved, lock.origins)


def _values(
    config: Mapping[Any, Any], path: tuple[Any, ...], leaves: Mapping[str, Any]
) -> Iterator[tuple[str, Any]]:
    for name, value in config.items():
        key = dotted((*path, name))
        if isinstance(value, dict) and value and key not in leaves:
            yield from _values(value, (*path, name), leaves)
        else:
            yield key, value


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


def _prefixes(keys: Mapping[str, Any]) -> list[str]:
    """Every key, and every mapping around one."""
    found = dict.fromkeys(keys)
    for key in keys:
        while "." in key:
            key = key.rpartition(".")[0]
            found[key] = None
    return list(found)
