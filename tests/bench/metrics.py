"""What does a training pay for each call that logs numbers?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from .harness import Bench, Row, Sides
from .peers import child, peer_python
from .workshop import Workshop

CALLS = 100_000
"""One after another without a pause; the figure of a round is their median."""


@contextmanager
def beside_write_and_trackio(workshop: Workshop) -> Iterator[Sides]:
    python = peer_python()
    root, theirs = workshop.repository(200, "log"), workshop.fresh("trackio")
    with (
        child(workshop, "ours_log.py", cwd=root, RUNCTX_TRACKING="off") as ours,
        child(workshop, "peer_trackio.py", cwd=theirs, python=python, TRACKIO_DIR=str(theirs)) as trackio,
    ):
        yield {
            "runctx": lambda _: ours.ask("log", calls=CALLS),
            "write": lambda _: ours.ask("write", calls=CALLS),
            "trackio": lambda _: trackio.ask("log", calls=CALLS),
        }


BENCHES = (
    Bench(
        name="log",
        sides=beside_write_and_trackio,
        rows=(
            Row(
                what="`log_async` of two numbers, median of 100 000 calls",
                against="`os.write` of the same bytes to a descriptor that appends",
                ours="runctx",
                peer="write",
                reach=4.0,
            ),
            Row(
                what="the same",
                against="trackio's `log`",
                ours="runctx",
                peer="trackio",
                reach=0.5,
            ),
        ),
    ),
)
