"""Which files make a configuration: one per group from a folder of groups, or one file over a class?

A group is a folder, a choice a file in it. What the file says is merged under the group's name, so that `lr` in
`model/resnet50.yaml` is `model.lr`, whatever other groups call theirs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, overload

from omegaconf import DictConfig, ListConfig

from ...errors import ConfigError
from ..assembled import assemble
from ..derivation.derived import as_subtree
from ..known import tree_of
from ..layers import Branch, at, below, leaves, merge
from ..resolved import open_config
from ..trace import Composition, trace_of
from .bases import Reference, among, shown
from .formats import SUFFIXES
from .inherit import load_tree

GROUPS = "_groups_"
REQUIRED = "???"

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
    return _composed(Path.cwd() / root, open_config(config), _flat(groups), Branch())


def recompose(config: DictConfig, /, **groups: Any) -> DictConfig:
    """A composed configuration again, with other choices for some groups; what was assigned to it since stays.

    Raises
    ------
    ConfigError: `config` was not made by `compose`, or as for that.
    """
    trace = trace_of(config)
    if trace is None or trace.composed is None:
        raise ConfigError("this configuration was not made by compose(), so it has no groups to choose")
    made = trace.composed
    above = merge(made.above, _assigned(trace.tree, tree_of(config)))
    return _composed(made.root, made.base, made.groups | _flat(groups), above)


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
    return assemble(open_config(config), load_tree(reference))


def _composed(root: Path, base: DictConfig, groups: Mapping[str, Any], above: Branch) -> DictConfig:
    if not root.is_dir():
        raise ConfigError(f"{shown(root)} is no folder of groups to compose a configuration from")
    files = _lowest(root)
    picks = _defaults(files) | {group: _pick(group, choice) for group, choice in groups.items()}
    folders = {group: _folder(root, group, pick) for group, pick in picks.items()}
    _refuse_missing(picks, folders)
    for group in sorted(picks, key=lambda name: name.count(".")):  # a group within a group lies above it
        chosen = [_file(folders[group], group, choice, picks[group]) for choice in picks[group].choices or ()]
        if chosen:
            files = merge(files, below(_said(chosen), tuple(group.split("."))))
    config = assemble(base, merge(files, above))
    trace = trace_of(config)
    assert trace is not None
    groups = {group: pick.choices for group, pick in picks.items()}
    trace.composed = Composition(root=root, base=base, groups=groups, above=above)
    return config


class _Pick(NamedTuple):
    """What was chosen for a group."""

    choices: tuple[str, ...] | None
    """Lowest first; None for a group that is left out."""
    where: str = ""
    """File and line of the choice, if it stands in a file."""

    def refused(self, why: str, hint: str | None = None) -> ConfigError:
        return ConfigError(f"{self.where}: {GROUPS}: {why}" if self.where else why, hint)


def _lowest(root: Path) -> Branch:
    """What `config.*` in the folder says."""
    found = _with_suffix(root / "config")
    if len(found) > 1:
        raise ConfigError(
            f"{' and '.join(map(shown, found))}: which is the configuration?", hint="keep one of them"
        )
    return load_tree(found) if found else Branch()


def _said(chosen: list[Path]) -> Branch:
    """What the files chosen for a group say, to be mounted under its name."""
    said = load_tree(chosen, "group file")
    if GROUPS in said.children:
        where = " and ".join(map(shown, chosen))
        raise ConfigError(f"{where}: {GROUPS} was given in a group", hint="choose in config.* of the root")
    return as_subtree(said)


def _defaults(files: Branch) -> dict[str, _Pick]:
    """The choices in `_groups_`, which is taken out of `files`."""
    said = files.children.pop(GROUPS, None)
    if isinstance(said, tuple):
        raise ConfigError(f"{said[-1].where}: {GROUPS} was given {said[-1].value!r}", hint="group: choice")
    picks = {}
    for path, leaf in leaves(said or Branch()):
        group = ".".join(map(str, path))
        picks[group] = _pick(group, leaf[-1].value, leaf[-1].where)
    return picks


def _flat(groups: Mapping[Any, Any], outer: str = "") -> dict[str, Any]:
    """Groups by their dotted names; those within a group may be given as a mapping."""
    flat: dict[str, Any] = {}
    for name, choice in groups.items():
        if isinstance(choice, Mapping):
            flat |= _flat(choice, f"{outer}{name}.")
        else:
            flat[f"{outer}{name}"] = choice
    return flat


def _pick(group: str, choice: Any, where: str = "") -> _Pick:
    listed = [choice] if isinstance(choice, str) else choice
    pick = _Pick(tuple(listed) if isinstance(listed, (list, tuple, ListConfig)) else None, where)
    if (choice is not None and pick.choices is None) or not all(
        isinstance(c, str) for c in pick.choices or ()
    ):
        raise pick.refused(f"group {group} was given {choice!r}", hint="name a file in it, several, or None")
    if not all(map(_is_name, group.split("."))):
        raise pick.refused(f"{group!r} is no group", hint="name groups within groups by dots: data.augment")
    for name in pick.choices or ():
        if not all(map(_is_name, name.split("/"))):
            why = f"group {group} was given {name!r}, which is no name of a file in it"
            raise pick.refused(
                why, hint="name a file in the folder of the group: resnet50, or vision/resnet50"
            )
    return pick


def _is_name(part: str) -> bool:
    return part not in ("", ".", "..") and not any(mark in part for mark in "/\\\0")


def _refuse_missing(picks: Mapping[str, _Pick], folders: Mapping[str, Path]) -> None:
    missing = [group for group, pick in picks.items() if pick.choices and REQUIRED in pick.choices]
    if missing:
        choices = "; ".join(f"{group}: {', '.join(_choices(folders[group]))}" for group in missing)
        raise picks[missing[0]].refused(f"nothing is chosen for {', '.join(missing)}", hint=choices)


def _folder(root: Path, group: str, pick: _Pick) -> Path:
    folder = root
    for name in group.split("."):
        if not os.path.isdir(folder / name):
            there = sorted(f.name for f in folder.iterdir() if f.is_dir() and f.name[0] not in "._")
            raise pick.refused(f"there is no group {group} in {shown(root)}", hint=among(name, there))
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
    choices = _choices(folder)
    if not choices:
        raise pick.refused(f"group {group}: {shown(folder)} has no {', '.join(SUFFIXES)} file")
    raise pick.refused(f"group {group} has no choice {choice!r}", hint=among(choice, choices))


def _with_suffix(file: Path) -> list[Path]:
    named = (file.with_name(file.name + suffix) for suffix in SUFFIXES)
    return [path for path in named if os.path.isfile(path)]  # unlike Path.is_file, of no name an error


def _choices(folder: Path) -> list[str]:
    """The names of the configuration files in a folder and below it, without suffix."""
    files = islice(_files(folder), _MOST_LISTED)
    return sorted({file.relative_to(folder).with_suffix("").as_posix() for file in files})


def _files(folder: Path) -> Iterator[Path]:
    for inside, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name[0] not in "._")
        yield from (Path(inside, name) for name in names if name.endswith(SUFFIXES) and name[0] not in "._")


def _assigned(before: Branch, now: Branch) -> Branch:
    """What the program said since the layers of `before` were laid."""
    assigned = Branch()
    for path, leaf in leaves(now):
        then = at(before, path)
        if not isinstance(then, tuple) or len(leaf) > len(then):
            only = Branch()
            only.children[path[-1]] = leaf[-1:]
            assigned = merge(assigned, below(only, path[:-1]))
    return assigned
