"""List the paths in which HEAD, the index and the work tree differ.

libgit2 lists them for a small plain repository, in the process and faster than a command starts. Git itself lists them
for a large index (it uses threads), and wherever libgit2 is known to see something else.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from ..model import Omission
from .patterns import fixed_folder, matcher
from .repository import GitError, Repository, git

_SLOW = 0.05
"""Seconds; libgit2 reads every file again each time if the index is that of another copy of the work tree."""
_OFTEN = 3
"""Slow answers in a row after which it is not the machine."""
_WEEK = 7 * 24 * 3600.0

_STAGED = 1 | 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4
_INDEX_DELETED, _NEW, _DELETED, _CONFLICT = 1 << 2, 1 << 7, 1 << 9, 1 << 15
_DIRTY = _NEW | 1 << 8 | _DELETED | 1 << 10 | 1 << 11 | 1 << 12
"""libgit2's flags, https://libgit2.org/libgit2/#HEAD/type/git_status_t."""


class Change(NamedTuple):
    """A path that is not as in HEAD, or may not be."""

    path: bytes
    new: bool = False
    """In neither HEAD nor the index."""
    staged: bool = False
    """Not the same in the index as in HEAD."""
    dirty: bool = True
    """Not the same in the work tree as in the index."""


class Listing(NamedTuple):
    changes: list[Change]
    omissions: list[Omission]
    by_git: bool
    """Whether only git stores the work tree as git does."""


def list_changes(here: Repository, cache: Path, *, quick: bool) -> Listing:
    """Every changed or untracked path, each once.

    Parameters
    ----------
    quick: see `is_quick`.

    Raises
    ------
    GitError: neither git nor libgit2 can tell.
    """
    if quick:
        listed = _by_libgit2(here)
        if listed is not None and not _is_odd(here, listed):
            return Listing(listed, [], by_git=False)
    try:
        listed, omissions = _by_git(here, cache)
    except GitError as refused:
        rest = _by_libgit2(here)
        if rest is None:
            raise
        why = f"{refused}; libgit2 was asked instead, which knows no filters, sparse checkouts or submodules"
        return Listing(rest, [Omission(what="exact list of changed files", why=why)], by_git=True)
    return Listing(listed, omissions, by_git=not here.is_plain() or _is_odd(here, listed))


def is_quick(here: Repository) -> bool:
    """Whether libgit2 knows how to list the changes, in less time than git takes."""
    return here.slow < _OFTEN and here.is_plain()


def _is_odd(here: Repository, changes: list[Change]) -> bool:
    """Whether there is a nested repository, or rules that libgit2 has not been compared on."""
    if not changes:
        return False
    rules = (b"/", b".gitattributes", b".gitignore", b".gitmodules")
    folders: set[bytes] = set()
    for change in changes:
        if change.path.endswith(rules):
            return True
        folder = change.path.rpartition(b"/")[0]
        while folder and folder not in folders:
            folders.add(folder)
            folder = folder.rpartition(b"/")[0]
    return any(os.path.lexists(here.bytes_root + folder + b"/.gitattributes") for folder in folders)


def _by_libgit2(here: Repository) -> list[Change] | None:
    import pygit2

    began = time.perf_counter()
    try:
        status = here.repo.status(untracked_files="all")
    except (pygit2.GitError, OSError, KeyError, ValueError):
        return None  # an unreadable folder, an index it does not know
    here.slow = here.slow + 1 if time.perf_counter() - began > _SLOW else 0
    found = []
    for name, flag in status.items():
        flags, path = int(flag), os.fsencode(name)
        if flags & _CONFLICT or (flags & _DELETED and not _is_gone(here.bytes_root + path)):
            return None
        new = bool(flags & _NEW) and not flags & _INDEX_DELETED
        found.append(Change(path, new, bool(flags & _STAGED), bool(flags & _DIRTY)))
    return found


def _is_gone(path: bytes) -> bool:
    """Whether nothing lies there any more; what is in a folder that may not be read is not gone."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return os.path.isdir(path)  # a folder took its place


def _by_git(here: Repository, cache: Path) -> tuple[list[Change], list[Omission]]:
    output, complaints = git(
        here.root,
        *(
            "status",
            "--porcelain=v2",
            "-z",
            "--untracked-files=all",
            "--no-renames",
            "--ignore-submodules=none",
        ),
        index=base_index(here, cache),
        settings=here.lenient(),
    )
    omissions = [Omission(what="work tree", why=line) for line in complaints.splitlines()]
    found: dict[bytes, Change] = {}
    for change in _parsed(output, omissions):
        if change.path in found:  # no longer in the index, but still there
            change = Change(change.path, staged=True)
        found[change.path] = change
    return list(found.values()), omissions


def _parsed(output: bytes, omissions: list[Omission]) -> Iterator[Change]:
    """Porcelain v2 without renames, https://git-scm.com/docs/git-status."""
    for line in output.split(b"\0"):
        kind = line[:1]
        if kind == b"?":
            yield Change(line[2:], new=True)
        elif kind == b"1":
            _, state, submodule, _, _, _, _, _, path = line.split(b" ", 8)
            if submodule[2:] != b"..":
                why = "submodule with uncommitted changes: only its commit is recorded"
                omissions.append(Omission(what=os.fsdecode(path), why=why))
            if b"D" in state and path.endswith(b".gitattributes"):
                why = "removed, but the files it named are recorded by its rules until the removal is staged"
                omissions.append(Omission(what=os.fsdecode(path), why=why))
            yield Change(path, staged=state[:1] != b".", dirty=state[1:] != b".")
        elif kind == b"u":
            yield Change(line.split(b" ", 10)[10], staged=True)


def base_index(here: Repository, cache: Path) -> Path | None:
    """A copy of the index that knows the files' times, kept in the cache until the index changes.

    A repository that was copied has an index that matches none of its files, and we never write the user's: without
    the copy every snapshot would read every file. None if there is no index, or no cache.
    """
    copy = cache / f"{here.key()}.index"
    if copy.exists():
        return copy
    try:
        cache.mkdir(parents=True, exist_ok=True)
        for old in (*cache.glob("*.index*"), *cache.glob("*.added")):
            if time.time() - old.stat().st_mtime > _WEEK:
                old.unlink(missing_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            # with its times: an entry as young as the index is one git looks at again (racy-git)
            draft = Path(folder, "index")
            shutil.copy2(here.index_path, draft)
            options = ("update-index", "-q", "--refresh", "--unmerged", "--ignore-submodules")
            git(here.root, *options, index=draft, settings=here.lenient(), accept=(0, 1))
            draft.replace(copy)
    except (OSError, GitError):
        return None
    return copy


def included(here: Repository, include: Iterable[str], excluded: Callable[[str], bool]) -> list[bytes]:
    """Files that git ignores and the patterns name.

    Raises
    ------
    GitError: git does not tell, or takes too long.
    """
    include = tuple(include)
    wanted = matcher(include)
    folders = {fixed_folder(pattern) for pattern in include}
    below = sorted(folders) if "" not in folders else []
    options = ("ls-files", "-z", "--others", "--ignored", "--exclude-standard", "--", *below)
    listed, _ = git(here.root, *options, settings=("--literal-pathspecs",), seconds=10.0)
    names = (os.fsdecode(path) for path in listed.split(b"\0") if path and not path.endswith(b"/"))
    return [os.fsencode(name) for name in names if wanted(name) and not excluded(name)]
