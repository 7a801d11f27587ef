"""A run's folder is nobody else's, and a file in it is old or new, never half."""

from __future__ import annotations

import os
import random
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from runctx import layout
from runctx.errors import SaveDirError
from runctx.layout import RunFiles, find_run, make_exclusively, write_atomically

MAKE = """
import os, sys
from pathlib import Path
from runctx.layout import make_exclusively
for wanted in sys.argv[2:]:
    children = []
    reading, writing = os.pipe()
    for _ in range(int(sys.argv[1])):
        if (pid := os.fork()) == 0:
            os.close(writing)
            os.read(reading, 1)  # all wait here, and start when the parent closes its end
            made = make_exclusively(Path(wanted))
            (made / "mine").write_text(str(os.getpid()))
            os._exit(0)
        children.append(pid)
    os.close(writing)
    assert all(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0 for pid in children)
"""


def test_a_hundred_at_once_get_a_hundred_folders(tmp_path: Path) -> None:
    """A hundred processes that want the same folder at once get one each, suffixes without gaps."""
    wanted = tmp_path / "results" / "train" / "251121-120000"
    subprocess.run([sys.executable, "-c", MAKE, "100", str(wanted)], check=True, timeout=60)
    made = list(wanted.parent.iterdir())
    assert {p.name for p in made} == {wanted.name} | {f"{wanted.name}-{n}" for n in range(2, 101)}
    assert len({(p / "mine").read_text() for p in made}) == 100


def test_a_folder_that_exists_is_never_taken(tmp_path: Path) -> None:
    """Whatever stands at the wanted name, a file or a dangling link too, stays as it is."""
    (tmp_path / "run").write_text("precious")
    (tmp_path / "run-2").symlink_to("nowhere")
    assert make_exclusively(tmp_path / "run") == tmp_path / "run-3"
    assert (tmp_path / "run").read_text() == "precious"


def test_no_free_name_is_an_error(tmp_path: Path) -> None:
    """The search ends, with an error that says how many names were tried."""
    for name in ("run", "run-2"):
        (tmp_path / name).mkdir()
    with pytest.raises(SaveDirError, match="2 folders of that name exist"):
        make_exclusively(tmp_path / "run", attempts=2)
    assert make_exclusively(tmp_path / "run", attempts=3).name == "run-3"


@pytest.mark.parametrize("wanted", ["/", "a\0b", "x" * 300, "/proc/nothing/here", "/dev/null/run"])
def test_a_name_that_no_folder_can_have(wanted: str) -> None:
    """It is refused as a SaveDirError that shows it and says what to set."""
    with pytest.raises(SaveDirError) as caught:
        make_exclusively(Path(wanted))
    assert repr(wanted) in caught.value.message
    assert "results" in (caught.value.hint or "")


READ_ONLY = """
import os, sys
from pathlib import Path
from runctx.errors import SaveDirError
from runctx.layout import make_exclusively
if os.geteuid() == 0:  # root may write anywhere
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
try:
    make_exclusively(Path(sys.argv[1]))
except SaveDirError as error:
    print(error)
"""


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A folder that other users can reach: pytest's own is closed to them."""
    folder = Path("/tmp") / f"runctx-{os.getpid()}-{random.randrange(2**32):x}"
    folder.mkdir()
    folder.chmod(0o755)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


@pytest.mark.parametrize("below", ["run", "train/run"])
def test_a_read_only_place(reachable: Path, below: str) -> None:
    """Where we may not write, the error names the place and says what to set."""
    reachable.chmod(0o555)
    done = subprocess.run(
        [sys.executable, "-c", READ_ONLY, str(reachable / below)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert (
        f"cannot make save_dir '{reachable / below}': Permission denied\nhint: set `results`" in done.stdout
    )


FULL = """
import ctypes, os, sys
from pathlib import Path
from runctx.errors import SaveDirError
from runctx.layout import make_exclusively, write_atomically

libc = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNS, CLONE_NEWUSER, MS_PRIVATE = 0x00020000, 0x10000000, (1 << 18) | (1 << 14)
place = Path(sys.argv[1])
alone = 0 if os.geteuid() == 0 else CLONE_NEWUSER
if libc.unshare(CLONE_NEWNS | alone) or libc.mount(b"none", b"/", None, MS_PRIVATE, None) or libc.mount(
    b"tmpfs", bytes(place), b"tmpfs", 0, b"size=64k,nr_inodes=6"
):
    print("not permitted")
    raise SystemExit
(place / "file").write_bytes(b"old")
try:
    write_atomically(place / "file", b"x" * 1_000_000)
except OSError as error:
    print(error.strerror, [p.name for p in place.iterdir()], (place / "file").read_bytes())
try:
    while True:
        make_exclusively(place / "run")
except SaveDirError as error:
    print(error)
"""
NO_SPACE = "No space left on device"


def test_a_full_disk(tmp_path: Path) -> None:
    """On a full disk the old file stays whole, no half one is left, and a new run says what to do."""
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, check=True, timeout=60
    )
    if done.stdout == "not permitted\n":
        # where no disk may be mounted: the limit on a file's size fails a write in the same way
        code = (
            "import resource, signal, sys, pathlib; from runctx.layout import write_atomically\n"
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
            "try: write_atomically(pathlib.Path(sys.argv[1]) / 'file', b'x' * 1_000_000)\n"
            "except OSError as error: print(error.strerror)"
        )
        (tmp_path / "file").write_bytes(b"old")
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
        )
        assert done.stdout == "File too large\n"
        assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("file", b"old")]
    else:
        first, second, hint = done.stdout.splitlines()
        assert first == f"{NO_SPACE} ['file'] b'old'"
        assert second.endswith(NO_SPACE)
        assert hint.startswith("hint: set `results`")


