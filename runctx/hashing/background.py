"""How is hashing kept out of the run's way?

A few small files are read in a thread. Anything more goes to a process of its own, which may use all cores
at the lowest priority, may map files (a file truncated meanwhile kills its reader), and ends with the run.
Where no such process can be started, or it dies, the thread reads on plainly.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

from ..model import Data
from .content import Means, examine
from .inputs import Hashed, Input, locate
from .outcome import Outcome, outcome_of, place
from .tree import TooMuch, find

FEW = 500
"""Files that a thread hashes in about the time that starting a process takes."""
SMALL = 16 << 20
"""Bytes, likewise."""
GRACE = 1.0
"""Seconds a cancelled process gets to take its helpers along."""
LOWEST_PRIORITY = 19
SIZE = struct.Struct("<I")
"""Before each message to and from the worker, its length."""
PIPE = 1 << 20
"""Bytes; a manifest of a hundred thousand files has eight times that."""

_BOOT = """import sys
own, packages = sys.argv[1:]
package = sys.modules["hashing"] = type(sys)("hashing")
package.__path__ = [own]
sys.path.append(packages)
from hashing.worker import main
main()
"""
"""Imports the worker without `runctx` itself and without site-packages being searched: 12 ms instead of
60."""


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
        self._pass = _Pass(self._inputs, cache=cache, read=True, low_priority=low_priority, on_done=on_done)

    def start(self) -> None:
        """Begin, and return at once."""
        self._pass.start()

    @property
    def done(self) -> bool:
        """Whether every input has been hashed or given up."""
        return self._pass.finished.is_set()

    def wait(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds; whether every input has been hashed or given up by then."""
        return self._pass.finished.wait(timeout)

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
        return self._pass.hashed, self._pass.total

    def join(self, timeout: float | None = None) -> tuple[Hashed, ...]:
        """What the inputs were, in the order given; never raises for what the file system does.

        Parameters
        ----------
        timeout: seconds to wait; what is not done by then is recorded as skipped, and may be joined again.
        """
        self._pass.start()
        try:
            self._pass.finished.wait(timeout)
        except BaseException:
            self.cancel()  # an interrupted wait must not leave a process behind
            raise
        outcomes = list(self._pass.outcomes)
        why = self._pass.trouble or f"hashing was not finished within {timeout or 0:g} s"
        return tuple(
            one.hashed(outcome) if outcome is not None else one.skipped(why)
            for one, outcome in zip(self._inputs, outcomes, strict=True)
        )

    def changed(self) -> list[bool]:
        """For each input, whether a file was added, removed, replaced or modified since it was hashed.

        Compares sizes, times and inodes, not contents. An input that was not hashed counts as unchanged.
        """
        again = _Pass(self._inputs, cache=None, read=False, low_priority=False, before=self._pass.outcomes)
        again.start()
        again.finished.wait()
        return [
            before is not None and after is not None and before[5] != after[5]
            for before, after in zip(self._pass.outcomes, again.outcomes, strict=True)
        ]

    def cancel(self) -> None:
        """Stop soon; no process is left behind."""
        self._pass.cancel()


class _Cancelled(Exception):  # noqa: N818  a signal, not an error
    """Nobody wants the digests any more."""


class _WorkerLost(Exception):  # noqa: N818  a signal, not an error
    """The worker could not be started, or died."""


