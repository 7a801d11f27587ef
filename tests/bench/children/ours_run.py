"""Empty runs of runctx, one after the other."""

import time

from serve import serve
from settings20 import SETTINGS

from runctx import Run


def run():
    start = time.perf_counter()
    with Run(SETTINGS) as run:
        pass
    seconds = time.perf_counter() - start
    if run.status != "done" or run.commit is None or run.omissions:
        raise RuntimeError(f"not a whole run: {run.status}, commit {run.commit}, {run.omissions}")
    return seconds


serve({"run": run})
