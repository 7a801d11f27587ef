"""Which folders from before runctx does `runctx publish` take, and what does it say of the others?"""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from runctx.cli.views import publish


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two folders without a lock, one of them with a configuration; TensorBoard, for it is quick."""
    (tmp_path / "pyproject.toml").write_text("[tool.runctx]\nresults = 'results'\n")
    for name, file in (("first", "config.yaml"), ("second", "notes.txt"), ("none", "deeper/notes.txt")):
        (tmp_path / "old" / name / file).parent.mkdir(parents=True)
        (tmp_path / "old" / name / file).write_text("lr: 0.1\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RUNCTX_TRACKING", "tensorboard")
    return tmp_path / "old"


def test_a_glob_says_what_it_passed_over(old: Path) -> None:
    """What a glob finds without lock and configuration is no run, and it is said how many there are."""
    done = CliRunner().invoke(publish, ["old/*"])
    assert (done.exit_code, "published      1" in done.stdout) == (0, True), done.output
    assert "skipped, without run.lock or configuration: 1\nhint: name such a folder by itself" in done.stderr
    assert not (old / "second" / ".runctx").exists()


def test_named_alone_it_is_published(old: Path) -> None:
    """A folder with any files is published when it is named, and nothing is said of others."""
    done = CliRunner().invoke(publish, ["old/second"])
    assert (done.exit_code, "published      1" in done.stdout, done.stderr) == (0, True, ""), done.output


def test_a_folder_of_old_folders_is_no_run(old: Path) -> None:
    """Who names the folder around them is told how they are named."""
    done = CliRunner().invoke(publish, ["old"])
    assert (done.exit_code, done.stdout) == (0, "")
    assert done.stderr.endswith(
        "hint: name folders from before runctx one by one, or by a glob such as 'old/*'\n"
    )
