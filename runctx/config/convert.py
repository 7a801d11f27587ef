"""Write what a configuration file says, with all that it builds upon, in another format."""

from __future__ import annotations

import json
import keyword
from collections.abc import Mapping
from enum import Enum
from pathlib import PurePath
from typing import Any

import tomli_w

from .. import yamlfile
from .derived import Derived
from .formats import MARKERS, copied, key_fault, python_value, unknown_suffix
from .inherit import load_tree
from .interpolations import escaped
from .layers import Path as Keys
from .layers import plain
from .resolve import open_config, to_plain


def converted(source: str, suffix: str, *, resolve: bool = False) -> bytes:
    """The text of one file that says what `source` and its bases say.

    Parameters
    ----------
    source: a configuration file; `file#key.path` selects a mapping in it.
    suffix: of the format, such as .toml.
    resolve: write what interpolations and derived values give, and not how they are computed.

    Raises
    ------
    ConfigError: the source cannot be read or resolved, or the format cannot hold it; the message names the key.

    >>> from pathlib import Path
    >>> _ = Path("low.yaml").write_text("lr: 0.1\\nhalf: ${mul:${lr},0.5}\\n")
    >>> _ = Path("high.py").write_text("_base_ = 'low.yaml'\\nlr = 0.2\\n")
    >>> print(converted("high.py", ".toml").decode().strip())
    lr = 0.2
    half = "${mul:${lr},0.5}"
    >>> print(converted("high.py", ".toml", resolve=True).decode().strip())
    lr = 0.2
    half = 0.1
    """
    if not resolve:
        return encode(plain(load_tree(source)), suffix)
    return encode(escaped(to_plain(open_config(source))), suffix)


def encode(values: Mapping[Any, Any], suffix: str) -> bytes:
    """The text of a configuration file with these values, which `load.read` gives back.

    Values stay as they were written: `${lr}` is an interpolation in the file too. What no format has becomes
    what every format has: a path its text, an enum its name, a tuple a list.

    Parameters
    ----------
    values: nested mappings, lists and scalars.
    suffix: .yaml, .yml, .json, .toml or .py.

    Raises
    ------
    ConfigError: a value or key that the format cannot hold; the message names the key.

    >>> encode({"lr": 0.1, "opt": {"name": "sgd"}}, ".toml").decode().splitlines()
    ['lr = 0.1', '', '[opt]', 'name = "sgd"']
    """
    suffix = suffix.lower()

    def scalar(value: Any, keys: Keys, is_key: bool) -> Any:
        value = _file_value(python_value(value, keys, is_key), keys)
        if suffix in (".json", ".toml") and (why := _refusal(value, is_key, suffix[1:].upper())):
            raise key_fault(keys, why)
        return value

    values = copied(values, scalar)
    match suffix:
        case ".yaml" | ".yml":
            return yamlfile.dump(values) if values else b""
        case ".json":
            return (json.dumps(values, indent=2, ensure_ascii=False) + "\n").encode()
        case ".toml":
            return tomli_w.dumps(values).encode()
        case ".py":
            return _python(values).encode()
    raise unknown_suffix(suffix)


def _file_value(value: Any, keys: Keys) -> Any:
    """The value in a type that files have: str, bytes, bool, int, float or None."""
    if isinstance(value, Derived):
        raise key_fault(
            keys,
            "a derived value is a function and cannot be written to a file",
            "write an interpolation such as ${mul:${batch_size},0.01}, or the values by `config convert --resolve`",
        )
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, PurePath):
        value = str(value)
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise key_fault(keys, f"{value!r} is not valid Unicode") from error
    kinds: tuple[type[Any], ...] = (bool, int, float, str, bytes)
    return next(
        (kind(value) for kind in kinds if isinstance(value, kind)), value
    )  # no subclass, e.g. numpy's


def _refusal(value: Any, is_key: bool, name: str) -> str | None:
    """Why JSON or TOML cannot hold a key or value; None if it can."""
    if is_key and not isinstance(value, str):
        return f"a key in {name} must be a str; got {value!r}"
    if value is None and name == "TOML":
        return "TOML has no null"
    return f"{name} cannot hold bytes" if isinstance(value, bytes) else None


# -- Python ------------------------------------------------------------------------------------------------------

_NAMES = "_names"
"""`_names["a-b"] = 1` sets what Python cannot write as a name, in a file that begins with `_names = globals()`."""

_WIDTH = 100


def _python(values: Mapping[Any, Any]) -> str:
    text = "".join(f"{_target(key)} = {_literal(value)}\n" for key, value in values.items())
    if any(not _is_name(key) for key in values):
        text = f"{_NAMES} = globals()\n" + text
    for name in ("nan", "inf"):  # in the file before what needs it; a name that begins with _ is no key
        if f"_{name}" in text:
            text = f'_{name} = float("{name}")\n' + text
    return text


def _is_name(key: str) -> bool:
    return key.isidentifier() and not keyword.iskeyword(key) and ascii(key) == repr(key)


def _target(key: Any) -> str:
    if not isinstance(key, str) or (key.startswith("_") and key not in MARKERS):
        hint = "keys there must be str and must not begin with _"
        raise key_fault((key,), "a Python file cannot hold it at its top", hint)
    return key if _is_name(key) else f"{_NAMES}[{key!r}]"


def _literal(value: Any, indent: str = "") -> str:
    """Python text of a value; on several lines where it is long."""
    if isinstance(value, float) and value - value != 0:  # it has no literal
        return "_nan" if value != value else "-_inf" if value < 0 else "_inf"
    if not isinstance(value, (dict, list, tuple)):
        return repr(value)
    inner = indent + "    "
    if isinstance(value, dict):
        items, (start, end) = [f"{_literal(k)}: {_literal(v, inner)}" for k, v in value.items()], "{}"
    else:
        items, (start, end) = [_literal(item, inner) for item in value], "[]"
    line = f"{start}{', '.join(items)}{end}"
    if len(indent) + len(line) <= _WIDTH and "\n" not in line:
        return line
    return f"{start}\n" + "".join(f"{inner}{item},\n" for item in items) + f"{indent}{end}"
