"""Let jobs import the code as it was submitted: check the snapshot out, once, and put it in front of the search path.

For each folder of the project there is one that stands in for it. Code is written out: the files of the snapshot's
tree, and imported modules that it leaves out (compiled ones, a generated `_version.py`, those of a submodule or from
outside the repository). All else that lies there is a link to the original: ignored data, secrets, submodules; and of
what is tracked, large files and those that git stores through a filter (LFS, git-crypt), of which the repository may
hold no more than a pointer. So `Path(__file__).parent / "data"` leads where it always did. Line endings are as git
stores them. What a program opens relative to the current folder is the original.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import importlib
import os
import secrets
import shutil
import stat
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.machinery import PathFinder, all_suffixes
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ..capture import modules, program
from ..errors import LedgerError
from ..model import Omission, Source

if TYPE_CHECKING:
    import pygit2

LARGE = 10_000_000
"""Bytes; a larger tracked file, unless it is code, is not written out again for each run."""
MANIFEST = ".manifest"
OURSELVES = __name__.partition(".")[0]

_TREE, _LINK, _GITLINK, _FILE, _EXECUTABLE = 0o040000, 0o120000, 0o160000, 0o100644, 0o100755
"""Git's modes."""
_SELF, _OUTSIDE = ".self", ".outside"
_AGAIN = "end the run and resume it by Run(cfg, resume=...), which submits the code again"
_ORIGINAL = "the file is large or passes a git filter; workers read the original"
_SUBMODULE = "a submodule: workers use the modules imported at submission, and the original of all others"
_NOWHERE = "neither the repository (a partial clone?) nor the work tree has it"


class Manifest(msgspec.Struct, frozen=True):
    """The files that were written out."""

    tree: str | None
    files: list[tuple[bytes, int, bytes]]
    """Path below the checkout, git's mode, and id of the git blob."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Code:
    """Where the submitted code lies, and how it is imported: plain values, that travel."""

    folder: str
    """The checkout."""
    manifest: str
    """Digest of its manifest."""
    tree: str | None
    """`git:hex`, as the lock names it; None outside a repository."""
    root: str | None
    """The repository."""
    stand_ins: tuple[tuple[str, str], ...]
    """Each folder of the project, and the one of the checkout that stands in for it."""
    path: tuple[str, ...] = ()
    """The parent's search path, with stand-ins."""
    python: frozenset[str] = frozenset()
    """Those of its entries that belong to the parent's Python: no use to another one, as in a container."""
    hooked: tuple[str, ...] = ()
    """Those that only a finder hook knew of, as an editable install leaves it."""
    packages: tuple[str, ...] = ()
    """Top-level names of the project's modules that the parent had imported."""
    omissions: tuple[Omission, ...] = ()
    """What workers see as it is, not as it was."""

    def there(self, path: str) -> str:
        """What stands in for a path of the search path; itself, if it is not one of the project's."""
        path = path or os.getcwd()
        if not os.path.isabs(path) and not os.path.exists(path):
            return path  # a token of a finder hook
        for candidate in (os.path.abspath(path), os.path.realpath(path)):
            if _within(candidate, self.folder):
                return candidate
            for original, stand_in in self.stand_ins:
                if candidate == original or (
                    original == self.root
                    and _within(candidate, original)
                    and (_is_installed(original) or not _is_installed(candidate))
                ):
                    return stand_in + candidate[len(original) :]
        return path

    def original(self, path: str) -> str:
        """What a file of the checkout stands in for; itself, if it is none."""
        real = os.path.realpath(path)
        for original, stand_in in self.stand_ins:
            place = os.path.realpath(stand_in)
            if _within(real, place):
                return original + real[len(place) :]
        return path


# -- making it -------------------------------------------------------------------------------------------------------


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
    import pygit2

    try:
        files = _Files(root, source.tree)
        manifest = msgspec.msgpack.encode(Manifest(source.tree, sorted(files.entries())))
        digest = hashlib.sha256(manifest).hexdigest()
        code = files.described(Path(os.path.abspath(target)) / digest[:12], digest)
        if not _is_whole(code):
            _make(files, manifest, code)
        for original, stand_in in code.stand_ins:
            _link_rest(os.fsencode(original), os.fsencode(stand_in))
    except LedgerError:
        raise
    except (OSError, KeyError, pygit2.GitError) as error:
        raise LedgerError(
            f"cannot check out the submitted code below {str(target)!r}: {error}",
            hint="check the free disk space, and the repository by `git fsck`",
        ) from error
    return code


