"""What an override on the command line does, and what its text means."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

import pytest
from hypothesis import given as cases
from hypothesis import strategies as st

from runctx.config import open_config
from runctx.config.layers import Layer, at, dotted, leaves
from runctx.config.origins import trace_of
from runctx.config.overrides import Token, lay, refuse_unknown, tokens_of
from runctx.config.values import read
from runctx.errors import ConfigError


class Color(Enum):
    RED = 1
    BLUE = 2


@dataclass
class Opt:
    name: str = "sgd"
    lr: float = 0.1
    betas: list[float] = field(default_factory=lambda: [0.9, 0.99])


@dataclass
class Config:
    epochs: int = 5
    flag: bool = False
    tag: str | None = None
    color: Color = Color.RED
    path: Path = Path("data")
    names: list[str] = field(default_factory=lambda: ["a"])
    counts: dict[str, int] = field(default_factory=dict)
    weights: dict[int, str] = field(default_factory=lambda: {1: "x"})
    opt: Opt = field(default_factory=Opt)
    blocks: list[Opt] = field(default_factory=lambda: [Opt(), Opt()])
    spare: Opt | None = None


@dataclass
class Login:
    api_token: int = 0


@dataclass
class Logins:
    logins: list[Login] = field(default_factory=list)


def tokens(*texts):
    return [Token(text, Layer(kind="override", name=f"argument {n}")) for n, text in enumerate(texts, 1)]


def laid(config, *texts):
    return lay(tokens(*texts), open_config(config))


# -- the grammar of values ------------------------------------------------------------------------------------------

TEXTS = [
    # what YAML would turn into a number, a bool, nothing, a mapping or an error
    *("12:30", "yes", "on", "0x10", "007", "None", "1e", "2020-01-01", "~", "a: b", "#x", "@x", "٣", "1.0.0"),
    *("a=b=c", "1,2", "a[0]", "f(x, y)", "it's", "don't, do", "9" * 5000, "日本"),
    # paths and addresses
    *("/a b/c.csv", "~/data", "C:\\a\\new\\", "\\\\server\\x", "*.png", "i_{001}.png", "}0", "a}"),
    *("https://x.y/z?a=1&b=2#f", "s3://b/k", "a@b.c"),
    # interpolations, until the configuration is resolved
    *("${a.b}", "${oc.env:HOME}/x", "pre${a}post", "${f:1,[x,'}']}", "\\${a}", "${a"),
]
VALUES = {text: text for text in TEXTS} | {
    **dict.fromkeys(("3", "+3"), 3),
    **dict.fromkeys(("1_000", " 1000 "), 1000),
    **dict.fromkeys(("1e-3", ".001", "0.001"), 0.001),
    **dict.fromkeys(("null", "NULL"), None),
    **dict.fromkeys(("", "''", '""'), ""),
    "5.": 5.0,
    "-INF": -math.inf,
    "TRUE": True,
    "false": False,
    "  padded text ": "padded text",
    "'5'": "5",
    "'a, b: [c]'": "a, b: [c]",
    "'C:\\new\\''": "C:\\new'",
    '"a\\n\\u00e9\\q"': "a\né\\q",
    "[]": [],
    "{}": {},
    "[1,2,]": [1, 2],
    "[1,\n2]": [1, 2],
    "[ 1 , [a b, 'c, d'] ]": [1, ["a b", "c, d"]],
    "[${a}, ${f:1,[x,'}']}]": ["${a}", "${f:1,[x,'}']}"],
    "[12:30, 007, ~/x, é, a=b&c, http://x/?y=#z]": ["12:30", "007", "~/x", "é", "a=b&c", "http://x/?y=#z"],
    "{a: 1, 'b c': {2: x:y}, é: {}, \"d:\" : ':'}": {"a": 1, "b c": {2: "x:y"}, "é": {}, "d:": ":"},
    "{a:1,b c:null}": {"a": 1, "b c": None},
    "{1: a, '1': b}": {1: "a", "1": "b"},
}


@pytest.mark.parametrize("text", VALUES, ids=range(len(VALUES)))
def test_value(text):
    """Numbers, words, lists, mappings and quoted strings are what Hydra takes them for; all else is text."""
    assert repr(read(text)) == repr(VALUES[text])


BROKEN = ["[1", "[1]]", "{a}", "{a: }", "{a: 1,}", "[1,,2]", "'a", "'a' b", "[a[0]]", "{a: 1, a: 2}", "[${a]"]
BROKEN += ["[it's]", "[it's, 'a': b]", "[" * 10_000, "{a:" * 10_000]


@pytest.mark.parametrize("text", BROKEN, ids=range(len(BROKEN)))
def test_broken_value(text):
    """A value that begins like a list, mapping or string and is none is refused, not guessed at."""
    with pytest.raises(ConfigError, match=r"^override argument 1: a=.*: ") as caught:
        laid({"a": 1}, f"a={text}")
    assert caught.value.hint == "put it in quotes if it is text"


@cases(st.text(), st.sampled_from([str, str | None, Path]))
def test_quoted_text(text, declared):
    """Any text in double quotes, written as JSON writes it, is that text, in a text field and elsewhere."""
    quoted = json.dumps(text, ensure_ascii=False)
    assert read(quoted, declared) == read(quoted) == read(f"[{quoted}]")[0] == text


ODD_KEYS = ["-x", "inf", "NaN", "a=b", "[0]", "a.b", "\ud83d\ude00", 1.5, math.inf]
KEYS = st.text() | st.integers() | st.booleans() | st.binary() | st.sampled_from(ODD_KEYS)


@cases(st.lists(KEYS, min_size=1, max_size=4).map(tuple))
def test_key_as_messages_write_it_sets_it(path):
    """A key as our messages and tables write it, set on the command line, is that very key."""
    branch = trace_of(lay(tokens(f"+{dotted(path)}=1"), open_config({}))).tree
    assert [repr(found) for found, _ in leaves(branch)] == [repr(path)]


# -- setting, adding, deleting --------------------------------------------------------------------------------------


def test_types_of_the_dataclass_decide():
    """A text field takes the text as it stands; null is None only where None is allowed."""
    config = laid(
        Config, "opt.name=5", "tag=null", "names=[1, null, 1e-3]", "path=007", "color=BLUE", "opt.lr=1"
    )
    assert config.opt.name == "5"
    assert config.tag is None
    assert config.names == ["1", "null", "1e-3"]
    assert config.path == Path("007")
    assert config.color == Color.BLUE
    assert config.opt.lr == 1.0
    assert laid(Config, "opt.name=null").opt.name == "null"
    assert laid(Config, "tag='null'").tag == "null"
    assert laid(Config, "flag=yes").flag is True
    assert laid(Config, "opt.name=[a").opt.name == "[a"  # no list, and none is wanted
    assert laid(Config, "opt.name=").opt.name == ""


def test_elements_of_a_list():
    """`a[0]=1` and `a.0=1` set one element of a list that is there, also within elements."""
    config = laid(Config, "opt.betas[1]=0.5", "opt.betas.0=0.1", "blocks[-1].lr=3", "blocks.0.name=4")
    assert config.opt.betas == [0.1, 0.5]
    assert [(block.name, block.lr) for block in config.blocks] == [("4", 0.1), ("sgd", 3.0)]
    nested = laid({"a": [[1, 2], {"b": (3, 4)}]}, "a[0][1]=x", "a[1].b[0]=y")
    assert nested == {"a": [[1, "x"], {"b": ["y", 4]}]}


def test_given_list_is_not_modified():
    """Setting an element leaves the configuration below as it was."""
    config = open_config({"a": [[1, 2]]})
    assert laid(config, "a[0][0]=5") == {"a": [[5, 2]]}
    assert config == {"a": [[1, 2]]}


@pytest.mark.parametrize(
    "text", ["opt.betas[2]=1", "opt.betas.x=1", "opt.betas[-3]=1", "blocks[0].lx=1", "epochs[0]=1"]
)
def test_element_that_is_not_there(text):
    """An index beyond the list, or a key that an element does not have, is refused."""
    with pytest.raises(ConfigError, match="argument 1"):
        laid(Config, text)


def test_adding_on_purpose():
    """`+` adds a key to a dataclass, a mapping, or where nothing was; later overrides know it."""
    config = laid(
        Config, "+note=hi", "note=ho", "+counts.a=1", "+opt.new.deep=2", "++epochs=7", "+weights.3=4"
    )
    assert (config.note, config.counts.a, config.opt.new.deep, config.epochs) == ("ho", 1, 2, 7)
    assert config.weights == {1: "x", 3: "4"}


def test_deleting():
    """`~a.b` deletes a key of a mapping; `~a.b=1` only if it has that value."""
    assert laid({"a": {"b": 1, "c": 2}}, "~a.b") == {"a": {"c": 2}}
    assert laid({"a": {"b": 1}}, "~a") == {}
    assert laid({"a": {"b": 1}}, "~a.b=1") == {"a": {}}
    with pytest.raises(ConfigError, match=r"a\.b was not deleted"):
        laid({"a": {"b": 1}}, "~a.b=2")
    assert laid(Config, "+counts.a=1", "~counts.a").counts == {}


def test_field_of_a_dataclass_cannot_be_deleted():
    """What the class has, every configuration of it has."""
    with pytest.raises(ConfigError, match=r"opt\.lr is a field of Opt") as caught:
        laid(Config, "~opt.lr")
    assert caught.value.hint == "if it may be None, write opt.lr=null"


def test_mapping_is_merged_or_replaces():
    """A mapping is laid on what is there; with `_replace_` it takes its place."""
    assert laid({"a": {"b": 1, "c": 2}}, "a={b: 3}") == {"a": {"b": 3, "c": 2}}
    assert laid({"a": {"b": 1, "c": 2}}, "a={_replace_: true, d: 3}") == {"a": {"d": 3}}
    assert laid({"a": {}}, "a={b: 1}") == {"a": {"b": 1}}


def test_optional_dataclass_comes_into_being():
    """A key within an optional dataclass that is None makes one."""
    assert laid(Config, "spare.lr=3").spare == {"name": "sgd", "lr": 3.0, "betas": [0.9, 0.99]}


def test_keys_are_found_by_what_is_there():
    """Without quotes `3` is the number where there is one, else the text; with quotes it is the text."""
    assert laid({"w": {3: "a"}}, "w.3=b") == {"w": {3: "b"}}
    assert laid({"w": {"3": "a"}}, "w.3=b") == {"w": {"3": "b"}}
    assert laid({"w": {"3": "a", "x.y": 1}}, "w.'3'=b", 'w."x.y"=2') == {"w": {"3": "b", "x.y": 2}}
    with pytest.raises(ConfigError, match="unknown"):
        laid({"w": {3: "a"}}, "w.'3'=b")


@pytest.mark.parametrize(
    "config, text, hint",
    [
        (Config, "lr=1", "did you mean opt.lr?; write +lr=... to add it"),
        (Config, "opt.lrr=1", "did you mean opt.lr?; write +opt.lrr=... to add it"),
        (Config, "opt={lrr: 1}", "did you mean opt.lr?; write +opt.lrr=... to add it"),
        (Config, "epoch=1", "did you mean epochs?; write +epoch=... to add it"),
        (Config, "~epoch", "did you mean epochs?"),
        ({"opt": {"lr": 1}}, "opt.lrr=1", "did you mean opt.lr?; write +opt.lrr=... to add it"),
        ({"opt": {"lr": 1}}, "lr=1", "did you mean opt.lr?; write +lr=... to add it"),
        ({"opt": {"lr": 1}}, "opt={lrr: 1}", "did you mean opt.lr?; write +opt.lrr=... to add it"),
        ({}, "lr=1", "write +lr=... to add it"),
        ({"a": "${b}", "b": {"c": 1}}, "a.c=1", "set the key that ${b} refers to"),
    ],
)
def test_unknown_key(config, text, hint):
    """A key that is not there is refused, by the nearest name, with and without a dataclass."""
    with pytest.raises(
        ConfigError, match=r"override argument 1: (unknown config key|.* cannot be set)"
    ) as caught:
        laid(config, text)
    assert caught.value.hint == hint


@pytest.mark.parametrize(
    "text, message, hint",
    [
        ("epochs=abc", "epochs must be int; got 'abc' (str)", None),
        ("epochs=1.5", "epochs must be int; got 1.5 (float)", None),
        ("epochs=null", "epochs must be int; got null", "declare it as `| None` to allow null"),
        ("opt.lr=x", "opt.lr must be float; got 'x' (str)", None),
        ("opt=3", "opt must be Opt; got 3 (int)", None),
        ("spare=3", "spare must be Opt | None; got 3 (int)", None),
        ("names=1,2", "names must be list[str]; got '1,2' (str)", "write a list as [1, 2]"),
        (
            "names={a: 1}",
            "names must be list[str]; got {'a': '1'} (dict)",
            "write a list as [1, 2]",
        ),
        ("color=GREEN", "color must be Color; got 'GREEN' (str)", "write one of RED, BLUE"),
        ("+counts.a=x", "counts.a must be int; got 'x' (str)", None),
        ("blocks=[{lr: x}]", "blocks must be list[Opt]; got [{'lr': 'x'}] (list)", None),
        ("+weights.x=1", "weights.x: Key x (str) is incompatible with (int)", None),
    ],
)
def test_wrong_type(text, message, hint):
    """A value of a wrong type names layer, key, type and value."""
    with pytest.raises(ConfigError) as caught:
        laid(Config, "flag=true", text)
    assert caught.value.message.startswith(f"override argument 2: {message}")
    assert caught.value.hint == hint


def test_wrong_type_of_a_secret_is_not_shown():
    """No message shows the value of a key that looks secret."""

    with pytest.raises(ConfigError) as caught:
        laid(Login, "api_token=hunter22")
    assert "hunter22" not in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        laid(Logins, "logins=[{api_token: hunter22}]")
    assert "hunter22" not in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        laid({"password": ""}, "password=[hunter22")
    assert "hunter22" not in str(caught.value)


NO_OVERRIDES = ["a", "=1", "a..b=1", ".a=1", "a.=1", "+a", "'a=1", "a b=1", "~"]


@pytest.mark.parametrize("text", [*NO_OVERRIDES, "a." * 200 + "b=1", "[" + " " * 50_000], ids=range(11))
def test_no_override(text):
    """What is no override is named as what it is."""
    with pytest.raises(ConfigError, match=r"argument 1: .* is not an override"):
        laid({"a": 1}, text)


def test_later_overrides_beat_earlier_ones():
    """Every override is a layer of its own, and what it beat is kept."""
    config = laid(Config, "opt.lr=1", "opt.lr=2")
    leaf = at(trace_of(config).tree, ("opt", "lr"))
    assert [(setting.layer.name, setting.value) for setting in leaf[1:]] == [
        ("argument 1", 1),
        ("argument 2", 2),
    ]


# -- files of overrides ---------------------------------------------------------------------------------------------


def test_lines_of_an_overrides_file():
    """One override on each line; the lines are kept, comments and empty lines are none."""
    found = tokens_of("# why\n\na.b=1 # text\n  +c=2\n", "o.txt")
    assert [(token.text.strip(), token.line) for token in found] == [("a.b=1", 3), ("+c=2", 4)]
    with pytest.raises(ConfigError, match=r"overrides file o.txt:2: unknown config key x"):
        lay(tokens_of("\nx=1", "o.txt"), open_config({"a": 1}))


def test_comments_in_an_overrides_file():
    """A `#` after a space begins a comment, unless it stands in quotes; one inside a word does not."""
    text = "a=best  # yesterday\nb='x # y' # z\nc=C#\nd=it's # it's\ne=[1, \"#\", '# a']\t# why\nf=\"x # y\n  # end"
    found = [token.text for token in tokens_of(text, "o.txt")]
    assert found == ["a=best", "b='x # y'", "c=C#", "d=it's", "e=[1, \"#\", '# a']", 'f="x # y']


@pytest.mark.parametrize(
    "text", ["opt={_base_: o.yaml}", "+opt._base_=o.yaml", "opt._base_=o.yaml", "+new={a: {_base_: o}}"]
)
def test_files_build_upon_files_and_nothing_else(text):
    """`_base_` on the command line is refused with where to write it."""
    with pytest.raises(ConfigError, match="_base_: only files can have _base_") as caught:
        laid({"opt": {"lr": 1}}, text)
    assert caught.value.hint == "write _base_ in a file, and give it by --config"


def test_unknown_key_of_an_overrides_file():
    """A mapping of overrides cannot add keys, with and without a dataclass."""

    def branch(values):
        from runctx.config.layers import tree

        return tree(values, Layer(kind="overrides file", name="o.yaml"), {("opt", "lrr"): 4})

    config = open_config({"opt": {"lr": 1}, "free": {}})
    refuse_unknown(branch({"opt": {"lr": 2}, "free": {"x": 1}}), config)
    for given_config in (config, open_config(Config)):
        with pytest.raises(
            ConfigError, match=r"overrides file o.yaml:4: unknown config key opt.lrr"
        ) as caught:
            refuse_unknown(branch({"opt": {"lrr": 2}}), given_config)
        assert caught.value.hint == "did you mean opt.lr?"
