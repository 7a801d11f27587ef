"""Configurations composed by runctx."""

import time
from datetime import datetime

from layers import OVERRIDES
from omegaconf import OmegaConf
from serve import serve

from runctx import compose, from_cli
from runctx.config import fill_in
from runctx.config.layers import at
from runctx.config.origins import trace_of


def composed(folder):
    """As a run does it: composed, overridden, resolved; origins are kept."""
    config = from_cli(compose(folder, model="resnet50", data="imagenet"), OVERRIDES)
    fill_in(config, datetime.now(), "results")
    return config


def values(folder):
    config = composed(folder)
    kinds = [setting.layer.kind for setting in at(trace_of(config).tree, ("data", "batch_size"))]
    if kinds != ["group file", "override"]:
        raise RuntimeError(f"the configuration lost its origins: {kinds}")
    return OmegaConf.to_container(config)


def run(folder):
    start = time.perf_counter()
    composed(folder)
    return time.perf_counter() - start


serve({"values": values, "run": run})
