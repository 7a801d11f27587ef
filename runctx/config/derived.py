"""Values computed from others by a function, after everything is overridden.

A derived value is a text that OmegaConf takes for an interpolation, and carries its function. OmegaConf keeps that very
object in the node, through copies and merges, and asks our resolver for its value.
"""

from __future__ import annotations

import ast
import copy
import functools
import inspect
import linecache
import pickle
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import make_dataclass
from pathlib import Path as FilePath
from types import CodeType
from typing import Any, NoReturn, TypeVar, get_origin

from omegaconf import AnyNode, Container, DictConfig, ListConfig, Node, OmegaConf, ValueNode
from omegaconf._utils import get_omega_conf_dumper
from omegaconf.errors import OmegaConfBaseException

from ..errors import ConfigError
from .fields import required, type_text
from .interpolations import (
    DerivationError,
    cycle,
    cycle_message,
    needs_of,
    node_at,
    path_of,
    rebound,
    register,
)
from .layers import Branch, Path, dotted
from .messages import first_line, short
from .objects import held

T = TypeVar("T")


def derived(fn: Callable[..., T]) -> T:
    """A value that is computed from others whenever it is read; a run computes it once, after all overrides.

    Parameters
    ----------
    fn: gets the mapping that the value was written in: of a field the dataclass, in a dict or a Python config file
        the top of that, wherever it is mounted. If it has a second parameter, that is the whole configuration.
        It can modify neither.

    Raises
    ------
    ConfigError: on reading, if `fn` raises, gives a value of a wrong type, or reads what is computed from its own
        result; the message names the key.

    >>> from dataclasses import dataclass
    >>> from omegaconf import OmegaConf
    >>> @dataclass
    ... class Config:
    ...     batch_size: int = 256
    ...     lr: float = derived(lambda c: 0.01 * c.batch_size / 128)
    >>> cfg = OmegaConf.structured(Config)
    >>> cfg.lr
    0.02
    >>> cfg.batch_size = 128
    >>> cfg.lr
    0.01
    """
    if not callable(fn):
        raise ConfigError(
            f"derived() needs a function; got {fn!r}", hint="write derived(lambda c: 2 * c.width)"
        )
    code = _code_of(fn)
    value: Any = Derived(
        fn, _source_of(fn, code), (code.co_filename, code.co_firstlineno) if code else ("", 0)
    )
    return value  # type: ignore[no-any-return]


class Derived(str):
    """A function whose result is the value."""

    __slots__ = ("distance", "function", "place", "source")

    function: Callable[..., Any]
    source: str
    """The text of a lambda, the name of another function."""
    place: tuple[str, int]
    """File and line of the function; ("", 0) where that is unknown."""
    distance: int | None
    """How many containers lead up to the mapping it was written in, that one included; None for the nearest
    dataclass around it, or the root."""

    def __new__(
        cls, function: Callable[..., Any], source: str, place: tuple[str, int], distance: int | None = None
    ) -> Derived:
        label = source
        if "\\" in source or "${" in source or len(source) > 200 or ("'" in source and '"' in source):
            label = f"{FilePath(place[0]).name}:{place[1]}"
        quote = '"' if "'" in label else "'"
        label = re.sub(r"[^ -~]", "?", label.replace(quote, ""))
        self = super().__new__(cls, f"${{derived:{quote}{label}{quote}}}")
        self.function, self.source, self.place, self.distance = function, source, place, distance
        return self

    def at(self, distance: int) -> Derived:
        """The same, if the distance is known already; else written that far below the top."""
        is_known = self.distance is not None
        return self if is_known else Derived(self.function, self.source, self.place, distance)

    @property
    def described(self) -> str:
        """For messages."""
        file, line = self.place
        return f"derived value ({self.source})" + (f" at {file}:{line}" if file else "")

    def __repr__(self) -> str:
        return f"<derived: {self.source}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Derived) and _is_same_function(self.function, other.function)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = str.__hash__

    def __deepcopy__(self, memo: Any) -> Derived:
        return self

    def __reduce__(self) -> Any:
        from .. import byvalue  # cloudpickle, which most runs do not need

        return _unpickled, (byvalue.dumps(self.function), self.source, self.place, self.distance)

    def _refuse(self, *_: Any) -> NoReturn:
        raise TypeError(
            f"{self!r} is not computed: a dataclass by itself holds only the function\n"
            "hint: read it from run.cfg, or from from_cli(Config)"
        )

    # a text times 2 would be the text twice; the others say what is wrong better than a text does
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _refuse
    __floordiv__ = __rfloordiv__ = __mod__ = __pow__ = __rpow__ = __neg__ = __abs__ = _refuse
    __lt__ = __le__ = __gt__ = __ge__ = __round__ = __int__ = __float__ = __index__ = _refuse

    def __format__(self, spec: str) -> str:
        return self._refuse() if spec else str(self)


