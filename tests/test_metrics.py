"""Columns and summaries of what was logged, in Python, in the lock and after a kill."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import textwrap
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runctx import Run
from runctx.errors import LedgerError
from runctx.metrics import journal, series
from runctx.metrics.follower import Follower
from runctx.metrics.journal import Journal
from runctx.model import Summary

VALUES = st.lists(st.floats(width=32) | st.just(math.nan), min_size=1, max_size=20)


@given(VALUES)
def test_a_summary_is_that_of_the_columns(
    tmp_path_factory: pytest.TempPathFactory, values: list[float]
) -> None:
    """Last, min and max, of which NaN is none unless there is nothing else."""
    own = Journal(tmp_path_factory.mktemp("summed") / "metrics", lose=pytest.fail)
    for value in values:
        own.append({"x": value})
    summary = series.summaries(own.folder)["x"]
    column = series.read(own.folder)["x"].values
    numbers = [v for v in column if not math.isnan(v)] or [math.nan]
    assert repr(summary) == repr(
        Summary(last=column[-1], min=min(numbers), max=max(numbers), points=len(values))
    )


def test_the_lock_sums_up_what_was_logged(tmp_path: Path) -> None:
    """By whatever process or task; a run that logs nothing says nothing of it."""
    with Run(save_dir=tmp_path / "fit", console=False) as run:
        run.log_async(loss=0.5, step=0)
        run.log_async({"val/acc": math.nan}, step=0)
        if (child := os.fork()) == 0:
            run.log_async(loss=0.25, step=1)
            os._exit(0)
        os.waitpid(child, 0)
        run.map(lambda x: run.log_async(squared=x * x), [1, 2, 3], launcher="serial")
    told = Run.load(tmp_path / "fit").lock.metrics
    assert told["loss"] == Summary(last=0.25, min=0.25, max=0.5, points=2)
    assert told["squared"] == Summary(last=9, min=1, max=9, points=3)
    assert math.isnan(told["val/acc"].last) and list(told) == ["loss", "squared", "val/acc"]
    with Run(save_dir=tmp_path / "quiet", console=False) as quiet:
        pass
    assert quiet.lock.metrics == {} and b"\nmetrics:" not in (tmp_path / "quiet/run.lock").read_bytes()


def test_a_broken_journal_is_an_omission(tmp_path: Path) -> None:
    """The lock is sealed all the same."""
    with Run(save_dir=tmp_path / "fit", console=False) as run:
        run.log_async(loss=0.5)
        (tmp_path / "fit/metrics/1-00000000.jsonl").write_text("no point\n")
    assert run.status == "done" and run.lock.metrics == {}
    assert [o.what for o in run.omissions] == ["summary of the metrics"]


def test_metrics_become_a_table(tmp_path: Path) -> None:
    """One line per number, with the types that pandas knows; the column of tasks only where there are any."""
    with Run(save_dir=tmp_path / "fit", console=False) as run:
        none = run.metrics().to_pandas()
        assert list(none.columns) == ["metric", "step", "value", "time"] and str(none["time"].dt.tz) == "UTC"
        run.log_async(loss=0.5, acc=1, step=3)
        run.log_async(loss=0.25)
    table = run.metrics().to_pandas()
    assert table[["metric", "value"]].values.tolist() == [["loss", 0.5], ["loss", 0.25], ["acc", 1.0]]
    assert [str(kind) for kind in table.dtypes[1:3]] == ["Int64", "float64"] and table.step.isna().sum() == 1
    assert str(table.time.dt.tz) == "UTC" and (table.time.max() - table.time.min()).total_seconds() < 60


def test_a_hostile_journal_is_refused_or_read(tmp_path: Path) -> None:
    """A line that is nested without end is no point; a time beyond all calendars is none in a table."""
    (tmp_path / "1-00000000.jsonl").write_text('{"time": 1e300, "values": {"loss": 1}}\n')
    assert series.read(tmp_path).to_pandas()["time"].isna().all()
    (tmp_path / "2-00000000.jsonl").write_text('{"time": 1, "values": {}, "x": %s}\n' % ("[" * 100_000))
    with pytest.raises(LedgerError, match=r"2-00000000.jsonl: a line is no point .* too deep"):
        series.read(tmp_path)
    assert Follower(tmp_path, {}).batch()[0].value == 1


def test_what_logs_nothing_loads_nothing_of_it(tmp_path: Path) -> None:
    """Neither what reads numbers nor what ships them; and no run loads mlflow or pandas by itself."""
    program = f"""
        import sys
        from runctx import Run
        with Run(save_dir={str(tmp_path / "quiet")!r}, console=False):
            pass
        print([name for name in sys.modules if name.startswith(("runctx.trackers", "runctx.metrics", "msgspec.json"))])
        with Run(save_dir={str(tmp_path / "loud")!r}, console=False) as run:
            run.log_async(loss=0.5)
        print([name for name in ("mlflow", "pandas", "matplotlib", "psutil", "rich") if name in sys.modules])
    """
    told = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, cwd=tmp_path
    )
    assert told.stdout.split("\n")[:2] == ["[]", "[]"], told.stderr


def test_the_clock_steps_back_while_a_run_logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within one file the order of its lines counts: `last` is what was logged last, in the lock and in the columns."""
    moments = iter([100.0, 200.0, 50.0, 60.0])
    monkeypatch.setattr(journal, "time", lambda: next(moments))
    with Run(save_dir=tmp_path / "run", console=False) as run:
        run.log_async(loss=4.0)
        run.log_async(loss=3.0)
        run.log_async(loss=2.0)
        other = Journal(run.save_dir / "metrics", lose=print)
        other.append({"loss": 9.0})  # of another process, long before the newest
    series = run.metrics()["loss"]
    assert (series.values, series.times) == ((9.0, 4.0, 3.0, 2.0), (60.0, 100.0, 200.0, 50.0))
    assert (series.last, run.lock.metrics["loss"].last) == (2.0, 2.0)


def test_points_are_summed_up_in_constant_memory(tmp_path: Path) -> None:
    """Ten times the points take no more memory: they are read a part at a time."""
    line = b'{"time":1.5,"values":{"loss":0.25,"accuracy":0.5},"step":7}\n'
    peaks = []
    for points in (50_000, 500_000):
        (tmp_path / "1-a.jsonl").write_bytes(line * points)
        tracemalloc.start()
        assert series.summaries(tmp_path)["loss"].points == points
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]
