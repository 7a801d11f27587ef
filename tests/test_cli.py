"""The command line, as real processes: what is on stdout, on stderr, and the exit code."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from runctx import Run, lock
from runctx.cli import main
from runctx.display import words
from runctx.errors import ConfigError
from runctx.model import Failure, Origin, Summary
from runctx.past import index
from runctx.past.index import runs
from tests.pastruns import ESCAPE, child_of, make_lock, write_run
from tests.test_display import CONTROL, hostile

MAIN = [sys.executable, "-c", "from runctx.cli import main; main(prog_name='runctx')"]


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch) -> Path:
    """The current folder, with a lineage of three runs and a sweep."""
    monkeypatch.setenv("RUNCTX_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "project"
    root.mkdir()
    monkeypatch.chdir(root)
    raw = make_lock(1, stage="prepare")
    models = [child_of(2 + i, raw, stage="train", config={"lr": i / 10, "name": "sgd"}) for i in range(3)]
    for one in (raw, *models, child_of(9, *models)):
        write_run(root, one)
    return root


def runctx(*arguments: str, **environment: str) -> SimpleNamespace:
    """The command, in this process: starting one takes longer than most commands."""
    variables = {"COLUMNS": None, "NO_COLOR": None, **environment}
    done = CliRunner().invoke(main, arguments, env=variables, prog_name="runctx", catch_exceptions=False)
    return SimpleNamespace(returncode=done.exit_code, stdout=done.stdout, stderr=done.stderr)


def started(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command, as a process of its own."""
    inherited = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "NO_COLOR")}
    return subprocess.run(
        [*MAIN, *arguments], capture_output=True, text=True, env={**inherited, **environment}, timeout=60
    )


def told(*arguments: str, **environment: str) -> str:
    done = runctx(*arguments, **environment)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def in_a_terminal(*arguments: str, **environment: str) -> str:
    """What the command writes to a terminal of 80 columns."""
    leader, follower = pty.openpty()
    try:
        variables = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "80", **environment}
        subprocess.run([*MAIN, *arguments], stdout=follower, stderr=follower, env=variables, timeout=60)
        return os.read(leader, 100_000).decode()
    finally:
        os.close(leader)
        os.close(follower)


@pytest.mark.parametrize(
    ("command", "streams", "code", "said"),
    [
        ("ls", ">&-", 0, ""),
        ("show latest", ">&-", 0, ""),
        ("ls --json", "<&- >&- 2>&-", 0, ""),
        ("ls --limit 1", "2>&-", 0, "evaluate-"),
        ("nosuch", "2>&-", 2, ""),
        ("ls", ">/dev/full", 1, "error: the output cannot be written: "),
        ("--help", ">/dev/full", 1, "error: the output cannot be written: "),
        ("ls --limit 1", "2>/dev/full", 1, "evaluate-"),
        ("tree latest", ">/dev/full 2>&1", 1, ""),
    ],
)
def test_streams_that_take_nothing(command, streams, code, said):
    """A closed stream leads nowhere; one that cannot be written to ends the command with 1, without a traceback."""
    script = f'exec "$@" {command} {streams}'
    done = subprocess.run(["sh", "-c", script, "sh", *MAIN], capture_output=True, text=True, timeout=60)
    told = done.stdout + done.stderr
    assert done.returncode == code and "Traceback" not in told and "ignored" not in told
    assert said in told and bool(said) is bool(told)


