"""Write a configuration as lines that can be compared, read them back, and digest its values."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf

from .. import settings
from ..errors import ConfigError
from ..redact import Redactor
from ..told import Told
from .layers import Path, dotted
from .messages import cut, short
from .opening import config_of
from .resolved import from_plain, to_plain
from .values import Word, split_keys

SAVE_DIR = "save_dir"
"""The top-level key that differs between runs which are otherwise the same."""


def to_text(what: Any, *, redact: bool = True) -> str:
    """One line `key = value` for each value, sorted: what `diff` and a pull request can show.

    Keys are dotted, and quoted where they are not simple words. Values are resolved, and written in JSON on one
    line; paths and enums are strings, as in the lock. `NaN` and `Infinity` are written as Python's `json` does,
    bytes as `{"$bytes": "<hex>"}`, and a mapping in a list whose keys are not all strings, or look like that,
    as `{"$items": [[key, value], ...]}`. An empty mapping is a value.

    Parameters
    ----------
    what: a configuration, a dataclass or an instance of one, a dict, or a run, live or past.
    redact: write `<redacted>` for secrets, as a run does. Without it, `from_text` gives all values back.

    Raises
    ------
    ConfigError: it cannot be held or resolved; names the key.

    >>> print(to_text({"opt": {"lr": 0.1, "betas": [0.9, 0.99]}, "name": "a", "twice": "${name}${name}"}), end="")
    name = "a"
    opt.betas = [0.9, 0.99]
    opt.lr = 0.1
    twice = "aa"
    """
    plain = to_plain(config_of(what))
    return _text(Redactor(settings.load().redact).mapping(plain) if redact else plain)


def from_text(text: str) -> DictConfig:
    """The configuration that `to_text` has written.

    Empty lines and lines that start with `#` say nothing.

    Raises
    ------
    ConfigError: a line that `to_text` does not write, or a key that two lines give; names the line.

    >>> from_text('opt.lr = 0.1\\nname = "a"')
    {'opt': {'lr': 0.1}, 'name': 'a'}
    """
    values: dict[Any, Any] = {}
    ends: set[int] = set()  # ids of the mappings that are values: no key lies below one
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            path, value = _read_line(line)
            _put(values, path, value, ends)
        except _WrongError as error:
            raise ConfigError(f"line {number}: {error}: {cut(line)}", hint=_HINT) from error
    config = from_plain(values)
    OmegaConf.set_readonly(config, None)
    return config


def value_digest(config: Any) -> str:
    """`blake3:hex` of keys and values, the top-level `save_dir` aside: equal for the same configuration.

    Parameters
    ----------
    config: as for `to_text`; but a dict is taken as it stands: resolved values, as a lock holds them. Of a run,
        what its lock says.

    Raises
    ------
    ConfigError: it cannot be held or resolved.

    >>> value_digest({"lr": 0.1, "save_dir": "a"}) == value_digest({"lr": 0.1, "save_dir": "b"})
    True
    """
    if isinstance(config, Told) and config.lock.config_digest:
        return config.lock.config_digest  # of values without the secrets, which no lock holds
    plain = config if type(config) is dict else to_plain(config_of(config))
    return digest_of(_text({key: value for key, value in plain.items() if key != SAVE_DIR}))


def digest_of(text: str) -> str:
    from blake3 import blake3

    return "blake3:" + blake3(text.encode()).hexdigest()


# -- writing -----------------------------------------------------------------------------------------------


def _text(plain: dict[Any, Any]) -> str:
    return "".join(sorted(f"{line}\n" for line in _lines(plain, ())))


def _lines(values: dict[Any, Any], above: Path) -> Iterator[str]:
    for key, value in values.items():
        path = (*above, key)
        if isinstance(value, dict) and value:
            yield from _lines(value, path)
        else:
            yield escaped(f"{dotted(path)} = {written(value)}")


# what is no character, moves the cursor, or turns the direction of a line: all of it stands inside quotes
_UNSEEN = re.compile("[\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


def escaped(line: str) -> str:
    return (
        line if line.isascii() and "\x7f" not in line else _UNSEEN.sub(lambda m: f"\\u{ord(m[0]):04x}", line)
    )


_encode = json.JSONEncoder(ensure_ascii=False).encode


def written(value: Any) -> str:
    """One value in JSON, on one line; `_decoder` reads it."""
    try:
        return _encode(_as_json(value))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{type(value).__name__} {short(value)} cannot be written: {error}") from error


def _as_json(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"$bytes": value.hex()}
    if isinstance(value, (list, tuple)):
        return [_as_json(item) for item in value]
    if isinstance(value, dict):
        if all(isinstance(key, str) and not key.startswith("$") for key in value):
            return {key: _as_json(value[key]) for key in sorted(value)}
        pairs = [[_as_json(key), _as_json(item)] for key, item in value.items()]
        return {"$items": sorted(pairs, key=lambda pair: _encode(pair[0]))}
    return value


# -- reading -----------------------------------------------------------------------------------------------

_HINT = 'a line is `key = value`, the value in JSON: `opt.name = "adam"`'


class _WrongError(ValueError):
    """With a line; the message says what."""


# JSON takes two escaped surrogates in a row for one character; in a Python string they are two
_SURROGATE = re.compile(r"(?<!\\)((?:\\\\)*)\\u(d[89a-f][0-9a-f]{2})", re.IGNORECASE)


def _read_line(line: str) -> tuple[Path, Any]:
    line = _SURROGATE.sub(lambda m: m[1] + chr(int(m[2], 16)), line)
    keys, end = split_keys(line)
    rest = line[end:].lstrip(" \t")
    if not keys or not rest.startswith("="):
        raise _WrongError("no key, or no ' = ' after it")
    path = tuple(key.value if isinstance(key, Word) else key for key in keys)
    try:
        value = _decoder.decode(rest[1:].strip(" \t"))
    except RecursionError as error:
        raise _WrongError("nested too deep") from error
    except _WrongError:
        raise
    except ValueError as error:
        raise _WrongError(f"the value is no JSON ({error})") from error
    return path, value


def _object(pairs: list[tuple[str, Any]]) -> Any:
    match pairs:
        case [("$bytes", str(text))]:
            return bytes.fromhex(text)
        case [("$items", list(items))] if all(isinstance(item, list) and len(item) == 2 for item in items):
            if any(isinstance(key, (list, dict)) for key, _ in items):
                raise _WrongError("a key of $items is no single value")
            return dict(items)
    values = dict(pairs)
    if len(values) < len(pairs):
        raise _WrongError("a key stands twice in one mapping")
    return values


_decoder = json.JSONDecoder(object_pairs_hook=_object)


def _put(values: dict[Any, Any], path: Path, value: Any, ends: set[int]) -> None:
    here: Any = values
    for key in path[:-1]:
        here = here.setdefault(key, {})
        if not isinstance(here, dict) or id(here) in ends:
            raise _WrongError("a key above it has a value of its own")
    if path[-1] in here:
        raise _WrongError("an earlier line gives this key, or one below it")
    here[path[-1]] = value
    if isinstance(value, dict):
        ends.add(id(value))
