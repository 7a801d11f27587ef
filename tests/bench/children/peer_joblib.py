"""Bare joblib, with workers that stay warm."""

import time

from joblib import Parallel, delayed
from serve import serve


def trivial(i):
    return i + 1


def many(tasks):
    start = time.perf_counter()
    results = Parallel(n_jobs=2)(delayed(trivial)(i) for i in range(tasks))
    seconds = time.perf_counter() - start
    assert results == list(range(1, tasks + 1))
    return seconds


serve({"many": many})
