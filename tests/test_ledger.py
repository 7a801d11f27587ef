"""The ledger's laws: every task is free, claimed or done, and nobody does what another has."""

from __future__ import annotations

import collections
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from runctx.errors import LedgerError
from runctx.layout import TaskFiles
from runctx.tasks.ledger import (
    Author,
    Claims,
    Entry,
    Ledger,
    Row,
    Rows,
    Writer,
    keys_of,
    numbers,
    spans,
    write_tasks,
)
from runctx.tasks.supervisor import Supervisor


def write_ledger(files: TaskFiles, tasks: list, wanted: list[int] | None = None) -> list[str]:
    """As `run.map` writes it; keys of all tasks."""
    keys = keys_of(tasks)
    shutil.rmtree(files.state, ignore_errors=True)
    files.kept.mkdir(parents=True, exist_ok=True)
    files.claims.mkdir(parents=True)
    write_tasks(files, tasks, keys, wanted)
    return keys


def author(worker: str, shift: str = "here") -> Author:
    return Author(worker=worker, shift=shift, host="node", pid=os.getpid(), started=0.0)


def row(key: str, status: str = "done") -> Row:
    found = Row(key=key, status=status, started=time.time(), seconds=0.0)
    return msgspec.structs.replace(found, value=msgspec.Raw(b"1")) if status == "done" else found


# -- the state machine -------------------------------------------------------------------------------------------


