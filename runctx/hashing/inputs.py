"""Find the inputs of a run, and describe what they were."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from ..errors import InputError
from ..model import Data, Kind, Omission, Strength
from .contents import Outcome
from .walk import is_magic, oddity, split_pattern, walk

MAX_NAMES = 5_000
"""Neighbours looked at for a hint when an input is missing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Hashed:
    """What one input was."""

    data: Data
    """Path as given, kind, digest, bytes, files, strength. A folder of which a file could not be read is `stat`:
    its digest speaks for the files in the manifest only."""
    manifest: bytes | None
    """The digests of all files, as `b3sum` writes them, for folders and globs."""
    omissions: tuple[Omission, ...]
    """Unreadable files, FIFOs, devices, sockets, link loops, broken links."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Input:
    """An input that was there when the run began."""

    given: str
    """As the user wrote it."""
    kind: Kind
    path: bytes
    """The file or folder; for a glob the folder it starts in."""
    pattern: bytes = b""
    """The rest of a glob."""
    size: int = 0
    """Bytes of a file; 0 for what must be walked."""
    oddity: str | None = None
    """What it is, if neither file nor folder: then it is never opened."""

    def hashed(self, outcome: Outcome) -> Hashed:
        """Describe it, once its files were read."""
        return Hashed(
            data=Data(
                path=_printable(self.given),
                kind=self.kind,
                digest=outcome.digest and f"blake3:{outcome.digest}",
                bytes=outcome.bytes,
                files=outcome.files,
                strength=cast(Strength, outcome.strength),
            ),
            manifest=None if outcome.manifest is None else outcome.manifest.encode(),
            omissions=tuple(Omission(what=self._place(below), why=why) for below, why in outcome.gaps),
        )

    def skipped(self, why: str) -> Hashed:
        """Describe it, if they were not."""
        data = Data(path=_printable(self.given), kind=self.kind, bytes=self.size, files=0, strength="skipped")
        return Hashed(data=data, manifest=None, omissions=(Omission(what=data.path, why=self.oddity or why),))

    def _place(self, below: str) -> str:
        if self.kind == "file" or not below:
            return _printable(self.given)
        root = self.given
        if self.kind == "glob":
            root = os.fsdecode(split_pattern(os.fsencode(root))[0])
        return f"{_printable(root).rstrip('/')}/{below}"


def locate(given: str, base: Path) -> Input:
    """Find an input, without reading it.

    Raises
    ------
    InputError: it is missing; a glob without matches is, too.
    """
    if not given:  # a path nobody set, not the whole current folder
        raise InputError("an input is an empty path", hint="'.' is the current folder")
    try:
        path = os.fsencode(os.path.join(base, given))
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        if is_magic(path):
            return _locate_glob(given, path)
        raise _missing(given, base, path) from None
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read input {given!r}: {error} (relative to {base})") from error
    if stat.S_ISDIR(status.st_mode):
        return Input(given=given, kind="folder", path=path)
    odd = oddity(status.st_mode)
    return Input(given=given, kind="file", path=path, size=0 if odd else status.st_size, oddity=odd)


def _locate_glob(given: str, path: bytes) -> Input:
    root, pattern = split_pattern(path)
    if b".." in pattern.split(b"/"):
        raise InputError(
            f"input {given!r}: `..` after a wildcard is not supported", hint="write the folder without `..`"
        )
    if next(walk("glob", root, pattern), None) is None:
        raise InputError(
            f"input {given!r} matches nothing (from {os.fsdecode(root)})",
            hint="`*` matches within one folder, `**` any number of them; hidden names need a leading dot",
        )
    return Input(given=given, kind="glob", path=root, pattern=pattern)


def _missing(given: str, base: Path, path: bytes) -> InputError:
    import difflib
    import itertools

    if os.path.islink(path):
        return InputError(f"input {given!r} is a broken link, to {os.fsdecode(os.readlink(path))!r}")
    folder, name = os.path.split(os.fsdecode(path).rstrip("/"))
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in itertools.islice(entries, MAX_NAMES)]
    except OSError:
        return InputError(
            f"input {given!r} does not exist (from {base})", hint=f"there is no folder {folder!r} either"
        )
    near = difflib.get_close_matches(name, names, n=3)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"relative inputs start at {base}"
    return InputError(f"input {given!r} does not exist (from {base})", hint=hint)


def _printable(text: str) -> str:
    """Without the surrogates that stand for bytes, which no UTF-8 file can hold."""
    return os.fsencode(text).decode("utf-8", "backslashreplace")
