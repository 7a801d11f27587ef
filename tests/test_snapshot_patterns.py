"""Patterns name what gitignore would, so that nobody has to learn a second language."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from runctx.snapshot.patterns import fixed_folder, matcher

PATHS = (
    *(
        "a",
        "b",
        "ab",
        "a.py",
        "x/a",
        "x/a.py",
        "x/y/a",
        "x/y/z/a.py",
        "a/b",
        "a/x/b",
        "a/x/y/b",
        "x/a/b",
        "a/b/c",
    ),
    *(
        "[a]",
        "a]",
        "x/a/y.log",
        ".h",
        "x/.h",
        "a b",
        "data/raw/1.bin",
        "data/x/raw/1.bin",
        "results/1/m.ckpt",
    ),
)
PATTERNS = (
    *(
        "a",
        "/a",
        "a/",
        "x/a",
        "/x/a",
        "*",
        "*.py",
        "x/*",
        "x/*.py",
        "**",
        "**/a",
        "x/**",
        "a/**/b",
        "a/*/b",
        "?",
    ),
    *(
        "[ab]",
        "[!a]",
        "[a-b]*",
        "a?",
        "*/a",
        "x/*/a",
        "data/**/raw",
        "results/",
        "*.ckpt",
        ".*",
        "\\[a\\]",
        "x/**/*.py",
    ),
    *("*a*.*y*", "**/x/**/y/**/*", "x/**/**/a", "*/*/*", "*.*.*", "**/", "a/**/"),
)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_globs_name_what_gitignore_would(tmp_path: Path, pattern: str) -> None:
    """A glob names a file exactly if git would ignore it by the same line."""
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    (tmp_path / ".git/info").mkdir(exist_ok=True)
    (tmp_path / ".git/info/exclude").write_text(pattern + "\n", encoding="utf-8")
    asked = subprocess.run(
        ["git", "-c", "core.excludesFile=", "check-ignore", "--no-index", "-z", "--stdin"],
        cwd=tmp_path,
        input="\0".join(PATHS).encode(),
        capture_output=True,
        check=False,
    )
    ignored = set(asked.stdout.decode().split("\0")) - {""}
    assert {path for path in PATHS if matcher((pattern,))(path)} == ignored


@pytest.mark.parametrize("pattern", [p for p in PATTERNS if not p.startswith("\\")])
def test_fixed_folder_holds_all_that_is_named(pattern: str) -> None:
    """What a pattern names lies in the folder that is searched for it."""
    folder = fixed_folder(pattern)
    named = [path for path in PATHS if matcher((pattern,))(path)]
    assert all(path.startswith(folder + "/") for path in named if folder)


@pytest.mark.parametrize(
    "pattern", ["*a" * 12 + "b", "**/a/" * 12 + "b", "a" + "*" * 60 + "b", "**/*a*/" * 6 + "b"]
)
def test_many_wildcards_are_no_burden(pattern: str) -> None:
    """A pattern with a dozen wildcards is matched at once: the steps grow with the path, not with a power of it."""
    deep = "/".join(["a" * 40] * 30)
    assert not matcher((pattern,))("a" * 3000)
    assert not matcher((pattern,))(deep)
