"""The run as its user meets it: one context manager, one folder, one lock."""

from __future__ import annotations

import argparse
import asyncio
import copy
import gc
import io
import logging
import os
import pickle
import random
import re
import subprocess
import sys
import textwrap
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf
from omegaconf.errors import ReadonlyConfigError

from runctx import Run, derived
from runctx import lock as lockfile
from runctx.config import watch
from runctx.config.assemble import assemble
from runctx.config.layers import Layer, tree
from runctx.errors import ConfigError, InputError, NoRunError, RunStateError, SaveDirError

GIT = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main"]


@dataclass
class Opt:
    lr: float = 0.1


@dataclass
class Config:
    data: str = "data.csv"
    opt: Opt = field(default_factory=Opt)
    api_key: str = "s3cr3t-value"


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A repository with a clean work tree, which is the current folder."""
    monkeypatch.setenv("RUNCTX_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "project"
    root.mkdir()
    (root / "data.csv").write_text("1,2\n")
    (root / ".gitignore").write_text("results/\n")
    git(root, "init", "-q")
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", "first")
    monkeypatch.chdir(root)
    return root


def git(root: Path, *arguments: str) -> str:
    return subprocess.run(
        [*GIT, *arguments], cwd=root, check=True, capture_output=True, text=True
    ).stdout.strip()


def python(
    root: Path, code: str, *arguments: str, name: str = "train.py"
) -> subprocess.CompletedProcess[str]:
    """Run `code` as a script of the project in a process of its own."""
    (root / name).write_text(textwrap.dedent(code))
    return subprocess.run(
        [sys.executable, name, *arguments], cwd=root, capture_output=True, text=True, timeout=120
    )


def only_run(root: Path) -> Path:
    (found,) = root.glob("results/**/run.lock")
    return found.parent


def quiet(*args, **options) -> Run:
    return Run(*args, console=False, **options)


class TestFolder:
    def test_default_place(self, project):
        """Without a wish of the user's, the folder is results/<stage>/<yymmdd-HHMMSS>."""
        with quiet(stage="train") as run:
            pass
        assert run.save_dir.parent == project / "results/train"
        assert run.id.startswith(f"train-{run.save_dir.name}-")

    def test_from_config(self, project):
        """`cfg.save_dir` decides, its interpolations are resolved once, and it names the folder really made."""
        cfg = {
            "save_dir": "out/${now:%y%m%d}",
            "ckpt": "${save_dir}/ckpt",
            "t1": "${now:%S%f}",
            "t2": "${now:%S%f}",
        }
        with quiet(cfg) as first, quiet(cfg) as second:
            pass
        assert second.save_dir == first.save_dir.with_name(first.save_dir.name + "-2")
        assert Path(second.cfg.save_dir).absolute() == second.save_dir
        assert second.cfg.ckpt == second.cfg.save_dir + "/ckpt"
        assert second.cfg.t1 == second.cfg.t2

    def test_argument_beats_config(self, project):
        """`save_dir=` wins over `cfg.save_dir`, and the configuration says so."""
        with quiet({"save_dir": "a"}, save_dir="b") as run:
            pass
        assert run.save_dir == project / "b"
        assert run.cfg.save_dir == str(project / "b") or run.cfg.save_dir == "b"

    def test_ignored_or_advised(self, project):
        """A folder git does not ignore is a warning with the line to add; an ignored one is not."""
        with quiet(stage="a") as ignored:
            pass
        with quiet(save_dir="elsewhere/x") as seen:
            pass
        assert "ignore" not in (ignored.save_dir / "run.log").read_text()
        assert "add the line /elsewhere/x/" in (seen.save_dir / "run.log").read_text()

    def test_settings(self, project):
        """`[tool.runctx] results` and RUNCTX_RESULTS move the results, the variable winning."""
        (project / "pyproject.toml").write_text('[tool.runctx]\nresults = "runs"\n')
        with quiet(stage="a") as run:
            pass
        assert run.save_dir.is_relative_to(project / "runs")

    def test_current_folder_deleted(self, project):
        """A run goes on in a folder that was deleted, which is no place to make its own."""
        gone = project / "gone"
        gone.mkdir()
        os.chdir(gone)
        gone.rmdir()
        with quiet(save_dir=project / "results" / "here") as run:
            (run.save_dir / "a").write_text("1")
        assert run.status == "done" and [output.path for output in run.outputs] == ["a"]
        assert "here" in repr(run)
        with pytest.raises(SaveDirError), quiet(save_dir="there"):
            pass

    def test_kept_names(self, project):
        """Files under a name that is kept for the run's own are not outputs, and that is told."""
        with quiet() as run:
            for name in ("metrics", "inputs", "source", "tasks"):
                (run.save_dir / name).mkdir()
                (run.save_dir / name / "mine.txt").write_text("1")
        assert not run.outputs
        assert {omission.what for omission in run.omissions} == {"metrics", "inputs", "source", "tasks"}


