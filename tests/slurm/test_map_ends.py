"""Do maps over Slurm jobs survive what ends their jobs? Time limits, lost nodes, preemption: what takes a minute."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from runctx import Run
from tests.slurm.cluster import Local, until
from tests.slurm.programs import Project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def states(slurm: Local, job: str) -> list[str]:
    """What accounting says of a job, once for each time that it was started."""
    told = slurm.ask("sacct", "--duplicates", "-XPn", "-j", job, "-o", "State")
    return [line.split()[0] for line in told.splitlines() if line]


@pytest.mark.slow
def test_more_work_than_fits_into_the_time_limit(own_slurm: Local, project: Project) -> None:
    """Follow-ups, requeued or submitted, go on when a job's minute is over: each task once, one lock.

    A task that is longer than the time limit has a row that says so, and the others are done.
    """
    common = {"tasks": 100, "seconds": 0.5, "cpus": 2, "margin": 32, "time": 1}
    requeued = project.start("requeued", **common)
    submitted = project.start("submitted", requeue=False, **common)
    too_long = project.start("too_long", "too_long", tasks=30, seconds=0.1, time=1)
    requeued.until(requeued.jobs, what="it is submitted")
    job = requeued.jobs()[0]

    for program in (requeued, submitted):
        assert program.results() == list(range(100))
        program.check_each_once(100)
        assert len(program.shifts()) >= 2
        assert Run.load(program.save_dir).lock.status == "done"
    assert len({author["slurm_job"] for author in requeued.authors()}) == 1
    assert len({author["slurm_job"] for author in submitted.authors()}) == len(submitted.shifts())
    until(lambda: states(own_slurm, job)[-1:] == ["COMPLETED"], what="accounting knows")
    assert Counter(states(own_slurm, job)) == {"REQUEUED": len(requeued.shifts()) - 1, "COMPLETED": 1}

    assert too_long.wait() == 1
    assert "into the time limit of its job" in too_long.said()
    (failed,) = too_long.rows("failed")
    assert failed["error"]["type"] == "runctx.errors.WorkerDiedError"
    assert len(too_long.rows()) == 29
    assert too_long.begun()[0] == 1
    assert Run.load(too_long.save_dir).lock.tasks[0].failed == 1


@pytest.mark.slow
@pytest.mark.alone
def test_a_node_goes_down(own_slurm: Local, project: Project) -> None:
    """When a node is set DOWN under one of two jobs, all is done in the end; what was in flight is begun again."""
    program = project.start("run", tasks=120, seconds=0.4, workers=2, cpus=4, processes=2)
    program.until(lambda: len(program.shifts()) == 2, what="both jobs work")
    own_slurm.ask("scontrol", "update", "nodename=node2", "state=down", "reason=test")
    own_slurm.resume()
    assert program.results() == list(range(120))
    program.check_each_once(120, begun_twice=2)
    assert Run.load(program.save_dir).lock.status == "done"


@pytest.mark.slow
@pytest.mark.alone
def test_preemption(own_slurm: Local, project: Project, tmp_path: Path) -> None:
    """A job that is preempted stops between two tasks and is started again later: each task is begun once."""
    program = project.start(
        "run", tasks=60, seconds=0.3, workers=1, cpus=4, processes=2, partition="low", nodelist="node1"
    )
    program.until(program.rows, what="the job works")
    job = program.jobs()[0]
    urgent = ["--exclusive", "--nodelist=node1", "--partition=debug", f"--output={tmp_path}/urgent.log"]
    own_slurm.ask("sbatch", *urgent, "--wrap=sleep 1")
    assert program.results() == list(range(60))
    program.check_each_once(60)
    assert len(program.shifts()) == 2
    until(lambda: states(own_slurm, job)[-1:] == ["COMPLETED"], what="accounting knows")
