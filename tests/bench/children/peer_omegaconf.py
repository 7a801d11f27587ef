"""Plain OmegaConf: merging and reading."""

import time

from layers import LARGE
from omegaconf import OmegaConf
from serve import serve

PLAIN = OmegaConf.create({"a": {"b": 1}})


def merged():
    config = OmegaConf.merge(*LARGE)
    OmegaConf.resolve(config)
    return config


def values():
    return OmegaConf.to_container(merged())


def merge():
    start = time.perf_counter()
    merged()
    return time.perf_counter() - start


def read(times):
    start = time.perf_counter()
    for _ in range(times):
        PLAIN.a.b
    return time.perf_counter() - start


serve({"values": values, "merge": merge, "read": read})
