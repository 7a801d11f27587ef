"""Whatever a lock holds, what is shown of it is well formed and harmless."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runctx import Run, display, lock
from runctx.display import table, tables, words
from runctx.display.lineage import MOST, LineageView
from runctx.display.run import RunView
from runctx.display.words import as_text
from runctx.metrics.series import Metrics, Series
from runctx.model import Data, Environment, Failure, Lock, Omission, Session, Source, Summary, Tasks
from runctx.past.listing import differences, listing
from runctx.past.query import column
from runctx.past.record import edges, known_runs
from runctx.past.row import Row, parse
from tests.pastruns import ESCAPE, START, child_of, make_lock
from tests.strategies import locks

CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
FORBIDDEN = {"script", "style", "img", "iframe", "a", "link", "object", "bold"}


class Tags(HTMLParser):
    """Reads as a browser does: which elements there are, opened and closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert all(not name.startswith("on") for name, _ in attrs)
        self.seen.append(tag)
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def tags_of(text: str) -> list[str]:
    parser = Tags()
    parser.feed(text)
    parser.close()
    assert parser.open == []
    assert not FORBIDDEN & set(parser.seen)
    assert not CONTROL.search(text)
    return parser.seen


def read(page: str) -> str:
    """The words of a page."""
    return re.sub("<[^>]*>", "", page)


def texts_of(text: str) -> list[str]:
    """The words of an SVG picture, titles left out."""
    root = ElementTree.fromstring(text)
    return [element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}text")]


MACHINE = Environment(
    python="3.11",
    platform="Linux",
    cpu="c",
    cpus=1,
    memory=10**9,
    packages={"attrs": "1", "numpy": "2.1.0", "torch": "2.5.1"},
)


def page(one: Lock, status: str, failed: Any = {}) -> str:  # noqa: B006 - nobody changes it
    return RunView(lock=one, status=status, failed=failed).html()


def tree(one: Lock, statuses: dict[str, Any]) -> Any:
    return LineageView(root=one.id, runs=known_runs(one), statuses=statuses, edges=edges(one)).tree()


def drawn(one: Lock, statuses: dict[str, Any] = {}) -> str:  # noqa: B006 - nobody changes it
    return LineageView(root=one.id, runs=known_runs(one), statuses=statuses, edges=edges(one)).picture()


MAPPED = Tasks(
    name="main",
    function="m.main",
    launcher="joblib",
    total=9,
    done=6,
    failed=2,
    seconds=80,
    longest=9.5,
    workers=2,
    failed_keys=("ab" * 8, "cd" * 8),
)


def hostile() -> Lock:
    """Every text of a lock that is shown is one that steers."""
    parent = make_lock(1, id=ESCAPE + "1", stage=ESCAPE)
    data = Data(path=ESCAPE, kind="file", digest=ESCAPE, run=parent.id)
    one = child_of(2, parent, stage=ESCAPE)
    return replace(
        one,
        id=ESCAPE,
        save_dir=ESCAPE,
        inputs=(data, replace(data, run=ESCAPE)),
        outputs=(data,),
        config={ESCAPE: ESCAPE, "n": {ESCAPE: [ESCAPE]}},
        error=Failure(type=ESCAPE, message=ESCAPE, traceback=f"{ESCAPE}\n{ESCAPE}"),
        omissions=(Omission(what=ESCAPE, why=ESCAPE),),
        tasks=(replace(MAPPED, name=ESCAPE, launcher=ESCAPE, failed_keys=(ESCAPE,)),),
        metrics={ESCAPE: Summary(last=0.5, min=0.5, max=0.5, points=2)},
        sessions=(Session(started=START, status=ESCAPE, commit=ESCAPE, host=ESCAPE, pid=1),),
        command=replace(one.command, argv=(ESCAPE,), cwd=ESCAPE, host=ESCAPE, user=ESCAPE, slurm_job=ESCAPE),
        source=replace(one.source, repository=ESCAPE, branch=ESCAPE, commit=ESCAPE),
        environment=replace(one.environment, python=ESCAPE, packages={ESCAPE: ESCAPE}, devices=(ESCAPE,)),
    )


def shown(one: Lock) -> Iterator[str]:
    """Everything that is printed in a terminal."""
    yield as_text(RunView(lock=one, status="done"))
    yield as_text(tree(one, {}))
    row = parse(lock.encode(one))
    yield as_text(listing([row, replace(row, config={})], 3))


