"""How is a run named? Alike everywhere, and in the project of the script; and how is an input named?"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner
from omegaconf import OmegaConf

from runctx import Run, derived, from_cli, runs
from runctx.cli import main
from runctx.config import load, merged
from runctx.errors import ConfigError, InputError, NoRunError
from runctx.past import index
from runctx.past.index import compare
from tests.pastruns import make_lock, write_run


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "pyproject.toml").write_text("[tool.runctx]\nresults = 'out'\n")
    monkeypatch.chdir(folder)
    return folder


def made(stage: str = "fit", fails: bool = False) -> Run:
    """A real run, which ends at once."""
    run = Run({"lr": 0.1}, stage=stage, console=False).start()
    run.log_async(loss=1.0)
    (run.save_dir / "model.bin").write_bytes(b"weights")
    run.finish(ValueError("no") if fails else None)
    return run


NAMES = {
    "folder": lambda run: run.save_dir,
    "path": lambda run: os.path.relpath(run.save_dir / "model.bin"),
    "id": lambda run: run.id,
    "beginning": lambda run: run.id[:-2],
    "latest": lambda run: "latest",
    "dash": lambda run: "-",
    "stage": lambda run: "fit",
    "run": lambda run: run,
    "record": lambda run: Run.load(run.save_dir),
}


class TestOneName:
    """A run is named by a path in its folder, its id or the beginning of one, `latest` or its stage."""

    @pytest.mark.parametrize("kind", NAMES)
    def test_in_python(self, project, kind):
        """Loading, resuming, comparing, choosing what is alike, and inputs take the same names."""
        other, run = made("other"), made(fails=True)
        name = NAMES[kind](run)
        assert Run.load(name).id == run.id
        assert index.find(name) == run.save_dir
        assert [side.lock.id for side in compare(other, name).sides] == [other.id, run.id]
        assert [one.id for one in runs(like=name, stage="fit")] == [run.id]
        with Run({"lr": 0.1}, resume=name, console=False) as again:
            assert again.id == run.id
        with Run(inputs=[name], stage="reader", console=False) as reader:
            assert reader.lock.parents == (run.id,)

    @pytest.mark.parametrize("kind", [name for name in NAMES if name not in ("run", "record")])
    def test_on_the_command_line(self, project, monkeypatch, kind):
        """So do all commands that take a run."""
        other = made("other")
        with Run(stage="fit", console=False) as run:
            run.log_async(loss=1.0)
            (run.save_dir / "model.bin").write_bytes(b"weights")
            run.map(str, [1], launcher="serial")
        name = os.fspath(NAMES[kind](run))

        def said(*arguments: str):
            done = CliRunner().invoke(main, [*arguments, "--json"])
            assert done.exit_code == 0, done.output
            return json.loads(done.stdout)

        assert said("show", name)["id"] == said("collect", name)["id"] == run.id
        assert said("tree", name)["run"] == said("status", name)["run"] == run.id
        assert [one["id"] for one in said("compare", other.id, name)["runs"]] == [other.id, run.id]
        assert run.id in json.dumps(said("plot", "--metric", "loss", name))
        monkeypatch.setenv("RUNCTX_TRACKING", "tensorboard")
        assert [one["path"] for one in said("publish", name)["runs"]] == [os.fspath(run.save_dir)]

    def test_a_folder_called_like_a_stage(self, project, monkeypatch):
        """A folder of code is not in the way of the stage that is called like it."""
        (project / "fit").mkdir()
        (project / "fit/__init__.py").touch()
        run = made()
        assert Run.load("fit").id == run.id
        monkeypatch.setenv("RUNCTX_TRACKING", "tensorboard")
        for command in (["plot", "--metric", "loss"], ["show"], ["publish"]):
            done = CliRunner().invoke(main, [*command, "fit"])
            assert done.exit_code == 0 and "passed over" not in done.output, done.output

    @pytest.mark.parametrize("stage", ["fit_all", "fit-all", "fit.all", "fitness", "fit/all"])
    def test_the_beginning_of_a_stage(self, project, stage):
        """A stage is named whole: no other stage that begins so is meant."""
        made(stage)
        with pytest.raises(NoRunError, match=rf"is called 'fit'\nhint: did you mean the stage '{stage}'"):
            index.find("fit")
        run = made()
        made(stage)
        assert Run.load("fit").id == run.id
        assert Run.load(stage).stage == stage

    def test_the_newest_and_the_newest_that_is_done(self, project):
        """A stage and `latest` mean its newest run, of inputs and `Run.latest` the newest that is done."""
        done, failed = made(), made(fails=True)
        assert Run.load("fit").id == Run.load("latest").id == failed.id
        assert Run.latest("fit").id == Run.latest().id == done.id
        for name in ("fit", "latest"):
            with Run(inputs=name, stage="reader", console=False) as run:
                pass
            assert run.inputs[0].run == done.id
            (run.save_dir / "run.lock").unlink()
        assert Run.load(failed.id).status == "failed"
        with Run(inputs=failed.id, console=False) as run:
            assert run.inputs[0].run == failed.id

    def test_nothing_is_done(self, project):
        """The error says what there is instead."""
        with pytest.raises(NoRunError, match=rf"no runs yet in {project}/out"):
            Run.latest("fit")
        failed = made(fails=True)
        with pytest.raises(NoRunError, match=rf"no run of stage 'fit' .* the newest, {failed.id}, is failed"):
            Run.latest("fit")
        with pytest.raises(NoRunError, match=r"no run of stage 'fitt'.*\nhint: did you mean the stage 'fit'"):
            Run.latest("fitt")
        with pytest.raises(InputError, match=rf"input 'fit' does not exist .*; .*{failed.id}, is failed"):
            Run(inputs="fit", console=False).start()

    def test_runs_of_a_stage(self, project):
        """`runs(stage=...)` are those of exactly this stage; a misspelt one is said."""
        run, _ = made(), made("fit_all")
        assert [one.id for one in runs(stage="fit")] == [run.id]
        assert runs(stage="fi").hints == (
            "no run is of stage 'fi'; did you mean the stage 'fit_all' or 'fit'?",
        )

    def test_class_of_its_configuration(self, project):
        """`Run.load` and `Run.latest` give the configuration its class back, however the run was named."""

        @dataclass
        class Config:
            lr: float = 0.0

        made()
        assert Run.latest("fit", Config).cfg == Run.load("fit", Config).cfg == Config(0.1)


@dataclass
class Config:
    input: str = "${latest:prepare}"
    table: str = "${input}/model.bin"
    size: int = 1


class TestLatestInAConfiguration:
    """`${latest:STAGE}` is the folder of the newest run of a stage that is done, resolved once."""

    def test_value_and_record(self, project):
        """It is a path from the current folder; the lock says which run it was, and who wrote it."""
        run = made("prepare")
        made("prepare", fails=True)
        folder = os.path.relpath(run.save_dir)
        given = Config()
        with Run(given, inputs=[given.table], console=False) as reader:
            assert (reader.cfg.input, reader.cfg.table) == (folder, f"{folder}/model.bin")
        assert given == Config()
        assert reader.lock.parents == (run.id,)
        assert Run.load(reader.save_dir).lock.latest == {"prepare": folder}
        assert reader.origins["input"][0].value == "${latest:prepare}"
        assert f"input: {folder}" in (reader.save_dir / "config.yaml").read_text()

    def test_once_for_each_configuration(self, project):
        """What was read of a configuration before the run is what the run has, though a newer run is there."""
        first, cfg = made("prepare"), from_cli(Config, [])
        seen = cfg.input
        second = made("prepare")
        with Run(cfg, console=False) as run:
            assert run.cfg.input == seen == os.path.relpath(first.save_dir)
        with Run(from_cli(Config, []), console=False) as run:
            assert run.cfg.input == os.path.relpath(second.save_dir)

    @pytest.mark.parametrize("launcher", ["serial", "joblib"])
    def test_once_for_a_run_and_its_tasks(self, project, launcher):
        """A run that ends while another maps is not what the tasks of that one read."""
        folder = os.path.relpath(made("prepare").save_dir)

        def task(cfg):
            seen = cfg.input
            with Run(cfg, inputs=["prepare"]) as run:
                return seen, run.cfg.input, run.inputs[-1].path

        with Run(Config(), stage="map", console=False) as run:
            newer = os.path.relpath(made("prepare").save_dir)
            assert (
                list(run.map(task, [1, 2], into="size", launcher=launcher, n_jobs=2))
                == [(folder, folder, newer)] * 2
            )

    def test_part_of_a_configuration(self, project):
        """A run of a part leaves the whole as it was: the next run looks again."""
        whole = from_cli({"train": {"input": "${latest:prepare}"}}, [])
        for _ in range(2):
            folder = os.path.relpath(made("prepare").save_dir)
            with Run(whole.train, console=False) as run:
                assert run.cfg.input == folder
            assert run.lock.latest == {"prepare": folder}

    def test_resumed(self, project):
        """A resumed run goes on with the runs that it began with."""
        folder = os.path.relpath(made("prepare").save_dir)
        with pytest.raises(ZeroDivisionError), Run(Config(), stage="fit", console=False) as run:
            1 / 0
        made("prepare")
        with Run(Config(), stage="fit", resume=True, console=False) as again:
            assert (again.id, again.cfg.input) == (run.id, folder)
        assert again.lock.latest == {"prepare": folder}

    def test_nothing_is_done(self, project):
        """The error names the key, and says what there is; no folder is made."""
        made("prepare", fails=True)
        with pytest.raises(ConfigError, match=r"config key input: no run of stage 'prepare' .* is failed"):
            Run(Config(), stage="fit", console=False).start()
        with pytest.raises(ConfigError, match=r"input '\$\{latest:fit\}': no run of stage 'fit'"):
            Run(Config("x", "y"), inputs="${latest:fit}", stage="fit", console=False).start()
        assert not [*project.glob("out/fit/*")]


class TestProjectOfTheScript:
    """Results lie, and are looked for, in the project of the script, wherever it was started."""

    SCRIPT = (
        "import sys\n"
        "from runctx import Run, runs\n"
        "def task(n):\n"
        "    return Run.latest('prepare').id\n"
        "if __name__ == '__main__':\n"
        "    with Run(stage='prepare', console=False) as run: pass\n"
        "    assert [one.id for one in runs()] == [run.id], runs()\n"
        "    assert Run.load('latest').id == Run.latest('prepare').id == run.id\n"
        "    with Run({'input': '${latest:prepare}'}, inputs=['prepare'], console=False) as second:\n"
        "        assert list(second.map(task, [1], launcher=sys.argv[1])) == [run.id]\n"
        "    print(second.cfg.input)\n"
    )

    @pytest.mark.parametrize("launcher", ["serial", "joblib"])
    def test_script_outside_the_current_project(self, project, tmp_path, launcher):
        """A script finds its own runs, and none of the project it was started in."""
        elsewhere = tmp_path / "elsewhere"
        (elsewhere / "scripts").mkdir(parents=True)
        (elsewhere / "pyproject.toml").write_text("[tool.runctx]\n")
        (elsewhere / "scripts/go.py").write_text(self.SCRIPT)
        write_run(project, make_lock(0, stage="prepare", save_dir="out/prepare/0"))
        said = _python(project, "../elsewhere/scripts/go.py", launcher)
        assert said.stdout.startswith("../elsewhere/results/prepare/"), said.stderr
        assert [run.stage for run in runs(elsewhere)] == ["go", "prepare"]
        assert len(runs(project)) == 1

    @pytest.mark.parametrize("start", [["-m", "runctx"], ["-c", "from runctx.cli import main; main()"]])
    def test_command(self, project, tmp_path, start):
        """The command looks in the project of the current folder, and with -C in that of another."""
        run = made()
        (tmp_path / "other/below").mkdir(parents=True)
        arguments = ["show", "latest", "--json"]
        assert json.loads(_python(project, *start, *arguments).stdout)["id"] == run.id
        there = _python(tmp_path / "other/below", *start, "-C", "../../project", *arguments)
        assert json.loads(there.stdout)["id"] == run.id
        missing = _python(tmp_path / "other", *start, *arguments)
        assert missing.returncode == 2 and f"no runs yet in {tmp_path / 'other/results'}" in missing.stderr
        assert _python(project, *start, "-C", "nowhere", *arguments).returncode == 2


def _python(cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, timeout=120, check=False
    )


class TestInputs:
    """What can be given as inputs."""

    @pytest.mark.parametrize(
        ("given", "paths"),
        [
            (None, []),
            ([None], []),
            ({}, []),
            ("a.csv", ["a.csv"]),
            (Path("a.csv"), ["a.csv"]),
            (["a.csv", None, "d"], ["a.csv", "d"]),
            ((one for one in ("a.csv", "d")), ["a.csv", "d"]),
            ("~/a.csv", ["{home}/a.csv"]),
            ("$HOME/a.csv", ["{home}/a.csv"]),
            ("${HOME}/a.csv", ["{home}/a.csv"]),
            ("~/*.csv", ["{home}/*.csv"]),
            ("$odd", ["$odd"]),
            ("~", ["~"]),
            ("${data}/a.csv", ["{home}/a.csv"]),
            ({"train": "a.csv", "test": None, "more": Path("~/a.csv")}, ["a.csv", "{home}/a.csv"]),
            ({"config": "${data}"}, ["{home}"]),
        ],
    )
    def test_given(self, project, tmp_path, monkeypatch, given, paths):
        """None is no input; `~`, variables and interpolations are expanded where no file is called so."""
        home = tmp_path / "home"
        for folder in (home, project / "d"):
            folder.mkdir()
        for file in (project / "a.csv", home / "a.csv", project / "$odd", project / "~"):
            file.write_text("1,2")
        monkeypatch.setenv("HOME", str(home))
        with Run({"data": str(home)}, inputs=given, console=False) as run:
            pass
        assert [data.path for data in run.inputs] == [path.format(home=home) for path in paths]
        assert all(data.digest for data in run.inputs)

    def test_names(self, project):
        """The keys of a dict are the names of the inputs, in the lock and of their manifests."""
        for folder in ("one/data", "two/data"):
            (project / folder).mkdir(parents=True)
            (project / folder / "a").write_text(folder)
        with Run(inputs={"train": "one/data", "eval/x": "two/data"}, console=False) as run:
            pass
        kept = Run.load(run.save_dir).inputs
        assert [(data.name, data.path) for data in kept] == [("train", "one/data"), ("eval/x", "two/data")]
        assert [data.manifest for data in kept] == ["inputs/train.b3", "inputs/eval_x.b3"]

    def test_derived_values_of_a_dataclass(self, project):
        """What the code reads of an instance of a dataclass is not computed yet; as an input it is."""

        @dataclass
        class Given:
            root: str = "d"
            file: str = derived(lambda c: f"{c.root}/a.csv")

        (project / "d").mkdir()
        (project / "d/a.csv").touch()
        given = Given()
        with Run(given, inputs=[given.file], console=False) as run:
            assert run.inputs[0].path == "d/a.csv"

    @pytest.mark.parametrize(
        ("given", "message", "hint"),
        [
            ("s3://bucket/key", "input 's3://bucket/key' is a URL", "download it"),
            ({"x": "https://host/a"}, "input 'https://host/a' is a URL", "keep the address in the config"),
            ("file:///data/a.csv", "is a URL", "write the path: '/data/a.csv'"),
            ("$NOWHERE/a", "the variable NOWHERE is not set", None),
            ("${nowhere}/a", "the variable nowhere is not set", None),
            (
                "a.csw",
                "input 'a.csw' does not exist .*; no run in .* is called 'a.csw'",
                "did you mean 'a.csv'",
            ),
            ("d/a.csv", "input 'd/a.csv' does not exist", None),
            (5, "input 5 is no path but int", "None is left out"),
            ({"x": 5}, "input x = 5 is no path but int", "None is left out"),
            ([["a"]], r"input \['a'\] is no path but list", "None is left out"),
            ("", "an input is an empty path", None),
            ("a\0b", "cannot read input", None),
        ],
    )
    def test_refused(self, project, given, message, hint):
        """What is no input is said at entry, with what to do; no folder is made."""
        (project / "a.csv").touch()
        with pytest.raises(InputError, match=message) as caught:
            Run(inputs=given, console=False).start()
        assert hint is None or hint in str(caught.value.hint)
        assert not (project / "out").exists()

    def test_in_the_project_of_the_script(self, project, tmp_path):
        """Of a script that is started elsewhere, an input beside it or at the top of its project is named."""
        for name in ("data/a.csv", "src/b.csv", "src/train.py"):
            (project / name).parent.mkdir(exist_ok=True)
            (project / name).touch()
        code = "import sys; from runctx import Run; Run(inputs=sys.argv[1:], console=False).start()"
        (project / "src/train.py").write_text(code)
        for name, folder in (("data/a.csv", project), ("b.csv", project / "src")):
            said = _python(tmp_path, str(project / "src/train.py"), name).stderr
            assert f"hint: {folder / name} exists, but relative inputs start at {tmp_path};" in said
        assert "there is no folder" in _python(tmp_path, str(project / "src/train.py"), "no/a.csv").stderr


@dataclass
class Night:
    save_dir: str = "out/night/${now:%H%M%S%f}"
    checkpoint: str = "${save_dir}/checkpoint"
    log: str = derived(lambda c: f"{c.checkpoint}/log")
    lr: float = 0.1


@dataclass
class Named:
    name: str = "b"
    save_dir: str = ""
    log: str = "${save_dir}/log"

    def __post_init__(self) -> None:
        self.save_dir = self.save_dir or f"out/{self.name}"


WAYS = {
    "option": lambda run: from_cli(Night, ["--config", str(run.save_dir / "config.yaml")]),
    "load": lambda run: load(run.save_dir / "config.yaml", Night),
    "path": lambda run: run.save_dir / "config.yaml",
    "base": lambda run: _built_upon(run.save_dir / "config.yaml"),
    "live": lambda run: run.cfg,
    "past": lambda run: Run.load(run.save_dir).cfg,
    "merged": lambda run: merged(Run.load(run.save_dir).cfg, {"lr": 0.3}),
    "arguments": lambda run: from_cli(run.cfg, ["lr=0.3"]),
}


class TestItsOwnConfiguration:
    """A run that is done again from its configuration, a file or an object, has a folder as new as any."""

    @pytest.mark.parametrize("way", WAYS)
    @pytest.mark.parametrize("given", ["class", "dict", "fixed"])
    def test_new_folder(self, project, way, given):
        """Folder and what is computed from it are as they were written; all other values are those of the run."""
        if given == "class":
            config = from_cli(Night, ["-o", "lr=0.3"])
        else:
            folder = "out/night/${now:%H%M%S%f}" if given == "dict" else "out/fixed"
            config = {"save_dir": folder, "checkpoint": "${save_dir}/checkpoint", "log": "-", "lr": 0.3}
        with Run(config, console=False) as first:
            (first.save_dir / "model").touch()
        for _ in range(2):
            with Run(WAYS[way](first), console=False) as again:
                pass
            parent, _, name = again.cfg.save_dir.rpartition("/")
            assert again.cfg.save_dir not in (first.cfg.save_dir, f"{first.cfg.save_dir}-2-2")
            assert parent == "out" or re.fullmatch("[0-9]{12}", name), name
            assert again.cfg.checkpoint == f"{again.cfg.save_dir}/checkpoint"
            assert again.cfg.get("log") in (None, "-", f"{again.cfg.checkpoint}/log")
            assert again.cfg.lr == 0.3
            first = again

    @pytest.mark.parametrize("way", ["live", "past"])
    def test_set_by_post_init(self, project, way):
        """A folder that `__post_init__` names is named anew, or as any where there is no class."""
        with Run(Named, console=False) as first:
            pass
        with Run(WAYS[way](first), console=False) as again:
            pass
        folder = again.save_dir.relative_to(project)
        assert str(folder) == "out/b-2" if way == "live" else folder.parts[1] == "test_names"
        assert again.cfg.log == f"{again.cfg.save_dir}/log"

    def test_what_was_set_since_stays(self, project):
        """A folder that code has set in the configuration of a run is that of the next one."""
        with Run(Night, console=False) as first:
            pass
        for cfg in (first.cfg, Run.load(first.save_dir).cfg):
            changed = OmegaConf.merge(cfg, {"save_dir": f"out/{type(cfg).__name__}{id(cfg)}"})
            with Run(changed, console=False) as again:
                pass
            assert again.cfg.save_dir == changed.save_dir
            assert again.cfg.checkpoint == f"{changed.save_dir}/checkpoint"

    def test_without_its_lock(self, project):
        """A copy elsewhere is a configuration file like any other: its values stay."""
        with Run(Night, console=False) as run:
            pass
        shutil.copy(run.save_dir / "config.yaml", project)
        assert load("config.yaml", Night).save_dir == run.cfg.save_dir


def _built_upon(file: Path) -> Path:
    Path("again.yaml").write_text(f"_base_: {file}\n")
    return Path("again.yaml")