class TestLs:
    def test_table(self):
        """All runs of the results folder, the newest first, with what tells those of a stage apart."""
        lines = told("ls").splitlines()
        assert lines[0].split() == ["run", "status", "started", "took", "commit", "differs", "in"]
        assert [line.split()[0] for line in lines[1:]] == [row.id for row in runs().rows]
        assert re.findall(r"lr=[\d.]+", "\n".join(lines)) == ["lr=0.2", "lr=0.1", "lr=0.0"]
        assert "name" not in "\n".join(lines)

    def test_legend(self):
        """In a terminal it is said below what the star means; a pipe holds the runs alone."""
        assert words.DIRTY in told("ls", COLUMNS="200").splitlines()[-1]
        assert words.DIRTY not in told("ls")

    def test_choice(self):
        """A folder or glob, a stage and a limit choose; what is left out is said on stderr."""
        assert len(told("ls", "results/train").splitlines()) == 4
        assert len(told("ls", "results/t*", "--stage", "train").splitlines()) == 4
        for arguments, place in ((["--stage", "nothing"], "results"), (["t*"], "t*")):
            none = runctx("ls", *arguments)
            assert (none.stdout, none.stderr.splitlines()[0]) == (
                "no runs\n",
                f"looked in {Path.cwd()}/{place}",
            )
        limited = runctx("ls", "--limit", "2")
        assert len(limited.stdout.splitlines()) == 3
        assert limited.stderr == "… 3 more; --limit 0 lists all\n"
        assert len(told("ls", "--limit", "0").splitlines()) == 6

    def test_where_and_sort(self):
        """An expression chooses, keys sort, the first of them first; what no run has is said on stderr."""

        def rates(*arguments: str) -> list[str]:
            return re.findall(r"\* +(0\.\d)", told("ls", "--stage", "train", *arguments))

        assert rates("--where", "config.lr < 0.15 and status == 'done'") == ["0.1", "0.0"]
        assert rates("--sort", "config.lr") == ["0.0", "0.1", "0.2"]
        assert rates("--sort", "status,-config.lr") == ["0.2", "0.1", "0.0"]
        for arguments in (
            ("--where", "config.lrr < 1"),
            ("--sort", "config.lrr"),
            ("--columns", "config.lrr"),
        ):
            done = runctx("ls", "--stage", "train", *arguments)
            assert (done.returncode, done.stderr.splitlines()[-1]) == (
                0,
                "hint: no run has config.lrr; did you mean config.lr?",
            )

    def test_wrong_expression(self):
        """A fault in an expression is shown at its place; the exit code is 2."""
        done = runctx("ls", "--where", "config.lr = 1")
        assert (done.returncode, done.stdout) == (2, "")
        lines = done.stderr.splitlines()
        assert lines[1:] == ["  config.lr = 1", "            ^", "hint: `==` compares"]
        assert "did you mean config.lr or metrics.lr?" in runctx("ls", "--sort", "lr").stderr
        assert "hint: write config.a-b.c" in runctx("ls", "--columns", "config['a-b'].c").stderr

    def test_columns(self):
        """What is asked for is shown, of each run what it has; for programs under the very names."""
        done = runctx("ls", "--columns", "config.name,config.lr,status", "--limit", "2")
        assert [line.split()[1:] for line in done.stdout.splitlines()] == [
            ["name", "lr", "status"],
            ["0.9", "done"],
            ["sgd", "0.2", "done"],
        ]
        listed = json.loads(told("ls", "--columns", "config.name,seconds", "--json"))
        assert listed[1] == {"id": make_lock(4, stage="train").id, "config.name": "sgd", "seconds": 1.5}
        assert listed[0]["config.name"] is None

    def test_what_was_asked_for(self):
        """The keys of `--where` and `--sort` are shown; what differs is what tells the runs from all that match."""
        shown = runctx("ls", "--where", "config.lr > 0.05", "--sort=-config.lr", "--limit", "2").stdout
        assert [line.split()[5:] for line in shown.splitlines()[:1]] == [["lr"]]
        assert [line.split()[-1] for line in shown.splitlines()[1:]] == ["0.9", "0.2"]
        limited = runctx("ls", "--stage", "train", "--limit", "1").stdout
        assert "lr=0.2" in limited

    def test_columns_for_good(self, project):
        """The setting `columns` says what a table shows, unless `--columns` does; JSON has all."""
        (project / "pyproject.toml").write_text('[tool.runctx]\ncolumns = ["status", "config.lr"]')
        assert told("ls").splitlines()[0].split() == ["run", "status", "lr"]
        assert told("ls", "--columns", "seconds").splitlines()[0].split() == ["run", "seconds"]
        assert told("ls", "--columns", "").splitlines()[0].split()[:5] == [
            "run",
            "status",
            "started",
            "took",
            "commit",
        ]
        assert "config" in json.loads(told("ls", "--json"))[0]
        done = runctx("ls", RUNCTX_COLUMNS="lr")
        assert (done.returncode, done.stdout) == (2, "")
        assert (
            done.stderr
            == "error: setting 'columns': unknown name 'lr'\nhint: did you mean config.lr or metrics.lr?\n"
        )

    def test_metrics(self):
        """Some metrics that most runs have stand beside the runs; in a narrow terminal they stand below."""
        numbers = {
            name: Summary(last=0.25, min=0.25, max=1.0, points=2) for name in ("acc", "b", "c", "system/x")
        }
        write_run(Path(), make_lock(70, metrics={**numbers, "a/rare": numbers["acc"]}))
        write_run(Path(), make_lock(71, metrics=numbers))
        assert told("ls").splitlines()[0].split()[5:9] == ["acc", "b", "c", "differs"]
        narrow = told("ls", COLUMNS="80").splitlines()
        assert narrow[0].split()[5:] == ["acc", "b"] and "c 0.25" in " ".join(narrow)
        assert max(map(len, narrow)) <= 80
        asked = told("ls", "--columns", "metrics.system/x.max,metrics.a/rare", "--limit", "0").splitlines()
        assert asked[0].split() == ["run", "system/x.max", "a/rare"] and asked[2].split()[1:] == ["1", "0.25"]

    def test_json(self):
        """For programs all of it, each run with the fields of a listing."""
        listed = json.loads(told("ls", "--json"))
        assert [run["id"] for run in listed] == [row.id for row in runs().rows]
        assert listed[1]["config"] == {"lr": 0.2, "name": "sgd"}
        assert len(json.loads(told("ls", "--json", "--limit", "1"))) == 1

    def test_pipe_and_terminal(self):
        """A pipe gets whole lines; a terminal of 80 columns gets no line that is longer."""
        long = make_lock(20, stage="train", config={"note": "x " * 200})
        write_run(Path(), long)
        assert len(told("ls", "--stage", "train").splitlines()) == 5
        narrow = told("ls", "--stage", "train", COLUMNS="80")
        assert max(map(len, narrow.splitlines())) <= 80
        assert long.id in narrow


