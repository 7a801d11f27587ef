"""What the index answers is what the folders say, whatever happened to them or to the cache."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import sqlite3
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runctx import Run, layout, lock, yamlfile
from runctx.cli.browse import ls
from runctx.config.text import structure_digest
from runctx.errors import LockError, NoRunError, SettingsError
from runctx.model import Failure, Lock, Origin, Summary
from runctx.past import cache as rows_cache
from runctx.past import index
from runctx.past.index import runs
from runctx.past.row import Row, parse, read_row
from tests.pastruns import ESCAPE, child_of, make_lock, write_run
from tests.strategies import locks


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """A cache of this test's own."""
    monkeypatch.setenv("RUNCTX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def settle(root: Path) -> None:
    """As if every lock had been written a while ago."""
    for file in root.rglob("run.lock"):
        os.utime(file, ns=(0, 1_600_000_000_123_456_789))


@pytest.fixture
def old_enough(monkeypatch) -> None:
    """Every change counts as long ago, and so may be remembered: there is no setting a file's ctime."""
    monkeypatch.setattr(rows_cache, "_FINE", -(10**18))
    monkeypatch.setattr(rows_cache, "_COARSE", -(10**18))


def directly(root: Path) -> list[Row]:
    """What reading each lock anew gives."""
    found = [replace(read_row(file.parent), path=str(file.parent)) for file in root.rglob("run.lock")]
    return sorted(found, key=lambda row: row.path)


def answered(root: Path) -> list[Row]:
    return sorted(runs(root).rows, key=lambda row: row.path)


class TestRow:
    def test_derived(self):
        """A row says which values were computed from others, and takes nothing else for that."""
        computed = Origin(layer="default", where="a.py:1", value="lambda c: c.lr", reads=("lr",))
        given = Origin(layer="default", where="a.py:1", value='"reads": ["lr"]')
        one = make_lock(origins={"opt.half": (computed, given), "lr": (given,)})
        assert parse(lock.encode(one)).derived == ("opt.half",)
        assert parse(lock.encode(make_lock())).derived == ()

    @given(locks)
    @settings(max_examples=150)
    def test_agrees_with_the_lock(self, one: Lock):
        """A row says what the whole lock says."""
        row = parse(lock.encode(one))
        commit = one.source.commit
        assert row.commit == (commit and commit.removeprefix("git:"))
        assert row.structure == one.config_structure
        assert row.metrics == one.metrics
        for name in ("id", "stage", "status", "started", "seconds", "parents"):
            assert getattr(row, name) == getattr(one, name), name
        assert (row.dirty, row.error) == (one.source.dirty, one.error and one.error.type)
        assert (row.host, row.pid) == (one.command.host, one.command.pid)

    @given(locks)
    @settings(max_examples=100)
    def test_copy_agrees(self, tmp_path_factory, one: Lock):
        """The copy of a sealed lock gives the row that its YAML gives; there is none of what it cannot hold."""
        folder = tmp_path_factory.mktemp("run")
        lock.write(folder / "run.lock", replace(one, status="done"))
        copy = folder / ".runctx/lock.json"
        row, there = read_row(folder), copy.exists()
        copy.unlink(missing_ok=True)
        assert repr(read_row(folder)) == repr(row)
        assert (
            there
            or any(type(key) is not str for key in one.config)
            or not all(map(lock._has_text_keys, [lock.to_plain(one)]))
        )

    def test_copy_of_another_lock(self, tmp_path):
        """A copy that is damaged, or older than its lock, is not used."""
        folder = write_run(tmp_path, make_lock(1))
        copy = folder / ".runctx/lock.json"
        data = copy.read_bytes()
        for broken in (
            b"",
            b"\xc1",
            data[:-9],
            b"[1, 2, 3]",
            b"[" * 10_000,
            b"3",
            data.replace(b"train-2", b"\xff-2"),
        ):
            copy.write_bytes(broken)
            assert read_row(folder).id == make_lock(1).id
        copy.write_bytes(data.replace(b"train-2", b"other-2"))
        assert read_row(folder).id.startswith("other"), "it is read"
        (folder / "run.lock").write_bytes((folder / "run.lock").read_bytes() + b"\n")
        assert read_row(folder).id == make_lock(1).id

    @pytest.mark.parametrize(
        "text", ["metrics: 3", "metrics:", "metrics:\n  a: 1", "metrics:\n  a:\n    last: x"]
    )
    def test_broken_metrics(self, text):
        """Metrics that are none are a broken lock."""
        data = lock.encode(make_lock()) + text.encode() + b"\n"
        with pytest.raises(LockError, match="not a readable lock"):
            parse(data)

    @given(locks)
    @settings(max_examples=150)
    def test_packing_keeps_everything(self, one: Lock):
        """A row that is remembered is the row that was read; what cannot be packed is not rows_cache."""
        row = parse(lock.encode(one))
        packed = rows_cache.pack(row)
        assert not packed or rows_cache._rows.decode(packed) == row

    def test_config_is_flat(self):
        """Nested keys are dotted, a list is one value, and an empty mapping is one too."""
        row = parse(lock.encode(make_lock(config={"a": {"b": 1}, "l": [1, {"x": 2}], "e": {}, 3: None})))
        assert row.config == {"a.b": 1, "l": [1, {"x": 2}], "e": {}, "3": None}

    @pytest.mark.parametrize("key", ["id", "status", "started", "command", "source", "environment"])
    def test_missing_keys(self, key):
        """Without a key that every lock has, it is broken, and the key is named."""
        plain = lock.to_plain(make_lock())
        del plain[key]
        with pytest.raises(LockError, match=key):
            parse(yamlfile.dump(plain))

    def test_newer_schema(self):
        """A lock of a newer schema is not guessed at."""
        text = lock.encode(make_lock()).replace(b"schema: 1", b"schema: 99")
        with pytest.raises(LockError, match="schema 99"):
            parse(text)


class TestSearch:
    def test_where_runs_are(self, tmp_path):
        """All folders are searched, except hidden ones, links, and what lies in a run's folder."""
        root = tmp_path / "results"
        inside = write_run(root, make_lock(1, save_dir="a/b/c"))
        write_run(root, make_lock(2, save_dir="top"))
        write_run(root, make_lock(3, save_dir=".trash/x"))
        write_run(inside, make_lock(4, save_dir="copy"))
        (root / "latest").symlink_to(inside)
        (root / "round").symlink_to(root)
        (root / "pipe").mkdir()
        os.mkfifo(root / "pipe/run.lock")
        assert [run.id for run in runs(root)] == [make_lock(2).id, make_lock(1).id]

    def test_ways_to_say_where(self, tmp_path, monkeypatch):
        """A folder, a link to one, a run, its lock, and globs of each are all understood."""
        monkeypatch.chdir(tmp_path)
        for number, stage in enumerate(("train", "train2", "test")):
            write_run(tmp_path, make_lock(number, stage=stage))
        (tmp_path / "link").symlink_to("results")
        for where in (None, "results", Path("results"), "link", "results/*/*", "**", "results/*/*/run.lock"):
            assert len(runs(where)) == 3, where
        assert [row.stage for row in runs("results/train*").rows] == ["train2", "train"]
        assert len(runs("results/train/0")) == len(runs("results/train/0/run.lock")) == 1
        assert len(runs("results/nothing*")) == 0

    def test_user_mistakes(self, tmp_path, monkeypatch):
        """A folder that is not there is an error; that nothing ran yet is none."""
        monkeypatch.chdir(tmp_path)
        assert len(runs()) == 0
        with pytest.raises(NoRunError, match="nowhere"):
            runs("nowhere")
        monkeypatch.setenv("RUNCTX_MAX_FILE_SIZE", "much")
        with pytest.raises(SettingsError):
            runs()

    def test_newest_first(self, tmp_path):
        """Runs come in the order of their start, the last first, whatever their folders are called."""
        numbers = random.Random(0).sample(range(1000), 30)
        for i, number in enumerate(numbers):
            write_run(tmp_path, make_lock(number, save_dir=f"r{i}"))
        assert [row.started for row in runs(tmp_path).rows] == [
            make_lock(number).started for number in sorted(numbers, reverse=True)
        ]

    def test_broken_among_many(self, tmp_path):
        """A broken lock is a row that says so, with the reason, and stops nothing."""
        for number in range(5):
            write_run(tmp_path, make_lock(number, save_dir=f"r{number}"))
        (tmp_path / "r2/run.lock").write_bytes(b"\xff\x00: [")
        (tmp_path / "r3/run.lock").write_bytes(lock.encode(make_lock(3))[:300])
        (tmp_path / "r4/run.lock").write_bytes(b"")
        for _ in range(2):
            rows = {Path(row.path).name: row for row in runs(tmp_path).rows}
            assert [rows[f"r{n}"].status for n in range(5)] == ["done", "done", "broken", "broken", "broken"]
            assert str(tmp_path / "r2/run.lock") in (rows["r2"].error or "")
        assert "broken" in repr(runs(tmp_path))
        lock.write(tmp_path / "r4/run.lock", make_lock(4))
        assert {row.status for row in runs(tmp_path).rows if row.path.endswith("r4")} == {"done"}

    def test_iterated_without_reading_locks(self, tmp_path):
        """Ids, stages, statuses and times come from the index; a damaged lock is a broken run, named as its folder."""
        for number in range(4):
            write_run(tmp_path, make_lock(number, status="failed" if number == 2 else "done"))
        (tmp_path / "results/train/1/run.lock").write_text("x: [")
        found = runs(tmp_path)
        for file in tmp_path.glob("results/train/*/run.lock"):
            file.unlink()
        told = [(one.id, one.status, one.stage) for one in found]
        assert sorted(told) == [
            ("1", "broken", "train"),
            *((make_lock(n).id, "failed" if n == 2 else "done", "train") for n in (0, 2, 3)),
        ]
        sound = [one for one in found if one.status != "broken"]
        assert [(one.started, one.seconds) for one in sound] == [
            (make_lock(n).started, 1.5) for n in (3, 2, 0)
        ]
        assert len({*found}) == 4 and found[1:][0] in found

    def test_a_broken_run_asked_for_more(self, tmp_path, monkeypatch):
        """What a broken lock does not tell is an error that names the file; tables and choices go on without it."""
        monkeypatch.chdir(tmp_path)
        for number in range(3):
            write_run(tmp_path, make_lock(number))
        file = tmp_path / "results/train/1/run.lock"
        file.write_text("x: [")
        found = runs()
        (broken,) = found.where("status == 'broken'")
        for ask in ("cfg", "lock", "started", "inputs"):
            with pytest.raises(LockError, match=re.escape(str(file))):
                getattr(broken, ask)
        assert [*found.to_pandas()["status"]].count("broken") == 1
        assert len(found.compare().sides) == 2 and "results/train/1" in repr(found)
        lock.write(file, make_lock(1))
        assert broken.started == make_lock(1).started

    def test_one_that_goes_on_is_looked_at_again(self, tmp_path, monkeypatch):
        """The status of a listed run that was running is the one it has when it is asked for."""
        monkeypatch.chdir(tmp_path)
        with Run({"lr": 0.1}, stage="a", console=False):
            (listed,) = runs()
            assert (listed.status, listed.seconds) == ("running", None)
        assert listed.status == "done" and listed.seconds is not None

    def test_names_that_are_no_text(self, tmp_path):
        """A folder whose name is not UTF-8, or would steer a terminal, is listed like any other."""
        odd = [os.fsdecode(b"bad\xff"), "new\nline", "\x1b[2J", "ü ' \" %s"]
        for number, name in enumerate(odd):
            write_run(tmp_path, make_lock(number, id="", save_dir=name))
        for _ in range(2):
            assert {Path(row.path).name for row in runs(tmp_path).rows} == set(odd)
        assert "\x1b" not in repr(runs(tmp_path)) + repr(list(runs(tmp_path)))


class TestRunning:
    def test_crashed(self, tmp_path, old_enough):
        """A run that says running and whose process is gone is crashed, each time it is looked at."""
        gone = subprocess.Popen(["true"])
        gone.wait()
        host = os.uname().nodename
        for number, pid in enumerate((os.getpid(), gone.pid)):
            one = make_lock(number, status="running", seconds=None)
            write_run(tmp_path, replace(one, command=replace(one.command, host=host, pid=pid)))
        for _ in range(2):
            assert [row.status for row in runs(tmp_path).rows] == ["crashed", "running"]

    def test_real_run(self, tmp_path, monkeypatch):
        """A run is listed as running inside its block, and as what it came to afterwards."""
        monkeypatch.chdir(tmp_path)
        with pytest.raises(ValueError, match="no"), Run(stage="a", console=False):
            assert runs().rows[0].status == "running"
            raise ValueError("no")
        (row,) = runs().rows
        assert (row.status, row.error) == ("failed", "builtins.ValueError")


class TestCache:
    def test_only_what_changed_is_read(self, tmp_path, old_enough):
        """What has not changed is not read again: a lock that may not be read any more still has its row."""
        folder = write_run(tmp_path, make_lock(1))
        before = runs(tmp_path).rows
        text = (folder / "run.lock").read_bytes()
        found = (folder / "run.lock").stat()
        held = rows_cache.load(layout.cache_dir(), [os.fsencode(tmp_path)])
        assert [entry.signature for entry in held.values()] == [rows_cache.signature(found)]
        assert runs(tmp_path).rows == before
        (folder / "run.lock").write_bytes(text.replace(b"sgd", b"lbfgs"))
        assert runs(tmp_path).rows[0].config["opt.name"] == "lbfgs"

    def test_changes_in_one_tick(self, tmp_path):
        """A lock that is rewritten in place at once, with the same size, is never answered from memory."""
        folder = write_run(tmp_path, make_lock(1))
        for number in range(50):
            text = lock.encode(make_lock(1, id=f"id-{number:02}"))
            with (folder / "run.lock").open("r+b") as file:
                file.write(text)
                file.truncate()
            assert runs(tmp_path).rows[0].id == f"id-{number:02}"

    def test_forgets(self, tmp_path, old_enough):
        """Of runs that were deleted nothing stays in the cache."""
        for number in range(3):
            write_run(tmp_path, make_lock(number, save_dir=f"r/{number}"))
        runs(tmp_path / "r")
        shutil.rmtree(tmp_path / "r/1")
        runs(tmp_path / "r")
        assert len(rows_cache.load(layout.cache_dir(), [os.fsencode(tmp_path)])) == 2

    @pytest.mark.parametrize("harm", ["garbage", "empty", "folder", "other", "damaged", "half"])
    def test_broken_cache(self, tmp_path, cache, harm, old_enough):
        """A cache that is not one, or is damaged anywhere, changes no answer and heals where it can."""
        for number in range(20):
            write_run(tmp_path, make_lock(number, save_dir=f"r/{number}"))
        expected = runs(tmp_path / "r").rows
        file = cache / rows_cache.FILE
        if harm == "garbage":
            file.write_bytes(os.urandom(10_000))
        elif harm == "empty":
            file.write_bytes(b"")
        elif harm == "folder":
            file.unlink()
            file.mkdir()
        elif harm == "other":
            file.unlink()
            with sqlite3.connect(file) as connection:
                connection.execute(f"CREATE TABLE {rows_cache.TABLE} (x INTEGER)")
            connection.close()
        elif harm == "damaged":
            with sqlite3.connect(file) as connection:
                connection.execute(f"UPDATE {rows_cache.TABLE} SET row = x'00ff', running = 1")
            connection.close()
        else:
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        for _ in range(3):
            assert runs(tmp_path / "r").rows == expected
        if harm in ("garbage", "empty", "half"):
            assert len(rows_cache.load(cache, [os.fsencode(tmp_path)])) == 20

    @pytest.mark.parametrize("seed", range(3))
    def test_flipped_bytes(self, tmp_path, cache, seed, old_enough):
        """Bytes that the disk has changed anywhere in the cache are no error."""
        for number in range(20):
            write_run(tmp_path, make_lock(number, save_dir=f"r/{number}"))
        runs(tmp_path / "r")
        file, chance = cache / rows_cache.FILE, random.Random(seed)
        data = bytearray(file.read_bytes())
        for _ in range(30):
            data[chance.randrange(len(data))] = chance.randrange(256)
        file.write_bytes(data)
        assert len(runs(tmp_path / "r").rows) == 20

    def test_locked_cache(self, tmp_path, cache, old_enough):
        """While another process has the cache to itself the answer is the same."""
        write_run(tmp_path, make_lock(1))
        expected = runs(tmp_path).rows
        connection = sqlite3.connect(cache / rows_cache.FILE, isolation_level=None)
        connection.execute("BEGIN EXCLUSIVE")
        write_run(tmp_path, make_lock(2))
        assert runs(tmp_path).rows[1:] == expected
        connection.close()

    def test_no_place_for_a_cache(self, tmp_path, monkeypatch):
        """Where no cache can be written there is none."""
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("RUNCTX_CACHE", str(tmp_path / "file/cache"))
        write_run(tmp_path, make_lock(1))
        assert len(runs(tmp_path)) == 1

    def test_many_processes_at_once(self, tmp_path):
        """Processes that all meet a fresh cache at once all answer, and leave a sound one."""
        for number in range(50):
            write_run(tmp_path, make_lock(number, save_dir=f"r/{number}"))
        code = "import sys; from runctx.past.index import runs; print(len(runs(sys.argv[1]).rows))"
        many = [
            subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "r")], stdout=subprocess.PIPE)
            for _ in range(8)
        ]
        assert [process.communicate()[0] for process in many] == [b"50\n"] * 8
        assert len(runs(tmp_path / "r")) == 50
        with sqlite3.connect(layout.cache_dir() / rows_cache.FILE) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        connection.close()


