"""The journal: points that survive a kill, one file for each writer, and nothing but numbers."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import threading
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runctx import Run
from runctx.errors import LedgerError, RunStateError
from runctx.metrics import journal, series
from runctx.metrics.journal import Journal

LOGS_AND_DIES = """
import os, signal, sys
from pathlib import Path
from runctx.metrics.journal import Journal
journal = Journal(Path(sys.argv[1]), lose=print)
for step in range(1000):
    journal.append({"loss": 1 / (step + 1)}, step=step)
os.kill(os.getpid(), signal.SIGKILL)
"""


def made(folder: Path) -> Journal:
    return Journal(folder / "metrics", lose=pytest.fail)


def test_a_point_whose_call_has_returned_survives_a_kill(tmp_path: Path) -> None:
    """A thousand points, then SIGKILL: a thousand points."""
    told = subprocess.run([sys.executable, "-c", LOGS_AND_DIES, tmp_path / "metrics"])
    assert told.returncode == -signal.SIGKILL
    assert series.read(tmp_path / "metrics")["loss"].steps == tuple(range(1000))


@given(
    st.dictionaries(
        st.text(min_size=1).filter(lambda t: t.isprintable()), st.floats() | st.integers(-(2**63), 2**63)
    )
)
def test_numbers_come_back_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, values: dict[str, float]
) -> None:
    """NaN, infinities and whole numbers up to 63 bits included."""
    own = made(tmp_path_factory.mktemp("journal"))
    for step in (3, 4):  # names that are known already are not looked at again
        own.append(values, step=step, task="ab")
    found = series.read(own.folder)
    assert set(found) == set(values)
    for name, value in values.items():
        for read in found[name].values:
            assert read == float(value) or (math.isnan(read) and math.isnan(value))
        assert found[name].steps == (3, 4) and found[name].tasks == ("ab", "ab")


def test_scalars_of_all_kinds_are_numbers(tmp_path: Path) -> None:
    """numpy's, Decimal and Fraction, bool, a 0-d array."""
    own = made(tmp_path)
    own.append(
        {"a": np.float32(0.5), "b": np.array(2.0), "c": Decimal("0.5"), "d": Fraction(1, 2), "e": True}
    )
    own.append({"a": np.int64(7)}, step=np.int64(2))
    assert [list(point.values.values()) for point in journal.read(own.folder)] == [
        [0.5, 2.0, 0.5, 0.5, 1.0],
        [7.0],
    ]


NUMBERS = ["0.5", b"1", None, [1], np.ones(3), 1j, object(), 10**400]
STEPS = [0.5, "1", np.ones(2), 1 << 63, -(1 << 63) - 1, 10**400, math.nan]


@pytest.mark.parametrize(
    ("values", "step", "said"),
    [
        *(({"loss": 0.3, "accuracy": wrong}, 0, "'accuracy'") for wrong in NUMBERS),
        *(({"loss": 0.3}, wrong, "step") for wrong in STEPS),
        ({"": 1}, 0, "name is empty\nhint: "),
        ({3: 1}, 0, "must be a str; got 3"),
        ({None: 1}, 0, "NoneType"),
        ({"\ud800": 1}, 0, "UTF-8"),
    ],
)
def test_what_is_no_number_step_or_name_is_refused_and_nothing_is_written(
    tmp_path: Path, values: dict[str, object], step: object, said: str
) -> None:
    """It is named, in words of its own; not even the numbers beside it are written."""
    own = made(tmp_path)
    with pytest.raises(TypeError, match=said):
        own.append(values, step=step)
    assert not own.folder.exists()


def test_all_other_steps_come_back(tmp_path: Path) -> None:
    """The first and the last one there are, none, and numpy's."""
    own = made(tmp_path)
    steps = [None, -(1 << 63), (1 << 63) - 1, -1, True, np.uint8(7)]
    for step in steps:
        own.append({"loss": 0.3}, step=step)
    assert [point.step for point in journal.read(own.folder)] == steps


def test_names_that_are_made_up_fill_no_memory(tmp_path: Path) -> None:
    """One that was never seen is a name after any number of others; what is none is refused then, too."""
    own = made(tmp_path)
    for number in range(5000):
        own.append({f"of {number}": 0.5})
        assert len(own._known) < 2000
    for wrong in ("", 7, None, "\ud800"):
        with pytest.raises(TypeError, match="name"):
            own.append({"of 1": 0.5, wrong: 0.5})
    assert len(series.read(own.folder)) == 5000


