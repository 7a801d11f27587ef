"""Say where trackers keep what they show, and what of that lies in the project: results, which are no source.

A run asks this when it begins: nothing of a tracker is loaded for it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from . import layout
from .layout import here

if TYPE_CHECKING:
    from .settings import Settings

_SQLITE = "sqlite:///"
_OF_MLFLOW = ("mlflow.db", "mlflow.db[-.]*", f"{layout.ARTIFACTS}/")
"""Beside a database lie its lock, and sqlite's own journals, while it is written to."""


def tracking_uri(wishes: Settings) -> str:
    """The address at which MLflow keeps the runs of a project, such that it means the same in every folder.

    >>> from runctx.settings import Settings
    >>> tracking_uri(Settings(root=Path("/home/me/digits"), tracking_uri="sqlite:///runs.db"))
    'sqlite:////home/me/digits/runs.db'
    """
    root = wishes.root.absolute()
    if wishes.tracking_uri:
        return _absolute(wishes.tracking_uri, root)
    if variable := os.environ.get("MLFLOW_TRACKING_URI", ""):
        return _absolute(variable, here() or Path())
    return address_of(root / "mlflow.db")


def address_of(file: Path) -> str:
    """The address of a sqlite database, quoted where SQLAlchemy would read another path out of it.

    >>> address_of(Path("/home/me/why?/my%20runs.db"))
    'sqlite:////home/me/why%3F/my%2520runs.db'
    """
    return _SQLITE + re.sub(r"%(?=[0-9a-fA-F]{2})", "%25", file.as_posix()).replace("?", "%3F")


def _absolute(uri: str, base: Path) -> str:
    path = uri.removeprefix(_SQLITE)
    if path not in (uri, "", ":memory:"):
        return _SQLITE + (Path(address_of(base).removeprefix(_SQLITE)) / path).as_posix()
    if "://" not in uri and not uri.startswith(("sqlite:", "databricks", "file:", "uc")):
        return (base / uri).as_posix()
    return uri


def database(wishes: Settings) -> Path | None:
    """The file in which MLflow keeps them; None if it keeps them elsewhere.

    >>> from runctx.settings import Settings
    >>> database(Settings(root=Path("/home/me/digits"))).as_posix()
    '/home/me/digits/mlflow.db'
    """
    uri = tracking_uri(wishes)
    path = uri.removeprefix(_SQLITE).partition("?")[0]
    return Path(unquote(path)) if uri.startswith(_SQLITE) and path.startswith("/") else None


def patterns(wishes: Settings, root: Path | None) -> tuple[str, ...]:
    """Of what is not taken into a snapshot of the repository `root`."""
    if root is None:
        return ()
    found = [*_OF_MLFLOW]
    if (file := database(wishes)) is not None and (name := _inside(file, root)):
        found.append(rf"re:^{re.escape(name)}(?:[-.].*)?\Z")
    if "tensorboard" in wishes.tracking and (name := _inside(wishes.root / "tensorboard", root)):
        found.append(f"re:^{re.escape(name)}/")
    return tuple(found)


def advice(wishes: Settings, root: Path | None, trackers: Collection[str] = ("mlflow",)) -> str | None:
    """What to add to .gitignore before trackers keep runs here; None if it is there, or git would not see them."""
    if root is None:
        return None
    from .snapshot import is_ignored

    missing: dict[str, str] = {}
    for path, suffix, tracker in _not_yet_there(wishes, trackers):
        if (name := _inside(path, root)) and not is_ignored(root, path):
            missing[f"/{name}{suffix}"] = tracker
    if not missing:
        return None
    lines = f"the line{'s' if len(missing) > 1 else ''} {' and '.join(missing)}"
    who = " and ".join(dict.fromkeys(missing.values()))
    return f"git does not ignore where {who} will keep runs: add {lines} to {root / '.gitignore'}"


def _not_yet_there(wishes: Settings, trackers: Collection[str]) -> Iterator[tuple[Path, str, str]]:
    """What they will make: file or folder, what follows its name in .gitignore, and who makes it."""
    if "mlflow" in trackers and (file := database(wishes)) is not None and not file.exists():
        yield file, "*", "MLflow"
        yield wishes.root / layout.ARTIFACTS, "/", "MLflow"
    if "tensorboard" in trackers and not (folder := wishes.root / "tensorboard").exists():
        yield folder, "/", "TensorBoard"


def _inside(path: Path, root: Path) -> str:
    """Relative to the repository, with `/`; empty if it is not in there."""
    normal = Path(os.path.normpath(path))
    return normal.relative_to(root).as_posix() if normal != root and normal.is_relative_to(root) else ""
