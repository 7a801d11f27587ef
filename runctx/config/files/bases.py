"""What does a mapping in a configuration file say itself, and what does it build upon?"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path as File
from typing import Any

from ...errors import ConfigError
from ..layers import DELETE, REPLACE, Path
from ..messages import nearest
from .formats import Document

BASE = "_base_"

Reference = str | os.PathLike[str]
"""A file, or a mapping in a file: `configs/opt.yaml#schedules.cosine`."""


@dataclass(frozen=True, slots=True)
class Source:
    """A mapping in a file."""

    identity: str
    """Where the file really is: by whatever name it is reached, it is the same."""
    keys: tuple[str, ...]
    file: File = field(compare=False)

    @property
    def name(self) -> str:
        return shown(self.file) + ("#" + ".".join(self.keys) if self.keys else "")


@dataclass(frozen=True, slots=True)
class Wanted:
    """A source, and who asks for it."""

    source: Source
    text: str
    """As it was written."""
    where: str | None = None
    """File and line of the `_base_`."""
    around: tuple[str, Path] | None = None
    """The mapping that builds upon it, by file and keys, if only a part of that is wanted, which need not exist."""

    def refused(self, why: str, hint: str | None = None) -> ConfigError:
        return ConfigError(why if self.where is None else f"{self.where}: _base_ {self.text}: {why}", hint)


class Own:
    """What a mapping says itself, and what is to be mounted in it."""

    def __init__(self, values: Mapping[Any, Any], path: Path, source: Source, document: Document) -> None:
        self.source = source
        self.mounts: list[tuple[Path, list[Wanted]]] = []
        """Inner places first."""
        self.parts = 0
        self.lines = document.lines if not path else _below(document.lines, path)
        self.ends_lower = _ends_lower(values)
        self.values = self._without_bases(values, ())

    def _without_bases(self, values: Mapping[Any, Any], path: Path) -> dict[Any, Any]:
        result: dict[Any, Any] = {}
        for key, value in values.items():
            self.parts += 1
            if isinstance(value, Mapping):
                result[key] = self._without_bases(value, (*path, key))
            elif key != BASE:
                if isinstance(value, (list, tuple)) and _names_base(value):
                    where = _where(self.source.file, self.lines.get((*path, key)))
                    raise ConfigError(
                        f"{where}: {BASE} cannot be in a list",
                        hint="put {BASE} into a mapping; a list is one value",
                    )
                result[key] = value
        if path and (bases := _bases(values, self.source, self.lines.get((*path, BASE)))):
            self.mounts.append((path, bases))
            if result.get(DELETE) is True:
                result[REPLACE] = result.pop(DELETE)  # what was there goes, but there is something to mount
        return result


def _below(lines: Mapping[Path, int], path: Path) -> dict[Path, int]:
    depth = len(path)
    return {at[depth:]: line for at, line in lines.items() if at[:depth] == path}


def select(document: Document, source: Source) -> tuple[Any, Path, list[Wanted]]:
    """The values at a source's keys (None if there are none), their path, and the bases below them.

    What a mapping around them builds upon may have something at the rest of the keys, too.
    """
    here: Any = document.values
    path: Path = ()
    bases: list[Wanted] = []
    for depth in range(len(source.keys) + 1):
        if not isinstance(here, Mapping):
            return (None if depth < len(source.keys) else here), path, bases
        if _ends_lower(here):
            bases.clear()
        rest = source.keys[depth:]
        bases += _bases(here, source, document.lines.get((*path, BASE)), depth)
        if rest:
            key = key_of(here, rest[0])
            if key is None:
                return None, path, bases
            if isinstance(here.get(DELETE), (list, tuple)) and key in here[DELETE]:
                bases.clear()
            here, path = here[key], (*path, key)
    return here, path, bases


def _bases(
    values: Mapping[Any, Any], source: Source, line: int | None, depth: int | None = None
) -> list[Wanted]:
    """What a mapping in a source's file builds upon: that at so many of its keys, else one inside of it."""
    if BASE not in values:
        return []
    given, where = values[BASE], _where(source.file, line)
    named = [given] if isinstance(given, (str, os.PathLike)) else given
    if not isinstance(named, (list, tuple)) or not all(isinstance(n, (str, os.PathLike)) for n in named):
        raise ConfigError(
            f"{where}: {BASE} must be a file or a list of files; got {given!r}",
            hint=f"{BASE}: a file, or a list of files",
        )
    rest = () if depth is None else source.keys[depth:]
    around = (source.identity, source.keys[:depth]) if rest else None
    wanted = []
    for text in map(os.fspath, named):
        base = source_at(text, source.file.parent, source.file, where)
        base = Source(base.identity, (*base.keys, *rest), base.file)
        wanted.append(Wanted(base, text, where, around))
    return wanted


def source_at(text: str, folder: File, this: File | None, where: str | None = None) -> Source:
    """What a text refers to: a file in `folder`, or keys in `this` one; `where` says who asks, for errors."""
    name, keys = text, ""
    if "#" in text and not os.path.exists(folder / text):
        name, _, keys = text.rpartition("#")
    if not name and this is None:
        raise ConfigError(f"configuration {text!r} names no file", hint="file.yaml#key")
    if not _is_path(name) or (keys and not _KEYS.fullmatch(keys)):
        asked = f"{where}: {BASE} " if where else "configuration "
        raise ConfigError(f"{asked}{text!r} is no file and keys in it", hint="file.yaml#key.path")
    file = folder / name if name or this is None else this
    found = tuple(json.loads(key) if key.startswith('"') else key for key in _KEY.findall(keys))
    return Source(os.path.realpath(file), found, file)


def _is_path(name: str) -> bool:
    try:
        return b"\0" not in os.fsencode(name)
    except UnicodeEncodeError:
        return False


_KEY = re.compile(r'"(?:[^"\\\n]|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4})*"|[^".\n]+')
_KEYS = re.compile(rf"(?:{_KEY.pattern})(?:\.(?:{_KEY.pattern}))*")


def key_of(values: Any, name: str) -> Any:
    """The key of a mapping that is written so; None if it has no such key."""
    if not isinstance(values, Mapping):
        return None
    return name if name in values else next((key for key in values if str(key) == name), None)


def _ends_lower(values: Mapping[Any, Any]) -> bool:
    return values.get(REPLACE) is True or values.get(DELETE) is True


def _names_base(values: Sequence[Any]) -> bool:
    for value in values:
        if isinstance(value, Mapping):
            if BASE in value or _names_base(list(value.values())):
                return True
        elif isinstance(value, (list, tuple)) and _names_base(value):
            return True
    return False


def shown(file: File) -> str:
    """A file's name in messages and layers: relative to the working folder where it lies below that."""
    path = os.path.normpath(file)
    if ".." in file.parts and os.path.realpath(path) != os.path.realpath(file):  # behind a symlink
        return str(file)
    return path.removeprefix(os.path.join(os.getcwd(), ""))


def _where(file: File, line: int | None) -> str:
    return shown(file) if line is None else f"{shown(file)}:{line}"


def among(name: str, there: Sequence[str]) -> str:
    """A hint: which of those there are was meant, and all of them."""
    meant = "".join(f"did you mean {near}? " for near in nearest(name, there, 1))
    return f"{meant}known: {', '.join(there) or 'none'}"
