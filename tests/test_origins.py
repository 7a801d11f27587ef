"""Who set a value, and what did it beat: named truly, shown readably, without secrets."""

from __future__ import annotations

import enum
import json
import re
from dataclasses import dataclass, field, make_dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf

from runctx import Run, lock
from runctx.config.assemble import assemble
from runctx.config.derived import derived
from runctx.config.explanation import Explanation, Unknown, of_lock
from runctx.config.layers import Branch, Layer, merge, tree
from runctx.config.origins import origins_of
from runctx.config.reads import keys_read
from runctx.config.text import explain
from runctx.display.words import as_text
from runctx.errors import ConfigError
from runctx.model import Origin
from runctx.redact import Redactor
from tests.pastruns import ESCAPE, make_lock
from tests.test_display import CONTROL

FILE = Layer(kind="config file", name="a.yaml")
OVERRIDE = Layer(kind="override", name="argument 3")


def laid(base: Any, *layers: Branch) -> DictConfig:
    """A configuration of these layers, the highest last."""
    given = Branch()
    for layer in layers:
        given = merge(given, layer)
    return assemble(OmegaConf.create({}) if base is None else OmegaConf.structured(base), given)


def said(origins: tuple[Origin, ...]) -> list[tuple[str, str, Any]]:
    return [(one.layer, one.where, one.value) for one in origins]


# -- the law -----------------------------------------------------------------------------------------------

Said = dict[tuple[str, ...], list[tuple[str, Any]]]
"""Path -> who said what of it, the winner first."""


def fold(below: Said, name: str, values: dict[str, Any], path: tuple[str, ...] = ()) -> Said:
    """What is said once a layer of nested dicts lies upon the others: the law, written down naively."""
    above = dict(below)
    for key, value in values.items():
        here = (*path, key)
        before = above.get(here, [])
        inside = {p for p in above if p[: len(here)] == here}
        if isinstance(value, dict):
            above.pop(here, None)  # a value ends where a mapping is laid upon it
            above = fold(above, name, value, here)
        else:
            above = {p: s for p, s in above.items() if p not in inside}
            above[here] = [(name, value), *before]
    return above


keys = st.sampled_from("abc")
values = st.one_of(st.integers(0, 3), st.booleans(), st.none(), st.sampled_from(["x", "1"]), st.just([1, 2]))
nests = st.recursive(
    st.dictionaries(keys, values, max_size=3),
    lambda inner: st.dictionaries(keys, st.one_of(values, inner), max_size=3),
    max_leaves=6,
)


@given(st.lists(nests, max_size=4))
def test_the_layer_that_won_is_named(layers: list[dict[str, Any]]) -> None:
    """Of every key the layer that really won is named, and each that it beat with its value."""
    law: Said = {}
    for i, layer in enumerate(layers):
        law = fold(law, f"{i}.yaml", layer)
    cfg = laid(None, *(tree(v, Layer(kind="config file", name=f"{i}.yaml")) for i, v in enumerate(layers)))
    told = explain(cfg)
    assert {k: [(o.where, o.value) for o in v] for k, v in told.items()} == {
        ".".join(path): spoken for path, spoken in law.items()
    }
    assert told.resolved == {".".join(path): spoken[0][1] for path, spoken in law.items()}
    assert origins_of(cfg) == told.origins


shapes = st.recursive(
    st.dictionaries(keys, st.integers(0, 3), min_size=1, max_size=3),
    lambda inner: st.dictionaries(keys, st.one_of(st.integers(0, 3), inner), min_size=1, max_size=3),
    max_leaves=5,
)


def class_of(shape: dict[str, Any]) -> type:
    fields = []
    for name, value in shape.items():
        if isinstance(value, dict):
            inner = class_of(value)
            fields.append((name, inner, field(default_factory=inner)))
        else:
            fields.append((name, int, field(default=value)))
    return make_dataclass("Config", fields)


def some_of(draw: st.DrawFn, shape: dict[str, Any]) -> dict[str, Any]:
    """Other values for some of the keys."""
    chosen = [name for name in shape if draw(st.booleans())]
    return {
        name: some_of(draw, shape[name]) if isinstance(shape[name], dict) else draw(st.integers(0, 3))
        for name in chosen
    }