def test_no_circle():
    """What shows needs nothing of the rest but the words of `model`, so that all may ask to be shown."""
    sources = [file.read_text() for file in Path(display.__file__).parent.glob("*.py")]
    assert sources
    asked = {name for text in sources for name in re.findall(r"^\s*from \.\.(\w*)", text, re.M)}
    assert asked == {"model"}


class TestHarmless:
    @given(locks)
    @settings(max_examples=60)
    def test_any_lock(self, one: Lock):
        """Pages are well formed and pictures valid XML; nothing steers a terminal."""
        tags_of(page(one, one.status))
        tags_of(listing([parse(lock.encode(one))] * 2, 1).html())
        tags_of(drawn(one))
        ElementTree.fromstring(drawn(one))
        assert not any(CONTROL.search(text) for text in shown(one))

    def test_hostile_lock(self):
        """Escape sequences, markup and scripts are shown as what they are."""
        one = hostile()
        for text in (page(one, one.status), drawn(one, {one.id: ESCAPE})):
            tags_of(text)
            assert "&lt;script&gt;" in text
        for text in shown(one):
            assert not CONTROL.search(text)
            assert "\\x1b[2J" in text
            assert "[bold]" in text

    def test_words(self):
        """Control characters are spelled out; lines stay lines only where they may."""
        assert words.line("a\nb\tc\x1b") == "a\\nb\\tc\\x1b"
        assert words.lines("a\r\nb\rc") == "a\nb\\rc"
        assert words.line("\u202egpj.exe") == "\\u202egpj.exe"
        assert words.path("bad\udcff") == "bad\\udcff"
        words.path("bad\udcff").encode()


class TestRun:
    def test_page(self):
        """A run's page shows id, status, configuration key by key, inputs, upstream, omissions and error."""
        parent = make_lock(1)
        error = Failure(type="builtins.ValueError", message="no luck", traceback="...")
        one = replace(child_of(2, parent), error=error, omissions=(Omission(what="big", why="too big"),))
        text = read(page(one, "failed"))
        for expected in (
            one.id,
            "failed",
            "lr: 0.2",
            "opt.name: sgd",
            "model.bin",
            parent.id,
            "big: too big",
            "ValueError: no luck",
        ):
            assert expected in text

    def test_live_run(self, tmp_path, monkeypatch):
        """A run shows itself in a notebook while it runs; before, there is nothing to show."""
        monkeypatch.chdir(tmp_path)
        run = Run({"lr": 0.1}, stage="train", console=False)
        assert run._repr_html_() is None
        with run:
            assert "running" in (run._repr_html_() or "")
        assert "done" in (run._repr_html_() or "")