class TestConfig:
    @pytest.mark.parametrize(
        "given",
        [
            Config,
            Config(),
            {"data": "data.csv", "opt": {"lr": 0.1}, "api_key": "s3cr3t-value"},
            OmegaConf.structured(Config),
            argparse.Namespace(data="data.csv", opt={"lr": np.float64(0.1)}, api_key="s3cr3t-value"),
            "config.yml",
        ],
        ids=["class", "instance", "dict", "DictConfig", "Namespace", "file"],
    )
    def test_kinds(self, project, given):
        """A configuration may be a dataclass, an instance, a dict, a DictConfig, a Namespace or a YAML file."""
        (project / "config.yml").write_text("data: data.csv\nopt:\n  lr: 0.1\napi_key: s3cr3t-value\n")
        with quiet(given) as run:
            assert run.cfg.opt.lr == 0.1
        assert run.lock.config == {"data": "data.csv", "opt": {"lr": 0.1}, "api_key": "<redacted>"}

    def test_read_only(self, project):
        """Writing to run.cfg raises an error that names the key."""
        with quiet(Config) as run, pytest.raises(ReadonlyConfigError, match=r"opt\.lr"):
            run.cfg.opt.lr = 0.2

    def test_completion(self, project):
        """IPython completes the keys of run.cfg and of its nodes."""
        with quiet(Config) as run:
            assert {"data", "opt"} <= set(dir(run.cfg))
            assert "lr" in dir(run.cfg.opt)

    def test_file_is_loadable_and_has_no_secret(self, project):
        """config.yaml loads with OmegaConf, and no file of the run holds the secret."""
        with quiet(Config) as run:
            run.logger.info("my key is {}", run.cfg.api_key)
        loaded = OmegaConf.load(run.save_dir / "config.yaml")
        assert loaded.opt.lr == 0.1
        for name in ("config.yaml", "run.lock", "run.log"):
            assert "s3cr3t-value" not in (run.save_dir / name).read_text()

    def test_refusal_leaves_nothing(self, project):
        """What cannot be held is refused by key, before anything is on disk."""
        with pytest.raises(ConfigError, match=r"model\.sizes"), quiet({"model": {"sizes": {1, 2}}}):
            pass
        with pytest.raises(ConfigError, match="lr"), quiet({"lr": "${nowhere}"}):
            pass
        assert not list(project.glob("results/**/run.lock"))
        assert not list(project.glob("results/*/*"))


class TestLayers:
    def test_origins(self, project):
        """The lock says of each key who set it, and the place in the code that entered the run, without secrets."""
        code = """
        from dataclasses import dataclass
        from runctx import Run
        @dataclass
        class Config:
            lr: float = 0.1
            epochs: int = 5
            api_key: str = "s3cr3t-default"
        with Run(Config(lr=0.3, api_key="s3cr3t-given"), console=False) as run:
            pass
        """
        python(project, code)
        folder = only_run(project)
        told = {
            key: [(origin.layer, origin.where, origin.value) for origin in origins]
            for key, origins in Run.load(folder).lock.origins.items()
        }
        assert told == {
            "lr": [("program", "train.py:9", 0.3), ("default", "train.py:6", 0.1)],
            "epochs": [("default", "train.py:7", 5)],
            "api_key": [("program", "train.py:9", "<redacted>"), ("default", "train.py:8", "<redacted>")],
        }
        for name in ("config.yaml", "run.lock", "run.log"):
            assert "s3cr3t" not in (folder / name).read_text()

    def test_a_dict_has_no_origins(self, project):
        """Of a dict that the code wrote there is nothing more to say."""
        with quiet({"lr": 0.1}) as run:
            pass
        assert run.lock.origins == {}

    def test_digests(self, project):
        """Runs of the same values, and of other values of the same keys and types, are told from others."""
        locks = []
        for cfg in ({"lr": 0.1, "save_dir": "a"}, {"save_dir": "b", "lr": 0.1}, {"lr": 0.2}, {"lr": "fast"}):
            with quiet(cfg) as run:
                pass
            locks.append(Run.load(run.save_dir).lock)
        first, same, other_number, other_type = locks
        assert first.config_digest == same.config_digest != other_number.config_digest
        assert first.config_structure == other_number.config_structure != other_type.config_structure

    def test_keys_read(self, project):
        """The lock names the keys that were read, of the run's configuration or of the one it was given."""
        given = layered(lr=0.2, epochs=9, name="x")
        with quiet(given) as run:
            assert (run.cfg.lr, given.epochs) == (0.2, 9)
            print(run.cfg)
        assert run.keys_read == Run.load(run.save_dir).keys_read == ("epochs", "lr")

    def test_keys_read_of_a_part(self, project):
        """A run may be given a part of a configuration: what is read of either is read."""
        given = layered(train={"lr": 0.2, "epochs": 9, "name": "x"}, lr=0.3)
        assert given.lr == 0.3
        with quiet(given.train) as run:
            assert (run.cfg.lr, given.train.epochs) == (0.2, 9)
        assert run.keys_read == ("epochs", "lr")
        warnings = [
            line for line in (run.save_dir / "run.log").read_text().splitlines() if "never read" in line
        ]
        assert [line.partition("never read: ")[2] for line in warnings] == ["name, set by argument 2"]

    def test_never_read(self, project):
        """What the command line set and nobody read is one warning in the log that names keys and arguments."""
        with quiet(layered(lr=0.2, **{f"key{n}": n for n in range(7)})) as run:
            assert run.cfg.lr == 0.2
        warnings = [
            line for line in (run.save_dir / "run.log").read_text().splitlines() if "never read" in line
        ]
        assert len(warnings) == 1
        assert "key0, set by argument 2; key1, set by argument 2; " in warnings[0]
        assert warnings[0].endswith("key4, set by argument 2; and 2 more")

    def test_never_read_is_silent(self, project):
        """A run that failed did not come to where they are read; one that read all has nothing to say."""
        with quiet(layered(lr=0.2, save_dir="results/here")) as run:
            assert run.cfg.lr == 0.2
        with pytest.raises(ZeroDivisionError), quiet(layered(lr=0.2)) as failed:
            1 / 0
        for ended in (run, failed):
            assert "never read" not in (ended.save_dir / "run.log").read_text()

    def test_a_derived_save_dir(self, project):
        """`cfg.save_dir` may be derived; what it was computed from has been read."""
        folder = derived(lambda c: f"results/{c.name}")
        for _ in range(2):
            with quiet(layered(name="x", save_dir=folder)) as run:
                pass
            assert run.keys_read == ("name", "save_dir")
            assert run.cfg.save_dir == run.lock.config["save_dir"] != str(folder)
        assert run.save_dir == project / "results/x-2"
        assert "never read" not in (run.save_dir / "run.log").read_text()

    def test_a_failure_of_ours(self, project, monkeypatch):
        """What cannot be told of a configuration is an omission; the run goes on."""

        def fail(*_):
            raise OSError("no")

        for name in ("value_digest", "origins_of", "watch", "keys_read"):
            monkeypatch.setattr(f"runctx.config.{name}", fail)
        with quiet(Config) as run:
            assert run.cfg.opt.lr == 0.1
        assert run.status == "done"
        assert {o.what for o in run.omissions} == {
            "digests of the configuration",
            "origins of the configuration",
            "keys that are read",
            "keys that were read",
        }


