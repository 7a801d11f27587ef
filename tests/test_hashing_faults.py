"""Hashing when things go wrong: processes that die, files that change, caches that are broken."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from blake3 import blake3

from runctx.hashing import Hashed, Hashing, background, hash_data, read_manifest
from runctx.hashing.cache import FILE, MARGIN, Cache
from runctx.hashing.content import Means, examine
from runctx.hashing.crew import share
from runctx.hashing.outcome import place
from runctx.hashing.tree import Tree, find

LONG_AGO = 1_600_000_000


def eventually(condition: Callable[[], object], seconds: float = 20.0) -> bool:
    """Whether it becomes true within the time, which is for slow machines and never used up by fast ones."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.005)
    return False


def children_of(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def worker_of(hashing: Hashing) -> subprocess.Popen[bytes]:
    assert eventually(lambda: hashing._pass._worker is not None)
    worker = hashing._pass._worker
    assert worker is not None
    return worker


def ended(hashing: Hashing) -> None:
    """Wait until the thread has seen its worker off, cache filled."""
    hashing._pass._thread.join(60)
    assert not hashing._pass._thread.is_alive()


def hash_and_remember(path: str, base: Path, cache: Path) -> Hashed:
    hashing = Hashing([path], base=base, cache=cache)
    (hashed,) = hashing.join(60)
    ended(hashing)
    return hashed


def sparse(path: Path, size: int) -> Path:
    """A file that takes time to hash and no room on the disk."""
    with path.open("wb") as file:
        file.truncate(size)
    return path


def many(folder: Path, count: int = background.FEW + 100) -> Path:
    """A folder with more files than are hashed in the run's own process."""
    folder.mkdir(parents=True)
    for n in range(count):
        path = folder / f"{n:05d}"
        path.write_bytes(b"%d" % n)
        os.utime(path, (LONG_AGO, LONG_AGO))
    return folder


def expected(folder: Path) -> dict[str, str]:
    return {p.name: "blake3:" + blake3(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


# ------------------------------------------------------------------------------------------ processes


def test_a_small_input_starts_no_process(tmp_path: Path) -> None:
    """A run on one small file pays for reading it, not for a process."""
    (tmp_path / "a.csv").write_text("x")
    hashing = Hashing(["a.csv"], base=tmp_path, cache=tmp_path / "cache")
    assert hashing.join()[0].data.strength == "content"
    assert hashing._pass._worker is None and not (tmp_path / "cache").exists()
    assert hashing.done and hashing.progress == (1, 1)


def test_several_inputs_come_back_in_order(tmp_path: Path) -> None:
    """Small or large, skipped or hashed: the results are in the order the inputs were given."""
    many(tmp_path / "many")
    sparse(tmp_path / "large", 40 << 20)
    (tmp_path / "small").write_text("x")
    hashed = Hashing(["many", "/dev/zero", "small", "large"], base=tmp_path, cache=None).join()
    assert [h.data.path for h in hashed] == ["many", "/dev/zero", "small", "large"]
    assert [h.data.strength for h in hashed] == ["content", "skipped", "content", "content"]
    assert hashed[3].data.digest == "blake3:" + blake3((tmp_path / "large").read_bytes()).hexdigest()
    assert hashed[0].manifest is not None
    assert read_manifest(hashed[0].manifest) == expected(tmp_path / "many")


def test_a_killed_worker_is_made_up_for(tmp_path: Path) -> None:
    """SIGKILL to the worker costs time, not the digest."""
    content = sparse(tmp_path / "large", 1 << 30)
    hashing = Hashing(["large"], base=tmp_path, cache=None)
    hashing.start()
    worker_of(hashing).kill()
    (hashed,) = hashing.join(120)
    assert hashed.data.strength == "content" and hashed.omissions == ()
    assert hashed.data.digest == "blake3:" + blake3().update_mmap(content).hexdigest()


def test_killed_helpers_are_made_up_for(tmp_path: Path) -> None:
    """SIGKILL to a helper, as the out-of-memory killer sends it, costs time, not the digest."""
    content = sparse(tmp_path / "large", 2 << 30)
    hashing = Hashing(["large"], base=tmp_path, cache=None)
    hashing.start()
    worker = worker_of(hashing)
    killed = 0

    def kill_one() -> bool:
        nonlocal killed
        for helper in children_of(worker.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(helper, signal.SIGKILL)
                killed += 1
        return killed > 0 or hashing.done

    assert eventually(kill_one)
    (hashed,) = hashing.join(120)
    assert killed
    assert hashed.data.digest == "blake3:" + blake3().update_mmap(content).hexdigest()


def test_a_file_truncated_while_mapped_does_not_kill_the_run(tmp_path: Path) -> None:
    """Whoever maps a file that shrinks dies of SIGBUS; the run lives, and records the content now."""
    path = sparse(tmp_path / "large", 16 << 30)
    hashing = Hashing(["large"], base=tmp_path, cache=None)
    hashing.start()
    assert eventually(lambda: hashing.progress[0] > 0)
    os.truncate(path, 1000)
    (hashed,) = hashing.join(60)
    assert hashed.data.strength == "content"
    assert hashed.data.digest == "blake3:" + blake3(bytes(1000)).hexdigest()
    assert hashed.data.bytes == 1000


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # the worker, unlike us, has one thread
def test_a_helper_that_dies_loses_its_piece_only() -> None:
    """What the dead one had taken is missing from the result, and nothing else."""

    def work(helper: int, piece: int) -> int:
        if piece == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return piece * piece

    results = share(10, 2, work, lambda: None)
    assert results == {piece: piece * piece for piece in range(10) if piece != 3}


PARENT = """
import sys, time
from pathlib import Path
from runctx.hashing import Hashing
hashing = Hashing(["large"], base=Path(sys.argv[1]), cache=None)
hashing.start()
while hashing._pass._worker is None:
    time.sleep(0.001)
print(hashing._pass._worker.pid, flush=True)
time.sleep(600)
"""


def test_no_process_outlives_a_killed_run(tmp_path: Path) -> None:
    """When the run is killed with SIGKILL, worker and helpers leave by themselves."""
    sparse(tmp_path / "large", 64 << 30)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, tmp_path], stdout=subprocess.PIPE, text=True, env=environment
    ) as run:
        assert run.stdout is not None
        worker = int(run.stdout.readline())
        assert eventually(lambda: children_of(worker))
        family = [worker, *children_of(worker)]
        run.kill()
    assert eventually(lambda: not any(map(is_running, family)))


def test_cancel_leaves_no_process_behind(tmp_path: Path) -> None:
    """After cancel() worker and helpers are gone, and join() says why there is no digest."""
    sparse(tmp_path / "large", 64 << 30)
    hashing = Hashing(["large"], base=tmp_path, cache=None)
    hashing.start()
    worker = worker_of(hashing)
    assert eventually(lambda: children_of(worker.pid))
    family = [worker.pid, *children_of(worker.pid)]
    hashing.cancel()
    assert eventually(lambda: not any(map(is_running, family)))
    (hashed,) = hashing.join()
    assert hashed.data.strength == "skipped"
    assert [o.why for o in hashed.omissions] == ["hashing was cancelled"]


def test_join_gives_up_when_told_to_and_can_be_called_again(tmp_path: Path) -> None:
    """A time limit turns what is not done into an omission, and hashing goes on."""
    sparse(tmp_path / "large", 4 << 30)
    hashing = Hashing(["large"], base=tmp_path, cache=None)
    hashing.start()
    (hashed,) = hashing.join(0)
    assert (hashed.data.strength, hashed.data.digest) == ("skipped", None)
    assert "not finished within 0 s" in hashed.omissions[0].why
    assert hashing.join(120)[0].data.strength == "content"


@pytest.mark.parametrize("python", ["", "/bin/true", "/nonexistent/python3", None])
def test_an_odd_interpreter_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, python: str | None
) -> None:
    """In an embedded interpreter no process is started, least of all the embedding program again."""
    many(tmp_path / "d")
    monkeypatch.setattr(sys, "executable", python)
    hashed = hash_data("d", base=tmp_path, cache=tmp_path / "cache")
    assert hashed.manifest is not None
    assert read_manifest(hashed.manifest) == expected(tmp_path / "d")


def test_an_interpreter_that_fails_is_made_up_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A `python` that cannot run the worker costs time, not the digest."""
    many(tmp_path / "d")
    fake = tmp_path / "python3"
    fake.write_text("#!/bin/sh\necho nonsense that is no message\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(fake))
    hashed = hash_data("d", base=tmp_path, cache=None)
    assert hashed.manifest is not None
    assert read_manifest(hashed.manifest) == expected(tmp_path / "d")


def test_on_done_is_called_once_and_may_fail(tmp_path: Path) -> None:
    """Whoever asked to be told is told once; trouble there is not trouble here."""
    (tmp_path / "a").write_text("x")
    calls = []

    def note() -> None:
        calls.append(threading.current_thread().name)
        raise ValueError("not ours")

    hashing = Hashing(["a"], base=tmp_path, cache=None, on_done=note)
    assert hashing.join()[0].data.strength == "content"
    ended(hashing)
    assert calls == ["runctx-hashing"]


# ------------------------------------------------------------------------------------- files that change


def test_a_file_that_keeps_changing_is_recorded_as_such(tmp_path: Path) -> None:
    """A file that changes at each reading is tried twice and then listed, without a digest."""
    path = tmp_path / "log"
    path.write_bytes(bytes(5 << 20))
    reads = 0

    def grow(size: int) -> None:
        nonlocal reads
        if size:
            reads += 1
            os.utime(path, (LONG_AGO, LONG_AGO + reads))

    tree = find("file", os.fsencode(path))
    part = examine(tree.folders[0], 0, 1, Means(advance=grow))
    assert [why for _, why in part[2]] == ["changed while it was being read, twice"]
    assert reads == 10  # five megabytes, twice


def test_a_file_that_changed_once_is_read_again(tmp_path: Path) -> None:
    """One change while it is read costs a second reading; the digest is of the content then."""
    path = tmp_path / "data"
    path.write_bytes(bytes(3 << 20))
    pending = [b"new content"]

    def change(size: int) -> None:
        if size and pending:
            path.write_bytes(pending.pop())

    tree = find("file", os.fsencode(path))
    digests, _, wrong, _ = examine(tree.folders[0], 0, 1, Means(advance=change))
    assert not wrong
    assert digests == blake3(b"new content").digest()


def test_a_file_deleted_before_it_is_read_is_listed(tmp_path: Path) -> None:
    """What was listed and then vanished has no digest, and its folder's neighbours keep theirs."""
    for name in "abc":
        (tmp_path / name).write_text(name)
    tree = find("folder", os.fsencode(tmp_path))
    (tmp_path / "b").unlink()
    (folder,) = tree.folders
    gaps = place(folder, 0, examine(folder, 0, 3, Means()))
    assert [(gap.path, gap.why) for gap in gaps] == [(b"b", "vanished while the data was being hashed")]
    assert folder.digests == blake3(b"a").digest() + bytes(32) + blake3(b"c").digest()


def test_changed_sees_every_kind_of_change(tmp_path: Path) -> None:
    """Added, removed, replaced, rewritten with its old time: each is seen, and only where it happened."""

    def hashed(folder: str) -> Hashing:
        shutil.rmtree(tmp_path / folder, ignore_errors=True)
        (tmp_path / folder / "sub").mkdir(parents=True)
        for name in ("a", "sub/b"):
            (tmp_path / folder / name).write_text(name)
        (tmp_path / "other").write_text("x")
        hashing = Hashing([folder, "other", f"{folder}/*/*", "/dev/null"], base=tmp_path, cache=None)
        hashing.join()
        assert hashing.changed() == [False] * 4
        return hashing

    hashing = hashed("d")
    (tmp_path / "d/sub/new").touch()
    assert hashing.changed() == [True, False, True, False]
    hashing = hashed("d")
    (tmp_path / "d/a").unlink()
    assert hashing.changed() == [True, False, False, False]
    hashing = hashed("d")
    before = (tmp_path / "d/a").stat()
    eventually(lambda: _touched_later(tmp_path, before.st_ctime_ns))
    (tmp_path / "d/a").write_text("A")
    os.utime(tmp_path / "d/a", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert hashing.changed() == [True, False, False, False]
    hashing = hashed("d")
    shutil.rmtree(tmp_path / "d")
    (tmp_path / "other").write_text("y, longer")
    assert hashing.changed() == [True, True, True, False]


def _touched_later(folder: Path, than: int) -> bool:
    """Whether the file system's clock has ticked since."""
    (folder / "clock").touch()
    return (folder / "clock").stat().st_ctime_ns > than


# ------------------------------------------------------------------------------------------ the cache


def remembered(folder: Path, cache: Path) -> Tree:
    """The tree of a folder with what the cache knows of it."""
    tree = find("folder", os.fsencode(folder))
    Cache(str(cache)).recall(tree.folders)
    return tree


def keep(folder: Path, cache: Path, started: int) -> Tree:
    """Hash a folder and remember it, as if hashing had begun at `started` (nanoseconds)."""
    tree = find("folder", os.fsencode(folder))
    for part in tree.folders:
        place(part, 0, examine(part, 0, len(part.names), Means()))
    Cache(str(cache)).remember(tree.folders, started)
    return tree


def reread(tree: Tree) -> int:
    """How many files are opened when the tree is examined with what is known of it."""
    opened = []
    for folder in tree.folders:
        place(folder, 0, examine(folder, 0, len(folder.names), Means(admit=opened.append)))
    return len(opened)


LATER = 10_000_000_000


def test_what_was_hashed_is_not_read_again(tmp_path: Path) -> None:
    """A second look at unchanged files opens none of them and gives the same digests."""
    keep(many(tmp_path / "d", 20), tmp_path / "cache", time.time_ns() + LATER)
    tree = remembered(tmp_path / "d", tmp_path / "cache")
    assert reread(tree) == 0
    assert tree.folders[0].digests == b"".join(blake3(b"%d" % n).digest() for n in range(20))


def test_new_and_changed_files_are_read_and_the_others_are_not(tmp_path: Path) -> None:
    """Adding, removing and changing files costs the reading of those."""
    folder = many(tmp_path / "d", 20)
    keep(folder, tmp_path / "cache", time.time_ns() + LATER)
    (folder / "00000").unlink()
    (folder / "00001").write_text("changed")
    (folder / "new").write_text("new")
    assert reread(remembered(folder, tmp_path / "cache")) == 2


def test_a_rewrite_that_restores_the_time_is_seen(tmp_path: Path) -> None:
    """Same size, same mtime by os.utime: the ctime tells, and the file is read."""
    folder = many(tmp_path / "d", 5)
    path = folder / "00003"
    before = path.stat()
    keep(folder, tmp_path / "cache", time.time_ns() + LATER)
    assert eventually(lambda: _touched_later(tmp_path, before.st_ctime_ns))
    path.write_bytes(b"X")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    tree = remembered(folder, tmp_path / "cache")
    assert reread(tree) == 1
    assert tree.folders[0].digests[3 * 32 : 4 * 32] == blake3(b"X").digest()


def test_a_file_modified_just_before_is_not_remembered(tmp_path: Path) -> None:
    """A change within the same tick of the clock leaves no trace, so a file that young is read again."""
    folder = many(tmp_path / "d", 5)
    keep(folder, tmp_path / "cache", time.time_ns())  # its ctime is of this moment
    assert reread(remembered(folder, tmp_path / "cache")) == 5


def test_the_worker_remembers(tmp_path: Path) -> None:
    """The whole way: hashed by the worker, kept when old enough, recalled by the next."""
    folder = many(tmp_path / "d")
    youngest = max(path.stat().st_ctime_ns for path in folder.iterdir())
    assert eventually(lambda: time.time_ns() - youngest > MARGIN)
    first = hash_and_remember("d", tmp_path, tmp_path / "cache")
    assert reread(remembered(folder, tmp_path / "cache")) == 0
    assert hash_and_remember("d", tmp_path, tmp_path / "cache") == first


BREAKAGES: dict[str, Callable[[Path], object]] = {
    "not a database": lambda file: file.write_bytes(b"this is not sqlite " * 500),
    "empty": lambda file: file.write_bytes(b""),
    "cut short": lambda file: os.truncate(file, 5000),
    "scribbled over": lambda file: file.write_bytes(file.read_bytes()[:4096] + os.urandom(20_000)),
    "a folder": lambda file: (file.unlink(), file.mkdir()),
    "other tables": lambda file: (file.unlink(), sqlite3.connect(file).close()),
}


@pytest.mark.parametrize("breakage", BREAKAGES)
def test_a_broken_cache_is_a_miss_and_is_replaced(tmp_path: Path, breakage: str) -> None:
    """Whatever is found in the cache's place, the digests are right; where it was a file, it is replaced."""
    folder, cache = many(tmp_path / "d", 50), tmp_path / "cache"
    keep(folder, cache, time.time_ns() + LATER)
    BREAKAGES[breakage](cache / FILE)
    tree = remembered(folder, cache)
    reread(tree)
    assert tree.folders[0].digests == b"".join(blake3(b"%d" % n).digest() for n in range(50))
    if breakage != "a folder":
        for _ in range(2):  # the first may find it broken and discard it
            keep(folder, cache, time.time_ns() + LATER)
        assert reread(remembered(folder, cache)) == 0


def test_a_damaged_row_is_a_miss(tmp_path: Path) -> None:
    """Bytes that changed within a row are noticed by its checksum; no digest is made up of them."""
    folder, cache = many(tmp_path / "d", 50), tmp_path / "cache"
    keep(folder, cache, time.time_ns() + LATER)
    with contextlib.closing(sqlite3.connect(cache / FILE)) as connection:
        (entries,) = connection.execute("SELECT entries FROM folders").fetchone()
        damaged = entries[:-1] + bytes([entries[-1] ^ 1])
        connection.execute("UPDATE folders SET entries = ?", (damaged,))
        connection.commit()
    assert reread(remembered(folder, cache)) == 50


def test_a_locked_cache_is_a_miss(tmp_path: Path) -> None:
    """While another process holds the cache exclusively, hashing goes on without it."""
    folder, cache = many(tmp_path / "d"), tmp_path / "cache"
    keep(folder, cache, time.time_ns() + LATER)
    with contextlib.closing(sqlite3.connect(cache / FILE, isolation_level=None)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        hashed = hash_and_remember("d", tmp_path, cache)
    assert hashed.manifest is not None
    assert read_manifest(hashed.manifest) == expected(folder)
    assert hashed.omissions == ()


def test_a_cache_that_cannot_be_made_is_none(tmp_path: Path) -> None:
    """No folder for the cache, no cache; nobody is troubled."""
    many(tmp_path / "d")
    (tmp_path / "file").write_text("in the way")
    hashed = hash_and_remember("d", tmp_path, tmp_path / "file/cache")
    assert hashed.data.strength == "content" and hashed.omissions == ()


def test_the_cache_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond its limit, what was unused for longest goes."""
    monkeypatch.setattr("runctx.hashing.cache.MAX_BYTES", 100_000)
    cache = tmp_path / "cache"
    for n in range(10):
        keep(many(tmp_path / f"d{n}", 200), cache, time.time_ns() + LATER)
    assert (cache / FILE).stat().st_size < 150_000
    assert reread(remembered(tmp_path / "d9", cache)) == 0
    assert reread(remembered(tmp_path / "d0", cache)) == 200


KEEPER = """
import os, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_hashing_faults import LATER, keep
for n in range(10):
    keep(Path(sys.argv[2]) / f"{sys.argv[3]}-{n}", Path(sys.argv[2]) / "cache", time.time_ns() + LATER)
"""


def test_eight_processes_share_one_cache(tmp_path: Path) -> None:
    """Eight processes that fill a fresh cache at once lose nothing and corrupt nothing."""
    for who in range(8):
        for n in range(10):
            many(tmp_path / f"{who}-{n}", 5)
    here = Path(__file__).parent
    environment = os.environ | {"PYTHONPATH": str(here.parent)}
    keepers = [
        subprocess.Popen([sys.executable, "-c", KEEPER, here, tmp_path, str(who)], env=environment)
        for who in range(8)
    ]
    assert [keeper.wait(120) for keeper in keepers] == [0] * 8
    for who in range(8):
        for n in range(10):
            assert reread(remembered(tmp_path / f"{who}-{n}", tmp_path / "cache")) == 0
    with contextlib.closing(sqlite3.connect(tmp_path / "cache" / FILE)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.fixture
def forest(tmp_path: Path) -> Iterator[Path]:
    """A hundred thousand small files in a hundred folders."""
    root = tmp_path / "forest"
    for d in range(100):
        folder = root / f"{d:02d}"
        folder.mkdir(parents=True)
        here = os.open(folder, os.O_RDONLY)
        for n in range(1000):
            descriptor = os.open(f"{n:03d}", os.O_WRONLY | os.O_CREAT, 0o600, dir_fd=here)
            os.write(descriptor, b"%d" % (d * 1000 + n))
            os.close(descriptor)
        os.close(here)
    yield root
    shutil.rmtree(root)


def test_a_hundred_thousand_files(forest: Path) -> None:
    """A large folder is hashed completely, in order, and a single change in it is seen."""
    hashing = Hashing([forest.name], base=forest.parent, cache=None)
    (hashed,) = hashing.join(120)
    assert hashed.data.files == 100_000 and hashed.omissions == ()
    assert hashed.manifest is not None
    entries = read_manifest(hashed.manifest)
    assert list(entries) == [f"{d:02d}/{n:03d}" for d in range(100) for n in range(1000)]
    assert entries["42/042"] == "blake3:" + blake3(b"42042").hexdigest()
    assert hashed.data.bytes == sum(len(str(n)) for n in range(100_000))
    assert hashing.changed() == [False]
    (forest / "42/042").write_text("other")
    assert hashing.changed() == [True]