class TestTerminal:
    def test_interrupted(self):
        """Of what Ctrl-C met, the lines of the user's code are shown, and no library's."""
        frames = [
            '  File "/home/ada/train.py", line 8, in main\n    run.map(work, range(4))\n',
            '  File "/env/site-packages/runctx/run.py", line 350, in map\n    return fan_out(\n           ^^^^\n',
            '  File "/src/runctx/runctx/tasks/fanout.py", line 1, in fan_out\n    x\n',
            '  File "/env/lib/python3.12/site-packages/joblib/parallel.py", line 2098, in __call__\n    sleep()\n',
            '  File "/usr/lib/python3.12/threading.py", line 3, in wait\n    x\n',
        ]
        traceback = f"Traceback (most recent call last):\n{''.join(frames)}KeyboardInterrupt\n"
        error = Failure(type="builtins.KeyboardInterrupt", message="", traceback=traceback)
        shown = as_text(
            RunView(lock=make_lock(status="interrupted", error=error), status="interrupted")
        ).splitlines()
        assert shown[1:4] == ["  KeyboardInterrupt", *(f"  {line}" for line in frames[0].splitlines())]
        assert shown[4] == "  run.lock and `--json` have the whole traceback"
        assert shown[5].startswith("  started") and "joblib" not in "".join(shown)

    def test_failed_map(self):
        """Of a map that failed, the lines of the user's code in the task and of the call are shown."""
        task = '  File "/home/ada/train.py", line 4, in work\n    1 / 0\n    ~~^~~\n'
        call = '  File "/home/ada/train.py", line 8, in main\n    run.map(work, range(4))\n'
        traceback = (
            "runctx.said.RemoteTraceback: \nTraceback (most recent call last):\n"
            f'  File "/src/runctx/runctx/tasks/fanout.py", line 267, in _attempt\n    x\n{task}'
            "ZeroDivisionError: division by zero\n\n\n"
            "The above exception was the direct cause of the following exception:\n\n"
            f"Traceback (most recent call last):\n{call}"
            '  File "/src/runctx/runctx/run.py", line 415, in map\n    return fan_out(\nrunctx.errors.TaskError: work\n'
        )
        error = Failure(type="runctx.errors.TaskError", message="work", traceback=traceback)
        shown = as_text(RunView(lock=make_lock(status="failed", error=error), status="failed"))
        expected = f"{task}\n{call}run.lock and `--json` have the whole traceback\n"
        assert "".join(line.strip() + "\n" for line in shown.splitlines()[2:9]) == re.sub(
            r"(?m)^ +", "", expected
        )

    @pytest.mark.parametrize(
        ("changes", "options", "expected"),
        [
            ({"status": "failed", "source": Source(commit="git:" + "1" * 40)}, {}, "imported: 0"),
            ({"status": "failed", "source": Source()}, {}, "no commit; project files imported: 0"),
            (
                {
                    "sessions": (
                        Session(started=START, status="crashed", commit="git:12345678", host="h", pid=3),
                    )
                },
                {},
                "crashed; h, process 3, commit 12345678",
            ),
            ({"environment": MACHINE}, {}, "1 processor,"),
            (
                {"environment": MACHINE},
                {},
                "3 packages imported: torch 2.5.1, numpy 2.1.0; `--json` has all versions",
            ),
            ({}, {"unread": ["opt.name", "tag"]}, "never read opt.name, tag"),
            (
                {"tasks": (replace(MAPPED, commits=("git:11111111", "git:2222")),)},
                {},
                "commits 11111111, 2222",
            ),
            (
                {"tasks": (replace(MAPPED, commits=tuple(f"git:{n}" for n in range(4))),)},
                {},
                "commits 0, 1, 2 and 1 more",
            ),
        ],
    )
    def test_sections(self, changes, options, expected):
        """What a section says, where there is something to say."""
        one = make_lock(**changes)
        text = " ".join(as_text(RunView(lock=one, status=one.status, **options)).split())
        assert expected in text and "attrs" not in text

    def test_imported_files(self):
        """How many files of the project were imported is not known before the end of a run."""
        one = make_lock(status="running", source=Source())
        assert "imported" not in as_text(RunView(lock=one, status="running")).partition("source")[2][:40]

    def test_error_first(self, monkeypatch):
        """What went wrong stands right below the head, its traceback with the lines that Python printed."""
        monkeypatch.setenv("COLUMNS", "80")
        where = f'  File "/{"a folder/" * 12}train.py", line 3'
        traceback = f"Traceback\n{where}\n    {'x' * 90}\n    {'^' * 90}\nValueError: no luck\n"
        error = Failure(type="builtins.ValueError", message="no luck", traceback=traceback)
        lines = as_text(RunView(lock=make_lock(error=error), status="failed")).split("\n")
        assert lines[1:7] == ["  ValueError: no luck", *(f"  {line}" for line in traceback[:-1].split("\n"))]
        assert lines[7].startswith("  started")

    def test_tasks(self):
        """Of each map there is how many tasks were done and which failed, by their texts where they are known."""
        one = make_lock(tasks=(MAPPED,))
        texts = {"main": ["images/1.png", "images/2.png"]}
        for told, failed in (
            ("abababababababab, cdcdcdcdcdcdcdcd", None),
            ("images/1.png, images/2.png", texts),
        ):
            text = " ".join(as_text(RunView(lock=one, status="failed", failed=failed or {})).split())
            assert "main: 6 of 9 done, 2 failed, 1 not run; joblib, 2 workers, 1 min 20 s of work" in text
            assert f"failed: {told}" in text and f"failed: {told}" in page(one, "failed", failed or {})

    @pytest.mark.parametrize(
        ("status", "expected"), [("done", "done 6/9"), ("submitted", "submitted "), ("running", "running ")]
    )
    def test_share(self, status, expected):
        """A listing says how many tasks were done, once the lock knows; each status has its colour."""
        row = parse(lock.encode(make_lock(status=status, tasks=(MAPPED,))))
        assert (row.tasks, row.tasks_done) == (9, 6)
        assert expected in as_text(listing([row], 1))
        assert ("6/9" in listing([row], 1).html()) == (status == "done")
        assert status in table.STATUSES and f"color:{table.colour(status)}" in listing([row], 1).html()


