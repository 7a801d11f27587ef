"""Configuration files: what is read is what was written, in every format; what harms is refused."""

from __future__ import annotations

import io
import json
import os
import pickle
import subprocess
import sys
from enum import Enum, IntEnum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from runctx.config.derived import Derived, derived
from runctx.config.formats import SUFFIXES, encode, read
from runctx.errors import ConfigError
from tests.strategies import ODD_TEXTS, config_keys, names, nested, scalars, texts


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("configs")


def written(folder: Path, name: str, text: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def values(folder: Path, name: str, text: str | bytes) -> Any:
    return read(written(folder, name, text)).values


def refusal(folder: Path, name: str, text: str | bytes) -> str:
    """What the error says; it always names the file."""
    path = written(folder, name, text)
    with pytest.raises(ConfigError) as caught:
        read(path)
    assert str(path) in str(caught.value)
    return str(caught.value).replace(str(path), name)


# -- every format --------------------------------------------------------------------------------------------

no_null = st.one_of(scalars, st.floats(allow_nan=False)).filter(lambda value: value is not None)
public = texts.filter(lambda text: not text.startswith("_"))

HOLDS = {
    ".yaml": nested(config_keys, st.one_of(scalars, st.binary(max_size=9))),
    ".yml": nested(config_keys),
    ".json": nested(texts),
    ".toml": nested(texts, no_null),
    ".py": nested(config_keys, st.one_of(scalars, st.binary(max_size=9))).map(
        lambda config: {
            key: value for key, value in config.items() if isinstance(key, str) and key[:1] != "_"
        }
    ),
}
everywhere = st.dictionaries(public, nested(texts, no_null), max_size=3)


@pytest.mark.parametrize("suffix", SUFFIXES)
@given(data=st.data())
def test_what_was_written_is_read_back(suffix: str, folder: Path, data: st.DataObject) -> None:
    """Each format gives back the very values, and types, that it was given."""
    config = data.draw(HOLDS[suffix])
    found = values(folder, f"back{suffix}", encode(config, suffix))
    assert typed(found) == typed(config)


def typed(value: Any) -> Any:
    """Tells 1, 1.0 and True apart, and -0.0 from 0.0; not the order of keys, which is not TOML's to keep."""
    if isinstance(value, dict):
        return {repr(key): typed(item) for key, item in value.items()}
    return [typed(item) for item in value] if isinstance(value, list) else repr(value)


@given(everywhere, st.permutations(SUFFIXES))
def test_formats_convert_into_each_other(folder: Path, config: dict[str, Any], order: list[str]) -> None:
    """A configuration that goes through all formats, in any order, comes out as it was."""
    found: Any = config
    for suffix in order:
        found = values(folder, f"through{suffix}", encode(found, suffix))
    assert typed(found) == typed(config)


@given(config=nested(names.filter(lambda name: name[0] != "_"), st.integers() | names))
def test_each_key_of_yaml_has_its_line(folder: Path, config: dict[str, Any]) -> None:
    """For each key outside of lists, `lines` names the line on which it stands; and no other keys."""
    path = written(folder, "lines.yaml", encode(config, ".yaml"))
    document = read(path)
    text = path.read_text().split("\n")
    assert set(document.lines) == set(paths(config))
    for at, line in document.lines.items():
        assert at[-1] in text[line - 1]


def paths(config: dict[str, Any], path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    here = [(*path, key) for key in config]
    return here + [
        at for key, part in config.items() if isinstance(part, dict) for at in paths(part, (*path, key))
    ]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_text_stays_text(suffix: str, folder: Path) -> None:
    """Text that a reader could take for a number, a bool or syntax is text again, as key too; so are interpolations."""
    config: dict[str, Any] = {text: [text, {text: text}] for text in ODD_TEXTS if text}
    assert values(folder, f"text{suffix}", encode({"inner": config}, suffix)) == {"inner": config}
    config = {
        "lr": "${mul:${batch_size},0.01}",
        "literal": r"\${x}",
        "_base_": ["a.yaml"],
        "sub": {"_delete_": True},
    }
    assert values(folder, f"written{suffix}", encode(config, suffix)) == config


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_paths_enums_and_tuples_become_what_every_format_has(suffix: str, folder: Path) -> None:
    """A path becomes its text, an enum its name, a tuple a list, a numpy number Python's."""

    class Color(Enum):
        RED = 1

    class Size(IntEnum):
        BIG = 2

    config = {
        "p": Path("a/b"),
        "e": Color.RED,
        "i": Size.BIG,
        "t": (1, (2,)),
        "n": np.float64(0.5),
        "m": np.int64(3),
    }
    plain = {"p": "a/b", "e": "RED", "i": "BIG", "t": [1, [2]], "n": 0.5, "m": 3}
    assert typed(values(folder, f"typed{suffix}", encode(config, suffix))) == typed(plain)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("text", ["", "\n", " \n\n", "\ufeff"])
def test_an_empty_file_holds_nothing(suffix: str, folder: Path, text: str) -> None:
    """An empty file is an empty configuration, and is how one may be written; a byte order mark is no text."""
    assert values(folder, f"empty{suffix}", text) == {}
    assert values(folder, f"empty{suffix}", encode({}, suffix)) == {}
    assert values(folder, f"mark{suffix}", b"\xef\xbb\xbf" + encode({"a": 1}, suffix)) == {"a": 1}


@pytest.mark.parametrize(
    ("suffix", "config", "said"),
    [
        (".toml", {"opt": {"lr": None}}, "opt.lr: TOML has no null"),
        (".toml", {"opt": [1, None]}, "opt.1: TOML has no null"),
        (".toml", {"opt": {3: 1}}, "opt.3: a key in TOML must be a str; got 3"),
        (".json", {"opt": {3: 1}}, "opt.3: a key in JSON must be a str; got 3"),
        (".json", {"opt": b"x"}, "opt: JSON cannot hold bytes"),
        (".py", {"_hidden": 1}, "_hidden: a Python file cannot hold it at its top"),
        (".py", {3: 1}, "3: a Python file cannot hold it at its top"),
        *((suffix, {"a": {"b": object()}}, "a.b: a value cannot be object") for suffix in SUFFIXES),
        *((suffix, {"a": {None: 1}}, "a: a key cannot be NoneType None") for suffix in SUFFIXES),
        *((suffix, {"a": "\ud800"}, "a: '\\ud800' is not valid Unicode") for suffix in SUFFIXES),
        *((suffix, {"a": derived(lambda c: 1)}, "a: a derived value is a function") for suffix in SUFFIXES),
    ],
)
def test_what_a_format_cannot_hold_is_named(suffix: str, config: Any, said: str) -> None:
    """Nothing is dropped or altered in silence: the error names the key."""
    with pytest.raises(ConfigError) as caught:
        encode(config, suffix)
    assert f"config key {said}" in str(caught.value)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_contains_itself_is_not_written(suffix: str) -> None:
    """A mapping inside itself ends in an error, not in a crash."""
    config: dict[str, Any] = {"a": 1}
    config["a"] = [config]
    with pytest.raises(ConfigError, match="config key a: nested more than 100 deep, or contains itself"):
        encode(config, suffix)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_missing_file_is_named_with_what_is_near(suffix: str, folder: Path) -> None:
    """The error says where was looked, and which file is there instead."""
    written(folder, f"resnet50{suffix}", "")
    with pytest.raises(ConfigError) as caught:
        read(folder / f"resnet5{suffix}")
    assert f"(looked in {folder})" in str(caught.value)
    assert f"hint: did you mean {folder}/resnet50{suffix}?" in str(caught.value)
    with pytest.raises(ConfigError, match="no folder"):
        read(folder / "nowhere" / f"a{suffix}")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_no_file_is_refused(suffix: str, tmp_path: Path) -> None:
    """A folder, a pipe (without waiting for who writes to it), a device, a link to itself, an impossible name."""
    for name in ("folder", "pipe", "device", "link"):
        path = tmp_path / f"{name}{suffix}"
        if name == "folder":
            path.mkdir()
        elif name == "pipe":
            os.mkfifo(path)
        else:
            path.symlink_to("/dev/zero" if name == "device" else path)
        with pytest.raises(ConfigError, match=name):
            read(path)
    with pytest.raises(ConfigError, match="embedded null"):
        read(f"a\0{suffix}")


@pytest.mark.parametrize("name", ["config", "config.ini", "config.yaml.bak"])
def test_an_unknown_suffix_lists_those_there_are(name: str, folder: Path) -> None:
    """Which format a file has is known by its name alone, in small letters or capitals."""
    assert values(folder, "CONFIG.YAML", "a: 1") == {"a": 1}
    assert "it ends in one of .yaml, .yml, .json, .toml, .py" in refusal(folder, name, "")
    with pytest.raises(ConfigError, match="configuration file"):
        encode({}, Path(name).suffix)


@pytest.mark.parametrize("suffix", [".yaml", ".json", ".toml"])
def test_text_that_is_not_utf8_is_named(suffix: str, folder: Path) -> None:
    """The error names the line of the first wrong byte."""
    assert "line 2: byte 0xff is not UTF-8" in refusal(folder, f"latin{suffix}", b"\nab\xff")


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("top.yaml", "- a", "line 1: must be a mapping; got a list"),
        ("top.yaml", "\njust text", "line 2: must be a mapping; got 'just text'"),
        ("top.json", "[1]", "the top level must be an object; got list"),
        ("key.yaml", "a: 1\n? [b]\n: 2", "line 2: a key cannot be a list"),
        ("key.yaml", "a: 1\n~: 2", "line 2: a key cannot be nothing (null)"),
        ("twice.yaml", "a:\n  b: 1\n  'b': 2", "line 3: key 'b' is given twice, first on line 2"),
        ("twice.yaml", "1: a\n0x1: b", "line 2: key 1 is given twice, first on line 1"),
        ("twice.json", '{"a": [{"b": 1,\n"\\u0062": 2}]}', "twice.json: key 'b' is given twice"),
        ("twice.toml", "a = 1\na = 2", "twice.toml: "),
        ("broken.yaml", "a: 1\nb: [", "line 2: "),
        ("broken.yaml", "a: 1\nb: c: d", "line 2: column 5: "),
        ("broken.yaml", "a: 1\nb: \x01", "line 2: "),
        ("broken.yaml", "a: 1\n---\nb: 2", "line 2: "),
        ("broken.yaml", "a: 1\nb: *c", "line 2: "),
        ("broken.json", '{"a": 1,\n"b" 2}', "broken.json: "),
        ("broken.toml", "a = 1\nb = [1,,2]", "broken.toml: "),
        ("digits.toml", "a = 1\nb = " + "9" * 5000, "digits.toml: "),
        ("digits.json", '{"a": 1,\n"b": ' + "9" * 5000 + "}", "digits.json: "),
        ("digits.yaml", "a: 1\nb: " + "9" * 5000, "line 2: not readable as int: '9999"),
        ("tag.yaml", "a: 1\nb: !run {}", "line 2: the tag !run is not read"),
        ("merge.yaml", "a: 1\n<<: [1]", "line 2: << takes a mapping or a list of mappings; got '1'"),
        ("broken.py", "a = 1\nb = (", "line 2: cannot be parsed as Python: "),
        ("broken.py", "a = 1\nreturn", "line 2: cannot be parsed as Python: "),
        ("broken.py", "a = 1\nb = 1 / 0", "line 2: ZeroDivisionError: "),
        ("broken.py", "def f():\n  raise KeyError('x')\nf()", "line 2: KeyError: 'x'"),
        ("broken.py", "a = 1\nimport json; json.loads('{')", "line 2: JSONDecodeError: "),
        ("broken.py", "import sys\nsys.exit('bye')", "line 2: SystemExit: bye"),
        ("broken.py", "from runctx.errors import ConfigError\nraise ConfigError('no', 'do')", "no\nhint: do"),
        ("value.py", "b = dict(\n  c=[{'d':\n  object()}])", "config key b.c.0.d: a value cannot be object"),
        ("value.py", "b = {(1, 2): 3}", "config key b: a key cannot be tuple (1, 2)"),
        ("value.py", "a = 1j", "a value cannot be complex 1j"),
        ("value.py", "with open(__file__) as f: pass", "config key f: a value cannot be TextIOWrapper"),
        ("value.py", "a = []\na.append(a)", "config key a: nested more than 100 deep, or contains itself"),
    ],
)
def test_what_is_wrong_is_named(name: str, text: str, said: str, folder: Path) -> None:
    """An error says what was found, in which file, and in YAML on which line."""
    assert said in refusal(folder, name, text)