@given(st.data())
def test_the_layer_that_won_over_a_dataclass_is_named(data: st.DataObject) -> None:
    """The same above a dataclass, and below what code assigned later."""
    shape = data.draw(shapes)
    layers = [some_of(data.draw, shape) for _ in range(data.draw(st.integers(0, 3)))]
    law = fold({}, "default", shape)
    for layer in layers:
        law = fold(law, "override", layer)
    cfg = laid(class_of(shape), *(tree(layer, OVERRIDE) for layer in layers))
    path = data.draw(st.sampled_from(sorted(law)))
    assigned = data.draw(st.integers(0, 3))
    if law[path][0][1] != assigned:
        law[path].insert(0, ("program", assigned))
    OmegaConf.update(cfg, ".".join(path), assigned)
    told = explain(cfg)
    assert {k: [(o.layer, o.value) for o in v] for k, v in told.items()} == {
        ".".join(p): spoken for p, spoken in law.items()
    }
    assert told.resolved == {".".join(p): spoken[0][1] for p, spoken in law.items()}


# -- what is said of one key -------------------------------------------------------------------------------


class Mode(enum.Enum):
    FAST = 1
    SLOW = 2


@dataclass
class Opt:
    name: str = "sgd"
    lr: float = 0.1


@dataclass
class Config:
    opt: Opt = field(default_factory=Opt)
    batch_size: int = 128
    steps: int = derived(lambda c: 1000 // c.batch_size)
    need: int = "???"  # type: ignore[assignment]
    mode: Mode = Mode.FAST
    data: Path = Path("data")


def test_where() -> None:
    """A layer is named with its place: file and line, or the argument; a class with the line of the field."""
    cfg = laid(
        Config, tree({"opt": {"lr": 0.2}}, FILE, {("opt", "lr"): 3}), tree({"opt": {"lr": 0.3}}, OVERRIDE)
    )
    told = explain(cfg)["opt.lr"]
    assert said(told)[:2] == [("override", "argument 3", 0.3), ("config file", "a.yaml:3", 0.2)]
    assert (told[2].layer, told[2].value) == ("default", 0.1)
    assert re.search(r"test_origins\.py:\d+$", told[2].where)


def test_what_was_left_open_was_not_beaten() -> None:
    """`???` is nobody's value: it is never among the beaten, and a key that has it is said to have none."""
    told = explain(laid(Config, tree({"need": 3}, OVERRIDE)))
    assert said(told["need"]) == [("override", "argument 3", 3)]
    open_still = explain(Config)
    assert open_still.resolved["need"] == Unknown("nobody set it")
    assert "(nobody set it)" in repr(open_still)


def test_leaving_open_beats_nothing() -> None:
    """A layer that says `???` of what a lower one has set leaves it so, as in OmegaConf."""
    for base in (None, Opt):
        low, high = tree({"name": "adam", "lr": 0.3}, FILE), tree({"name": "???", "lr": "???"}, OVERRIDE)
        cfg = laid(base, low, high)
        assert cfg == {"name": "adam", "lr": 0.3}
        assert said(explain(cfg)["lr"])[0] == ("config file", "a.yaml", 0.3)
    assert laid(None, tree({"opt": {"lr": 1}}, FILE), tree({"opt": "???"}, OVERRIDE)) == {"opt": {"lr": 1}}
    cfg.lr = "???"
    assert isinstance(explain(cfg).resolved["lr"], Unknown)
    assert explain(cfg)["lr"][0].layer == "program"


def test_computed() -> None:
    """A computed value is shown with what it was computed from, and which keys that read."""
    told = explain(laid(Config, tree({"batch_size": 10}, OVERRIDE)), "steps")
    assert told.resolved == {"steps": 100}
    assert told["steps"][0].value == "lambda c: 1000 // c.batch_size"
    assert told["steps"][0].reads == ("batch_size",)
    assert re.search(r"^  from +lambda c: 1000 // c.batch_size +reads batch_size$", str(told), re.MULTILINE)
    assert "from" not in repr(explain(laid(Opt, tree({"lr": "2"}, OVERRIDE))))
    other = explain({"a": 2, "b": "${a}"})
    assert (other.resolved["b"], other["b"][0].value, other["b"][0].reads) == (2, "${a}", ("a",))


def test_what_cannot_be_computed_is_told() -> None:
    """A value that cannot be computed hides none of the others, and says why."""
    told = explain(
        {
            "a": "${nothing}",
            "b": derived(lambda c: 1 // 0),
            "c": "${c}",
            "d": 1,
            "e": "${need}",
            "need": "???",
        }
    )
    assert told.resolved["d"] == 1
    for key, why in (("a", "nothing"), ("b", "ZeroDivisionError"), ("c", ""), ("e", "need")):
        assert isinstance(told.resolved[key], Unknown) and why in told.resolved[key].why
    assert "ZeroDivisionError" in json.dumps(told.to_dict())
    assert repr(told) and told._repr_html_()


def test_odd_values() -> None:
    """Enums and paths are told as a lock tells them, keys that are no words in quotes."""
    told = explain(laid(Config, tree({"mode": "SLOW"}, OVERRIDE)))
    assert [one.value for one in told["mode"]] == ["SLOW", "FAST"]
    assert (told.resolved["mode"], told.resolved["data"]) == ("SLOW", "data")
    assert set(explain({"a.b": {1: 2}, Mode.FAST.name: b"x"})) == {'"a.b".1', "FAST"}


def test_code_alone_is_not_worth_recording() -> None:
    """Where one dict in the code set everything there is no other layer to tell of: a lock need not."""
    assert origins_of(OmegaConf.create({"lr": 0.1, "opt": {"name": "sgd"}})) == {}
    assert said(explain({"lr": 0.1})["lr"]) == [("program", "the program", 0.1)]
    assert origins_of(OmegaConf.structured(Opt(lr=0.5)), "train.py:7")["lr"][0] == Origin(
        layer="program", where="train.py:7", value=0.5
    )


def test_reading_is_not_what_explaining_does() -> None:
    """Explaining reads no key: it does not hide that nobody did."""
    cfg = laid(Config, tree({"opt": {"lr": 0.3}}, OVERRIDE))
    from runctx.config.reads import watch

    watch(cfg)
    assert repr(explain(cfg)) and keys_read(cfg) == ()


# -- what can be asked -------------------------------------------------------------------------------------


def test_parts() -> None:
    """A part of a configuration, or a key, is explained alone, under its whole name."""
    cfg = laid(Config, tree({"opt": {"lr": 0.3}, "need": 1}, OVERRIDE))
    whole = explain(cfg)
    assert list(whole) == ["opt.name", "opt.lr", "batch_size", "steps", "need", "mode", "data"]
    for part in (explain(cfg.opt), explain(cfg, "opt"), whole.part("opt")):
        assert list(part) == ["opt.name", "opt.lr"]
        assert part["opt.lr"] == whole["opt.lr"]
    assert list(explain(cfg, "opt.lr")) == list(explain(cfg.opt, "opt.lr")) == ["opt.lr"]
    assert list(explain(OmegaConf.create({"a": [{"b": 1}], "c": 2}).a[0])) == ["a"]
    with pytest.raises(KeyError):
        whole["opt.l"]
    for wrong, meant in (("opt.l", "opt.lr"), ("optt", "opt"), ("lr", "opt.lr")):
        with pytest.raises(ConfigError, match=f"unknown config key {wrong}\nhint: did you mean .*{meant}"):
            explain(cfg, wrong)


@pytest.mark.parametrize("what", [3, [1], None.__class__, object()])
def test_no_configuration(what: Any) -> None:
    """What is no configuration is refused by name."""
    with pytest.raises(ConfigError, match="cannot be made of"):
        explain(what)


def test_runs(tmp_path: Path) -> None:
    """A run, live or past, tells by its lock what its configuration told; one dict in the code tells nothing."""
    cfg = laid(Config, tree({"opt": {"lr": 0.3}, "need": 1}, OVERRIDE))
    before = explain(cfg)
    with Run(cfg, save_dir=tmp_path / "first", console=False) as run:
        assert explain(run) == explain(run.cfg) == of_lock(run.lock)
    past = Run.load(tmp_path / "first")
    assert explain(past) == explain(run) == before
    assert past.origins == run.origins == before.origins
    assert explain(past, "opt.lr").to_dict() == before.part("opt.lr").to_dict()
    with Run({"lr": 1}, [past.save_dir], save_dir=tmp_path / "second", console=False) as second:
        pass
    assert (second.origins, explain(second).resolved) == ({}, {"lr": 1})
    assert "were not recorded" in repr(explain(second))
    assert second.lock.upstream == (replace(past.lock, origins={}),)


def test_a_lock_that_contradicts_itself() -> None:
    """Origins of keys that the configuration does not have are shown, and do no harm."""
    one = Origin(layer="default", where="a.py:1", value=1)
    secret = replace(one, value="<redacted>")
    told = of_lock(
        make_lock(config={"a": {"b": 2}, "login": "<redacted>"}, origins={"x": (one,), "login.me": (secret,)})
    )
    assert told.resolved == {"a.b": 2, "x": Unknown("not in the configuration"), "login.me": "<redacted>"}
    assert told["a.b"] == () and told["x"] == (one,)
    assert repr(of_lock(make_lock(config={}))) == "no configuration"
    assert "no configuration" in of_lock(make_lock(config={}))._repr_html_()


# -- secrets -----------------------------------------------------------------------------------------------


@dataclass
class Login:
    user: str = "ada"
    password: str = "beaten-secret-1"
    retries: int = 3


@dataclass
class Site:
    login: Login = field(default_factory=Login)
    credentials: dict[str, Any] = field(default_factory=lambda: {"any": "beaten-secret-2"})
    note: str = "was beaten-secret-1, is winning-secret"
    pin: str = "secret-of-project"
    api_key: str = "${oc.env:NOT_SET,fallback-secret}"
    url: str = derived(lambda c: "pg://me:literal-secret@host/" + c.login.password)
    access_token: str = ""


def test_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No layer's secret is shown or written, be it under its key or in any text; that there is none may be."""
    (tmp_path / "pyproject.toml").write_text('[tool.runctx]\nredact = ["pin"]\n')
    monkeypatch.chdir(tmp_path)
    cfg = laid(
        Site, tree({"login": {"password": "winning-secret"}, "credentials": {"any": "top-secret"}}, OVERRIDE)
    )
    told = explain(cfg)
    with Run(cfg, save_dir=tmp_path / "run", console=False) as run:
        pass
    written = [(run.save_dir / name).read_text() for name in ("run.lock", "config.yaml", "run.log")]
    origins = origins_of(cfg, redactor=Redactor(["pin"]))
    shown_or_written = [repr(told), told._repr_html_(), json.dumps(told.to_dict()), repr(origins), *written]
    assert all("ada" in text for text in shown_or_written[:-1])
    for shown in shown_or_written:
        assert not re.search("(beaten|winning|fallback|literal|top)-secret|secret-of-project", shown)
    assert [one.value for one in told["login.password"]] == ["<redacted>"] * 2
    assert told["access_token"][0].value == told.resolved["access_token"] == ""
    assert told["note"][0].value == "was <redacted>, is <redacted>"


# -- how it is shown ---------------------------------------------------------------------------------------

TOLD = Explanation(
    resolved={
        "opt.lr": 0.3,
        "model.name": "resnet50",
        "steps": 20,
        "note": "naïve 数据 " + "long " * 60,
        "x": Unknown("why"),
    },
    origins={
        "opt.lr": (
            Origin(layer="override", where="argument 3", value=0.3),
            Origin(layer="config file", where="configs/experiments/of/long/names/base.yaml:12", value=0.2),
            Origin(layer="default", where="train.py:9", value=0.1),
        ),
        "model.name": (Origin(layer="group file", where="model/resnet50.yaml:1", value="resnet50"),),
        "steps": (Origin(layer="default", where="train.py:11", value="lambda c: 2 * c.n", reads=("n",)),),
    },
)
TABLE = """\
key         value              set by       where
opt.lr      0.3                override     argument 3
  beat      0.2                config file  configs/experiments/of/long/names/ba
                                            se.yaml:12
  beat      0.1                default      train.py:9
model.name  resnet50           group file   model/resnet50.yaml:1
steps       20                 default      train.py:11
  from      lambda c: 2 * c.n               reads n
"""


def test_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """The table fits 80 columns and needs no colour; wider, each key takes a line."""
    monkeypatch.setenv("COLUMNS", "80")
    assert repr(Explanation({key: TOLD.resolved[key] for key in TOLD.origins}, TOLD.origins)) == TABLE[:-1]
    assert max(map(len, repr(TOLD).splitlines())) <= 80
    monkeypatch.setenv("COLUMNS", "300")
    assert len(repr(TOLD).splitlines()) == 1 + 5 + 3
    assert str(TOLD) == repr(TOLD)


def test_html() -> None:
    """The page's table has the same lines."""
    shown = TOLD._repr_html_()
    assert shown.count("<tr") == 1 + 5 + 3
    assert "base.yaml:12" in shown and "reads n" in shown and "数据" in shown


def test_html_of_one_key() -> None:
    """In a notebook the lines of one key belong together: no stripes, a rule above, the beaten struck out."""
    rows = TOLD._repr_html_().split("<tr")[1:]
    assert all(' style="background:transparent' in row for row in rows)
    assert ["border-top" in row for row in rows] == [False, True, False, False, True, True, False, True, True]
    assert ["line-through" in row for row in rows] == [number in (2, 3) for number in range(9)]


def test_never_read() -> None:
    """What a run's lock knows of reading is told: the keys that nobody read, and nothing of a run that still runs."""
    config = {"opt": {"lr": 1, "momentum": 2}, "sizes": {}, "whole": {"a": {"b": 1}}, "tag": ""}
    read = ("opt.lr", "sizes", "whole.a")
    told = of_lock(make_lock(config=config, keys_read=read))
    assert told.unread == ("opt.momentum", "tag")
    assert "never read: opt.momentum, tag" in repr(told) and "never read" in told._repr_html_()
    assert [key for key, one in told.to_dict().items() if not one["read"]] == ["opt.momentum", "tag"]
    assert told.part("opt").unread == ("opt.momentum",)
    unknown = of_lock(make_lock(config=config))
    assert unknown.unread is None and "read" not in unknown.to_dict()["tag"]


def test_bounded() -> None:
    """Ten thousand keys are not printed unasked; how many are left out is said."""
    one = (
        Origin(layer="override", where="argument 1", value=1),
        Origin(layer="default", where="a.py:1", value=0),
    )
    many = Explanation({f"k{i}": 1 for i in range(10_000)}, {f"k{i}": one for i in range(10_000)})
    for shown in (repr(many), many._repr_html_()):
        assert "9800 more keys" in shown and len(shown) < 250_000
    assert len(many.to_dict()) == 10_000
    assert len(many.table(most=None).rows) == 20_000


def test_hostile() -> None:
    """No text of a lock steers the terminal, is taken for markup, or becomes part of the page."""
    one = Origin(layer=ESCAPE, where=ESCAPE, value=ESCAPE + "${", reads=(ESCAPE,))
    told = of_lock(
        make_lock(config={"a": ESCAPE, ESCAPE: 1}, origins={"a": (one, one), "b" + ESCAPE: (one,)})
    )
    assert not CONTROL.search(repr(told)) and "[bold]" in repr(told)
    assert not CONTROL.search(as_text(told.table(most=None)))
    assert "<script" not in told._repr_html_() and not CONTROL.search(told._repr_html_())


def test_json() -> None:
    """For programs: of each key the value, or why there is none, and all that was said."""
    told = json.loads(json.dumps(TOLD.to_dict()))
    assert told["steps"] == {
        "value": 20,
        "origins": [
            {"layer": "default", "where": "train.py:11", "value": "lambda c: 2 * c.n", "reads": ["n"]}
        ],
    }
    assert told["x"] == {"unknown": "why", "origins": []}


def test_a_lock_keeps_them() -> None:
    """What a lock tells months later is what was told then."""
    cfg = laid(Config, tree({"opt": {"lr": 0.3}, "need": 1}, OVERRIDE))
    told = explain(cfg)
    one = make_lock(
        config=OmegaConf.to_container(cfg, resolve=True, enum_to_str=True) | {"data": "data"},
        origins=origins_of(cfg),
    )
    again = of_lock(lock.decode(lock.encode(one)))
    assert again.resolved == told.resolved
    assert said(again["opt.lr"]) == said(told["opt.lr"])
