"""List the files of an input: of a folder, of those that match a glob, or the file itself.

Paths are bytes, as the file system has them. Links are followed. A folder that contains itself through a link,
or that is reached through more than `MAX_VISITS` links, is a gap. What is neither file nor folder is never opened.

This module, `contents`, `cache` and `manifest` also run in the worker process: they import the standard library,
blake3 and each other, and nothing that is slow to import.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import struct
from collections import Counter
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import NamedTuple

MAX_VISITS = 64
"""A chain of folders that hold two links each to the next doubles at every step: thirty make a billion paths."""

LOCK = b"run.lock"
OWN = frozenset(
    b".runctx config.yaml inputs metrics outputs.b3 run.lock run.log run.notes source tasks".split()
)
"""A folder with a run.lock is a run's, and counts as what the user saved in it: two runs that saved the same are
equal. The same names as `layout.OWN`, which the worker cannot import."""
_LOG_OF_RANK = re.compile(rb"run\.rank.*\.log", re.DOTALL)

SIGNATURE = struct.Struct("=QQqqq")
"""Device, inode, size, mtime and ctime (nanoseconds): while these stay, the content is taken to stay."""
RECORD = struct.Struct("=QQqqq32s")
"""A signature and the blake3 digest of the content."""
NO_DIGEST = bytes(RECORD.size - SIGNATURE.size)
NO_RECORD = bytes(RECORD.size)

Wanted = tuple[tuple[bytes, ...], ...]
"""What a glob still asks for below a folder: alternatives, each the parts of a pattern."""


class Gap(NamedTuple):
    """A place whose content is not in the digest."""

    path: bytes
    """Below the root of the input."""
    why: str
    weak: bool = True
    """Whether there was content that should be in the digest."""


class Folder:
    """Some files of one folder, in the order of their names."""

    __slots__ = ("key", "known", "names", "path", "prefix", "records")

    def __init__(self, path: bytes, prefix: bytes, names: list[bytes], key: bytes) -> None:
        self.path = path
        self.prefix = prefix
        """Its path below the root of the input, with a slash at the end; empty for the root."""
        self.names = names
        self.key = key
        """The cache's key: device and inode, and for part of a folder the selection of its files."""
        self.known: list[bytes] = []
        """Records that the cache has for `names`; empty for none."""
        self.records: list[bytes] = []
        """Filled in by `contents`."""


class Found(NamedTuple):
    """The files of one input, and what of it could not be listed."""

    folders: list[Folder]
    gaps: list[Gap]


def find(kind: str, path: bytes, pattern: bytes) -> Found:
    """All that `walk` comes upon."""
    found = Found([], [])
    for one in walk(kind, path, pattern):
        if isinstance(one, Gap):
            found.gaps.append(one)
        elif one.names:
            found.folders.append(one)
    return found


def walk(kind: str, root: bytes, pattern: bytes) -> Iterator[Folder | Gap]:
    """The files of a `file`, a `folder`, or a `glob` (`root` is then the folder its `pattern` starts in).

    A folder that a glob matches comes with all below it, even if it is empty. As in a shell, `**` stands for any
    number of folders, only a part that starts with a dot matches hidden names, and what cannot be listed matches
    nothing.
    """
    if kind == "file":
        yield _single(root)
        return
    parts = tuple(part for part in pattern.split(b"/") if part not in (b"", b"."))
    visits: Counter[tuple[int, int]] = Counter()
    todo: list[tuple[bytes, Wanted | None, tuple[tuple[int, int], ...]]] = [
        (b"", _alternatives(parts) if parts else None, ())
    ]
    while todo:
        prefix, wanted, above = todo.pop()
        path = root + b"/" + prefix if prefix else root
        trouble = None
        try:
            identity = _identity(path)
            visits[identity] += 1
            if identity in above:
                trouble = Gap(prefix[:-1], "a link back to a folder it lies in", weak=False)
            elif visits[identity] > MAX_VISITS:
                trouble = Gap(prefix[:-1], f"a folder reached through more than {MAX_VISITS} links")
            else:
                names, below, gaps = _list(path, prefix, wanted)
        except OSError as error:
            trouble = Gap(prefix[:-1], f"a folder that cannot be listed: {error.strerror}")
        if trouble is not None:
            if wanted is None:
                yield trouble
            continue
        if names or wanted is None:
            key = b"%x:%x" % identity
            yield Folder(path, prefix, names, key if wanted is None else pattern + b":" + key)
        yield from gaps
        todo += [(folder, left, (*above, identity)) for folder, left in below]