# -- YAML ----------------------------------------------------------------------------------------------------

number_like = st.text("0123456789+-._eExXobaAfFnNiI~ ", min_size=1, max_size=9)
word_like = st.sampled_from(
    ["yes", "no", "on", "off", "true", "false", "null", "y", "n", ".inf", ".nan", "~"]
).flatmap(
    lambda word: st.sampled_from([word, word.title(), word.upper(), f"-{word}", f"{word}0", word.swapcase()])
)


@given(
    st.one_of(number_like, word_like),
    st.sampled_from(["{}", "'{}'", "!!str {}", "!!int {}", "!!float {}", "! {}"]),
)
def test_a_scalar_is_what_omegaconf_reads(folder: Path, text: str, form: str) -> None:
    """Numbers, bools and nulls are those of `OmegaConf.load`; where it fails, we say where."""
    path = written(folder, "scalar.yaml", f"k: {form.format(text)}\n")
    try:
        expected = OmegaConf.to_container(OmegaConf.load(path))
    except Exception:
        with pytest.raises(ConfigError, match="line 1: "):
            read(path)
    else:
        assert repr(read(path).values) == repr(expected)


def test_times_are_text(folder: Path) -> None:
    """`12:30` is no number to base 60, a date no date, `<<` as a value no merge."""
    text = "a: 12:30\nb: 1:30.5\nc: 2001-01-01\nd: 190:20:30\n'<<': {a: 1}\ne: <<\nf: [<<]\n=: ="
    assert values(folder, "times.yaml", text) == {
        "a": "12:30",
        "b": "1:30.5",
        "c": "2001-01-01",
        "d": "190:20:30",
        "<<": {"a": 1},
        "e": "<<",
        "f": ["<<"],
        "=": "=",
    }