def layered(**values):
    """A configuration as a command line gives it."""
    argument = Layer(kind="override", name="argument 2")
    config = assemble(OmegaConf.create({"lr": 0.1}), tree(values, argument))
    watch(config)
    return config


class TestSource:
    def test_clean(self, project):
        """A clean work tree makes no commit: the commit is HEAD."""
        with quiet() as run:
            pass
        assert run.commit == git(project, "rev-parse", "HEAD")
        assert "run_logs" not in git(project, "branch", "--list", "run_logs")

    def test_dirty(self, project):
        """Modified and untracked files are in the commit on the log branch; nothing of the user's changes."""
        (project / "data.csv").write_text("changed\n")
        (project / "new.py").write_text("x = 1\n")
        before = git(project, "status", "--porcelain"), git(project, "rev-parse", "HEAD")
        index = (project / ".git/index").read_bytes()
        with quiet() as first:
            pass
        with quiet() as second:
            pass
        assert git(project, "show", f"{first.commit}:new.py") == "x = 1"
        assert git(project, "show", f"{first.commit}:data.csv") == "changed"
        assert first.commit == second.commit == git(project, "rev-parse", "run_logs")
        assert (git(project, "status", "--porcelain"), git(project, "rev-parse", "HEAD")) == before
        assert (project / ".git/index").read_bytes() == index

    def test_imported_files(self, project):
        """The lock names the blob of every imported module of the project, and of the script."""
        (project / "helper.py").write_text("y = 2\n")
        code = "import helper\nfrom runctx import Run\nwith Run(): pass\n"
        assert python(project, code).returncode == 0
        files = lockfile.read(only_run(project)).source.files
        assert set(files) == {"helper.py", "train.py"}
        for path, blob in files.items():
            assert blob == "git:" + git(project, "hash-object", path)

    def test_outside_a_repository(self, tmp_path):
        """Outside a repository the imported project files are copied to the run, and the lock says so."""
        (tmp_path / "helper.py").write_text("y = 2\n")
        done = python(tmp_path, "import helper\nfrom runctx import Run\nwith Run(): pass\n")
        assert done.returncode == 0, done.stderr
        folder = only_run(tmp_path)
        lock = lockfile.read(folder)
        assert lock.source.commit is None and lock.source.copies == "source"
        assert (folder / "source/helper.py").read_text() == "y = 2\n"
        assert (folder / "source/train.py").exists()
        assert any("not in a git work tree" in omission.why for omission in lock.omissions)

    def test_edited_after_import(self, project):
        """A function that was edited after its import, and not imported anew, is named; the script's own too."""
        code = """
        import importlib, os, helper
        from runctx import Run
        def own(): return 1
        with Run(console=False): pass
        for name, old in (("helper.py", "return 2"), ("train.py", "return " + "1")):
            text = open(name).read()
            with open(name, "w") as file: file.write(text.replace(old, old + "0"))
        with Run(console=False) as stale: pass
        importlib.reload(helper)
        with Run(console=False) as fresh: pass
        print(*(f"{o.what}: {o.why}" for o in (*stale.omissions, *fresh.omissions)), sep="\\n")
        """
        (project / "helper.py").write_text("def y():\n    return 2\n")
        done = python(project, code)
        why = "was edited after it was loaded; in memory is older code of"
        anew = "`importlib.reload` and importing again load the new code, or start Python (the kernel) anew"
        assert done.stdout.splitlines() == [
            f"helper.py: {why} y; {anew}",
            f"train.py: {why} own; {anew}",
            f"train.py: {why} own; {anew}",
        ], done.stdout + done.stderr

    def test_secret_files_stay_out(self, project):
        """A new .env file is not taken up by the snapshot."""
        (project / ".env").write_text("TOKEN=abc\n")
        (project / "code.py").write_text("\n")
        with quiet() as run:
            pass
        assert git(project, "ls-tree", "--name-only", run.commit or "").split() == [
            ".gitignore",
            "code.py",
            "data.csv",
        ]


