"""Find the earlier run that a run goes on with, and take it over.

Whoever holds the liveness lock of a run's folder may; of two that resume it at once, one does.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import layout, liveness, lock, permissions
from .base import BaseRun
from .errors import ConfigError, LockError, NoRunError, RunStateError
from .model import Lock, Session
from .tasks import shifts

if TYPE_CHECKING:
    from filelock import BaseFileLock

PATIENCE = 1.0
"""Seconds for which a reader, who looks whether a run lives, may be in the way."""

Configuration = Callable[[Lock, Path], Mapping[Any, Any]]
"""What the new entry's configuration is in a run's folder, at its start, without secrets."""


@dataclass(frozen=True, kw_only=True)
class Earlier:
    """The run that is gone on with, and nobody else's as long as `alive` is held."""

    folder: Path
    lock: Lock
    """As its last entry left it."""
    alive: BaseFileLock | None
    """None where the file system has no locks."""

    @property
    def sessions(self) -> tuple[Session, ...]:
        """All earlier entries."""
        then = self.lock
        return (
            *then.sessions,
            Session(
                started=then.resumed or then.started,
                seconds=then.seconds,
                status="crashed" if then.status == "running" else then.status,
                commit=then.source.commit,
                host=then.command.host,
                pid=then.command.pid,
            ),
        )

    def clear(self) -> None:
        """Remove what the new entry writes anew; called once its own lock is in place."""
        files = layout.RunFiles(self.folder)
        files.outputs.unlink(missing_ok=True)
        for data in self.lock.inputs:
            # a name of ours, whatever the lock says
            if data.manifest and Path(data.manifest).parent.as_posix() == layout.INPUTS:
                (files.inputs / Path(data.manifest).name).unlink(missing_ok=True)


def take_up(
    given: BaseRun | str | os.PathLike[str], results: Path, stage: str | None, configuration: Configuration
) -> Earlier:
    """The run that was named, if it can be gone on with.

    Parameters
    ----------
    given: as `past.index.find` takes it.
    results: the folder of all runs of the project.
    stage: that the run must have; None: any.

    Raises
    ------
    NoRunError: there is none of that name. LockError: its lock is broken.
    RunStateError: it is of another stage, or still goes on. ConfigError: it had another configuration.
    """
    from .past import index

    folder = index.find(given, results).resolve()
    _check_permissions(folder, lock.read(folder))
    return _taken(folder, _hold(folder), stage, configuration)


def newest(results: Path, stage: str, configuration: Configuration) -> tuple[Earlier | None, str]:
    """The newest run of this stage and configuration that did not come to its end.

    Returns
    -------
    The run, if there is one; if there is none, what differs from the newest unfinished run of the stage.

    Raises
    ------
    RunStateError: it, or one of its tasks, still goes on: all would be done a second time.
    """
    from .past import index

    differs = ""
    for row in index.runs(results).rows if results.is_dir() else ():
        if row.stage != stage or row.status not in _UNFINISHED:
            continue
        folder = Path(row.path).resolve()
        try:
            known = lock.read(folder)
            _check(known, folder, stage, configuration)  # the locks of other runs are not touched
        except (NoRunError, LockError):
            continue
        except ConfigError as error:
            differs = differs or (error.message if row.status != "running" else "")
            continue
        if row.status == "running":
            raise _busy(known, folder)
        _check_permissions(folder, known)
        return _taken(folder, _hold(folder), stage, configuration), ""
    return None, differs


_UNFINISHED = frozenset({"running", "failed", "interrupted", "crashed", "submitted"})


def _taken(
    folder: Path, alive: BaseFileLock | None, stage: str | None, configuration: Configuration
) -> Earlier:
    try:
        known = lock.read(folder)  # now that nobody else changes it
        _check(known, folder, stage, configuration)
        working = shifts.at_work(folder, known)
        if working:
            raise RunStateError(
                f"cannot resume run {known.id} yet: its tasks are still running: {_some(working)}",
                hint=f"wait for them by `runctx collect --wait {shlex.quote(str(folder))}`, or end them; "
                "resume=PATH takes another run, and without `resume` a new one is made",
            )
    except BaseException:
        if alive is not None:
            alive.release()
        raise
    return Earlier(folder=folder, lock=known, alive=alive)


