"""Describe the fields of dataclasses: types, defaults, help, the line they stand on, and what OmegaConf refuses."""

from __future__ import annotations

import ast
import dataclasses
import datetime
import decimal
import functools
import inspect
import numbers
import os
import re
import sys
import tokenize
import types
import typing
import uuid
from collections import abc
from collections.abc import Iterator
from enum import Enum
from pathlib import Path, PurePath
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from omegaconf import DictConfig, OmegaConf

from ..errors import ConfigError

MISSING = "???"
"""What OmegaConf writes for a value that must be given."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Field:
    """A leaf of a configuration as its dataclass declares it."""

    name: str
    """Dotted, from the outermost class."""
    type: str
    """As it is written in the source, where that is known."""
    default: Any
    """`???` for a value that must be given."""
    help: str
    """`metadata["help"]`, else the string below the field, else the comment behind it; else empty."""


def is_structured(cls: Any) -> bool:
    """True for a dataclass and for a class of attrs."""
    return dataclasses.is_dataclass(cls) or hasattr(cls, "__attrs_attrs__")


def types_by_field(cls: Any) -> dict[str, Any]:
    """The fields of a dataclass, or of a class of attrs, and their types as they are written."""
    fields = cls.__attrs_attrs__ if hasattr(cls, "__attrs_attrs__") else dataclasses.fields(cls)
    return {field.name: field.type for field in fields}


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
    text = str(annotation).replace("NoneType", "None")
    text = re.sub(r"\b(?:[A-Za-z_]\w*\.|<locals>\.)+(?=[A-Za-z_])", "", text)
    text = re.sub(r"\b(List|Dict|Tuple|Set)\[", lambda generic: generic[0].lower(), text)
    return re.sub(r"^Optional\[(.+)\]$", r"\1 | None", text)


def fields_of(cls: type) -> tuple[Field, ...]:
    """Every leaf that `cls` declares, those of nested dataclasses too, in the order of the source.

    >>> @dataclasses.dataclass
    ... class Config:
    ...     lr: float = dataclasses.field(default=0.1, metadata={"help": "learning rate"})
    >>> fields_of(Config)[0].help
    'learning rate'
    """
    return tuple(_fields(cls, None, "", frozenset()))


def _fields(cls: type, instance: Any, prefix: str, around: frozenset[type]) -> Iterator[Field]:
    notes = {name: note for source in reversed(_sources(cls)) for name, note in source.notes.items()}
    declared = types_of(cls)
    for field in dataclasses.fields(cls):
        default = _default(field) if instance is None else getattr(instance, field.name, MISSING)
        part = type(default) if dataclasses.is_dataclass(default) else declared.get(field.name, Any)
        if default is not None and dataclasses.is_dataclass(part) and part not in around | {cls}:
            nested = default if isinstance(default, part) else None
            yield from _fields(part, nested, f"{prefix}{field.name}.", around | {cls})
            continue
        note = notes.get(field.name, _Note(0, "", ""))
        yield Field(
            name=prefix + field.name,
            type=note.type or type_text(field.type),
            default=default,
            help=str(field.metadata.get("help") or note.help),
        )


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    try:
        return MISSING if field.default_factory is dataclasses.MISSING else field.default_factory()
    except Exception:  # the user's own code; the configuration will say so when it is made
        return MISSING


def summary_of(cls: type) -> str:
    """The first paragraph of a class's own docstring, on one line; empty where it has none."""
    doc = cls.__dict__.get("__doc__") or ""
    written_by_dataclass = doc.startswith(f"{cls.__name__}(")
    return "" if written_by_dataclass else " ".join(doc.strip().split("\n\n")[0].split())


# -- where they are written ----------------------------------------------------------------------------------------