EDITS = ("make", "rewrite", "in place", "break", "delete", "move", "move folder", "copy", "touch")


@given(st.lists(st.tuples(st.sampled_from(EDITS), st.integers(0, 9), st.integers(0, 9)), max_size=25))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_index_answers_what_is_there(tmp_path_factory, edits):
    """After any edits, deletions and moves the index answers what reading every lock answers."""
    root = tmp_path_factory.mktemp("results")
    for step, (edit, number, other) in enumerate(edits):
        _edit(root, edit, root / f"s{number % 3}/{number}", root / f"s{other % 3}/{other}", step)
        assert answered(root) == directly(root)


def _edit(root: Path, edit: str, folder: Path, other: Path, step: int) -> None:
    one = make_lock(step, save_dir=str(folder.relative_to(root)))
    if edit == "make" and not folder.exists():
        write_run(root, one)
    elif not folder.exists():
        return
    elif edit == "rewrite":
        lock.write(folder / "run.lock", one)
    elif edit == "in place":
        (folder / "run.lock").write_bytes(lock.encode(one))
    elif edit == "break":
        (folder / "run.lock").write_bytes(lock.encode(one)[: 40 * step])
    elif edit == "delete":
        shutil.rmtree(folder)
    elif edit == "move" and not other.exists():
        shutil.move(folder, other)
    elif edit == "move folder" and not (root / "elsewhere").exists():
        (folder.parent).rename(root / "elsewhere")
    elif edit == "copy" and not other.exists():
        shutil.copytree(folder, other)
    elif edit == "touch":
        os.utime(folder / "run.lock", ns=(0, step))


