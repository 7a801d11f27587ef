"""What may tasks leave behind in a process of a pool, without harm to who waits for it?

The pool learns of a death from a pipe that breaks, and of an end from a process that exits. A child that a task
forked holds on to the pipe, and a thread that it left running keeps the process from exiting: both would make the
parent wait for as long as they live.
"""

from __future__ import annotations

import fcntl
import functools
import multiprocessing
import os
import stat
import sys
import threading
from multiprocessing import process


@functools.cache
def settle() -> None:
    """Once for each process, before it does the first task."""
    pipes = _writing_ends()
    for descriptor in pipes:
        os.set_inheritable(descriptor, False)  # by programs that a task starts
    os.register_at_fork(after_in_child=functools.partial(_let_go, pipes))
    # private, but what the pools use themselves; multiprocessing's own finalizers come after threads from 3.13 on
    threading._register_atexit(_exit, os.getpid())  # type: ignore[attr-defined]
    # else new interpreters that a task starts (`spawn`, `forkserver`) would look for the pool's own way, and fail
    multiprocessing.set_start_method(None, force=True)


def _writing_ends() -> list[int]:
    """Of the pipes to the parent, but for what multiprocessing itself shares with all descendants."""
    try:
        found = [int(name) for name in os.listdir("/proc/self/fd")]
    except OSError:
        return []  # no Linux
    trackers = {
        getattr(getattr(sys.modules.get(name), "_resource_tracker", None), "_fd", None) for name in _TRACKERS
    }
    return [number for number in found if number > 2 and number not in trackers and _is_writing_end(number)]


_TRACKERS = ("multiprocessing.resource_tracker", "joblib.externals.loky.backend.resource_tracker")


def _is_writing_end(descriptor: int) -> bool:
    try:
        writing = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY
        return writing and stat.S_ISFIFO(os.fstat(descriptor).st_mode)
    except OSError:
        return False  # the one that listed the folder


def _let_go(pipes: list[int]) -> None:
    """In a forked child: the numbers stay taken, for objects that would close whatever had them next."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    for descriptor in pipes:
        os.dup2(nothing, descriptor, inheritable=False)
    os.close(nothing)


def _exit(pid: int) -> None:
    """Do not wait for threads that tasks left running."""
    if os.getpid() != pid:
        return
    left = [thread for thread in threading.enumerate() if not thread.daemon]
    if set(left) - {threading.main_thread()}:
        for child in process.active_children():
            child.kill()
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (AttributeError, OSError, ValueError):
                pass  # closed by a task
        os._exit(0)