class Hand:
    """A worker, without a process and a function: what it knows of the ledger is what a real one knows."""

    numbers = itertools.count()

    def __init__(
        self, machine: LedgerMachine, shift: str, name: str = "", batch: list[int] | None = None
    ) -> None:
        self.machine, self.shift, self.session = machine, shift, machine.session
        self.name = name or f"{shift}-{next(self.numbers)}"
        self.ledger = Ledger(machine.files)
        self.rows = Writer(machine.files, author(self.name, shift))
        self.batch = batch or []
        self.alive = True
        self.stray = False
        """Declared dead though it lives, or left over from an earlier session."""

    def take(self, most: int) -> None:
        claims = self.ledger.claims
        if self.batch or not self.alive:
            return
        try:
            self.batch = claims.take(self.name, self.shift, most)
        except LedgerError as error:
            assert self.session != self.machine.session, error
            assert "is gone" in str(error)
        if self.session != self.machine.session or self.name in claims.dismissed:
            assert not self.batch

    def work(self, most: int, status: str = "done") -> None:
        for _ in range(most if self.alive else 0):
            if self.batch:
                key = self.ledger.todo.key(self.batch.pop(0))
                self.rows.add(row(key, status))
                self.machine.was_run(self, key, status)

    def give_back(self) -> None:
        if not self.alive or not self.batch:
            return
        try:
            given = self.ledger.claims.give_back(self.name, self.shift, self.batch)
        except LedgerError:
            assert self.session != self.machine.session
        else:
            assert given is not self.stray or self.session != self.machine.session
        self.batch = []

    def die(self, torn: bool) -> None:
        if self.alive and torn and self.batch:
            line = msgspec.json.encode(row(self.ledger.todo.key(self.batch[0])))
            self.rows.append(line[: len(line) // 2])  # no end of line: the kernel had taken that much
        self.alive = False
        self.rows.close()


class LedgerMachine(RuleBasedStateMachine):
    """Workers come, work, stop, die, are found dead rightly and wrongly; the map is resumed; in any order."""

    hands = Bundle("hands")
    views = Bundle("views")

    @initialize(count=st.integers(0, 20))
    def begin(self, count: int) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ledger-"))
        self.files = TaskFiles(self.folder, "main")
        self.tasks = list(range(count))
        self.keys = write_ledger(self.files, self.tasks)
        self.session = 0
        self.everyone: list[Hand] = []
        self.watches: dict[str, Supervisor] = {}
        self.runs: collections.Counter[tuple[int, str]] = collections.Counter()
        self.done: collections.Counter[str] = collections.Counter()
        self.strayed: set[str] = set()
        """Keys of what workers had who were declared dead, or forgotten, alive."""
        self.new_shifts()

    def new_shifts(self) -> None:
        made = [
            Supervisor(TaskFiles(self.folder, "main"), start=lambda terms, workers: (), workers=2)
            for _ in range(2)
        ]
        self.watches = {watch.shift.name: watch for watch in made}

    def was_run(self, hand: Hand, key: str, status: str) -> None:
        if not hand.stray:
            self.runs[self.session, key] += 1
        self.done[key] += status == "done"

    def declared_dead(self, name: str) -> None:
        for hand in self.everyone:
            if hand.name == name and hand.session == self.session and not hand.stray:
                hand.stray = True
                if hand.alive:
                    self.strayed |= {hand.ledger.todo.key(number) for number in hand.batch}

    def hired(self, hand: Hand) -> Hand:
        self.everyone.append(hand)
        return hand

    @rule(target=hands, which=st.integers(0, 1), most=st.integers(0, 5))
    def start(self, which: int, most: int) -> Hand:
        hand = self.hired(Hand(self, list(self.watches)[which]))
        if most:
            hand.take(most)
        return hand

    @rule(hand=hands, most=st.integers(1, 8))
    def take(self, hand: Hand, most: int) -> None:
        hand.take(most)

    @rule(hand=hands, most=st.integers(1, 8), status=st.sampled_from(["done", "done", "failed"]))
    def work(self, hand: Hand, most: int, status: str) -> None:
        hand.work(most, status)

    @rule(hand=hands)
    def give_back(self, hand: Hand) -> None:
        hand.give_back()

    @rule()
    def stop(self) -> None:
        for hand in self.everyone:
            hand.give_back()

    @rule(hand=consumes(hands), torn=st.booleans())
    def die(self, hand: Hand, torn: bool) -> None:
        hand.die(torn)

    @rule(target=views, hand=hands)
    def look(self, hand: Hand) -> tuple:
        """What another makes of a worker now, and acts upon later, when it may have gone on."""
        ledger = Ledger(self.files)
        ledger.claims.read_on()
        return self.session, ledger, hand, ledger.unfinished(hand.name), hand.alive

    @rule(view=consumes(views), which=st.integers(0, 1))
    def dismiss(self, view: tuple, which: int) -> None:
        session, ledger, hand, unfinished, lived = view
        if session == self.session and unfinished:
            shift = list(self.watches)[which]
            if ledger.claims.dismiss(hand.name, unfinished, worker=shift, shift=shift, lost=unfinished[:1]):
                self.declared_dead(hand.name)
                if lived:  # it may have finished some since
                    self.strayed |= {ledger.todo.key(number) for number in unfinished}

    @rule(target=hands, which=st.integers(0, 1))
    def recover(self, which: int) -> object:
        """A shift whose pool is broken: whoever of its workers has not left in good order counts as dead."""
        watch = list(self.watches.values())[which]
        watch._recover()
        for hand in self.everyone:
            if hand.name in watch.claims.dismissed:
                self.declared_dead(hand.name)
        suspects, watch._suspects = watch._suspects, []
        return multiple(*(self.hired(Hand(self, watch.shift.name, *((name, [n])))) for name, n in suspects))

    @rule(which=st.integers(0, 1))
    def bury(self, which: int) -> None:
        """A shift finds that the other one is dead."""
        mine, other = list(self.watches)[:: 1 if which else -1]
        ledger = Ledger(self.files)
        ledger.bury({other}, mine)
        for name in ledger.claims.dismissed:
            self.declared_dead(name)

    @rule(swap=st.booleans())
    def resume(self, swap: bool) -> None:
        """A new session, with the tasks in another order; whoever is left of the old one goes on."""
        for hand in self.everyone:
            if hand.session == self.session:
                hand.stray = True
                if hand.alive:
                    self.strayed |= {hand.ledger.todo.key(number) for number in hand.batch}
        if swap:
            self.tasks.reverse()
        final = Rows(self.files).read_on()
        done = {key for key, (_, row) in final.items() if row.status == "done"}
        keys = keys_of(self.tasks)
        assert set(keys) == set(self.keys)
        wanted = [i for i, key in enumerate(keys) if key not in done]
        write_ledger(self.files, self.tasks, wanted)
        self.session += 1
        self.new_shifts()

    @invariant()
    def partition(self) -> None:
        """todo = done + claimed + free, and nothing is in two of them."""
        if not hasattr(self, "files"):
            return
        ledger = Ledger(self.files)
        ledger.claims.read_on()
        free = free_in(ledger.claims)
        held = [number for batch in ledger.claims.held.values() for number in batch]
        assert len(set(free)) == len(free) == ledger.claims.free
        assert len(set(held)) == len(held)
        assert not set(free) & set(held)
        final = Rows(self.files).read_on()
        for number in set(range(len(ledger.todo))) - set(free) - set(held):
            assert ledger.todo.key(number) in final, f"task {number} got lost"

    @invariant()
    def one_owner(self) -> None:
        """What a worker goes on with is its own, and nobody else's."""
        if not hasattr(self, "files"):
            return
        ledger = Ledger(self.files)
        ledger.claims.read_on()
        working = [hand for hand in self.everyone if hand.alive and not hand.stray]
        at = [number for hand in working for number in hand.batch]
        assert len(set(at)) == len(at)
        for hand in working:
            assert hand.batch == ledger.unfinished(hand.name)
            assert hand.name not in ledger.claims.dismissed

    @invariant()
    def nothing_twice(self) -> None:
        """Unless the worker that had it was declared dead and was not."""
        if hasattr(self, "files"):
            twice = {key for (_, key), times in self.runs.items() if times > 1}
            twice |= {key for key, times in self.done.items() if times > 1}
            assert twice <= self.strayed

    def teardown(self) -> None:
        """Whatever happened, those who are left do the rest."""
        if not hasattr(self, "files"):
            return
        self.partition()
        for hand in self.everyone:
            hand.work(len(self.tasks))
        for which in (0, 1):
            self.bury(which)
        last = self.hired(Hand(self, next(iter(self.watches))))
        last.take(len(self.tasks) + 1)
        last.work(len(self.tasks))
        assert last.ledger.is_over()
        self.nothing_twice()
        assert set(Rows(self.files).read_on()) == set(self.keys)
        for hand in self.everyone:
            hand.rows.close()
        shutil.rmtree(self.folder)


def free_in(claims: Claims) -> list[int]:
    """The numbers of the free tasks, by taking them."""
    copy = Claims(Path(tempfile.mkdtemp(prefix="free-")), claims.total)
    for number, entry in enumerate(sorted(claims._folder.iterdir())):
        if not entry.name.startswith("."):
            shutil.copy(entry, copy._folder / f"{number + 1:06}")
    found = copy.take("anyone", "anywhere", claims.total + 1)
    shutil.rmtree(copy._folder)
    return found


def test_every_task_is_free_claimed_or_done_and_one_of_these_only():
    """todo = done + claimed + free at every step, over deaths, strays, recoveries and resumed sessions."""
    run_state_machine_as_test(LedgerMachine, settings=settings(max_examples=100, stateful_step_count=30))


# -- real processes ------------------------------------------------------------------------------------------------


CLAIMING = """
import os, sys, time
from runctx.layout import TaskFiles
from runctx.tasks.ledger import Author, Ledger, Row, Writer

files, most = TaskFiles(sys.argv[1], "main"), int(sys.argv[2])
name = f"worker-{os.getpid()}"
ledger = Ledger(files)
rows = Writer(files, Author(worker=name, shift="here", host="node", pid=os.getpid(), started=0.0))
print("ready", flush=True)
sys.stdin.readline()
while batch := ledger.claims.take(name, "here", most):
    for number in batch:
        rows.add(Row(key=ledger.todo.key(number), status="done", started=time.time(), seconds=0.0))
"""


def in_processes(count: int, files: TaskFiles, most: int) -> list[subprocess.Popen[str]]:
    """Processes that claim until nothing is left, and began at the same moment."""
    program = [sys.executable, "-c", CLAIMING, os.fspath(files.root), str(most)]
    made = [
        subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(count)
    ]
    for process in made:
        assert process.stdout.readline() == "ready\n"
    for process in made:
        process.stdin.write("go\n")
        process.stdin.flush()
    return made


def statuses(processes: list[subprocess.Popen[str]]) -> list[int]:
    return [(process.communicate(), process.returncode)[1] for process in processes]


@pytest.mark.parametrize("count", [2, 8])
def test_processes_that_claim_at_once_share_the_tasks(tmp_path, count):
    """A thousand tasks, claimed by many processes at the same moment: each is run, and none twice."""
    files = TaskFiles(tmp_path, "main")
    keys = write_ledger(files, list(range(1000)))
    assert set(statuses(in_processes(count, files, most=3))) == {0}
    rows = [row.key for _, new in Rows(files).new() for row in new]
    assert sorted(rows) == sorted(keys)


def test_processes_killed_while_they_claim(tmp_path):
    """A process killed at any moment of an entry leaves the log whole; others go on, and its tasks are found."""
    files = TaskFiles(tmp_path, "main")
    keys = write_ledger(files, list(range(3000)))
    processes = in_processes(4, files, most=1)
    claims = Claims(files.claims, 3000)
    for n, process in enumerate(processes[:3], 1):
        while claims.free > 3000 - 150 * n:
            claims.read_on()
        os.kill(process.pid, signal.SIGKILL)
    assert statuses(processes) == [-signal.SIGKILL] * 3 + [0]
    ledger = Ledger(files)
    ledger.bury({"here"}, "other")
    number = ledger.claims.take("last", "other", 10)
    done = {row.key for _, new in Rows(files).new() for row in new}
    assert done | {ledger.todo.key(n) for n in number} == set(keys)
    assert len(number) <= 3


def test_a_draft_that_was_left_behind_is_nothing(tmp_path):
    """What a worker killed before its entry was linked leaves in the log is never read."""
    claims = Claims(tmp_path, 4)
    assert claims.take("a", "here", 2) == [0, 1]
    (tmp_path / ".0a1b2c3d4e5f").write_bytes(b'{"worker":"b","sh')
    assert Claims(tmp_path, 4).take("b", "here", 4) == [2, 3]


def test_who_is_declared_dead_can_do_no_more(tmp_path):
    """A worker that was dismissed gets nothing and gives nothing back, and what it had is another's."""
    slow, other = Claims(tmp_path, 4), Claims(tmp_path, 4)
    assert slow.take("slow", "here", 3) == [0, 1, 2]
    other.read_on()
    assert other.dismiss("slow", [1, 2], worker="other", shift="here", lost=[1], keep=[1])
    assert not other.dismiss("slow", [1, 2], worker="third", shift="here")
    assert not slow.give_back("slow", "here", [1, 2])
    assert slow.take("slow", "here", 3) == []
    assert other.held == {"other": [1]}
    assert other.losses == {1: 1}
    assert other.take_these("third", "here", [1, 2]) == [2]


def test_who_went_on_is_not_dead(tmp_path):
    """A worker that took more since it was looked at is not dismissed with what it had then."""
    worker, watcher = Claims(tmp_path, 4), Claims(tmp_path, 4)
    assert worker.take("worker", "here", 2) == [0, 1]
    watcher.read_on()
    assert worker.take("worker", "here", 2) == [2, 3]
    assert not watcher.dismiss("worker", [1], worker="watcher", shift="here")
    assert watcher.held == {"worker": [2, 3]}


# -- broken and hostile files ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b'{"worker":"w"}',
        b'{"worker":"w","shift":"s","take":[[0,1000000000000]]}',
        b'{"worker":"w","shift":"s","take":[[-1,1]]}',
        b'{"worker":"w","shift":"s","take":[[2,1]]}',
        b'{"worker":"w","shift":"s","take":[[0,1],[0,1]]}',
        b'{"worker":"w","shift":"s","take":[[1,2]]}',
        b'{"worker":"w","shift":"s","give":[[0,1]]}',
        b'{"worker":"w","shift":"s","of":"w","give":[[0,2]]}',
        b'{"worker":"w","shift":"s","take":[["0",1]]}',
        b'{"worker":"\xff","shift":"s"}',
        b" " * 100_000,
    ],
)
def test_an_entry_that_cannot_be(tmp_path, data):
    """An entry that is broken, or that nobody could have made, is an error that names its file; nothing is claimed."""
    (tmp_path / "000001").write_bytes(data)
    claims = Claims(tmp_path, 10)
    with pytest.raises(LedgerError, match="000001: no entry of the log of claims"):
        claims.take("a", "here", 1)
    assert claims.held == {}
    assert sorted(os.listdir(tmp_path)) == ["000001"]


