"""In which paths do HEAD, the index and the work tree differ?

libgit2 answers within the process, faster than a command starts; git itself answers for a large index (it
uses threads), and for whatever libgit2 is known to see differently.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ..model import Omission
from .command import GitError, git
from .opened import Opened, stamp_of
from .trees import Entry


class Change(NamedTuple):
    """A path that is not as in HEAD, or may not be."""

    path: bytes
    tracked: bool = True
    """In HEAD or in the index."""
    gone: bool = False
    """No longer in the work tree, or no longer tracked (another change then says it is there, untracked)."""
    settled: Entry | None = None
    """The index's entry, where the work tree agrees with it."""
    mode: int | None = None
    """The mode git sees in the work tree; None where the file itself decides."""


class Listing(NamedTuple):
    changes: list[Change]
    omissions: list[Omission]


def list_changes(opened: Opened, cache: Path) -> Listing:
    """Every changed or untracked path, in an order in which a later one may overrule an earlier one.

    Raises
    ------
    command.GitError: neither git nor libgit2 can tell.
    """
    facts = opened.index()
    certain = facts.simple and not facts.stale and not _negated_ignores(opened) and not has_attributes(opened)
    if certain:
        listed = _by_libgit2(opened)
        if listed is not None and not any(_uncertain(change) for change in listed):
            return Listing(listed, [])
    try:
        listing = _by_git(opened, cache if facts.stale else None)
        listing.omissions.extend(_removed_rules(listing.changes))
        return listing
    except GitError as refused:
        listed = _by_libgit2(opened)
        if listed is None:
            raise
        why = f"{refused}; libgit2 was asked instead, which knows no filters, sparse checkouts or submodules"
        return Listing(listed, [Omission(what="exact list of changed files", why=why)])


def has_attributes(opened: Opened) -> bool:
    """Whether any `.gitattributes` may be in force, apart from those in folders below the root."""
    if opened.index().attributes:
        return True
    base = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    files = (
        f"{opened.root}/.gitattributes",
        f"{opened.common_dir}/info/attributes",
        os.path.expanduser(opened.config.get("core.attributesfile") or f"{base}/git/attributes"),
        "/etc/gitattributes",
    )
    return any(os.path.exists(file) for file in files)


def _uncertain(change: Change) -> bool:
    """A nested repository, or rules that libgit2 has not been compared on."""
    return change.path.endswith((b"/", b".gitattributes", b".gitignore", b".gitmodules"))


def _removed_rules(changes: list[Change]) -> Iterator[Omission]:
    """Rules `git add -A` would stop to apply midway, as soon as it has staged the removal."""
    for change in changes:
        if change.gone and change.path.endswith(b".gitattributes"):
            why = "removed, but the files it named are recorded by its rules until the removal is staged"
            yield Omission(what=os.fsdecode(change.path), why=why)


def _negated_ignores(opened: Opened) -> bool:
    """Whether `!` rules are in force: libgit2 and git differ on rare combinations of them with others."""
    for name in (f"{opened.root}/.gitignore", f"{opened.common_dir}/info/exclude"):
        try:
            with open(name, "rb") as file:
                if b"\n!" in b"\n" + file.read():
                    return True
        except OSError:
            continue  # there is none
    return False


_CONFLICT = 1 << 15
_INDEX_DELETED = 1 << 2
_UNTRACKED, _MODIFIED, _DELETED, _RETYPED, _UNREADABLE = 1 << 7, 1 << 8, 1 << 9, 1 << 10, 1 << 12
_IN_WORK_TREE = _UNTRACKED | _MODIFIED | _RETYPED | _UNREADABLE | _CONFLICT


def _by_libgit2(opened: Opened) -> list[Change] | None:
    import pygit2

    try:
        status = opened.repo.status(untracked_files="all")
        index = opened.repo.index
        if status:
            index.read(False)
        trusts_modes = opened.flag("core.filemode", True)
        return [
            _from_flags(os.fsencode(path), int(flags), index, trusts_modes) for path, flags in status.items()
        ]
    except (pygit2.GitError, OSError, KeyError, ValueError):
        return None  # an unreadable folder, an index it does not know


def _from_flags(path: bytes, flags: int, index: object, trusts_modes: bool) -> Change:
    tracked = not flags & _UNTRACKED or bool(flags & _INDEX_DELETED)
    if flags & _DELETED or (flags & _INDEX_DELETED and not flags & _UNTRACKED):
        return Change(path, gone=True)
    staged = None if flags & (_UNTRACKED | _CONFLICT) else index[os.fsdecode(path)]  # type: ignore[index]
    if flags & _IN_WORK_TREE:
        known = staged.mode if staged is not None and not trusts_modes else None
        return Change(path, tracked, mode=known)
    assert staged is not None  # flags that are neither: only the index differs from HEAD
    return Change(path, settled=(staged.mode, staged.id.raw))


