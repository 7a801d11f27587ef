"""The digest of a logging function is of what it does, and of nothing else."""

from __future__ import annotations

import functools
import importlib
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runctx.errors import TrackingError
from runctx.trackers.logging_function import digest, load

STAGE = '''
import functools
import os.path

import shapes
from shapes import Curve as Line, decorated

SCALE = 2
NAMED = {"acc": shapes.area}

class Page:
    """What is shown."""
    size = 10

    @property
    def title(self):
        return shapes.TITLE

    def draw(self):
        return SCALE

@decorated
def log_run(run, width=1, *, height=2):
    """Log it."""
    from lazily import late
    import whole

    def inner(x):
        """Not seen."""
        class Local:
            kinds = {"a", "b", "c", "d"}
            for _ in range(3):
                pass
        return Local.kinds, x

    shown = [NAMED[name](width) for name in NAMED]
    return inner(height), late(run), whole.anything, Line().of(shown), Page().draw(), os.path.join("a", "b")
'''
SHAPES = """
import functools

TITLE = "Curves"

def area(width):
    return deep(width) * 2

def deep(width):
    return 0 if width in {"x", "y", "z"} else deep("x")

def decorated(function):
    @functools.wraps(function)
    def wrapper(*args, **named):
        return function(*args, **named), "decorated"
    return wrapper

class Base:
    unit = "cm"

class Curve(Base):
    @staticmethod
    def of(points):
        return points

    @functools.cached_property
    def length(self):
        return 3
"""
LAZILY = "def late(run):\n    return 'late'\n"
WHOLE = "anything = 5\ndef unused():\n    return 1\n"
FILES = {"stage": STAGE, "shapes": SHAPES, "lazily": LAZILY, "whole": WHOLE}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A function that writes these modules anew and gives the digest of `stage.log_run` in them."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def written(**files: str) -> str:
        for name, text in files.items():
            (tmp_path / f"{name}.py").write_text(text)
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        return digest(importlib.import_module("stage").log_run)

    yield written
    for name in FILES:
        sys.modules.pop(name, None)


CHANGES = """
stage: SCALE = 2 -> SCALE = 3
stage: size = 10 -> size = 11
stage: width=1 -> width=2
stage: height=2 -> height=3
stage: {"acc": -> {"f1":
stage: "c", "d" -> "c", "e"
stage: range(3) -> range(4)
stage: late(run), whole -> late(height), whole
shapes: * 2 -> * 3
shapes: return 0 -> return 1
shapes: "y", "z" -> "y", "w"
shapes: "decorated" -> "changed"
shapes: "cm" -> "mm"
shapes: return points -> return points[1:]
shapes: return 3 -> return 4
shapes: "Curves" -> "Lines"
lazily: 'late' -> 'later'
whole: = 5 -> = 6
whole: return 1 -> return 2
"""
REWRITTEN = [
    ('    """Log it."""\n', ""),
    ('"""Not seen."""', '"""Something else."""'),
    ('    """What is shown."""\n', ""),
    ("class Local:\n", 'class Local:\n            """New."""\n'),
    ("SCALE = 2", "\n\n# twice\nSCALE = 1 + 1\nUNUSED = 3"),
    ("width=1, *,", "width=1,\n    # how wide\n    *,"),
]


def test_what_it_does_counts_and_how_it_is_written_does_not(project):
    """A change of the function, or of what it uses however far away; no comment, docstring, place or unused name."""
    first = project(**FILES)
    for line in CHANGES.strip().splitlines():
        module, _, change = line.partition(": ")
        before, _, after = change.partition(" -> ")
        assert before in FILES[module]
        assert project(**FILES | {module: FILES[module].replace(before, after)}) != first, line
    for before, after in REWRITTEN:
        assert before in STAGE
        assert project(**FILES | {"stage": STAGE.replace(before, after)}) == first, after
    function = sys.modules["stage"].log_run
    function(3)
    assert digest(function) == first  # what it imports when it is called was followed before


