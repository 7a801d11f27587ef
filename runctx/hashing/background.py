"""Hash a run's inputs while the run goes on.

A few small files are read in a thread. Anything more goes to a process of its own (`worker`), which may use all cores
at the lowest priority, may map files, and ends with the run. Where no such process can be started, or it dies, the
thread reads on plainly.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import blake3

from ..model import Data
from .contents import Outcome, Reader, hash_found, look, size_of, state_of
from .inputs import Hashed, Input, locate
from .walk import Folder, find, walk

FEW = 500
"""Files that a thread hashes in about the time that starting a process takes."""
SMALL = 16 << 20
"""Bytes, likewise."""
GRACE = 1.0
"""Seconds that `cancel` waits for the thread."""
LOWEST_PRIORITY = 19

_BOOT = """import sys
own, packages = sys.argv[1:]
package = sys.modules["hashing"] = type(sys)("hashing")
package.__path__ = [own]
sys.path.append(packages)
from hashing.worker import main
main()
"""
"""Imports the worker without `runctx` itself and without site-packages being searched, in half the time."""


class Hashing:
    """Digests of a run's inputs, computed while the run goes on.

    Parameters
    ----------
    paths: files, folders and globs (`**` for any number of folders); relative ones start at `base`.
    cache: folder of the hash cache; None for none.
    low_priority: leave the processor to whoever else wants it.
    on_done: called once, by the hashing thread, when everything is hashed or given up.

    Raises
    ------
    InputError: an input is missing, or a glob matches nothing.

    >>> import tempfile
    >>> base = Path(tempfile.mkdtemp())
    >>> _ = (base / "a.csv").write_text("x")
    >>> hashing = Hashing(["a.csv"], base=base, cache=None)
    >>> hashing.start()
    >>> hashing.join()[0].data.digest[:15]
    'blake3:3ae7d805'
    """

    def __init__(
        self,
        paths: Sequence[str],
        *,
        base: Path,
        cache: Path | None,
        low_priority: bool = True,
        on_done: Callable[[], None] | None = None,
    ) -> None:
        self._inputs = [locate(path, base) for path in paths]
        self._cache = cache
        self._low_priority = low_priority
        self._on_done = on_done
        self._outcomes: list[Outcome | None] = [None] * len(self._inputs)
        self._hashed = 0
        self._trouble = ""
        """Why what has no outcome has none."""
        self._cancelled = False
        self._finished = threading.Event()
        self._thread = threading.Thread(target=self._run, name="runctx-hashing", daemon=True)
        self._worker: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Begin, and return at once."""
        if self._thread.ident is not None or self.done:
            return
        try:
            self._thread.start()
        except RuntimeError as error:  # no more threads allowed, or the interpreter is about to end
            if self._low_priority:
                self._trouble = f"hashing was not started: {error}"
                self._finished.set()
            else:  # somebody waits for it anyway
                self._run()

    @property
    def done(self) -> bool:
        """Whether every input has been hashed or given up."""
        return self._finished.is_set()

    def wait(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds; whether every input has been hashed or given up by then."""
        return self._finished.wait(timeout)

    @property
    def inputs(self) -> tuple[Data, ...]:
        """What is known without reading: the kind of each input, and the size of files."""
        return tuple(one.skipped("").data for one in self._inputs)

    @property
    def roots(self) -> tuple[Path, ...]:
        """For each input, what the paths in its manifest are relative to; for a file, the file itself."""
        return tuple(Path(os.fsdecode(one.path)) for one in self._inputs)

    @property
    def progress(self) -> tuple[int, int | None]:
        """Bytes hashed so far, and in total; None while the total is unknown."""
        return self._hashed, self._hashed if self.done and not self._trouble else None

    def join(self, timeout: float | None = None) -> tuple[Hashed, ...]:
        """What the inputs were, in the order given; never raises for what the file system does.

        Parameters
        ----------
        timeout: seconds to wait; what is not done by then is recorded as skipped, and may be joined again.
        """
        self.start()
        try:
            self._finished.wait(timeout)
        except BaseException:
            self.cancel()  # an interrupted wait must not leave a process behind
            raise
        outcomes = list(self._outcomes)
        why = self._trouble or f"hashing was not finished within {timeout or 0:g} s"
        return tuple(
            one.skipped(why) if outcome is None else one.hashed(outcome)
            for one, outcome in zip(self._inputs, outcomes, strict=True)
        )

    def changed(self) -> list[bool]:
        """For each input, whether a file was added, removed, replaced or modified since it was hashed.

        Compares sizes, times and inodes, not contents. An input that was not hashed counts as unchanged.
        """
        return [
            outcome is not None and outcome.state != _state_now(one)
            for one, outcome in zip(self._inputs, self._outcomes, strict=True)
        ]

    def cancel(self) -> None:
        """Stop soon; no process is left behind."""
        self._cancelled = True
        self._trouble = self._trouble or "hashing was cancelled"
        if self._worker is not None:
            self._worker.kill()
        if self._thread.ident is not None:
            self._thread.join(GRACE)
        self._finished.set()

    def _run(self) -> None:
        try:
            self._hash()
        except _Cancelled:
            pass
        except Exception as error:  # tracking never kills the run: `join` records it for each input
            self._trouble = f"hashing failed: {type(error).__name__}: {error}"
        self._finish()

    def _finish(self) -> None:
        if self._finished.is_set():
            return
        self._finished.set()
        if self._on_done is not None and not self._cancelled:
            with suppress(Exception):  # the caller's concern must not end this thread with a traceback
                self._on_done()

    def _hash(self) -> None:
        todo = [index for index, one in enumerate(self._inputs) if not one.oddity]
        if not _is_little([self._inputs[index] for index in todo]):
            todo = self._hash_in_worker(todo, mapped=True)
            if todo:  # a file was truncated while it was mapped, or it died of something else
                todo = self._hash_in_worker(todo, mapped=False)
        reader = Reader(self._report)
        for index in todo:
            one = self._inputs[index]
            found = find(one.kind, one.path, one.pattern)
            self._outcomes[index] = hash_found(one.kind, found, reader)

    def _report(self, size: int) -> None:
        self._hashed += size
        self._check()

    def _check(self) -> None:
        if self._cancelled:
            raise _Cancelled

    def _hash_in_worker(self, todo: list[int], *, mapped: bool) -> list[int]:
        """Let a process do it; comes back with what it left undone."""
        job = {
            "inputs": [_as_json(self._inputs[index]) for index in todo],
            "cache": str(self._cache or ""),
            "mapped": mapped,
            "niceness": LOWEST_PRIORITY if self._low_priority else 0,
        }
        # it cannot be started, died, or is none of ours
        with suppress(OSError, ValueError, LookupError, TypeError), _spawn() as self._worker:
            try:
                self._check()
                self._exchange(self._worker, job, todo)
            finally:
                self._worker.kill()  # if it has not ended by itself
        self._check()
        return [index for index in todo if self._outcomes[index] is None]

    def _exchange(self, worker: subprocess.Popen[bytes], job: object, todo: list[int]) -> None:
        assert worker.stdin is not None
        assert worker.stdout is not None
        worker.stdin.write(json.dumps(job).encode() + b"\n")
        worker.stdin.flush()
        before = self._hashed = sum(outcome.bytes for outcome in self._outcomes if outcome is not None)
        for line in worker.stdout:
            message = json.loads(line)
            if "hashed" in message:
                self._hashed = before + message["hashed"]
                continue
            self._outcomes[todo[message["index"]]] = Outcome(*message["outcome"])
            if all(self._outcomes[index] for index in todo):
                self._finish()  # the worker goes on to fill its cache


class _Cancelled(Exception):  # noqa: N818  a signal, not an error
    """Nobody wants the digests any more."""


def _is_little(inputs: list[Input]) -> bool:
    """Whether a thread reads all of it in about the time that starting a process takes."""
    files = size = 0
    for one in inputs:
        for folder in walk(one.kind, one.path, one.pattern):
            if isinstance(folder, Folder):
                files += len(folder.names)
                if files > FEW:
                    return False
                look(folder)
                size += size_of(folder)
                if size > SMALL:
                    return False
    return True


def _state_now(one: Input) -> str:
    found = find(one.kind, one.path, one.pattern)
    for folder in found.folders:
        look(folder)
    return state_of(found)


def _as_json(one: Input) -> tuple[str, ...]:
    return one.kind, *(part.decode("utf-8", "surrogateescape") for part in (one.path, one.pattern))


def _spawn() -> subprocess.Popen[bytes]:
    """The worker, in a process group of its own so that Ctrl-C in a terminal does not reach it.

    Not in a session of its own: the kernel would give that a full share of the processor, whatever its priority.

    Raises
    ------
    OSError: it cannot be started.
    """
    python = sys.executable or ""
    # A frozen application or an interpreter inside another program would start that program instead.
    if getattr(sys, "frozen", False) or not os.path.basename(python).startswith(("python", "pypy")):
        raise OSError(f"not a Python interpreter: {python!r}")
    own, packages = Path(__file__).parent, Path(blake3.__file__).parent.parent
    return subprocess.Popen(
        [python, "-I", "-S", "-c", _BOOT, str(own), str(packages)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        process_group=0,
    )
