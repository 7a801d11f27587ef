"""Commit a tree to the log branch, whoever else commits to it at the same moment."""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pygit2

PATIENCE = 10.0
"""Seconds to compete for the branch; processes that do nothing but commit take turns in milliseconds."""

UNEXPLAINED = 20
"""Failures in a row taken for contention although, a moment later, neither a lock nor a new tip is to be seen."""

STALE_LOCK = 3.0
"""Seconds after which the branch's lock file belongs to nobody who still lives; git holds it for a millisecond."""


class NotOnBranchError(Exception):
    """The commit exists, but the branch could not be moved to it."""

    def __init__(self, commit: pygit2.Oid, why: str) -> None:
        super().__init__(commit, why)
        self.commit = commit
        self.why = why


def commit_tree(
    repo: pygit2.Repository,
    tree: pygit2.Oid,
    head: pygit2.Oid | None,
    branch: str,
    message: str,
    author: tuple[str, str],
) -> pygit2.Oid:
    """The commit that holds `tree` on `branch`: its tip when that already does, else a new one after it.

    The new commit's parents are the branch's tip and HEAD, as far as they exist. The branch moves by
    compare-and-swap (libgit2 checks the old value while it holds the reference's lock), and is tried again.

    Raises
    ------
    NotOnBranchError: the commit was made, but the branch is checked out, locked, or cannot be written.
    """
    import pygit2

    deadline = time.monotonic() + PATIENCE
    unexplained = 0
    while True:
        reference, tip = _tip(repo, branch)
        if tip is not None and _holds(tip, tree, head):
            return tip.id
        parents = list(dict.fromkeys(id for id in (tip and tip.id, head) if id is not None))
        signature = pygit2.Signature(*author)
        commit = repo.create_commit(None, signature, signature, message, tree, parents)
        if checked_out(repo, branch):
            raise NotOnBranchError(commit, f"branch {branch} is checked out, and moving it would move HEAD")
        if reference is not None and isinstance(reference.target, str):
            why = f"branch {branch} is a symbolic reference, and moving it would move {reference.target}"
            raise NotOnBranchError(commit, why)
        try:
            _move(repo, branch, reference, commit)
            return commit
        except (ValueError, OSError, pygit2.GitError) as error:
            unexplained = 0 if _contended(repo, branch, tip) else unexplained + 1
            if unexplained > UNEXPLAINED or time.monotonic() > deadline:
                raise NotOnBranchError(commit, f"branch {branch} cannot be moved: {error}") from error
        time.sleep(random.uniform(0.0005, 0.01))  # noqa: S311  (apart, so that they do not meet again)


def checked_out(repo: pygit2.Repository, branch: str) -> bool:
    """Whether HEAD of the work tree, or of any linked one, is on that branch."""
    common = common_dir(repo)
    heads = [Path(repo.path, "HEAD"), common / "HEAD", *common.glob("worktrees/*/HEAD")]
    wanted = f"ref: refs/heads/{branch}".encode()
    return any(head.read_bytes().strip() == wanted for head in heads if head.is_file())


def common_dir(repo: pygit2.Repository) -> Path:
    """The folder of what all work trees of the repository share."""
    pointer = Path(repo.path, "commondir")
    return Path(repo.path, pointer.read_text().strip()) if pointer.is_file() else Path(repo.path)


def _tip(repo: pygit2.Repository, branch: str) -> tuple[pygit2.Reference | None, pygit2.Commit | None]:
    import pygit2

    reference = repo.references.get(f"refs/heads/{branch}")
    return reference, (reference.peel(pygit2.Commit) if reference is not None else None)


def _holds(tip: pygit2.Commit, tree: pygit2.Oid, head: pygit2.Oid | None) -> bool:
    return tip.tree_id == tree and (tip.parent_ids[-1:] == [head] if head else len(tip.parent_ids) < 2)


def _move(repo: pygit2.Repository, branch: str, seen: pygit2.Reference | None, commit: pygit2.Oid) -> None:
    if seen is not None:
        seen.set_target(commit)  # refuses if it no longer points where `seen` does
        return
    # libgit2 looks whether it exists before it locks, and from a linked work tree it looks in the wrong folder:
    # the first commits of two processes would not both be kept
    with _alone(common_dir(repo)):
        if _tip(repo, branch)[0] is not None:
            raise ValueError("it has just been created")
        repo.references.create(f"refs/heads/{branch}", commit)


def _contended(repo: pygit2.Repository, branch: str, tip: pygit2.Commit | None) -> bool:
    lock = common_dir(repo) / f"refs/heads/{branch}.lock"
    try:
        if not _is_stale(lock):
            return True
        _remove_stale(lock)
        return not lock.exists()
    except FileNotFoundError:
        pass  # released, or never there
    _, now = _tip(repo, branch)
    return (now and now.id) != (tip and tip.id)


def _is_stale(lock: Path) -> bool:
    return time.time() - lock.stat().st_mtime > STALE_LOCK


def _remove_stale(lock: Path) -> None:
    """Undo what a process killed at the wrong moment left, or no snapshot would ever reach the branch again.

    One process at a time, or a second one would remove the lock of whoever comes after the first.
    """
    with contextlib.suppress(OSError), _alone(lock.parent):  # somebody else is at it, or we may not
        if _is_stale(lock):
            lock.unlink()


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Of all processes of ours on this machine; BlockingIOError if another one is in here."""
    import fcntl

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError:
            pass  # some cluster file systems have no such locks
        yield
    finally:
        os.close(descriptor)
