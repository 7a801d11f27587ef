"""Ranks of a distributed training are in the run of rank 0: real processes with the environment of launchers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from runctx import Run, ranks

PROGRAM = """
    import os, sys, time
    from pathlib import Path
    from runctx import Run

    rank = int(os.environ.get("RANK", 0))

    def meet(name):  # as a barrier of the training does
        Path(f"{name}-{rank}").touch()
        while len(list(Path().glob(f"{name}-*"))) < int(os.environ["WORLD_SIZE"]):
            time.sleep(0.01)

"""
TRAIN = """
    with Run({"lr": 0.1}, stage="train", inputs=["data.csv"]) as run:
        run.logger.info("hello")
        for step in range(3):
            run.log_async(loss=rank + step / 10, step=step)
        (run.save_dir / f"weights-{rank}").touch()
        meet("trained")
    if rank:
        run.publish()  # which rank 0 would do for all
    print(run.id, run.status)
"""


def environment(rank: int, size: int = 3, **more: str) -> dict[str, str]:
    """As torchrun sets it."""
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "OMPI_"))
    }
    return inherited | {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "29500",
        "TORCHELASTIC_RUN_ID": "none",
        "TORCHELASTIC_RESTART_COUNT": "0",
        **more,
    }


class Launcher:
    """Starts all ranks of a program in a folder, as torchrun does."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def start(
        self, code: str, ranks: tuple[int, ...] = (0, 1, 2), **more: str
    ) -> list[subprocess.Popen[str]]:
        (self.folder / "train.py").write_text(textwrap.dedent(PROGRAM) + textwrap.dedent(code))
        return [
            subprocess.Popen(
                [sys.executable, "train.py"],
                cwd=self.folder,
                env=environment(rank, len(ranks), **more),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in ranks
        ]

    def run(self, code: str, ranks: tuple[int, ...] = (0, 1, 2), **more: str) -> list[tuple[str, str]]:
        """What each printed, and said."""
        return [process.communicate(timeout=120) for process in self.start(code, ranks, **more)]

    def runs(self) -> list[Path]:
        return sorted(path.parent for path in self.folder.glob("results/*/*/run.lock"))


@pytest.fixture
def launcher(tmp_path: Path) -> Launcher:
    (tmp_path / "data.csv").write_text("1,2\n")
    return Launcher(tmp_path)


def test_all_ranks_are_in_one_run(launcher: Launcher) -> None:
    """One folder and one lock, with the numbers and outputs of all; log lines and files of numbers name the rank."""
    said = launcher.run(TRAIN)
    (folder,) = launcher.runs()
    past = Run.load(folder)
    assert [out for out, _ in said] == [f"{past.id} done\n"] * 3, said
    assert past.omissions == () or {one.what for one in past.omissions} == {"source"}
    assert (past.lock.metrics["loss"].points, past.lock.metrics["loss"].max) == (9, 2.2)
    assert {data.path for data in past.outputs} == {"weights-0", "weights-1", "weights-2"}
    assert [data.path for data in past.inputs] == ["data.csv"]
    names = sorted(path.name for path in (folder / "metrics").iterdir())
    assert [name.partition("-")[0] for name in names if name.startswith("rank")] == ["rank1", "rank2"]
    assert set(past.metrics()["loss"].tasks) == {None, "rank 1", "rank 2"}
    lines = (folder / "run.log").read_text()
    assert [lines.count(text) for text in ("- hello", "[rank 1] hello", "[rank 2] hello")] == [1, 1, 1]
    assert "not that of rank 0" not in lines


def test_a_rank_that_fails_is_in_the_lock(launcher: Launcher) -> None:
    """Its traceback stands in the log, and the lock of rank 0, which went on, says that it failed."""
    said = launcher.run("""
        with Run(stage="train") as run:
            meet("entered")
            if rank == 1:
                raise RuntimeError("no luck")
    """)
    (folder,) = launcher.runs()
    past = Run.load(folder)
    assert past.status == "done"
    assert ("rank 1", "failed: RuntimeError: no luck") in [(one.what, one.why) for one in past.omissions]
    assert "[rank 1] failed\nTraceback" in (folder / "run.log").read_text()
    assert (
        said[1][1].rstrip().endswith("RuntimeError: no luck") and "during handling" not in said[1][1].lower()
    )


def test_a_rank_that_is_killed_holds_nobody_up(launcher: Launcher) -> None:
    """Rank 0 waits for it a moment, and its lock says what may be missing."""
    launcher.run("""
        import signal
        with Run(stage="train") as run:
            run.log_async(loss=1.0)
            meet("entered")
            if rank == 1:
                os.kill(os.getpid(), signal.SIGKILL)
    """)
    past = Run.load(launcher.runs()[0])
    assert (past.status, past.lock.metrics["loss"].points) == ("done", 3)
    assert [one.what for one in past.omissions if "still running" in one.why] == ["rank 1"]


def test_a_rank_of_a_script_with_cells_ends_with_it(launcher: Launcher) -> None:
    """What was started is started again, and never finished: the end of the script finishes it in each rank."""
    launcher.run("""
        for turn in range(2):
            run = Run({"lr": 0.1}, stage="train").start()
            run.log_async(loss=rank)
            meet(f"logged-{turn}")
        while not rank and "running" in "".join(path.read_text() for path in run.save_dir.glob(".runctx/ranks/*")):
            time.sleep(0.01)
    """)
    first, second = map(Run.load, launcher.runs())
    assert (first.status, second.status) == ("interrupted", "done")
    assert {one.what for one in second.omissions} <= {"source"}
    assert (first.save_dir / ".runctx/ranks/rank 1").read_text() == "interrupted"


def test_after_a_restart_ranks_attach_to_the_new_run(launcher: Launcher) -> None:
    """torchrun kills all ranks and starts them again: they meet in the run of the new rank 0, not in the old one."""
    first = launcher.start("""
        with Run(stage="train") as run:
            meet("entered")
            time.sleep(100)
    """)
    while len(list(launcher.folder.glob("entered-*"))) < 3:
        assert all(process.poll() is None for process in first)
    for process in first:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    said = launcher.run(TRAIN, TORCHELASTIC_RESTART_COUNT="1")
    crashed, done = map(Run.load, launcher.runs())
    assert (crashed.status, done.status) == ("crashed", "done")
    assert [out for out, _ in said] == [f"{done.id} done\n"] * 3


def test_the_same_port_on_another_day(launcher: Launcher) -> None:
    """What an earlier start with the same address has left is not taken for this one's, though it ended well."""
    launcher.run(TRAIN)
    for file in launcher.folder.glob("results/.ranks/*.json"):
        said = json.loads(file.read_text())
        file.write_text(json.dumps(said | {"time": said["time"] - 86_000}))
    late = launcher.start(TRAIN, ranks=(1, 0))  # rank 1 finds the old file first
    ids = [process.communicate(timeout=120)[0].split()[0] for process in late]
    assert len(launcher.runs()) == 2
    assert set(ids) == {Run.load(launcher.runs()[1]).id}


def test_runs_of_one_program_are_told_apart(launcher: Launcher) -> None:
    """The second run of rank 1 is the second of rank 0; a run that only rank 0 enters is in nobody's way."""
    said = launcher.run("""
        ids = []
        for n in range(2):
            if rank == 0:
                with Run(stage="alone", console=False):
                    pass
            with Run(stage="train", console=False) as run:
                meet(f"trained{n}")
            ids.append(run.id)
        print(*ids)
    """)
    assert len({out for out, _ in said}) == 1
    first, second = said[0][0].split()
    assert first != second
    assert [folder.parent.name for folder in launcher.runs()] == ["alone", "alone", "train", "train"]


def test_switched_off(launcher: Launcher) -> None:
    """With RUNCTX_RANKS=off every rank is a run of its own."""
    said = launcher.run(TRAIN.replace("run.publish()", "pass"), RUNCTX_RANKS="off")
    assert len({out for out, _ in said}) == len(launcher.runs()) == 3


def test_rank_0_does_not_come(launcher: Launcher) -> None:
    """The wait has an end, and the error says where the run was looked for and what to do."""
    code = "from runctx import ranks; ranks.PATIENCE = 0.2\n" + textwrap.dedent(TRAIN)
    (process,) = launcher.start(code, (1,), WORLD_SIZE="2")
    said = process.communicate(timeout=120)[1]
    assert "RunStateError: rank 1 waited 0 s for the run of rank 0" in said and str(launcher.folder) in said
    assert "RUNCTX_RANKS=off" in said
    assert launcher.runs() == []


def test_what_a_rank_must_not_do_and_may_differ_in(launcher: Launcher) -> None:
    """`run.map` in another rank is an error with a hint; another configuration or input is a warning."""
    (launcher.folder / "own.csv").write_text("x")
    launcher.run(
        """
        with Run({"lr": rank}, stage="train", inputs=["own.csv"] if rank else ["data.csv"], console=False) as run:
            meet("entered")
            if rank:
                try:
                    run.map(abs, [1])
                except RuntimeError as error:
                    run.logger.info("{}", error)
            meet("mapped")
    """,
        ranks=(0, 1),
    )
    (folder,) = launcher.runs()
    lines = (folder / "run.log").read_text()
    assert "run.map() was called in rank 1" in lines and "hint: call it in rank 0 only" in lines
    assert "the configuration of rank 1 is not that of rank 0" in lines
    assert "input own.csv of rank 1: rank 0 does not read it" in lines


SLURM = {"SLURM_JOB_ID": "7", "SLURM_PROCID": "1"}


@pytest.mark.parametrize(
    ("environ", "number"),
    [
        (environment(2), 2),
        (environment(0), 0),
        ({**SLURM, "SLURM_NTASKS": "4", "SLURM_STEP_ID": "0"}, 1),
        ({"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", "PMIX_NAMESPACE": "prterun-1"}, 1),
        ({"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", "OMPI_MCA_ess_base_jobid": "5"}, 1),
        ({"PMI_RANK": "1", "PMI_SIZE": "2", "PMI_PORT": "node1:4000"}, 1),
        (environment(2, RUNCTX_RANKS="off"), None),
        (environment(0, size=1), None),
        ({"RANK": "3"}, None),
        ({**SLURM, "SLURM_NTASKS": "4"}, None),  # the batch script itself, which is one process
        ({**SLURM, "SLURM_PROCID": "0", "SLURM_NTASKS": "1", "SLURM_STEP_ID": "0"}, None),  # a job of run.map
        ({}, None),
    ],
)
def test_ranks_of_launchers(environ: dict[str, str], number: int | None) -> None:
    """What counts as a rank: one of several processes with something that all of them share."""
    found = ranks.of_process(environ)
    assert (None if found is None else found.number) == number


def test_what_starts_share(tmp_path: Path) -> None:
    """Ranks of one start meet in one file; another job, step, port or restart has another."""
    step = {**SLURM, "SLURM_NTASKS": "4", "SLURM_STEP_ID": "0"}
    starts = [
        environment(0),
        environment(0, MASTER_PORT="29501"),
        environment(0, TORCHELASTIC_RESTART_COUNT="1"),
        step,
        step | {"SLURM_STEP_ID": "1"},
        step | {"SLURM_RESTART_COUNT": "1"},
    ]
    shared = {rank.shared for environ in starts if (rank := ranks.of_process(environ)) is not None}
    assert len(shared) == len(starts)
    first, second = ranks.of_process(environment(0)), ranks.of_process(environment(2))
    assert first is not None and second is not None and first.shared == second.shared
