"""What exactly was the data?

Digests of files, folders and globs by blake3, in the foreground or while the run goes on.

The modules `tree`, `content`, `manifest`, `cache`, `outcome`, `crew` and `worker` also live in the worker
process, a bare interpreter: they import each other, the standard library and blake3, nothing else. `inputs`
and `background` are the run's side.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError

if TYPE_CHECKING:
    from .background import Hashing
    from .inputs import Hashed
    from .manifest import read_manifest, write_manifest

__all__ = ["Hashed", "Hashing", "digest_file", "hash_data", "read_manifest", "write_manifest"]

_HOME = {
    "Hashed": "inputs",
    "Hashing": "background",
    "read_manifest": "manifest",
    "write_manifest": "manifest",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)


def digest_file(path: str | os.PathLike[str]) -> str:
    """The digest of a file's bytes, `blake3:hex`, read here and now.

    Raises
    ------
    InputError: it is missing, no regular file, unreadable, or changing while it is read.

    >>> import tempfile
    >>> empty = Path(tempfile.mkdtemp()) / "empty"
    >>> empty.touch()
    >>> digest_file(empty)
    'blake3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262'
    """
    from .content import digest_at

    try:
        return "blake3:" + digest_at(os.fsencode(path)).hex()
    except OSError as error:
        raise InputError(f"{os.fspath(path)!r} cannot be hashed: {error.strerror}") from error


def hash_data(path: str | os.PathLike[str], *, base: Path, cache: Path | None) -> Hashed:
    """What a file, folder or glob holds, found out here and now.

    A file's digest is that of its bytes. A folder's or glob's is that of its manifest, so it depends on the
    names and contents of the files and on nothing else: not on times, owners, the order of creation, the
    place, or empty folders.

    Parameters
    ----------
    path: a relative one starts at `base`.
    cache: folder of the hash cache; None for none.

    Raises
    ------
    InputError: it is missing, or a glob matches nothing.

    >>> import tempfile
    >>> base = Path(tempfile.mkdtemp())
    >>> for name in "ab":
    ...     _ = (base / f"{name}.txt").write_text(name)
    >>> hashed = hash_data("*.txt", base=base, cache=None)
    >>> hashed.data.kind, hashed.data.files, hashed.data.bytes
    ('glob', 2, 2)
    """
    from .background import Hashing

    hashing = Hashing([os.fspath(path)], base=base, cache=cache, low_priority=False)
    (hashed,) = hashing.join()
    return hashed
