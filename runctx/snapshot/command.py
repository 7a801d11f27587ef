"""How is the `git` command asked without letting it change anything of the user's?

No optional locks (so that it never refreshes the user's index), no hooks, no file system monitor, no
terminal, no variables that point at another repository, and a time limit after which it and all it started
are killed.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import subprocess

PATIENCE = 30.0
"""Seconds one git command may take: `git status` of a million files on a cold disk does not take longer."""

_QUIET = ("--no-optional-locks", "-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false")

_ELSEWHERE = (
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_DIR",
    "GIT_GRAFT_FILE",
    "GIT_INDEX_FILE",
    "GIT_NAMESPACE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
    "GIT_SHALLOW_FILE",
    "GIT_WORK_TREE",
)
"""Set while git itself runs a hook, for instance; libgit2 does not look at them either."""


class GitError(Exception):
    """The git command is absent, failed or took too long; the message is one sentence that says which."""


def git(
    root: Path, *arguments: str, stdin: bytes = b"", index: Path | None = None, accept: Sequence[int] = (0,)
) -> tuple[bytes, str]:
    """Run one git command in `root`; what it wrote to its output, and what it complained about.

    Parameters
    ----------
    index: the index file to use instead of the user's.
    accept: exit codes that are no failure.

    Raises
    ------
    GitError: it is absent, failed or took longer than `PATIENCE`.
    """
    import subprocess
    import threading

    environ = {name: value for name, value in os.environ.items() if name not in _ELSEWHERE}
    environ.update(GIT_TERMINAL_PROMPT="0", GIT_NO_LAZY_FETCH="1", GIT_LITERAL_PATHSPECS="1")
    if index is not None:
        environ["GIT_INDEX_FILE"] = str(index)
    try:
        process = subprocess.Popen(
            ["git", *_QUIET, *arguments],
            cwd=root,
            env=environ,
            stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        raise GitError(f"the git command cannot be started: {error.strerror or error}") from error
    # communicate(timeout=...) would poll for the end in growing steps, for milliseconds more than git needs
    overdue = threading.Timer(PATIENCE, _kill, [process])
    overdue.daemon = True
    overdue.start()
    with process:
        try:
            output, complaints = process.communicate(stdin)
        except BaseException:
            _kill(process)
            raise
        finally:
            overdue.cancel()
    if process.returncode == -signal.SIGKILL:
        raise GitError(f"git {arguments[0]} was killed, or took longer than {PATIENCE:.0f} s")
    said = complaints.decode("utf-8", "backslashreplace").strip()
    if process.returncode not in accept:
        last = said.splitlines()[-1] if said else f"exit code {process.returncode}"
        raise GitError(f"git {arguments[0]} failed: {last}")
    return output, said


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.returncode is None:
        try:
            os.killpg(process.pid, signal.SIGKILL)  # its filters too, which would keep the pipes open
        except OSError:
            pass  # already gone
