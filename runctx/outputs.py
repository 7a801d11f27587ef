"""Hash what a run has saved in its folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from . import layout
from .model import Data, Kind, Lock, Omission

if TYPE_CHECKING:
    from .hashing import Hashed, Hashing


@dataclass(frozen=True, kw_only=True, slots=True)
class Outputs:
    """What the user saved."""

    data: tuple[Data, ...]
    """One for each file or folder directly in save_dir, by name."""
    manifest: bytes
    """Of all files that were hashed, relative to save_dir; empty if there are none."""
    omissions: tuple[Omission, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Entry:
    name: str
    kind: Kind
    files: int
    bytes: int


def collect(
    save_dir: Path,
    *,
    own: Collection[str],
    maps: Collection[str] = (),
    max_bytes: int,
    cache: Path,
    wait: Callable[[Hashing], None],
) -> Outputs:
    """Hash what lies in save_dir beside our own files; the smallest first, up to `max_bytes` in all.

    Parameters
    ----------
    own: names of the folders the run has made itself; others of a name that is ours are told as omissions.
    maps: names of those that it has made in the folder of its tasks.
    max_bytes: what exceeds it is recorded by size only.
    wait: called with the hashing under way; returns when it is done or was cancelled.
    """
    entries, omissions = _list(save_dir, own)
    if maps:
        omissions += _beside(save_dir / layout.TASKS, maps)
    budget, chosen = max_bytes, []
    for entry in sorted(entries, key=lambda e: (e.bytes, e.name)):
        if entry.bytes > budget:
            break
        budget -= entry.bytes
        chosen.append(entry.name)
    hashed: dict[str, Hashed] = {}
    if chosen:
        from .hashing import Hashing

        pending = Hashing(chosen, base=save_dir, cache=cache, low_priority=False)
        pending.start()
        wait(pending)
        hashed = dict(zip(chosen, pending.join(0), strict=True))
    data = tuple(_described(entry, hashed.get(entry.name)) for entry in entries)
    for entry in entries:
        if entry.name in hashed:
            omissions += hashed[entry.name].omissions
        else:
            why = f"{entry.bytes} bytes are more than is hashed at exit (max_output_size = {max_bytes})"
            omissions.append(Omission(what=f"digest of {entry.name}", why=why))
    return Outputs(data=data, manifest=_manifest(hashed), omissions=tuple(omissions))


def folders_of(lock: Lock, save_dir: Path) -> tuple[str, ...]:
    """Names of the folders that a run has made itself."""
    made = {
        layout.INPUTS: any(data.manifest for data in lock.inputs),
        layout.SOURCE: lock.source.copies is not None,
        layout.TASKS: bool(lock.tasks),
        layout.METRICS: any(
            next((save_dir / layout.METRICS).glob(f"{writer}-*.jsonl"), None)
            for writer in ("[0-9]*", "system")
        ),
    }
    return tuple(name for name, ours in made.items() if ours)


def _list(save_dir: Path, own: Collection[str]) -> tuple[list[_Entry], list[Omission]]:
    entries, omissions = [], []
    with os.scandir(save_dir) as found:
        for entry in sorted(found, key=lambda e: e.name):
            if layout.is_own(entry.name):
                if entry.name in layout.FOLDERS and entry.name not in own:
                    omissions.append(Omission(what=entry.name, why=_KEPT))
                continue
            try:
                seen = _look_at(entry, save_dir)
            except OSError as error:  # a loop of links, or gone by now
                seen = error.strerror or str(error)
            if isinstance(seen, str):
                omissions.append(Omission(what=entry.name, why=seen))
            else:
                entries.append(seen)
    return entries, omissions


def _beside(folder: Path, own: Collection[str]) -> list[Omission]:
    """What somebody else saved in a folder that is ours."""
    try:
        found = sorted(os.listdir(folder))
    except OSError:
        return []
    return [Omission(what=f"{folder.name}/{name}", why=_KEPT) for name in found if name not in own]


_KEPT = "a name kept for the run's own files"


def _look_at(entry: os.DirEntry[str], save_dir: Path) -> _Entry | str:
    """What it is, or why it is left out."""
    if entry.is_symlink() and not Path(os.path.realpath(entry.path)).is_relative_to(save_dir):
        return "a link to outside the run's folder, not followed"
    if entry.is_dir():
        files, size = _measure(entry.path)
        return _Entry(name=entry.name, kind="folder", files=files, bytes=size)
    if entry.is_file():
        return _Entry(name=entry.name, kind="file", files=1, bytes=entry.stat().st_size)
    return "neither a file nor a folder"


def _measure(folder: str) -> tuple[int, int]:
    files = size = 0
    for path, _, names in os.walk(folder):
        for name in names:
            try:
                size += os.stat(os.path.join(path, name)).st_size
            except OSError:
                continue  # a broken link; the hashing says so
            files += 1
    return files, size


def _described(entry: _Entry, hashed: Hashed | None) -> Data:
    if hashed is None:
        return Data(path=entry.name, kind=entry.kind, bytes=entry.bytes, files=entry.files, strength="stat")
    data = hashed.data
    return Data(
        path=entry.name,
        kind=entry.kind,
        digest=data.digest,
        bytes=data.bytes,
        files=data.files,
        strength=data.strength,
        manifest=layout.OUTPUTS if entry.kind == "folder" else None,
    )


def _manifest(hashed: dict[str, Hashed]) -> bytes:
    from .hashing import read_manifest, write_manifest

    digests: dict[str, str] = {}
    for name, one in hashed.items():
        if one.manifest is not None:
            digests |= {f"{name}/{path}": digest for path, digest in read_manifest(one.manifest).items()}
        elif one.data.digest is not None:
            digests[name] = one.data.digest
    return write_manifest(digests) if digests else b""
