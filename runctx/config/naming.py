"""Names of combinations: readable, the same everywhere, and safe as the name of a file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from enum import Enum
from pathlib import PurePath
from typing import Any

from blake3 import blake3

from ..errors import ConfigError
from .messages import short
from .text import written

_LONGEST_VALUE = 32
_LONGEST = 160
"""Bytes: a file system takes 255, and something may be put before or behind."""
_DIGITS = 10
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
    text = plain if isinstance(plain, str) else written(plain)
    return _shortened(text, f"{type(plain).__name__} {written(plain)}", 20)


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
    digest = blake3(whole.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGITS]
    return f"{words or 'value'}~{digest}"
