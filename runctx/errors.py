"""What can go wrong, and how it is said.

RunctxError
├── ConfigError      a configuration cannot be held, resolved or written to      (also a ValueError)
├── DeletedError     the view of a run was deleted in its tracker             (also a TrackingError)
├── InputError       an input is missing or cannot be read                       (also a FileNotFoundError)
├── LaunchError      a scheduler does not take the jobs of run.map                (also a RuntimeError)
├── LedgerError      what run.map keeps on disk is broken, or cannot be written      (also an OSError)
├── LockError        a run.lock is broken, hostile or from the future            (also a ValueError)
├── NoRunError       there is no run at that path                                (also a FileNotFoundError)
├── NotesError       tags or a note cannot be read or kept                    (also a ValueError)
├── QueryError       an expression that selects runs cannot be read                (also a ValueError)
├── RemoteError      the exception of a task; its class cannot be had here       (also a RuntimeError)
├── ResultError      a result cannot be read back, or not without trust          (also a ValueError)
├── RunStateError    a run is used before it started or after it finished        (also a RuntimeError)
├── SaveDirError     no save_dir could be made                                   (also an OSError)
├── SettingsError    [tool.runctx] or a RUNCTX_* variable is wrong               (also a ValueError)
├── TaskError        tasks of run.map failed, or were not run                    (also a RuntimeError)
├── TrackingError    a view such as MLflow cannot be reached or written to        (also a RuntimeError)
└── WorkerDiedError  the process that ran a task died                            (also a RuntimeError)

Every message says what happened, where, and what was seen; what to do about it stands on a last line `hint:`.
"""

from __future__ import annotations

from typing import Any


class RunctxError(Exception):
    """Base of every error raised by runctx; survives pickling with its message and hint.

    Parameters
    ----------
    message: what happened, where, and what was seen.
    hint: what to do about it; shown on a line of its own.
    """

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)  # one argument: an OSError takes two for number and text
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\nhint: {self.hint}"

    def _render_traceback_(self) -> list[str]:
        """What IPython shows: where in the user's code it arose, not where in ours."""
        from .said import rendered

        return rendered(self)


class ConfigError(RunctxError, ValueError):
    """A configuration cannot be held, resolved or written to."""


class InputError(RunctxError, FileNotFoundError):
    """An input is missing or cannot be read."""


class LaunchError(RunctxError, RuntimeError):
    """A scheduler does not take the jobs of `run.map`."""


class LedgerError(RunctxError, OSError):
    """What `run.map` keeps on disk is broken, or cannot be written."""


class LockError(RunctxError, ValueError):
    """A run.lock is broken, hostile or written by a newer runctx."""


class NoRunError(RunctxError, FileNotFoundError):
    """There is no run at that path."""


class NotesError(RunctxError, ValueError):
    """Tags or the note of a run cannot be read or kept."""


class QueryError(RunctxError, ValueError):
    """An expression that selects runs cannot be read, or asks for what no run has."""


class RemoteError(RunctxError, RuntimeError):
    """Stands for the exception of a task, whose class cannot be had here.

    `type` is the qualified name of that class, `traceback` the text of where it was raised.
    """

    def __init__(self, message: str, hint: str | None = None, type: str = "", traceback: str = "") -> None:
        super().__init__(message, hint)
        self.type = type
        self.traceback = traceback


class ResultError(RunctxError, ValueError):
    """A result cannot be read back, or not without trust in who wrote it."""


class RunStateError(RunctxError, RuntimeError):
    """A run is used before it started or after it finished."""


class SaveDirError(RunctxError, OSError):
    """No save_dir could be made."""


class SettingsError(RunctxError, ValueError):
    """[tool.runctx] or a RUNCTX_* variable is wrong."""


class TaskError(RunctxError, RuntimeError):
    """Tasks of `run.map` failed, or were not run.

    `results` holds what succeeded, in the order of the tasks; where a task failed, its exception. `__cause__` is
    the first of these.
    """

    def __init__(self, message: str, hint: str | None = None, results: Any = ()) -> None:
        super().__init__(message, hint)
        self.results = results


class TrackingError(RunctxError, RuntimeError):
    """A view of runs, such as MLflow, cannot be reached or written to; the run's folder has everything."""


class DeletedError(TrackingError):
    """The view of a run was deleted where it was, and can be restored there.

    `ref` is what the tracker calls it.
    """

    def __init__(self, message: str, hint: str | None = None, ref: str = "") -> None:
        super().__init__(message, hint)
        self.ref = ref


class RunctxWarning(UserWarning):
    """Something was left out; the message says what, and why."""


class WorkerDiedError(RunctxError, RuntimeError):
    """The process that ran a task died, or was killed."""
