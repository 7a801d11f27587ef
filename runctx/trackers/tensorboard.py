"""Show runs in TensorBoard: a folder of event files for each run, which TensorBoard finds and follows by itself.

The only module that imports tensorboard, and only when a file is written.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import re
import secrets
import shlex
import shutil
import stat
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import blake3

from .. import layout, permissions
from ..display.words import leaves
from ..errors import TrackingError
from ..notes import Notes, readable

if TYPE_CHECKING:
    from ..metrics.follower import Number
    from ..model import Lock
    from ..past.record import Record
    from ..settings import Settings

FOLDER = "tensorboard"
"""In the project, beside its `pyproject.toml`: removing it removes the views and no results."""
_MARKER = ".runctx"
"""A file in that folder; removed with it, and another in the next one."""
_WAY = 1
"""Of describing runs; counted up when it changes."""
_NUMBERS = "events.out.tfevents.*.numbers.runctx"
_DESCRIPTION = "events.out.tfevents.0000000000.{digest}.description.runctx"
"""Comes first by name: TensorBoard's slow reader goes through the files of a folder once, and stays with the last."""
_REF = re.compile(r"(events\.out\.tfevents\.\d{10}\.\d{9}\.numbers\.runctx):(\d{1,18})", re.ASCII)
_LONGEST = 2_000
"""Characters of one value that is shown; the run's folder has all of them."""


class TensorBoard:
    """A folder of event files for each run: `tensorboard --logdir tensorboard` in the project shows them all.

    TensorBoard knows single precision only. When it comes to a number at an earlier step than others of its metric,
    it forgets those: once a run has ended, its numbers are therefore put in the order of their steps.

    >>> from runctx.settings import Settings
    >>> TensorBoard(Settings(root=Path("/home/me/digits"))).destination
    '/home/me/digits/tensorboard'
    """

    name = "tensorboard"

    def __init__(self, wishes: Settings) -> None:
        self.destination = os.path.abspath(wishes.root / FOLDER)

    def open(self, run: Record, ref: str | None) -> EventFiles:
        try:
            import tensorboard.summary.writer.record_writer  # noqa: F401
        except ImportError as error:
            raise TrackingError(
                f"TensorBoard's files cannot be written: {error}", hint="pip install 'runctx[tensorboard]'"
            ) from error
        return EventFiles(Path(self.destination, _folder_name(run.id)), run, ref)

    def remove(self, run: Record, ref: str | None) -> bool:
        folder = Path(self.destination, _folder_name(run.id))
        with _reaching(folder):
            found = folder.exists()
            if found:
                shutil.rmtree(folder)
        return found

    def identity(self) -> str:
        marker = Path(self.destination, _MARKER)
        with _reaching(marker.parent):
            if not marker.exists():
                marker.parent.mkdir(parents=True, exist_ok=True)
                layout.write_atomically(marker, secrets.token_hex(8).encode())
            return f"{layout.read_regular(marker, most=100).hex()} {_WAY}"


