"""The promise of `import runctx`: these names, and nothing heavy loaded."""

from __future__ import annotations

import subprocess
import sys

import runctx

HEAVY = {"mlflow", "joblib", "submitit", "rich", "pandas", "IPython", "omegaconf", "pygit2", "loguru"}


def test_public_names() -> None:
    """The names are pinned; each can be had, and appears in `dir` and in `import *`."""
    assert sorted(runctx.__all__) == ["Run", "RunctxError", "__version__", "runs"]
    assert set(runctx.__all__) <= set(dir(runctx))
    for name in runctx.__all__:
        assert getattr(runctx, name) is not None


def test_import_is_light() -> None:
    """`import runctx` loads none of the large libraries: each is imported where it is used."""
    code = "import sys, runctx; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert HEAVY.isdisjoint(done.stdout.split()), HEAVY.intersection(done.stdout.split())