class TestShow:
    def test_sections(self):
        """What was recorded, section by section, with the upstream and the error's traceback."""
        error = Failure(type="builtins.ValueError", message="no luck", traceback="Traceback\n  line 1\n")
        one = replace(child_of(30, make_lock(1, stage="prepare"), seed=3), status="failed", error=error)
        write_run(Path(), one)
        text = told("show", one.id)
        for expected in (
            "failed",
            "train.py",
            "seed",
            "lr: 3.0",
            "opt.name: sgd",
            "commit 00000000*",
            "model.bin",
        ):
            assert expected in text
        for expected in ("prepare-251121", "Python 3.11.7", "ValueError: no luck", "  line 1"):
            assert expected in text

    def test_json(self):
        """For programs the lock as it is in the file, with the status as it is now."""
        path = "results/train/2"
        assert json.loads(told("show", path, "--json")) == lock.to_plain(index.load(path).lock)
        crashed = make_lock(40, status="running", seconds=None)
        host = os.uname().nodename
        write_run(Path(), replace(crashed, command=replace(crashed.command, host=host, pid=2**40)))
        assert json.loads(told("show", "latest", "--json"))["status"] == "crashed"

    def test_numbers_json_does_not_have(self):
        """Infinity, which JSON lacks, and numbers of any length are written so that every reader reads on."""
        write_run(Path(), make_lock(50, config={"a": float("inf"), "b": 2**80, 3: None}))
        text = told("show", "latest", "--json")
        strict = json.loads(text, parse_constant=pytest.fail)
        assert strict["config"] == {"a": "inf", "b": 2**80, "3": None}

    def test_metrics(self):
        """Of each metric its last value, and what else became of it; of a run that goes on, what it has logged."""
        write_run(Path(), make_lock(70, metrics={"acc": Summary(last=0.5, min=0.25, max=1.0, points=7)}))
        assert re.search(r"metrics +acc: 0\.5 +min 0\.25, max 1, 7 points\n", told("show", "latest"))
        with Run({"lr": 0.1}, console=False) as run:
            run.log_async(loss=0.125)
            assert re.search(r"metrics +loss: 0\.125\n", told("show", run.id))
            assert re.search(r"loss: (<[^>]+>)*0\.125", Run.load(run.save_dir)._repr_html_() or "")


