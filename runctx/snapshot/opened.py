"""What is known of a repository between two snapshots of one process?

Opening a repository and looking through its index costs more than a snapshot of a clean one. Both are kept
per process and thread, and every use checks, by a few `stat` calls, that what they were read from is still
the same.
"""

from __future__ import annotations

import hashlib
import os
import struct
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .branch import common_dir
from .trees import Entry

if TYPE_CHECKING:
    import pygit2

Stamp = tuple[int, ...]

_local = threading.local()


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexFacts:
    """What a look at the index file tells, without reading its entries into Python."""

    entries: int
    simple: bool
    """Nothing in it that libgit2 is known to read differently from git."""
    attributes: bool
    """Whether a small one holds a `.gitattributes`; a large one is not read through."""
    stale: bool
    """The stat data are not those of this work tree (a copied repository): git would read every file."""


class Opened:
    """An open repository, and what was learned about it.

    Attributes
    ----------
    repo: pygit2's handle; never shared between threads or with a forked process.
    root: the work tree.
    memory: what changed files hashed to.
    rewritten: a tree, the edits last made to it, and the tree they gave.
    """

    def __init__(self, root: Path) -> None:
        import pygit2

        from .memory import Memory

        self.repo = pygit2.Repository(str(root))
        self.odb = self.repo.odb
        self.root = Path(self.repo.workdir or root)
        self.bytes_root = os.fsencode(self.root) + b"/"
        self.git_dir = Path(self.repo.path)
        self.common_dir = common_dir(self.repo)
        self.config = dict(_configured(self.repo))
        self.index_path = str(self.git_dir / "index")
        self.memory = Memory()
        self.rewritten: tuple[bytes, Mapping[bytes, Entry | None], bytes] | None = None
        self._index: tuple[Stamp | None, IndexFacts] | None = None

    @property
    def key(self) -> str:
        """Name of this work tree's files in the cache."""
        return hashlib.sha1(self.bytes_root, usedforsecurity=False).hexdigest()

    def flag(self, name: str, default: bool) -> bool:
        """A boolean of git's configuration."""
        value = self.config.get(name)
        return default if value is None else value.lower() in ("true", "yes", "on", "1", "")

    def index(self) -> IndexFacts:
        """Facts about the index as it is on disk now."""
        stamp = stamp_of(self.index_path)
        if self._index is None or self._index[0] != stamp:
            self._index = (stamp, _index_facts(self.index_path, self.bytes_root))
        return self._index[1]


def opened(root: Path) -> Opened:
    """The open repository of that work tree.

    Raises
    ------
    pygit2.GitError: broken, owned by somebody else, or of a format libgit2 does not know.
    """
    known: dict[Path, tuple[object, Opened]] = _local.__dict__.setdefault("known", {})
    validity = (os.getpid(), stamp_of(root / ".git"), *_configuration_stamps(root, known.get(root)))
    held = known.get(root)
    if held is None or held[0] != validity:
        fresh = Opened(root)
        validity = (os.getpid(), stamp_of(root / ".git"), *_configuration_stamps(root, (None, fresh)))
        held = known[root] = (validity, fresh)
    return held[1]


def stamp_of(path: str | Path) -> Stamp | None:
    """What changes when a file is written or replaced; None if there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_size, found.st_ino, found.st_ctime_ns)


def _configuration_stamps(root: Path, held: tuple[object, Opened] | None) -> tuple[Stamp | None, ...]:
    if held is None:
        return ()
    common = held[1].common_dir
    user = os.path.expanduser("~/.gitconfig")
    return tuple(stamp_of(file) for file in (f"{common}/config", f"{held[1].git_dir}/config.worktree", user))


def _configured(repo: pygit2.Repository) -> list[tuple[str, str]]:
    return [(str(entry.name).lower(), entry.value or "") for entry in repo.config]


_SAMPLE = 8
_HEAD = 1 << 16
_GITLINK_MODE = struct.pack(">HI", 0, 0o160000)[2:]
_NESTED_IGNORES = b"/.gitignore\0"
_MANY = 2000
"""Entries from which on git's own status, on two threads, beats libgit2's and the cost of a process."""


def _index_facts(path: str, root: bytes) -> IndexFacts:
    try:
        with open(path, "rb") as file:
            raw = file.read(_HEAD)
            version, count = struct.unpack(">II", raw[4:12])
            if count <= _MANY:
                raw += file.read()
    except (OSError, struct.error):
        return IndexFacts(entries=0, simple=not os.path.exists(path), attributes=False, stale=False)
    odd = (b"link\0", b"sdir\0\0\0\0", b"attributes\0", _GITLINK_MODE, _NESTED_IGNORES)
    simple = version == 2 and count <= _MANY and not any(sign in raw for sign in odd)
    return IndexFacts(
        entries=count,
        simple=simple,
        attributes=count <= _MANY and b"attributes\0" in raw,
        stale=version == 2 and _is_stale(raw, count, root),
    )


def _is_stale(raw: bytes, count: int, root: bytes) -> bool:
    """Whether none of the first entries is as the index remembers it."""
    at, seen = 12, 0
    for _ in range(min(count, _SAMPLE)):
        if at + 62 > len(raw):
            break
        changed_s, changed_ns, modified_s, modified_ns, _, inode = struct.unpack_from(">6I", raw, at)
        end = raw.index(b"\0", at + 62)
        try:
            now = os.lstat(root + raw[at + 62 : end])
        except OSError:
            now = None
        if now is not None:
            seen += 1
            if (
                now.st_mtime_ns == modified_s * 10**9 + modified_ns
                and now.st_ctime_ns == changed_s * 10**9 + changed_ns
                and now.st_ino & 0xFFFFFFFF == inode
            ):
                return False
        at = at + (end - at) // 8 * 8 + 8
    return seen >= _SAMPLE // 2
