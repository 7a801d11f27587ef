"""How does what happens to a run get into its lock? And what of that which could not be captured?"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from . import layout
from .model import Lock, Omission
from .told import Told

if TYPE_CHECKING:
    from .logs import RunLog
    from .redact import Redactor


class Recording(Told):
    """A lock in the making."""

    _lock: Lock
    _files: layout.RunFiles
    _log: RunLog
    _redactor: Redactor
    _raised: BaseException | None

    def __init__(self) -> None:
        self._mutex = threading.RLock()  # the thread that hashes inputs updates the lock as well
        self._raised = None

    @contextmanager
    def _step(self, name: str) -> Iterator[None]:
        """Our own failure is an omission and a warning, never the end of the user's run."""
        try:
            yield
        except Exception as error:
            self._omit([Omission(what=name, why=f"{type(error).__name__}: {error}")])
        except BaseException as error:  # a second Ctrl-C: it must come out, after sealing
            self._raised = error

    def _omit(self, omissions: Iterable[Omission]) -> None:
        new = [o for o in redacted(omissions, self._redactor) if o not in self._lock.omissions]
        self._update(omissions=(*self._lock.omissions, *new))
        self._tell(new)

    def _tell(self, omissions: Sequence[Omission]) -> None:
        for omission in omissions[:5]:
            self._log.warn(f"not captured: {omission.what}: {omission.why}")
        if len(omissions) > 5:
            self._log.warn(f"not captured: {len(omissions) - 5} more, listed in {layout.LOCK}")

    def _update(self, **changes: Any) -> None:
        with self._mutex:
            self._lock = replace(self._lock, **changes)


def redacted(omissions: Iterable[Omission], redactor: Redactor) -> tuple[Omission, ...]:
    """Without what an error message may quote: the address of a remote, an argument."""
    return tuple(Omission(what=redactor.text(o.what), why=redactor.text(o.why)) for o in omissions)