class TestExplain:
    def test_table_and_json(self):
        """Months later, from the lock alone: of each value who set it, and what that beat."""
        origins = {
            "lr": (
                Origin(layer="override", where="argument 3", value=0.3),
                Origin(layer="default", where="train.py:9", value=0.1),
            )
        }
        write_run(Path(), make_lock(60, config={"lr": 0.3, "n": 1}, origins=origins))
        lines = [line.split() for line in told("show", "latest", "--explain").splitlines()]
        assert lines == [
            ["key", "value", "set", "by", "where"],
            ["lr", "0.3", "override", "argument", "3"],
            ["beat", "0.1", "default", "train.py:9"],
            ["n", "1"],
        ]
        assert json.loads(told("show", "latest", "--explain", "--json")) == {
            "lr": {
                "value": 0.3,
                "origins": [
                    {"layer": "override", "where": "argument 3", "value": 0.3},
                    {"layer": "default", "where": "train.py:9", "value": 0.1},
                ],
            },
            "n": {"value": 1, "origins": []},
        }

    def test_not_recorded(self):
        """A lock without origins says so, and shows the values; one without configuration says that."""
        text = told("show", "results/train/2", "--explain")
        assert "lr    0.0\nname  sgd\n" in text
        assert "were not recorded" in text
        write_run(Path(), make_lock(61, config={}))
        assert told("show", "latest", "--explain") == "no configuration\n"

    def test_all(self):
        """A pipe gets every key, each on a line of its own."""
        write_run(Path(), make_lock(62, config={f"k{i}": "long " * 40 for i in range(300)}))
        assert len(told("show", "latest", "--explain").splitlines()) == 1 + 300 + 1


class TestTree:
    def test_tree(self):
        """From the run up to all it came from, with what was read and its digest."""
        text = told("tree", "latest")
        assert text.startswith("evaluate-251121-120000-000009  done  commit 00000000*\n├── train-")
        assert text.count("prepare-251121") == 3
        assert text.count("as above") == 2
        assert text.count("read model.bin  blake3:abababab") == 6

    def test_json(self):
        """For programs the runs and who read what of whom."""
        tree = json.loads(told("tree", "latest", "--json"))
        assert tree["run"] == tree["runs"][0]["id"] == make_lock(9, stage="evaluate").id
        assert len(tree["runs"]) == 5
        assert {edge["to"] for edge in tree["edges"]} == {run["id"] for run in tree["runs"][:4]}
        assert tree["edges"][0]["inputs"][0]["digest"].startswith("blake3:")


class TestErrors:
    def test_ours(self):
        """What the user can put right is `error:` and `hint:` on stderr, exit code 2, nothing on stdout."""
        for arguments, expected in (
            (("show", "nothing"), f"error: no run in {Path.cwd()}/results is called 'nothing'\nhint: "),
            (("tree", "train-25"), "error: 3 runs are called 'train-25': "),
            (("ls", "nowhere"), "error: no folder "),
            (("show", "results/x"), "error: no run at "),
        ):
            done = runctx(*arguments)
            assert (done.returncode, done.stdout) == (2, "")
            assert done.stderr.startswith(expected)
            assert "Traceback" not in done.stderr

    def test_broken_lock(self):
        """A broken lock is told with file and fault; `ls` lists the others."""
        (Path("results/train/2") / "run.lock").write_text("a: [")
        done = runctx("show", "results/train/2")
        assert done.returncode == 2
        assert "results/train/2/run.lock" in done.stderr
        assert len(told("ls").splitlines()) == 6

    def test_settings(self, project):
        """A wrong setting is told with its file."""
        (project / "pyproject.toml").write_text("[tool.runctx]\nresult = 'x'\n")
        done = runctx("ls")
        assert done.returncode == 2
        assert "did you mean 'results'" in done.stderr

    def test_closed_pipe(self):
        """A reader that stops reading, such as `head`, causes no traceback."""
        command = " ".join(f"'{part}'" if " " in part else part for part in MAIN).replace(
            "'runctx'", '"runctx"'
        )
        done = subprocess.run(
            ["bash", "-c", f"{command} show latest --json | head -1"], capture_output=True, text=True
        )
        assert (done.stdout, done.stderr) == ("{\n", "")


