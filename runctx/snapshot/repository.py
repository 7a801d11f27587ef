"""Open a repository once per thread, know whether libgit2 sees it as git does, and run the `git` command in it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import stat
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pygit2

PATIENCE = 30.0
"""Seconds one git command may take: `git status` of a million files on a cold disk does not take longer."""
MANY = 2000
"""Entries from which on git's own status, on two threads, beats libgit2's and the cost of a process."""

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
    *(
        ".git/HEAD",
        ".git/config",
        ".git/index",
        ".git/info/attributes",
        ".git/info/exclude",
        ".git/packed-refs",
    ),
    *(".gitattributes", ".gitignore"),
)
"""Git and libgit2 alike would wait for ever on a pipe in their place."""

_GITLINK = 0o160000

_QUIET = ("core.hooksPath=/dev/null", "core.fsmonitor=false", "core.safecrlf=false", "core.splitIndex=false")
"""A split index of ours would write its shared part beside the user's."""
_ELSEWHERE = (
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_DIR",
    "GIT_GRAFT_FILE",
    "GIT_INDEX_FILE",
    "GIT_NAMESPACE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
    "GIT_SHALLOW_FILE",
    "GIT_WORK_TREE",
)
"""Set while git itself runs a hook, for instance; libgit2 does not look at them either."""


class GitError(Exception):
    """The git command is absent, failed or took too long; the message is one sentence that says which."""


