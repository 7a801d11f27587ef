"""Which logging function is it: has it, or anything of the project's that it calls, changed since it was called?

What counts is the code as Python runs it, so that neither comments nor docstrings do, and the values it has at hand:
defaults, closures, constants of its modules. What is installed counts by its name.
"""

from __future__ import annotations

import dis
import functools
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from blake3 import blake3

from .. import distributions
from ..errors import TrackingError
from ..tasks.values import content


def digest(function: Callable[..., Any]) -> str:
    """Of what the function does: equal in every process, on the same version of Python.

    Followed are the functions, classes and modules of the project that its code names, however far; where it imports
    some of them itself, they are imported. A value that cannot be pickled counts by its class.

    >>> def log(run): return run.id
    >>> def same(run):
    ...     "As text."
    ...     return run.id  # of the run
    >>> digest(log) == digest(same)
    True
    """
    walk = _Walk()
    walk.value(function)
    return f"blake3:{walk.hasher.hexdigest(length=16)}"


class _Walk:
    """One way through the code, in an order that the code alone decides."""

    def __init__(self) -> None:
        self.hasher = blake3()
        self._visits: dict[int, int] = {}
        self._kept: list[Any] = []  # an id is only good as long as its object lives

    def value(self, value: Any) -> None:
        """Whatever the code has at hand."""
        if isinstance(value, (FunctionType, type, ModuleType)) and _is_project(value):
            self._of_the_project(value)
        elif isinstance(value, (FunctionType, BuiltinFunctionType, type, ModuleType)):
            self._say("installed", getattr(value, "__module__", None), value.__name__)
            self._values([getattr(value, "__wrapped__", None)])
        elif isinstance(value, MethodType):
            self._say("method")
            self._values([value.__func__, value.__self__])
        elif isinstance(value, functools.partial):
            self._say("partial")
            self._values([value.func, value.args, value.keywords])
        elif isinstance(value, functools._lru_cache_wrapper):
            self._say("cached")
            self.value(value.__wrapped__)
        else:
            self._plain(value)

    def _say(self, *parts: Any) -> None:
        self.hasher.update(content.canonical(list(parts)))

    def _values(self, values: Iterable[Any]) -> None:
        for value in values:
            self.value(value)

    def _of_the_project(self, value: Any) -> None:
        if (visit := self._visits.get(id(value))) is not None:
            self._say("again", visit)
            return
        self._visits[id(value)] = len(self._visits)
        self._kept.append(value)
        if isinstance(value, FunctionType):
            self._function(value)
        elif isinstance(value, type):
            self._class(value)
        else:
            self._module(value)

    def _plain(self, value: Any) -> None:
        """By what it holds, and by the code of what it directly holds or is an instance of."""
        try:
            told = content.digest(value)
        except Exception:  # whatever pickling it raises: an open file, a run, a model on a device
            told = ""
        self._say("value", told, type(value).__name__)
        parts = value.values() if isinstance(value, Mapping) else value
        if isinstance(value, (list, tuple, Mapping)):
            self._values(part for part in parts if isinstance(part, (FunctionType, type, functools.partial)))
        elif _is_project(type(value)):
            self.value(type(value))

    def _module(self, module: ModuleType) -> None:
        """All of it: nobody can say what is used."""
        self._say("module")
        for name, value in sorted(vars(module).items()):
            if not name.startswith("__") and isinstance(value, _TOLD_OF_A_MODULE):
                self._say(name)
                self.value(value)

    def _class(self, value: type) -> None:
        self._say("class")
        self._values(value.__bases__)
        for name, part in sorted(vars(value).items()):
            if name not in _OF_EVERY_CLASS:
                self._say(name)
                self._values(_behind(part))

    def _function(self, value: FunctionType) -> None:
        self._say("function")
        self._code(value.__code__, value.__globals__)
        self._values([value.__defaults__, value.__kwdefaults__])
        for cell in value.__closure__ or ():
            self.value(cell.cell_contents if _is_filled(cell) else None)

    def _code(self, code: CodeType, names: Mapping[str, Any]) -> None:
        counts = code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount
        self._say("code", counts, code.co_flags & ~_HAS_DOCSTRING, code.co_exceptiontable)
        steps = list(_steps(code))
        places = {step.offset: place for place, step in enumerate(steps)}
        for step in steps:
            told = places.get(step.argval, -1) if step.opcode in _JUMPS else step.argval
            self._say(step.opname)
            if isinstance(told, CodeType):
                self._code(told, names)
            else:
                self._plain(told)
        self._values(_named(steps, names))


_HAS_DOCSTRING = 0x4000000  # of Python 3.14
_JUMPS = frozenset((*dis.hasjrel, *dis.hasjabs))
_TOLD_OF_A_MODULE = (FunctionType, type, str, bytes, int, float, bool, tuple, list, dict, functools.partial)
_OF_EVERY_CLASS = frozenset(
    ("__module__", "__doc__", "__dict__", "__weakref__", "__firstlineno__", "__static_attributes__")
)
_ABOUT_TEXT = frozenset(("__doc__", "__firstlineno__", "__static_attributes__"))
"""Names that the body of a class gives to where and how it is written, the last one in no order."""


def _steps(code: CodeType) -> Iterator[dis.Instruction]:
    """The instructions, but for those that only tell of the text; constants stand where they are used."""
    held = None
    for step in dis.get_instructions(code):
        if held is not None and not (step.opname == "STORE_NAME" and step.argval in _ABOUT_TEXT):
            yield held
        about_text = step.opname == "STORE_NAME" and step.argval in _ABOUT_TEXT
        held = None if about_text else step
    if held is not None:
        yield held


