"""What does one input amount to, once its files were examined?"""

from __future__ import annotations

from blake3 import blake3

from .content import DIGEST, NO_DIGEST, SIGNATURE, Part
from .manifest import check_refuses, render
from .tree import Folder, Gap, Tree

MAX_GAPS = 50
"""Listed one by one; of the others only the number."""

Outcome = tuple[bytes | None, int, int, str, bytes | None, bytes, list[tuple[str, str]]]
"""Digest, bytes, files, strength, manifest, state, gaps (path below the input, why): plain, to be sent."""


def place(folder: Folder, start: int, part: Part) -> list[Gap]:
    """Put what was found at its place in the folder; what went wrong comes back."""
    digests, signatures, wrong, _ = part
    folder.digests[start * DIGEST : start * DIGEST + len(digests)] = digests
    folder.signatures[start * SIGNATURE.size : start * SIGNATURE.size + len(signatures)] = signatures
    return [Gap(folder.prefix + folder.names[index], why) for index, why in wrong]


def state_of(tree: Tree, listed: list[Gap]) -> bytes:
    """A digest of all names and signatures: it differs once a file was added, removed, replaced or
    changed."""
    hasher = blake3()
    for folder in tree.folders:
        hasher.update(b"\0".join([folder.prefix, *folder.names, b"", folder.signatures]))
    for gap in listed:
        hasher.update(gap.path + b"\0" + gap.why.encode())
    return hasher.digest()


def outcome_of(kind: str, tree: Tree, listed: list[Gap]) -> Outcome:
    """The outcome of an examined tree; `listed` are the gaps that were there before any file was read."""
    state = state_of(tree, listed)
    size = sum(_bytes_of(folder) for folder in tree.folders)
    weak = any(gap.weak for gap in tree.gaps)
    if kind == "file":
        digest = bytes(tree.folders[0].digests)
        known = digest if digest != NO_DIGEST else None
        strength = "content" if known else "skipped"
        return known, size, 1, strength, None, state, _described(tree.gaps)
    missing = sum(_count_missing(folder) for folder in tree.folders)
    files = tree.files - missing
    gaps = tree.gaps + _unchecked(tree)
    if weak and not files:
        return None, size, 0, "skipped", None, state, _described(gaps)
    manifest = render(tree.folders)
    strength = "stat" if weak else "content"
    return blake3(manifest).digest(), size, files, strength, manifest, state, _described(gaps)


def _bytes_of(folder: Folder) -> int:
    return sum(
        memoryview(folder.signatures).cast("Q")[2::5]
    )  # the third of five numbers, without unpacking them


def _count_missing(folder: Folder) -> int:
    if NO_DIGEST not in folder.digests:
        return 0
    digests = folder.digests
    return sum(digests[at : at + DIGEST] == NO_DIGEST for at in range(0, len(digests), DIGEST))


def _unchecked(tree: Tree) -> list[Gap]:
    why = "hashed, but `b3sum --check` cannot check a name that is not UTF-8 or holds U+FFFD"
    return [
        Gap(folder.prefix + name, why, weak=False)
        for folder in tree.folders
        if not (folder.prefix + b"".join(folder.names)).isascii()
        for name in folder.names
        if check_refuses(folder.prefix + name)
    ]


def _described(gaps: list[Gap]) -> list[tuple[str, str]]:
    gaps = sorted(gaps, key=lambda gap: (not gap.weak, gap.path))
    said = [(gap.path.decode("utf-8", "backslashreplace"), gap.why) for gap in gaps[:MAX_GAPS]]
    if len(gaps) > MAX_GAPS:
        said.append(("", f"{len(gaps) - MAX_GAPS} more places like these"))
    return said
