"""Digests of files, folders and globs, and their manifests, checked by other means."""

from __future__ import annotations

import glob
import os
import random
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

NAMES = st.one_of(
    st.binary(min_size=1, max_size=12).map(lambda name: name.replace(b"/", b"\\").replace(b"\0", b"\n")),
    st.text("ab \\\n\r\t-*'\"$é日", min_size=1, max_size=6).map(str.encode),
).filter(lambda name: name not in (b".", b"..", b"run.lock"))
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


EMPTY = "blake3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"


@pytest.mark.parametrize("size", [0, 1, 4096, 128 << 10, (128 << 10) + 1, (16 << 20) + 1, 40 << 20])
def test_a_files_digest_is_blake3_of_its_bytes(tmp_path: Path, size: int) -> None:
    """Read at once, in blocks, or mapped by all cores: the digest of a file is the same, in every release."""
    content = random.Random(size).randbytes(size)
    (tmp_path / "data").write_bytes(content)
    expected = "blake3:" + blake3(content).hexdigest() if size else EMPTY
    hashed = hash_data("data", tmp_path)
    assert (hashed.data.digest, hashed.data.kind, hashed.data.bytes) == (expected, "file", size)
    assert (hashed.data.strength, hashed.manifest, digest_file(tmp_path / "data")) == (
        "content",
        None,
        expected,
    )


def test_a_folders_digest_is_that_of_its_sorted_manifest(tmp_path: Path) -> None:
    """A manifest lists files by the bytes of their paths, and its hash is the folder's digest."""
    plant(tmp_path / "d", {b"a/x": b"1", b"a-b": b"2", b"a.c/y": b"3", b"\xc3\xa9": b"4"})
    hashed = hash_data("d", tmp_path)
    assert hashed.manifest is not None
    assert list(read_manifest(hashed.manifest)) == ["a-b", "a.c/y", "a/x", "é"]
    assert hashed.data.digest == "blake3:" + blake3(hashed.manifest).hexdigest()
    assert (hashed.data.files, hashed.data.bytes, hashed.data.kind) == (4, 4, "folder")
    check(tmp_path / "d", hashed.manifest, tmp_path)


def test_empty_folders_do_not_count(tmp_path: Path) -> None:
    """Only files count: a folder of empty folders is an empty folder, which has a digest."""
    (tmp_path / "one").mkdir()
    (tmp_path / "two/below/deeper").mkdir(parents=True)
    for hashed in (hash_data(name, tmp_path) for name in ("one", "two")):
        assert (hashed.data.digest, hashed.manifest, hashed.data.files, hashed.omissions) == (
            EMPTY,
            b"",
            0,
            (),
        )


@settings(max_examples=60)
@given(tree=TREES, turn=st.randoms())
def test_the_digest_depends_on_names_and_contents_alone(
    tmp_path: Path, tree: dict[bytes, bytes], turn
) -> None:
    """Order of creation, place and times leave the manifest as it is; it reads back, whatever the names hold."""
    one, two = tmp_path / "one", tmp_path / "elsewhere" / "two"
    for folder in (one, two):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    written = plant(one, tree)
    order = list(written)
    turn.shuffle(order)
    plant(two, {path: written[path] for path in order})
    for path in order:
        os.utime(os.path.join(os.fsencode(two), path), (turn.random() * 1e9, turn.random() * 1e9))
    first, second = (hash_data(str(folder), tmp_path) for folder in (one, two))
    assert (first.data.digest, first.manifest) == (second.data.digest, second.manifest)
    entries = read_manifest(first.manifest or b"")
    assert {path.encode("utf-8", "surrogateescape"): digest for path, digest in entries.items()} == {
        path: "blake3:" + blake3(content).hexdigest() for path, content in written.items()
    }
    assert write_manifest(entries) == first.manifest
    if (
        not first.omissions and b"-" not in written
    ):  # a file called `-` is the one b3sum reads as its standard input
        check(one, first.manifest or b"", tmp_path)
    with open(os.path.join(os.fsencode(two), order[0]), "ab") as file:
        file.write(b"!")
    assert hash_data(str(two), tmp_path).data.digest != first.data.digest


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


@given(data=st.binary(max_size=300))
def test_any_bytes_are_read_as_a_manifest_or_refused(data: bytes) -> None:
    """No bytes make the reader fail in any other way, and what is cut short is refused."""
    with pytest.raises(LockError, match="line 1: it is cut off"):
        read_manifest(GOOD + b"  fi")
    try:
        read_manifest(data)
    except LockError:
        pass


def test_links_are_followed_and_what_is_no_file_is_listed(tmp_path: Path) -> None:
    """A link counts as what it leads to; loops, FIFOs and sockets are named, never opened, and lower nothing."""
    plant(tmp_path, {b"d/a.csv": b"1", b"d/e/c.csv": b"2", b"elsewhere/b.csv": b"3"})
    (tmp_path / "d/link.csv").symlink_to("a.csv")
    (tmp_path / "d/to_folder").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "d/e/up").symlink_to(tmp_path / "d")
    (tmp_path / "d/broken").symlink_to("nowhere")
    (tmp_path / "d/self").symlink_to("self")
    os.mkfifo(tmp_path / "d/fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(tmp_path / "d/socket"))
        hashed, globbed = (hash_data(path, tmp_path) for path in ("d", "d/**/*.csv"))
    assert hashed.manifest is not None and hashed.data.strength == "content"
    assert list(read_manifest(hashed.manifest)) == ["a.csv", "e/c.csv", "link.csv", "to_folder/b.csv"]
    assert {omission.what: omission.why for omission in hashed.omissions} == {
        "d/e/up": "a link back to a folder it lies in",
        "d/broken": "a broken link",
        "d/self": "a link to itself",
        "d/fifo": "a FIFO, not read",
        "d/socket": "a socket, not read",
    }
    assert (globbed.manifest, globbed.omissions) == (hashed.manifest, ())


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
        if place and not place.endswith("/"):  # `a/**` gives `a/` too, which here are the files below only
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