class _Files:
    """What there is to check out.

    Parameters
    ----------
    root, tree: the work tree, and the snapshot's tree, `git:hex`.
    """

    def __init__(self, root: Path | None, tree: str | None) -> None:
        self.root, self.tree = root, tree
        self.places: dict[str, str] = {}
        """Folder of the project -> the one that stands in for it, relative to the checkout."""
        self.odb: pygit2.Odb | None = None
        self.blobs: dict[bytes, tuple[int, bytes]] = {}
        """Path below the checkout -> mode and blob id, of what the tree holds and is written out."""
        self.modules: dict[bytes, tuple[int, bytes]] = {}
        """Path below the checkout -> mode and content, of imported modules that the tree leaves out."""
        self.omissions: list[Omission] = []
        self._tracked: dict[bytes, int] = {}
        self._hooked: list[str] = []
        self._packages: set[str] = set()
        if root is not None:
            self.places[str(root)] = root.name or "root"
            if tree is not None:
                self._read_tree(root, bytes.fromhex(tree.removeprefix("git:")))
        self._read_modules()

    def entries(self) -> Iterator[tuple[bytes, int, bytes]]:
        """Path below the checkout, mode and blob id of all that is written out."""
        for path, (mode, id) in self.blobs.items():
            yield path, mode, id
        for path, (mode, content) in self.modules.items():
            yield path, mode, _blob_id(content)

    def _read_tree(self, root: Path, tree: bytes) -> None:
        import pygit2

        from ..snapshot.repository import opened

        here = opened(root)
        self.odb = here.odb
        found = list(_walk(here.repo, pygit2.Oid(raw=tree)))
        paths = [path for path, _, _ in found]
        converts = any(here.attributes()) or any(path.endswith(b".gitattributes") for path in paths)
        filtered = here.filtered(paths) if converts else set()
        left: dict[str, list[bytes]] = {_ORIGINAL: [], _SUBMODULE: [], _NOWHERE: []}
        for path, mode, id in found:
            self._tracked[path] = mode
            original = os.path.join(os.fsencode(root), path)
            if mode == _GITLINK:
                left[_SUBMODULE].append(path)
            elif os.path.lexists(original) and mode != _LINK and (path in filtered or _is_large(original)):
                left[_ORIGINAL].append(path)
            elif not here.odb.exists(id):
                if os.path.lexists(original):
                    raise LedgerError(
                        f"the repository {str(root)!r} lacks object {id} ({os.fsdecode(path)!r})",
                        hint="the repository is damaged; `git fsck` lists what is missing",
                    )
                left[_NOWHERE].append(path)
            elif b"__pycache__" not in path.split(b"/") and not (
                mode == _LINK and _leaves(path, here.odb.read(id)[1])
            ):
                self.blobs[os.path.join(os.fsencode(self.places[str(root)]), path)] = mode, id.raw
        for why, omitted in left.items():
            if omitted:
                shown = ", ".join(path.decode("utf-8", "backslashreplace") for path in omitted[:3])
                more = f" and {len(omitted) - 3} more" if len(omitted) > 3 else ""
                self.omissions.append(Omission(what=f"submitted code: {shown}{more}", why=why))

    def _read_modules(self) -> None:
        searched = {os.path.abspath(entry) for entry in sys.path}
        for name, path in program.project_modules(self.root).items():
            top, inside = name.partition(".")[0], self.root is not None and path.is_relative_to(self.root)
            if not inside and top == OURSELVES:
                continue  # installed on every machine
            folder = str(path.parent) if name == "__main__" else modules.import_folder(name, str(path))
            holds_root = self.root is not None and folder == str(self.root.parent)
            if folder not in self.places and (holds_root or not inside):
                # the repository itself as a package: the checkout's own folder holds its stand-in under its name
                self.places[folder] = (
                    "" if holds_root else f"{_OUTSIDE}/{len(self.places)}/{Path(folder).name}"
                )
            self._add_module(path, str(self.root) if inside else folder)
            if name != "__main__":
                self._packages.add(top)
                if folder not in searched:
                    self._hooked.append(folder)

    def _add_module(self, path: Path, folder: str) -> None:
        """A module as it is now, unless the tree has it."""
        inside = os.fsencode(os.path.relpath(path, folder))
        if folder == str(self.root):  # under this path or, behind a link, another one
            parts = inside.split(b"/")
            above = (self._tracked.get(b"/".join(parts[:n]), _GITLINK) for n in range(1, len(parts) + 1))
            if any(mode != _GITLINK for mode in above):
                return
        try:
            mode = _EXECUTABLE if path.stat().st_mode & 0o100 else _FILE
            self.modules[os.path.join(os.fsencode(self.places[folder]), inside)] = mode, path.read_bytes()
        except OSError:
            pass  # it is gone, or lies in an archive: a worker that imports it says so

    def described(self, folder: Path, manifest: str) -> Code:
        code = Code(
            folder=str(folder),
            manifest=manifest,
            tree=self.tree,
            root=None if self.root is None else str(self.root),
            stand_ins=tuple(
                (original, os.path.normpath(folder / place))
                for original, place in sorted(self.places.items(), key=lambda pair: -len(pair[0]))
            ),
            packages=tuple(sorted(self._packages - {OURSELVES})),
            omissions=tuple(self.omissions),
        )
        hooked = tuple(dict.fromkeys(map(code.there, self._hooked)))
        path = tuple(dict.fromkeys([*map(code.there, sys.path), *hooked]))
        prefixes = {sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix}
        python = frozenset(entry for entry in path if any(entry.startswith(p + os.sep) for p in prefixes))
        if _ourselves(self.root) is not None:
            path = (str(folder / _SELF), *path)
        return replace(code, path=path, python=python, hooked=hooked)


