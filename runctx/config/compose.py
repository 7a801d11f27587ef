"""Make a configuration of files: one per group from a folder of groups, or one file over a class.

A group is a folder, a choice a file in it: `root/model/resnet50.yaml` is the choice `resnet50` of the group `model`,
and the folder `root/data/augment` is the group `data.augment`. What the file says is merged under the group's name:
`lr` in it is `model.lr`, whatever other groups call theirs.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, overload

from omegaconf import DictConfig, ListConfig

from ..errors import ConfigError
from .assemble import assemble
from .containers import hold, settled
from .derived import as_subtree
from .fields import declared_type, takes_text
from .formats import SUFFIXES
from .inherit import EXPERIMENTS, Reference, known, load_tree, shown
from .layers import MISSING, Branch, Kind, Leaf, assigned, at, below, leaves, merge
from .layers import Path as Keys
from .origins import Composition, Trace, trace_of, tree_of

T = TypeVar("T")

Folder = str | os.PathLike[str]

Choices = dict[str, tuple[Any, str]]
"""Dotted group -> its choice and who chose it."""

Check = Callable[[Branch, DictConfig], None]


@overload
def compose(root: Folder, config: Mapping[Any, Any] | None = None, /, **groups: Any) -> DictConfig: ...
@overload
def compose(root: Folder, config: type[T], /, **groups: Any) -> T: ...
@overload
def compose(root: Folder, config: T, /, **groups: Any) -> T: ...
def compose(root: Folder, config: Any = None, /, **groups: Any) -> Any:
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
    composed = begin(root, config, flat(groups))
    require_choices(composed)
    return settled(composed)


def begin(
    root: str | os.PathLike[str], config: Any = None, groups: Mapping[str, Any] | None = None
) -> DictConfig:
    """As `compose`, but what is chosen for a required group may still follow: see `require_choices`."""
    made = Composition(root=Path.cwd() / root, base=hold(config), groups={}, above=Branch())
    picks = {group: pick(made.root, group, choice) for group, choice in (groups or {}).items()}
    return _composed(made, picks)


def require_choices(config: DictConfig) -> None:
    """Raise a ConfigError if nothing is chosen for a required group; it lists the choices."""
    made = composition_of(config)
    groups = made.groups if made else {}
    missing = [group for group, choices in groups.items() if MISSING in (choices or ())]
    if made and missing:
        asking = picks_in(made.root, lowest(made.root)).get(missing[0], Pick(None))
        ways = "; ".join(f"{group}=CHOICE: {', '.join(choices_of(made.root, group))}" for group in missing)
        raise asking.fault(f"no choice for {', '.join(missing)}", hint=f"write {ways}")


def choose(config: DictConfig, choices: Choices) -> DictConfig:
    """A composed configuration again, with other choices for some groups; what was laid on it or assigned stays.

    Raises
    ------
    ConfigError: `config` was not made by `compose`, or as for that.
    """
    made = composition_of(config)
    if made is None:
        raise ConfigError("this configuration has no groups; compose() did not make it")
    picks = {group: pick(made.root, group, choice, who) for group, (choice, who) in choices.items()}
    return _composed(replace(made, above=_above(made, config)), picks)


def is_choice(config: DictConfig, keys: Keys, value: Any) -> bool:
    """Whether a layer that gives `value` at these keys chooses a group: one that was composed, or could be.

    The one rule for all layers above a composition: files, experiments, overrides, combinations. At the key of a
    group a mapping sets keys of what was chosen, and everything else is a choice, or wrong.
    """
    made = composition_of(config)
    if made is None or isinstance(value, Mapping):
        return False
    if not all(isinstance(key, str) and is_name(key) and "." not in key for key in keys):
        return False
    if ".".join(keys) in made.groups:
        return True
    if not os.path.isdir(made.root.joinpath(*keys)) or takes_text(declared_type(config, keys)):
        return False
    there = at(tree_of(config), keys)
    return not isinstance(there, tuple) or there[-1].value in (None, MISSING)


def groups_of(config: DictConfig) -> dict[str, tuple[tuple[str, ...] | None, list[str]]]:
    """Each group of a composed configuration: what is chosen, and what can be; a required one has the choice `???`."""
    made = composition_of(config)
    if made is None:
        return {}
    names = dict.fromkeys([*folders_in(made.root), *sorted(made.groups)])
    choices = {name: choices_of(made.root, name) for name in names}
    return {name: (made.groups.get(name), found) for name, found in choices.items() if found}


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
    choices: Choices = {}
    rest = _without_choices(config, choices, given)
    return _laid(config, choices, rest, added, lower)


def lay_file(
    config: DictConfig,
    reference: Reference,
    kind: Kind = "config file",
    check: Check | None = None,
) -> DictConfig:
    """The same for a file, of whose bases each may choose; its experiments are no part of it.

    Parameters
    ----------
    check: is given what the file says and the configuration with the groups it chose, and raises a ConfigError.
    """
    choices: Choices = {}
    has_own_experiments = kind == "experiment" or EXPERIMENTS in tree_of(config).children
    each = functools.partial(_without_choices, config, choices)
    rest = load_tree(reference, kind, each, None if has_own_experiments else [])
    return _laid(config, choices, rest, check=check)


@overload
def load(reference: Reference, config: Mapping[Any, Any] | None = None, /) -> DictConfig: ...
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


def _laid(
    config: DictConfig,
    choices: Choices,
    rest: Branch,
    added: frozenset[Keys] = frozenset(),
    lower: Branch | None = None,
    check: Check | None = None,
) -> DictConfig:
    if choices:
        config, lower = choose(config, choices), None
    if check is not None:
        check(rest, config)
    made = composition_of(config)
    laid = assemble(config, rest, added, lower)
    if made is not None:
        above = merge(_above(made, config), rest)
        _trace(laid).composed = replace(made, above=above, added=made.added | added)
    return laid


def _without_choices(config: DictConfig, choices: Choices, layer: Branch) -> Branch:
    """What a layer upon `config` says, but for what it chooses, which `choices` receives."""
    composed = composition_of(config) is not None
    groups = layer.children.get(GROUPS)
    if groups is not None and not composed:
        leaf = groups if isinstance(groups, tuple) else next((leaf for _, leaf in group_leaves(groups)), ())
        who = f"{leaf[-1].who}: " if leaf else ""
        hint = "use compose(...) or from_cli(groups=...) to read a folder of groups"
        raise ConfigError(f"{who}{GROUPS} has no effect: no groups were composed", hint=hint)
    if not composed:
        return layer
    for group, leaf in group_leaves(groups or Branch()):
        choices[group] = leaf[-1].value, f"{leaf[-1].who}: {GROUPS}"
    return _rest(config, choices, layer, ())


def _rest(config: DictConfig, choices: Choices, layer: Branch, path: Keys) -> Branch:
    rest = Branch()
    rest.whole, rest.removed = layer.whole, layer.removed
    for key, child in layer.children.items():
        here = (*path, key)
        if here == (GROUPS,):
            continue
        if isinstance(child, tuple):
            if is_choice(config, here, child[-1].value):
                choices[".".join(here)] = child[-1].value, child[-1].who
            else:
                rest.children[key] = child
            continue
        inner = _rest(config, choices, child, here)
        if inner.children or inner.whole or inner.removed or not child.children:
            rest.children[key] = inner
    return rest


def _composed(made: Composition, chosen: dict[str, Pick]) -> DictConfig:
    """The composition again, with these choices on top of those it has."""
    root = made.root
    files = lowest(root)
    picks = picks_in(root, files) | {group: Pick(names) for group, names in made.groups.items()} | chosen
    files.children.pop(GROUPS, None)
    folders = {group: folder_of(root, group, picked) for group, picked in picks.items()}
    for group in sorted(picks, key=lambda name: name.count(".")):  # a group within a group lies above it
        names = [name for name in picks[group].choices or () if name != MISSING]
        if names:
            chosen_files = [file_of(folders[group], group, name, picks[group]) for name in names]
            files = merge(files, below(_group(chosen_files), tuple(group.split("."))))
    config = assemble(made.base, merge(files, made.above), made.added)
    groups = {group: picked.choices for group, picked in picks.items()}
    _trace(config).composed = replace(made, groups=groups)
    return config


def _group(files: list[Path]) -> Branch:
    """What the files chosen for a group say, to be mounted under its name."""
    layer = load_tree(files, "group file")
    if GROUPS in layer.children:
        where = " and ".join(map(shown, files))
        hint = "write it in config.* of the root"
        raise ConfigError(f"{where}: {GROUPS} cannot be used in a group", hint)
    return as_subtree(layer)


def _above(made: Composition, config: DictConfig) -> Branch:
    """What lies above the files, and what was assigned since then."""
    return merge(made.above, assigned(_trace(config).tree, tree_of(config)))


def composition_of(config: DictConfig) -> Composition | None:
    """What `compose` made `config` of; None if it did not."""
    trace = trace_of(config)
    return trace.composed if trace is not None and config._get_root() is config else None


def _trace(config: DictConfig) -> Trace:
    trace = trace_of(config)
    assert trace is not None
    return trace


# -- a folder of groups --------------------------------------------------------------------------------------------

GROUPS = "_groups_"

_MOST_LISTED = 1_000


class Pick(NamedTuple):
    """What was chosen for a group."""

    choices: tuple[str, ...] | None
    """Lowest first; None for a group that is left out."""
    where: str = ""
    """Who chose, for errors: a file and line, or an argument."""

    def fault(self, what: str, hint: str | None = None) -> ConfigError:
        return ConfigError(f"{self.where}: {what}" if self.where else what, hint)


def pick(root: Path, group: str, choice: Any, where: str = "") -> Pick:
    """What `choice`, a name or several or None, chooses for a dotted group; whether there is such a file is not asked.

    Raises
    ------
    ConfigError: neither is a name that leads to a file inside of `root`.
    """
    several = [choice] if isinstance(choice, str) else choice
    picked = Pick(tuple(several) if isinstance(several, (list, tuple, ListConfig)) else None, where)
    if not all(map(is_name, group.split("."))):
        hint = "write a group in a group with a dot: data.augment"
        raise picked.fault(f"unknown group {group!r}", hint=hint)
    choices = picked.choices or ()
    if (choice is not None and picked.choices is None) or not all(isinstance(name, str) for name in choices):
        hint = f"name one of {', '.join(choices_of(root, group))}, several, or None"
        raise picked.fault(f"group {group} was given {choice!r}", hint=hint)
    for name in choices:
        if not all(map(is_name, name.split("/"))):
            what = f"group {group} was given {name!r}, which is no name of a file in it"
            raise picked.fault(what, hint=f"known: {', '.join(choices_of(root, group))}")
    return picked


def picks_in(root: Path, layer: Branch) -> dict[str, Pick]:
    """What `_groups_` in a layer chooses, by group."""
    groups = layer.children.get(GROUPS, Branch())
    return {
        group: pick(root, group, leaf[-1].value, f"{leaf[-1].where}: {GROUPS}")
        for group, leaf in group_leaves(groups)
    }


def group_leaves(groups: Branch | Leaf) -> Iterator[tuple[str, Leaf]]:
    """The dotted groups in a `_groups_`, and what is said of each."""
    if isinstance(groups, tuple):
        what = f"{groups[-1].where}: {GROUPS} was given {groups[-1].value!r}"
        raise ConfigError(what, hint="group: choice")
    return ((".".join(map(str, path)), leaf) for path, leaf in leaves(groups))


def flat(groups: Mapping[Any, Any], outer: str = "") -> dict[str, Any]:
    """Groups by their dotted names; those within a group may be given as a mapping."""
    result: dict[str, Any] = {}
    for name, choice in groups.items():
        inside = isinstance(choice, Mapping)
        result |= flat(choice, f"{outer}{name}.") if inside else {f"{outer}{name}": choice}
    return result


def is_name(part: str) -> bool:
    """Whether a text can be the name of a file or folder, and leads nowhere else."""
    return part not in ("", ".", "..") and not any(mark in part for mark in "/\\\0")


def lowest(root: Path) -> Branch:
    """What `config.*` in the folder says."""
    if not root.is_dir():
        raise ConfigError(f"{shown(root)} must be a folder of groups")
    found = _with_suffix(root / "config")
    if len(found) > 1:
        raise ConfigError(f"both {' and '.join(map(shown, found))} exist", hint="keep one of them")
    return load_tree(found)


def folder_of(root: Path, group: str, picked: Pick) -> Path:
    """The folder of a group.

    Raises
    ------
    ConfigError: there is none; lists those there are.
    """
    folder = root
    for name in group.split("."):
        if not os.path.isdir(folder / name):
            raise picked.fault(f"no group {group} in {shown(root)}", hint=known(name, folders_in(folder)))
        folder /= name
    return folder


def file_of(folder: Path, group: str, choice: str, picked: Pick) -> Path:
    """The file of a choice.

    Raises
    ------
    ConfigError: there is none, or there are several; lists those there are.
    """
    if choice.endswith(SUFFIXES) and os.path.isfile(folder / choice):
        return folder / choice
    found = _with_suffix(folder / choice)
    if len(found) == 1:
        return found[0]
    if found:
        what = f"group {group}: {choice} is {' and '.join(map(shown, found))}"
        raise picked.fault(what, hint=f"choose {found[0].name!r}")
    choices = _names_in(folder)
    if not choices:
        raise picked.fault(f"group {group}: {shown(folder)} has no {', '.join(SUFFIXES)} file")
    raise picked.fault(f"group {group} has no choice {choice!r}", hint=known(choice, choices))


def choices_of(root: Path, group: str) -> list[str]:
    """What can be chosen for a group: the names of the files in its folder and below, without suffix."""
    return _names_in(root.joinpath(*group.split(".")))


def folders_in(folder: Path) -> list[str]:
    """The names of the groups in a folder."""
    return sorted(f.name for f in folder.iterdir() if f.is_dir() and f.name[0] not in "._")


def _with_suffix(file: Path) -> list[Path]:
    named = (file.with_name(file.name + suffix) for suffix in SUFFIXES)
    return [path for path in named if os.path.isfile(path)]  # unlike Path.is_file, of no name an error


def _names_in(folder: Path) -> list[str]:
    files = islice(_files(folder), _MOST_LISTED)
    return sorted({file.relative_to(folder).with_suffix("").as_posix() for file in files})


def _files(folder: Path) -> Iterator[Path]:
    for inside, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name[0] not in "._")
        yield from (Path(inside, name) for name in names if name.endswith(SUFFIXES) and name[0] not in "._")
