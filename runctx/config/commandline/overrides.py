"""What do `a.b=1`, `+a.b=1` and `~a.b` do to a configuration?"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from typing import Any, NamedTuple

from omegaconf import DictConfig

from ...errors import ConfigError
from ...redact import REDACTED, Redactor
from ..assembled import marker_meant
from ..classes import is_structured
from ..declared import declared_type, declares, inner, key_type, required
from ..files.bases import BASE
from ..files.compose import choose, is_choice
from ..files.compose import lay as lay_tree
from ..held import held
from ..known import tree_of
from ..layers import (
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
from ..nearest import did_you_mean
from ..objects import subclass_hint
from . import literals
from .literals import Bare, BrokenLiteral

MAX_KEYS = 100
"""Keys of one path."""


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


class Object(NamedTuple):
    """A value that code gives: nothing is to be read."""

    value: Any


class Override(NamedTuple):
    """A token taken apart."""

    token: Token
    sign: str
    """`+`, `~` or nothing."""
    key: str
    """As it was written."""
    keys: Path
    """`Bare` where they had no quotes: whether `3` is a number depends on what is there."""
    value: str | Object | None
    """None without a `=`."""

    def broken(self, error: BrokenLiteral) -> ConfigError:
        text = _shortened(self.value) if isinstance(self.value, str) else ""
        value = REDACTED if Redactor().is_secret(self.key) else f"{text}: {error}"
        return self.token.error(f"{self.key}={value}", hint="put it in quotes if it is text")


def given(tokens: Iterable[Token], config: DictConfig) -> tuple[Branch, frozenset[Path]]:
    """What the overrides, in this order, lay upon `config`; and the paths that were added on purpose.

    `a.b=1` sets a key that is there, `layers[0]=1` an element of a list; `+a.b=1` sets or adds one, `~a.b` deletes one.

    Raises
    ------
    ConfigError: a token that is no override, a key that is not there, or a value that cannot be read; the
        message names the argument or line.

    >>> from omegaconf import OmegaConf
    >>> config = OmegaConf.create({"opt": {"lr": 0.1}})
    >>> branch, added = given([Token("+opt.name=adam", Layer(kind="override", name="argument 1"))], config)
    >>> added
    frozenset({('opt', 'name')})
    """
    return _laid(map(parsed, tokens), config, tree_of(config))


def lay(tokens: Iterable[Token], config: DictConfig) -> DictConfig:
    """`config` with the overrides upon it, those first that choose a group of what `compose` made."""
    return _lay([parsed(token) for token in tokens], config)


def lay_values(values: Mapping[str, Any], layer: Layer, config: DictConfig) -> DictConfig:
    """The same for values from code; keys are written as for `given`, and the same is raised.

    >>> from omegaconf import OmegaConf
    >>> point = Layer(kind="override", name="lr=0.2")
    >>> lay_values({"opt.lr": 0.2}, point, OmegaConf.create({"opt": {"lr": 0.1}}))
    {'opt': {'lr': 0.2}}
    """
    return _lay([_valued(Token(f"{key}=", layer), value) for key, value in values.items()], config)


def _valued(token: Token, value: Any) -> Override:
    override = parsed(token)
    try:
        return override._replace(value=Object(held(value, override.key)))
    except ConfigError as error:
        raise token.error(error.message, error.hint) from error


def _lay(overrides: list[Override], config: DictConfig) -> DictConfig:
    config, others = _chosen(overrides, config)
    lower = tree_of(config)
    return lay_tree(config, *_laid(others, config, lower), lower)


def choose_by(tokens: Iterable[Token], config: DictConfig) -> DictConfig:
    """`config` with those groups chosen that the overrides choose, and nothing else of them."""
    return _chosen([parsed(token) for token in tokens], config)[0]


def _chosen(overrides: list[Override], config: DictConfig) -> tuple[DictConfig, list[Override]]:
    """The configuration with the groups that are chosen, and the overrides that are no choices."""
    choices, others = {}, []
    for override in overrides:
        path = tuple(map(str, override.keys))
        if override.sign != "~" and is_choice(config, path, value := _untyped(override)):
            choices[".".join(path)] = (value, f"{override.token.layer.kind} {override.token.where}")
        else:
            others.append(override)
    return (choose(config, choices) if choices else config), others


def _untyped(override: Override) -> Any:
    if isinstance(override.value, Object):
        return override.value.value
    try:
        return literals.read(override.value or "")
    except BrokenLiteral as error:
        raise override.broken(error) from None


def _laid(overrides: Iterable[Override], config: DictConfig, lower: Branch) -> tuple[Branch, frozenset[Path]]:
    current, laid, added = lower, Branch(), set()
    for override in overrides:
        try:
            branch, path = _Laying(override, current, config).laid()
        except BrokenLiteral as error:
            raise override.broken(error) from None
        if override.sign == "+":
            added.add(path)
        current, laid = merge(current, branch), merge(laid, branch)
    return laid, frozenset(added)


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


_KEY = re.compile(
    r"(?P<quoted>\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*')"
    r"|\[(?P<index>\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'|[^\[\]='\"]*)\]"
    r"|(?P<bare>[^.\[\]=\s'\"]+)",
    re.DOTALL,
)


def parsed(token: Token) -> Override:
    """Take a token apart.

    Raises
    ------
    ConfigError: it is no override.

    >>> parsed(Token("+layers[0].'a.b'=x=y", Layer(kind="override", name="argument 1")))[2:]
    ("layers[0].'a.b'", ('layers', '0', 'a.b'), 'x=y')
    """
    text = token.text.lstrip()
    sign = "+" if text.startswith("+") else "~" if text.startswith("~") else ""
    start = at = 2 if text.startswith("++") else len(sign)
    keys: list[Any] = []
    while key := _KEY.match(text, at):
        keys.append(_key(key))
        at = key.end()
        if text.startswith(".", at):
            at += 1
        elif not text.startswith("[", at):
            break
    rest = text[at:].lstrip()
    complete = bool(keys) and len(keys) <= MAX_KEYS and text[at - 1] != "."
    if complete and (rest.startswith("=") or (sign == "~" and not rest)):
        return Override(token, sign, text[start:at], tuple(keys), rest[1:] if rest else None)
    seen = repr(_shortened(text.partition("=")[0]))
    raise token.error(f"{seen} is not an override", hint="write key=value, +key=value or ~key")


def _key(match: re.Match[str]) -> Any:
    text = (match["quoted"] or match["index"] or match["bare"] or "").strip(" \t")
    if text[:1] in ("'", '"'):
        return literals.unquoted(text)
    if match["bare"] is None and _HEX.fullmatch(text):
        return bytes.fromhex(text[2:])
    if match["bare"] is None and isinstance(number := _scalar(text), float):
        return number  # with a dot in it, which only brackets can hold
    return Bare(text)


_HEX = re.compile(r"0x(?:[0-9a-f]{2})*")


class _Laying:
    """One override upon what the layers below it made: `tree` for values and `config` for types."""

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
        value = self._value(declared_type(self.config, path))
        for inside in _inside(path, value):
            if inside[-1] == BASE:
                raise self._no_base(inside)
        if isinstance(value, dict) and isinstance(here, Branch) and not self.override.sign:
            self._require_known(value, here, path)
        return self._setting(path, value), path

    def _there(self, name: Any, here: Branch | Leaf | None, declared: Any) -> Any:
        """The key that `name` stands for in a mapping; None if there is no such key."""
        children = here.children if isinstance(here, Branch) else {}
        if isinstance(name, Bare):
            meant = _bare_key(name)
            if any(key == meant and type(key) is type(meant) for key in children):
                return meant
        if name in children or declares(declared, name):
            return str(name) if isinstance(name, str) else name
        named = (key for key in children if (key.name if isinstance(key, Enum) else str(key)) == name)
        return next(named, None) if isinstance(name, Bare) else None

    def _new(self, name: Any, declared: Any, path: Path, here: Branch | Leaf | None) -> Any:
        if name == BASE:
            raise self._no_base(path)
        if not self.override.sign and path[-1] in (REPLACE, DELETE):
            return str(name)
        if self.override.sign != "+":
            raise self._unknown(path, here)
        if not isinstance(name, Bare):
            return name
        keys = key_type(declared)
        return _bare_key(name) if keys is Any else literals.read(name, keys)

    def _no_base(self, path: Path) -> ConfigError:
        return self.token.error(
            f"{dotted(path)}: only files can have {BASE}",
            hint=f"write {BASE} in a file, and give it by --config",
        )

    def _unknown(self, path: Path, here: Branch | Leaf | None) -> ConfigError:
        key = dotted(tuple(_bare_key(part) if isinstance(part, Bare) else part for part in path))
        if isinstance(here, tuple) and _is_interpolation(here[-1].value):
            around = dotted(path[:-1])
            return self.token.error(
                f"{key} cannot be set: {around} is the interpolation {here[-1].value}",
                hint=f"set the key that {here[-1].value} refers to",
            )
        around, _ = required(declared_type(self.config, path[:-1]))
        if is_structured(around) and (hint := subclass_hint(around, str(path[-1]))):
            return self.token.error(f"unknown config key {key}", hint)
        hint = did_you_mean(key, [dotted(known) for known, _ in leaves(self.lower)])
        add = "" if self.override.sign == "~" else f"write +{key}=... to add it"
        return self.token.error(
            f"unknown config key {key}", hint="; ".join(filter(None, (hint, add))) or None
        )

    def _require_known(self, value: dict[Any, Any], here: Branch, path: Path) -> None:
        if not here.children or value.get(REPLACE) or value.get(DELETE):
            return
        for key, part in value.items():
            below_it = here.children.get(key)
            if below_it is None and key not in (REPLACE, DELETE):
                if not declares(declared_type(self.config, path), key):
                    raise self._unknown((*path, key), here)
            elif isinstance(part, dict) and isinstance(below_it, Branch):
                self._require_known(part, below_it, (*path, key))

    def _value(self, declared: Any) -> Any:
        value = self.override.value
        return value.value if isinstance(value, Object) else literals.read(value or "", declared)

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
        if self.override.value is not None:
            value = here[-1].value if isinstance(here, tuple) else plain(here or Branch())
            if value != self._value(declared_type(self.config, path)):
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
        whole: Any = list(before)
        part: Any = whole
        for name in keys[:-1]:
            key = self._element(part, name, path)
            part[key] = list(part[key]) if isinstance(part[key], (list, tuple)) else part[key]
            part[key] = dict(part[key]) if isinstance(part[key], dict) else part[key]
            part, declared = part[key], inner(declared, key)
        key = self._element(part, keys[-1], path)
        part[key] = self._value(inner(declared, key))
        return below(_leaf(path[-1], Setting(whole, self.token.layer, self.token.line)), path[:-1])

    def _element(self, part: Any, name: Any, path: Path) -> Any:
        if isinstance(part, list):
            index = _bare_key(name) if isinstance(name, Bare) else name
            if type(index) is int and -len(part) <= index < len(part):
                return index
            raise self.token.error(
                f"{self.override.key}: {dotted(path)} has {len(part)} elements, none at index {name}"
            )
        if isinstance(part, dict):
            known = {str(key): key for key in part}
            if str(name) in known:
                return known[str(name)]
        raise self.token.error(f"unknown config key {self.override.key}")


def _bare_key(name: str) -> Any:
    """What a key without quotes is in a mapping with keys of any type."""
    key = _scalar(name)
    return str(name) if isinstance(key, float) else key  # `inf` is a word


def _scalar(text: str) -> Any:
    try:
        return literals.scalar(text)
    except BrokenLiteral:
        return str(text)


def _is_interpolation(value: Any) -> bool:
    return isinstance(value, str) and value.startswith("${")


def _leaf(key: Any, setting: Setting) -> Branch:
    branch = Branch()
    branch.children[key] = (setting,)
    return branch


def _inside(path: Path, value: Any) -> Iterator[Path]:
    """Every key of nested mappings, by its path."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield (*path, key)
            yield from _inside((*path, key), part)


def as_override(path: Path, value: Any) -> str:
    """The override that sets this value: `+` before it gives the same key and value back.

    Raises
    ------
    ConfigError: a value that no text stands for.

    >>> as_override(("opt", "betas"), (0.9, 0.999)), as_override(("labels", "a.b", 3), "5")
    ('opt.betas=[0.9,0.999]', 'labels."a.b".3=\\'5\\'')
    """
    key = dotted(path)
    if key.startswith("-"):  # it would be taken for an option
        first = dotted(path[:1])
        key = (f'"{first}"' if isinstance(path[0], str) else f"[{first}]") + key[len(first) :]
    return f"{key}={literals.written(value)}"


def _shortened(text: str) -> str:
    return text if len(text) <= 80 else text[:77] + "..."
