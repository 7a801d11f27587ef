"""Repositories to run in, and programs that can be killed at any moment."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a program ended."""

    status: int
    """Exit code, or minus the number of the signal that killed it."""
    seconds: float
    left: list[str]
    """Command lines of the processes it left behind."""
    output: str


class Nursery:
    """Starts programs in a few milliseconds each; see `nursery.py`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("nursery.py")), str(folder / "warm")],
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(
        self,
        code: str,
        cwd: Path,
        signals: Sequence[tuple[float, int]] = (),
        *,
        environ: dict[str, str] | None = None,
        user: int | None = None,
    ) -> Ended:
        """Run `code` as a program in `cwd`.

        Parameters
        ----------
        signals: to send it, each with the seconds after the one before.
        environ, user: in place of ours.
        """
        script, output = cwd / f"program_{self._folder.name}.py", self._folder / "output"
        script.write_text(textwrap.dedent(code), "utf-8")
        request = {
            "script": str(script),
            "cwd": str(cwd),
            "output": str(output),
            "signals": list(signals),
            "environ": environ,
            "user": user,
        }
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        return Ended(**answer, output=output.read_text("utf-8", "replace"))

    def close(self) -> None:
        self._process.communicate()


@pytest.fixture(scope="session")
def nurseries(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Nursery]]:
    """Two, for two cores."""
    folder = tmp_path_factory.mktemp("nurseries")
    made = [Nursery(folder / str(n)) for n in range(2)]
    yield made
    for nursery in made:
        nursery.close()


@pytest.fixture
def nursery(nurseries: list[Nursery]) -> Nursery:
    return nurseries[0]


@pytest.fixture
def project(make_repo: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with tracked files, and with data enough that hashing it takes a process of its own."""
    root = make_repo({"train.py": "x = 1\n", "notes.txt": "first\n", ".gitignore": "results/\ndata/\n"})
    (root / "data").mkdir()
    for n in range(600):
        (root / f"data/{n}.csv").write_text(f"{n}\n")
    (root / "small.csv").write_text("1,2\n")
    monkeypatch.chdir(root)
    return root
