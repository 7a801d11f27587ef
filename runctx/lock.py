"""Write, read and refuse run.lock: text of YAML <-> `runctx.model.Lock`."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import re
from collections.abc import Callable, Collection, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from . import layout, permissions, yamlfile
from .errors import LockError, NoRunError
from .model import SCHEMA, VERSION, Lock


def encode(lock: Lock) -> bytes:
    """The text of run.lock: YAML in the order of the model's fields, equal locks giving equal bytes.

    What is None, False or empty is left out: reading fills it in again. Origins are one line for each key, and
    earlier runs one line each: there may be thousands, and YAML is slow.
    """
    return _text(to_plain(lock))


def _text(plain: dict[str, Any]) -> bytes:
    lines = {name: write(plain[name]) for name, (write, _) in _ON_LINES.items() if name in plain}
    text = yamlfile.dump({**plain, **dict.fromkeys(lines)})
    for name, section in lines.items():
        before, _, after = text.partition(f"\n{name}: null\n".encode())
        text = b"%b\n%b:\n%b%b" % (before, name.encode(), section, after)
    return text


_ON_LINES: dict[str, tuple[Callable[[Any], bytes], Callable[[bytes], Any]]] = {
    "origins": (yamlfile.dump_lines, yamlfile.load_lines),
    "upstream": (yamlfile.dump_items, yamlfile.load_items),
}
"""Sections that are written without YAML's slow writer, and read without its slow parser where they are so."""


def to_plain(value: Any) -> Any:
    """The model as dicts, lists and scalars, as run.lock and every `--json` show it."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        told = ((name, getattr(value, name), needed) for name, needed in _fields(type(value)))
        return {
            name: to_plain(v)
            for name, v, needed in told
            if needed or (v is not None and v is not False and v != () and v != {})
        }
    if isinstance(value, datetime):
        return (value.astimezone(UTC) if is_time(value) else value).isoformat().replace("+00:00", "Z")
    if isinstance(value, (list, tuple)):
        return [to_plain(v) for v in value]
    if isinstance(value, dict):
        return {k: to_plain(v) for k, v in value.items()}
    return value


@functools.cache
def _fields(cls: type) -> tuple[tuple[str, bool], ...]:
    """Each name, and whether a reader could not do without."""
    missing = dataclasses.MISSING
    return tuple(
        (f.name, f.default is missing and f.default_factory is missing) for f in dataclasses.fields(cls)
    )


def decode(data: bytes, where: str = "run.lock") -> Lock:
    """The lock that `data` holds.

    Parameters
    ----------
    where: the file's name, for errors.

    Raises
    ------
    LockError: not YAML, hostile, of a newer schema, or a key that is missing or of the wrong type; the
        message names file and key path.
    """
    try:
        plain = _load(data)
    except yamlfile.BrokenYaml as error:
        raise LockError(f"{where}: not a readable lock: {error}") from error
    if not isinstance(plain, dict):
        raise LockError(f"{where}: not a lock: must be a mapping; got {type(plain).__name__}")
    _check_schema(plain, where)
    from . import convert

    try:
        lock = convert.to_lock(plain)
    except convert.Mismatch as error:
        message, place = _ERROR.fullmatch(str(error)).groups(default="")  # type: ignore[union-attr]
        at = _key_path(place, plain)
        raise LockError(f"{where}: at {at}: {message[:1].lower()}{message[1:300]}") from error
    for place, value in _unfit(lock):
        raise LockError(f"{where}: at {place}: must be a {_EXPECTED[type(value)]}; got {str(value)[:80]}")
    return lock


_EXPECTED = {datetime: "time with a zone, between 1900 and 9000", int: "number of 64 bits"}
_UNCHECKED = frozenset({"config", "origins", "seed"})
"""Fields that hold values of the user's, which may be any."""


