"""Run the `git` command such that it changes nothing of the user's.

No optional locks on the user's index (so that it is never refreshed), no hooks, no file system monitor, no terminal, no
variables that point at another repository, and a time limit after which it and all it started are killed.
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

_SAID = 400
"""Characters of a complaint that are kept."""

_QUIET = ("-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "-c", "core.safecrlf=false")
_OF_THE_USER = ("--no-optional-locks",)
_OF_OURS = ("-c", "core.splitIndex=false")
"""An index of ours may be refreshed; a split one would write its shared part beside the user's."""

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
    root: Path,
    *arguments: str,
    stdin: bytes = b"",
    index: Path | None = None,
    settings: Sequence[str] = (),
    accept: Sequence[int] = (0,),
    seconds: float | None = None,
) -> tuple[bytes, str]:
    """Run one git command in `root`; what it wrote to its output, and what it complained about.

    Parameters
    ----------
    index: the index file to use instead of the user's.
    settings: options in front of the command, as `-c name=value`.
    accept: exit codes that are no failure.
    seconds: how long it may take, instead of `PATIENCE`.

    Raises
    ------
    GitError: it is absent, failed or took too long.
    """
    import subprocess
    import threading

    environ = {name: value for name, value in os.environ.items() if name not in _ELSEWHERE}
    environ.update(GIT_TERMINAL_PROMPT="0", GIT_NO_LAZY_FETCH="1")
    if index is not None:
        environ["GIT_INDEX_FILE"] = str(index)
    try:
        process = subprocess.Popen(
            ["git", *_QUIET, *(_OF_OURS if index else _OF_THE_USER), *settings, *arguments],
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
    limit = seconds or PATIENCE
    overdue = threading.Timer(limit, _kill, [process])
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
        raise GitError(f"git {arguments[0]} was killed, or took longer than {limit:.0f} s")
    said = complaints.decode("utf-8", "backslashreplace").strip("\n")
    if process.returncode not in accept:
        why = "; ".join(said.splitlines())[:_SAID] or f"exit code {process.returncode}"
        hint = f"; hint: git config --global --add safe.directory {root}" if is_foreign(root) else ""
        raise GitError(f"git {arguments[0]} failed: {why}{hint}")
    return output, said


def is_foreign(root: Path) -> bool:
    """Whether a work tree or its `.git` belongs to another user, so that git uses it only when it was told to."""
    try:
        return {os.stat(root).st_uid, os.stat(root / ".git").st_uid} != {os.geteuid()}
    except OSError:
        return False


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.returncode is None:
        try:
            os.killpg(process.pid, signal.SIGKILL)  # its filters too, which would keep the pipes open
        except OSError:
            pass  # already gone