class TestWords:
    @pytest.mark.parametrize(
        ("ago", "expected"),
        [(0, "now"), (-5, "2025-11-21"), (59, "59 s ago"), (3599, "59 min ago"), (86_399, "23 h ago")],
    )
    def test_when(self, ago, expected):
        """Recent times are told as how long ago; what lies in the future by its day."""
        assert words.when(START, START + timedelta(seconds=ago)) == expected

    def test_when_long_ago(self):
        """After a day the date is told, after half a year without the time."""
        assert re.fullmatch(r"11-2\d \d\d:\d\d", words.when(START, START + timedelta(days=3)))
        assert re.fullmatch(r"2025-11-2\d", words.when(START, START + timedelta(days=400)))

    @given(st.floats(0, 1e15) | st.none())
    def test_took(self, seconds):
        """Any duration is told in a few letters, and never as sixty of a unit."""
        text = words.took(seconds)
        assert len(text) <= 16
        assert not re.search(r"\b60 (s|min)|\b24 h", text)

    @given(st.integers(0, 10**40))
    def test_size(self, count):
        """Any size is told with a unit."""
        assert re.fullmatch(r"[\d.e+]+ [kMGTP]?B", words.size(count))


def row(stage: str = "a", **config: Any) -> Row:
    return Row(id="x", stage=stage, status="done", started=START, config=config)


class TestDifferences:
    def test_from_what_is_usual(self):
        """Of a run that is shown which is not as in most runs of its stage, a missing key too; save_dir never."""
        rows = [
            row(lr=1, n=1, save_dir="x"),
            row(lr=2, n=1, save_dir="y"),
            row("b", lr=3),
            row(lr=2),
        ]
        told = differences(rows)
        assert told.of_rows == [{"lr": "1"}, {}, {}, {"n": ""}]
        assert told.usual == {"a": {"lr": "2", "n": "1"}, "b": {}}
        assert told.notes == ["usual in a: lr=2 n=1"]
        assert "no n" in as_text(listing(rows, 4))

    def test_no_majority(self):
        """Where no value is that of more than half of the runs, each run shows its own."""
        told = differences([row(lr=1), row(lr=2)])
        assert told == ([{"lr": "1"}, {"lr": "2"}], {"a": {}})

    def test_derived(self):
        """A value that follows from others is shown only where nothing else tells a run from the others."""
        rows = [
            replace(row(lr=lr, half=half), derived=("half",))
            for lr, half in ((2, 1), (2, 1), (2, 1), (4, 2), (2, 7))
        ]
        assert [*differences(rows).of_rows] == [{}, {}, {}, {"lr": "4"}, {"half": "7"}]

    def test_long_values(self):
        """A long value is shortened, but not so far that it equals another."""
        lists = [[*range(10)], [*range(11)], [0, 1, 2, 3, 9, 9, 9, 9, 6, 7, 8, 9]]
        shown = [values["a"] for values in differences([row(a=one) for one in lists]).of_rows]
        assert len({*shown}) == 3 and max(map(len, shown)) <= 80
        assert differences([row(a=[*range(90)]), row(a=1)]).of_rows[0] == {"a": "[0, 1, 2, 3,…87, 88, 89]"}

    def test_many_keys(self):
        """Of a run that differs in many keys some are shown, and how many are not is said."""
        text = as_text(listing([row(**{f"k{i}": j for i in range(20)}) for j in range(2)], 2))
        assert "… 13 more" in text and "k6=" in text and "k7=" not in text

    def test_notes(self):
        """Below the runs stand what is usual, by stage if there are several, and what the star means."""
        rows = [replace(one, commit="1" * 40, dirty=True) for one in (row(lr=1), row(lr=1), row(lr=2))]
        text = as_text(listing(rows, 3))
        assert "usual: lr=1" in text and "differs in" in text and f"{'1' * 8}*" in text
        assert words.DIRTY in " ".join(text.split())
        both = [*rows, *(replace(one, stage="b") for one in rows)]
        page = listing(both).html()
        assert "usual in a: lr=1" in page and "usual in b: lr=1" in page and words.DIRTY in page

    def test_over_all_that_match(self):
        """What tells the shown runs from the others that were found is said, though they are equal among themselves."""
        rows = [row(lr=1, n=3), row(lr=1, n=3), row(lr=2, n=3), row(lr=2, n=3), row(lr=2, n=3)]
        for told in (as_text(listing(rows, 2)), read(listing(rows, 2).html())):
            assert (
                told.count("lr=1") == 2 and "usual: lr=2" in told and "… 3 more" in told and "n=3" not in told
            )

    def test_asked(self):
        """A key that was asked for has a column, whether or not the runs differ in it, and is not said twice."""
        rows = [row(lr=0.5, n=1), row(lr=0.5, n=2)]
        for told in (
            as_text(listing(rows, besides=[column("config.lr")])),
            read(listing(rows, besides=[column("config.lr")]).html()),
        ):
            assert told.count("0.5") == 2 and "lr=" not in told and "n=1" in told


