"""What bytes, and what text, does a configuration file hold?"""

from __future__ import annotations

import difflib
import os
import stat
from pathlib import Path

from ....errors import ConfigError
from .document import fault

MAX_BYTES = 5_000_000


def bytes_of(path: Path) -> bytes:
    """The content of a regular file; opening never waits, as it would for a pipe.

    Raises
    ------
    ConfigError: missing, not readable, no regular file, or larger than any configuration.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise _missing(path) from error
    except OSError as error:
        raise fault(path, None, f"cannot be read: {error.strerror or error}") from error
    except ValueError as error:  # no name of a file, e.g. "a\0b"
        raise ConfigError(f"configuration file {str(path)!r} cannot be read: {error}") from error
    try:
        return _content(descriptor, path)
    finally:
        os.close(descriptor)


def _content(descriptor: int, path: Path) -> bytes:
    status = os.fstat(descriptor)
    if stat.S_ISDIR(status.st_mode):
        raise fault(path, None, "is a folder")
    if not stat.S_ISREG(status.st_mode):
        raise fault(path, None, "is not a regular file")
    parts = []
    left = MAX_BYTES + 1
    try:
        while left and (part := os.read(descriptor, left)):
            parts.append(part)
            left -= len(part)
    except OSError as error:
        raise fault(path, None, f"cannot be read: {error.strerror or error}") from error
    if not left:
        raise fault(path, None, f"larger than the {MAX_BYTES // 1_000_000} MB that are read")
    return b"".join(parts)


def _missing(path: Path) -> ConfigError:
    folder = path.parent.absolute()
    if not folder.is_dir():
        return ConfigError(f"configuration file {path} does not exist: no folder {folder}")
    try:
        names = os.listdir(folder)
    except OSError:
        names = []
    near = difflib.get_close_matches(path.name, names, n=1)
    return ConfigError(
        f"configuration file {path} does not exist (looked in {folder})",
        hint=f"did you mean {path.with_name(near[0])}?" if near else None,
    )


def text_of(data: bytes, path: Path) -> str:
    """The text that the bytes of a file are, without a byte order mark.

    Raises
    ------
    ConfigError: not UTF-8.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = error.object[: error.start]  # of what follows a byte order mark
        line = before.count(b"\n") + 1
        column = len(before[before.rfind(b"\n") + 1 :].decode("utf-8", "replace")) + 1
        raise fault(
            path,
            line,
            f"column {column}: byte 0x{error.object[error.start]:02x} is not UTF-8",
            "save it as UTF-8",
        ) from error
