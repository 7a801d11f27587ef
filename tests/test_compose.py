"""One file per group, and one file over a class: what is laid where, and what can be chosen again."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from runctx import Run
from runctx.config.cli import from_cli
from runctx.config.compose import compose, load
from runctx.config.grid import grid, merged
from runctx.config.layers import at
from runctx.config.origins import tree_of
from runctx.errors import ConfigError


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(
        {
            "conf/config.yaml": "seed: 1\n_groups_:\n  model: resnet50\n  data: ???",
            "conf/model/resnet50.yaml": "name: resnet\nlr: 0.1\nout: ${data.classes}\nhalf: ${lr}",
            "conf/model/resnet101.yaml": "_base_: resnet50.yaml\ndepth: 101",
            "conf/model/wide.json": '{"_base_": "resnet50.yaml", "width": 2}',
            "conf/model/vision/vit.toml": 'name = "vit"\nlr = 0.01',
            "conf/data/digits.py": "classes = 10\nlr = 5\nsize = dict(train=60, test=10)",
            "conf/data/letters.yml": "classes: 26\nsize: {train: 90}",
            "conf/data/augment/flip.yaml": "p: 0.5",
            "conf/data/augment/none.yaml": "p: 0",
        }
    )


def write(files: dict[str, str]) -> None:
    for name, text in files.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text)


def resolved(config: Any) -> Any:
    return OmegaConf.to_container(config, resolve=True)


def said(config: Any, *path: Any) -> list[tuple[str, str, Any]]:
    leaf = at(tree_of(config), path)
    assert isinstance(leaf, tuple)
    return [(setting.layer.kind, setting.where, setting.value) for setting in leaf]


def refused(*given: Any, **groups: Any) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        compose(*given, **groups)
    return caught.value


@dataclass
class Model:
    name: str = "none"
    lr: float = 1.0
    out: int = 0
    half: float = 0.0
    depth: int = 50


@dataclass
class Data:
    classes: int = 0
    lr: float = 0.0
    size: dict[str, int] = field(default_factory=lambda: {"train": 1})


@dataclass
class Config:
    seed: int = 0
    model: Model = field(default_factory=Model)
    data: Data = field(default_factory=Data)


# -- what is laid ----------------------------------------------------------------------------------------------------


def test_each_file_is_merged_under_its_group():
    """A file's values lie under its group's name, so that groups never collide; `config.*` is the lowest."""
    assert resolved(compose("conf", model="resnet50", data="digits")) == {
        "seed": 1,
        "model": {"name": "resnet", "lr": 0.1, "out": 10, "half": 0.1},
        "data": {"classes": 10, "lr": 5, "size": {"train": 60, "test": 10}},
    }


def test_groups_not_given_are_chosen_by_the_config_file():
    """`_groups_` chooses, an argument chooses otherwise, and None leaves a group out."""
    assert compose("conf", data="digits").model.name == "resnet"
    assert compose("conf", data="digits", model="vision/vit").model == {"name": "vit", "lr": 0.01}
    assert compose("conf", data="digits", model=None) == {
        "seed": 1,
        "data": {"classes": 10, "lr": 5, "size": {"train": 60, "test": 10}},
    }
    assert "_groups_" not in compose("conf", data=None)


def test_several_choices_are_laid_on_each_other():
    """Of a list a later choice wins, and what its files build upon in common is laid once."""
    write({"conf/model/fast.yaml": "_base_: resnet50.yaml\nlr: 9"})
    made = compose("conf", model=["fast", "wide"], data="digits").model
    assert (made.lr, made.width, made.name) == (9, 2, "resnet")


def test_a_choice_is_merged_deeply_over_the_config_file():
    """What `config.*` says of a group stays where the chosen file says nothing."""
    write({"conf/config.yaml": "data: {size: {train: 1, extra: 2}, classes: 0}"})
    made = compose("conf", data="letters")
    assert made == {"data": {"size": {"train": 90, "extra": 2}, "classes": 26}}
    assert [kind for kind, _, _ in said(made, "data", "size", "train")] == ["config file", "group file"]


def test_a_group_within_a_group_is_named_by_dots_or_a_dict():
    """`data.augment` is the folder data/augment and the key data.augment; the order of the arguments is irrelevant."""
    Path("conf/config.yaml").unlink()
    write({"conf/data/noisy.yaml": "classes: 3\naugment: {p: 1, noise: 2}"})
    dotted = compose("conf", **{"data.augment": "flip", "data": "noisy"})
    assert dotted.data == {"classes": 3, "augment": {"p": 0.5, "noise": 2}}
    assert compose("conf", **{"data": "noisy", "data.augment": "flip"}) == dotted
    assert compose("conf", data={"augment": "none"}) == {"data": {"augment": {"p": 0}}}


def test_groups_within_groups_can_be_chosen_in_the_file():
    """`_groups_` names groups within groups by a mapping or by dots."""
    for text in ("_groups_: {data: {augment: flip}}", "_groups_: {data.augment: flip}"):
        write({"conf/config.yaml": text})
        assert compose("conf") == {"data": {"augment": {"p": 0.5}}}


def test_a_base_of_the_config_file_chooses_too():
    """`_groups_` is inherited like everything else."""
    write(
        {
            "conf/config.yaml": "_base_: ../common.yaml\n_groups_: {data: letters}",
            "common.yaml": "seed: 3\n_groups_: {model: wide, data: digits}",
        }
    )
    made = compose("conf")
    assert (made.seed, made.model.width, made.data.classes) == (3, 2, 26)


def test_a_choice_may_be_named_with_its_suffix():
    """The full name of a file is a choice as well, which tells two of the same stem apart; names may hold dots."""
    write({"conf/model/wide.yaml": "width: 3", "conf/model/resnet.v2.yaml": "lr: 2"})
    assert compose("conf", model="resnet.v2", data=None).model.lr == 2
    assert compose("conf", model="wide.json", data=None).model.width == 2
    assert compose("conf", model="wide.yaml", data=None).model.width == 3
    assert "wide.json" in refused("conf", model="wide", data=None).message


def test_no_config_file_is_needed():
    """A folder with groups alone is enough; without groups there is nothing."""
    Path("conf/config.yaml").unlink()
    assert compose(Path("conf"), data="digits").data.classes == 10
    assert compose("conf") == {}


def test_derived_values_of_a_group_read_their_own_file():
    """A derivation in a group's Python file sees that file's keys, and as second argument the whole."""
    write(
        {
            "conf/model/net.py": "from runctx import derived\n"
            "lr = 0.5\nstep = derived(lambda c: c.lr * 2)\nout = derived(lambda c, root: root.data.classes)"
        }
    )
    made = compose("conf", model="net", data="digits")
    assert (made.model.step, made.model.out) == (1.0, 10)


# -- over a class ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [Config, Config()])
def test_a_class_fixes_keys_and_types(given):
    """Files are laid over a dataclass or an instance of it, which is not modified."""
    made: Config = compose("conf", given, model="resnet101", data="digits")
    assert OmegaConf.get_type(made.model) is Model
    assert (made.model.depth, made.model.half, made.data.lr) == (101, 0.1, 5.0)
    assert Config() == Config(seed=0)


@pytest.mark.parametrize("line, key", [("lrr: 0.1", "lrr"), ("depth: deep", "model.depth")])
def test_what_does_not_fit_the_class_names_the_file(line, key):
    """An unknown key, and a value of a wrong type, in a group's file is an error with file and line."""
    write({"conf/model/typo.yaml": f"name: x\n{line}"})
    error = refused("conf", Config, model="typo", data="digits")
    assert "conf/model/typo.yaml:2" in str(error) and key in str(error)


