"""Files that build upon files: what is laid in which order, what is mounted where, and who is told what went wrong."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from runctx.config import inherit
from runctx.config.inherit import load_tree
from runctx.config.layers import DELETE, REPLACE, Branch, Layer, at, leaves, merge, plain, tree
from runctx.errors import ConfigError


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write(paths: dict[str, str] | None = None, /, **files: str) -> None:
    """`write({"sub/b.toml": "..."}, a_yaml="...")` makes sub/b.toml and a.yaml."""
    named = {".".join(name.rsplit("_", 1)).replace("__", "/"): text for name, text in files.items()}
    for name, text in {**(paths or {}), **named}.items():
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def values(reference: Any) -> dict[Any, Any]:
    return plain(load_tree(reference))


def said(branch: Branch, *path: Any) -> list[tuple[str, str, Any]]:
    leaf = at(branch, path)
    assert isinstance(leaf, tuple)
    return [(setting.layer.kind, setting.where, setting.value) for setting in leaf]


def refused(reference: Any) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load_tree(reference)
    return caught.value


# -- order -----------------------------------------------------------------------------------------------------------


def test_every_format_builds_upon_every_other():
    """YAML, JSON, TOML and Python files name each other as bases, relative to the file that names them."""
    write(
        a_yaml="_base_: sub/b.json\na: yaml",
        sub__b_json='{"_base_": ["../c.toml"], "a": "json", "b": "json"}',
        c_toml='_base_ = "sub/d.py"\na = "toml"\nb = "toml"\nc = "toml"',
        sub__d_py="a = b = c = d = 'python'",
    )
    assert values("a.yaml") == {"a": "yaml", "b": "json", "c": "toml", "d": "python"}


def test_each_layer_is_named_with_its_line(tmp_path, monkeypatch):
    """Who set a key: the file itself is a config file, all below it base files, relative to the folder they lie in."""
    write(configs__top_yaml="_base_: base.yaml\n\nlr: 0.2", configs__base_yaml="epochs: 5\nlr: 0.1")
    Path("elsewhere.yaml").write_text("lr: 1")
    loaded = load_tree("configs/top.yaml")
    assert said(loaded, "lr") == [
        ("base file", "configs/base.yaml:2", 0.1),
        ("config file", "configs/top.yaml:3", 0.2),
    ]
    (setting,) = load_tree(Path("configs/base.yaml").absolute(), "experiment").children["lr"]
    assert (setting.layer.kind, setting.where) == ("experiment", "configs/base.yaml:2")
    monkeypatch.chdir("configs")
    assert said(load_tree("../elsewhere.yaml"), "lr")[0][1] == f"{tmp_path}/elsewhere.yaml:1"


def test_later_bases_win_and_the_file_itself_wins_over_all():
    """Bases lie in the order they are listed, the file above them."""
    write(a_yaml="x: a\ny: a\nz: a", b_yaml="x: b\ny: b", top_yaml="_base_: [a.yaml, b.yaml]\nx: top")
    assert values("top.yaml") == {"x": "top", "y": "b", "z": "a"}
    write(none_yaml="_base_: []\nx: 1")
    assert values("none.yaml") == {"x": 1}


def test_a_diamond_is_laid_once():
    """A base that others share lies below all of them, by whatever name they reach it, and is read once."""
    write(
        d__base_py="with open('reads', 'a') as _reads:\n    _reads.write('x')\nlr = 1",
        a_yaml="_base_: d/base.py\nlr: 2",
        b_yaml="_base_: [d/../d/base.py, link.py]",
        top_yaml="_base_: [a.yaml, b.yaml]",
    )
    Path("link.py").symlink_to("d/base.py")
    assert values("top.yaml") == {"lr": 2}
    assert Path("reads").read_text() == "x"
    assert values(["a.yaml", "b.yaml"]) == {"lr": 2}
    assert values([]) == {}


NAMES = st.sampled_from(["a", "b", "c"])
MARKERS = st.one_of(
    st.just({}),
    st.sampled_from([{REPLACE: True}, {DELETE: True}]),
    st.lists(NAMES, max_size=2).map(lambda keys: {DELETE: keys}),
)


def mappings(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.builds(
        lambda markers, rest: {**markers, **rest}, MARKERS, st.dictionaries(NAMES, inner, max_size=3)
    )


MAPPINGS = mappings(st.recursive(st.integers(0, 9), mappings, max_leaves=5))
UNMARKED = MAPPINGS.map(lambda values: {k: v for k, v in values.items() if k not in (REPLACE, DELETE)})
many_files = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=60
)


@many_files
@given(st.lists(UNMARKED, min_size=1, max_size=4))
def test_a_chain_of_files_is_the_fold_of_its_layers(tmp_path, chain):
    """Files that build upon each other make what their contents make when they are laid on each other."""
    folded = Branch()
    for number, content in enumerate(chain):
        base = {"_base_": f"{number - 1}.json"} if number else {}
        (tmp_path / f"{number}.json").write_text(json.dumps({**base, **content}))
        folded = merge(folded, tree(content, Layer(kind="base file", name=f"{number}.json")))
    loaded = load_tree(tmp_path / f"{len(chain) - 1}.json")
    assert plain(loaded) == plain(folded)
    winners = {path: leaf[-1].layer.name for path, leaf in leaves(loaded)}
    assert winners == {path: leaf[-1].layer.name for path, leaf in leaves(folded)}


@many_files
@given(UNMARKED, st.lists(MAPPINGS, min_size=1, max_size=3), st.lists(NAMES, min_size=1, max_size=3))
def test_a_mounted_chain_is_the_chain_under_its_place(tmp_path, own, chain, place):
    """What is mounted is what the same files make alone; what the file itself says there lies above it."""
    for number, content in enumerate(chain):
        (tmp_path / f"{number}.json").write_text(json.dumps(content))
    bases = [f"{number}.json" for number in range(len(chain))]
    mounting, beside = nested(place, {"_base_": bases}), nested(place, own)
    (tmp_path / "mounting.json").write_text(json.dumps(mounting))
    (tmp_path / "beside.json").write_text(json.dumps({"_base_": "mounting.json", **beside}))
    (tmp_path / "together.json").write_text(json.dumps(nested(place, {"_base_": bases, **own})))
    alone = plain(load_tree([tmp_path / base for base in bases]))
    assert plain(load_tree(tmp_path / "mounting.json")) == nested(place, alone)
    assert plain(load_tree(tmp_path / "together.json")) == plain(load_tree(tmp_path / "beside.json"))


def nested(place: list[str], value: Any) -> Any:
    for key in reversed(place):
        value = {key: value}
    return value


@many_files
@given(st.lists(st.lists(st.integers(0, 7), max_size=3), min_size=1, max_size=8))
def test_the_order_of_any_graph_puts_files_above_their_bases(tmp_path, graph):
    """However files share bases, each is laid once, and above all that it builds upon."""
    below = [[base for base in bases if base < number] for number, bases in enumerate(graph)]
    for number, bases in enumerate(below):
        content = {"_base_": [f"{base}.json" for base in bases], "who": number}
        (tmp_path / f"{number}.json").write_text(json.dumps(content))
    leaf = load_tree(tmp_path / f"{len(graph) - 1}.json").children["who"]
    order = [setting.value for setting in leaf]
    assert len(set(order)) == len(order)
    for number in order:
        assert all(order.index(base) < order.index(number) for base in below[number])


# -- markers ---------------------------------------------------------------------------------------------------------


def test_markers_act_on_what_bases_say_across_chains():
    """`_replace_` and `_delete_` end what any file below said, at any depth."""
    write(
        a_yaml="opt: {name: sgd, momentum: 0.9, schedule: {kind: step, gamma: 0.1}}\ndata: {name: digits}",
        b_yaml="_base_: a.yaml\nopt: {lr: 0.1}",
        c_yaml="_base_: b.yaml\n"
        "opt: {_delete_: [momentum, nothing], schedule: {_replace_: true, kind: cosine}}\n"
        "data: {_delete_: true}",
    )
    assert values("c.yaml") == {"opt": {"name": "sgd", "lr": 0.1, "schedule": {"kind": "cosine"}}}


def test_openmmlab_configs_load():
    """A Python config with `_base_` and `_delete_=True`, as OpenMMLab's, gives what it gives there."""
    write(
        {
            "_base_/models/r50.py": "norm = dict(type='BN')\n"
            "model = dict(type='Net', backbone=dict(depth=50), head=dict(type='FC', norm=norm))",
            "_base_/schedule.py": "optimizer = dict(type='SGD', lr=0.1, momentum=0.9)\nepochs = 100",
            "resnet/r101.py": "_base_ = ['../_base_/models/r50.py', '../_base_/schedule.py']\n"
            "model = dict(backbone=dict(depth=101))\n"
            "optimizer = dict(_delete_=True, type='Adam', lr=1e-3)",
        }
    )
    assert values("resnet/r101.py") == {
        "norm": {"type": "BN"},
        "model": {
            "type": "Net",
            "backbone": {"depth": 101},
            "head": {"type": "FC", "norm": {"type": "BN"}},
        },
        "optimizer": {"type": "Adam", "lr": 1e-3},
        "epochs": 100,
    }


