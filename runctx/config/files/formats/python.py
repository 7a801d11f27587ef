"""How is a configuration read from and written to Python?

**A Python configuration is code: reading it executes it.** It runs as a file of its own does, in a namespace that
nothing else sees: it becomes no module, its folder is not searched for imports, nothing is written beside it.
"""

from __future__ import annotations

import ast
import keyword
import os
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ....errors import ConfigError
from .document import Document, fault, lines_within, too_deep
from .pythonlines import NAMES, Lines, imported_names, key_lines
from .values import Unfit, held, written

_MARKERS = frozenset({"_base_", "_delete_", "_replace_"})
_NO_VALUES = (type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType)


def parse(data: bytes, path: Path) -> Document:
    """Execute `data`; its keys are the names it leaves that do not begin with `_`.

    Modules, classes and functions are no keys, and imported names only if they are values.
    """
    module, lines = _syntax(data, path)
    imported = imported_names(module)
    namespace = _executed(module, path)
    values: dict[Any, Any] = {}
    for name, value in namespace.items():
        if (str(name).startswith("_") and name not in _MARKERS) or isinstance(value, _NO_VALUES):
            continue
        try:
            values.update(held({name: value}))
        except Unfit as unfit:
            if name not in imported:
                raise _unfit(unfit, name, lines, path) from None
    return Document(values, lines_within(values, lines))


def _syntax(data: bytes, path: Path) -> tuple[ast.Module, Lines]:
    try:
        module = ast.parse(data, str(path))
        return module, key_lines(module)
    except SyntaxError as error:
        raise fault(path, error.lineno, f"cannot be parsed as Python: {error.msg}") from error
    except (RecursionError, MemoryError) as error:  # the latter is how older parsers say it
        raise too_deep(path, None) from error
    except ValueError as error:  # e.g. a null character
        raise fault(path, None, f"cannot be parsed as Python: {error}") from error


def _executed(module: ast.Module, path: Path) -> dict[str, Any]:
    file = os.path.abspath(path)
    namespace: dict[str, Any] = {"__name__": "__config__", "__file__": file}
    try:
        exec(compile(module, file, "exec", dont_inherit=True), namespace)  # noqa: S102 - it is code
    except (Exception, SystemExit) as error:
        raise _failed(error, file, path) from error
    return namespace


def _failed(error: BaseException, file: str, path: Path) -> ConfigError:
    if isinstance(error, SyntaxError) and error.filename == file:  # found by the compiler only
        return fault(path, error.lineno, f"cannot be parsed as Python: {error.msg}")
    line, traceback = None, error.__traceback__
    while traceback:
        if traceback.tb_frame.f_code.co_filename == file:
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    said = str(error).split("\n", 1)[0]
    what = f"{type(error).__name__}: {said}" if said else type(error).__name__
    return fault(path, line, what, getattr(error, "hint", None))


def _unfit(unfit: Unfit, name: str, lines: Mapping[tuple[Any, ...], int], path: Path) -> ConfigError:
    at = unfit.path
    while at and at not in lines:
        at = at[:-1]
    key = ".".join(map(str, unfit.path)) or name
    hint = f"{unfit.hint or 'keep it small'}; a name that begins with _ is no key"
    return fault(path, lines.get(at), f"key {key}: {unfit.what}", hint)


def encode(values: Mapping[Any, Any]) -> bytes:
    plain = written(values)
    text = "".join(f"{_assigned(key)} = {_literal(value)}\n" for key, value in plain.items())
    if any(not _is_name(key) for key in plain):
        text = f"{NAMES} = globals()\n" + text
    for name in ("nan", "inf"):  # in the file before what needs it, and no key of anyone's
        if f"_{name}" in text:
            text = f'_{name} = float("{name}")\n' + text
    return text.encode()


def _is_name(key: str) -> bool:
    return key.isidentifier() and not keyword.iskeyword(key) and ascii(key) == repr(key)


def _assigned(key: Any) -> str:
    if not isinstance(key, str) or (key.startswith("_") and key not in _MARKERS):
        raise ConfigError(
            f"config key {key}: a Python file cannot hold it at its top",
            hint="keys there must be str and must not begin with _",
        )
    return key if _is_name(key) else f"{NAMES}[{key!r}]"


_WIDTH = 100


def _literal(value: Any, indent: str = "") -> str:
    """Python text of a value; on several lines where it is long."""
    if not isinstance(value, (dict, list)):
        return _scalar(value)
    inner = indent + "    "
    if isinstance(value, dict):
        items, (start, end) = [f"{_scalar(k)}: {_literal(v, inner)}" for k, v in value.items()], "{}"
    else:
        items, (start, end) = [_literal(item, inner) for item in value], "[]"
    line = f"{start}{', '.join(items)}{end}"
    if len(indent) + len(line) <= _WIDTH and "\n" not in line:
        return line
    return f"{start}\n" + "".join(f"{inner}{item},\n" for item in items) + f"{indent}{end}"


def _scalar(value: Any) -> str:
    if isinstance(value, float) and value - value != 0:  # it has no literal
        return "_nan" if value != value else "-_inf" if value < 0 else "_inf"
    return repr(value)