MERGED = """\
base: &base {lr: 0.1, opt: &opt {name: sgd}}
more: &more {lr: 0.2, wd: 0}
one:
  <<: *base
  lr: 0.3
two:
  lr: 0.4
  <<: [*base, *more]
three:
  <<: *base
  <<: *more
opt: *opt
"""


def test_anchors_and_merge_keys_are_those_of_omegaconf(folder: Path) -> None:
    """`&`, `*` and `<<` mean what they mean to `OmegaConf.load`; lines are those where a value really stands."""
    found = values(folder, "merged.yaml", MERGED)
    assert found == OmegaConf.to_container(OmegaConf.load(io.StringIO(MERGED)))
    assert (found["one"]["lr"], found["two"]["wd"], found["two"]["lr"], found["three"]["lr"]) == (
        0.3,
        0,
        0.4,
        0.2,
    )
    document = read(folder / "merged.yaml")
    where = {".".join(map(str, path)): at for path, at in document.lines.items()}
    assert (where["one.lr"], where["one.opt"], where["two.wd"], where["two.lr"]) == (5, 1, 2, 7)
    assert (where["opt"], where["opt.name"]) == (12, 1)


def test_what_omegaconf_wrote_is_read(folder: Path) -> None:
    """Files of `OmegaConf.save` are read as they were meant, the tag that it writes for a path included."""
    config = {"path": Path("a/b"), "data": b"\xff\0", "text": "1e3", "list": [1, None, {"a": True}]}
    path = folder / "saved.yaml"
    OmegaConf.save(OmegaConf.create(config), path)
    assert read(path).values == config


