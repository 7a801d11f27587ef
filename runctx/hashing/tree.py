"""Which files are the data, and what of it cannot be listed?

Paths are bytes, as the file system has them. Links are followed; a folder that contains itself through a
link, or that is reached through more than `MAX_VISITS` links, is listed as a gap instead. What is neither
file nor folder (FIFO, socket, device, broken link) is never opened.

Runs in the worker too, which has the standard library's fast half and blake3, nothing else.
"""

from __future__ import annotations

import errno
import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    import re
    from collections.abc import Iterator

MAX_VISITS = 64
"""A chain of folders that hold two links each to the next doubles at every step: thirty make a billion
paths."""

MAGIC = frozenset(b"*?[")

LOCK = b"run.lock"
OF_A_RUN = frozenset(
    {
        LOCK,
        b".runctx",
        b"config.yaml",
        b"inputs",
        b"metrics",
        b"outputs.b3",
        b"run.log",
        b"run.notes",
        b"source",
        b"tasks",
    }
)
"""A folder with a run.lock is a run's, and counts as what the user saved in it: two runs that saved the same
are equal. The same names as `layout.OWN`, which the worker cannot import."""


def _is_log_of_a_rank(name: bytes) -> bool:
    return name.startswith(b"run.rank") and name.endswith(b".log")


class Chain:
    """A folder, and those it was reached through."""

    __slots__ = ("above", "device", "inode")

    def __init__(self, status: os.stat_result, above: Chain | None) -> None:
        self.device = status.st_dev
        self.inode = status.st_ino
        self.above = above


class TooMuch(Exception):  # noqa: N818  a signal
    """More than the caller wanted to do here and now."""


class Gap:
    """A place whose content is not in the digest; `weak` if there was content that should be."""

    __slots__ = ("path", "weak", "why")

    def __init__(self, path: bytes, why: str, weak: bool = True) -> None:
        self.path = path
        self.why = why
        self.weak = weak


class Folder:
    """Some files of one folder, and later their digests and signatures, packed in the order of the names."""

    __slots__ = ("digests", "key", "known", "names", "path", "prefix", "signatures")

    def __init__(self, path: bytes, prefix: bytes, names: list[bytes], key: bytes) -> None:
        self.path = path
        self.prefix = prefix
        """Its path below the root of the data, with a slash at the end; empty for the root."""
        self.names = names
        self.key = key
        """What the cache remembers it by: device, inode, and which selection of its files this is."""
        self.known = b""
        self.digests = bytearray()
        self.signatures = bytearray()


class Tree:
    """What was found below one input."""

    __slots__ = ("folders", "gaps")

    def __init__(self, folders: list[Folder], gaps: list[Gap]) -> None:
        self.folders = folders
        self.gaps = gaps

    @property
    def files(self) -> int:
        return sum(len(folder.names) for folder in self.folders)


def find(kind: str, path: bytes, pattern: bytes = b"", limit: int | None = None) -> Tree:
    """The files of a `file`, a `folder`, or a `glob` (`path` is then the folder its `pattern` starts in).

    Raises
    ------
    TooMuch: there are more than `limit` files.
    """
    if kind == "folder":
        return _walk(path, b"", None, limit)
    if kind == "glob":
        return _expand(path, pattern, limit)
    head, name = os.path.split(path)
    return Tree([Folder(head or b".", b"", [name], b"file:" + _identity_key(path))], [])


def split_pattern(path: bytes) -> tuple[bytes, bytes]:
    """The folder a glob starts in, and the rest: manifests are relative to the former.

    >>> split_pattern(b"/data/2024/*/x.csv"), split_pattern(b"*.csv"), split_pattern(b"/*")
    ((b'/data/2024', b'*/x.csv'), (b'.', b'*.csv'), (b'/', b'*'))
    """
    parts = path.split(b"/")
    literal = next((i for i, part in enumerate(parts) if is_magic(part)), len(parts))
    root = b"/".join(parts[:literal]) or (b"/" if path.startswith(b"/") else b".")
    return root, b"/".join(parts[literal:])


def is_magic(part: bytes) -> bool:
    return not MAGIC.isdisjoint(part)


def matches(root: bytes, pattern: bytes) -> Iterator[tuple[bytes, bool]]:
    """Paths below `root` that match, each with whether it is a folder; a path may come twice.

    As in `glob.glob(recursive=True)`: `**` stands for any number of folders, and only a part that starts with
    a dot matches hidden names.
    """
    parts = [part for part in pattern.split(b"/") if part]
    return _matches(root, b"", parts, None)


def _matches(
    path: bytes, prefix: bytes, parts: list[bytes], above: Chain | None
) -> Iterator[tuple[bytes, bool]]:
    head, rest = parts[0], parts[1:]
    if head == b"**":
        chain = _chain(path, above)
        if chain is None:
            return
        yield from _matches(path, prefix, rest or [b"*"], above)
        for name, is_folder in _names(path):
            if is_folder and not name.startswith(b"."):
                yield from _matches(path + b"/" + name, prefix + name + b"/", parts, chain)
        return
    for name, is_folder in _candidates(path, head):
        if not rest:
            yield prefix + name, is_folder
        elif is_folder:
            yield from _matches(path + b"/" + name, prefix + name + b"/", rest, above)


