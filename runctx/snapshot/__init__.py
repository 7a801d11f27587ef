"""Record the work tree as a git commit on a branch of its own.

`take` writes objects and moves the log branch, and changes nothing else: not HEAD, not the index, not the
work tree, no other reference. The tree it records is the one `git add -A` would have staged, apart from what
it lists as skipped. Nothing that goes wrong stops the caller: it becomes an omission.
"""

from __future__ import annotations

import hashlib
import os
import stat
import sys
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import SettingsError
from ..model import Omission, Source

if TYPE_CHECKING:
    import pygit2

    from .limits import Limits
    from .repository import Repository

__all__ = ["Snapshot", "blob_digest", "find_repository", "is_ignored", "take"]

_EMPTY = bytes.fromhex("4b825dc642cb6eb9a060e54bf8d69288fbee4904")
"""Id of the tree without entries."""
_RECENT = 20_000_000
"""Nanoseconds by which a file's time may lag behind the clock's: the kernel's tick, generously."""
_SILENCE = 1.0
"""Seconds after which a snapshot that is not ready gives a sign of life."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """The state of a work tree at one moment."""

    source: Source
    """What to write down; `files`, `cells` and `copies` are for others to fill in."""
    omissions: tuple[Omission, ...] = ()
    """What could not be captured, and why."""
    root: Path | None = None
    """The work tree; None outside a repository."""
    _folders: dict[str, pygit2.Tree | None] = field(default_factory=dict, repr=False)
    """The tree, and those of folders in it that were asked for: large ones are read anew by libgit2 each time."""
    _moment: int = 0

    def blob(self, path: str | os.PathLike[str]) -> str | None:
        """`git:hex` of a file's content in the snapshot; None if it is not in there.

        It is the content at the moment of the snapshot; `changed_since` tells whether the file has changed.
        """
        found = self._find(path)
        return None if found is None else f"git:{found[1]}"

    def changed_since(self, path: str | os.PathLike[str]) -> bool:
        """Whether a file is not, or no longer, what the snapshot holds.

        A file whose times are as they were is taken as unchanged; if they are not, its content decides. A
        file that git converts (line endings, filters) counts as changed once its times differ.
        """
        found = self._find(path)
        if found is None:
            return True
        file, id = os.path.join(self.root or "", found[0]), found[1]
        try:
            status = os.lstat(file)
            if max(status.st_mtime_ns, status.st_ctime_ns) < self._moment - _RECENT:
                return False
            if not stat.S_ISREG(status.st_mode):
                return True
            with open(file, "rb") as opened:
                return blob_digest(opened.read()) != f"git:{id}"
        except OSError:
            return True  # removed, or no longer readable

    def _find(self, path: str | os.PathLike[str]) -> tuple[str, pygit2.Oid] | None:
        """Path in the work tree (also if it was reached through a link to it) and id of a file."""
        for candidate in (os.path.abspath(path), os.path.realpath(path)):
            if self.root is None or not candidate.startswith(f"{self.root}{os.sep}"):
                continue
            inside = candidate[len(str(self.root)) + 1 :]
            folder, _, name = inside.rpartition("/")
            try:
                if folder not in self._folders:
                    self._folders[folder] = self._folders[""][folder]  # type: ignore[index,assignment]
                entry = self._folders[folder][name]  # type: ignore[index]
            except (KeyError, TypeError):  # nothing of that name, or no folder
                continue
            if entry.type_str != "tree":
                return inside, entry.id
        return None


def blob_digest(content: bytes) -> str:
    """What git would call a file of that content, without filters.

    >>> blob_digest(b"")
    'git:e69de29bb2d1d6434b8b29ae775ad8c2e48c5391'
    """
    digest = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False)
    return f"git:{digest.hexdigest()}"


def is_ignored(root: Path, folder: Path) -> bool:
    """Whether git ignores a folder, which need not exist, or it is outside the work tree `root`."""
    from .repository import GitError, git, opened

    folder = Path(os.path.abspath(folder))
    if not folder.is_relative_to(root):
        return True
    here, inside = opened(root), f"{folder.relative_to(root).as_posix()}/x"
    if not here.is_plain():
        try:
            ignored, _ = git(root, "check-ignore", "-z", "--stdin", stdin=os.fsencode(inside), accept=(0, 1))
            return bool(ignored)
        except GitError:
            pass  # without git, libgit2 may be right
    return bool(here.repo.path_is_ignored(inside))


def find_repository(path: str | os.PathLike[str]) -> Path | None:
    """The root of the git work tree that `path` is, or lies in; None if there is none.

    Looks for `.git` only, so that it costs microseconds. Whether the repository can be used is for `take` to
    say.
    """
    start = Path(os.path.abspath(path))
    for folder in (start, *start.parents):
        git = folder / ".git"
        if os.path.isfile(git) or os.path.lexists(git / "HEAD"):
            return folder
    return None


def take(
    root: str | os.PathLike[str],
    *,
    branch: str = "run_logs",
    include: Iterable[str] = (),
    exclude: Iterable[str] = (),
    inputs: Iterable[str] = (),
    max_file_size: int = 10_000_000,
    max_snapshot_size: int = 50_000_000,
    show: bool = False,
    message: str,
    cache: Path,
) -> Snapshot:
    """Record the work tree that `root` is, or lies in, as a commit.

    Of a clean work tree that commit is HEAD. Else it is one on `branch`, with the branch's tip and HEAD as
    parents; an unchanged work tree gets no second one. The branch moves by compare-and-swap: snapshots taken
    by many processes at once are all kept. Nothing else of the user's changes.

    Parameters
    ----------
    include: patterns of files to record although git ignores them (see `runctx.snapshot.patterns`).
    exclude: patterns of changed or untracked files to leave as they are in HEAD. The tracked ones are listed
        as skipped.
    inputs: absolute files, folders and globs; untracked files among them are listed as skipped.
    max_file_size: bytes; a larger changed or untracked file is left as it is in HEAD, and listed as skipped.
    max_snapshot_size: bytes; untracked files are left out until the rest is no larger together.
    show: say on stderr what is going on, when it takes longer than a second.
    message: of the commit.
    cache: folder for what changed files hashed to; may vanish at any time.

    Raises
    ------
    SettingsError: a pattern or the branch's name is not valid. Nothing else is raised: see `omissions`.
    """
    from .limits import Limits
    from .patterns import matcher

    include = tuple(include)
    limits = Limits(
        excluded=matcher(tuple(exclude)),
        inputs=tuple(inputs),
        max_file_size=max_file_size,
        max_snapshot_size=max_snapshot_size,
    )
    matcher(include)  # a user's mistake is said before anything else
    _check_branch(branch)
    top = find_repository(root)
    if top is None:
        why = f"{os.path.abspath(root)} is not in a git work tree"
        return Snapshot(source=Source(), omissions=(Omission(what="source", why=why),))
    draft = _Draft(root=top, source=Source(repository=top.name))
    sign = _SignOfLife(f"recording the source in {top}", show)
    try:
        _fill(draft, branch, include, limits, message, Path(cache), sign)
    except Exception as error:  # tracking never kills the run: whatever it is, it is written down
        draft.omit("source", f"{type(error).__name__}: {error}".replace("\n", " "))
    finally:
        sign.end()
    return draft.finished()


class _SignOfLife:
    """Says on stderr, a second after it was asked to watch, what takes so long, and at the end how long it took."""

    def __init__(self, what: str, show: bool) -> None:
        self._what, self._show = what, show
        self._began = time.monotonic()
        self._timer: threading.Timer | None = None
        self._said = False

    def watch(self) -> None:
        if self._show and self._timer is None:
            self._timer = threading.Timer(_SILENCE, self._say)
            self._timer.daemon = True
            self._timer.start()

    def end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            if self._said:
                self._print(f"took {time.monotonic() - self._began:.1f} s")

    def _say(self) -> None:
        self._said = True
        self._print("...")

    def _print(self, how: str) -> None:
        print(f"runctx: {self._what} {how}", file=sys.stderr, flush=True)


@dataclass(kw_only=True, slots=True)
class _Draft:
    """A snapshot in the making: when a step fails, what the steps before it found stays."""

    root: Path
    source: Source
    omissions: list[Omission] = field(default_factory=list)
    tree: pygit2.Tree | None = None
    moment: int = 0

    def omit(self, what: str, why: str) -> None:
        self.omissions.append(Omission(what=what, why=why))

    def note(self, **changes: object) -> None:
        self.source = replace(self.source, **changes)  # type: ignore[arg-type]

    def finished(self) -> Snapshot:
        return Snapshot(
            source=self.source,
            omissions=tuple(self.omissions),
            root=self.root,
            _folders={"": self.tree},
            _moment=self.moment,
        )


def _fill(
    draft: _Draft,
    branch: str,
    include: tuple[str, ...],
    limits: Limits,
    message: str,
    cache: Path,
    sign: _SignOfLife,
) -> None:
    from .changes import Change, included, is_quick, list_changes
    from .commit import NotOnBranchError, commit_tree, is_small, write_tree
    from .limits import choose
    from .repository import GitError, opened

    here = opened(draft.root)
    if here.repo.is_bare:
        draft.omit("source", f"{draft.root} is a bare repository: it has no work tree")
        return
    draft.root = here.root
    head = _describe(draft, here)
    head_tree = head.tree_id.raw if head is not None else _EMPTY
    draft.moment = time.time_ns()
    if not (quick := is_quick(here)):
        sign.watch()
    changes, omissions, by_git = list_changes(here, cache, quick=quick)
    draft.omissions += omissions
    if include:
        try:
            changes += [Change(path, new=True) for path in included(here, include, limits.excluded)]
        except GitError as error:
            draft.omit("included files", str(error))
    choice = choose(here, changes, limits)
    if (warning := choice.warning(here)) is not None:
        draft.omissions.append(warning)
    tree = head_tree
    if choice.stage or choice.keep or any(change.staged for change in changes):
        if by_git or not is_small(choice.stage):
            sign.watch()
        new = {change.path.rstrip(b"/") for change in changes if change.new}
        tree = write_tree(here, head_tree, choice, new, cache, by_git=by_git)
    draft.tree = here.tree(tree)
    skipped = tuple(Omission(what=what, why=why) for what, why in choice.skipped.items())
    draft.note(tree=f"git:{tree.hex()}", dirty=tree != head_tree or bool(skipped), skipped=skipped)
    if tree == head_tree:
        draft.note(commit=draft.source.head)
        return
    try:
        commit = commit_tree(here, tree, head.id if head is not None else None, branch, message)
    except NotOnBranchError as kept:
        commit = kept.commit
        draft.omit("source.commit", f"{kept.why}; commit {commit} exists until git collects it")
    draft.note(commit=f"git:{commit}")


def _describe(draft: _Draft, here: Repository) -> pygit2.Commit | None:
    """Note what does not depend on the work tree; HEAD's commit, None before the first one."""
    import pygit2

    remote, target = here.config.get("remote.origin.url"), here.repo.references["HEAD"].target
    name = target.removeprefix("refs/heads/") if isinstance(target, str) else None
    draft.note(repository=_without_credentials(remote) if remote else here.root.name, branch=name)
    head = None if here.repo.head_is_unborn else here.repo.head.peel(pygit2.Commit)
    draft.note(head=f"git:{head.id}" if head is not None else None)
    return head