def _unpickled(function: bytes, source: str, place: tuple[str, int], distance: int | None) -> Derived:
    return Derived(pickle.loads(function), source, place, distance)  # noqa: S301  # part of a pickle itself


def _is_same_function(a: Any, b: Any) -> bool:
    """Whether they are one function, or copies of one: a pickled one, one of a module that was loaded again."""
    if a is b:
        return True
    codes = getattr(a, "__code__", None), getattr(b, "__code__", None)
    if not isinstance(codes[0], CodeType) or codes[0] != codes[1]:
        return False
    try:
        return bool(_bound_values(a) == _bound_values(b))
    except Exception:  # values of any type may refuse to be compared, as arrays do
        return False


def _bound_values(function: Any) -> Any:
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    return cells, function.__defaults__, function.__kwdefaults__, getattr(function, "__self__", None)


# -- where a function is written ---------------------------------------------------------------------------


def _code_of(function: Any) -> CodeType | None:
    function = _unwrapped(function)
    for candidate in (function, getattr(function, "__func__", None), getattr(function, "__call__", None)):  # noqa: B004
        code = getattr(candidate, "__code__", None)
        if isinstance(code, CodeType):
            return code
    return None


def _unwrapped(function: Any) -> Any:
    return _unwrapped(function.func) if isinstance(function, functools.partial) else function


def _source_of(function: Any, code: CodeType | None) -> str:
    """The text of a lambda on one line, where its file can be read; the name of another function."""
    if code is None or code.co_name != "<lambda>":
        inner = _unwrapped(function)
        return str(getattr(inner, "__qualname__", None) or type(inner).__qualname__)
    text = "".join(linecache.getlines(code.co_filename))
    found = _lambdas(text).get(code.co_firstlineno, [])
    if len(found) > 1:
        found = [node for node in found if _is_compiled_from(node, code)]
    bodies = {ast.get_source_segment(text, node.body) or "" for node in found}
    body = " ".join(bodies.pop().split()) if len(bodies) == 1 else "..."
    return f"lambda {', '.join(code.co_varnames[: code.co_argcount])}: {body}".replace("lambda :", "lambda:")


@functools.lru_cache(16)
def _lambdas(text: str) -> dict[int, list[ast.Lambda]]:
    """Line -> the lambdas that begin there."""
    found: dict[int, list[ast.Lambda]] = {}
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return found
    for node in ast.walk(tree):
        if isinstance(node, ast.Lambda):
            found.setdefault(node.lineno, []).append(node)
    return found


def _is_compiled_from(node: ast.Lambda, code: CodeType) -> bool:
    made = compile(ast.Expression(node), "", "eval").co_consts[0]
    return isinstance(made, CodeType) and _content(made) == _content(code)


def _content(code: CodeType) -> Any:
    return (
        code.co_code,
        code.co_names,
        code.co_varnames,
        [c for c in code.co_consts if type(c) is not CodeType],
    )


# -- where a value is mounted ------------------------------------------------------------------------------


def rooted(values: Mapping[Any, Any]) -> dict[Any, Any]:
    """The same values, of which the derived ones read from the top of this mapping, wherever it is mounted."""
    return _changed(dict(values), lambda text, path: _at(text, len(path)))  # type: ignore[no-any-return]


def as_subtree(branch: Branch) -> Branch:
    """The same tree, reading its own keys first wherever it is mounted.

    `${lr}` in it becomes its own `lr` if it has one, and stays that of the whole configuration otherwise.
    """
    own = frozenset(map(str, branch.children))

    def bound(text: str, path: Path) -> str:
        return _at(text, len(path)) if isinstance(text, Derived) else rebound(text, own, len(path))

    return _changed_branch(branch, bound, ())


def anchored(values: dict[Any, Any], config: Any) -> dict[Any, Any]:
    """The plain `values` of `config`, whose derived ones know without its dataclasses what they were written in."""

    def known(text: str, path: Path) -> str:
        if not isinstance(text, Derived) or text.distance is not None:
            return text
        return text.at(len(_containers(text, node_at(config, path))))

    if any(value.distance is None for _, value in derived_in(values)):
        return _changed(values, known)  # type: ignore[no-any-return]
    return values


