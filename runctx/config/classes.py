"""What do the dataclasses of a configuration say about their fields: place, type, default, help?"""

from __future__ import annotations

import ast
import dataclasses
import os
import re
import sys
import tokenize
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

MISSING = "???"
"""What OmegaConf writes for a value that must be given."""


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """Where a class is written."""

    name: str
    """Its file, relative to the working folder where below it, or cell `In[3]`; its name where neither is known."""
    fields: dict[str, tuple[str, int]]
    """Field -> the name of its place, and its line there; without those that are not found."""

    def of(self, field: str) -> tuple[str, int | None]:
        """Where one field is written: an inherited one in the class it comes from."""
        return self.fields.get(field, (self.name, None))


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Field:
    """A leaf of a configuration as its dataclass declares it."""

    name: str
    """Dotted, from the class that was asked."""
    type: str
    """As it is written in the source, where that is known."""
    default: Any
    """`???` for a value that must be given."""
    help: str
    """`metadata["help"]`, else the string below the field, else the comment behind it; else empty."""


def is_structured(cls: Any) -> bool:
    """Whether it is a dataclass or a class of attrs, of which OmegaConf takes keys and types alike."""
    return dataclasses.is_dataclass(cls) or hasattr(cls, "__attrs_attrs__")


def types_by_field(cls: Any) -> dict[str, Any]:
    """The fields of a dataclass, or of a class of attrs, and their types as they are written."""
    fields = cls.__attrs_attrs__ if hasattr(cls, "__attrs_attrs__") else dataclasses.fields(cls)
    return {field.name: field.type for field in fields}


def place_of(cls: type) -> Place:
    """Where a dataclass and its fields are written, inherited ones in their own class. Never raises.

    >>> place_of(Place).of("name")[1] is not None
    True
    """
    places: dict[str, tuple[str, int]] = {}
    for source in _sources(cls):
        shown = _shown(source.origin)
        for name, note in source.notes.items():
            places.setdefault(name, (shown, note.line))
    own = _source_of(cls)
    return Place(_shown(own.origin) if own else cls.__qualname__, places)


def fields_of(cls: type) -> tuple[Field, ...]:
    """Every leaf that `cls` declares, nested dataclasses walked, in the order of the source.

    >>> @dataclasses.dataclass
    ... class Config:
    ...     lr: float = dataclasses.field(default=0.1, metadata={"help": "learning rate"})
    >>> fields_of(Config)[0].help
    'learning rate'
    """
    return tuple(_fields(cls, None, "", frozenset()))


def summary_of(cls: type) -> str:
    """The first paragraph of a class's own docstring, on one line; empty where it has none."""
    doc = cls.__dict__.get("__doc__") or ""
    written_by_dataclass = doc.startswith(f"{cls.__name__}(")
    return "" if written_by_dataclass else " ".join(doc.strip().split("\n\n")[0].split())


def _fields(cls: type, instance: Any, prefix: str, around: frozenset[type]) -> Iterator[Field]:
    notes: dict[str, _Note] = {}
    for source in _sources(cls):
        notes = source.notes | notes
    types = types_of(cls)
    for field in dataclasses.fields(cls):
        declared = types.get(field.name, Any)
        default = _default(field) if instance is None else getattr(instance, field.name, MISSING)
        inner = type(default) if dataclasses.is_dataclass(default) else declared
        if default is not None and dataclasses.is_dataclass(inner) and inner not in around | {cls}:
            nested = default if isinstance(default, inner) else None
            yield from _fields(inner, nested, f"{prefix}{field.name}.", around | {cls})
            continue
        note = notes.get(field.name, _Note(0, "", ""))
        yield Field(
            name=prefix + field.name,
            type=note.type or type_text(field.type),
            default=default,
            help=str(field.metadata.get("help") or note.help),
        )


def types_of(cls: type) -> dict[str, Any]:
    """The annotations of a dataclass as types; where one cannot be evaluated, all as they are written."""
    try:
        return typing.get_type_hints(cls)
    except Exception:  # evaluating an annotation runs whatever stands in it
        return types_by_field(cls)


def type_text(annotation: Any) -> str:
    """A type as one would write it."""
    if isinstance(annotation, str):
        return annotation
    if isinstance(annotation, type) and not typing.get_args(annotation):
        return "None" if annotation is type(None) else annotation.__name__
    text = re.sub(
        r"\b(?:[A-Za-z_]\w*\.|<locals>\.)+(?=[A-Za-z_])", "", str(annotation).replace("NoneType", "None")
    )
    text = re.sub(r"\b(List|Dict|Tuple|Set)\[", lambda generic: generic[0].lower(), text)
    return re.sub(r"^Optional\[(.+)\]$", r"\1 | None", text)


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    if field.default_factory is dataclasses.MISSING:
        return MISSING
    try:
        return field.default_factory()
    except Exception:  # the user's own code; the configuration will say so when it is made
        return MISSING


