"""A past run says what it said when it ran; a dead one does not say that it is running."""

from __future__ import annotations

import fcntl
import os
import platform
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf.errors import ReadonlyConfigError

from runctx import Run, from_cli, layout, liveness, lock
from runctx.errors import ConfigError, LockError, NoRunError
from runctx.model import Lock
from runctx.past import index
from runctx.past.record import Record, edges, known_runs
from tests.pastruns import ESCAPE, child_of, make_lock, write_run
from tests.strategies import locks

HERE = platform.node()


@pytest.fixture
def project(make_repo, monkeypatch) -> Path:
    """A repository, which is the current folder."""
    root = make_repo({"data.csv": "1,2\n", ".gitignore": "results/\n"})
    monkeypatch.chdir(root)
    return root


def finished(*args, **options) -> Run:
    with Run(*args, console=False, **options) as run:
        (run.save_dir / "model.bin").write_bytes(b"weights")
    return run


class TestLoad:
    def test_same_attributes(self, project):
        """Loaded, a run has the attributes it had while it ran, with the same values."""
        run = finished({"lr": 0.1}, ["data.csv"], stage="train", seed=3)
        past = Run.load(run.save_dir)
        assert past.lock == run.lock
        for name in (
            "id",
            "stage",
            "status",
            "error",
            "commit",
            "inputs",
            "outputs",
            "omissions",
            "save_dir",
        ):
            assert getattr(past, name) == getattr(run, name), name
        assert (past.cfg.lr, past.seed, past.source.commit) == (0.1, 3, f"git:{run.commit}")
        assert os.fspath(past) == os.fspath(run.save_dir)

    def test_any_path(self, project):
        """A run is found by its folder, its lock, and any file or folder inside, written there or not."""
        folder = finished({}).save_dir
        for path in (folder, folder / "run.lock", folder / "model.bin", str(folder), folder / "a/b"):
            assert index.load(path).save_dir == folder

    def test_moved(self, project, tmp_path):
        """A folder that was moved is a run all the same, and knows where it is now."""
        folder = shutil.move(finished({}).save_dir, tmp_path / "elsewhere")
        past = index.load(folder)
        assert past.save_dir == tmp_path / "elsewhere"
        assert (past.save_dir / "model.bin").read_bytes() == b"weights"

    def test_not_there(self, tmp_path):
        """Where no run is, the error names the absolute path and what is missing."""
        with pytest.raises(NoRunError, match=rf"{tmp_path}/x: no such file or folder.*\nhint"):
            index.load(tmp_path / "x")
        with pytest.raises(NoRunError, match=r"no run\.lock in it or above"):
            index.load(tmp_path)

    def test_broken(self, tmp_path):
        """A broken lock is an error that names the file, and what is shown of it does not raise."""
        (tmp_path / "run.lock").write_text("a: [")
        with pytest.raises(LockError, match=r"run\.lock"):
            index.load(tmp_path)
        assert "broken" in repr(Record(tmp_path))
        assert "gone" in repr(Record(tmp_path / "nowhere"))
        assert Record(tmp_path)._repr_html_() is None


@dataclass
class Opt:
    lr: float = 0.0


@dataclass
class Config:
    opt: Opt
    name: str = "a"


@dataclass
class Other:
    opt: int = 0


class TestConfig:
    def test_read_only(self, project):
        """The configuration is attributes that cannot be changed."""
        cfg = index.load(finished({"opt": {"lr": 0.1}}).save_dir).cfg
        assert cfg.opt.lr == 0.1
        with pytest.raises(ReadonlyConfigError):
            cfg.opt.lr = 1

    def test_class(self, project):
        """With a class the configuration is an instance of it, nested ones included."""
        cfg = Run.load(finished(Config(opt=Opt(lr=0.5))).save_dir, Config).cfg
        assert cfg == Config(opt=Opt(lr=0.5))

    def test_keys_that_were_added(self, project):
        """What `+key=` added to a class during the run is there afterwards, too."""
        cfg = from_cli(Config(Opt()), ["+new=5", "+opt.nested={a: [1]}"])
        back = Run.load(finished(cfg).save_dir, Config).cfg
        assert back == Config(Opt()) and (back.new, back.opt.nested) == (5, {"a": [1]}) == (
            cfg.new,
            cfg.opt.nested,
        )

    def test_class_that_does_not_fit(self, project):
        """A class that the values do not fit is an error that names the key, at once."""
        folder = finished(Config(opt=Opt())).save_dir
        with pytest.raises(ConfigError, match="opt"):
            Run.load(folder, Other)


RUN = """
    import os, sys
    from runctx import Run
    with Run({"lr": 0.1}, save_dir="results/a", console=False):
        %s
        print("inside", flush=True)
        sys.stdin.readline()
"""