def _without_credentials(address: str) -> str:
    """A remote's address that may be shown: no user, password, token or query.

    >>> _without_credentials("https://me:secret@example.org/a/b.git?token=1")
    'https://example.org/a/b.git'
    >>> _without_credentials("git@example.org:a/b.git")
    'example.org:a/b.git'
    """
    scheme, separator, rest = address.rpartition("://")
    if not separator:  # scp-like, or a path
        host, colon, path = address.partition(":")
        return f"{host.rpartition('@')[2]}:{path}" if colon and "/" not in host else address
    host, _, port = rest.partition("/")[0].partition(":")
    if "@" in host + port or (port and not port.isdigit()):  # a password may hold an unescaped `/` or `@`
        rest = rest.rpartition("@")[2]
    return f"{scheme}://{rest.partition('?')[0].partition('#')[0]}"


def _check_branch(branch: str) -> None:
    forbidden = set(" ~^:?*[\\\x7f") | {chr(code) for code in range(32)}
    parts = branch.split("/")
    wrong = (
        set(branch) & forbidden
        or ".." in branch
        or "@{" in branch
        or branch.startswith("-")
        or branch in ("HEAD", "@")
        or any(not part or part.startswith(".") or part.endswith((".", ".lock")) for part in parts)
    )
    if wrong:
        raise SettingsError(
            f"branch {branch!r}: not a name git allows for a branch",
            hint="set `branch` under [tool.runctx], e.g. `run_logs`",
        )
