"""What does the log say when a map ends, or is interrupted? One line."""

from __future__ import annotations

from ..model import Tasks


def ended(entry: Tasks, to_do: int, seconds: float, why: str | None = None) -> tuple[str, str]:
    """Level and line, where all was waited for.

    Parameters
    ----------
    to_do: how many tasks were not done before it began.
    why: some were not run.

    >>> from runctx.model import Tasks
    >>> entry = Tasks(name="main", function="m.main", launcher="joblib", total=9, done=8, failed=1)
    >>> ended(entry, 9, 12.345)
    ('WARNING', 'main: 8 of 9 tasks done, 1 failed, in 12.3 s')
    """
    if not entry.total:
        return "INFO", f"{entry.name}: no tasks"
    if not to_do:
        return "INFO", f"{entry.name}: all {entry.total} tasks were done already"
    level = "INFO" if entry.done == entry.total else "WARNING"
    reason = f" ({why})" if why else ""
    before = f" ({entry.total - to_do} of them earlier)" if entry.total > to_do else ""
    return level, f"{entry.name}: {_counts(entry, f'not run{reason}', before)}, in {seconds:.3g} s"


def submitted(entry: Tasks, to_do: int) -> tuple[str, str]:
    """Where nobody waits."""
    if not to_do:
        return ended(entry, to_do, 0.0)
    return "INFO", f"{entry.name}: {to_do} of {entry.total} tasks submitted to {entry.launcher}"


def interrupted(entry: Tasks, goes_on: bool) -> tuple[str, str]:
    """By Ctrl-C.

    Parameters
    ----------
    goes_on: whether jobs elsewhere go on with it, of which their launcher tells.
    """
    how = "" if goes_on else "; Run(..., resume=True) runs the rest"
    return "WARNING", f"{entry.name}: interrupted: {_counts(entry, 'left')}{how}"


def _counts(entry: Tasks, rest: str, before: str = "") -> str:
    left = entry.total - entry.done - entry.failed
    parts = [f"{entry.done} of {entry.total} tasks done{before}"]
    parts += [f"{entry.failed} failed"] * bool(entry.failed) + [f"{left} {rest}"] * bool(left)
    return ", ".join(parts)
