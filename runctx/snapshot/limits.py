"""Decide which changed files a snapshot takes up, and which it leaves out.

New files are left out if they are an input that has a digest of its own, if they belong to an environment or a cache,
if one is too large, and if they are too large together. Tracked files that are left out stay as they are in HEAD.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from ..model import Omission
from .changes import Change
from .patterns import matcher
from .repository import Repository

Identity = tuple[int, int, int, int]
"""Size, mtime and ctime in nanoseconds, inode: what tells one state of a file from another."""

_BLOCK = 4096
"""Bytes that git's copy of a small file takes on a disk."""
_DOMINANT = 0.8
"""Part of a folder's bytes from which on one of its folders is what is large."""
_SHOWN = 5
_CODE = (b".py", b".pyi", b".ipynb")
_FOLDERS = (b"__pycache__", b"node_modules")
_MARKS = (b"pyvenv.cfg", b"conda-meta/history")
"""Files by which an environment of Python or conda is known."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What a snapshot may take up."""

    excluded: Callable[[str], bool]
    """Whether a path, relative to the repository, is to stay as it is in HEAD."""
    inputs: tuple[str, ...] = ()
    """Absolute files, folders and globs that the run declares as inputs."""
    max_file_size: int
    """Bytes; a larger file is left out, tracked or not."""
    max_snapshot_size: int
    """Bytes; new files are left out, largest folders first, until the rest is no larger together."""


class Left(NamedTuple):
    """New files that are left out together."""

    what: str
    """The folder, file or pattern, relative to the repository."""
    sizes: list[int]
    why: str
    line: str
    """What .gitignore needs for git to see it alike."""


@dataclass(kw_only=True, slots=True)
class Choice:
    """What becomes of each change."""

    stage: dict[bytes, Identity | None] = field(default_factory=dict)
    """Paths to record as they lie in the work tree; None if nothing lies there any more."""
    keep: list[bytes] = field(default_factory=list)
    """Tracked paths to record as they are in HEAD."""
    skipped: dict[str, str] = field(default_factory=dict)
    """What is left out, and why."""
    left: list[Left] = field(default_factory=list)

    def skip(self, path: bytes, why: str, *, new: bool) -> None:
        """Leave a path out, and say so."""
        self.skipped[_shown(path)] = why
        if not new:
            self.keep.append(path)

    def warning(self, here: Repository) -> Omission | None:
        """One sentence on the new files that are left out although git does not ignore them."""
        if not self.left:
            return None
        parts = [f"{what} ({_count(sizes)}: {why})" for what, sizes, why, _ in self.left[:_SHOWN]]
        more = f" and {len(self.left) - _SHOWN} more" if len(self.left) > _SHOWN else ""
        lines = " ".join(dict.fromkeys(left.line for left in self.left[:_SHOWN]))
        ignore = here.root / ".gitignore"
        hint = (
            f"hint: raise the limit under [tool.runctx] or, if they are no source, add to {ignore}: {lines}"
        )
        return Omission(what="new files", why=f"left out of the snapshot: {', '.join(parts)}{more}; {hint}")


def choose(here: Repository, changes: Iterable[Change], limits: Limits) -> Choice:
    """Decide about each change; nothing is read but names, sizes and times."""
    choice = Choice()
    new: dict[bytes, os.stat_result] = {}
    for change in changes:
        path = change.path.rstrip(b"/")
        if limits.excluded(os.fsdecode(path)):
            if not change.new:
                choice.skip(path, "excluded by a pattern; the version of HEAD stands in", new=False)
            continue
        if not change.dirty:
            continue
        try:
            found = os.lstat(here.bytes_root + path)
        except (FileNotFoundError, NotADirectoryError):
            choice.stage[path] = None
            continue
        except OSError as error:
            choice.skip(path, f"cannot be read: {error.strerror}", new=change.new)
            continue
        if change.new and not stat.S_ISDIR(found.st_mode):
            new[path] = found
        elif stat.S_ISDIR(found.st_mode) and not os.path.lexists(here.bytes_root + path + b"/.git"):
            choice.stage[path] = None  # a folder took a file's place
        elif why := _unfit(found, limits):
            choice.skip(path, why, new=change.new)
        else:
            choice.stage[path] = identity(found)
            if change.new:
                choice.skip(path, "a repository of its own: only its commit is recorded", new=True)
    _choose_new(here, new, limits, choice)
    return choice


def identity(found: os.stat_result) -> Identity:
    """What tells one state of a file from another."""
    return (found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)


def _unfit(found: os.stat_result, limits: Limits) -> str:
    if stat.S_ISLNK(found.st_mode) or stat.S_ISDIR(found.st_mode):
        return ""
    if not stat.S_ISREG(found.st_mode):
        return "neither a file nor a link"
    if found.st_size > limits.max_file_size:
        return f"{found.st_size} bytes, more than the {limits.max_file_size} of max_file_size"
    return ""