def place_of(cls: type, field: str | None = None) -> tuple[str, int | None]:
    """File and line of a field, an inherited one in its own class; without a field, the file of the class.

    A file below the working folder is relative to that, a cell is called `In[3]`. A class without source has its
    own name for a file, and no lines.

    >>> place_of(Field, "name")[1] is not None
    True
    """
    for source in _sources(cls) if field is not None else ():
        if field in source.notes:
            return _shown(source.origin), source.notes[field].line
    own = _source(cls)
    return (_shown(own.origin) if own else cls.__qualname__), None


class _Note(NamedTuple):
    """What the source says of one field."""

    line: int
    type: str
    help: str


class _Source(NamedTuple):
    origin: str
    """An absolute path, or the name of a cell."""
    notes: dict[str, _Note]


_sources_known: WeakKeyDictionary[type, _Source | None] = WeakKeyDictionary()
"""The source of a class as it was when it was first looked up: a file may be edited later."""


def _sources(cls: type) -> list[_Source]:
    """Of the class and the classes it inherits from, itself first, as far as they are found."""
    found = (_source(base) for base in cls.__mro__ if is_structured(base))
    return [source for source in found if source]


def _source(cls: type) -> _Source | None:
    if cls not in _sources_known:
        _sources_known[cls] = _find(cls)
    return _sources_known[cls]


def _find(cls: type) -> _Source | None:
    # not by `inspect`, which parses the file again for each class, and finds none in cells before Python 3.13
    name = cls.__qualname__.replace("<locals>.", "")
    # an editor may set `__file__` in a kernel, where the class stands in a cell all the same
    if cls.__module__ == "__main__" and (found := _in_cells(name)):
        return found
    file = os.path.abspath(getattr(sys.modules.get(cls.__module__), "__file__", None) or "")
    try:
        state = os.stat(file)
        notes = _notes_of_file(file, state.st_mtime_ns, state.st_size).get(name)
    except (OSError, SyntaxError, ValueError):
        return None
    return None if notes is None else _Source(file, notes)


@functools.lru_cache(64)
def _notes_of_file(file: str, mtime: int, size: int) -> dict[str, dict[str, _Note]]:
    with tokenize.open(file) as opened:
        return _notes_by_class(opened.read())


def _in_cells(name: str) -> _Source | None:
    """In the cells of this notebook or console, the newest first."""
    shell = getattr(sys.modules.get("IPython.core.getipython"), "get_ipython", lambda: None)()
    if sys.modules.get("__main__") is not getattr(shell, "user_module", None):
        return None  # no shell, or it runs a script by `%run`
    cells = getattr(shell, "user_ns", {}).get("In")
    mentions = re.compile(rf"^\s*class\s+{re.escape(name.rpartition('.')[2])}\b", re.MULTILINE)
    for number, code in reversed(list(enumerate(cells if isinstance(cells, list) else ()))):
        if isinstance(code, str) and mentions.search(code):
            notes = _notes_by_class(code).get(name)
            if notes is not None:
                return _Source(f"In[{number}]", notes)
    return None


def _notes_by_class(code: str) -> dict[str, dict[str, _Note]]:
    """Qualified name -> its fields; of two classes of the same name the later one counts."""
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}
    lines = code.splitlines()
    return {name: _notes(node, lines) for name, node in _class_nodes(tree.body)}


def _class_nodes(body: list[ast.stmt], prefix: str = "") -> Iterator[tuple[str, ast.ClassDef]]:
    for node in body:
        if isinstance(node, ast.ClassDef):
            yield prefix + node.name, node
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from _class_nodes(node.body, f"{prefix}{node.name}.")
        else:
            for block in ("body", "orelse", "handlers", "finalbody"):
                yield from _class_nodes(getattr(node, block, []), prefix)


_FOR_TOOLS = re.compile(r"#\s*(noqa|type:|pragma|pylint|fmt:|nosec|pyright)")


