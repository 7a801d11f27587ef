"""Which code does a worker on another machine import? The submitted one, whatever was edited since.

`checkout.checkout` makes a folder that stands in for the repository: the files of the snapshot's tree, and links
to whatever else lies there (ignored data, large files), so that `Path(__file__).parent / "data"` leads where it
always did. Here is what the worker does with it. Nothing of git is needed for that: a file's blob id is
recomputed from its bytes, and the tree's id from those.

A function of the program itself travels by value, and its `__file__` with it: what it reads beside that is the
original, as is what it opens relative to the current folder.
"""

from __future__ import annotations

import importlib
import os
import stat
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

import msgspec

from ..capture import program
from ..capture.modules import is_installed
from ..errors import LedgerError
from ..model import Omission
from ..snapshot.trees import EXECUTABLE, LINK, TREE, blob_id, object_id, tree_bytes

OURSELVES = __name__.partition(".")[0]
MANIFEST = ".manifest"
_AGAIN = "end the run and resume it by Run(cfg, resume=...), which submits the code again"


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """A file of the checkout, or of the tree."""

    path: bytes
    """Relative to its part, as the file system names it."""
    mode: int
    id: bytes
    """Of the git blob."""
    in_tree: bool
    """Else it is a module that was imported, but that the snapshot leaves out: a compiled one, for example."""
    written: bool
    """Else a link leads to the original."""


class Part(msgspec.Struct, frozen=True):
    """A folder that the checkout stands in for: the repository first, then others that modules came from."""

    original: bytes
    place: bytes
    """Of the stand-in, relative to the checkout."""
    entries: list[Entry]


class Manifest(msgspec.Struct, frozen=True):
    """What a checkout consists of; links to originals aside."""

    tree: bytes | None
    parts: list[Part]


@dataclass(frozen=True, kw_only=True, slots=True)
class Code:
    """Where the submitted code lies, and how it is imported: plain values, that travel."""

    folder: str
    """The checkout."""
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
    _hand_on(code, [*changed, *code.hooked])
    _put_hooks_last(code)
    importlib.invalidate_caches()


def strangers(code: Code) -> list[str]:
    """Names of the project's modules that this process has imported from elsewhere than the submitted code.

    A module that git ignores and that was not imported at submission, for example, or one whose folder the
    program put into `sys.path` itself.
    """
    folder = os.path.realpath(code.folder)
    modules = program.project_modules(None if code.root is None else Path(code.root))
    return [
        name
        for name, path in modules.items()
        if name.partition(".")[0] not in (OURSELVES, "__main__")
        and not _within(os.path.realpath(path), folder)
    ]


def verify(code: Code) -> None:
    """Read every file of the checkout, and compare: are they the tree that the lock names?

    Raises
    ------
    LedgerError: it is gone, or a file was edited.
    """
    manifest = _manifest(code)
    for part in manifest.parts:
        folder = os.path.join(os.fsencode(code.folder), part.place, b"")
        for entry in part.entries:
            if entry.written and (why := _differs(folder + entry.path, entry)):
                raise LedgerError(
                    f"the submitted code {os.fsdecode(folder + entry.path)!r} {why} after it was submitted",
                    hint=_AGAIN,
                )


def tree_id(entries: Iterable[Entry]) -> bytes:
    """The id git gives to a tree of these files."""
    top: dict[bytes, Any] = {}
    for entry in entries:
        *above, name = entry.path.split(b"/")
        folder = top
        for part in above:
            folder = folder.setdefault(part, {})
        folder[name] = (entry.mode, entry.id)
    return _folder_id(top)


def _folder_id(folder: dict[bytes, Any]) -> bytes:
    known = {
        name: (TREE, _folder_id(below)) if isinstance(below, dict) else below
        for name, below in folder.items()
    }
    return object_id(b"tree", tree_bytes(known))


def _manifest(code: Code) -> Manifest:
    file = os.path.join(code.folder, MANIFEST)
    try:
        raw = Path(file).read_bytes()
        manifest = msgspec.msgpack.decode(raw, type=Manifest)
    except (OSError, msgspec.MsgspecError) as error:
        raise LedgerError(f"the submitted code {file!r} cannot be read: {error}", hint=_AGAIN) from error
    files = [entry for part in manifest.parts for entry in part.entries if entry.in_tree]
    if code.tree is not None and f"git:{tree_id(files).hex()}" != code.tree:
        raise LedgerError(
            f"the submitted code in {code.folder!r} does not match tree {code.tree}", hint=_AGAIN
        )
    return manifest


def _differs(path: bytes, entry: Entry) -> str:
    try:
        found = os.lstat(path)
        if entry.mode == LINK:
            return "" if blob_id(os.readlink(path)) == entry.id else "was edited"
        if not stat.S_ISREG(found.st_mode) or (entry.mode == EXECUTABLE) != bool(found.st_mode & 0o100):
            return "was replaced"
        with open(path, "rb", buffering=0) as file:
            return "" if blob_id(file.read()) == entry.id else "was edited"
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def _hand_on(code: Code, entries: list[str]) -> None:
    """Children that are told nothing else look there, before they look into an editable install's folder."""
    inherited = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    told = dict.fromkeys((*entries, *map(code.there, inherited)))
    if told:
        os.environ["PYTHONPATH"] = os.pathsep.join(told)


def _put_hooks_last(code: Code) -> None:
    """Hooks of editable installs that would lead to the work tree before the search path is looked at."""
    for finder in list(sys.meta_path):
        if finder is not PathFinder and any(_leads_away(finder, name, code) for name in code.packages):
            sys.meta_path.remove(finder)
            sys.meta_path.append(finder)


def _leads_away(finder: Any, name: str, code: Code) -> bool:
    try:
        found = finder.find_spec(name, None)
    except Exception:
        return False  # whatever a stranger's hook dislikes
    return found is not None and any(
        _within(os.path.realpath(place), os.path.realpath(original)) and not _within(place, code.folder)
        for place in _places(found)
        for original, _ in code.stand_ins
    )


def _places(spec: Any) -> Iterator[str]:
    if isinstance(spec.origin, str):
        yield spec.origin
    yield from (str(place) for place in spec.submodule_search_locations or ())


def _within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def _is_installed(path: str) -> bool:
    return is_installed(path + os.sep)
