"""Digests of files, folders and globs, and their manifests, checked by other means."""

from __future__ import annotations

import glob
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from runctx import layout
from runctx.errors import InputError, LockError
from runctx.hashing import Hashed, Hashing, background, digest_file, read_manifest, write_manifest
from runctx.hashing.walk import OWN

NAMES = (
    st.binary(min_size=1, max_size=12)
    .map(lambda name: name.replace(b"/", b"\\").replace(b"\0", b"\n"))
    .filter(lambda name: name not in (b".", b"..", b"run.lock"))
)
TREES = st.dictionaries(
    st.lists(NAMES, min_size=1, max_size=3).map(b"/".join), st.binary(max_size=64), min_size=1, max_size=8
)


def plant(root: Path, tree: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """Write a tree; a path that would need a file to be a folder is left out. Returns what was written."""
    written = {}
    for path, content in tree.items():
        target = os.path.join(os.fsencode(root), path)
        try:
            os.makedirs(os.path.dirname(target), exist_ok=True)
            with open(target, "xb") as file:
                file.write(content)
        except OSError:
            continue
        written[path] = content
    return written


def hash_data(path: str, base: Path) -> Hashed:
    (hashed,) = Hashing([path], base=base, cache=None, low_priority=False).join()
    return hashed


def check(folder: Path, manifest: bytes, tmp_path: Path) -> None:
    """Verify a manifest by its own rules; where `b3sum` is installed, by that program too."""
    for path, digest in read_manifest(manifest).items():
        content = (folder / os.fsencode(path).decode("utf-8", "surrogateescape")).read_bytes()
        assert digest == "blake3:" + blake3(content).hexdigest()
    if program := shutil.which("b3sum"):
        file = tmp_path / "manifest.b3"
        file.write_bytes(manifest)
        subprocess.run([program, "--check", "--quiet", file], cwd=folder, check=True, timeout=60)


def test_a_files_digest_is_blake3_of_its_bytes(tmp_path: Path) -> None:
    """The digest of a file is frozen: no release may change it."""
    (tmp_path / "a").write_bytes(b"runctx\n")
    (tmp_path / "empty").touch()
    assert digest_file(tmp_path / "a") == "blake3:" + blake3(b"runctx\n").hexdigest()
    hashed = hash_data("empty", tmp_path)
    assert hashed.data.digest == "blake3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
    assert (hashed.data.kind, hashed.data.bytes, hashed.data.strength) == ("file", 0, "content")
    assert hashed.manifest is None


@pytest.mark.parametrize(
    "size", [1, 4096, (128 << 10) - 1, 128 << 10, (128 << 10) + 1, (16 << 20) + 1, 40 << 20]
)
def test_every_way_of_reading_gives_the_same_digest(tmp_path: Path, size: int) -> None:
    """Read at once, in blocks, mapped, by many threads: the digest of a file does not tell."""
    content = os.urandom(size)
    (tmp_path / "data").write_bytes(content)
    expected = "blake3:" + blake3(content).hexdigest()
    assert hash_data("data", tmp_path).data.digest == expected
    assert digest_file(tmp_path / "data") == expected


def test_a_folders_digest_is_that_of_its_sorted_manifest(tmp_path: Path) -> None:
    """A manifest lists files by the bytes of their paths, and its hash is the folder's digest."""
    plant(tmp_path / "d", {b"a/x": b"1", b"a-b": b"2", b"a.c/y": b"3", b"\xc3\xa9": b"4"})
    hashed = hash_data("d", tmp_path)
    assert hashed.manifest is not None
    assert list(read_manifest(hashed.manifest)) == ["a-b", "a.c/y", "a/x", "é"]
    assert hashed.data.digest == "blake3:" + blake3(hashed.manifest).hexdigest()
    assert (hashed.data.files, hashed.data.bytes, hashed.data.kind) == (4, 4, "folder")
    check(tmp_path / "d", hashed.manifest, tmp_path)


def test_an_empty_folder_has_a_digest_and_empty_folders_do_not_count(tmp_path: Path) -> None:
    """Only files count: a folder of empty folders is an empty folder."""
    (tmp_path / "one").mkdir()
    (tmp_path / "two/below/deeper").mkdir(parents=True)
    one, two = (hash_data(name, tmp_path) for name in ("one", "two"))
    assert one.data.digest == two.data.digest == "blake3:" + blake3(b"").hexdigest()
    assert one.manifest == b"" and one.data.files == 0 and one.omissions == ()


@settings(max_examples=40)
@given(tree=TREES, turn=st.randoms())
def test_the_digest_depends_on_names_and_contents_alone(
    tmp_path: Path, tree: dict[bytes, bytes], turn
) -> None:
    """Order of creation, place, times and permissions leave the digest as it is."""
    one, two = tmp_path / "one", tmp_path / "elsewhere" / "two"
    for folder in (one, two):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    written = plant(one, tree)
    order = list(written)
    turn.shuffle(order)
    plant(two, {path: written[path] for path in order})
    for path in order:
        target = os.path.join(os.fsencode(two), path)
        os.utime(target, (turn.random() * 1e9, turn.random() * 1e9))
        os.chmod(target, 0o600)
    first, second = (hash_data(str(folder), tmp_path) for folder in (one, two))
    assert first.data.digest == second.data.digest
    assert first.manifest == second.manifest
    path = order[0]
    with open(os.path.join(os.fsencode(two), path), "ab") as file:
        file.write(b"!")
    assert hash_data(str(two), tmp_path).data.digest != first.data.digest


@settings(max_examples=60)
@given(tree=TREES)
def test_a_manifest_reads_back_to_the_files_it_was_made_of(tmp_path: Path, tree: dict[bytes, bytes]) -> None:
    """Whatever the names hold (newlines, backslashes, other bytes), nothing is lost or confused."""
    shutil.rmtree(tmp_path / "d", ignore_errors=True)
    (tmp_path / "d").mkdir()
    written = plant(tmp_path / "d", tree)
    hashed = hash_data("d", tmp_path)
    assert hashed.manifest is not None
    entries = read_manifest(hashed.manifest)
    assert {path.encode("utf-8", "surrogateescape"): digest for path, digest in entries.items()} == {
        path: "blake3:" + blake3(content).hexdigest() for path, content in written.items()
    }
    assert write_manifest(entries) == hashed.manifest


@settings(max_examples=25)
@given(
    names=st.lists(
        st.text("ab \\\n\r\t-*'\"$é日", min_size=1, max_size=6), min_size=1, max_size=6, unique=True
    )
)
def test_b3sum_itself_accepts_the_manifest(tmp_path: Path, names: list[str]) -> None:
    """`cd folder && b3sum --check manifest` verifies what we wrote, odd names included."""
    shutil.rmtree(tmp_path / "d", ignore_errors=True)
    (tmp_path / "d").mkdir()
    # A file called `-` at the top is the one b3sum reads as its standard input.
    plant(tmp_path / "d", {name.encode(): name.encode() for name in names if name != "-"})
    hashed = hash_data("d", tmp_path)
    assert hashed.manifest is not None
    check(tmp_path / "d", hashed.manifest, tmp_path)


def test_names_that_b3sum_cannot_check_are_counted_and_listed(tmp_path: Path) -> None:
    """Two names that differ in bytes that are not UTF-8 stay two; an omission names what b3sum refuses."""
    plant(tmp_path / "d", {b"\xff": b"x", b"\xfe": b"y", "\ufffd".encode(): b"z", b"good": b"g"})
    hashed = hash_data("d", tmp_path)
    assert hashed.manifest is not None
    assert len(read_manifest(hashed.manifest)) == 4
    assert {omission.what for omission in hashed.omissions} == {"d/\\xff", "d/\\xfe", "d/\ufffd"}
    assert hashed.data.strength == "content"
    os.rename(os.path.join(os.fsencode(tmp_path), b"d/\xff"), os.path.join(os.fsencode(tmp_path), b"d/\xf0"))
    assert hash_data("d", tmp_path).data.digest != hashed.data.digest


GOOD = b"af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"


@pytest.mark.parametrize(
    ("line", "seen"),
    [
        (b"nonsense", "not `<64 hex digits>"),
        (GOOD[:-1] + b"  short", "not `<64 hex digits>"),
        (GOOD.upper() + b"  upper", "not `<64 hex digits>"),
        (GOOD + b" one space", "not `<64 hex digits>"),
        (GOOD + b"  ", "not `<64 hex digits>"),
        (GOOD + b"  nul\0", "not `<64 hex digits>"),
        (GOOD + b"  " + b"x" * 70_000, "not `<64 hex digits>"),
        (GOOD + b"  /etc/passwd", "leaves the folder"),
        (GOOD + b"  a/../../b", "leaves the folder"),
        (b"\\" + GOOD + b"  a\\q", "unknown escape"),
        (b"\\" + GOOD + b"  a\\", "unknown escape"),
        (b"\\" + GOOD + b"  \\x2e\\x2e/b", "unknown escape"),
        (GOOD + b"  fine", "came before"),
        (b"", "not `<64 hex digits>"),
    ],
)
def test_a_hostile_manifest_is_refused_with_the_line(line: bytes, seen: str) -> None:
    """A manifest that is malformed, or whose paths leave the folder, is an error that names the line."""
    with pytest.raises(LockError, match="line 2") as caught:
        read_manifest(GOOD + b"  fine\n" + line + b"\n")
    assert seen in str(caught.value)


def test_a_manifest_cut_short_is_refused() -> None:
    """A manifest without its last newline was damaged."""
    with pytest.raises(LockError, match="line 1: it is cut off"):
        read_manifest(GOOD + b"  fi")


@given(data=st.binary(max_size=300))
def test_any_bytes_are_read_as_a_manifest_or_refused(data: bytes) -> None:
    """No bytes make the reader fail in any other way."""
    try:
        read_manifest(data)
    except LockError:
        pass


def test_links_are_followed_and_loops_survived(tmp_path: Path) -> None:
    """A link counts as what it leads to; one that leads back up is listed, once, and lowers nothing."""
    plant(tmp_path, {b"d/a": b"1", b"elsewhere/b": b"2"})
    (tmp_path / "d/to_file").symlink_to("a")
    (tmp_path / "d/to_folder").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "d/up").symlink_to(tmp_path / "d")
    (tmp_path / "d/broken").symlink_to("nowhere")
    (tmp_path / "d/self").symlink_to("self")
    hashed = hash_data("d", tmp_path)
    assert hashed.manifest is not None
    assert list(read_manifest(hashed.manifest)) == ["a", "to_file", "to_folder/b"]
    assert {omission.what: omission.why for omission in hashed.omissions} == {
        "d/up": "a link back to a folder it lies in",
        "d/broken": "a broken link",
        "d/self": "a link to itself",
    }
    assert hashed.data.strength == "content"


