"""Digests by runctx, the walk they cannot be faster than, and a training loop beside them."""

import os
import time
from pathlib import Path

import numpy as np
from serve import serve

from runctx.hashing import Hashing


def digest(path, cache):
    """From nothing when `cache` is an empty folder, else warm."""
    start = time.perf_counter()
    (found,) = Hashing([path], base=Path(path).parent, cache=Path(cache), low_priority=False).join()
    seconds = time.perf_counter() - start
    require_whole(found)
    wait_for_children()
    after = time.perf_counter() - start - seconds
    manifest = Path(cache) / "manifest"
    if found.manifest is not None:
        manifest.write_bytes(found.manifest)
    return {"seconds": seconds, "after": after, "digest": found.data.digest, "manifest": str(manifest)}


def wait_for_children():
    """The hashing process writes the cache after it has answered; the next to be measured must not suffer."""
    try:
        while os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            time.sleep(0.005)
    except ChildProcessError:
        pass


def require_whole(found):
    if found.data.strength != "content":
        raise RuntimeError(f"not hashed: {found}")


def walk(path):
    """Visit every file and ask for its size and times: the least a warm check can do."""
    start = time.perf_counter()
    folders = [path]
    files = 0
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                else:
                    entry.stat(follow_symlinks=False)
                    files += 1
    return {"seconds": time.perf_counter() - start, "files": files}


def train(steps):
    """A loop of one thread: small matrix products, as between two optimiser steps."""
    weights = np.random.default_rng(0).standard_normal((128, 128))
    start = time.perf_counter()
    state = weights
    for _ in range(steps):
        state = np.tanh(state @ weights)
    return time.perf_counter() - start


def train_beside(steps, path, cache):
    """The same loop while `path` is hashed in the background; `hashing` says how long that took in all."""
    start = time.perf_counter()
    background = Hashing([path], base=Path(path).parent, cache=Path(cache))
    background.start()
    loop = train(steps)
    (found,) = background.join()
    hashing = time.perf_counter() - start
    require_whole(found)
    wait_for_children()
    return {"seconds": loop, "hashing": hashing}


serve({"digest": digest, "walk": walk, "train": train, "train_beside": train_beside})
