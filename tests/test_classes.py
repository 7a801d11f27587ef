"""What dataclasses say of their fields: place, type, default, help."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
from dataclasses import dataclass, field

import pytest

from runctx.config.fields import fields_of, place_of, summary_of, type_text

SOURCE = '''\
from __future__ import annotations
from dataclasses import dataclass, field

@dataclass
class Opt:
    """The optimiser.

    And more.
    """
    lr: float = 0.1
    """Learning
    rate."""
    name: str | None = None  # é: which one

@dataclass
class Base:
    seed: int = 0  # noqa: E501

@dataclass
class Config(Base):
    data: str
    epochs: int = field(default=5, metadata={"help": "how often"})
    """Not this."""
    opt: Opt = field(default_factory=lambda: Opt(lr=3.0))
    sizes: list[int] = field(
        default_factory=lambda: [1, 2],
    )  # layers
    spare: Opt | None = None

def make():
    if True:
        @dataclass
        class Local:
            x: int = 1  # inside
    return Local
'''
SOURCE = SOURCE.replace("    data: str\n", '    data: str = "???"\n')


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module of a user, in the working folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "users.py").write_text(SOURCE, "utf-8")
    spec = importlib.util.spec_from_file_location("users_of_classes", tmp_path / "sub" / "users.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "users_of_classes", module)
    spec.loader.exec_module(module)
    return module


def test_fields(module):
    """Each leaf is there, in order, with the type as it is written, the default that counts and the help."""
    found = [(f.name, f.type, f.default, f.help) for f in fields_of(module.Config)]
    assert found == [
        ("seed", "int", 0, ""),
        ("data", "str", "???", ""),
        ("epochs", "int", 5, "how often"),
        ("opt.lr", "float", 3.0, "Learning rate."),
        ("opt.name", "str | None", None, "é: which one"),
        ("sizes", "list[int]", [1, 2], "layers"),
        ("spare", "Opt | None", None, ""),
    ]


def test_places(module, tmp_path, monkeypatch):
    """A field's place is file and line, below the working folder without it; an inherited one's is its own class."""
    assert place_of(module.Config) == ("sub/users.py", None)
    assert place_of(module.Config, "epochs") == ("sub/users.py", 22)
    assert place_of(module.Config, "seed") == ("sub/users.py", 17)
    assert place_of(module.Config, "nowhere") == ("sub/users.py", None)
    assert place_of(module.make(), "x") == ("sub/users.py", 34)
    monkeypatch.chdir("/")
    assert place_of(module.Config)[0] == str(tmp_path / "sub" / "users.py").lstrip("/")


def test_field_redeclared(module):
    """The class nearest to the one that is asked says where a field is written."""

    @dataclass
    class Own(module.Base):
        seed: int = 1  # mine

    assert place_of(Own, "seed")[0].endswith("test_classes.py")
    assert fields_of(Own)[0].help == "mine"


def test_summary(module):
    """The first paragraph of a docstring, and not the one that `dataclass` writes itself."""
    assert summary_of(module.Opt) == "The optimiser."
    assert summary_of(module.Base) == ""


def test_without_source():
    """A class that was made, not written, has its name for a place, and its types and defaults all the same."""
    made = dataclasses.make_dataclass("Made", [("lr", float, 0.1), ("x", "int | None", None)])
    assert place_of(made, "lr") == ("Made", None)
    assert [(f.name, f.type, f.default) for f in fields_of(made)] == [
        ("lr", "float", 0.1),
        ("x", "int | None", None),
    ]
    scope = {"__name__": "nowhere"}
    code = "from dataclasses import dataclass\n@dataclass\nclass Run:\n    x: int = 1"
    exec(compile(code, "<string>", "exec", dont_inherit=True), scope)
    assert place_of(scope["Run"], "x") == ("Run", None)


def test_source_that_cannot_be_read(tmp_path, monkeypatch):
    """A file that is gone, is no Python or was cut off since it was imported costs the places, nothing else."""
    for n, content in enumerate((None, b"class X(:", b"\xff\xfe", b"\0")):
        file = tmp_path / f"gone{n}.py"
        file.write_text("from dataclasses import dataclass\n@dataclass\nclass X:\n    a: int = 1\n")
        spec = importlib.util.spec_from_file_location(f"gone_of_classes{n}", file)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
        file.unlink() if content is None else file.write_bytes(content)
        assert place_of(module.X, "a") == ("X", None)
        assert fields_of(module.X)[0].default == 1


def test_class_within_itself():
    """A class that has one of its own kind in it does not go on for ever."""

    @dataclass
    class Node:
        value: int = 0
        left: Node | None = None

    assert [f.name for f in fields_of(Node)] == ["value", "left"]


def test_failing_factory():
    """A default that cannot be made is told as one that must be given."""

    @dataclass
    class Odd:
        y: int
        x: int = field(default_factory=lambda: 1 // 0)

    assert [f.default for f in fields_of(dataclasses.make_dataclass("Odd", [("x", int)]))] == ["???"]
    assert [f.default for f in fields_of(Odd)] == ["???", "???"]


@pytest.mark.parametrize(
    "annotation, text",
    [
        (int, "int"),
        (list[int], "list[int]"),
        (int | None, "int | None"),
        ("dict[str, X]", "dict[str, X]"),
        (dict[str, dataclasses.Field], "dict[str, Field]"),
        (type(None), "None"),
    ],
)
def test_type_as_one_would_write_it(annotation, text):
    """Types whose source is not known are shown without modules."""
    assert type_text(annotation) == text
