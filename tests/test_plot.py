"""Curves: what is drawn of a metric, in a terminal, as a picture and as data."""

from __future__ import annotations

import io
import json
import math
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib as mpl
import matplotlib.image
import matplotlib.style
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import example, given, settings
from hypothesis import strategies as st
from IPython.core.formatters import DisplayFormatter
from matplotlib.colors import to_rgb
from rich.console import Console

from runctx import Run, cli, runs
from runctx.display import chart, curves, figure
from runctx.display.chart import Chart
from runctx.errors import QueryError
from runctx.metrics.journal import Journal
from runctx.metrics.series import Metrics, Series
from runctx.model import Summary
from tests.pastruns import ESCAPE, make_lock, write_run
from tests.test_display import CONTROL

any_number = st.floats() | st.sampled_from([0.0, -0.0, 1e-320, 1e300, -1.7e308, math.nan, math.inf])
numbers = st.lists(any_number, min_size=1, max_size=60)


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder; its past runs are in `results`."""
    monkeypatch.setenv("RUNCTX_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "project"
    (root / "results").mkdir(parents=True)
    monkeypatch.chdir(root)
    return root


def logged(values: list[float], steps: list[int | None] | None = None) -> Series:
    """A point each second."""
    count = len(values)
    times = tuple(1.7e9 + i for i in range(count))
    return Series(tuple(values), tuple(steps or range(count)), times, (None,) * count)


def write(root: Path, number: int, *points: tuple[dict[str, float], int | None], **changes: Any) -> Path:
    """A finished run that has logged these points."""
    folder = write_run(root, make_lock(number, **changes))
    journal = Journal(folder / "metrics", lose=pytest.fail)
    for values, step in points:
        journal.append(values, step=step)
    journal.close()
    return folder


def sweep(root: Path, count: int) -> None:
    """Runs that differ in `lr`, whose loss falls to it."""
    for i in range(count):
        falling = [({"loss": 1 / (step + 1) + i / 10}, step) for step in range(20)]
        write(root, i, *falling, config={"lr": i / 10})


def drawn(shown: Chart, width: int = 80) -> str:
    console = Console(width=width, color_system=None, force_terminal=False)
    with console.capture() as captured:
        console.print(shown)
    return captured.get()


def runctx(*arguments: str) -> str:
    done = CliRunner().invoke(cli.main, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def refused(*arguments: str) -> str:
    done = CliRunner().invoke(cli.main, arguments)
    assert done.exit_code == 2
    return done.output


# -- laws of the points ------------------------------------------------------------------------------------


@settings(max_examples=50)
@given(numbers.map(lambda few: few * 5), st.integers(1, 20), st.randoms())
def test_thinning_keeps_what_stands_out(values: list[float], columns: int, random: Any) -> None:
    """Of each column the first, last, lowest and highest number stay, in their order, and few others."""
    y = curves.drawable(np.array(values))
    x = np.sort(np.array([random.uniform(-5, 5) for _ in values]))
    kept_x, kept_y = curves.thinned(x, y, columns)
    assert len(kept_x) == len(kept_y) <= 4 * columns or len(x) <= 4 * columns
    assert set(zip(kept_x.tolist(), map(str, kept_y), strict=True)) <= set(
        zip(x.tolist(), map(str, y), strict=True)
    )
    assert (np.diff(kept_x) >= 0).all()
    part = lambda of: np.minimum((columns * curves.scaled(of, x[0], x[-1])).astype(int), columns - 1)  # noqa: E731
    there, still = ~np.isnan(y), ~np.isnan(kept_y)
    for column in set(part(x)):
        before, after = y[there & (part(x) == column)], kept_y[still & (part(kept_x) == column)]
        assert len(before) == 0 or (
            (before[0], before[-1], before.min(), before.max())
            == (after[0], after[-1], after.min(), after.max())
        )
        assert len(before) or (part(kept_x) == column).any(), "a gap stays a gap"


@given(numbers, st.floats(0, 0.999))
def test_smoothing_stays_among_the_numbers(values: list[float], weight: float) -> None:
    """A moving average lies between the least and the greatest number so far; what is no number stays none."""
    y = curves.drawable(np.array(values))
    told = curves.smoothed(y, weight)
    assert (np.isnan(told) == np.isnan(y)).all()
    for i in np.flatnonzero(~np.isnan(y)):
        least, most = np.nanmin(y[: i + 1]), np.nanmax(y[: i + 1])
        room = 1e-9 * max(abs(least), abs(most)) + 1e-300
        assert least / 2 - room <= told[i] / 2 <= most / 2 + room
    assert (curves.smoothed(y, 0.0)[~np.isnan(y)] == y[~np.isnan(y)]).all()


@given(st.floats(-1e300, 1e300), st.floats(-1e300, 1e300), st.integers(2, 9))
@example(1_000_000.001, 1_000_000.002, 7)
@example(0.0, 5e-324, 7)
def test_ticks_are_few_round_and_all_different(one: float, other: float, most: int) -> None:
    """Whatever the limits: inside of them, about as many as were asked for, no two written alike."""
    low, high = chart.widened(min(one, other), max(one, other))
    told = chart.numbers(low, high, most)
    assert len(told) <= max(most + 1, 6)
    room = 1e-9 * (high - low) + 1e-12 * max(abs(low), abs(high))
    assert all(low - room <= value <= high + room for value, _ in told)
    assert len({text for _, text in told}) == len(told)
    for value, text in told:
        assert float(text) == pytest.approx(value, rel=1e-9, abs=1e-3 * (high - low))


# -- in a terminal -----------------------------------------------------------------------------------------


@settings(max_examples=50)
@given(
    st.dictionaries(st.text(min_size=1, max_size=9) | st.just(ESCAPE), numbers, min_size=1, max_size=3),
    st.sampled_from(["step", "time", "relative"]),
    st.booleans(),
    st.integers(20, 120),
)
def test_whatever_was_logged_is_drawn(metrics: dict[str, list[float]], x: Any, log: bool, width: int) -> None:
    """Any numbers under any names, steps and times: lines of the width of the terminal that do not steer it."""
    told = Metrics({name: logged(values) for name, values in metrics.items()})
    odd = Series((1.0, 2.0), (-(2**63), None), (-1e20, 1e20), (None, None))
    assert drawn(Chart(curves.of_metrics(Metrics({"odd": odd}), ["odd"], x=x)), width)
    shown = curves.of_metrics(told, list(told), x=x, log=log, smooth=0.5)
    text = drawn(Chart(shown), width)
    assert not CONTROL.search(text.replace("\n", ""))
    assert all(len(line) <= width for line in text.splitlines())


def test_a_chart_as_it_is_seen() -> None:
    """Axis, ticks and a line from the first point to the last."""
    shown = curves.of_metrics(Metrics({"loss": logged([0.0, 1.0, 2.0, 3.0])}), ["loss"])
    lines = drawn(Chart(shown), 40).splitlines()
    assert lines[0] == "loss"
    assert lines[1].split() == ["3.0", "┤", "⢀⡴⠊"]
    assert lines[14].split() == ["0.0", "┤⡠⠞⠁"]
    assert lines[16].split() == ["0", "1", "2", "3"]
    assert lines[17].strip() == "step"


def test_curves_are_told_apart_without_colour(project: Path) -> None:
    """Even of runs that logged the very same, each has its letter on its curve and in the legend."""
    for i in range(4):
        write(project, i, *[({"loss": step}, step) for step in range(9)], config={"lr": i / 10})
    text = drawn(Chart(runs().curves(["loss"])))
    picture, _, legend = text.rpartition("step")
    assert [line.split() for line in legend.strip().splitlines()] == [
        [letter, f"train-251121-120000-{i:06x}", f"lr={i / 10}"]
        for letter, i in zip("ABCD", (3, 2, 1, 0), strict=True)
    ]
    assert all(letter in picture for letter in "ABCD")


def test_a_spike_among_many_points_is_seen() -> None:
    """One of 200 000 points is high: the chart reaches it, and nothing else is there."""
    values = [0.0] * 200_000
    values[123_456] = 1.0
    top = drawn(Chart(curves.of_metrics(Metrics({"loss": logged(values)}), ["loss"]))).splitlines()[1]
    assert len(top.partition("┤")[2].strip()) == 1


def test_a_curve_is_interrupted_where_there_is_no_number() -> None:
    """Points on both sides of NaN are not joined, and it is said that some are missing."""
    values = [1.0] * 5 + [math.nan] * 10 + [1.0] * 5
    shown = curves.of_metrics(Metrics({"loss": logged(values)}), ["loss"])
    (line,) = (line for line in drawn(Chart(shown)).splitlines() if "⠉" in line)
    before, after = line.lstrip(" │").split()
    assert set(before + after) == {"⠉"} and len(before) == len(after) < 20
    assert shown.notes == ("loss: 10 of 20 points not drawn: NaN, infinite, or no logarithm",)


# -- which runs, which points ------------------------------------------------------------------------------


def test_points_are_sorted_by_step_and_counted_where_they_have_none(project: Path) -> None:
    """Tasks of a map log in any order; without a step, the number of the point stands for it."""
    write(project, 1, *[({"loss": float(step)}, step) for step in (3, 1, 2)])
    write(project, 2, *[({"acc": float(n)}, None) for n in (5, 6)])
    found = runs().curves(["loss", "acc"])
    told = {curve.metric: (curve.x.tolist(), curve.y.tolist()) for curve in found.curves}
    assert told == {"loss": ([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]), "acc": ([0.0, 1.0], [5.0, 6.0])}


def test_relative_time_begins_with_the_first_point_of_any_metric() -> None:
    """So that curves of one run keep their distance."""
    told = Metrics(
        {
            "a": Series((1.0,), (0,), (100.0,), (None,)),
            "b": Series((1.0, 2.0), (0, 1), (103.0, 104.0), (None,) * 2),
        }
    )
    assert curves.of_metrics(told, ["b"], x="relative").curves[0].x.tolist() == [3.0, 4.0]


def test_what_is_left_out_is_said(project: Path) -> None:
    """Runs beyond the limit, and a run whose journal is broken, hide no other."""
    sweep(project, 5)
    broken = write(project, 9, ({"loss": 1.0}, 0))
    next((broken / "metrics").iterdir()).write_text("no point\n")
    shown = runs().curves(["loss"], limit=3)
    assert [run["config"]["lr"] for run in shown.runs] == [0.4, 0.3, 0.2]
    first, second = shown.notes
    assert first == "drew the first 3 of 5 runs"
    assert "train-251121-120000-000009" in second and "a line is no point" in second


@pytest.mark.parametrize(
    ("metrics", "hint"),
    [(["los"], "did you mean loss?"), (["zzz"], "there are: loss"), ([], "there are: loss")],
)
def test_a_metric_that_nobody_logged_is_an_error_with_the_nearest(
    project: Path, metrics: list[str], hint: str
) -> None:
    """In Python as on the command line; the machine's own metrics are not listed."""
    write(project, 1, ({"loss": 1.0, "system/cpu": 0.5}, 0))
    with pytest.raises(QueryError) as raised:
        runs().plot(*metrics)
    assert raised.value.hint == hint
    assert f"hint: {hint}" in refused("plot", *(f"--metric={name}" for name in metrics))


