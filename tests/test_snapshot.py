"""The work tree as a commit: what `git add -A` would have staged, and nothing of the user's touched."""

from __future__ import annotations

import dataclasses
import hashlib
import multiprocessing
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pygit2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runctx.errors import SettingsError
from runctx.snapshot import Snapshot, commit, find_repository, is_ignored, take
from runctx.snapshot.repository import GitError, opened

MINE = "refs/heads/run_logs"


class Tree:
    """A work tree to play with, driven by the real git."""

    def __init__(self, root: Path, cache: Path) -> None:
        self.root = root
        self.cache = cache

    def git(self, *arguments: str, check: bool = True, **environ: str) -> str:
        done = subprocess.run(
            ["git", *arguments],
            cwd=self.root,
            env={**os.environ, **environ},
            capture_output=True,
            check=False,
        )
        if check and done.returncode:
            raise AssertionError(f"git {arguments}: {done.stderr.decode(errors='replace')}")
        return done.stdout.decode("utf-8", "surrogateescape").strip()

    def write(self, name: str | bytes, content: str | bytes = "x\n") -> Path:
        path = Path(os.fsdecode(os.fsencode(self.root) + b"/" + os.fsencode(name)))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def commit(self, message: str = "work") -> None:
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", message)

    def take(self, **options: object) -> Snapshot:
        given = {"message": "run", "cache": self.cache, **options}
        return take(self.root, **given)  # type: ignore[arg-type]

    def expected(self) -> str:
        """The tree of `git add -A` in a scratch index."""
        with tempfile.TemporaryDirectory() as folder:
            scratch = Path(folder, "index")
            index = Path(self.git("rev-parse", "--path-format=absolute", "--git-path", "index"))
            if index.exists():
                shutil.copy2(index, scratch)  # with its time, by which git knows what to look at again
            quiet = ("-c", "core.splitIndex=false", "-c", "advice.addEmbeddedRepo=false")
            self.git(*quiet, "add", "-A", GIT_INDEX_FILE=str(scratch))
            return "git:" + self.git("write-tree", GIT_INDEX_FILE=str(scratch))

    def state(self) -> dict[str, object]:
        """What must not change: all of `.git` but new objects and the log branch; the work tree."""
        found: dict[str, object] = {}
        for folder, folders, files in os.walk(os.fsencode(self.root)):
            folders.sort()
            if os.path.basename(folder) == b"objects":
                folders.clear()
                continue
            for name in files:
                path = os.path.join(folder, name)
                stat = os.lstat(path)
                if path.endswith(b"/run_logs"):
                    continue
                content = os.readlink(path) if os.path.islink(path) else b""
                if os.path.isfile(path) and not os.path.islink(path) and os.access(path, os.R_OK):
                    content = hashlib.sha1(Path(os.fsdecode(path)).read_bytes()).digest()
                # git touches the shared part of a split index whenever it reads it, in `git status` too
                time_ns = 0 if b"/sharedindex." in path else stat.st_mtime_ns
                found[os.fsdecode(path)] = (stat.st_mode, time_ns, stat.st_ino, content)
        return found

    def check(self, **options: object) -> Snapshot:
        """Take a snapshot; its tree is git's, it is committed, and nothing else has changed."""
        before = self.state()
        taken = self.take(**options)
        assert self.state() == before
        assert taken.source.tree == self.expected(), (taken, self.git("status", "--short"))
        assert taken.source.commit is not None
        commit = taken.source.commit.removeprefix("git:")
        assert "git:" + self.git("rev-parse", f"{commit}^{{tree}}") == taken.source.tree
        if taken.source.dirty:
            assert self.git("rev-parse", MINE) == commit
        assert "error" not in self.git("fsck", "--strict", "--no-dangling", check=False)
        return taken


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """A repository with one commit, and no configuration but its own."""
    return make_tree(tmp_path / "project", tmp_path / "cache")


@pytest.fixture(autouse=True)
def _no_user_configuration(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests do not depend on the configuration of whoever runs them."""
    import pygit2

    home = shared / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / ".config"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.delenv("GIT_CONFIG_GLOBAL", raising=False)
    for level in ("GLOBAL", "XDG", "SYSTEM"):
        pygit2.settings.search_path[pygit2.enums.ConfigLevel[level]] = str(home)


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that another user can reach, unlike pytest's."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    subprocess.run(["chmod", "-R", "u+rwX", str(folder)], check=True)
    shutil.rmtree(folder)


def make_tree(root: Path, cache: Path) -> Tree:
    root.mkdir(parents=True)
    made = Tree(root, cache)
    made.git("init", "-q", "-b", "main")
    made.git("config", "user.name", "A Tester")
    made.git("config", "user.email", "tester@example.org")
    for name in ("a.py", "b.py", "pkg/__init__.py", "pkg/deep/c.py", "run.sh"):
        made.write(name, f"# {name}\n")
    made.write(".gitignore", "*.log\nignored/\n")
    made.commit()
    return made


# -- what it promises -------------------------------------------------------------------------------


def test_clean_tree_is_head(tree: Tree) -> None:
    """A clean work tree makes no commit: its snapshot is HEAD."""
    source = tree.check().source
    assert source.commit == source.head == "git:" + tree.git("rev-parse", "HEAD")
    assert (source.branch, source.dirty, source.repository) == ("main", False, "project")
    assert tree.git("branch", "--list", "run_logs") == ""


def test_dirty_tree_is_a_commit_after_the_tip_and_head(tree: Tree) -> None:
    """A changed work tree becomes one commit on the log branch, whose parents are the tip and HEAD."""
    tree.write("a.py", "changed\n")
    first = tree.check().source
    head = tree.git("rev-parse", "HEAD")
    assert first.dirty
    assert tree.git("rev-parse", f"{MINE}^@").split() == [head]
    assert tree.check().source.commit == first.commit, "the same work tree again makes no second commit"
    tree.write("new.py")
    second = tree.check().source
    assert second.commit is not None and first.commit is not None
    assert tree.git("rev-parse", f"{MINE}^@").split() == [first.commit.removeprefix("git:"), head]
    assert tree.git("log", "-1", "--format=%an %s", MINE) == "A Tester run"


def test_diff_with_head(tree: Tree) -> None:
    """All that was uncommitted is what the commit differs in from HEAD, whatever earlier snapshots held."""
    for name in ("a", "b"):
        tree.write(name)
        source = tree.check().source
    assert source.head is not None and source.commit is not None
    revisions = [name.removeprefix("git:") for name in (source.head, source.commit)]
    assert tree.git("diff", "--name-only", *revisions).split() == ["a", "b"]


def test_same_tree_on_another_head_is_another_commit(tree: Tree) -> None:
    """A commit is reused only if it also says which HEAD the work tree was based on."""
    tree.write("a.py", "changed\n")
    first = tree.check().source
    tree.git("commit", "--allow-empty", "-qm", "moved on")
    second = tree.check().source
    assert second.tree == first.tree and second.commit != first.commit


def test_blob_and_changed_since(tree: Tree) -> None:
    """A snapshot tells the blob of each file as it was, and whether the file has changed since."""
    changed = tree.write("a.py", "changed\n")
    taken = tree.take()
    assert taken.blob(changed) == "git:" + tree.git("hash-object", "a.py")
    assert taken.blob(tree.root / "pkg/deep/c.py") == "git:" + tree.git("rev-parse", "HEAD:pkg/deep/c.py")
    assert taken.blob(tree.root / "pkg") is None
    assert taken.blob(tree.root / "missing.py") is None
    assert taken.blob("/elsewhere/a.py") is None
    linked = tree.root.parent / "link"
    linked.symlink_to(tree.root)
    assert taken.blob(linked / "a.py") == taken.blob(changed)
    assert not taken.changed_since(changed)
    assert not taken.changed_since(tree.root / "b.py")
    os.utime(tree.root / "b.py")
    assert not taken.changed_since(tree.root / "b.py"), "touched only"
    changed.write_text("CHANGED\n")
    tree.write("b.py", "x")
    assert taken.changed_since(changed) and taken.changed_since(tree.root / "b.py")
    assert taken.changed_since(tree.root / "missing.py")
    assert taken.blob(changed) == "git:" + tree.git("rev-parse", f"{MINE}:a.py")


def test_find_repository(tree: Tree, tmp_path: Path) -> None:
    """The work tree's root is found from any path inside, and nothing is found outside or in a bare one."""
    assert find_repository(tree.root / "pkg/deep/c.py") == tree.root
    assert find_repository(tree.root) == tree.root
    assert find_repository(tmp_path) is None
    (tmp_path / "fake/.git").mkdir(parents=True)
    assert find_repository(tmp_path / "fake") is None
    tree.git("clone", "-q", "--bare", ".", str(tmp_path / "bare"))
    assert find_repository(tmp_path / "bare") is None
    outside = take(tmp_path, message="run", cache=tmp_path / "cache")
    assert outside.source.commit is None and "not in a git work tree" in outside.omissions[0].why


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("https://me:secret@example.org/a/b.git", "https://example.org/a/b.git"),
        ("https://token@example.org/a.git?private_token=1#x", "https://example.org/a.git"),
        ("https://me:p@ss/word@example.org/a.git", "https://example.org/a.git"),
        ("ssh://git@example.org:2222/a.git", "ssh://example.org:2222/a.git"),
        ("git@example.org:a/b.git", "example.org:a/b.git"),
        ("/srv/git/a.git", "/srv/git/a.git"),
    ],
)
def test_remote_without_credentials(tree: Tree, address: str, shown: str) -> None:
    """The remote's address is told without user, password or token."""
    tree.git("config", "remote.origin.url", address)
    assert tree.take().source.repository == shown