def test_a_dict_or_config_can_lie_below():
    """What lies below the files may be any configuration."""
    for below in ({"seed": 7, "extra": 1}, OmegaConf.create({"seed": 7, "extra": 1})):
        made = compose("conf", below, data="digits")
        assert (made.seed, made.extra) == (1, 1)


def test_who_set_what_is_known():
    """Each key remembers its layers: class, config file, base file, group file."""
    made = compose("conf", Config, model="resnet101", data="digits")
    assert said(made, "model", "depth")[1:] == [("group file", "conf/model/resnet101.yaml:2", 101)]
    assert said(made, "model", "lr")[1:] == [("base file", "conf/model/resnet50.yaml:2", 0.1)]
    assert [kind for kind, _, _ in said(made, "seed")] == ["default", "config file"]


# -- what goes wrong -------------------------------------------------------------------------------------------------


def test_a_required_group_lists_its_choices():
    """A group marked `???` must be chosen; the error says where it is required and what there is."""
    error = refused("conf")
    assert error.message == "conf/config.yaml:4: _groups_: no choice for data"
    assert error.hint == "write data=CHOICE: augment/flip, augment/none, digits, letters"


UNKNOWN = {
    "choice": (
        "",
        {"model": "resnet11", "data": "digits"},
        "group model has no choice 'resnet11'",
        "did you mean resnet101? known: resnet101, resnet50, vision/vit, wide",
    ),
    "default": (
        "_groups_:\n  data: digit",
        {},
        "conf/config.yaml:2: _groups_: group data has no choice 'digit'",
        "did you mean digits? known: augment/flip, augment/none, digits, letters",
    ),
    "group": (
        "",
        {"modle": "x"},
        "no group modle in conf",
        "did you mean model? known: data, model, optim, pack",
    ),
    "inner group": (
        "",
        {"data.agument": "x"},
        "no group data.agument in conf",
        "did you mean augment? known: augment",
    ),
    "empty group": (
        "",
        {"optim": "x"},
        "group optim: conf/optim has no .yaml, .yml, .json, .toml, .py file",
        None,
    ),
    "package": ("", {"pack": "sgd"}, "group pack has no choice 'sgd'", "known: adam"),
    "mapping": (
        "seed: 1\n_groups_: [model]",
        {},
        "conf/config.yaml:2: _groups_ was given ['model']",
        "group: choice",
    ),
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_what_is_unknown_lists_what_there_is(case):
    """A choice or group that does not exist is an error with its place, the nearest name, and all there are."""
    text, groups, message, hint = UNKNOWN[case]
    Path("conf/optim").mkdir()
    write({"conf/config.yaml": text, "conf/pack/__init__.py": "", "conf/pack/adam.py": "lr = 1"})
    error = refused("conf", **groups)
    assert (error.message, error.hint) == (message, hint)


@pytest.mark.parametrize("name", ["x" * 5000, "\ud800"])
def test_names_that_no_file_can_have_are_unknown(name):
    """A name that is too long, or that no file system can write, is unknown like any other."""
    assert "has no choice" in refused("conf", model=name, data="digits").message
    assert "no group" in refused("conf", **{name: "x"}).message


def test_files_that_cannot_be_composed_are_named():
    """`_groups_` in a group's file, two `config.*`, and a root that is no folder are errors that name the files."""
    write({"conf/data/more.yaml": "classes: 1\n_groups_: {augment: flip}"})
    assert refused("conf", data="more").message == "conf/data/more.yaml: _groups_ cannot be used in a group"
    write({"conf/config.json": "{}"})
    assert "both conf/config.yaml and conf/config.json exist" in refused("conf").message
    for root in ("nothing", "conf/config.yaml"):
        assert refused(root).message.startswith(f"{root} must be a folder")


@pytest.mark.parametrize(
    "escape", ["../outside", "/etc/passwd", "vision/../../outside", ".", "", "a//b", "a\0b"]
)
def test_no_choice_leads_out_of_its_group(escape):
    """A choice names a file inside the folder of its group, and nothing else."""
    write({"conf/outside.yaml": "x: 1"})
    error = refused("conf", model=escape, data="digits")
    assert "no name of a file in it" in error.message and repr(escape) in error.message


@pytest.mark.parametrize("escape", ["..", "/etc", "model/../..", "", ".", "model.", "a/b"])
def test_no_group_leads_out_of_the_root(escape):
    """A group is a folder inside the root, and nothing else."""
    error = refused("conf", **{escape: "x"})
    assert error.message == f"unknown group {escape!r}"


@pytest.mark.parametrize("choice", [3, True, [1], {"augment": 3}, object])
def test_a_choice_that_is_no_name_is_refused(choice):
    """A choice is a name, a list of names, or None."""
    assert "was given" in refused("conf", data=choice).message


# -- again -----------------------------------------------------------------------------------------------------------


def test_a_group_can_be_chosen_again():
    """Another choice replaces the former one's file and leaves the other groups as they are; copies know them, too."""
    made = compose("conf", Config, data="digits", **{"data.augment": None})
    for known in (made, copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        again = merged(known, {"model": "resnet101"})
        assert (again.model.depth, again.data.classes, again.seed) == (101, 10, 1)
        assert again == compose("conf", Config, data="digits", model="resnet101")
        assert merged(again, {"model": "resnet50"}) == made
        assert merged(known, {"model": None}).model == Model()


def test_what_was_assigned_stays_when_a_group_is_chosen_again():
    """Values that the program assigned after composing lie above every choice."""
    made = compose("conf", Config, data="digits")
    made.seed = 3
    made.model.lr = 7.0
    again = merged(merged(made, {"model": "resnet101"}), {"data": "letters"})
    assert (again.seed, again.model.lr, again.model.depth, again.data.classes) == (3, 7, 101, 26)
    assert [kind for kind, _, _ in said(again, "seed")] == ["default", "config file", "program"]


# -- chosen above ----------------------------------------------------------------------------------------------------


ABOVE = {
    "config file": ["--config", "wide.yaml"],
    "_groups_": ["--config", "groups.yaml"],
    "base file": ["--config", "mine.yaml"],
    "experiment": ["--config", "shelf.yaml", "--experiment", "wide"],
    "overrides file": ["--overrides-path", "wide.txt"],
    "mapping of overrides": ["--overrides-path", "wide.yaml"],
    "override": ["model=wide"],
}


def write_choices():
    write(
        {
            "wide.yaml": "model: wide",
            "groups.yaml": "_groups_: {model: wide}",
            "mine.yaml": "_base_: wide.yaml\nmodel: {lr: 7}",
            "shelf.yaml": "experiments: {wide: {model: wide}}",
            "wide.txt": "model=wide  # the wide one",
        }
    )


@pytest.mark.parametrize("layer", ABOVE)
def test_every_layer_chooses_groups_by_a_text(layer):
    """A text at the key of a group chooses it, whatever layer says so; the group keeps being a mapping."""
    write_choices()
    lr = 7 if layer == "base file" else 0.1
    chosen = from_cli(compose("conf", data="digits"), ABOVE[layer])
    assert chosen.model == {"name": "resnet", "lr": lr, "out": 10, "half": lr, "width": 2}
    assert merged(chosen, {"model": "resnet50"}).model == {
        "name": "resnet",
        "lr": lr,
        "out": 10,
        "half": lr,
    }


def test_an_overrides_file_sets_keys_of_what_an_argument_chooses():
    """An overrides file may set what only the choice of a later argument has, and that choice beats one of its own."""
    write({"o.txt": "model.depth=7\ndata.classes=3", "p.txt": "model=wide"})
    arguments = ["--overrides-path", "o.txt", "--overrides-path", "p.txt", "model=resnet101", "data=digits"]
    chosen = from_cli(None, arguments, groups="conf")
    assert (chosen.model.depth, chosen.data.classes, chosen.model.get("width")) == (7, 3, None)


def test_combinations_choose_groups():
    """A sweep over a group has one file's values each; overrides from before stay on top."""
    config = from_cli(compose("conf", data="digits"), ["model.lr=3"])
    points = grid({"model": ["resnet50", "wide", ["resnet101", "wide"], {"lr": 4}]})
    found = [merged(config, point).model for point in points]
    assert [(model.lr, model.get("width"), model.get("depth")) for model in found] == [
        (3, None, None),
        (3, 2, None),
        (3, 2, 101),
        (4, None, None),
    ]


@pytest.mark.parametrize(
    "text, why",
    [
        ("model: 3", "config file c.yaml:1: group model was given 3"),
        ("model: wise", "config file c.yaml:1: group model has no choice 'wise'"),
        ("_groups_: {model: wise}", "config file c.yaml:1: _groups_: group model has no choice 'wise'"),
        ("model: [wide, 3]", "config file c.yaml:1: group model was given ['wide', 3]"),
    ],
)
def test_what_is_no_choice_is_an_error_that_lists_them(text, why):
    """Whatever else a layer gives at the key of a group is an error with place and choices."""
    write({"c.yaml": text})
    with pytest.raises(ConfigError) as caught:
        from_cli(compose("conf", data="digits"), ["--config", "c.yaml"])
    assert caught.value.message == why
    assert "resnet101, resnet50, vision/vit, wide" in caught.value.hint


def test_choosing_where_nothing_was_composed_is_refused():
    """`_groups_` in a file is no key of a configuration without groups."""
    write({"c.yaml": "lr: 1\n_groups_: {model: wide}"})
    for make in (load, lambda file: from_cli({}, ["--config", file]), lambda file: Run(file).__enter__()):
        with pytest.raises(ConfigError, match=r"config file c\.yaml:2: _groups_ has no effect"):
            make("c.yaml")


def test_the_command_line_chooses_required_groups():
    """`from_cli(groups=...)` composes once all layers have chosen; a text field beside a folder keeps its text."""
    write({"deep.yaml": "model: resnet101"})
    assert from_cli(None, ["data=digits"], groups="conf") == compose("conf", data="digits")
    made = from_cli(Config, ["data=letters", "model.lr=3", "--config", "deep.yaml"], groups="conf")
    assert (made.data.classes, made.model.depth, made.model.lr) == (26, 101, 3)
    with pytest.raises(ConfigError, match="no choice for data") as caught:
        from_cli(Config, [], groups="conf")
    assert caught.value.hint == "write data=CHOICE: augment/flip, augment/none, digits, letters"

    @dataclass
    class Named:
        data: str = "x"
        model: dict[str, Any] = field(default_factory=dict)

    write({"other/data/a.yaml": "n: 1", "other/model/b.yaml": "n: 1"})
    named = from_cli(Named, ["data=a", "model=b"], groups="other")
    assert (named.data, named.model) == ("a", {"n": 1})


def test_a_script_without_a_required_choice_ends_with_the_choices():
    """A choice that is missing is an `error:` without traceback; `--help` lists groups and experiments."""
    write_choices()
    write({"train.py": "from runctx import from_cli\nprint(from_cli(groups='conf').data.classes)"})
    run = [sys.executable, "train.py"]
    failed = subprocess.run(run, capture_output=True, text=True)
    assert (failed.returncode, failed.stdout) == (2, "")
    assert failed.stderr.splitlines() == [
        "error: conf/config.yaml:4: _groups_: no choice for data",
        "hint: write data=CHOICE: augment/flip, augment/none, digits, letters",
    ]
    assert subprocess.run([*run, "data=letters"], capture_output=True, text=True).stdout == "26\n"
    shown = subprocess.run([*run, "--help", "--config", "shelf.yaml"], capture_output=True, text=True).stdout
    assert "  data (required)             one of augment/flip, augment/none, digits," in shown
    assert "  model = resnet50            one of resnet101, resnet50, vision/vit, wide" in shown
    assert "experiments of shelf.yaml: wide" in shown


# -- one file --------------------------------------------------------------------------------------------------------


def test_experiments_in_a_file_are_no_part_of_the_configuration():
    """Wherever a file is read, its experiments are left out, unless a class has a field of that name."""
    write(
        {
            "base.yaml": "experiments: {a: {x: 1}}",
            "c.yaml": "_base_: base.yaml\nexperiments: {b: {x: 2}}\nseed: 4",
        }
    )
    assert load("c.yaml") == {"seed": 4}
    assert load("c.yaml", Config).seed == 4
    assert from_cli("c.yaml", []) == {"seed": 4}
    with Run("c.yaml", stage="files") as run:
        assert run.cfg == {"seed": 4}

    @dataclass
    class Lab:
        seed: int = 1
        experiments: dict[str, Any] = field(default_factory=dict)

    assert load("c.yaml", Lab).experiments == {"a": {"x": 1}, "b": {"x": 2}}
    write({"d.yaml": "experiments: 3"})
    assert load("d.yaml") == {"experiments": 3}


def test_load_lays_a_file_over_a_class():
    """A file, with its bases, over a dataclass, a dict, or nothing."""
    write({"base.py": "seed = 3", "top.yaml": "_base_: base.py\nmodel: {lr: 0.3}"})
    made: Config = load("top.yaml", Config)
    assert (made.seed, made.model.lr, made.model.depth) == (3, 0.3, 50)
    assert load("top.yaml") == {"seed": 3, "model": {"lr": 0.3}}
    assert load("top.yaml#model", {"x": 1}) == {"x": 1, "lr": 0.3}
    assert said(made, "seed")[1:] == [("base file", "base.py", 3)]


@pytest.mark.parametrize("name", ["config.yaml", "config.json", "config.toml", "config.py"])
def test_a_run_takes_a_file_of_any_format(name):
    """`Run("config.py")` holds what the file and its bases say."""
    texts = {
        ".yaml": "_base_: base.yaml\nlr: 0.2",
        ".json": '{"_base_": "base.yaml", "lr": 0.2}',
        ".toml": '_base_ = "base.yaml"\nlr = 0.2',
        ".py": "_base_ = 'base.yaml'\nlr = 0.2",
    }
    write({name: texts[Path(name).suffix], "base.yaml": "lr: 0.1\nepochs: 5"})
    with Run(name, stage="files") as run:
        assert run.cfg == {"lr": 0.2, "epochs": 5}