WRITE = """
import sys
from pathlib import Path
from runctx.layout import write_atomically
path, durable = Path(sys.argv[1]), sys.argv[2] == "durable"
print("ready", flush=True)
while True:
    for letter in (b"a", b"b"):
        write_atomically(path, letter * 3_000_000, durable=durable)
"""


def test_a_kill_leaves_old_or_new_whole(tmp_path: Path) -> None:
    """`kill -9` at thirty random moments of writing: the file always holds one of the two contents, whole."""
    path = tmp_path / "run.lock"
    path.write_bytes(b"a" * 3_000_000)
    moments = random.Random(7)
    for n in range(30):
        with subprocess.Popen(
            [sys.executable, "-c", WRITE, str(path), "durable" if n % 5 == 0 else "quick"],
            stdout=subprocess.PIPE,
        ) as child:
            assert child.stdout is not None
            child.stdout.readline()
            for _ in range(moments.randrange(3000)):
                os.sched_yield()
            child.kill()
        assert path.read_bytes() in (b"a" * 3_000_000, b"b" * 3_000_000)


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    """Nothing but the file remains, it obeys the umask, and a link is replaced, not followed."""
    (tmp_path / "target").write_bytes(b"precious")
    (tmp_path / "file").symlink_to("target")
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "file", b"new", durable=True)
    finally:
        os.umask(before)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"file": b"new", "target": b"precious"}
    assert stat.S_IMODE((tmp_path / "file").lstat().st_mode) == 0o640


def test_the_run_is_found_from_anything_inside(tmp_path: Path) -> None:
    """A run is the nearest folder with a run.lock above a path, which need not exist."""
    outer, inner = tmp_path / "outer", tmp_path / "outer" / "a" / "inner"
    inner.mkdir(parents=True)
    for folder in (outer, inner):
        RunFiles(folder).lock.write_text("")
    assert find_run(outer) == find_run(outer / "a" / "x" / "y.csv") == find_run(outer / "run.lock") == outer
    assert find_run(inner) == find_run(inner / "deep" / "er") == inner
    assert find_run(outer / "run.lock" / "below a file") == outer


@pytest.mark.parametrize("path", ["/", "relative/nothing", "x" * 300, "a\0b"])
def test_no_run_around(path: str) -> None:
    """Any path at all can be asked about."""
    assert find_run(Path(path)) is None


def test_a_folder_named_run_lock_is_no_run(tmp_path: Path) -> None:
    """Only a file makes a run."""
    (tmp_path / "run.lock").mkdir()
    assert find_run(tmp_path / "run.lock") is None


def test_the_cache_has_one_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """`RUNCTX_CACHE` beats the platform's convention."""
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("RUNCTX_CACHE", "/c")
    assert layout.cache_dir() == Path("/c")
    monkeypatch.delenv("RUNCTX_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert layout.cache_dir() == Path("/x/runctx")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/h")
    assert layout.cache_dir() == Path("/h/.cache/runctx")
    monkeypatch.setattr(sys, "platform", "darwin")
    assert layout.cache_dir() == Path("/h/Library/Caches/runctx")


def test_every_file_of_ours_is_known_as_ours() -> None:
    """What we write at the top of a save_dir is never taken for an output of the user's."""
    files = RunFiles("r")
    ours = {getattr(files, name) for name in dir(RunFiles) if isinstance(getattr(RunFiles, name), property)}
    assert {path.relative_to("r").parts[0] for path in ours} <= layout.OWN
