"""What do a configuration file and the files it builds upon say together?

`_base_` names the files that a mapping builds upon: at the top of a file those below it, deeper down those that are
mounted there. A mapping always lies above its bases, a later base above an earlier one. What is reached twice at the
same place is laid once, at its first place: else a base that two files share would undo what the first made of it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path as File
from typing import Any

from ..errors import ConfigError
from .derived import as_subtree, rooted
from .formats import Document, read
from .layers import DELETE, REPLACE, Branch, Kind, Layer, Leaf, Path, merge, tree
from .nearest import nearest

BASE = "_base_"

MAX_CHAIN = 50
MAX_LAID = 1_000
MAX_PARTS = 1_000_000

Reference = str | os.PathLike[str]
"""A file, or a mapping in a file: `configs/opt.yaml#schedules.cosine`."""


def load_tree(reference: Reference | Sequence[Reference], kind: Kind = "config file") -> Branch:
    """What a file says, and all the files that it builds upon.

    Parameters
    ----------
    reference: a file; `file#key.path` selects a mapping in it. Of several, a later one lies above an earlier one.
    kind: what to call the layer of the file itself; those below it are `base file`.

    Raises
    ------
    ConfigError: a file is missing, broken or builds upon itself; the message names who asked for it.
    """
    references = [reference] if isinstance(reference, (str, os.PathLike)) else reference
    loading, laid, merged = _Loading(), set[_Laid](), Branch()
    try:
        for given in references:
            wanted = _Wanted(_source(os.fspath(given), File.cwd(), None), text=os.fspath(given))
            merged = merge(merged, loading.required(wanted, kind, laid))
    except RecursionError as error:
        raise ConfigError(f"configuration {reference} is nested too deep") from error
    return merged


@dataclass(frozen=True, slots=True)
class _Source:
    """A mapping in a file."""

    identity: str
    """Where the file really is: by whatever name it is reached, it is the same."""
    keys: tuple[str, ...]
    file: File = field(compare=False)

    @property
    def name(self) -> str:
        return shown(self.file) + ("#" + ".".join(self.keys) if self.keys else "")


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A source, and who asks for it."""

    source: _Source
    text: str
    """As it was written."""
    where: str | None = None
    """File and line of the `_base_`."""
    around: tuple[str, Path] | None = None
    """The mapping that builds upon it, by file and keys, if only a part of that is wanted, which need not exist."""

    def refused(self, why: str, hint: str | None = None) -> ConfigError:
        return ConfigError(why if self.where is None else f"{self.where}: _base_ {self.text}: {why}", hint)


_Laid = tuple[Path, _Source]
"""A source that was laid, and the place where it was mounted."""


class _Loading:
    """One loading: each file is read once, and all of them together are bounded."""

    def __init__(self) -> None:
        self._documents: dict[str, Document] = {}
        self._chain: list[_Source] = []
        self._around: set[tuple[str, Path]] = set()
        self._sources = self._parts = 0

    def required(self, wanted: _Wanted, kind: Kind, laid: set[_Laid]) -> Branch:
        found = self._tree(wanted, kind, laid)
        if found is None:
            raise self._no_such_key(wanted)
        return found

    def _tree(self, wanted: _Wanted, kind: Kind, laid: set[_Laid]) -> Branch | None:
        """What a source and its bases say, except what is laid already; None if it does not exist in its file."""
        source = wanted.source
        if source in self._chain:
            circle = [*self._chain[self._chain.index(source) :], source]
            raise wanted.refused(f"builds upon itself: {' -> '.join(s.name for s in circle)}")
        if ((), source) in laid:
            return Branch()
        self._bound(wanted)
        self._chain.append(source)
        try:
            return self._laid_on_bases(wanted, kind, laid)
        finally:
            self._chain.pop()

    def _laid_on_bases(self, wanted: _Wanted, kind: Kind, laid: set[_Laid]) -> Branch | None:
        document = self._read(wanted)
        values, path, bases = _select(document, wanted.source)
        own = _Own(values, path, wanted.source, document) if isinstance(values, Mapping) else None
        if own is None and values is not None:
            raise wanted.refused(f"{wanted.source.name} is no mapping of keys to values")
        if own and own.ends_lower:
            laid.clear()
        laid.add(((), wanted.source))
        lower = [found for base in bases if (found := self._base(base, laid)) is not None]
        if own is None:
            return _merged(lower) if lower else None
        self._count(own.parts, wanted)
        return _over(_merged(lower), self._with_mounts(own, kind, laid))

    def _base(self, base: _Wanted, laid: set[_Laid]) -> Branch | None:
        if base.around is None:
            return self.required(base, "base file", laid)
        if base.around in self._around:  # a mapping that builds upon a part of itself
            return None
        self._around.add(base.around)
        try:
            return self._tree(base, "base file", laid)
        finally:
            self._around.remove(base.around)

    def _with_mounts(self, own: _Own, kind: Kind, laid: set[_Laid]) -> Branch:
        branch = tree(rooted(own.values), Layer(kind=kind, name=shown(own.source.file)), own.lines)
        laid -= {(path, source) for path, source in laid if path and _ends(branch, path)}
        for path, bases in own.mounts:
            parent, child = _place(branch, path)
            fresh = [base for base in bases if (path, base.source) not in laid]
            laid.update((path, base.source) for base in bases)
            inner: set[_Laid] = set()
            mounted = _merged(self.required(base, "base file", inner) for base in fresh)
            parent.children[path[-1]] = _over(as_subtree(mounted), child)
        return branch

    def _read(self, wanted: _Wanted) -> Document:
        source = wanted.source
        if source.identity not in self._documents:
            try:
                self._documents[source.identity] = read(File(shown(source.file)))
            except ConfigError as error:
                if wanted.where is None:
                    raise
                raise wanted.refused(error.message, error.hint) from error
        return self._documents[source.identity]

    def _bound(self, wanted: _Wanted) -> None:
        self._sources += 1
        if len(self._chain) >= MAX_CHAIN:
            last = " -> ".join(source.name for source in self._chain[-3:])
            raise wanted.refused(f"more than {MAX_CHAIN} files build upon each other: ... -> {last}")
        if self._sources > MAX_LAID:
            raise wanted.refused(f"more than {MAX_LAID} files make one configuration")

    def _count(self, parts: int, wanted: _Wanted) -> None:
        self._parts += parts
        if self._parts > MAX_PARTS:
            raise wanted.refused(f"more than {MAX_PARTS} keys make one configuration")

    def _no_such_key(self, wanted: _Wanted) -> ConfigError:
        source, found = wanted.source, list[str]()
        here: Any = self._documents[source.identity].values
        for name in source.keys:
            found.append(name)
            key = _key(here, name)
            if key is None:
                break
            here = here[key]
        there = [str(key) for key in here if key != BASE] if isinstance(here, Mapping) else []
        missing = ".".join(found)
        return wanted.refused(f"{shown(source.file)} has no key {missing}", hint=among(found[-1], there))