def test_links_that_double_at_every_step_end(tmp_path: Path) -> None:
    """Folders that hold two links each to the next have a billion paths; a bounded number is followed."""
    for n in range(30):
        (tmp_path / f"d/{n}").mkdir(parents=True)
        for link in "ab":
            (tmp_path / f"d/{n}/{link}").symlink_to(tmp_path / f"d/{n + 1}")
    (tmp_path / "d/30").mkdir()
    hashed = hash_data("d/0", tmp_path)
    assert hashed.data.strength != "content"
    assert any("more than 64 links" in omission.why for omission in hashed.omissions)


def test_what_is_not_a_file_is_never_opened(tmp_path: Path) -> None:
    """FIFOs and sockets in a folder are listed, not read; nobody waits for a writer."""
    plant(tmp_path, {b"d/a": b"1"})
    os.mkfifo(tmp_path / "d/fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(tmp_path / "d/socket"))
        hashed = hash_data("d", tmp_path)
    assert [(o.what, o.why) for o in hashed.omissions] == [
        ("d/fifo", "a FIFO, not read"),
        ("d/socket", "a socket, not read"),
    ]
    assert hashed.data.files == 1


@pytest.mark.parametrize(
    ("odd", "why"),
    [("/dev/zero", "a device, not read"), ("/dev/null", "a device, not read"), ("fifo", "a FIFO, not read")],
)
def test_what_is_no_file_is_skipped_as_an_input(odd: str, why: str, tmp_path: Path) -> None:
    """An input that has no end, or would wait for a writer, is recorded as skipped, with the reason."""
    os.mkfifo(tmp_path / "fifo")
    hashed = hash_data(odd, tmp_path)
    assert (hashed.data.strength, hashed.data.digest) == ("skipped", None)
    assert [(o.what, o.why) for o in hashed.omissions] == [(odd, why)]
    with pytest.raises(InputError, match="not a regular file"):
        digest_file(tmp_path / odd)


def test_files_without_a_size_are_read_to_their_end(tmp_path: Path) -> None:
    """Files of /proc claim no size and still have content."""
    content = Path("/proc/version").read_bytes() if Path("/proc/version").exists() else b""
    target = "/proc/version" if content else str(tmp_path)
    assert content == b"" or digest_file(target) == "blake3:" + blake3(content).hexdigest()


UNREADABLE = """
import os, sys
from pathlib import Path
from runctx.hashing import Hashing  # now: the new user may not be able to read the library
if os.geteuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
for name in ("d", "d/closed.txt"):
    (hashed,) = Hashing([name], base=Path(sys.argv[1]), cache=None).join()
    print(hashed.data.strength, hashed.data.files, hashed.data.digest is not None)
    for omission in hashed.omissions:
        print(omission.what, omission.why)
"""


def test_what_may_not_be_read_is_listed_and_weakens_the_digest(tmp_path: Path) -> None:
    """An unreadable file or folder is named, and the digest no longer claims to be of the whole content."""
    base = Path("/tmp") / f"runctx-unreadable-{os.getpid()}"  # pytest's own folders are closed to other users
    try:
        plant(base, {b"d/open.txt": b"1", b"d/closed.txt": b"2", b"d/closed/c": b"3"})
        os.chmod(base / "d/closed.txt", 0)
        os.chmod(base / "d/closed", 0)
        package = Path(__file__).parent.parent
        result = subprocess.run(
            [sys.executable, "-c", UNREADABLE, base],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
            env=os.environ | {"PYTHONPATH": str(package), "PYTHONDONTWRITEBYTECODE": "1"},
            cwd=base,
        )
    finally:
        os.chmod(base / "d/closed", 0o700)
        shutil.rmtree(base)
    assert result.stdout.splitlines() == [
        "stat 1 True",
        "d/closed a folder that cannot be listed: Permission denied",
        "d/closed.txt cannot be read: Permission denied",
        "skipped 1 False",
        "d/closed.txt cannot be read: Permission denied",
    ]


@pytest.mark.parametrize(
    ("given", "seen"),
    [
        (
            "data/digit.csv",
            r"input 'data/digit\.csv' does not exist \(from {base}\)\nhint: did you mean 'digits\.csv'\?",
        ),
        ("data/*.parquet", r"'data/\*\.parquet' matches nothing \(from {base}/data\)"),
        ("nowhere/*", r"'nowhere/\*' matches nothing \(from {base}/nowhere\)"),
        ("other/x.csv", r"hint: there is no folder '{base}/other' either"),
        ("link", r"'link' is a broken link, to 'gone'"),
        ("*/../data", r"`\.\.` after a wildcard is not supported"),
        ("nul\0", r"cannot read input 'nul\\x00'"),
        ("", r"an input is an empty path"),
    ],
)
def test_a_missing_input_is_an_error_at_once(tmp_path: Path, given: str, seen: str) -> None:
    """The error names the path, where it was looked for, and names that are near."""
    plant(tmp_path, {b"data/digits.csv": b"1"})
    (tmp_path / "link").symlink_to("gone")
    with pytest.raises(InputError, match=seen.format(base=tmp_path)):
        Hashing([given], base=tmp_path, cache=None)


def test_a_glob_takes_what_the_pattern_names(tmp_path: Path) -> None:
    """A glob's manifest is relative to the folder it starts in; a matched folder counts with all below it."""
    plant(
        tmp_path,
        {
            b"data/a.csv": b"1",
            b"data/b.txt": b"2",
            b"data/.hidden.csv": b"3",
            b"data/x/c.csv": b"4",
            b"data/x/y/d.csv": b"5",
            b"data/x/y/.e": b"6",
        },
    )

    def found(pattern: str) -> list[str]:
        hashed = hash_data(pattern, tmp_path)
        assert hashed.manifest is not None
        return list(read_manifest(hashed.manifest))

    assert found("data/.*.csv") == [".hidden.csv"]
    assert found("data/**/*.csv") == ["a.csv", "x/c.csv", "x/y/d.csv"]
    assert found("data/*") == found("data/**") == ["a.csv", "b.txt", "x/c.csv", "x/y/.e", "x/y/d.csv"]
    assert found(str(tmp_path / "data/[ab].*")) == ["a.csv", "b.txt"]


PARTS = st.sampled_from(["a", "b", ".a", "a.b", "*", "**", "a*", ".*", "[ab]", "?", "*.b"])


@settings(max_examples=150)
@given(
    paths=st.sets(
        st.lists(st.sampled_from(["a", "b", ".a", "a.b"]), min_size=1, max_size=4).map("/".join), max_size=8
    ),
    pattern=st.lists(PARTS, min_size=1, max_size=4).map("/".join).filter(glob.has_magic),
)
def test_a_glob_matches_what_pythons_own_matches(tmp_path: Path, paths: set[str], pattern: str) -> None:
    """The files are those that `glob.glob` gives, and all that lie in the folders it gives."""
    shutil.rmtree(tmp_path / "d", ignore_errors=True)
    (tmp_path / "d").mkdir()
    plant(tmp_path / "d", {path.encode(): b"" for path in paths})
    expected = set()
    for place in glob.glob(pattern, root_dir=tmp_path / "d", recursive=True):
        whole = tmp_path / "d" / place
        if place:
            below = [whole] if whole.is_file() else [path for path in whole.rglob("*") if path.is_file()]
            expected |= {path.relative_to(tmp_path / "d").as_posix() for path in below}
    try:
        hashed = hash_data(f"d/{pattern}", tmp_path)
    except InputError:
        assert not expected
        return
    assert hashed.manifest is not None
    (root,) = Hashing([f"d/{pattern}"], base=tmp_path, cache=None).roots
    found = {os.path.relpath(root / path, tmp_path / "d") for path in read_manifest(hashed.manifest)}
    assert found == expected


def test_a_name_that_looks_like_a_pattern_is_taken_literally_if_it_exists(tmp_path: Path) -> None:
    """A file called `[1].csv` is that file."""
    plant(tmp_path, {b"[1].csv": b"x", b"1.csv": b"y"})
    assert hash_data("[1].csv", tmp_path).data.kind == "file"


def test_a_glob_survives_a_loop_of_links(tmp_path: Path) -> None:
    """`**` does not run in circles."""
    plant(tmp_path, {b"d/a.csv": b"1", b"d/e/b.csv": b"2"})
    (tmp_path / "d/e/up").symlink_to(tmp_path / "d")
    hashed = hash_data("d/**/*.csv", tmp_path)
    assert hashed.manifest is not None
    assert list(read_manifest(hashed.manifest)) == ["a.csv", "e/b.csv"]


def test_a_folder_deeper_than_recursion_allows_is_walked(tmp_path: Path) -> None:
    """Depth is limited by the file system, not by Python's stack; beyond its limit there is an omission."""
    (tmp_path / "d").mkdir()
    here = os.open(tmp_path / "d", os.O_RDONLY)
    for _ in range(2_500):
        os.mkdir("n", dir_fd=here)
        below = os.open("n", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    plant(tmp_path, {b"d/a": b"1"})
    try:
        hashed = hash_data("d", tmp_path)
    finally:
        subprocess.run(["rm", "-rf", tmp_path / "d"], check=True)
    assert hashed.data.files == 1
    assert [o.why for o in hashed.omissions] == ["a folder that cannot be listed: File name too long"]


def test_a_run_counts_as_what_was_saved_in_it(tmp_path: Path) -> None:
    """Of a folder with a run.lock only the user's files count: two that saved the same are equal."""
    assert {os.fsencode(name) for name in layout.OWN} == OWN
    for name in ("one", "two"):
        plant(
            tmp_path,
            {
                f"{name}/r/{own}".encode(): name.encode()
                for own in ("run.lock", "run.log", "run.notes", "run.rank1.log", "tasks/x")
            },
        )
        plant(tmp_path, {f"{name}/r/model.bin".encode(): b"weights"})
    one, two = (hash_data(f"{name}/r", tmp_path) for name in ("one", "two"))
    assert one.manifest is not None
    assert list(read_manifest(one.manifest)) == ["model.bin"]
    assert one.data.digest == two.data.digest


def test_the_worker_does_without_runctx() -> None:
    """What starts in milliseconds must stay so: the worker imports none of what a run imports."""
    code = background._BOOT.replace(
        "main()", "print([m for m in ('inspect', 'threading', 'runctx') if m in sys.modules])"
    )
    own, packages = Path(background.__file__).parent, Path(sys.modules["blake3"].__file__ or "").parent.parent
    command = [sys.executable, "-I", "-S", "-c", code, own, packages]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout == "[]\n"
