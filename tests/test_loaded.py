"""Code in memory that is older than its file is named; what may be as in the file is not."""

from __future__ import annotations

import importlib
import itertools
import os
import sys
from pathlib import Path

import pytest

from runctx.capture import source as loaded

NUMBER = itertools.count()
BEFORE = '''\
import functools

rate = 1

def wrapping(function):
    @functools.wraps(function)
    def inner(*args):
        return function(*args) + 100
    return inner

def plain(x):
    return x + 1

def twice(x):
    class Local:
        """Its place is part of it."""
        value = 2
    return x * Local.value

@wrapping
def wrapped(x):
    return x + 3

@functools.lru_cache
def kept(x):
    return x + 4

def outer(x):
    def inside(y):
        return y + 5
    return inside(x)

class Net:
    def forward(self, x):
        return x + 6

    @staticmethod
    def static(x):
        return x + 7

    @classmethod
    def of(cls, x):
        return x + 8

    @property
    def size(self):
        return 9

    class Inner:
        def deep(self):
            return 10
'''


class Module:
    """A real module, imported from a file of its own."""

    def __init__(self, folder: Path) -> None:
        self.name = f"edited_{next(NUMBER)}"
        self.path = folder / f"{self.name}.py"
        self.write(BEFORE)
        self.loaded = importlib.import_module(self.name)

    def write(self, text: str) -> None:
        self.path.write_text(text)
        os.utime(self.path, ns=(10**18, next(NUMBER) * 10**9))  # as a copy that keeps its times does
        importlib.invalidate_caches()

    def outdated(self) -> list[str]:
        return loaded.outdated({self.name: self.path}).get(self.path, [])


@pytest.fixture
def module(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    return Module(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("x + 1", "x + 11", ["plain"]),
        ("x + 1", "x + 1.0", ["plain"]),
        ("x + 1", "x - 1", ["plain"]),
        ("value = 2", "value = 22", ["twice"]),
        ("x + 3", "x + 33", ["wrapped"]),
        ("+ 100", "+ 200", ["wrapping", "wrapping.<locals>.inner"]),
        ("x + 4", "x + 44", ["kept"]),
        ("y + 5", "y + 55", ["outer"]),
        ("x + 6", "x + 66", ["Net.forward"]),
        ("x + 7", "x + 77", ["Net.static"]),
        ("x + 8", "x + 88", ["Net.of"]),
        ("return 9", "return 99", ["Net.size"]),
        ("return 10", "return 11", ["Net.Inner.deep"]),
        ("import functools", "# a comment\n\n\nimport functools", []),
        ("x + 1", "(x +  # moved\n            1)", []),
        ("rate = 1", "rate = 2", []),
        ("def plain", "def added(x):\n    return x\n\ndef plain", []),
        ("def plain", "def renamed", []),
        ("x + 1", "x +", []),
    ],
)
def test_edited_after_its_import(module, old, new, named):
    """A function whose code is another in its file is named; not a comment, a new name, a constant, half an edit."""
    assert module.outdated() == []
    module.write(BEFORE.replace(old, new))
    assert module.outdated() == named
    if new != "x +":
        importlib.reload(module.loaded)
        assert module.outdated() == []


def test_taken_before_the_reload(module, monkeypatch):
    """What `__main__` took from a module before it was reloaded is older than the file, and is named."""
    monkeypatch.setattr(sys.modules["__main__"], "plain", module.loaded.plain, raising=False)
    monkeypatch.setattr(sys.modules["__main__"], "Net", module.loaded.Net, raising=False)
    module.write(BEFORE.replace("x + 1", "x + 11").replace("x + 6", "x + 66").replace("x + 8", "x + 88"))
    importlib.reload(module.loaded)
    assert module.outdated() == ["Net.forward", "Net.of", "plain"]


def test_executed_anew(module, monkeypatch):
    """Where `__main__` has executed the file anew, as `%run` does, the old module in memory is not what ran."""
    text = BEFORE.replace("x + 1", "x + 11")
    module.write(text)
    names = {"__name__": "__main__"}
    exec(compile(text, module.path, "exec"), names)
    assert module.outdated() == ["plain"]
    monkeypatch.setattr(sys.modules["__main__"], "plain", names["plain"], raising=False)
    assert module.outdated() == []


def test_changed_by_an_import_hook(module):
    """Code that another loader than Python's own has made need not be that of the file."""
    module.loaded.__loader__ = object()
    module.write(BEFORE.replace("x + 1", "x + 11"))
    assert module.outdated() == []


def test_most_files_are_not_compiled(module, monkeypatch):
    """A file that was not touched since the process began is not read."""
    monkeypatch.setattr(loaded, "_BEGAN", module.path.stat().st_ctime + 3600)
    monkeypatch.setattr(loaded, "_codes_in", lambda path: pytest.fail("compiled"))
    assert module.outdated() == []
