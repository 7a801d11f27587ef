"""Find past runs: all of them, ten thousand quickly, and one by its name.

The folders are the truth and are walked each time; only a lock that has not changed is not read again (`cache`).
"""

from __future__ import annotations

import glob
import os
import stat
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from .. import layout, lock, permissions, settings
from ..base import BaseRun
from ..config.messages import nearest
from ..errors import NoRunError, RunctxWarning
from ..liveness import is_alive
from ..model import Lock
from ..tasks import attached
from . import cache
from .cache import Entry, row_of
from .record import Record, left_behind, row_now
from .row import Row, plain_config, read_row
from .runs import Runs

if TYPE_CHECKING:
    from .comparison import Comparison

_LOCK, _NOTES = (os.fsencode(os.sep + name) for name in (layout.LOCK, layout.NOTES))
_COPIES = os.fsencode(layout.ARTIFACTS)


def runs(
    pattern: str | os.PathLike[str] | None = None,
    *,
    stage: str | None = None,
    where: str | None = None,
    like: BaseRun | str | os.PathLike[str] | None = None,
) -> Runs:
    """Past runs, and those that are running now, the newest first.

    Parameters
    ----------
    pattern: a folder, searched with all its subfolders (but not below a run's folder, nor in hidden folders,
        nor through links); or a glob of such folders; default: the project's results folder.
    stage: its exact name: only runs of this stage.
    where: an expression, e.g. `config.lr < 0.1 and metrics.acc.max > 0.9`, as for `Runs.where`.
    like: a run, or its name as `find` takes it: only runs whose configuration has the same keys and types.

    Raises
    ------
    NoRunError: `pattern` is no glob, and there is no such folder; or there is no run `like`.
    LockError: the lock of that run is broken.
    QueryError: the expression cannot be read.
    SettingsError: the project's settings are wrong.

    >>> import tempfile
    >>> from runctx import Run
    >>> folder = tempfile.mkdtemp()
    >>> for lr in (0.1, 0.2):
    ...     with Run({"lr": lr}, save_dir=f"{folder}/a", console=False):
    ...         pass
    >>> [run.cfg.lr for run in runs(folder)]
    [0.2, 0.1]
    >>> [run.cfg.lr for run in runs(folder, where="config.lr > 0.1")]
    [0.2]
    """
    entries = _entries(_roots(pattern))
    hints: tuple[str, ...] = ()
    if stage is not None:
        of_stage = [entry for entry in entries if row_of(entry).stage == stage]
        if entries and not of_stage:
            alike = _meant(stage, map(row_of, entries))
            hints = tuple(f"no run is of stage {stage!r}; {hint}" for hint in alike)
        entries = of_stage
    if like is not None:
        other = load(like).lock
        entries = [entry for entry in entries if _is_alike(row_of(entry), other)]
    many = Runs(sorted(entries, key=lambda entry: (entry.moment, entry.path), reverse=True), hints)
    return many if where is None else many.where(where)


def _entries(roots: Sequence[bytes]) -> list[Entry]:
    """All runs in and below these folders, as they are now."""
    known = cache.load(layout.cache_dir(), roots)
    entries: dict[bytes, Entry] = {}
    fresh: list[Entry] = []
    closed: list[bytes] = []
    for root in roots:
        for folder, found in _walk(root, closed):
            held = known.get(folder)
            if held is None or held.signature != cache.signature(*found):
                held = _read(folder, found)
                if held is None:
                    continue
                if held.packed and cache.is_settled(*found):
                    fresh.append(held)
            entries[folder] = held
    if closed:
        _warn_of(closed, roots)
    cache.save(layout.cache_dir(), fresh, [folder for folder in known if folder not in entries])
    return [_with_process(entry) if entry.running else entry for entry in entries.values()]


def _warn_of(closed: Sequence[bytes], roots: Sequence[bytes]) -> None:
    """Warn of folders that cannot be read; that the first one searched cannot be is an error."""
    first = Path(os.fsdecode(closed[0]))
    hint = permissions.hint(first / layout.LOCK, os.R_OK) or permissions.hint(first, os.R_OK)
    if closed[0] in roots:
        raise NoRunError(f"{first} cannot be read: Permission denied", hint)
    which = f"folder {first}" if len(closed) == 1 else f"{len(closed)} folders, the first of them {first},"
    message = f"{which} cannot be read: runs in there are left out\nhint: {hint}"
    warnings.warn(RunctxWarning(message), stacklevel=4)


def _is_alike(row: Row, other: Lock) -> bool:
    """True if the configurations have the same keys and types."""
    if row.structure is not None and other.config_structure is not None:
        return row.structure == other.config_structure
    # one was written before locks said it: what both have is values
    theirs = plain_config(row.path) if row.status != "broken" else None
    if theirs is None:
        return False
    from ..config import structure_digest

    return structure_digest(theirs) == structure_digest(other.config)