class TestNumbers:
    @pytest.mark.parametrize(
        ("value", "text"),
        [
            (449976.5, "449976.5"),
            (450000, "450000"),
            (0.123456789, "0.123457"),
            (-1234567.8, "-1234568"),
            (123456789012.5, "123456789012"),
            (1e-9, "1e-09"),
            (1.23456789e-9, "1.23457e-09"),
            (1.7e308, "1.7e+308"),
            (math.inf, "inf"),
        ],
    )
    def test_six_digits(self, value, text):
        """A number has six significant digits at least, and its whole part."""
        assert words.number(value) == text

    @given(st.lists(st.floats() | st.integers(-(10**7), 10**7), min_size=1))
    def test_digits(self, values):
        """Nothing that is written is off by more than half of the sixth digit."""
        for value in filter(math.isfinite, values):
            assert math.isclose(float(words.number(value)), value, rel_tol=5e-6)

    @given(st.lists(st.floats() | st.integers(-(10**7), 10**7), min_size=1), st.sets(st.integers(0, 9)))
    def test_aligned(self, values, best):
        """Points stand below points, marks below marks, and nothing else is changed."""
        texts = [words.number(value) + " (best)" * (place in best) for place, value in enumerate(values)]
        told = words.aligned(texts)
        assert [re.sub(" +", " ", text).strip() for text in told] == texts
        assert len({re.match(" *-?([0-9]+|nan|inf)", text).end() for text in told}) == 1  # type: ignore[union-attr]
        assert len({text.index("(") for text in told if "(" in text}) <= 1

    def test_of_a_listing(self):
        """Values of one metric stand point below point, in the terminal and on a page."""
        rows = [
            replace(row(), metrics={"loss": Summary(last=value, min=0.0, max=value, points=2)})
            for value in (450000.0, 0.25, 449976.5)
        ]
        top, *lines = as_text(listing(rows)).splitlines()
        column = [line[top.index("loss") :].partition("  lr")[0].rstrip() for line in lines]
        assert column[:3] == ["450000", "     0.25", "449976.5"]
        page = listing(rows).html()
        assert ">450000<" in page and ">     0.25<" in page and ">449976.5<" in page

    def test_long_names(self):
        """Names of 300 characters leave room for the numbers, and stay apart."""
        some = {
            f"{'a' * 299}{end}": Series((450000.0 + n, 0.25), (0, 1), (1.0, 2.0), (None, None))
            for n, end in enumerate("xy")
        }
        text = as_text(tables.metrics(some))
        assert (
            all(number in text for number in ("450000", "450001", "0.25", "0 … 1"))
            and max(map(len, text.splitlines())) <= 80
        )
        assert "…aaaaaaaaaax" in text and "…aaaaaaaaaay" in text
        rows = [
            replace(row(), metrics={name: Summary(last=0.25, min=0.0, max=1.0, points=2) for name in some})
        ]
        for told in (text, as_text(listing(rows)), listing(rows).html(), Metrics(some)._repr_html_()):
            assert "a" * 80 not in told and "0.25" in told


