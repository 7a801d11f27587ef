"""What does Slurm say of a job? Promises of `runctx.launchers.scheduler`, of a real one."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runctx.errors import SettingsError
from runctx.launchers import scheduler
from runctx.launchers.scheduler import Job
from tests.slurm.cluster import Cluster, ClusterError, Local, until

Submit = Callable[..., str]
Pretend = Callable[[str, str], None]

LIFE = """\
import json, os, sys, time
from dataclasses import asdict
from runctx.launchers import scheduler

job = scheduler.this_job()
told = {"job": asdict(job), "may": scheduler.may_requeue(job.id), "left": scheduler.ends_at() - time.time()}
told["living"] = sorted(scheduler.living([job.id, job.id.partition("_")[0], "1"]))
with open(f"{sys.argv[1]}/life{job.restarts}.tmp", "w") as file:
    json.dump(told, file)
os.rename(file.name, file.name[:-4])
if not job.restarts:
    print("taken:", scheduler.requeue(job.id), flush=True)
    time.sleep(120)
"""
"""What a job tells of itself in each of its lives; in the first it has itself started again."""


@pytest.fixture
def submit(slurm: Cluster, tmp_path: Path) -> Submit:
    """Submits a job of one command, and gives its id."""

    def submitted(*options: str, command: str = "sleep 300") -> str:
        output = f"--output={tmp_path}/%A_%a.log"
        return slurm.ask("sbatch", "--parsable", "--time=7", output, *options, f"--wrap={command}").strip()

    return submitted


@pytest.fixture
def pretend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pretend:
    """Puts a command of our making in the place of one of Slurm's."""

    def pretended(command: str, script: str) -> None:
        (tmp_path / command).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / command).chmod(0o755)

    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return pretended


@pytest.fixture
def no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests themselves may run in a job."""
    for name in list(os.environ):
        if name.startswith("SLURM"):
            monkeypatch.delenv(name)


# ---- a real one ---------------------------------------------------------------------------------------------


def test_waiting_elements_live(submit: Submit) -> None:
    """Elements that wait live, though Slurm shows them folded; the array does as long as one of them does."""
    array = submit("--hold", "--array=0-5%2")
    elements = {f"{array}_{index}" for index in range(6)}
    assert scheduler.living([*elements, array, "1", f"{array}_6"]) == {*elements, array}
    assert scheduler.state(f"{array}_5") == "PENDING"
    assert scheduler.cancel([f"{array}_1", f"{array}_3"])
    until(lambda: scheduler.living([f"{array}_1", f"{array}_3"]) == set(), what="two are gone")
    assert scheduler.living(elements) == elements - {f"{array}_1", f"{array}_3"}
    assert scheduler.cancel([array])
    until(lambda: scheduler.living([*elements, array]) == set(), what="all are gone")


def test_what_has_ended_does_not_live(submit: Submit) -> None:
    """How a job ended is known from the scheduler, and from accounting; that it ended, from the scheduler."""
    array = submit("--array=0-2", command="exit $SLURM_ARRAY_TASK_ID")
    elements = [f"{array}_{index}" for index in range(3)]
    until(lambda: scheduler.living([*elements, array]) == set(), what="they ended")
    states = ["COMPLETED", "FAILED", "FAILED"]
    assert [scheduler.state(element) for element in elements] == states
    until(lambda: [scheduler._accounted(element) for element in elements] == states, what="it is accounted")


def test_a_cancelled_job_is_told_as_cancelled(submit: Submit) -> None:
    """Of a running job that was cancelled Slurm says so, in one word."""
    job = submit(command="sleep 300")
    until(lambda: scheduler.state(job) == "RUNNING", what="it runs")
    assert scheduler.cancel([job])
    until(lambda: scheduler.living([job]) == set(), what="it ended")
    assert scheduler.state(job) == "CANCELLED"
    until(lambda: scheduler._accounted(job) == "CANCELLED", what="it is accounted")


@pytest.mark.slow
def test_a_job_starts_itself_again(submit: Submit, tmp_path: Path) -> None:
    """An element of an array knows itself and its end, and starts itself again under its id."""
    script = tmp_path / "life.py"
    script.write_text(LIFE)
    array = submit("--array=3", "--cpus-per-task=2", command=f"{sys.executable} {script} {tmp_path}")
    lives = [tmp_path / "life0", tmp_path / "life1"]
    until(lives[1].exists, what="it was started again")
    for restarts, life in enumerate(lives):
        told = json.loads(life.read_text())
        assert told["job"] == {"id": f"{array}_3", "restarts": restarts}
        assert told["may"] is True
        assert told["living"] == sorted([array, f"{array}_3"])
        assert 0 < told["left"] <= 7 * 60 + 2  # Slurm's clock has whole seconds


def test_no_requeue_is_respected(submit: Submit) -> None:
    """A job that must not be started again is not, and is left alone; so what nobody knows."""
    job = submit("--no-requeue", "--hold")
    assert scheduler.may_requeue(job) is False
    assert not scheduler.requeue(job)
    assert scheduler.state(job) == "PENDING"
    assert scheduler.may_requeue("1") is None
    assert not scheduler.requeue("1")
    assert scheduler.state("1") is None


def test_a_failed_job_can_be_started_again(submit: Submit) -> None:
    """A job that has ended lives again once it is requeued, by whomever."""
    job = submit("--requeue", command="false")
    until(lambda: scheduler.living([job]) == set(), what="it failed")
    assert scheduler.requeue(job)
    assert scheduler.living([job]) == {job}


def test_habits_of_the_user_change_no_answer(submit: Submit, monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables that change what Slurm's commands show, or ask back, have no effect."""
    job = submit("--hold")
    for name, value in {
        "SQUEUE_STATES": "COMPLETED",
        "SQUEUE_FORMAT": "%j",
        "SQUEUE_USERS": "nobody",
        "SQUEUE_SORT": "nonsense",
        "SLURM_TIME_FORMAT": "relative",
        "SCANCEL_INTERACTIVE": "1",
        "SCANCEL_STATE": "RUNNING",
    }.items():
        monkeypatch.setenv(name, value)
    assert scheduler.living([job]) == {job}
    assert scheduler.cancel([job])
    until(lambda: scheduler.living([job]) == set(), what="it is cancelled")


def test_limits_of_a_site_are_recognised(own_slurm: Local, tmp_path: Path) -> None:
    """What is refused for being too many is told from what is refused for another reason."""
    largest = scheduler.largest_array()
    assert largest == 11

    def refusal(*options: str) -> str:
        with pytest.raises(ClusterError) as refused:
            own_slurm.ask("sbatch", f"--output={tmp_path}/%A_%a.log", "--hold", *options, "--wrap=true")
        return str(refused.value)

    own_slurm.ask("sbatch", f"--output={tmp_path}/%A_%a.log", "--hold", "--array=0-10", "--wrap=true")
    assert scheduler.is_refused_for_limit(refusal("--array=0-11"))
    assert scheduler.is_refused_for_limit(refusal("--partition=few", "--array=0-4"))
    assert not scheduler.is_refused_for_limit(refusal("--time=03:00:00"))
    assert not scheduler.is_refused_for_limit(refusal("--partition=nope"))


