"""The work tree as a commit, by runctx."""

import time
from pathlib import Path

from serve import serve

from runctx import snapshot


def take(root, cache):
    start = time.perf_counter()
    taken = snapshot.take(Path(root), message="bench", cache=Path(cache))
    seconds = time.perf_counter() - start
    if left_out := (*taken.omissions, *taken.source.skipped):
        raise RuntimeError(f"not captured: {left_out[0].what}: {left_out[0].why}")
    return {"seconds": seconds, "tree": taken.source.tree}


serve({"take": take})