class _Pass:
    """One look at all inputs: their content, or (`read=False`) only whether they are as they were."""

    def __init__(
        self,
        inputs: list[Input],
        *,
        cache: Path | None,
        read: bool,
        low_priority: bool,
        before: list[Outcome | None] | None = None,
        on_done: Callable[[], None] | None = None,
    ) -> None:
        self._inputs = inputs
        self._cache = cache
        self._read = read
        self._niceness = LOWEST_PRIORITY if low_priority else 0
        self._much = _much_expected(inputs, before)
        self._cancelled = False
        self._worker: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._run, name="runctx-hashing", daemon=True)
        self._starting = threading.Lock()
        self._on_done = on_done
        self.outcomes: list[Outcome | None] = [None] * len(inputs)
        self.finished = threading.Event()
        self.hashed = 0
        self._admitted = 0
        self.total: int | None = None
        self.trouble = ""

    def start(self) -> None:
        with self._starting:
            if self._thread.ident is None and not self._cancelled:
                try:
                    self._thread.start()
                except (
                    RuntimeError
                ) as error:  # no more threads allowed, or (3.12) the interpreter is about to end
                    if self._niceness:
                        self.trouble = f"hashing was not started: {error}"
                        self.finished.set()
                    else:  # somebody waits for it anyway
                        self._run()

    def cancel(self) -> None:
        self._cancelled = True
        self.trouble = self.trouble or "hashing was cancelled"
        worker = self._worker
        if worker is not None and worker.stdin is not None:
            with contextlib.suppress(OSError):
                worker.stdin.close()  # it takes its helpers along
        if self._thread.ident is not None:
            self._thread.join(GRACE)
        if worker is not None and worker.poll() is None:
            worker.kill()
            self._thread.join(GRACE)
        self.finished.set()

    def _run(self) -> None:
        try:
            self._hash_all()
        except _Cancelled:
            pass  # said in `trouble` already
        except (
            Exception
        ) as error:  # "tracking never kills the run": join() records it for each input it concerns
            self.trouble = f"hashing failed: {type(error).__name__}: {error}"
        finally:
            self._finish()

    def _finish(self) -> None:
        if self.finished.is_set():
            return
        self.finished.set()
        if self._on_done is not None and not self._cancelled:
            try:
                self._on_done()
            except Exception as error:  # the caller's concern must not end this thread with a traceback
                self.trouble = self.trouble or f"{type(error).__name__}: {error}"

    def _hash_all(self) -> None:
        todo = [i for i, one in enumerate(self._inputs) if not one.oddity]
        try:
            if self._much:
                raise TooMuch
            while todo:
                self.outcomes[todo[0]] = self._hash_here(self._inputs[todo[0]], small=True)
                todo.pop(0)
        except TooMuch:
            self.hashed = 0
            try:
                self._hash_there(todo)
            except _WorkerLost:
                for i in todo:
                    if self.outcomes[i] is None:
                        self.outcomes[i] = self._hash_here(self._inputs[i], small=False)
        self.total = self.hashed

    def _hash_here(self, one: Input, *, small: bool) -> Outcome:
        tree = find(one.kind, one.path, one.pattern, FEW if small else None)
        listed = list(tree.gaps)
        means = Means(
            read=self._read, admit=self._admit_small if small else self._check, advance=self._advance
        )
        for folder in tree.folders:
            tree.gaps += place(folder, 0, examine(folder, 0, len(folder.names), means))
        return outcome_of(one.kind, tree, listed)

    def _admit_small(self, size: int) -> None:
        self._check()
        self._admitted += size
        if self._admitted > SMALL:
            raise TooMuch

    def _check(self, size: int = 0) -> None:
        if self._cancelled:
            raise _Cancelled

    def _advance(self, size: int) -> None:
        self.hashed += size
        self._check()

    def _hash_there(self, todo: list[int]) -> None:
        inputs = [(one.kind, one.path, one.pattern) for one in (self._inputs[i] for i in todo)]
        job = inputs, str(self._cache or ""), self._read, self._niceness
        try:
            with _spawn() as worker:
                self._worker = worker
                self._check()
                assert worker.stdin is not None
                assert worker.stdout is not None
                worker.stdin.write(_framed(job))
                worker.stdin.flush()
                self._listen(worker.stdout, todo)
        except (OSError, ValueError, EOFError, TypeError) as error:
            self._check()
            if any(self.outcomes[i] is None for i in todo):
                raise _WorkerLost from error

    def _listen(self, source: IO[bytes], todo: list[int]) -> None:
        while head := source.read(SIZE.size):
            message = marshal.loads(source.read(*SIZE.unpack(head)))  # noqa: S302  from a process of ours
            if message[0] == "progress":
                self.hashed = message[1]
            else:
                self.outcomes[todo[message[1]]] = message[2]
            if None not in (self.outcomes[i] for i in todo):
                self._finish()  # the worker goes on to fill its cache
        self._check()
        if any(self.outcomes[i] is None for i in todo):
            raise EOFError


def _much_expected(inputs: list[Input], before: list[Outcome | None] | None) -> bool:
    if before is not None:
        return sum(outcome[2] for outcome in before if outcome is not None) > 10 * FEW
    return sum(one.size for one in inputs) > SMALL


def _framed(message: Any) -> bytes:
    frame = marshal.dumps(message)
    return SIZE.pack(len(frame)) + frame


def _spawn() -> subprocess.Popen[bytes]:
    """The worker, in a process group of its own so that Ctrl-C in a terminal does not reach it.

    Not in a session of its own: the kernel would give that a full share of the processor, whatever its
    priority.
    """
    import blake3

    python = sys.executable or ""
    # A frozen application or an interpreter inside another program would start that program instead.
    if getattr(sys, "frozen", False) or not os.path.basename(python).startswith(("python", "pypy")):
        raise _WorkerLost(f"not a Python interpreter: {python!r}")
    own, packages = Path(__file__).parent, Path(blake3.__file__).parent.parent
    return subprocess.Popen(
        [python, "-I", "-S", "-c", _BOOT, str(own), str(packages)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pipesize=PIPE,
        stderr=subprocess.DEVNULL,
        process_group=0,
    )
