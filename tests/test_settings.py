"""[tool.runctx] < RUNCTX_* < arguments, and whatever is wrong is named with where it stands."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runctx import settings
from runctx.errors import SettingsError
from runctx.settings import TRACKERS, Settings, load
from runctx.trackers import _OURS, OFF


def project(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pyproject.toml").write_text(text, "utf-8")
    return folder


def test_each_source_beats_the_one_before(tmp_path: Path) -> None:
    """An argument beats a variable, which beats the file, which beats the default."""
    project(tmp_path, "[tool.runctx]\nresults = 'file'\nbranch = 'file'\nexclude = ['file']\n")
    environ = {"RUNCTX_RESULTS": "variable", "RUNCTX_BRANCH": "variable"}
    found = load(tmp_path, environ, results="argument")
    assert (found.results, found.branch, found.exclude, found.include) == (
        "argument",
        "variable",
        ("file",),
        (),
    )


def test_an_argument_of_none_and_an_empty_variable_are_not_given(tmp_path: Path) -> None:
    """`None` and the empty string leave the weaker source in force."""
    project(tmp_path, "[tool.runctx]\nresults = 'file'\n")
    assert load(tmp_path, {"RUNCTX_RESULTS": ""}, results=None).results == "file"


def test_types_in_every_source(tmp_path: Path) -> None:
    """Lists and sizes are read alike from TOML, from text and from Python values."""
    project(tmp_path, "[tool.runctx]\nexclude = ['*.ckpt', 're:^tmp']\nmax_file_size = 5_000\n")
    expected = (("*.ckpt", "re:^tmp"), 5000)
    environ = {"RUNCTX_EXCLUDE": " *.ckpt , re:^tmp,", "RUNCTX_MAX_FILE_SIZE": "5_000"}
    for found in (
        load(tmp_path, {}),
        load(tmp_path / "..", environ),
        load(tmp_path / "..", {}, exclude=["*.ckpt", "re:^tmp"], max_file_size=5000),
    ):
        assert (found.exclude, found.max_file_size) == expected
    assert load(tmp_path, {}, results=Path("a/b")).results == "a/b"


def test_the_project_is_found_from_below(tmp_path: Path) -> None:
    """Code in any folder of the project has the project's settings and root."""
    root = project(tmp_path, "[tool.runctx]\nresults = 'r'\n")
    (root / "a" / "b").mkdir(parents=True)
    assert load(root / "a" / "b", {}) == Settings(root=root, results="r")


def test_a_nested_package_without_settings_has_those_around_it(tmp_path: Path) -> None:
    """A pyproject.toml that does not speak of runctx does not hide one that does."""
    root = project(tmp_path, "[tool.runctx]\nresults = 'r'\n")
    inner = project(root / "packages" / "a", "[project]\nname = 'a'\n")
    assert load(inner, {}) == Settings(root=root, results="r")
    (root / "pyproject.toml").write_text("[tool.other]\n")
    assert load(inner, {}).root == inner


def test_a_repository_is_a_project(tmp_path: Path) -> None:
    """Without pyproject.toml, a script in any folder of a repository and a reader at its top share one root."""
    (tmp_path / ".git").mkdir()
    (tmp_path / "scripts" / "late").mkdir(parents=True)
    assert load(tmp_path / "scripts" / "late", {}) == load(tmp_path, {}) == Settings(root=tmp_path)
    inner = project(tmp_path / "packages" / "a", "[project]\nname = 'a'\n")
    assert load(inner, {}).root == inner
    project(tmp_path, "[tool.runctx]\nresults = 'r'\n")
    assert load(tmp_path / "scripts", {}) == Settings(root=tmp_path, results="r")


def test_without_a_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any pyproject.toml the defaults hold, and paths start at the current folder, made absolute."""
    (tmp_path / "a").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load(None, {}) == Settings(root=tmp_path)
    assert load(Path("a"), {}) == Settings(root=tmp_path / "a")


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    """In a long-lived kernel an edited pyproject.toml counts from the next run on."""
    project(tmp_path, "[tool.runctx]\nresults = 'old'\n")
    assert load(tmp_path, {}).results == "old"
    project(tmp_path, "[tool.runctx]\nresults = 'new'\n")
    os.utime(tmp_path / "pyproject.toml", ns=(1, 1))
    assert load(tmp_path, {}).results == "new"


def test_other_variables_are_none_of_ours(tmp_path: Path) -> None:
    """`RUNCTX_CACHE`, a benchmark's variables and the like are not settings and not mistakes."""
    environ = {"RUNCTX_CACHE": "/c", "RUNCTX_BENCH_DIR": "/b", "RUNCTX_ROOT": "/r", "RESULTS": "x"}
    assert load(tmp_path, environ) == Settings(root=tmp_path)


