"""Lay a configuration file over the files that it builds upon.

`_base_` names the files that a mapping builds upon: at the top of a file those below it, deeper down those that are
mounted there. A mapping always lies above its bases, a later base above an earlier one. What is reached twice at the
same place is laid once, at its first place: else a base that two files share would undo what the first made of it.
"""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path as File
from typing import Any

from ..errors import ConfigError
from .derived import as_subtree, rooted
from .formats import BASE, Document, read
from .layers import DELETE, REPLACE, Branch, Kind, Layer, Leaf, Path, merge, tree
from .messages import nearest
from .rerun import for_a_new_run

MAX_LAID = 1_000
"""Files that make one configuration, each as often as it is laid or mounted."""

EXPERIMENTS = "experiments"
"""The key of a configuration file below which each mapping is an experiment, to be asked for by its name."""

Reference = str | os.PathLike[str]
"""A file, or a mapping in a file: `configs/opt.yaml#schedules.cosine`."""


def load_tree(
    reference: Reference | Sequence[Reference],
    kind: Kind = "config file",
    each: Callable[[Branch], Branch] = lambda layer: layer,
    aside: list[str] | None = None,
) -> Branch:
    """What a file says, and all the files that it builds upon.

    Parameters
    ----------
    reference: a file; `file#key.path` selects a mapping in it. Of several, a later one lies above an earlier one.
    kind: what to call the layer of the file itself; those below it are `base file`. An experiment's are of its
        own kind as long as they stand in the same file.
    each: what to take of what each of the files says, before they are merged; the lowest is asked first.
    aside: receives the names of the experiments, which are then left out, and not even looked at.

    Raises
    ------
    ConfigError: a file is missing, broken or builds upon itself; the message names who asked for it.
    """
    references = [reference] if isinstance(reference, (str, os.PathLike)) else reference
    loading, laid = _Loading(each, aside), set[_Laid]()
    try:
        return _merged(loading.required(_asked(one), kind, laid) for one in references)
    except RecursionError as error:
        raise ConfigError(f"configuration {reference} is nested too deep") from error


def exists(reference: str) -> bool:
    """Whether the mapping in a file that `file#key.path` selects is there; raises what `load_tree` raises."""
    return _Loading(lambda layer: layer, None).lay(_asked(reference), "config file", set()) is not None


def experiments_in(reference: str) -> list[str]:
    """The names of the experiments in a file and the files it builds upon."""
    names: list[str] = []
    load_tree(reference, aside=names)
    return list(dict.fromkeys(names))


def shown(file: File) -> str:
    """A file's name in messages and layers: relative to the working folder where it lies below that."""
    path = os.path.normpath(file)
    if ".." in file.parts and os.path.realpath(path) != os.path.realpath(file):  # behind a symlink
        return str(file)
    return path.removeprefix(os.path.join(os.getcwd(), ""))


def known(name: str, names: Sequence[str]) -> str:
    """A hint: the nearest of the names there are, and all of them."""
    meant = "".join(f"did you mean {near}? " for near in nearest(name, names, 1))
    return f"{meant}known: {', '.join(names) or 'none'}"


# -- references --------------------------------------------------------------------------------------------------


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
class _Base:
    """A source, and who asks for it."""

    source: _Source
    text: str
    """As it was written."""
    where: str | None = None
    """File and line of the `_base_`; None for what the user asks for."""
    around: tuple[str, tuple[str, ...]] | None = None
    """The mapping that builds upon it, by file and keys, if only a part of that is wanted, which need not exist."""

    def fault(self, what: str, hint: str | None = None) -> ConfigError:
        return ConfigError(what if self.where is None else f"{self.where}: {BASE} {self.text}: {what}", hint)


_Laid = tuple[Path, _Source]
"""A source that was laid, and the place where it was mounted."""

_KEY = re.compile(r'"(?:[^"\\\n]|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4})*"|[^".\n]+')
_KEYS = re.compile(rf"(?:{_KEY.pattern})(?:\.(?:{_KEY.pattern}))*")


def _asked(reference: Reference) -> _Base:
    text = os.fspath(reference)
    return _Base(_source(text, File.cwd(), None, "configuration "), text)


def _source(text: str, folder: File, this: File | None, who: str) -> _Source:
    """What a text refers to: a file in `folder`, or keys in `this` one; `who` begins an error."""
    name, keys = text, ""
    if "#" in text and not os.path.exists(folder / text):
        name, _, keys = text.rpartition("#")
    try:
        is_name = bool(name or this) and b"\0" not in os.fsencode(name)
    except UnicodeEncodeError:
        is_name = False
    if not is_name or (keys and not _KEYS.fullmatch(keys)):
        raise ConfigError(f"{who}{text!r} is no file and keys in it", hint="file.yaml#key.path")
    file = folder / name if name or this is None else this
    found = tuple(json.loads(key) if key.startswith('"') else key for key in _KEY.findall(keys))
    return _Source(os.path.realpath(file), found, file)


