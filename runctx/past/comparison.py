"""What differs between runs, side by side?"""

from __future__ import annotations

from collections.abc import Sequence

from .record import Record


class Comparison:
    def __init__(self, runs: Sequence[Record]) -> None:
        self.runs = runs