def test_patterns_and_branch_are_checked(tree: Tree) -> None:
    """A wrong pattern or branch name is the user's mistake, and a clear error."""
    with pytest.raises(SettingsError, match=r"'re:\('"):
        tree.take(exclude=("re:(",))
    for wrong in ("a b", "", "-x", "x..y", "x.lock", "a//b", "HEAD"):
        with pytest.raises(SettingsError, match="branch"):
            tree.take(branch=wrong)


def test_exclude_keeps_the_version_of_head(tree: Tree) -> None:
    """An excluded file stays as in HEAD; it is listed if it is tracked."""
    tree.write("a.py", "changed\n")
    (tree.root / "b.py").unlink()
    tree.write("results/x/model.ckpt")
    tree.write("keep.txt")
    taken = tree.take(exclude=("results/", "a.py", "re:^b[.]py$"))
    assert {skipped.what for skipped in taken.source.skipped} == {"a.py", "b.py"}
    assert taken.blob(tree.root / "a.py") == "git:" + tree.git("rev-parse", "HEAD:a.py")
    assert taken.blob(tree.root / "b.py") == "git:" + tree.git("rev-parse", "HEAD:b.py")
    assert taken.blob(tree.root / "results/x/model.ckpt") is None
    assert taken.blob(tree.root / "keep.txt") is not None
    only = tree.take(exclude=("*",))
    assert only.source.tree == "git:" + tree.git("rev-parse", "HEAD^{tree}")
    assert only.source.dirty and only.source.commit == only.source.head


def test_include_takes_ignored_files(tree: Tree) -> None:
    """Files that git ignores are recorded where a pattern names them."""
    for name in (
        "ignored/local.yaml",
        "ignored/deep/x.yaml",
        "ignored/big.bin",
        "train.log",
        b"ignored/\xff.yaml",
    ):
        tree.write(name)
    tree.git("init", "-q", "ignored/nested")
    tree.write("ignored/nested/no.yaml")
    taken = tree.take(include=("ignored/**/*.yaml", "train.log"), exclude=("ignored/deep",))
    listed = tree.git(
        "ls-tree", "-r", "-z", "--name-only", str(taken.source.commit).removeprefix("git:")
    ).split("\0")
    assert {name for name in listed if "ignored" in name or "log" in name} == {
        "ignored/local.yaml",
        "ignored/\udcff.yaml",
        "train.log",
    }
    assert (
        tree.take(include=("ignored/**/*.yaml", "train.log"), exclude=("ignored/deep",)).source
        == taken.source
    )


