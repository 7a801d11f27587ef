"""Where do the event files of a run lie, and how do they grow, whatever kills who writes them?"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import blake3

from ... import layout, permissions
from ...errors import TrackingError
from ...notes import readable

if TYPE_CHECKING:
    from ...metrics.follower import Number
    from ...past.record import Record
    from ...settings import Settings
    from .events import Steps

FOLDER = "tensorboard"
"""In the project, beside its `pyproject.toml`, as MLflow's database is: runs of all stages lie below one folder, and
removing it removes the views and no results."""


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
        self._looked_at: dict[str, Steps] = {}

    def open(self, run: Record, ref: str | None) -> Events:
        return Events(Path(self.destination, _folder_name(run.id)), run, ref, self._looked_at)

    def remove(self, run: Record, ref: str | None) -> bool:
        folder = Path(self.destination, _folder_name(run.id))
        try:
            shutil.rmtree(folder)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise _unreachable(folder, error) from error
        return True

    def identity(self) -> str:
        marker = Path(self.destination, _MARKER)
        try:
            if not marker.exists():
                marker.parent.mkdir(parents=True, exist_ok=True)
                layout.write_atomically(marker, secrets.token_hex(8).encode())
            return f"{layout.read_regular(marker, most=100).hex()} {_WAY}"
        except OSError as error:
            raise _unreachable(marker.parent, error) from error


_MARKER = ".runctx"
"""A file in the folder of all; removed with it, and another in the next one."""
_WAY = 1
"""Of describing runs; counted up when it changes."""


class Events:
    """The event files of one run: one to which its numbers are appended, and one that describes it, which is replaced.

    `ref` is the name and the size of the first. What lies behind that size was written by one who was killed before
    the size was kept: it is cut off, for it will be sent again.
    """

    def __init__(self, folder: Path, run: Record, ref: str | None, looked_at: dict[str, Steps]) -> None:
        self._folder, self._looked_at = folder, looked_at
        self._may_go_on = run.status in ("running", "submitted")
        self._touched = False
        with self._reaching():
            folder.mkdir(parents=True, exist_ok=True)
            known = self._known(ref)
            self.fresh = known is None
            self._name, self._size, self._descriptor = known or self._begun()

    @property
    def ref(self) -> str:
        return f"{self._name}:{self._size}"

    def log(self, numbers: Sequence[Number]) -> None:
        self._touched = False  # until it has gone well
        ordered = sorted(numbers, key=lambda number: number.step)
        data = b"".join(map(self._events.of_number, ordered))
        with self._reaching():
            self._append(data)
        self._touched = True

    def describe(self, run: Record, parents: Mapping[str, str]) -> None:
        self._touched = True
        data = self._events.of_description(run.lock, run.status, readable(run.save_dir))
        # a reader that has come to the end of a file looks at another one, and not at what takes its place
        name = _DESCRIPTION.format(digest=blake3.blake3(data).hexdigest()[:16])
        with self._reaching():
            if not (self._folder / name).exists():
                self._put(name, data)
            self._remove_others(_DESCRIPTION.format(digest="*"), name)

    def close(self) -> None:
        try:
            if self._touched and not self._may_go_on:
                self._arrange()
        except OSError:
            pass  # all is there, and the next one to publish tries again
        finally:
            os.close(self._descriptor)

    # -- the file of the numbers ---------------------------------------------------------------------------

    def _known(self, ref: str | None) -> tuple[str, int, int] | None:
        """The file that `ref` tells of, cut to the size it tells; None if it is gone, or shorter."""
        told = _REF.fullmatch(ref or "")
        if told is None:
            return None
        name, size = told[1], int(told[2])
        self._remove_others(_NUMBERS, name)
        try:
            descriptor = self._opened(name)
        except OSError:
            return None
        if not os.fstat(descriptor).st_size >= size >= len(self._events.HEAD):  # of what is no file it is 0
            os.close(descriptor)
            return None
        os.ftruncate(descriptor, size)
        return name, size, descriptor

    def _begun(self) -> tuple[str, int, int]:
        self._remove_others(_NUMBERS, None)
        name, data = _new_name(), self._events.HEAD
        self._put(name, data)
        return name, len(data), self._opened(name)

    def _opened(self, name: str) -> int:
        return os.open(self._folder / name, os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)

    def _append(self, data: bytes) -> None:
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(self._descriptor, view) :]
        except OSError:  # a full disk: half a record would spoil all behind it
            os.ftruncate(self._descriptor, self._size)
            raise
        self._size += len(data)

    def _arrange(self) -> None:
        """Put all numbers in the order of their steps, in a new file, unless they are."""
        steps = self._looked_at.pop(self._name, None)
        if steps is None or steps.size > self._size:
            steps = self._events.Steps()
        path = self._folder / self._name
        steps.follow(layout.read_regular(path, steps.size)[: self._size - steps.size])
        if steps.go_back:
            self._name = _new_name()
            self._put(self._name, self._events.arranged(layout.read_regular(path)[: self._size]))
            path.unlink()  # who is killed before the new name is kept starts over
            steps.go_back = False
        if len(self._looked_at) >= _REMEMBERED:
            self._looked_at.clear()
        self._looked_at[self._name] = steps

    # -- the folder ----------------------------------------------------------------------------------------

    def _put(self, name: str, data: bytes) -> None:
        """As `layout.write_atomically`, by way of a name that TensorBoard takes for no event file."""
        temporary = self._folder / ".next.tmp"
        temporary.write_bytes(data)
        os.replace(temporary, self._folder / name)

    def _remove_others(self, pattern: str, name: str | None) -> None:
        for path in self._folder.glob(pattern):
            if path.name != name:
                path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise _unreachable(self._folder, error) from error

    @cached_property
    def _events(self) -> Any:
        try:
            from . import events
        except ImportError as error:
            raise TrackingError(
                f"TensorBoard's files cannot be written: {error}", hint="pip install 'runctx[tensorboard]'"
            ) from error
        return events


_NUMBERS = "events.out.tfevents.*.numbers.runctx"
_DESCRIPTION = "events.out.tfevents.0000000000.{digest}.description.runctx"
"""Comes first by name: TensorBoard's slow reader goes through the files of a folder once, and stays with the last."""
_REF = re.compile(r"(events\.out\.tfevents\.\d{10}\.\d{9}\.numbers\.runctx):(\d{1,18})", re.ASCII)
_REMEMBERED = 100
"""Runs of which a tracker knows whether their numbers are in order."""


def _new_name() -> str:
    seconds, nanoseconds = divmod(time.time_ns(), 10**9)
    return f"events.out.tfevents.{seconds:010}.{nanoseconds:09}.numbers.runctx"


def _folder_name(id: str) -> str:
    """The id itself, unless it cannot be the name of a folder: a lock may be anybody's.

    >>> _folder_name("train-251121-120000-1a2b3c"), _folder_name("../../etc")
    ('train-251121-120000-1a2b3c', '_etc-c72b3d01fbf0')
    """
    if re.fullmatch(r"\w[\w.@+=-]{0,99}", id):
        return id
    cleaned = re.sub(r"\W+", "_", id)[:60]
    return f"{cleaned}-{blake3.blake3(id.encode(errors='surrogatepass')).hexdigest()[:12]}"


def _unreachable(folder: Path, error: OSError) -> TrackingError:
    return TrackingError(
        f"{folder}: {error.strerror or error}",
        hint=permissions.hint(folder) or "TensorBoard's event files are written there",
    )
