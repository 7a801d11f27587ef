"""What a listing needs to know of a run, read quickly from its lock.

Parsing the whole YAML of ten thousand locks takes ten seconds. A row needs a few top-level keys, two lines of
`source`, whose long lists are not parsed, and the configuration, most of which is lines of one simple value.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import msgspec

from .. import layout, notes, yamlfile
from ..errors import LedgerError, LockError
from ..lock import is_time, read_sections
from ..model import SCHEMA, Lock, Status, Summary

Shown = Literal["running", "submitted", "done", "failed", "interrupted", "crashed", "broken"]
"""What a listing says: what a lock can say; running, but its process is gone; its lock cannot be read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One run in a listing."""

    path: str = ""
    """The run's folder, absolute."""
    id: str
    """Of a run whose lock is broken the name of its folder."""
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
    """Digest of the configuration's keys and types; None if the lock does not tell."""
    tasks: int | None = None
    """How many there are, in all maps; None without any."""
    tasks_done: int | None = None
    """When the lock was written."""
    metrics: dict[str, Summary] = field(default_factory=dict)
    """What became of each, by name, as the lock says; of a run that goes on `measured` knows."""
    tags: tuple[str, ...] = ()
    note: str | None = None
    error: str | None = None
    """Type of the exception that ended the run; of a broken lock, what is wrong with it."""
    host: str = ""
    pid: int = 0
    """Where a running run's process is looked for."""


