"""Two numbers per call, logged by runctx; and what the system asks for writing as much."""

import os
import statistics
import tempfile
import time

from serve import serve

from runctx import Run

line = b""


def log(calls):
    """Median of the seconds of a call."""
    global line
    took = [0.0] * calls
    clock = time.perf_counter
    with Run(console=False) as run:
        run.log_async(loss=1.0, accuracy=0.0, step=-1)
        for step in range(calls):
            loss, accuracy = 1 / (step + 1), step / calls
            start = clock()
            run.log_async(loss=loss, accuracy=accuracy, step=step)
            took[step] = clock() - start
    (journal,) = (run.save_dir / "metrics").iterdir()
    lines = journal.read_bytes().splitlines(keepends=True)
    if len(lines) != calls + 1:
        raise RuntimeError(f"{len(lines)} of {calls + 1} points are there")
    line = lines[-1]
    return statistics.median(took)


def write(calls):
    """Likewise, of one write of as many bytes as a call of runctx has written last."""
    took = [0.0] * calls
    clock, system_write = time.perf_counter, os.write
    with tempfile.NamedTemporaryFile(dir=".") as file:
        descriptor = os.open(file.name, os.O_WRONLY | os.O_APPEND)
        try:
            for step in range(calls):
                start = clock()
                system_write(descriptor, line)
                took[step] = clock() - start
        finally:
            os.close(descriptor)
    return statistics.median(took)


serve({"log": log, "write": write})