def test_points_that_are_gone_are_said(project: Path) -> None:
    """A lock may tell of numbers whose journals are gone or broken; what there is of others is drawn all the same."""
    told = {"loss": Summary(last=1.0, min=1.0, max=1.0, points=1)}
    journal = write(project, 1, ({"loss": 1.0}, 0), metrics=told) / "metrics"
    next(journal.iterdir()).write_text("no point\n")
    assert "a line is no point" in refused("plot", "--metric=loss")
    shutil.rmtree(journal)
    assert "no points of loss are left to draw" in refused("plot", "--metric=loss")
    write(project, 2, ({"acc": 1.0}, 0))
    assert "no point can be drawn" in runctx("plot", "--metric=loss", "--metric=acc")
    assert len(runs().plot("loss", "acc").axes[0].lines) == 0


def test_a_metric_of_runs_beyond_the_limit_is_known(project: Path) -> None:
    """It is not said that nobody logged it; and runs that never logged a metric are not counted as left out."""
    one = {"acc": Summary(last=1.0, min=1.0, max=1.0, points=1)}
    for number, name in enumerate(("acc", "other", "loss", "loss")):
        write(project, number, ({name: 1.0}, 0), metrics={name: one["acc"]})
    shown = runs().curves(["loss", "acc"], limit=2)
    assert {curve.metric for curve in shown.curves} == {"loss"}
    assert shown.notes[-1] == "drew the first 2 of 3 runs"


