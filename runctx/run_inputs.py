"""Hash the inputs of a live run, and find the earlier runs that they belong to."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from . import hashing, layout, upstream
from .hashing import Hashed, Hashing
from .model import Data, Omission
from .recorder import Recorder
from .waiting import PATIENCE_AFTER_ERROR, wait_for

if TYPE_CHECKING:
    from .interrupts import Interrupt


class RunInputs:
    """The inputs of one entry of a run, hashed in the background.

    Parameters
    ----------
    names: of the inputs, as far as they have some.
    paths: of the inputs, relative to `base` or absolute.
    inside: id of the run in whose block this one is entered.
    """

    recorder: Recorder
    """Of the run, once it has a lock."""

    def __init__(
        self, names: Sequence[str | None], paths: Sequence[str], base: Path, inside: str | None
    ) -> None:
        self.base, self.names, self.paths = base, names, paths
        self.hashing = Hashing(tuple(paths), base=base, cache=layout.cache_dir(), on_done=self._note)
        self.upstream = upstream.find(
            ((path, base / path) for path in paths), known=upstream.Upstream(inside=inside)
        )
        self._is_open = True

    @property
    def at_entry(self) -> tuple[Data, ...]:
        """The inputs before they are hashed."""
        named = zip(self.hashing.inputs, self.names, strict=True)
        return tuple(replace(self.upstream.owned(data), name=name) for data, name in named)

    def start(self) -> None:
        if self.paths:
            self.hashing.start()

    def close(self) -> None:
        """Let the background note nothing any more: the run is being left."""
        self._is_open = False

    def join(self, interrupt: Interrupt, *, show: bool) -> None:
        """Wait until all is hashed, look whether it changed meanwhile, and put it into the lock."""
        recorder = self.recorder
        if not recorder.lock.inputs:
            return
        if self.paths:
            wait_for(self.hashing, "hashing inputs", interrupt, show=show, limit=patience(recorder))
            self._take()
            if interrupt:  # looking again walks every folder, which she does not want to wait for
                recorder.omit(
                    [Omission(what="changes of the inputs", why="interrupted before they were looked for")]
                )
            else:
                self._look_again()
        recorder.omit(upstream.contradictions(recorder.lock))

    def _note(self) -> None:
        """Called by the hashing thread: a run that is killed later has its digests in the lock already."""
        with self.recorder.mutex:
            if not self._is_open:
                return
            try:
                self._take()
                self.recorder.write()
            except Exception:
                return  # tried again at the end, which says what was wrong

    def _take(self) -> None:
        recorder = self.recorder
        hashed = self.hashing.join(0)
        taken = []
        own, of_tasks = recorder.lock.inputs[: len(hashed)], recorder.lock.inputs[len(hashed) :]
        for data, one, root in zip(own, hashed, self.hashing.roots, strict=True):
            manifest = data.manifest
            if one.manifest is not None and manifest is None:
                manifest = self._write_manifest(one, data.name)
                self._find_runs_in(data, root, one.manifest)
            taken.append(self.upstream.owned(replace(one.data, manifest=manifest, name=data.name)))
        earlier = self.upstream
        recorder.update(inputs=(*taken, *of_tasks), parents=earlier.parents, upstream=earlier.locks)
        recorder.omit([omission for one in hashed for omission in one.omissions])

    def _find_runs_in(self, data: Data, root: Path, manifest: bytes) -> None:
        """A folder or glob that lies in no run may hold files of several."""
        if data.run is None:
            places = upstream.places_in(data, root, hashing.read_manifest(manifest))
            self.upstream = upstream.find(places, known=self.upstream, own=self.recorder.files.root)
            self.recorder.omit(self.upstream.omissions)

    def _write_manifest(self, hashed: Hashed, name: str | None) -> str:
        """Named as the input is, or after its last part; two inputs of one name get two manifests."""
        files = self.recorder.files
        name = re.sub(r"[^\w.-]+", "_", name or Path(hashed.data.path).name).strip(".")[:60] or "input"
        files.inputs.mkdir(exist_ok=True)
        file = next(f for n in itertools.count(1) if not (f := files.manifest(name, n)).exists())
        layout.write_atomically(file, hashed.manifest or b"")
        return file.relative_to(files.root).as_posix()

    def _look_again(self) -> None:
        at_entry = self.hashing.inputs
        known = self.recorder.lock.inputs
        own, of_tasks = known[: len(at_entry)], known[len(at_entry) :]
        looked_at = (
            replace(data, changed_during_run=changed or data.changed_during_run or _differs(data, before))
            for data, before, changed in zip(own, at_entry, self.hashing.changed(), strict=True)
        )
        self.recorder.update(inputs=(*looked_at, *of_tasks))


def patience(recorder: Recorder) -> float | None:
    """Seconds to wait for hashes: an error of the user's must not be delayed for long by them."""
    return None if recorder.lock.status == "done" else PATIENCE_AFTER_ERROR


def _differs(hashed: Data, at_entry: Data) -> bool:
    """Whether a file changed before its turn to be hashed came."""
    return hashed.kind == "file" and hashed.digest is not None and hashed.bytes != at_entry.bytes