class Repository:
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
        pointer = self.git_dir / "commondir"
        self.common_dir = self.git_dir / pointer.read_text().strip() if pointer.is_file() else self.git_dir
        self.index_path = self.git_dir / "index"
        self.slow = 0
        self.last: tuple[object, bytes] | None = None
        self.config = {str(entry.name).lower(): entry.value or "" for entry in self.repo.config}
        known = True
        if _variables() or any(name.startswith("includeif.hasconfig:") for name in self.config):
            found = self.config
            try:
                listed, _ = git(root, "config", "--list", "-z")
                lines = (os.fsdecode(line).partition("\n") for line in listed.split(b"\0") if line)
                self.config = {name.lower(): value for name, _, value in lines}
            except GitError:
                known = False  # without git, libgit2's is the best there is
            of_ours = {option.partition("=")[0].lower() for option in _QUIET}
            names = [name for name in found | self.config if name.startswith("core.") and name not in of_ours]
            known = known and all(found.get(name) == self.config.get(name) for name in names)
        self._is_plain = known and not any(
            name.startswith(_ODD) or (value or "true").lower() != _PLAIN.get(name, value or "true").lower()
            for name, value in self.config.items()
        )
        user = os.path.expanduser(os.environ.get("XDG_CONFIG_HOME") or "~/.config")
        ignores = self.config.get("core.excludesfile") or f"{user}/git/ignore"
        attributes = self.config.get("core.attributesfile") or f"{user}/git/attributes"
        info = self.common_dir / "info"
        self._ignore_files = (f"{self.root}/.gitignore", f"{info}/exclude", os.path.expanduser(ignores))
        self._attribute_files = (
            f"{self.root}/.gitattributes",
            f"{info}/attributes",
            os.path.expanduser(attributes),
            "/etc/gitattributes",
        )
        self._by_index: tuple[object, bool] = (None, False)
        self._by_rules: tuple[object, bool] = (None, False)

    def is_plain(self) -> bool:
        """Whether libgit2 is known to see and to store the work tree as git does, and sees it in less time."""
        if not self._is_plain or any(self.attributes()):
            return False
        stamp = stamp_of(self.index_path)
        if self._by_index[0] != stamp:
            self._by_index = stamp, self._has_plain_index()
        return self._by_index[1] and self._has_plain_rules()

    def _has_plain_index(self) -> bool:
        """Whether it is small, and has no rules in folders and no submodules."""
        import pygit2

        try:
            index = self.repo.index
            index.read(False)
            return len(index) <= MANY and not any(
                entry.mode == _GITLINK or entry.path.endswith(("/.gitignore", ".gitattributes"))
                for entry in index
            )
        except (pygit2.GitError, OSError):
            return False  # split or sparse, for example

    def _has_plain_rules(self) -> bool:
        """Whether no `!` rules are in force: libgit2 and git differ on rare combinations of them with others."""
        stamps = list(map(stamp_of, self._ignore_files))
        if self._by_rules[0] != stamps:
            texts = [
                Path(file).read_bytes()
                for file, stamp in zip(self._ignore_files, stamps, strict=True)
                if stamp
            ]
            self._by_rules = stamps, not any(b"\n!" in b"\n" + text for text in texts)
        return self._by_rules[1]

    def attributes(self) -> tuple[Stamp | None, ...]:
        """Stamps of the `.gitattributes` that may be in force, apart from those in folders below the root."""
        return tuple(map(stamp_of, self._attribute_files))

    def lenient(self) -> list[str]:
        """Options with which a filter that fails makes its file a changed one, and does not end a listing."""
        required = [name for name in self.config if name.startswith("filter.") and name.endswith(".required")]
        return [part for name in required for part in ("-c", f"{name}=false")]

    def filtered(self, paths: Sequence[bytes]) -> set[bytes]:
        """Those that git stores otherwise than they lie in the work tree, line endings aside."""
        import pygit2

        names = ("filter", "working-tree-encoding")
        try:
            stdin = b"".join(path + b"\0" for path in paths)
            listed, _ = git(self.root, "check-attr", "-z", "--stdin", *names, stdin=stdin)
        except GitError:  # without git, libgit2 may know
            found = set()
            for path in paths:
                with contextlib.suppress(pygit2.GitError, UnicodeError):
                    if any(isinstance(self.repo.get_attr(os.fsdecode(path), name), str) for name in names):
                        found.add(path)
            return found
        fields = listed.split(b"\0")[:-1]
        unset = (b"unspecified", b"unset", b"set")
        return {path for path, value in zip(fields[::3], fields[2::3], strict=True) if value not in unset}

    def key(self) -> str:
        """Name of this work tree's files in the cache, as long as what git reads them by is the same."""
        state = (self.bytes_root, stamp_of(self.index_path), self.attributes(), sorted(self.config.items()))
        return hashlib.sha1(repr(state).encode(), usedforsecurity=False).hexdigest()

    def has(self, id: bytes) -> bool:
        """Whether the object database holds that object."""
        import pygit2

        return bool(self.odb.exists(pygit2.Oid(raw=id)))

    def tree(self, id: bytes) -> pygit2.Tree | None:
        """The tree of that id; None if there is none, as of the empty one."""
        import pygit2

        found = self.repo.get(pygit2.Oid(raw=id))
        return found if isinstance(found, pygit2.Tree) else None


def opened(root: Path) -> Repository:
    """The open repository of that work tree: opening it takes longer than a snapshot of a clean one.

    Raises
    ------
    pygit2.GitError: broken, or of a format libgit2 does not know.
    GitError: owned by another user, or a pipe stands where git would read a file.
    """
    known: dict[Path, tuple[object, Repository]] = _local.__dict__.setdefault("known", {})
    _refuse_pipes(*(f"{root}/{name}" for name in _READ_BY_GIT))
    held = known.get(root)
    if held is None or held[0] != _validity(root, held[1]):
        fresh = Repository(root)
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


def _refuse_pipes(*files: str | Path) -> None:
    for file in files:
        try:
            mode = os.stat(file).st_mode
        except OSError:
            continue  # there is none
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise GitError(f"{file} is not a regular file: git would wait for it")


def _validity(root: Path, here: Repository) -> tuple[object, ...]:
    user = os.environ.get("GIT_CONFIG_GLOBAL") or os.path.expanduser("~/.gitconfig")
    files = (f"{root}/.git", f"{here.common_dir}/config", f"{here.git_dir}/config.worktree", user)
    return (os.getpid(), _variables(), *map(stamp_of, files))


