"""Record which project files were imported, copy those that no commit holds, and name code edited after its import."""

from __future__ import annotations

import functools
import os
import sys
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, FunctionType, MappingProxyType
from typing import Any

from .. import layout
from ..model import Omission
from ..redact import is_secret_file, tells_a_secret
from ..snapshot import Snapshot, blob_digest
from . import program

MAX_COPY = 10_000_000
"""Bytes; a larger module is not copied."""
_MOST = 5
"""Functions that an omission names."""


@dataclass(kw_only=True, slots=True)
class Found:
    """The imported project files."""

    files: dict[str, str] = field(default_factory=dict)
    """Path -> `git:hex` of its blob."""
    copied: bool = False
    omissions: list[Omission] = field(default_factory=list)

    def omit(self, what: str, why: str) -> None:
        self.omissions.append(Omission(what=what, why=why))


def collect(snapshot: Snapshot, copies: Path, elsewhere: Mapping[str, Path] = MappingProxyType({})) -> Found:
    """The blob of every imported module that belongs to the project; what the snapshot lacks is copied.

    Parameters
    ----------
    copies: folder for copies; made when the first is needed.
    elsewhere: modules that other processes of the run imported, and their files.
    """
    found = Found()
    root = snapshot.root
    imported = {**elsewhere, **program.project_modules(root)}
    older = outdated(imported)
    for name, path in imported.items():
        shown = path.relative_to(root) if root is not None and path.is_relative_to(root) else path
        shown_path = shown.as_posix().encode("utf-8", "backslashreplace").decode()
        blob = snapshot.blob(path)
        if blob is None:
            _copy(name, path, shown_path, copies, found)
            continue
        found.files[shown_path] = blob
        if snapshot.changed_since(path):
            found.omit(shown_path, "edited during the run; recorded as it was at the start")
        elif functions := older.pop(path, None):
            more = f" and {len(functions) - _MOST} more" if len(functions) > _MOST else ""
            found.omit(
                shown_path,
                f"was edited after it was loaded; in memory is older code of {', '.join(functions[:_MOST])}{more}; "
                "`importlib.reload` and importing again load the new code, or start Python (the kernel) anew",
            )
    return found


def _copy(name: str, path: Path, shown: str, copies: Path, found: Found) -> None:
    secret = is_secret_file(path.name) or tells_a_secret(path.stem)
    try:
        if path.stat().st_size > MAX_COPY:
            raise OSError(f"larger than {MAX_COPY} bytes")
        content = path.read_bytes()
        if not secret:
            # where Python would look for the module; a program keeps its file's name
            parts = [] if name == "__main__" else name.split(".")
            target = copies.joinpath(*(parts if path.stem == "__init__" else parts[:-1]), path.name)
            target.parent.mkdir(parents=True, exist_ok=True)
            layout.write_atomically(target, content)
            found.copied = True
    except OSError as error:
        found.omit(shown, f"no commit holds it and it could not be copied: {error}")
        return
    found.files[shown] = blob_digest(content)
    if secret:
        found.omit(shown, "its name says that it holds secrets: its digest is recorded, and no copy")


# -- code that was edited after it was loaded ----------------------------------------------------------------


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
    found: dict[Path, list[str]] = {}
    if not changed:
        return found
    of_main = _codes_by_file(_names_of(sys.modules["__main__"]), modules)
    for name, path in changed.items():
        names, key = _names_of(sys.modules[name]), os.path.realpath(path)
        # another loader may change code on the way, as pytest's does
        is_plain = type(names.get("__loader__")) is SourceFileLoader
        in_memory = (_codes_by_file(names, modules).get(key, {}) if is_plain else {}) | of_main.get(key, {})
        in_file = _codes_in(path) if in_memory else {}
        if older := sorted(name for name, codes in in_memory.items() if codes - in_file.get(name, codes)):
            found[path] = older
    return found


def _process_began() -> float:
    """When this process was started, in seconds since the epoch."""
    try:
        ticks = int(Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()[19])
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
        return time.time() - age
    except (OSError, AttributeError, ValueError, IndexError):
        import psutil

        return float(psutil.Process().create_time())


_BEGAN = (
    _process_began()
)  # at the import, which a forked child inherits with all the modules that were loaded before
_MARGIN = 0.02
"""Seconds by which the times of files and processes are coarse."""


def _may_differ(path: Path) -> bool:
    """Whether the file was touched after this process began: most were not, and compiling a file takes milliseconds."""
    try:
        status = path.stat()
    except OSError:
        return False
    return max(status.st_mtime, status.st_ctime) > _BEGAN - _MARGIN


def _names_of(module: Any) -> dict[str, Any]:
    """Its namespace, without waking a lazy module up."""
    try:
        return dict(object.__getattribute__(module, "__dict__"))
    except AttributeError:
        return {}


def _codes_by_file(names: Mapping[str, Any], modules: Collection[str]) -> dict[str, dict[str, set[CodeType]]]:
    """File -> qualified name -> code of the functions in a namespace, without its place."""
    found: dict[str, dict[str, set[CodeType]]] = {}
    for function in _functions(names.values(), {*modules, "__main__"}, set()):
        code = function.__code__
        codes = found.setdefault(_realpath(code.co_filename), {})
        codes.setdefault(code.co_qualname, set()).add(_placeless(code))
    return found


_realpath = functools.lru_cache(maxsize=1000)(os.path.realpath)


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


def _codes_in(path: Path) -> dict[str, set[CodeType]]:
    found: dict[str, set[CodeType]] = {}
    try:
        left = [compile(path.read_bytes(), path, "exec", dont_inherit=True)]
    except (OSError, SyntaxError, ValueError):
        return {}  # in the middle of an edit
    while left:
        code = left.pop()
        found.setdefault(code.co_qualname, set()).add(_placeless(code))
        left += [constant for constant in code.co_consts if type(constant) is CodeType]
    return found


def _placeless(code: CodeType) -> CodeType:
    """A code object that is equal to another one of the same content elsewhere in a file."""
    # the body of a class holds its place since Python 3.13
    place = code.co_firstlineno if "__firstlineno__" in code.co_names else None
    constants: list[Any] = []
    for one in code.co_consts:
        if type(one) is CodeType:
            one = _placeless(one)
        constants.append(0 if type(one) is int and one == place else one)
    return code.replace(
        co_filename="", co_flags=0, co_firstlineno=1, co_linetable=b"", co_consts=tuple(constants)
    )
