"""What does a configuration with layers cost, made and read?"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .children.layers import FILES
from .harness import Bench, Row, Sides
from .peers import child, peer_python
from .workshop import Workshop

TIMES = 20
"""Compositions behind each figure of a round."""

READS = 100_000


@contextmanager
def beside_hydra(workshop: Workshop) -> Iterator[Sides]:
    root = workshop.fresh("configs")
    for name, text in FILES.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text)
    folder = str(root)
    with (
        child(workshop, "ours_compose.py", cwd=root) as runctx,
        child(workshop, "peer_hydra.py", cwd=root, python=peer_python()) as hydra,
    ):
        hydra.ask("start", folder=folder)
        must_agree(runctx.ask("values", folder=folder), hydra.ask("values"))
        yield {
            "runctx": lambda _: statistics.median(runctx.ask("run", folder=folder) for _ in range(TIMES)),
            "hydra": lambda _: statistics.median(hydra.ask("run") for _ in range(TIMES)),
        }


@contextmanager
def beside_omegaconf(workshop: Workshop) -> Iterator[Sides]:
    root = workshop.fresh("configs")
    with (
        child(workshop, "ours_config.py", cwd=root) as runctx,
        child(workshop, "peer_omegaconf.py", cwd=root) as omegaconf,
    ):
        must_agree(runctx.ask("values"), omegaconf.ask("values"))
        yield {
            "merged": lambda _: runctx.ask("merge"),
            "omegaconf merged": lambda _: omegaconf.ask("merge"),
            "read": lambda _: runctx.ask("read", times=READS),
            "omegaconf read": lambda _: omegaconf.ask("read", times=READS),
        }


def must_agree(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Speed counts only where the result is the same."""
    if ours != theirs:
        differ = sorted(key for key in {*ours, *theirs} if ours.get(key) != theirs.get(key))
        raise RuntimeError(f"the sides differ in {', '.join(differ)}")


BENCHES = (
    Bench(
        name="compose",
        sides=beside_hydra,
        rows=(
            Row(
                what="50 keys in three layers composed and resolved, with origins, warm",
                against="Hydra's `compose` of the same files, and `OmegaConf.resolve`",
                ours="runctx",
                peer="hydra",
                reach=0.5,
            ),
        ),
    ),
    Bench(
        name="config",
        sides=beside_omegaconf,
        rows=(
            Row(
                what="10 000 leaves in three layers merged and resolved, with origins",
                against="`OmegaConf.merge` and `OmegaConf.resolve` of the same layers",
                ours="merged",
                peer="omegaconf merged",
                reach=1.5,
            ),
            Row(
                what="reading `run.cfg.a.b` 100 000 times",
                against="the same of a plain DictConfig",
                ours="read",
                peer="omegaconf read",
                reach=1.03,
            ),
        ),
    ),
)