def _walk(repo: Any, tree: Any, above: bytes = b"") -> Iterator[tuple[bytes, int, Any]]:
    """Path, mode and id of all that a tree holds, folders aside."""
    for entry in repo[tree]:
        name = entry.raw_name
        if name.lower() in (b"", b".", b"..", b".git") or b"/" in name:
            raise LedgerError(f"tree {tree} holds a file {os.fsdecode(name)!r}, as git would never write it")
        if entry.filemode == _TREE:
            yield from _walk(repo, entry.id, above + name + b"/")
        else:
            yield above + name, int(entry.filemode), entry.id


def _is_large(original: bytes) -> bool:
    code = tuple(os.fsencode(suffix) for suffix in all_suffixes())
    return os.lstat(original).st_size > LARGE and not original.endswith(code)


def _leaves(path: bytes, points_to: bytes) -> bool:
    """True if a relative link leads out of the repository, and so elsewhere from another place."""
    return os.path.normpath(os.path.join(os.path.dirname(path), points_to)).startswith(b"..")


def _ourselves(root: Path | None) -> Path | None:
    """This package, if the project is its own repository: all processes of a worker shall have the same one."""
    package = Path(__file__).parents[1]
    return package if root is not None and package.is_relative_to(root) else None


def _make(files: _Files, manifest: bytes, code: Code) -> None:
    import pygit2

    folder = Path(code.folder)
    stage = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.tmp")
    try:
        for place in files.places.values():
            (stage / place).mkdir(parents=True, exist_ok=True)
        stage.mkdir(parents=True, exist_ok=True)
        for path, (mode, id) in files.blobs.items():
            assert files.odb is not None
            _write_file(os.path.join(os.fsencode(stage), path), mode, files.odb.read(pygit2.Oid(raw=id))[1])
        for path, (mode, content) in files.modules.items():
            _write_file(os.path.join(os.fsencode(stage), path), mode, content)
        if (ourselves := _ourselves(files.root)) is not None:
            (stage / _SELF).mkdir()
            (stage / _SELF / OURSELVES).symlink_to(ourselves)
        (stage / MANIFEST).write_bytes(manifest)
        try:
            stage.rename(folder)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            # another process may have put the same there, and use it; one that was edited has to make room
            if not _is_whole(code):
                edited = stage.with_suffix(".old")
                folder.rename(edited)
                stage.rename(folder)
                shutil.rmtree(edited, ignore_errors=True)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _write_file(path: bytes, mode: int, content: bytes) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if mode == _LINK:
        os.symlink(content, path)
        return
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(path, flags, 0o777 if mode == _EXECUTABLE else 0o666), "wb", buffering=0) as file:
        file.write(content)


