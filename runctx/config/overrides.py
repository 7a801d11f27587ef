"""Lay overrides upon a configuration: `a.b=1` sets a key, `+a.b=1` adds one, `~a.b` deletes one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from functools import lru_cache
from typing import Any, NamedTuple

from omegaconf import DictConfig

from ..errors import ConfigError
from ..redact import REDACTED, Redactor
from . import values
from .assemble import marker_meant
from .compose import choose, composition_of, is_choice
from .compose import lay as lay_tree
from .fields import declared_type, declares, inner, is_structured, key_type, required, subclass_hint
from .formats import BASE
from .layers import (
    DELETE,
    REPLACE,
    Branch,
    Layer,
    Leaf,
    Path,
    Setting,
    below,
    dotted,
    leaves,
    merge,
    plain,
    tree,
)
from .messages import cut, did_you_mean
from .objects import held
from .origins import tree_of
from .values import Word


class Token(NamedTuple):
    """One override as it was given."""

    text: str
    layer: Layer
    line: int | None = None

    @property
    def where(self) -> str:
        return self.layer.name if self.line is None else f"{self.layer.name}:{self.line}"

    def error(self, problem: str, hint: str | None = None) -> ConfigError:
        return ConfigError(f"{self.layer.kind} {self.where}: {problem}", hint=hint)


class Override(NamedTuple):
    """A token taken apart."""

    token: Token
    sign: str
    """`+`, `~` or nothing."""
    key: str
    """As it was written."""
    keys: Path
    """A `Word` where there were no quotes: the keys that are there decide whether `3` is a number."""
    text: str | None
    """Of the value; None without a `=`."""
    value: Any = None
    """That of code, in place of the text."""
    is_from_code: bool = False

    def value_for(self, declared: Any = Any) -> Any:
        """The value for a field of the type `declared`."""
        if self.is_from_code:
            return self.value
        try:
            return values.read(self.text or "", declared)
        except values.ValueSyntaxError as error:
            secret = Redactor().is_secret(self.key)
            shown = REDACTED if secret else f"{cut(self.text or '')}: {error}"
            raise self.token.error(f"{self.key}={shown}", hint="put it in quotes if it is text") from None


# -- reading -------------------------------------------------------------------------------------------------------


def tokens_of(text: str, name: str) -> list[Token]:
    """The overrides in a text file: one on each line, up to a `#` that stands at its beginning or after a space.

    >>> tokens_of("tag=best  # yesterday", "o.txt")[0].text
    'tag=best'
    """
    layer = Layer(kind="overrides file", name=name)
    lines = enumerate(map(_without_comment, text.splitlines()), 1)
    return [Token(line, layer, n) for n, line in lines if line.strip()]


def _without_comment(line: str) -> str:
    for match in _COMMENT.finditer(line):
        if match["comment"]:
            return line[: match.start()].rstrip()
    return line


_COMMENT = re.compile(  # or a quoted text, which may hold a `#`
    r"(?:^|(?<=[\s=\[{,:.]))(?:\"(?:[^\"\\]|\\.)*(?:\"|\\?$)|'(?:[^'\\]|\\.)*(?:'|\\?$))"
    r"|(?:^|(?<=\s))(?P<comment>#)",
)


def parsed(token: Token) -> Override:
    """Take a token apart.

    Raises
    ------
    ConfigError: it is no override.

    >>> parsed(Token("+layers[0].'a.b'=x=y", Layer(kind="override", name="argument 1")))[1:5]
    ('+', "layers[0].'a.b'", ('layers', '0', 'a.b'), 'x=y')
    """
    parts = _split(token.text)
    if parts is None:
        seen = repr(cut(token.text.partition("=")[0]))
        raise token.error(f"{seen} is not an override", hint="write key=value, +key=value or ~key")
    return Override(token, *parts)


@lru_cache(1024)  # all tasks of a map are set at one key
def _split(text: str) -> tuple[str, str, Path, str | None] | None:
    """Sign, key, keys and text of the value; None if it is no override."""
    text = text.lstrip()
    sign = text[:1] if text[:1] in ("+", "~") else ""
    start = 2 if text.startswith("++") else len(sign)
    keys, end = values.split_keys(text, start)
    rest = text[end:].lstrip()
    if keys and rest.startswith("="):
        return sign, text[start:end], keys, rest[1:]
    return (sign, text[start:end], keys, None) if keys and sign == "~" and not rest else None


# -- laying --------------------------------------------------------------------------------------------------------


def lay(tokens: Iterable[Token], config: DictConfig) -> DictConfig:
    """`config` with the overrides upon it, in this order; first those that choose a group of what `compose` made.

    `a.b=1` sets a key that is there, `layers[0]=1` an element of a list; `+a.b=1` sets or adds one, `~a.b` deletes one.

    Raises
    ------
    ConfigError: a token that is no override, a key that is not there, or a value that cannot be read; the
        message names the argument or line.

    >>> from omegaconf import OmegaConf
    >>> first = Layer(kind="override", name="argument 1")
    >>> lay([Token("+opt.name=adam", first)], OmegaConf.create({"opt": {"lr": 0.1}}))
    {'opt': {'lr': 0.1, 'name': 'adam'}}
    """
    return _laid([parsed(token) for token in tokens], config)


def lay_values(given: Mapping[str, Any], layer: Layer, config: DictConfig) -> DictConfig:
    """The same for values from code; keys are written as for `lay`, and the same is raised.

    >>> from omegaconf import OmegaConf
    >>> point = Layer(kind="override", name="lr=0.2")
    >>> lay_values({"opt.lr": 0.2}, point, OmegaConf.create({"opt": {"lr": 0.1}}))
    {'opt': {'lr': 0.2}}
    """
    overrides = []
    for key, value in given.items():
        override = parsed(Token(f"{key}=", layer))
        try:
            value = held(value, override.key)
        except ConfigError as error:
            raise override.token.error(error.message, error.hint) from error
        overrides.append(override._replace(value=value, is_from_code=True))
    return _laid(overrides, config)


def choose_by(tokens: Iterable[Token], config: DictConfig) -> DictConfig:
    """`config` with those groups chosen that the overrides choose, and nothing else of them."""
    return _chosen([parsed(token) for token in tokens], config)[0]


def _chosen(overrides: list[Override], config: DictConfig) -> tuple[DictConfig, list[Override]]:
    """The configuration with the groups that are chosen, and the overrides that are no choices."""
    if composition_of(config) is None:
        return config, overrides
    choices, others = {}, []
    for override in overrides:
        path = tuple(map(str, override.keys))
        value = None if override.sign == "~" else override.value_for(declared_type(config, path))
        if override.sign != "~" and is_choice(config, path, value):
            choices[".".join(path)] = (value, f"{override.token.layer.kind} {override.token.where}")
        else:
            others.append(override)
    return (choose(config, choices) if choices else config), others


def _laid(overrides: list[Override], config: DictConfig) -> DictConfig:
    config, others = _chosen(overrides, config)
    lower = tree_of(config)
    current, all_laid, added = lower, Branch(), set()
    for override in others:
        branch, path = _Laying(override, current, config).laid()
        if override.sign == "+":
            added.add(path)
        current, all_laid = merge(current, branch), merge(all_laid, branch)
    return lay_tree(config, all_laid, frozenset(added), lower)


def refuse_unknown(branch: Branch, config: DictConfig) -> None:
    """Raise a ConfigError for a key in `branch` that `config` does not have, and nobody added on purpose."""
    lower = tree_of(config)
    for path, leaf in leaves(branch):
        here: Branch | Leaf | None = lower
        for n, key in enumerate(path):
            if not isinstance(here, Branch) or (n and not here.children):
                break  # a new mapping, or a type that only OmegaConf can judge
            around = declared_type(config, path[:n])
            if key not in here.children and not declares(around, key):
                raise _unknown_in_file(path[: n + 1], leaf[-1], lower, around)
            here = here.children.get(key)


def _unknown_in_file(path: Path, setting: Setting, lower: Branch, around: Any) -> ConfigError:
    key = dotted(path)
    hint = did_you_mean(key, [dotted(known) for known, _ in leaves(lower)])
    where = f"{setting.layer.kind} {setting.where}"
    may_add = None if is_structured(required(around)[0]) else "only a file given by --config may add keys"
    return ConfigError(
        f"{where}: unknown config key {key}", hint=hint or marker_meant(setting.layer, path) or may_add
    )


class _Laying:
    """One override upon what the layers below it made: `lower` for values and `config` for types."""

    def __init__(self, override: Override, lower: Branch, config: DictConfig) -> None:
        self.override = override
        self.token = override.token
        self.lower = lower
        self.config = config

    def laid(self) -> tuple[Branch, Path]:
        """The tree of this one override, and its path in it."""
        path: Path = ()
        here: Branch | Leaf | None = self.lower
        for i, name in enumerate(self.override.keys):
            declared = declared_type(self.config, path)
            if isinstance(here, tuple) and isinstance(here[-1].value, (list, tuple)):
                return self._with_element(path, here[-1].value, self.override.keys[i:], declared), path
            key = self._there(name, here, declared)
            if key is None:
                key = self._new(name, declared, (*path, name), here)
            path, here = (*path, key), here.children.get(key) if isinstance(here, Branch) else None
        if self.override.sign == "~":
            return self._without(path, here), path
        value = self.override.value_for(declared_type(self.config, path))
        for inside in _inside(path, value):
            if inside[-1] == BASE:
                raise self._no_base(inside)
        if isinstance(value, dict) and isinstance(here, Branch) and not self.override.sign:
            self._require_known(value, here, path)
        return self._setting(path, value), path

    def _there(self, name: Any, here: Branch | Leaf | None, declared: Any) -> Any:
        """The key that `name` stands for in a mapping; None if there is no such key."""
        children = here.children if isinstance(here, Branch) else {}
        if isinstance(name, Word) and any(
            key == name.value and type(key) is type(name.value) for key in children
        ):
            return name.value
        if name in children or declares(declared, name):
            return str(name) if isinstance(name, str) else name
        named = (key for key in children if (key.name if isinstance(key, Enum) else str(key)) == name)
        return next(named, None) if isinstance(name, Word) else None

    def _new(self, name: Any, declared: Any, path: Path, here: Branch | Leaf | None) -> Any:
        if name == BASE:
            raise self._no_base(path)
        if not self.override.sign and name in (REPLACE, DELETE):
            return str(name)
        if self.override.sign != "+":
            raise self._unknown(path, here)
        if not isinstance(name, Word):
            return name
        keys = key_type(declared)
        return name.value if keys is Any else values.read(name, keys)

    def _no_base(self, path: Path) -> ConfigError:
        return self.token.error(
            f"{dotted(path)}: only files can have {BASE}",
            hint=f"write {BASE} in a file, and give it by --config",
        )

    def _unknown(self, path: Path, here: Branch | Leaf | None) -> ConfigError:
        key = dotted(tuple(part.value if isinstance(part, Word) else part for part in path))
        written = here[-1].value if isinstance(here, tuple) else None
        if isinstance(written, str) and written.startswith("${"):
            return self.token.error(
                f"{key} cannot be set: {dotted(path[:-1])} is the interpolation {written}",
                hint=f"set the key that {written} refers to",
            )
        around, _ = required(declared_type(self.config, path[:-1]))
        hint = subclass_hint(around, str(path[-1])) if is_structured(around) else None
        if not hint:
            near = did_you_mean(key, [dotted(known) for known, _ in leaves(self.lower)])
            add = "" if self.override.sign == "~" else f"write +{key}=... to add it"
            hint = "; ".join(filter(None, (near, add))) or None
        return self.token.error(f"unknown config key {key}", hint)

    def _require_known(self, value: dict[Any, Any], here: Branch, path: Path) -> None:
        if not here.children or value.get(REPLACE) or value.get(DELETE):
            return
        for key, part in value.items():
            lower = here.children.get(key)
            if lower is None and key not in (REPLACE, DELETE):
                if not declares(declared_type(self.config, path), key):
                    raise self._unknown((*path, key), here)
            elif isinstance(part, dict) and isinstance(lower, Branch):
                self._require_known(part, lower, (*path, key))

    def _setting(self, path: Path, value: Any) -> Branch:
        nested = value
        for key in reversed(path):
            nested = {key: nested}
        line = self.token.line
        lines = {} if line is None else dict.fromkeys(_inside((), nested), line)
        return tree(nested, self.token.layer, lines)

    def _without(self, path: Path, here: Branch | Leaf | None) -> Branch:
        declared = declared_type(self.config, path[:-1])
        if declares(declared, path[-1]):
            name = getattr(required(declared)[0], "__name__", "its dataclass")
            raise self.token.error(
                f"{dotted(path)} is a field of {name} and cannot be deleted",
                hint=f"if it may be None, write {dotted(path)}=null",
            )
        if self.override.text is not None:
            value = here[-1].value if isinstance(here, tuple) else plain(here or Branch())
            if value != self.override.value_for(declared_type(self.config, path)):
                raise self.token.error(f"{dotted(path)} was not deleted: it has another value")
        branch = Branch()
        branch.removed = frozenset({path[-1]})
        return below(branch, path[:-1])

    def _with_element(self, path: Path, before: Any, keys: Path, declared: Any) -> Branch:
        """The list at `path`, with one element, or a key in one, set anew."""
        if self.override.sign:
            raise self.token.error(
                f"{self.override.sign}{self.override.key}: cannot add or delete elements of a list",
                hint=f"write the whole list: {dotted(path)}=[...]",
            )
        part: Any = list(before)
        branch = Branch()
        branch.children[path[-1]] = (Setting(part, self.token.layer, self.token.line),)
        for name in keys[:-1]:
            key = self._element(part, name, path)
            if isinstance(part[key], (list, tuple, dict)):
                part[key] = dict(part[key]) if isinstance(part[key], dict) else list(part[key])
            part, declared = part[key], inner(declared, key)
        key = self._element(part, keys[-1], path)
        part[key] = self.override.value_for(inner(declared, key))
        return below(branch, path[:-1])

    def _element(self, part: Any, name: Any, path: Path) -> Any:
        if isinstance(part, list):
            index = name.value if isinstance(name, Word) else name
            if type(index) is int and -len(part) <= index < len(part):
                return index
            raise self.token.error(
                f"{self.override.key}: {dotted(path)} has {len(part)} elements, none at index {name}"
            )
        known = {str(key): key for key in part} if isinstance(part, dict) else {}
        if str(name) not in known:
            raise self.token.error(f"unknown config key {self.override.key}")
        return known[str(name)]


def _inside(path: Path, value: Any) -> Iterator[Path]:
    """Every key of nested mappings, by its path."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield (*path, key)
            yield from _inside((*path, key), part)
