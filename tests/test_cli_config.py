"""`runctx config convert`, as a real process: the file it writes, and what it says when it cannot."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from runctx.config.formats import SUFFIXES, read

MAIN = [sys.executable, "-c", "from runctx.cli import main; main(prog_name='runctx')"]

BASE = """\
lr: 0.1
name: \\${not one}
opt:
  name: sgd
  momentum: 0.9
  lr: ${lr}
"""
TOP = """\
_base_ = 'base.yaml'
lr = 0.2
opt = dict(_delete_=['momentum'], warm=[1, 2])
"""
AS_WRITTEN = {"lr": 0.2, "name": r"\${not one}", "opt": {"name": "sgd", "lr": "${lr}", "warm": [1, 2]}}
RESOLVED = {"lr": 0.2, "name": r"\${not one}", "opt": {"name": "sgd", "lr": 0.2, "warm": [1, 2]}}


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a configuration and its base."""
    monkeypatch.chdir(tmp_path)
    Path("base.yaml").write_text(BASE)
    Path("top.py").write_text(TOP)
    return tmp_path


def convert(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*MAIN, "config", "convert", *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def refused(*arguments: str) -> str:
    done = convert(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    return done.stderr


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_all_that_files_say_is_in_one(suffix: str) -> None:
    """What the bases say is in the file; interpolations are still ones, and nothing is printed."""
    done = convert("top.py", f"out{suffix}")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert read(f"out{suffix}").values == AS_WRITTEN


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_resolved_values_can_be_written(suffix: str) -> None:
    """With `--resolve`, values stand where interpolations stood; text that looks like one stays text."""
    assert convert("top.py", f"out{suffix}", "--resolve").returncode == 0
    assert read(f"out{suffix}").values == RESOLVED


def test_derived_values_need_to_be_resolved() -> None:
    """A function fits into no file: its value does."""
    Path("derived.py").write_text("from runctx import derived\na = 2\nb = derived(lambda c: c.a * 3)\n")
    assert "config key b: a derived value is a function" in refused("derived.py", "out.json")
    assert convert("derived.py", "out.json", "--resolve").returncode == 0
    assert json.loads(Path("out.json").read_text()) == {"a": 2, "b": 6}


def test_a_part_of_a_file_can_be_converted() -> None:
    """`FROM#KEY` takes the mapping under a key."""
    assert convert("top.py#opt", "opt.toml").returncode == 0
    assert read("opt.toml").values == AS_WRITTEN["opt"]


def test_what_exists_is_replaced_only_by_force() -> None:
    """A file that is there stays as it was, unless told otherwise; then it is replaced as a whole."""
    Path("out.json").write_text("precious")
    assert refused("top.py", "out.json") == "error: out.json exists\nhint: use --force to replace it\n"
    assert Path("out.json").read_text() == "precious"
    assert convert("top.py", "out.json", "--force").returncode == 0
    assert read("out.json").values == AS_WRITTEN


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing.yaml", "out.json"], "nothing.yaml"),
        (["top.py", "out.ini"], "it ends in one of .yaml, .yml, .json, .toml, .py"),
        (["top.py", "out"], "it ends in one of .yaml, .yml, .json, .toml, .py"),
        (["null.yaml", "out.toml"], "config key a.b: TOML has no null"),
        (["wrong.yaml", "out.toml", "--resolve"], "config key a"),
        (["top.py", "nowhere/out.json"], "error: cannot write nowhere/out.json: No such file or directory"),
        (["top.py", "folder/out.json"], "error: folder/out.json exists"),
    ],
)
def test_what_cannot_be_converted_leaves_no_file(arguments: list[str], said: str) -> None:
    """The error says what is wrong, and nothing is left behind."""
    Path("null.yaml").write_text("a: {b: null}")
    Path("wrong.yaml").write_text("a: ${b}")
    Path("folder/out.json").mkdir(parents=True)
    before = sorted(os.listdir())
    assert said in refused(*arguments)
    assert sorted(os.listdir()) == before


def test_help_says_that_python_is_code() -> None:
    """Whoever converts a Python configuration is told that this executes it."""
    assert "Python configuration is code" in " ".join(convert("--help").stdout.split())