@settings(max_examples=200)
@given(
    st.lists(
        st.builds(
            Entry,
            worker=st.sampled_from("ab"),
            shift=st.just("s"),
            take=st.lists(st.tuples(st.integers(-1, 6), st.integers(-1, 6)), max_size=2).map(tuple),
            give=st.lists(st.tuples(st.integers(-1, 6), st.integers(-1, 6)), max_size=2).map(tuple),
            of=st.sampled_from(["", "a", "b"]),
        ),
        max_size=6,
    )
)
def test_any_entries_leave_the_tasks_apart(entries):
    """Whatever stands in a log, what was read of it is free or held once, or it is an error."""
    with tempfile.TemporaryDirectory() as folder:
        for number, entry in enumerate(entries, 1):
            Path(folder, f"{number:06}").write_bytes(msgspec.json.encode(entry))
        claims = Claims(Path(folder), 5)
        try:
            claims.read_on()
        except LedgerError:
            pass
        held = [number for batch in claims.held.values() for number in batch]
        assert len(set(held)) == len(held)
        assert len(held) + claims.free <= 5


def test_what_is_no_file(tmp_path):
    """A pipe or a folder in place of an entry is an error at once, and never waited for."""
    os.mkfifo(tmp_path / "000001")
    with pytest.raises(LedgerError, match="000001"):
        Claims(tmp_path, 3).read_on()
    (tmp_path / "000001").unlink()
    (tmp_path / "000001").mkdir()
    with pytest.raises(LedgerError, match="000001"):
        Claims(tmp_path, 3).read_on()
    with pytest.raises(LedgerError, match="no log of claims"):
        Claims(tmp_path / "nowhere", 3)


def test_a_torn_row_counts_for_nothing(tmp_path):
    """A row that a kill or a full disk cut off is not read; the next process of that name removes it."""
    files = TaskFiles(tmp_path, "main")
    first = Writer(files, author("w"))
    first.add(row("a" * 16))
    assert first.store(b"12345") == (0, 5)
    first.append(b'{"key":"bbbb')
    first.close()
    rows = Rows(files)
    assert [found.key for _, new in rows.new() for found in new] == ["a" * 16]

    second = Writer(files, author("w"))
    second.add(row("b" * 16))
    assert second.store(b"678") == (5, 3)
    second.close()
    assert [found.key for _, new in rows.new() for found in new] == ["b" * 16]
    lines = files.done("w").read_text().splitlines()
    assert ["key" in json.loads(line) for line in lines] == [False, True, True]
    assert files.results("w").read_bytes() == b"12345678"


@given(st.lists(st.integers(0, 30), unique=True))
def test_spans_hold_what_they_were_given(tasks):
    """Numbers come back from their runs, in their order."""
    assert list(numbers(spans(tasks))) == tasks