class TestInputs:
    def test_file_folder_glob(self, project):
        """Files, folders and globs get digests and manifests, and relative paths stay as given."""
        (project / "many").mkdir()
        for name in "ab":
            (project / "many" / name).write_text(name)
        with quiet(inputs=["data.csv", "many", "many/*"]) as run:
            pass
        assert [data.kind for data in run.inputs] == ["file", "folder", "glob"]
        assert run.inputs[1].digest == run.inputs[2].digest
        assert (run.save_dir / (run.inputs[1].manifest or "")).read_bytes().count(b"\n") == 2

    def test_an_error_does_not_wait_for_ever(self, project, monkeypatch):
        """A run that ends by an error gives up hashing its inputs after a while, and says so."""
        monkeypatch.setattr("runctx.run_inputs.PATIENCE_AFTER_ERROR", 0.0)
        with open(project / "large.bin", "wb") as file:
            file.truncate(40_000_000_000)
        with pytest.raises(ValueError), quiet(inputs=["large.bin"]) as run:
            raise ValueError
        assert run.status == "failed" and run.inputs[0].strength == "skipped"
        assert any("large.bin" in omission.what for omission in run.omissions)

    def test_missing(self, project):
        """A missing input is a clear error at entry, and nothing is left behind."""
        with pytest.raises(InputError, match=r"dta\.csv") as caught, quiet(inputs="dta.csv"):
            pass
        assert "data.csv" in str(caught.value)
        assert not (project / "results").exists()

    def test_changed_during_run(self, project):
        """An input that is modified while the run goes on is marked."""
        with quiet(inputs=["data.csv"]) as run:
            while run.inputs[0].digest is None:
                threading.Event().wait(0.01)
            (project / "data.csv").write_text("other\n")
        assert run.inputs[0].changed_during_run

    def test_digests_are_written_while_it_runs(self, project):
        """The lock on disk holds the inputs' digests before the run ends."""
        with quiet(inputs=["data.csv"]) as run:
            while run.inputs[0].digest is None:
                threading.Event().wait(0.01)
            for _ in range(200):
                if lockfile.read(run.save_dir).inputs[0].digest:
                    break
                threading.Event().wait(0.01)
            assert lockfile.read(run.save_dir).status == "running"
            assert lockfile.read(run.save_dir).inputs[0].digest == run.inputs[0].digest

    def test_long_name(self, project):
        """A folder may have the longest name there is: its manifest has a shorter one."""
        folder = project / ("x" * 255)
        folder.mkdir()
        (folder / "a.txt").write_text("1")
        with quiet(inputs=[folder]) as run:
            pass
        assert run.inputs[0].digest and not run.omissions


class TestLineage:
    def test_upstream_is_recursive_and_stored_once(self, project):
        """An input inside a run's folder makes that run upstream, with all before it, each once."""
        with quiet(stage="a") as a:
            (a.save_dir / "x.csv").write_text("x")
        with quiet(stage="b", inputs=[a]) as b:
            (b.save_dir / "y.csv").write_text("y")
        with quiet(stage="c", inputs=[a.save_dir / "x.csv", b.save_dir / "y.csv"]) as c:
            pass
        assert set(c.lock.parents) == {a.id, b.id}
        assert [lock.id for lock in c.lock.upstream] == [a.id, b.id]
        assert all(lock.upstream == () for lock in c.lock.upstream)
        assert [data.run for data in c.inputs] == [a.id, b.id]
        assert {run.id for run in c.upstream} == {a.id, b.id}
        assert a.id in repr(c.lineage()) and c.lineage().to_dict() == Run.load(c).lineage().to_dict()

    def test_nested_upstream(self, project):
        """A lock that is not ours, with runs in the runs of its upstream, is stored flat."""
        with quiet(stage="a") as a:
            (a.save_dir / "x.csv").write_text("x")
        deep = a.lock
        for n in range(40):
            deep = replace(a.lock, id=f"deep-{n}", upstream=(deep,))
        lockfile.write(a.save_dir / "run.lock", replace(a.lock, upstream=(deep,)))
        with quiet(stage="b", inputs=[a]) as b:
            pass
        assert [lock.id for lock in Run.load(b).lock.upstream] == [a.id, "deep-39"]

    def test_digest_of_a_run_is_what_it_saved(self, project):
        """Two runs that saved the same have the same digest as inputs, though their logs differ."""
        runs = []
        for stage in "ab":
            with quiet(stage=stage) as run:
                (run.save_dir / "x.csv").write_text("same")
            runs.append(run)
        with quiet(inputs=runs) as later:
            pass
        assert later.inputs[0].digest == later.inputs[1].digest
        assert later.inputs[0].path == f"results/a/{runs[0].save_dir.name}"
        assert later.inputs[0].files == 1

    def test_globs_and_folders_of_runs(self, project):
        """A glob, or a folder, that holds files of several runs makes all of them upstream."""
        for _ in range(2):
            with quiet(stage="a") as a:
                (a.save_dir / "x.csv").write_text("x")
        for given in ("results/a/*/x.csv", "results/a"):
            with quiet(stage="b", inputs=[given]) as b:
                (b.save_dir / "y.csv").write_text("y")
            assert len(b.lock.parents) == len(b.lock.upstream) == 2
            assert b.inputs[0].run is None
        with quiet(stage="c", inputs=["results"]) as c:
            pass
        assert c.id not in c.lock.parents and len(c.lock.parents) == 4

    def test_not_done(self, project):
        """Reading from a run that is not done is a warning in the log and in the lock."""

        def read() -> Run:  # in a thread: it is not inside the other one
            with quiet(stage="b", inputs=[a.save_dir]) as b:
                return b

        with quiet(stage="a") as a, ThreadPoolExecutor(1) as pool:
            b = pool.submit(read).result()
        assert any(a.id in omission.what and "running" in omission.why for omission in b.omissions)
        assert a.id in (b.save_dir / "run.log").read_text()

    def test_rewritten_after_its_run(self, project):
        """An input that is no longer what its run wrote is told."""
        with quiet(stage="a") as a:
            (a.save_dir / "x.csv").write_text("x")
        (a.save_dir / "x.csv").write_text("tampered")
        with quiet(stage="b", inputs=[a.save_dir / "x.csv"]) as b:
            pass
        assert any("changed since run" in omission.why for omission in b.omissions)


