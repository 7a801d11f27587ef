"""Which runs does a shipper follow, until when, and what does it leave to another? With a tracker that can fail."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from runctx import layout, lock
from runctx.errors import TrackingError
from runctx.metrics import journal, series, system
from runctx.metrics.follower import Number
from runctx.settings import Settings
from runctx.trackers import shipper, spool
from tests.pastruns import make_lock, write_run

TRACKER = "tests.test_shipping_rules:Kept"


class Kept:
    """A tracker of the user's: what it was sent is a file for each run; refuses runs of the stage `sick`."""

    name = "kept"

    def __init__(self, wishes: Settings) -> None:
        self.folder = wishes.root / "kept"
        self.destination = str(self.folder)

    def open(self, run: Any, ref: str | None) -> View:
        if (self.folder.parent / "down").exists() or run.lock.stage == "sick":
            raise TrackingError("it does not take it")
        return View(self.folder / run.id, ref)


class View:
    def __init__(self, file: Path, ref: str | None) -> None:
        file.parent.mkdir(exist_ok=True)
        self.file, self.ref, self.fresh = file, str(file), ref is None

    def log(self, numbers: Sequence[Number]) -> None:
        with self.file.open("a") as stream:
            stream.writelines(f"{number.name}={number.value:g}\n" for number in numbers)

    def describe(self, run: Any, parents: Any) -> None:
        with self.file.open("a") as stream:
            stream.write(f"status={run.status}\n")

    def close(self) -> None: ...