def test_without_runs_and_with_wrong_parameters(project: Path) -> None:
    """What cannot be drawn is said before anything is read."""
    with pytest.raises(QueryError, match="no runs to draw"):
        runs().plot("loss")
    one = Metrics({"loss": logged([1.0])})
    with pytest.raises(ValueError, match="x must be one of step, time, relative; got 'epoch'"):
        one.plot("loss", x="epoch")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="smooth must be"):
        one.plot("loss", smooth=1.0)


# -- tasks of a run ----------------------------------------------------------------------------------------


def mapped(count: int, tasks: list[Any] | None = None) -> Run:
    """Each task has logged a curve `loss` of its own, and one point `final`; the run itself `note`."""
    with Run({"lr": 0.1}, stage="sweep", console=False) as run:

        def train(task: Any) -> None:
            place = every.index(task)
            for step in range(4):
                run.log_async(loss=place + step / 10, step=step)
            run.log_async(final=place)

        every = tasks or [f"lr {n}" for n in range(count)]
        run.map(train, every, launcher="serial")
        run.log_async(note=1.0)
    return run


def test_each_task_has_a_curve_of_its_own(project: Path) -> None:
    """Where tasks logged several points under one name: named by run and task, in the order of the tasks."""
    short = mapped(3).id.rpartition("-")[0]
    shown = runs().curves(["loss"])
    assert shown.labels == tuple(f"{short} task lr {n}" for n in range(3))
    assert [(curve.x.tolist(), curve.y.tolist()) for curve in shown.curves] == [
        ([0, 1, 2, 3], [n, n + 0.1, n + 0.2, n + 0.3]) for n in range(3)
    ]
    data = json.loads(runctx("plot", "--metric", "loss", "--json"))
    told = [curve["task"] for curve in data["curves"]]
    assert [(task["place"], task["text"]) for task in told] == [(n, f"lr {n}") for n in range(3)]
    assert {task["key"] for task in told} == set(runs()[0].metrics()["loss"].tasks)
    text = runctx("plot", "--metric", "loss")
    assert all(f"{letter}  {short} task lr {n}\n" in text for n, letter in enumerate("ABC"))