@pytest.mark.parametrize("marker", ["_replace_", "_delete_"])
def test_a_mapping_that_replaces_keeps_its_own_base(marker):
    """`_replace_: true` beside `_base_` ends what lies below, and mounts its base in place of that."""
    write(
        base_yaml="sched: {kind: step, gamma: 0.1}",
        cosine_yaml="kind: cosine\nt_max: 10",
        top_yaml=f"_base_: base.yaml\nsched: {{_base_: cosine.yaml, {marker}: true, t_max: 20}}",
        bare_yaml=f"_base_: base.yaml\nsched: {{_base_: cosine.yaml, {marker}: true}}",
    )
    assert values("top.yaml") == {"sched": {"kind": "cosine", "t_max": 20}}
    assert values("bare.yaml") == {"sched": {"kind": "cosine", "t_max": 10}}


def test_a_file_that_replaces_keeps_its_own_bases():
    """`_replace_: true` at the top of a file ends what other files said, not the bases that it names itself."""
    write(
        base_yaml="x: base\ny: base",
        a_yaml="_base_: base.yaml\nx: a\nz: a",
        b_yaml="_base_: base.yaml\n_replace_: true\ny: b",
        top_yaml="_base_: [a.yaml, b.yaml]",
        after_yaml="_base_: [top.yaml, base.yaml]",
    )
    assert values("top.yaml") == {"x": "base", "y": "b"}
    assert values("after.yaml") == values("top.yaml")