class TestRuns:
    @pytest.fixture
    def some(self, tmp_path) -> index.Runs:
        for number in range(5):
            write_run(tmp_path, make_lock(number))
        error = Failure(type="builtins.ValueError", message="m", traceback="t")
        failed = make_lock(9, status="failed", error=error, config={"lr": 9, "extra": [1]})
        write_run(tmp_path, replace(failed, source=replace(failed.source, commit=None)))
        return runs(tmp_path)

    def test_sequence(self, some):
        """It has a length, single runs, slices that are the same, and iterates."""
        assert len(some) == 6
        assert some[0].id == make_lock(9).id
        assert [run.id for run in some[1:3]] == [make_lock(4).id, make_lock(3).id]
        assert [run.id for run in some] == [row.id for row in some.rows]
        assert some[-1].cfg.opt.name == "sgd"
        assert some[0] in some
        with pytest.raises(IndexError):
            some[6]

    def test_gone_after_listing(self, some):
        """Of a run deleted after listing, id and status are as listed; all else is an error that names the folder."""
        run = some[2]
        folder = run.save_dir
        shutil.rmtree(folder)
        assert (run.id, run.status) == (make_lock(3).id, "done") and run.id in repr(run)
        with pytest.raises(NoRunError, match=re.escape(str(folder))):
            run.cfg
        assert len(some.rows) == 6

    def test_pandas(self, some, tmp_path):
        """A data frame with a column for each key of any configuration, also where there are no runs."""
        frame = some.to_pandas()
        assert list(frame["config.lr"]) == [9, 0.4, 0.1 * 3, 0.2, 0.1, 0.0]
        assert list(frame["id"]) == [row.id for row in some.rows]
        assert frame["config.extra"][0] == [1]
        (tmp_path / "none").mkdir()
        empty = runs(tmp_path / "none").to_pandas()
        assert (len(empty), "status" in empty.columns) == (0, True)

    def test_pandas_types(self, tmp_path):
        """Times are times and numbers are numbers, whatever the runs: none, broken ones, of any zone and century."""
        for number, started in enumerate(
            (
                datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=14))),
                datetime(2026, 1, 1, tzinfo=UTC),
                datetime(8999, 12, 31, tzinfo=UTC),
            )
        ):
            write_run(tmp_path, make_lock(number, started=started, seconds=None))
        broken = tmp_path / "results/train/9"
        broken.mkdir()
        (broken / "run.lock").write_text("[")
        found = runs(tmp_path).sort("started")
        for some in (found, found[:2], found[-1:], found[:0]):
            frame = some.to_pandas()
            assert str(frame["started"].dt.tz) == "UTC"
            assert {str(frame[name].dtype) for name in ("seconds", "tasks", "tasks_done")} == {"float64"}
        assert list(found.to_pandas()["started"].dt.day[:2]) == [31, 1]
        unknown = found.to_pandas()["started"].isna()
        assert (unknown[0], unknown[3]) == (False, True)  # pandas 2 has no year 9999

    def test_metrics(self, tmp_path):
        """Plain data have all parts of each metric, a data frame a column for each of last, least and greatest."""
        loss = Summary(last=0.5, min=0.25, max=1.0, points=3)
        for number, metrics in enumerate(({"loss": loss}, {})):
            write_run(tmp_path, make_lock(number, metrics=metrics))
        frame = runs(tmp_path).to_pandas()
        assert list(frame["metrics.loss.min"])[1:] == [0.25] and frame["metrics.loss.max"].isna()[0]
        assert [name for name in frame.columns if "loss" in name] == [
            f"metrics.loss.{part}" for part in ("last", "min", "max")
        ]
        plain = {"last": 0.5, "min": 0.25, "max": 1.0, "points": 3}
        assert [one["metrics"] for one in runs(tmp_path).to_dicts()] == [{}, {"loss": plain}]

    def test_table(self, some):
        """Printed it is a table, with what tells the runs apart, of at most fifty runs."""
        told = repr(some)
        assert make_lock(4).id in told
        assert "ValueError" in told
        assert "sgd" in told
        assert "opt" not in repr(some[1:])
        assert "no runs" in repr(some[6:])

    def test_long_table(self, tmp_path):
        """Of many runs the newest fifty are printed, and how many more there are."""
        for number in range(60):
            write_run(tmp_path, make_lock(number, save_dir=f"many/{number}"))
        told = runs(tmp_path / "many")
        assert "… 10 more" in repr(told)
        assert "… 10 more" in told._repr_html_()


