"""One training, configured in three ways: twice the batch and half the epochs change all that hangs on them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from runctx import derived
from runctx.config import fill_in, open_config, to_plain
from runctx.config.assemble import assemble
from runctx.config.layers import Layer, tree

# ruff: noqa: RUF009  # `derived` gives a value that nothing can modify

FILES = Path(__file__).parent / "data/mnist"


@dataclass
class Data:
    name: str = "MNIST"
    batch_size: int = 128
    workers: int = 2


@dataclass
class Model:
    hidden: list[int] = field(default_factory=lambda: [256, 128])
    dropout: float = 0.5


@dataclass
class Optimizer:
    name: str = "AdamW"
    lr: float = derived(lambda c, root: 0.01 * root.data.batch_size / 128)


@dataclass
class WarmUp:
    name: str = "LinearLR"
    epochs: int = 0


@dataclass
class Annealing:
    name: str = "CosineAnnealingLR"
    T_max: int = 0


@dataclass
class Schedule:
    epochs: int = 30
    warm_up: WarmUp = derived(lambda c: WarmUp(epochs=round(0.1 * c.epochs)))
    main: Annealing = derived(lambda c: Annealing(T_max=c.epochs - c.warm_up.epochs))


@dataclass
class Log:
    save_interval: int = derived(lambda c, root: round(0.2 * root.sched.epochs))


@dataclass
class Config:
    seed: int = 0
    data: Data = field(default_factory=Data)
    model: Model = field(default_factory=Model)
    opt: Optimizer = field(default_factory=Optimizer)
    sched: Schedule = field(default_factory=Schedule)
    log: Log = field(default_factory=Log)


def expected(
    batch_size: int, epochs: int, lr: float, warm_up: int, t_max: int, save_interval: int
) -> dict[str, Any]:
    return {
        "seed": 0,
        "data": {"name": "MNIST", "batch_size": batch_size, "workers": 2},
        "model": {"hidden": [256, 128], "dropout": 0.5},
        "opt": {"name": "AdamW", "lr": lr},
        "sched": {
            "epochs": epochs,
            "warm_up": {"name": "LinearLR", "epochs": warm_up},
            "main": {"name": "CosineAnnealingLR", "T_max": t_max},
        },
        "log": {"save_interval": save_interval},
    }


BASE = expected(batch_size=128, epochs=30, lr=0.01, warm_up=3, t_max=27, save_interval=6)
LARGE_BATCH = expected(batch_size=256, epochs=15, lr=0.02, warm_up=2, t_max=13, save_interval=3)


def filled(given: Any) -> Any:
    config = open_config(given)
    fill_in(config, datetime(2025, 11, 21), "made")
    return config


@pytest.mark.parametrize("suffix", ["py", "yaml"])
def test_files(suffix: str) -> None:
    """A file over a base that mounts its schedule from a third file, with lambdas and with arithmetic."""
    assert to_plain(filled(FILES / f"base.{suffix}")) == BASE
    assert to_plain(filled(FILES / f"large_batch.{suffix}")) == LARGE_BATCH


def test_dataclasses() -> None:
    """The same in code: overrides of two fields, or a configuration made with them."""
    layer = Layer(kind="override", name="argument 1")
    overrides = tree({"data": {"batch_size": 256}, "sched": {"epochs": 15}}, layer)
    assert to_plain(filled(Config)) == BASE
    assert to_plain(filled(assemble(OmegaConf.structured(Config), overrides))) == LARGE_BATCH
    assert to_plain(filled(Config(data=Data(batch_size=256), sched=Schedule(epochs=15)))) == LARGE_BATCH


@pytest.mark.parametrize("suffix", ["py", "yaml"])
def test_the_schedule_can_be_mounted_anywhere(suffix: str, tmp_path: Path) -> None:
    """Its derived values are relative to itself, wherever it lies and whatever `epochs` lie around it."""
    (tmp_path / "all.yaml").write_text(
        f"epochs: 1000\na: {{epochs: 500, warm_up: 7, b: {{_base_: {FILES}/schedule.{suffix}}}}}\n"
    )
    assert to_plain(filled(tmp_path / "all.yaml"))["a"]["b"] == BASE["sched"]