class TestLog:
    def test_lines(self, project):
        """Lines of run.logger, of the standard logging and of new threads are in run.log."""
        with quiet() as run:
            run.logger.info("own {}", 1)
            logging.getLogger("lib").warning("standard")
            thread = threading.Thread(target=lambda: run.logger.info("from a thread"))
            thread.start()
            thread.join()
        text = (run.save_dir / "run.log").read_text()
        assert all(said in text for said in ("own 1", "standard", "from a thread"))

    def test_two_runs_never_mix(self, project):
        """Two runs in asyncio tasks keep their lines apart, those of the standard logging too."""

        async def work(name: str, other: asyncio.Event, mine: asyncio.Event) -> Run:
            with quiet(stage=name) as run:
                mine.set()
                await other.wait()
                run.logger.info("own-{}", name)
                logging.getLogger("lib").warning("standard-%s", name)
                await asyncio.sleep(0)
            return run

        async def both() -> list[Run]:
            one, two = asyncio.Event(), asyncio.Event()
            return await asyncio.gather(work("a", one, two), work("b", two, one))

        for run in asyncio.run(both()):
            text = (run.save_dir / "run.log").read_text()
            other = "b" if run.stage == "a" else "a"
            assert f"own-{run.stage}" in text and f"standard-{run.stage}" in text
            assert f"own-{other}" not in text and f"standard-{other}" not in text

    def test_capture(self, project):
        """With capture, what is printed by Python, C and children is in run.log and still on stdout."""
        code = """
        import ctypes, subprocess, sys
        from runctx import Run
        with Run(capture=True):
            print("python says")
            ctypes.CDLL(None).puts(b"c says"); ctypes.CDLL(None).fflush(None)
            subprocess.run([sys.executable, "-c", "print('child says')"])
        print("later on")
        """
        done = python(project, code)
        text = (only_run(project) / "run.log").read_text()
        for said in ("python says", "c says", "child says"):
            assert said in text and said in done.stdout
        assert "later on" in done.stdout and "later on" not in text


class TestEnding:
    def test_failure(self, project):
        """An exception leaves the block unchanged; the lock has type, message and traceback, without values."""
        secret = "a value nobody should read"
        with pytest.raises(ZeroDivisionError) as caught, quiet() as run:
            hidden = secret  # noqa: F841
            1 / 0
        assert caught.value.__context__ is None and caught.value.__cause__ is None
        assert run.status == "failed" and run.error is not None
        assert run.error.type == "builtins.ZeroDivisionError"
        assert "1 / 0" in run.error.traceback and secret not in run.error.traceback
        assert run.locals["hidden"] == secret
        assert lockfile.read(run.save_dir) == run.lock

    @pytest.mark.parametrize(
        ("error", "status"),
        [
            (KeyboardInterrupt(), "interrupted"),
            (asyncio.CancelledError(), "interrupted"),
            (type("TrialPruned", (Exception,), {})(), "interrupted"),
            (SystemExit(0), "done"),
            (SystemExit(None), "done"),
            (SystemExit(3), "failed"),
            (SystemExit("wrong"), "failed"),
        ],
        ids=repr,
    )
    def test_status(self, project, error, status):
        """Interrupts are interrupted, an exit counts by its code."""
        with pytest.raises(type(error)), quiet() as run:
            raise error
        assert run.status == status

    def test_exit_code_and_traceback_are_the_users(self, project):
        """A failing script fails as it would without a run, with the same traceback."""
        body = "def work():\n    raise ValueError('mine')\n"
        bare = python(project, body + "work()\n", name="bare.py")
        code = body + "from runctx import Run\nwith Run(console=False):\n    work()\n"
        with_run = python(project, code)
        assert with_run.returncode == bare.returncode == 1
        assert with_run.stderr.splitlines()[-1] == bare.stderr.splitlines()[-1] == "ValueError: mine"
        assert "During handling" not in with_run.stderr and "runctx" not in with_run.stderr.replace(
            "from runctx", ""
        )

    def test_locals_after_success(self, project):
        """run.locals holds the enclosing function's variables after success."""

        def main() -> Run:
            with quiet() as run:
                answer = 42  # noqa: F841
            return run

        assert main().locals["answer"] == 42

    def test_last(self, project):
        """Run.last is the run that ended last, and it alone keeps its variables."""

        def fail() -> None:
            big = [1, 2, 3]  # noqa: F841
            with quiet():
                raise ValueError

        with quiet() as first:
            pass
        with pytest.raises(ValueError):
            fail()
        assert Run.last is not None and Run.last.locals == {"big": [1, 2, 3]}
        assert first.locals == {}

    def test_outputs(self, project):
        """What the user saved is listed with digests, and the manifest names every file."""
        with quiet() as run:
            (run.save_dir / "model.bin").write_bytes(b"weights")
            (run.save_dir / "plots").mkdir()
            (run.save_dir / "plots/loss.svg").write_text("<svg/>")
        assert {(o.path, o.kind, o.files) for o in run.outputs} == {
            ("model.bin", "file", 1),
            ("plots", "folder", 1),
        }
        named = [line.split("  ")[1] for line in (run.save_dir / "outputs.b3").read_text().splitlines()]
        assert named == ["model.bin", "plots/loss.svg"]

    def test_outputs_are_bounded(self, project, monkeypatch):
        """Beyond max_output_size outputs are recorded by size, and an omission says so."""
        monkeypatch.setenv("RUNCTX_MAX_OUTPUT_SIZE", "10")
        with quiet() as run:
            (run.save_dir / "big").write_bytes(bytes(100))
            (run.save_dir / "small").write_bytes(bytes(5))
        big, small = run.outputs
        assert (big.strength, big.digest, big.bytes) == ("stat", None, 100)
        assert small.strength == "content"
        assert any("big" in omission.what for omission in run.omissions)

    def test_once(self, project):
        """A run cannot be entered twice, and knows nothing before it was entered."""
        run = quiet()
        with pytest.raises(RunStateError, match="cfg"):
            run.cfg
        with run:
            pass
        with pytest.raises(RunStateError, match="once"), run:
            pass