def _bases(
    values: Mapping[Any, Any], source: _Source, line: int | None, depth: int | None = None
) -> list[_Base]:
    """What a mapping in a source's file builds upon.

    Parameters
    ----------
    depth: how many of the source's keys lead to the mapping; of its bases the rest of the keys is wanted. None for
        a mapping inside the source.
    """
    if BASE not in values:
        return []
    given, where = values[BASE], _place(source, line)
    texts = [given] if isinstance(given, (str, os.PathLike)) else given
    if not isinstance(texts, (list, tuple)) or not all(isinstance(t, (str, os.PathLike)) for t in texts):
        raise ConfigError(
            f"{where}: {BASE} must be a file or a list of files; got {given!r}",
            hint=f"{BASE}: a file, or a list of files",
        )
    rest = () if depth is None else source.keys[depth:]
    around = (source.identity, source.keys[:depth]) if rest else None
    bases = []
    for text in map(os.fspath, texts):
        base = _source(text, source.file.parent, source.file, f"{where}: {BASE} ")
        bases.append(_Base(_Source(base.identity, (*base.keys, *rest), base.file), text, where, around))
    return bases


def _place(source: _Source, line: int | None) -> str:
    return shown(source.file) if line is None else f"{shown(source.file)}:{line}"


# -- one file ----------------------------------------------------------------------------------------------------


def _select(document: Document, source: _Source) -> tuple[Any, Path, list[_Base]]:
    """The values at a source's keys (None if there are none), their path, and the bases below them.

    What a mapping around them builds upon may have something at the rest of the keys, too.
    """
    here: Any = document.values
    path: Path = ()
    bases: list[_Base] = []
    for depth in range(len(source.keys) + 1):
        if not isinstance(here, Mapping):
            return (None if depth < len(source.keys) else here), path, bases
        if _ends_lower(here):
            bases.clear()
        bases += _bases(here, source, document.lines.get((*path, BASE)), depth)
        if depth < len(source.keys):
            key = _key(here, source.keys[depth])
            if key is None:
                return None, path, bases
            if isinstance(here.get(DELETE), (list, tuple)) and key in here[DELETE]:
                bases.clear()
            here, path = here[key], (*path, key)
    return here, path, bases


def _key(values: Any, name: str) -> Any:
    """The key of a mapping that is written so; None if it has no such key."""
    if not isinstance(values, Mapping):
        return None
    return name if name in values else next((key for key in values if str(key) == name), None)


def _ends_lower(values: Mapping[Any, Any]) -> bool:
    return values.get(REPLACE) is True or values.get(DELETE) is True


_Mounts = list[tuple[Path, list[_Base]]]


def _split(
    values: Mapping[Any, Any], path: Path, source: _Source, lines: Mapping[Path, int]
) -> tuple[dict[Any, Any], _Mounts]:
    """What a mapping says itself, and the places in it, inner ones first, where files are to be mounted."""
    own: dict[Any, Any] = {}
    mounts: _Mounts = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            own[key], inside = _split(value, (*path, key), source, lines)
            mounts += inside
        elif key != BASE:
            if isinstance(value, (list, tuple)) and _has_base(value):
                where = _place(source, lines.get((*path, key)))
                hint = f"put {BASE} into a mapping; a list is one value"
                raise ConfigError(f"{where}: {BASE} cannot be in a list", hint)
            own[key] = value
    if path and (bases := _bases(values, source, lines.get((*path, BASE)))):
        mounts.append((path, bases))
        if own.get(DELETE) is True:
            own[REPLACE] = own.pop(DELETE)  # what was there goes, but there is something to mount
    return own, mounts


def _has_base(value: Any) -> bool:
    if isinstance(value, Mapping):
        return BASE in value or any(map(_has_base, value.values()))
    return isinstance(value, (list, tuple)) and any(map(_has_base, value))


# -- all files ---------------------------------------------------------------------------------------------------