class _Own:
    """What a mapping says itself, and what is to be mounted in it."""

    def __init__(self, values: Mapping[Any, Any], path: Path, source: _Source, document: Document) -> None:
        self.source = source
        self.mounts: list[tuple[Path, list[_Wanted]]] = []
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
                        f"{where}: {BASE} stands in a list, where nothing can be mounted",
                        hint="a list is one value: mount into a mapping",
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


def _select(document: Document, source: _Source) -> tuple[Any, Path, list[_Wanted]]:
    """The values at a source's keys (None if there are none), their path, and the bases below them.

    What a mapping around them builds upon may have something at the rest of the keys, too.
    """
    here: Any = document.values
    path: Path = ()
    bases: list[_Wanted] = []
    for depth in range(len(source.keys) + 1):
        if not isinstance(here, Mapping):
            return (None if depth < len(source.keys) else here), path, bases
        if _ends_lower(here):
            bases.clear()
        rest = source.keys[depth:]
        bases += _bases(here, source, document.lines.get((*path, BASE)), depth)
        if rest:
            key = _key(here, rest[0])
            if key is None:
                return None, path, bases
            if isinstance(here.get(DELETE), (list, tuple)) and key in here[DELETE]:
                bases.clear()
            here, path = here[key], (*path, key)
    return here, path, bases


def _bases(
    values: Mapping[Any, Any], source: _Source, line: int | None, depth: int | None = None
) -> list[_Wanted]:
    """What a mapping in a source's file builds upon: that at so many of its keys, else one inside of it."""
    if BASE not in values:
        return []
    given, where = values[BASE], _where(source.file, line)
    named = [given] if isinstance(given, (str, os.PathLike)) else given
    if not isinstance(named, (list, tuple)) or not all(isinstance(n, (str, os.PathLike)) for n in named):
        raise ConfigError(f"{where}: {BASE} was given {given!r}", hint=f"{BASE}: a file, or a list of files")
    rest = () if depth is None else source.keys[depth:]
    around = (source.identity, source.keys[:depth]) if rest else None
    wanted = []
    for text in map(os.fspath, named):
        base = _source(text, source.file.parent, source.file, where)
        base = _Source(base.identity, (*base.keys, *rest), base.file)
        wanted.append(_Wanted(base, text, where, around))
    return wanted


def _source(text: str, folder: File, this: File | None, where: str | None = None) -> _Source:
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
    return _Source(os.path.realpath(file), found, file)


def _is_path(name: str) -> bool:
    try:
        return b"\0" not in os.fsencode(name)
    except UnicodeEncodeError:
        return False


_KEY = re.compile(r'"(?:[^"\\\n]|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4})*"|[^".\n]+')
_KEYS = re.compile(rf"(?:{_KEY.pattern})(?:\.(?:{_KEY.pattern}))*")


def _key(values: Any, name: str) -> Any:
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


def _place(branch: Branch, path: Path) -> tuple[Branch, Branch]:
    """The mapping around a place, and the mapping there."""
    parent = here = branch
    for key in path:
        child = here.children[key]
        assert isinstance(child, Branch)
        parent, here = here, child
    return parent, here


def _ends(branch: Branch, path: Path) -> bool:
    """Whether a tree leaves nothing of what lower ones have at a place below its top."""
    here: Branch | Leaf | None = branch
    for key in path:
        assert isinstance(here, Branch)
        if key in here.removed:
            return True
        here = here.children.get(key)
        if here is None:
            return False
        if isinstance(here, tuple) or here.whole:
            return True
    return False


def _merged(branches: Iterable[Branch]) -> Branch:
    merged = Branch()
    for branch in branches:
        merged = merge(merged, branch)
    return merged


def _over(bases: Branch, own: Branch) -> Branch:
    """A mapping over its own bases: `_replace_: true` in it ends what lies below them, not what it builds upon."""
    whole, own.whole = own.whole, False
    merged = merge(bases, own)
    merged.whole |= whole
    return merged


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
    return f"{meant}there are: {', '.join(there) or 'none'}"
