"""Read and write configuration files: YAML, JSON, TOML or Python, told apart by suffix.

YAML, JSON and TOML are only parsed: nothing in them is executed, and size, depth and aliases are bounded.
**A Python configuration is code: reading it executes it**, in a namespace that nothing else sees: it becomes no
module, its folder is not searched for imports, and nothing is written beside it.
"""

from __future__ import annotations

import ast
import difflib
import functools
import itertools
import json
import keyword
import os
import re
import stat
import tomllib
import traceback
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time
from enum import Enum
from pathlib import Path, PurePath
from typing import Any

import tomli_w
import yaml

from .. import yamlfile
from ..errors import ConfigError
from .derived import Derived
from .layers import DELETE, REPLACE, dotted
from .layers import Path as Keys
from .messages import short

MAX_BYTES = 5_000_000

BASE = "_base_"

MARKERS = frozenset({BASE, DELETE, REPLACE})
"""Keys of a Python file that begin with `_` and are read all the same."""

MAX_DEPTH = 100
MAX_PARTS = 500_000
"""Keys and values in one file, with all that aliases stand for."""

TOO_DEEP = f"nested more than {MAX_DEPTH} deep"
TOO_MANY = f"more than {MAX_PARTS} keys and values"


@dataclass(frozen=True, slots=True)
class Document:
    """What a configuration file says."""

    values: dict[Any, Any]
    """As they were written: interpolations are text, `_base_` is a key like any other."""
    lines: dict[Keys, int]
    """Of YAML, the line on which a key stands, counted from 1, by the keys that lead to it; not inside lists."""


def fault(path: Path, line: int | None, what: str, hint: str | None = None) -> ConfigError:
    """The error that something is wrong in a file."""
    place = f"configuration file {path}" + ("" if line is None else f", line {line}")
    return ConfigError(f"{place}: {what}", hint)


def text_of(data: bytes, path: Path) -> str:
    """The text that the bytes of a file are, without a byte order mark.

    Raises
    ------
    ConfigError: not UTF-8.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        what = f"byte 0x{error.object[error.start]:02x} is not UTF-8"
        raise fault(path, line, what, "save it as UTF-8") from error


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
    near = difflib.get_close_matches(path.name, names, 1)
    hint = f"did you mean {path.with_name(near[0])}?" if near else None
    return ConfigError(f"configuration file {path} does not exist (looked in {folder})", hint)


# -- YAML ----------------------------------------------------------------------------------------------------------

# OmegaConf's loader decides what a scalar means, and each key keeps its line. Unlike with `OmegaConf.load`, text with a
# colon (`12:30`) is text, no number to base 60, and a key that is given twice is an error whatever its type.

_TAG = "tag:yaml.org,2002:"
_MERGE = f"{_TAG}merge"
_SCALARS = frozenset(f"{_TAG}{kind}" for kind in ("str", "int", "float", "bool", "null", "binary"))
_TEXTS = frozenset({f"{_TAG}str", f"{_TAG}value", _MERGE})
"""Text, `=`, and `<<` as a value."""
# what OmegaConf.save makes of a path: nothing is called but Path
_PATHS = frozenset(
    f"{_TAG}python/object/apply:{module}.{kind}"
    for module in ("pathlib", "pathlib._local")
    for kind in ("Path", "PosixPath", "WindowsPath")
)
_COLLECTIONS = frozenset({f"{_TAG}map", f"{_TAG}seq"}) | _PATHS
_CLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


_NESTING: dict[type, int] = {
    yaml.MappingStartEvent: 1,
    yaml.SequenceStartEvent: 1,
    yaml.MappingEndEvent: -1,
    yaml.SequenceEndEvent: -1,
}


def _yaml(data: bytes, path: Path) -> Document:
    """What `data`, the content of the file `path`, says.

    Raises
    ------
    ConfigError: it is broken, or made to harm; names the line.
    """
    text_of(data, path)
    try:
        _refuse_bombs(data, path)
        loader = _yaml_loader()(data)
        top = loader.get_single_node()
        if top is None:
            return Document({}, {})
        nodes = _Nodes(path, loader)
        if b"*" in data:  # without an alias, what the events were counted as is all there is
            nodes.measure(top)
        values = nodes.value(top, ())
    except yaml.reader.ReaderError as error:
        line = data.count(b"\n", 0, error.position) + 1
        raise fault(path, line, f"{error.reason} (0x{error.character:02x})") from error
    except yaml.MarkedYAMLError as error:
        raise _marked(error, data, path) from error
    if values is None:
        return Document({}, {})
    if not isinstance(values, dict):
        raise nodes.fault(top, f"must be a mapping; got {_kind(top)}", "write `key: value`")
    return Document(values, nodes.lines)


def _refuse_bombs(data: bytes, path: Path) -> None:
    # the composer builds by recursion in C, which deep nesting crashes: look at the flat stream of events first
    depth = 0
    events: Iterable[Any] = yaml.parse(data, Loader=_CLoader)
    for parts, event in enumerate(events):
        depth += _NESTING.get(type(event), 0)
        if depth > MAX_DEPTH or parts > 2 * MAX_PARTS:  # a collection has two events
            what = TOO_DEEP if depth > MAX_DEPTH else TOO_MANY
            raise fault(path, event.start_mark.line + 1, what)


@functools.cache
def _yaml_loader() -> Any:
    """OmegaConf's loader: it decides what a scalar means, except that text with a colon (`12:30`) is text."""
    from omegaconf.omegaconf import get_yaml_loader  # type: ignore[attr-defined]

    theirs: Any = get_yaml_loader()
    colon = (f"{_TAG}str", re.compile(".*:"))
    resolvers = {
        first: [colon, *rules] if first and first in "+-0123456789" else rules
        for first, rules in theirs.yaml_implicit_resolvers.items()
    }
    members = {"yaml_constructors": theirs.yaml_constructors, "yaml_implicit_resolvers": resolvers}
    return type("Loader", (_CLoader,), members)  # that of OmegaConf 2.3 is the slow one


