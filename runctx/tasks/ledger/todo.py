"""What is there to do? The tasks of one map, written once before the first worker starts."""

from __future__ import annotations

import json
import mmap
import os
import pickle
import struct
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import msgspec

from ... import layout
from ...errors import LedgerError
from ...layout import TaskFiles
from ..values import content
from ..values.labels import label as label_of
from ..values.serialization import pickled

KEY = 16
"""Characters of a key."""


class _Name(msgspec.Struct, frozen=True):
    key: str
    task: str


_PLACE = struct.Struct(f"<{KEY}sQQ")
"""Key of a task, and where in the payload it begins and ends."""


def keys_of(tasks: Sequence[Any]) -> list[str]:
    """A key for each task, from its content; the second of two equal tasks gets another.

    Raises
    ------
    LedgerError: a task cannot be pickled; names it.

    >>> keys_of([1, 2, 1])[:2] == keys_of([1, 2]), len(set(keys_of([1, 1])))
    (True, 2)
    """
    keys: list[str] = []
    try:
        keys.extend(map(content.key, tasks))
    except Exception as error:
        raise _refused(tasks[len(keys)], len(keys), error) from error
    if len(set(keys)) == len(keys):
        return keys
    seen: dict[str, int] = {}
    for i, key in enumerate(keys):
        n = seen[key] = seen.get(key, 0) + 1
        if n > 1:
            keys[i] = content.key((key, n))
    return keys


def write(
    files: TaskFiles,
    tasks: Sequence[Any],
    keys: Sequence[str],
    wanted: Collection[int] | None,
    label: Callable[[Any], str] = label_of,
) -> int:
    """Write all tasks by name, and those that are to be done as they are; returns how many these are.

    Parameters
    ----------
    wanted: numbers of the tasks to be done; None for all.
    label: short text of a task.

    Raises
    ------
    LedgerError: a task cannot be pickled; names it.
    """
    quoted = json.encoder.encode_basestring_ascii
    lines = [f'{{"key":"{key}","task":{quoted(label(t))}}}\n' for key, t in zip(keys, tasks, strict=True)]
    layout.write_atomically(files.todo, "".join(lines).encode())
    places, start = [], 0
    with open(files.payload, "wb", opener=_for_the_user_alone) as payload:
        for i in range(len(tasks)) if wanted is None else wanted:
            end = start + payload.write(_packed(tasks[i], i))
            places.append(_PLACE.pack(keys[i].encode(), start, end))
            start = end
    layout.write_atomically(files.index, b"".join(places))
    return len(places)


def _for_the_user_alone(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _packed(task: Any, number: int) -> bytes:
    try:
        return pickled(task)
    except Exception as error:
        raise _refused(task, number, error) from error


def _refused(task: Any, number: int, error: Exception) -> LedgerError:
    return LedgerError(
        f"task {number} ({label_of(task)}) cannot be sent to workers: {error}",
        hint="use paths or numbers as tasks; open files and connections inside the function",
    )


def read_names(files: TaskFiles) -> list[tuple[str, str]]:
    """Key and short text of every task, in order.

    Raises
    ------
    LedgerError: the file is missing or broken.
    """
    try:
        decoder = msgspec.json.Decoder(_Name)
        return [(name.key, name.task) for name in decoder.decode_lines(layout.read_regular(files.todo))]
    except OSError as error:
        raise LedgerError(f"{files.todo}: {error.strerror or error}") from error
    except ValueError as error:  # no JSON, no text, or other keys
        raise LedgerError(f"{files.todo}: {error}") from error


class Todo:
    """The tasks that are to be done, by number; read where they are needed."""

    def __init__(self, files: TaskFiles) -> None:
        self._index = _mapped(files.index)
        self._payload = _mapped(files.payload)

    def __len__(self) -> int:
        return len(self._index) // _PLACE.size

    def key(self, number: int) -> bytes:
        return self.place(number)[0]

    def keys(self) -> list[str]:
        return [key.decode() for key, *_ in _PLACE.iter_unpack(self._index)]

    def place(self, number: int) -> tuple[bytes, int, int]:
        """Key of a task, and where it lies."""
        return _PLACE.unpack_from(self._index, number * _PLACE.size)

    def task(self, start: int, end: int) -> Any:
        """The task that lies there, as it was given."""
        return pickle.loads(self._payload[start:end])  # noqa: S301 - written by this map a moment ago


def _mapped(path: Path) -> mmap.mmap | bytes:
    with open(layout.open_regular(path), "rb") as stream:
        if stream.seek(0, 2) == 0:
            return b""  # an empty file cannot be mapped
        return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
