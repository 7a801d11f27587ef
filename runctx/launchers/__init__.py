"""Where do tasks run? The protocol of a launcher, and those that are there.

A launcher starts workers somewhere; everything else (which tasks are whose, results, failures) is the ledger's on
disk. `runctx.testing.LauncherContract` tests one of yours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import SettingsError
from ..tasks.work.plan import Launched, Launcher

if TYPE_CHECKING:
    from .local import Joblib, Serial
    from .slurm import Slurm

__all__ = ["Joblib", "Launched", "Launcher", "Serial", "Slurm", "launcher_of"]


def launcher_of(given: str | Launcher, n_jobs: int = -1) -> Launcher:
    """The launcher that was given, or that has this name: `serial`, `joblib`, or a joblib backend's.

    Raises
    ------
    SettingsError: there is none of that name.

    >>> launcher_of("serial").name
    'serial'
    """
    from .local import Joblib, Serial

    if not isinstance(given, str):
        if isinstance(given, type) or not hasattr(given, "launch"):
            raise SettingsError(
                f"unknown launcher {given!r}", hint="use 'serial', 'joblib', 'threading', or Slurm(...)"
            )
        return given
    if given == "serial":
        return Serial()
    return Joblib(n_jobs=n_jobs) if given == "joblib" else Joblib(backend=given, n_jobs=n_jobs)


def __getattr__(name: str) -> Any:
    if name in ("Joblib", "Serial"):
        from . import local

        return getattr(local, name)
    if name == "Slurm":
        from .slurm import Slurm

        return Slurm
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