def _unfit(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Times and numbers that no clock shows and nothing counts to: each, and its key path."""
    if isinstance(value, datetime):
        if not is_time(value):
            yield place, value
    elif isinstance(value, int):
        if not -(1 << 63) <= value < 1 << 63:
            yield place, value
    elif isinstance(value, tuple):
        for i, part in enumerate(value):
            yield from _unfit(part, f"{place}[{i}]")
    elif dataclasses.is_dataclass(value):
        for name, _ in _fields(value.__class__):
            if name not in _UNCHECKED:
                yield from _unfit(getattr(value, name), f"{place}.{name}".lstrip("."))


def is_time(moment: datetime) -> bool:
    """Whether it has a zone, and can be told in any other."""
    return moment.tzinfo is not None and 1900 <= moment.year <= 9000


_LINES = re.compile(rb"^(origins|upstream):\n((?:  .*\n)+|(?:- \{.*\n)+)", re.MULTILINE)


def _load(data: bytes) -> Any:
    """As YAML; sections of thousands of lines of one form without YAML's slow parser."""
    sections: dict[str, Any] = {}
    rest = b""
    if len(data) <= yamlfile.MAX_BYTES:
        end = 0
        for found in _LINES.finditer(data):
            name = found[1].decode()
            section = _ON_LINES[name][1](found[2])
            if section is not None and name not in sections:
                sections[name] = section
                rest, end = rest + data[end : found.start(2)], found.end()
        rest += data[end:]
    if sections:
        plain = yamlfile.load(rest)
        if isinstance(plain, dict) and sections.keys() <= plain.keys():
            return plain | sections
    return yamlfile.load(data)


_ERROR = re.compile(r"(.*?)(?: - at ((?:`key` in )?`\$[^`]*`))?", re.DOTALL)
_STEP = re.compile(r"\.(\w+)|\[(\d+|\.\.\.)\]")


def _key_path(place: str, plain: Any) -> str:
    """The place of a fault, e.g. "`$.source.files[...]`", with the real key for the dots."""
    from . import convert

    named, value, last = "", plain, ""
    for step in _STEP.finditer(place):
        name, index = step.groups()
        if index == "...":
            key = next((k for k, v in value.items() if not convert.fits(last, v)), None)
            named, value = f"{named}[{'...' if key is None else repr(key)}]", value.get(key)
        else:
            named, value, last = named + step[0], value[int(index) if index else name], name
    return named.lstrip(".") or "the top level"


def _check_schema(plain: dict[Any, Any], where: str) -> None:
    schema = plain.get("schema")
    if not isinstance(schema, int) or isinstance(schema, bool) or schema < 1:
        raise LockError(f"{where}: at schema: must be an int of at least 1; got {schema!r}")
    if schema > SCHEMA:
        writer = plain.get("runctx")
        wanted = writer if isinstance(writer, str) and re.fullmatch(r"[\w.+-]{1,40}", writer) else None
        raise LockError(
            f"{where}: written in schema {schema}; runctx {VERSION} reads up to {SCHEMA}",
            hint=f"pip install 'runctx>={wanted}'" if wanted else "pip install --upgrade runctx",
        )


def read(path: Path) -> Lock:
    """The lock in the folder or file `path`.

    Raises
    ------
    NoRunError: nothing there. LockError: as `decode`.
    """
    file = path if path.name == layout.LOCK else path / layout.LOCK
    if not os.path.isfile(file):  # nothing, a folder, or a pipe, which would block for ever
        if (missing := permissions.hint(file, os.R_OK)) is not None:
            raise LockError(f"{file}: cannot be read: Permission denied", missing)
        raise NoRunError(f"no run at {path}: no file {layout.LOCK}")
    try:
        with open(file, "rb") as stream:
            data = stream.read(yamlfile.MAX_BYTES + 1)
    except OSError as error:
        raise LockError(
            f"{file}: cannot be read: {error.strerror or error}", permissions.hint(file, os.R_OK)
        ) from error
    return decode(data, str(file))


def write(path: Path, lock: Lock, *, durable: bool = False) -> None:
    """Replace run.lock as a whole; of a sealed lock, also the copy that listings read."""
    plain = to_plain(lock)
    layout.write_atomically(path, _text(plain), durable=durable)
    if lock.status == "running":
        return
    found = os.stat(path)
    # what a copy cannot hold, e.g. keys that are no text, is read from the lock
    with contextlib.suppress(OSError, TypeError, ValueError, RecursionError):
        copy = _listed(plain)
        if _has_text_keys(copy):
            data = json.dumps([found.st_size, found.st_mtime_ns, copy]).encode()
            state = layout.RunFiles(path.parent).state
            state.mkdir(exist_ok=True)
            layout.write_atomically(state / layout.LOCK_COPY, data)


def _has_text_keys(value: Any) -> bool:
    """True if JSON keeps all keys what they are."""
    if isinstance(value, dict):
        return all(type(key) is str for key in value) and all(map(_has_text_keys, value.values()))
    return all(map(_has_text_keys, value)) if isinstance(value, list) else True


_LISTED = frozenset(
    (
        "schema",
        "id",
        "stage",
        "status",
        "started",
        "seconds",
        "parents",
        "config",
        "config_structure",
        "tasks",
        "metrics",
    )
)


def _listed(plain: dict[str, Any]) -> dict[str, Any]:
    """What a listing reads of a lock, without the long lists."""
    parts = {"command": ("host", "pid"), "source": ("commit", "dirty"), "error": ("type",)}
    told = {key: value for key, value in plain.items() if key in _LISTED}
    for section, keys in parts.items():
        if section in plain:
            told[section] = {key: plain[section][key] for key in keys if key in plain[section]}
    told["origins"] = {
        key: [{"reads": one["reads"]} for one in some if "reads" in one]
        for key, some in plain.get("origins", {}).items()
    }
    return told


_TOP_LEVEL = re.compile(rb"^([a-z_]+):", re.MULTILINE)


def read_sections(data: bytes, wanted: Collection[str]) -> dict[str, Any]:
    """Only some top-level keys of a lock, as plain data, without parsing the rest.

    A lock with many upstream runs is mostly text that a listing never shows; this is what keeps listing ten
    thousand runs quick. Nothing but the named sections is checked.

    Raises
    ------
    BrokenYaml: a wanted section is not YAML.
    """
    starts = [(m.start(), m[1].decode()) for m in _TOP_LEVEL.finditer(data)]
    ends = [*(start for start, _ in starts[1:]), len(data)]
    text = b"".join(data[start:end] for (start, key), end in zip(starts, ends, strict=False) if key in wanted)
    plain = _load(text)
    return plain if isinstance(plain, dict) else {}