class TestTerminal:
    def test_hostile_lock(self, project):
        """No text of a lock steers the terminal or is taken for markup, in no command and no format."""
        folder = project / "results/x"
        folder.mkdir()
        lock.write(folder / "run.lock", hostile())
        for arguments in (
            ("ls",),
            ("show", "results/x"),
            ("tree", "results/x"),
            ("show", ESCAPE),
            ("ls", "\x1bc"),
        ):
            done = runctx(*arguments)
            assert not CONTROL.search(done.stdout + done.stderr)
            assert "\\x1b" in done.stdout + done.stderr
        for arguments in (("ls", "--json"), ("show", "results/x", "--json"), ("tree", "results/x", "--json")):
            assert told(*arguments).isascii()

    def test_odd_keys(self, project):
        """A lock whose configuration has dates and bytes for keys, as none of ours has, is shown all the same."""
        folder = project / "results/x"
        folder.mkdir()
        text = lock.encode(make_lock(config={"lr": 1})).replace(b"  lr: 1", b"  2020-01-01: !!binary aGk=")
        (folder / "run.lock").write_bytes(text)
        for command in ("show", "tree"):
            assert "2020-01-01" in told("show", "results/x") and told(command, "results/x", "--json")
        assert json.loads(told("show", "results/x", "--json"))["config"] == {"2020-01-01": "b'hi'"}
        with pytest.raises(ConfigError, match="date"):
            Run.load(folder).cfg

    def test_colours(self):
        """Statuses are coloured in a terminal; not where NO_COLOR is set, nor in a pipe."""
        assert "\x1b[32mdone" in in_a_terminal("ls")
        assert "\x1b[32m" not in in_a_terminal("ls", NO_COLOR="1")
        assert "\x1b" not in told("ls")

    def test_other_encodings(self):
        """A terminal that is not UTF-8 gets what it can show, and no traceback."""
        done = started("tree", "latest", PYTHONIOENCODING="ascii", PYTHONUTF8="0", LC_ALL="C")
        assert done.returncode == 0
        assert "prepare-251121" in done.stdout

    def test_real_run(self, project):
        """A run that was made by `Run` is listed, shown, and told of in the tree of the next."""
        with Run({"lr": 0.1}, stage="fit", console=False) as first:
            (first.save_dir / "model.bin").write_bytes(b"x")
        with Run({"k": 1}, [first.save_dir / "model.bin"], stage="score", console=False) as second:
            pass
        assert told("ls").splitlines()[1].split()[0] == second.id
        assert json.loads(told("show", second.id, "--json")) == json.loads(
            json.dumps(lock.to_plain(second.lock))
        )
        assert f"└── {first.id}  done" in told("tree", "latest")


class TestShell:
    """What a shell asks, and how soon it is answered."""

    @pytest.mark.parametrize(
        ("words", "offered"),
        [
            ("show tra", {"train", *(make_lock(number).id for number in (2, 3, 4))}),
            ("rm eval", {"evaluate", make_lock(9, stage="evaluate").id}),
            ("note lat", {"latest"}),
            ("compare latest evaluate-", {make_lock(9, stage="evaluate").id}),
            ("ls --stage tr", {"train"}),
            ("ls --like evaluate-", {make_lock(9, stage="evaluate").id}),
            ("-C results/evaluate tag tr", set()),
        ],
    )
    def test_completion(self, words, offered):
        """Commands that take runs offer stages and ids of the project; where none begins so, files."""
        count = len(words.split())
        asked = {
            "_RUNCTX_COMPLETE": "bash_complete",
            "COMP_WORDS": f"runctx {words}",
            "COMP_CWORD": str(count),
        }
        done = started(**asked)
        kinds = [line.partition(",") for line in done.stdout.splitlines()]
        assert {value for kind, _, value in kinds if kind == "plain"} == offered
        assert done.stderr == ""

    @pytest.mark.parametrize(
        "command",
        [
            "--version",
            "ls",
            "show latest --explain",
            "tree latest",
            "compare latest train",
            "tag latest",
            "status latest",
        ],
    )
    def test_nothing_slow_is_loaded(self, command):
        """What needs neither MLflow nor a configuration loads neither, nor anything else that takes long."""
        slow = "mlflow omegaconf numpy pandas matplotlib pygit2 joblib submitit loguru tqdm IPython"
        code = (
            "import sys\nfrom runctx.cli import main\n"
            f"try:\n    main({command.split()!r})\nexcept SystemExit as end:\n    assert not end.code\n"
            f"print(sorted(set({slow.split()!r}) & set(sys.modules)), file=sys.stderr)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stderr.endswith("[]\n")
