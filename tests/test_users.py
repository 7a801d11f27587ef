"""Other users: one without a home, as in a container, and two who share a project.

Only root can become somebody else. For anybody else, what needs no second user is tested as themselves.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

import runctx

from .shipping import PATIENCE, until

IS_ROOT = os.getuid() == 0
ADA, BOB, GROUP = 54321, 54322, 54320
"""Numbers without a name."""
CLI = "from runctx.cli import main; main(prog_name='runctx')"

Run = Callable[..., subprocess.CompletedProcess[str]]

only_root = pytest.mark.skipif(not IS_ROOT, reason="only root can become two other users")


def _is_open(path: Path) -> bool:
    """Whether every user can reach it."""
    return all(place.stat().st_mode & stat.S_IXOTH for place in (path, *path.parents) if place.is_dir())


@pytest.fixture(scope="session")
def opened() -> Iterator[Path]:
    """A folder that all users can reach."""
    folder = Path(tempfile.mkdtemp(dir="/tmp", prefix="runctx-users-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def python(opened: Path) -> tuple[str, str]:
    """An interpreter that all users can start, and its path of modules: links, if the real ones are closed to them."""

    def reachable(path: Path) -> Path:
        if not IS_ROOT or _is_open(path):
            return path
        copy = opened / "copies" / path.relative_to("/")
        copy.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            ["cp", "-al" if path.stat().st_dev == opened.stat().st_dev else "-a", path, copy], check=True
        )
        return copy

    real = Path(sys.executable).resolve()
    for part in ("lib", "bin"):
        started = reachable(Path(sys.base_prefix, part)) / real.name
    modules = [
        reachable(Path(path)) for path in (sysconfig.get_path("purelib"), Path(runctx.__file__).parents[1])
    ]
    return os.fspath(started if started.exists() else real), os.pathsep.join(map(str, modules))


@pytest.fixture
def run(opened: Path, python: tuple[str, str]) -> Iterator[Run]:
    """Runs `python ARGUMENTS` in a new project as one of two users of a group; their variables are only those given."""
    project = Path(tempfile.mkdtemp(dir=opened))
    (project / "pyproject.toml").write_text("[tool.runctx]\nexperiment = 'users'\n")
    (project / "tmp").mkdir()
    (project / "tmp").chmod(0o777)
    if IS_ROOT:
        os.chown(project, ADA, GROUP)
    project.chmod(0o2775)

    def run(
        *arguments: str, user: int = ADA, code: int = 0, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        become = {"user": user, "group": GROUP, "extra_groups": []} if IS_ROOT else {}
        given = {"RUNCTX_TRACKING": "off", "TMPDIR": f"{project}/tmp", "PYTHONPATH": python[1], **variables}
        # where Python is a shared library
        given["LD_LIBRARY_PATH"] = os.fspath(Path(python[0]).parents[1] / "lib")
        done = subprocess.run(
            [python[0], *arguments],
            cwd=project,
            env={"PATH": os.environ["PATH"], **given},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            umask=0o002,
            **become,  # type: ignore[call-overload]
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done

    run.project = project  # type: ignore[attr-defined]
    yield run
    for process in psutil.process_iter():
        try:
            if any(os.fspath(project) in argument for argument in process.cmdline()):
                process.kill()
        except psutil.Error:
            pass


# -- no home -----------------------------------------------------------------------------------------------

LOGS = """
from runctx import Run
with Run({"lr": 0.1}) as run:
    run.log_async(loss=1.0, step=0)
"""


@pytest.mark.parametrize("home", ["/", "/nowhere", "/dev/null", None])
def test_a_user_without_a_home(run: Run, home: str | None) -> None:
    """Cache and spool are in a private folder for temporary files; one line says so, and the run is shipped."""
    project: Path = run.project  # type: ignore[attr-defined]
    if home is None and not IS_ROOT:
        home = "/dev/null"  # whoever runs the tests has an entry in passwd
    variables = {} if home is None else {"HOME": home}
    done = run("-c", LOGS, RUNCTX_TRACKING="tensorboard", **variables)
    private = project / f"tmp/runctx-{ADA if IS_ROOT else os.getuid()}"
    lines = [line for line in done.stderr.splitlines() if "home" in line]
    assert len(lines) == 1 and f"the cache is in {private}; RUNCTX_CACHE names another place" in lines[0]
    assert "not captured: views" not in done.stderr and "python" not in done.stderr, done.stderr
    assert private.stat().st_mode & 0o777 == 0o700
    until(lambda: list(project.glob("tensorboard/*/events*.numbers.runctx")), "the numbers")


def test_publishing_needs_no_home(run: Run) -> None:
    """MLflow asks for one while it is imported; it is not needed."""
    run("-c", LOGS)
    assert run("-c", CLI, "publish").stdout == "published      1  mlflow: mlflow.db\n"


# -- a project of two --------------------------------------------------------------------------------------

MAPS = """
import sys
from runctx import Run
def half(x):
    return 1 / x