def searched(pattern: str | os.PathLike[str] | None = None) -> str:
    """The folder, or the glob of folders, that `runs(pattern)` looks in; absolute."""
    if pattern is None:
        if (task := attached.current.get()) is not None:  # its worker may have been started anywhere
            return os.fspath(task.parent.results)
        wishes = settings.load()
        return os.path.abspath(wishes.root / wishes.results)
    return os.path.abspath(os.path.expanduser(os.fspath(pattern)))


def _roots(pattern: str | os.PathLike[str] | None) -> list[bytes]:
    """The folders that are searched: of a glob those that match, without those inside of others."""
    given = searched(pattern)
    if pattern is None:
        return [os.fsencode(given)]
    if os.path.basename(given) == layout.LOCK:
        given = os.path.dirname(given)
    if os.path.isdir(given):
        return [os.fsencode(given)]
    if not glob.has_magic(given):
        raise NoRunError(
            f"no folder {given}",
            hint="give a folder of runs, or a glob such as 'results/train*'; `runctx ls --stage NAME` lists a stage",
        )
    matches = (path for path in glob.iglob(given, recursive=True) if os.path.isdir(path))
    found: dict[str, bytes] = {}
    for real, path in sorted((os.path.realpath(path), path) for path in matches):
        if found.keys().isdisjoint((real, *map(str, Path(real).parents))):
            found[real] = os.fsencode(path)
    return list(found.values())


def _walk(root: bytes, closed: list[bytes]) -> Iterator[tuple[bytes, list[os.stat_result]]]:
    """Each run's folder in or below `root`, with what the file system says of its lock and its notes.

    Parameters
    ----------
    closed: where folders that this user may not read are added.
    """
    pending = [root]
    while pending:
        folder = pending.pop()
        try:
            found = _stats(folder)
            if stat.S_ISREG(found[0].st_mode):
                yield folder, found
                continue
        except PermissionError:
            closed.append(folder)
            continue
        except OSError:
            pass
        try:
            with os.scandir(folder) as entries:
                pending += [
                    entry.path
                    for entry in entries
                    if not entry.name.startswith(b".")
                    and entry.name != _COPIES
                    and entry.is_dir(follow_symlinks=False)
                ]
        except PermissionError:
            closed.append(folder)
        except OSError:
            continue  # removed meanwhile


def _stats(folder: bytes) -> list[os.stat_result]:
    """Of a run's lock, and of its notes if there are any; raises OSError if there is no lock."""
    found = [os.stat(folder + _LOCK)]
    with suppress(OSError):  # most runs have none
        found.append(os.stat(folder + _NOTES))
    return found


def _read(folder: bytes, found: list[os.stat_result]) -> Entry | None:
    row = read_row(os.fsdecode(folder))
    if row.started is None:
        # what is wrong with it may pass: looked at again each time
        gone = not os.path.exists(folder + _LOCK)
        return None if gone else Entry(folder, b"", found[0].st_mtime, False, b"", row)
    signature, moment = cache.signature(*found), row.started.timestamp()
    return Entry(folder, signature, moment, row.status == "running", cache.pack(row), row)


def _with_process(entry: Entry) -> Entry:
    """The entry of a run that says running: it is, has ended since its lock was read, or has crashed."""
    row, folder = row_of(entry), os.fsdecode(entry.path)
    if is_alive(folder, row.host, row.pid):
        return entry
    try:
        unchanged = cache.signature(*_stats(entry.path)) == entry.signature
    except OSError:
        unchanged = False
    return entry._replace(
        row=replace(row, status=left_behind(folder, {(row.host, row.pid)})) if unchanged else row_now(folder)
    )


def find(which: BaseRun | str | os.PathLike[str], results: Path | None = None, *, done: bool = False) -> Path:
    """The folder of the run that is named. Whoever takes the name of a run asks here.

    Parameters
    ----------
    which: a run; a path in a run's folder; or, of the runs in the project's results folder: `latest` (also `-`), an
        id, the exact name of a stage, which means its newest run, or the beginning of one id only, its stage and more.
    results: to look in, in place of the results folder of the project.
    done: whether `latest` and a stage mean the newest run that is done.

    Raises
    ------
    NoRunError: none is called so, or several are.
    """
    if isinstance(which, BaseRun):
        return which.save_dir
    name = os.fspath(which)
    given = Path(os.path.abspath(os.path.expanduser(name)))
    # in a run's folder, `latest` is still a name
    if (os.sep in name or os.path.lexists(given)) and (folder := layout.find_run(given)):
        return folder
    rows = _sound_rows(results)
    if name in ("latest", "-"):
        return Path(_newest(rows, None, done, results).path)
    if any(row.stage == name for row in rows):
        return Path(_newest(rows, name, done, results).path)
    called = [row for row in rows if row.id == name] or [
        # as long as the stage at least: `fit` means no run of stage `fit_all`
        row
        for row in rows
        if row.id.startswith(name) and len(name) > len(row.stage)
    ]
    if len(called) == 1:
        return Path(called[0].path)
    if called:
        some = ", ".join(row.path if row.id == name else row.id for row in called[:5])
        more = ", …" if len(called) > 5 else ""
        hint = "give more letters of the id, or a path"
        raise NoRunError(f"{len(called)} runs are called {name!r}: {some}{more}", hint=hint)
    if os.sep in name:
        if (no_right := permissions.hint(given, os.R_OK)) is not None:
            raise NoRunError(f"{given} cannot be read: Permission denied", no_right)
        wrong = f"no {layout.LOCK} in it or above" if os.path.lexists(given) else "no such file or folder"
        raise NoRunError(f"no run at {given}: {wrong}", hint="`runctx ls` lists all runs")
    broken = [row for row in _rows(results) if row.status == "broken"]
    path = next((row.path for row in broken if name.startswith(f"{row.stage}-{row.id}")), None)
    hint = f"the lock of {path} cannot be read" if path else _stages(name, rows)
    raise NoRunError(f"no run in {searched(results)} is called {name!r}", hint=hint)