class EventFiles:
    """The event files of one run: one to which its numbers are appended, and one that describes it, which is replaced.

    `ref` is the name and the size of the first. If the file has another size, whoever wrote it was killed before the
    size was kept: then the view is fresh, and a new file is written from the journals.
    """

    def __init__(self, folder: Path, run: Record, ref: str | None) -> None:
        self._folder = folder
        self._ended = run.status not in ("running", "submitted")
        self._changed = False
        known = _REF.fullmatch(ref or "")
        with _reaching(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self.fresh = known is None or _size(folder / known[1]) != int(known[2])
            if known is None or self.fresh:
                self._replace_numbers(_record({"file_version": "brain.Event:2"}))
            else:
                self._name, self._size = known[1], int(known[2])
                self._remove_others(_NUMBERS, self._name)

    @property
    def ref(self) -> str:
        return f"{self._name}:{self._size}"

    def log(self, numbers: Sequence[Number]) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        data = b"".join(
            _record(
                {"wall_time": number.moment / 1000, "step": number.step},
                Summary(value=[Summary.Value(tag=number.name, simple_value=number.value)]),
            )
            for number in sorted(numbers, key=lambda number: number.step)
        )
        flags = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        with _reaching(self._folder), open(os.open(self._folder / self._name, flags), "wb") as stream:
            stream.write(data)
        self._size += len(data)
        self._changed = True

    def describe(self, run: Record, parents: Mapping[str, str]) -> None:
        data = b"".join(_description(run.lock, run.status, readable(run.save_dir)))
        # a reader that has come to the end of a file looks at another one, and not at what takes its place
        name = _DESCRIPTION.format(digest=blake3.blake3(data).hexdigest()[:16])
        with _reaching(self._folder):
            if not (self._folder / name).exists():
                self._put(name, data)
            self._remove_others(_DESCRIPTION.format(digest="*"), name)
        self._changed = True

    def close(self) -> None:
        if self._ended and self._changed:
            with contextlib.suppress(OSError):  # all is there, and the next one to publish tries again
                self._sort()

    def _sort(self) -> None:
        """Put all numbers in the order of their steps, in a new file, unless they are."""
        from tensorboard.compat.proto.event_pb2 import Event

        data, start = layout.read_regular(self._folder / self._name), 0
        events: list[tuple[int, bytes]] = []
        latest: dict[str, int] = {}
        in_order = True
        while start < len(data):
            # a record: the length of its content, a checksum of that, the content, a checksum
            content = start + 12
            end = content + int.from_bytes(data[start : start + 8], "little")
            event = Event.FromString(data[content:end])
            step = event.step if events else -(1 << 63)  # the head stays first
            events.append((step, data[start : end + 4]))
            for value in event.summary.value:
                in_order &= step >= latest.get(value.tag, step)
                latest[value.tag] = step
            start = end + 4
        if not in_order:
            self._replace_numbers(b"".join(one for _, one in sorted(events, key=lambda one: one[0])))

    def _replace_numbers(self, data: bytes) -> None:
        """Whoever is killed before the new name is kept starts over."""
        seconds, nanoseconds = divmod(time.time_ns(), 10**9)
        self._name = f"events.out.tfevents.{seconds:010}.{nanoseconds:09}.numbers.runctx"
        self._size = len(data)
        self._put(self._name, data)
        self._remove_others(_NUMBERS, self._name)

    def _put(self, name: str, data: bytes) -> None:
        """As `layout.write_atomically`, by way of a name that TensorBoard takes for no event file."""
        temporary = self._folder / ".next.tmp"
        temporary.write_bytes(data)
        os.replace(temporary, self._folder / name)

    def _remove_others(self, pattern: str, name: str) -> None:
        for path in self._folder.glob(pattern):
            if path.name != name:
                path.unlink(missing_ok=True)


@contextlib.contextmanager
def _reaching(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise TrackingError(
            f"{folder}: {error.strerror or error}",
            hint=permissions.hint(folder) or "TensorBoard's event files are written there",
        ) from error


def _size(path: Path) -> int | None:
    """None of what is no file."""
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def _folder_name(id: str) -> str:
    """The id itself, unless it cannot be the name of a folder: a lock may be anybody's.

    >>> _folder_name("train-251121-120000-1a2b3c"), _folder_name("../../etc")
    ('train-251121-120000-1a2b3c', '_etc-c72b3d01fbf0')
    """
    if re.fullmatch(r"\w[\w.@+=-]{0,99}", id):
        return id
    cleaned = re.sub(r"\W+", "_", id)[:60]
    return f"{cleaned}-{blake3.blake3(id.encode(errors='surrogatepass')).hexdigest()[:12]}"


# -- what the files hold -----------------------------------------------------------------------------------


def _record(event: Mapping[str, Any], summary: Any = None) -> bytes:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.record_writer import RecordWriter

    buffer = io.BytesIO()
    RecordWriter(buffer).write(Event(**event, summary=summary).SerializeToString(deterministic=True))
    return buffer.getvalue()


def _description(run: Lock, status: str, notes: Notes) -> Iterator[bytes]:
    """What is to be read of the run on the page TEXT, and its parameters for the page HPARAMS."""
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2
    from tensorboard.plugins.hparams.summary_v2 import hparams_pb
    from tensorboard.plugins.text.summary_v2 import text_pb

    started = run.started.timestamp()
    summaries = [text_pb("run", _table("", "", _facts(run, status, notes)))]
    if run.config:
        rows = [(key, str(value)) for key, value in leaves(run.config)]
        summaries.append(text_pb("config", _table("key", "value", rows)))
    if run.error is not None:
        lines = f"{run.error.type}: {run.error.message}\n\n{run.error.traceback}".splitlines()
        summaries.append(text_pb("error", "\n".join(f"    {line}" for line in lines)))
    if run.config:
        parameters = {
            key: value if _is_number(value) else str(value)[:_LONGEST] for key, value in leaves(run.config)
        }
        states = {"running": "STATUS_RUNNING", "submitted": "STATUS_RUNNING", "done": "STATUS_SUCCESS"}
        end = plugin_data_pb2.SessionEndInfo(
            status=api_pb2.Status.Value(states.get(status, "STATUS_FAILURE")),
            end_time_secs=(run.resumed or run.started).timestamp() + (run.seconds or 0),
        )
        data = plugin_data_pb2.HParamsPluginData(session_end_info=end)
        value = Summary.Value(
            tag=metadata.SESSION_END_INFO_TAG,
            metadata=metadata.create_summary_metadata(data),
            tensor=metadata.NULL_TENSOR,
        )
        summaries += [
            hparams_pb(parameters, trial_id=run.id, start_time_secs=started),
            Summary(value=[value]),
        ]
    yield _record({"file_version": "brain.Event:2"})
    for summary in summaries:
        yield _record({"wall_time": started}, summary)


def _is_number(value: Any) -> bool:
    return isinstance(value, (bool, int, float)) and abs(value) <= 1 << 53 and math.isfinite(value)


def _facts(run: Lock, status: str, notes: Notes) -> Iterator[tuple[str, str]]:
    source = run.source
    yield "id", run.id
    yield "status", status
    for tag in notes.tags:
        yield "tag", tag
    yield "note", notes.note
    yield "started", f"{run.started:%Y-%m-%d %H:%M:%S %Z}"
    yield "seconds", "" if run.seconds is None else f"{run.seconds:.1f}"
    yield "folder", run.save_dir
    yield "command", shlex.join(run.command.argv)
    yield "host", run.command.host
    if source.commit:
        yield "commit", source.commit + " (the work tree differed from HEAD)" * source.dirty
    yield "branch", source.branch or ""
    yield "repository", source.repository or ""
    yield "seed", "" if run.seed is None else str(run.seed)
    for parent in run.parents:
        yield "parent", parent
    for data in run.inputs:
        yield "input", f"{data.path}: {data.digest or 'not hashed'}"
    for entry in run.tasks:
        yield f"tasks of {entry.name}", f"{entry.done} of {entry.total} done, {entry.failed} failed"
    for omission in run.omissions:
        yield "left out", f"{omission.what}: {omission.why}"


def _table(left: str, right: str, rows: Iterable[tuple[str, str]]) -> str:
    """In Markdown; what a cell holds is shown as it is."""
    lines = [f"| {left} | {right} |", "|---|---|"]
    cells = ((name[:_LONGEST].translate(_MARKS), value[:_LONGEST].translate(_MARKS)) for name, value in rows)
    return "\n".join([*lines, *(f"| {name} | {value} |" for name, value in cells if value)])


_MARKS = {ord(letter): f"&#{ord(letter)};" for letter in "\\`*_{}[]()<>#!|&~"} | {10: " ", 13: " "}
