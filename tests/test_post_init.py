"""`__post_init__` of a dataclass runs on the values after all layers."""

from __future__ import annotations

import inspect
import pickle
import subprocess
import sys
from dataclasses import InitVar, dataclass, field
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from runctx import Run, compose, derived, explain, from_cli, grid, to_text
from runctx.config import load, merged, to_plain
from runctx.errors import ConfigError
from tests.test_subclasses import Conv, Layer


@dataclass
class Config:
    epochs: int = 100
    warmup: int = 0
    total: int = field(init=False)

    def __post_init__(self) -> None:
        if self.epochs <= 0:
            raise ValueError("epochs must be positive")
        self.warmup = self.warmup or self.epochs // 10
        self.total = self.epochs + self.warmup


@dataclass
class Scaled:
    """Gives other values when it runs again on its result."""

    lr: float = 0.1
    scale: float = 10.0

    def __post_init__(self) -> None:
        self.lr *= self.scale


@dataclass(frozen=True, slots=True, kw_only=True)
class Frozen:
    name: str = "a"
    path: Path | None = None

    def __post_init__(self) -> None:
        if self.path is None:
            object.__setattr__(self, "path", Path("data") / self.name)


@dataclass
class Outer:
    base: int = 2
    inner: Config = field(default_factory=Config)
    frozen: Frozen = field(default_factory=Frozen)
    many: list[Config] = field(default_factory=lambda: [Config(), Config(epochs=20)])
    named: dict[str, Config] = field(default_factory=dict)
    extra: dict[str, int] = field(default_factory=dict)
    spare: Config | None = None
    double: int = "${mul:${base},2}"  # type: ignore[assignment]
    triple: int = derived(lambda c: 3 * c.base)
    label: str = ""

    def __post_init__(self) -> None:
        self.extra["sum"] = self.double + self.triple + self.inner.total
        self.label = f"{self.frozen.path}:{len(self.many)}"
        if self.base == 7:
            self.spare = Config(epochs=70)
            self.inner.warmup = 1


def recorded(cfg: Any, folder: Path) -> dict[str, Any]:
    """What the lock of a run says of its values, which are those that the run has."""
    with Run(cfg, save_dir=folder, console=False) as run:
        pass
    assert run.lock.config == to_plain(run.cfg)
    return run.lock.config


WITH_50 = {"epochs": 50, "warmup": 5, "total": 55}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (Config, {"epochs": 100, "warmup": 10, "total": 110}),
        (Config(), {"epochs": 100, "warmup": 10, "total": 110}),
        (Config(epochs=50), WITH_50),
        (Config(epochs=50, warmup=7), {"epochs": 50, "warmup": 7, "total": 57}),
        (OmegaConf.structured(Config), {"epochs": 100, "warmup": 10, "total": 110}),
        (Scaled, {"lr": 1.0, "scale": 10.0}),
        (Scaled(), {"lr": 1.0, "scale": 10.0}),
        (Scaled(lr=0.3), {"lr": 3.0, "scale": 10.0}),
    ],
)
@pytest.mark.parametrize("through", ["Run", "from_cli"])
def test_runs_once_on_what_was_given(
    given: Any, expected: dict[str, Any], through: str, tmp_path: Path
) -> None:
    """A class, an instance and a DictConfig have the values that the constructor gives."""
    assert recorded(from_cli(given, []) if through == "from_cli" else given, tmp_path / "run") == expected


