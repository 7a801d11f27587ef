"""What is gathered about a run, while it goes on and at its end: its data, its code, what it left and what it read?"""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from . import layout, said
from .model import Data, Failure, Omission
from .recording import Recording
from .tasks.work.noted import Noted
from .waiting import PATIENCE_AFTER_ERROR, wait_for

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from .hashing import Hashed, Hashing
    from .interrupts import Interrupt
    from .model import Status
    from .settings import Settings
    from .snapshot import Snapshot
    from .upstream import Upstream


class Gathering(Recording):
    """A recording that knows where to look."""

    _cfg: DictConfig
    _console: bool
    _hashing: Hashing
    _snapshot: Snapshot
    _state: Literal["new", "open", "leaving", "left"]
    _upstream: Upstream
    _wishes: Settings

    def __init__(self) -> None:
        super().__init__()
        self._noted = Noted()
        """What workers noted."""

    def _note_inputs(self) -> None:
        """Called by the hashing thread: a run that is killed later has its digests in the lock already."""
        from . import lock

        with self._mutex:
            if self._state != "open":
                return
            try:
                self._take_inputs()
                lock.write(self._files.lock, self._lock)
            except Exception:
                return  # tried again at the end, which says what was wrong

    def _take_inputs(self) -> None:
        hashed = self._hashing.join(0)
        taken = []
        own, of_tasks = self._lock.inputs[: len(hashed)], self._lock.inputs[len(hashed) :]
        for data, one, root in zip(own, hashed, self._hashing.roots, strict=True):
            manifest = data.manifest
            if one.manifest is not None and manifest is None:
                manifest = self._write_manifest(one, data.name)
                self._find_runs_in(data, root, one.manifest)
            taken.append(self._upstream.owned(replace(one.data, manifest=manifest, name=data.name)))
        self._update(
            inputs=(*taken, *of_tasks), parents=self._upstream.parents, upstream=self._upstream.locks
        )
        self._omit([omission for one in hashed for omission in one.omissions])

    def _find_runs_in(self, data: Data, root: Path, manifest: bytes) -> None:
        """A folder or glob that lies in no run may hold files of several."""
        from . import hashing, upstream

        if data.run is None:
            places = upstream.places_in(data, root, hashing.read_manifest(manifest))
            self._upstream = upstream.find(places, known=self._upstream, own=self.save_dir)
            self._omit(self._upstream.omissions)

    def _write_manifest(self, hashed: Hashed, name: str | None) -> str:
        """Named as the input is, or after its last part; two inputs of one name get two manifests."""
        name = re.sub(r"[^\w.-]+", "_", name or Path(hashed.data.path).name).strip(".")[:60] or "input"
        self._files.inputs.mkdir(exist_ok=True)
        file = next(f for n in itertools.count(1) if not (f := self._files.manifest(name, n)).exists())
        layout.write_atomically(file, hashed.manifest or b"")
        return file.relative_to(self.save_dir).as_posix()

    def _join_inputs(self, interrupt: Interrupt) -> None:
        from . import upstream

        if not self._lock.inputs:
            return
        if self._hashing.inputs:
            self._join_own_inputs(interrupt)
        self._omit(upstream.contradictions(self._lock))

    def _join_own_inputs(self, interrupt: Interrupt) -> None:
        wait_for(self._hashing, "hashing inputs", interrupt, show=self._console, limit=self._patience)
        self._take_inputs()
        if interrupt:  # looking again walks every folder, which she does not want to wait for
            self._omit(
                [Omission(what="changes of the inputs", why="interrupted before they were looked for")]
            )
        else:
            self._look_again()

    @property
    def _patience(self) -> float | None:
        """An error of the user's must not be delayed for long by what is still to be hashed."""
        return None if self._lock.status == "done" else PATIENCE_AFTER_ERROR

    def _look_again(self) -> None:
        at_entry = self._hashing.inputs
        own, of_tasks = self._lock.inputs[: len(at_entry)], self._lock.inputs[len(at_entry) :]
        looked_at = (
            replace(data, changed_during_run=changed or data.changed_during_run or _differs(data, before))
            for data, before, changed in zip(own, at_entry, self._hashing.changed(), strict=True)
        )
        self._update(inputs=(*looked_at, *of_tasks))

    def _collect_outputs(self, interrupt: Interrupt) -> None:
        from . import outputs

        found = outputs.collect(
            self.save_dir,
            own=outputs.folders_of(self._lock, self.save_dir),
            maps=tuple(entry.name for entry in self._lock.tasks),
            max_bytes=self._wishes.max_output_size,
            cache=layout.cache_dir(),
            wait=lambda hashing: wait_for(
                hashing, "hashing outputs", interrupt, show=self._console, limit=self._patience
            ),
        )
        if found.manifest:
            layout.write_atomically(self._files.outputs, found.manifest)
        self._update(outputs=found.data)
        self._omit(found.omissions)

    def _sum_up_metrics(self) -> None:
        folder = self.save_dir / layout.METRICS
        if folder.is_dir():  # most runs without it need not load what reads them
            from .metrics import series

            self._update(metrics=series.summaries(folder))

    def _collect_source(self) -> None:
        from .capture import notebook, source

        found = source.collect(self._snapshot, self._files.source, elsewhere=self._noted.modules)
        cells = tuple(
            replace(cell, code=self._redactor.text(cell.code)) for cell in notebook.executed_cells()
        )
        copies = layout.SOURCE if found.copied else self._lock.source.copies
        self._update(source=replace(self._lock.source, files=found.files, copies=copies, cells=cells))
        self._omit(found.omissions)

    def _collect_reads(self, interrupt: Interrupt) -> None:
        from . import config

        elsewhere = self._noted.keys_read
        self._update(keys_read=tuple(sorted(elsewhere.union(config.keys_read(self._cfg)))))
        if self._lock.status != "done" or interrupt:
            return  # she has not come to where they are read
        unread = [
            f"{key}, set by {setting.where}"
            for key, setting in config.never_read(self._cfg).items()
            if key not in elsewhere
        ]
        if unread:
            more = f"; and {len(unread) - 5} more" if len(unread) > 5 else ""
            self._log.warn(f"never read: {'; '.join(unread[:5])}{more}")

    def _failure(self, error: BaseException | None) -> Failure | None:
        if error is None or status_of(error) == "done":
            return None
        # as code: a traceback quotes lines of it, with the literals they hold
        return Failure(
            type=said.kind(error),
            message=self._redactor.text(said.message(error)),
            traceback=self._redactor.text(said.traceback_text(error)),
        )


def status_of(error: BaseException | None) -> Status:
    if error is None or (isinstance(error, SystemExit) and error.code in (None, 0)):
        return "done"
    interrupted = (
        isinstance(error, (KeyboardInterrupt, GeneratorExit)) or type(error).__name__ in _ENDED_EARLY
    )
    return "interrupted" if interrupted else "failed"


_ENDED_EARLY = ("CancelledError", "TrialPruned")
"""Exceptions of asyncio and Optuna that are no failure."""


def _differs(hashed: Data, at_entry: Data) -> bool:
    """Whether a file changed before its turn to be hashed came."""
    return hashed.kind == "file" and hashed.digest is not None and hashed.bytes != at_entry.bytes


def here() -> Path | None:
    try:
        return Path.cwd()
    except OSError:
        return None  # deleted meanwhile: what is relative to it cannot be found