def test_tasks_with_one_point_each_are_one_curve(project: Path) -> None:
    """Over their places, in whatever order they were done; what the run itself logged has no task."""
    run = mapped(3)
    found = run.metrics()["final"]
    backwards = Series(found.values[::-1], found.steps[::-1], found.times, found.tasks[::-1])
    for told in (run.metrics(), Metrics({"final": backwards}, run.save_dir)):
        shown = curves.of_metrics(told, ["final"])
        (curve,) = shown.curves
        assert (curve.x.tolist(), curve.y.tolist(), curve.task) == ([0, 1, 2], [0, 1, 2], None)
        assert shown.labels == ()
    shown = curves.of_metrics(run.metrics(), ["final", "note", "loss"])
    assert shown.labels == ("the run", "task lr 0", "task lr 1", "task lr 2")
    assert [(curve.metric, curve.line) for curve in shown.curves] == [
        ("final", 0),
        ("note", 0),
        *[("loss", n) for n in (1, 2, 3)],
    ]
    assert [line.get_color() for line in run.metrics().plot("loss").axes[0].lines] == list(curves.COLOURS[:3])


def test_no_more_tasks_than_can_be_told_apart(project: Path) -> None:
    """The first ones of each run, so that no run hides another; the rest is said, and `limit` says otherwise."""
    run = mapped(10)
    assert len(runs().curves(["loss"]).curves) == curves.LIMIT
    assert curves.of_metrics(run.metrics(), ["loss"]).notes == ("drew 8 of 10 tasks",)
    assert len(run.metrics().plot("loss", limit=0).axes[0].lines) == 10
    mapped(10)
    shown = runs().curves(["loss"], limit=5)
    assert [(curve.run, curve.task and curve.task.place) for curve in shown.curves] == [
        *[(0, place) for place in (0, 1, 2)],
        *[(1, place) for place in (0, 1)],
    ]
    assert "drew 5 of 20 tasks" in shown.notes
    assert len(runs().curves(["loss"], limit=0).curves) == 20


