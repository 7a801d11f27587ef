"""What do a configuration file and the files it builds upon say together?

`_base_` names the files that a mapping builds upon: at the top of a file those below it, deeper down those that are
mounted there. A mapping always lies above its bases, a later base above an earlier one. What is reached twice at the
same place is laid once, at its first place: else a base that two files share would undo what the first made of it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path as File
from typing import Any

from ...errors import ConfigError
from ..derived import as_subtree, rooted
from ..layers import DELETE, REPLACE, Branch, Kind, Layer, Leaf, Path, merge, tree
from .bases import BASE, Own, Reference, Source, Wanted, among, key_of, select, shown, source_at
from .formats import Document, read
from .rerun import for_a_new_run

MAX_CHAIN = 50
"""Files of which each builds upon the next."""
MAX_LAID = 1_000
"""Files, each as often as it is laid or mounted."""
MAX_PARTS = 1_000_000
"""Keys of all of them together."""


EXPERIMENTS = "experiments"
"""The key of a configuration file below which each mapping is an experiment, to be asked for by its name."""


def load_tree(
    reference: Reference | Sequence[Reference],
    kind: Kind = "config file",
    each: Callable[[Branch], Branch] = lambda said: said,
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
    loading, laid, merged = _Loading(each, aside), set[_Laid](), Branch()
    try:
        for given in references:
            wanted = Wanted(source_at(os.fspath(given), File.cwd(), None), text=os.fspath(given))
            merged = merge(merged, loading.required(wanted, kind, laid))
    except RecursionError as error:
        raise ConfigError(f"configuration {reference} is nested too deep") from error
    return merged


def exists(reference: str) -> bool:
    """Whether the mapping in a file that `file#key.path` selects is there; raises what `load_tree` raises."""
    wanted = Wanted(source_at(reference, File.cwd(), None), text=reference)
    return _Loading(lambda said: said, None)._tree(wanted, "config file", set()) is not None


def experiments_in(reference: str) -> list[str]:
    """The names of the experiments in a file and the files it builds upon."""
    names: list[str] = []
    load_tree(reference, aside=names)
    return list(dict.fromkeys(names))


_Laid = tuple[Path, Source]
"""A source that was laid, and the place where it was mounted."""


class _Loading:
    """One loading: each file is read once, and all of them together are bounded."""

    def __init__(self, each: Callable[[Branch], Branch], aside: list[str] | None) -> None:
        self._each, self._aside = each, aside
        self._mounts = 0
        """Inside how many mounts the loading is: what `each` and `aside` are about stands outside of all."""
        self._documents: dict[str, Document] = {}
        self._chain: list[Source] = []
        self._around: set[tuple[str, Path]] = set()
        self._sources = self._parts = 0

    def required(self, wanted: Wanted, kind: Kind, laid: set[_Laid]) -> Branch:
        found = self._tree(wanted, kind, laid)
        if found is None:
            raise self._no_such_key(wanted)
        return found

    def _tree(self, wanted: Wanted, kind: Kind, laid: set[_Laid]) -> Branch | None:
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

    def _laid_on_bases(self, wanted: Wanted, kind: Kind, laid: set[_Laid]) -> Branch | None:
        document = self._read(wanted)
        values, path, bases = select(document, wanted.source)
        values = self._without_experiments(values)
        own = Own(values, path, wanted.source, document) if isinstance(values, Mapping) else None
        if own is None and values is not None:
            raise wanted.refused(f"{wanted.source.name} must be a mapping")
        if own and own.ends_lower:
            laid.clear()
        laid.add(((), wanted.source))
        kinds = [_kind_of(base, kind, wanted) for base in bases]
        found = [self._base(base, of, laid) for base, of in zip(bases, kinds, strict=True)]
        lower = [branch for branch in found if branch is not None]
        if own is None:
            return _merged(lower) if lower else None
        self._count(own.parts, wanted)
        said = self._with_mounts(own, kind, wanted, laid)
        return _over(_merged(lower), said if self._mounts else self._each(said))

    def _without_experiments(self, values: Any) -> Any:
        shelf = values.get(EXPERIMENTS) if isinstance(values, Mapping) else None
        if self._aside is None or self._mounts or not isinstance(shelf, Mapping) or not _is_shelf(shelf):
            return values
        self._aside += map(str, shelf)
        return {key: value for key, value in values.items() if key != EXPERIMENTS}

    def _base(self, base: Wanted, kind: Kind, laid: set[_Laid]) -> Branch | None:
        if base.around is None:
            return self.required(base, kind, laid)
        if base.around in self._around:  # a mapping that builds upon a part of itself
            return None
        self._around.add(base.around)
        try:
            return self._tree(base, kind, laid)
        finally:
            self._around.remove(base.around)

    def _with_mounts(self, own: Own, kind: Kind, wanted: Wanted, laid: set[_Laid]) -> Branch:
        branch = tree(rooted(own.values), Layer(kind=kind, name=shown(own.source.file)), own.lines)
        laid -= {(path, source) for path, source in laid if path and _ends(branch, path)}
        for path, bases in own.mounts:
            parent, child = _place(branch, path)
            fresh = [base for base in bases if (path, base.source) not in laid]
            laid.update((path, base.source) for base in bases)
            inner: set[_Laid] = set()
            self._mounts += 1
            mounted = _merged(self.required(base, _kind_of(base, kind, wanted), inner) for base in fresh)
            self._mounts -= 1
            parent.children[path[-1]] = _over(as_subtree(mounted), child)
        return branch

    def _read(self, wanted: Wanted) -> Document:
        source = wanted.source
        if source.identity not in self._documents:
            try:
                file = File(shown(source.file))
                document = read(file)
                values = for_a_new_run(file, document.values)
                self._documents[source.identity] = replace(document, values=values)
            except ConfigError as error:
                if wanted.where is None:
                    raise
                raise wanted.refused(error.message, error.hint) from error
        return self._documents[source.identity]

    def _bound(self, wanted: Wanted) -> None:
        self._sources += 1
        if len(self._chain) >= MAX_CHAIN:
            last = " -> ".join(source.name for source in self._chain[-3:])
            raise wanted.refused(f"more than {MAX_CHAIN} files build upon each other: ... -> {last}")
        if self._sources > MAX_LAID:
            raise wanted.refused(f"more than {MAX_LAID} files make one configuration")

    def _count(self, parts: int, wanted: Wanted) -> None:
        self._parts += parts
        if self._parts > MAX_PARTS:
            raise wanted.refused(f"more than {MAX_PARTS} keys make one configuration")

    def _no_such_key(self, wanted: Wanted) -> ConfigError:
        source, found = wanted.source, list[str]()
        here: Any = self._documents[source.identity].values
        for name in source.keys:
            found.append(name)
            key = key_of(here, name)
            if key is None:
                break
            here = here[key]
        there = [str(key) for key in here if key != BASE] if isinstance(here, Mapping) else []
        missing = ".".join(found)
        return wanted.refused(f"{shown(source.file)} has no key {missing}", hint=among(found[-1], there))


def _is_shelf(value: Mapping[Any, Any]) -> bool:
    """Whether what lies at `experiments` holds experiments: nothing but mappings, `_base_` and its like aside."""
    return all(
        isinstance(inner, Mapping) for key, inner in value.items() if key not in (BASE, REPLACE, DELETE)
    )


def _kind_of(base: Wanted, kind: Kind, asking: Wanted) -> Kind:
    """An experiment beats the file it stands in with all that it takes from there."""
    same_file = base.source.identity == asking.source.identity
    return "experiment" if kind == "experiment" and same_file else "base file"


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
