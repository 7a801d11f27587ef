"""What does a value computed from other values read, and what does it give?

A derived value is a text that OmegaConf takes for an interpolation, and that carries its function with it: through
copies, merges and pickles. So it is computed on reading, from whatever the configuration holds by then.
"""

from __future__ import annotations

import linecache
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path as FilePath
from types import CodeType
from typing import Any, NoReturn, TypeVar

from omegaconf import DictConfig, ListConfig, Node, OmegaConf, ValidationError, ValueNode
from omegaconf._utils import get_omega_conf_dumper
from omegaconf.errors import InterpolationResolutionError

from ..errors import ConfigError
from .layers import Branch, Leaf, Path, dotted
from .references import rebound

T = TypeVar("T")


class DerivationError(ConfigError, InterpolationResolutionError):
    """A derived value cannot be computed."""

    _initialized = True  # for OmegaConf: complete, to be passed on as it is


class Derived(str):
    """The function of a derived value, as a text that OmegaConf takes for an interpolation."""

    __slots__ = ("distance", "function", "place", "source")

    function: Callable[..., Any]
    source: str
    """The text of the function, or its name."""
    place: tuple[str, int]
    """File and line of the function; ("", 0) where that is unknown."""
    distance: int | None
    """How many containers lie from the value to the top of the mapping it was written in, that one included;
    None for the nearest dataclass, or else the root."""

    def __new__(
        cls,
        function: Callable[..., Any],
        source: str,
        place: tuple[str, int],
        distance: int | None = None,
    ) -> Derived:
        self = super().__new__(cls, _interpolation(source, place))
        self.function, self.source, self.place, self.distance = function, source, place, distance
        return self

    def at(self, distance: int) -> Derived:
        """The same, written that far below the top."""
        return Derived(self.function, self.source, self.place, distance)

    def __repr__(self) -> str:
        return f"<derived: {self.source}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Derived) and (self.function is other.function) and str.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = str.__hash__

    def __deepcopy__(self, memo: Any) -> Derived:
        return self

    def __reduce__(self) -> Any:
        import cloudpickle

        return _unpickled, (cloudpickle.dumps(self.function), self.source, self.place, self.distance)

    def _not_computed(self, *_: Any) -> NoReturn:
        raise TypeError(
            f"{self!r} is not computed yet: an instance of the dataclass holds only its function\n"
            "hint: read it from run.cfg, from_cli(Config) or OmegaConf.structured(Config)"
        )

    # what a text would do without complaint, where a number was meant
    __add__ = __radd__ = __mul__ = __rmul__ = __mod__ = __rmod__ = _not_computed
    __float__ = __int__ = __index__ = _not_computed


def derived(fn: Callable[..., T]) -> T:
    """A value computed from others of the configuration, whenever it is read; `Run` computes it once.

    Parameters
    ----------
    fn: is given the mapping that the value was written in: of a field the dataclass, in a Python config file or a
        dict its top, wherever that is mounted. A second parameter, if it has one, is the root of the whole
        configuration. It cannot modify them.

    Raises
    ------
    ConfigError: on reading: `fn` raised, gave a value of a wrong type, or reads itself; the message names the key.

    >>> from omegaconf import OmegaConf
    >>> cfg = OmegaConf.create({"batch_size": 256, "lr": derived(lambda c: 0.01 * c.batch_size / 128)})
    >>> cfg.lr
    0.02
    >>> cfg.batch_size = 128
    >>> cfg.lr
    0.01
    """
    if not callable(fn):
        raise ConfigError(
            f"derived() was given {fn!r}", hint="give a function: derived(lambda c: 2 * c.width)"
        )
    return Derived(fn, _source(fn), _place(fn))  # type: ignore[return-value]


def source_of(value: Derived) -> str:
    """The text of a lambda, the name of another function."""
    return value.source


def where(value: Derived) -> tuple[str, int]:
    """File and line of the function; ("", 0) where that is unknown."""
    return value.place


def _unpickled(function: bytes, source: str, place: tuple[str, int], distance: int | None) -> Derived:
    import cloudpickle

    return Derived(cloudpickle.loads(function), source, place, distance)


# -- where it was written ------------------------------------------------------------------------------------------


def rooted(values: Mapping[Any, Any]) -> dict[Any, Any]:
    """`values`, whose derived values read from here, wherever it is mounted later."""
    return {key: _rooted(value, 1) for key, value in values.items()}


def _rooted(value: Any, distance: int) -> Any:
    if isinstance(value, Derived):
        return value.at(distance) if value.distance is None else value
    if type(value) is dict:
        return {k: _rooted(v, distance + 1) for k, v in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_rooted(v, distance + 1) for v in value)
    return value


