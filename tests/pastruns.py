"""Runs as they lie on disk, written without running anything."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from runctx import layout, lock
from runctx.model import Command, Data, Environment, Lock, Source

START = datetime(2025, 11, 21, 12, 0, tzinfo=UTC)
ESCAPE = "\x1b[2J\x1b]0;owned\x07[bold]x[/bold]<script>alert(1)</script>\u202e"
"""What a terminal, rich and a browser would each obey."""


def make_lock(number: int = 0, **changes: Any) -> Lock:
    """A finished run; the higher the number, the newer."""
    stage = changes.get("stage", "train")
    plain = Lock(
        runctx="0.1.0",
        id=f"{stage}-251121-120000-{number:06x}",
        stage=stage,
        status="done",
        started=START + timedelta(seconds=number),
        seconds=1.5,
        save_dir=f"results/{stage}/{number}",
        command=Command(
            kind="script",
            entry="train.py",
            argv=("train.py",),
            cwd=".",
            python="/usr/bin/python3",
            host="elsewhere",
            pid=7,
            user="ada",
        ),
        config={"lr": 0.1 * number, "opt": {"name": "sgd", "betas": [0.9, 0.99]}},
        source=Source(commit="git:" + f"{number:040x}", dirty=True, files={"train.py": "git:00"}),
        environment=Environment(python="3.11.7 CPython", platform="Linux", cpu="c", cpus=2, memory=10**9),
    )
    return replace(plain, **changes)


def write_run(root: Path, one: Lock) -> Path:
    """Its folder, where its lock says that it was: below `root`."""
    folder = root / one.save_dir
    folder.mkdir(parents=True)
    lock.write(layout.RunFiles(folder).lock, one)
    return folder


def child_of(number: int, *parents: Lock, **changes: Any) -> Lock:
    """A run that read `model.bin` of each parent."""
    known = {earlier.id: earlier for parent in parents for earlier in parent.upstream}
    known |= {parent.id: replace(parent, upstream=()) for parent in parents}
    return make_lock(
        number,
        **{
            "stage": "evaluate",
            "inputs": tuple(
                Data(path=f"{p.save_dir}/model.bin", kind="file", digest="blake3:" + "ab" * 32, run=p.id)
                for p in parents
            ),
            "parents": tuple(parent.id for parent in parents),
            "upstream": tuple(sorted(known.values(), key=lambda earlier: earlier.started)),
            **changes,
        },
    )
