"""The promise of `import runctx`: these names, and nothing heavy loaded."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path
from types import FunctionType, ModuleType

import pytest

import runctx
import runctx.config

BIG = {"mlflow", "joblib", "submitit", "rich", "pandas", "IPython", "numpy", "scipy", "matplotlib", "psutil"}
HEAVY = BIG | {"omegaconf", "loguru", "yaml", "filelock", "multiprocessing"}

NAMES = [
    "Run",
    "RunctxError",
    "__version__",
    "compose",
    "derived",
    "explain",
    "from_cli",
    "grid",
    "runs",
    "to_text",
]


def test_public_names() -> None:
    """The names are pinned; each can be had, and appears in `dir` and in `import *`."""
    assert sorted(runctx.__all__) == NAMES
    assert set(runctx.__all__) <= set(dir(runctx))
    for name in runctx.__all__:
        assert getattr(runctx, name) is not None


@pytest.mark.parametrize("package", [runctx, runctx.config])
def test_lazy_names(package: ModuleType) -> None:
    """What is loaded on demand is what type checkers are told, function by function; another name is an error."""
    told = {
        alias.name: f"{package.__name__}.{node.module}"
        for block in ast.parse(Path(str(package.__file__)).read_text("utf-8")).body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert set(package.__all__) - set(told) == (
        {"RunctxError", "__version__"} if package is runctx else set()
    )
    for name, module in told.items():
        found = getattr(package, name)
        assert found is getattr(importlib.import_module(module), name)
        assert isinstance(found, (FunctionType, type))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = package.nothing


def loaded_by(code: str) -> set[str]:
    code += "\nimport sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "code", ["import runctx", "import runctx.config", "from runctx.config import explanation"]
)
def test_import_is_light(code: str) -> None:
    """`import runctx` loads none of the large libraries: each is imported where it is used."""
    loaded = {name.partition(".")[0] for name in loaded_by(code)}
    assert HEAVY.isdisjoint(loaded), HEAVY & loaded


def test_a_run_loads_what_it_needs(tmp_path: Path) -> None:
    """A run that is given a dict does not load what reads files and command lines, or lists combinations."""
    loaded = loaded_by(
        "import os\nfrom runctx import Run\n"
        f"os.chdir({str(tmp_path)!r})\nwith Run({{'lr': 0.1}}, console=False) as run: run.cfg.lr"
    )
    own = {name.removeprefix("runctx.config.") for name in loaded if name.startswith("runctx.config.")}
    assert {"cli", "compose", "grid", "formats", "inherit", "overrides"}.isdisjoint(own)
    assert BIG.isdisjoint(loaded), BIG & loaded