def as_subtree(branch: Branch) -> Branch:
    """`branch`, reading its own keys first, wherever it is mounted: `${lr}` in it is its own `lr` if it has one."""
    own = frozenset(map(str, branch.children))
    return _bound(branch, own, 1)


def _bound(branch: Branch, own: frozenset[str], distance: int) -> Branch:
    result = Branch()
    result.removed, result.whole = branch.removed, branch.whole
    for key, child in branch.children.items():
        if isinstance(child, Branch):
            result.children[key] = _bound(child, own, distance + 1)
        else:
            result.children[key] = _bound_leaf(child, own, distance)
    return result


def _bound_leaf(leaf: Leaf, own: frozenset[str], distance: int) -> Leaf:
    return tuple(setting._replace(value=_bound_value(setting.value, own, distance)) for setting in leaf)


def _bound_value(value: Any, own: frozenset[str], distance: int) -> Any:
    if isinstance(value, Derived):
        return _rooted(value, distance)
    if isinstance(value, str):
        return rebound(value, own, distance) if "${" in value else value
    if type(value) is dict:
        return {k: _bound_value(v, own, distance + 1) for k, v in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_bound_value(v, own, distance + 1) for v in value)
    return value


# -- computing -----------------------------------------------------------------------------------------------------


class Evaluation:
    """What was computed so far, and by whom what is being read."""

    def __init__(self) -> None:
        self.values: dict[int, tuple[Node, Any]] = {}  # the node too, so that its id is not given to another
        self.needs: dict[str, dict[str, None]] = {}
        self.trail: list[tuple[Node | None, str]] = []


_current: ContextVar[Evaluation | None] = ContextVar("runctx_evaluation", default=None)


@contextmanager
def evaluation() -> Iterator[Evaluation]:
    """While it is open nothing is assigned by others, so that each value is computed once."""
    outer = _current.get()
    if outer is not None:
        yield outer
        return
    token = _current.set(inner := Evaluation())
    try:
        yield inner
    finally:
        _current.reset(token)


def _resolve(*_: Any, _node_: Any, _parent_: Any, _root_: Any) -> Any:
    value = _node_._value()
    key = dotted(path_of(_node_))
    if not isinstance(value, Derived):
        raise DerivationError(
            f"config key {key}: {value} is a derived value without its function: a text cannot hold it",
            hint="write the value, or an interpolation such as ${mul:${batch_size},0.01}",
        )
    with evaluation() as current:
        known = current.values.get(id(_node_))
        if known is None:
            known = current.values[id(_node_)] = (_node_, _computed(value, _node_, key, current))
        return known[1]


def _computed(value: Derived, node: Any, key: str, current: Evaluation) -> Any:
    if any(other is node for other, _ in current.trail):
        start = next(i for i, (other, _) in enumerate(current.trail) if other is node)
        names = [name for _, name in current.trail[start:]] + [key]
        chain = [a for a, b in zip(names, [*names[1:], ""], strict=True) if a != b]
        raise DerivationError(
            f"config keys read each other in a cycle: {' -> '.join(chain)}", hint="set one of them"
        )
    current.needs.setdefault(key, {})
    current.trail.append((node, key))
    depth = len(current.trail)
    try:
        result = _call(value, node)
    except DerivationError:
        raise
    except Exception as error:
        raise DerivationError(
            f"config key {key}: derived value {_described(value)} failed: {type(error).__name__}: "
            + str(error).split("\n", 1)[0]
        ) from error
    finally:
        del current.trail[depth - 1 :]
    return _fitting(result, value, node, key)


def _described(value: Derived) -> str:
    file, line = value.place
    return f"({value.source})" + (f" at {file}:{line}" if file else "")


def _call(value: Derived, node: Any) -> Any:
    top = _top(value, node)
    if _wants_root(value.function):
        return value.function(_view(top), _view(node._get_root()))
    return value.function(_view(top))


def _wants_root(function: Callable[..., Any]) -> bool:
    code = getattr(function, "__code__", None)
    if code is None:
        return False
    required = code.co_argcount - len(getattr(function, "__defaults__", None) or ())
    return int(required) - (getattr(function, "__self__", None) is not None) >= 2


def _top(value: Derived, node: Any) -> Any:
    """The mapping that the derived value was written in."""
    top, distance = node, 0
    while distance != value.distance and (parent := top._get_parent_container()) is not None:
        top, distance = parent, distance + 1
        if value.distance is None and isinstance(top, DictConfig) and OmegaConf.get_type(top) is not dict:
            break
    return top


def _fitting(result: Any, value: Derived, node: Any, key: str) -> Any:
    """`result` in a type that the node can hold."""
    if isinstance(result, (DictConfig, ListConfig)):
        result = OmegaConf.to_container(result, resolve=True)
    if type(result).__module__ == "numpy" and getattr(result, "ndim", None) == 0:
        result = result.item()
    try:
        if isinstance(node, ValueNode):
            return node.validate_and_convert(result)
    except ValidationError as error:
        raise DerivationError(
            f"config key {key}: derived value {_described(value)} gave {type(result).__name__} {result!r}: "
            + str(error).split("\n", 1)[0]
        ) from error
    return result


