"""What the command line says of a configuration."""

from __future__ import annotations

import argparse
import enum
import json
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass, field

import pytest
from omegaconf import OmegaConf

from runctx.config.cli import add_arguments, from_cli
from runctx.config.compose import compose
from runctx.config.layers import at
from runctx.config.origins import trace_of
from runctx.errors import ConfigError

SCRIPT = '''\
from dataclasses import dataclass, field
import sys

from runctx.config.cli import add_arguments, from_cli

@dataclass
class Opt:
    """The optimiser."""
    name: str = "sgd"  # which one
    lr: float = 0.1
    """Learning rate."""

@dataclass
class Config:
    epochs: int = field(default=5, metadata={"help": "how often the data are seen, " * 4})
    api_key: str = "abcdefgh"
    counts: dict[str, int] = field(default_factory=dict)
    opt: Opt = field(default_factory=Opt)
'''


@dataclass
class Opt:
    name: str = "sgd"
    lr: float = 0.1
    warmup: float = 0.0


@dataclass
class Config:
    epochs: int = 5
    opt: Opt = field(default_factory=Opt)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The working folder, with the files that are written into it: `here({"c.yaml": ...})`."""
    monkeypatch.chdir(tmp_path)

    def write(files):
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        return tmp_path

    return write


def said(config, key):
    """Of one key: kind, where and value of each layer, the lowest first."""
    leaf = at(trace_of(config).tree, tuple(key.split(".")))
    return [(setting.layer.kind, setting.where, setting.value) for setting in leaf]


def run(folder, arguments, script=SCRIPT + "print(from_cli(Config))\n"):
    (folder / "train.py").write_text(script)
    command = [sys.executable, "train.py", *shlex.split(arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)


# -- the order of the layers ----------------------------------------------------------------------------------------


def test_order_of_layers(here):
    """dataclass < `_base_` files < config file < experiment < overrides file < dot overrides < derived values."""
    here(
        {
            "base.yaml": "epochs: 1\nopt: {name: base, lr: 1}",
            "c.yaml": "_base_: base.yaml\nepochs: 2\nopt: {lr: 2, warmup: '${mul:${opt.lr},0.5}'}\n"
            "experiments:\n  big:\n    epochs: 3\n    opt: {lr: 3}\n",
            "o.yaml": "epochs: 4\nopt: {lr: 4}",
        }
    )
    argv = "--config c.yaml --experiment big --overrides-path o.yaml -o epochs=6 opt.lr=8"
    config = from_cli(Config, argv.split())
    assert config == {"epochs": 6, "opt": {"name": "base", "lr": 8.0, "warmup": 4.0}}
    kinds = [("base file", 1), ("config file", 2), ("experiment", 3), ("overrides file", 4)]
    assert [(kind, value) for kind, _, value in said(config, "epochs")[1:]] == [*kinds, ("override", 6)]
    assert said(config, "epochs")[-3:] == [
        ("experiment", "c.yaml:6", 3),
        ("overrides file", "o.yaml:1", 4),
        ("override", "argument 8", 6),
    ]


def test_order_on_the_command_line_does_not_matter_between_layers(here):
    """An override beats a file wherever it stands; of overrides and of files the later one wins."""
    here({"a.yaml": "epochs: 1\nopt: {lr: 1}", "b.yaml": "epochs: 2"})
    argv = "opt.lr=7 -o opt.name=x --config a.yaml opt.name=y --config=b.yaml --override=opt.warmup=1"
    config = from_cli(Config(), argv.split())
    assert config == {"epochs": 2, "opt": {"name": "y", "lr": 7.0, "warmup": 1.0}}
    assert said(config, "opt.name")[-2:] == [("override", "argument 3", "x"), ("override", "argument 6", "y")]
    assert said(config, "opt.warmup")[-1][1] == "argument 8"


def test_lines_of_overrides(here):
    """A text file of overrides says for each key on which line it was set."""
    here({"o.txt": "# why\nepochs=7\n+note=a b\n"})
    config = from_cli(Config, ["--overrides-path", "o.txt"])
    assert said(config, "epochs")[-1] == ("overrides file", "o.txt:2", 7)
    assert config.note == "a b"


def test_configuration_file_below_the_arguments(here):
    """Instead of a class a file can be given: it is the lowest layer, its experiments included."""
    here({"c.toml": "lr = 0.1\n[experiments.big]\nlr = 3\n"})
    assert from_cli("c.toml", ["lr=5"]) == {"lr": 5}
    assert from_cli("c.toml", ["--experiment", "big"]) == {"lr": 3}


# -- experiments ----------------------------------------------------------------------------------------------------

SHELF = "epochs: 2\nexperiments: {a: {epochs: 3}, b: {c: {epochs: 4}}, d: {_base_: '#experiments.a', opt: {lr: 4}}}"
PARTS = "epochs: 2\nhigh: {opt: {lr: 3}}\nlow: {opt: {lr: 1}}"
PYTHON = "from runctx import derived as d\nexperiments = {'a': {'epochs': 4, 'opt': {'lr': d(lambda c: c.epochs / 8)}}}"
BROKEN = "epochs: 2\nexperiments: {a: {epochs: 3}, b: {_base_: nowhere.yaml}, c: {opt: {_base_: '#x'}}}"


@pytest.mark.parametrize(
    ("file", "arguments", "expected"),
    [
        # experiments are no part of the configuration, but can be chosen, by a dotted name and several at once
        (SHELF, "", {"epochs": 2}),
        (SHELF, "--experiment b.c", {"epochs": 4}),
        (SHELF, "--experiment a --experiment b.c", {"epochs": 4}),
        # they may build upon each other, and override each other's keys
        (SHELF, "--experiment d", {"epochs": 3, "opt": {"lr": 4}}),
        # without the key, any mapping is one, laid on the keys of the file that the configuration has
        (PARTS, "--experiment low", {"opt": {"lr": 1}}),
        # a derived value in one reads the keys beside it once it is laid
        (PYTHON, "--experiment a", {"epochs": 4, "opt": {"lr": 0.5}}),
        (PYTHON, "--experiment a epochs=2", {"epochs": 2, "opt": {"lr": 0.25}}),
        # only those that are asked for are looked at
        (BROKEN, "", {"epochs": 2}),
        (BROKEN, "--experiment a", {"epochs": 3}),
    ],
)
def test_experiments(here, file, arguments, expected):
    """An experiment of a file is laid upon it if its name is given, and is not there otherwise."""
    name = "c.py" if file is PYTHON else "c.yaml"
    here({name: file})
    argv = ["--config", name, *arguments.split()]
    assert from_cli({}, argv) == expected
    if file is not PARTS:
        assert from_cli(Config, argv).epochs == expected["epochs"]


def test_experiments_that_are_not_set_apart(here):
    """Parts of a file are experiments for a class without such fields; a class with a field `experiments` keeps it."""

    @dataclass
    class Lab:
        experiments: dict[str, int] = field(default_factory=dict)

    here({"c.yaml": "experiments: {a: 1}", "p.yaml": PARTS, "b.yaml": BROKEN})
    assert from_cli(Lab, ["--config", "c.yaml"]).experiments == {"a": 1}
    config = from_cli(Config, ["--config", "p.yaml", "--experiment", "high"])
    assert (config.epochs, config.opt.lr) == (2, 3.0)
    with pytest.raises(ConfigError, match=r"b\.yaml:2: _base_ nowhere\.yaml: "):
        from_cli(Config, ["--config", "b.yaml", "--experiment", "b"])


@pytest.mark.parametrize(
    "text, hint",
    [
        ("experiments: {big: {epochs: 1}, bigger: {}}", "known experiments: big, bigger"),
        ("epochs: 2\nhigh: {epochs: 3}", "known experiments: high"),
        ("epochs: 2", "write them under `experiments`"),
    ],
)
def test_unknown_experiment(here, text, hint):
    """An experiment that is not there is refused with those there are."""
    here({"c.yaml": text})
    with pytest.raises(ConfigError, match=r"--experiment huge: no such experiment in c\.yaml") as caught:
        from_cli(Config, ["--config", "c.yaml", "--experiment", "huge"])
    assert caught.value.hint == hint


def test_experiment_beats_the_file_with_what_it_builds_upon(here):
    """A base of an experiment in the same file is called experiment; one in another file is a base file."""
    here(
        {
            "o.yaml": "epochs: 1\nopt: {lr: 1}",
            "c.yaml": "epochs: 2\nopt: {lr: 2}\nexperiments:\n"
            "  a: {_base_: o.yaml, epochs: 3}\n  b: {_base_: '#experiments.a'}",
        }
    )
    config = from_cli(Config, ["--config", "c.yaml", "--experiment", "b"])
    assert [line[0] for line in said(config, "epochs")] == [
        "default",
        "config file",
        "base file",
        "experiment",
    ]
    assert [line[0] for line in said(config, "opt.lr")] == ["default", "config file", "base file"]


def test_experiment_without_a_file():
    """Experiments stand in files."""
    with pytest.raises(ConfigError, match="--experiment big needs a file"):
        from_cli(Config, ["--experiment", "big"])


# -- groups ---------------------------------------------------------------------------------------------------------


def test_choosing_a_group_again(here):
    """On a composed configuration, `model=b` chooses, and `model.lr=3` sets a key of what was chosen."""
    here({"conf/model/a.yaml": "lr: 1\nname: a", "conf/model/b.yaml": "lr: 2", "conf/data/x.yaml": "n: 1"})
    config = compose("conf", model="a")
    assert from_cli(config, []) == {"model": {"lr": 1, "name": "a"}}
    assert from_cli(config, ["model.lr=3", "model=b"]) == {"model": {"lr": 3}}
    assert from_cli(config, ["model=[a,b]", "data=x"]) == {"model": {"lr": 2, "name": "a"}, "data": {"n": 1}}
    with pytest.raises(ConfigError, match="group model has no choice 'c'"):
        from_cli(config, ["model=c"])
    here({"own/opt/a.yaml": "lr: 3"})
    assert from_cli(Config, ["opt=a", "opt.name=[a"], groups="own").opt == {
        "name": "[a",
        "lr": 3.0,
        "warmup": 0.0,
    }


# -- what is wrong --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "argv, message, hint",
    [
        (["--lr", "0.1"], "unknown option --lr", "write keys without dashes: opt.lr=..."),
        (["--opt.lr=0.1"], "unknown option --opt.lr", "write keys without dashes: opt.lr=0.1"),
        (["-x"], "unknown option -x", "--help lists all options"),
        (["--print_config"], "unknown option --print_config", "write --print-config"),
        (["--batch_size=3"], "unknown option --batch_size", "--help lists all options"),
        ("epochs=1", "must be a list of str", 'from_cli(Config, ["opt.lr=0.3", "epochs=5"])'),
        ([1], "must be a list of str", None),
        (["--config"], "argument --config: expected one argument", "--help lists all options"),
        (["-o"], "expected at least one argument", "--help lists all options"),
        (["train"], "argument 1: 'train' is not an override", "write key=value, +key=value or ~key"),
        (["--config", "nowhere.yaml"], "nowhere.yaml", None),
        (["--overrides-path", "nowhere.txt"], "nowhere.txt does not exist", None),
        (["epochs=1", "opt.lr=x"], "argument 2: opt.lr must be float", None),
    ],
)
def test_wrong_arguments(here, argv, message, hint):
    """What cannot be understood is told as an error to whoever gave the arguments."""
    here({})
    with pytest.raises(ConfigError) as caught:
        from_cli(Config, argv)
    assert message in caught.value.message
    assert hint is None or caught.value.hint == hint


def test_a_secret_is_not_told_again():
    """A secret that was given as if it were an option does not stand in the error."""
    with pytest.raises(ConfigError, match="unknown option --api-key") as caught:
        from_cli({"api_key": "???"}, ["--api-key=abcdefgh"])
    assert caught.value.hint == "write keys without dashes: api_key=..."


def test_file_does_not_fit(here):
    """A key that the class does not have is named with file and line, and the nearest one."""
    here({"c.yaml": "epochs: 2\nopt:\n  lrr: 3\n", "o.yaml": "epoch: 3\n"})
    with pytest.raises(ConfigError, match=r"config file c.yaml:3: unknown config key opt.lrr") as caught:
        from_cli(Config, ["--config", "c.yaml"])
    assert caught.value.hint == "did you mean opt.lr?"
    with pytest.raises(ConfigError, match=r"overrides file o.yaml:1: unknown config key epoch"):
        from_cli({"epochs": 1}, ["--overrides-path", "o.yaml"])


def test_given_configuration_is_not_modified():
    """What was given stays as it was."""
    config = OmegaConf.structured(Config)
    assert from_cli(config, ["epochs=7"]).epochs == 7
    assert config.epochs == 5


# -- the process ----------------------------------------------------------------------------------------------------


def test_script(here):
    """A script takes its arguments, wherever they stand."""
    done = run(here({"c.yaml": "opt: {lr: 1}"}), "epochs=7 -o 'opt.name=a b' +x=1 --config c.yaml")
    assert done.stdout == "{'epochs': 7, 'api_key': 'abcdefgh', 'counts': {}, " + (
        "'opt': {'name': 'a b', 'lr': 1.0}, 'x': 1}\n"
    ), done.stderr


@pytest.mark.parametrize("spelling", ["--overrides-path", "--overrides_path"])
def test_overrides_path_with_an_underscore(here, spelling):
    """Both spellings name a file of overrides, also where a parser of the user's knows our options; help has one."""
    here({"tuned.txt": "epochs=8"})
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    assert "--overrides-path FILE" in parser.format_help() and "overrides_path" not in parser.format_help()
    for argv in ([spelling, "tuned.txt"], parser.parse_args([f"{spelling}=tuned.txt"])):
        assert from_cli(Config, argv).epochs == 8