def _choose_new(here: Repository, new: dict[bytes, os.stat_result], limits: Limits, choice: Choice) -> None:
    for given, paths in _inputs(here, new, limits.inputs) if new else ():
        why = (
            f"new files that are an input, which has a digest: {_count([new.pop(p).st_size for p in paths])}"
        )
        choice.skipped[given] = why
    for folder, why, paths in _environments(new):
        sizes = [new.pop(path).st_size for path in paths]
        if not folder.endswith(b"__pycache__"):  # as good as ignored: Python makes it, and makes it anew
            choice.left.append(Left(_shown(folder + b"/"), sizes, why, _line(folder + b"/")))
    for path in list(new):
        if why := _unfit(new[path], limits):
            found = new.pop(path)
            choice.skip(path, why, new=True)
            if stat.S_ISREG(found.st_mode):
                choice.left.append(Left(_shown(path), [found.st_size], "over max_file_size", _line(path)))
    for what, paths in _excess(here, {path: _on_disk(new[path].st_size) for path in new}, limits):
        sizes = [new.pop(path).st_size for path in paths]
        choice.left.append(Left(_shown(what) or "others", sizes, "over max_snapshot_size", _line(what)))
    for left in choice.left:
        choice.skipped.setdefault(left.what, f"new, and left out together: {_count(left.sizes)}, {left.why}")
    choice.stage.update((path, identity(found)) for path, found in new.items())


def _inputs(
    here: Repository, new: Iterable[bytes], inputs: Iterable[str]
) -> Iterator[tuple[str, list[bytes]]]:
    """For each input the new files that it names; code in a folder is code all the same."""
    for given in inputs:
        places = {os.path.normpath(given), os.path.realpath(given)}
        inside = [os.path.relpath(place, here.root) for place in places if _is_below(place, here.root)]
        if not inside:
            continue
        if os.path.lexists(given):
            names = {os.fsencode(name) for name in inside}
            below = tuple(name + b"/" for name in names)
            paths = [p for p in new if p in names or (p.startswith(below) and not p.endswith(_CODE))]
        else:
            named = matcher(tuple(f"/{name}" for name in inside))
            paths = [p for p in new if named(os.fsdecode(p))]
        if paths:
            yield _shown(os.fsencode(inside[0])), paths


def _is_below(place: str, root: os.PathLike[str]) -> bool:
    return place.startswith(os.path.join(root, ""))


def _environments(new: Iterable[bytes]) -> list[tuple[bytes, str, list[bytes]]]:
    """Folders that are an environment or a cache, and the new files in each."""
    roots = {path[: -len(mark) - 1] for path in new for mark in _MARKS if path.endswith(b"/" + mark)}
    found: dict[bytes, list[bytes]] = {}
    for path in new:
        parts = path.split(b"/")
        for n in range(1, len(parts)):
            folder = b"/".join(parts[:n])
            if parts[n - 1] in _FOLDERS or folder in roots:
                found.setdefault(folder, []).append(path)
                break
    return [
        (folder, "an environment" if folder in roots else "no source", paths)
        for folder, paths in found.items()
    ]


def _excess(here: Repository, sizes: dict[bytes, int], limits: Limits) -> Iterator[tuple[bytes, list[bytes]]]:
    """Largest folders first, what has to be left out for the rest to fit."""
    total = sum(sizes.values())
    rest = [path for path in sizes if not path.endswith(_CODE)]
    for _ in range(10):
        if total <= limits.max_snapshot_size or not rest:
            return
        what, paths = _largest(here, rest, sizes)
        yield what, paths
        total -= sum(sizes[path] for path in paths)
        gone = set(paths)
        rest = [path for path in rest if path not in gone]
    if total > limits.max_snapshot_size and rest:
        yield b"", rest


def _largest(here: Repository, paths: list[bytes], sizes: dict[bytes, int]) -> tuple[bytes, list[bytes]]:
    """The deepest folder that holds most of what is large; where other things lie too, the files of one ending."""
    folder = b""
    while True:
        parts: dict[bytes, list[bytes]] = {}
        for path in paths:
            name, slash, _ = path[len(folder) :].partition(b"/")
            ending = os.path.splitext(name)[1]
            parts.setdefault(name + slash if slash else b"*" + ending if ending else name, []).append(path)
        weights = {name: sum(sizes[path] for path in below) for name, below in parts.items()}
        name = max(weights, key=lambda name: weights[name])
        if folder and weights[name] < _DOMINANT * sum(weights.values()):
            return folder, paths
        if not name.endswith(b"/"):
            only = len(parts) == 1 and len(os.listdir(here.bytes_root + folder)) == len(paths)
            return (folder if folder and only else folder + name), parts[name]
        folder, paths = folder + name, parts[name]


def _on_disk(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def _line(path: bytes) -> str:
    return "/" + _shown(path)


def _shown(path: bytes) -> str:
    return path.decode("utf-8", "backslashreplace")


def _count(sizes: list[int]) -> str:
    total = sum(sizes)
    size = f"{total / 1e6:.1f} MB" if total >= 50_000 else f"{total} bytes"
    return f"{len(sizes)} file{'s' if len(sizes) != 1 else ''}, {size}"
