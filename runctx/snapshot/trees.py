"""What tree results from another one when some of its paths change?

Git's tree objects are read and written here as the bytes they are (https://git-scm.com/docs/gitformat-pack
has no say in them: `mode SP name NUL id`, sorted by name, a folder as if its name ended in `/`). That
handles names which are not UTF-8, and only folders on the way to a changed path are ever read.
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

_COMMIT_TYPE, _TREE_TYPE, _BLOB_TYPE = 1, 2, 3


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


def store_blob(odb: pygit2.Odb, content: bytes) -> bytes:
    """Put a file's content into the object database, unless it is there; its id."""
    return _store(odb, _BLOB_TYPE, blob_id(content), content)


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


def rewrite(odb: pygit2.Odb, tree: bytes, edits: Mapping[bytes, Entry | None]) -> bytes:
    """Store the tree with the edits' entries at their paths, nothing where an edit is None; its id."""
    return _rewrite(odb, tree, _nested(edits)) or EMPTY if edits else tree


class _Folder:
    """The edits below one folder."""

    __slots__ = ("folders", "leaves")

    def __init__(self) -> None:
        self.leaves: dict[bytes, Entry | None] = {}
        self.folders: dict[bytes, _Folder] = {}


def _nested(edits: Mapping[bytes, Entry | None]) -> _Folder:
    top = _Folder()
    for path, entry in edits.items():
        *above, name = path.split(b"/")
        folder = top
        for part in above:
            folder = folder.folders.setdefault(part, _Folder())
        folder.leaves[name] = entry
    return top


def _rewrite(odb: pygit2.Odb, tree: bytes | None, edits: _Folder) -> bytes | None:
    known = entries(odb, tree) if tree else {}
    for name, leaf in edits.leaves.items():
        if leaf is None and known.get(name, (TREE,))[0] != TREE:
            del known[name]
    for name, folder in edits.folders.items():  # after removals: a file may have become a folder
        mode, id = known.get(name, (0, b""))
        below = _rewrite(odb, id if mode == TREE else None, folder)
        if below is not None:
            known[name] = (TREE, below)
        elif mode == TREE:
            del known[name]
    for name, leaf in edits.leaves.items():  # last: a folder may have become a file
        if leaf is not None:
            known[name] = leaf
    return _store_tree(odb, known) if known else None


def _store_tree(odb: pygit2.Odb, known: Mapping[bytes, Entry]) -> bytes:
    raw = tree_bytes(known)
    return _store(odb, _TREE_TYPE, object_id(b"tree", raw), raw)


def _store(odb: pygit2.Odb, kind: int, id: bytes, raw: bytes) -> bytes:
    # libgit2 compresses the whole object before it looks whether it exists: 7 s for 300 MB
    if not has(odb, id):
        odb.write(kind, raw)
    return id