class TestLike:
    """`runs(like=...)` finds the runs of one experiment, whatever their numbers."""

    @pytest.fixture
    def experiments(self, tmp_path, monkeypatch) -> Path:
        monkeypatch.chdir(tmp_path)
        for i, config in enumerate(({"lr": 0.1, "n": [1]}, {"lr": 0.2, "n": [3, 4]}, {"lr": 1, "n": [1]})):
            structure = structure_digest(config)
            write_run(tmp_path, make_lock(i, config=config, config_structure=structure))
            write_run(tmp_path, make_lock(i + 10, config=config))  # written before locks said it
        return tmp_path / "results"

    def numbers(self, found: index.Runs) -> list[int]:
        return [int(row.id[-6:], 16) for row in found.rows]

    def test_same_structure(self, experiments):
        """Runs with the same keys and types are found, whether their locks say the structure or only the values."""
        run = Run.load(experiments / "train/0")
        assert self.numbers(runs(experiments, like=run)) == [11, 10, 1, 0]
        assert self.numbers(runs(experiments, like=Run.load(experiments / "train/10"))) == [11, 10, 1, 0]
        assert self.numbers(runs(experiments, like=Run.load(experiments / "train/2"))) == [12, 2]

    def test_names(self, experiments):
        """The run is given by its folder, a file in it, or its id."""
        for name in ("results/train/1", experiments / "train/1/run.lock", make_lock(1).id):
            assert self.numbers(runs(like=name)) == [11, 10, 1, 0]
        with pytest.raises(NoRunError, match="nothing"):
            runs(like="nothing")

    def test_live_run(self, experiments):
        """A run that is not finished finds those before it, and itself."""
        with Run({"lr": 7.0, "n": []}, save_dir=experiments / "train/live", console=False) as run:
            assert self.numbers(runs(like=run))[1:] == []
        with Run({"lr": 7.0, "n": [2]}, save_dir=experiments / "train/live2", console=False) as run:
            assert self.numbers(runs(like=run))[1:] == [11, 10, 1, 0]

    def test_what_a_class_says_counts(self, experiments):
        """What the lock says of a structure goes before what its values look like."""
        typed = make_lock(20, config={"lr": None}, config_structure="blake3:aa")
        other = make_lock(21, config={"lr": 1.0}, config_structure="blake3:aa")
        for one in (typed, other):
            write_run(experiments.parent, one)
        assert self.numbers(runs(like=typed.id)) == [21, 20]

    def test_broken_locks(self, experiments):
        """Locks that cannot be read are like no run, and are no error."""
        (experiments / "train/11/run.lock").write_text("[")
        text = (experiments / "train/10/run.lock").read_text()
        (experiments / "train/10/run.lock").write_text(text.replace("config:\n", "config: [\n"))
        assert self.numbers(runs(like=Run.load(experiments / "train/0"))) == [1, 0]

    def test_command_line(self, experiments):
        """`runctx ls --like RUN` lists them."""
        done = CliRunner().invoke(ls, ["--like", make_lock(2).id, "--json"])
        assert done.exit_code == 0
        assert [one["id"] for one in json.loads(done.stdout)] == [make_lock(12).id, make_lock(2).id]


