"""Full, read-only and forbidden places: a clear error at entry, else an omission; the work itself goes on."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from runctx import lock as lockfile

NOBODY = 54321
"""A user of no name and no home."""

RUN = """
from runctx import Run
with Run({"lr": 0.1}, ["train.py"], stage="train") as run:
    (run.save_dir / "model.bin").write_bytes(b"weights")
print("done with", run.save_dir)
"""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and code that fills its disk; where none may be mounted, a limit on the size of files."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(mount, capture_output=True).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        yield folder, "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (0, -1))\n"
        return
    fill = f"""
with open({str(folder / "filler")!r}, "wb", buffering=0) as filler:
    for size in (4096, 1):
        try:
            while True:
                filler.write(bytes(size))
        except OSError:
            pass
"""
    yield folder, fill
    subprocess.run(["umount", str(folder)], check=True)


def _indented(code: str) -> str:
    return code.strip().replace("\n", "\n    ")


def test_full_at_entry(project, nursery, disk):
    """A full disk at entry is a SaveDirError with a hint, and no folder stays."""
    folder, fill = disk
    ended = nursery.run(
        f"{fill}\nfrom runctx import Run\nRun(save_dir={str(folder / 'run')!r}).start()", project
    )
    assert ended.status == 1
    assert "runctx.errors.SaveDirError: cannot write to save_dir" in ended.output
    assert ended.output.splitlines()[-1].startswith("hint: free space")
    assert not (folder / "run").exists()


def test_full_in_the_middle(project, nursery, disk):
    """A disk that fills up meanwhile costs the record its end, and the user a warning; not her work."""
    folder, fill = disk
    code = f"""
from runctx import Run
with Run({{"lr": 0.1}}, ["data"], save_dir={str(folder / "run")!r}) as run:
    {_indented(fill)}
    run.logger.info("still here " * 1000)
print("after the run")
"""
    ended = nursery.run(code, project)
    assert (ended.status, ended.left) == (0, []), ended.output
    assert ended.output.splitlines()[-1] == "after the run"
    assert "not captured: run.lock" in ended.output or "the run continues" in ended.output
    assert lockfile.read(folder / "run").status in {"running", "done"}
    assert not list(folder.rglob("*.tmp"))


def test_full_and_she_writes(project, nursery, disk):
    """What the user's own writing raises on a full disk is what she sees, and nothing of ours."""
    folder, fill = disk
    code = f"""
from runctx import Run
with Run({{"lr": 0.1}}, save_dir={str(folder / "run")!r}, console=False) as run:
    {_indented(fill)}
    (run.save_dir / "model.bin").write_bytes(bytes(100))
"""
    ended = nursery.run(code, project)
    assert ended.status == 1
    assert "During handling" not in ended.output
    assert ended.output.splitlines()[-1].startswith("OSError: [Errno 2")
    assert lockfile.read(folder / "run").status in {"running", "failed"}


@pytest.fixture
def homeless() -> Iterator[tuple[Path, dict[str, object]]]:
    """A repository, and how to run in it as a user without name, home or variables, whom permissions bind."""
    place = Path(tempfile.mkdtemp())
    place.chmod(0o755)
    root = place / "repo"
    root.mkdir()
    (root / "train.py").write_text("x = 1\n")
    (root / ".gitignore").write_text("results/\n")
    for arguments in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "first"]):
        subprocess.run(["git", *arguments], cwd=root, check=True)
    (root / "results").mkdir()
    (root / "notes.txt").write_text("not committed\n")
    as_user: dict[str, object] = {"environ": {}}
    if os.getuid() == 0:
        for path in (place, *place.rglob("*")):
            os.chown(path, NOBODY, NOBODY)
        as_user["user"] = NOBODY
    yield root, as_user
    subprocess.run(["chmod", "-R", "u+rwx", str(place)], check=True)
    shutil.rmtree(place)


