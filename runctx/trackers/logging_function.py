"""Load a logging function by its name, and digest it, so that a change of it or of what it uses is seen."""

from __future__ import annotations

import ast
import builtins
import contextlib
import functools
import importlib
import importlib.util
import inspect
import os
import sys
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FunctionType, MethodType, ModuleType
from typing import Any

from blake3 import blake3

from ..capture.modules import is_installed, module_file
from ..errors import TrackingError
from ..tasks import keys

_OURSELVES = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "")
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def digest(function: Callable[..., Any]) -> str:
    """Digest of the function's source, the values that it uses, and the project's modules that it imports.

    What it uses of its own module is followed name by name; other modules of the project count as whole files, with
    what they import. Comments and docstrings do not count, nor does what is installed. A value that cannot be pickled
    counts by its class. All processes agree on the same version of Python.

    >>> def log(run): return run.id
    >>> digest(log) == digest(log)
    True
    """
    walk = _Walk()
    walk.value(function)
    return f"blake3:{walk.hasher.hexdigest(length=16)}"


class _Walk:
    """One way through code and values, in an order that the code alone decides."""

    def __init__(self) -> None:
        self.hasher = blake3()
        self._visited: dict[int, Any] = {}  # the objects too: an id is only good as long as its object lives
        self._files: set[str] = set()

    def value(self, value: Any) -> None:
        if isinstance(value, (FunctionType, type, ModuleType)):
            if not _is_project(value):
                self._say("installed", getattr(value, "__module__", None), value.__name__)
                self._values(getattr(value, "__wrapped__", None))
            elif isinstance(value, ModuleType):
                self._file(module_file(value.__name__), value.__package__)
            elif id(value) not in self._visited:
                self._visited[id(value)] = value
                self._code(value)
        elif isinstance(value, MethodType):
            self._values(value.__func__, value.__self__)
        elif isinstance(value, functools.partial):
            self._values(value.func, value.args, value.keywords)
        elif callable(value) and hasattr(value, "__wrapped__"):  # functools.lru_cache
            self._values(type(value), value.__wrapped__)
        else:
            self._content(value)
            if _is_project(type(value)):
                self.value(type(value))
            if isinstance(value, (list, tuple, Mapping)):
                parts = value.values() if isinstance(value, Mapping) else value
                self._values(*(part for part in parts if callable(part)))

    def _say(self, *parts: Any) -> None:
        self.hasher.update(repr(parts).encode("utf-8", "surrogatepass"))

    def _values(self, *values: Any) -> None:
        for value in values:
            self.value(value)

    def _content(self, value: Any) -> None:
        told = None
        with contextlib.suppress(
            Exception
        ):  # whatever pickling raises: an open file, a run, a model on a device
            told = keys.digest(value)
        self._say(type(value).__name__, told)

    def _code(self, code: FunctionType | type) -> None:
        if isinstance(code, FunctionType):
            known = code.__globals__
            self._values(code.__defaults__, code.__kwdefaults__)
            for cell in code.__closure__ or ():
                with contextlib.suppress(ValueError):  # a variable that is not set yet
                    self.value(cell.cell_contents)
        else:
            known = vars(sys.modules.get(code.__module__, builtins))
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(code)))
        except (OSError, TypeError, SyntaxError):  # typed at a prompt
            self._content(code)
            return
        if code.__name__ == "<lambda>":  # several may stand on one line
            self._content(code)
        for name in sorted(self._tree(tree, known.get("__package__")) & known.keys()):
            self._say(name)
            self.value(_whole(known[name], code.__module__))

    def _file(self, file: str | None, package: str | None) -> None:
        if file is None or file in self._files:
            return
        self._files.add(file)
        try:
            data = Path(file).read_bytes()
            self._tree(ast.parse(data), package)
        except (OSError, SyntaxError, ValueError):  # compiled, or gone
            self._say("no source")

    def _tree(self, tree: ast.Module, package: str | None) -> set[str]:
        """The text without comments and docstrings, and the project's files that it imports; the names in it."""
        names: set[str] = set()
        imported: dict[str, None] = {}
        for node in ast.walk(tree):
            if isinstance(node, _DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
                node.body = node.body[1:]
            elif isinstance(node, ast.Name):
                names.add(node.id)
            elif isinstance(node, ast.Import):
                imported |= dict.fromkeys(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = "." * node.level + (node.module or "")
                imported |= dict.fromkeys((base, *(f"{base}.{alias.name}" for alias in node.names)))
        self._say(ast.dump(tree))
        for name in imported:
            with contextlib.suppress(Exception):  # whatever the import of its package raises
                spec = importlib.util.find_spec(importlib.util.resolve_name(name, package))
                if spec is not None and _is_project_file(spec.origin):
                    self._file(spec.origin, spec.parent)
        return names


def _whole(value: Any, module: str) -> Any:
    """A function or class of another module of the project counts with all of that module."""
    other = getattr(value, "__module__", None) if isinstance(value, (FunctionType, type)) else None
    return sys.modules[other] if other != module and other in sys.modules and _is_project(value) else value


def _is_project(value: FunctionType | type | ModuleType) -> bool:
    """Whether it is neither Python's, nor installed, nor ours."""
    name = value.__name__ if isinstance(value, ModuleType) else value.__module__ or ""
    file = value.__code__.co_filename if isinstance(value, FunctionType) else module_file(name)
    return name in ("__main__", "__mp_main__") if file is None else _is_project_file(file)


def _is_project_file(file: str | None) -> bool:
    return (
        file is not None
        and not file.startswith((_OURSELVES, "<frozen", "frozen", "built-in"))
        and not is_installed(file)
    )


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
    if is_file and os.path.realpath(module_file(name) or "") != os.path.realpath(file):
        raise TrackingError(
            f"{file} cannot be imported: another module is called {name}, {module_file(name)}",
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