class TestPicture:
    def test_everything_is_there(self):
        """Each run is a box with stage, status and commit, each reading an arrow with the input's name."""
        a, b = make_lock(1, stage="prepare"), make_lock(2, stage="labels")
        text = drawn(child_of(3, a, b))
        assert text.count("<rect") == 3
        assert text.count("l-7 -3.5v7z") == 2
        told = texts_of(text)
        assert {"prepare", "labels", "evaluate", "model.bin", "00000000*", "done"} <= set(told)

    def test_one_run(self):
        """A run without upstream is a box."""
        assert drawn(make_lock()).count("<rect") == 1

    @given(st.lists(st.sets(st.integers(0, 11), max_size=4), min_size=1, max_size=12))
    @settings(max_examples=60)
    def test_layout(self, history: list[set[int]]):
        """Boxes lie inside the picture and apart from each other, and each arrow leads to the right."""
        made: list[Lock] = []
        for number, choice in enumerate(history):
            parents = [made[i] for i in sorted(choice) if i < len(made)]
            made.append(child_of(number, *parents, stage=f"s{number}"))
        root = ElementTree.fromstring(drawn(made[-1]))
        width, height = float(root.get("width", 0)), float(root.get("height", 0))
        boxes = []
        for rect in root.iter("{http://www.w3.org/2000/svg}rect"):
            x, y, w, h = (float(rect.get(name, 0)) for name in ("x", "y", "width", "height"))
            assert 0 <= x <= x + w <= width
            assert 0 <= y <= y + h <= height
            assert all(x + w <= x2 or x2 + w2 <= x or y + h <= y2 or y2 + h2 <= y for x2, y2, w2, h2 in boxes)
            boxes.append((x, y, w, h))
        assert len(boxes) == 1 + len(made[-1].upstream)
        for path in root.iter("{http://www.w3.org/2000/svg}path"):
            if path.get("fill") == "none":
                numbers = [float(n) for n in re.findall(r"-?[\d.]+", path.get("d", ""))]
                assert numbers[0] < numbers[-1]

    def test_too_many(self):
        """Of a thousand parents some are drawn, and how many are not is said."""
        parents = [make_lock(number) for number in range(1000)]
        text = drawn(child_of(2000, *parents))
        assert text.count("<rect") == MOST
        assert f"… {1001 - MOST} earlier runs more" in texts_of(text)

    def test_colours_of_the_page(self):
        """Text takes the page's own colour, so that it reads in the light and in the dark."""
        root = ElementTree.fromstring(drawn(make_lock()))
        assert root.get("fill") == "currentColor"
        assert all(e.get("fill") is None for e in root.iter("{http://www.w3.org/2000/svg}text"))


class TestTree:
    def test_told_once(self):
        """A run that several read from is told of where it comes first, and referred to afterwards."""
        raw = make_lock(
            0, stage="raw", inputs=(Data(path="data.csv", kind="file", digest="blake3:" + "cd" * 32),)
        )
        left, right = child_of(1, raw, stage="left"), child_of(2, raw, stage="right")
        text = as_text(tree(child_of(3, left, right), {}))
        assert text.count("data.csv") == 1
        assert text.index("data.csv") < text.index("as above")
        assert text.count(raw.id) == 2
        assert "read model.bin  blake3:abababab" in text
        assert "failed" in as_text(tree(raw, {raw.id: "failed"}))

    def test_a_deep_chain(self):
        """Runs that each read from one other stay in one column; where one reads from two, a column begins for each."""
        one = make_lock(0, stage="raw")
        for second in range(1, 50):
            one = child_of(second, one, stage="link")
        lines = as_text(tree(one, {})).splitlines()
        heads = [line for line in lines if "raw-" in line or "link-" in line]
        assert len(heads) == 50
        assert all(line[4:].startswith(("link-", "raw-")) for line in heads[1:])
        assert [line.endswith("read by the run above") for line in heads] == [False, False, *[True] * 48]
        both = child_of(50, one, make_lock(0, stage="other"), stage="both")
        lines = as_text(tree(child_of(51, both, stage="last"), {})).splitlines()
        places = {
            line.index(name) for line in lines for name in ("raw-", "link-", "other-") if f" {name}" in line
        }
        assert places == {8, 12}, "below the run that read from two, and there in one column each"