def _one(root: Path):
    (file,) = root.glob("results/*/*/run.lock")
    return lockfile.read(file)


def test_no_home(homeless, nursery):
    """Without a home, a name and a single variable a run is whole."""
    root, as_user = homeless
    ended = nursery.run(RUN, root, **as_user)
    assert (ended.status, ended.left) == (0, []), ended.output
    lock = _one(root)
    assert lock.status == "done" and lock.source.commit
    assert lock.inputs[0].digest and lock.outputs[0].digest


def test_results_are_read_only(homeless, nursery):
    """A results folder that may not be written to is a SaveDirError with a hint."""
    root, as_user = homeless
    (root / "results").chmod(0o555)
    ended = nursery.run(RUN, root, **as_user)
    assert ended.status == 1
    assert "SaveDirError: cannot make save_dir" in ended.output and "Permission denied" in ended.output
    assert ended.output.splitlines()[-1].startswith("hint: ")


@pytest.mark.parametrize("mode", ["a-w", "a-rwx"])
def test_git_is_closed(homeless, nursery, mode):
    """A .git that may not be written, or not even read, is an omission; the run completes."""
    root, as_user = homeless
    subprocess.run(["chmod", "-R", mode, ".git"], cwd=root, check=True)
    ended = nursery.run(RUN, root, **as_user)
    assert (ended.status, ended.left) == (0, []), ended.output
    lock = _one(root)
    assert lock.status == "done"
    assert any(omission.what.startswith("source") for omission in lock.omissions)


def test_cache_is_read_only(homeless, nursery):
    """A cache that cannot be used costs time, not digests."""
    root, as_user = homeless
    (root.parent / "cache").mkdir(mode=0o555)
    as_user["environ"] = {"RUNCTX_CACHE": str(root.parent / "cache")}
    ended = nursery.run(RUN, root, **as_user)
    assert ended.status == 0, ended.output
    lock = _one(root)
    assert lock.status == "done" and lock.inputs[0].digest and lock.source.commit


def test_unreadable_input(homeless, nursery):
    """An input that may not be read is an omission that names it."""
    root, as_user = homeless
    (root / "secret.csv").touch(mode=0)
    if "user" in as_user:
        os.chown(root / "secret.csv", NOBODY, NOBODY)
    ended = nursery.run(RUN.replace("train.py", "secret.csv"), root, **as_user)
    assert ended.status == 0, ended.output
    lock = _one(root)
    assert lock.status == "done" and lock.inputs[0].digest is None
    assert any("secret.csv" in omission.what for omission in lock.omissions)


@pytest.mark.parametrize(
    ("damage", "sealed"),
    [
        ("run.save_dir.chmod(0o555)", False),
        ("shutil.rmtree(run.save_dir)", False),
        ("os.remove(run.save_dir / 'run.lock')", True),
        ("os.chdir(place); os.rmdir(place)", True),
    ],
    ids=["read-only", "removed", "lock removed", "current folder removed"],
)
def test_folder_under_attack(homeless, nursery, damage, sealed):
    """Whatever happens to the run's folder, or the current one, meanwhile, the program ends as it would."""
    root, as_user = homeless
    code = f"""
import os, shutil, tempfile, time
from runctx import Run
place = tempfile.mkdtemp(dir={str(root.parent)!r})
with Run({{"lr": 0.1}}, ["train.py"], stage="train") as run:
    while "  digest: blake3:" not in (run.save_dir / "run.lock").read_text():
        time.sleep(0.01)  # so that nothing of ours is written while the folder is being removed
    {damage}
print("after the run")
"""
    ended = nursery.run(code, root, **as_user)
    assert (ended.status, ended.left) == (0, []), ended.output
    assert ended.output.splitlines()[-1] == "after the run"
    assert "Traceback" not in ended.output
    assert ("not captured: run.lock" in ended.output) is not sealed
    assert not sealed or _one(root).status == "done"
