"""Write the tree of a work tree, the index with what was chosen of the changes, and commit it to the log branch.

libgit2 writes the tree from the index in memory where it stores files as git does. Git itself writes it from a copy of
the index wherever it does not, and wherever much is to be stored: the copy is kept, and remembers what its files hashed
to. The branch moves by compare-and-swap, whoever else commits to it at the same moment.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from .changes import base_index
from .limits import Choice, Identity
from .repository import GitError, Repository, git

if TYPE_CHECKING:
    import pygit2

_SMALL, _FEW = 2_000_000, 200
"""Bytes and files up to which libgit2 hashes them anew in less time than git takes to start."""
_FINE = 50_000_000
"""Nanoseconds in which two changes may bear one time."""
_WEEK = 7 * 24 * 3600.0
"""Seconds for which an object that was written is sure to be there: git prunes after two weeks."""
_PATIENCE, _EACH = 20.0, 5.0
"""Seconds to find out which files git cannot store, and for one attempt."""
_FORMAT = 1
_IGNORED = "Ignoring path "
"""What git says of a path that it would write to no index, `GIT~1` for example."""

BRANCH_PATIENCE = 10.0
"""Seconds to compete for the branch; processes that do nothing but commit take turns in milliseconds."""
UNEXPLAINED = 20
"""Failures in a row taken for contention although, a moment later, neither a lock nor a new tip is to be seen."""
STALE_LOCK = 3.0
"""Seconds after which the branch's lock file belongs to nobody who still lives; git holds it for a millisecond."""


# -- the tree ----------------------------------------------------------------------------------------------


class _Added(msgspec.Struct, frozen=True, array_like=True):
    """An index to which files were added."""

    format: int
    born: float
    """When the first of them was: seconds since the epoch."""
    mtime_ns: int
    """Of the index: an entry as young as it is one git looks at again (racy-git)."""
    paths: dict[bytes, bool]
    """What was added, and whether it is new."""
    index: bytes


def write_tree(
    here: Repository, head: bytes, choice: Choice, new: set[bytes], cache: Path, *, by_git: bool
) -> bytes:
    """The id of the tree; paths that cannot be stored are added to `choice.skipped`.

    Parameters
    ----------
    head: id of HEAD's tree, the empty tree before the first commit.
    new: paths that are in neither HEAD nor the index.
    by_git: whether only git stores these files right.

    Raises
    ------
    pygit2.GitError, GitError, OSError: the repository cannot be written to.
    """
    import pygit2

    moment = time.time_ns()
    state = (head, here.key(), dict(choice.stage), list(choice.keep))
    if here.last is not None and here.last[0] == state and here.has(here.last[1]):
        return here.last[1]
    skipped = len(choice.skipped)
    tree = None
    if not by_git and is_small(choice.stage):
        try:
            tree = _by_libgit2(here, head, choice, new, strict=True)
        except (pygit2.GitError, OSError, KeyError, ValueError):
            pass  # an unreadable file, a name that it does not take: git says which
    if tree is None:
        try:
            tree = _by_git(here, head, choice, new, cache)
        except GitError:  # git is not there
            tree = _by_libgit2(here, head, choice, new, strict=False)
    if len(choice.skipped) == skipped and _are_older(choice.stage.values(), moment):
        here.last = (state, tree)
    return tree


def is_small(stage: dict[bytes, Identity | None]) -> bool:
    """Whether hashing that anew takes less time than git takes to start."""
    return len(stage) <= _FEW and sum(seen[0] for seen in stage.values() if seen) <= _SMALL


def _are_older(seen: Iterable[Identity | None], moment: int) -> bool:
    """Whether a later change of these files would bear another time."""
    return all(one is None or max(one[1:3]) + _FINE < moment for one in seen)


def _in_head(here: Repository, head: bytes, path: bytes) -> tuple[int, pygit2.Oid] | None:
    tree = here.tree(head)
    try:
        entry = tree[os.fsdecode(path)] if tree is not None else None
    except KeyError:
        return None
    return None if entry is None else (int(entry.filemode), entry.id)


