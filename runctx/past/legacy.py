"""Read a folder that no run of ours has written: its name, a configuration and files.

Results from before runctx can be looked at where runs are: as runs of which little is known. Nothing is executed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from blake3 import blake3

from .. import layout, outputs, yamlfile
from ..errors import NoRunError
from ..model import VERSION, Command, Environment, Lock, Omission, Source
from ..redact import Redactor
from .record import Record

_CONFIGS = ("config.yaml", "config.yml", ".hydra/config.yaml", "hparams.yaml", "config.json")
"""Where a configuration is looked for, the first first."""
_MOST = 1_000_000
"""Bytes of a configuration."""
_STAMP = re.compile(
    r"(?<!\d)(?:20)?(?P<y>\d\d)-?(?P<m>\d\d)-?(?P<d>\d\d)[-_T ./]"
    r"(?P<H>\d\d)[-_:.]?(?P<M>\d\d)[-_:.]?(?P<S>\d\d)(?!\d)"
)
"""As `251121-123000`, `2025-11-21_12-30-00` or `20251121-123000`."""


def has_config(folder: Path) -> bool:
    """True if a folder has a configuration, as results of many programs do."""
    return any((folder / name).is_file() for name in _CONFIGS)


def may_hold_secrets(name: str) -> bool:
    """True if a file, by its path in the folder, is a configuration as another program wrote it, redacted by nobody.

    >>> may_hold_secrets(".hydra/overrides.yaml"), may_hold_secrets("model.txt")
    (True, False)
    """
    return name in _CONFIGS or name.startswith(".hydra/")


def record_of(folder: Path, redactor: Redactor | None = None) -> Record:
    """The folder as a run that is done: its stage is the name of the folder it is in, its outputs are its files.

    It started when its name says, else when its oldest file was written. Its id depends on its name, its
    configuration and the names of its files, so that it stays when the folder is moved.

    Parameters
    ----------
    redactor: knows what is secret in the configuration.

    Raises
    ------
    NoRunError: there are no files in it.
    """
    folder = folder.absolute()
    files = list(_files(folder))
    if not files:
        raise NoRunError(f"no files in {folder}", hint="`runctx ls` lists all runs")
    config, digest, omissions = _config(folder, redactor or Redactor())
    started = _stamp(folder) or datetime.fromtimestamp(min(changed for _, changed in files), UTC)
    saved = outputs.collect(
        folder, own=(), max_bytes=-1, cache=layout.cache_dir(), wait=lambda hashing: None
    )  # that many bytes hash nothing
    names = repr((folder.name, digest, sorted(name for name, _ in files)))
    identity = blake3(names.encode("utf-8", "backslashreplace")).hexdigest(length=4)
    known = Lock(
        runctx=VERSION,
        id=f"{_plain(folder.name)}-{identity}",
        stage=_plain(folder.parent.name),
        status="done",
        started=started,
        save_dir=folder.as_posix(),
        command=Command(kind="script", entry="", cwd="", python="", host="", pid=0, user=""),
        config=config,
        source=Source(),
        outputs=saved.data,
        environment=Environment(python="", platform="", cpu="", cpus=0, memory=0),
        omissions=(_UNLOCKED, *omissions, *saved.omissions),
    )
    return Record(folder, known)


_UNLOCKED = Omission(
    what="code, inputs and environment", why="the folder is from before runctx: there is no run.lock"
)
_NOT_PLAIN = re.compile(r"[^\w.-]+")


def _plain(name: str) -> str:
    return _NOT_PLAIN.sub("-", name).strip("-") or "run"


def _files(folder: Path) -> Iterator[tuple[str, float]]:
    """Path and time of each file in it, but for ours."""
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name != layout.STATE)
        for name in names:
            path = os.path.join(place, name)
            try:
                found = os.lstat(path)
            except OSError:
                continue  # gone by now
            yield os.path.relpath(path, folder), found.st_mtime


def _config(folder: Path, redactor: Redactor) -> tuple[dict[Any, Any], str, list[Omission]]:
    """The configuration, a digest of its text, and what could not be read."""
    name = next((name for name in _CONFIGS if (folder / name).is_file()), None)
    if name is None:
        return {}, "", []
    try:
        text = layout.read_regular(folder / name, most=_MOST)
    except OSError as error:
        return {}, "", [Omission(what=name, why=str(error.strerror or error))]
    digest = blake3(text).hexdigest()
    try:
        plain = yamlfile.load(text)
    except yamlfile.BrokenYaml as error:
        return {}, digest, [Omission(what=name, why=f"not read as YAML: {error}")]
    if not isinstance(plain, dict):
        return {}, digest, [Omission(what=name, why=f"must be a mapping; got {type(plain).__name__}")]
    return redactor.mapping(plain), digest, []


def _stamp(folder: Path) -> datetime | None:
    """The time in the name of a folder, or in its and its parent's, as `2025-11-21/12-30-00`; local time."""
    for name in (folder.name, f"{folder.parent.name}/{folder.name}"):
        for found in _STAMP.finditer(name):
            year, *rest = (int(found[part]) for part in "ymdHMS")
            try:
                return datetime(2000 + year, *rest).astimezone(UTC)  # type: ignore[arg-type]
            except (ValueError, OverflowError):
                continue
    return None