@pytest.fixture
def wishes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    (tmp_path / "pyproject.toml").write_text("[tool.runctx]\n")
    monkeypatch.setenv("RUNCTX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(shipper, "PATIENCE", 0.2)
    monkeypatch.setattr(shipper, "LINGER", 0.3)
    monkeypatch.setattr(shipper, "FIRST_PAUSE", 0.05)
    return Settings(root=tmp_path)


def a_run(wishes: Settings, number: int, **changes: Any) -> Path:
    """A past run that has logged two numbers."""
    stage = changes.setdefault("stage", "train")
    folder = write_run(wishes.root, make_lock(number, save_dir=f"results/{stage}/{number}", **changes))
    own = journal.Journal(folder / layout.METRICS, pytest.fail)
    own.append({"loss": 1})
    own.append({"loss": 2})
    own.close()
    return folder


def announce(wishes: Settings, folder: Path, tracker: str = TRACKER) -> spool.Spool:
    """Without anybody being started."""
    own = spool.Spool.of(wishes)
    own.add(spool.Note(save_dir=folder, root=wishes.root, trackers=(tracker,)))
    return own


def ship(own: spool.Spool) -> None:
    shipper.Shipper(own).work()


def taken(wishes: Settings, number: int, stage: str = "train") -> list[str]:
    file = wishes.root / "kept" / make_lock(number, stage=stage).id
    return file.read_text().splitlines() if file.exists() else []


DELIVERED = ["status=done", "loss=1", "loss=2"]


def delivered(wishes: Settings, number: int) -> bool:
    lines = taken(wishes, number)
    return [line for line in lines if line.startswith("loss")] == DELIVERED[1:] and DELIVERED[0] in lines


def test_runs_are_forgotten_once_they_have_arrived(wishes: Settings) -> None:
    """Each run is delivered once, however often it was announced, and nothing of it is left in the spool."""
    for number in range(3):
        own = announce(wishes, a_run(wishes, number))
    announce(wishes, a_run(wishes, 3))
    announce(wishes, wishes.root / "results/train/3")
    ship(own)
    assert all(delivered(wishes, number) for number in range(4))
    assert own.announced() == own.aside() == []


def test_a_sick_run_holds_up_no_other(wishes: Settings) -> None:
    """What is not taken is tried for a while and then set aside, and others have arrived meanwhile."""
    for number in range(3):
        announce(wishes, a_run(wishes, number, stage="sick"))
    own = announce(wishes, a_run(wishes, 7))
    ship(own)
    assert delivered(wishes, 7)
    assert own.announced() == [] and len(own.aside()) == 3


def test_a_tracker_that_does_not_exist(wishes: Settings) -> None:
    """A tracker that cannot be had is no obstacle to the others."""
    announce(wishes, folder := a_run(wishes, 1), "nothing_of_that_name:Tracker")
    own = announce(wishes, folder)
    ship(own)
    assert delivered(wishes, 1) and len(own.aside()) == 2


def test_what_was_set_aside_is_tried_by_the_next(wishes: Settings) -> None:
    """Once the tracker takes runs again, the next shipper delivers what an earlier one has set aside."""
    (wishes.root / "down").touch()
    for number in range(5):
        own = announce(wishes, a_run(wishes, number))
    ship(own)
    assert len(own.aside()) == 5
    tried = own.aside()[: shipper.MOST_REFUSED]
    ship(own)  # still down: a few are tried, and are the last to be tried again
    assert {file.name for file in own.aside()[-shipper.MOST_REFUSED :]} == {file.name for file in tried}
    (wishes.root / "down").unlink()
    ship(own)
    assert all(delivered(wishes, number) for number in range(5))
    assert own.announced() == own.aside() == []


def test_runs_that_are_gone_or_broken(wishes: Settings, tmp_path: Path) -> None:
    """A folder that was deleted is forgotten, a note that is none removed; a broken lock is left to another time."""
    announce(wishes, tmp_path / "nowhere")
    announce(wishes, broken := a_run(wishes, 1))
    layout.RunFiles(broken).lock.write_text("schema: [")
    own = announce(wishes, a_run(wishes, 2))
    announce(wishes, Path("no\0path"))
    for n, text in enumerate(["{", "[]", '{"save_dir": 1}', "[" * 100_000]):
        (own.folder / "runs" / f"{n}.json").write_text(text)
    os.mkfifo(own.folder / "runs" / "pipe.json")
    ship(own)
    assert delivered(wishes, 2)
    assert own.announced() == [] and len(own.aside()) == 1


def test_a_run_that_was_submitted(wishes: Settings) -> None:
    """What its jobs log later is nobody's on this machine: what there is is delivered, and it is forgotten."""
    own = announce(wishes, a_run(wishes, 1, status="submitted"))
    ship(own)
    assert sorted(taken(wishes, 1)) == ["loss=1", "loss=2", "status=submitted"] and own.announced() == []


def test_a_run_goes_on_after_its_end_was_seen(wishes: Settings) -> None:
    """Announced anew while it is being finished, as a resumed run is, it is followed anew."""
    own = announce(wishes, folder := a_run(wishes, 1))
    one = shipper.Shipper(own)
    one.take_in()
    first = one.runs[folder]
    announce(wishes, folder)
    one.take_in()
    first.delivered.add(TRACKER)  # by a turn that had begun before
    assert one.runs[folder] is not first and not one.runs[folder].over
    one.work()
    assert delivered(wishes, 1) and own.announced() == []


def test_many_numbers_take_turns(wishes: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run with very many numbers is sent in turns, and completely."""
    monkeypatch.setattr(shipper, "TURN", 1000)
    folder = a_run(wishes, 1)
    own = journal.Journal(folder / layout.METRICS, pytest.fail)
    for n in range(5000):
        own.append({"x": n})
    own.close()
    ship(announce(wishes, folder))
    values = [line for line in taken(wishes, 1) if line.startswith("x=")]
    assert values == [f"x={n:g}" for n in range(5000)]


def test_spools_are_private(wishes: Settings) -> None:
    """What is announced tells paths, and is nobody else's; another destination has another spool."""
    own = announce(wishes, a_run(wishes, 1))
    assert own.folder.stat().st_mode & 0o077 == 0
    others = [
        replace(wishes, tracking_uri="http://elsewhere"),
        replace(wishes, experiment="other"),
        replace(wishes, root=wishes.root / "sub"),
    ]
    assert len({spool.Spool.of(one).folder for one in (wishes, *others)}) == 4


def test_no_credentials_in_names(wishes: Settings) -> None:
    """The name of a spool is no digest of a password."""
    spools = {
        spool.Spool.of(replace(wishes, tracking_uri=f"http://ada:{word}@host")).folder
        for word in ("one", "two")
    }
    assert len(spools) == 1


def test_no_interpreter(wishes: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Inside another program that would be started anew instead, it is an error with a way out."""
    monkeypatch.setattr(spool.sys, "executable", "/usr/bin/blender")
    with pytest.raises(TrackingError, match=r"not a Python interpreter(?s:.)*runctx publish"):
        spool.announce(a_run(wishes, 1), wishes, ["mlflow"])


def test_the_log_stays_short(tmp_path: Path) -> None:
    """However long a server is away, what is said of it has an end; an address is said without its password."""
    code = "from runctx.trackers import shipper; shipper.LONGEST_LOG = 1000\n"
    code += "for _ in range(100): shipper.say('cannot reach http://ada:s3cret-word@host')"
    with (tmp_path / "log").open("ab") as log:
        subprocess.run([sys.executable, "-c", code], stderr=log, check=True, timeout=60)
    text = (tmp_path / "log").read_text()
    assert 0 < len(text) < 1200 and "s3cret" not in text


def test_accelerators(wishes: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """What NVML tells of each device is a metric; what a device does not tell is left out."""

    class NVMLError(Exception): ...

    def refuse(device: int) -> None:
        raise NVMLError

    driver = SimpleNamespace(
        NVMLError=NVMLError,
        NVML_TEMPERATURE_GPU=0,
        nvmlInit=lambda: None,
        nvmlDeviceGetCount=lambda: 2,
        nvmlDeviceGetHandleByIndex=lambda n: n,
        nvmlDeviceGetUtilizationRates=lambda n: SimpleNamespace(gpu=50 + n),
        nvmlDeviceGetMemoryInfo=lambda n: SimpleNamespace(used=1, total=4),
        nvmlDeviceGetPowerUsage=refuse,
        nvmlDeviceGetTemperature=lambda n, which: 60,
    )
    monkeypatch.setitem(sys.modules, "pynvml", driver)
    mine = replace(make_lock().command, pid=os.getpid())
    folder = write_run(wishes.root, make_lock(1, status="running", command=mine))
    watch = system.Watch(every=0)
    watch.look([folder])
    watch.look([folder])
    watch.look([])
    seen = series.read(folder / layout.METRICS)
    assert seen["system/gpu1_percent"].values == (51, 51)
    assert seen["system/gpu0_memory_percent"].last == 25
    assert "system/gpu0_power_watts" not in seen and seen["system/gpu0_celsius"].last == 60
    assert lock.read(folder).status == "running"