class _Loading:
    """One loading: each file is read once, and all of them together are bounded."""

    def __init__(self, each: Callable[[Branch], Branch], aside: list[str] | None) -> None:
        self._each, self._aside = each, aside
        self._mounts = 0
        """Inside how many mounts the loading is: what `each` and `aside` are about stands outside of all."""
        self._documents: dict[str, Document] = {}
        self._chain: list[_Source] = []
        self._around: set[tuple[str, tuple[str, ...]]] = set()
        self._laid = 0

    def required(self, base: _Base, kind: Kind, laid: set[_Laid]) -> Branch:
        found = self.lay(base, kind, laid)
        if found is None:
            raise self._no_such_key(base)
        return found

    def lay(self, base: _Base, kind: Kind, laid: set[_Laid]) -> Branch | None:
        """What a source and its bases say, except what is laid already; None if it does not exist in its file."""
        source = base.source
        if source in self._chain:
            circle = [*self._chain[self._chain.index(source) :], source]
            raise base.fault(f"builds upon itself: {' -> '.join(s.name for s in circle)}")
        if ((), source) in laid:
            return Branch()
        self._laid += 1
        if self._laid > MAX_LAID:
            raise base.fault(f"more than {MAX_LAID} files make one configuration")
        self._chain.append(source)
        document = self._read(base)
        values, path, bases = _select(document, source)
        if values is not None and not isinstance(values, Mapping):
            raise base.fault(f"{source.name} must be a mapping")
        if values is not None and _ends_lower(values):
            laid.clear()
        laid.add(((), source))
        below = [self._lay_below(one, _kind_of(one, kind, source), laid) for one in bases]
        lower = [branch for branch in below if branch is not None]
        found = _merged(lower) if lower else None
        if values is not None:
            values, depth = self._without_experiments(values), len(path)
            lines = {keys[depth:]: n for keys, n in document.lines.items() if keys[:depth] == path}
            found = _over(found or Branch(), self._own(values, lines, kind, source, laid))
        self._chain.pop()
        return found

    def _lay_below(self, base: _Base, kind: Kind, laid: set[_Laid]) -> Branch | None:
        if base.around is None:
            return self.required(base, kind, laid)
        if base.around in self._around:  # a mapping that builds upon a part of itself
            return None
        self._around.add(base.around)
        found = self.lay(base, kind, laid)
        self._around.remove(base.around)
        return found

    def _without_experiments(self, values: Mapping[Any, Any]) -> Mapping[Any, Any]:
        experiments = values.get(EXPERIMENTS)
        if self._aside is None or self._mounts or not isinstance(experiments, Mapping):
            return values
        if not all(
            isinstance(v, Mapping) for k, v in experiments.items() if k not in (BASE, REPLACE, DELETE)
        ):
            return values
        self._aside += map(str, experiments)
        return {key: value for key, value in values.items() if key != EXPERIMENTS}

    def _own(
        self, values: Mapping[Any, Any], lines: dict[Path, int], kind: Kind, source: _Source, laid: set[_Laid]
    ) -> Branch:
        """What a mapping says itself, and over the files that it mounts."""
        own, mounts = _split(values, (), source, lines)
        branch = tree(rooted(own), Layer(kind=kind, name=shown(source.file)), lines)
        laid -= {(path, source) for path, source in laid if path and _ends(branch, path)}
        for path, bases in mounts:
            fresh = [one for one in bases if (path, one.source) not in laid]
            laid.update((path, one.source) for one in bases)
            inside: set[_Laid] = set()
            self._mounts += 1
            mounted = _merged(self.required(one, _kind_of(one, kind, source), inside) for one in fresh)
            self._mounts -= 1
            _mount(as_subtree(mounted), branch, path)
        return branch if self._mounts else self._each(branch)

    def _read(self, base: _Base) -> Document:
        identity, file = base.source.identity, File(shown(base.source.file))
        if identity not in self._documents:
            try:
                document = read(file)
                values = for_a_new_run(file, document.values)
            except ConfigError as error:
                if base.where is None:
                    raise
                raise base.fault(error.message, error.hint) from error
            self._documents[identity] = Document(values, document.lines)
        return self._documents[identity]

    def _no_such_key(self, base: _Base) -> ConfigError:
        source, found = base.source, list[str]()
        here: Any = self._documents[source.identity].values
        for name in source.keys:
            found.append(name)
            key = _key(here, name)
            if key is None:
                break
            here = here[key]
        names = [str(key) for key in here if key != BASE] if isinstance(here, Mapping) else []
        return base.fault(f"{shown(source.file)} has no key {'.'.join(found)}", hint=known(found[-1], names))


def _kind_of(base: _Base, kind: Kind, asking: _Source) -> Kind:
    """An experiment beats the file it stands in with all that it takes from there."""
    same_file = base.source.identity == asking.identity
    return "experiment" if kind == "experiment" and same_file else "base file"


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


def _mount(mounted: Branch, branch: Branch, path: Path) -> None:
    """Lay a tree below what `branch` says at a place."""
    around: Any = branch
    for key in path[:-1]:
        around = around.children[key]
    around.children[path[-1]] = _over(mounted, around.children[path[-1]])


def _merged(branches: Iterable[Branch]) -> Branch:
    return functools.reduce(merge, branches, Branch())


def _over(bases: Branch, own: Branch) -> Branch:
    """A mapping over its own bases: `_replace_: true` in it ends what lies below them, not what it builds upon."""
    whole, own.whole = own.whole, False
    merged = merge(bases, own)
    merged.whole |= whole
    return merged