def derived_in(values: Any, path: Path = ()) -> Iterator[tuple[Path, Derived]]:
    """The derived values in plain data, and the keys that lead to them."""
    if isinstance(values, Derived):
        yield path, values
    elif isinstance(values, (dict, list, tuple)):
        for key, value in values.items() if isinstance(values, dict) else enumerate(values):
            yield from derived_in(value, (*path, key))


def _at(text: str, distance: int) -> str:
    return text.at(distance) if isinstance(text, Derived) else text


def _changed(value: Any, change: Callable[[str, Path], str], path: Path = ()) -> Any:
    """Nested plain data with each text changed, by what it is and where it stands."""
    if isinstance(value, str):
        return change(value, path)
    if type(value) is dict:
        return {key: _changed(part, change, (*path, key)) for key, part in value.items()}
    if type(value) is list or type(value) is tuple:
        return type(value)(_changed(part, change, (*path, i)) for i, part in enumerate(value))
    return value


def _changed_branch(branch: Branch, change: Callable[[str, Path], str], path: Path) -> Branch:
    result = Branch()
    result.removed, result.whole = branch.removed, branch.whole
    for key, child in branch.children.items():
        here = (*path, key)
        if isinstance(child, Branch):
            result.children[key] = _changed_branch(child, change, here)
        else:
            result.children[key] = tuple(
                one._replace(value=_changed(one.value, change, here)) for one in child
            )
    return result


def _containers(value: Derived, node: Any) -> list[Any]:
    """The containers from a value up to the mapping that it was written in."""
    up = [node._get_parent_container()]
    while len(up) != value.distance and (parent := up[-1]._get_parent_container()) is not None:
        is_class = isinstance(up[-1], DictConfig) and OmegaConf.get_type(up[-1]) is not dict
        if value.distance is None and is_class:
            break
        up.append(parent)
    return up


# -- what it gives -----------------------------------------------------------------------------------------


class Evaluation:
    """What was computed of one configuration while nobody modifies it.

    Parameters
    ----------
    root: of the configuration.
    """

    def __init__(self, root: Any) -> None:
        self.root = root
        self.reads: dict[str, dict[str, None]] = {}
        """Key of a derived value -> keys that it read, in that order."""
        # with the node, so that its id is not given to another
        self._results: dict[int, tuple[Node, Any]] = {}
        self._open: list[str] = []

    @property
    def needs(self) -> dict[str, tuple[str, ...]]:
        return {key: tuple(read) for key, read in self.reads.items()}

    def value_of(self, node: Any) -> Any:
        """The value of a node that holds a derived value; computed once."""
        if id(node) not in self._results:
            self._results[id(node)] = (node, self._computed(node))
        return self._results[id(node)][1]

    def _computed(self, node: Any) -> Any:
        value, key = node._value(), dotted(path_of(node))
        if not isinstance(value, Derived):
            raise DerivationError(
                f"config key {key}: {value} is a derived value; its function is not in the file",
                hint="write a value, or an interpolation: ${mul:${batch_size},0.01}",
            )
        if key in self._open:
            raise DerivationError(*cycle_message(self._cycle(key)))
        self.reads[key] = {}
        self._open.append(key)
        try:
            given = [_view(_containers(value, node)[-1], self)]
            if _takes_two(value.function):
                given.append(_view(node._get_root(), self))
            return _fitting(value.function(*given), value, node, key)
        except DerivationError:
            raise
        except RecursionError as error:
            raise DerivationError(
                f"config key {key}: computed through too many other keys, or without end"
            ) from error
        except Exception as error:
            traceback = error.__traceback__  # which begins in the function; of one written in C there is none
            cause = error.with_traceback(traceback and traceback.tb_next)
            raise DerivationError(
                f"config key {key}: {value.described} failed: {type(error).__name__}: {first_line(error)}"
            ) from cause
        finally:
            self._open.pop()

    def note(self, parent: Any, key: Any, node: Any) -> None:
        """The function that is being called reads this key."""
        if self._open and not (isinstance(node, DictConfig) and isinstance(node._content, dict)):
            self.reads[self._open[-1]][dotted((*path_of(parent), key))] = None

    def _cycle(self, key: str) -> list[str]:
        """The keys from `key` back to itself, those among them that are interpolations included."""
        values = OmegaConf.to_container(self.root, resolve=False)
        return cycle(needs_of(values, self.needs), key) or [*self._open[self._open.index(key) :], key]


