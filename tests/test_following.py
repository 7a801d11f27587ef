"""The follower: what it gives out is a function of the journals and of the place it goes on from."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runctx import layout
from runctx.metrics.follower import Follower, Number, Place
from runctx.metrics.journal import Journal

POINTS = st.lists(
    st.tuples(
        st.dictionaries(st.sampled_from(["a", "b"]), st.sampled_from([0.0, 1.0, math.inf]), min_size=1),
        st.none() | st.integers(0, 2),
    ),
    max_size=30,
)


def made(folder: Path) -> Journal:
    return Journal(folder / "metrics", lose=pytest.fail)


def everything(follower: Follower, most: int = 1000) -> list[Number]:
    found: list[Number] = []
    while batch := follower.batch(most):
        found += batch
    return found


@given(POINTS, st.integers(1, 7), st.integers(0, 10))
def test_going_on_from_a_kept_place_gives_what_was_not_given(
    tmp_path_factory: pytest.TempPathFactory,
    points: list[tuple[dict[str, float], int | None]],
    most: int,
    stop: int,
) -> None:
    """In whatever batches, and wherever one stopped and another went on: the same numbers, each once."""
    own = made(tmp_path_factory.mktemp("followed"))
    for values, step in points:
        own.append(values, step=step)
    whole = everything(Follower(own.folder, {}))
    assert [n.value for n in whole] == [v for values, _ in points for v in values.values()]
    places: dict[str, Place] = {}
    first = Follower(own.folder, places)
    begun = [number for _ in range(stop) for number in first.batch(most)]
    kept = msgspec.json.decode(msgspec.json.encode(places), type=dict[str, Place])
    assert begun + everything(Follower(own.folder, kept), most) == whole


@given(POINTS)
def test_no_two_numbers_are_the_same(
    tmp_path_factory: pytest.TempPathFactory, points: list[tuple[dict[str, float], int | None]]
) -> None:
    """Name, step and moment together tell all numbers of a writer apart, as a database without duplicates needs."""
    own = made(tmp_path_factory.mktemp("followed"))
    for values, step in points:
        own.append(values, step=step)
    whole = everything(Follower(own.folder, {}))
    assert len({(n.name, n.step, n.moment) for n in whole}) == len(whole)


def test_numbers_without_a_step_are_counted(tmp_path: Path) -> None:
    """For each name and writer; in a task, its place among the tasks is the step."""
    own = made(tmp_path)
    own.append({"a": 1, "b": 2})
    own.append({"a": 3})
    own.append({"a": 4}, task="k7")
    own.append({"a": 5}, step=70, task="k7")
    own.append({"a": 6}, task="unknown")
    follower = Follower(own.folder, {}, position={"k7": 7}.get)
    assert [(n.name, n.step) for n in follower.batch()] == [
        ("a", 0), ("b", 0), ("a", 1), ("a", 7), ("a", 70), ("a", 2),
    ]  # fmt: skip


def test_a_line_is_given_out_when_it_is_whole(tmp_path: Path) -> None:
    """The first half of one that is being written waits for the second."""
    own = made(tmp_path)
    own.append({"loss": 0.5}, step=1)
    (file,) = own.folder.iterdir()
    line = file.read_bytes()
    file.write_bytes(line + line[:20])
    follower = Follower(own.folder, {})
    assert len(everything(follower)) == 1
    with file.open("ab") as stream:
        stream.write(line[20:])
    assert len(everything(follower)) == 1


def test_a_broken_line_holds_up_none_behind_it(tmp_path: Path) -> None:
    """Blocks of zeros after a power cut, a line of another program: counted and passed over."""
    own = made(tmp_path)
    own.append({"loss": 0.5}, step=1)
    (file,) = own.folder.iterdir()
    line = file.read_bytes()
    broken = (b"\0" * 4096 + b"\n", b'{"time": "x"}\n', b"[" * 100_000 + b"\n", b"\xff\n", b"\n")
    file.write_bytes(line + b"".join(broken) + line + b"x" * (3 << 20) + b"\n" + line)
    places: dict[str, Place] = {}
    assert len(everything(Follower(own.folder, places))) == 3
    assert places[file.name].broken >= len(broken)


def test_one_line_of_very_many_numbers_is_one_batch(tmp_path: Path) -> None:
    """It is not cut in two, for a place is that of a line, however long that is."""
    own = made(tmp_path)
    own.append({f"{'long ' * 50}{i}": i for i in range(10_000)}, step=1)
    own.append({"m0": 1}, step=2)
    follower = Follower(own.folder, {})
    assert [len(follower.batch(1000)), len(follower.batch(1000))] == [10_000, 1]


@pytest.mark.parametrize("time", [-5.0, 0.0, 1e17, 1e300])
def test_no_clock_holds_up_a_run(tmp_path: Path, time: float) -> None:
    """Whatever time a line tells, its moment is one that trackers take: not before 1970, and of 64 bits."""
    own = made(tmp_path)
    own.append({"loss": 0.5}, step=1)
    (file,) = own.folder.iterdir()
    for _ in range(2):
        with file.open("a") as journals:
            journals.write(json.dumps({"time": time, "values": {"loss": 0.5}, "step": 1}) + "\n")
    moments = [number.moment for number in everything(Follower(own.folder, {}))]
    assert len(set(moments)) == 3 and min(moments) >= 0 and max(moments) < 1 << 53


@pytest.mark.parametrize("odd", ["pipe", "folder"])
def test_what_is_no_file_is_an_error_and_blocks_nobody(tmp_path: Path, odd: str) -> None:
    """A pipe in the place of a journal would be waited for for ever."""
    (tmp_path / "metrics").mkdir()
    path = tmp_path / "metrics" / "1-0a1b2c3d.jsonl"
    os.mkfifo(path) if odd == "pipe" else path.mkdir()
    with pytest.raises(OSError):
        Follower(tmp_path / "metrics", {}).batch()


def test_the_format_of_a_place_is_known(tmp_path: Path) -> None:
    """What is kept in a run's folder is read by every later release."""
    kept = '{"offset":10,"counts":{"a":1},"latest":{"a":[0,5]},"broken":0}'
    place = msgspec.json.decode(kept, type=Place)
    assert json.loads(msgspec.json.encode(place)) == json.loads(kept)
    assert layout.METRICS == "metrics"