# -- TOML and JSON -------------------------------------------------------------------------------------------


def test_toml_dates_are_text(folder: Path) -> None:
    """A configuration has no dates: they become text as ISO 8601 writes them, in lists too."""
    text = "when = 2001-01-01T10:30:00\r\nday = [2001-01-02]\r\nclock = 10:30:00\r\ntext = '''x\r\ny'''"
    assert values(folder, "a.toml", text.encode()) == {
        "when": "2001-01-01T10:30:00",
        "day": ["2001-01-02"],
        "clock": "10:30:00",
        "text": "x\ny",
    }


def test_json_numbers_are_those_of_python(folder: Path) -> None:
    """NaN and Infinity, which Python's json writes, are read."""
    text = '{"a": NaN, "b": -Infinity, "c": 1e3, "d": 3}'
    assert repr(values(folder, "n.json", text)) == repr(json.loads(text))


# -- Python --------------------------------------------------------------------------------------------------

OPENMMLAB = """\
from __future__ import annotations
import os.path as osp
from typing import Any, Optional
from math import sqrt, pi

class Helper: ...
def square(x): return x * x

_base_ = ['../base.py', './sched.py']
_hidden = 3
size: int = square(_hidden)
crop = (size, size)
model = dict(
    type='ResNet',
    depth=50,
    **{'stem':
       dict(kernel=7)},
    head=dict(_delete_=True, type='Linear'))
model['neck'] = {'type': 'GAP'}
if size > 3:
    model['depth'], extra = 101, 1
folder = osp.basename(__file__)
data = dict(root='d') | {
    'workers': 2}
size += 1
"""


