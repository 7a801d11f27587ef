"""Keep the lock of a live run: what happens goes into it, and so does what could not be captured."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from . import layout, lock
from .capture.log import RunLog
from .model import Lock, Omission
from .redact import Redactor


class Recorder:
    """The lock of a run that goes on; several threads may change it.

    Parameters
    ----------
    first: what is known at the beginning.
    """

    log: RunLog

    def __init__(self, first: Lock, files: layout.RunFiles, redactor: Redactor) -> None:
        self.lock = first
        self.files, self.redactor = files, redactor
        self.mutex = threading.RLock()
        self.raised: BaseException | None = None
        """What must come out when the lock is sealed: a second Ctrl-C."""

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Our own failure in the block is an omission and a warning, never the end of the user's run."""
        try:
            yield
        except Exception as error:
            self.omit([Omission(what=name, why=f"{type(error).__name__}: {error}")])
        except BaseException as error:
            self.raised = error

    def update(self, **changes: Any) -> None:
        with self.mutex:
            self.lock = replace(self.lock, **changes)

    def omit(self, omissions: Iterable[Omission]) -> None:
        """Record what was not captured, and warn."""
        new = [one for one in redacted(omissions, self.redactor) if one not in self.lock.omissions]
        self.update(omissions=(*self.lock.omissions, *new))
        self.tell(new)

    def tell(self, omissions: Sequence[Omission]) -> None:
        for omission in omissions[:5]:
            self.log.warn(f"not captured: {omission.what}: {omission.why}")
        if len(omissions) > 5:
            self.log.warn(f"not captured: {len(omissions) - 5} more, listed in {layout.LOCK}")

    def write(self, *, durable: bool = False) -> None:
        """Write run.lock as it is now.

        Parameters
        ----------
        durable: wait until it is on the disk.
        """
        with self.mutex:
            lock.write(self.files.lock, self.lock, durable=durable)


def redacted(omissions: Iterable[Omission], redactor: Redactor) -> tuple[Omission, ...]:
    """Without what an error message may quote: the address of a remote, an argument."""
    return tuple(Omission(what=redactor.text(o.what), why=redactor.text(o.why)) for o in omissions)
