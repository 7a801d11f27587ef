"""Killed, interrupted or failed at any moment: the run can be read, and the user's things are hers."""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from runctx import lock as lockfile

SEED = int(os.environ.get("FAULTS_SEED", "20"))

PROGRAM = """
import signal

def limit(number, frame):
    raise TimeoutError("mine")

signal.signal(signal.SIGUSR1, limit)

from runctx import Run

said = open({journal!r}, "w", buffering=1)
for n in range(2):
    with Run({{"lr": 0.1}}, ["data", "small.csv"], stage="{stage}", console=False) as run:
        print("entered", run.save_dir.name, file=said)
        (run.save_dir / "model.bin").write_bytes(b"weights")
        sum(range(100_000))
        print("leaving", run.save_dir.name, file=said)
    print("left", run.save_dir.name, run.status, file=said)
"""

IN_BODY = {
    signal.SIGKILL: "running",
    signal.SIGTERM: "running",
    signal.SIGINT: "interrupted",
    signal.SIGUSR1: "failed",
}
"""What the lock of a run says whose body the signal came into."""
EXIT = {signal.SIGKILL: -9, signal.SIGTERM: -15, signal.SIGINT: -2, signal.SIGUSR1: 1}


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One program and the signal it gets."""

    number: int
    signal: signal.Signals
    delay: float
    """Seconds."""

    @property
    def stage(self) -> str:
        return f"trial-{self.number}"


class UsersOwn:
    """Everything of a repository that is not ours to change."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._tracked = ["train.py", "notes.txt", ".gitignore", "small.csv"]
        self._before = self._look()

    def check(self) -> None:
        now = self._look()
        assert now == self._before, {
            name for name in now | self._before if now.get(name) != self._before.get(name)
        }

    def _look(self) -> dict[str, bytes]:
        git = self._root / ".git"
        files = [git / "HEAD", git / "index", git / "config", *(self._root / name for name in self._tracked)]
        refs = (ref for ref in (git / "refs").rglob("*") if ref.is_file() and ref.name[:8] != "run_logs")
        return {str(path): path.read_bytes() for path in itertools.chain(files, refs)}


def test_any_moment(project, nurseries):
    """Whatever ends a program, whenever: locks are readable and right, exit code and traceback are its own,
    and nothing of the user's is touched."""
    seconds = sorted(nurseries[0].run(_program(project, f"warm-{n}"), project).seconds for n in range(3))[1]
    chance = random.Random(SEED)
    trials = [
        Trial(number=number, signal=chosen, delay=chance.uniform(0, 1.1 * seconds))
        for number, chosen in zip(range(200), itertools.cycle(IN_BODY), strict=False)
    ]
    users = UsersOwn(project)
    queue = iter(trials)

    def work(nursery) -> None:
        for trial in queue:
            try:
                _check(
                    trial,
                    project,
                    nursery.run(_program(project, trial.stage), project, [(trial.delay, trial.signal)]),
                )
                users.check()
            except AssertionError as error:
                error.add_note(f"{trial} of FAULTS_SEED={SEED}")
                list(queue)  # the others may stop
                raise

    with ThreadPoolExecutor(len(nurseries)) as pool:
        list(pool.map(work, nurseries))
    _check_repository(project)


def _program(project: Path, stage: str) -> str:
    return PROGRAM.format(journal=str(project.parent / f"{stage}.journal"), stage=stage)


def _check(trial: Trial, project: Path, ended) -> None:
    assert ended.left == [], "processes were left behind"
    said = _said(project.parent / f"{trial.stage}.journal")
    folders = list((project / "results" / trial.stage).glob("*"))
    allowed = {EXIT[trial.signal]}
    if sum("left" in words for words in said.values()) == 2:
        allowed |= {0, -trial.signal}  # as Python itself is shutting down
    elif not folders:
        allowed |= {-trial.signal}  # as it is starting
    assert ended.status in allowed, ended
    assert "During handling" not in ended.output, ended.output
    for folder in folders:
        _check_run(trial, folder, said.get(folder.name, []))


def _said(journal: Path) -> dict[str, list[str]]:
    """What the program said of each run, last word last."""
    said: dict[str, list[str]] = {}
    if journal.exists():
        for line in journal.read_text().splitlines():
            word, name, *status = line.split()
            said.setdefault(name, []).extend([word, *status])
    return said


def _check_run(trial: Trial, folder: Path, said: list[str]) -> None:
    killed = trial.signal in (signal.SIGKILL, signal.SIGTERM)
    if not (folder / "run.lock").exists():
        assert not said, f"{folder} has no lock after {said}"
        return
    lock = lockfile.read(folder)
    if "left" in said:
        assert lock.status == said[-1]
    elif "leaving" in said:
        assert lock.status in {"done", "interrupted", IN_BODY[trial.signal]}
    else:
        assert lock.status == IN_BODY[trial.signal], said
    if lock.status == "failed":
        assert lock.error is not None
        assert (lock.error.type, lock.error.message) == ("builtins.TimeoutError", "mine")
        assert lock.error.traceback.endswith("TimeoutError: mine\n")
    if not (killed and lock.status == "running"):
        assert not list(folder.rglob("*.tmp"))


def _check_repository(project: Path) -> None:
    fsck = subprocess.run(["git", "fsck", "--strict"], cwd=project, capture_output=True, text=True)
    assert fsck.returncode == 0, fsck.stderr
    locks = {path.name for path in (project / ".git").rglob("*.lock")}
    assert locks <= {"run_logs.lock"}, (
        "a killed program leaves none but that, which the next snapshot removes"
    )