def test_tasks_that_look_alike_are_called_by_their_places(project: Path) -> None:
    """Of long texts, as much as tells them apart; if nothing does, the place of the task."""
    long = ["x" * 50 + str(n) + "x" * 50 for n in range(2)]
    alike = ["x" * 120 + str(n) + "x" * 120 for n in range(2)]
    assert len(set(curves.of_metrics(mapped(2, long).metrics(), ["loss"]).labels)) == 2
    assert curves.of_metrics(mapped(2, alike).metrics(), ["loss"]).labels == ("task 0", "task 1")


@pytest.mark.parametrize("broken", [None, b"no ledger", b"\xff", b"[" * 100_000])
def test_tasks_whose_ledger_is_broken_are_drawn(project: Path, broken: bytes | None) -> None:
    """They are called by the beginning of their keys."""
    run = mapped(2)
    (ledger,) = run.save_dir.glob("tasks/*/todo.jsonl")
    ledger.unlink()
    if broken is not None:
        ledger.write_bytes(broken)
    shown = curves.of_metrics(run.metrics(), ["loss", "final"])
    keys = sorted(set(run.metrics()["loss"].tasks) - {None}, key=str)
    assert shown.labels == ("the run", *[f"task {str(key)[:8]}" for key in keys])
    assert next(c for c in shown.curves if c.metric == "final").x.tolist() == [0, 1]


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.none() | st.sampled_from(["a", ESCAPE, "", "b" * 16]), any_number), min_size=1),
    st.integers(0, 3),
)
def test_every_point_is_drawn_in_the_curve_of_its_task(
    points: list[tuple[str | None, float]], limit: int
) -> None:
    """Or in the one curve of all; whatever the keys are, names are harmless, and what is left out is said."""
    keys, values = zip(*points, strict=True)
    count = len(points)
    told = Metrics({"loss": Series(values, (None,) * count, tuple(map(float, range(count))), keys)})
    shown = curves.of_metrics(told, ["loss"], limit=limit)
    assert not CONTROL.search("".join(shown.labels))
    assert limit == 0 or len(shown.curves) <= limit
    for curve in shown.curves:
        key = curve.task and curve.task.key
        own = values if len(shown.curves) == 1 and key is None else [v for k, v in points if k == key]
        assert curve.raw.tolist() == pytest.approx(own, nan_ok=True) or limit == 1
    if limit == 0:
        assert sum(len(curve.x) for curve in shown.curves) == count
    assert ElementTree.fromstring(told._repr_html_()) is not None