def _check_permissions(folder: Path, known: Lock) -> None:
    """Before anything is written: half a resumed run would hide the error of the first."""
    files = layout.RunFiles(folder)
    ours = [folder / name for name in sorted((*layout.FOLDERS, layout.STATE))]
    # a folder that cannot be listed is named by the one that it is in
    below = (Path(place, name) for top in ours for place, names, _ in os.walk(top) for name in names)
    for place in (folder, files.log, files.alive, *ours, *below):
        if os.path.lexists(place) and permissions.hint(place) is not None:
            who = permissions.name(place.lstat().st_uid)
            raise RunStateError(
                f"run {known.id} cannot be resumed by {permissions.name(os.geteuid())}: "
                f"no permission to write to {place}",
                hint=f"{who} can resume it; without `resume`, a new run is made",
            )


def _hold(folder: Path) -> BaseFileLock | None:
    from filelock import Timeout

    if link := layout.find_link(folder):
        raise RunStateError(
            f"cannot resume run {lock.read(folder).id}: {link} is a link, and a run writes into its folder only",
            hint="replace the link by the file or folder itself",
        )
    try:
        return liveness.hold(layout.RunFiles(folder).alive, PATIENCE)
    except Timeout:
        raise _busy(lock.read(folder), folder) from None
    except (OSError, NotImplementedError):
        known = lock.read(folder)
        if known.status == "running" and liveness.is_alive(folder, known.command.host, known.command.pid):
            raise _busy(known, folder) from None
        return None


def _busy(known: Lock, folder: Path) -> RunStateError:
    who = known.command
    if known.status == "running" and liveness.is_alive(folder, who.host, who.pid):
        return RunStateError(
            f"run {known.id} is still running: process {who.pid} on {who.host}",
            hint="wait for it to end, or stop it; then resume it",
        )
    return RunStateError(
        f"another process is resuming or collecting run {known.id}, or was left behind by it",
        hint=f"try again when it has ended; `fuser {layout.RunFiles(folder).alive}` shows the process",
    )


def _check(known: Lock, folder: Path, stage: str | None, configuration: Configuration) -> None:
    if stage is not None and stage != known.stage:
        raise RunStateError(
            f"run {known.id} is of stage {known.stage!r}, not {stage!r}",
            hint="leave `stage` out; a resumed run keeps its own",
        )
    from .config import value_digest

    now, then = dict(configuration(known, folder)), known.config
    if value_digest(now) != (known.config_digest or value_digest(then)):
        raise ConfigError(
            f"run {known.id} had a different configuration: {'; '.join(_differences(now, then))}",
            hint=f"use {folder / layout.CONFIG}, or leave `resume` out to start a new run",
        )


_MOST = 5


def _differences(now: Mapping[Any, Any], then: Mapping[Any, Any]) -> list[str]:
    from .config import value_digest
    from .config.messages import short

    here, there = dict(_leaves(now)), dict(_leaves(then))
    found = []
    for key in sorted(here.keys() | there.keys()):
        if key not in there:
            found.append(f"{key} is {short(here[key])} (was not set)")
        elif key not in here:
            found.append(f"{key} is not set (was {short(there[key])})")
        elif value_digest({"value": here[key]}) != value_digest({"value": there[key]}):
            found.append(f"{key} is {short(here[key])} (was {short(there[key])})")
    if len(found) > _MOST:
        found[_MOST:] = [f"and {len(found) - _MOST} more"]
    return found or ["its keys have different types"]


def _leaves(config: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        elif f"{prefix}{key}" != "save_dir":
            yield f"{prefix}{key}", value


def _some(what: list[str]) -> str:
    return ", ".join(what[:3]) + (f" and {len(what) - 3} more" if len(what) > 3 else "")