with Run({"lr": 0.1}, resume=eval(sys.argv[1])) as run:
    run.map(half, [1, 0, 2], launcher="serial")
"""


@only_root
@pytest.mark.parametrize("which", ["True", "'latest'"])
def test_a_run_of_another_user_is_resumed_by_nobody_else(run: Run, which: str) -> None:
    """The error comes before anything is written, names what is closed, and says who can."""
    project: Path = run.project  # type: ignore[attr-defined]
    (project / "maps.py").write_text(MAPS)
    run("maps.py", "False", code=1)

    def content() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in project.glob("results/**/*") if path.is_file()}

    before = content()
    said = run("maps.py", which, user=BOB, code=1).stderr
    assert f"cannot be resumed by user {BOB}: no permission to write to {project}/results/" in said
    assert f"hint: user {ADA} can resume it; without `resume`, a new run is made" in said
    assert content() == before
    assert "(2 of them earlier)" in run("maps.py", which, code=1).stderr


@only_root
def test_what_cannot_be_read_is_not_nothing(run: Run) -> None:
    """Folders that are closed to this user are told with what to ask whom for, and the other runs are there."""
    project: Path = run.project  # type: ignore[attr-defined]
    for stage in ("open", "closed"):
        run("-c", f"from runctx import Run\nwith Run({{}}, stage='{stage}'): pass")
    closed, results = project / "results/closed", project / "results"
    (folder,) = closed.iterdir()

    def ask(place: Path, letters: str) -> str:
        return f"hint: {place} belongs to user {ADA}: ask for `chmod g+{letters} {place}`\n"

    closed.chmod(0o700)
    done = run("-c", CLI, "ls", user=BOB)
    assert done.stderr == f"warning: folder {closed} cannot be read: runs in there are left out\n" + ask(
        closed, "rx"
    )
    assert "open-" in done.stdout and "closed-" not in done.stdout
    done = run("-c", CLI, "show", os.fspath(folder), user=BOB, code=2)
    assert done.stderr.endswith(f"error: {folder} cannot be read: Permission denied\n" + ask(closed, "rx"))
    closed.chmod(0o755)
    (folder / "run.lock").chmod(0o600)
    done = run("-c", CLI, "show", os.fspath(folder), user=BOB, code=2)
    assert "run.lock: cannot be read: Permission denied\n" + ask(folder / "run.lock", "r") in done.stderr
    results.chmod(0o700)
    done = run("-c", CLI, "ls", user=BOB, code=2)
    assert done.stderr == f"error: {results} cannot be read: Permission denied\n" + ask(results, "rx")


@only_root
@pytest.mark.parametrize("closed", ["mlflow.db", "mlflow.db.lock", "."])
def test_a_database_that_is_closed_is_told(run: Run, closed: str) -> None:
    """Whatever of it this user may not write to is named."""
    project: Path = run.project  # type: ignore[attr-defined]
    run(
        "-c",
        "import sqlite3; c = sqlite3.connect('mlflow.db'); c.execute('CREATE TABLE t AS SELECT 1'); c.commit()",
    )
    (project / "mlflow.db").chmod(0o664)
    run("-c", "from runctx import Run\nwith Run({}): pass")
    run("-c", "open('mlflow.db.lock', 'w')")
    place = Path(os.path.normpath(project / closed))
    place.chmod(place.stat().st_mode & ~0o022)
    said = run("-c", CLI, "publish", user=BOB, code=1).stderr
    assert f"hint: {place} belongs to user {ADA}: ask for `chmod g+w" in said