class TestCells:
    def test_start_and_finish(self, project):
        """start() and finish() are the two halves of the with-block."""
        run = quiet({"lr": 0.1}).start()
        assert run.status == "running" and run.locals["project"] == project
        run.finish()
        run.finish()
        assert run.status == "done"

    def test_rerunning_the_first_cell(self, project):
        """Starting again at top level finishes the forgotten run as interrupted, with a warning."""
        code = """
        from runctx import Run
        first = Run(stage="a").start()
        other = Run(stage="b").start()
        second = Run(stage="a").start()
        assert first.status == "interrupted", first.status
        assert other.status == "running"
        second.finish(); other.finish()
        """
        done = python(project, code)
        assert done.returncode == 0, done.stderr
        assert "was not finished before the next start()" in done.stderr

    @pytest.mark.parametrize(
        ("code", "status"),
        [
            ("run = Run().start()", "done"),
            ("run = Run().start()\n1 / 0", "failed"),
            ("run = Run().start()\nimport sys; sys.exit(3)", "interrupted"),
            ("def main():\n    return Run().start()\nmain()", "done"),
            ("def main():\n    return Run().start()\nmain()\nraise SystemExit(3)", "interrupted"),
            (
                "def main():\n    run = Run().start()\n    1 / 0\ntry: main()\nexcept Exception: pass",
                "interrupted",
            ),
            ("def main():\n    run = Run().start()\n    raise KeyboardInterrupt\nmain()", "interrupted"),
        ],
    )
    def test_never_finished(self, project, code, status):
        """A script that comes to its end has done its run, finished or not; one that an exception ends has not."""
        python(project, f"from runctx import Run\n{code}\n")
        assert lockfile.read(only_run(project)).status == status

    def test_start_again(self, project):
        """A run that has ended is started again as one more session, in its folder and under its id."""
        with pytest.raises(ZeroDivisionError), quiet({"lr": 0.1}, save_dir="out", inputs=["data.csv"]) as run:
            run.log_async(loss=1, step=0)
            1 / 0
        before = run.id, run.save_dir, run.lock.started
        run.start()
        assert (run.id, run.save_dir, run.lock.started) == before
        assert (run.status, run.error, run.cfg.lr) == ("running", None, 0.1)
        run.log_async(loss=2, step=1)
        run.finish()
        past = Run.load(run)
        assert (past.status, past.error) == ("done", None)
        assert [session.status for session in past.lock.sessions] == ["failed"]
        assert past.metrics()["loss"].values == (1, 2)
        assert [data.path for data in past.inputs] == ["data.csv"]
        assert Run.last is run

    def test_not_started_again(self, project):
        """What cannot be started again says so, and the run is as it was."""
        cfg = {"lr": 0.1}
        with quiet(cfg) as run, pytest.raises(RunStateError, match="is open already"):
            run.start()
        with pytest.raises(RunStateError, match="has ended") as caught, run:
            pass
        assert caught.value.hint == "run.start() goes on with it; Run(...) makes another"
        cfg["lr"] = 0.2
        with pytest.raises(ConfigError, match=r"lr is 0\.2 \(was 0\.1\)"):
            run.start()
        assert run.status == Run.load(run).status == "done"
        assert run.cfg.lr == 0.1 and not run.lock.sessions

    def test_entered_after_a_refusal(self, project):
        """A run that could not be entered can be, once the reason is gone."""
        run = quiet(inputs=["late.csv"])
        with pytest.raises(InputError):
            run.start()
        (project / "late.csv").write_text("1\n")
        with run:
            pass
        assert run.status == "done"


class TestArguments:
    @pytest.mark.parametrize("stage", ["../train", "/train", "a/../../b"])
    def test_stage_outside(self, project, stage):
        """A stage names folders in the results folder, never outside."""
        with pytest.raises(SaveDirError, match="results folder"):
            quiet(stage=stage).start()
        with quiet(stage="night/train") as run:
            pass
        assert run.save_dir.parent == project / "results/night/train"

    def test_stage_of_another_type(self, project):
        """A stage that is no text is named, not met later as an attribute that is missing."""
        with pytest.raises(TypeError, match="stage must be a name, not int 3"):
            quiet(stage=3).start()

    @pytest.mark.parametrize("copied", [pickle.dumps, copy.copy, copy.deepcopy])
    def test_a_run_as_an_argument_of_another_process(self, project, copied):
        """A run cannot be copied, nor sent to a worker; its folder and what it was told can."""
        with quiet({"lr": 0.1}) as run:
            with pytest.raises(TypeError, match=r"one process: give others run\.save_dir"):
                copied(run)
            copied((run.save_dir, run.cfg, run.lock))
        assert run.status == "done"

    def test_input_that_is_not_set(self, project):
        """An empty path is a mistake, and not the whole current folder."""
        with pytest.raises(InputError, match="input"):
            quiet(inputs=["data.csv", ""]).start()
        assert not (project / "results").exists()