# -- as a picture ------------------------------------------------------------------------------------------


def test_a_picture_says_what_it_shows(project: Path) -> None:
    """Panels with labels, a line for each run, and a legend that tells the runs apart."""
    sweep(project, 3)
    write(project, 7, ({"acc": 0.5}, 0), config={"lr": 0.7})
    picture = runs().plot("loss", "acc", log=True)
    above, below = picture.axes
    assert (above.get_ylabel(), below.get_ylabel(), below.get_xlabel()) == ("loss", "acc", "step")
    assert (len(above.lines), len(below.lines), above.get_yscale()) == (3, 1, "log")
    (legend,) = picture.legends
    assert [text.get_text().split()[1] for text in legend.get_texts()] == [
        "lr=0.7",
        "lr=0.2",
        "lr=0.1",
        "lr=0.0",
    ]
    assert [line.get_color() for line in above.lines] == list(curves.COLOURS[1:4])


@pytest.mark.parametrize("suffix", figure.FORMATS)
def test_pictures_of_the_same_curves_have_the_same_bytes(project: Path, suffix: str) -> None:
    """No date, no random name: a picture under version control changes only if what it shows does."""
    sweep(project, 2)
    out = [f"{n}{suffix}" for n in range(2)]
    for name in out:
        assert runctx("plot", "--metric", "loss", "--smooth", "0.5", "--out", name) == ""
    one, other = (Path(name).read_bytes() for name in out)
    assert one == other and len(one) > 1000
    assert sorted(path.name for path in project.iterdir()) == [*out, "results"]


def test_a_picture_takes_any_name(project: Path) -> None:
    """What TeX, a browser or matplotlib itself would obey is shown as it is."""
    names = ["$\\frac{", "_hidden", ESCAPE, "损失", "a\nb"]
    write(project, 1, (dict.fromkeys(names, 1.0), 0), config={"$x^": "_y"}, stage="_s")
    write(project, 2, (dict.fromkeys(names, 2.0), 0), config={"$x^": ESCAPE}, stage="_s")
    svg = figure.as_bytes(runs().plot(*names), ".svg").decode()
    ElementTree.fromstring(svg)
    assert "<script" not in svg


@settings(max_examples=6)
@given(
    st.lists(numbers, min_size=1, max_size=3), st.sampled_from(["step", "time", "relative"]), st.booleans()
)
def test_any_numbers_become_a_picture(values: list[list[float]], x: Any, log: bool) -> None:
    """Without a warning, and with every number that has a place on the axis."""
    told = Metrics({f"m{n}": logged(some) for n, some in enumerate(values)})
    assert figure.as_bytes(told.plot(*told, x=x, log=log), ".png")


def test_notebooks_show_a_picture_without_pyplot(project: Path) -> None:
    """Neither the global state of pyplot is needed nor made, and `import runctx` does not load matplotlib."""
    sweep(project, 1)
    shown, _ = DisplayFormatter().format(runs().plot("loss"), include={"image/png"})
    assert shown["image/png"].startswith(b"\x89PNG")
    code = (
        "import sys; from runctx import runs; assert 'matplotlib' not in sys.modules\n"
        "runs().plot('loss').savefig('a.svg'); assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


# -- as a command ------------------------------------------------------------------------------------------


def test_in_a_pipe_a_chart_is_as_wide_as_a_page(project: Path) -> None:
    """80 columns, without colour; the names of runs are not broken."""
    sweep(project, 2)
    text = runctx("plot", "--metric", "loss")
    assert max(map(len, text.splitlines())) == 80
    assert "\x1b" not in text and "A  train-251121-120000-000001  lr=0.1\n" in text


def test_in_a_terminal_it_is_as_wide_as_that(project: Path) -> None:
    """With colours, and without if NO_COLOR is set."""
    sweep(project, 2)
    for no_colour in ("", "1"):
        leader, follower = pty.openpty()
        try:
            variables = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "64", "NO_COLOR": no_colour}
            if not no_colour:
                del variables["NO_COLOR"]  # which, empty, older versions of rich obey as well
            command = [
                sys.executable,
                "-c",
                "from runctx.cli import main; main()",
                "plot",
                "--metric",
                "loss",
            ]
            subprocess.run(command, stdout=follower, stderr=follower, env=variables, timeout=60, check=True)
            os.close(follower)
            text = b""
            while part := _read(leader):
                text += part
        finally:
            os.close(leader)
        assert (b"\x1b[38" in text) == (not no_colour)
        assert no_colour == "" or max(len(line) for line in text.decode().splitlines()) == 64


