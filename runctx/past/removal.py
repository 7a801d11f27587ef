"""Remove runs for good, once it is known what depends on them."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import RunStateError, SaveDirError, TrackingError
from . import index
from .record import Record, row_now
from .row import Row


@dataclass(frozen=True, kw_only=True, slots=True)
class Removal:
    """One run that shall be removed, and who would miss it."""

    row: Row
    files: int
    bytes: int
    readers: tuple[Row, ...]
    """Runs that read from it, directly or not, and are not removed with it: the project's, and those beside it."""
    inside: tuple[Row, ...]
    """Other runs whose folders lie in its folder, and which go with it."""

    @property
    def folder(self) -> Path:
        return Path(self.row.path)


def planned(folders: Iterable[Path]) -> list[Removal]:
    """Find out what removing these runs means; nothing is removed yet.

    Raises
    ------
    RunStateError: one of them, or of those inside, still goes on.
    """
    chosen = list(dict.fromkeys(folder.resolve() for folder in folders))
    there = {row.path: row for root in (None, *_beside(chosen)) for row in index.runs(root).rows}
    rows = [row_now(folder) for folder in chosen]
    inside = {
        row.path: tuple(one for sub in _folders(row.path) for one in index.runs(sub).rows) for row in rows
    }
    for row in (*rows, *(one for some in inside.values() for one in some)):
        if row.status in ("running", "submitted"):
            raise RunStateError(
                f"cannot remove run {row.id}: it is {row.status}",
                hint="wait for it to end, or stop it; then remove it",
            )
    gone = {row.id for row in (*rows, *(one for some in inside.values() for one in some))}
    return [
        Removal(
            row=row,
            files=files,
            bytes=size,
            readers=tuple(one for one in _readers(row.id, list(there.values())) if one.id not in gone),
            inside=inside[row.path],
        )
        for row in rows
        for files, size in [_size(row.path)]
    ]


def remove(removal: Removal) -> None:
    """Remove a run's folder: at once it is no run any more, then its files go.

    Raises
    ------
    SaveDirError: it, or some of its files, cannot be removed.
    """
    folder = removal.folder
    aside = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.tmp")
    try:
        os.rename(folder, aside)
        shutil.rmtree(aside)
    except OSError as error:
        left = f"; what is left lies in {aside}" if aside.exists() else ""
        raise SaveDirError(
            f"cannot remove {folder}: {error.strerror or error}{left}",
            hint="give yourself the right to write there, then remove what is left",
        ) from error


def remove_views(removal: Removal) -> list[str]:
    """Remove what MLflow, or wherever the project's setting `tracking` says, has of a run; where that was.

    Raises
    ------
    TrackingError: a destination cannot be reached, or removes nothing. SettingsError: the settings are wrong.
    """
    from ..trackers.publication import Publication
    from ..trackers.publishing import Trackers
    from ..trackers.tracker import Removing

    removed = []
    for tracker in Trackers().of_run(removal.folder):
        if not isinstance(tracker, Removing):
            raise TrackingError(f"{tracker.name} cannot remove its view of run {removal.row.id}")
        if Publication(removal.folder, tracker).removed(Record(removal.folder)):
            removed.append(f"{tracker.name}: {tracker.destination}")
    return removed


def _beside(folders: Sequence[Path]) -> list[Path]:
    """The folders around, in which runs of other projects may lie beside those that are removed."""
    return list(dict.fromkeys(folder.parent for folder in folders))


def _readers(id: str, rows: Sequence[Row]) -> Iterator[Row]:
    found, pending = {id}, [id]
    while pending:
        parent = pending.pop()
        for row in rows:
            if parent in row.parents and row.id not in found:
                found.add(row.id)
                pending.append(row.id)
                yield row


def _folders(path: str) -> Iterator[str]:
    with os.scandir(path) as entries:
        yield from (entry.path for entry in entries if entry.is_dir(follow_symlinks=False))


def _size(path: str) -> tuple[int, int]:
    """Files, and bytes of all."""
    files = size = 0
    for folder, _, names in os.walk(path):
        for name in names:
            files += 1
            size += os.lstat(os.path.join(folder, name)).st_size
    return files, size
