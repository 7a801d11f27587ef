"""Every launcher keeps the contract, and says what is wrong with what it is given."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from runctx import Run
from runctx.errors import SettingsError
from runctx.launchers import Joblib, Launcher, Serial, launcher_of
from runctx.testing import LauncherContract


class TestSerial(LauncherContract):
    def launcher(self) -> Launcher:
        return Serial()


class TestJoblib(LauncherContract):
    survives_deaths = True

    def launcher(self) -> Launcher:
        return Joblib(n_jobs=2)


class TestJoblibAlone(LauncherContract):
    survives_deaths = True

    def launcher(self) -> Launcher:
        return Joblib(n_jobs=1)


class TestThreading(LauncherContract):
    def launcher(self) -> Launcher:
        return Joblib("threading", n_jobs=2)


@pytest.fixture(scope="class")
def dask() -> Iterator[Any]:
    """A cluster of two processes that talk over loopback."""
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            silence_logs=60,
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


@pytest.mark.usefixtures("dask")
class TestDask(LauncherContract):
    survives_deaths = True
    # its sockets close when they like, and joblib 1.5 deprecates what its own backend for Dask uses
    pytestmark = pytest.mark.filterwarnings(
        "ignore:unclosed:ResourceWarning",
        "ignore:.*unclosed:pytest.PytestUnraisableExceptionWarning",
        "ignore:`apply_async` is deprecated:DeprecationWarning",
    )

    def launcher(self) -> Launcher:
        return Joblib("dask", n_jobs=2)


@pytest.mark.parametrize("name", ["nowhere", "", "ray"])
def test_a_backend_that_joblib_does_not_know(tmp_path, monkeypatch, name):
    """An unknown name is an error that lists what there is, before anything is started."""
    monkeypatch.chdir(tmp_path)
    with (
        Run(save_dir=tmp_path / "run", console=False) as run,
        pytest.raises(SettingsError, match="hint:") as caught,
    ):
        run.map(abs, [-1], launcher=name)
    assert repr(name) in str(caught.value)


def test_what_is_no_launcher():
    """Something that cannot launch is named."""
    with pytest.raises(SettingsError, match="unknown launcher 3"):
        launcher_of(3)


def test_names_of_launchers():
    """A name stands for a launcher with as many jobs as were asked for."""
    assert launcher_of("serial", 3) == Serial()
    assert launcher_of("joblib", 3) == Joblib(n_jobs=3)
    assert launcher_of("threading", 3) == Joblib("threading", n_jobs=3)


@pytest.mark.parametrize(
    "program", ["import runctx", "from runctx import Run\nwith Run(console=False): pass"]
)
def test_without_a_map_nothing_of_it_is_loaded(tmp_path, monkeypatch, program):
    """Neither joblib, submitit, the ledger nor what decodes it, until something is mapped."""
    monkeypatch.chdir(tmp_path)
    names = (
        "joblib",
        "submitit",
        "distributed",
        "msgspec",
        "runctx.tasks.supervisor",
        "runctx.tasks.results",
    )
    code = f"{program}\nimport sys; print([name for name in {names} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