# ---- one that does not answer ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "script",
    [
        "exec sleep 300",
        "exit 1",
        "echo slurm_load_jobs error: Unable to contact slurm controller >&2; exit 1",
        "kill -KILL $$",
    ],
    ids=["hangs", "fails", "unreachable", "dies"],
)
def test_silence_is_not_death(script: str, pretend: Pretend, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scheduler that does not answer in time, or cannot, leaves everything unknown."""
    monkeypatch.setattr(scheduler, "PATIENCE", 0.2)
    for command in ("squeue", "scontrol", "scancel"):
        pretend(command, script)
    pretend("sacct", "echo COMPLETED")
    assert scheduler.living(["1", "2_3"]) is None
    assert scheduler.state("1") is None
    assert scheduler.may_requeue("1") is None
    assert scheduler.largest_array() is None
    assert not scheduler.requeue("1")
    assert not scheduler.cancel(["1"])


def test_without_slurm_nothing_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_job: None
) -> None:
    """Where Slurm is not installed everything is unknown, and no error."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert scheduler.living(["1"]) is None
    assert scheduler.this_job() is None
    assert scheduler.ends_at() is None
    assert scheduler.largest_array() is None


def test_part_of_an_answer_is_none(pretend: Pretend) -> None:
    """Where one of several questions is not answered, nobody is taken for dead."""
    pretend("squeue", 'case "$*" in *1000*) exit 1;; esac')
    assert scheduler.living(str(number) for number in range(1000, 1000 + 2 * scheduler._AT_ONCE)) is None


@pytest.mark.parametrize("line", ["7", "7 NEW_STATE", "7 RUNNING 12 1 more", "7_1 PENDING N/A 0"])
def test_what_is_new_to_us_lives(line: str, pretend: Pretend) -> None:
    """A job of which the scheduler says what we do not understand is not taken for dead."""
    pretend("squeue", f"echo; echo CLUSTER: far; echo '{line}'")
    assert scheduler.living(["7"]) == {"7"}


def test_signals_do_not_end_a_question(pretend: Pretend) -> None:
    """Slurm's commands, started in a job, survive the signals that every process of the job is sent."""
    pretend("scontrol", "for name in TERM USR1 USR2; do kill -$name $$; done; echo MaxArraySize = 5")
    assert scheduler.largest_array() == 5


def test_no_option_gets_in_by_an_id(pretend: Pretend, tmp_path: Path) -> None:
    """What is no job's id, as a file on disk may say, is asked of nobody."""
    for command in ("squeue", "scontrol", "scancel", "sacct"):
        pretend(command, f"echo called >> {tmp_path}/called")
    for wrong in ("-u root", "--user=root", "", "1 2", "1;ls", "1_2_3", "1_[2-3]", "1\n", "٣", "1" * 100):
        assert scheduler.living([wrong]) == set()
        assert scheduler.cancel([wrong])
        assert scheduler.state(wrong) is None
        assert scheduler.may_requeue(wrong) is None
        assert not scheduler.requeue(wrong)
    assert not (tmp_path / "called").exists()


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ("MaxArraySize            = 1001\nMaxJobCount             = 10000", 1001),
        ("MaxArraySize            = 10001\nMaxJobCount             = 10000", 10000),
        (
            "MaxArraySize = 1001\nSchedulerParameters     = bf_interval=1,max_array_tasks=50,batch_sched_delay=0",
            50,
        ),
        ("MaxArraySize = 0", 1),
        ("nothing of the kind", None),
    ],
)
def test_the_smallest_limit_counts(told: str, expected: int | None, pretend: Pretend) -> None:
    """An array is limited by its size, by what one submission may hold, and by the cluster's number of jobs."""
    pretend("scontrol", f"cat <<'.'\n{told}\n.")
    assert scheduler.largest_array() == expected