@dataclasses.dataclass(frozen=True, slots=True)
class _Note:
    """What the source says of one field."""

    line: int
    type: str
    help: str


@dataclasses.dataclass(frozen=True, slots=True)
class _Source:
    """The text of a class: where it is and what it says of the fields in it."""

    origin: str
    """An absolute path, or the name of a cell."""
    notes: dict[str, _Note]


_sources_known: WeakKeyDictionary[type, _Source | None] = WeakKeyDictionary()
_files_known: dict[str, tuple[tuple[int, int], dict[str, _Source]]] = {}
"""File -> its state, and qualified name -> source: a file is parsed once, however many classes are in it."""


def _sources(cls: type) -> Iterator[_Source]:
    """Of the class and the classes it inherits from, itself first, as far as they are found."""
    for base in cls.__mro__:
        source = _source_of(base) if is_structured(base) else None
        if source:
            yield source


def _source_of(cls: type) -> _Source | None:
    if cls not in _sources_known:
        _sources_known[cls] = _find(cls)
    return _sources_known[cls]


def _find(cls: type) -> _Source | None:
    """As the class was when it was first asked for: a file edited later may be found in its new state."""
    module = sys.modules.get(cls.__module__)
    file = getattr(module, "__file__", None)
    name = cls.__qualname__.replace("<locals>.", "")
    # an editor may set `__file__` in a kernel, where the class stands in a cell all the same
    in_cells = _in_cells(name) if cls.__module__ == "__main__" else None
    return in_cells or (_classes_of(os.path.abspath(file)).get(name) if file else None)


def _classes_of(file: str) -> dict[str, _Source]:
    try:
        status = os.stat(file)
        state = (status.st_mtime_ns, status.st_size)
        if file not in _files_known or _files_known[file][0] != state:
            with tokenize.open(file) as opened:
                _files_known[file] = (state, _classes_in(opened.read(), file))
        return _files_known[file][1]
    except (OSError, SyntaxError, ValueError):
        return {}


def _in_cells(name: str) -> _Source | None:
    """In the cells of this notebook or console, the newest first."""
    shell = getattr(sys.modules.get("IPython.core.getipython"), "get_ipython", lambda: None)()
    if sys.modules.get("__main__") is not getattr(shell, "user_module", None):
        return None  # no shell, or it runs a script by `%run`
    cells = getattr(shell, "user_ns", {}).get("In")
    mentions = re.compile(rf"^\s*class\s+{re.escape(name.rpartition('.')[2])}\b", re.MULTILINE)
    for number, code in reversed(list(enumerate(cells if isinstance(cells, list) else ()))):
        if isinstance(code, str) and mentions.search(code):
            found = _classes_in(code, f"In[{number}]").get(name)
            if found:
                return found
    return None


def _classes_in(code: str, origin: str) -> dict[str, _Source]:
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}
    lines = code.splitlines()
    return {name: _Source(origin, _notes(node, lines)) for name, node in _class_nodes(tree.body)}


def _class_nodes(body: list[ast.stmt], prefix: str = "") -> Iterator[tuple[str, ast.ClassDef]]:
    """Every class and its qualified name; of two of the same name the later one counts."""
    for node in body:
        if isinstance(node, ast.ClassDef):
            yield prefix + node.name, node
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from _class_nodes(node.body, f"{prefix}{node.name}.")
        else:
            for block in ("body", "orelse", "handlers", "finalbody"):
                yield from _class_nodes(getattr(node, block, []), prefix)


def _notes(node: ast.ClassDef, lines: list[str]) -> dict[str, _Note]:
    notes = {}
    following: list[ast.stmt | None] = [*node.body[1:], None]
    for field, after in zip(node.body, following, strict=True):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            text = _docstring(after) or _comment(field, lines)
            notes[field.target.id] = _Note(field.lineno, ast.unparse(field.annotation).strip("'\""), text)
    return notes


def _docstring(node: ast.stmt | None) -> str:
    if (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    ):
        return " ".join(node.value.value.split())
    return ""


_FOR_TOOLS = re.compile(r"#\s*(noqa|type:|pragma|pylint|fmt:|nosec|pyright)")


def _comment(field: ast.AnnAssign, lines: list[str]) -> str:
    line = lines[(field.end_lineno or field.lineno) - 1].encode()
    behind = line[field.end_col_offset or 0 :].decode(errors="replace").strip()
    return behind.lstrip("#").strip() if behind.startswith("#") and not _FOR_TOOLS.match(behind) else ""


def _shown(origin: str) -> str:
    """The path as seen from the working folder, where it lies below that."""
    if not os.path.isabs(origin):
        return origin
    try:
        return str(Path(origin).relative_to(Path.cwd()))
    except (OSError, ValueError):
        return origin