def _single(path: bytes) -> Folder:
    head, name = os.path.split(path)
    try:
        key = b"file:%x:%x" % _identity(path)
    except OSError:
        key = b"gone"  # reading it says so
    return Folder(head or b".", b"", [name], key)


def _list(
    path: bytes, prefix: bytes, wanted: Wanted | None
) -> tuple[list[bytes], list[tuple[bytes, Wanted | None]], list[Gap]]:
    """Names of the files, prefixes of the folders to visit with what is wanted there, and gaps."""
    files, folders, gaps = [], [], []
    with os.scandir(path) as entries:
        for entry in entries:
            name = entry.name
            chosen, below = (True, None) if wanted is None else _select(name, wanted)
            if not chosen and not below:
                continue
            try:
                if entry.is_file():
                    if chosen:
                        files.append(name)
                elif entry.is_dir():
                    folders.append((name, below))
                elif chosen:
                    why = oddity(entry.stat().st_mode) or "changed while it was listed"
                    gaps.append(Gap(prefix + name, why, weak=False))
            except OSError as error:
                if chosen:
                    gaps.append(_unreachable(prefix + name, error))
    if wanted is None and LOCK in files:
        files = [name for name in files if name not in OWN and not _LOG_OF_RANK.fullmatch(name)]
        folders = [folder for folder in folders if folder[0] not in OWN]
    files.sort()
    folders.sort(reverse=True)  # the last is visited first
    return files, [(prefix + name + b"/", below) for name, below in folders], gaps


def _alternatives(parts: tuple[bytes, ...]) -> Wanted:
    """The pattern, and what it is where its leading `**` stand for no folder."""
    if parts[0] != b"**":
        return (parts,)
    return (parts, *_alternatives(parts[1:] or (b"*",)))


def _select(name: bytes, wanted: Wanted) -> tuple[bool, Wanted | None]:
    """Whether the pattern names it; if not, what is wanted below it, should it be a folder."""
    hidden = name.startswith(b".")
    below: dict[tuple[bytes, ...], None] = {}
    for parts in wanted:
        head, rest = parts[0], parts[1:]
        if head == b"**":
            if not hidden:
                below |= dict.fromkeys(_alternatives(parts))
        elif hidden == head.startswith(b".") and fnmatchcase(name, head):
            if not rest:
                return True, None
            below |= dict.fromkeys(_alternatives(rest))
    return False, tuple(below)


def split_pattern(path: bytes) -> tuple[bytes, bytes]:
    """The folder a glob starts in, and the rest: manifests are relative to the former.

    >>> split_pattern(b"/data/2024/*/x.csv"), split_pattern(b"*.csv"), split_pattern(b"/*")
    ((b'/data/2024', b'*/x.csv'), (b'.', b'*.csv'), (b'/', b'*'))
    """
    parts = path.split(b"/")
    literal = next((i for i, part in enumerate(parts) if is_magic(part)), len(parts))
    root = b"/".join(parts[:literal]) or (b"/" if path.startswith(b"/") else b".")
    return root, b"/".join(parts[literal:])


def is_magic(path: bytes) -> bool:
    """Whether it holds a wildcard."""
    return any(mark in path for mark in b"*?[")


def oddity(mode: int) -> str | None:
    """In words, what something is that is neither a file nor a folder; None for those."""
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return None
    names = {
        stat.S_IFIFO: "a FIFO",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    return names.get(stat.S_IFMT(mode), "neither a file nor a folder") + ", not read"


def _unreachable(path: bytes, error: OSError) -> Gap:
    if error.errno == errno.ENOENT:
        return Gap(path, "a broken link", weak=False)
    if error.errno == errno.ELOOP:
        return Gap(path, "a link to itself", weak=False)
    return Gap(path, f"cannot be read: {error.strerror}")


def _identity(path: bytes) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino
