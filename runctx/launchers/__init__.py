"""Start workers somewhere: the protocol of a launcher, and those that are there.

Everything else (which tasks are whose, results, failures) is the ledger's on disk. `runctx.testing.LauncherContract`
tests a launcher of yours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from ..errors import SettingsError

if TYPE_CHECKING:
    from ..tasks.supervisor import Plan
    from .local import Joblib, Serial
    from .slurm import Slurm

__all__ = ["Joblib", "Launched", "Launcher", "Serial", "Slurm", "launcher_of"]


class Launched(Protocol):
    """The workers of one map, once they were asked for."""

    def wait(self) -> str | None:
        """Return when every task has been done, or nobody works any more, and why; may do the work itself.

        Whatever it raises ends the map, and leaves the ledger such that the run can be resumed.
        """


class Launcher(Protocol):
    """Where tasks run."""

    @property
    def name(self) -> str:
        """As the lock has it."""

    @property
    def in_process(self) -> bool:
        """True if workers are this process or its threads: then nothing has to be pickled."""

    @property
    def waits(self) -> bool:
        """True if `run.map` waits for the tasks; else it returns at once, and `collect` is called later."""

    def launch(self, plan: Plan) -> Launched:
        """Start workers; `plan` says for what, and `plan.watch` makes a shift, which gives what they call.

        Raises
        ------
        RunctxError: it is not possible here.
        """


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
