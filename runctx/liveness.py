"""Tell whether a run's process is still there.

The process holds a lock on a file, which the operating system frees however the process ends: that is how a
reader tells a running run from a crashed one.
"""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from . import layout

if TYPE_CHECKING:
    from filelock import BaseFileLock


# It tells of every lock at DEBUG; ours are no news to a user who debugs a program. A level of the user's stays.
if logging.getLogger("filelock").level == logging.NOTSET:
    logging.getLogger("filelock").setLevel(logging.INFO)


def hold(path: Path, patience: float = 0.0) -> BaseFileLock:
    """Take the lock for as long as this process lives, or until it is released; keep the returned object.

    Parameters
    ----------
    patience: seconds to wait for another who holds it.

    Raises
    ------
    OSError, NotImplementedError: the file system has no locks. Timeout: another process holds it.
    """
    from filelock import FileLock

    held = FileLock(path, timeout=patience, thread_local=False)
    held.acquire()
    return held


def is_alive(save_dir: str | os.PathLike[str] | None, host: str, pid: int) -> bool:
    """Whether the run in `save_dir`, started as `pid` on `host`, still has its process.

    The process holds a lock on a file, which the operating system frees however the process ends. That is
    known on every host that shares the file system; the process itself only on its own, where it decides, as
    a forked child may hold the lock for longer. Where neither can be seen, the run's own word counts.
    """
    if host == _this_host() and not exists(pid):
        return False
    held = None if save_dir is None else is_held(layout.RunFiles(save_dir).alive)
    return True if held is None else held


def _this_host() -> str:
    import platform

    return platform.node()


def exists(pid: int) -> bool:
    """Whether there is a process of that number on this host."""
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True  # of another user
    return True


def is_held(path: Path) -> bool | None:
    """Whether a process holds the lock on `path`; None if that cannot be seen."""
    import fcntl

    try:  # a pipe in its place must not block us
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        # shared: two readers must not take each other for the run
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return True if error.errno in (errno.EWOULDBLOCK, errno.EACCES) else None
    finally:
        os.close(descriptor)
    return False