def _read(leader: int) -> bytes:
    try:
        return os.read(leader, 65_536)
    except OSError:  # nobody writes any more
        return b""


def test_patterns_name_folders_globs_and_runs(project: Path) -> None:
    """Each run once, the newest first, whatever it was called by; `--where` chooses among them."""
    sweep(project, 4)
    data = json.loads(
        runctx("plot", "latest", "results/train/[12]", "results/train/1", "--metric", "loss", "--json")
    )
    assert [curve["config"]["lr"] for curve in data["curves"]] == [0.3, 0.2, 0.1]
    data = json.loads(
        runctx("plot", "--where", "config.lr > 0.15", "--metric", "loss", "--json", "--limit", "1")
    )
    assert [curve["config"]["lr"] for curve in data["curves"]] == [0.3]
    assert data["curves"][0]["x"] == list(range(20))
    assert "no runs to draw" in refused("plot", "--where", "config.lr > 9", "--metric", "loss")


def test_data_say_what_a_picture_cannot(project: Path) -> None:
    """NaN and infinities, as text; what is smoothed, smoothed."""
    write(project, 1, *[({"loss": value}, None) for value in (4.0, math.inf, math.nan, 1.0)])
    (curve,) = json.loads(runctx("plot", "--metric", "loss", "--smooth", "0.5", "--json"))["curves"]
    assert curve["y"] == [4.0, "inf", "nan", pytest.approx(2.0)]


def test_a_file_that_cannot_be_drawn_or_written(project: Path) -> None:
    """The first is said before anything is read, the second names the file."""
    sweep(project, 1)
    assert "'loss.gif' must end in one of .png, .svg, .pdf" in refused(
        "plot", "--metric", "x", "--out", "loss.gif"
    )
    assert "none/a.png: cannot be written" in refused("plot", "--metric", "loss", "--out", "none/a.png")


# -- one run -----------------------------------------------------------------------------------------------


def test_metrics_print_as_a_table(project: Path) -> None:
    """A line for each; without numbers, empty."""
    told = Metrics({"loss": logged([0.5, 0.25, math.nan]), "a\x1b[2J": logged([1.0], [None])})
    lines = [line.split() for line in repr(told).splitlines()]
    assert lines[0] == ["metric", "points", "last", "min", "max", "steps"]
    assert lines[1] == ["loss", "3", "nan", "0.25", "0.5", "0", "…", "2"]
    assert lines[2] == ["a\\x1b[2J", "1", "1", "1", "1"]
    assert repr(told["loss"]).split() == [*lines[0][1:], *lines[1][1:]]
    assert (repr(Metrics({})), Metrics({})._repr_html_()) == ("no metrics", "<div>no metrics</div>")