class TestFind:
    @pytest.fixture(autouse=True)
    def project(self, tmp_path, monkeypatch) -> Path:
        monkeypatch.chdir(tmp_path)
        for number in range(3):
            write_run(tmp_path, make_lock(number))
        write_run(tmp_path, child_of(5, make_lock(0)))
        return tmp_path

    def test_a_file_of_that_name(self, project):
        """A file here that is called like the beginning of an id is not in the way."""
        (project / "evaluate").write_text("")
        assert index.find("evaluate") == project / "results/evaluate/5"

    def test_not_one(self, project):
        """Several, or none, is an error that names them and says what to do."""
        with pytest.raises(NoRunError, match=rf"3 runs are called 'train-25': {make_lock(2).id}.*\nhint"):
            index.find("train-25")
        for name in ("x", "eval", "results/train/9", ESCAPE, "a\0b", "x" * 300):
            with pytest.raises(NoRunError, match="hint"):
                index.find(name)

    def test_latest_is_one_that_can_be_read(self, project):
        """A lock that is broken, however new, is not the latest run."""
        write_run(project, make_lock(7))
        (project / "results/train/7/run.lock").write_text("[")
        assert index.find("latest") == project / "results/evaluate/5"

    def test_no_runs_yet(self, project):
        """Where nothing ran yet there is no latest run."""
        shutil.rmtree(project / "results")
        with pytest.raises(NoRunError, match=f"no runs yet in {project}/results"):
            index.find("latest")


def test_files_that_mlflow_keeps_are_no_runs(tmp_path: Path) -> None:
    """A whole project is searched, and the copies of locks in it are not taken for runs."""
    with Run(save_dir=tmp_path / "results/fit", console=False) as run:
        pass
    copy = tmp_path / "mlruns/digits/0a1b/artifacts"
    copy.mkdir(parents=True)
    shutil.copy(run.save_dir / "run.lock", copy)
    assert [one.save_dir for one in runs(tmp_path)] == [run.save_dir]