def test_a_python_config_gives_its_public_names(folder: Path) -> None:
    """A configuration in the manner of OpenMMLab is read as it is: no modules, classes, functions, `_names`."""
    assert values(folder, "mm.py", OPENMMLAB) == {
        "pi": pytest.approx(3.14159265),
        "_base_": ["../base.py", "./sched.py"],
        "size": 10,
        "crop": (9, 9),
        "model": {
            "type": "ResNet",
            "depth": 101,
            "stem": {"kernel": 7},
            "head": {"_delete_": True, "type": "Linear"},
            "neck": {"type": "GAP"},
        },
        "extra": 1,
        "folder": "mm.py",
        "data": {"root": "d", "workers": 2},
    }


def test_a_python_config_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It becomes no module, its folder is not searched for imports, nothing is written beside it."""
    monkeypatch.chdir(tmp_path)
    written(tmp_path, "sibling.py", "x = 1")
    written(
        tmp_path, "leaves.py", "import sys\nseen = [p for p in sys.path]\nname = __name__\nhere = __file__"
    )
    modules, search = set(sys.modules), list(sys.path)
    found = read("leaves.py").values
    assert (found["here"], found["seen"], found["name"] in sys.modules) == (
        str(tmp_path / "leaves.py"),
        search,
        False,
    )
    assert (set(sys.modules) - modules, sys.path) == (set(), search)
    assert sorted(os.listdir(tmp_path)) == ["leaves.py", "sibling.py"]
    assert "ModuleNotFoundError" in refusal(tmp_path, "imports.py", "import sibling")


def test_python_values_keep_their_types(folder: Path) -> None:
    """Paths, enums, tuples and derived values are what they were; values are copies, numpy's become Python's."""
    text = (
        "from enum import Enum\nfrom pathlib import Path\nimport numpy as np\n"
        "from runctx import derived\n"
        "class Color(Enum):\n    RED = 1\n"
        "path = Path('a')\ncolor = Color.RED\npair = (1, [2])\nnumber = np.float32(0.5)\nraw = b'x'\n"
        "half = derived(lambda c: c.number / 2)\nkeyed = {1: {2.5: 3}, True: 4} if False else {1: {2.5: 3}}\n"
    )
    found = values(folder, "types.py", text)
    assert (found["path"], found["color"].name, found["pair"], found["raw"]) == (
        Path("a"),
        "RED",
        (1, [2]),
        b"x",
    )
    assert (type(found["number"]), type(found["half"]), found["keyed"]) == (float, Derived, {1: {2.5: 3}})


def test_the_error_of_a_python_config_is_the_cause(folder: Path) -> None:
    """What the file raised can be seen whole; an interrupt stays an interrupt."""
    with pytest.raises(ConfigError) as caught:
        read(written(folder, "cause.py", "{}['x']"))
    assert isinstance(caught.value.__cause__, KeyError)
    with pytest.raises(KeyboardInterrupt):
        read(written(folder, "interrupted.py", "raise KeyboardInterrupt"))


def test_python_is_written_to_be_read() -> None:
    """Short values stand on one line, long ones on several; odd keys and numbers need a line before them."""
    config = {
        "lr": 0.1,
        "opt": {"name": "sgd", "betas": [0.9, float("inf")]},
        "a-b": None,
        "long": ["x" * 60] * 2,
    }
    assert encode(config, ".py").decode().splitlines() == [
        '_inf = float("inf")',
        "_names = globals()",
        "lr = 0.1",
        "opt = {'name': 'sgd', 'betas': [0.9, _inf]}",
        "_names['a-b'] = None",
        "long = [",
        f"    {'x' * 60!r},",
        f"    {'x' * 60!r},",
        "]",
    ]


# -- harm ----------------------------------------------------------------------------------------------------

DEEP = 200_000
BOMB = "a: &a [x, x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [*{chr(97 + i)}, *{chr(97 + i)}]\n" for i in range(22)
)
HOSTILE = {
    "yaml": {
        "bomb": BOMB,
        "bomb of merge keys": "a: &a0 {k: 1}\n"
        + "".join(f"b{i}: &a{i + 1} {{x{i}: {{<<: *a{i}}}, y: *a{i}}}\n" for i in range(40)),
        "chain of aliases": "k0: &k0 {x: 1}\n"
        + "".join(f"k{i + 1}: &k{i + 1} {{x: *k{i}}}\n" for i in range(9_000)),
        "many aliases of much": f"a: &a [{'1, ' * 1000}]\nb: [{'*a, ' * 100_000}]",
        "alias to itself": "a: &a [*a]",
        "merge of itself": "a: &a\n  <<: *a",
        "deep flow list": "k: " + "[" * DEEP,
        "deep flow mapping": "k: " + "{a: " * DEEP,
        "deep block list": "- " * DEEP,
        "deep by indent": "".join(f"{' ' * i}k:\n" for i in range(2000)),
        "number of many digits": "k: " + "9" * 1_000_000,
        "hexadecimal of many digits": "k: 0x" + "9" * 1_000_000,
        "object": "k: !!python/object/apply:os.system ['touch harmed']",
        "name": "k: !!python/name:os.system",
        "path of odd parts": "k: !!python/object/apply:pathlib.Path [[a]]",
        "set": "k: !!set {a, b}",
        "int that is none": "k: !!int ''",
        "million small parts": "k: [" + "a," * 1_000_000 + "]",
        "percent": "%" * 100_000,
    },
    "json": {
        "deep": "[" * DEEP,
        "deep, closed": '{"a":' * DEEP + "1" + "}" * DEEP,
        "deep, late": '{"a": 1, "b": ' + "[" * 150 + "]" * 150 + "}",
        "number of many digits": '{"k": ' + "9" * 200_000 + "}",
        "never closed": '{"k": "' + 'a\\"' * 200_000,
        "million small parts": '{"k": [' + "{}," * 600_000 + "{}]}",
        "quotes": '"' * 200_000,
        "colons": '{"k"' + ":" * 200_000,
    },
    "toml": {
        "deep list, closed": "k = " + "[" * DEEP + "]" * DEEP,
        "deep inline table": "k = " + "{a = " * DEEP,
        "header and key": ("[a" + ".a" * 90 + "]\n") + "b" + ".b" * 90 + " = 1",
        "number of many digits": "k = " + "9" * 200_000,
        "million small parts": "k = [" + "''," * 600_000 + "]",
        "quotes": '"' * 200_000,
    },
    "py": {
        "deep list": "k = " + "[" * DEEP,
        "deep sign": "k = " + "-" * DEEP + "1",
        "deep sum": "k = " + "{}|" * DEEP + "{}",
        "deep calls": "k = " + "f(" * 90 + "f" + ")" * 90,
        "endless recursion": "f = lambda: f()\nf()",
        "itself": "a = {}\na['a'] = a",
        "exponential": "a = 0\nfor i in range(60): a = [a, a]",
        "exit": "raise SystemExit",
        "null": "a = '\0'",
        "coding that is none": "# -*- coding: nonsense -*-\na = 1",
        "bytes of another coding": "a = '\udcff'",
    },
}

READ = """
import pickle, resource, sys
from runctx.config.formats import read
from runctx.errors import ConfigError
resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
for suffix, cases in pickle.load(sys.stdin.buffer).items():
    for name, text in cases.items():
        print(name, end=": ", flush=True)
        path = f"hostile.{suffix}"
        with open(path, "wb") as file:
            file.write(text.encode("utf-8", "surrogateescape"))
        try:
            read(path)
        except ConfigError as error:
            print("refused" if len(str(error)) < 1000 else error)
