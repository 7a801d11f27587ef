"""How are the figures told? As one table for the terminal and for docs/bench.md, and as JSON."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from .harness import Missing, Result
from .peers import PINNED
from .workshop import PROJECT

OURS = ("runctx", "pygit2", "blake3", "omegaconf", "loguru", "mlflow")

HEAD = ("what", "against", "ours", "peer", "ratio", "reach", "")

PREFACE = """\
# Benchmarks

Written by `make bench`; `python -m tests.bench --only PATTERN` repeats a part. Each row is measured side by
side with its peer in one run: sides take turns (A B A B ...), each round gives one ratio, and the row shows
the medians, in brackets the smallest and largest ratio of a round. One round goes before that does not count.
A ratio below 1 means that runctx takes less time. Seconds belong to this machine; ratios travel.

All data is in the page cache. Peers get the same configurations and equal repositories, run in
processes that live through all rounds where the start of Python is not the question, and keep their own
default settings.
"""


def machine(load: float) -> list[str]:
    """The lines that say where, beside what load average, and with which versions."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    found = [f"{name} {_version(name)}" for name in OURS]
    found += [pin.replace("==", " ") for pin in PINNED if "==" in pin]
    found += [_first_line("b3sum", "--version"), _first_line("git", "--version")]
    return [
        f"{datetime.now(UTC):%Y-%m-%d}, {_cpu()}, {len(os.sched_getaffinity(0))} processors, "
        f"{memory:.0f} GiB, {platform.system()} {platform.release()}, Python {platform.python_version()}",
        f"load {load:.1f} when it began: other work on the machine makes the ratios swing",
        ", ".join(found),
    ]


def table(results: Sequence[Result | Missing]) -> list[tuple[str, ...]]:
    """The cells of each row."""
    return [cells(result) for result in results]


def cells(result: Result | Missing) -> tuple[str, ...]:
    if isinstance(result, Missing):
        verdict = f"NOT MEASURED: {result.why}"
        ours, peer = (
            "" if side is None else amount(side, result.unit) for side in (result.ours, result.peer)
        )
        return (result.what, result.against, ours, peer, "", f"≤ {result.reach:g}×", verdict)
    return (
        result.what,
        result.against,
        amount(result.ours, result.unit),
        amount(result.peer, result.unit),
        f"{result.ratio:.3g}× ({result.low:.3g}–{result.high:.3g})",
        f"≤ {result.reach:g}×",
        "met" if result.met else "not met",
    )


def amount(value: float, unit: str) -> str:
    """A figure with its unit."""
    if unit == "s":
        return duration(value)
    return f"{value / 1e6:.3g} MB" if unit == "B" else f"{value:g} {unit}"


def duration(seconds: float) -> str:
    if abs(seconds) >= 1:
        return f"{seconds:.3g} s"
    return f"{seconds * 1e3:.3g} ms" if abs(seconds) >= 1e-4 else f"{seconds * 1e6:.3g} µs"


def text(results: Sequence[Result | Missing]) -> str:
    """For the terminal: columns side by side."""
    rows = [HEAD, *table(results)]
    widths = [max(len(row[n]) for row in rows) for n in range(len(HEAD) - 1)]
    lines = ["  ".join([*(c.ljust(w) for c, w in zip(row, widths, strict=False)), row[-1]]) for row in rows]
    return "\n".join(line.rstrip() for line in lines)


def markdown(results: Sequence[Result | Missing], notes: Sequence[str], where: Sequence[str]) -> str:
    """The whole page."""
    lines = [PREFACE, "  \n".join(where), ""]
    lines.append("| " + " | ".join(HEAD) + " |")
    lines.append("|---|---|--:|--:|--:|--:|---|")
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in table(results)]
    if notes:
        lines += ["", *(f"- {note}" for note in notes)]
    return "\n".join(lines) + "\n"


def _version(name: str) -> str:
    try:
        return _own_version() if name == "runctx" else version(name)
    except PackageNotFoundError:
        return "absent"


def _own_version() -> str:
    """Of the tree that is measured, which need not be the one that is installed."""
    text = (PROJECT / "runctx" / "model.py").read_text("utf-8")
    found = re.search(r'^VERSION = "(.+)"', text, re.MULTILINE)
    return found[1] if found else "unknown"


def _first_line(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError:
        return f"{command[0]} absent"
    return done.stdout.partition("\n")[0]


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file() and sys.platform == "linux":
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