class TestSeed:
    def test_same_numbers(self, project):
        """The same seed gives the same numbers in random and numpy, and is recorded."""
        drawn = []
        for _ in range(2):
            with quiet(seed=7) as run:
                drawn.append((random.random(), float(np.random.rand())))
        assert drawn[0] == drawn[1] and run.lock.seed == 7

    def test_numpy_integer(self, project):
        """An integer of numpy is a seed like any other, and the lock is read again."""
        with quiet(seed=np.int64(7)) as run:
            pass
        assert run.status == "done" and Run.load(run).lock.seed == 7

    @pytest.mark.parametrize("seed", ["7", 1.5, [1]])
    def test_no_number(self, project, seed):
        """What is no whole number is refused before anything is on disk."""
        with pytest.raises(TypeError, match="seed must be an int"):
            Run(seed=seed)
        assert not (project / "results").exists()

    @pytest.mark.parametrize(
        ("code", "told"),
        [
            ("import numpy; numpy.random.rand()", True),
            ("import numpy; numpy.random.rand(312)", True),
            ("import numpy; numpy.random.seed(3)", True),
            ("import numpy; numpy.random.default_rng(3).normal()", False),
            ("import joblib", False),
            ("list(run.map(abs, [1], launcher='threading'))", False),
        ],
    )
    def test_late_import(self, project, code, told):
        """Numpy imported after seeding is told if something was drawn from its global generator, by whomever."""
        python(project, f"from runctx import Run\nwith Run(seed=1) as run:\n    {code}\n")
        assert any("numpy" in o.what for o in lockfile.read(only_run(project)).omissions) is told

    @pytest.mark.parametrize("stream", ["2>log", "2>&-", "2>/dev/full"])
    def test_hashing_is_told_once(self, project, stream):
        """Where stderr is no terminal, one line says that inputs are being hashed, and one that they are."""
        with open(project / "large.bin", "wb") as file:
            file.truncate(1_000_000_000)
        (project / "waits.py").write_text(
            "import runctx.waiting\nfrom runctx import Run\nrunctx.waiting.PATIENCE = 0\n"
            "with Run(inputs=['large.bin']): pass\n"
        )
        subprocess.run(
            ["sh", "-c", f'"$0" waits.py {stream}', sys.executable], cwd=project, check=True, timeout=120
        )
        (data,) = lockfile.read(only_run(project)).inputs
        assert data.strength == "content"
        if stream == "2>log":
            lines = [line for line in (project / "log").read_text().splitlines() if "hashing" in line]
            assert lines[0] == "hashing inputs ..." and re.fullmatch(
                r"hashing inputs: 1\.0 GB in .+", lines[1]
            )
            assert len(lines) == 2


class TestLoad:
    def test_same_attributes(self, project):
        """A past run has the attributes of the live one."""
        with quiet(Config, inputs=["data.csv"], stage="train", seed=3) as run:
            (run.save_dir / "x").write_text("x")
        past = Run.load(run.save_dir, Config)
        assert past.lock == run.lock
        for name in (
            "id",
            "stage",
            "status",
            "commit",
            "inputs",
            "outputs",
            "save_dir",
            "error",
            "omissions",
        ):
            assert getattr(past, name) == getattr(run, name), name
        assert isinstance(past.cfg, Config) and past.cfg.opt == Opt(lr=0.1)
        assert Run.load(run.save_dir / "x").id == run.id

    def test_nothing_there(self, project):
        """Loading what is no run says so."""
        with pytest.raises(NoRunError, match=r"data\.csv"):
            Run.load("data.csv")

    def test_crashed(self, project):
        """A run whose process was killed reads as crashed; while it lives, as running."""
        code = """
        import os, time
        from runctx import Run
        with Run(console=False) as run:
            print(run.save_dir, flush=True)
            time.sleep(60)
        """
        (project / "train.py").write_text(textwrap.dedent(code))
        child = subprocess.Popen([sys.executable, "train.py"], cwd=project, stdout=subprocess.PIPE, text=True)
        with child:
            assert child.stdout is not None
            folder = child.stdout.readline().strip()
            assert Run.load(folder).status == "running"
            child.kill()
            child.wait()
        assert Run.load(folder).status == "crashed"


class TestThreads:
    def test_start_while_another_leaves(self, project):
        """A run can be started while another thread is leaving its own."""
        asked, answer = threading.Event(), threading.Event()

        class Slow(Exception):
            def __str__(self):
                asked.set()
                answer.wait(30)
                return "slow"

        first = quiet(stage="a").start()
        leaving = threading.Thread(target=first.finish, args=(Slow(),))
        leaving.start()
        assert asked.wait(30)
        try:
            second = quiet(stage="a").start()
        finally:
            answer.set()
            leaving.join()
        second.finish()
        assert (first.status, second.status) == ("failed", "done")

    def test_exit_while_inputs_are_noted(self, project, monkeypatch):
        """What the hashing thread writes down late never undoes what was found at the end."""
        noting = threading.Event()

        class Console(io.StringIO):
            def write(self, text):
                if threading.current_thread().name == "runctx-hashing":
                    noting.set()
                    left.wait(0.5)
                return len(text)

        left = threading.Event()
        with pytest.raises(ValueError), quiet(save_dir="many/failed") as failed:
            (failed.save_dir / "half.bin").write_bytes(b"1")
            raise ValueError
        monkeypatch.setattr(sys, "stderr", Console())
        with Run(inputs=["data.csv", "many"]) as run:
            hashing = run._session.inputs.hashing
            assert noting.wait(30)
            (project / "data.csv").write_text("changed\n")
        left.set()
        hashing._thread.join()
        csv, many = Run.load(run.save_dir).inputs
        assert csv.changed_during_run and not many.changed_during_run
        assert [path.name for path in (run.save_dir / "inputs").iterdir()] == ["many.b3"]


class TestUsersException:
    def test_cannot_be_asked(self, project):
        """An exception that fails when it is looked at leaves the block as it came, and the lock is sealed."""

        class Odd(Exception):
            __notes__ = property(lambda self: 1 / 0)

            def __str__(self):
                raise RuntimeError

        with pytest.raises(Odd), quiet() as run:
            raise Odd
        error = Run.load(run.save_dir).error
        assert error is not None and error.type.endswith("Odd") and "Odd cannot be put" in error.message


