"""Find the earlier runs that the inputs of a run belong to."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from . import layout, lock
from .errors import LockError, NoRunError
from .liveness import is_alive
from .model import Data, Lock, Omission

MAX_FOLDERS = 10_000
"""Folders of one input that are looked at for runs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Upstream:
    """The runs that some inputs belong to."""

    owners: Mapping[str, str | None] = field(default_factory=dict)
    """Input as given -> id of the run it is, or lies in; None where it holds files of several."""
    parents: tuple[str, ...] = ()
    locks: tuple[Lock, ...] = ()
    """Of the parents and all before them, each once and without its own `upstream`, oldest first.

    Without `origins` too, which may be larger than all the rest: who set a value, a run's own lock tells.
    """
    omissions: tuple[Omission, ...] = ()
    inside: str | None = None
    """Id of the run in whose block all this is: that it is still running is no omission."""

    def owned(self, data: Data) -> Data:
        """The input, with the run it belongs to."""
        return replace(data, run=self.owners.get(data.path))


def known_to(lock: Lock) -> Upstream:
    """The earlier runs that a lock tells of."""
    owners = {data.path: data.run for data in lock.inputs}
    return Upstream(owners=owners, parents=lock.parents, locks=lock.upstream)


def find(
    places: Iterable[tuple[str, Path]], *, known: Upstream | None = None, own: Path | None = None
) -> Upstream:
    """The runs whose folder a place is, or lies in, with everything they read from themselves.

    Parameters
    ----------
    places: inputs as given, and where what they hold lies; links are followed.
    known: what was found before; its locks stay as they were then.
    own: the run's own folder, which is not upstream.
    """
    known = known or Upstream()
    owners = dict(known.owners)
    locks = {run.id: run for run in known.locks}
    parents = dict.fromkeys(known.parents)
    omissions = list(known.omissions)
    seen: dict[Path, str | None] = {}
    for path, place in places:
        folder = layout.find_run(Path(os.path.realpath(place)))
        if folder is None or folder == own:
            continue
        if folder not in seen:
            try:
                seen[folder] = _add(lock.read(folder), folder, path, parents, locks, omissions, known.inside)
            except (LockError, NoRunError) as error:
                seen[folder] = None
                omissions.append(Omission(what=f"upstream run of {path}", why=error.message))
        if (owner := seen[folder]) is not None:
            owners[path] = owner if owners.get(path, owner) == owner else None
    oldest_first = tuple(sorted(locks.values(), key=lambda run: (run.started, run.id)))
    return replace(
        known, owners=owners, parents=tuple(parents), locks=oldest_first, omissions=tuple(omissions)
    )


def _add(
    parent: Lock,
    folder: Path,
    path: str,
    parents: dict[str, None],
    locks: dict[str, Lock],
    omissions: list[Omission],
    inside: str | None,
) -> str:
    if parent.id not in parents:
        parents[parent.id] = None
        status = _status(parent, folder)
        if status != "done" and parent.id != inside:
            why = f"{path} was read while that run was {status}"
            omissions.append(Omission(what=f"upstream run {parent.id}", why=why))
        for earlier in (*parent.upstream, parent):
            locks.setdefault(earlier.id, replace(earlier, upstream=(), origins={}))
    return parent.id


def _status(parent: Lock, folder: Path) -> str:
    if parent.status != "running":
        return parent.status
    return "running" if is_alive(folder, parent.command.host, parent.command.pid) else "crashed"


def places_in(data: Data, root: Path, files: Iterable[str]) -> list[tuple[str, Path]]:
    """The folders of an input's files, of which some may be other runs'.

    Parameters
    ----------
    root: what the paths of the files are relative to.
    """
    folders = dict.fromkeys(os.path.dirname(file) for file in files)
    return [(data.path, root / folder) for folder in list(folders)[:MAX_FOLDERS]]


def contradictions(lock: Lock) -> tuple[Omission, ...]:
    """Inputs that are no longer what their run said it wrote."""
    outputs = {run.id: {output.path: output.digest for output in run.outputs} for run in lock.upstream}
    found = []
    for data in lock.inputs:
        said = outputs.get(data.run or "", {}).get(Path(data.path).name)
        if said is not None and data.digest is not None and data.kind == "file" and said != data.digest:
            why = f"changed since run {data.run} wrote it: it was {said}; it is {data.digest}"
            found.append(Omission(what=f"origin of {data.path}", why=why))
    return tuple(found)