_current: ContextVar[Evaluation | None] = ContextVar("runctx_evaluation", default=None)


@contextmanager
def evaluation(config: Container) -> Iterator[Evaluation]:
    """While it is open nothing is assigned, so that each value is computed once; opened within itself it is one."""
    root, outer = config._get_root(), _current.get()
    if outer is not None and outer.root is root:
        yield outer
        return
    token = _current.set(inner := Evaluation(root))
    try:
        yield inner
    finally:
        _current.reset(token)


class _View(DictConfig):
    """A mapping as a function sees it: a configuration like any other, but read-only, and it tells what is read.

    It is read-only by itself: a flag on the configuration would be seen by other threads, which put it back in the
    wrong order.
    """

    def _get_node(self, key: Any, *args: Any, **kwargs: Any) -> Any:
        mapping, current = self.__dict__["_seen"]
        node = mapping._get_node(key, *args, **kwargs)
        if isinstance(node, Node):
            current.note(mapping, key, node)
        return _view(node, current) if _is_mapping(node) else node

    def _get_impl(self, key: Any, default_value: Any, *args: Any, **kwargs: Any) -> Any:
        mapping, current = self.__dict__["_seen"]
        node = mapping._get_node(key, validate_access=False)
        if isinstance(node, Node):
            current.note(mapping, key, node)
        if isinstance(node, ValueNode) and isinstance(node._value(), Derived):
            return _view(current.value_of(node), current)  # as OmegaConf would, through many more calls
        return _view(mapping._get_impl(key, default_value, *args, **kwargs), current)


def _view(value: Any, current: Evaluation) -> Any:
    """`value` for reading only."""
    if isinstance(value, ListConfig):
        value = value.copy()
        OmegaConf.set_readonly(value, True)
    if not _is_mapping(value) or isinstance(value, _View):
        return value
    view = object.__new__(_View)
    view.__dict__.update(value.__dict__)
    metadata = view.__dict__["_metadata"] = copy.copy(value._metadata)
    metadata.flags = {**(metadata.flags or {}), "readonly": True}
    view.__dict__["_flags_cache"] = None
    view.__dict__["_seen"] = (value, current)
    return view


def _is_mapping(value: Any) -> bool:
    return isinstance(value, DictConfig) and isinstance(value._content, dict)


def _takes_two(function: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # some functions written in C
        return False
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.kind in positional and p.default is p.empty for p in parameters) >= 2


def _fitting(result: Any, value: Derived, node: Any, key: str) -> Any:
    """`result` in a type that the node can hold."""
    try:
        if isinstance(result, (DictConfig, ListConfig)):
            result = OmegaConf.to_container(result, resolve=True)
        result = held(result, key)
        is_nested = isinstance(result, (dict, list)) or hasattr(result, "__dataclass_fields__")
        if isinstance(node, ValueNode) and not (isinstance(node, AnyNode) and is_nested):
            return node.validate_and_convert(result)
        if isinstance(node, Container) and (result is not None or not node._is_optional()):
            return _as_container(result, node)
        return OmegaConf.create(result) if is_nested else result
    except (OmegaConfBaseException, ConfigError, TypeError) as error:
        hint = node._metadata.ref_type
        wanted = "a value that a configuration can hold" if hint is Any else type_text(hint)
        wanted += " or None" if hint is not Any and node._metadata.optional else ""
        raise DerivationError(
            f"config key {key}: {value.described} gave {short(result)} of type {type(result).__name__}, not {wanted}"
        ) from error


def _as_container(result: Any, node: Container) -> Any:
    hint = node._metadata.type_hint
    if isinstance(result, list) and issubclass(get_origin(required(hint)[0]) or object, tuple):
        result = tuple(result)
    holder = OmegaConf.structured(make_dataclass("Holder", [("value", hint, "???")]))
    OmegaConf.unsafe_merge(holder, {"value": result})  # which, unlike setting, makes a dataclass of a mapping
    fitting: Any = holder._get_node("value")
    fitting._set_parent(None)
    return fitting


def _resolve(*_: Any, _node_: Any) -> Any:
    with evaluation(_node_) as current:
        return current.value_of(_node_)


register("derived", _resolve)
_dumper: Any = get_omega_conf_dumper()  # OmegaConf.to_yaml would write a pickle
_dumper.add_representer(Derived, lambda self, value: _dumper.str_representer(self, str(value)))