def _marked(error: yaml.MarkedYAMLError, data: bytes, path: Path) -> ConfigError:
    what = ", ".join(text for text in (error.context, error.problem) if text)
    hint = "put text with special characters into quotes"
    last, mark = data.rstrip().count(b"\n") + 1, error.problem_mark
    if mark is None or mark.line >= last:  # what the end of the text cuts off
        return fault(path, last, what, hint)
    return fault(path, mark.line + 1, f"column {mark.column + 1}: {what}", hint)


class _Nodes:
    """The values of YAML nodes, and the lines of their keys."""

    def __init__(self, path: Path, loader: Any) -> None:
        self._path, self._loader = path, loader
        self._sizes: dict[yaml.Node, tuple[int, int] | None] = {}
        self.lines: dict[Keys, int] = {}

    def fault(self, node: yaml.Node, what: str, hint: str | None = None) -> ConfigError:
        return fault(self._path, node.start_mark.line + 1, what, hint)

    def measure(self, node: yaml.Node) -> tuple[int, int]:
        """How many parts a node has, and how deep it is, with all that aliases in it stand for.

        Raises
        ------
        ConfigError: too many, too deep, or it contains itself.
        """
        if node not in self._sizes:
            self._sizes[node] = None
            sizes = [self.measure(child) for child in _children(node)]
            parts = 1 + sum(size for size, _ in sizes)
            height = max((height for _, height in sizes), default=0) + (not isinstance(node, yaml.ScalarNode))
            if parts > MAX_PARTS:
                raise self.fault(node, f"{TOO_MANY}, with all that aliases stand for")
            if height > MAX_DEPTH:
                raise self.fault(node, TOO_DEEP)
            self._sizes[node] = parts, height
        size = self._sizes[node]
        if size is None:
            raise self.fault(node, "an alias stands for what contains it")
        return size

    def value(self, node: yaml.Node, keys: Keys | None) -> Any:
        """The value of a node at `keys`, whose lines are kept; None for one inside a list."""
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        if node.tag not in _COLLECTIONS:
            raise self.fault(node, f"the tag {node.tag[:80]} is not read", "write plain values")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, keys)
        items = [self.value(item, None) for item in node.value]
        if node.tag not in _PATHS:
            return items
        if not all(isinstance(item, str) for item in items):
            raise self.fault(node, f"a path cannot be made of {items!r:.80}")
        return Path(*items)

    def _mapping(self, node: yaml.MappingNode, keys: Keys | None) -> dict[Any, Any]:
        values: dict[Any, Any] = {}
        for key_node, part in node.value:
            if key_node.tag == _MERGE:
                values |= self._merged(part, keys)
        first: dict[Any, int] = {}
        for key_node, part in node.value:
            if key_node.tag == _MERGE:
                continue
            key = self._key(key_node)
            if key in first:
                what = f"key {key!r:.80} is given twice, first on line {first[key]}"
                raise self.fault(key_node, what, "remove one")
            first[key] = key_node.start_mark.line + 1
            here = None if keys is None else (*keys, key)
            if here is not None:
                self.lines[here] = first[key]
            values[key] = self.value(part, here)
        return values

    def _merged(self, node: yaml.Node, keys: Keys | None) -> dict[Any, Any]:
        """What `<<` stands for; of a list the first mapping wins."""
        values: dict[Any, Any] = {}
        for source in reversed(node.value) if isinstance(node, yaml.SequenceNode) else [node]:
            if not isinstance(source, yaml.MappingNode):
                what = f"<< takes a mapping or a list of mappings; got {_kind(source)}"
                raise self.fault(source, what)
            values |= self._mapping(source, keys)
        return values

    def _key(self, node: yaml.Node) -> Any:
        key = self._scalar(node) if isinstance(node, yaml.ScalarNode) else None
        if key is None:
            raise self.fault(node, f"a key cannot be {_kind(node)}", "write it in quotes")
        return key

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        if node.tag in _TEXTS:
            return node.value
        if node.tag not in _SCALARS:
            raise self.fault(node, f"the tag {node.tag[:80]} is not read", "write plain values")
        try:
            if node.tag == f"{_TAG}int" and len(node.value) > yamlfile.MAX_DIGITS:
                raise ValueError("too many digits")
            return self._loader.construct_object(node)
        except (ValueError, KeyError, IndexError, OverflowError) as error:
            kind = node.tag.removeprefix(_TAG)
            raise self.fault(node, f"not readable as {kind}: {node.value[:80]!r}") from error


