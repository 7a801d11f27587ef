"""Past runs, read from their folders: one, and the lineage of earlier runs it depends on.

Nothing is executed, and nothing but local files is asked.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import layout, lock, notes, tasks
from ..base import BaseRun
from ..errors import LockError, NoRunError, RunctxError
from ..liveness import is_alive
from ..model import Data, Lock
from ..tasks import shifts
from .row import Row, logged, read_row

if TYPE_CHECKING:
    from ..display.lineage import LineageView
    from ..display.run import RunView
    from ..redact import Redactor
    from ..settings import Settings
    from ..tasks.results import Results
    from .row import Shown  # completion in IPython fails on a property whose Literal it can see


_SETTLED = ("done", "failed", "interrupted", "broken")
"""Statuses that do not change any more once a listing has read them."""


class Record(BaseRun):
    """A past run, or one that another process is running now.

    Parameters
    ----------
    save_dir: its folder; None for a run of which only a later run's lock still tells.
    known: its lock; read from the folder when first needed otherwise.
    cls: as for `load`.
    row: what a listing knows of it: id, stage, status and times are read from there, until the lock is read.
    """

    def __init__(
        self,
        save_dir: Path | None,
        known: Lock | None = None,
        cls: type | None = None,
        row: Row | None = None,
    ) -> None:
        self._save_dir, self._known, self._cls, self._row = save_dir, known, cls, row
        self._cfg: Any = None

    @property
    def lock(self) -> Lock:
        """Everything that was recorded.

        Raises
        ------
        NoRunError: the folder is gone. LockError: the lock is broken.
        """
        if self._known is None:
            self._known = lock.read(self.save_dir)
        return self._known

    @property
    def _listed(self) -> Row | None:
        """The row of the listing, until the lock is read."""
        return self._row if self._known is None else None

    @property
    def id(self) -> str:
        """`<stage>-<yymmdd>-<HHMMSS>-<6 hex>`; of a run whose lock is broken the name of its folder."""
        return self._listed.id if self._listed else super().id

    @property
    def stage(self) -> str:
        """Name of what was done."""
        return self._listed.stage if self._listed else super().stage

    @property
    def started(self) -> datetime:
        """With zone, UTC."""
        return (self._listed and self._listed.started) or super().started

    @property
    def seconds(self) -> float | None:
        """How long it took; None while it runs, or if it never ended."""
        return self._listed.seconds if self._listed else super().seconds

    @property
    def save_dir(self) -> Path:
        """Where its folder is now; absolute.

        Raises
        ------
        NoRunError: the folder was not found; all that is known of the run stands in a later run's lock.
        """
        if self._save_dir is None:
            raise NoRunError(
                f"cannot find the folder of run {self.lock.id} (it was {self.lock.save_dir})",
                hint="its lock can still be read; if the folder was moved, load it from there",
            )
        return self._save_dir

    @property
    def found(self) -> bool:
        """Whether its folder is still there; if not, only what its lock said is known."""
        return self._save_dir is not None

    @property
    def status(self) -> Shown:
        """running, submitted, done, failed, interrupted, or crashed: its lock says running and its process is gone.

        Submitted, if it is gone and tasks of it go on elsewhere. Of a listed run also broken: its lock cannot be read.
        """
        if self._listed is not None and self._listed.status in _SETTLED:
            return self._listed.status
        if self.lock.status != "running" or _has_process(self._save_dir, self.lock):
            return self.lock.status
        if self._save_dir is not None:
            try:  # it may have ended between our reading its lock and looking for its process
                self._known = lock.read(self._save_dir)
            except RunctxError:
                return "crashed"
        if self.lock.status != "running":
            return self.lock.status
        return left_behind(self._save_dir, shifts.processes(self.lock))

    def collect(self, *, wait: bool = False) -> Record:
        """Fold what tasks have written since the run's block ended, or its process was killed, and seal the lock.

        From any process; doing it twice changes nothing. A run whose process was killed becomes interrupted, for
        its block did not come to its end: `Run(..., resume=...)` does the rest.

        Parameters
        ----------
        wait: wait for tasks that still go on.

        Raises
        ------
        RunStateError: the run has no tasks, or is still running; or tasks go on, and `wait` is False.
        LedgerError: what the tasks have written is broken.
        """
        from ..tasks.collect import collect

        self._known = collect(self.save_dir, wait=wait, show=True)
        return self

    @property
    def cfg(self) -> Any:
        """The configuration: a read-only DictConfig, or an instance of the class given to `load`."""
        if self._cfg is None:
            from .. import config

            plain = self.lock.config
            subclasses = self.lock.config_subclasses
            if self._cls is not None:
                self._cfg = config.to_class(plain, self._cls, subclasses, self.lock.origins)
            else:
                self._cfg = config.from_plain(plain)
                if self._save_dir is not None:
                    config.note_run(self._cfg, os.fspath(self._save_dir))
        return self._cfg

    @property
    def upstream(self) -> tuple[Record, ...]:
        """The earlier runs this one read from directly."""
        return parents(self.lock, self._save_dir)

    def lineage(self) -> Lineage:
        """All earlier runs this one depends on: prints as a tree, shows as a picture in notebooks."""
        return Lineage(self)

    def results(self, name: str | None = None, *, trusted: bool = False) -> Results:
        """What the tasks of a map gave, in their order; each is read from disk when it is asked for.

        Where a task failed stands its exception; where it was not run, a `TaskError`.

        Parameters
        ----------
        name: of the map; needed only if the run has several.
        trusted: also load pickles, which may execute what is in the file; plain data and arrays are none.

        Raises
        ------
        ResultError: there is no such map; or, once it is asked for, a result is not read without trust.
        LedgerError: a file is missing or broken, or has been changed since the run was sealed.
        """
        from ..tasks import table

        return table.results(self.save_dir, self.lock, name, trusted)

    def _own_redactor(self) -> Redactor:
        from ..redact import Redactor
        from ..trackers.publishing import settings_of

        return Redactor(settings_of(self.save_dir).redact)

    def _to_publish(self) -> tuple[Record, Settings]:
        from ..trackers.publishing import settings_of

        has_lock = os.path.isfile(layout.RunFiles(self.save_dir).lock)  # which may have been written since
        return (Record(self.save_dir) if has_lock else self), settings_of(self.save_dir)

    def __fspath__(self) -> str:
        return os.fspath(self.save_dir)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Record) and (self._save_dir, self.id) == (other._save_dir, other.id)

    def __hash__(self) -> int:
        return hash((self._save_dir, self.id))

    def __repr__(self) -> str:
        from ..display import words

        where = "folder not found" if self._save_dir is None else words.path(self._save_dir)
        try:
            return f"<Record {words.line(self.id)}: {self.status}, {where}>"
        except RunctxError as error:
            return f"<Record {where}: {'broken' if isinstance(error, LockError) else 'gone'}>"

    def _view(self, unread: Sequence[str] = ()) -> RunView:
        """The run, to be shown; `unread`: keys of the configuration that nobody read.

        Raises
        ------
        LockError: the lock is broken.
        """
        from ..display.run import RunView
        from ..tasks.table import failed_in

        known, status, folder = self.lock, self.status, self._save_dir
        said = notes.NO_NOTES if folder is None else notes.readable(folder)
        if folder is not None:
            known = replace(known, metrics=logged(folder, status) or known.metrics)
        return RunView(
            lock=known,
            status=status,
            folder=os.fspath(folder or ""),
            unread=unread,
            failed=failed_in(folder, known),
            tags=said.tags,
            note=said.note,
        )

    def _repr_html_(self) -> str | None:
        try:
            return self._view().html()
        except RunctxError:
            return None  # the short text says what is wrong


class Lineage:
    """A run and all earlier runs it depends on.

    Printed it is a tree, in a notebook a picture, and `to_dict()` is what `runctx tree --json` writes.
    """

    def __init__(self, record: Record) -> None:
        self.lock = record.lock
        """Of the run itself; `lock.upstream` holds those before it."""
        self.edges: tuple[Edge, ...] = edges(self.lock)
        """Which run read what of which, the nearest first."""
        self.folders: dict[str, Path | None] = {self.lock.id: record._save_dir}
        """Id -> where its folder is now, None if it was not found: the run itself, then those before it."""
        self.statuses: dict[str, Shown] = {self.lock.id: record.status}
        """Id -> status, as far as it is known."""
        self._known = known_runs(self.lock)
        for edge in self.edges:
            parent = self._known.get(edge.parent)
            if parent is not None and self.folders.get(parent.id) is None:
                folder = _folder(self._known[edge.child], parent, self.folders[edge.child])
                self.folders[parent.id] = folder
                if folder is not None:
                    self.statuses[parent.id] = row_now(folder).status
                else:
                    ended = parent.status == "running" and not _has_process(None, parent)
                    self.statuses[parent.id] = "crashed" if ended else parent.status

    def to_dict(self) -> dict[str, Any]:
        """`run`: its id; `runs`: what is known of each; `edges`: who read what of whom."""
        return {
            "run": self.lock.id,
            "runs": [self._plain(id) for id in self.folders],
            "edges": [
                {"from": edge.parent, "to": edge.child, "inputs": lock.to_plain(edge.inputs)}
                for edge in self.edges
            ],
        }

    def _plain(self, id: str) -> dict[str, Any]:
        plain = lock.to_plain(replace(self._known[id], upstream=()))
        wanted = ("stage", "started", "seconds", "save_dir", "source", "inputs", "outputs", "parents")
        short = {key: plain[key] for key in wanted if key in plain}
        short["source"] = {key: plain["source"].get(key) for key in ("repository", "commit", "dirty")}
        return {"id": id, "status": self.statuses[id], **short}

    def __iter__(self) -> Iterator[Record]:
        for id, folder in self.folders.items():
            yield Record(folder) if folder else _without_folder(self._known[id], self._known)

    def __len__(self) -> int:
        return len(self.folders)

    def _view(self) -> LineageView:
        """The runs, to be shown."""
        from ..display.lineage import LineageView

        return LineageView(root=self.lock.id, runs=self._known, statuses=self.statuses, edges=self.edges)

    def __rich__(self) -> Any:
        return self._view().tree()

    def __repr__(self) -> str:
        from ..display.words import as_text

        return as_text(self.__rich__())

    def _repr_html_(self) -> str:
        return f'<div style="overflow-x:auto">{self._view().picture()}</div>'


# -- who read from whom -----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Edge:
    """`child` read from `parent`."""

    parent: str
    """Id of a run."""
    child: str
    inputs: tuple[Data, ...] = ()
    """Inputs of `child` that `parent` made; empty if its lock does not say."""


def known_runs(lock: Lock) -> dict[str, Lock]:
    """Id -> lock, of the run itself and of all before it."""
    return {lock.id: lock, **{earlier.id: earlier for earlier in lock.upstream if earlier.id != lock.id}}


def edges(lock: Lock) -> tuple[Edge, ...]:
    """All that lead to the run, the nearest first; what would lead from a run to itself is cut.

    A parent that is named but whose lock is not known is the end of an edge all the same.
    """
    known = known_runs(lock)
    before: dict[str, set[str]] = {}
    found: list[Edge] = []
    pending = deque([lock.id])
    while pending:
        child = pending.popleft()
        if child in before:
            continue
        before[child] = set()
        for parent in dict.fromkeys(known[child].parents) if child in known else ():
            if _reaches(before, parent, child):
                continue
            before[child].add(parent)
            inputs = tuple(data for data in known[child].inputs if data.run == parent)
            found.append(Edge(parent=parent, child=child, inputs=inputs))
            pending.append(parent)
    return tuple(found)


def _reaches(before: Mapping[str, set[str]], start: str, goal: str) -> bool:
    pending, seen = [start], {start}
    while pending:
        run = pending.pop()
        if run == goal:
            return True
        fresh = before.get(run, set()) - seen
        seen |= fresh
        pending += fresh
    return False


def _without_folder(lock: Lock, known: Mapping[str, Lock]) -> Record:
    """A run of which only the locks of later runs tell; the locks among `known` of all before it are its upstream."""
    found: dict[str, Lock] = {}
    pending = list(lock.parents)
    while pending:
        id = pending.pop()
        if id in known and id not in found and id != lock.id:
            found[id] = known[id]
            pending += known[id].parents
    upstream = tuple(sorted(found.values(), key=lambda earlier: (earlier.started, earlier.id)))
    return Record(None, replace(lock, upstream=upstream))


# -- where the earlier runs are now ------------------------------------------------------------------------


def parents(child: Lock, save_dir: Path | None) -> tuple[Record, ...]:
    """The runs `child` read from directly; from their folders where these are found, else from its own lock.

    Parameters
    ----------
    save_dir: where the child's folder is now; where a whole results folder was moved, its parents went along.
    """
    known = known_runs(child)
    found = []
    for id in child.parents:
        if id in known and id != child.id:
            folder = _folder(child, known[id], save_dir)
            found.append(Record(folder) if folder else _without_folder(known[id], known))
    return tuple(found)


def _folder(child: Lock, parent: Lock, save_dir: Path | None) -> Path | None:
    if save_dir is None:
        return None
    try:
        for folder in _candidates(child, parent, save_dir):
            row = read_row(folder)
            if row.status != "broken" and row.id == parent.id:
                return folder
    except (OSError, ValueError):
        pass  # what a lock gives as a path need not be one, e.g. "a\0b"
    return None


def _candidates(child: Lock, parent: Lock, save_dir: Path) -> Iterator[Path]:
    was, moved = Path(child.save_dir).parts, save_dir.parts
    same = 0
    while same < min(len(was), len(moved)) and was[-1 - same] == moved[-1 - same]:
        same += 1
    base, now = Path(*was[: len(was) - same]), Path(*moved[: len(moved) - same])
    if Path(parent.save_dir).is_relative_to(base):
        yield now / Path(parent.save_dir).relative_to(base)
    for data in child.inputs:
        if data.run == parent.id:
            folder = layout.find_run(now / child.command.cwd / data.path)
            if folder is not None:
                yield folder
    if Path(parent.save_dir).is_absolute():
        yield Path(parent.save_dir)


# -- status now ---------------------------------------------------------------------------------------------


def row_now(folder: str | os.PathLike[str]) -> Row:
    """The row of the run in `folder`, which says crashed if its process is gone, and its tasks do not go on."""
    row = read_row(folder)
    if row.status != "running" or is_alive(folder, row.host, row.pid):
        return row
    row = read_row(folder)  # it may have ended between our reading its lock and looking for its process
    if row.status != "running":
        return row
    return replace(row, status=left_behind(folder, {(row.host, row.pid)}))


def left_behind(folder: str | os.PathLike[str] | None, processes: set[tuple[str, int]]) -> Shown:
    """Status of a run whose lock says running, and whose processes are gone."""
    return "submitted" if shifts.may_go_on(folder, processes) else "crashed"


def _has_process(folder: Path | None, lock: Lock) -> bool:
    return is_alive(folder, lock.command.host, lock.command.pid)


# -- runs inside tasks ---------------------------------------------------------------------------------------


class TaskRun(Record):
    """A run inside a task, as it comes back: its parent, with the configuration of the task.

    Nothing is read from disk until it is asked for.

    Parameters
    ----------
    save_dir: its parent's folder; if it is not there any more, and this is read with the parent's results, theirs.
    id: its parent's.
    config: plain, and without secrets.
    """

    def __init__(self, save_dir: str, id: str, config: dict[Any, Any]) -> None:
        now = tasks.results_folder.get()
        moved = now is not None and not os.path.isfile(os.path.join(save_dir, layout.LOCK))
        super().__init__(now if moved else Path(save_dir))
        self._id, self._config = id, config

    def __reduce__(self) -> tuple[Any, ...]:
        return TaskRun, (os.fspath(self.save_dir), self._id, self._config)

    @property
    def id(self) -> str:
        """Of its parent."""
        return self._id

    @property
    def lock(self) -> Lock:
        """Its parent's, with the configuration of the task.

        Raises
        ------
        NoRunError: the folder is gone, or another run's. LockError: the lock is broken.
        """
        known = super().lock
        if known.id != self._id:
            raise NoRunError(f"the folder of run {self._id} was not found: at {self.save_dir} is {known.id}")
        return replace(known, config=self._config)

    @property
    def content(self) -> Any:
        """Its configuration, wherever its folder lies."""
        return _without(os.fspath(self.save_dir), {k: v for k, v in self._config.items() if k != "save_dir"})


def _without(folder: str, value: Any) -> Any:
    if isinstance(value, str):
        return value.replace(folder, ".")
    if isinstance(value, dict):
        return {key: _without(folder, part) for key, part in value.items()}
    return [_without(folder, part) for part in value] if isinstance(value, (list, tuple)) else value


tasks.build_run = TaskRun
