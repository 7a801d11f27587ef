"""Configurations composed by Hydra."""

import time

from hydra import compose, initialize_config_dir
from layers import OVERRIDES
from omegaconf import OmegaConf
from serve import serve

GROUPS = ["+model=resnet50", "+data=imagenet"]


def start(folder):
    initialize_config_dir(config_dir=folder, version_base=None).__enter__()


def composed():
    config = compose("config", overrides=GROUPS + OVERRIDES)
    OmegaConf.resolve(config)
    return config


def values():
    return OmegaConf.to_container(composed())


def run():
    start = time.perf_counter()
    composed()
    return time.perf_counter() - start


serve({"start": start, "values": values, "run": run})
