"""What can go wrong, and how it is said.

RunctxError
├── ConfigError      a configuration cannot be held, resolved or written to      (also a ValueError)
├── InputError       an input is missing or cannot be read                       (also a FileNotFoundError)
├── LockError        a run.lock is broken, hostile or from the future            (also a ValueError)
├── NoRunError       there is no run at that path                                (also a FileNotFoundError)
├── RunStateError    a run is used before it started or after it finished        (also a RuntimeError)
├── SaveDirError     no save_dir could be made                                   (also an OSError)
└── SettingsError    [tool.runctx] or a RUNCTX_* variable is wrong               (also a ValueError)

Every message says what happened, where, and what was seen; what to do about it stands on a last line `hint:`.
"""

from __future__ import annotations


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


class ConfigError(RunctxError, ValueError):
    """A configuration cannot be held, resolved or written to."""


class InputError(RunctxError, FileNotFoundError):
    """An input is missing or cannot be read."""


class LockError(RunctxError, ValueError):
    """A run.lock is broken, hostile or written by a newer runctx."""


class NoRunError(RunctxError, FileNotFoundError):
    """There is no run at that path."""


class RunStateError(RunctxError, RuntimeError):
    """A run is used before it started or after it finished."""


class SaveDirError(RunctxError, OSError):
    """No save_dir could be made."""


class SettingsError(RunctxError, ValueError):
    """[tool.runctx] or a RUNCTX_* variable is wrong."""