# ---- this job -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"SLURM_JOB_ID": "12"}, Job("12", 0)),
        (
            {"SLURM_JOB_ID": "15", "SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "0"},
            Job("12_0", 0),
        ),
        ({"SLURM_JOB_ID": "12", "SLURM_RESTART_COUNT": "2"}, Job("12", 2)),
        ({"SLURM_JOB_ID": "12", "SLURM_RESTART_COUNT": "x"}, Job("12", 0)),
        ({"SLURM_JOB_ID": "-u root"}, None),
        ({"SLURM_JOB_ID": "15", "SLURM_ARRAY_JOB_ID": "12"}, None),
        ({}, None),
    ],
)
def test_this_job_is_told_by_its_variables(
    variables: dict[str, str], expected: Job | None, no_job: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job knows its id, as commands take it, and its lives; elsewhere there is none."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert scheduler.this_job() == expected


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("echo 5 RUNNING 1795266036 1", 1795266036.0),
        ("echo 5 RUNNING NONE 1", math.inf),
        ("echo 5 PENDING N/A 1", None),
        ("exit 1", 1795260000.0),
    ],
    ids=["limit", "unlimited", "waits", "silent"],
)
def test_the_end_is_the_schedulers(
    answer: str, expected: float | None, no_job: None, pretend: Pretend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scheduler's word on the end counts more than the variable, which knows nothing of a later change."""
    pretend("squeue", answer)
    monkeypatch.setenv("SLURM_JOB_ID", "5")
    monkeypatch.setenv("SLURM_JOB_END_TIME", "1795260000")
    assert scheduler.ends_at() == expected


# ---- what is written --------------------------------------------------------------------------------------------


@given(st.integers(0, 400), st.integers(0, 99), st.integers(0, 99), st.integers(0, 99))
def test_every_format_of_a_time_is_read(days: int, hours: int, minutes: int, seconds: int) -> None:
    """Each of Slurm's formats gives the same seconds; nothing at all is no limit, as Slurm has it."""

    def sum_of(d: int = 0, h: int = 0, m: int = 0, s: int = 0) -> float:
        return d * 86_400 + h * 3600 + m * 60 + s or math.inf

    assert scheduler.seconds(minutes) == scheduler.seconds(f"{minutes}") == sum_of(m=minutes)
    assert scheduler.seconds(f"{minutes:02}:{seconds:02}") == sum_of(m=minutes, s=seconds)
    assert scheduler.seconds(f"{hours}:{minutes:02}:{seconds:02}") == sum_of(0, hours, minutes, seconds)
    assert scheduler.seconds(f"{days}-{hours}") == sum_of(days, hours)
    assert scheduler.seconds(f"{days}-{hours}:{minutes}") == sum_of(days, hours, minutes)
    assert scheduler.seconds(f"{days}-{hours}:{minutes}:{seconds}") == sum_of(days, hours, minutes, seconds)


def test_no_limit_is_infinity() -> None:
    """A limit that is none is later than any time."""
    assert scheduler.seconds("UNLIMITED") == scheduler.seconds("infinite") == math.inf


@pytest.mark.parametrize(
    "wrong", ["", "1h", "1:2:3:4", "-5", -5, "1-", "1-2-3", ":", "1.5", "٣", None, True, "9" * 10**6]
)
def test_nonsense_is_no_time(wrong: object) -> None:
    """What Slurm would not take for a time is an error that shows it, in bounded length."""
    with pytest.raises(SettingsError, match="invalid time limit") as error:
        scheduler.seconds(wrong)
    assert len(str(error.value)) < 300


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("AssocMaxSubmitJobLimit", True),
        ("AssocGrpSubmitJobsLimit", True),
        ("QOSMaxSubmitJobPerUserLimit", True),
        ("QOSGrpSubmitJobsLimit", True),
        ("MaxSubmitJobsPerAccount", True),
        ("", True),
        ("QOSMaxWallDurationPerJobLimit", False),
        ("AssocMaxCpuPerJobLimit", False),
    ],
)
def test_which_policy_it_was_matters(name: str, expected: bool) -> None:
    """Of the limits that Slurm reports alike, those on the number of jobs are told from those on their size."""
    policy = "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)"
    said = f"sbatch: error: {name}\nsbatch: error: Batch job submission failed: {policy}"
    assert scheduler.is_refused_for_limit(said) is expected


def test_a_full_cluster_is_a_limit() -> None:
    """That a cluster holds no more jobs at all is a limit that passes."""
    assert scheduler.is_refused_for_limit(
        "sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying\n"
        "sbatch: error: Batch job submission failed: Resource temporarily unavailable"
    )
