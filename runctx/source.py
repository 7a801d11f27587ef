"""Which code did the run really use? The imported project files, and copies of those that no commit holds."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from . import command, layout, loaded
from .model import Omission
from .redact import is_secret_file, tells_a_secret
from .snapshot import Snapshot

OURSELVES = __name__.partition(".")[0]
MAX_COPY = 10_000_000
"""Bytes; a larger module is not copied."""

_MOST = 5
"""Functions that an omission names."""
_ANEW = "`importlib.reload` and importing again load the new code, or start Python (the kernel) anew"


@dataclass(kw_only=True, slots=True)
class Found:
    """The imported project files."""

    files: dict[str, str] = field(default_factory=dict)
    """Path -> `git:hex` of its blob."""
    copied: bool = False
    omissions: list[Omission] = field(default_factory=list)


def collect(snapshot: Snapshot, copies: Path, elsewhere: Mapping[str, Path] = MappingProxyType({})) -> Found:
    """The blob of every imported module that belongs to the project; what the snapshot lacks is copied.

    Parameters
    ----------
    copies: folder for copies; made when the first is needed.
    elsewhere: modules that other processes of the run imported, and their files.
    """
    found = Found()
    root = snapshot.root
    imported = {**elsewhere, **command.project_modules(root)}
    own = {name: path for name, path in imported.items() if not _is_ours(name, path, root)}
    older = loaded.outdated(own)
    for name, path in own.items():
        shown = _shown(path, root)
        blob = snapshot.blob(path)
        if blob is None:
            _copy(name, path, shown, copies, found)
            continue
        found.files[shown] = blob
        if snapshot.changed_since(path):
            why = "edited during the run; recorded as it was at the start"
            found.omissions.append(Omission(what=shown, why=why))
        elif functions := older.pop(path, None):
            more = f" and {len(functions) - _MOST} more" if len(functions) > _MOST else ""
            older_code = f"in memory is older code of {', '.join(functions[:_MOST])}{more}"
            why = f"was edited after it was loaded; {older_code}; {_ANEW}"
            found.omissions.append(Omission(what=shown, why=why))
    return found


def _is_ours(name: str, path: Path, root: Path | None) -> bool:
    """Whether it belongs to this package, which is known by its version, unless the repository is its own."""
    return name.partition(".")[0] == OURSELVES and not (root is not None and path.is_relative_to(root))


def _copy(name: str, path: Path, shown: str, copies: Path, found: Found) -> None:
    secret = is_secret_file(path.name) or tells_a_secret(path.stem)
    try:
        if path.stat().st_size > MAX_COPY:
            raise OSError(f"larger than {MAX_COPY} bytes")
        content = path.read_bytes()
        if not secret:
            target = copies / _place(name, path)
            target.parent.mkdir(parents=True, exist_ok=True)
            layout.write_atomically(target, content)
    except OSError as error:
        found.omissions.append(
            Omission(what=shown, why=f"no commit holds it and it could not be copied: {error}")
        )
        return
    found.files[shown] = (
        "git:" + hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
    )
    if secret:
        why = "its name says that it holds secrets: its digest is recorded, and no copy"
        found.omissions.append(Omission(what=shown, why=why))
    else:
        found.copied = True


def _place(name: str, path: Path) -> Path:
    """Where Python would look for the module: `pkg.mod` -> `pkg/mod.py`; a program keeps its file's name."""
    if name == "__main__":
        return Path(path.name)
    parts = name.split(".")
    return Path(*parts, path.name) if path.stem == "__init__" else Path(*parts[:-1], path.name)


def _shown(path: Path, root: Path | None) -> str:
    if root is not None and path.is_relative_to(root):
        path = path.relative_to(root)
    return path.as_posix().encode("utf-8", "backslashreplace").decode()
