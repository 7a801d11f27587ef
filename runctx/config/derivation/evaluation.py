"""What does a derived value give, and what did it read for that?"""

from __future__ import annotations

import inspect
import pickle
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import make_dataclass
from pathlib import Path as FilePath
from types import CodeType
from typing import Any, NoReturn, get_origin

from omegaconf import AnyNode, Container, DictConfig, ListConfig, Node, OmegaConf, ValueNode
from omegaconf._utils import get_omega_conf_dumper
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException

from ...errors import ConfigError
from ..classes import type_text
from ..held import held
from ..layers import Path, dotted
from ..messages import first_line, short
from ..values import required
from .references import cycle, needs_of
from .resolvers import register
from .view import PASS, view


class DerivationError(ConfigError, InterpolationResolutionError):
    """A derived value cannot be computed."""

    _initialized = True  # tells OmegaConf that the message is complete
    is_located = True
    """Whether the message says in which file the fault is."""


def failure_of(error: BaseException) -> BaseException | None:
    """The error of the function that failed; OmegaConf 2.3 takes the cause of what passes through it."""
    is_ours = isinstance(error, DerivationError) and error.is_located
    return error.__cause__ or (error.__context__ if is_ours else None)


class Derived(str):
    """A function whose result is the value, as a text that OmegaConf takes for an interpolation.

    OmegaConf keeps this very object in the node, through copies and merges.
    """

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
        self = super().__new__(cls, _call_text(source, place))
        self.function, self.source, self.place, self.distance = function, source, place, distance
        return self

    def at(self, distance: int) -> Derived:
        """The same, if the distance is known already; else written that far below the top."""
        return (
            self if self.distance is not None else Derived(self.function, self.source, self.place, distance)
        )

    @property
    def described(self) -> str:
        """For messages."""
        file, line = self.place
        return f"({self.source})" + (f" at {file}:{line}" if file else "")

    def __repr__(self) -> str:
        return f"<derived: {self.source}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Derived) and _same_function(self.function, other.function)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = str.__hash__

    def __deepcopy__(self, memo: Any) -> Derived:
        return self

    def __reduce__(self) -> Any:
        from ... import byvalue

        return _unpickled, (byvalue.dumps(self.function), self.source, self.place, self.distance)

    def _not_computed(self, *_: Any) -> NoReturn:
        raise TypeError(
            f"{self!r} is not computed: a dataclass by itself holds only the function\n"
            "hint: read it from run.cfg, or from from_cli(Config)"
        )

    # a text times 2 would be the text twice; the others say what is wrong better than a text does
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _not_computed
    __floordiv__ = __rfloordiv__ = __mod__ = __pow__ = __rpow__ = __neg__ = __abs__ = _not_computed
    __lt__ = __le__ = __gt__ = __ge__ = _not_computed
    __round__ = __int__ = __float__ = __index__ = _not_computed

    def __format__(self, spec: str) -> str:
        return self._not_computed() if spec else str(self)


def _unpickled(function: bytes, source: str, place: tuple[str, int], distance: int | None) -> Derived:
    return Derived(pickle.loads(function), source, place, distance)  # noqa: S301  # part of a pickle itself


def _call_text(source: str, place: tuple[str, int]) -> str:
    """A call of our resolver whose argument tells a reader what it stands for."""
    label = source
    if "\\" in source or "${" in source or len(source) > 200 or ("'" in source and '"' in source):
        label = f"{FilePath(place[0]).name}:{place[1]}"
    quote = '"' if "'" in label else "'"
    return f"${{derived:{quote}{re.sub(r'[^ -~]', '?', label) if quote not in label else ''}{quote}}}"


def _same_function(a: Any, b: Any) -> bool:
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
        self._results: dict[
            int, tuple[Node, Any]
        ] = {}  # with the node, so that its id is not given to another
        self._open: list[str] = []

    def value_of(self, node: Any) -> Any:
        """The value of a node that holds a derived value; computed once."""
        known = self._results.get(id(node))
        if known is None:
            known = self._results[id(node)] = (node, self._computed(node))
        return known[1]

    def _computed(self, node: Any) -> Any:
        value, key = node._value(), dotted(path_of(node))
        if not isinstance(value, Derived):
            raise DerivationError(
                f"config key {key}: {value} is a derived value; its function is not in the file",
                hint="write a value, or an interpolation: ${mul:${batch_size},0.01}",
            )
        if key in self._open:
            raise DerivationError(*told_of_cycle(self._cycle(key)))
        self.reads[key] = {}
        self._open.append(key)
        try:
            return _fitting(self._called(value, node), value, node, key)
        except DerivationError:
            raise
        except RecursionError as error:
            raise DerivationError(
                f"config key {key}: computed through too many other keys, or without end"
            ) from error
        except Exception as error:
            raise DerivationError(
                f"config key {key}: derived value {value.described} failed: {type(error).__name__}: {first_line(error)}"
            ) from _without_our_frames(error)
        finally:
            self._open.pop()

    def _called(self, value: Derived, node: Any) -> Any:
        given = [view(_written_in(value, node), self._read)]
        if _takes_two(value.function):
            given.append(view(node._get_root(), self._read))
        return value.function(*given)

    def _read(self, parent: Any, key: Any, node: Any) -> Any:
        """Note what is read, and give it at once if it is derived itself."""
        if self._open and not (isinstance(node, DictConfig) and isinstance(node._content, dict)):
            self.reads[self._open[-1]][dotted((*path_of(parent), key))] = None
        if isinstance(node, ValueNode) and isinstance(node._value(), Derived):
            return self.value_of(node)  # as OmegaConf would, through many more calls
        return PASS

    def _cycle(self, key: str) -> list[str]:
        """The keys from `key` back to itself, those among them that are interpolations included."""
        values = OmegaConf.to_container(self.root, resolve=False)
        needs = needs_of(values, {k: tuple(read) for k, read in self.reads.items()})
        return cycle(needs, key) or [*self._open[self._open.index(key) :], key]


