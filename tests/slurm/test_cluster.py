"""Is there a real Slurm to test with? What the tests rely on, asked of the cluster itself."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import submitit

from tests.slurm import cluster
from tests.slurm.cluster import Cluster, ClusterError, Local, until


def executor(folder: Path, **parameters: object) -> submitit.SlurmExecutor:
    asked = submitit.SlurmExecutor(folder)
    asked.update_parameters(**{"time": 5, "stderr_to_stdout": True, **parameters})
    return asked


def meet(folder: str, name: str, all_of_them: int) -> str:
    """Wait for the others: they must run at the same time."""
    (Path(folder) / name).touch()
    end = time.monotonic() + 120
    while len(os.listdir(folder)) < all_of_them and time.monotonic() < end:
        time.sleep(0.05)
    return os.environ["SLURMD_NODENAME"] if len(os.listdir(folder)) == all_of_them else "alone"


class Patient:
    """Works until it is preempted; started again, it ends at once."""

    def __init__(self, folder: Path, started_before: bool = False) -> None:
        self.folder = folder
        self.started_before = started_before

    def __call__(self) -> str:
        if self.started_before:
            return os.environ["SLURM_RESTART_COUNT"]
        (self.folder / "started").touch()
        time.sleep(120)
        return "was left in peace"

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        return submitit.helpers.DelayedSubmission(Patient(self.folder, started_before=True))


def states(slurm: Cluster, job: str) -> list[str]:
    """What accounting says of a job, once for each time that it was started."""
    told = slurm.ask("sacct", "--duplicates", "-XPn", "-j", job, "-o", "State")
    return [line.split()[0] for line in told.splitlines() if line]


def test_an_array_runs_on_both_nodes_at_once(own_slurm: Local, tmp_path: Path) -> None:
    """The elements of an array that need a node each meet on two nodes, and accounting knows how they ended."""
    (tmp_path / "met").mkdir()
    jobs = executor(tmp_path / "jobs", cpus_per_task=4).map_array(
        meet, [str(tmp_path / "met")] * 2, ["a", "b"], [2, 2]
    )
    assert {job.result() for job in jobs} == {"node1", "node2"}
    until(
        lambda: all(states(own_slurm, job.job_id) == ["COMPLETED"] for job in jobs), what="accounting knows"
    )


@pytest.mark.alone
def test_preemption_signals_and_requeues(own_slurm: Local, tmp_path: Path) -> None:
    """A job that preempts another takes its place, and what was preempted is started again."""
    whole = {"exclusive": True, "additional_parameters": {"nodelist": "node1"}}
    patient = executor(tmp_path / "low", partition="low", signal_delay_s=10, **whole).submit(
        Patient(tmp_path)
    )
    until((tmp_path / "started").exists, what="the job in `low` started")
    urgent = executor(tmp_path / "debug", partition="debug", **whole).submit(os.getpid)
    assert urgent.result()
    assert patient.result() == "1"
    until(lambda: states(own_slurm, patient.job_id)[-1:] == ["COMPLETED"], what="accounting knows")


@pytest.mark.alone
def test_a_node_set_down_is_brought_back(own_slurm: Local) -> None:
    """A node that a test left down takes jobs again."""
    own_slurm.ask("scontrol", "update", "nodename=node2", "state=down", "reason=test")
    assert own_slurm.unusable() == ["node2"]
    own_slurm.resume()
    assert own_slurm.nodes() == {"node1": "idle", "node2": "idle"}


@pytest.mark.parametrize(
    ("asked", "refusal"),
    [
        (["--array=0-11"], "Invalid job array specification"),
        (["--partition=few", "--array=0-4"], "QOSMaxSubmitJobPerUserLimit"),
        (["--time=03:00:00"], "Requested time limit is invalid"),
    ],
    ids=["array", "jobs", "time"],
)
def test_limits_are_met(own_slurm: Local, asked: list[str], refusal: str) -> None:
    """What is over one of the site's limits is refused when it is submitted."""
    with pytest.raises(ClusterError, match=refusal):
        own_slurm.ask("sbatch", *asked, "--output=/dev/null", "--wrap=true")


def test_jobs_of_a_test_are_cancelled(slurm: Cluster, tmp_path: Path) -> None:
    """Jobs are known by where their output goes, those of arrays and waiting ones too; others are left alone."""
    jobs = {}
    for name, begin in (("mine", "now+1hour"), ("other", "now+1hour")):
        (tmp_path / name).mkdir()
        output = f"--output={tmp_path}/{name}/%A_%a"
        told = slurm.ask("sbatch", "--parsable", f"--begin={begin}", "--array=0-2", output, "--wrap=true")
        jobs[name] = told.strip()
    slurm.cancel(tmp_path / "mine")
    left = slurm.ask("squeue", "-ho", "%F")
    assert jobs["mine"] not in left.split()
    assert jobs["other"] in left.split()


def test_several_at_once_share_one(packages: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever wants a cluster in one folder at the same time gets the same; after the last, nothing of it is left."""
    with tempfile.TemporaryDirectory() as folder:
        second = Local(Path(folder) / "runctx")
        monkeypatch.setenv("RUNCTX_SLURM_FOLDER", str(second.folder))
        monkeypatch.delenv("SLURM_CONF", raising=False)
        (Path(folder) / "met").mkdir()
        meet = 'scontrol show config; cd "$0" && touch $$; until [ $(ls | wc -l) = 3 ]; do sleep 0.1; done'
        program = [
            sys.executable,
            cluster.__file__,
            "run",
            "timeout",
            "120",
            "sh",
            "-c",
            meet,
            f"{folder}/met",
        ]
        several = [subprocess.Popen(program, stdout=subprocess.PIPE, text=True) for _ in range(3)]
        told = [re.findall(r"(?:SLURM_CONF|BOOT_TIME) .*", process.communicate()[0]) for process in several]
        assert [process.returncode for process in several] == [0, 0, 0]
        assert told[0] == told[1] == told[2]
        assert str(second.conf) in str(told[0])
        assert not second.processes()