def test_large_unreadable_and_odd_files_are_listed(tree: Tree) -> None:
    """Files over the limit, pipes and sockets are left out and listed; the rest is recorded."""
    tree.write("big.bin", b"0" * 1001)
    tree.write("a.py", b"1" * 1001)
    tree.write("small.bin", b"0" * 1000)
    os.remove(tree.root / "b.py")
    os.mkfifo(tree.root / "b.py")
    os.mkfifo(tree.root / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        here = Path.cwd()
        os.chdir(tree.root)  # a socket's path may not be long
        try:
            listener.bind("socket")
        finally:
            os.chdir(here)
        taken = tree.take(max_file_size=1000)
    skipped = {item.what: item.why for item in taken.source.skipped}
    assert "1001 bytes" in skipped["big.bin"] and "1001 bytes" in skipped["a.py"]
    assert taken.blob(tree.root / "a.py") == "git:" + tree.git("rev-parse", "HEAD:a.py")
    assert taken.blob(tree.root / "small.bin") is not None
    assert taken.blob(tree.root / "big.bin") is None
    assert taken.source.dirty


# -- new data that git does not ignore --------------------------------------------------------------

SOURCE = ("train.py", "notes.md", "src/model.py", "src/conf.yaml")


@pytest.mark.parametrize(
    ("data", "left", "lines"),
    [
        ({"data/": 80}, ["data/"], ["/data/"]),
        ({"data/a/": 20, "data/b/": 30, "data/c/": 30}, ["data/"], ["/data/"]),
        ({"new/data/": 80}, ["new/data/"], ["/new/data/"]),
        ({"src/": 80}, ["src/*.npy"], ["/src/*.npy"]),
        ({"": 80}, ["*.npy"], ["/*.npy"]),
        ({"big/": 60, "large/": 70, "small/": 5}, ["large/", "big/"], ["/large/", "/big/"]),
        ({"small/": 5}, [], []),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, (dict, list)) else "",
)
def test_too_much_new_data_is_left_out(
    tree: Tree, data: dict[str, int], left: list[str], lines: list[str]
) -> None:
    """Beyond the limit on their sum, new files are left out, largest folders first, with one warning; code is not."""
    for name in SOURCE:
        tree.write(name)
    for folder, count in data.items():
        for n in range(count):
            tree.write(f"{folder}{n}.npy", b"%d" % n * 5_000)
    objects = len(tree.git("count-objects", "-v"))
    taken = tree.take(max_snapshot_size=200_000)
    assert [item.what for item in taken.source.skipped] == left
    for name in SOURCE:
        assert taken.blob(tree.root / name), name
    for folder in data:
        inside = any(folder.startswith(what.partition("*")[0]) for what in left)
        assert (taken.blob(tree.root / f"{folder}0.npy") is None) == inside
    assert len(taken.omissions) == len(left[:1])
    if left:
        why = taken.omissions[0].why
        assert why.endswith(f"add to {tree.root / '.gitignore'}: {' '.join(lines)}")
        assert f"{left[0]} (" in why and "files, 0." in why and "max_snapshot_size" in why
        tree.write(".gitignore", "\n".join(lines))
        assert tree.take(max_snapshot_size=200_000).omissions == (), "the lines do what the warning says"
    assert tree.take(max_snapshot_size=200_000).source == tree.take(max_snapshot_size=200_000).source
    assert len(tree.git("count-objects", "-v")) - objects < 100


def test_many_small_files_count_as_what_git_stores(tree: Tree) -> None:
    """A small file counts as the block that git's copy of it takes on the disk."""
    for n in range(60):
        tree.write(f"data/{n}.txt", f"{n}")
    (item,) = tree.take(max_snapshot_size=200_000).source.skipped
    assert item.what == "data/" and "60 files, 110 bytes" in item.why


@pytest.mark.parametrize(
    ("files", "left", "line"),
    [
        (["venv/pyvenv.cfg", "venv/lib/x.py", "venv/lib/big.so"], "venv/", "/venv/"),
        (["env/conda-meta/history", "env/bin/x"], "env/", "/env/"),
        (["web/node_modules/a/b.js", "web/node_modules/c.js"], "web/node_modules/", "/web/node_modules/"),
    ],
)
def test_environments_are_no_source(tree: Tree, files: list[str], left: str, line: str) -> None:
    """Environments and caches that git does not ignore are known by what they are, and left out with a warning."""
    for name in files:
        tree.write(name, "x" * 2000)
    (tree.root / left / "link").symlink_to("nowhere")
    tree.write("new.py")
    taken = tree.take(max_file_size=1500)
    assert [item.what for item in taken.source.skipped] == [left]
    assert f"{len(files) + 1} files" in taken.source.skipped[0].why
    (warning,) = taken.omissions
    assert warning.why.endswith(f": {line}")
    assert taken.blob(tree.root / "new.py") and not taken.blob(tree.root / files[0])
    tree.git("add", "-f", files[0])
    tree.git("commit", "-qm", "tracked after all")
    tree.write(files[0], "changed")
    assert tree.take().blob(tree.root / files[0]) == "git:" + tree.git("hash-object", files[0])


def test_byte_code_counts_as_ignored(tree: Tree) -> None:
    """New files in `__pycache__` are neither recorded nor worth a word, and make no work tree dirty."""
    tree.write("pkg/__pycache__/c.cpython-311.pyc", "x")
    taken = tree.take()
    assert (taken.omissions, taken.source.skipped, taken.source.dirty) == ((), (), False)
    assert not taken.blob(tree.root / "pkg/__pycache__/c.cpython-311.pyc")


@pytest.mark.parametrize(
    "given", ["data", "data/", "data/0.bin", "data/*.bin", "link", "**/*.bin", "link/0.bin"], ids=str
)
def test_inputs_are_not_stored_twice(tree: Tree, given: str) -> None:
    """A new file that is an input is left out, because it has a digest; a tracked one, and code, is recorded."""
    for name in ("data/0.bin", "data/tracked.bin"):
        tree.write(name, "one")
    (tree.root / "link").symlink_to("data")
    tree.git("add", "data/tracked.bin", "link")
    tree.git("commit", "-qm", "tracked")
    tree.write("data/tracked.bin", "two")
    tree.write("data/load.py")
    tree.write("other/0.txt")
    taken = tree.take(inputs=[f"{tree.root}/{given}", "/elsewhere", "/elsewhere/*"])
    assert taken.blob(tree.root / "data/0.bin") is None
    for name in ("data/tracked.bin", "data/load.py", "other/0.txt"):
        assert taken.blob(tree.root / name) == "git:" + tree.git("hash-object", name)
    (item,) = taken.source.skipped
    assert "1 file, 3 bytes" in item.why and "digest" in item.why
    assert taken.omissions == ()


def test_sign_of_life(tree: Tree, capfd: pytest.CaptureFixture[str]) -> None:
    """A snapshot that takes longer than a second says what it does, and at the end how long that took."""
    tree.git("config", "filter.slow.clean", "sleep 1.5; cat")
    tree.write(".gitattributes", "*.slow filter=slow\n")
    tree.write("a.slow")
    tree.take(show=True)
    first, last = capfd.readouterr().err.splitlines()
    assert first == f"runctx: recording the source in {tree.root} ..."
    assert last.startswith(first.removesuffix("...") + "took ")


# -- one work tree after another --------------------------------------------------------------------


def everything_at_once(tree: Tree) -> None:
    tree.write("a.py", "staged\n")
    tree.git("add", "a.py")
    tree.write("a.py", "edited again\n")
    tree.git("mv", "b.py", "renamed.py")
    tree.git("rm", "-q", "--cached", "pkg/__init__.py")
    (tree.root / "pkg/deep/c.py").unlink()
    tree.write("forced.log")
    tree.git("add", "-f", "forced.log")
    tree.write("untracked.log")
    (tree.root / "run.sh").chmod(0o755)


def links(tree: Tree) -> None:
    (tree.root / "to_file").symlink_to("a.py")
    (tree.root / "to_folder").symlink_to("pkg")
    (tree.root / "dangling").symlink_to(b"nowhere\xff".decode("utf-8", "surrogateescape"))
    (tree.root / "a.py").unlink()
    (tree.root / "a.py").symlink_to("b.py")


def file_becomes_folder_and_back(tree: Tree) -> None:
    (tree.root / "a.py").unlink()
    tree.write("a.py/inside.py")
    shutil.rmtree(tree.root / "pkg")
    tree.write("pkg", "now a file\n")


def odd_names(tree: Tree) -> None:
    for name in (
        b"\xff\xfe.py",
        b"caf\xc3\xa9.py",
        b"new\nline",
        b" space ",
        b'quote"',
        b"-dash",
        b"a*[b]?",
        b"\xe9/\xff",
    ):
        tree.write(name)
    tree.git("add", "-A")
    tree.write(b"\xff\xfe.py", "changed\n")
    tree.write(b"another\xff", "new\n")


def modes_not_trusted(tree: Tree) -> None:
    tree.git("config", "core.fileMode", "false")
    (tree.root / "run.sh").chmod(0o755)
    tree.write("new.sh").chmod(0o755)
    tree.write("a.py", "changed\n").chmod(0o755)


def executable_without_trust(tree: Tree) -> None:
    (tree.root / "run.sh").chmod(0o755)
    tree.commit()
    tree.git("config", "core.fileMode", "false")
    tree.write("run.sh", "changed\n").chmod(0o644)


def line_endings(tree: Tree) -> None:
    tree.write("windows.txt", "a\r\nb\r\n")
    tree.commit()
    tree.git("config", "core.autocrlf", "true")
    tree.write("windows.txt", "a\r\nchanged\r\n")
    tree.write("new.txt", "a\r\nb\r\n")
    tree.write("unix.txt", "a\nb\n")


def text_attributes(tree: Tree) -> None:
    tree.write("pkg/deep/.gitattributes", "*.txt text eol=crlf\n*.id ident\n")
    tree.write("pkg/deep/a.txt", "a\r\nb\r\n")
    tree.write("pkg/deep/k.id", "$Id: 123 $\n")
    tree.write("other.txt", "a\r\nb\r\n")


def encoded(tree: Tree) -> None:
    tree.write(".gitattributes", "*.ps1 text working-tree-encoding=UTF-16\n")
    tree.write("x.ps1", "héllo\r\n".encode("utf-16"))


def with_filter(tree: Tree) -> None:
    tree.git("config", "filter.rot.clean", "tr a-z n-za-m")
    tree.git("config", "filter.rot.smudge", "tr n-za-m a-z")
    tree.write(".gitattributes", "*.rot filter=rot\n")
    tree.write("clean.rot", "hello\n")
    tree.write("edited.rot", "hello\n")
    tree.commit()
    os.utime(tree.root / "clean.rot", (1e9, 1e9))
    tree.write("edited.rot", "world\n")
    tree.write("new.rot", "new\n")
    tree.write("a.py", "plain\n")


def nested_attributes_ignored_by_git(tree: Tree) -> None:
    tree.git("config", "filter.rot.clean", "tr a-z n-za-m")
    tree.write("pkg/.gitattributes", "*.rot filter=rot\n")
    tree.write(".git/info/exclude", ".gitattributes\n")
    tree.write("pkg/deep/new.rot", "new\n")


def attributes_elsewhere(tree: Tree) -> None:
    tree.git("config", "filter.rot.clean", "tr a-z n-za-m")
    tree.write(".git/info/attributes", "*.rot filter=rot\n")
    tree.write("new.rot", "hello\n")


def intent_to_add(tree: Tree) -> None:
    tree.write("intended.py")
    tree.git("add", "-N", "intended.py")


def hidden_by_flags(tree: Tree) -> None:
    tree.git("update-index", "--skip-worktree", "a.py")
    tree.git("update-index", "--assume-unchanged", "b.py")
    tree.write("a.py", "hidden\n")
    tree.write("b.py", "hidden too\n")
    tree.write("run.sh", "seen\n")


def sparse(tree: Tree) -> None:
    tree.git("sparse-checkout", "set", "pkg/deep")
    tree.write("pkg/deep/c.py", "changed\n")


def sparse_index(tree: Tree) -> None:
    tree.git("sparse-checkout", "set", "--cone", "--sparse-index", "pkg/deep")
    tree.write("pkg/deep/c.py", "changed\n")


def split_index(tree: Tree) -> None:
    tree.git("update-index", "--split-index")
    tree.write("a.py", "changed\n")
    tree.write("new.py")


def index_version_4(tree: Tree) -> None:
    tree.git("update-index", "--index-version", "4")
    tree.write("a.py", "changed\n")


def unborn(tree: Tree) -> None:
    tree.git("switch", "-q", "--orphan", "fresh")
    tree.write("first.py")
    tree.write("pkg/second.py")


def detached(tree: Tree) -> None:
    tree.git("switch", "-q", "--detach")
    tree.write("a.py", "changed\n")


def conflict(tree: Tree) -> None:
    tree.git("switch", "-qc", "other")
    tree.write("a.py", "other\n")
    (tree.root / "b.py").unlink()
    tree.write("run.sh", "other\n")
    tree.commit()
    tree.git("switch", "-q", "main")
    tree.write("a.py", "main\n")
    tree.write("b.py", "main\n")
    (tree.root / "run.sh").unlink()
    tree.commit()
    tree.git("merge", "other", check=False)
    assert "UU a.py" in tree.git("status", "--short")


def nameless(tree: Tree) -> None:
    tree.git("config", "--unset", "user.name")
    tree.git("config", "--unset", "user.email")
    tree.write("a.py", "changed\n")


def nested_repository(tree: Tree) -> None:
    inner = make_tree(tree.root / "vendor/inner", tree.cache)
    inner.write("dirty.py")


def submodule_moved(tree: Tree) -> None:
    make_tree(tree.root.parent / "library", tree.cache)
    tree.git(
        "-c", "protocol.file.allow=always", "submodule", "add", "-q", str(tree.root.parent / "library"), "lib"
    )
    tree.commit()
    inner = Tree(tree.root / "lib", tree.cache)
    inner.git("-c", "user.name=x", "-c", "user.email=x@y", "commit", "--allow-empty", "-qm", "moved")


def ignored_in_many_ways(tree: Tree) -> None:
    tree.write(".git/info/exclude", "/only_here\n*.tmp\n")
    tree.write("pkg/.gitignore", "\\#x\n**/gen\n!keep.log\nsub/*\n!sub/b\n")
    for name in (
        "only_here",
        "pkg/only_here",
        "x.tmp",
        "pkg/#x",
        "pkg/deep/gen/a",
        "pkg/keep.log",
        "pkg/sub/a",
        "pkg/sub/b",
    ):
        tree.write(name)


def split_index_and_attributes(tree: Tree) -> None:
    tree.write(".gitattributes", "*.txt text\n")
    tree.commit()
    split_index(tree)
    tree.write("a.txt", "a\r\n")


def sparse_index_and_attributes(tree: Tree) -> None:
    tree.write(".gitattributes", "*.txt text\n")
    tree.commit()
    sparse_index(tree)
    tree.write("pkg/deep/a.txt", "a\r\n")


def submodule_is_a_file_now(tree: Tree) -> None:
    submodule_moved(tree)
    shutil.rmtree(tree.root / "lib")
    tree.write("lib", "a file\n")


def submodule_is_a_folder_now(tree: Tree) -> None:
    submodule_moved(tree)
    shutil.rmtree(tree.root / "lib")
    tree.write("lib/a.py", "a folder\n")


def submodule_is_gone(tree: Tree) -> None:
    submodule_moved(tree)
    shutil.rmtree(tree.root / "lib")


def links_not_supported(tree: Tree) -> None:
    links(tree)
    tree.commit()
    tree.git("config", "core.symlinks", "false")
    for name in ("to_file", "to_folder"):
        (tree.root / name).unlink()
        tree.write(name, "b.py")
    tree.write("new.py", "new\n")


def case_ignored(tree: Tree) -> None:
    tree.git("config", "core.ignorecase", "true")
    tree.write("A.py", "another\n")
    tree.write("NEW.py", "new\n")
    tree.write("x.LOG", "ignored\n")
    (tree.root / "b.py").rename(tree.root / "B.py")


def assumed_unchanged_and_gone(tree: Tree) -> None:
    tree.git("update-index", "--assume-unchanged", "a.py")
    (tree.root / "a.py").unlink()
    tree.write("new.py", "new\n")


def conflicts_and_filters(tree: Tree) -> None:
    with_filter(tree)
    conflict(tree)


def worktree_configuration(tree: Tree) -> None:
    tree.git("config", "extensions.worktreeConfig", "true")
    tree.git("config", "--worktree", "core.autocrlf", "true")
    tree.write("new.txt", "a\r\n")


SCENARIOS: list[Callable[[Tree], None]] = [
    everything_at_once,
    links,
    file_becomes_folder_and_back,
    odd_names,
    modes_not_trusted,
    executable_without_trust,
    line_endings,
    text_attributes,
    encoded,
    with_filter,
    nested_attributes_ignored_by_git,
    attributes_elsewhere,
    intent_to_add,
    hidden_by_flags,
    sparse,
    sparse_index,
    split_index,
    index_version_4,
    unborn,
    detached,
    conflict,
    nameless,
    nested_repository,
    submodule_moved,
    ignored_in_many_ways,
    split_index_and_attributes,
    sparse_index_and_attributes,
    submodule_is_a_file_now,
    submodule_is_a_folder_now,
    submodule_is_gone,
    links_not_supported,
    case_ignored,
    assumed_unchanged_and_gone,
    conflicts_and_filters,
    worktree_configuration,
]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_tree_is_that_of_git_add(tree: Tree, scenario: Callable[[Tree], None]) -> None:
    """The snapshot of each work tree is what `git add -A` would stage; taken again, it is the same."""
    scenario(tree)
    first = tree.check()
    assert {item.what for item in first.source.skipped} <= {"vendor/inner"}  # a repository: its commit only
    assert tree.check().source == first.source
    assert tree.check(cache=tree.cache / "other").source == first.source


@pytest.mark.parametrize("source", ["global file", "variables", "hasconfig"])
def test_configuration_from_anywhere(tree: Tree, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What git is told by variables or by includes that depend on a remote holds in a snapshot too."""
    ignores = tree.cache.parent / "ignores"
    ignores.write_text("*.secret\n")
    settings = {"core.excludesFile": str(ignores), "core.autocrlf": "input", "user.name": "Somebody Else"}
    file = tree.cache.parent / "gitconfig"
    for name, value in settings.items():
        tree.git("config", "--file", str(file), name, value)
    if source == "global file":
        monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(file))
    elif source == "variables":
        monkeypatch.setenv("GIT_CONFIG_COUNT", str(len(settings)))
        for n, (name, value) in enumerate(settings.items()):
            monkeypatch.setenv(f"GIT_CONFIG_KEY_{n}", name)
            monkeypatch.setenv(f"GIT_CONFIG_VALUE_{n}", value)
    else:
        tree.git("config", "remote.origin.url", "https://example.org/lab/a.git")
        tree.git("config", "includeIf.hasconfig:remote.*.url:https://example.org/**.path", str(file))
    tree.git("config", "--unset", "user.name")
    tree.write("my.secret")
    tree.write("new.txt", "a\r\n")
    taken = tree.check()
    assert taken.blob(tree.root / "my.secret") is None
    assert tree.git("cat-file", "blob", f"{MINE}:new.txt") == "a"
    assert tree.git("log", "-1", "--format=%an", MINE) == "Somebody Else"
    assert is_ignored(tree.root, tree.root / "results.secret")


# -- generated work trees ---------------------------------------------------------------------------

NAMES = st.sampled_from(
    [b"a", b"b", b"a.log", b"d/a", b"d/b", b"d/e/f", b"d/e/g.log", b"\xff", b"d", b"caf\xc3\xa9", b" x"]
)
ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), NAMES, st.sampled_from(["1\n", "2\n", "a\r\nb\n", ""])),
        st.tuples(st.just("link"), NAMES, st.sampled_from(["a", "nowhere", "d"])),
        st.tuples(st.just("remove"), NAMES, st.none()),
        st.tuples(st.just("mode"), NAMES, st.sampled_from([0o644, 0o755])),
        st.tuples(st.just("move"), NAMES, NAMES),
        st.tuples(
            st.just("ignore"),
            st.sampled_from([b"", b"d/"]),
            st.sampled_from(["*.log\n", "e\n", "/a\n!a\n", "a\n", "\n"]),
        ),
        st.tuples(st.just("stage"), NAMES, st.none()),
        st.tuples(st.just("unstage"), NAMES, st.none()),
        st.tuples(st.just("force"), NAMES, st.none()),
        st.tuples(st.just("commit"), st.just(b""), st.none()),
        st.tuples(st.just("snapshot"), st.just(b""), st.none()),
    ),
    min_size=3,
    max_size=14,
)


def act(tree: Tree, action: str, name: bytes, value: object) -> None:
    path = Path(os.fsdecode(os.fsencode(tree.root) + b"/" + name))
    shown = os.fsdecode(name)
    if action == "commit":
        tree.commit()
    elif action == "snapshot":
        tree.take()
    elif action in ("stage", "unstage", "force"):
        verb = {"stage": ("add", "-A"), "unstage": ("rm", "-rq", "--cached"), "force": ("add", "-f")}[action]
        tree.git(*verb, "--", shown, check=False)
    elif action == "remove":
        clear(path)
    elif action == "mode" and path.is_file() and not path.is_symlink():
        path.chmod(int(str(value)))
    elif action == "ignore":
        make_room(tree, path / ".gitignore")
        (path / ".gitignore").write_text(str(value))
    elif action in ("write", "link", "move"):
        source = (
            Path(os.fsdecode(os.fsencode(tree.root) + b"/" + value)) if isinstance(value, bytes) else None
        )
        if source is not None and (not source.is_file() or path in source.parents or source == path):
            return
        make_room(tree, path)
        if source is not None:
            if source.is_symlink() or source.is_file():  # unless it had to make room
                source.rename(path)
        elif action == "link":
            path.symlink_to(str(value))
        else:
            path.write_text(str(value), newline="")


def make_room(tree: Tree, path: Path) -> None:
    for above in path.parents:
        if above != tree.root and (above.is_symlink() or above.is_file()):
            above.unlink()
        if above == tree.root:
            break
    path.parent.mkdir(parents=True, exist_ok=True)
    clear(path)


def clear(path: Path) -> None:
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.is_dir():
        shutil.rmtree(path)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.function_scoped_fixture,
        HealthCheck.data_too_large,
    ],
)
@given(actions=ACTIONS)
def test_any_work_tree_gives_gits_tree(
    _no_user_configuration: None, actions: list[tuple[str, bytes, object]]
) -> None:
    """Whatever was done to a work tree, its snapshot is what git would stage, and no file changes."""
    with tempfile.TemporaryDirectory() as folder:
        tree = make_tree(Path(folder, "r"), Path(folder, "cache"))
        for action in actions:
            act(tree, *action)
        tree.check()


# -- when things go wrong ---------------------------------------------------------------------------


def in_child(work: Callable[[], None], user: int | None = None) -> None:
    """Run `work` in a forked child, as another user if wanted: root may write everywhere."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            if user is not None and os.getuid() == 0:
                os.setgroups([])
                os.setgid(user)
                os.setuid(user)
            work()
            code = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


NOBODY = 65534


def give_away(folder: Path) -> None:
    if os.getuid() == 0:
        subprocess.run(["chown", "-R", str(NOBODY), str(folder)], check=True)


def test_unreadable_files_are_listed(shared: Path) -> None:
    """A file that may not be read is listed, and the rest is recorded."""
    tree = make_tree(shared / "r", shared / "cache")
    tree.write("a.py", "changed\n").chmod(0)
    tree.write("secret").chmod(0)
    tree.write("b.py", "changed\n")
    give_away(shared)

    def work() -> None:
        taken = tree.take()
        said = {item.what for item in taken.source.skipped}
        assert {"a.py", "secret"} <= said, taken
        assert taken.source.commit != taken.source.head
        assert taken.blob(tree.root / "b.py") == "git:" + tree.git("hash-object", "b.py")

    in_child(work, NOBODY)


@pytest.mark.parametrize("mode", [0o000, 0o444, 0o111])
def test_closed_folder_is_not_deleted(shared: Path, mode: int) -> None:
    """Tracked files in a folder that may not be read are neither deleted nor forgotten: they stay, and it is said."""
    tree = make_tree(shared / "r", shared / "cache")
    (tree.root / "pkg/deep").chmod(mode)
    tree.write("b.py", "changed\n")
    give_away(shared)

    def work() -> None:
        taken = tree.take()
        inside = tree.root / "pkg/deep/c.py"
        assert taken.blob(inside) == "git:" + tree.git("rev-parse", "HEAD:pkg/deep/c.py")
        assert taken.blob(tree.root / "b.py") == "git:" + tree.git("hash-object", "b.py")
        said = [item.what + item.why for item in (*taken.omissions, *taken.source.skipped)]
        assert any("pkg/deep" in text for text in said), taken

    in_child(work, NOBODY)


@pytest.mark.parametrize("trusted_by", ["the line", "a variable"])
@pytest.mark.parametrize("attributes", [False, True])
def test_foreign_repository(shared: Path, attributes: bool, trusted_by: str) -> None:
    """A repository of another user is recorded once git trusts it; before, the omission has the line to write."""
    tree = make_tree(shared / "r", shared / "cache")
    if attributes:
        with_filter(tree)
    tree.write("a.py", "changed\n")
    subprocess.run(["chmod", "-R", "a+rwX", str(shared)], check=True)

    def trust(line: str) -> None:
        *_, name, value = line.split()
        if trusted_by == "the line":
            subprocess.run(line.split(), check=True)
        else:
            os.environ.update(GIT_CONFIG_COUNT="1", GIT_CONFIG_KEY_0=name, GIT_CONFIG_VALUE_0=value)

    def work() -> None:
        line = f"git config --global --add safe.directory {tree.root}"
        if os.geteuid() == NOBODY:
            (omission,) = tree.take().omissions
            assert omission.why.endswith(f"; hint: {line}"), omission
        trust(line)
        taken = tree.take()
        assert taken.source.dirty and not taken.source.skipped, taken
        assert taken.omissions == (), taken

    in_child(work, NOBODY)


@pytest.mark.parametrize("closed", [".git", ".git/objects", ".git/refs/heads"])
def test_unwritable_repository_is_an_omission(shared: Path, closed: str) -> None:
    """Where git's folder may not be written to, the run learns so, quickly, and what is known is kept."""
    tree = make_tree(shared / "r", shared / "cache")
    tree.write("a.py", "changed\n")
    give_away(shared)
    subprocess.run(["chmod", "-R", "a-w", str(tree.root / closed)], check=True)

    def work() -> None:
        taken = tree.take()
        assert taken.source.head == "git:" + tree.git("rev-parse", "HEAD")
        assert taken.omissions, taken
        assert taken.source.branch == "main"

    in_child(work, NOBODY)


def test_full_disk_is_an_omission(tree: Tree) -> None:
    """Where nothing more can be written the run learns so, and the repository stays sound."""
    tree.write("a.py", "changed\n")

    def work() -> None:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # every write fails, as on a full disk
        taken = tree.take()
        assert taken.omissions and taken.source.head, taken

    in_child(work)
    tree.git("fsck")
    tree.check()


def test_clean_tree_needs_no_write(shared: Path) -> None:
    """A clean work tree in a read-only repository is recorded without any complaint."""
    tree = make_tree(shared / "r", shared / "cache")
    give_away(shared)
    subprocess.run(["chmod", "-R", "a-w", str(shared)], check=True)

    def work() -> None:
        taken = tree.take()
        assert taken.source.commit == taken.source.head and taken.omissions == ()

    in_child(work, NOBODY)


def test_foreign_or_broken_repository_is_an_omission(shared: Path) -> None:
    """A repository that git refuses is no exception but an omission with the reason."""
    tree = make_tree(shared / "r", shared / "cache")
    tree.write(".git/HEAD", "nonsense\n")
    assert tree.take().omissions
    tree.write(".git/HEAD", "ref: refs/heads/main\n")
    tree.write(".git/index", b"DIRC garbage")
    assert tree.take().omissions
    tree.write(".git/config", "[core\n")
    assert tree.take().omissions
    pointer = shared / "worktree/.git"
    pointer.parent.mkdir()
    pointer.write_text("gitdir: /nowhere\n")
    assert take(pointer.parent, message="run", cache=shared / "cache").omissions


def test_without_git_the_rest_is_recorded(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the git command, files that need it are left out and listed; all else is recorded."""
    with_filter(tree)
    monkeypatch.setenv("PATH", str(tree.cache))
    taken = tree.take()
    monkeypatch.undo()
    assert {item.what for item in taken.source.skipped} == {"clean.rot", "edited.rot", "new.rot"}
    assert taken.omissions
    assert taken.blob(tree.root / "a.py") == "git:" + tree.git("hash-object", "a.py")
    assert taken.blob(tree.root / "edited.rot") == "git:" + tree.git("rev-parse", "HEAD:edited.rot")


def test_removed_attributes_still_apply(tree: Tree) -> None:
    """Where `.gitattributes` was removed but is in the index, its rules still apply, and that is said."""
    with_filter(tree)
    (tree.root / ".gitattributes").unlink()
    taken = tree.take()
    assert [item.what for item in taken.omissions] == [".gitattributes"]
    assert tree.git("cat-file", "blob", f"{MINE}:new.rot") == "arj"
    assert taken.blob(tree.root / ".gitattributes") is None


def test_failing_filter_is_listed(tree: Tree) -> None:
    """A file whose filter fails is left out and listed; all else is recorded."""
    with_filter(tree)
    tree.git("config", "filter.rot.clean", "false")
    tree.git("config", "filter.rot.required", "true")
    taken = tree.take()
    assert {"edited.rot", "new.rot"} <= {item.what for item in taken.source.skipped}
    assert taken.blob(tree.root / "a.py") == "git:" + tree.git("hash-object", "a.py")


def test_one_bad_file_costs_no_other(tree: Tree) -> None:
    """Files that cannot be converted are listed, each with git's reason; all others are converted and recorded."""
    tree.git("config", "filter.rot.clean", "tr a-z n-za-m")
    tree.git("config", "filter.bad.clean", "false")
    tree.git("config", "filter.bad.required", "true")
    tree.write(".gitattributes", "*.rot filter=rot\n*.bad filter=bad\n*.ps1 working-tree-encoding=UTF-16\n")
    tree.write("old.rot", "old\n")
    tree.commit()
    for name in ("a.rot", "z.rot", "old.rot"):
        tree.write(name, "hello\n")
    tree.write("new.bad", "x")
    tree.write("good.ps1", "x".encode("utf-16"))
    tree.write("odd.ps1", b"\x00\xd8\x00")
    taken = tree.take()
    skipped = {item.what: item.why for item in taken.source.skipped}
    assert set(skipped) == {"new.bad", "odd.ps1"}
    assert all("git cannot store it" in why for why in skipped.values())
    for name in ("a.rot", "z.rot", "old.rot"):
        assert tree.git("cat-file", "blob", f"{MINE}:{name}") == "uryyb"
    assert tree.git("cat-file", "blob", f"{MINE}:good.ps1") == "x"


@pytest.mark.parametrize("attributes", ["", "* text=auto\n"])
@pytest.mark.parametrize("name", [b"GIT~1", b"git~1/x", b".git ", b"a\\b", b".gitmodules", b"con"])
def test_names_that_git_refuses(tree: Tree, name: bytes, attributes: str) -> None:
    """A name that git would not take is listed; whatever else has changed is recorded."""
    if attributes:
        tree.write(".gitattributes", attributes)
    tree.write("a.py", "changed\n")
    tree.write("new.py", "new\n")
    others = tree.expected()
    path = tree.root / os.fsdecode(name)
    path.parent.mkdir(exist_ok=True)
    path.symlink_to("elsewhere")
    taken = tree.take()
    try:
        assert taken.source.tree == tree.expected()
    except AssertionError:  # git itself does not take it, and stages nothing
        assert taken.source.tree == others
        assert [item.what for item in taken.source.skipped] == [os.fsdecode(name)]


@pytest.mark.parametrize("setting", ["", "core.autocrlf=true", "core.ignorecase=true", "core.symlinks=false"])
@pytest.mark.parametrize("file", [".git/index", ".git/info/exclude", ".gitignore", ".gitattributes"])
def test_pipes_in_place_of_files(tree: Tree, file: str, setting: str) -> None:
    """Where a pipe lies in place of a file that git reads, nothing waits for it, whoever would have read it."""
    if setting:
        tree.git("config", *setting.split("="))
    tree.write("a.py", "changed\n")
    (tree.root / file).unlink(missing_ok=True)
    os.mkfifo(tree.root / file)
    (omission,) = tree.take().omissions
    assert file in omission.why and "not a regular file" in omission.why


def test_existing_objects_are_made_young(tree: Tree) -> None:
    """An object that exists already counts as new, so that a `git gc` at the same moment does not remove it."""
    for attributes in ("", "* text=auto\n"):
        if attributes:
            tree.write(".gitattributes", attributes)
            tree.commit()
        name = tree.write("a.py", f"changed {attributes}")
        blob = tree.git("hash-object", "-w", "a.py")
        file = tree.root / ".git/objects" / blob[:2] / blob[2:]
        os.utime(file, (1e9, 1e9))
        assert tree.take().blob(name) == f"git:{blob}"
        assert file.stat().st_mtime > 1.5e9


def test_log_branch_that_is_a_symbolic_reference(tree: Tree) -> None:
    """Where the log branch stands for another branch, that one is not moved."""
    tree.git("branch", "other")
    tree.git("symbolic-ref", MINE, "refs/heads/other")
    before = tree.git("rev-parse", "other")
    tree.write("a.py", "changed\n")
    taken = tree.take()
    assert tree.git("rev-parse", "other") == before
    assert tree.git("symbolic-ref", MINE) == "refs/heads/other"
    assert taken.source.commit != taken.source.head
    assert "symbolic" in taken.omissions[0].why


def test_hanging_filter_is_stopped(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """A filter that never ends is killed, with all it started, and its file is listed."""
    from runctx.snapshot import repository

    monkeypatch.setattr(repository, "PATIENCE", 0.5)
    tree.git("config", "filter.stuck.clean", f"echo $$ > {tree.cache}.pid; sleep 1000 & sleep 1000")
    tree.write(".gitattributes", "*.stuck filter=stuck\n")
    tree.write("x.stuck")
    taken = tree.take()
    assert [item.what for item in taken.source.skipped] == ["x.stuck"]
    assert "took longer" in taken.source.skipped[0].why
    started = Path(f"{tree.cache}.pid").read_text().strip()
    state = subprocess.run(["ps", "-o", "stat=", "-p", started], capture_output=True, text=True, check=False)
    assert state.stdout.strip()[:1] in ("", "Z"), "gone, or waiting for somebody to take note of its end"


def test_large_files_of_git_lfs_stay_pointers(tree: Tree) -> None:
    """A file kept by Git LFS is recorded as its pointer, not with its content; so is one merely touched."""
    if shutil.which("git-lfs"):
        tree.git("lfs", "install", "--local")
    else:  # what git-lfs's clean filter writes
        clean = (
            "import hashlib,sys; b=sys.stdin.buffer.read(); print('version https://git-lfs.github.com/spec/v1\\n"
            "oid sha256:%s\\nsize %d' % (hashlib.sha256(b).hexdigest(), len(b)))"
        )
        tree.git("config", "filter.lfs.clean", f'{sys.executable} -c "{clean}"')
    tree.write(".gitattributes", "*.bin filter=lfs diff=lfs merge=lfs -text\n")
    tree.write("old.bin", b"old" * 1000)
    tree.commit()
    os.utime(tree.root / "old.bin", (1e9, 1e9))
    assert not tree.check().source.dirty
    tree.write("new.bin", b"new" * 1000)
    taken = tree.check()
    assert str(tree.git("cat-file", "blob", f"{MINE}:new.bin")).startswith("version https://git-lfs")
    assert taken.source.skipped == ()


def test_nested_repository_is_a_gitlink(tree: Tree) -> None:
    """A repository inside is recorded by its commit, one without a commit left out; both are listed."""
    nested_repository(tree)
    tree.git("init", "-q", "empty")
    taken = tree.take()
    inner = Tree(tree.root / "vendor/inner", tree.cache)
    assert taken.blob(inner.root) == "git:" + inner.git("rev-parse", "HEAD")
    assert sorted(item.what for item in taken.source.skipped) == ["empty", "vendor/inner"]


def test_dirty_submodule_is_an_omission(tree: Tree) -> None:
    """What is uncommitted inside a submodule is in no tree, and said to be missing."""
    submodule_moved(tree)
    tree.write("lib/a.py", "changed inside\n")
    taken = tree.check()
    assert [(item.what) for item in taken.omissions] == ["lib"]


def test_log_branch_checked_out_is_not_moved(tree: Tree) -> None:
    """Where the log branch itself is checked out it stays, for moving it would move HEAD."""
    tree.git("switch", "-qc", "run_logs")
    tree.write("a.py", "changed\n")
    before = tree.git("rev-parse", "HEAD")
    taken = tree.take()
    assert tree.git("rev-parse", "HEAD") == before
    assert taken.source.commit is not None and "checked out" in taken.omissions[0].why
    tree.git("switch", "-q", "main", check=False)


def test_linked_worktree(tree: Tree) -> None:
    """A linked work tree is recorded like the main one, on the same log branch."""
    tree.git("worktree", "add", "-q", "../linked")
    linked = Tree(tree.root.parent / "linked", tree.cache)
    linked.write("a.py", "changed\n")
    linked.write("new.py")
    taken = linked.check()
    assert taken.source.branch == "linked"
    tree.write("b.py", "changed\n")
    tree.check()
    assert len(tree.git("rev-list", "--first-parent", MINE).split()) >= 3


def test_stale_lock_is_removed(tree: Tree) -> None:
    """The lock that a killed process left on the log branch costs neither the snapshot nor the branch."""
    tree.write("a.py", "changed\n")
    lock = tree.write(".git/refs/heads/run_logs.lock", "")
    os.utime(lock, (1e9, 1e9))
    taken = tree.take()
    assert taken.omissions == ()
    assert taken.source.commit == "git:" + tree.git("rev-parse", MINE).strip()
    assert not lock.exists()


def test_hooks_never_run(tree: Tree) -> None:
    """No hook and no file system monitor of the user's repository is started."""
    for hook in ("post-index-change", "pre-commit", "reference-transaction", "fsmonitor-watchman"):
        tree.write(f".git/hooks/{hook}", f"#!/bin/sh\necho {hook} >> {tree.cache}.ran\n").chmod(0o755)
    tree.git("config", "filter.rot.clean", "cat")
    tree.write(".gitattributes", "*.rot filter=rot\n")
    tree.write("a.rot")
    os.path.lexists(f"{tree.cache}.ran") and os.unlink(f"{tree.cache}.ran")
    tree.git("config", "core.fsmonitor", str(tree.root / ".git/hooks/fsmonitor-watchman"))
    tree.take()
    assert not os.path.lexists(f"{tree.cache}.ran")


# -- many at once, and the memory of hashes ---------------------------------------------------------


def _take_often(root: Path, cache: Path, who: int, times: int) -> None:
    for n in range(times):
        (root / f"by_{who}.txt").write_text(f"{who} {n}\n")
        taken = take(root, message=f"{who} {n}", cache=cache)
        assert taken.omissions == () and taken.source.commit, taken


def test_concurrent_snapshots_are_all_kept(tree: Tree) -> None:
    """Of eight processes that commit to the branch at once, no commit is lost."""
    context = multiprocessing.get_context("spawn")
    roots = [tree.root.parent / f"w{who}" for who in range(8)]
    for root in roots:
        tree.git("worktree", "add", "-q", "--detach", str(root))
    processes = [
        context.Process(target=_take_often, args=(root, tree.cache, n, 25)) for n, root in enumerate(roots)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 8
    subjects = tree.git("log", "--first-parent", "--format=%s", MINE).splitlines()
    assert sorted(subjects[:200]) == sorted(f"{who} {n}" for who in range(8) for n in range(25))


def test_first_commits_are_all_kept(tree: Tree) -> None:
    """A process that saw no branch does not overwrite what another created since, from a linked work tree either."""
    linked = tree.root.parent / "linked"
    tree.git("worktree", "add", "-q", "--detach", str(linked))
    for root in (tree.root, linked):
        (root / "new.py").write_text(f"{root}\n")
        first = take(root, message="first", cache=tree.cache).source.commit
        repo = pygit2.Repository(str(root))
        with pytest.raises((ValueError, OSError, GitError, pygit2.GitError)):
            commit._move(opened(root), MINE, None, repo.head.target)
        assert first == f"git:{tree.git('rev-parse', MINE).strip()}"


def test_killed_in_the_middle(tree: Tree) -> None:
    """A snapshot killed at any moment leaves a repository that is sound, and the next one works."""
    code = (
        "import sys, pathlib; from runctx.snapshot import take\n"
        "root = pathlib.Path(sys.argv[1])\n"
        "print('go', flush=True)\n"
        "for n in range(10**6):\n"
        "    (root / 'a.py').write_text(str(n)); take(root, message='x', cache=root.parent / 'cache')\n"
    )
    before = tree.git("rev-parse", "HEAD", "main")
    for _ in range(5):
        with subprocess.Popen(
            [sys.executable, "-c", code, str(tree.root)], stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(0.02)
            process.kill()
    assert tree.git("rev-parse", "HEAD", "main") == before
    tree.git("fsck")
    lock = tree.root / ".git/refs/heads/run_logs.lock"
    lock.unlink(missing_ok=True)
    tree.check()


def test_forked_child_takes_its_own(tree: Tree) -> None:
    """A forked child, with its parent's open repository, sees its own changes."""
    tree.check()

    def work() -> None:
        tree.write("a.py", "by the child\n")
        tree.check()

    in_child(work)
    tree.write("b.py", "by the parent\n")
    tree.check()


def age(tree: Tree, names: list[str]) -> None:
    """Wait until files just written are old enough to be remembered: many a git compares whole seconds."""
    newest = max(os.stat(tree.root / name).st_ctime for name in names)
    while int(time.time()) <= int(newest):
        time.sleep(0.05)


def test_remembered_files_are_not_read_again(tree: Tree) -> None:
    """Files read once are recognised, in this process and in others; a broken memory is no memory."""
    reads = tree.root.parent / "reads"
    tree.git("config", "filter.counted.clean", f"echo read >> {reads}; cat")
    tree.write(".gitattributes", "*.dat filter=counted\n")
    tree.commit()
    names = [f"many/{n}.dat" for n in range(30)]
    for name in names:
        tree.write(name, f"{name}\n".rjust(100_000))
    age(tree, names)
    first = tree.take()
    (memory,) = tree.cache.glob("*.added")
    assert tree.take().source == first.source
    in_child(work_without_memory(tree, first))  # a new process: what it knows comes from the file
    assert reads.read_text().split() == ["read"] * len(names)
    assert tree.check().source == first.source
    for broken in (b"", b"\x93garbage", memory.read_bytes()[:-7], b"\x92\x02\x80"):
        memory.write_bytes(broken)
        in_child(work_without_memory(tree, first))
    tree.write(names[3], "x" * 100_000)
    (tree.root / names[4]).unlink()
    tree.write(".git/info/exclude", f"/{names[5]}\n")
    tree.write("a.py", "changed\n")
    assert tree.check().source.tree != first.source.tree
    tree.write("a.py", "# a.py\n")
    tree.check()


def work_without_memory(tree: Tree, first: Snapshot) -> Callable[[], None]:
    def work() -> None:
        from runctx.snapshot import repository

        repository._local.__dict__.clear()
        assert tree.take().source == first.source

    return work


def test_pruned_objects_are_written_again(tree: Tree) -> None:
    """A remembered id is believed only while the repository still has the object."""
    names = [f"many/{n}.py" for n in range(40)]
    for name in names:
        tree.write(name, f"{name}\n".rjust(100_000))
    age(tree, names)
    first = tree.check()
    tree.git("branch", "-D", "run_logs")
    tree.git("reflog", "expire", "--expire=now", "--all")
    tree.git("gc", "-q", "--prune=now")
    assert tree.check().source.tree == first.source.tree


def test_same_size_edits_in_quick_succession(tree: Tree) -> None:
    """An edit in the same tick of the clock, of the same size, is never mistaken for the one before."""
    for n in range(100):
        path = tree.write("a.py", f"{n:04}\n")
        assert tree.take().blob(path) == "git:" + hashlib.sha1(b"blob 5\0%04d\n" % n).hexdigest()


def test_copied_repository(tree: Tree, tmp_path: Path) -> None:
    """In a copied repository, whose index knows none of its files, a snapshot is right, and soon quick."""
    for n in range(20):
        tree.write(f"f{n:02}.py", f"{n}\n")
    tree.write(".gitattributes", "* -text\n")  # libgit2 does not answer
    tree.commit()
    shutil.copytree(tree.root, tmp_path / "copy", symlinks=True)
    copy = Tree(tmp_path / "copy", tree.cache)
    assert not copy.check().source.dirty
    (refreshed,) = tree.cache.glob("*.index")
    copy.write("f03.py", "changed\n")
    copy.write("new.py")
    (copy.root / "f04.py").unlink()
    assert copy.check().source.dirty
    assert [*tree.cache.glob("*.index")] == [refreshed]
    looked_at = copy.git("diff-files", "--name-only", GIT_INDEX_FILE=str(refreshed)).split()
    assert looked_at == ["f03.py", "f04.py"], "the others are known by their times"


def test_large_index_is_listed_by_git(tree: Tree) -> None:
    """Above two thousand files git lists the changes, with the same result."""
    for n in range(2100):
        tree.write(f"many/{n % 7}/{n}.py", f"{n}\n")
    tree.commit()
    assert not tree.check().source.dirty
    everything_at_once(tree)
    tree.check()


def test_snapshot_survives_changes_by_others(tree: Tree) -> None:
    """What other processes commit, stage and configure between two snapshots is seen by the second."""
    tree.check()
    tree.write("a.py", "one\n")
    tree.check()
    tree.commit()
    assert not tree.check().source.dirty
    tree.git("gc", "-q")
    tree.git("switch", "-qc", "topic")
    assert tree.check().source.branch == "topic"
    tree.write("a.py", "two\n")
    tree.git("add", "a.py")
    tree.git("config", "core.autocrlf", "input")
    tree.write("b.py", "x\r\n")
    tree.check()


def test_snapshot_is_a_value(tree: Tree) -> None:
    """A snapshot is frozen, and what it holds is plain data."""
    taken = tree.take()
    with pytest.raises(dataclasses.FrozenInstanceError):
        taken.root = None  # type: ignore[misc]
    assert dataclasses.asdict(taken.source)["commit"] == taken.source.commit
