"""Name the files of a run's folder, and write them.

The only module that spells a file name of a run's folder. Nothing here knows what the files mean.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import stat
import sys
from collections.abc import Iterable
from pathlib import Path

from . import permissions
from .errors import SaveDirError

LOCK = "run.lock"
CONFIG = "config.yaml"
LOG = "run.log"
NOTES = "run.notes"
INPUTS = "inputs"
OUTPUTS = "outputs.b3"
METRICS = "metrics"
TASKS = "tasks"
STATE = ".runctx"
SOURCE = "source"
ALIVE = "alive.lock"
LOCK_COPY = "lock.json"
"""In the state: what a listing needs of a sealed lock."""
TODO = "todo.jsonl"
CODE = "code"
"""Folder below the state of a map: a checkout for workers, in which links are lawful."""

ARTIFACTS = "mlruns"
"""Folder of a project in which MLflow keeps copies of files, run.lock among them: no runs lie there."""

FOLDERS = frozenset({INPUTS, METRICS, TASKS, SOURCE})
"""Names in save_dir that a user might choose as well."""

OWN = FOLDERS | {LOCK, CONFIG, LOG, NOTES, OUTPUTS, STATE}
"""Names in save_dir that are ours: whatever else lies there is what the user saved."""


class RunFiles:
    """The files of one run, by name.

    >>> files = RunFiles("results/train/251121-120000")
    >>> files.lock.as_posix()
    'results/train/251121-120000/run.lock'
    """

    __slots__ = ("root",)

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root)

    @property
    def lock(self) -> Path:
        """The sealed record."""
        return self.root / LOCK

    @property
    def config(self) -> Path:
        """The resolved configuration, loadable by OmegaConf."""
        return self.root / CONFIG

    @property
    def log(self) -> Path:
        return self.root / LOG

    def rank_log(self, number: int) -> Path:
        """What a rank says that runs on another machine than rank 0: two of them must not append to one file."""
        return self.root / f"run.rank{number}.log"

    @property
    def notes(self) -> Path:
        """Tags and a note, which may change after the record is sealed."""
        return self.root / NOTES

    @property
    def inputs(self) -> Path:
        """Folder of the manifests of hashed inputs."""
        return self.root / INPUTS

    def manifest(self, name: str, n: int = 1) -> Path:
        """The manifest of a hashed folder or glob; `n` tells inputs of the same name apart."""
        return self.inputs / (f"{name}.b3" if n == 1 else f"{name}-{n}.b3")

    @property
    def outputs(self) -> Path:
        """Manifest of what the user saved: `b3sum --check outputs.b3` verifies it."""
        return self.root / OUTPUTS

    @property
    def state(self) -> Path:
        """Machine state, safe to delete."""
        return self.root / STATE

    @property
    def alive(self) -> Path:
        """The liveness lock, held by the run's process."""
        return self.root / STATE / ALIVE

    def published(self, tracker: str) -> Path:
        """What is known of the run's view in a tracker."""
        return self.root / STATE / "trackers" / f"{tracker}.json"

    @property
    def source(self) -> Path:
        """Copies of project files that no commit holds."""
        return self.root / SOURCE


