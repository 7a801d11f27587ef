"""How does a command end together with whoever started it, however that ends? Run as a script, in a session of its own.

The starter holds the other end of standard input. When it is gone, closed or killed, so is the command with
all its children.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading

_GRACE = 5.0
"""Seconds to end in good order."""


def main(command: list[str]) -> None:
    """Run the command until it ends, or standard input does; then end whatever is left of the session."""
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    threading.Thread(target=_end, args=(child,), daemon=True).start()
    child.wait()
    os.killpg(0, signal.SIGKILL)  # what the command has left behind, and this process


def _end(child: subprocess.Popen[bytes]) -> None:
    sys.stdin.buffer.read()  # returns when nobody holds the other end any more
    child.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(_GRACE)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1:])
