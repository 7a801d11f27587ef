"""Hash files with blake3, and sum up what an input holds.

A file is opened without blocking and looked at before it is read. One that takes more than a single read is looked at
again afterwards, and read once more if it changed meanwhile. Only the worker process maps files: one that is truncated
while it is mapped kills whoever reads it.
"""

from __future__ import annotations

import errno
import mmap
import os
import stat
from collections.abc import Callable
from itertools import repeat
from typing import NamedTuple

from blake3 import blake3

from . import manifest
from .walk import NO_DIGEST, NO_RECORD, RECORD, SIGNATURE, Folder, Found, Gap

ONE_READ = 128 << 10
"""Bytes; up to here a file is read whole, which measures fastest."""
BLOCK = 1 << 20
MAPPED_FROM = 256 << 10
"""Bytes; below it, setting up a map costs more than copying."""
SLICE = 64 << 20
"""Bytes hashed between two reports; as fast as the whole map at once."""
MAX_GAPS = 50
"""Listed one by one; of the others only the number."""

_FILE = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_FOLDER = getattr(os, "O_PATH", os.O_RDONLY) | os.O_CLOEXEC | os.O_DIRECTORY


class Outcome(NamedTuple):
    """What one input was: plain values, which the worker can send."""

    digest: str | None
    """Hex, of the bytes of a file or of the manifest; None if nothing was hashed."""
    bytes: int
    files: int
    strength: str
    manifest: str | None
    """None for a file."""
    state: str
    """Hex digest of all names and signatures."""
    gaps: list[tuple[str, str]]
    """Path below the input, and why."""


class Reader:
    """Reads and hashes files.

    Parameters
    ----------
    report: called with the number of bytes hashed since the last call, now and then; may raise.
    mapped: map large files, and hash them on all cores; only where being killed is survivable.
    """

    def __init__(self, report: Callable[[int], None], *, mapped: bool = False) -> None:
        self._report = report
        self._mapped = mapped
        self._small = blake3()
        """Of small files: to make one for each costs a tenth of hashing it."""
        self._unreported = 0
        """Bytes of small files, for which a call each would cost as much as hashing them."""

    def read(self, folder: Folder) -> list[Gap]:
        """Fill in the records of a folder. What cannot be read comes back; its record has no digest."""
        gaps = []
        try:
            here = os.open(folder.path, _FOLDER)
        except OSError as error:
            folder.records = [NO_RECORD] * len(folder.names)
            return [Gap(folder.prefix + name, _reason(error)) for name in folder.names]
        try:
            for name, known in zip(folder.names, folder.known or repeat(b""), strict=False):
                try:
                    if known and known.startswith(_signature(os.stat(name, dir_fd=here))):
                        record = known
                    else:
                        record = self.record(name, here)
                except OSError as error:
                    gaps.append(Gap(folder.prefix + name, _reason(error)))
                    record = _signature_now(name, here) + NO_DIGEST
                folder.records.append(record)
        finally:
            os.close(here)
        self._report(self._unreported)
        self._unreported = 0
        return gaps

    def record(self, name: bytes, here: int | None = None) -> bytes:
        """Signature and digest of one file.

        Raises
        ------
        OSError: it cannot be read, is no regular file, or changed while it was being read, twice.
        """
        for _ in range(2):
            descriptor = os.open(name, _FILE, dir_fd=here)
            try:
                before = os.fstat(descriptor)
                if not stat.S_ISREG(before.st_mode):
                    raise OSError(errno.EINVAL, "not a regular file")
                signature, size, data = _signature(before), before.st_size, b""
                if size <= ONE_READ:
                    data = os.read(descriptor, size + 1)
                    if len(data) == size:
                        # No second look: between the first one and a single read() there is next to no time. Who
                        # wrote before the first one is not seen by a second one either; who writes after it
                        # changes the signature, which is compared again when the run ends and by the cache.
                        self._small.reset()
                        self._small.update(data)
                        self._unreported += size
                        return signature + self._small.digest()
                    # It has grown or shrunk, or claims no size, as files of /proc do.
                digest = self._digest(descriptor, size, data)
                if _signature(os.fstat(descriptor)) == signature:
                    return signature + digest
            finally:
                os.close(descriptor)
        raise OSError(errno.EAGAIN, "changed while it was being read, twice")

    def _digest(self, descriptor: int, size: int, begun: bytes) -> bytes:
        if self._mapped and size >= MAPPED_FROM:
            try:
                mapped = mmap.mmap(descriptor, size, prot=mmap.PROT_READ)
            except (OSError, ValueError):
                pass  # a file system without maps, or truncated since: the plain way finds out
            else:
                return self._digest_mapped(mapped)
        hasher, buffer = blake3(begun), bytearray(BLOCK)
        view = memoryview(buffer)
        while count := os.readv(descriptor, [buffer]):
            hasher.update(view[:count])
            self._report(count)
        return hasher.digest()

    def _digest_mapped(self, mapped: mmap.mmap) -> bytes:
        hasher = blake3(max_threads=blake3.AUTO)
        with mapped, memoryview(mapped) as view:
            for start in range(0, len(mapped), SLICE):
                with view[start : start + SLICE] as piece:
                    hasher.update(piece)
                    self._report(len(piece))
        return hasher.digest()


