"""Compare the functions in memory with the files they came from, to tell code that was edited after its import."""

from __future__ import annotations

import functools
import os
import sys
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

_Codes = dict[str, set[tuple[Any, ...]]]
"""Qualified name -> what its code objects do."""


def outdated(modules: Mapping[str, Path]) -> dict[Path, list[str]]:
    """The functions of each file whose code in memory is not that of the file, by qualified name.

    What `__main__` holds comes first: it may have taken a function from a module before the module was reloaded, or be
    the file itself, executed anew. In doubt nothing is named: of a module that an import hook has changed, of
    a function without a namesake in the file, and of what is no function, such as a constant.

    Parameters
    ----------
    modules: the project's modules by name, and their files.
    """
    changed = {name: path for name, path in modules.items() if name in sys.modules and _may_differ(path)}
    if not changed:
        return {}
    held = _codes_by_file(_names_of(sys.modules["__main__"]), modules)
    found = {}
    for name, path in changed.items():
        names, key = _names_of(sys.modules[name]), os.path.realpath(path)
        # another loader may change code on the way, as pytest's does
        is_plain = type(names.get("__loader__")) is SourceFileLoader
        own = _codes_by_file(names, modules) if is_plain else {}
        in_memory = own.get(key, {}) | held.get(key, {})
        in_file = _codes_in(path) if in_memory else {}
        if older := sorted(name for name, codes in in_memory.items() if codes - in_file.get(name, codes)):
            found[path] = older
    return found


def _may_differ(path: Path) -> bool:
    """Whether the file was touched after this process began: most were not, and compiling a file takes milliseconds."""
    try:
        status = path.stat()
    except OSError:
        return False
    return max(status.st_mtime, status.st_ctime) > _began() - _MARGIN


_IMPORTED = time.time()
_MARGIN = 60
"""Seconds that a script takes to import what it needs, and by which clocks may be off."""


@functools.cache
def _began() -> float:
    """When this process began, or was about to: a script need not wait for psutil, as a session of days must."""
    if not hasattr(sys, "ps1"):
        return _IMPORTED
    import psutil

    return float(psutil.Process().create_time())


def _names_of(module: Any) -> dict[str, Any]:
    """Its namespace, without waking a lazy module up."""
    try:
        return dict(object.__getattribute__(module, "__dict__"))
    except AttributeError:
        return {}


def _codes_by_file(names: Mapping[str, Any], modules: Collection[str]) -> dict[str, _Codes]:
    found: dict[str, _Codes] = {}
    for function in _functions(names.values(), {*modules, "__main__"}, set()):
        code = function.__code__
        codes = found.setdefault(_real(code.co_filename), {})
        codes.setdefault(code.co_qualname, set()).add(_content(code))
    return found


@functools.lru_cache(maxsize=1000)
def _real(file: str) -> str:
    return os.path.realpath(file)


def _functions(values: Iterable[Any], modules: Collection[str], seen: set[int]) -> Iterator[FunctionType]:
    """The functions among these values, and in them: methods of the modules' classes, and what a decorator wraps."""
    for value in values:
        kind = type(value)  # `isinstance` would wake lazy objects
        if kind is FunctionType:
            yield value
            inside = [vars(value).get("__wrapped__")]
        elif kind in (staticmethod, classmethod):
            inside = [value.__func__]
        elif kind is property:
            inside = [value.fget, value.fset, value.fdel]
        elif kind is functools._lru_cache_wrapper:
            inside = [value.__wrapped__]
        elif issubclass(kind, type) and vars(value).get("__module__") in modules and id(value) not in seen:
            seen.add(id(value))
            inside = list(vars(value).values())
        else:
            continue
        yield from _functions(inside, modules, seen)


def _codes_in(path: Path) -> _Codes:
    found: _Codes = {}
    try:
        whole = compile(path.read_bytes(), path, "exec", dont_inherit=True)
    except (OSError, SyntaxError, ValueError):
        return {}  # in the middle of an edit
    left = [whole]
    while left:
        code = left.pop()
        found.setdefault(code.co_qualname, set()).add(_content(code))
        left += [constant for constant in code.co_consts if type(constant) is CodeType]
    return found


def _content(code: CodeType) -> tuple[Any, ...]:
    """What a code object does, without its place in a file."""
    # the body of a class holds its place since Python 3.13
    place = code.co_firstlineno if "__firstlineno__" in code.co_names else None
    constants = tuple(_constant(one) for one in code.co_consts if type(one) is not int or one != place)
    names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    return (code.co_name, code.co_code, code.co_exceptiontable, code.co_argcount, *names, constants)


def _constant(value: Any) -> Any:
    if type(value) is CodeType:
        return _content(value)
    # text tells 1 from True and 0.0 from -0.0; a set has no order
    return value if type(value) is frozenset else repr(value)