"""


@pytest.mark.parametrize("suffix", HOSTILE)
def test_hostile_text_is_refused(suffix: str, tmp_path: Path) -> None:
    """It ends in an error that says so: nothing is executed, the interpreter lives, time and memory are bounded."""

    cases = {**HOSTILE[suffix], "10 MB": "#" * 10_000_000}
    child = subprocess.run(
        [sys.executable, "-c", READ],
        input=pickle.dumps({suffix: cases}),
        capture_output=True,
        timeout=120,
        check=False,
        cwd=tmp_path,
    )
    assert (child.returncode, child.stderr.decode()[-2000:]) == (0, "")
    assert child.stdout.decode().splitlines() == [f"{name}: refused" for name in cases]
    assert os.listdir(tmp_path) == [f"hostile.{suffix}"]


@pytest.mark.parametrize("suffix", [".yaml", ".json", ".toml"])
@given(st.binary(max_size=60) | st.text("[]{}\"'=:.,\\#\n a1&*<-", max_size=60).map(str.encode))
def test_any_bytes_are_read_or_refused(suffix: str, folder: Path, data: bytes) -> None:
    """Whatever a file holds, the answer is a mapping or a ConfigError."""
    path = written(folder, f"any{suffix}", data)
    try:
        document = read(path)
    except ConfigError:
        return
    assert all(isinstance(line, int) and line <= data.count(b"\n") + 1 for line in document.lines.values())