class TestSecrets:
    def test_nowhere_on_disk(self, project):
        """A secret of the configuration or of quoted code is in no file of the run, wherever else it stands."""
        code = """
        import sys, logging
        from runctx import Run
        def connect(password):
            raise ValueError("refused: {'api_token': 'Tr1cky-Value'}")
        with Run({"api_key": sys.argv[1]}, console=False) as run:
            try:
                connect(password="0pen-Sesame")
            except ValueError as error:
                run.logger.exception("no")
                logging.exception("no")
                raise RuntimeError(f"with {run.cfg.api_key}") from error
        """
        done = python(project, code, "hunter2-from-argv")
        assert "RuntimeError" in done.stderr
        folder = only_run(project)
        assert Run.load(folder).status == "failed"
        for file in filter(Path.is_file, folder.rglob("*")):
            for secret in ("hunter2-from-argv", "0pen-Sesame", "Tr1cky-Value"):
                assert secret.encode() not in file.read_bytes(), file


class TestNested:
    def test_a_run_inside_another(self, project):
        """It has its own folder and lock, and the other as its parent, in functions too; it may read from it."""

        def trial() -> Run:
            with quiet(inputs=[study, study.save_dir / "data.txt"]) as run:
                pass
            return run

        with quiet() as study:
            (study.save_dir / "data.txt").write_text("x")
            first = trial()
            with quiet() as second, quiet() as third:
                pass
        after = trial()
        assert [run.lock.parent for run in (study, first, second, third, after)] == [
            None,
            study.id,
            study.id,
            second.id,
            None,
        ]
        assert first.lock.parents == (study.id,)
        assert [one.what for one in first.omissions if "upstream" in one.what] == []
        assert lockfile.read(second.save_dir).parent == study.id

    def test_runs_side_by_side(self, project):
        """Runs of two threads, or of two coroutines of one thread, are in none."""

        async def one(name: str) -> Run:
            with quiet(stage=name) as run:
                await asyncio.sleep(0.05)
            return run

        async def both() -> list[Run]:
            return await asyncio.gather(one("a"), one("b"))

        assert [run.lock.parent for run in asyncio.run(both())] == [None, None]
        with quiet(), ThreadPoolExecutor(1) as pool:
            assert pool.submit(lambda: asyncio.run(one("c"))).result().lock.parent is None


@pytest.mark.parametrize("place", ["repository", "folder"])
def test_what_is_slow_comes_before_the_folder(make_repo, tmp_path, place):
    """In a process that has just started, nothing is imported between the making of the folder and the first lock.

    A kill in that moment leaves a folder that is no run; with imports it is a tenth of a second long.
    """
    code = """
        import sys
        from dataclasses import dataclass

        state, late = "before", []

        def hear(event, arguments):
            global state
            if event == "os.mkdir" and str(arguments[0]).endswith("/the-run"):
                state = "between"
            elif event == "os.rename" and str(arguments[1]).endswith("/run.lock"):
                state = "after"
            elif event == "import" and state == "between":
                late.append(arguments[0])

        sys.addaudithook(hear)

        @dataclass
        class Config:
            lr: float = 0.1
            name: str = "${now:%H}"

        from runctx import Run
        with Run(Config(lr=0.3), save_dir="/".join(("results", "the-run")), console=False) as run:
            assert state == "after"
        print(late)
    """
    root = make_repo({"a.py": "x = 1"}) if place == "repository" else tmp_path
    done = python(root, textwrap.dedent(code))
    assert (done.returncode, done.stdout) == (0, "[]\n"), done


def test_a_chain_of_runs_is_not_kept_alive(project):
    """A run keeps what its inputs' locks say, not the runs that were given as its inputs."""
    past: list[weakref.ref[Run]] = []
    run = None
    for _ in range(4):
        with quiet(inputs=[] if run is None else [run]) as run:
            pass
        past.append(weakref.ref(run))
    gc.collect()
    assert [known() is run for known in past] == [False, False, False, True]
    assert len(run.lock.upstream) == 3


@pytest.mark.parametrize("how", ["spawn", "forkserver"])
def test_spawned_children_log(project, how):
    """A process that is started with the run has its configuration, folder, log and numbers; the lock has them all."""
    code = f"""
        import multiprocessing
        from runctx import Run

        def work(run, number):
            run.log_async(loss=run.cfg.lr * number, step=number)
            run.logger.info("child {{}} of {{}}", number, run.id)
            (run.save_dir / f"child-{{number}}").touch()
            try:
                run.map(abs, [1])
            except RuntimeError as error:
                print(str(error).splitlines()[0])

        if __name__ == "__main__":
            context = multiprocessing.get_context({how!r})
            with Run({{"lr": 0.5}}, stage="parent", console=False) as run:
                run.log_async(loss=0.0, step=0)
                children = [context.Process(target=work, args=(run, number)) for number in (1, 2)]
                for child in children:
                    child.start()
                for child in children:
                    child.join()
                    assert child.exitcode == 0
            print(sorted(run.metrics()["loss"].values), [data.path for data in run.outputs])
    """
    done = python(project, code)
    *refused, said = done.stdout.splitlines()
    assert said == "[0.0, 0.5, 1.0] ['child-1', 'child-2']", done
    assert refused == ["run.map() was called in a process that was spawned with the run"] * 2
    past = Run.load(only_run(project))
    log = (past.save_dir / "run.log").read_text()
    assert [f"child {number} of {past.id}" in log for number in (1, 2)] == [True, True]
    assert past.lock.metrics["loss"].points == 3