def test_every_process_agrees(project, tmp_path):
    """Processes with other hash seeds find the same digest, whether the module is a script or is imported."""
    mine = project(**FILES)
    code = "from runctx.trackers.logging_function import digest\nprint(digest(log_run))"
    found = set()
    for seed, text in (("1", f"from stage import log_run\n{code}"), ("2", f"{STAGE}\n{code}")):
        (tmp_path / "script.py").write_text(text)
        environ = {**os.environ, "PYTHONHASHSEED": seed}
        ran = subprocess.run(
            [sys.executable, "script.py"],
            cwd=tmp_path,
            env=environ,
            capture_output=True,
            text=True,
            check=True,
        )
        found.add(ran.stdout.strip())
    assert found == {mine}


@given(st.lists(st.one_of(st.integers(), st.text(), st.floats(), st.none()), max_size=3))
def test_values_at_hand_count(values):
    """Functions are equal where their closures and defaults hold equal values, and differ where they do not."""

    def made(held, default):
        def function(run, more=default):
            return held, run, more

        return function

    same = made(list(values), tuple(values))
    assert digest(made(values, tuple(values))) == digest(same)
    assert digest(made([*values, 1], tuple(values))) != digest(same)
    assert digest(made(values, (*values, 1))) != digest(same)


class Logger:
    def __init__(self, scale):
        self.scale = scale

    def __call__(self, run):
        return self.scale

    def log(self, run):
        return -self.scale


def test_callables_of_every_kind():
    """Partial functions, methods, objects that can be called and cached functions each count with what they hold."""

    def function(scale, run):
        return scale

    kinds = [
        *(functools.partial(function, scale) for scale in (1, 2)),
        *(Logger(scale) for scale in (1, 2)),
        *(Logger(scale).log for scale in (1, 2)),
        functools.lru_cache(function),
        function,
        print,
        len,
    ]
    assert len({digest(kind) for kind in kinds}) == len(kinds)
    assert digest(Logger(1)) == digest(Logger(1))


def test_anything_may_be_at_hand():
    """What cannot be pickled, or holds itself, does not keep a function from having a digest."""
    loop: list[object] = [open]
    loop.append(loop)
    with open(os.devnull) as stream:

        def function(run, more=loop):
            return stream, function, more

        assert digest(function) == digest(function)


# -- by name -----------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with `my_stage.py`, and another script in a folder below."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    text = (
        "class Of:\n    log = staticmethod(lambda run: 3)\n\ndef log_run(run):\n    return 2\n\nnumber = 5\n"
    )
    (tmp_path / "my_stage.py").write_text(text)
    (tmp_path / "below").mkdir()
    (tmp_path / "below/other_stage.py").write_text("from beside_it import log_run\n")
    (tmp_path / "below/beside_it.py").write_text("def log_run(run):\n    return 1\n")
    (tmp_path / "broken_stage.py").write_text("import nothing_like_this\n")
    (tmp_path / "leaving_stage.py").write_text("raise SystemExit(3)\n")
    (tmp_path / "below/json.py").write_text("def log_run(run):\n    return 1\n")
    yield tmp_path
    for name in ("my_stage", "other_stage", "beside_it", "broken_stage", "leaving_stage"):
        sys.modules.pop(name, None)


def test_functions_by_name(folder):
    """A function is found by module and by file, as it would be by a script beside it."""
    named = ("my_stage:log_run", "my_stage:Of.log", "my_stage.py:log_run", "below/other_stage.py:log_run")
    assert [load(name)(None) for name in named] == [2, 3, 2, 1]


@pytest.mark.parametrize(
    ("named", "message", "hint"),
    [
        ("my_stage", "does not name a function", "train:log_run"),
        ("my_stage:log_runs", "no function 'log_runs' in my_stage", "did you mean 'log_run'?"),
        ("my_stage:number", "must be a function; got int", None),
        ("your_stage:log_run", "no module 'your_stage'", "current folder"),
        ("below/none.py:log_run", "no such file: ", "write module:function, or file:function"),
        ("broken_stage:log_run", "ModuleNotFoundError: No module named 'nothing_like_this'", "__main__"),
        ("leaving_stage:log_run", "SystemExit: 3", "__main__"),
        ("below/json.py:log_run", "another module is called json", "rename"),
    ],
)
def test_what_cannot_be_had_is_said(folder, named, message, hint):
    """What is wrong with the name of a function is said, with what to do about it."""
    with pytest.raises(TrackingError) as caught:
        load(named)
    assert message in caught.value.message
    assert hint is None or hint in (caught.value.hint or "")