def latest(stage: str | None = None, cls: type | None = None) -> Record:
    """The newest run of a stage that is done.

    Parameters
    ----------
    stage: its exact name; default: whatever the stage.
    cls: dataclass that `cfg` should be an instance of.

    Raises
    ------
    NoRunError: none is done; says what there is.
    """
    return load(_newest(_sound_rows(), stage, done=True).path, cls)


def load(which: BaseRun | str | os.PathLike[str], cls: type | None = None) -> Record:
    """A past run by its name.

    Parameters
    ----------
    which: as `find` takes it: a path in the run's folder, its id, `latest`, a stage ...
    cls: dataclass that `cfg` should be an instance of, with keys that `+key=...` had added as attributes; default:
        a read-only DictConfig.

    Raises
    ------
    NoRunError: there is no such run. LockError: its lock is broken; names file and key.
    ConfigError: the configuration does not fit `cls`; names the key.

    >>> import tempfile
    >>> from runctx import Run
    >>> folder = tempfile.mkdtemp()
    >>> with Run({"lr": 0.1}, save_dir=f"{folder}/first", console=False) as run:
    ...     _ = (run.save_dir / "model.txt").write_text("...")
    >>> past = load(f"{folder}/first/model.txt")
    >>> past.status, past.cfg.lr, (past.save_dir / "model.txt").read_text()
    ('done', 0.1, '...')
    """
    folder = find(which)
    record = Record(folder, lock.read(folder), cls)
    if cls is not None:
        record.cfg  # noqa: B018 - what does not fit is said here, not at first use
    return record


def compare(*runs: BaseRun | str | os.PathLike[str]) -> Comparison:
    """What differs between these runs.

    Parameters
    ----------
    runs: two or more, live or past, or their names as `Run.load` takes them.

    Raises
    ------
    NoRunError: there is no such run. LockError: its lock is broken. QueryError: there are less than two.

    >>> import tempfile
    >>> from runctx import Run
    >>> with Run({"lr": 0.1, "n": 1}, save_dir=f"{tempfile.mkdtemp()}/a", console=False) as a:
    ...     a.log_async(acc=0.8)
    >>> with Run({"lr": 0.2, "n": 1}, save_dir=f"{tempfile.mkdtemp()}/b", console=False) as b:
    ...     b.log_async(acc=0.9)
    >>> found = compare(a, b)
    >>> found.to_dict()["differs"]["config"], found.to_dict()["equal"]["config"]
    ({'lr': [0.1, 0.2]}, {'n': 1})
    >>> [(line.name, line.values, line.best) for line in found.differing if line.section == "metrics"]
    [('metrics.acc', (0.8, 0.9), (1,))]
    """
    from .comparison import Comparison

    return Comparison([run if isinstance(run, BaseRun) else load(run) for run in runs])


def _sound_rows(results: Path | None = None) -> list[Row]:
    """Of the runs whose locks can be read, the newest first."""
    return [row for row in _rows(results) if row.status != "broken"]


def _rows(results: Path | None) -> tuple[Row, ...]:
    return runs(results).rows if results is None or results.is_dir() else ()


def _newest(rows: Sequence[Row], stage: str | None, done: bool, results: Path | None = None) -> Row:
    called = [row for row in rows if stage in (None, row.stage)]
    for row in called:
        if row.status == "done" or not done:
            return row
    there, of_stage = searched(results), "" if stage is None else f" of stage {stage!r}"
    if called:
        raise NoRunError(
            f"no run{of_stage} in {there} is done: the newest, {called[0].id}, is {called[0].status}",
            hint="give its id to take it all the same",
        )
    if rows:
        raise NoRunError(f"no run{of_stage} in {there}", hint=_stages(stage or "", rows))
    raise NoRunError(f"no runs yet in {there}", hint="`runctx ls FOLDER` looks elsewhere")


def _stages(name: str, rows: Iterable[Row]) -> str:
    """A hint with the stages that are called alike, else with how to list all."""
    return next(_meant(name, rows), "`runctx ls` lists all runs; name a run elsewhere by its folder")


def _meant(name: str, rows: Iterable[Row]) -> Iterator[str]:
    stages = list(dict.fromkeys(row.stage for row in rows))
    if alike := [stage for stage in stages if stage.startswith(name)] or nearest(name, stages):
        yield f"did you mean the stage {' or '.join(map(repr, alike[:3]))}?"
