r"""Read and write manifests: the digests of a folder's files in the format of `b3sum`.

`cd folder && b3sum --check manifest` verifies one. It has a line `<hex>  <path>` per file, sorted by the bytes of the
path. As b3sum does, a path that holds a backslash or a newline has them written as `\\` and `\n`, and its line starts
with a backslash. b3sum writes U+FFFD for what is not UTF-8 and can then not check it; here such a byte is written as
`\xff`, so that two such names stay two and the digest counts them. b3sum refuses that line, and checks the others.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

MAX_BYTES = 4 << 30
"""Of a manifest that is read back: forty million files."""
MAX_PATH = 64 << 10
"""Bytes of one path; Linux allows 4 096 in a call."""

_LINE = re.compile(rb"(\\?)([0-9a-f]{64})  ([^\0\n]+)")
_ESCAPE = re.compile(rb"\\(\\|n|x[89a-f][0-9a-f]|)")
_SHORT = 48


def render(entries: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The manifest of paths and digests, in any order."""
    manifest = bytearray()  # a list of lines takes twice the memory
    for path, digest in sorted(entries):
        escaped = path if path.isascii() and b"\\" not in path and b"\n" not in path else escape(path)
        mark = b"" if escaped == path else b"\\"
        manifest += b"%b%b  %b\n" % (mark, digest.hex().encode(), escaped)
    return bytes(manifest)


def write_manifest(entries: Mapping[str, str]) -> bytes:
    r"""The manifest of paths and digests; the inverse of `read_manifest`.

    >>> write_manifest({"b": "blake3:" + 64 * "0", "a\n": "blake3:" + 64 * "1"}).count(b"\n")
    2
    """
    return render(
        (path.encode("utf-8", "surrogateescape"), bytes.fromhex(digest.removeprefix("blake3:")))
        for path, digest in entries.items()
    )


def escape(path: bytes) -> bytes:
    r"""The path as it stands in a manifest.

    >>> escape(b"caf\xc3\xa9"), escape(b"a\\b\n"), escape(b"\xff")
    (b'caf\xc3\xa9', b'a\\\\b\\n', b'\\xff')
    """
    path = path.replace(b"\\", b"\\\\").replace(b"\n", b"\\n")
    return path.decode("utf-8", "backslashreplace").encode()


def unescape(path: bytes) -> bytes:
    r"""The inverse of `escape`.

    Raises
    ------
    ValueError: a backslash starts none of the three escapes.

    >>> unescape(escape(b"\\xff\n\xff")) == b"\\xff\n\xff"
    True
    """
    return _ESCAPE.sub(_unescaped, path)


def _unescaped(found: re.Match[bytes]) -> bytes:
    what = found[1]
    if not what:
        raise ValueError(f"unknown escape at byte {found.start()}")
    return {b"\\": b"\\", b"n": b"\n"}.get(what) or bytes([int(what[1:], 16)])


def is_uncheckable(path: bytes) -> bool:
    """Whether `b3sum --check` cannot check this name: not UTF-8, or holding U+FFFD itself."""
    if path.isascii():
        return False
    try:
        return "\ufffd" in path.decode()
    except UnicodeDecodeError:
        return True


def read_manifest(data: bytes) -> dict[str, str]:
    r"""The paths and digests of a manifest. Whatever it holds, no path leaves the folder.

    Parameters
    ----------
    data: a manifest as runctx or `b3sum` wrote it. It may be hostile.

    Returns
    -------
    Path -> `blake3:hex`, in the order of the lines. Bytes that are not UTF-8 come as `os.fsdecode` gives them.

    Raises
    ------
    LockError: a line is malformed, a path is absolute, holds `..` or comes twice; names the line.

    >>> read_manifest(b"af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262  sub/empty.txt\n")
    {'sub/empty.txt': 'blake3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262'}
    """
    if len(data) > MAX_BYTES:
        raise _broken(0, f"{len(data)} bytes, more than {MAX_BYTES}")
    entries: dict[str, str] = {}
    if data and not data.endswith(b"\n"):
        raise _broken(data.count(b"\n") + 1, "it is cut off before its end")
    for number, line in enumerate(data.split(b"\n")[:-1], start=1):
        found = _LINE.fullmatch(line)
        if found is None or len(line) > MAX_PATH:
            raise _broken(number, f"not `<64 hex digits>  <path>`: {line[:_SHORT]!r}")
        mark, digest, path = found.groups()
        if mark:
            try:
                path = unescape(path)
            except ValueError as error:
                raise _broken(number, f"{error}: {path[:_SHORT]!r}") from error
        if path.startswith(b"/") or b".." in path.split(b"/"):
            raise _broken(number, f"a path that leaves the folder: {path[:_SHORT]!r}")
        text = path.decode("utf-8", "surrogateescape")
        if text in entries:
            raise _broken(number, f"a path that came before: {path[:_SHORT]!r}")
        entries[text] = "blake3:" + digest.decode()
    return entries


def _broken(line: int, seen: str) -> Exception:
    from ..errors import LockError  # here, because the worker has no such package

    return LockError(f"manifest, line {line}: {seen}", hint="the file was damaged or is no manifest")
