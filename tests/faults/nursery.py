"""A warmed parent of short-lived programs: it imports once and forks for each program it is asked to run.

Reads one request per line from stdin, a JSON object: `script`, `cwd`, `output` (a file for what the program
prints), `signals` (pairs of seconds to wait and a signal's number), `environ` and `user` (or null for ours).
Answers with one JSON line: `status` as subprocess tells it, `seconds`, and `left`, the command lines of the
processes that the program left behind.
"""

import ctypes
import faulthandler
import json
import os
import select
import signal
import sys
import time
import warnings
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
PATIENCE = 15.0
"""Seconds that what a killed program has started may take to end: hashing has the lowest priority, and waits
for seconds on a busy machine before it even dies of a signal."""
HANGING = 20.0
"""Seconds after which a program is taken for hanging."""


def serve() -> Path:
    """Returns in each program's process, with the script it is to run; ends with its stdin in the parent."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # orphans become our children
    for line in sys.stdin:
        request = json.loads(line)
        ready, program_ready = os.pipe()
        program = os.fork()
        if program == 0:
            os.close(ready)
            script = become(request)
            os.close(program_ready)
            return script
        os.close(program_ready)
        os.read(ready, 1)  # returns at its end
        os.close(ready)
        started = time.monotonic()
        for seconds, number in request["signals"]:
            time.sleep(seconds)
            os.kill(program, number)  # it may have ended, but is not yet collected
        status = wait(program)
        seconds = time.monotonic() - started
        answer = {"status": os.waitstatus_to_exitcode(status), "seconds": seconds, "left": bury_orphans()}
        print(json.dumps(answer), flush=True)
    os._exit(0)


def wait(program: int) -> int:
    """The program's wait status; one that hangs is aborted, and says where."""
    descriptor = os.pidfd_open(program)
    if not select.select([descriptor], [], [], HANGING)[0]:
        os.kill(program, signal.SIGABRT)
    os.close(descriptor)
    return os.waitpid(program, 0)[1]


def become(request: dict) -> Path:
    output = os.open(request["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for standard in (1, 2):
        os.dup2(output, standard)
    os.close(output)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    faulthandler.enable(2)
    if request["environ"] is not None:
        os.environ.clear()
        os.environ.update(request["environ"])
        forget_home()
    if request["user"] is not None:
        os.setgroups([])
        os.setgid(request["user"])
        os.setuid(request["user"])
    os.chdir(request["cwd"])
    sys.argv = [request["script"]]
    return Path(request["script"])


def forget_home() -> None:
    """libgit2 keeps what it found of the user's when it was loaded."""
    import pygit2
    from pygit2.enums import ConfigLevel

    for level in (ConfigLevel.GLOBAL, ConfigLevel.XDG):
        pygit2.settings.search_path[level] = ""


def bury_orphans() -> list[str]:
    """Wait for processes whose parent is gone; the command lines of those that did not end by themselves."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            found, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return []
        if not found and time.monotonic() > deadline:
            return kill_orphans()
        if not found:
            time.sleep(0.001)


def kill_orphans() -> list[str]:
    left = []
    for child in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
        left.append(Path(f"/proc/{child}/cmdline").read_text().replace("\0", " "))
        os.kill(int(child), signal.SIGKILL)
        os.waitpid(int(child), 0)
    return left


def warm() -> None:
    """Load what a run loads, by making one."""
    from runctx import Run

    with Run({"lr": 0.1}, [__file__], stage="warm", save_dir=sys.argv[1], console=False):
        pass


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    warnings.simplefilter("error")
    warm()
    __file__ = str(serve())
    exec(
        compile(Path(__file__).read_text(), __file__, "exec"), {"__name__": "__main__", "__file__": __file__}
    )
