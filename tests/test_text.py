"""A configuration as text, and what makes two configurations the same."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import MISSING, OmegaConf

from runctx import Run
from runctx.config import from_plain, to_plain
from runctx.config.text import structure, structure_digest, to_text, value_digest
from runctx.errors import ConfigError
from tests.strategies import config_keys, nested, scalars, texts

surrogates = st.text(st.sampled_from("a\ud83d\ude00\udc80😀\\ud8\u2028\x9b\u202e\"'.\n"), max_size=8)
values = st.one_of(scalars, surrogates, st.binary(max_size=3), st.floats())
keys = st.one_of(config_keys, surrogates, st.binary(max_size=3))


def can_be_held(plain: dict[Any, Any]) -> bool:
    """OmegaConf refuses `{1: ..., "1": ...}`."""
    try:
        from_plain(plain)
    except ConfigError:
        return False
    return True


plain_configs = nested(keys, values.filter(lambda value: value != "???")).filter(can_be_held)


def same(a: Any, b: Any) -> bool:
    """Equal, types and NaN included."""
    return repr(a) == repr(b)


class Color(Enum):
    RED = 1


@dataclass
class Opt:
    lr: float = 0.1


@dataclass
class Node:
    x: int = 1
    next: Node | None = None


# `OmegaConf` looks for the names of annotations in the module
@dataclass
class Config:
    lr: float = 0.1
    steps: int | None = None
    layers: list[int] = field(default_factory=list)
    opt: Opt | None = None
    either: int | float = 1
    path: Path = Path("a/b")
    color: Color = Color.RED
    anything: Any = None
    save_dir: str | None = None


class TestText:
    def test_shows_every_value(self):
        """One line per value, sorted by key, values in JSON."""
        config = {
            "b": {"x": 1, "a.b": True, 3: "é", "4": [1.5, {"y": None}]},
            "a": "two\nlines",
            "empty": {},
            "nothing": None,
            "path": Path("x/y"),
            "color": Color.RED,
            "odd": [float("inf"), float("nan"), b"\x00\xff", {1: {"$x": 2}}],
            0.5: b"",
        }
        assert to_text(config).split("\n") == [
            '[0.5] = {"$bytes": ""}',
            'a = "two\\nlines"',
            'b."4" = [1.5, {"y": null}]',
            'b."a.b" = true',
            'b.3 = "é"',
            "b.x = 1",
            'color = "RED"',
            "empty = {}",
            "nothing = null",
            'odd = [Infinity, NaN, {"$bytes": "00ff"}, {"$items": [[1, {"$items": [["$x", 2]]}]]}]',
            'path = "x/y"',
            "",
        ]

    @given(plain_configs, plain_configs)
    def test_tells_different_ones_apart(self, a, b):
        """Two configurations have one text only if each path and value is the same: `1` is not `1.0`."""
        a, b = from_plain(a), from_plain(b)
        one, other = to_text(a, redact=False), to_text(b, redact=False)
        one.encode()
        assert sorted(one.split("\n")[:-1]) == one.split("\n")[:-1]
        assert (one == other) == same(_leaves(to_plain(a)), _leaves(to_plain(b)))

    @given(st.lists(values, min_size=2, max_size=2))
    def test_tells_different_values_apart(self, pair):
        """The same of single values."""
        a, b = ({"a": value} for value in pair)
        assert (to_text(from_plain(a), redact=False) == to_text(from_plain(b), redact=False)) == same(a, b)

    def test_what_can_be_written(self, tmp_path):
        """A configuration, a dataclass, an instance, a dict, a run, and a past run give the same text."""
        config = Config(lr=0.5, opt=Opt(), save_dir=str(tmp_path / "run"))
        text = to_text(config)
        assert text == to_text(OmegaConf.structured(config)) == to_text(dataclasses.asdict(config))
        assert to_text(Config) == to_text(Config())
        with Run(config, console=False) as run:
            pass
        assert to_text(run) == to_text(Run.load(run.save_dir)) == to_text(Run.load(run.save_dir, Config))
        assert to_text(run) == text

    def test_secrets_are_redacted(self, tmp_path, monkeypatch):
        """Secrets are not written, those that the settings name included, unless one asks for them."""
        (tmp_path / "pyproject.toml").write_text('[tool.runctx]\nredact = ["pin"]\n')
        monkeypatch.chdir(tmp_path)
        config = {"api_key": "abcdefgh", "pin": 1234, "url": "https://me:pass@host", "note": "is abcdefgh"}
        assert to_text(config) == (
            'api_key = "<redacted>"\nnote = "is <redacted>"\npin = "<redacted>"\nurl = "https://me:<redacted>@host"\n'
        )
        assert 'note = "is abcdefgh"\npin = 1234\n' in to_text(config, redact=False)
        assert value_digest(config) != value_digest({**config, "api_key": "ijklmnop"})

    def test_values_are_resolved(self):
        """Interpolations are computed; those that cannot be are an error that names the key."""
        assert to_text({"a": 1, "b": "${a}"}) == "a = 1\nb = 1\n"
        assert to_text({"a": r"\${b}"}) == 'a = "${b}"\n'
        with pytest.raises(ConfigError, match="b"):
            to_text({"b": "${nothing}"})
        with pytest.raises(ConfigError, match="cannot be made of 3"):
            to_text(3)


def _leaves(value: Any, path: str = "") -> dict[str, str]:
    """Also equal where two mappings have the same keys in another order."""
    if isinstance(value, dict) and value:
        return dict(sorted(x for k, v in value.items() for x in _leaves(v, f"{path}/{k!r}").items()))
    if isinstance(value, (list, tuple)):
        return {path: repr([_leaves(item) for item in value])}
    return {path: repr(value)}


FROZEN: dict[str, Any] = {
    "lr": 0.1,
    "epochs": 5,
    "name": "é\u2028",
    "flags": [True, None, 1e-7, float("inf"), {"a": 1, 2: b"\x00"}],
    "opt": {"betas": [0.9, 0.999], "a.b": {}, 3: -0.0},
    "save_dir": "results/1",
}


class TestDigests:
    def test_frozen(self):
        """The digests are what they were in every release."""
        assert value_digest(FROZEN) == (
            "blake3:7a2802aa2c32668951c0bdb06d1ab35be8f6563cc5fd2b45e4d992bd2a96ab84"
        )
        assert structure_digest(FROZEN) == (
            "blake3:a77d1d3bb08f35688d65ec76baca80eb857d94a9cf0a324ae45d13338a4e6e16"
        )
        assert structure_digest(Config) == (
            "blake3:113a24614bd0155ac279ff80c24bd8cacf1fc591523b8124d2595b27c35ca6be"
        )

    @given(plain_configs, st.randoms(use_true_random=False))
    def test_order_does_not_matter(self, plain, random):
        """Neither digest depends on the order in which keys were given."""
        shuffled = _shuffled(plain, random)
        assert value_digest(shuffled) == value_digest(plain)
        assert structure_digest(shuffled) == structure_digest(plain)

    @given(plain_configs)
    def test_plain_values_are_enough(self, plain):
        """Without classes, plain values have the digests of the configuration that holds them."""
        config = from_plain(plain)
        assert value_digest(to_plain(config)) == value_digest(config)
        assert structure_digest(to_plain(config)) == structure_digest(config)
        assert structure_digest(config, to_plain(config)) == structure_digest(config)

    def test_save_dir_is_left_out(self):
        """Where a run writes to makes no difference; a key of that name further down does."""
        for digest in (value_digest, structure_digest):
            assert digest({"a": 1, "save_dir": "x"}) == digest({"a": 1, "save_dir": None}) == digest({"a": 1})
        assert value_digest({"a": {"save_dir": "x"}}) != value_digest({"a": {"save_dir": "y"}})

    def test_a_run_and_its_record(self, tmp_path):
        """A live run and what is read back months later have the same digest of values."""
        with Run({"p": Path("a"), "n": [1, (2, 3)]}, save_dir=tmp_path / "run", console=False) as run:
            pass
        assert value_digest(run) == value_digest(Run.load(run.save_dir))
        assert structure_digest(run) == structure_digest(Run.load(run.save_dir))

    def test_a_record_knows_what_the_run_knew(self, tmp_path):
        """Types that only the dataclass tells, and secrets that no lock holds, make no difference between the two."""
        Keyed = dataclasses.make_dataclass("Keyed", [("n", int | None, None), ("api_key", str, "abcdefgh")])
        with Run(Keyed, save_dir=tmp_path / "run", console=False) as run:
            pass
        past = Run.load(run.save_dir)
        assert structure_digest(past) == structure_digest(run) == structure_digest(Keyed(n=3))
        assert value_digest(past) == value_digest(run) == run.lock.config_digest


def _shuffled(value: Any, random: Any) -> Any:
    if isinstance(value, list):
        return [_shuffled(item, random) for item in value]
    if not isinstance(value, dict):
        return value
    items = [(key, _shuffled(item, random)) for key, item in value.items()]
    random.shuffle(items)
    return dict(items)


class TestStructure:
    def test_shows_every_type(self):
        """One line per key with its type, sorted."""
        assert structure(Config).split("\n") == [
            "anything: null",
            "color: str",
            "either: float | int",
            "layers: list[int]",
            "lr: float",
            "opt.lr: float",
            "path: str",
            "steps: int",
            "",
        ]
        assert structure({"a": [], "b": [1, "x", {"y": [None]}], "c": {}, "d": [[1], [2.0]]}).split("\n") == [
            "a: list[]",
            "b: list[int | str | {y: list[null]}]",
            "c: {}",
            "d: list[list[float] | list[int]]",
            "",
        ]

    @pytest.mark.parametrize(
        "other",
        [
            Config(lr=7.0),
            Config(steps=3),
            Config(layers=[1, 2, 3]),
            Config(opt=Opt(lr=3)),
            Config(either=0.5),
            Config(path=Path("z"), save_dir="x"),
        ],
    )
    def test_other_numbers(self, other):
        """None in an optional field, an empty list and a missing part are what they would be with a value."""
        assert structure(other) == structure(Config)

    @pytest.mark.parametrize(
        ("a", "b"),
        [
            ({"x": 1}, {"x": 1.0}),
            ({"x": True}, {"x": 1}),
            ({"x": "1"}, {"x": 1}),
            ({"x": None}, {"x": 1}),
            ({"x": [1]}, {"x": [1.0]}),
            ({"x": [True]}, {"x": [1]}),
            ({"x": [{"a": 1}]}, {"x": [{"b": 1}]}),
            ({"x": [[1]]}, {"x": [1]}),
            ({"x": 1}, {"y": 1}),
            ({"x": {}}, {"x": []}),
            ({"x": {1: 2}}, {"x": {"1": 2}}),
            (Config(anything=1), Config(anything="a")),
        ],
    )
    def test_another_experiment(self, a, b):
        """Other keys and other types are told apart, in lists too; an int is no bool, and no float."""
        assert structure_digest(a) != structure_digest(b)

    def test_lists(self):
        """The length of a list and the order of its types do not matter."""
        assert structure({"x": [1, "a", 2.0]}) == structure({"x": ["b", 0.5, 3, 4, "c"]})

    def test_class_and_dict_agree(self):
        """Where the values tell their types, a dict has the structure of the dataclass."""
        assert structure(Opt) == structure({"lr": 3.0})

    def test_parts_that_may_be_none(self):
        """Parts, lists of parts and mappings of lists have the structure that their types say."""
        Row = dataclasses.make_dataclass(
            "Row",
            [
                ("opts", list[Opt], field(default_factory=list)),
                ("perhaps", list[Opt | None] | None, None),
                ("pair", tuple[int, int], (1, 2)),
                ("table", dict[str, list[int | None]], field(default_factory=dict)),
                ("needed", int, MISSING),
                ("same", int, 1),
                ("bare", list, field(default_factory=list)),
            ],
        )
        empty = Row(needed=1)
        full = Row(opts=[Opt(), Opt()], perhaps=[None, Opt()], needed=2)
        assert structure(full) == structure(empty) == structure(Row)
        assert "opts: list[{lr: float}]" in structure(empty)
        assert "perhaps: list[{lr: float}]" in structure(empty)
        assert "pair: list[int]" in structure(empty)
        assert "table.a: list[int]" in structure(Row(needed=1, table={"a": []}))
        assert structure(Row(needed=1, table={"a": [None, 3]})) == structure(Row(needed=1, table={"a": []}))

    def test_a_class_that_contains_itself(self):
        """However deep it is filled, a class that contains itself has one structure."""
        assert structure(Node) == structure(Node(next=Node(x=2, next=Node()))) == "next: Node\nx: int\n"

    def test_interpolations(self):
        """A value that is computed has the type it has when it is computed, and a part that is another's its keys."""
        config = OmegaConf.create({"a": 1, "b": "${a}", "c": {"d": 0.5}, "e": "${c}", "f": ["${c}"]})
        assert structure(config) == "a: int\nb: int\nc.d: float\ne.d: float\nf: list[{d: float}]\n"
        assert structure(from_plain({"a": "${x}"})) == "a: str\n"
        Later = dataclasses.make_dataclass("Later", [("a", int, 1), ("b", int, "${.a}")])
        Outer = dataclasses.make_dataclass("Outer", [("part", Later | None, None)])
        assert structure(Outer) == structure(Outer(part=Later())) == "part.a: int\npart.b: int\n"

    def test_after_a_run_froze_it(self, tmp_path):
        """What a run holds has the structure of what it was given."""
        with Run(Config(), save_dir=tmp_path / "run", console=False) as run:
            pass
        assert structure(run) == structure(Config)

    @given(texts)
    def test_any_key_is_one_line(self, key):
        """A key cannot make a second line."""
        assert structure({key: {"a": 1}}).count("\n") == 1 or key == "save_dir"
