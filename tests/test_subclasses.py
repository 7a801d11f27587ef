"""A field may hold a subclass of the dataclass that is declared for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from runctx import Run, from_cli
from runctx.config import merged
from runctx.errors import ConfigError


@dataclass
class Layer:
    width: int = 1


@dataclass
class Conv(Layer):
    kernel: int = 3


@dataclass(frozen=True)
class Frozen:
    layer: Layer = field(default_factory=Conv)


@dataclass
class Same(Layer):
    """Has no fields of its own."""


@dataclass
class InList:
    layers: list[Layer] = field(default_factory=lambda: [Layer(), Conv(), Same()])


@dataclass
class InTuple:
    layers: tuple[Layer, ...] = field(default_factory=lambda: (Layer(), Conv(), Same()))


@dataclass
class InDict:
    layers: dict[str, Layer] = field(default_factory=lambda: {"a": Layer(), "b": Conv(), "c": Same()})


@dataclass
class Alone:
    layer: Layer = field(default_factory=Conv)
    other: Layer | None = None
    deep: dict[str, list[Layer]] = field(default_factory=lambda: {"x": [Conv()]})
    inner: Frozen = field(default_factory=Frozen)


def back(cfg: Any, cls: Any, folder: Path) -> Any:
    """What a run was given, loaded again."""
    with Run(cfg, save_dir=folder, console=False) as run:
        pass
    return Run.load(run.save_dir, cls).cfg


@pytest.mark.parametrize("cls", [InList, InTuple, InDict, Alone])
@pytest.mark.parametrize("how", ["class", "instance", "from_cli", "merged"])
def test_subclasses_come_back(cls: Any, how: str, tmp_path: Path) -> None:
    """Whatever was given to a run, `Run.load(path, Config)` gives instances of the same classes."""
    cfg = {
        "class": lambda: cls,
        "instance": lambda: cls(),
        "from_cli": lambda: from_cli(cls, []),
        "merged": lambda: merged(cls, {}),
    }[how]()
    assert back(cfg, cls, tmp_path / "run") == cls()


@pytest.mark.parametrize(
    ("cls", "argument", "expected"),
    [
        (InList, "layers[1].kernel=5", InList([Layer(), Conv(kernel=5), Same()])),
        (InList, "layers[2].width=5", InList([Layer(), Conv(), Same(5)])),
        (InTuple, "layers[1].kernel=5", InTuple((Layer(), Conv(kernel=5), Same()))),
        (InDict, "layers.b.kernel=5", InDict({"a": Layer(), "b": Conv(kernel=5), "c": Same()})),
        (InList, "layers=[{width: 4}]", InList([Layer(4)])),
        (Alone, "layer.kernel=5", Alone(layer=Conv(kernel=5))),
        (Alone, "layer={width: 2, kernel: 4}", Alone(layer=Conv(2, 4))),
        (Alone, "deep.x[0].kernel=7", Alone(deep={"x": [Conv(kernel=7)]})),
        (Alone, "inner.layer.kernel=7", Alone(inner=Frozen(Conv(kernel=7)))),
        (Alone, "other.width=7", Alone(other=Layer(7))),
    ],
)
def test_overrides_reach_subclasses(cls: Any, argument: str, expected: Any, tmp_path: Path) -> None:
    """A key of a subclass is set like any other, and the classes around it stay what they are."""
    assert back(from_cli(cls, [argument]), cls, tmp_path / "run") == expected


def test_an_instance_chooses(tmp_path: Path) -> None:
    """Other subclasses than those of the defaults come back, also where the default is one and the value is not."""
    given = Alone(layer=Layer(2), other=Conv(kernel=9), deep={"x": [], "y": [Layer(), Same()]})
    assert back(from_cli(given, ["other.kernel=8"]), Alone, tmp_path / "run") == Alone(
        Layer(2), Conv(kernel=8), {"x": [], "y": [Layer(), Same()]}
    )


@pytest.mark.parametrize(
    ("cls", "argument"),
    [
        (InList, "layers=[{kernel: 5}]"),
        (InTuple, "layers=[{kernel: 5}]"),
        (InDict, "layers.a.kernel=5"),
        (Alone, "other.kernel=5"),
        (Alone, "other={kernel: 5}"),
    ],
)
def test_a_key_of_a_subclass_that_is_not_there(cls: Any, argument: str) -> None:
    """Where the class that is there does not have a key, the error names the subclass that has it."""
    with pytest.raises(ConfigError) as caught:
        from_cli(cls, [argument])
    assert caught.value.hint == "kernel is a field of Conv; only code can choose Conv(...) in place of Layer"


def test_a_subclass_that_is_gone(tmp_path: Path) -> None:
    """A subclass that nobody has imported is named, and so is a key of one where the lock tells no class."""

    def run() -> None:
        @dataclass
        class Local(Layer):
            depth: int = 2

        with Run(InList([Local()]), save_dir=tmp_path / "run", console=False):
            pass

    run()
    Layer.__subclasses__()
    (lock,) = tmp_path.glob("*/run.lock")
    text = lock.read_text().replace("<locals>.Local", "<locals>.Gone")
    lock.write_text(text)
    with pytest.raises(
        ConfigError, match=r"config key layers\.0: was of class .*Gone, a subclass of Layer"
    ) as caught:
        _ = Run.load(lock.parent, InList).cfg
    assert caught.value.hint == "import the module that defines it"