@dataclass(frozen=True, kw_only=True)
class _Head:
    schema: int
    id: str
    stage: str
    status: Status
    started: datetime
    seconds: float | None = None
    parents: tuple[str, ...] = ()
    config: dict[Any, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class _Rest:
    """What only a row of a run that is not done needs."""

    @dataclass(frozen=True)
    class Command:
        host: str
        pid: int

    @dataclass(frozen=True)
    class Failure:
        type: str

    command: Command
    error: Failure | None = None


for _class in (_Head, _Rest, dict[str, Summary]):
    msgspec.json.Decoder(_class)  # as in `runctx.convert`: now, and not in two threads at once

_HEAD = frozenset(_Head.__dataclass_fields__)
_REST = frozenset(_Rest.__dataclass_fields__)
_REQUIRED = ("command", "source", "environment")


def read_row(folder: str | os.PathLike[str]) -> Row:
    """The row of the run in `folder`; a lock that cannot be read gives a row that says so."""
    path = os.fspath(folder)
    file = os.path.join(path, layout.LOCK)
    if not os.path.isfile(file):  # a pipe would block for ever
        return _broken(path, f"{file}: no such file")
    try:
        with open(file, "rb") as stream:
            row = parse(stream.read(yamlfile.MAX_BYTES + 1), file)
    except LockError as error:
        return _broken(path, error.message)
    except OSError as error:
        return _broken(path, f"{file}: cannot be read: {error.strerror or error}")
    said = notes.readable(Path(path))
    return replace(row, path=path, tags=said.tags, note=said.note or None)


def plain_config(folder: str | os.PathLike[str]) -> dict[Any, Any] | None:
    """The configuration that a lock holds, nested as it is; None if it cannot be read."""
    try:
        with open(os.path.join(folder, layout.LOCK), "rb") as stream:
            data = stream.read(yamlfile.MAX_BYTES + 1)
        config = _quick_config(data) or read_sections(data, {"config"}).get("config", {})
    except (OSError, ValueError):
        return None
    return config if isinstance(config, dict) else None


def _broken(path: str, why: str) -> Row:
    folder = Path(path)
    return Row(path=path, id=folder.name, stage=folder.parent.name, status="broken", started=None, error=why)


def parse(data: bytes, where: str = layout.LOCK) -> Row:
    """The row of the lock with this text, without its path.

    Raises
    ------
    LockError: what the row needs is missing or broken; the rest of the lock is not checked.
    """
    for key in _REQUIRED:
        if _start(data, key) < 0:
            raise LockError(f"{where}: incomplete lock: {key} is missing")
    try:
        plain = _quick_head(data) or read_sections(data, _HEAD)
        if isinstance(schema := plain.get("schema"), int) and schema > SCHEMA:
            raise LockError(f"{where}: written in schema {schema}, by a newer runctx")
        head = msgspec.convert(plain, _Head)
        rest = msgspec.convert(read_sections(data, _REST), _Rest) if head.status != "done" else None
        commit, dirty = _commit(data)
        structure = _structure(data)
        tasks, tasks_done = _tasks(data)
        metrics = _metrics(data)
    except (yamlfile.BrokenYaml, msgspec.ValidationError) as error:
        raise LockError(f"{where}: not a readable lock: {error}") from error
    if not is_time(head.started):
        raise LockError(
            f"{where}: at started: must be a time with a zone, between 1900 and 9000; got {head.started}"
        )
    return Row(
        id=head.id,
        stage=head.stage,
        status=head.status,
        started=head.started,
        seconds=head.seconds,
        commit=commit,
        dirty=dirty,
        parents=head.parents,
        config=dict(leaves(head.config)),
        derived=_derived(data),
        structure=structure,
        tasks=tasks,
        tasks_done=tasks_done,
        metrics=metrics,
        error=rest.error.type if rest and rest.error else None,
        host=rest.command.host if rest else "",
        pid=rest.command.pid if rest else 0,
    )


def _start(data: bytes, key: str) -> int:
    start = data.find(f"\n{key}:".encode())
    return 0 if start < 0 and data.startswith(f"{key}:".encode()) else start


_NEXT_KEY = re.compile(rb"\n[a-z_]+:")


def _section(data: bytes, key: str) -> bytes:
    """The lines of a top-level key, its own the first; empty if there is no such key."""
    start = _start(data, key)
    if start < 0:
        return b""
    end = _NEXT_KEY.search(data, start + 1)
    return data[start : end.start() if end else len(data)]


# lines that every reader of YAML reads alike, and that most of a lock consists of
_SIMPLE = re.compile(
    rb"([A-Za-z_]\w*): (?:(-?(?:0|[1-9][0-9]{0,17}))|(-?[0-9]+\.[0-9]+(?:e[+-][0-9]+)?)"
    rb"|'([ -&(-~]*)'|([A-Za-z][\w./-]*))"
)
_WORDS_WITH_A_MEANING = {"true": True, "false": False, "null": None}
_AMBIGUOUS = frozenset(("y", "n", "yes", "no", "on", "off", *_WORDS_WITH_A_MEANING))
_NEXT_ITEM = re.compile(rb"\n(?=  [A-Za-z_])")


def _simple(line: bytes) -> tuple[str, Any] | None:
    """Key and value of a line, unless YAML has to be asked."""
    found = _SIMPLE.fullmatch(line)
    if found is None:
        return None
    key, value, kind = found[1].decode(), found[found.lastindex or 0].decode(), found.lastindex
    if key.lower() in _AMBIGUOUS:
        return None
    if kind == 2:
        return key, int(value)
    if kind == 3:
        return key, float(value)
    if kind == 4:
        return key, value
    if value in _WORDS_WITH_A_MEANING:
        return key, _WORDS_WITH_A_MEANING[value]
    return None if value.lower() in _AMBIGUOUS else (key, value)


def _quick_head(data: bytes) -> dict[str, Any] | None:
    """As `read_sections(data, _HEAD)`, three times as fast for a lock as we write it; else None."""
    identity = [_simple(line) for line in data[: _start(data, "save_dir")].split(b"\n")]
    config = _quick_config(data)
    if config is None or None in identity:
        return None
    head = {**dict(filter(None, identity)), "config": config}
    if len(head) != len(identity) + 1:
        return None
    return head if _start(data, "parents") < 0 else {**head, **read_sections(data, {"parents"})}


def _quick_config(data: bytes) -> dict[Any, Any] | None:
    section = _section(data, "config")
    if not section:
        return {}
    first, *items = _NEXT_ITEM.split(section)
    if first.strip(b"\n") != b"config:":
        return None
    config: dict[Any, Any] = {}
    count = 0
    for item in items:
        simple = _simple(item[2:])
        part = yamlfile.load(item + b"\n") if simple is None else dict((simple,))
        if not isinstance(part, dict):
            return None
        config.update(part)
        count += len(part)
    return config if count == len(config) else None


# nothing nested, and no line of a text, is indented by exactly two spaces
_COMMIT = re.compile(rb"^  commit: git:([0-9a-f]+)$", re.MULTILINE)
_DIRTY = re.compile(rb"^  dirty: true$", re.MULTILINE)
_PLAIN_STYLE = re.compile(rb"^  (commit|dirty)\b", re.MULTILINE)


def _commit(data: bytes) -> tuple[str | None, bool]:
    source = _section(data, "source")
    commit, dirty = _COMMIT.search(source), _DIRTY.search(source)
    if len(_PLAIN_STYLE.findall(source)) == bool(commit) + bool(dirty) and b"\n  " in source[1:]:
        return (commit[1].decode() if commit else None), bool(dirty)
    found = read_sections(data, {"source"}).get("source")  # not as we write it
    found = found if isinstance(found, dict) else {}
    named = found.get("commit")
    return (named.removeprefix("git:") if isinstance(named, str) else None), found.get("dirty") is True


_STRUCTURE = re.compile(rb"\nconfig_structure: (blake3:[0-9a-f]+)\n")


def _structure(data: bytes) -> str | None:
    if found := _STRUCTURE.search(data):
        return found[1].decode()
    key = "config_structure"
    said = read_sections(data, {key}).get(key) if _start(data, key) >= 0 else None  # not as we write it
    return said if isinstance(said, str) else None


# as we write it; of a lock that was edited, what is not found counts for nothing
_TASKS = re.compile(rb"^  total: (\d{1,12})\n  done: (\d{1,12})$", re.MULTILINE)


def _tasks(data: bytes) -> tuple[int, int] | tuple[None, None]:
    """How many there are, and how many were done."""
    section = _section(data, "tasks")
    if not section:
        return None, None
    maps = _TASKS.findall(section)
    return sum(int(total) for total, _ in maps), sum(int(done) for _, done in maps)


_NUMBER = rb"(-?[0-9]+\.[0-9]+(?:e[+-][0-9]+)?|\.nan|-?\.inf)"
_SUMMARY = re.compile(
    rb"\n  ([A-Za-z][\w./-]*):\n    last: %b\n    min: %b\n    max: %b\n    points: ([1-9][0-9]{0,17})(?![^\n])"
    % (_NUMBER, _NUMBER, _NUMBER)
)


def _metrics(data: bytes) -> dict[str, Summary]:
    section = _section(data, "metrics")
    if not section:
        return {}
    quick = _quick_metrics(section)
    if quick is not None:
        return quick
    return msgspec.convert(read_sections(data, {"metrics"}).get("metrics"), dict[str, Summary])


def _quick_metrics(section: bytes) -> dict[str, Summary] | None:
    """As YAML reads it, many times as fast for what we write; else None."""
    if _SUMMARY.sub(b"", section).strip(b"\n") != b"metrics:":
        return None
    found = _SUMMARY.findall(section)
    metrics = {
        name.decode(): Summary(last=_float(last), min=_float(low), max=_float(high), points=int(points))
        for name, last, low, high, points in found
    }
    usual = 0 < len(metrics) == len(found) and _AMBIGUOUS.isdisjoint(map(str.lower, metrics))
    return metrics if usual else None


def _float(text: bytes) -> float:
    """Of what YAML calls one: `.nan` is no number to Python."""
    return float(text if text[-1:].isdigit() else text.replace(b".", b""))


# as we write it; of a lock that was edited none is known, and nothing more is lost than a shorter listing
_COMPUTED = re.compile(rb'^  ([\w.]+): \[\{.*"reads": \[', re.MULTILINE)


def _derived(data: bytes) -> tuple[str, ...]:
    return tuple(key.decode() for key in _COMPUTED.findall(_section(data, "origins")))


def leaves(config: dict[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values; a list is one value, and so is an empty mapping."""
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{name}.")
        elif isinstance(value, (str, int, float, list, dict)) or value is None:
            yield name, value
        else:  # bytes and dates, which a lock of ours does not hold
            yield name, str(value)


# -- metrics as they are now -------------------------------------------------------------------------------

_UNSEALED = ("running", "submitted", "crashed")


def measured(row: Row) -> Row:
    """The row with the metrics as they are now."""
    found = summaries(row.path, row.status)
    return replace(row, metrics=found) if found else row


def with_metrics(lock: Lock, folder: str | os.PathLike[str], status: str) -> Lock:
    """The lock with the metrics as they are now."""
    found = summaries(folder, status)
    return replace(lock, metrics=found) if found else lock


def summaries(folder: str | os.PathLike[str], status: str) -> dict[str, Summary]:
    """Of a run that is not sealed, what its journals say; nothing for others, and where a journal is broken.

    Parameters
    ----------
    status: as a listing says it.
    """
    if status not in _UNSEALED:
        return {}
    from ..metrics import series

    try:
        return series.summaries(Path(folder) / layout.METRICS)
    except LedgerError:
        return {}  # `run.metrics()` says which file, and what is wrong with it
