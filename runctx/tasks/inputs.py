"""What did all tasks of a map read? The inputs that their rows tell of, as the lock of their run tells them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from .. import layout, upstream
from ..layout import TaskFiles
from ..model import Data, Lock, Omission
from ..upstream import Upstream
from .ledger.rows import Read
from .results import Final
from .work.reading import data_of

MOST = 20
"""Inputs that are told one by one: more of them are told together."""
SHOWN = 5


@dataclass(slots=True)
class _Seen:
    """One input, as the first task that read it found it."""

    read: Read
    worker: str
    started: float
    changed: bool = False
    """Another task found something else."""


@dataclass(kw_only=True, slots=True)
class Found:
    """The inputs of the tasks of one map."""

    data: tuple[Data, ...] = ()
    places: list[tuple[str, Path]] = field(default_factory=list)
    """Inputs, and where what they hold lies: some may be in other runs' folders."""
    omissions: list[Omission] = field(default_factory=list)


def joined(
    lock: Lock, files: TaskFiles, final: Final, cwd: Path, known: Upstream | None = None
) -> tuple[Lock, Upstream]:
    """The lock with what the tasks of a map read, and the earlier runs that this belongs to.

    Doing it again, with more rows, adds what is new. Manifests are written to `inputs/`.

    Parameters
    ----------
    final: the rows that count.
    cwd: where relative paths start.
    known: the earlier runs of which the lock knows; default: as it tells them.

    Raises
    ------
    LedgerError: a manifest that a row names is not there.
    """
    known = known or upstream.known_to(lock)
    found = _found(files, final, cwd)
    if not found.data:
        return lock, known
    known = upstream.find(found.places, known=known, own=files.root)
    new = [*found.omissions, *known.omissions]
    return (
        replace(
            lock,
            inputs=tuple(known.owned(data) for data in _merged(lock.inputs, found.data)),
            parents=known.parents,
            upstream=known.locks,
            omissions=(*lock.omissions, *(o for o in dict.fromkeys(new) if o not in lock.omissions)),
        ),
        known,
    )


def _merged(known: Sequence[Data], new: Iterable[Data]) -> list[Data]:
    """An input that is told already is not told twice; found otherwise, it was changed."""
    merged = {(data.path, data.kind, data.kind == "files" and data.manifest): data for data in known}
    for data in new:
        key = data.path, data.kind, data.kind == "files" and data.manifest
        before = merged.get(key)
        if before is None or before.digest is None or data.kind == "files":
            merged[key] = data
        elif data.changed_during_run or data.digest not in (None, before.digest):
            merged[key] = replace(before, changed_during_run=True)
    return list(merged.values())


def _found(files: TaskFiles, final: Final, cwd: Path) -> Found:
    seen = _seen(final)
    changed = [one.read.path for one in seen if one.changed]
    found = Found()
    if changed:
        more = f", and {len(changed) - SHOWN} more" if len(changed) > SHOWN else ""
        why = f"tasks read different content: {', '.join(changed[:SHOWN])}{more}"
        found.omissions.append(Omission(what=f"inputs of the tasks of {files.name}", why=why))
    found.omissions += [Omission(what=one.read.path, why=one.read.gap) for one in seen if one.read.gap][:50]
    if len(seen) > MOST:
        _together(files, seen, cwd, found)
    else:
        _one_by_one(files, seen, cwd, found)
    return found


def _seen(final: Final) -> list[_Seen]:
    """Each input once, sorted by path."""
    seen: dict[str, _Seen] = {}
    for worker, row in final.values():
        for read in row.inputs:
            one = seen.get(read.path)
            if one is None:
                seen[read.path] = _Seen(read, worker, row.started)
                continue
            changed = one.changed or (
                one.read.digest != read.digest and None not in (one.read.digest, read.digest)
            )
            if row.started < one.started or one.read.digest is None:
                one.read, one.worker, one.started = read, worker, row.started
            one.changed = changed
    return [seen[path] for path in sorted(seen)]


def _one_by_one(files: TaskFiles, seen: Sequence[_Seen], cwd: Path, found: Found) -> None:
    from ..hashing import read_manifest

    told = []
    for n, one in enumerate(seen, 1):
        read, place = one.read, None
        root = cwd / read.path
        if read.manifest is None:
            found.places.append((read.path, root))
        else:
            manifest = _stored(files, one)
            place = _write(files, manifest, n)
            found.places += upstream.places_in(data_of(read), _start(read, cwd), read_manifest(manifest))
        told.append(replace(data_of(read), manifest=place, changed_during_run=one.changed))
    found.data = tuple(told)


def _together(files: TaskFiles, seen: Sequence[_Seen], cwd: Path, found: Found) -> None:
    from blake3 import blake3

    from ..hashing import read_manifest, write_manifest

    digests: dict[str, str] = {}
    for one in seen:
        start = os.path.abspath(_start(one.read, cwd))
        if one.read.manifest is not None:
            below = read_manifest(_stored(files, one))
            digests |= {os.path.join(start, path): digest for path, digest in below.items()}
        elif one.read.digest is not None:
            digests[start] = one.read.digest
    root = os.path.commonpath([os.path.dirname(path) for path in digests] or [os.fspath(cwd)])
    manifest = write_manifest({os.path.relpath(path, root): digest for path, digest in digests.items()})
    absolute = any(os.path.isabs(one.read.path) for one in seen)
    weak = any(one.read.gap or one.read.digest is None for one in seen)
    data = Data(
        path=root if absolute else os.path.relpath(root, cwd),
        kind="files",
        digest=f"blake3:{blake3(manifest).hexdigest()}",
        bytes=sum(one.read.bytes for one in seen),
        files=len(digests),
        strength="stat" if weak else "content",
        manifest=_write(files, manifest),
        changed_during_run=any(one.changed for one in seen),
    )
    found.data = (data,)
    found.places += upstream.places_in(data, Path(root), (os.path.relpath(path, root) for path in digests))


def _start(read: Read, cwd: Path) -> Path:
    """What the paths in its manifest are relative to; the file itself."""
    if read.kind != "glob":
        return cwd / read.path
    from ..hashing.walk import split_pattern

    return Path(os.fsdecode(split_pattern(os.fsencode(cwd / read.path))[0]))


def _stored(files: TaskFiles, one: _Seen) -> bytes:
    from ..errors import LedgerError

    assert one.read.manifest is not None
    offset, size = one.read.manifest
    path = files.results(one.worker)
    try:
        with open(layout.open_regular(path), "rb") as stream:
            stream.seek(offset)
            data = stream.read(min(size, os.fstat(stream.fileno()).st_size))
    except (OSError, ValueError, OverflowError) as error:
        raise LedgerError(f"{path}: {error}") from error
    if len(data) != size:
        raise LedgerError(f"{path}: ends before the manifest of {one.read.path!r}, at {offset}")
    return data


def _write(files: TaskFiles, manifest: bytes, n: int = 0) -> str:
    path = files.manifest(n)
    path.parent.mkdir(parents=True, exist_ok=True)
    layout.write_atomically(path, manifest)
    return path.relative_to(files.root).as_posix()
