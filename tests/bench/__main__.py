"""Measure runctx beside its peers: `python -m tests.bench [--only PATTERN] [--rounds N] [--json FILE]`."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from fnmatch import fnmatch
from pathlib import Path

from . import browsing, configs, digests, maps, metrics, overhead, report, snapshots, startup, tracking
from .harness import Bench, Missing, Result, measure
from .workshop import NEEDED, PROJECT, Workshop, progress

BENCHES = (
    *startup.BENCHES,
    *overhead.BENCHES,
    *snapshots.BENCHES,
    *digests.BENCHES,
    *browsing.BENCHES,
    *configs.BENCHES,
    *maps.BENCHES,
    *metrics.BENCHES,
    *tracking.BENCHES,
)

PAGE = PROJECT / "docs" / "bench.md"


def main() -> None:
    """Run, print, and after a run of all benches keep. A slow machine is a figure, not a failure."""
    options = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # gigabytes must not stay behind
    where = [*report.machine(os.getloadavg()[0]), f"{options.rounds} rounds"]
    chosen = [bench for bench in BENCHES if selected(bench, options.only)]
    results: list[Result | Missing] = []
    with Workshop(options.dir) as workshop:
        if workshop.space() < NEEDED:
            free, needed = workshop.space() >> 30, NEEDED >> 30
            progress(f"only {free} GiB free in {workshop.root.parent}, {needed} are needed: use --dir")
            return
        for bench in chosen:
            progress(f"measuring {bench.name}")
            for result in measure(bench, workshop, options.rounds):
                progress("  " + "  ".join(report.cells(result)))
                results.append(result)
        notes = workshop.notes
    print(report.text(results))
    print(*notes, *where, sep="\n")
    if options.json:
        options.json.write_text(json.dumps([result.as_dict() for result in results], indent=1) + "\n")
    if len(chosen) == len(BENCHES):
        PAGE.write_text(report.markdown(results, notes, where))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--only", metavar="PATTERN", default="*", help="names of benches, e.g. 'hash-*'")
    parser.add_argument("--rounds", metavar="N", type=int, default=5, help="rounds that count (default 5)")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the figures there")
    parser.add_argument(
        "--dir", type=Path, help="folder for about 10 GB of data (default RUNCTX_BENCH_DIR, else /tmp)"
    )
    parser.epilog = "benches: " + ", ".join(bench.name for bench in BENCHES)
    return parser.parse_args()


def selected(bench: Bench, pattern: str) -> bool:
    """A pattern without wildcards means any name that contains it."""
    return fnmatch(bench.name, pattern if set(pattern) & set("*?[") else f"*{pattern}*")


if __name__ == "__main__":
    main()
