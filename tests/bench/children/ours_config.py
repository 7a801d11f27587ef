"""Configurations of runctx: merged, and read in a run."""

import time
from datetime import datetime

from layers import LARGE
from omegaconf import OmegaConf
from serve import serve

from runctx import Run
from runctx.config import fill_in
from runctx.config.assemble import assemble
from runctx.config.layers import Layer, at, merge, tree
from runctx.config.origins import trace_of

KINDS = ["base file", "config file", "overrides file"]


def merged():
    """As files are laid one upon the other, and as a run resolves them; origins are kept."""
    lower, middle, upper = (
        tree(values, Layer(kind=kind, name=kind)) for values, kind in zip(LARGE, KINDS, strict=True)
    )
    config = assemble(OmegaConf.create({}), merge(merge(lower, middle), upper))
    fill_in(config, datetime.now(), "results")
    return config


def values():
    config = merged()
    kinds = [setting.layer.kind for setting in at(trace_of(config).tree, ("part0", "group0", "key0"))]
    if kinds != KINDS:
        raise RuntimeError(f"the configuration lost its origins: {kinds}")
    return OmegaConf.to_container(config)


def merge_all():
    start = time.perf_counter()
    merged()
    return time.perf_counter() - start


def read(times):
    with Run({"a": {"b": 1}}) as run:
        start = time.perf_counter()
        for _ in range(times):
            run.cfg.a.b
        return time.perf_counter() - start


serve({"values": values, "merge": merge_all, "read": read})