def _variables() -> tuple[tuple[bytes, bytes], ...]:
    """Variables that configure git; one that forbids the system's file says nothing where there is none."""
    names = [name for name in os.environb if name.startswith((b"GIT_CONFIG", b"GIT_ATTR"))]
    found = [(name, os.environb[name]) for name in names]
    if found == [(b"GIT_CONFIG_NOSYSTEM", b"1")] and not os.path.exists("/etc/gitconfig"):
        return ()
    return tuple(found)


def _open(root: Path) -> pygit2.Repository:
    import pygit2

    try:
        return pygit2.Repository(str(root))
    except pygit2.GitError:
        if not _is_foreign(root):
            raise
    git(
        root, "rev-parse", "--git-dir"
    )  # raises, unless git was told to trust it in a way libgit2 does not know
    before = pygit2.settings.owner_validation
    try:
        pygit2.settings.owner_validation = False
        return pygit2.Repository(str(root))
    finally:
        pygit2.settings.owner_validation = before


def _is_foreign(root: Path) -> bool:
    """Whether a work tree or its `.git` belongs to another user, so that git uses it only when it was told to."""
    try:
        return {os.stat(root).st_uid, os.stat(root / ".git").st_uid} != {os.geteuid()}
    except OSError:
        return False


def git(
    root: Path,
    *arguments: str,
    stdin: bytes = b"",
    index: Path | None = None,
    settings: Sequence[str] = (),
    accept: Sequence[int] = (0,),
    seconds: float | None = None,
) -> tuple[bytes, str]:
    """Run one git command such that it changes nothing of the user's; its output, and what it complained about.

    No optional locks (so that the index is never refreshed), no hooks, no file system monitor, no terminal, no
    variables that point at another repository, and a time limit after which it and all it started are killed.

    Parameters
    ----------
    index: the index file to use instead of the user's.
    settings: options in front of the command, as `-c name=value`.
    accept: exit codes that are no failure.
    seconds: how long it may take, instead of `PATIENCE`.

    Raises
    ------
    GitError: it is absent, failed or took too long.
    """
    environ = {name: value for name, value in os.environ.items() if name not in _ELSEWHERE}
    environ.update(GIT_TERMINAL_PROMPT="0", GIT_NO_LAZY_FETCH="1", GIT_OPTIONAL_LOCKS="0")
    if index is not None:
        environ["GIT_INDEX_FILE"] = str(index)
    try:
        process = subprocess.Popen(
            ["git", *(part for option in _QUIET for part in ("-c", option)), *settings, *arguments],
            cwd=root,
            env=environ,
            stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        raise GitError(f"the git command cannot be started: {error.strerror or error}") from error
    # communicate(timeout=...) would poll for the end in growing steps, for milliseconds more than git needs
    limit = seconds or PATIENCE
    overdue = threading.Timer(limit, _kill, [process])
    overdue.daemon = True
    overdue.start()
    with process:
        try:
            output, complaints = process.communicate(stdin)
        except BaseException:
            _kill(process)
            raise
        finally:
            overdue.cancel()
    if process.returncode == -signal.SIGKILL:
        raise GitError(f"git {arguments[0]} was killed, or took longer than {limit:.0f} s")
    said = complaints.decode("utf-8", "backslashreplace").strip("\n")
    if process.returncode not in accept:
        why = "; ".join(said.splitlines())[:400] or f"exit code {process.returncode}"
        hint = f"; hint: git config --global --add safe.directory {root}" if _is_foreign(root) else ""
        raise GitError(f"git {arguments[0]} failed: {why}{hint}")
    return output, said


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.returncode is None:
        try:
            os.killpg(process.pid, signal.SIGKILL)  # its filters too, which would keep the pipes open
        except OSError:
            pass  # already gone