@pytest.mark.parametrize(
    ("text", "told", "hint"),
    [
        ("[tool.runctx]\nresult = 'x'\n", "unknown setting 'result'", "did you mean 'results'?"),
        (
            "[tool.runctx]\nmax_filesize = 1\n",
            "unknown setting 'max_filesize'",
            "did you mean 'max_file_size'?",
        ),
        ("[tool.runctx]\nweather = 1\n", "unknown setting 'weather'", "there are: results, branch"),
        ("[tool.runctx]\nroot = '/'\n", "unknown setting 'root'", "there are: "),
        ("[tool.runctx]\nresults = 3\n", "'results' must be a string; got 3", None),
        ("[tool.runctx]\nexclude = [1]\n", "'exclude' must be a list of strings; got [1]", None),
        (
            "[tool.runctx]\nmax_file_size = -1\n",
            "'max_file_size' must be a whole number; got -1",
            None,
        ),
        ("[tool.runctx]\nmax_file_size = true\n", "must be a whole number; got True", None),
        ("[tool.runctx]\nmax_file_size = 1.5\n", "must be a whole number; got 1.5", None),
        ("[tool]\nrunctx = 5\n", "runctx must be a table; got 5", None),
        ("tool = []\n", "tool must be a table; got []", None),
        (
            "[tool.runctx]\ntracking = ['mlfow']\n",
            "unknown tracker 'mlfow'",
            "mlflow, tensorboard, off, or",
        ),
        ("[tool.runctx\n", "cannot be parsed as TOML", None),
        ("a = " + "[" * 5000, "cannot be parsed as TOML", None),
    ],
)
def test_a_mistake_in_the_file_is_named(tmp_path: Path, text: str, told: str, hint: str | None) -> None:
    """A wrong key or value is refused with the file's name, and with the near name where there is one."""
    project(tmp_path, text)
    with pytest.raises(SettingsError) as caught:
        load(tmp_path, {})
    assert str(tmp_path / "pyproject.toml") in caught.value.message
    assert told in caught.value.message
    assert hint is None or hint in (caught.value.hint or "")


def test_a_file_that_is_not_text_is_named(tmp_path: Path) -> None:
    """Bytes that are not UTF-8 are a broken file, not a crash."""
    (tmp_path / "pyproject.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match=r"pyproject\.toml: cannot be parsed"):
        load(tmp_path, {})


def test_a_folder_of_that_name_is_named(tmp_path: Path) -> None:
    """A pyproject.toml that cannot be read says why."""
    (tmp_path / "pyproject.toml").mkdir()
    with pytest.raises(SettingsError, match=r"pyproject\.toml: cannot be read: Is a directory"):
        load(tmp_path, {})


def test_a_tracker_that_cannot_be_is_named_at_once(tmp_path: Path) -> None:
    """A slip in `tracking` does not wait for a process that nobody looks at; ours, `off` and paths of classes pass."""
    with pytest.raises(SettingsError, match=r"variable RUNCTX_TRACKING: .* unknown tracker 'tensorbord'"):
        load(tmp_path, {"RUNCTX_TRACKING": "mlflow,tensorbord"})
    names = load(tmp_path, {"RUNCTX_TRACKING": ",".join((*TRACKERS, "lab:Mine"))}).tracking
    assert names == (*_OURS, OFF, "lab:Mine")


@pytest.mark.parametrize("value", ["many", "10MB", "-1", "1__0", "\u00b2", "1.5", "9" * 5000])
def test_a_mistake_in_a_variable_is_named(tmp_path: Path, value: str) -> None:
    """A wrong variable is refused with its name."""
    with pytest.raises(SettingsError, match=r"variable RUNCTX_MAX_FILE_SIZE: .* whole number"):
        load(tmp_path, {"RUNCTX_MAX_FILE_SIZE": value})


@given(
    st.sampled_from([f.name for f in dataclasses.fields(Settings)]),
    st.text() | st.integers() | st.lists(st.text()),
)
def test_any_value_is_taken_or_refused(name: str, value: Any) -> None:
    """Whatever is given as a setting is either in force afterwards or a SettingsError."""
    try:
        found = load(
            Path("/"),
            {settings.PREFIX + name.upper(): value} if isinstance(value, str) else {},
            **{name: value},
        )
    except SettingsError:
        pass
    else:
        assert type(getattr(found, name)) in (str, tuple, int)


def test_in_a_test_nothing_is_shown_unless_the_variable_asks_for_it(tmp_path: Path) -> None:
    """A user's own tests leave no process and no database behind."""
    (tmp_path / "pyproject.toml").write_text('[tool.runctx]\ntracking = ["tensorboard"]\n')
    test = {"PYTEST_CURRENT_TEST": "test_x.py::test_y (call)"}
    assert load(tmp_path, {}).tracking == ("tensorboard",)
    assert load(tmp_path, test).tracking == ("off",)
    assert load(tmp_path, {**test, "RUNCTX_TRACKING": "mlflow"}).tracking == ("mlflow",)
