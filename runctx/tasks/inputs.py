"""Hash what the tasks of a map have read, and add it to the lock of their run."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from .. import layout, upstream
from ..errors import InputError
from ..hashing import Hashing, locate, read_manifest, write_manifest
from ..interrupts import held_back
from ..layout import TaskFiles
from ..model import Data, Lock, Omission
from ..upstream import Upstream
from ..waiting import wait_for
from .ledger import Final, Read

MOST = 20
"""Inputs that stand in the lock one by one; more of them become one, with a manifest."""
_SHOWN = 5


def joined(
    lock: Lock, files: TaskFiles, final: Final, cwd: Path, known: Upstream | None = None, *, show: bool = True
) -> tuple[Lock, Upstream]:
    """The lock with what the tasks of a map read, and the earlier runs that this belongs to.

    Doing it again, with more rows, adds what is new. Manifests are written to `inputs/`.

    Parameters
    ----------
    final: the rows that count.
    cwd: where relative paths start.
    known: the earlier runs of which the lock knows; default: as it tells them.
    show: whether there may be a progress bar.
    """
    known = known or upstream.known_to(lock)
    seen = _Seen(final)
    if not seen.reads:
        return lock, known
    hashed = seen.hash(cwd, show)
    if len(seen.reads) > MOST:
        found = [_together(files, seen, hashed, cwd)]
    else:
        found = [_alone(files, seen, one, n) for n, one in enumerate(hashed, 1)]
    known = upstream.find([place for one in found for place in one.places], known=known, own=files.root)
    new = dict.fromkeys((*seen.omissions(files.name), *known.omissions))
    return (
        replace(
            lock,
            inputs=tuple(known.owned(data) for data in _merged(lock.inputs, (one.data for one in found))),
            parents=known.parents,
            upstream=known.locks,
            omissions=(*lock.omissions, *(o for o in new if o not in lock.omissions)),
        ),
        known,
    )


@dataclass(frozen=True, slots=True)
class _Found:
    """An input as it stands in the lock."""

    data: Data
    places: list[tuple[str, Path]] = field(default_factory=list)
    """Its path, and where what it holds lies: some may be in other runs' folders."""


@dataclass(frozen=True, slots=True)
class _Hashed:
    """An input of tasks, as it is now."""

    data: Data
    root: Path
    """What the paths in its manifest are relative to; for a file, the file itself."""
    manifest: bytes | None = None


class _Seen:
    """What the rows of a map say was read, each input once, sorted by path."""

    def __init__(self, final: Final) -> None:
        first: dict[str, tuple[float, Read]] = {}
        self.changed: set[str] = set()
        """Paths of files that are not, for all tasks and now, what they were for the first."""
        for _, row in final.values():
            for read in row.inputs:
                if isinstance(read, Read):
                    known = first.setdefault(read.path, (row.started, read))
                    if (known[1].bytes, known[1].mtime) != (read.bytes, read.mtime):
                        self.changed.add(read.path)
                    if row.started < known[0]:
                        first[read.path] = row.started, read
        self.reads = [first[path][1] for path in sorted(first)]
        self._gaps: list[Omission] = []

    def hash(self, cwd: Path, show: bool) -> list[_Hashed]:
        """Digest them, as far as they are still there."""
        gone: dict[str, str] = {}
        for read in self.reads:
            try:
                now = locate(read.path, cwd)
                if read.kind == "file" and (now.size, os.stat(now.path).st_mtime_ns) != (
                    read.bytes,
                    read.mtime,
                ):
                    self.changed.add(read.path)
            except (OSError, InputError):
                gone[read.path] = "it was gone when the map had ended, before it could be hashed"
        there = [read.path for read in self.reads if read.path not in gone]
        hashing = Hashing(there, base=cwd, cache=layout.cache_dir())
        hashing.start()
        with held_back() as interrupt:
            wait_for(hashing, "hashing inputs of tasks", interrupt, show=show)
        results = zip(there, hashing.join(0), hashing.roots, strict=True)
        hashed = {path: (one, root) for path, one, root in results}
        found = []
        for read in self.reads:
            changed, path = read.path in self.changed, read.path
            if path in gone:
                self._gaps.append(Omission(what=path, why=gone[path]))
                found.append(_Hashed(replace(read.data, changed_during_run=changed), cwd / path))
                continue
            one, root = hashed[path]
            self._gaps += one.omissions
            data = replace(one.data, path=path, name=read.name, changed_during_run=changed)
            found.append(_Hashed(data, root, one.manifest))
        return found

    def omissions(self, map: str) -> list[Omission]:
        changed = sorted(self.changed)
        more = f", and {len(changed) - _SHOWN} more" if len(changed) > _SHOWN else ""
        why = f"changed while the tasks went on: {', '.join(changed[:_SHOWN])}{more}"
        return [Omission(what=f"inputs of the tasks of {map}", why=why)] * bool(changed) + self._gaps[:50]


def _alone(files: TaskFiles, seen: _Seen, one: _Hashed, n: int) -> _Found:
    path = one.data.path
    if one.manifest is None:
        return _Found(one.data, [(path, one.root)])
    places = upstream.places_in(one.data, one.root, read_manifest(one.manifest))
    return _Found(replace(one.data, manifest=_write(files, one.manifest, n)), places)


def _together(files: TaskFiles, seen: _Seen, hashed: Sequence[_Hashed], cwd: Path) -> _Found:
    from blake3 import blake3

    digests: dict[str, str] = {}
    for one in hashed:
        start = os.path.abspath(one.root)
        if one.manifest is not None:
            below = read_manifest(one.manifest)
            digests |= {os.path.join(start, path): digest for path, digest in below.items()}
        elif one.data.digest is not None:
            digests[start] = one.data.digest
    root = os.path.commonpath([os.path.dirname(path) for path in digests] or [os.fspath(cwd)])
    manifest = write_manifest({os.path.relpath(path, root): digest for path, digest in digests.items()})
    absolute = any(os.path.isabs(read.path) for read in seen.reads)
    data = Data(
        path=root if absolute else os.path.relpath(root, cwd),
        kind="files",
        digest=f"blake3:{blake3(manifest).hexdigest()}",
        bytes=sum(one.data.bytes for one in hashed),
        files=len(digests),
        strength="content" if all(one.data.strength == "content" for one in hashed) else "stat",
        manifest=_write(files, manifest),
        changed_during_run=bool(seen.changed),
    )
    return _Found(data, upstream.places_in(data, Path(root), (os.path.relpath(p, root) for p in digests)))


def _write(files: TaskFiles, manifest: bytes, n: int = 0) -> str:
    path = files.manifest(n)
    path.parent.mkdir(parents=True, exist_ok=True)
    layout.write_atomically(path, manifest)
    return path.relative_to(files.root).as_posix()


def _merged(known: Sequence[Data], new: Iterable[Data]) -> list[Data]:
    """An input that is there already is not added; with another digest, it was changed."""
    merged = {(data.path, data.kind, data.kind == "files" and data.manifest): data for data in known}
    for data in new:
        key = data.path, data.kind, data.kind == "files" and data.manifest
        before = merged.get(key)
        if before is None or before.digest is None or data.kind == "files":
            merged[key] = data
        elif data.changed_during_run or data.digest not in (None, before.digest):
            merged[key] = replace(before, changed_during_run=True)
    return list(merged.values())