def look(folder: Folder) -> None:
    """Fill in the signatures of a folder's files, and no digests; reads nothing."""
    try:
        here = os.open(folder.path, _FOLDER)
    except OSError:
        folder.records = [NO_RECORD] * len(folder.names)
        return
    try:
        folder.records = [_signature_now(name, here) + NO_DIGEST for name in folder.names]
    finally:
        os.close(here)


def size_of(folder: Folder) -> int:
    """Bytes of its files, by their records."""
    return sum(RECORD.unpack(record)[2] for record in folder.records)


def state_of(found: Found) -> str:
    """A digest of all names and signatures: it differs once a file was added, removed, replaced or changed."""
    hasher = blake3()
    for folder in found.folders:
        signatures = [record[: SIGNATURE.size] for record in folder.records]
        hasher.update(b"\0".join([folder.prefix, *folder.names, b"", *signatures]))
    for gap in found.gaps:
        hasher.update(gap.path + b"\0" + gap.why.encode())
    return hasher.hexdigest()


def hash_found(kind: str, found: Found, reader: Reader) -> Outcome:
    """Read the files of an input. A folder of which some could not be read is `stat`, not `content`."""
    gaps = [*found.gaps, *(gap for folder in found.folders for gap in reader.read(folder))]
    state, size = state_of(found), sum(map(size_of, found.folders))
    entries = [
        (folder.prefix + name, record[SIGNATURE.size :])
        for folder in found.folders
        for name, record in zip(folder.names, folder.records, strict=True)
        if not record.endswith(NO_DIGEST)
    ]
    if kind == "file":
        digest = entries[0][1].hex() if entries else None
        strength = "content" if entries else "skipped"
        return Outcome(digest, size, 1, strength, None, state, _described(gaps))
    weak = any(gap.weak for gap in gaps)
    why = "hashed, but `b3sum --check` cannot check a name that is not UTF-8 or holds U+FFFD"
    gaps += [Gap(path, why, weak=False) for path, _ in entries if manifest.is_uncheckable(path)]
    if weak and not entries:
        return Outcome(None, size, 0, "skipped", None, state, _described(gaps))
    lines = manifest.render(entries)
    digest, strength = blake3(lines).hexdigest(), "stat" if weak else "content"
    return Outcome(digest, size, len(entries), strength, lines.decode(), state, _described(gaps))


def _described(gaps: list[Gap]) -> list[tuple[str, str]]:
    gaps = sorted(gaps, key=lambda gap: (not gap.weak, gap.path))
    described = [(gap.path.decode("utf-8", "backslashreplace"), gap.why) for gap in gaps[:MAX_GAPS]]
    if len(gaps) > MAX_GAPS:
        described.append(("", f"{len(gaps) - MAX_GAPS} more places like these"))
    return described


def _signature(status: os.stat_result) -> bytes:
    return SIGNATURE.pack(
        status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
    )


def _signature_now(name: bytes, here: int) -> bytes:
    try:
        return _signature(os.stat(name, dir_fd=here))
    except OSError:
        return NO_RECORD[: SIGNATURE.size]


def _reason(error: OSError) -> str:
    if error.errno == errno.ENOENT:
        return "vanished while the data was being hashed"
    if error.errno == errno.EAGAIN:
        return str(error.strerror)
    return f"cannot be read: {error.strerror}"