def test_deleting_keys_beside_a_base_deletes_from_it():
    """`_delete_: [keys]` beside `_base_` leaves these keys of the base out."""
    write(sched_yaml="kind: step\ngamma: 0.1", top_yaml="sched: {_base_: sched.yaml, _delete_: [gamma]}")
    assert values("top.yaml") == {"sched": {"kind": "step"}}


# -- mounting --------------------------------------------------------------------------------------------------------


def test_a_base_is_mounted_where_it_is_named():
    """`_base_` in a nested mapping lays files there, below what the mapping says itself."""
    write(
        sched_py="epochs = 30\nwarmup = 3",
        top_toml='lr = 0.1\n[train.sched]\n_base_ = "sched.py"\nepochs = 15',
    )
    loaded = load_tree("top.toml")
    assert plain(loaded) == {"lr": 0.1, "train": {"sched": {"epochs": 15, "warmup": 3}}}
    assert said(loaded, "train", "sched", "epochs") == [
        ("base file", "sched.py", 30),
        ("config file", "top.toml", 15),
    ]


def test_mounted_files_mount_files():
    """Mounting works at every depth, in mounted files as well, inner places below outer ones."""
    write(
        leaf_yaml="x: 1\ny: 1\nz: 1",
        mid_yaml="inner: {_base_: leaf.yaml, y: 2}",
        top_yaml="outer: {_base_: mid.yaml, inner: {_base_: other.yaml, z: 3}}",
        other_yaml="w: 4",
    )
    assert values("top.yaml") == {"outer": {"inner": {"x": 1, "y": 2, "z": 3, "w": 4}}}