def _by_libgit2(here: Repository, head: bytes, choice: Choice, new: set[bytes], *, strict: bool) -> bytes:
    """The tree; without `strict`, git is not there to store what libgit2 cannot, which is skipped."""
    import pygit2

    index = here.repo.index
    try:
        gone = [path for path, seen in choice.stage.items() if seen is None]
        present = [path for path, seen in choice.stage.items() if seen is not None]
        filtered = set() if strict else here.filtered(present)
        unreadable = {p for p in present if not strict and not os.access(here.bytes_root + p, os.R_OK)}
        for path in filtered | unreadable:
            by_filter = "stored through a filter or an encoding of git, and there is no git command"
            choice.skip(path, by_filter if path in filtered else "cannot be read", new=path in new)
        in_head = {path: _in_head(here, head, path) for path in choice.keep}
        for path in [*gone, *(path for path, entry in in_head.items() if entry is None)]:
            with contextlib.suppress(OSError, KeyError):  # a new file that is gone again
                index.remove(os.fsdecode(path))
        for path in present:
            if path not in filtered and path not in unreadable:
                index.add(os.fsdecode(path))
        for path, entry in in_head.items():
            if entry is not None:
                mode = pygit2.enums.FileMode(entry[0])
                index.add(pygit2.IndexEntry(os.fsdecode(path), entry[1], mode))
        return bytes(index.write_tree().raw)
    finally:
        index.read(True)  # as it is on disk


def _by_git(here: Repository, head: bytes, choice: Choice, new: set[bytes], cache: Path) -> bytes:
    objects = here.common_dir / "objects"
    if not os.access(objects, os.W_OK):
        raise GitError(f"{objects} cannot be written to")
    if shutil.which("git") is None:
        raise GitError("there is no git command")
    memory = cache / f"{here.key()}.added"
    known = _read(memory)
    with tempfile.TemporaryDirectory(prefix="runctx-") as folder:
        index = Path(folder, "index")
        if known is not None:
            index.write_bytes(known.index)
            os.utime(index, ns=(known.mtime_ns, known.mtime_ns))
            try:
                return _written(here, head, choice, new, index, known, memory)
            except GitError:  # its objects were pruned
                index.unlink()
        base = base_index(here, cache) or here.index_path
        if base.exists():
            shutil.copy2(base, index)
        return _written(here, head, choice, new, index, None, memory)


def _written(
    here: Repository,
    head: bytes,
    choice: Choice,
    new: set[bytes],
    index: Path,
    known: _Added | None,
    memory: Path,
) -> bytes:
    stage = dict(choice.stage)
    lines = []
    for path, was_new in known.paths.items() if known is not None else ():
        if path not in stage:  # is as in HEAD again
            if was_new:
                lines.append(b"0 %s\t%b" % (b"0" * 40, path))
            else:
                stage[path] = None
    # a folder takes the place of a file that is gone, and rules apply until the removal of what holds them
    order = {path: seen is not None or 2 * path.endswith(b".gitattributes") for path, seen in stage.items()}
    _add(here, index, sorted(stage, key=lambda path: int(order[path])), choice, new)
    for path in choice.keep:
        mode, id = _in_head(here, head, path) or (0, "0" * 40)
        lines.append(b"%o %b\t%b" % (mode, str(id).encode(), path))
    if lines:
        git(here.root, "update-index", "-z", "--index-info", stdin=b"\0".join(lines) + b"\0", index=index)
    output, _ = git(here.root, "write-tree", index=index)
    if not is_small(choice.stage) and not any(path.endswith(b".gitattributes") for path in stage):
        born = known.born if known is not None else time.time()
        paths = {path: path in new for path in stage}
        _save(memory, _Added(_FORMAT, born, index.stat().st_mtime_ns, paths, index.read_bytes()))
    return bytes.fromhex(output.decode())


def _add(here: Repository, index: Path, paths: list[bytes], choice: Choice, new: set[bytes]) -> None:
    """Add files, or their absence, to the index; what git refuses is looked for by halves and skipped."""
    options = ("update-index", "-z", "--add", "--remove", "--replace", "--stdin")
    deadline = None
    pending = [paths] if paths else []
    while pending:
        part = pending.pop()
        try:
            limit = None if deadline is None else min(_EACH, max(deadline - time.monotonic(), 0.1))
            _, said = git(here.root, *options, stdin=b"\0".join(part) + b"\0", index=index, seconds=limit)
        except GitError as refused:
            Path(f"{index}.lock").unlink(missing_ok=True)  # of one that was killed
            deadline = deadline or time.monotonic() + _PATIENCE
            if len(part) == 1 or time.monotonic() > deadline:
                for path in part:
                    choice.skip(path, f"git cannot store it: {refused}", new=path in new)
            else:
                half = len(part) // 2
                pending += [part[half:], part[:half]]
            continue
        for line in said.splitlines():
            if line.startswith(_IGNORED):
                why = "git does not store a file of that name"
                choice.skip(os.fsencode(line.removeprefix(_IGNORED)), why, new=True)


