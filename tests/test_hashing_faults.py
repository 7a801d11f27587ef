"""Hashing when things go wrong: processes that die, files that change, caches that are broken."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from blake3 import blake3

from runctx.hashing import Hashed, Hashing, background, cache, read_manifest
from runctx.hashing.contents import Reader
from runctx.hashing.walk import SIGNATURE, Found, find

LONG_AGO = 1_600_000_000


def eventually(condition: Callable[[], object], seconds: float = 20.0) -> bool:
    """Whether it becomes true within the time, which is for slow machines and never used up by fast ones."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.005)
    return False


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def worker_of(hashing: Hashing) -> subprocess.Popen[bytes]:
    assert eventually(lambda: hashing._worker is not None)
    worker = hashing._worker
    assert worker is not None
    return worker


def ended(hashing: Hashing) -> None:
    """Wait until the thread has seen its worker off, cache filled."""
    hashing._thread.join(60)
    assert not hashing._thread.is_alive()


def hash_one(path: str, base: Path, cache_dir: Path | None = None) -> Hashed:
    """Hash an input to the end, its cache filled."""
    hashing = Hashing([path], base=base, cache=cache_dir, low_priority=False)
    (hashed,) = hashing.join(120)
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
    """A run on one small file pays for reading it; `on_done` is called once by the thread, and may fail."""
    (tmp_path / "a.csv").write_text("x")
    calls = []

    def on_done() -> None:
        calls.append(threading.current_thread().name)
        raise ValueError("not ours")

    hashing = Hashing(["a.csv"], base=tmp_path, cache=tmp_path / "cache", on_done=on_done)
    assert hashing.join()[0].data.strength == "content"
    assert hashing._worker is None and not (tmp_path / "cache").exists()
    assert hashing.done and hashing.progress == (1, 1)
    ended(hashing)
    assert calls == ["runctx-hashing"]


def test_several_inputs_come_back_in_order(tmp_path: Path) -> None:
    """Small or large, skipped or hashed: the results are in the order the inputs were given."""
    many(tmp_path / "many")
    sparse(tmp_path / "large", 40 << 20)
    (tmp_path / "small").write_text("x")
    hashing = Hashing(["many", "/dev/zero", "small", "large"], base=tmp_path, cache=None, low_priority=False)
    hashed = hashing.join()
    assert [h.data.path for h in hashed] == ["many", "/dev/zero", "small", "large"]
    assert [h.data.strength for h in hashed] == ["content", "skipped", "content", "content"]
    assert hashed[3].data.digest == "blake3:" + blake3((tmp_path / "large").read_bytes()).hexdigest()
    assert hashed[0].manifest is not None
    assert read_manifest(hashed[0].manifest) == expected(tmp_path / "many")
    assert hashing.changed() == [False] * 4
    (tmp_path / "many/00100").write_text("other")
    assert hashing.changed() == [True, False, False, False]


@pytest.mark.parametrize("kills", [1, 2])
def test_a_killed_worker_is_made_up_for(tmp_path: Path, kills: int) -> None:
    """SIGKILL to the worker, as the out-of-memory killer sends it, and to the next one, costs time, not the digest."""
    content = sparse(tmp_path / "large", 64 << 20)
    hashing = Hashing(["large"], base=tmp_path, cache=None, low_priority=False)
    hashing.start()
    killed: set[int] = set()

    def kill() -> bool:
        worker = hashing._worker
        if worker is not None and worker.pid not in killed:
            worker.kill()
            killed.add(worker.pid)
        return len(killed) == kills

    assert eventually(kill)
    (hashed,) = hashing.join(120)
    assert hashed.data.strength == "content" and hashed.omissions == ()
    assert hashed.data.digest == "blake3:" + blake3().update_mmap(content).hexdigest()


def test_a_file_truncated_while_mapped_does_not_kill_the_run(tmp_path: Path) -> None:
    """Whoever maps a file that shrinks dies of SIGBUS; the run lives, and records the content now."""
    path = sparse(tmp_path / "large", 16 << 30)
    hashing = Hashing(["large"], base=tmp_path, cache=None, low_priority=False)
    hashing.start()
    assert eventually(lambda: hashing.progress[0] > 0)
    os.truncate(path, 1000)
    (hashed,) = hashing.join(60)
    assert hashed.data.strength == "content"
    assert hashed.data.digest == "blake3:" + blake3(bytes(1000)).hexdigest()
    assert hashed.data.bytes == 1000


