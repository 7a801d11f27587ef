"""Read one configuration file: YAML, JSON, TOML or Python, told apart by suffix.

YAML, JSON and TOML are only parsed: nothing in them is executed, and size, depth and aliases are bounded.
**A Python configuration is code: reading it executes it**, in a namespace that nothing else sees: it becomes no
module, its folder is not searched for imports, and nothing is written beside it.
"""

from __future__ import annotations

import ast
import difflib
import json
import os
import stat
import tomllib
import traceback
import types
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

from ...errors import ConfigError
from ..files.values import MARKERS, TOO_DEEP, Document, copied, fault, python_value, text_of
from ..files.yaml import parse as parse_yaml
from ..layers import Path as Keys

MAX_BYTES = 5_000_000


def read(path: str | os.PathLike[str]) -> Document:
    """The values in a configuration file.

    Parameters
    ----------
    path: a file that ends in .yaml, .yml, .json, .toml or .py; at most 5 MB.

    Raises
    ------
    ConfigError: no such file, not readable, broken, or nested more than 100 deep; the message names the file, and
        the line where the format tells it.

    >>> _ = Path("c.yaml").write_text("lr: 1e-3\\nopt:\\n  name: sgd\\n")
    >>> read("c.yaml").values
    {'lr': 0.001, 'opt': {'name': 'sgd'}}
    >>> read("c.yaml").lines
    {('lr',): 1, ('opt',): 2, ('opt', 'name'): 3}
    """
    path = Path(path)
    parse = _PARSERS.get(path.suffix.lower())
    if parse is None:
        raise unknown_suffix(str(path))
    return parse(read_bytes(path), path)


def unknown_suffix(name: str) -> ConfigError:
    """The error that a name does not end as that of a configuration file."""
    return ConfigError(
        f"{name}: not the name of a configuration file", hint=f"it ends in one of {', '.join(SUFFIXES)}"
    )


def read_bytes(path: Path) -> bytes:
    """The content of a regular file.

    Raises
    ------
    ConfigError: missing, not readable, no regular file, or larger than 5 MB.
    """
    try:
        mode = os.stat(path).st_mode
        data = b""
        if stat.S_ISREG(mode):  # asked before it is opened: a pipe would wait for its writer
            with open(path, "rb") as file:
                data = file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise _missing(path) from error
    except (OSError, ValueError) as error:  # the latter for a name that no file can have, e.g. "a\0b"
        raise fault(path, None, f"cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if not stat.S_ISREG(mode):
        raise fault(path, None, "is a folder" if stat.S_ISDIR(mode) else "is not a regular file")
    if len(data) > MAX_BYTES:
        raise fault(path, None, f"larger than the {MAX_BYTES // 1_000_000} MB that are read")
    return data


def _missing(path: Path) -> ConfigError:
    folder = path.parent.absolute()
    if not folder.is_dir():
        return ConfigError(f"configuration file {path} does not exist: no folder {folder}")
    names = os.listdir(folder) if os.access(folder, os.R_OK) else []
    near = difflib.get_close_matches(path.name, names, n=1)
    hint = f"did you mean {path.with_name(near[0])}?" if near else None
    return ConfigError(f"configuration file {path} does not exist (looked in {folder})", hint)


# -- JSON and TOML -----------------------------------------------------------------------------------------------


def _json(data: bytes, path: Path) -> Document:
    text = text_of(data, path)
    try:
        values = json.loads(text, object_pairs_hook=_each_key_once) if text.strip() else {}
    except RecursionError as error:
        raise fault(path, None, TOO_DEEP) from error
    except ValueError as error:
        raise fault(path, None, str(error)) from error
    if not isinstance(values, dict):
        what = f"the top level must be an object; got {type(values).__name__}"
        raise fault(path, None, what, 'write {"key": value}')
    return _bounded(values, path)


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping: dict[str, Any] = {}
    for key, value in pairs:
        if key in mapping:
            raise ValueError(f"key {key!r:.80} is given twice")
        mapping[key] = value
    return mapping


def _toml(data: bytes, path: Path) -> Document:
    text = text_of(data, path)
    try:
        values = tomllib.loads(text)
    except RecursionError as error:
        raise fault(path, None, TOO_DEEP) from error
    except ValueError as error:
        raise fault(path, None, str(error)) from error
    return _bounded(values, path)


def _bounded(values: dict[Any, Any], path: Path) -> Document:
    try:
        return Document(copied(values, _without_dates), {})
    except ConfigError as error:
        raise fault(path, None, error.message, error.hint) from error


def _without_dates(value: Any, keys: Keys, is_key: bool) -> Any:
    # a configuration has no dates: they are text, as ISO 8601 writes them
    return value.isoformat() if isinstance(value, (date, datetime, time)) else value


# -- Python ------------------------------------------------------------------------------------------------------

_NO_VALUES = (type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType)


def _python(data: bytes, path: Path) -> Document:
    """Execute `data`; its keys are the names it leaves that do not begin with `_`.

    Modules, classes and functions are no keys, and imported names only if they are values.
    """
    file = os.path.abspath(path)
    namespace: dict[str, Any] = {"__name__": "__config__", "__file__": file}
    try:
        module = ast.parse(data, file)
        exec(compile(module, file, "exec", dont_inherit=True), namespace)  # noqa: S102 - it is code
    except (Exception, SystemExit) as error:
        raise _failure(error, file, path) from error
    imports = [node for node in ast.walk(module) if isinstance(node, (ast.Import, ast.ImportFrom))]
    imported = {alias.asname or alias.name for node in imports for alias in node.names}
    values: dict[Any, Any] = {}
    for name, value in namespace.items():
        if (str(name).startswith("_") and name not in MARKERS) or isinstance(value, _NO_VALUES):
            continue
        try:
            values |= copied({name: value}, python_value)
        except ConfigError as error:
            if name not in imported:
                hint = "; ".join(filter(None, (error.hint, "a name that begins with _ is no key")))
                raise fault(path, None, error.message, hint) from None
    return Document(values, {})


def _failure(error: BaseException, file: str, path: Path) -> ConfigError:
    """The error that a Python configuration raised, with the line in the file where that is known."""
    if isinstance(error, SyntaxError) and error.filename == file:
        return fault(path, error.lineno, f"cannot be parsed as Python: {error.msg}")
    frames = traceback.walk_tb(error.__traceback__)
    lines = [line for frame, line in frames if frame.f_code.co_filename == file]
    first = str(error).split("\n", 1)[0]
    what = f"{type(error).__name__}: {first}" if first else type(error).__name__
    return fault(path, lines[-1] if lines else None, what, getattr(error, "hint", None))


_PARSERS = {".yaml": parse_yaml, ".yml": parse_yaml, ".json": _json, ".toml": _toml, ".py": _python}

SUFFIXES = tuple(_PARSERS)
"""The endings of configuration files."""