def _without_our_frames(error: Exception) -> Exception:
    """With the traceback that begins in the function that was called; of one written in C there is none."""
    ours = error.__traceback__
    return error.with_traceback(ours and ours.tb_next and ours.tb_next.tb_next)


def told_of_cycle(keys: list[str]) -> tuple[str, str]:
    """Message and hint of an error."""
    return f"config keys are computed from each other: {' -> '.join(keys)}", "give one of them a value"


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


def path_of(node: Any) -> Path:
    """The keys that lead to a node."""
    keys: list[Any] = []
    while (parent := node._get_parent_container()) is not None:
        keys.append(node._key())
        node = parent
    return tuple(reversed(keys))


def derived_in(values: Any, path: Path = ()) -> Iterator[tuple[Path, Derived]]:
    """The derived values in plain data, and the keys that lead to them."""
    if isinstance(values, Derived):
        yield path, values
    elif isinstance(values, (dict, list, tuple)):
        for key, value in values.items() if isinstance(values, dict) else enumerate(values):
            yield from derived_in(value, (*path, key))


def anchored(values: dict[Any, Any], config: Any) -> dict[Any, Any]:
    """The plain `values` of `config`, whose derived ones know without its dataclasses what they were written in."""
    if any(value.distance is None for _, value in derived_in(values)):
        values = {key: _anchored(value, config._get_node(key)) for key, value in values.items()}
    return values


def _anchored(value: Any, node: Any) -> Any:
    if isinstance(value, Derived):
        return value.at(len(_climbed(value, node)))
    if isinstance(value, dict):
        return {key: _anchored(part, node._get_node(key)) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_anchored(part, node._get_node(i)) for i, part in enumerate(value))
    return value


def _written_in(value: Derived, node: Any) -> Any:
    """The mapping that a derived value was written in."""
    return _climbed(value, node)[-1]


def _climbed(value: Derived, node: Any) -> list[Any]:
    """The containers from a value up to the mapping that it was written in."""
    up = [node._get_parent_container()]
    while len(up) != value.distance and (parent := up[-1]._get_parent_container()) is not None:
        if (
            value.distance is None
            and isinstance(up[-1], DictConfig)
            and OmegaConf.get_type(up[-1]) is not dict
        ):
            break
        up.append(parent)
    return up


def _takes_two(function: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # some functions written in C
        return False
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return len([p for p in positional if p.default is p.empty]) >= 2


def _fitting(result: Any, value: Derived, node: Any, key: str) -> Any:
    """`result` in a type that the node can hold."""
    try:
        if isinstance(result, (DictConfig, ListConfig)):
            result = OmegaConf.to_container(result, resolve=True)
        result = held(result, key)
        if isinstance(node, ValueNode) and not (isinstance(node, AnyNode) and _is_nested(result)):
            return node.validate_and_convert(result)
        if isinstance(node, Container) and (result is not None or not node._is_optional()):
            return _as_container(result, node)
        return OmegaConf.create(result) if _is_nested(result) else result
    except (OmegaConfBaseException, ConfigError, TypeError) as error:
        raise DerivationError(
            f"config key {key}: derived value {value.described} gave {short(result)} of type "
            f"{type(result).__name__}, not {_type_name(node)}"
        ) from error
    return result


def _as_container(result: Any, node: Container) -> Any:
    hint = node._metadata.type_hint
    if isinstance(result, list) and issubclass(get_origin(required(hint)[0]) or object, tuple):
        result = tuple(result)
    holder = OmegaConf.structured(make_dataclass("Holder", [("value", hint, "???")]))
    OmegaConf.unsafe_merge(holder, {"value": result})  # which, unlike setting, makes a dataclass of a mapping
    fitting: Any = holder._get_node("value")
    fitting._set_parent(None)
    return fitting


def _type_name(node: Any) -> str:
    hint = node._metadata.ref_type
    if hint is Any:
        return "a value that a configuration can hold"
    name = type_text(hint)
    return f"{name} or None" if node._metadata.optional else name


def _is_nested(value: Any) -> bool:
    return isinstance(value, (dict, list)) or hasattr(value, "__dataclass_fields__")


def _resolve(*_: Any, _node_: Any) -> Any:
    with evaluation(_node_) as current:
        return current.value_of(_node_)


register("derived", _resolve)
_dumper: Any = get_omega_conf_dumper()  # OmegaConf.to_yaml would write a pickle
_dumper.add_representer(Derived, lambda self, value: _dumper.str_representer(self, str(value)))