@pytest.mark.parametrize("given", [Config, Config(), Config(epochs=70)])
@pytest.mark.parametrize(
    "how", ["from_cli", "merged", "load", "assigned", "twice", "file", "pickled", "compose"]
)
def test_follows_what_is_laid_above(
    given: Any, how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After any layer the values are those of the constructor that was given it, and nothing is stale."""
    monkeypatch.chdir(tmp_path)
    Path("c.yaml").write_text("epochs: 50\n")
    Path("conf/g").mkdir(parents=True)
    Path("conf/config.yaml").write_text("epochs: 50\n")
    if how == "assigned":
        cfg: Any = from_cli(given, ["epochs=30"])
        cfg.epochs = 50
    else:
        cfg = {
            "from_cli": lambda: from_cli(given, ["epochs=50"]),
            "merged": lambda: merged(given, {"epochs": 50}),
            "load": lambda: load("c.yaml", given),
            "twice": lambda: from_cli(merged(from_cli(given, ["epochs=30"]), {"epochs": 40}), ["epochs=50"]),
            "file": lambda: from_cli(given, ["--config", "c.yaml"]),
            "pickled": lambda: merged(
                pickle.loads(pickle.dumps(from_cli(given, ["epochs=9"]))), {"epochs": 50}
            ),
            "compose": lambda: compose("conf", given),
        }[how]()
        assert cfg == WITH_50
    assert recorded(cfg, tmp_path / "run") == WITH_50


def test_what_has_run_and_cannot_run_again() -> None:
    """An instance of which the arguments cannot be known takes no layers, and says so with the class."""
    for lay in (lambda: from_cli(Scaled(lr=0.3), ["scale=1"]), lambda: merged(Scaled(lr=0.3), {"lr": 1})):
        with pytest.raises(
            ConfigError, match=r"^Scaled\.__post_init__ has run, and gives other values"
        ) as caught:
            lay()
        assert "give the class" in (caught.value.hint or "")
    assert from_cli(Scaled(), ["scale=1"]).lr == pytest.approx(0.1)


def test_each_task(tmp_path: Path) -> None:
    """A task of run.map gets the values after it was set, inside its own Run, too."""

    def work(cfg: Any) -> tuple[int, int]:
        with Run(cfg) as run:
            return cfg.warmup, run.cfg.total

    with Run(Config(), save_dir=tmp_path / "run", console=False) as run:
        assert list(run.map(work, [10, 20], into="epochs", launcher="serial")) == [(1, 11), (2, 22)]
        assert list(run.map(work, grid({"warmup": [3]}), into="", launcher="threading")) == [(3, 103)]


SCRIPT = f"""
from dataclasses import InitVar, dataclass, field
from runctx import Run, from_cli

{inspect.getsource(Layer)}
{inspect.getsource(Conv)}
@dataclass
class Config:
    epochs: int = 100
    warmup: int = 0
    layers: list[Layer] = field(default_factory=lambda: [Layer(), Conv()])
    total: int = field(init=False)
    extra: InitVar[int] = 3

    def __post_init__(self, extra):
        self.warmup = self.warmup or self.epochs // 10
        self.total = self.epochs + extra

def main(cfg: Config = Config()):
    with Run(cfg) as run:
        return run.cfg.warmup, cfg.total, run.cfg.layers[1].kernel, len(cfg.layers + [None])

if __name__ == "__main__":
    for cfg in (Config(), Config, from_cli(Config, ["layers[1].width=7"])):
        with Run(cfg, console=False) as run:
            print(list(run.map(main, [10, 20], into="epochs", n_jobs=2)))
"""


def test_in_workers(tmp_path: Path) -> None:
    """A class of the script, which workers get by value, has its subclasses and its `__post_init__` there, too."""
    (tmp_path / "train.py").write_text(SCRIPT)
    command = [sys.executable, "train.py"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert ended.stdout.splitlines() == ["[(1, 13, 3, 3), (2, 23, 3, 3)]"] * 3, ended.stderr


def test_inner_ones_run_first(tmp_path: Path) -> None:
    """Nested dataclasses run before the one around them, which may change them; what is computed is there already."""
    values = recorded(
        from_cli(Outer, ["inner.epochs=30", "frozen.name=b", "many[1].epochs=40"]), tmp_path / "run"
    )
    assert values["inner"] == {"epochs": 30, "warmup": 3, "total": 33}
    assert values["frozen"]["path"] == "data/b" and values["label"] == "data/b:2"
    assert values["many"][1] == {"epochs": 40, "warmup": 4, "total": 44}
    assert values["extra"] == {"sum": 4 + 6 + 33}
    back = Run.load(tmp_path / "run", Outer).cfg
    assert back.inner == Config(epochs=30) and back.many == [Config(), Config(epochs=40)]


def test_outer_ones_change_inner_ones(tmp_path: Path) -> None:
    """What the outer class sets in an inner one, or makes anew, counts; interpolations follow."""
    values = recorded(from_cli(Outer, ["base=7"]), tmp_path / "run")
    assert values["spare"] == {"epochs": 70, "warmup": 7, "total": 77}
    assert values["inner"]["warmup"] == 1 and values["double"] == 14 and values["triple"] == 21
    cfg = merged(from_cli(Outer, ["base=7"]), {"base": 8})
    assert cfg.spare is None and cfg.inner.warmup == 10 and cfg.double == 16


def test_origin(tmp_path: Path) -> None:
    """The lock and `explain` name `__post_init__`, its file and line, and what it beat."""
    cfg = from_cli(Config, ["epochs=50"])
    line = Config.__post_init__.__code__.co_firstlineno
    with Run(cfg, save_dir=tmp_path / "run", console=False) as run:
        pass
    for origins in (run.origins, explain(cfg)):
        assert [(o.layer, o.value) for o in origins["warmup"]] == [("__post_init__", 5), ("default", 0)]
        assert origins["warmup"][0].where.endswith(f"test_post_init.py:{line}")
        assert [o.layer for o in origins["epochs"]] == ["override", "default"]
        assert (origins["total"][0].layer, origins["total"][0].value) == ("__post_init__", 55)
    assert "total = 55" in to_text(Config(epochs=50))


def test_reading_in_it_is_reading(tmp_path: Path) -> None:
    """A key that only `__post_init__` reads was not set in vain."""
    cfg = from_cli(Scaled, ["scale=2"])
    with Run(cfg, save_dir=tmp_path / "run", console=False) as run:
        assert run.cfg.lr == pytest.approx(0.2)
    assert "scale" in run.keys_read
    assert "never read" not in (tmp_path / "run" / "run.log").read_text()


@pytest.mark.parametrize(
    "enter",
    [
        lambda: from_cli(Config, ["epochs=0"]),
        lambda: merged(Config(), {"epochs": 0}),
        lambda: from_cli(Outer, ["inner.epochs=0"]),
    ],
)
def test_what_it_raises_names_the_class(enter: Any) -> None:
    """An error of the user's check is told with the class, after all overrides, and is the cause."""
    with pytest.raises(
        ConfigError, match=r"^Config\.__post_init__: ValueError: epochs must be positive$"
    ) as caught:
        enter()
    assert isinstance(caught.value.__cause__, ValueError)


@dataclass
class NeedsVariable:
    a: int = 1
    b: InitVar[int] = None  # type: ignore[assignment]

    def __post_init__(self, b: int | None) -> None:
        self.a += b or 0


@dataclass
class LacksVariable:
    b: InitVar[int]
    a: int = 1

    def __post_init__(self, b: int) -> None:
        self.a += b


@dataclass
class Sets:
    what: Any = None
    either: int | str = 1
    number: int = 0

    def __post_init__(self) -> None:
        if self.what == "undeclared":
            self.device = "cpu"
        elif self.what == "type":
            self.number = "many"  # type: ignore[assignment]
        elif self.what == "object":
            self.what = {1, 2}
        elif self.what == "hidden":
            self._cache = {1: 2}


@pytest.mark.parametrize(
    ("enter", "message"),
    [
        (
            lambda: from_cli(Config, ["total=3"]),
            "override argument 1: config key total is computed by Config.__post_init__",
        ),
        (lambda: from_cli(Sets, ["what=undeclared"]), "Sets.__post_init__ sets device, which is no field"),
        (lambda: from_cli(Sets, ["what=type"]), "Sets.__post_init__ sets number: "),
        (lambda: from_cli(Sets, ["what=object"]), "Sets.__post_init__ sets what: config key what cannot hold set"),
        (lambda: from_cli(LacksVariable, []), "LacksVariable.__post_init__ needs the InitVar b"),
        (lambda: merged(LacksVariable(2), {"a": 3}), "LacksVariable.__post_init__ has run, and gives other values"),
    ],
)  # fmt: skip
def test_what_cannot_work_says_so(enter: Any, message: str) -> None:
    """A field that is not settable or not declared, a value that does not fit, and an InitVar are told at once."""
    with pytest.raises(ConfigError) as caught:
        enter()
    assert caught.value.message.startswith(message)


def test_an_init_var_with_a_default(tmp_path: Path) -> None:
    """It has its default, and what an instance was given counts as long as nothing is laid upon it."""
    assert from_cli(NeedsVariable, ["a=3"]).a == 3
    assert recorded(NeedsVariable(1, 2), tmp_path / "run") == {"a": 3}
    assert from_cli(Sets, ["what=hidden"]) == {"what": "hidden", "either": 1, "number": 0}


def test_a_mandatory_value_is_asked_for_first() -> None:
    """As long as a value is missing it does not run; the error names what to give, not what it would set."""

    @dataclass
    class Needs(Config):
        data: str = "???"

    with pytest.raises(ConfigError, match=r"^data has no value; write data=\.\.\.$"):
        from_cli(Needs, [])
    cfg: Any = merged(Needs, {})
    cfg.data = "x"
    assert from_cli(cfg, ["epochs=50"]) == {**WITH_50, "data": "x"}


def test_a_folder_that_it_names(tmp_path: Path) -> None:
    """It may say where the run lies, and a second run of that folder has its own."""

    @dataclass
    class Named:
        name: str = "a"
        save_dir: str = ""

        def __post_init__(self) -> None:
            self.save_dir = f"{tmp_path}/{self.name}"

    for expected in ("b", "b-2"):
        with Run(from_cli(Named, ["name=b"]), console=False) as run:
            assert run.save_dir == tmp_path / expected and run.cfg.save_dir == str(tmp_path / expected)


def test_load_keeps_what_was_recorded(tmp_path: Path) -> None:
    """`Run.load(path, Config)` gives the recorded values, and what is no field, in an instance of the class."""
    recorded(from_cli(Scaled, ["lr=0.2"]), tmp_path / "scaled")
    assert Run.load(tmp_path / "scaled", Scaled).cfg.lr == pytest.approx(2)
    recorded(from_cli(Sets, ["what=hidden"]), tmp_path / "sets")
    assert Run.load(tmp_path / "sets", Sets).cfg._cache == {1: 2}