def test_a_mounted_tree_reads_its_own_keys_first():
    """Interpolations in a mounted file mean its own keys where it has them, else those of the whole."""
    write(
        sched_yaml="epochs: 30\nhalf: {of: '${epochs}'}\nlr: ${base_lr}",
        top_yaml="epochs: 99\nbase_lr: 0.5\ntrain: {sched: {_base_: sched.yaml, epochs: 10}}",
    )
    made = OmegaConf.to_container(OmegaConf.create(values("top.yaml")), resolve=True)
    assert made["train"]["sched"] == {"epochs": 10, "half": {"of": 10}, "lr": 0.5}


def test_a_selected_mapping_is_the_top_of_its_derivations():
    """A derived value in a selected part of a Python file reads that part, as overridden where it is mounted."""
    write(
        all_py="from runctx import derived\n"
        "short = dict(epochs=20, warmup=derived(lambda c: c.epochs // 10))",
        top_yaml="epochs: 1\ndeep: {sched: {_base_: all.py#short, epochs: 50}}",
    )
    assert OmegaConf.create(values("top.yaml")).deep.sched.warmup == 5
    assert OmegaConf.create(values("all.py#short")).warmup == 2


def test_the_same_mount_twice_is_laid_once():
    """At one place a file is mounted once, and what a base set there stays; at several places at each of them."""
    write(
        sched_yaml="epochs: 30\nwarmup: 3",
        base_yaml="sched: {_base_: sched.yaml, epochs: 10}",
        top_yaml="_base_: base.yaml\nsched: {_base_: sched.yaml, warmup: 1}",
    )
    assert values("top.yaml") == {"sched": {"epochs": 10, "warmup": 1}}
    write(several_yaml="g: {_base_: sched.yaml}\nd: {_base_: sched.yaml, warmup: 2}")
    assert values("several.yaml") == {"g": {"epochs": 30, "warmup": 3}, "d": {"epochs": 30, "warmup": 2}}


@pytest.mark.parametrize(
    "ended", ["{_delete_: [sched]}", "sched: {_replace_: true}", "sched: 3", "_replace_: true"]
)
def test_what_was_ended_is_laid_again(ended):
    """A base that was laid once, and ended by a file in between, is there again for who asks for it after that."""
    write(
        sched_yaml="epochs: 30\nwarmup: 3",
        a_yaml="sched: {_base_: sched.yaml, warmup: 2}",
        ended_yaml=ended,
        b_yaml="sched: {_base_: sched.yaml, epochs: 10}",
        top_yaml="_base_: [a.yaml, ended.yaml, b.yaml]",
        without_yaml="_base_: [a.yaml, b.yaml]",
    )
    assert values("top.yaml") == {"sched": {"epochs": 10, "warmup": 3}}
    assert values("without.yaml") == {"sched": {"epochs": 10, "warmup": 2}}


# -- selecting -------------------------------------------------------------------------------------------------------

EXPERIMENTS = """\
lr: 0.1
experiments:
  low: {lr: 0.01, epochs: 5}
  long: {_base_: "#experiments.low", epochs: 50}
  longer: {_base_: "#experiments.long", epochs: 500}
"""


def test_experiments_of_one_file_build_upon_each_other():
    """`#key` is a mapping of the same file, and so on in a chain; what an experiment takes from there is its own."""
    write(e_yaml=EXPERIMENTS, top_yaml="_base_: e.yaml#experiments.longer\nepochs: 7")
    loaded = load_tree("e.yaml#experiments.longer", "experiment")
    assert plain(loaded) == {"lr": 0.01, "epochs": 500}
    assert [(kind, where) for kind, where, _ in said(loaded, "epochs")] == [
        ("experiment", "e.yaml:3"),
        ("experiment", "e.yaml:4"),
        ("experiment", "e.yaml:5"),
    ]
    assert values("top.yaml") == {"lr": 0.01, "epochs": 7}
    assert values("e.yaml")["experiments"]["longer"] == {"lr": 0.01, "epochs": 500}


