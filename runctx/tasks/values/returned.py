"""A run that was entered inside a task, once it has left its process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...errors import NoRunError
from ...layout import LOCK
from ...model import Lock
from ...past.record import Record

_folder: ContextVar[Path | None] = ContextVar("runctx_results_of", default=None)


class Returned(Record):
    """A run inside a task, as it comes back: its parent, with the configuration of the task.

    Nothing is read from disk until it is asked for.

    Parameters
    ----------
    save_dir: its parent's folder; if it is not there any more, and this is read with the parent's results, theirs.
    id: its parent's.
    config: plain, and without secrets.
    """

    def __init__(self, save_dir: str, id: str, config: dict[Any, Any]) -> None:
        now = _folder.get()
        moved = now is not None and not os.path.isfile(os.path.join(save_dir, LOCK))
        super().__init__(now if moved else Path(save_dir))
        self._id, self._config = id, config

    def __reduce__(self) -> tuple[Any, ...]:
        return Returned, (os.fspath(self.save_dir), self._id, self._config)

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


@contextmanager
def results_of(save_dir: Path) -> Iterator[None]:
    """What is read meanwhile are results of this run, wherever it was when they were written."""
    token = _folder.set(save_dir)
    try:
        yield
    finally:
        _folder.reset(token)


def of_results(save_dir: Any, id: Any, config: Any) -> Returned:
    """From a file that may be hostile: no folder is looked at but the one whose results are read."""
    now = _folder.get()
    if now is None or not (isinstance(id, str) and type(config) is dict):
        raise ValueError("expected a run, among the results of its parent")
    return Returned(os.fspath(now), id, config)


def _without(folder: str, value: Any) -> Any:
    if isinstance(value, str):
        return value.replace(folder, ".")
    if isinstance(value, dict):
        return {key: _without(folder, part) for key, part in value.items()}
    return [_without(folder, part) for part in value] if isinstance(value, (list, tuple)) else value
