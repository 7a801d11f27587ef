r"""How are the digests of a folder's files written down?

In the format of `b3sum`, so that `cd folder && b3sum --check manifest` verifies it: `<hex>  <path>`, one
line per file, sorted by the bytes of the path. As b3sum does, a path that holds a backslash or a newline
has them written as `\\` and `\n`, and its line starts with a backslash. b3sum writes U+FFFD for what is not
UTF-8 and can then not check it; here such a byte is written as `\xff`, so that two such names stay two and
the digest counts them. b3sum refuses that line as well, and checks the others.
"""

from __future__ import annotations

from .content import DIGEST, NO_DIGEST
from .tree import Folder

TYPE_CHECKING = False
if TYPE_CHECKING:
    import re
    from collections.abc import Iterator, Mapping

MAX_BYTES = 4 << 30
"""Of a manifest that is read back: forty million files."""
MAX_PATH = 64 << 10
"""Bytes of one path; Linux allows 4 096 in a call."""

_LINE = rb"(\\?)([0-9a-f]{64})  ([^\0\n]+)"
_ESCAPE = rb"\\(\\|n|x[89a-f][0-9a-f]|)"
_SHORT = 48


def render(folders: list[Folder]) -> bytes:
    """The manifest of all files that have a digest."""
    folders = sorted(folders, key=lambda folder: folder.prefix)
    runs: list[tuple[bytes, bytes]] = []
    for after, folder in enumerate(folders, start=1):
        if _needs_care(folder):
            runs += _careful_lines(folder)
        elif after < len(folders) and folders[after].prefix.startswith(folder.prefix):
            runs += _plain_lines(folder)
        else:  # no path of another folder comes between the first and the last of this one
            runs.append((folder.prefix + folder.names[0], b"".join(_pieces(folder))))
    runs.sort()
    return b"".join([lines for _, lines in runs])


def _needs_care(folder: Folder) -> bool:
    if NO_DIGEST in folder.digests:
        return True
    paths = folder.prefix + b"\0".join(folder.names)
    if b"\\" in paths or b"\n" in paths:
        return True
    return not paths.isascii() and any(check_refuses(name) for name in (folder.prefix, *folder.names))


def _pieces(folder: Folder) -> list[bytes]:
    """What stands in the folder's lines, four pieces for each: joined at once, they take half the time."""
    files = len(folder.names)
    pieces = [b"\n"] * (4 * files)
    pieces[0::4] = folder.digests.hex("\n", DIGEST).encode().split(b"\n")
    pieces[1::4] = [b"  " + folder.prefix] * files
    pieces[2::4] = folder.names
    return pieces


def _plain_lines(folder: Folder) -> Iterator[tuple[bytes, bytes]]:
    pieces = iter(_pieces(folder))
    for name, line in zip(folder.names, zip(*[pieces] * 4, strict=True), strict=True):
        yield folder.prefix + name, b"".join(line)


def _careful_lines(folder: Folder) -> Iterator[tuple[bytes, bytes]]:
    for i, name in enumerate(folder.names):
        digest = folder.digests[i * DIGEST : (i + 1) * DIGEST]
        if digest != NO_DIGEST:
            path = folder.prefix + name
            escaped = escape(path)
            mark = b"\\" if escaped != path else b""
            yield path, mark + digest.hex().encode() + b"  " + escaped + b"\n"


def write_manifest(entries: Mapping[str, str]) -> bytes:
    r"""The manifest of paths and digests; the inverse of `read_manifest`.

    >>> write_manifest({"b": "blake3:" + 64 * "0", "a\n": "blake3:" + 64 * "1"}).count(b"\n")
    2
    """
    lines = []
    for path, digest in sorted((path.encode("utf-8", "surrogateescape"), d) for path, d in entries.items()):
        escaped = escape(path)
        mark = b"" if escaped == path else b"\\"
        lines.append(mark + digest.removeprefix("blake3:").encode() + b"  " + escaped + b"\n")
    return b"".join(lines)


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
    import re  # here, because the worker does without

    return re.sub(_ESCAPE, _unescaped, path)


def _unescaped(found: re.Match[bytes]) -> bytes:
    what = found[1]
    if not what:
        raise ValueError(f"unknown escape at byte {found.start()}")
    return {b"\\": b"\\", b"n": b"\n"}.get(what) or bytes([int(what[1:], 16)])


def check_refuses(path: bytes) -> bool:
    """Whether `b3sum --check` cannot check this name: not UTF-8, or holding U+FFFD itself."""
    try:
        return "\ufffd" in path.decode()
    except UnicodeDecodeError:
        return True


def read_manifest(data: bytes) -> dict[str, str]:
    r"""The paths and digests of a manifest; whatever it was told, no path leaves the folder.

    Parameters
    ----------
    data: a manifest as runctx or `b3sum` wrote it. It may be hostile.

    Returns
    -------
    Path -> `blake3:hex`, in the order of the lines. Bytes that are not UTF-8 come as `os.fsdecode` gives
    them.

    Raises
    ------
    LockError: a line is malformed, a path is absolute, holds `..` or comes twice; names the line.

    >>> read_manifest(b"af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262  sub/empty.txt\n")
    {'sub/empty.txt': 'blake3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262'}
    """
    import re

    is_line = re.compile(_LINE).fullmatch
    if len(data) > MAX_BYTES:
        raise _broken(0, f"{len(data)} bytes, more than {MAX_BYTES}")
    entries: dict[str, str] = {}
    if data and not data.endswith(b"\n"):
        raise _broken(data.count(b"\n") + 1, "it is cut off before its end")
    for number, line in enumerate(data.split(b"\n")[:-1], start=1):
        found = is_line(line)
        if found is None or len(line) > MAX_PATH:
            raise _broken(number, f"not `<64 hex digits>  <path>`: {line[:_SHORT]!r}")
        mark, digest, path = found.groups()
        if mark:
            try:
                path = unescape(path)
            except ValueError as error:
                raise _broken(number, f"{error}: {path[:_SHORT]!r}") from error
        if path.startswith(b"/") or b".." in path.split(b"/") or b"\0" in path:
            raise _broken(number, f"a path that leaves the folder: {path[:_SHORT]!r}")
        text = path.decode("utf-8", "surrogateescape")
        if text in entries:
            raise _broken(number, f"a path that came before: {path[:_SHORT]!r}")
        entries[text] = "blake3:" + digest.decode()
    return entries


def _broken(line: int, seen: str) -> Exception:
    from ..errors import LockError  # here, because the worker has no such package

    return LockError(f"manifest, line {line}: {seen}", hint="the file was damaged or is no manifest")
