"""Which files make a configuration: one per group from a folder of groups, or one file over a class?

A group is a folder, a choice a file in it. What the file says is merged under the group's name, so that `lr` in
`model/resnet50.yaml` is `model.lr`, whatever other groups call theirs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, overload

from omegaconf import DictConfig, ListConfig

from ...errors import ConfigError
from ..assembled import assemble
from ..containers import hold
from ..derived import as_subtree
from ..layers import MISSING, Branch, Kind, Leaf, assigned, at, below, leaves, merge
from ..layers import Path as Keys
from ..post_init import settled
from ..trace import Composition, trace_of, tree_of
from ..values import declared_type, takes_text
from .bases import Reference, among, shown
from .formats import SUFFIXES
from .inherit import EXPERIMENTS, load_tree

GROUPS = "_groups_"

T = TypeVar("T")

_MOST_LISTED = 1_000


@overload
def compose(root: str | os.PathLike[str], config: None = None, /, **groups: Any) -> DictConfig: ...
@overload
def compose(root: str | os.PathLike[str], config: Mapping[Any, Any], /, **groups: Any) -> DictConfig: ...
@overload
def compose(root: str | os.PathLike[str], config: type[T], /, **groups: Any) -> T: ...
@overload
def compose(root: str | os.PathLike[str], config: T, /, **groups: Any) -> T: ...
def compose(root: str | os.PathLike[str], config: Any = None, /, **groups: Any) -> Any:
    """A configuration from one file per group; each lies below the group's name, over `root/config.*` if there is one.

    Parameters
    ----------
    root: the folder with the groups: `root/model/resnet50.yaml` is the choice `resnet50` of the group `model`.
        `_groups_` in `root/config.*` chooses for groups that are not given, or requires a choice by `???`.
    config: what lies below all files: a dataclass or an instance of one, a dict or a DictConfig.
    groups: group -> its choice, a list of choices to be laid on each other, or None to leave the group out. A group
        within a group is named by a dict, or dotted: `compose(root, **{"data.augment": "flip"})`.

    Raises
    ------
    ConfigError: no such group or choice (the message lists those there are), a required group without one, or
        files that do not fit `config`.

    >>> for name, text in {"model/resnet.yaml": "lr: 0.1", "data/digits.yaml": "lr: ${model.lr}"}.items():
    ...     Path("configs", name).parent.mkdir(parents=True)
    ...     _ = Path("configs", name).write_text(text)
    >>> compose("configs", model="resnet", data="digits")
    {'model': {'lr': 0.1}, 'data': {'lr': '${model.lr}'}}
    """
    composed = begin(root, config, _flat(groups))
    require_choices(composed)
    return settled(composed)


def begin(
    root: str | os.PathLike[str], config: Any = None, groups: Mapping[str, Any] | None = None
) -> DictConfig:
    """As `compose`, but what is chosen for a required group may still follow: see `require_choices`."""
    made = Composition(root=Path.cwd() / root, base=hold(config), groups={}, above=Branch())
    return _composed(
        made, {group: _pick(made.root, group, choice) for group, choice in (groups or {}).items()}
    )


def require_choices(config: DictConfig) -> None:
    """Raise a ConfigError if nothing is chosen for a required group; it lists the choices."""
    made = composition_of(config)
    missing = [
        group for group, choices in (made.groups if made else {}).items() if MISSING in (choices or ())
    ]
    if made and missing:
        pick = _defaults(made.root, _lowest(made.root)).get(missing[0], _Pick(None))
        ways = "; ".join(f"{group}=CHOICE: {', '.join(choices_of(made.root, group))}" for group in missing)
        raise pick.refused(f"no choice for {', '.join(missing)}", hint=f"write {ways}")


def recompose(config: DictConfig, /, **groups: Any) -> DictConfig:
    """A composed configuration again, with other choices for some groups; what was laid on it or assigned stays.

    Raises
    ------
    ConfigError: `config` was not made by `compose`, or as for that.
    """
    return choose(config, {group: (choice, "") for group, choice in _flat(groups).items()})


def choose(config: DictConfig, choices: Mapping[str, tuple[Any, str]]) -> DictConfig:
    """The same, from dotted group -> its choice and who chose it."""
    made = composition_of(config)
    if made is None:
        raise ConfigError("this configuration has no groups; compose() did not make it")
    picks = {group: _pick(made.root, group, choice, by) for group, (choice, by) in choices.items()}
    return _composed(replace(made, above=_above(made, config)), picks)


def composition_of(config: DictConfig) -> Composition | None:
    """What `compose` made `config` of; None if it did not."""
    trace = trace_of(config)
    return trace.composed if trace is not None and config._get_root() is config else None


def is_choice(config: DictConfig, keys: Keys, value: Any) -> bool:
    """Whether a layer that gives `value` at these keys chooses a group: one that was composed, or could be.

    The one rule for all layers above a composition: files, experiments, overrides, combinations. At the key of a
    group a mapping sets keys of what was chosen, and everything else is a choice, or wrong.
    """
    made = composition_of(config)
    if made is None or isinstance(value, Mapping):
        return False
    if not all(isinstance(key, str) and _is_name(key) and "." not in key for key in keys):
        return False
    if ".".join(keys) in made.groups:
        return True
    if not os.path.isdir(made.root.joinpath(*keys)) or takes_text(declared_type(config, keys)):
        return False
    there = at(tree_of(config), keys)
    return not isinstance(there, tuple) or there[-1].value in (None, MISSING)


def lay(
    config: DictConfig, given: Branch, added: frozenset[Keys] = frozenset(), lower: Branch | None = None
) -> DictConfig:
    """`config` with the layers of `given` upon it; what they say at the key of a composed group chooses for it.

    Parameters
    ----------
    added, lower: as for `assemble`.

    Raises
    ------
    ConfigError: a choice that is none, with those there are; or what `given` says does not fit.
    """
    choices = _Choices(config)
    return _laid(config, choices, choices.taken_from(given), added, lower)


def lay_file(
    config: DictConfig,
    reference: Reference,
    kind: Kind = "config file",
    check: Callable[[Branch, DictConfig], None] = lambda said, config: None,
) -> DictConfig:
    """The same for a file, of whose bases each may choose; its experiments are no part of it.

    Parameters
    ----------
    check: is given what the file says and the configuration with the groups it chose, and raises a ConfigError.
    """
    choices = _Choices(config)
    has_own_experiments = kind == "experiment" or EXPERIMENTS in tree_of(config).children
    rest = load_tree(reference, kind, choices.taken_from, None if has_own_experiments else [])
    return _laid(config, choices, rest, check=check)


def _laid(
    config: DictConfig,
    choices: _Choices,
    rest: Branch,
    added: frozenset[Keys] = frozenset(),
    lower: Branch | None = None,
    check: Callable[[Branch, DictConfig], None] = lambda said, config: None,
) -> DictConfig:
    if choices.found:
        config, lower = choose(config, choices.found), None
    check(rest, config)
    made = composition_of(config)
    laid = assemble(config, rest, added, lower)
    trace = trace_of(laid)
    if made is not None and trace is not None:
        above = merge(_above(made, config), rest)
        trace.composed = replace(made, above=above, added=made.added | added)
    return laid


class _Choices:
    """What layers upon a composed configuration choose."""

    def __init__(self, config: DictConfig) -> None:
        self.config = config
        self.found: dict[str, tuple[Any, str]] = {}

    def taken_from(self, said: Branch) -> Branch:
        """What a layer says otherwise."""
        groups = said.children.get(GROUPS)
        if groups is None:
            return self._rest(said, ())
        if composition_of(self.config) is None:
            named = groups if isinstance(groups, tuple) else next((leaf for _, leaf in leaves(groups)), ())
            where = f"{named[-1].layer.kind} {named[-1].where}: " if named else ""
            hint = "use compose(...) or from_cli(groups=...) to read a folder of groups"
            raise ConfigError(f"{where}{GROUPS} has no effect: no groups were composed", hint=hint)
        others = Branch()
        others.whole, others.removed = said.whole, said.removed
        others.children = {key: child for key, child in said.children.items() if key != GROUPS}
        if isinstance(groups, tuple):
            raise _no_groups(groups)
        for path, leaf in leaves(groups):
            self._note(path, leaf, f": {GROUPS}")
        return self._rest(others, ())

    def _rest(self, said: Branch, path: Keys) -> Branch:
        if composition_of(self.config) is None:
            return said
        rest = Branch()
        rest.whole, rest.removed = said.whole, said.removed
        for key, child in said.children.items():
            if isinstance(child, tuple):
                if is_choice(self.config, (*path, key), child[-1].value):
                    self._note((*path, key), child)
                else:
                    rest.children[key] = child
                continue
            inner = self._rest(child, (*path, key))
            if inner.children or inner.whole or inner.removed or not child.children:
                rest.children[key] = inner
        return rest

    def _note(self, path: Keys, leaf: Leaf, key: str = "") -> None:
        by = f"{leaf[-1].layer.kind} {leaf[-1].where}{key}"
        self.found[".".join(map(str, path))] = (leaf[-1].value, by)


@overload
def load(reference: Reference, config: None = None, /) -> DictConfig: ...
@overload
def load(reference: Reference, config: Mapping[Any, Any], /) -> DictConfig: ...
@overload
def load(reference: Reference, config: type[T], /) -> T: ...
@overload
def load(reference: Reference, config: T, /) -> T: ...
def load(reference: Reference, config: Any = None, /) -> Any:
    """The configuration in a file, with all the files that it builds upon.

    Parameters
    ----------
    reference: a YAML, JSON, TOML or Python file; `file#key.path` selects a mapping in it.
    config: what lies below it: a dataclass or an instance of one, a dict or a DictConfig.

    Raises
    ------
    ConfigError: a file is missing, broken or builds upon itself, or does not fit `config`.

    >>> _ = Path("base.toml").write_text("lr = 0.1\\nepochs = 5")
    >>> _ = Path("long.yaml").write_text("_base_: base.toml\\nepochs: 50")
    >>> load("long.yaml")
    {'lr': 0.1, 'epochs': 50}
    """
    return settled(lay_file(hold(config), reference))


def _composed(made: Composition, chosen: dict[str, _Pick]) -> DictConfig:
    """The composition again, with these choices on top of those it has."""
    root = made.root
    if not root.is_dir():
        raise ConfigError(f"{shown(root)} must be a folder of groups")
    files = _lowest(root)
    defaults = _defaults(root, files)
    files.children.pop(GROUPS, None)
    picks = defaults | {group: _Pick(choices) for group, choices in made.groups.items()} | chosen
    folders = {group: _folder(root, group, pick) for group, pick in picks.items()}
    for group in sorted(picks, key=lambda name: name.count(".")):  # a group within a group lies above it
        names = [name for name in picks[group].choices or () if name != MISSING]
        files_of_group = [_file(folders[group], group, name, picks[group]) for name in names]
        if files_of_group:
            files = merge(files, below(_said(files_of_group), tuple(group.split("."))))
    config = assemble(made.base, merge(files, made.above), made.added)
    trace = trace_of(config)
    assert trace is not None
    trace.composed = replace(made, groups={group: pick.choices for group, pick in picks.items()})
    return config


def _above(made: Composition, config: DictConfig) -> Branch:
    """What lies above the files, and what was assigned since then."""
    trace = trace_of(config)
    assert trace is not None
    return merge(made.above, assigned(trace.tree, tree_of(config)))


class _Pick(NamedTuple):
    """What was chosen for a group."""

    choices: tuple[str, ...] | None
    """Lowest first; None for a group that is left out."""
    where: str = ""
    """Who chose, for errors: a file and line, or an argument."""

    def refused(self, why: str, hint: str | None = None) -> ConfigError:
        return ConfigError(f"{self.where}: {why}" if self.where else why, hint)


def _lowest(root: Path) -> Branch:
    """What `config.*` in the folder says."""
    found = _with_suffix(root / "config")
    if len(found) > 1:
        raise ConfigError(f"both {' and '.join(map(shown, found))} exist", hint="keep one of them")
    return load_tree(found) if found else Branch()


def _said(chosen: list[Path]) -> Branch:
    """What the files chosen for a group say, to be mounted under its name."""
    said = load_tree(chosen, "group file")
    if GROUPS in said.children:
        where = " and ".join(map(shown, chosen))
        raise ConfigError(
            f"{where}: {GROUPS} cannot be used in a group", hint="write it in config.* of the root"
        )
    return as_subtree(said)


def _defaults(root: Path, files: Branch) -> dict[str, _Pick]:
    """The choices in `_groups_`."""
    said = files.children.get(GROUPS)
    if isinstance(said, tuple):
        raise _no_groups(said)
    picks = {}
    for path, leaf in leaves(said or Branch()):
        group = ".".join(map(str, path))
        picks[group] = _pick(root, group, leaf[-1].value, f"{leaf[-1].where}: {GROUPS}")
    return picks


def _no_groups(said: Leaf) -> ConfigError:
    return ConfigError(f"{said[-1].where}: {GROUPS} was given {said[-1].value!r}", hint="group: choice")


def _flat(groups: Mapping[Any, Any], outer: str = "") -> dict[str, Any]:
    """Groups by their dotted names; those within a group may be given as a mapping."""
    flat: dict[str, Any] = {}
    for name, choice in groups.items():
        if isinstance(choice, Mapping):
            flat |= _flat(choice, f"{outer}{name}.")
        else:
            flat[f"{outer}{name}"] = choice
    return flat


def _pick(root: Path, group: str, choice: Any, where: str = "") -> _Pick:
    listed = [choice] if isinstance(choice, str) else choice
    pick = _Pick(tuple(listed) if isinstance(listed, (list, tuple, ListConfig)) else None, where)
    if not all(map(_is_name, group.split("."))):
        raise pick.refused(
            f"unknown group {group!r}", hint="write a group in a group with a dot: data.augment"
        )
    if (choice is not None and pick.choices is None) or not all(
        isinstance(c, str) for c in pick.choices or ()
    ):
        hint = f"name one of {', '.join(choices_of(root, group))}, several, or None"
        raise pick.refused(f"group {group} was given {choice!r}", hint=hint)
    for name in pick.choices or ():
        if not all(map(_is_name, name.split("/"))):
            why = f"group {group} was given {name!r}, which is no name of a file in it"
            raise pick.refused(why, hint=f"known: {', '.join(choices_of(root, group))}")
    return pick


def _is_name(part: str) -> bool:
    return part not in ("", ".", "..") and not any(mark in part for mark in "/\\\0")


def _folder(root: Path, group: str, pick: _Pick) -> Path:
    folder = root
    for name in group.split("."):
        if not os.path.isdir(folder / name):
            there = sorted(f.name for f in folder.iterdir() if f.is_dir() and f.name[0] not in "._")
            raise pick.refused(f"no group {group} in {shown(root)}", hint=among(name, there))
        folder /= name
    return folder


def _file(folder: Path, group: str, choice: str, pick: _Pick) -> Path:
    if choice.endswith(SUFFIXES) and os.path.isfile(folder / choice):
        return folder / choice
    found = _with_suffix(folder / choice)
    if len(found) == 1:
        return found[0]
    if found:
        raise pick.refused(
            f"group {group}: {choice} is {' and '.join(map(shown, found))}", hint=f"choose {found[0].name!r}"
        )
    choices = _names_in(folder)
    if not choices:
        raise pick.refused(f"group {group}: {shown(folder)} has no {', '.join(SUFFIXES)} file")
    raise pick.refused(f"group {group} has no choice {choice!r}", hint=among(choice, choices))


def _with_suffix(file: Path) -> list[Path]:
    named = (file.with_name(file.name + suffix) for suffix in SUFFIXES)
    return [path for path in named if os.path.isfile(path)]  # unlike Path.is_file, of no name an error


def choices_of(root: Path, group: str) -> list[str]:
    """What can be chosen for a group."""
    return _names_in(root.joinpath(*group.split(".")))


def groups_of(config: DictConfig) -> dict[str, tuple[tuple[str, ...] | None, list[str]]]:
    """Each group of a composed configuration: what is chosen, and what can be; a required one has the choice `???`."""
    made = composition_of(config)
    if made is None:
        return {}
    there = sorted(f.name for f in made.root.iterdir() if f.is_dir() and f.name[0] not in "._")
    names = dict.fromkeys([*there, *sorted(made.groups)])
    choices = {name: choices_of(made.root, name) for name in names}
    return {name: (made.groups.get(name), found) for name, found in choices.items() if found}


def _names_in(folder: Path) -> list[str]:
    """The names of the configuration files in a folder and below it, without suffix."""
    files = islice(_files(folder), _MOST_LISTED)
    return sorted({file.relative_to(folder).with_suffix("").as_posix() for file in files})


def _files(folder: Path) -> Iterator[Path]:
    for inside, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name[0] not in "._")
        yield from (Path(inside, name) for name in names if name.endswith(SUFFIXES) and name[0] not in "._")