def test_a_table_says_how_many_tasks_logged_a_metric(project: Path) -> None:
    """So that its last value is not taken for that of all; nothing is said where there is but one."""
    told = mapped(3).metrics()
    heads, *lines = (line.split() for line in repr(told).splitlines())
    assert heads[-2:] == ["logged", "by"]
    assert {line[0]: line[-1] == "tasks" and line[-2] for line in lines} == {
        "loss": "3",
        "final": "3",
        "note": False,
    }
    page = told._repr_html_()
    assert page.count("3 tasks") == 2
    tree = ElementTree.fromstring(page)
    paths = [path.get("d", "") for path in tree.findall(".//{http://www.w3.org/2000/svg}path")]
    assert [path.count("M") for path in paths] == [3, 1, 1]
    assert "logged by" not in repr(mapped(1).metrics())


@settings(max_examples=40)
@given(st.dictionaries(st.text(min_size=1) | st.just(ESCAPE), numbers, min_size=1, max_size=60))
def test_notebooks_show_small_curves(metrics: dict[str, list[float]]) -> None:
    """Whatever was logged: well-formed, with a curve of each that has a number, and nothing that is executed."""
    told = Metrics({name: logged(values) for name, values in metrics.items()})
    page = told._repr_html_()
    tree = ElementTree.fromstring(page.replace("&nbsp;", " "))
    assert not CONTROL.search(page) and "<script" not in page
    lines = tree.findall(".//tbody/tr")
    assert len(lines) == min(len(told), 50)
    ElementTree.fromstring(next(iter(told.values()))._repr_html_())
    for line, series in zip(lines, told.values(), strict=False):
        paths = line.findall(".//{http://www.w3.org/2000/svg}path")
        assert len(paths) == any(map(math.isfinite, series.values))
        assert all("nan" not in path.get("d", "") for path in paths)


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("smooth", [0.0, 0.5])
@pytest.mark.parametrize(
    "values",
    [(1e308, -1e308, 0.0, 1.7e308, -1.7e308), (sys.float_info.max, -sys.float_info.max), (1e308,) * 3],
)
def test_the_largest_numbers_are_drawn(values, log, smooth):
    """Numbers up to the largest there are have a place in the terminal, in a picture and in the small curve."""
    metrics = Metrics({"loss": logged([*values])})
    shown = curves.of_metrics(metrics, ["loss"], log=log, smooth=smooth)
    count = sum(value > 0 or not log for value in values)
    assert np.isfinite(shown.curves[0].y).sum() == count and bool(shown.notes) is (count < len(values))
    text = drawn(Chart(shown, 60))
    assert (log or "e+30" in text) and any("\u2800" < char <= "\u28ff" for char in text)
    picture = figure.draw(shown)
    assert picture._repr_png_() and picture.axes[0].get_ylabel() == "loss / 1e100"
    assert "nan" not in metrics._repr_html_()


def test_a_notebook_page_may_be_light_or_dark():
    """A figure for a page has no ground, and ink that is read on white and on black; a file has black on white."""
    shown = curves.of_metrics(Metrics({"loss": logged([1.0, 0.5])}), ["loss"])
    pixels = mpl.image.imread(io.BytesIO(figure.draw(shown)._repr_png_()))
    assert pixels[0, 0, 3] == 0
    ink = to_rgb(figure.draw(shown).axes[0].yaxis.label.get_color())
    for ground in (1.0, 0.067):  # of JupyterLab
        light, dark = sorted((luminance(*ink) + 0.05, luminance(ground, ground, ground) + 0.05), reverse=True)
        assert light / dark > 3.9
    paper = figure.draw(shown, paper=True)
    assert paper.axes[0].yaxis.label.get_color() == "black" and to_rgb(paper.get_facecolor()) == (1, 1, 1)


def test_a_style_of_the_users_stays():
    """Who has chosen a style of matplotlib's sees it."""
    shown = curves.of_metrics(Metrics({"loss": logged([1.0, 0.5])}), ["loss"])
    with mpl.style.context("dark_background"):
        assert figure.draw(shown).axes[0].yaxis.label.get_color() == "white"


def luminance(*colour: float) -> float:
    """Of WCAG, from 0 to 1."""
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