def path_of(node: Any) -> Path:
    """The keys that lead to a node."""
    keys = []
    while (parent := node._get_parent_container()) is not None:
        keys.append(node._key())
        node = parent
    return tuple(reversed(keys))


class _View(DictConfig):
    """A mapping that a function reads and cannot modify; it notes what was read.

    A read-only flag on the configuration itself would be seen by other threads, and reset in the wrong order.
    """

    def _get_node(self, key: Any, *args: Any, **kwargs: Any) -> Any:
        original = self.__dict__["_original"]
        node = original._get_node(key, *args, **kwargs)
        if isinstance(node, Node):
            _note(original, key, node)
        return _view(node) if isinstance(node, DictConfig) and not node._is_interpolation() else node

    def _get_impl(self, key: Any, default_value: Any, *args: Any, **kwargs: Any) -> Any:
        original = self.__dict__["_original"]
        node = original._get_node(key, validate_access=False)
        depth = _note(original, key, node) if isinstance(node, Node) else None
        value = original._get_impl(key, default_value, *args, **kwargs)
        if depth is not None and (current := _current.get()):
            del current.trail[depth:]
        return _guarded(value)


def _note(parent: Any, key: Any, node: Any) -> int | None:
    current = _current.get()
    if current is None or not current.trail:
        return None
    reader = next(name for other, name in reversed(current.trail) if other is not None)
    name = dotted((*path_of(parent), key))
    depth = len(current.trail)
    if not isinstance(node, DictConfig) or node._is_interpolation():
        current.needs.setdefault(reader, {})[name] = None
        current.trail.append((None, name))
    return depth


def _view(node: Any) -> Any:
    if not isinstance(node, DictConfig) or isinstance(node, _View):
        return node
    view = object.__new__(_View)
    view.__dict__.update(node.__dict__)
    metadata = view.__dict__["_metadata"] = _copied(node._metadata)
    metadata.flags = {**(metadata.flags or {}), "readonly": True}
    view.__dict__["_flags_cache"] = None
    view.__dict__["_original"] = node
    return view


def _copied(metadata: Any) -> Any:
    import copy

    return copy.copy(metadata)


def _guarded(value: Any) -> Any:
    if isinstance(value, ListConfig):
        value = value.copy()
        OmegaConf.set_readonly(value, True)
        return value
    return _view(value)


# -- how it is called ----------------------------------------------------------------------------------------------


def _place(function: Any) -> tuple[str, int]:
    code = getattr(function, "__code__", None)
    return (code.co_filename, code.co_firstlineno) if isinstance(code, CodeType) else ("", 0)


def _source(function: Any) -> str:
    name = getattr(function, "__qualname__", None) or type(function).__name__
    code = getattr(function, "__code__", None)
    if not isinstance(code, CodeType) or getattr(function, "__name__", "") != "<lambda>":
        return str(name)
    body = _body(code)
    if not body:
        return "lambda"
    names = ", ".join(code.co_varnames[: code.co_argcount])
    return f"lambda {names}: {body}"


def _body(code: CodeType) -> str:
    """The text of a lambda's expression, by the positions of its instructions."""
    import dis

    spans = [
        (p.lineno, p.col_offset, p.end_lineno, p.end_col_offset)
        for i in dis.get_instructions(code)
        if (p := i.positions)
        and p.lineno
        and p.col_offset is not None
        and p.end_col_offset  # else: of no text
    ]
    if not spans:
        return ""
    (first, start), (last, end) = min(s[:2] for s in spans), max(s[2:] for s in spans)
    lines = [linecache.getline(code.co_filename, n).encode() for n in range(first, last + 1)]
    lines[-1] = lines[-1][:end]
    lines[0] = lines[0][start:]
    return " ".join(b" ".join(lines).decode(errors="replace").split())


def _interpolation(source: str, place: tuple[str, int]) -> str:
    """A text that OmegaConf parses as a call of our resolver, and that tells a reader what it stands for."""
    label = source
    if re.search(r"[\\\r\n]|\$\{", source):
        label = f"{FilePath(place[0]).name}:{place[1]}"
    if "'" not in label:
        return f"${{derived:'{label}'}}"
    return '${derived:"' + label.replace('"', "'") + '"}'


def _register() -> None:
    register = getattr(OmegaConf, "register_resolver", None) or OmegaConf.register_new_resolver
    if not OmegaConf.has_resolver("derived"):
        register("derived", _resolve)
    dumper = get_omega_conf_dumper()
    dumper.add_representer(Derived, dumper.str_representer)


_register()
