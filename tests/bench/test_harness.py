"""The arithmetic of the benchmarks, which are themselves not tests: they fail on no machine."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from . import report
from .__main__ import BENCHES, selected
from .harness import Bench, Missing, Result, Row, Side, Sides, measure
from .peers import child
from .workshop import Absent, Workshop, program

ROW = Row(what="ours", against="theirs", ours="a", peer="b", reach=0.5)


@pytest.fixture
def workshop(tmp_path: Path) -> Iterator[Workshop]:
    with Workshop(tmp_path) as workshop:
        yield workshop


def bench(**sides: Side) -> Bench:
    @contextmanager
    def given(_: Workshop) -> Iterator[Sides]:
        yield sides

    return Bench(name="example", rows=(ROW,), sides=given)


def test_sides_take_turns_and_the_first_round_does_not_count(workshop: Workshop) -> None:
    """Every side runs once in each round, in order; round 0 is left out of the figures."""
    turns: list[str] = []

    def side(name: str, times: list[float]) -> Side:
        def run(number: int) -> float:
            turns.append(name)
            return times[number]

        return run

    given = bench(a=side("a", [99, 1, 4, 2]), b=side("b", [1, 2, 2, 20]))
    (result,) = measure(given, workshop, rounds=3)
    assert turns == ["a", "b"] * 4
    assert isinstance(result, Result)
    assert (result.ours, result.peer, result.rounds) == (2, 2, 3)
    assert (result.low, result.ratio, result.high) == (0.1, 0.5, 2)
    assert result.met


def test_what_cannot_run_is_said_and_stops_nobody(workshop: Workshop) -> None:
    """A peer that is absent leaves its row unmeasured, with the reason and what the other side took."""

    def absent(_: int) -> float:
        program("no-such-program-here", "install it with `x`")
        return 1

    (result,) = measure(bench(a=lambda _: 2.0, b=absent), workshop, rounds=1)
    assert isinstance(result, Missing)
    assert (result.ours, result.peer) == (2, None)
    assert result.why == "`no-such-program-here` is not installed; install it with `x`"
    assert "NOT MEASURED" in report.text([result])
    assert "NOT MEASURED" in report.markdown([result], [], [])


def test_data_that_cannot_be_made_is_said(workshop: Workshop) -> None:
    """A bench whose data set fails gives unmeasured rows instead of ending the others."""

    @contextmanager
    def broken(_: Workshop) -> Iterator[Sides]:
        raise Absent("the disk is full")
        yield {}

    (result,) = measure(Bench(name="example", rows=(ROW,), sides=broken), workshop, rounds=1)
    assert isinstance(result, Missing)
    assert result.why == "the disk is full"


def test_repositories_of_both_sides_are_equal_and_clean(workshop: Workshop) -> None:
    """Two repositories made for two sides hold the same tree, and git finds nothing to do in them."""
    ours, theirs = (workshop.repository(20, name) for name in ("ours", "theirs"))
    assert ours != theirs
    assert workshop.git(ours, "rev-parse", "HEAD^{tree}") == workshop.git(theirs, "rev-parse", "HEAD^{tree}")
    assert workshop.git(ours, "status", "--porcelain") == ""


def test_a_child_answers_and_its_failure_is_told(workshop: Workshop, tmp_path: Path) -> None:
    """A child returns what its function returned, raises what it raised, and its prints disturb neither."""
    script = tmp_path / "bench" / "script.py"
    script.parent.mkdir()
    serve = Path(__file__).parent / "children" / "serve.py"
    (script.parent / "serve.py").write_text(serve.read_text("utf-8"), "utf-8")
    script.write_text(
        "from serve import serve\n"
        "def double(n):\n    print('noise')\n    return 2 * n\n"
        "def leave():\n    import os; os._exit(3)\n"
        "serve({'double': double, 'leave': leave})\n"
    )
    with child(workshop, "script.py", cwd=tmp_path) as process:
        assert process.ask("double", n=21) == 42
        with pytest.raises(RuntimeError, match="TypeError"):
            process.ask("double", n=None)
        with pytest.raises(RuntimeError, match="died"):
            process.ask("leave")


def test_every_bench_can_be_chosen_by_name() -> None:
    """Names are unique, and `--only` takes a whole name, a part of one, or a pattern."""
    names = [bench.name for bench in BENCHES]
    assert len(set(names)) == len(names)
    assert [bench.name for bench in BENCHES if selected(bench, "import")] == ["import"]
    assert [bench.name for bench in BENCHES if selected(bench, "hash-*")] == [
        name for name in names if name.startswith("hash-")
    ]
