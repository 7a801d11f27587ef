"""Digests of files, folders and globs by blake3, with manifests in the format of `b3sum`.

`walk` lists files, `contents` reads them, `cache` remembers, `manifest` writes down; `inputs` and `background` are the
run's side, `worker` is the process for what takes long.
"""

from __future__ import annotations

import os

from ..errors import InputError
from .background import Hashing
from .contents import Reader
from .inputs import Hashed, Input, locate
from .manifest import read_manifest, write_manifest
from .walk import SIGNATURE

__all__ = ["Hashed", "Hashing", "Input", "digest_file", "locate", "read_manifest", "write_manifest"]


def digest_file(path: str | os.PathLike[str]) -> str:
    """The digest of a file's bytes, `blake3:hex`, read here and now.

    Raises
    ------
    InputError: it is missing, no regular file, unreadable, or changing while it is read.

    >>> import pathlib, tempfile
    >>> empty = pathlib.Path(tempfile.mkdtemp()) / "empty"
    >>> empty.touch()
    >>> digest_file(empty)
    'blake3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262'
    """
    try:
        record = Reader(lambda size: None).record(os.fsencode(path))
    except OSError as error:
        raise InputError(f"{os.fspath(path)!r} cannot be hashed: {error.strerror}") from error
    return "blake3:" + record[SIGNATURE.size :].hex()
