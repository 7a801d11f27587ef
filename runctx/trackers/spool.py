"""Announce runs to the shipper, and start one if there is none.

This is what the user's process loads: it writes a small file, looks at a lock, and seldom starts a process. One shipper
serves all runs of a project on a host; it is in `shipper`.
"""

from __future__ import annotations

import json
import os
import platform
import re
import secrets
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from blake3 import blake3

from .. import layout, liveness, places
from ..errors import TrackingError
from ..model import VERSION
from ..redact import Redactor

if TYPE_CHECKING:
    from ..settings import Settings


def announce(save_dir: Path, wishes: Settings, trackers: Sequence[str]) -> None:
    """Have the views of a run kept up to date until it has ended; a run that is neither logged nor published has none.

    Parameters
    ----------
    trackers: their names; may be empty where only the machine is to be looked at.

    Raises
    ------
    OSError: there is no place for it. TrackingError: no process can be started here.
    """
    spool = Spool.of(wishes)
    spool.add(Note(save_dir=save_dir, root=wishes.root, trackers=tuple(trackers)))
    attend(wishes)


def attend(wishes: Settings) -> None:
    """Start a shipper for what was announced, unless one is there.

    Raises
    ------
    OSError, TrackingError: none can be started.
    """
    _reap()
    spool = Spool.of(wishes)
    if time.monotonic() - _started.get(spool.folder, -BEGINNING) < BEGINNING:
        return
    if not spool.folder.is_dir():
        return  # nothing could be announced, and that was said
    # a shipper that is about to leave looks once more when its lock is free: it has seen what was announced by now
    if not liveness.is_held(spool.lock):
        _start(spool, wishes)
        _started[spool.folder] = time.monotonic()


# -- what is on disk ---------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Note:
    """One announcement."""

    save_dir: Path
    root: Path
    """Of the project, whose settings the shipper reads for itself: an address may hold credentials."""
    trackers: tuple[str, ...]


class Spool:
    """What was announced to one shipper; private, for it tells paths.

    Parameters
    ----------
    folder: of its files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lock = folder / "shipper.lock"
        """Held by the shipper."""
        self.log = folder / "log"
        """What the shipper said."""

    @classmethod
    def of(cls, wishes: Settings) -> Spool:
        """The one for runs of a project that are shown at the same place, on this host."""
        told = (  # all that a shipper takes from settings and environment; without credentials
            VERSION,
            sys.executable,
            wishes.root,
            wishes.tracking,
            Redactor().text(places.tracking_uri(wishes)),
            wishes.experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME", ""),
            wishes.max_artifact_size,
            wishes.system_metrics,
        )
        name = blake3(repr(told).encode("utf-8", "backslashreplace")).hexdigest(length=4)
        host = re.sub(r"[^\w.-]", "_", platform.node()) or "localhost"
        return cls(layout.cache_dir() / "shipper" / host / name)

    def add(self, note: Note) -> None:
        """Put down an announcement, under a name of its own: who has read another one does not remove it.

        Raises
        ------
        OSError: there is no place for it.
        """
        folder = self.folder / "runs"
        if not folder.is_dir():
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.mkdir(exist_ok=True)
        plain = {"save_dir": str(note.save_dir), "root": str(note.root), "trackers": note.trackers}
        name = f"{blake3(os.fsencode(note.save_dir)).hexdigest(length=4)}-{secrets.token_hex(4)}.json"
        layout.write_atomically(folder / name, json.dumps(plain).encode())

    def announced(self) -> list[Path]:
        """The files of all announcements."""
        return sorted((self.folder / "runs").glob("[!.]*.json"))

    def read(self, file: Path) -> Note | None:
        """What it announces; None if it is gone, or no announcement."""
        try:
            plain = json.loads(layout.read_regular(file, most=1 << 20))
            trackers = tuple(str(name) for name in plain["trackers"])
            return Note(save_dir=Path(plain["save_dir"]), root=Path(plain["root"]), trackers=trackers)
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return None

    def set_aside(self, file: Path) -> None:
        """Leave it to a later shipper."""
        (self.folder / "aside").mkdir(exist_ok=True)
        os.replace(file, self.folder / "aside" / file.name)
        os.utime(self.folder / "aside" / file.name)

    def aside(self) -> list[Path]:
        """What was set aside, the longest ago first."""
        found = (self.folder / "aside").glob("[!.]*.json")
        return sorted(found, key=lambda file: file.stat().st_mtime)

    def recall(self, file: Path) -> Path:
        """Back among the announcements."""
        return file.rename(self.folder / "runs" / file.name)


# -- starting it -------------------------------------------------------------------------------------------

_BOOT = """
import os, sys
os.closerange(3, os.sysconf("SC_OPEN_MAX"))
if os.fork():
    os._exit(0)
package, spool, *paths = sys.argv[1:]
sys.path.insert(0, package)
from runctx.trackers import shipper
sys.path.remove(package)
sys.path.extend(path for path in paths if path not in sys.path)
shipper.main(spool)
"""
"""The user's process waits for no child: the one it starts forks another, which belongs to nobody. Modules of hers are
found after all others, for she may have a tracker there, but also an `email.py`."""

_NOT_FOR_IT = ("PYTHONWARNINGS", "PYTHONDEVMODE", "PYTHONINSPECT", "PYTHONSTARTUP", "PYTHONBREAKPOINT")
"""Variables with which the user watches her own program."""

BEGINNING = 1.0
"""Seconds after its start in which no other is started: until it holds the lock, that would be seen to be free."""

_started: dict[Path, float] = {}
"""Folder of a spool -> when this process started a shipper for it."""
_children: list[int] = []
"""Processes that are to be waited for; they end within milliseconds."""


def _start(spool: Spool, wishes: Settings) -> None:
    python = sys.executable or ""
    # a frozen application, or an interpreter inside another program, would start that program instead
    if getattr(sys, "frozen", False) or not os.path.basename(python).startswith(("python", "pypy")):
        raise TrackingError(
            f"not a Python interpreter, which could keep views up to date: {python!r}",
            hint="`runctx publish` brings them up to date",
        )
    environ = {name: value for name, value in os.environ.items() if name not in _NOT_FOR_IT}
    for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        environ.setdefault(threads, "1")
    if environ.get("MLFLOW_TRACKING_URI") and not wishes.tracking_uri:
        environ["MLFLOW_TRACKING_URI"] = places.tracking_uri(wishes)
    package = Path(__file__).parents[2]
    paths = [os.path.abspath(path) for path in sys.path if path]
    log = os.open(spool.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    # not by subprocess: a child that is still there when its object goes is a ResourceWarning in the user's process
    try:
        child = os.posix_spawn(
            python,
            [python, "-P", "-c", _BOOT, str(package), str(spool.folder), *paths],
            environ,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, log, 1),
                (os.POSIX_SPAWN_DUP2, log, 2),
            ],
            setsid=True,
            setsigmask=(),
        )
    finally:
        os.close(log)
    _children.append(child)


def _reap() -> None:
    for child in _children[:]:
        try:
            ended, _ = os.waitpid(child, os.WNOHANG)
        except (
            ChildProcessError
        ):  # this process was forked from the one that started it, or waits for no child
            ended = child
        if ended:
            _children.remove(child)
