"""What do the files hold?

A file is opened without blocking and looked at before it is read. One that takes more than a single read is
looked at again afterwards, and read once more if it changed meanwhile. Only a helper process maps files: one
that is truncated while mapped kills whoever reads it.
"""

from __future__ import annotations

import errno
import os
import stat
import struct

from blake3 import blake3

from .tree import Folder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

SIGNATURE = struct.Struct("=QQqqq")
"""Device, inode, size, mtime and ctime (nanoseconds): while these stay, the content is taken to stay."""

DIGEST = 32
NO_DIGEST = bytes(DIGEST)
NO_SIGNATURE = bytes(SIGNATURE.size)
RECORD = SIGNATURE.size + DIGEST

ONE_READ = 128 << 10
"""Bytes; up to here a file is read whole, which measures fastest."""
BLOCK = 1 << 20
MAPPED_FROM = 256 << 10
"""Bytes; below it, setting up a map costs more than copying."""
LARGE = 32 << 20
"""Bytes; from here on a file is worth all cores."""
SLICE = 64 << 20
"""Bytes hashed between two looks at progress; as fast as the whole map at once."""

_OPEN = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_OPEN_FOLDER = getattr(os, "O_PATH", os.O_RDONLY) | os.O_CLOEXEC | os.O_DIRECTORY


class Means:
    """How to read, and whom to tell.

    Parameters
    ----------
    read: False to look at signatures only.
    mapped: map files instead of copying them; only where being killed is survivable.
    threads: for one file.
    defer: leave large files for later.
    admit: called with the size in bytes before a file is read; may raise.
    advance: called with the number of bytes that were hashed, now and then; may raise.
    """

    __slots__ = ("admit", "advance", "defer", "hasher", "mapped", "read", "threads", "untold")

    def __init__(
        self,
        *,
        read: bool = True,
        mapped: bool = False,
        threads: int = 1,
        defer: bool = False,
        admit: Callable[[int], None] | None = None,
        advance: Callable[[int], None] = lambda size: None,
    ) -> None:
        self.read = read
        self.mapped = mapped
        self.threads = threads
        self.defer = defer
        self.admit = admit
        self.advance = advance
        self.hasher = blake3()
        """Of small files: to make one for each costs a tenth of hashing it."""
        self.untold = 0
        """Bytes of small files, for which a call each would cost as much as hashing them."""


Part = tuple[bytes, bytes, list[tuple[int, str]], list[int]]
"""Packed digests, packed signatures, what went wrong at which index, indexes left for later."""


_RESTLESS = "changed while it was being read, twice"


class _Restless(Exception):  # noqa: N818  a signal, not an error
    """The file changed each time it was read."""


def examine(folder: Folder, start: int, stop: int, means: Means) -> Part:
    """The digests and signatures of some files of a folder; never raises for what the file system does."""
    digests, signatures, wrong, later = [], [], [], []
    known, names = folder.known, folder.names
    try:
        here = os.open(folder.path, _OPEN_FOLDER)
    except OSError as error:
        count = stop - start
        every = [(i, _reason(error)) for i in range(start, stop)]
        return NO_DIGEST * count, NO_SIGNATURE * count, every, []
    try:
        for i in range(start, stop):
            digest = NO_DIGEST
            try:
                if known or not means.read:
                    signature = _signature(os.stat(names[i], dir_fd=here))
                    at = i * RECORD
                    if known[at : at + SIGNATURE.size] == signature:
                        digest = known[at + SIGNATURE.size : at + RECORD]
                if means.read and digest is NO_DIGEST:
                    digest, signature = _settled(names[i], here, means)
                    if digest is NO_DIGEST:
                        later.append(i)
            except OSError as error:
                signature = _try_signature(names[i], here)
                if means.read:
                    wrong.append((i, _reason(error)))
            except _Restless:
                signature = _try_signature(names[i], here)
                wrong.append((i, _RESTLESS))
            digests.append(digest)
            signatures.append(signature)
    finally:
        os.close(here)
    means.advance(means.untold)
    means.untold = 0
    return b"".join(digests), b"".join(signatures), wrong, later


def digest_at(path: bytes) -> bytes:
    """The digest of one file, read plainly.

    Raises
    ------
    OSError: it cannot be read, is no regular file, or changed while it was being read, twice.
    """
    try:
        return _settled(path, None, Means())[0]
    except _Restless:
        raise OSError(errno.EAGAIN, _RESTLESS) from None


def _settled(name: bytes, here: int | None, means: Means) -> tuple[bytes, bytes]:
    for _ in range(2):
        descriptor = os.open(name, _OPEN, dir_fd=here)
        try:
            before = os.fstat(descriptor)
            size = before.st_size
            if not stat.S_ISREG(before.st_mode):
                raise OSError(errno.EINVAL, "not a regular file")
            if means.admit is not None:
                means.admit(size)
            if size <= ONE_READ:
                data = os.read(descriptor, size + 1)
                means.untold += size
                if len(data) == size:
                    # No second look: between the first one and a single read() there is next to no time. Who
                    # wrote before the first one is not seen by a second one either; who writes after it
                    # changes the signature, which is compared again when the run ends and by the cache.
                    means.hasher.reset()
                    means.hasher.update(data)
                    return means.hasher.digest(), _signature(before)
                # It has grown or shrunk, or claims no size, as files of /proc do.
                digest = _read_on(data, descriptor, means)
            elif means.defer and size >= LARGE:
                return NO_DIGEST, _signature(before)
            else:
                digest = _digest(descriptor, size, means)
            after = os.fstat(descriptor)
        finally:
            os.close(descriptor)
        if (
            after.st_mtime_ns == before.st_mtime_ns
            and after.st_size == size
            and after.st_ctime_ns == before.st_ctime_ns
        ):
            return digest, _signature(before)
    raise _Restless


def _digest(descriptor: int, size: int, means: Means) -> bytes:
    if means.mapped and size >= MAPPED_FROM:
        try:
            return _digest_mapped(descriptor, size, means)
        except (OSError, ValueError):
            pass  # a file system without maps, or truncated since: the plain way finds out
    return _read_on(b"", descriptor, means)


def _read_on(begun: bytes, descriptor: int, means: Means) -> bytes:
    hasher = blake3(begun)
    buffer = bytearray(BLOCK)
    view = memoryview(buffer)
    while count := os.readv(descriptor, [buffer]):
        hasher.update(view[:count])
        means.advance(count)
    return hasher.digest()


def _digest_mapped(descriptor: int, size: int, means: Means) -> bytes:
    import mmap

    hasher = blake3(max_threads=means.threads)
    with mmap.mmap(descriptor, size, prot=mmap.PROT_READ) as mapped, memoryview(mapped) as view:
        for start in range(0, size, SLICE):
            with view[start : start + SLICE] as piece:
                hasher.update(piece)
                means.advance(len(piece))
    return hasher.digest()


def _signature(status: os.stat_result) -> bytes:
    return SIGNATURE.pack(
        status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
    )


def _try_signature(name: bytes, here: int) -> bytes:
    try:
        return _signature(os.stat(name, dir_fd=here))
    except OSError:
        return NO_SIGNATURE


def _reason(error: OSError) -> str:
    if error.errno == errno.ENOENT:
        return "vanished while the data was being hashed"
    return f"cannot be read: {error.strerror}"