_MISSING = object()
_LOADS = frozenset(("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"))
_ATTRIBUTES = frozenset(("LOAD_ATTR", "LOAD_METHOD"))
_OF_THE_PLACE = frozenset(("__name__", "__file__", "__spec__", "__package__", "__loader__"))
"""Differ between a script and the same file as a module, or between two clones."""


def _named(steps: Sequence[dis.Instruction], names: Mapping[str, Any]) -> Iterator[Any]:
    """What the code gets at by the names of its module, or imports itself; of a module, what it takes from there."""
    held: Any = _MISSING
    for place, step in enumerate(steps):
        if step.opname in _ATTRIBUTES and isinstance(held, ModuleType) and _is_project(held):
            held = getattr(held, step.argval, _MISSING)
            continue
        if held is not _MISSING:
            yield held
        loads = step.opname in _LOADS and step.argval not in _OF_THE_PLACE
        held = names.get(step.argval, _MISSING) if loads else _MISSING
        if step.opname == "IMPORT_NAME":
            level, wanted = (steps[place - back].argval for back in (2, 1))
            yield from _imported("." * level + step.argval, wanted or (), names.get("__package__"))
    if held is not _MISSING:
        yield held


def _imported(name: str, wanted: Sequence[str], package: str | None) -> Iterator[Any]:
    """What the code imports when it is called, if it is the project's: all of a module, or some of its names."""
    try:
        module = _of_project(importlib.util.resolve_name(name, package))
        if module is None:
            return
        for part in wanted:
            found = getattr(module, part, _MISSING)
            yield importlib.import_module(f"{module.__name__}.{part}") if found is _MISSING else found
        if not wanted:
            yield module
    except Exception:  # whatever its import raises: the function will say so, if it ever comes to that line
        return


def _of_project(name: str) -> ModuleType | None:
    spec = importlib.util.find_spec(name.partition(".")[0])
    places = [] if spec is None else [spec.origin, *(spec.submodule_search_locations or ())]
    files = [place for place in places if place is not None and os.path.isabs(place)]
    if not files or any(map(distributions.is_installed, files)) or files[0].startswith(_OURSELVES):
        return None
    return importlib.import_module(name)


_OURSELVES = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "")


def _is_project(value: FunctionType | type | ModuleType) -> bool:
    """Whether it is neither Python's, nor installed, nor ours."""
    name = value.__name__ if isinstance(value, ModuleType) else value.__module__ or ""
    file = value.__code__.co_filename if isinstance(value, FunctionType) else distributions.module_file(name)
    if file is None:
        return name in ("__main__", "__mp_main__")  # of a notebook
    return not file.startswith((_OURSELVES, "<frozen")) and not distributions.is_installed(file)


def _is_filled(cell: CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:  # a variable that is not set yet
        return False
    return True


def _behind(attribute: Any) -> tuple[Any, ...]:
    """The functions that an attribute of a class is made of."""
    if isinstance(attribute, (staticmethod, classmethod)):
        return (attribute.__func__,)
    if isinstance(attribute, property):
        return attribute.fget, attribute.fset, attribute.fdel
    return (attribute.func,) if isinstance(attribute, functools.cached_property) else (attribute,)


# -- by name -----------------------------------------------------------------------------------------------


def load(named: str) -> Callable[[Any], Any]:
    """The function that is called so: `module:function`, or `path/to/file.py:function`.

    Modules are found as in a script of the current folder; what they do when they are imported is done.

    Raises
    ------
    TrackingError: it cannot be imported, or there is none of that name; says what there is.
    """
    place, _, name = named.rpartition(":")
    if not place or not name:
        raise TrackingError(
            f"{named!r} does not name a function",
            hint="write module:function, for example train:log_run, or file:function, for example src/train.py:log_run",
        )
    found: Any = _module_at(place)
    for part in name.split("."):
        if not hasattr(found, part):
            raise TrackingError(f"no function {name!r} in {place}", hint=_there_is(found, part))
        found = getattr(found, part)
    if not callable(found):
        raise TrackingError(f"{named} must be a function; got {type(found).__name__}")
    function: Callable[[Any], Any] = found
    return function


def _module_at(place: str) -> ModuleType:
    is_file = place.endswith(".py") or os.sep in place
    file = os.path.abspath(place)
    if is_file and not os.path.isfile(file):
        raise TrackingError(f"no such file: {file}", hint="write module:function, or file:function")
    folder = os.path.dirname(file) if is_file else os.getcwd()
    if folder not in sys.path:
        sys.path.insert(0, folder)
    name = os.path.basename(file).removesuffix(".py") if is_file else place
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name not in (name, name.partition(".")[0]):
            raise _not_imported(place, error) from error
        hint = "modules are looked up in the current folder; a path to a file works too"
        raise TrackingError(f"no module {place!r} in {os.getcwd()}", hint=hint) from error
    except (Exception, SystemExit) as error:
        raise _not_imported(place, error) from error
    if is_file and os.path.realpath(distributions.module_file(name) or "") != os.path.realpath(file):
        raise TrackingError(
            f"{file} cannot be imported: another module is called {name}, {distributions.module_file(name)}",
            hint="rename the file, or give a module: module:function",
        )
    return module


def _not_imported(place: str, error: BaseException) -> TrackingError:
    text = f"{place} cannot be imported: {type(error).__name__}: {error}"
    return TrackingError(text, hint='put what the script does below `if __name__ == "__main__":`')


def _there_is(holder: Any, name: str) -> str | None:
    import difflib

    functions = [one for one, value in vars(holder).items() if callable(value) and not one.startswith("_")]
    near = difflib.get_close_matches(name, functions, n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"there are: {', '.join(functions[:10])}" if functions else None
