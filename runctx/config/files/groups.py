"""Choose files in a folder of groups: a group is a folder in it, a choice a file in that.

`root/model/resnet50.yaml` is the choice `resnet50` of the group `model`; the folder `root/data/augment` is the
group `data.augment`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import ListConfig

from ...errors import ConfigError
from ..files.inherit import known, load_tree, shown
from ..files.load import SUFFIXES
from ..layers import Branch, Leaf, leaves

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
