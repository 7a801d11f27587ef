"""The row of a run in a listing, read from the short copy of its lock, or from the lock's YAML."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import msgspec

from .. import layout, lock, notes, yamlfile
from ..display.words import leaves
from ..errors import LedgerError, LockError
from ..model import SCHEMA, Status, Summary

Shown = Literal["running", "submitted", "done", "failed", "interrupted", "crashed", "broken"]
"""Status in a listing: that of the lock; or crashed: running, but its process is gone; or broken: unreadable."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One run in a listing."""

    path: str = ""
    """The run's folder, absolute."""
    id: str
    """The name of its folder, if its lock is broken."""
    stage: str
    status: Shown
    started: datetime | None
    seconds: float | None = None
    commit: str | None = None
    """Hex of the commit that holds the work tree."""
    dirty: bool = False
    parents: tuple[str, ...] = ()
    config: dict[str, Any] = field(default_factory=dict)
    """Dotted key -> value; a list is one value."""
    derived: tuple[str, ...] = ()
    """Dotted keys whose values were computed from others."""
    structure: str | None = None
    """Digest of the configuration's keys and types; None if the lock does not say."""
    tasks: int | None = None
    """How many there are, in all maps; None without any."""
    tasks_done: int | None = None
    """When the lock was written."""
    metrics: dict[str, Summary] = field(default_factory=dict)
    """By name, as the lock says; `with_metrics` knows those of a run that goes on."""
    tags: tuple[str, ...] = ()
    note: str | None = None
    error: str | None = None
    """Type of the exception that ended the run; what is wrong with a broken lock."""
    host: str = ""
    pid: int = 0
    """Where the process of a running run is."""


# -- what is read of a lock: of each section the keys that a row needs --------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Source:
    commit: str | None = None
    dirty: bool = False


@dataclass(frozen=True, kw_only=True)
class _Tasks:
    total: int
    done: int


@dataclass(frozen=True, kw_only=True)
class _Origin:
    reads: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Failure:
    type: str


@dataclass(frozen=True, kw_only=True)
class _Command:
    host: str
    pid: int


@dataclass(frozen=True, kw_only=True)
class _Sections:
    schema: int
    id: str
    stage: str
    status: Status
    started: datetime
    command: _Command
    source: _Source
    seconds: float | None = None
    parents: tuple[str, ...] = ()
    config: dict[Any, Any] = field(default_factory=dict)
    config_structure: str | None = None
    origins: dict[str, tuple[_Origin, ...]] = field(default_factory=dict)
    tasks: tuple[_Tasks, ...] = ()
    metrics: dict[str, Summary] = field(default_factory=dict)
    error: _Failure | None = None


_KEYS = frozenset(_Sections.__dataclass_fields__)


def read_row(folder: str | os.PathLike[str]) -> Row:
    """The row of the run in `folder`; broken, with the reason, if its lock cannot be read."""
    path = os.fspath(folder)
    file = os.path.join(path, layout.LOCK)
    if not os.path.isfile(file):  # a pipe would block for ever
        return _broken(path, f"{file}: no such file")
    try:
        row = _from_copy(path, file)
        if row is None:
            with open(file, "rb") as stream:
                row = parse(stream.read(yamlfile.MAX_BYTES + 1), file)
    except LockError as error:
        return _broken(path, error.message)
    except OSError as error:
        return _broken(path, f"{file}: cannot be read: {error.strerror or error}")
    said = notes.readable(Path(path))
    return replace(row, path=path, tags=said.tags, note=said.note or None)


def _broken(path: str, why: str) -> Row:
    folder = Path(path)
    return Row(path=path, id=folder.name, stage=folder.parent.name, status="broken", started=None, error=why)


def _from_copy(path: str, file: str) -> Row | None:
    """The row as the copy of the lock says; None if there is none, or the lock was changed since."""
    try:
        data = layout.read_regular(
            os.path.join(path, layout.STATE, layout.LOCK_COPY), most=yamlfile.MAX_BYTES
        )
        size, moment, plain = json.loads(data)  # which knows NaN, unlike msgspec's
        found = os.stat(file)
        if (size, moment) != (found.st_size, found.st_mtime_ns):
            return None
        return _row(msgspec.convert(plain, _Sections), file)
    except (OSError, ValueError, TypeError, RecursionError):  # msgspec's errors are ValueErrors
        return None


def parse(data: bytes, where: str = layout.LOCK) -> Row:
    """The row of the lock with this text, without its path.

    Raises
    ------
    LockError: what the row needs is missing or broken; the rest of the lock is not checked.
    """
    if (
        b"\nenvironment:" not in data
    ):  # written last of those that every lock has; its long list need not be parsed
        raise LockError(f"{where}: incomplete lock: environment is missing")
    try:
        plain = lock.read_sections(data, _KEYS)
        if isinstance(schema := plain.get("schema"), int) and schema > SCHEMA:
            raise LockError(f"{where}: written in schema {schema}, by a newer runctx")
        sections = msgspec.convert(plain, _Sections)
    except (yamlfile.BrokenYaml, msgspec.ValidationError) as error:
        raise LockError(f"{where}: not a readable lock: {error}") from error
    return _row(sections, where)


def _row(sections: _Sections, where: str) -> Row:
    if not lock.is_time(sections.started):
        raise LockError(
            f"{where}: at started: must be a time with a zone, between 1900 and 9000; got {sections.started}"
        )
    commit = sections.source.commit
    return Row(
        id=sections.id,
        stage=sections.stage,
        status=sections.status,
        started=sections.started,
        seconds=sections.seconds,
        commit=commit and commit.removeprefix("git:"),
        dirty=sections.source.dirty,
        parents=sections.parents,
        config={
            # bytes and dates are in no lock of ours
            key: value if value is None or isinstance(value, (str, int, float, list, dict)) else str(value)
            for key, value in leaves(sections.config)
        },
        derived=tuple(key for key, origins in sections.origins.items() if any(one.reads for one in origins)),
        structure=sections.config_structure,
        tasks=sum(one.total for one in sections.tasks) if sections.tasks else None,
        tasks_done=sum(one.done for one in sections.tasks) if sections.tasks else None,
        metrics=sections.metrics,
        error=sections.error.type if sections.error else None,
        host=sections.command.host,
        pid=sections.command.pid,
    )


def plain_config(folder: str | os.PathLike[str]) -> dict[Any, Any] | None:
    """The configuration that a lock holds, nested; None if it cannot be read."""
    try:
        with open(os.path.join(folder, layout.LOCK), "rb") as stream:
            config = lock.read_sections(stream.read(yamlfile.MAX_BYTES + 1), {"config"}).get("config", {})
    except (OSError, ValueError):
        return None
    return config if isinstance(config, dict) else None


def logged(folder: str | os.PathLike[str], status: str) -> dict[str, Summary]:
    """The metrics of a run that goes on, or has crashed, as its journals say; else none, nor if a journal is broken.

    Parameters
    ----------
    status: as a listing says.
    """
    if status not in ("running", "submitted", "crashed"):
        return {}
    from ..metrics import series

    try:
        return series.summaries(Path(folder) / layout.METRICS)
    except LedgerError:
        return {}  # `run.metrics()` says which file, and what is wrong with it


def with_metrics(row: Row) -> Row:
    """The row with the metrics as they are now."""
    found = logged(row.path, row.status)
    return replace(row, metrics=found) if found else row
