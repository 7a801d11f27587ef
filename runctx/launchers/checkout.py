"""How does the submitted code get to where workers import it? As a checkout of the snapshot, made once.

For each folder of the project there is one that stands in for it. Whatever code is made of is written out: the
files of the snapshot's tree, and imported modules that it leaves out (compiled ones, a generated `_version.py`,
those of a submodule or from outside the repository). All else that lies there is a link to the original: ignored
data, secrets, submodules; and of what is tracked, large files and those that git stores through a filter (LFS,
git-crypt), of which the repository may hold no more than a pointer. Line endings are as git stores them.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from importlib.machinery import all_suffixes
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from ..capture import modules, program
from ..errors import LedgerError
from ..model import Omission, Source
from ..snapshot.trees import EXECUTABLE, FILE, GITLINK, LINK, TREE, blob_id, entries, has
from .code import MANIFEST, OURSELVES, Code, Entry, Manifest, Part, verify

if TYPE_CHECKING:
    import pygit2

LARGE = 10_000_000
"""Bytes; a larger tracked file, unless it is code, is not written out again for each run."""

_SELF = ".self"
_OUTSIDE = ".outside"
_CODE = tuple(os.fsencode(suffix) for suffix in all_suffixes())
_NEVER_LINKED = (b".git", b"__pycache__")
_SHOWN = 3

_IS_ORIGINAL = "the file is large or passes a git filter; workers read the original"
_IS_SUBMODULE = "a submodule: workers use the modules imported at submission, and the original of all others"
_IS_NOWHERE = "neither the repository (a partial clone?) nor the work tree has it"


def checkout(source: Source, root: Path | None, target: Path) -> Code:
    """The code of this process as others shall import it: a folder below `target`, made once for equal code.

    Nothing of the repository is changed. A kill at any moment leaves a folder whole, or not there.

    Parameters
    ----------
    source: the snapshot, as the lock tells it.
    root: the work tree; None outside a repository.
    target: folder of the run's checkouts; made if need be.

    Raises
    ------
    LedgerError: the repository lacks objects of the tree, or the checkout cannot be written.
    """
    try:
        project = _look(source, root)
        manifest = msgspec.msgpack.encode(
            Manifest(_bytes_of(source.tree), [draft.part() for draft in project.drafts])
        )
        name = hashlib.sha1(manifest, usedforsecurity=False).hexdigest()[:12]
        code = _described(project, source.tree, Path(os.path.abspath(target)) / name)
        if not _is_whole(code):
            _make(project, manifest, code)
        for draft in project.drafts:
            _link_rest(draft.original, os.path.join(os.fsencode(code.folder), draft.place))
    except LedgerError:
        raise
    except (OSError, KeyError, _git_error()) as error:
        raise LedgerError(
            f"cannot check out the submitted code below {str(target)!r}: {error}",
            hint="check the free disk space, and the repository by `git fsck`",
        ) from error
    return code


def _bytes_of(name: str | None) -> bytes | None:
    """The bytes of a digest `git:hex`."""
    return None if name is None else bytes.fromhex(name.removeprefix("git:"))


@dataclass(kw_only=True, slots=True)
class _Draft:
    """A folder that gets a stand-in, while it is found out what belongs to it."""

    original: bytes
    place: bytes
    entries: dict[bytes, Entry] = field(default_factory=dict)
    contents: dict[bytes, bytes] = field(default_factory=dict)
    """Of imported modules, by path."""

    def part(self) -> Part:
        return Part(self.original, self.place, [self.entries[path] for path in sorted(self.entries)])

    def add(self, path: Path) -> None:
        """A module as it is now, unless the tree has it."""
        inside = os.fsencode(path)[len(self.original.rstrip(b"/")) + 1 :]
        if self._in_tree(inside):
            return
        try:
            content = path.read_bytes()
            mode = EXECUTABLE if path.stat().st_mode & 0o100 else FILE
        except OSError:
            return  # it is gone, or lies in an archive: a worker that imports it says so
        self.contents[inside] = content
        self.entries[inside] = Entry(inside, mode, blob_id(content), in_tree=False, written=True)

    def _in_tree(self, inside: bytes) -> bool:
        """Under this path or, behind a link, another one: through the link, it would be the original we write."""
        parts = inside.split(b"/")
        above = (self.entries.get(b"/".join(parts[:n])) for n in range(1, len(parts) + 1))
        return any(entry is not None and entry.mode != GITLINK for entry in above)


@dataclass(kw_only=True, slots=True)
class _Project:
    """What there is to check out."""

    root: Path | None
    odb: pygit2.Odb | None = None
    drafts: list[_Draft] = field(default_factory=list)
    hooked: list[str] = field(default_factory=list)
    packages: list[str] = field(default_factory=list)
    omissions: list[Omission] = field(default_factory=list)


def _look(source: Source, root: Path | None) -> _Project:
    project = _Project(root=root)
    if root is not None:
        draft = _Draft(original=os.fsencode(root), place=os.fsencode(root.name) or b"root")
        project.drafts.append(draft)
        if (tree := _bytes_of(source.tree)) is not None:
            _read_tree(project, draft, tree)
    searched = {os.path.abspath(entry) for entry in sys.path}
    for name, path in program.project_modules(root).items():
        inside = root is not None and path.is_relative_to(root)
        if not inside and name.partition(".")[0] == OURSELVES:
            continue  # installed on every machine
        folder = str(path.parent) if name == "__main__" else modules.import_folder(name, str(path))
        _draft_for(project, folder, inside).add(path)
        if name != "__main__":
            project.packages.append(name.partition(".")[0])
            if folder not in searched:
                project.hooked.append(folder)
    return project


def _draft_for(project: _Project, folder: str, inside: bool) -> _Draft:
    """The stand-in that a module belongs to; one for the folder it was imported from is made if need be."""
    original = os.fsencode(folder)
    known = {draft.original: draft for draft in project.drafts}
    holds_root = project.root is not None and folder == str(project.root.parent)
    if original not in known and (holds_root or not inside):
        # the repository itself as a package: the checkout's own folder holds its stand-in under its name
        place = b"" if holds_root else os.fsencode(f"{_OUTSIDE}/{len(project.drafts)}/{Path(folder).name}")
        known[original] = _Draft(original=original, place=place)
        project.drafts.append(known[original])
    return project.drafts[0] if inside else known[original]


def _read_tree(project: _Project, draft: _Draft, tree: bytes) -> None:
    from ..snapshot.opened import opened

    here = opened(Path(os.fsdecode(draft.original)))
    project.odb = here.odb
    found = list(_files(here.odb, tree))
    paths = [path for path, _, _ in found]
    converts = any(here.attributes()) or any(path.endswith(b".gitattributes") for path in paths)
    filtered = here.filtered(paths) if converts else set()
    left: dict[str, list[bytes]] = {why: [] for why in (_IS_ORIGINAL, _IS_SUBMODULE, _IS_NOWHERE)}
    for path, mode, id in found:
        original = os.path.join(draft.original, path)
        why = None
        if mode == GITLINK:
            why = _IS_SUBMODULE
        elif not os.path.lexists(original):
            why = None if has(here.odb, id) else _IS_NOWHERE
        elif mode != LINK and (path in filtered or _is_large(original)):
            why = _IS_ORIGINAL
        elif not has(here.odb, id):
            raise LedgerError(
                f"the repository {os.fsdecode(draft.original)!r} lacks object {id.hex()} ({os.fsdecode(path)!r})",
                hint="the repository is damaged; `git fsck` lists what is missing",
            )
        if why is not None:
            left[why].append(path)
        written = why is None and b"__pycache__" not in path.split(b"/")
        if written and mode == LINK:
            written = not _leaves(path, here.odb.read(_oid(id))[1])
        draft.entries[path] = Entry(path, mode, id, in_tree=True, written=written)
    for why, paths in left.items():
        _omit(project, paths, why)


def _omit(project: _Project, paths: list[bytes], why: str) -> None:
    if paths:
        shown = ", ".join(path.decode("utf-8", "backslashreplace") for path in paths[:_SHOWN])
        more = f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else ""
        project.omissions.append(Omission(what=f"submitted code: {shown}{more}", why=why))


def _files(odb: pygit2.Odb, tree: bytes, above: bytes = b"") -> Iterator[tuple[bytes, int, bytes]]:
    """Path, mode and id of all that a tree holds, folders aside."""
    for name, (mode, id) in entries(odb, tree).items():
        if name.lower() in (b"", b".", b"..", b".git") or b"/" in name:
            raise LedgerError(
                f"tree {tree.hex()} holds a file {os.fsdecode(name)!r}, as git would never write it"
            )
        if mode == TREE:
            yield from _files(odb, id, above + name + b"/")
        else:
            yield above + name, mode, id


def _is_large(original: bytes) -> bool:
    return os.lstat(original).st_size > LARGE and not original.endswith(_CODE)


def _leaves(path: bytes, points_to: bytes) -> bool:
    """Whether a relative link leads out of the repository, and so elsewhere from another place."""
    return os.path.normpath(os.path.join(os.path.dirname(path), points_to)).startswith(b"..")


def _described(project: _Project, tree: str | None, folder: Path) -> Code:
    stand_ins = sorted(
        (
            (os.fsdecode(draft.original), os.path.normpath(folder / os.fsdecode(draft.place)))
            for draft in project.drafts
        ),
        key=lambda pair: -len(pair[0]),
    )
    code = Code(
        folder=str(folder),
        tree=tree,
        root=None if project.root is None else str(project.root),
        stand_ins=tuple(stand_ins),
        packages=tuple(sorted(set(project.packages) - {OURSELVES})),
        omissions=tuple(project.omissions),
    )
    hooked = tuple(dict.fromkeys(map(code.there, project.hooked)))
    path = tuple(dict.fromkeys([*map(code.there, sys.path), *hooked]))
    prefixes = {sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix}
    python = frozenset(
        entry for entry in path if any(entry.startswith(prefix + os.sep) for prefix in prefixes)
    )
    if _ourselves(project.root) is not None:
        path = (str(folder / _SELF), *path)
    return replace(code, path=path, python=python, hooked=hooked)


def _ourselves(root: Path | None) -> Path | None:
    """This package, if the project is its own repository: all processes of a worker shall have the same one."""
    package = Path(__file__).parents[1]
    return package if root is not None and package.is_relative_to(root) else None


def _is_whole(code: Code) -> bool:
    try:
        verify(code)
    except LedgerError:
        return False
    return True


def _make(project: _Project, manifest: bytes, code: Code) -> None:
    folder = Path(code.folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    stage = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.tmp")
    try:
        for draft in project.drafts:
            _write(draft, os.path.join(os.fsencode(stage), draft.place), project.odb)
        if (ourselves := _ourselves(project.root)) is not None:
            (stage / _SELF).mkdir()
            (stage / _SELF / OURSELVES).symlink_to(ourselves)
        stage.mkdir(exist_ok=True)  # also if there was nothing to write
        (stage / MANIFEST).write_bytes(manifest)
        _put_in_place(stage, code)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _put_in_place(stage: Path, code: Code) -> None:
    """Another process may have put the same there, and use it; one that was edited has to make room."""
    edited = stage.with_suffix(".old")
    try:
        stage.rename(code.folder)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        if not _is_whole(code):
            Path(code.folder).rename(edited)
            stage.rename(code.folder)
    finally:
        shutil.rmtree(edited, ignore_errors=True)


def _write(draft: _Draft, folder: bytes, odb: pygit2.Odb | None) -> None:
    made: set[bytes] = set()
    os.makedirs(folder, exist_ok=True)
    for path in sorted(draft.entries):
        entry = draft.entries[path]
        above = os.path.dirname(path)
        if entry.written and above not in made:
            os.makedirs(os.path.join(folder, above), exist_ok=True)
            made.add(above)
        if entry.written:
            content = odb.read(_oid(entry.id))[1] if odb and entry.in_tree else draft.contents[path]
            _write_file(os.path.join(folder, path), entry.mode, content)


def _write_file(path: bytes, mode: int, content: bytes) -> None:
    if mode == LINK:
        os.symlink(content, path)
        return
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(path, flags, 0o777 if mode == EXECUTABLE else 0o666), "wb", buffering=0) as file:
        file.write(content)


def _link_rest(original: bytes, stand_in: bytes) -> None:
    """What is not written out, now or since the last map of the run, is where it always was."""
    try:
        lying = list(os.scandir(original))
    except OSError:
        return  # removed meanwhile, or closed to us
    with os.scandir(stand_in) as found:
        here = {entry.name: entry.is_dir(follow_symlinks=False) for entry in found}
    for entry in lying:
        path = os.path.join(stand_in, entry.name)
        if entry.name not in here:
            if entry.name not in _NEVER_LINKED:
                with contextlib.suppress(FileExistsError):
                    os.symlink(entry.path, path)
        elif here[entry.name] and entry.is_dir(follow_symlinks=False):
            _link_rest(entry.path, path)


def _oid(id: bytes) -> pygit2.Oid:
    import pygit2

    return pygit2.Oid(raw=id)


def _git_error() -> type[Exception]:
    import pygit2

    return pygit2.GitError
