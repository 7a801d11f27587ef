"""A real Slurm to test with, and who may use it when."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from tests.slurm import cluster

# read before the variables of the machine are put away
REQUIRED = bool(os.environ.get("RUNCTX_REQUIRE_SLURM"))
FOUND = cluster.found()


def absent(reason: str) -> NoReturn:
    """A test that does not take place says so, where it must take place it fails."""
    if REQUIRED:
        pytest.fail(f"NO SLURM: {reason}")
    pytest.skip(f"NO SLURM: {reason}")


@pytest.fixture(scope="session")
def slurm() -> Iterator[cluster.Cluster]:
    """The cluster, for child processes too; a test that needs it for itself is marked `alone`."""
    if FOUND is None:
        absent("no cluster answers")
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(("SLURM_", "SBATCH_")):
                patch.delenv(name)
        patch.setenv("PATH", cluster.PATH)
        patch.setenv("SLURM_CONF", str(FOUND.conf))
        yield FOUND


@pytest.fixture(scope="session")
def own_slurm(slurm: cluster.Cluster) -> cluster.Local:
    """The project's own cluster: its partitions and limits are known."""
    if not isinstance(slurm, cluster.Local):
        absent("this needs the project's own cluster")
    return slurm


@pytest.fixture(scope="session")
def packages() -> None:
    """What a cluster of one's own needs is installed."""
    if missing := cluster.absent():
        absent(f"not installed: {' '.join(missing)}")


@pytest.fixture(autouse=True)
def visit(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[None]:
    """A test that is `alone` finds the cluster empty and leaves every node usable; no job outlives its test."""
    if not uses_slurm(request.node) or FOUND is None:
        yield
        return
    alone = is_alone(request.node)
    if alone:
        request.getfixturevalue("own_slurm").clear()
    yield
    FOUND.cancel(tmp_path)
    if alone:
        FOUND.resume()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """The cluster is shared by tests in all processes, of all checkouts; who is `alone` waits for the others to end."""
    if not uses_slurm(item):
        return (yield)
    with cluster.Local().turn(alone=is_alone(item)):
        return (yield)


def uses_slurm(item: pytest.Item) -> bool:
    return not {"slurm", "own_slurm"}.isdisjoint(getattr(item, "fixturenames", ()))


def is_alone(item: pytest.Item) -> bool:
    return item.get_closest_marker("alone") is not None
