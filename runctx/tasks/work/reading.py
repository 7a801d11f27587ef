"""What do the runs inside tasks read? Found out by each worker: at once, in the background, or known from before."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ... import layout
from ...model import Data
from ..ledger.rows import Read

if TYPE_CHECKING:
    from ...hashing import Hashed, Hashing

SMALL = 1 << 20
"""Bytes of a file that is read on the spot: telling somebody else to takes about as long."""


@dataclass(slots=True, eq=False)
class Input:
    """An input of a run inside a task."""

    data: Data
    """As far as it is known."""
    place: tuple[str, ...]
    """By which it is recognised: its name, where it lies, and for a file its size and times."""
    read: Read | None = None
    hashing: Hashing | None = None
    """While it goes on."""


@dataclass(slots=True)
class Reading:
    """What the tasks of one worker read, one task after another.

    Parameters
    ----------
    cwd: where the parent's relative paths start.
    covered: absolute paths: what lies there is the parent's input, and not told once more.
    """

    cwd: str
    covered: tuple[str, ...]
    begun: list[Input] = field(default_factory=list)
    """By the task that goes on."""
    _known: dict[tuple[str, ...], Input] = field(default_factory=dict)

    def begin(self, names: Iterable[str | None], paths: Iterable[str]) -> tuple[Input, ...]:
        """Look for the inputs of a run, and begin to hash those that are not the parent's.

        Raises
        ------
        InputError: one is missing.
        """
        several = zip(names, paths, strict=True)
        found = tuple(one for name, path in several if (one := self._begin(name, path)) is not None)
        self.begun += found
        return found

    def _begin(self, name: str | None, given: str) -> Input | None:
        from ...hashing import locate

        base = os.getcwd()
        found = locate(given, Path(base))
        absolute = os.path.abspath(os.path.join(base, given))
        if any(absolute == root or absolute.startswith(root + os.sep) for root in self.covered):
            return None
        place = (name or "", absolute, *(_stamp(absolute) if found.kind == "file" else ()))
        if place in self._known:
            return self._known[place]
        path = given if base == self.cwd else os.path.join(base, given)
        path = os.fsencode(path).decode("utf-8", "backslashreplace")  # some bytes no row can hold
        data = Data(path=path, kind=found.kind, bytes=found.size, strength="skipped", name=name)
        one = Input(data, place)
        if found.kind == "file" and not found.oddity and found.size <= SMALL:
            _read_at_once(one, absolute)
        if one.read is None:
            from ...hashing import Hashing

            one.hashing = Hashing([given], base=Path(base), cache=layout.cache_dir())
            one.hashing.start()
        self._known[place] = one
        return one

    def end(
        self, store: Callable[[bytes], tuple[int, int]], patience: float | None = None
    ) -> tuple[Read, ...]:
        """What the task has read, all of it: it is over.

        Parameters
        ----------
        store: keeps a manifest; where.
        patience: seconds to wait for what is still being hashed.
        """
        told = {one.data.path: self._joined(one, store, patience) for one in self.begun}
        self.begun = []
        return tuple(told.values())

    def _joined(self, one: Input, store: Callable[[bytes], tuple[int, int]], patience: float | None) -> Read:
        if one.read is not None:
            return one.read
        assert one.hashing is not None
        (hashed,) = one.hashing.join(patience)
        if not one.hashing.done:  # the next task that reads it looks again
            one.hashing.cancel()
            self._known.pop(one.place, None)
        one.hashing = None
        one.read = _told(hashed, one.data, store)
        one.data = data_of(one.read)
        return one.read


def _stamp(path: str) -> tuple[str, ...]:
    found = os.stat(path)
    return (f"{found.st_dev} {found.st_ino} {found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}",)


def _read_at_once(one: Input, path: str) -> None:
    from ...errors import InputError
    from ...hashing import digest_file

    try:
        digest = digest_file(path)
    except InputError:
        return  # unreadable, or being written: the long way says how
    one.read = Read(one.data.path, digest, one.data.bytes, name=one.data.name)
    one.data = data_of(one.read)


def _told(hashed: Hashed, known: Data, store: Callable[[bytes], tuple[int, int]]) -> Read:
    data = hashed.data
    gaps = [f"{omission.what}: {omission.why}" for omission in hashed.omissions]
    return Read(
        known.path,
        data.digest,
        data.bytes,
        data.kind,
        data.files,
        None if hashed.manifest is None else store(hashed.manifest),
        "; ".join(gaps[:3] + [f"{len(gaps) - 3} more"] * (len(gaps) > 3)),
        known.name,
    )


def data_of(read: Read) -> Data:
    """As a lock tells it."""
    return Data(
        path=read.path,
        kind=read.kind,
        digest=read.digest,
        bytes=read.bytes,
        files=read.files,
        strength="skipped" if read.digest is None else "stat" if read.gap else "content",
        name=read.name,
    )


def brief(reads: Iterable[Read]) -> list[tuple[object, ...]]:
    """As short as they can be written: of a file, path, digest and bytes."""
    return [
        (r.path, r.digest, r.bytes)
        if r.kind == "file" and not r.gap and r.name is None
        else (r.path, r.digest, r.bytes, r.kind, r.files, r.manifest, r.gap, r.name)
        for r in reads
    ]