def _by_git(opened: Opened, cache: Path | None) -> Listing:
    index = _refreshed_index(opened, cache) if cache is not None else None
    output, complaints = git(
        opened.root,
        "status",
        "--porcelain=v2",
        "-z",
        "--untracked-files=all",
        "--no-renames",
        "--ignore-submodules=none",
        index=index,
    )
    omissions = [Omission(what="work tree", why=line) for line in complaints.splitlines()]
    listed = list(_parsed(output, omissions))
    return Listing(listed, omissions)


def _parsed(output: bytes, omissions: list[Omission]) -> Iterator[Change]:
    """Porcelain v2 without renames, https://git-scm.com/docs/git-status."""
    for line in output.split(b"\0"):
        kind = line[:1]
        if kind == b"?":
            yield Change(line[2:], tracked=False)
        elif kind == b"1":
            _, state, submodule, _, in_index, in_work_tree, _, staged, path = line.split(b" ", 8)
            if submodule[2:] != b"..":
                what, why = (
                    os.fsdecode(path),
                    "submodule with uncommitted changes: only its commit is recorded",
                )
                omissions.append(Omission(what=what, why=why))
            if state[1:] == b"D" or (state[1:] == b"." and int(in_index, 8) == 0):
                yield Change(path, gone=True)
            elif state[1:] == b"." or (state[1:] == b"M" and submodule[:2] == b"S."):
                yield Change(path, settled=(int(in_index, 8), bytes.fromhex(staged.decode())))
            else:
                yield Change(path, mode=int(in_work_tree, 8))
        elif kind == b"u":
            yield Change(line.split(b" ", 10)[10])


def _refreshed_index(opened: Opened, cache: Path) -> Path | None:
    """A copy of the index with this work tree's stat data, kept in the cache until the index changes.

    A repository that was copied has an index that matches none of its files, and we never write the user's:
    without the copy every snapshot would read every file.
    """
    stamp = "-".join(str(part) for part in stamp_of(opened.index_path) or ())
    copy = cache / f"{opened.key}.{stamp}.index"
    if copy.exists():
        return copy
    try:
        cache.mkdir(parents=True, exist_ok=True)
        _forget_old_copies(cache, opened.key)
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            draft = Path(folder, "index")
            copy_index(opened, draft)
            git(opened.root, "update-index", "-q", "--unmerged", "--refresh", index=draft, accept=(0, 1))
            draft.replace(copy)
    except (OSError, GitError):
        return None  # slower, not wrong
    return copy


def copy_index(opened: Opened, copy: Path) -> None:
    """Copy the index with its times: an entry as young as the index is one git looks at again (racy-git)."""
    shutil.copy2(opened.index_path, copy)


def _forget_old_copies(cache: Path, key: str, seconds: float = 3600.0) -> None:
    for old in cache.glob(f"{key}.*.index"):
        try:
            if time.time() - old.stat().st_mtime > seconds:  # not one another process may be reading
                old.unlink()
        except OSError:
            continue  # somebody else was faster


def included(
    opened: Opened, include: tuple[str, ...], excluded: object, seconds: float = 10.0
) -> Iterator[bytes]:
    """Files that git ignores and the patterns name. Raises TimeoutError when the walk takes too long."""
    from .patterns import fixed_folder, matcher

    wanted = matcher(include)
    deadline = time.monotonic() + seconds
    pending = {os.fsencode(fixed_folder(pattern)) for pattern in include}
    seen: set[bytes] = set()
    while pending:
        folder = pending.pop()
        seen.add(folder)
        if time.monotonic() > deadline:
            raise TimeoutError(f"looking for included files took longer than {seconds:.0f} s")
        for entry in _scanned(opened.bytes_root + folder):
            path = folder + b"/" + entry.name if folder else entry.name
            name = os.fsdecode(path)
            if entry.name == b".git" or excluded(name):  # type: ignore[operator]
                continue
            if entry.is_dir(follow_symlinks=False):
                if path not in seen and not os.path.lexists(entry.path + b"/.git"):
                    pending.add(path)
            elif wanted(name) and _is_ignored(opened, name):
                yield path


def _scanned(folder: bytes) -> list[os.DirEntry[bytes]]:
    try:
        with os.scandir(folder) as found:
            return list(found)
    except OSError:
        return []


def _is_ignored(opened: Opened, path: str) -> bool:
    try:
        return bool(opened.repo.path_is_ignored(path))
    except UnicodeEncodeError:  # a name that is not UTF-8; if it is tracked after all, it stays what it is
        return True
