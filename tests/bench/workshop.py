"""Where does the data to measure on lie? In a temporary folder; each set is made once, when first needed."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).parent
PROJECT = HERE.parents[1]
CHILDREN = HERE / "children"

MIB = 1 << 20
NEEDED = 10 << 30
"""Bytes of disk all data sets together take, with room to spare."""


class Absent(Exception):
    """Something the measurement needs is not here; the message says what to do."""


_NOT_PASSED_ON = ("RUNCTX_", "GIT_", "MLFLOW_", "PYTHONDONTWRITEBYTECODE")
"""Beginnings of variables; without the last, every process would compile the working copy anew."""


class Workshop:
    """The folder of all data sets; deletes itself.

    Parameters
    ----------
    base: folder to make it in; default `RUNCTX_BENCH_DIR`, else the system's folder for temporary files.
    """

    def __init__(self, base: Path | None = None) -> None:
        base = base or Path(os.environ.get("RUNCTX_BENCH_DIR", tempfile.gettempdir()))
        base.mkdir(parents=True, exist_ok=True)
        self.root = Path(tempfile.mkdtemp(prefix="runctx-bench-", dir=base))
        self.notes: list[str] = []
        # Nothing of the user's own cache or project settings may speed up or slow down a side.
        self.environ = {
            **{k: v for k, v in os.environ.items() if not k.startswith(_NOT_PASSED_ON)},
            "RUNCTX_CACHE": str(self.root / "cache"),
            "PYTHONPATH": str(PROJECT),
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_SYSTEM": os.devnull,
        }

    def __enter__(self) -> Workshop:
        return self

    def __exit__(self, *error: object) -> None:
        shutil.rmtree(self.root, ignore_errors=True)

    def note(self, text: str) -> None:
        """Keep a finding for the lines below the table."""
        if text not in self.notes:
            self.notes.append(text)

    def fresh(self, name: str) -> Path:
        """An empty folder that did not exist before."""
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.root))

    def space(self) -> int:
        """Free bytes on the disk."""
        return shutil.disk_usage(self.root).free

    # Data sets

    def repository(self, files: int, name: str) -> Path:
        """A git repository of so many Python files of about 3 KB, clean, with the programs of `children/`.

        The files are an hour old: in one made this very second git would have to read each file again.
        """

        def make(root: Path) -> None:
            source = random.Random(files)
            paths = [root / f"pkg{n // 100:03d}" / f"module{n:05d}.py" for n in range(files)]
            for path in paths:
                path.parent.mkdir(exist_ok=True)
                path.write_text(module_text(source))
            shutil.copytree(CHILDREN, root / "bench", ignore=shutil.ignore_patterns("__pycache__"))
            (root / ".gitignore").write_text("results/\n__pycache__/\n")
            age(root, 3600)
            self.git(root, "init", "--quiet", "--initial-branch=main")
            self.git(root, "config", "user.name", "bench")
            self.git(root, "config", "user.email", "bench@localhost")
            self.git(root, "config", "gc.auto", "0")
            self.git(root, "add", "--all")
            self.git(root, "commit", "--quiet", "--message=base")
            self.git(root, "status")

        return self._once(f"repository-{files}-{name}", make)

    def large_file(self) -> Path:
        """One file of 4 GiB, no part of it sparse."""

        def make(root: Path) -> None:
            block = random.Random(1).randbytes(64 * MIB)
            with (root / "large.bin").open("wb") as file:
                for _ in range(64):
                    file.write(block)

        return self._once("large", make) / "large.bin"

    def medium_files(self) -> Path:
        """1 000 files of 1 MiB, all different."""
        return self._once("medium", lambda root: write_files(root, 1_000, MIB, per_folder=100))

    def small_files(self) -> Path:
        """100 000 files of 4 KiB, all different, 250 in a folder."""
        return self._once("small", lambda root: write_files(root, 100_000, 4096, per_folder=250))

    def _once(self, name: str, make: Callable[[Path], None]) -> Path:
        root = self.root / name
        if not root.exists():
            progress(f"making {name}")
            unfinished = self.fresh(name)
            make(unfinished)
            unfinished.rename(root)
            os.sync()  # so that writing it back does not happen while a side is measured
        return root

    # Commands

    def git(self, root: Path, *args: str, environ: dict[str, str] | None = None) -> str:
        """What `git` prints."""
        done = subprocess.run(
            ["git", *args], cwd=root, env={**self.environ, **(environ or {})}, capture_output=True, text=True
        )
        if done.returncode:
            raise RuntimeError(f"git {' '.join(args)}: {done.stderr.strip()}")
        return done.stdout.strip()

    def run(self, command: list[str], cwd: Path, environ: dict[str, str] | None = None) -> None:
        """Run a command, output thrown away; it must succeed."""
        done = subprocess.run(
            command,
            cwd=cwd,
            env={**self.environ, **(environ or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"{command[0]} ended with {done.returncode}: {done.stderr.strip()}")


def program(name: str, install: str) -> str:
    """The path of an executable.

    Raises
    ------
    Absent: it is not installed.
    """
    path = shutil.which(name)
    if path is None:
        raise Absent(f"`{name}` is not installed; {install}")
    return path


def module_text(source: random.Random) -> str:
    """About 3 KB that look like code."""
    return "".join(f"value_{n} = {source.random()!r}\n" for n in range(95))


def write_files(root: Path, count: int, size: int, per_folder: int) -> None:
    source = random.Random(count)
    for n in range(count):
        folder = root / f"{n // per_folder:04d}"
        if n % per_folder == 0:
            folder.mkdir()
        (folder / f"{n:06d}.bin").write_bytes(source.randbytes(size))


def age(root: Path, seconds: int) -> None:
    for folder, _, names in os.walk(root):
        for name in names:
            path = os.path.join(folder, name)
            then = os.stat(path).st_mtime - seconds
            os.utime(path, (then, then))


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