PARENT = """
import os, sys, time
from pathlib import Path
from runctx.hashing import Hashing
hashing = Hashing(["large"], base=Path(sys.argv[1]), cache=None)
hashing.start()
while not hashing.progress[0]:
    time.sleep(0.001)
if sys.argv[2] == "fork" and os.fork() == 0:
    time.sleep(30)
    os._exit(0)
print(hashing._worker.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("forks", ["fork", "none"])
def test_no_process_outlives_a_killed_run(tmp_path: Path, forks: str) -> None:
    """When the run is killed with SIGKILL, the worker leaves by itself, even if a fork of the run lives on."""
    sparse(tmp_path / "large", 64 << 30)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, tmp_path, forks], stdout=subprocess.PIPE, text=True, env=environment
    ) as run:
        assert run.stdout is not None
        worker = int(run.stdout.readline())
        run.kill()
    assert eventually(lambda: not is_running(worker), 60)


def test_cancel_leaves_no_process_behind(tmp_path: Path) -> None:
    """After cancel() the worker is gone, and join() says why there is no digest."""
    sparse(tmp_path / "large", 64 << 30)
    hashing = Hashing(["large"], base=tmp_path, cache=None, low_priority=False)
    hashing.start()
    worker = worker_of(hashing)
    assert eventually(lambda: hashing.progress[0] > 0)
    hashing.cancel()
    assert eventually(lambda: not is_running(worker.pid))
    (hashed,) = hashing.join()
    assert hashed.data.strength == "skipped" and hashing.progress[1] is None
    assert [o.why for o in hashed.omissions] == ["hashing was cancelled"]


def test_join_gives_up_when_told_to_and_can_be_called_again(tmp_path: Path) -> None:
    """A time limit turns what is not done into an omission, and hashing goes on."""
    sparse(tmp_path / "large", 64 << 20)
    hashing = Hashing(["large"], base=tmp_path, cache=None, low_priority=False)
    hashing.start()
    (hashed,) = hashing.join(0)
    assert (hashed.data.strength, hashed.data.digest) == ("skipped", None)
    assert "not finished within 0 s" in hashed.omissions[0].why
    assert hashing.join(120)[0].data.strength == "content"


@pytest.mark.parametrize("python", ["", "/bin/true", "/nonexistent/python3", None, "nonsense"])
def test_an_odd_interpreter_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, python: str | None
) -> None:
    """Where no worker can be started, or `python` is something else, the digest is as it should be."""
    many(tmp_path / "d")
    if python == "nonsense":
        python = str(tmp_path / "python3")
        Path(python).write_text("#!/bin/sh\necho '\"nonsense\"'\nexit 1\n")
        Path(python).chmod(0o755)
    monkeypatch.setattr(sys, "executable", python)
    hashed = hash_one("d", tmp_path, tmp_path / "cache")
    assert hashed.manifest is not None
    assert read_manifest(hashed.manifest) == expected(tmp_path / "d")


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

    (folder,) = find("file", os.fsencode(path), b"").folders
    assert [gap.why for gap in Reader(grow).read(folder)] == ["changed while it was being read, twice"]
    assert reads == 10  # five megabytes, twice


def test_a_file_that_changed_once_is_read_again(tmp_path: Path) -> None:
    """One change while it is read costs a second reading; the digest is of the content then."""
    path = tmp_path / "data"
    path.write_bytes(bytes(3 << 20))
    pending = [b"new content"]

    def change(size: int) -> None:
        if size and pending:
            path.write_bytes(pending.pop())

    (folder,) = find("file", os.fsencode(path), b"").folders
    assert Reader(change).read(folder) == []
    assert digests(folder.records) == [blake3(b"new content").digest()]


def test_a_file_deleted_before_it_is_read_is_listed(tmp_path: Path) -> None:
    """What was listed and then vanished has no digest, and its folder's neighbours keep theirs."""
    for name in "abc":
        (tmp_path / name).write_text(name)
    (folder,) = find("folder", os.fsencode(tmp_path), b"").folders
    (tmp_path / "b").unlink()
    gaps = Reader(lambda size: None).read(folder)
    assert [(gap.path, gap.why) for gap in gaps] == [(b"b", "vanished while the data was being hashed")]
    assert digests(folder.records) == [blake3(b"a").digest(), bytes(32), blake3(b"c").digest()]


def digests(records: list[bytes]) -> list[bytes]:
    return [record[SIGNATURE.size :] for record in records]


def rewrite(path: Path) -> None:
    """Other content of the same size and mtime: the ctime alone tells."""
    before = path.stat()
    assert eventually(lambda: _touched_later(path.parents[1], before.st_ctime_ns))
    path.write_bytes(path.read_bytes().swapcase()[::-1] or b"X")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _touched_later(folder: Path, than: int) -> bool:
    """Whether the file system's clock has ticked since."""
    (folder / "clock").touch()
    return (folder / "clock").stat().st_ctime_ns > than


# ------------------------------------------------------------------------------------------ the cache


def remembered(folder: Path, cache_dir: Path) -> Found:
    """The files of a folder with what the cache knows of them."""
    found = find("folder", os.fsencode(folder), b"")
    cache.recall(str(cache_dir), found.folders)
    return found


def keep(folder: Path, cache_dir: Path, started: int) -> None:
    """Hash a folder and remember it, as if hashing had begun at `started` (nanoseconds)."""
    found = find("folder", os.fsencode(folder), b"")
    for one in found.folders:
        Reader(lambda size: None).read(one)
    cache.remember(str(cache_dir), found.folders, started)


