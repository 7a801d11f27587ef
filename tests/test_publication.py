"""One run in one tracker: how far it has come is kept, can be lost, and is nobody else's meanwhile."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from runctx import Run
from runctx.errors import TrackingError
from runctx.metrics.follower import Number
from runctx.past.record import Record
from runctx.trackers.publication import Publication


class Notebook:
    """A tracker that fails when it is told to, as no real one does."""

    name = "notebook"
    destination = "here"

    def __init__(self) -> None:
        self.numbers: list[Number] = []
        self.parents: list[Mapping[str, str]] = []
        self.fails_after: int | None = None
        self.known: set[str] = set()

    def open(self, run: Record, ref: str | None) -> Page:
        return Page(self, run, ref)


class Page:
    def __init__(self, book: Notebook, run: Record, ref: str | None) -> None:
        self.ref, self.book, self.fresh = f"page of {run.id}", book, ref not in book.known
        if self.fresh:
            book.numbers.clear()
        book.known.add(self.ref)

    def log(self, numbers: Sequence[Number]) -> None:
        if self.book.fails_after is not None and len(self.book.numbers) >= self.book.fails_after:
            raise TrackingError("the pen is empty")
        self.book.numbers += numbers

    def describe(self, run: Record, parents: Mapping[str, str]) -> None:
        self.book.parents.append(parents)

    def close(self) -> None:
        pass


class Calling(Notebook):
    """One that takes logging functions."""

    def open(self, run: Record, ref: str | None) -> Page:
        return CallingPage(self, run, ref)


class CallingPage(Page):
    def call(self, function: Callable[[Record], Any], run: Record) -> None:
        function(run)


@pytest.fixture
def logged(tmp_path: Path) -> Run:
    """A run with 3 500 numbers."""
    with Run(save_dir=tmp_path / "fit", console=False) as run:
        for step in range(3500):
            run.log_async(loss=1 / (step + 1), step=step)
    return run


def record(run: Run) -> Record:
    return Run.load(run.save_dir)


def test_what_was_sent_is_not_sent_again(logged: Run) -> None:
    """By another object or process, for its place is kept in the run's folder; nor after an error in the middle."""
    book = Notebook()
    book.fails_after = 2000
    with (
        pytest.raises(TrackingError, match="empty"),
        Publication(logged.save_dir, book).begun(record(logged)) as sending,
    ):
        sending.send()
    assert len(book.numbers) == 2000
    book.fails_after = None
    with Publication(logged.save_dir, book).begun(record(logged)) as sending:
        assert sending.send() == 1500 and sending.send() == 0
    assert [number.step for number in book.numbers] == list(range(3500))


@pytest.mark.parametrize("damage", [b"", b"{", b'{"places":7}', b"\0\xff", None])
def test_what_was_kept_may_be_lost(logged: Run, damage: bytes | None) -> None:
    """Then everything is sent once more, and nothing fails."""
    book = Notebook()
    publication = Publication(logged.save_dir, book)
    with publication.begun(record(logged)) as sending:
        sending.send()
    (kept,) = (logged.save_dir / ".runctx/trackers").glob("*.json")
    kept.unlink() if damage is None else kept.write_bytes(damage)
    with publication.begun(record(logged)) as sending:
        sending.send()
    assert [number.step for number in book.numbers] == list(range(3500))


def test_one_at_a_time(logged: Run) -> None:
    """Who finds another at it waits, and after a while says so."""
    publication = Publication(logged.save_dir, Notebook())
    with publication.begun(record(logged)):
        raised: list[BaseException] = []

        def second() -> None:
            try:
                with Publication(logged.save_dir, Notebook()).begun(record(logged), patience=0.1):
                    pass
            except TrackingError as error:
                raised.append(error)

        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
        assert "another process" in str(raised[0])
    with publication.begun(record(logged), patience=0.1):
        pass


def test_destinations_are_told_apart(logged: Run) -> None:
    """What was sent to one server was not sent to another."""
    book, other = Notebook(), Notebook()
    other.destination = "there"
    for one in (book, other):
        with Publication(logged.save_dir, one).begun(record(logged)) as sending:
            assert sending.send() == 3500


def test_parents_are_named_as_far_as_they_have_a_view(logged: Run, tmp_path: Path) -> None:
    """By what the tracker calls them."""
    book = Notebook()
    with Run(inputs=[logged.save_dir], save_dir=tmp_path / "next", console=False) as run:
        pass
    for _ in range(2):
        with Publication(run.save_dir, book).begun(record(run)) as sending:
            sending.describe("1")
        with Publication(logged.save_dir, book).begun(record(logged)):
            pass
    assert book.parents == [{}, {logged.id: f"page of {logged.id}"}]
    assert Publication(run.save_dir, book).state().described == "1"


def test_numbers_of_tasks_without_a_step_stand_at_the_place_of_their_task(tmp_path: Path) -> None:
    """In whichever order the workers came to them; also of a map that begins while the run is followed."""
    book = Notebook()
    with Run(save_dir=tmp_path / "maps", console=False) as run:
        publication = Publication(run.save_dir, book)
        list(run.map(lambda x: run.log_async(first=x), [10, 11, 12], launcher="serial"))
        with publication.begun(record(run)) as sending:
            sending.send()
            list(run.map(lambda x: run.log_async(second=x), [20, 21], launcher="serial"))
            sending.send()
    assert [(n.name, n.value, n.step) for n in book.numbers] == [
        ("first", 10, 0), ("first", 11, 1), ("first", 12, 2), ("second", 20, 0), ("second", 21, 1),
    ]  # fmt: skip


def test_a_logging_function_needs_a_view_that_takes_one(logged: Run) -> None:
    """It is said, and the function is not called."""
    with (
        Publication(logged.save_dir, Notebook()).begun(record(logged)) as sending,
        pytest.raises(TrackingError, match="does not support logging functions"),
    ):
        sending.call(pytest.fail, "digest")


def test_a_logging_function_that_publishes_its_own_run_is_told_at_once(logged: Run) -> None:
    """It would wait for its own end."""

    def again(run: Record) -> None:
        with Publication(logged.save_dir, Calling()).begun(run):
            pytest.fail("begun within itself")

    with (
        Publication(logged.save_dir, Calling()).begun(record(logged)) as sending,
        pytest.raises(TrackingError, match="the logging function publishes"),
    ):
        sending.call(again, "digest")


def test_a_killed_publisher_leaves_no_lock_behind(logged: Run) -> None:
    """The next one begins at once."""

    def begin_and_stay(ready: multiprocessing.synchronize.Event) -> None:
        with Publication(logged.save_dir, Notebook()).begun(record(logged)):
            ready.set()
            threading.Event().wait()

    context = multiprocessing.get_context("fork")
    ready = context.Event()
    child = context.Process(target=begin_and_stay, args=(ready,))
    child.start()
    assert ready.wait(60)
    child.kill()
    child.join()
    with Publication(logged.save_dir, Notebook()).begun(record(logged), patience=5):
        pass
