"""Keep a repository open between two snapshots of one process, and know how plain it is.

Opening a repository costs more than a snapshot of a clean one. Every use checks, by a few `stat` calls, that what the
repository was opened with is still the same.
"""

from __future__ import annotations

import hashlib
import os
import stat
import struct
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .branch import common_dir
from .command import GitError, git, is_foreign

if TYPE_CHECKING:
    import pygit2

Stamp = tuple[int, ...]

_local = threading.local()

_PLAIN = {
    "core.autocrlf": "false",
    "core.filemode": "true",
    "core.ignorecase": "false",
    "core.precomposeunicode": "false",
    "core.protecthfs": "false",
    "core.protectntfs": "true",
    "core.sparsecheckout": "false",
    "core.symlinks": "true",
    "core.trustctime": "true",
}
"""Settings under which libgit2 was compared with git; other values are for git itself."""

_ODD = ("core.attributesfile", "core.checkstat", "core.eol", "core.worktree")
"""Settings that libgit2 does not know, or knows otherwise."""

_READ_BY_GIT = (
    ".git/HEAD",
    ".git/config",
    ".git/index",
    ".git/info/attributes",
    ".git/info/exclude",
    ".git/packed-refs",
    ".gitattributes",
    ".gitignore",
)
"""Git and libgit2 alike would wait for ever on a pipe in their place."""

_SUBMODULE = struct.pack(">I", 0o160000)
_MARKS = (b"link\0", b"sdir\0\0\0\0", b"attributes\0", b"/.gitignore\0", _SUBMODULE)
"""Bytes in an index of which libgit2 knows less than git: split, sparse, rules in folders, submodules."""


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexFacts:
    """What a look at the index file tells, without reading its entries."""

    entries: int = 0
    plain: bool = True
    """Nothing in it that libgit2 is known to read differently from git."""
    submodules: bool = False
    """It may hold a submodule, of which git would refresh the index too."""


class Opened:
    """An open repository, and what was learned about it.

    Attributes
    ----------
    repo: pygit2's handle; never shared between threads or with a forked process.
    root: the work tree.
    config: git's configuration, the last value of each name.
    slow: how many of libgit2's last looks at the work tree in a row took longer than git's would.
    last: what was recorded last, and the tree that it gave.
    """

    def __init__(self, root: Path) -> None:
        self.repo = _open(root)
        self.odb = self.repo.odb
        self.root = Path(self.repo.workdir or root)
        self.bytes_root = os.fsencode(self.root) + b"/"
        self.git_dir = Path(self.repo.path)
        self.common_dir = common_dir(self.repo)
        self.config, known = _configuration(self.repo, self.root)
        self.index_path = str(self.git_dir / "index")
        self.slow = 0
        self.last: tuple[object, bytes] | None = None
        self._plain_config = known and not any(
            name.startswith(_ODD) or (value or "true").lower() != _PLAIN.get(name, value or "true").lower()
            for name, value in self.config.items()
        )
        self._index: tuple[Stamp | None, IndexFacts] | None = None
        self._ignores: tuple[object, bool] = (None, False)

    def index(self) -> IndexFacts:
        """Facts about the index as it is on disk now."""
        stamp = stamp_of(self.index_path)
        if self._index is None or self._index[0] != stamp:
            self._index = (stamp, _index_facts(self.index_path))
        return self._index[1]

    def attributes(self) -> tuple[Stamp | None, ...]:
        """Stamps of the `.gitattributes` that may be in force, apart from those in folders below the root."""
        base = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
        files = (
            f"{self.root}/.gitattributes",
            f"{self.common_dir}/info/attributes",
            os.path.expanduser(self.config.get("core.attributesfile") or f"{base}/git/attributes"),
            "/etc/gitattributes",
        )
        return tuple(map(stamp_of, files))

    def filtered(self, paths: Sequence[bytes]) -> set[bytes]:
        """Those that git stores otherwise than they lie in the work tree, line endings aside."""
        names = ("filter", "working-tree-encoding")
        try:
            options = ("check-attr", "-z", "--stdin", *names)
            told, _ = git(self.root, *options, stdin=b"\0".join(paths) + b"\0" if paths else b"")
        except GitError:
            return {
                path for path in paths if any(isinstance(self._attribute(path, name), str) for name in names)
            }
        fields = told.split(b"\0")[:-1]
        unset = (b"unspecified", b"unset", b"set")
        return {path for path, value in zip(fields[::3], fields[2::3], strict=True) if value not in unset}

    def _attribute(self, path: bytes, name: str) -> object:
        import pygit2

        try:
            return self.repo.get_attr(os.fsdecode(path), name)
        except (pygit2.GitError, UnicodeError):
            return None  # an index, or a path, of which libgit2 cannot tell

    def is_plain(self) -> bool:
        """Whether libgit2 is known to see and to store the work tree as git does."""
        return (
            self._plain_config
            and self.index().plain
            and not any(self.attributes())
            and not self._negated_ignores()
        )

    def _negated_ignores(self) -> bool:
        """Whether `!` rules are in force: libgit2 and git differ on rare combinations of them with others."""
        base = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
        own = os.path.expanduser(self.config.get("core.excludesfile") or f"{base}/git/ignore")
        files = (f"{self.root}/.gitignore", f"{self.common_dir}/info/exclude", own)
        stamps = [stamp_of(file) for file in files]
        if self._ignores[0] != stamps:
            existing = [Path(file) for file, stamp in zip(files, stamps, strict=True) if stamp]
            self._ignores = (stamps, any(b"\n!" in b"\n" + file.read_bytes() for file in existing))
        return self._ignores[1]

    def key(self) -> str:
        """Name of this work tree's files in the cache, as long as what git reads them by is the same."""
        state = (self.bytes_root, stamp_of(self.index_path), self.attributes(), sorted(self.config.items()))
        return hashlib.sha1(repr(state).encode(), usedforsecurity=False).hexdigest()


