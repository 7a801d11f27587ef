"""Write the tree of a work tree: the index, with what was chosen of the changes.

libgit2 writes it from the index in memory where it stores files as git does. Git itself writes it from a copy of the
index wherever it does not, and wherever much is to be stored: the copy is kept, and remembers what its files hashed to.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from .changes import base_index
from .command import GitError, git
from .limits import Choice, Identity
from .opened import Opened
from .trees import has, lookup

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
    here: Opened, head: bytes, choice: Choice, new: set[bytes], cache: Path, *, by_git: bool
) -> bytes:
    """The id of the tree; paths that cannot be stored are added to `choice.skipped`.

    Parameters
    ----------
    head: id of HEAD's tree, the empty tree before the first commit.
    new: paths that are in neither HEAD nor the index.
    by_git: whether only git stores these files right.

    Raises
    ------
    pygit2.GitError, command.GitError, OSError: the repository cannot be written to.
    """
    import pygit2

    moment = time.time_ns()
    state = (head, here.key(), dict(choice.stage), list(choice.keep))
    if here.last is not None and here.last[0] == state and has(here.odb, here.last[1]):
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
        except GitError:
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


def _by_libgit2(here: Opened, head: bytes, choice: Choice, new: set[bytes], *, strict: bool) -> bytes:
    """The tree; without `strict`, git is not there to store what libgit2 cannot, which is skipped."""
    index = here.repo.index
    try:
        return _in_memory(here, index, head, choice, new, strict)
    finally:
        index.read(True)  # as it is on disk


def _in_memory(
    here: Opened, index: pygit2.Index, head: bytes, choice: Choice, new: set[bytes], strict: bool
) -> bytes:
    import pygit2

    gone = [path for path, seen in choice.stage.items() if seen is None]
    for path in gone:
        _remove(index, path)
    for path in choice.stage.keys() - set(gone):
        if not strict and (why := _unfit(here, path)):
            choice.skip(path, why, new=path in new)
        else:
            index.add(os.fsdecode(path))
    for path in choice.keep:
        entry = lookup(here.odb, head, path)
        if entry is None:
            _remove(index, path)
        else:
            mode = pygit2.enums.FileMode(entry[0])
            index.add(pygit2.IndexEntry(os.fsdecode(path), pygit2.Oid(raw=entry[1]), mode))
    return bytes(index.write_tree().raw)


def _remove(index: pygit2.Index, path: bytes) -> None:
    try:
        index.remove(os.fsdecode(path))
    except (OSError, KeyError):
        pass  # a new file that is gone again


def _unfit(here: Opened, path: bytes) -> str:
    if here.filtered([path]):
        return "stored through a filter or an encoding of git, and there is no git command"
    return "" if os.access(here.bytes_root + path, os.R_OK) else "cannot be read"


def _by_git(here: Opened, head: bytes, choice: Choice, new: set[bytes], cache: Path) -> bytes:
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
        base = base_index(here, cache) or Path(here.index_path)
        if base.exists():
            shutil.copy2(base, index)
        return _written(here, head, choice, new, index, None, memory)


def _written(
    here: Opened,
    head: bytes,
    choice: Choice,
    new: set[bytes],
    index: Path,
    known: _Added | None,
    memory: Path,
) -> bytes:
    stage = dict(choice.stage)
    undone = []
    for path, was_new in known.paths.items() if known is not None else ():
        if path not in stage:
            if was_new:
                undone.append(path)
            else:
                stage[path] = None
    # a folder takes the place of a file that is gone, and rules apply until the removal of what holds them
    first = [path for path, seen in stage.items() if seen is None and not path.endswith(b".gitattributes")]
    last = [path for path, seen in stage.items() if seen is None and path.endswith(b".gitattributes")]
    present = [path for path, seen in stage.items() if seen is not None]
    _add(here, index, [*first, *present, *last], choice, new)
    lines = [b"0 %s\t%b" % (b"0" * 40, path) for path in undone]
    for path in choice.keep:
        mode, id = lookup(here.odb, head, path) or (0, bytes(20))
        lines.append(b"%o %b\t%b" % (mode, id.hex().encode(), path))
    if lines:
        git(here.root, "update-index", "-z", "--index-info", stdin=b"\0".join(lines) + b"\0", index=index)
    output, _ = git(here.root, "write-tree", index=index)
    if not is_small(choice.stage) and not any(path.endswith(b".gitattributes") for path in stage):
        born = known.born if known is not None else time.time()
        paths = {path: path in new for path in stage}
        _save(memory, _Added(_FORMAT, born, index.stat().st_mtime_ns, paths, index.read_bytes()))
    return bytes.fromhex(output.decode())


def _add(here: Opened, index: Path, paths: list[bytes], choice: Choice, new: set[bytes]) -> None:
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

    try:
        memory.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(memory, msgspec.msgpack.encode(added))
    except OSError:
        pass  # disposable: the next snapshot hashes again
