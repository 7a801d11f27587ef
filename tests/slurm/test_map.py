"""Do maps over Slurm jobs keep their promises, on a real one? Here what takes seconds."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from msgspec.structs import replace

from runctx import Run
from runctx.launchers import scheduler
from runctx.launchers.job import dead_ones
from runctx.tasks.shifts import Shift
from tests.slurm.cluster import Local
from tests.slurm.programs import Project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def runctx(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).with_name("runctx"), *arguments], capture_output=True, text=True, timeout=300
    )


def test_two_jobs_share_a_thousand_tasks(own_slurm: Local, project: Project) -> None:
    """Two jobs that claim at the same time do a thousand tasks, each once, under one lock."""
    program = project.start("run", "share", tasks=1000, workers=2, cpus=2)
    assert program.results() == list(range(1000))
    program.check_each_once(1000)
    assert len(program.shifts()) == 2
    lock = Run.load(program.save_dir).lock
    assert (lock.status, lock.tasks[0].done, lock.tasks[0].failed) == ("done", 1000, 0)


def test_a_failure_arrives_as_what_it_was(own_slurm: Local, project: Project) -> None:
    """Tasks that fail raise one error, caused by the original exception with its remote traceback; the rest is done."""
    program = project.start("run", "fail", tasks=10, cpus=2)
    assert program.wait() == 1
    said = program.said()
    assert "TaskError" in said and "4 of 10 tasks failed" in said
    assert "work.Peculiar: 0 is of no use" in said and 'raise Peculiar(task[0], "of no use")' in said
    assert f'File "{project.code / "work.py"}", line ' in said, "the user's file, not the checkout's"
    assert len(program.rows()) == 6
    assert len(program.rows("failed")) == 4


def test_a_task_that_ends_its_worker_has_a_row(own_slurm: Local, project: Project) -> None:
    """A task that leaves by `os._exit` inside a job has a row that says so, and the others are done."""
    program = project.start("run", "leave", tasks=12, workers=2, cpus=1)
    assert program.wait() == 1
    assert [row["error"]["type"] for row in program.rows("failed")] == ["runctx.errors.WorkerDiedError"]
    assert len(program.rows()) == 11


def test_tasks_can_end_what_they_start(own_slurm: Local, project: Project) -> None:
    """Tasks start processes in any way, which die of SIGTERM as they always do, though jobs bear it."""
    assert project.start("run", "children", tasks=1).results() == [[*[0, -15] * 3, 1, -15]]


def test_a_job_that_is_killed_is_replaced(own_slurm: Local, project: Project) -> None:
    """A job whose main process is killed, as for want of memory, is replaced, and all tasks are done."""
    program = project.start("run", "kill_job_once", tasks=6)
    assert program.results() == list(range(6))
    assert sorted(row["key"] for row in program.rows()) == sorted({row["key"] for row in program.rows()})
    assert len(program.shifts()) == 2


def test_a_task_that_kills_job_after_job_is_given_up(own_slurm: Local, project: Project) -> None:
    """A task over which one job after another dies has a row that says so, and the others are done before."""
    program = project.start("run", "kill_job", tasks=6)
    assert program.wait() == 1, program.said()
    assert [row["error"]["type"] for row in program.rows("failed")] == ["runctx.errors.WorkerDiedError"]
    assert "3 workers died" in program.rows("failed")[0]["error"]["message"]
    assert len(program.rows()) == 5
    assert program.begun()[2] == 3


def test_a_signal_that_says_nothing_new_is_borne(own_slurm: Local, project: Project) -> None:
    """The signal that the time limit comes nearer ends no job and stops no worker, however early it comes."""
    program = project.start("run", tasks=40, seconds=0.1, cpus=2)
    program.until(program.jobs, what="the job is submitted")
    while program.process.poll() is None:
        subprocess.run(["scancel", "--quiet", "--signal=USR2", *program.jobs()], check=False)
        time.sleep(0.3)
    assert program.results() == list(range(40))
    program.check_each_once(40)
    assert len(program.shifts()) == 1


def test_a_later_life_of_a_job_is_the_end_of_the_one_before(own_slurm: Local, tmp_path: Path) -> None:
    """A shift is over when it said so, when its job is gone, and when Slurm has started its job again."""
    waiting = own_slurm.ask("sbatch", "--parsable", "--hold", f"--output={tmp_path}/x", "--wrap=true").strip()
    shift = Shift(name="first", host="elsewhere", pid=1, workers=1, began=1.0, slurm_job=waiting)
    again = replace(shift, name="again", life=1)
    ended = replace(again, name="ended", ended=True)
    gone = replace(shift, name="gone", slurm_job="1")
    assert dead_ones([shift, gone]) == {"gone"}
    assert dead_ones([shift, again, gone]) == {"first", "gone"}
    assert dead_ones([again, ended]) == {"ended"}


def test_one_of_two_jobs_is_cancelled(own_slurm: Local, project: Project) -> None:
    """When one job of two is cancelled in the middle, the rest is done, and nothing is lost."""
    program = project.start("run", tasks=50, seconds=0.3, workers=2)
    program.until(lambda: len(program.shifts()) == 2, what="both jobs work")
    own_slurm.ask("scancel", program.jobs()[0])
    assert program.results() == list(range(50))
    program.check_each_once(50, begun_twice=1)


def test_all_jobs_are_cancelled(own_slurm: Local, project: Project) -> None:
    """When she cancels all jobs, the map ends with an error that says so and how to go on; nothing is resubmitted."""
    program = project.start("run", tasks=400, seconds=0.3, workers=2)
    program.until(lambda: len(program.shifts()) == 2, what="both jobs work")
    jobs = program.jobs()
    own_slurm.ask("scancel", *jobs)
    assert program.wait() == 1
    assert re.search(r"TaskError: .* of 400 tasks did not run: the Slurm jobs were cancelled", program.said())
    assert "resume=" in program.said()
    assert scheduler.living(jobs) == set()
    done = len(program.rows())
    lock = Run.load(program.save_dir).lock
    assert (lock.status, lock.tasks[0].done) == ("failed", done)

    again = project.start("again", tasks=0, run={"resume": str(program.save_dir)})
    assert again.wait() == 0, again.said()


def test_jobs_run_the_submitted_code(own_slurm: Local, project: Project) -> None:
    """What is edited while jobs wait changes nothing: not a module, not one imported late, not the program itself."""
    programs = [project.start(name, name, tasks=3, hold=True) for name in ("version", "own")]
    for program in programs:
        program.until(program.jobs, what="the job is submitted")
    for file in project.code.glob("*.py"):
        file.write_text(file.read_text().replace("submitted", "edited"))
    for program in programs:
        own_slurm.ask("scontrol", "release", *program.jobs())
    version, own = programs
    assert version.results() == [["submitted"] * 2] * 3
    assert own.results() == [["submitted"] * 3] * 3


def test_not_waiting(own_slurm: Local, project: Project) -> None:
    """With `wait=False` the block ends at once, as `submitted`; `status` follows, and `collect` seals the lock."""
    program = project.start("run", tasks=6, seconds=0.1, workers=2, wait=False, hold=True)
    assert program.wait() == 0, program.said()
    assert Run.load(program.save_dir).status == "submitted"
    status = runctx("status", program.save_dir)
    assert "submitted" in status.stdout and "2 Slurm jobs in the queue" in status.stdout, status
    early = runctx("collect", program.save_dir)
    assert early.returncode != 0, early
    own_slurm.ask("scontrol", "release", *program.jobs())
    collected = runctx("collect", "--wait", program.save_dir)
    assert collected.returncode == 0, collected
    lock = Run.load(program.save_dir).lock
    assert (lock.status, lock.tasks[0].done) == ("done", 6)
    program.check_each_once(6)


def test_the_parent_is_killed(own_slurm: Local, project: Project) -> None:
    """When the parent is killed after submission, the jobs go on, and `collect` finds all rows."""
    program = project.start("run", tasks=20, seconds=0.2, workers=2)
    program.until(program.rows, what="the jobs work")
    os.killpg(program.process.pid, signal.SIGKILL)
    program.wait()
    collected = runctx("collect", "--wait", program.save_dir)
    lock = Run.load(program.save_dir).lock
    assert lock.tasks[0].done == 20, collected
    assert lock.status == "interrupted"
    program.check_each_once(20)


def test_ctrl_c(own_slurm: Local, project: Project) -> None:
    """Ctrl-C in the waiting parent ends it at once; the jobs go on, and it says how to collect or cancel them."""
    program = project.start("run", tasks=20, seconds=0.2, workers=2)
    program.until(program.rows, what="the jobs work")
    program.process.send_signal(signal.SIGINT)
    assert program.wait(60) != 0
    number = program.jobs()[0].partition("_")[0]
    assert f"`runctx collect {program.save_dir}`" in program.said()
    assert f"`scancel {number}`" in program.said()
    log = (program.save_dir / "run.log").read_text()
    assert re.search(r"work: interrupted: \d+ of 20 tasks done, \d+ left\n", log)
    assert Run.load(program.save_dir).status == "interrupted"
    collected = runctx("collect", "--wait", program.save_dir)
    assert Run.load(program.save_dir).lock.tasks[0].done == 20, collected
    program.check_each_once(20)


def test_an_array_larger_than_the_site_allows(own_slurm: Local, project: Project) -> None:
    """More jobs than an array may have elements are submitted as several arrays."""
    program = project.start("run", tasks=14, seconds=1, workers=14)
    program.until(lambda: len(program.jobs()) == 14, what="all jobs are submitted")
    assert len({job.partition("_")[0] for job in program.jobs()}) == 2
    assert program.results() == list(range(14))
    program.check_each_once(14)


def test_more_jobs_than_one_may_have(own_slurm: Local, project: Project) -> None:
    """Over a limit of jobs, as many are submitted as may be, and others when these have ended."""
    program = project.start("run", tasks=60, seconds=0.6, workers=6, partition="few")
    program.until(lambda: len(program.shifts()) == 4, what="four jobs work")
    first = program.jobs()
    assert len(first) == 4
    own_slurm.ask("scancel", first[0])
    program.until(lambda: len(program.jobs()) > 4, what="another is submitted")
    assert program.results() == list(range(60))
    program.check_each_once(60, begun_twice=1)


def test_a_project_without_git(own_slurm: Local, tmp_path: Path) -> None:
    """Neither git, nor a plain path, nor a save_dir inside the project is needed."""
    project = Project(tmp_path / "no git, grün 100%j", git=False)
    assert project.start("elsewhere", tasks=4, workers=2).results() == [0, 1, 2, 3]


def test_what_slurm_refuses(own_slurm: Local, project: Project) -> None:
    """A job that Slurm refuses is an error in its words; the run fails, and can be resumed."""
    program = project.start("run", tasks=4, partition="nowhere")
    assert program.wait() == 1
    assert "LaunchError: Slurm refused the job: " in program.said()
    assert "invalid partition specified: nowhere" in program.said()
    assert Run.load(program.save_dir).status == "failed"
    again = project.start("run", tasks=4, run={"resume": str(program.save_dir)})
    assert again.results() == [0, 1, 2, 3]


def test_without_slurm(project: Project, tmp_path: Path) -> None:
    """Where there is no Slurm, the error says so."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "git").symlink_to(shutil.which("git") or "")
    program = project.start("run", tasks=4, environment={"PATH": str(tmp_path / "bin")})
    assert program.wait() == 1
    assert "LaunchError: no Slurm on this machine: sbatch" in program.said()
    assert Run.load(program.save_dir).status == "failed"