def _notes(node: ast.ClassDef, lines: list[str]) -> dict[str, _Note]:
    notes = {}
    for field, after in zip(node.body, [*node.body[1:], None], strict=True):
        if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
            continue
        if isinstance(after, ast.Expr) and isinstance(getattr(after.value, "value", None), str):
            text = " ".join(after.value.value.split())  # type: ignore[attr-defined]
        else:
            line = lines[(field.end_lineno or field.lineno) - 1].encode()
            behind = line[field.end_col_offset or 0 :].decode(errors="replace").strip()
            is_comment = behind.startswith("#") and not _FOR_TOOLS.match(behind)
            text = behind.lstrip("#").strip() if is_comment else ""
        notes[field.target.id] = _Note(field.lineno, ast.unparse(field.annotation).strip("'\""), text)
    return notes


def _shown(origin: str) -> str:
    """The path as seen from the working folder, where it lies below that."""
    try:
        return str(Path(origin).relative_to(Path.cwd()))
    except (OSError, ValueError):
        return origin


# -- types that a configuration declares ---------------------------------------------------------------------------


def declared_type(config: DictConfig, path: tuple[Any, ...]) -> Any:
    """The type that the dataclasses in `config` declare at `path`; Any if they declare none."""
    node: Any = config
    declared: Any = OmegaConf.get_type(config)
    for key in path:
        content = node.__dict__["_content"] if isinstance(node, DictConfig) else None
        node = content.get(key) if isinstance(content, dict) else None  # None, ??? and ${} have no keys
        if node is None:
            declared = inner(declared, key)
        else:
            of_object = node._metadata.object_type
            is_class = isinstance(of_object, type) and is_structured(of_object)
            declared = of_object if is_class else node._metadata.type_hint
    return declared


def declares(declared: Any, key: Any) -> bool:
    """True if the type is a dataclass with that field."""
    wanted, _ = required(declared)
    return is_structured(wanted) and key in types_by_field(wanted)


def is_union(declared: Any) -> bool:
    return typing.get_origin(declared) in (typing.Union, types.UnionType)


def required(declared: Any) -> tuple[Any, bool]:
    """A type without its `| None`, and whether it had one; Any for a union of several."""
    if not is_union(declared):
        return declared, False
    arguments = typing.get_args(declared)
    others = [argument for argument in arguments if argument is not type(None)]
    return (others[0] if len(others) == 1 else Any), len(others) < len(arguments)


def takes_text(declared: Any) -> bool:
    """True if all values of this type, None aside, are texts."""
    wanted, _ = required(declared)
    return isinstance(wanted, type) and issubclass(wanted, (str, PurePath)) and not issubclass(wanted, Enum)


def inner(declared: Any, key: Any) -> Any:
    """The type of what lies under `key` of a value of the type `declared`; Any if it is not declared."""
    wanted, _ = required(declared)
    if isinstance(wanted, type) and is_structured(wanted):
        return types_of(wanted).get(key, Any)
    arguments = [argument for argument in typing.get_args(wanted) if argument is not Ellipsis]
    origin = typing.get_origin(wanted)
    if not arguments or not isinstance(origin, type):
        return Any
    if issubclass(origin, tuple) and isinstance(key, int):
        return arguments[key] if -len(arguments) <= key < len(arguments) else arguments[-1]
    return arguments[-1]


def key_type(declared: Any) -> Any:
    """The type of the keys of a mapping of the type `declared`; Any if it is not declared."""
    wanted, _ = required(declared)
    if isinstance(wanted, type) and is_structured(wanted):
        return str
    arguments = typing.get_args(wanted)
    return arguments[0] if len(arguments) == 2 and typing.get_origin(wanted) is dict else Any


def subclasses_of(cls: Any) -> Iterator[Any]:
    """The classes below a class, each before those below it."""
    for each in cls.__subclasses__():
        yield each
        yield from subclasses_of(each)


def subclass_hint(declared: Any, key: Any) -> str | None:
    """For a key that a dataclass does not have, but a subclass of it."""
    found = [cls.__name__ for cls in subclasses_of(declared) if key in types_of(cls)]
    if not found or key in types_of(declared):
        return None
    return f"{key} is a field of {found[-1]}; only code can choose {found[-1]}(...) in place of {declared.__name__}"