def _children(node: yaml.Node) -> Iterable[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return itertools.chain.from_iterable(node.value)
    return node.value if isinstance(node, yaml.SequenceNode) else ()


def _kind(node: yaml.Node) -> str:
    if isinstance(node, yaml.ScalarNode):
        return "nothing (null)" if node.tag == f"{_TAG}null" else f"{node.value!r:.80}"
    return "a mapping" if isinstance(node, yaml.MappingNode) else "a list"


# -- JSON and TOML -------------------------------------------------------------------------------------------------


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


# -- Python --------------------------------------------------------------------------------------------------------

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


_PARSERS = {".yaml": _yaml, ".yml": _yaml, ".json": _json, ".toml": _toml, ".py": _python}

SUFFIXES = tuple(_PARSERS)
"""The endings of configuration files."""


# -- plain values --------------------------------------------------------------------------------------------------


def copied(values: Mapping[Any, Any], scalar: Callable[[Any, Keys, bool], Any]) -> dict[Any, Any]:
    """A deep copy, of which `scalar(value, keys, is_key)` makes every key and every single value.

    Raises
    ------
    ConfigError: nested too deep, in itself for example, or too large; names the key.
    """
    parts = 0

    def copy(value: Any, keys: Keys) -> Any:
        nonlocal parts
        parts += 1
        if parts > MAX_PARTS:
            raise key_fault(keys[:1], TOO_MANY, "keep it small")
        if not isinstance(value, (Mapping, list, tuple)):
            return scalar(value, keys, False)
        if len(keys) == MAX_DEPTH:
            raise key_fault(keys[:1], f"{TOO_DEEP}, or contains itself", "keep it flat")
        if isinstance(value, Mapping):
            mapping = {
                scalar(key, (*keys, key), True): copy(part, (*keys, key)) for key, part in value.items()
            }
            if len(mapping) < len(value):
                raise key_fault(keys, "two of its keys would have the same text")
            return mapping
        items = [copy(item, (*keys, at)) for at, item in enumerate(value)]
        return tuple(items) if isinstance(value, tuple) else items

    whole: dict[Any, Any] = copy(values, ())
    return whole


def key_fault(keys: Keys, what: str, hint: str | None = None) -> ConfigError:
    """The error that something is wrong at a key."""
    return ConfigError(f"config key {dotted(keys) or '(top level)'}: {what}", hint)


def python_value(value: Any, keys: Keys, is_key: bool) -> Any:
    """A single value that a configuration can hold; a scalar of numpy becomes Python's.

    Raises
    ------
    ConfigError: it is of another type.
    """
    if type(value).__module__ == "numpy" and getattr(value, "ndim", None) == 0:
        value = value.item()
    if isinstance(value, (str, bytes, bool, int, float, Enum)):
        return value
    if (value is None or isinstance(value, PurePath)) and not is_key:
        return value
    raise key_fault(
        keys[:-1] if is_key else keys,
        f"a {'key' if is_key else 'value'} cannot be {type(value).__name__} {short(value)}",
        "use numbers, strings, bools, None, paths, enums, and lists and mappings of them",
    )


# -- writing -------------------------------------------------------------------------------------------------------


def encode(values: Mapping[Any, Any], suffix: str) -> bytes:
    """The text of a configuration file with these values, which `read` gives back.

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
            return _python_text(values).encode()
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


# -- writing Python ------------------------------------------------------------------------------------------------

_NAMES = "_names"
"""`_names["a-b"] = 1` sets what Python cannot write as a name, in a file that begins with `_names = globals()`."""

_WIDTH = 100


def _python_text(values: Mapping[Any, Any]) -> str:
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
