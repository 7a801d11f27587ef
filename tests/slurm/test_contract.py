"""Does Slurm keep the contract of launchers?"""

from __future__ import annotations

import pytest

from runctx.launchers import Launcher, Slurm
from runctx.testing import LauncherContract
from tests.slurm.cluster import Cluster


class TestSlurm(LauncherContract):
    survives_deaths = True

    @pytest.fixture(autouse=True)
    def cluster(self, slurm: Cluster) -> None:
        """Jobs are those of a real one."""

    def launcher(self) -> Launcher:
        return Slurm(time=5, workers=2)
