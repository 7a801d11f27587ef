"""How are other tools driven? In processes that live through all rounds: no figure holds their start."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .workshop import CHILDREN, PROJECT, Absent, Workshop, progress

PINNED = (
    "sacred==0.8.7",
    "GitPython==3.2.1",
    "dvc==3.67.0",
    "hydra-core==1.3.8",
    "setuptools<81",
    "trackio==0.43.0",
    "numpy",
    "pandas",
)
"""hydra-core wants an older omegaconf than ours: hence an environment of their own. It has numpy
and pandas, as ours has: sacred imports them where they are. setuptools still has the `pkg_resources` that it needs."""

VENV = PROJECT / ".venv-bench"


def peer_python() -> str:
    """The interpreter of the peers' environment, which is made when it is not there yet.

    Raises
    ------
    Absent: it could not be made, e.g. without a package index.
    """
    python = VENV / "bin" / "python"
    stamp = VENV / "pinned.txt"
    wanted = f"{sys.version}\n{PINNED}\n"
    if stamp.is_file() and stamp.read_text() == wanted:
        return str(python)
    progress(f"installing the peers into {VENV.name}")
    try:
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(VENV)], check=True, capture_output=True)
        subprocess.run(
            [str(python), "-m", "pip", "install", "--quiet", *PINNED], check=True, capture_output=True
        )
    except subprocess.CalledProcessError as error:
        lines = (error.stderr or b"").decode().strip().splitlines()
        raise Absent(f"cannot install {', '.join(PINNED)}: {lines[-1] if lines else error}") from error
    stamp.write_text(wanted)
    return str(python)


class Child:
    """A process that does what it is asked, by `children/serve.py`."""

    def __init__(self, command: list[str], cwd: Path, environ: dict[str, str], log: Path) -> None:
        self._log = log
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                command,
                cwd=cwd,
                env=environ,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )

    def ask(self, action: str, **arguments: Any) -> Any:
        """What the child's function `action` returned.

        Raises
        ------
        RuntimeError: the child died or its function raised; the message ends with the child's own last line.
        """
        assert self._process.stdin and self._process.stdout
        try:
            self._process.stdin.write(json.dumps({"do": action, "with": arguments}) + "\n")
            self._process.stdin.flush()
            answer = json.loads(self._process.stdout.readline() or "null")
        except BrokenPipeError:
            answer = None
        if answer is None:
            raise RuntimeError(f"{action}: the process died: {self._log.read_text('utf-8', 'replace')}")
        if "error" in answer:
            raise RuntimeError(f"{action}: {answer['error']}")
        return answer["value"]

    def close(self) -> None:
        assert self._process.stdin and self._process.stdout
        try:
            self._process.stdin.close()
            self._process.wait(timeout=30)
        except BrokenPipeError:
            self._process.wait()  # it died; whoever asked it has been told
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


@contextmanager
def child(
    workshop: Workshop, script: str, *, cwd: Path, python: str = sys.executable, **environ: str
) -> Iterator[Child]:
    """A child that runs `script` of `children/`: the copy inside the repository `cwd`, if it has one."""
    copy = cwd / "bench" / script
    path = copy if copy.is_file() else CHILDREN / script
    log = workshop.fresh("child") / "stderr.txt"
    process = Child([python, str(path)], cwd, {**workshop.environ, **environ}, log)
    try:
        yield process
    finally:
        process.close()