def test_what_a_file_builds_upon_is_selected_with_it():
    """A selected mapping lies over what the bases of the file have at the same keys, or comes from them alone."""
    write(
        common_yaml="experiments: {a: {x: 1, y: 1}, b: {x: 2}}",
        e_yaml="_base_: common.yaml\nexperiments: {a: {y: 3}, c: {_base_: '#experiments.b', z: 4}}",
        r_yaml="_base_: common.yaml\nexperiments: {_replace_: true, a: {y: 3}}",
        d_yaml="_base_: common.yaml\nexperiments: {_delete_: [a], a: {y: 3}}",
    )
    assert values("e.yaml#experiments.a") == {"x": 1, "y": 3}
    assert values("e.yaml#experiments.b") == {"x": 2}
    assert values("e.yaml#experiments.c") == {"x": 2, "z": 4}
    assert values("r.yaml#experiments.a") == values("d.yaml#experiments.a") == {"y": 3}


def test_a_mapping_may_build_upon_a_part_of_itself():
    """A file's default may be one of its own experiments."""
    write(
        e_yaml="_base_: '#experiments.a'\nepochs: 5\nexperiments: {a: {lr: 1}, b: {_base_: '#experiments.a', wd: 1}}",
        inner_yaml="x: {_base_: '#x.y', y: {z: 1}}",
    )
    assert values("e.yaml") == {
        "lr": 1,
        "epochs": 5,
        "experiments": {"a": {"lr": 1}, "b": {"lr": 1, "wd": 1}},
    }
    assert values("e.yaml#experiments.b") == {"lr": 1, "wd": 1}
    assert values("inner.yaml") == {"x": {"z": 1, "y": {"z": 1}}}


def test_keys_that_are_numbers_or_hold_dots_can_be_selected():
    """A key is selected by its text, in quotes if it holds a dot."""
    write(e_yaml='stages: {1: {x: 1}, "v1.5": {x: 2}}')
    assert values("e.yaml#stages.1") == {"x": 1}
    assert values('e.yaml#stages."v1.5"') == {"x": 2}


def test_a_file_name_may_hold_a_number_sign():
    """A file that exists under the whole name is that file."""
    Path("run#3.yaml").write_text("x: {y: 1}")
    assert values("run#3.yaml") == {"x": {"y": 1}}
    assert values("run#3.yaml#x") == {"y": 1}


# -- what goes wrong -------------------------------------------------------------------------------------------------


def test_a_missing_base_names_who_asked_for_it():
    """The file and the line that name a missing base are in the message."""
    write(a_yaml="_base_: b.yaml", b_yaml="x: 1\nsub:\n  _base_: [c.yaml, nothing.yaml]", c_yaml="y: 1")
    error = refused("a.yaml")
    assert error.message.startswith("b.yaml:3: _base_ nothing.yaml: ")
    assert "nothing.yaml" in error.message and "does not exist" in error.message


def test_a_broken_base_names_who_asked_for_it():
    """A base that cannot be read is named with its own line, and the line that asked for it."""
    write(a_yaml="lr: 1\n_base_: b.yaml", b_yaml="x: 1\nx: 2")
    error = refused("a.yaml")
    assert error.message.startswith("a.yaml:2: _base_ b.yaml: ")
    assert "line 2" in error.message