def _read(memory: Path) -> _Added | None:
    try:
        known = msgspec.msgpack.decode(memory.read_bytes(), type=_Added)
    except (OSError, msgspec.MsgspecError, ValueError, RecursionError):
        return None
    return known if known.format == _FORMAT and known.born > time.time() - _WEEK else None


def _save(memory: Path, added: _Added) -> None:
    from ..layout import write_atomically

    with contextlib.suppress(OSError):  # disposable: the next snapshot hashes again
        memory.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(memory, msgspec.msgpack.encode(added))


# -- the branch --------------------------------------------------------------------------------------------


class NotOnBranchError(Exception):
    """The commit exists, but the branch could not be moved to it."""

    def __init__(self, commit: pygit2.Oid, why: str) -> None:
        super().__init__(commit, why)
        self.commit = commit
        self.why = why


def commit_tree(
    here: Repository, tree: bytes, head: pygit2.Oid | None, branch: str, message: str
) -> pygit2.Oid:
    """The commit that holds `tree` on `branch`: its tip when that already does, else a new one after it.

    The new commit's parents are the branch's tip and HEAD, as far as they exist. The branch moves by
    compare-and-swap (libgit2 checks the old value while it holds the reference's lock), and is tried again.

    Raises
    ------
    NotOnBranchError: the commit was made, but the branch is checked out, locked, or cannot be written.
    """
    import pygit2

    repo, name = here.repo, f"refs/heads/{branch}"
    author = here.config.get("user.name") or "runctx", here.config.get("user.email") or "runctx@localhost"
    deadline = time.monotonic() + BRANCH_PATIENCE
    unexplained = 0
    while True:
        reference = repo.references.get(name)
        tip = None if reference is None else reference.peel(pygit2.Commit)
        based = tip is not None and (tip.parent_ids[-1:] == [head] if head else len(tip.parent_ids) < 2)
        if tip is not None and based and tip.tree_id.raw == tree:
            return tip.id
        parents = list(dict.fromkeys(id for id in (tip and tip.id, head) if id is not None))
        signature = pygit2.Signature(*author)
        commit = repo.create_commit(None, signature, signature, message, pygit2.Oid(raw=tree), parents)
        if _is_checked_out(here, name):
            raise NotOnBranchError(commit, f"branch {branch} is checked out, and moving it would move HEAD")
        if reference is not None and isinstance(reference.target, str):
            why = f"branch {branch} is a symbolic reference, and moving it would move {reference.target}"
            raise NotOnBranchError(commit, why)
        try:
            _move(here, name, reference, commit)
            return commit
        except (ValueError, OSError, GitError, pygit2.GitError) as error:
            now = repo.references.get(name)
            moved = (now and now.target) != (reference and reference.target)
            unexplained = 0 if moved or _is_locked(here, name) else unexplained + 1
            if unexplained > UNEXPLAINED or time.monotonic() > deadline:
                raise NotOnBranchError(commit, f"branch {branch} cannot be moved: {error}") from error
        time.sleep(random.uniform(0.0005, 0.01))  # noqa: S311  (apart, so that they do not meet again)


def _is_checked_out(here: Repository, name: str) -> bool:
    """Whether HEAD of the work tree, or of any linked one, is on that branch."""
    heads = [here.git_dir / "HEAD", here.common_dir / "HEAD", *here.common_dir.glob("worktrees/*/HEAD")]
    return any(head.read_bytes().strip() == f"ref: {name}".encode() for head in heads if head.is_file())


def _move(here: Repository, name: str, seen: pygit2.Reference | None, commit: pygit2.Oid) -> None:
    if seen is not None:
        seen.set_target(commit)  # refuses if it no longer points where `seen` does
    elif shutil.which("git") is None:
        here.repo.references.create(name, commit)
    else:
        # libgit2 looks whether it exists before it locks, and from a linked work tree it looks in the wrong folder:
        # the first commits of two processes would not both be kept
        git(here.root, "update-ref", name, str(commit), "0" * 40)


def _is_locked(here: Repository, name: str) -> bool:
    """Whether somebody else moves the branch. What a killed process left is removed: else nobody ever could again."""
    lock = here.common_dir / f"{name}.lock"
    try:
        if time.time() - lock.stat().st_mtime > STALE_LOCK:
            lock.unlink()
    except OSError:
        return False  # released, or never there; or it may not be removed
    return True
