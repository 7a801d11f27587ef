"""The process that hashes what takes long: a job on stdin, what it finds on stdout, one JSON document per line.

It is a bare interpreter, which maps files and uses all cores, at the lowest priority while a run goes on. It ends when
its stdin ends, so that no kill of the run leaves it behind.
"""

from __future__ import annotations

import fcntl
import gc
import json
import os
import resource
import sys
import time
from typing import Any

from . import cache
from .contents import Reader, hash_found
from .walk import find

TICK = 0.1
"""Seconds between two reports of progress."""


def main() -> None:
    """Do the job on stdin: `inputs` (kind, path, pattern), `cache`, `mapped`, `niceness`."""
    job = json.loads(sys.stdin.buffer.readline())
    _end_with_parent()
    gc.disable()  # it lives shortly and makes no cycles
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a file that is truncated while mapped kills it
    os.nice(job["niceness"])
    started = time.time_ns()
    inputs = [
        (kind, find(kind, *(part.encode("utf-8", "surrogateescape") for part in place)))
        for kind, *place in job["inputs"]
    ]
    folders = [folder for _, found in inputs for folder in found.folders]
    if job["cache"]:
        cache.recall(job["cache"], folders)
    progress = Progress()
    reader = Reader(progress.add, mapped=job["mapped"])
    for index, (kind, found) in enumerate(inputs):
        outcome = hash_found(kind, found, reader)
        progress.send()
        send(index=index, outcome=outcome)
    if job["cache"]:  # after the answer, which should not wait for it
        cache.remember(job["cache"], folders, started)


class Progress:
    """Sends the number of bytes hashed so far, now and then."""

    def __init__(self) -> None:
        self._parent = os.getppid()
        self._hashed = 0
        self._sent = 0.0

    def add(self, size: int) -> None:
        self._hashed += size
        if time.monotonic() > self._sent + TICK:
            self.send()

    def send(self) -> None:
        if os.getppid() != self._parent:
            sys.exit()  # a fork of the parent may hold our stdin open
        self._sent = time.monotonic()
        send(hashed=self._hashed)


def send(**message: Any) -> None:
    sys.stdout.buffer.write(json.dumps(message).encode() + b"\n")
    sys.stdout.buffer.flush()


def _end_with_parent() -> None:
    """Let the kernel end this process by SIGIO when stdin ends.

    At the lowest priority a busy machine gives it no time to notice that by itself.
    """
    if hasattr(os, "O_ASYNC"):
        fcntl.fcntl(0, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(0, fcntl.F_SETFL, fcntl.fcntl(0, fcntl.F_GETFL) | os.O_ASYNC)