class TaskFiles:
    """The files of one `run.map`, by name: what is kept, and what is only needed while it goes on.

    >>> TaskFiles("results/train/251121-120000", "main").done("w1").as_posix()
    'results/train/251121-120000/tasks/main/done/w1.jsonl'
    """

    __slots__ = ("name", "root")

    def __init__(self, save_dir: str | os.PathLike[str], name: str) -> None:
        self.root, self.name = Path(save_dir), name

    @property
    def kept(self) -> Path:
        return self.root / TASKS / self.name

    @property
    def todo(self) -> Path:
        """Key and short text of every task, in order."""
        return self.kept / TODO

    def done(self, worker: str = "") -> Path:
        """The rows that one worker wrote; without a name, the folder of all."""
        return self.kept / "done" / f"{worker}.jsonl" if worker else self.kept / "done"

    def results(self, worker: str) -> Path:
        """The results of one worker that are not written in its rows."""
        return self.kept / "results" / f"{worker}.pickles"

    def manifest(self, n: int = 0) -> Path:
        """The manifest of what all tasks read; or with a number, of one folder that they read."""
        folder = self.root / INPUTS / TASKS
        return folder / self.name / f"{n}.b3" if n else folder / f"{self.name}.b3"

    def log(self, shift: str) -> Path:
        """What the workers of a shift on another machine said."""
        return self.kept / "logs" / f"{shift}.log"

    @property
    def state(self) -> Path:
        return self.root / STATE / TASKS / self.name

    def make_state(self) -> None:
        """The folders that a map needs while it goes on: nobody else's, for tasks and configuration hold secrets."""
        self.state.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.claims.mkdir(parents=True)

    @property
    def function(self) -> Path:
        """What to do with each task, pickled."""
        return self.state / "function.pickle"

    @property
    def payload(self) -> Path:
        """The tasks themselves, pickled one after another."""
        return self.state / "todo.pickles"

    @property
    def index(self) -> Path:
        """Key and place in `payload` of every task that is still to be done."""
        return self.state / "todo.index"

    @property
    def claims(self) -> Path:
        """Folder of the log of who has which tasks."""
        return self.state / "claims"

    def notes(self, worker: str = "") -> Path:
        """What one worker notes at its end; without a name, the folder of all."""
        return self.state / "notes" / f"{worker}.json" if worker else self.state / "notes"

    def shift(self, name: str) -> Path:
        """Where and how one shift works."""
        return self.state / "shifts" / f"{name}.json"

    @property
    def jobs(self) -> Path:
        """A file for each submission to a scheduler, with the ids it got."""
        return self.state / "jobs"

    @property
    def stop(self) -> Path:
        """A file that tells all workers to begin no further task."""
        return self.state / "stop"


def make_exclusively(wanted: Path, attempts: int = 10_000) -> Path:
    """Make a folder that nobody else has; on collision take the next suffix `-2`, `-3`, ...

    mkdir is atomic on every file system we know of, network ones included, so that a hundred processes
    that start in the same second get a hundred folders.

    Raises
    ------
    SaveDirError: the folder cannot be made, e.g. on a read-only or full disk.
    """
    try:
        wanted.parent.mkdir(parents=True, exist_ok=True)
        for n in range(1, attempts + 1):
            candidate = wanted if n == 1 else wanted.with_name(f"{wanted.name}-{n}")
            try:
                candidate.mkdir()
            except FileExistsError:
                continue
            return candidate
    except (OSError, ValueError) as error:  # ValueError: no name of a folder, e.g. "a\0b"
        raise SaveDirError(
            f"cannot make save_dir {str(wanted)!r}: {getattr(error, 'strerror', None) or error}",
            hint="set `results` in [tool.runctx], RUNCTX_RESULTS or Run(save_dir=...) to a writable place"
            + (f"; or, {missing}" if (missing := permissions.hint(wanted)) else ""),
        ) from error
    raise SaveDirError(
        f"cannot make save_dir {str(wanted)!r}: {attempts} folders of that name exist",
        hint="remove some, or use another `stage` or `save_dir`",
    )


