"""What every test may rely on: no setting, cache or git identity of the machine it runs on gets in."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# a loaded machine is no fault of the code under test, and whether the tests pass is no matter of luck
settings.register_profile("runctx", deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
# `--hypothesis-profile=search` looks for counterexamples that nobody has seen yet
settings.register_profile("search", deadline=None, max_examples=1000, suppress_health_check=list(HealthCheck))
settings.load_profile("runctx")

# A background job or `nohup` ignores signals, and children inherit that: programs under test get the defaults
for number, default in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGQUIT, signal.SIG_DFL),
    (signal.SIGHUP, signal.SIG_DFL),
    (signal.SIGTERM, signal.SIG_DFL),
):
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, default)

GIT_CONFIG = """\
[user]
    name = Ada
    email = ada@example.org
[init]
    defaultBranch = main
[safe]
    directory = *
[gc]
    auto = 0
"""


@pytest.fixture(scope="session", autouse=True)
def isolated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Child processes inherit it, which is why these are variables and not arguments."""
    folder = tmp_path_factory.mktemp("isolated")
    (folder / "gitconfig").write_text(GIT_CONFIG)
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(("RUNCTX_", "GIT_")):
                patch.delenv(name)
        patch.setenv("RUNCTX_TRACKING", "off")  # who tests the shipper says so
        for name in list(os.environ):
            if name.startswith("MLFLOW_"):
                patch.delenv(name)
        patch.setenv("RUNCTX_CACHE", str(folder / "cache"))
        patch.setenv("GIT_CONFIG_GLOBAL", str(folder / "gitconfig"))
        patch.setenv("GIT_CONFIG_NOSYSTEM", "1")
        yield


@pytest.fixture
def make_repo(tmp_path: Path) -> Callable[..., Path]:
    """Makes a real repository with one commit of these files: `make_repo({"a.py": "x = 1"})`."""

    def make(files: dict[str, str], name: str = "repo") -> Path:
        root = tmp_path / name
        root.mkdir()
        for path, text in files.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text, "utf-8")
        for arguments in (["init", "-q"], ["add", "-A"], ["commit", "-q", "--allow-empty", "-m", "first"]):
            subprocess.run(["git", *arguments], cwd=root, check=True)
        return root

    return make


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What was not tested for want of a cluster is said where everybody looks."""
    untested = [
        report for report in terminalreporter.stats.get("skipped", []) if "NO SLURM" in str(report.longrepr)
    ]
    if untested:
        terminalreporter.section(
            f"NO SLURM: {len(untested)} TESTS DID NOT TAKE PLACE", sep="!", red=True, bold=True
        )
        for report in untested:
            terminalreporter.line(f"{report.nodeid}: {report.longrepr[2].partition('NO SLURM: ')[2]}")
        terminalreporter.line(
            "hint: `tests/slurm/cluster.py up` installs and starts the project's own (Debian); unset SLURM_CONF",
            bold=True,
        )