@contextmanager
def running(project: Path, code: str = "pass") -> Iterator[subprocess.Popen[str]]:
    """A process inside a run in results/a; it ends when it is sent a line."""
    (project / "train.py").write_text(textwrap.dedent(RUN % code))
    with subprocess.Popen(
        [sys.executable, "train.py"], cwd=project, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "inside\n"
            yield process
        finally:
            process.kill()


def end(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.wait(60) == 0


class TestLiveness:
    def test_killed(self, project):
        """A run reads as running until its process is killed, and as crashed from then on."""
        with running(project) as process:
            past = index.load("results/a")
            assert past.status == "running"
            process.kill()
            process.wait()
            assert past.status == index.load("results/a").status == "crashed"
            assert "crashed" in repr(past)

    def test_ended(self, project):
        """A record that was loaded while the run was on says done once it is, and knows its outputs."""
        with running(project, "open('results/a/out', 'w').close()") as process:
            past = index.load("results/a")
            assert (past.status, past.outputs) == ("running", ())
            end(process)
        assert past.status == "done"
        assert [data.path for data in past.outputs] == ["out"]

    def test_child_outlives(self, project):
        """A forked child that holds the lock for longer does not make a dead run live."""
        with running(project, "child = os.fork() or os._exit(len(os.read(0, 9)))") as process:
            past = index.load("results/a")
            process.kill()
            process.wait()
            assert past.status == "crashed"

    def test_two_readers(self, tmp_path):
        """A reader that is looking at the same moment is not taken for the run."""
        folder = self.said_running(tmp_path, "elsewhere")
        alive = layout.RunFiles(folder).alive
        alive.parent.mkdir()
        alive.touch()
        with alive.open() as reader:
            fcntl.flock(reader, fcntl.LOCK_SH)
            assert index.load(folder).status == "crashed"
        with alive.open() as run:
            fcntl.flock(run, fcntl.LOCK_EX)
            assert index.load(folder).status == "running"

    def test_no_lock_file(self, tmp_path):
        """Without the liveness file the process decides on its own host, the lock's word elsewhere."""
        gone = subprocess.Popen(["true"])
        gone.wait()
        assert index.load(self.said_running(tmp_path / "1", HERE, gone.pid)).status == "crashed"
        assert index.load(self.said_running(tmp_path / "2", HERE, os.getpid())).status == "running"
        assert index.load(self.said_running(tmp_path / "3", "elsewhere")).status == "running"

    @pytest.mark.parametrize("pid", [0, -1, 2**62])
    def test_no_process(self, tmp_path, pid):
        """A number that no process has is no process, and no signal is sent to it."""
        assert index.load(self.said_running(tmp_path, HERE, pid)).status == "crashed"

    def test_looking_leaves_no_trace(self, tmp_path):
        """Whoever looks makes no file, and does not wait at a pipe in place of one."""
        folder = self.said_running(tmp_path, "elsewhere")
        before = sorted(folder.rglob("*"))
        assert index.load(folder).status == "running"
        assert sorted(folder.rglob("*")) == before
        alive = layout.RunFiles(folder).alive
        alive.parent.mkdir()
        os.mkfifo(alive)
        assert index.load(folder).status in ("running", "crashed")

    def said_running(self, root: Path, host: str, pid: int = 7) -> Path:
        one = make_lock()
        command = replace(one.command, host=host, pid=pid)
        return write_run(root, replace(one, status="running", seconds=None, command=command))


class TestUpstream:
    def test_real_runs(self, project):
        """The direct parents are records of their folders; lineage has all, once each."""
        a = finished(inputs=["data.csv"], stage="a")
        b = finished(inputs=[a.save_dir / "model.bin"], stage="b")
        c = finished(inputs=[b.save_dir / "model.bin", a.save_dir], stage="c")
        past = index.load(c.save_dir)
        assert {p.save_dir for p in past.upstream} == {a.save_dir, b.save_dir}
        assert [p.lock for p in past.upstream] == [p.lock for p in c.upstream]
        assert next(iter(past.upstream[0].lineage())).id == past.upstream[0].id
        lineage = past.lineage()
        assert {run.id for run in lineage} == {a.id, b.id, c.id}
        assert {(e.parent, e.child) for e in lineage.edges} == {(a.id, b.id), (a.id, c.id), (b.id, c.id)}
        assert len(lineage) == 3

    def test_moved_together(self, project, tmp_path):
        """Where a whole results folder was moved, parents are found in it."""
        a = finished(stage="a")
        b = finished(inputs=[a.save_dir / "model.bin"], stage="b")
        shutil.move(project / "results", tmp_path / "archive")
        (parent,) = index.load(tmp_path / "archive/b" / b.save_dir.name).upstream
        assert parent.save_dir == tmp_path / "archive/a" / a.save_dir.name

    def test_folder_gone(self, project):
        """Of a parent whose folder is gone the child's lock still tells, with all before it."""
        a = finished(stage="a")
        b = finished({"lr": 2}, [a.save_dir / "model.bin"], stage="b")
        c = finished(inputs=[b.save_dir / "model.bin"], stage="c")
        shutil.rmtree(b.save_dir)
        shutil.rmtree(a.save_dir)
        (parent,) = index.load(c.save_dir).upstream
        assert (parent.id, parent.cfg.lr, parent.lock, parent.found) == (b.id, 2, b.lock, False)
        assert [earlier.id for earlier in parent.upstream] == [a.id]
        assert parent.status == "done"
        assert "folder not found" in repr(parent)
        with pytest.raises(NoRunError, match=b.id):
            parent.save_dir

    def test_another_run_in_its_place(self, tmp_path):
        """A folder at the parent's place that holds another run is not taken for it."""
        parent, other = make_lock(1), make_lock(2, save_dir="results/train/1")
        write_run(tmp_path, other)
        child = write_run(tmp_path, child_of(3, parent))
        (found,) = index.load(child).upstream
        assert (found.id, found.found) == (parent.id, False)

    def test_places_that_are_none(self, tmp_path):
        """A lock whose places are no paths, or lead to no run, is read all the same."""
        for number, place in enumerate(["a\0b", "/dev/null", "../../../..", "", "x" * 5000, ESCAPE]):
            parent = make_lock(1, save_dir=place)
            child = child_of(2 + number, parent)
            past = index.load(write_run(tmp_path, child))
            assert [p.found for p in past.upstream] == [False]
            assert len(past.lineage()) == 2

    def test_running_parent(self, tmp_path):
        """The tree says of a parent what its folder says now, not what was so when it was read."""
        parent = make_lock(1)
        write_run(tmp_path, parent)
        child = child_of(2, replace(parent, status="running", seconds=None))
        lineage = index.load(write_run(tmp_path, child)).lineage()
        assert lineage.statuses == {child.id: "done", parent.id: "done"}


class TestLineage:
    def test_own_descendants(self, tmp_path):
        """Runs that descend from themselves, as only a forged lock says, are shown with that arrow cut."""
        a, b = make_lock(1), make_lock(2)
        c = child_of(3, a, b)
        forged = replace(c, upstream=(replace(a, parents=(b.id, a.id)), replace(b, parents=(a.id, c.id))))
        lineage = index.load(write_run(tmp_path, forged)).lineage()
        assert len(lineage) == 3
        assert b.id in str(lineage)
        assert lineage._repr_html_().count("<rect") == 3
        assert all(len(list(run.lineage())) <= 3 for run in lineage)

    def test_long_chain(self, tmp_path):
        """A thousand runs, each from the one before, are no depth that anything gives up at."""
        chain = [make_lock(0)]
        for number in range(1, 1000):
            chain.append(make_lock(number, parents=(chain[-1].id,)))
        last = replace(chain[-1], upstream=tuple(chain[:-1]))
        lineage = index.load(write_run(tmp_path, last)).lineage()
        assert len(lineage) == 1000
        assert len(lineage.to_dict()["edges"]) == 999
        assert lineage._repr_html_()

    def test_missing_ancestor(self, tmp_path):
        """A parent that is named but not told of is shown as such."""
        child = replace(make_lock(2), parents=("train-nowhere",))
        lineage = index.load(write_run(tmp_path, child)).lineage()
        assert "train-nowhere  not told of" in str(lineage)
        assert len(lineage) == 1

    @given(locks)
    def test_edges_have_no_circle(self, one: Lock):
        """Whatever a lock says, no run is before itself, and each arrow stands once."""
        found = edges(one)
        assert len({(edge.parent, edge.child) for edge in found}) == len(found)
        after: dict[str, set[str]] = {}
        for edge in found:
            after.setdefault(edge.parent, set()).add(edge.child)
        for start in after:
            reached, pending = set(), list(after[start])
            while pending:
                run = pending.pop()
                if run not in reached:
                    reached.add(run)
                    pending += after.get(run, ())
            assert start not in reached

    @given(st.lists(st.sets(st.integers(0, 30)), max_size=8))
    def test_edges_of_a_real_history(self, history: list[set[int]]):
        """Of a history that can have happened every arrow to the last run is kept, and no other is made."""
        made: list[Lock] = []
        for number, choice in enumerate(history):
            made.append(child_of(number, *(made[i] for i in sorted(choice) if i < len(made))))
        if made:
            known = known_runs(made[-1])
            arrows = {(edge.parent, edge.child) for edge in edges(made[-1])}
            assert arrows == {(parent, id) for id, one in known.items() for parent in one.parents}


def test_nothing_is_executed(tmp_path):
    """A lock with a YAML tag that would run code is refused, not obeyed."""
    text = lock.encode(make_lock()).decode()
    (tmp_path / "run.lock").write_text(text + f"x: !!python/object/apply:os.mkdir ['{tmp_path}/made']\n")
    with pytest.raises(LockError):
        index.load(tmp_path)
    assert not (tmp_path / "made").exists()


def test_signals_are_never_sent(tmp_path):
    """Looking for a process does not touch it: this very process takes no notice."""
    received = []
    before = signal.signal(signal.SIGTERM, lambda *_: received.append(1))
    try:
        assert liveness.is_alive(None, HERE, os.getpid())
    finally:
        signal.signal(signal.SIGTERM, before)
    assert received == []