def write_atomically(path: Path, data: bytes, *, durable: bool = False, mode: int = 0o666) -> None:
    """Replace `path` as a whole: a reader, or a kill at any moment, sees the old bytes or the new ones.

    Parameters
    ----------
    durable: also wait until the disk has them, so that they survive a power cut.
    mode: of the file, less what the user's mask takes away.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0)
    try:
        descriptor = os.open(temporary, flags, mode)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            if durable:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(temporary, path)
    except BaseException:
        try:
            os.unlink(temporary)
        except OSError:
            pass  # never made, or already in place
        raise


def open_regular(path: str | os.PathLike[str]) -> int:
    """A descriptor for reading; a pipe or a device in the place of a file blocks nobody.

    Raises
    ------
    OSError: it cannot be opened, or is no file.
    """
    # without waiting for who writes into a pipe
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", os.fspath(path))
    return descriptor


def read_regular(path: str | os.PathLike[str], start: int = 0, most: int = 1 << 30) -> bytes:
    """All of a file from there on, unless that is more than anything of ours ever has.

    Parameters
    ----------
    most: bytes.

    Raises
    ------
    OSError: it cannot be read, is no file, or has more.
    """
    with open(open_regular(path), "rb") as stream:
        size = os.fstat(stream.fileno()).st_size - start
        if size > most:
            raise OSError(errno.EFBIG, f"{size} bytes, more than the {most} that are read", os.fspath(path))
        stream.seek(start)
        return stream.read(max(0, size))


def find_link(save_dir: Path, names: Iterable[str] = OWN) -> str | None:
    """A link among our files and folders in a run's folder: whoever writes through it writes somewhere else.

    Parameters
    ----------
    names: those to look at, with all below them.
    """
    pending = [os.path.join(save_dir, name) for name in names]
    while pending:
        path = pending.pop()
        if os.path.islink(path):
            # submitit leaves links of this name, and never writes to one again
            if os.path.basename(path).startswith(".submission_file_"):
                continue
            return path
        if os.path.isdir(path) and os.path.basename(path) != CODE:
            with os.scandir(path) as entries:
                pending += [entry.path for entry in entries if entry.is_symlink() or entry.is_dir()]
    return None


def is_own(name: str) -> bool:
    """Whether a name in save_dir is ours, what a kill during `write_atomically` left behind included.

    >>> is_own("run.lock"), is_own(".run.lock.0a1b2c3d.tmp"), is_own("model.bin")
    (True, True, False)
    """
    return name in OWN or _OWN.fullmatch(name) is not None


_OWN = re.compile(r"\..+\.[0-9a-f]{8}\.tmp|run\.rank\d+\.log")


def cache_dir() -> Path:
    """The per-user folder of everything disposable: hash cache, index, snapshot memory.

    `RUNCTX_CACHE` first, then the platform's convention (XDG Base Directory specification on Linux); where that
    cannot be written to, as for a container's user without a home, a private folder for temporary files.
    """
    if override := os.environ.get("RUNCTX_CACHE"):
        return Path(override)
    return homeless_cache() or _cache_at_home() or Path(os.devnull)


def variables_of_home() -> dict[str, str]:
    """`HOME` for programs that do not start without, where the user has none."""
    try:
        Path.home()
    except RuntimeError:
        return {"HOME": os.fspath(cache_dir())}
    return {}


def _cache_at_home() -> Path | None:
    try:
        home = Path.home()
    except RuntimeError:  # no HOME, and no entry in passwd
        home = None
    if sys.platform == "darwin":
        return home and home / "Library/Caches/runctx"
    base = os.environ.get("XDG_CACHE_HOME")
    return Path(base, "runctx") if base else home and home / ".cache/runctx"


def _can_be_made(folder: Path) -> bool:
    for place in (folder, *folder.parents):
        if os.path.lexists(place):
            return place.is_dir() and os.access(place, os.W_OK | os.X_OK)
    return False


def homeless_cache() -> Path | None:
    """The user's own folder below $TMPDIR; None if a usual place can be had, or somebody else has taken this one."""
    usual = _cache_at_home()
    if os.environ.get("RUNCTX_CACHE") or (usual is not None and _can_be_made(usual)):
        return None
    import tempfile

    try:
        folder = Path(tempfile.gettempdir(), f"runctx-{os.getuid()}")
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        found = folder.lstat()
    except OSError:
        return None
    is_ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077
    return folder if is_ours else None


def find_run(path: Path) -> Path | None:
    """The save_dir that `path` is, or lies in; None if there is none."""
    for folder in (path, *path.parents):
        if os.path.isfile(folder / LOCK):  # a folder that cannot be looked into is no run's
            return folder
    return None


# -- where we are ------------------------------------------------------------------------------------------


def here() -> Path | None:
    """The current folder; None if it was deleted meanwhile: what is relative to it cannot be found."""
    try:
        return Path.cwd()
    except OSError:
        return None


def relative(path: Path, base: Path | None) -> str:
    """A path from `base` on, if it lies inside; `/` between its parts.

    >>> relative(Path("/a/b/c"), Path("/a")), relative(Path("/b"), Path("/a"))
    ('b/c', '/b')
    """
    inside = base is not None and path.is_relative_to(base.resolve())
    return path.relative_to(base.resolve()).as_posix() if inside and base is not None else path.as_posix()
