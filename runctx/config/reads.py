"""Note which keys of a configuration are read, and find those that were set on the command line in vain.

Each leaf gets a subclass of its class. Its first reading notes the key and gives the leaf its old class back:
from then on, reading it costs what it costs in any configuration.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from types import FrameType
from typing import Any

from omegaconf import DictConfig, Node

from ..errors import ConfigError
from .interpolations import children_of, path_of
from .layers import Path, Setting, dotted, leaves
from .messages import did_you_mean
from .origins import Trace, trace_of, tree_of
from .resolve import SUMS, to_plain


def watch(config: DictConfig) -> None:
    """Note from now on which keys of `config` are read, by whoever holds it or a copy of it.

    Reading is every way to get at a value: attribute, item, `get`, `**config`, iteration, `OmegaConf.select`,
    `to_container`, interpolation, comparison, and pickling, which hands all values on. A list is one key.
    Printing, `OmegaConf.to_yaml`, completion and copying are none. Watching twice changes nothing; a
    configuration without layers is left alone.

    >>> from runctx.config.assemble import assemble
    >>> from runctx.config.layers import Layer, tree
    >>> values = {"opt": {"lr": 0.1, "name": "sgd"}}
    >>> config = assemble(DictConfig({}), tree(values, Layer(kind="override", name="argument 1")))
    >>> watch(config)
    >>> print(config)
    {'opt': {'lr': 0.1, 'name': 'sgd'}}
    >>> __name__ = "train"  # for this package only looks
    >>> rate = config.opt.lr
    >>> keys_read(config), never_read(config).keys()
    (('opt.lr',), dict_keys(['opt.name']))
    """
    trace = trace_of(config)
    if trace is None:
        return
    trace.forks = _forks
    for path, leaf in _leaves(config, path_of(config)):
        watch = leaf.__dict__.get(_WATCH)
        if watch is None:
            _arm(leaf, type(leaf), _Watch(trace.reads, path, None))
        elif not watch.notes_in(
            trace.reads
        ):  # a copy of a leaf of another configuration, which wants to know, too
            leaf.__dict__[_WATCH] = _Watch(trace.reads, path, watch)


def plain_of(config: DictConfig, key: str | None = None) -> Any:
    """The values, or those at a dotted key, as dicts, lists, strings and numbers; they have been read then.

    Raises
    ------
    ConfigError: there is no such key.

    >>> plain_of(DictConfig({"opt": {"betas": [0.9, 0.99]}}), "opt")
    {'betas': [0.9, 0.99]}
    """
    found: Any = to_plain(config)
    known = [dotted(path) for path, _ in leaves(tree_of(config))]
    for name in key.split(".") if key else ():
        parts = (
            found.items() if isinstance(found, dict) else enumerate(found if isinstance(found, list) else ())
        )
        named = [part for each, part in parts if str(each) == name]
        if not named:
            raise ConfigError(f"unknown key {key!r}", hint=did_you_mean(key or "", known))
        found = named[0]
    trace = trace_of(config)
    if trace is not None:
        trace.reads.update(each for each in known if not key or f"{each}.".startswith(f"{key}."))
    return found


@contextlib.contextmanager
def unnoticed() -> Iterator[None]:
    """Pickling a configuration within the block does not count as reading it."""
    token = _unnoticed.set(True)
    try:
        yield
    finally:
        _unnoticed.reset(token)


_unnoticed: ContextVar[bool] = ContextVar("runctx_unnoticed", default=False)


def keys_read(config: DictConfig) -> tuple[str, ...]:
    """Dotted keys that were read, and what those were computed from; sorted."""
    trace = trace_of(config)
    return tuple(sorted(_with_needs(trace, _read_of(trace)))) if trace else ()


def never_read(config: DictConfig) -> dict[str, Setting]:
    """Keys that a command line set and nobody read: they are misspelled, or have no effect.

    A key that was read of a configuration below this one, such as that given to `merged`, has had its effect.
    No key, if the process was forked meanwhile: what a child reads, as a worker that loads data does, is not known.
    """
    trace = trace_of(config)
    if trace is None or trace.forks != _forks:
        return {}
    winners = {dotted(path): leaf[-1] for path, leaf in leaves(trace.tree)}
    wanted = {key: won for key, won in winners.items() if won.layer.kind in ("override", "overrides file")}
    read = _with_needs(trace, _read_of(trace, below=True)) if wanted else set()
    return {key: won for key, won in wanted.items() if key not in read}


def _with_needs(trace: Trace, read: list[str]) -> set[str]:
    """These keys, and what they were computed from; the run itself reads `save_dir`."""
    found: set[str] = set()
    ahead = [*read, *({"save_dir"} & trace.tree.children.keys())]
    while ahead:
        key = ahead.pop()
        if key not in found:
            found.add(key)
            ahead.extend(trace.needs.get(key, ()))
    return found


def _read_of(trace: Trace, *, below: bool = False) -> list[str]:
    """With `below`, also what was read of the configurations that this one was laid upon."""
    read = [*trace.reads]  # at once: another thread may be reading
    for reads in trace.below if below else ():
        read += [*reads]
    if trace.within:
        whole, key = trace.within
        inside = (each for each in _read_of(whole, below=below) if each.startswith(f"{key}."))
        read += [each.removeprefix(f"{key}.") for each in inside]
    return read


_forks = 0


def _count_fork() -> None:
    global _forks
    _forks += 1


if hasattr(os, "register_at_fork"):  # not where processes cannot be forked
    os.register_at_fork(after_in_parent=_count_fork)


# -- leaves that were not read yet ---------------------------------------------------------------------------------

_WATCH = "_runctx_watch"
"""Name under which a leaf keeps its watch, in its `__dict__`."""

_GIVING = ("_value", "__len__", "_get_node", "_iter_ex")
"""Methods through which OmegaConf 2.3 and 2.4 get at what a leaf or a list holds, if it has them."""


class _Watch:
    """Where a leaf notes that it was read, its copies in other configurations included."""

    __slots__ = ("copied_from", "path", "reads")

    def __init__(self, reads: set[str], path: Path, copied_from: _Watch | None) -> None:
        self.reads = reads
        self.path = path
        self.copied_from = copied_from

    def notes_in(self, reads: set[str]) -> bool:
        return self.reads is reads or (self.copied_from is not None and self.copied_from.notes_in(reads))

    def note(self) -> None:
        self.reads.add(dotted(self.path))
        if self.copied_from is not None:
            self.copied_from.note()

    def __deepcopy__(self, memo: Any) -> _Watch:
        return self


def _leaves(config: Any, path: Path) -> Iterator[tuple[Path, Node]]:
    """Nodes that hold a value, as they are: a list is one, and so is a mapping that is None, `???` or `${...}`."""
    if not isinstance(config, DictConfig) or not isinstance(config.__dict__["_content"], dict):
        yield path, config
        return
    for key, node in children_of(config):
        yield from _leaves(node, (*path, key))


def _arm(leaf: Node, plain: type, watch: _Watch) -> None:
    leaf.__dict__[_WATCH] = watch
    object.__setattr__(leaf, "__class__", _watched(plain))  # nodes of containers refuse, or take it for a key


def _disarm(leaf: Node, plain: type, note: bool = True) -> None:
    # first the class: a leaf of that class always has its watch, whichever thread looks
    object.__setattr__(leaf, "__class__", plain)
    watch = leaf.__dict__.pop(_WATCH, None)
    if watch is not None and note:
        watch.note()


@functools.cache
def _watched(plain: Any) -> type:
    """A subclass that looks like `plain`, and notes its first reading."""

    def copied(self: Any, memo: Any) -> Any:
        watch = self.__dict__.get(_WATCH)
        twin = plain.__deepcopy__(self, memo)
        if watch is not None:
            _arm(twin, plain, watch)
        return twin

    def pickled(self: Any, protocol: Any) -> Any:
        _disarm(self, plain, note=not _unnoticed.get())
        return self.__reduce_ex__(protocol)

    def noticed(method: Callable[..., Any]) -> Callable[..., Any]:
        def giving(self: Any, *args: Any, **kwargs: Any) -> Any:
            if _is_reading(sys._getframe(1)):
                _disarm(self, plain)
            return method(self, *args, **kwargs)

        return giving

    body = {name: noticed(getattr(plain, name)) for name in _GIVING if hasattr(plain, name)}
    body |= {"__reduce_ex__": pickled, "__module__": plain.__module__, "__qualname__": plain.__qualname__}
    if hasattr(plain, "__deepcopy__"):
        body["__deepcopy__"] = copied
    made: type = type(plain)(plain.__name__, (plain,), body)
    return made


# -- who uses the value --------------------------------------------------------------------------------------------

_INSPECTING = frozenset({"_is_missing_value", "_is_interpolation", "_is_none"})
"""Functions of OmegaConf that look at a value without handing it on; who hands it on asks again."""

_SETTLED_BY_NONE = frozenset({"_to_content", "_item_eq"})
"""Functions of OmegaConf that ask no further where a value is None: for them, looking is reading."""

_TELLING = frozenset({"to_yaml", "missing_keys", "format_and_raise"})
"""Functions of OmegaConf that show a configuration to a person, or say what is wrong with it."""

_LOOKING = frozenset({"runctx", "IPython", "jedi", "debugpy", "pydevd", "_pydevd_bundle"})
"""Packages that look at values without using them: this one, completion and debuggers."""

_PASSING = frozenset({"omegaconf", "collections", "_collections_abc", "inspect", "antlr4"})
"""Packages that ask on behalf of their caller."""


def _is_reading(frame: FrameType | None) -> bool:
    """True if the calls that end in `frame` are going to use the value; in doubt, True.

    It looks at the whole stack, which is affordable because nobody asks once a leaf has been read.
    """
    assert frame is not None
    asker = frame.f_back
    if frame.f_code.co_name in _INSPECTING and asker and asker.f_code.co_name not in _SETTLED_BY_NONE:
        return False
    reader: str | None = None
    while frame is not None:
        module = str(frame.f_globals.get("__name__"))
        package = module.partition(".")[0]
        if package not in _PASSING and frame.f_code not in SUMS:
            reader = reader or package
        elif module == "omegaconf.grammar_visitor":
            reader = None  # what a resolver or a derived value reads is read for whoever asked for its result
        elif package == "omegaconf" and frame.f_code.co_name in _TELLING:
            return False
        frame = frame.f_back
    return reader not in _LOOKING