# -- types that OmegaConf refuses ----------------------------------------------------------------------------------

_HELD = "str, int, float, bool, bytes, Path, Any, an Enum, a dataclass, or list, tuple or dict of these"

_INSTEAD: tuple[tuple[Any, str], ...] = (
    ((types.FunctionType, types.BuiltinFunctionType, type), "str, the name,"),
    (datetime.timedelta, "float, the seconds,"),
    ((datetime.date, datetime.time), "str, in ISO format,"),
    (uuid.UUID, "str"),
    (os.PathLike, "Path"),
    (numbers.Integral, "int"),
    ((decimal.Decimal, numbers.Real), "float"),
    (numbers.Complex, "list[float], both parts,"),
    (abc.Mapping, "dict[str, {1}]"),
    (abc.Iterable, "list[{0}]"),
    (abc.Callable, "str, the name,"),
)
"""Classes, and what holds the same; numpy's scalars are numbers, and its arrays can be iterated."""


def refusal(given: Any) -> ConfigError | None:
    """The error to raise for a dataclass, or an instance of one, that OmegaConf refuses; None if its types are fine."""
    for cls in _classes_in(given if isinstance(given, type) else type(given), set()):
        for name in types_by_field(cls):
            written_in = (owner for owner in cls.__mro__ if name in inspect.get_annotations(owner))
            owner = next(written_in, cls)
            written = inspect.get_annotations(owner).get(name, types_by_field(cls)[name])
            alone = types.SimpleNamespace(__annotations__={name: written})
            scope = vars(sys.modules[owner.__module__]) if owner.__module__ in sys.modules else {}
            try:
                names = {**scope, **vars(owner)} if isinstance(written, str) else scope
                hint = typing.get_type_hints(alone, names)[name]
            except Exception as error:  # evaluating an annotation runs whatever stands in it
                return ConfigError(
                    f"{cls.__name__}.{name}: the type {written} cannot be evaluated: {error}",
                    hint="import its name when the program runs, not only under `if TYPE_CHECKING:`, or write Any",
                )
            if not _is_held(name, hint):
                return ConfigError(
                    f"{cls.__name__}.{name}: a configuration cannot hold the type {type_text(hint)}",
                    hint=instead_of(hint),
                )
    return None


def instead_of(hint: Any) -> str:
    """What to write in place of a type that a configuration cannot hold.

    >>> from collections.abc import Sequence
    >>> instead_of(dict[str, Sequence[int]]), instead_of(datetime.date)
    ('write list[int] in place of Sequence[int]', 'write str, in ISO format, in place of date')
    """
    kind = typing.get_origin(hint) or hint
    if kind is typing.Literal:  # of which only OmegaConf 2.4 knows
        return f"write str or an Enum in place of {type_text(hint)}"
    arguments = [arg for arg in typing.get_args(hint) if not isinstance(arg, list) and arg is not Ellipsis]
    for part in arguments:
        if part is not type(None) and not _is_held("x", part):
            return instead_of(part)
    for classes, text in _INSTEAD:
        if isinstance(kind, type) and issubclass(kind, classes):
            texts = [type_text(part) for part in arguments] or ["Any"]
            return f"write {text.format(', '.join(texts), texts[-1])} in place of {type_text(hint)}"
    return "write Any" if is_union(hint) else f"write {_HELD}"


def _is_held(name: str, hint: Any) -> bool:
    try:
        OmegaConf.structured(dataclasses.make_dataclass("Probe", [(name, hint, MISSING)]))
        return True
    except Exception:  # OmegaConf raises an AssertionError for some
        return False


def _classes_in(hint: Any, known: set[Any]) -> Iterator[type]:
    """The dataclasses in a type and those of their fields, inner ones first."""
    if isinstance(hint, type) and is_structured(hint) and hint not in known:
        known.add(hint)
        for part in types_of(hint).values():
            yield from _classes_in(part, known)
        yield hint
    for argument in typing.get_args(hint):
        yield from _classes_in(argument, known)