def test_mandatory_value_of_a_script(here):
    """A script that is not given what it needs ends with one line that says what to write."""
    script = (
        f"{SCRIPT.replace('epochs: int', 'prepared: str; epochs: int')}print(from_cli(Config).prepared)\n"
    )
    ended = run(here({}), "epochs=3", script=script)
    assert ended.returncode == 2 and not ended.stdout
    assert ended.stderr == "error: prepared has no value; write prepared=...\n"
    assert run(here({}), "prepared=x", script=script).stdout == "x\n"


def test_error_of_a_script(here):
    """A wrong argument ends the process with 2, message and hint on stderr, and no traceback."""
    done = run(here({}), "-o lr=1")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        "error: override argument 2: unknown config key lr",
        "hint: did you mean opt.lr?; write +lr=... to add it",
    ]


def test_help_of_a_script(here):
    """`--help` lists each field with type, default and help by groups, in 80 columns, without secrets."""
    done = run(here({}), "--help")
    assert done.returncode == 0 and done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0] == "usage: train.py [options] [KEY=VALUE ...]"
    assert lines[lines.index("opt: The optimiser.") :][:3] == [
        "opt: The optimiser.",
        "  opt.name: str = sgd         which one",
        "  opt.lr: float = 0.1         Learning rate.",
    ]
    assert "  epochs: int = 5             how often the data are seen, how often the data" in lines
    assert "  counts: dict[str, int] = {}" in lines
    assert "abcdefgh" not in done.stdout
    assert max(map(len, lines)) <= 80
    options = {
        "--config",
        "--experiment",
        "--overrides-path",
        "-o",
        "--explain",
        "--print-config",
        "-h",
        "--help",
    }
    assert options <= set(re.split(r"[\s,]+", done.stdout))