def test_every_process_and_thread_has_a_file_of_its_own(tmp_path: Path) -> None:
    """Forks of forks and threads beside them: each has one, and no point is lost."""
    own = made(tmp_path)

    def generation(left: int) -> None:
        own.append({"left": left})
        if left:
            child = os.fork()
            if not child:
                generation(left - 1)
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
        own.append({"left": left})

    threads = [threading.Thread(target=lambda: [own.append({"n": 1}) for _ in range(200)]) for _ in range(3)]
    for thread in threads:
        thread.start()
    generation(3)
    for thread in threads:
        thread.join()
    logged = sorted(
        [*point.values.items()] for path in journal.files(own.folder) for _, point in journal.read_file(path)
    )
    assert logged == [[("left", left)] for left in (0, 0, 1, 1, 2, 2, 3, 3)] + [[("n", 1)]] * 600
    assert len(journal.files(own.folder)) == 7


def test_half_a_line_is_taken_back(tmp_path: Path) -> None:
    """On a disk that is full in the middle of it; what comes later starts at the beginning of a line."""
    program = """
import resource, signal, sys
from pathlib import Path
from runctx.metrics.journal import Journal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
own = Journal(Path(sys.argv[1]), lose=print)
own.append({"loss": 0.5}, step=0)
(file,) = own.folder.iterdir()
resource.setrlimit(resource.RLIMIT_FSIZE, (file.stat().st_size + 10, resource.RLIM_INFINITY))
own.append({"loss": 0.5}, step=1)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
own.append({"loss": 0.5}, step=2)
"""
    told = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "metrics"], capture_output=True, text=True, check=True
    )
    assert told.stdout.count("OSError") == 1
    assert [point.step for point in journal.read(tmp_path / "metrics")] == [0, 2]


def test_a_full_disk_is_told_once_and_never_raises(tmp_path: Path) -> None:
    """The folder cannot be made: the training goes on."""
    (tmp_path / "file").write_text("")
    told: list[str] = []
    own = Journal(tmp_path / "file" / "metrics", lose=told.append)
    for _ in range(3):
        own.append({"loss": 0.3})
    assert len(told) == 1 and "NotADirectoryError" in told[0]


def test_a_torn_last_line_is_left_out_and_a_broken_one_is_named(tmp_path: Path) -> None:
    """As a kill or another program leaves it."""
    own = made(tmp_path)
    own.append({"loss": 0.3})
    (file,) = own.folder.iterdir()
    with file.open("ab") as stream:
        stream.write(b'{"time":1,"val')
    assert len(series.read(own.folder)["loss"]) == 1
    file.write_text("no point\n")
    with pytest.raises(LedgerError, match=str(file.name)):
        list(journal.read(own.folder))


def test_each_thread_of_a_run_has_one_file_and_none_is_open_after_it(tmp_path: Path) -> None:
    """200 threads begin to log at once; when the run has ended, while they live, no descriptor of theirs is left."""
    together, over = threading.Barrier(200), threading.Event()

    def log(number: int) -> None:
        together.wait()
        run.log_async(n=number)
        logged.release()
        over.wait()

    logged = threading.Semaphore(0)
    threads = [threading.Thread(target=log, args=(number,)) for number in range(200)]
    with Run(save_dir=tmp_path / "run", console=False) as run:
        for thread in threads:
            thread.start()
        for _ in threads:
            logged.acquire()
    folder = os.fspath(run.save_dir / "metrics")
    still_open = [file for file in map(_target, Path("/proc/self/fd").iterdir()) if file.startswith(folder)]
    over.set()
    for thread in threads:
        thread.join()
    assert still_open == []
    assert len(os.listdir(folder)) == 200
    assert sorted(run.metrics()["n"].values) == list(range(200))


def _target(descriptor: Path) -> str:
    try:
        return os.readlink(descriptor)
    except OSError:  # the one that listed the folder
        return ""


def test_what_is_closed_is_written_to_no_more(tmp_path: Path) -> None:
    """A thread that logs on after the end gets an error, even where its descriptor is another file's by now."""
    own = made(tmp_path)
    own.append({"n": 1})
    own.close()
    with (tmp_path / "other").open("w"):
        for _ in range(2):
            with pytest.raises(RunStateError, match="after the run had ended"):
                own.append({"n": 2})
    assert (tmp_path / "other").read_text() == ""
    assert [point.values for point in journal.read(own.folder)] == [{"n": 1}]


def test_a_thread_that_ends_closes_its_file(tmp_path: Path) -> None:
    """However many threads log one after another, only those that live have a file open."""
    own = made(tmp_path)
    before = len(os.listdir("/proc/self/fd"))
    for number in range(50):
        thread = threading.Thread(target=own.append, args=({"n": number},))
        thread.start()
        thread.join()
    assert len(os.listdir("/proc/self/fd")) == before
    assert len(list(own.folder.iterdir())) == 50
