"""What the documentation shows is true."""

from __future__ import annotations

import io
import re
import runpy
import shlex
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import fields
from pathlib import Path

import pytest

from runctx import cli, model
from runctx.settings import Settings

ROOT = Path(__file__).parent.parent
PYTHON = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
NAMED = re.compile(r"# (\S+\.\w+)\n")


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A repository with `digits.csv`, which is the current folder of the examples."""
    monkeypatch.setenv("RUNCTX_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "project"
    root.mkdir()
    (root / "digits.csv").write_text("1,2\n")
    (root / ".gitignore").write_text("/results/\n")
    commit = ["-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-q", "-m", "first"]
    for arguments in (["init", "-q"], ["add", "-A"], commit):
        subprocess.run(["git", *arguments], cwd=root, check=True)
    return root


@pytest.mark.parametrize(
    "page", ["docs/run.md", "docs/map.md", "docs/config-files.md", "docs/combinations.md", "docs/derived.md"]
)
def test_examples_run(project, page):
    """The Python examples of a page run from top to bottom as one script, beside the files that it shows."""
    examples = []
    for language, code in BLOCK.findall((ROOT / page).read_text()):
        if named := NAMED.match(code):
            (project / named[1]).parent.mkdir(parents=True, exist_ok=True)
            (project / named[1]).write_text(code)
        elif language == "python":
            examples.append(code)
    (project / "example.py").write_text("\n".join(examples))
    done = subprocess.run([sys.executable, "example.py"], cwd=project, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_launcher_of_the_page_keeps_the_contract(tmp_path):
    """The launcher that docs/map.md shows as an example passes the tests for launchers, run as it shows."""
    shown = PYTHON.findall((ROOT / "docs/map.md").read_text())
    launcher, test = (
        next(code for code in shown if f"class {name}" in code) for name in ("Pool", "TestPool")
    )
    (tmp_path / "example.py").write_text(launcher.partition("\n\n\nwith ")[0])
    (tmp_path / "test_pool.py").write_text(test)
    command = [sys.executable, "-m", "pytest", "-q", "test_pool.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def sections(page):
    """The blocks of code below each heading `###`, by heading."""
    _, *parts = re.split(r"^### ", (ROOT / page).read_text(), flags=re.MULTILINE)
    return {part.partition("\n")[0]: BLOCK.findall(part) for part in parts}


def called(command):
    """What a Python script or `runctx` prints, in this process."""
    program, *arguments = shlex.split(command)
    output = io.StringIO()
    with redirect_stdout(output), redirect_stderr(output), suppress(SystemExit):
        if program == "runctx":
            cli.main(arguments)
        else:
            sys.argv[:] = arguments
            runpy.run_path(arguments[0], run_name="__main__")
    return output.getvalue()


def matches(shown, printed):
    """`...` stands for anything."""
    pattern = ".*".join(re.escape(part) for part in shown.split("..."))
    return re.fullmatch(pattern, printed, re.DOTALL) is not None


RUN_BY_RUN = (
    (r"(?m)^seconds .*\n", ""),  # `compare` leaves it out where it is equal, to the millisecond
    (r"\d{6}-\d{6}(-[0-9a-f]{6}|-\d+)?\b|\b\d{6}-([0-9a-f]{6}\b)?", "ID"),
    (r"\b\d{4}-\d\d-\d\d \d\d:\d\d", "DATE"),
    (r"\bnow\b|\b\d+ (s|min) ago", "AGO"),
    (r"\b(\d+ min )?[\d.]+ m?s\b", "TOOK"),
    (r"\b[0-9a-f]{8}\b", "COMMIT"),
    (r"[ ─]+", " "),
)


def timeless(text):
    """What is another each time, names, times and commits, is one word, and columns are not aligned."""
    for pattern, word in RUN_BY_RUN:
        text = re.sub(pattern, word, text)
    return text


def play(blocks, read=str):
    """Write the files, run the examples and compare what commands print with what is shown, both as they are read."""
    for language, code in blocks:
        if language == "console":
            for step in re.split(r"^\$ ", code, flags=re.MULTILINE)[1:]:
                command, _, shown = step.partition("\n")
                printed = called(command)
                assert matches(read(shown), read(printed)), printed
        elif named := NAMED.match(code):
            Path(named[1]).parent.mkdir(parents=True, exist_ok=True)
            Path(named[1]).write_text(code)
        else:
            Path("example.py").write_text(code)
            called("python example.py")


EQUIVALENTS = sections("docs/coming-from.md")


@pytest.mark.parametrize("heading", EQUIVALENTS)
def test_equivalents_run(project, monkeypatch, heading):
    """What docs/coming-from.md shows for a feature of another tool is at most ten lines, and does what it says."""
    monkeypatch.chdir(project)
    monkeypatch.setattr(sys, "argv", ["example.py"])
    blocks = EQUIVALENTS[heading]
    lines = [line for language, code in blocks if language != "console" for line in code.splitlines()]
    assert len([line for line in lines if line.strip() and not NAMED.match(f"{line}\n")]) <= 10
    play(blocks)


def test_command_line_prints_what_is_shown(project, monkeypatch):
    """Every command of docs/command-line.md prints what the page shows."""
    monkeypatch.chdir(project)
    monkeypatch.setattr(sys, "argv", ["example.py"])
    play(BLOCK.findall((ROOT / "docs/command-line.md").read_text()))


def test_browsing_prints_what_is_shown(project, monkeypatch):
    """Every command of docs/browse.md prints what the page shows, and its Python examples run."""
    monkeypatch.chdir(project)
    monkeypatch.setattr(sys, "argv", ["example.py"])
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    blocks = BLOCK.findall((ROOT / "docs/browse.md").read_text())
    play([block for block in blocks if block[0] != "toml"], read=timeless)


@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning"
)  # among MLflow's own packages
def test_publishing_does_what_is_shown(project, monkeypatch):
    """The files, programs and commands of docs/publish.md give what the page shows."""
    monkeypatch.chdir(project)
    monkeypatch.setattr(sys, "argv", ["example.py"])
    monkeypatch.setattr(sys, "path", list(sys.path))
    play(
        [
            block
            for block in BLOCK.findall((ROOT / "docs/publish.md").read_text())
            if block[0] not in ("toml", "text")
        ]
    )
    assert list(project.glob("mlruns/**/loss.png"))


def test_every_equivalent_is_linked():
    """The tables of docs/coming-from.md link to all sections below them, and to no others."""
    text = (ROOT / "docs/coming-from.md").read_text()
    anchors = {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in EQUIVALENTS}
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) == anchors


def test_readme_example_runs(project):
    """The script that README shows runs as it stands."""
    (project / "data").mkdir()
    (project / "data/digits.csv").write_text("1,2\n")
    shown = [code for code in PYTHON.findall((ROOT / "README.md").read_text()) if "import Run" in code]
    (project / "train.py").write_text(shown[0])
    done = subprocess.run([sys.executable, "train.py"], cwd=project, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert list(project.glob("results/train/*/model.bin"))


@pytest.mark.parametrize(
    "cls",
    [
        *(model.Lock, model.Source, model.Data, model.Command, model.Environment, model.Failure),
        *(model.Tasks, model.Session),
    ],
)
def test_every_key_of_the_lock_is_explained(cls):
    """docs/lock.md names every key that a lock can have."""
    text = (ROOT / "docs/lock.md").read_text()
    assert [f.name for f in fields(cls) if f"`{f.name}`" not in text] == []


def test_every_setting_is_explained():
    """docs/run.md shows every setting."""
    text = (ROOT / "docs/run.md").read_text()
    names = [f.name for f in fields(Settings) if f.name != "root"]
    assert [name for name in names if f"\n{name} = " not in text] == []


@pytest.mark.parametrize(
    "page", ["README.md", "CHANGELOG.md", *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))]
)
def test_links_lead_somewhere(page):
    """Every relative link of a page leads to a file."""
    targets = re.findall(r"\]\(([^)#:]+)\)", (ROOT / page).read_text())
    assert [target for target in targets if not ((ROOT / page).parent / target).exists()] == []
