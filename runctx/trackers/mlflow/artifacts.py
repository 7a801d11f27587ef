"""Copy files of a run to MLflow, and keep track of what it has.

Nothing is copied but what lies in the run's folder: no link leads out of it, and what looks like a secret stays. What
MLflow has, from us and from the user's function, is kept beside it in a file of ours.
"""

from __future__ import annotations

import os
import re
import stat
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import blake3
import msgspec

from ... import layout
from ...past.legacy import may_hold_secrets
from ...redact import is_secret_file

if TYPE_CHECKING:
    from ...model import Lock
    from .database import Database

KEPT = "runctx.json"

_ORDINARY = re.compile(r"(?!\.artifact\.)[^\x00-\x1f\x7f#?%\\\ud800-\udfff]+")
"""Names that every place where MLflow keeps files takes, and gives back as they were."""

_FILES = 1000
"""Outputs that are copied at most."""
_TOTAL = 10
"""How many times the limit of one output all of them may have."""

Sign = tuple[int, int | str]
"""Size, and when it was changed or a digest: equal signs, equal content."""


class Called(msgspec.Struct, omit_defaults=True):
    """What a logging function has left, or what was there before one that has not come to its end."""

    files: list[str] = []
    params: list[str] = []
    tags: dict[str, list[str | None]] = {}
    """Name -> what it was before, and is since."""
    runs: list[str] = []
    """MLflow runs that it has begun, e.g. nested ones."""


class Inventory(msgspec.Struct, omit_defaults=True):
    """What MLflow has of a run's files."""

    files: dict[str, Sign | None] = {}
    """Path -> sign of what was copied; None while it is."""
    function: Called = msgspec.field(default_factory=Called)
    begun: Called | None = None
    """What was there before a function began, if it has not come to its end."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """Files to be shown: path there -> the file, or its content."""

    files: dict[str, Path | bytes]
    left_out: list[str]
    """Paths of outputs that are not."""


def choose(save_dir: Path, lock: Lock, texts: dict[str, bytes], most: int) -> Chosen:
    """What MLflow shall have of a run.

    Parameters
    ----------
    texts: further files, by name.
    most: bytes of one output.
    """
    from ...config import to_yaml

    own, inside = layout.RunFiles(save_dir), os.path.realpath(save_dir)
    has_lock = own.lock.exists()
    files: dict[str, Path | bytes] = {}
    if lock.config:
        files[layout.CONFIG] = to_yaml(lock.config)  # not the file: before runctx, it may hold secrets
    for path in (own.lock, own.log, own.outputs):
        if (found := _look(path, inside)) is not None and found.st_size <= max(most, 10_000_000):
            files[path.name] = path
    files |= texts
    left_out, total = [], 0
    for name, path, size in sorted(_outputs(save_dir, inside), key=lambda output: (output[2], output[0])):
        total += size
        secret = is_secret_file(name) or (not has_lock and may_hold_secrets(name))
        odd = name in files or name == KEPT or not _ORDINARY.fullmatch(name)
        if secret or odd or size > most or total > most * _TOTAL or len(files) >= _FILES:
            left_out.append(name)
        else:
            files[name] = path
    return Chosen(files, sorted(left_out))


def _outputs(save_dir: Path, inside: str) -> Iterator[tuple[str, Path, int]]:
    for folder, folders, names in os.walk(save_dir):
        if folder == os.fspath(save_dir):
            folders[:] = [name for name in folders if not layout.is_own(name)]
            names = [name for name in names if not layout.is_own(name)]
        for name in names:
            path = Path(folder, name)
            if (found := _look(path, inside)) is not None:
                yield path.relative_to(save_dir).as_posix(), path, found.st_size


def _look(path: Path, inside: str | None = None) -> os.stat_result | None:
    """None of what cannot be read as a file, or lies elsewhere than in the folder that it should be inside of."""
    if inside is not None and path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(inside):
        return None
    try:
        found = path.stat()
    except OSError:
        return None
    return found if stat.S_ISREG(found.st_mode) and os.access(path, os.R_OK) else None


class Artifacts:
    """The files of one run in MLflow.

    Parameters
    ----------
    uri: where they are, as MLflow says.
    """

    def __init__(self, database: Database, uri: str) -> None:
        self._database, self._uri = database, uri
        self._inventory: Inventory | None = None

    @cached_property
    def _repository(self) -> Any:
        with self._database.asked():
            from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

            return get_artifact_repository(self._uri, tracking_uri=self._database.uri)

    @property
    def inventory(self) -> Inventory:
        """What was kept; nothing, if there is nothing or it is broken."""
        if self._inventory is None:
            with self._database.asked():
                data = self._read(KEPT)
            try:
                self._inventory = msgspec.json.decode(data, type=Inventory) if data else Inventory()
            except ValueError:
                self._inventory = Inventory()
        return self._inventory

    def keep(self) -> None:
        """Write down what `inventory` says now."""
        with self._database.asked():
            self._put(KEPT, msgspec.json.encode(self.inventory))

    def bring(self, chosen: dict[str, Path | bytes]) -> None:
        """Copy what is new or changed, delete what we had copied and is no longer chosen."""
        had, signs = self.inventory.files, dict[str, Sign | None]()
        for name, source in chosen.items():
            if (sign := _sign(source)) is not None:
                signs[name] = sign
        if had == signs:
            return
        self.inventory.files = {name: sign if had.get(name) == sign else None for name, sign in signs.items()}
        gone = had.keys() - signs.keys()
        self.inventory.files |= dict.fromkeys(gone)
        self.keep()  # before anything is copied, so that a kill leaves nothing that is not known
        with self._database.asked():
            for name in [name for name in signs if self.inventory.files[name] is None]:
                self._put(name, chosen[name])
        self.delete(gone)
        self.inventory.files = signs
        self.keep()

    def delete(self, names: Iterable[str]) -> None:
        """Delete these, as far as they are there."""
        for name in names:
            with self._database.asked():
                self._repository.delete_artifacts(name)

    def names(self) -> set[str]:
        """All files that are there, but ours that says so."""
        with self._database.asked():
            return set(self._walk(None)) - {KEPT}

    def _walk(self, folder: str | None) -> Iterator[str]:
        for entry in self._repository.list_artifacts(folder):
            if entry.is_dir:
                yield from self._walk(entry.path)
            else:
                yield entry.path

    def _read(self, name: str) -> bytes:
        if name not in {entry.path for entry in self._repository.list_artifacts(None)}:
            return b""
        with tempfile.TemporaryDirectory() as folder:
            return layout.read_regular(self._repository.download_artifacts(name, folder))

    def _put(self, name: str, source: Path | bytes) -> None:
        folder, _, last = name.rpartition("/")
        with tempfile.TemporaryDirectory() as temporary:
            if isinstance(source, bytes):
                path = Path(temporary, last)
                path.write_bytes(source)
                source = path
            self._repository.log_artifact(os.fspath(source), folder or None)


def _sign(source: Path | bytes) -> Sign | None:
    if isinstance(source, bytes):
        return len(source), blake3.blake3(source).hexdigest()
    found = _look(source)
    return None if found is None else (found.st_size, found.st_mtime_ns)