def test_reader_that_has_seen_enough(here):
    """A pipe that is closed early costs the rest of the text, and nothing else."""
    folder = here({"train.py": SCRIPT + "from_cli(dict.fromkeys(map(str, range(9999))))\n"})
    with subprocess.Popen(
        [sys.executable, "train.py", "--help"], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as script:
        assert script.stdout.readline().startswith(b"usage: train.py")
        script.stdout.close()
        assert script.stderr.read() == b""
    assert script.returncode == 0


class Mode(enum.Enum):
    FAST = 1


@dataclass
class Wide:
    inner: Opt | None = None


SECRET = {"a": 1, "b": "${a}", "c": "???", "hf_token": "abcdefgh"}
UNTYPED = {"a": 1, "b": {"c": "x", "d": None, "e": "a b", "f": "5"}, "g": {}, "h": [0.9, "x"]}


@pytest.mark.parametrize(
    ("config", "arguments", "shown"),
    [
        (Config, "epochs=7 --explain", r"epochs +7 +override +argument 1"),
        # the values that would be used; `???` for one that is missing
        (Config, "epochs=7 --print-config", r"\Aepochs: 7\nopt:\n  name: sgd\n  lr: 0.1\n  warmup: 0.0\n\Z"),
        (SECRET, "--print-config", r"\Aa: 1\nb: 1\nc: \?\?\?\nhf_token: <redacted>\n\Z"),
        # without a dataclass, the types are those of the values
        (
            UNTYPED,
            "--help",
            r'configuration:\n  a: int = 1\n  g: dict = {}\n  h: list = \[0.9, "x"\]\n\nb:\n  b.c: str',
        ),
        (UNTYPED, "--help", r"b.c: str = x\n  b.d = null\n  b.e: str = a b\n  b.f: str = '5'\n"),
        # the keys of an optional dataclass, although it is None
        (Wide, "--help", r"configuration:\n  inner: Opt \| None = null"),
        (Wide, "--help", r"inner, made when one of its keys is set:(\n.*)*\n  inner.lr: float = 0.1\n"),
        # a member of an enum is called as it is set
        ({"steps": {Mode.FAST: 1}}, "steps.FAST=2 --help", r"\n  steps.FAST: int = 1\n"),
        ({"steps": {Mode.FAST: 1}}, "steps.FAST=2 --explain", r"steps.FAST +2 +override"),
    ],
)
def test_printed(capsys, config, arguments, shown):
    """`--help`, `--explain` and `--print-config` print what results, secrets redacted, and exit with 0."""
    with pytest.raises(SystemExit) as caught:
        from_cli(config, arguments.split())
    assert caught.value.code == 0
    printed = capsys.readouterr().out
    assert re.search(shown, printed) and "abcdefgh" not in printed


# -- beside another parser ------------------------------------------------------------------------------------------

BESIDE = """
import argparse
parser = argparse.ArgumentParser()
parser.add_argument("-o", "--output")
parser.add_argument("--config", type=int)
parser.add_argument("--workers", type=int)
"""


def test_what_another_parser_left_over(here):
    """`parse_known_args` leaves ours to us, positions counted as in sys.argv; what is taken stays taken."""
    script = f"{SCRIPT}{BESIDE}args, rest = parser.parse_known_args()\ncfg = from_cli(Config, rest)\n"
    script += "from runctx.config.origins import trace_of\n"
    script += "print(args.workers, args.output, args.config, cfg.epochs, cfg.opt.lr)\n"
    script += "print(trace_of(cfg).tree.children['epochs'][-1].where)\n"
    done = run(here({}), "--workers 2 -o out epochs=7 --config 3 --override opt.lr=1", script)
    assert done.stdout.splitlines() == ["2 out 3 7 1.0", "argument 5"], done.stderr


def test_arguments_within_another_parser(here):
    """`add_arguments` gives a parser our options; those it has already are its own, and ours have other names."""
    script = (
        f"{SCRIPT}{BESIDE}add_arguments(parser)\nargs = parser.parse_args()\ncfg = from_cli(Config, args)\n"
    )
    script += "from runctx.config.origins import trace_of\n"
    script += "print(args.workers, args.output, args.config, cfg.epochs, cfg.opt)\n"
    script += "print(trace_of(cfg).tree.children['epochs'][-1].where)\n"
    arguments = "--cfg-config c.yaml --workers 2 -o out --config 3 --override opt.lr=1 --workers 4"
    folder = here({"c.yaml": "opt: {name: adam}"})
    done = run(folder, f"{arguments} epochs=7", script)
    assert done.stdout.splitlines() == ["4 out 3 7 {'name': 'adam', 'lr': 1.0}", "argument 13"], done.stderr
    wrong = run(folder, f"{arguments} epoch=7", script)
    assert wrong.returncode == 2
    assert wrong.stderr.startswith(
        "error: override argument 13: unknown config key epoch\nhint: did you mean epochs?"
    )
    helped = run(folder, "--help", script)
    assert "--cfg-config FILE" in helped.stdout and "--workers" in helped.stdout and helped.returncode == 0
    listed = run(folder, "--help-config", script)
    assert listed.stdout.startswith("configuration:\n  epochs: int = 5 ") and listed.returncode == 0


def test_bare_overrides_anywhere_within_another_parser():
    """With `parse_intermixed_args`, bare overrides need not stand together."""
    parser = argparse.ArgumentParser(argument_default=argparse.SUPPRESS)
    parser.add_argument("--workers")
    add_arguments(parser)
    args = parser.parse_intermixed_args(["epochs=1", "--workers", "2", "opt.lr=3", "-o", "opt.name=x"])
    assert from_cli(Config, args) == {"epochs": 1, "opt": {"name": "x", "lr": 3.0, "warmup": 0.0}}


def test_namespace_without_our_arguments():
    """A parser that was never told of ours is named as what is missing."""
    with pytest.raises(SystemExit):
        from_cli(Config, argparse.Namespace(lr=1))


# -- where the arguments are not ours -------------------------------------------------------------------------------


def test_under_pytest():
    """A test runner's arguments are not meant for the configuration."""
    assert from_cli(Config) == from_cli(Config, [])


def test_arguments_that_a_test_sets(monkeypatch):
    """A test that sets sys.argv is a script's stand-in."""
    monkeypatch.setattr(sys, "argv", ["train.py", "epochs=9"])
    assert from_cli(Config).epochs == 9


def test_in_a_kernel(tmp_path):
    """In a notebook the default counts, arguments can be given, and a class in a cell is named by its cell."""
    import nbclient
    import nbformat

    (tmp_path / "train.py").write_text(SCRIPT + "cfg = from_cli(Config)\n")
    cells = [
        SCRIPT,
        "import json\nfrom runctx.config.fields import fields_of, place_of",
        "place, helped = place_of(Opt, 'lr'), [f.help for f in fields_of(Config)][-1]\n"
        "print(json.dumps([from_cli(Config).epochs, from_cli(Config, ['epochs=7']).epochs, place, helped]))",
        "from runctx import errors\ntry: from_cli(Config, ['x=1'])\nexcept errors.ConfigError: print('raised')",
        "%run train.py epochs=8\nprint(cfg.epochs)",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    kernel = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=60, kernel_name="python3", resources=kernel).execute()
    printed = [cell.outputs[0].text if cell.outputs else "" for cell in notebook.cells]
    assert json.loads(printed[2]) == [5, 7, ["In[1]", 10], "Learning rate."]
    assert printed[3:] == ["raised\n", "8\n"]