def _link_rest(original: bytes, stand_in: bytes) -> None:
    """Link what is not written out, now or since the last map of the run, to where it always was."""
    try:
        lying = list(os.scandir(original))
    except OSError:
        return  # removed meanwhile, or closed to us
    with os.scandir(stand_in) as found:
        here = {entry.name: entry.is_dir(follow_symlinks=False) for entry in found}
    for entry in lying:
        path = os.path.join(stand_in, entry.name)
        if entry.name not in here:
            if entry.name not in (b".git", b"__pycache__"):
                with contextlib.suppress(FileExistsError):
                    os.symlink(entry.path, path)
        elif here[entry.name] and entry.is_dir(follow_symlinks=False):
            _link_rest(entry.path, path)


# -- using it --------------------------------------------------------------------------------------------------------


def use(code: Code, *, verified: bool = False) -> None:
    """From now on, this process and those it starts import the submitted code.

    To be called before anything of the project is imported. A child that is started with a search path of
    its own (`python -m` in the work tree, `python tools/clean.py`) finds there what it is told to look for.

    Parameters
    ----------
    verified: another process of this machine has just done so; then nothing is read.

    Raises
    ------
    LedgerError: the checkout is gone, or a file of it was edited.
    """
    if not verified:
        verify(code)
    before = list(sys.path)
    own = [code.there(entry) for entry in before]
    wanted = [entry for entry in code.path if entry not in code.python or entry in own]
    sys.path[:] = dict.fromkeys((*wanted, *own))
    # the first entry is the program's folder, or the current one: a child has its own
    first = 0 if sys.flags.safe_path else 1
    changed = [entry for entry, old in zip(own[first:], before[first:], strict=True) if entry != old]
    # children that are told nothing else look there, before they look into an editable install's folder
    inherited = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    if handed_on := dict.fromkeys((*changed, *code.hooked, *map(code.there, inherited))):
        os.environ["PYTHONPATH"] = os.pathsep.join(handed_on)
    # hooks of editable installs would lead to the work tree before the search path is looked at
    for finder in list(sys.meta_path):
        if finder is not PathFinder and any(_leads_away(finder, name, code) for name in code.packages):
            sys.meta_path.remove(finder)
            sys.meta_path.append(finder)
    importlib.invalidate_caches()


def verify(code: Code) -> None:
    """Read every file of the checkout, and compare it with what was submitted.

    Raises
    ------
    LedgerError: it is gone, or a file was edited.
    """
    place = os.path.join(code.folder, MANIFEST)
    try:
        raw = Path(place).read_bytes()
        manifest = msgspec.msgpack.decode(raw, type=Manifest)
    except (OSError, msgspec.MsgspecError) as error:
        raise LedgerError(f"the submitted code {place!r} cannot be read: {error}", hint=_AGAIN) from error
    if hashlib.sha256(raw).hexdigest() != code.manifest:
        raise LedgerError(
            f"the submitted code in {code.folder!r} does not match tree {code.tree}", hint=_AGAIN
        )
    for inside, mode, id in manifest.files:
        path = os.path.join(os.fsencode(code.folder), inside)
        if why := _differs(path, mode, id):
            raise LedgerError(
                f"the submitted code {os.fsdecode(path)!r} {why} after it was submitted", hint=_AGAIN
            )


def _is_whole(code: Code) -> bool:
    try:
        verify(code)
    except LedgerError:
        return False
    return True


def _differs(path: bytes, mode: int, id: bytes) -> str:
    try:
        found = os.lstat(path)
        if mode == _LINK:
            return "" if _blob_id(os.readlink(path)) == id else "was edited"
        if not stat.S_ISREG(found.st_mode) or (mode == _EXECUTABLE) != bool(found.st_mode & 0o100):
            return "was replaced"
        with open(path, "rb", buffering=0) as file:
            return "" if _blob_id(file.read()) == id else "was edited"
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def _blob_id(content: bytes) -> bytes:
    """The id git gives to a file of that content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).digest()


def _leads_away(finder: Any, name: str, code: Code) -> bool:
    try:
        found = finder.find_spec(name, None)
    except Exception:
        return False  # whatever a stranger's hook dislikes
    if found is None:
        return False
    places: Sequence[str] = [str(place) for place in found.submodule_search_locations or ()]
    if isinstance(found.origin, str):
        places = [found.origin, *places]
    return any(
        _within(os.path.realpath(place), os.path.realpath(original)) and not _within(place, code.folder)
        for place in places
        for original, _ in code.stand_ins
    )


def _within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def _is_installed(path: str) -> bool:
    return modules.is_installed(path + os.sep)