def reread(found: Found) -> int:
    """How many files are opened when the folder is read with what is known of it; the digests must be right."""
    opened = 0

    class Counting(Reader):
        def record(self, name: bytes, here: int | None = None) -> bytes:
            nonlocal opened
            opened += 1
            return super().record(name, here)

    for folder in found.folders:
        assert Counting(lambda size: None).read(folder) == []
        contents = [Path(os.fsdecode(folder.path + b"/" + name)).read_bytes() for name in folder.names]
        assert digests(folder.records) == [blake3(content).digest() for content in contents]
    return opened


LATER = 10_000_000_000


def test_only_new_and_changed_files_are_read_again(tmp_path: Path) -> None:
    """A second look opens no unchanged file; a rewrite that restores size and mtime is told by the ctime."""
    folder, cache_dir = many(tmp_path / "d", 20), tmp_path / "cache"
    keep(folder, cache_dir, time.time_ns() + LATER)
    assert reread(remembered(folder, cache_dir)) == 0
    (folder / "00000").unlink()
    (folder / "00001").write_text("changed")
    (folder / "new").write_text("new")
    rewrite(folder / "00003")
    assert reread(remembered(folder, cache_dir)) == 3


def test_a_file_modified_just_before_is_not_remembered(tmp_path: Path) -> None:
    """A change within the same tick of the clock leaves no trace, so a file that young is read again."""
    folder = many(tmp_path / "d", 5)
    keep(folder, tmp_path / "cache", time.time_ns())  # its ctime is of this moment
    assert reread(remembered(folder, tmp_path / "cache")) == 5


def test_the_worker_remembers(tmp_path: Path) -> None:
    """The whole way: hashed by the worker, kept when old enough, recalled by the next."""
    folder = many(tmp_path / "d")
    youngest = max(path.stat().st_ctime_ns for path in folder.iterdir())
    assert eventually(lambda: time.time_ns() - youngest > cache.MARGIN)
    first = hash_one("d", tmp_path, tmp_path / "cache")
    assert reread(remembered(folder, tmp_path / "cache")) == 0
    assert hash_one("d", tmp_path, tmp_path / "cache") == first


BREAKAGES: dict[str, Callable[[Path], object]] = {
    "not a database": lambda file: file.write_bytes(b"this is not sqlite " * 500),
    "empty": lambda file: file.write_bytes(b""),
    "cut short": lambda file: os.truncate(file, 5000),
    "scribbled over": lambda file: file.write_bytes(file.read_bytes()[:4096] + os.urandom(20_000)),
    "a folder": lambda file: (file.unlink(), file.mkdir()),
    "a changed byte": lambda file: damage(file),
    "other tables": lambda file: (file.unlink(), sqlite3.connect(file).close()),
}


def damage(file: Path) -> None:
    with contextlib.closing(sqlite3.connect(file)) as connection:
        (entries,) = connection.execute("SELECT entries FROM folders").fetchone()
        connection.execute("UPDATE folders SET entries = ?", (entries[:-1] + bytes([entries[-1] ^ 1]),))
        connection.commit()


@pytest.mark.parametrize("breakage", BREAKAGES)
def test_a_broken_cache_is_a_miss_and_is_replaced(tmp_path: Path, breakage: str) -> None:
    """Whatever is found in the cache's place, the digests are right; where it was a file, it is replaced."""
    folder, cache_dir = many(tmp_path / "d", 50), tmp_path / "cache"
    keep(folder, cache_dir, time.time_ns() + LATER)
    BREAKAGES[breakage](cache_dir / cache.FILE)
    assert reread(remembered(folder, cache_dir)) == 50
    if breakage != "a folder":
        for _ in range(2):  # the first may find it broken and discard it
            keep(folder, cache_dir, time.time_ns() + LATER)
        assert reread(remembered(folder, cache_dir)) == 0


def test_a_cache_that_is_locked_or_cannot_be_made_is_done_without(tmp_path: Path) -> None:
    """While another process holds the cache, or a file lies in its folder's place, hashing goes on without it."""
    folder, cache_dir = many(tmp_path / "d"), tmp_path / "cache"
    keep(folder, cache_dir, time.time_ns() + LATER)
    with contextlib.closing(sqlite3.connect(cache_dir / cache.FILE, isolation_level=None)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        locked = hash_one("d", tmp_path, cache_dir)
    (tmp_path / "file").write_text("in the way")
    for hashed in (locked, hash_one("d", tmp_path, tmp_path / "file/cache")):
        assert read_manifest(hashed.manifest or b"") == expected(folder) and hashed.omissions == ()


def test_the_cache_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond its limit, what was unused for longest goes."""
    monkeypatch.setattr("runctx.hashing.cache.MAX_BYTES", 100_000)
    cache_dir = tmp_path / "cache"
    for n in range(10):
        keep(many(tmp_path / f"d{n}", 200), cache_dir, time.time_ns() + LATER)
    assert (cache_dir / cache.FILE).stat().st_size < 150_000
    assert reread(remembered(tmp_path / "d9", cache_dir)) == 0
    assert reread(remembered(tmp_path / "d0", cache_dir)) == 200


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
    with contextlib.closing(sqlite3.connect(tmp_path / "cache" / cache.FILE)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