STRUCK = """
import signal, sys

def stop(number, frame):
    sys.exit(143)

def limit(number, frame):
    raise TimeoutError("mine")

def note(number, frame):
    print("noted", flush=True)

signal.signal(signal.SIGTERM, stop)
signal.signal(signal.SIGUSR1, limit)
signal.signal(signal.SIGUSR2, note)

from runctx import Run

strikes = {strikes!r}
calls = 0

def strike(frame, kind, argument):
    global calls
    if kind in ("call", "c_return"):
        calls += 1
        now = [s for s in strikes if s[0] == calls or (kind == "call" and s[0] == frame.f_code.co_name)]
        if now:
            strikes.remove(now[0])
            signal.raise_signal(now[0][1])

said = open({journal!r}, "w", buffering=1)
sys.setprofile(strike)
with Run({{"lr": 0.1}}, ["data", "small.csv"], stage="{stage}", console=False) as run:
    print("entered", run.save_dir.name, file=said)
    {body}
    print("leaving", run.save_dir.name, file=said)
print("left", run.save_dir.name, run.status, file=said)
sys.setprofile(None)
said.close()
print(calls)
"""


def _struck(nursery, project: Path, stage: str, strikes: list[tuple[int | str, int]], body: str = "pass"):
    """Run a program that sends itself signals: at its n-th call, or when it calls a function of that name."""
    strikes = [(at, int(number)) for at, number in strikes]
    journal = str(project.parent / f"{stage}.journal")
    return nursery.run(STRUCK.format(strikes=strikes, journal=journal, stage=stage, body=body), project)


def _only_lock(project: Path):
    (file,) = project.glob("results/*/*/run.lock")
    return lockfile.read(file)


INT, TERM, USR1, USR2 = signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2


@pytest.mark.parametrize(
    ("strikes", "exit_code", "status"),
    [
        ([("take", INT)], -2, "interrupted"),
        ([("take", TERM)], 143, "failed"),
        ([("take", USR1)], 1, "failed"),
        ([("wait_for", INT)], -2, "interrupted"),
        ([("wait_for", TERM)], 143, "interrupted"),
        ([("wait_for", USR1)], 1, "interrupted"),
        ([("wait_for", INT), ("wait", INT)], -2, "interrupted"),
        ([("wait_for", INT), ("_collect_outputs", INT)], -2, "interrupted"),
        ([("wait_for", INT), ("_seal", INT)], -2, "interrupted"),
        ([("_leave", INT), ("collect", INT), ("write_atomically", INT)], -2, "interrupted"),
        ([("_seal", INT)], -2, "done"),
        ([("take", USR2), ("wait_for", USR2)], 0, "done"),
    ],
    ids=lambda value: (
        "-".join(f"{at}:{signal.Signals(n).name}" for at, n in value) if isinstance(value, list) else ""
    ),
)
def test_this_moment(project, nursery, strikes, exit_code, status):
    """What a handler raises while we snapshot, hash or seal comes out, after the run has been sealed."""
    ended = _struck(nursery, project, "stage", strikes)
    assert (ended.status, ended.left) == (exit_code, []), ended.output
    assert _only_lock(project).status == status
    assert ended.output.count("noted") == sum(number == USR2 for _, number in strikes)


def test_not_looked_at_again(project, nursery):
    """After Ctrl-C at the end inputs are not looked at once more, which is said: they do not pass for unchanged."""
    _struck(nursery, project, "stage", [("wait_for", INT)])
    assert "changes of the inputs" in {omission.what for omission in _only_lock(project).omissions}


@pytest.mark.parametrize("second", ["commit_tree", "_open_folder"])
def test_twice_at_entry(project, nursery, second):
    """A second Ctrl-C during entry ends it at once, and there is no run that could be misread."""
    ended = _struck(nursery, project, "stage", [("take", INT), (second, INT)])
    assert (ended.status, ended.left) == (-2, []), ended.output
    assert not list(project.glob("results/*/*/run.lock"))


def test_interrupted_while_failing(project, nursery):
    """Ctrl-C while a failed run is sealed does not make it any other run, and both exceptions come out."""
    ended = _struck(nursery, project, "stage", [("wait_for", INT)], body='raise ValueError("mine")')
    lock = _only_lock(project)
    assert (ended.status, lock.status) == (-2, "failed")
    assert "ValueError: mine" in ended.output and "KeyboardInterrupt" in ended.output


@pytest.mark.parametrize("times", [1, 2])
def test_any_call(project, nursery, times):
    """At whatever call a signal comes, once or twice, the exit code is its own and every lock is right."""
    _struck(nursery, project, "first", [])  # writes byte code and caches, which is some calls more
    whole = _struck(nursery, project, "whole", [])
    calls = int(whole.output.split()[-1])
    chance = random.Random(SEED)
    exit_codes = {INT: -2, TERM: 143, USR1: 1}
    for number, chosen in zip(range(45), itertools.cycle(exit_codes), strict=False):
        stage = f"call-{times}-{number}"
        at = sorted(chance.sample(range(1, calls), times))
        ended = _struck(nursery, project, stage, [(n, chosen) for n in at])
        told = f"{chosen.name} at calls {at} of {calls}, FAULTS_SEED={SEED}: {ended}"
        assert (ended.status, ended.left) == (exit_codes[chosen], []), told
        said = _said(project.parent / f"{stage}.journal")
        for folder in (project / "results" / stage).glob("*"):
            if not (folder / "run.lock").exists():
                assert not said and times == 2, told
                continue
            status = lockfile.read(folder).status
            assert status in _possible(
                said.get(folder.name, []), "interrupted" if chosen == INT else "failed"
            ), told
            assert not list(folder.rglob("*.tmp")), told
    _check_repository(project)


def _possible(said: list[str], in_body: str) -> set[str]:
    if "left" in said:
        return {said[-1]}
    return {"done", "interrupted", in_body} if "leaving" in said else {in_body}
