"""Read git's trees, and compute the ids of blobs and trees where no repository is.

Git's tree objects are the bytes `mode SP name NUL id`, sorted by name, a folder as if its name ended in `/`.
Read as bytes, names need not be UTF-8, and a tree of thousands of files costs little.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pygit2

Entry = tuple[int, bytes]
"""Mode and object id (20 bytes) of a path."""

TREE, LINK, GITLINK, FILE, EXECUTABLE = 0o040000, 0o120000, 0o160000, 0o100644, 0o100755
EMPTY = bytes.fromhex("4b825dc642cb6eb9a060e54bf8d69288fbee4904")
"""Id of the tree without entries."""


def blob_id(content: bytes) -> bytes:
    """The id git gives to a file of that content.

    >>> blob_id(b"").hex()
    'e69de29bb2d1d6434b8b29ae775ad8c2e48c5391'
    """
    return object_id(b"blob", content)


def object_id(kind: bytes, content: bytes) -> bytes:
    """The id git gives to an object: a blob, or a tree."""
    return hashlib.sha1(b"%b %d\0" % (kind, len(content)) + content, usedforsecurity=False).digest()


def tree_bytes(known: Mapping[bytes, Entry]) -> bytes:
    """A tree object of these entries, by name."""
    ordered = sorted(
        (name + b"/" if mode == TREE else name, name, mode, id) for name, (mode, id) in known.items()
    )
    return b"".join(b"%o %b\0%b" % (mode, name, id) for _, name, mode, id in ordered)


def has(odb: pygit2.Odb, id: bytes) -> bool:
    """Whether the object database holds that object."""
    import pygit2

    return bool(odb.exists(pygit2.Oid(raw=id)))


def entries(odb: pygit2.Odb, tree: bytes) -> dict[bytes, Entry]:
    """The entries of one tree, by name."""
    import pygit2

    if tree == EMPTY:
        return {}
    _, raw = odb.read(pygit2.Oid(raw=tree))
    found, at = {}, 0
    while at < len(raw):
        space = raw.index(b" ", at)
        end = raw.index(b"\0", space)
        found[raw[space + 1 : end]] = (int(raw[at:space], 8), raw[end + 1 : end + 21])
        at = end + 21
    return found


def lookup(odb: pygit2.Odb, tree: bytes, path: bytes) -> Entry | None:
    """The entry at a path; None if there is none."""
    entry: Entry = (TREE, tree)
    for name in path.split(b"/"):
        if entry[0] != TREE:
            return None
        below = entries(odb, entry[1]).get(name)
        if below is None:
            return None
        entry = below
    return entry