@pytest.mark.parametrize(
    ("files", "circle"),
    [
        ({"a_yaml": "_base_: a.yaml"}, "a.yaml -> a.yaml"),
        ({"a_yaml": "_base_: b.json", "b_json": '{"_base_": "a.yaml"}'}, "a.yaml -> b.json -> a.yaml"),
        ({"a_yaml": "x: {_base_: a.yaml}"}, "a.yaml -> a.yaml"),
        ({"a_yaml": "x: {_base_: '#x'}"}, "a.yaml#x -> a.yaml#x"),
        (
            {"a_yaml": "x: {_base_: '#y'}\ny: {_base_: 'a.yaml#x'}"},
            "a.yaml#y -> a.yaml#x -> a.yaml#y",
        ),
    ],
)
def test_a_cycle_is_named(files, circle):
    """A file that builds upon itself is refused with the whole circle; another name for it does not hide that."""
    write(**files)
    error = refused("a.yaml")
    assert f"builds upon itself: {circle}" in error.message
    assert error.message.startswith(("a.yaml:1: _base_ ", "b.json: _base_ "))
    Path("deeper").symlink_to(".")
    write(link_yaml="_base_: deeper/link.yaml")
    assert "builds upon itself" in refused("link.yaml").message


def test_a_bomb_of_mounts_is_refused():
    """Files that mount each other twice at every level are refused before they fill the memory."""
    for number in range(40):
        Path(f"{number}.yaml").write_text(
            f"a: {{_base_: {number + 1}.yaml}}\nb: {{_base_: {number + 1}.yaml}}"
        )
    Path("40.yaml").write_text("x: 1")
    assert f"more than {inherit.MAX_LAID} files" in refused("0.yaml").message


@pytest.mark.parametrize("bad", ["3", "{a: b}", "[a.yaml, 3]", "true"])
def test_a_base_that_is_no_file_is_refused(bad):
    """`_base_` takes a file or a list of files."""
    write(top_yaml=f"x: 1\n_base_: {bad}")
    error = refused("top.yaml")
    assert error.message.startswith("top.yaml:2: _base_ must be a file or a list of files; got ")
    assert error.hint == "_base_: a file, or a list of files"


def test_a_base_in_a_list_is_refused():
    """A list is one value: a `_base_` in it would be silently ignored, so it is refused."""
    write(top_yaml="x: 1\nsteps:\n  - {kind: a}\n  - [{more: {_base_: b.yaml}}]")
    assert refused("top.yaml").message.startswith("top.yaml:2: _base_ cannot be in a list")


def test_an_unknown_key_lists_those_there_are():
    """Selecting what a file does not have names the nearest key and all of them, and who asked."""
    write(e_yaml=EXPERIMENTS, top_yaml="_base_: e.yaml#experiments.logn")
    error = refused("top.yaml")
    assert error.message == ("top.yaml:1: _base_ e.yaml#experiments.logn: e.yaml has no key experiments.logn")
    assert error.hint == "did you mean long? known: low, long, longer"
    assert refused("e.yaml#nothing.at.all").message == "e.yaml has no key nothing"


def test_a_selected_value_must_be_a_mapping():
    """A single value cannot be laid below a mapping."""
    write(e_yaml=EXPERIMENTS)
    assert refused("e.yaml#lr").message == "e.yaml#lr must be a mapping"
    assert refused("e.yaml#lr.x").message == "e.yaml has no key lr.x"


def test_names_that_no_file_can_have_are_refused():
    """A name that is too long, or that no file system can write, is an error like any other."""
    for number, name in enumerate(("x" * 5000 + ".yaml#key", "\ud800.yaml", "a\0.yaml")):
        Path(f"{number}.json").write_text(json.dumps({"_base_": name}))
        assert refused(f"{number}.json").message.startswith(f"{number}.json: _base_ ")


@pytest.mark.parametrize("reference", ["#x", "e.yaml#a..b", "e.yaml#a.", 'e.yaml#"a', "e\0.yaml"])
def test_a_reference_that_names_nothing_is_refused(reference):
    """What is no file and keys in it is refused by name."""
    write(e_yaml="a: {b: {x: 1}}")
    assert repr(reference) in refused(reference).message


def test_a_fifo_or_folder_as_base_is_refused():
    """A base that is no regular file neither blocks nor crashes."""
    os.mkfifo("pipe.yaml")
    Path("folder.yaml").mkdir()
    write(a_yaml="_base_: pipe.yaml", b_yaml="_base_: folder.yaml")
    for reference in ("a.yaml", "b.yaml"):
        assert refused(reference).message.startswith(f"{reference}:1: _base_ ")