def opened(root: Path) -> Opened:
    """The open repository of that work tree.

    Raises
    ------
    pygit2.GitError: broken, or of a format libgit2 does not know.
    command.GitError: owned by another user, or a pipe stands where git would read a file.
    """
    known: dict[Path, tuple[object, Opened]] = _local.__dict__.setdefault("known", {})
    _refuse_pipes(*(f"{root}/{name}" for name in _READ_BY_GIT))
    held = known.get(root)
    if held is None or held[0] != _validity(root, held[1]):
        fresh = Opened(root)
        _refuse_pipes(fresh.index_path)  # of a linked work tree, it lies elsewhere
        held = known[root] = (_validity(root, fresh), fresh)
    return held[1]


def stamp_of(path: str | Path) -> Stamp | None:
    """What changes when a file is written or replaced; None if there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_size, found.st_ino, found.st_ctime_ns, stat.S_IFMT(found.st_mode))


def _validity(root: Path, here: Opened) -> tuple[object, ...]:
    user = os.environ.get("GIT_CONFIG_GLOBAL") or os.path.expanduser("~/.gitconfig")
    files = (f"{root}/.git", f"{here.common_dir}/config", f"{here.git_dir}/config.worktree", user)
    return (os.getpid(), _environment(), *(stamp_of(file) for file in files))


def _environment() -> tuple[tuple[bytes, bytes], ...]:
    """Variables that configure git; one that forbids the system's file says nothing where there is none."""
    nothing = not os.path.exists("/etc/gitconfig")
    names = [name for name in os.environb if name.startswith((b"GIT_CONFIG", b"GIT_ATTR"))]
    return tuple(
        (name, os.environb[name]) for name in names if not (nothing and name == b"GIT_CONFIG_NOSYSTEM")
    )


def _refuse_pipes(*files: str | Path) -> None:
    for file in files:
        try:
            mode = os.stat(file).st_mode
        except OSError:
            continue  # there is none
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise GitError(f"{file} is not a regular file: git would wait for it")


def _open(root: Path) -> pygit2.Repository:
    import pygit2

    try:
        return pygit2.Repository(str(root))
    except pygit2.GitError:
        if not is_foreign(root):
            raise
    git(
        root, "rev-parse", "--git-dir"
    )  # raises, unless git was told to trust it in a way that libgit2 does not know
    before = pygit2.settings.owner_validation
    try:
        pygit2.settings.owner_validation = False
        return pygit2.Repository(str(root))
    finally:
        pygit2.settings.owner_validation = before


def _configuration(repo: pygit2.Repository, root: Path) -> tuple[dict[str, str], bool]:
    """Git's configuration, and whether libgit2, which it is read with if nothing is odd about it, has the same."""
    found = {str(entry.name).lower(): entry.value or "" for entry in repo.config}
    if not _environment() and not any(name.startswith("includeif.hasconfig:") for name in found):
        return found, True
    try:
        listed, _ = git(root, "config", "--list", "-z")
    except GitError:
        return found, False
    lines = (os.fsdecode(line).partition("\n") for line in listed.split(b"\0") if line)
    told = {name.lower(): value for name, _, value in lines}
    return told, all(found.get(name) == told.get(name) for name in found | told if _matters(name))


def _matters(name: str) -> bool:
    return name.startswith("core.") and name not in (
        "core.fsmonitor",
        "core.hookspath",
        "core.safecrlf",
    )  # ours


def _index_facts(path: str) -> IndexFacts:
    try:
        with open(path, "rb") as file:
            raw = file.read()
        version, entries = struct.unpack(">II", raw[4:12])
    except FileNotFoundError:
        return IndexFacts()
    except (OSError, struct.error):
        return IndexFacts(plain=False)
    return IndexFacts(
        entries=entries,
        plain=version == 2 and not any(mark in raw for mark in _MARKS),
        submodules=_SUBMODULE in raw,
    )