def _candidates(path: bytes, part: bytes) -> Iterator[tuple[bytes, bool]]:
    if not is_magic(part):
        try:
            yield part, stat.S_ISDIR(os.stat(path + b"/" + part).st_mode)
        except OSError:
            pass  # no match
        return
    accepts = _compiled(part).match
    hidden = part.startswith(b".")
    for name, is_folder in _names(path):
        if name.startswith(b".") == hidden and accepts(name):
            yield name, is_folder


def _compiled(part: bytes) -> re.Pattern[bytes]:
    import fnmatch
    import re

    return re.compile(fnmatch.translate(part.decode("latin-1")).encode("latin-1"), re.DOTALL)


def _names(path: bytes) -> list[tuple[bytes, bool]]:
    try:
        with os.scandir(path) as entries:
            return sorted((entry.name, _is_dir(entry)) for entry in entries)
    except OSError:
        return []  # as every shell does: a folder that cannot be listed matches nothing


def _is_dir(entry: os.DirEntry[bytes]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _expand(root: bytes, pattern: bytes, limit: int | None) -> Tree:
    whole: set[bytes] = set()
    single: dict[bytes, set[bytes]] = {}
    gaps: list[Gap] = []
    count = 0
    for path, is_folder in matches(root, pattern):
        head, slash, name = path.rpartition(b"/")
        if is_folder:
            whole.add(path + b"/")
        elif reason := _oddity(root + b"/" + path):
            gaps.append(Gap(path, reason, weak=False))
        else:
            single.setdefault(head + slash, set()).add(name)
            count += 1
        if limit is not None and count > limit:
            raise TooMuch
    folders = []
    for prefix in sorted(whole):
        if _inside(prefix, whole):
            continue  # comes with the folder above it
        below = _walk(root + b"/" + prefix[:-1], prefix, None, limit)
        folders += below.folders
        gaps += below.gaps
    for prefix in sorted(single):
        if prefix in whole or _inside(prefix, whole):
            continue
        path = root + b"/" + prefix
        names = sorted(single[prefix])
        folders.append(Folder(path, prefix, names, pattern + b":" + _identity_key(path)))
    tree = Tree(folders, list({gap.path: gap for gap in gaps}.values()))
    if limit is not None and tree.files > limit:
        raise TooMuch
    return tree


def _inside(prefix: bytes, whole: set[bytes]) -> bool:
    parts = prefix.split(b"/")[:-1]
    return any(b"/".join(parts[:n]) + b"/" in whole for n in range(1, len(parts)))


def _walk(root: bytes, prefix: bytes, above: Chain | None, limit: int | None) -> Tree:
    folders: list[Folder] = []
    gaps: list[Gap] = []
    visits: dict[tuple[int, int], int] = {}
    count = 0
    todo: list[tuple[bytes, bytes, Chain | None]] = [(root, prefix, above)]
    while todo:
        path, prefix, above = todo.pop()
        try:
            chain = _chain(path, above)
            if chain is None:
                gaps.append(Gap(prefix[:-1], "a link back to a folder it lies in", weak=False))
                continue
            identity = chain.device, chain.inode
            visits[identity] = visits.get(identity, 0) + 1
            if visits[identity] > MAX_VISITS:
                gaps.append(Gap(prefix[:-1], f"a folder reached through more than {MAX_VISITS} links"))
                continue
            names, below = _list(path, prefix, gaps)
        except OSError as error:
            gaps.append(Gap(prefix[:-1], f"a folder that cannot be listed: {error.strerror}"))
            continue
        if names:
            folders.append(Folder(path, prefix, names, b"%x:%x" % identity))
            count += len(names)
            if limit is not None and count > limit:
                raise TooMuch
        for name in reversed(below):
            todo.append((path + b"/" + name, prefix + name + b"/", chain))
        if limit is not None and len(todo) > limit:
            raise TooMuch
    return Tree(folders, gaps)


def _chain(path: bytes, above: Chain | None) -> Chain | None:
    """The folder added to those it lies in; None if it is one of them."""
    status = os.stat(path)
    link = above
    while link is not None:
        if link.inode == status.st_ino and link.device == status.st_dev:
            return None
        link = link.above
    return Chain(status, above)


def _list(path: bytes, prefix: bytes, gaps: list[Gap]) -> tuple[list[bytes], list[bytes]]:
    files, folders = [], []
    with os.scandir(path) as entries:
        for entry in entries:
            try:
                if entry.is_file():
                    files.append(entry.name)
                elif entry.is_dir():
                    folders.append(entry.name)
                else:
                    gaps.append(Gap(prefix + entry.name, _oddity(entry.path) or "changed", weak=False))
            except OSError as error:
                gaps.append(Gap(prefix + entry.name, *_trouble(error)))
    if LOCK in files:
        files = [name for name in files if name not in OF_A_RUN and not _is_log_of_a_rank(name)]
        folders = [name for name in folders if name not in OF_A_RUN]
    files.sort()
    folders.sort()
    return files, folders


def _oddity(path: bytes) -> str | None:
    """What it is, if it is neither a file nor a folder."""
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        return _trouble(error)[0]
    return oddity_of(mode)


def oddity_of(mode: int) -> str | None:
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


def _trouble(error: OSError) -> tuple[str, bool]:
    if error.errno == errno.ENOENT:
        return "a broken link", False
    if error.errno == errno.ELOOP:
        return "a link to itself", False
    return f"cannot be read: {error.strerror}", True


def _identity_key(path: bytes) -> bytes:
    try:
        status = os.stat(path)
    except OSError:
        return b"gone"
    return b"%x:%x" % (status.st_dev, status.st_ino)
