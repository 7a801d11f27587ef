"""Test that a tracker shows what was logged, all of it and once."""

from __future__ import annotations

import importlib.util
import math
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from .. import layout
from ..errors import TrackingError
from ..metrics.follower import Follower, Number
from ..past.record import Record
from ..run import Run
from ..trackers.publication import BATCH, Publication
from ..trackers.tracker import Tracker, View

MANY = 5 * BATCH // 2
"""Numbers, of three batches."""


class TrackerContract:
    """What every tracker promises; a subclass says how one is made and read, and pytest does the rest.

    Four methods are to be written. They are called in other processes too, and rely on nothing but their arguments.

    >>> class TestMine(TrackerContract):
    ...     def tracker(self, root):
    ...         return Mine(Settings(root=root))
    ...
    ...     def unreachable(self, root):
    ...         return Mine(Settings(root=root, tracking_uri="mine://127.0.0.1:9"))
    ...
    ...     def numbers(self, tracker, ref):
    ...         return [Number(*row) for row in tracker.database.numbers(ref)]
    ...
    ...     def described(self, tracker, ref):
    ...         return tracker.database.page(ref)
    """

    _root: ClassVar[Path]

    def tracker(self, root: Path) -> Tracker:
        """A tracker for the project in `root`; made anew, and with the same destination for the same folder."""
        raise NotImplementedError

    def unreachable(self, root: Path) -> Tracker:
        """One whose destination cannot be reached."""
        raise NotImplementedError

    def numbers(self, tracker: Tracker, ref: str) -> Iterable[Number]:
        """What the view holds now, under the names that were logged, in any order."""
        raise NotImplementedError

    def described(self, tracker: Tracker, ref: str) -> Any:
        """All else that the view holds now, so that it can be compared."""
        raise NotImplementedError

    @pytest.fixture
    def root(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """The folder of a project. All tests of a class share it: making a database may take a while."""
        kind = type(self)
        if "_root" not in vars(kind):
            kind._root = tmp_path_factory.mktemp("project")
        return kind._root

    @pytest.fixture
    def folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """An empty folder, outside any repository: runs go there."""
        monkeypatch.chdir(tmp_path)
        return tmp_path

    def check(self, tracker: Tracker, ref: str, wanted: Iterable[Number]) -> None:
        """These numbers are there, each once, and no others."""
        found, expected = _bag(self.numbers(tracker, ref)), _bag(wanted)
        assert list(expected - found) == []
        assert list(found - expected) == []

    def test_numbers_arrive(self, root: Path, folder: Path) -> None:
        """All of them, at their steps and moments, in several batches; sending again sends nothing."""
        tracker, run = self.tracker(root), _run(folder, MANY)
        ref = _published(run, tracker)
        self.check(tracker, ref, _logged(run))
        with Publication(run.save_dir, tracker).begun(run) as sending:
            assert not sending.view.fresh
            assert sending.send() == 0
        self.check(tracker, sending.view.ref, _logged(run))

    def test_numbers_arrive_while_the_run_goes_on(self, root: Path, folder: Path) -> None:
        """What was logged so far is there, and is not sent again with the rest; a run that has ended is said to."""
        tracker = self.tracker(root)
        with Run({"lr": 0.5}, stage="contract", save_dir=folder / "run", console=False) as run:
            for step in range(5):
                run.log_async(loss=step, step=step)
                ref = _published(Run.load(run.save_dir), tracker)
                self.check(tracker, ref, _logged(run))
            before = self.described(tracker, ref)
        ref = _published(Run.load(run.save_dir), tracker)
        self.check(tracker, ref, _logged(run))
        assert self.described(tracker, ref) != before

    def test_all_kinds_of_numbers(self, root: Path, folder: Path) -> None:
        """NaN and infinities are numbers; steps may be large, negative, repeated, and go back; any text is a name."""
        tracker = self.tracker(root)
        with Run(stage="contract", save_dir=folder / "run", console=False) as run:
            for value in (math.nan, math.inf, -math.inf, 0.0, -0.25, 3):
                run.log_async(value=value)
            for value, step in enumerate((7, 1 << 40, -1, 7, 7, 3)):
                run.log_async(going=value, step=step)
            for number, name in enumerate(NAMES):
                run.log_async({name: number}, step=1)
            run.log_async(dict.fromkeys(NAMES, 1), step=2)
        ref = _published(Run.load(run.save_dir), tracker)
        self.check(tracker, ref, _logged(run))

    def test_runs_do_not_mix(self, root: Path, folder: Path) -> None:
        """Two runs with the same numbers, published in turns, have a view each."""
        tracker = self.tracker(root)
        runs = [_run(folder / name, 10) for name in ("one", "two")]
        views = [tracker.open(run, None) for run in runs]
        for part in (slice(0, 5), slice(5, None)):
            for run, view in zip(runs, views, strict=True):
                view.log(_logged(run)[part])
        for run, view in zip(runs, views, strict=True):
            view.close()
            self.check(tracker, view.ref, _logged(run))

    def test_what_is_sent_again_is_there_once(self, root: Path, folder: Path) -> None:
        """Whoever goes on from a `ref` that was kept sends the rest once more; all, where it is fresh."""
        run = _run(folder, 100)
        numbers = _logged(run)
        view = self.tracker(root).open(run, None)
        view.log(numbers[:40])
        kept = view.ref
        view.log(numbers[40:70])
        view.log(numbers[70:])
        view.close()
        tracker = self.tracker(root)
        again = tracker.open(run, kept)
        again.log(numbers[0 if again.fresh else 40 : 90])
        again.log(numbers[90:])
        again.close()
        self.check(tracker, again.ref, numbers)

    def test_a_killed_publisher_leaves_nothing_twice(self, root: Path, folder: Path) -> None:
        """Killed between a batch and the note that it was sent; the next one goes on, and all is there once."""
        run = _run(folder, MANY)
        file = sys.modules[type(self).__module__].__file__
        assert file is not None
        died = subprocess.run(
            [sys.executable, "-c", _SENDS_AND_DIES, file, type(self).__qualname__, root, run.save_dir],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            capture_output=True,
            text=True,
        )
        assert died.returncode == -signal.SIGKILL, died.stderr
        tracker = self.tracker(root)
        ref = _published(run, tracker)
        self.check(tracker, ref, _logged(run))

    def test_what_was_kept_may_be_lost(self, root: Path, folder: Path) -> None:
        """A run has one view all the same: it is found again, and nothing is there twice, however many come at once."""
        run = _run(folder, MANY)
        for _ in range(2):
            tracker = self.tracker(root)
            view = tracker.open(run, None)
            assert view.fresh
            view.log([])
            view.log(_logged(run))
            view.describe(run, {})
            view.close()
            self.check(tracker, view.ref, _logged(run))
        with Publication(run.save_dir, tracker).begun(run) as sending:
            sending.send()
        self.check(tracker, sending.view.ref, _logged(run))

    def test_a_ref_of_nothing_is_no_error(self, root: Path, folder: Path) -> None:
        """What was kept may be of a view that is gone, or broken: then everything is sent again."""
        tracker, run = self.tracker(root), _run(folder, 10)
        for ref in ("", "gone", "../../gone:0", "0" * 32):
            view = tracker.open(run, ref)
            assert view.fresh
            view.log(_logged(run))
            view.close()
            self.check(tracker, view.ref, _logged(run))

    def test_describing_again_changes_nothing(self, root: Path, folder: Path) -> None:
        """Neither what is said, nor the numbers."""
        tracker, run = self.tracker(root), _run(folder, 10)
        ref = _published(run, tracker)
        said = self.described(tracker, ref)
        for _ in range(2):
            ref = _published(run, tracker)
            assert self.described(tracker, ref) == said
        self.check(tracker, ref, _logged(run))

    def test_a_failed_run_with_an_odd_configuration(self, root: Path, folder: Path) -> None:
        """Whatever stands in a lock can be described."""
        odd: dict[str, Any] = {
            "long": "x" * 10_000,
            "text": "a|b\n# c `d`",
            "none": None,
            "much": math.inf,
            "at": {"": [{}]},
        }
        with (
            pytest.raises(ValueError, match="no good"),
            Run({**odd, **dict.fromkeys(NAMES[2:], 1)}, save_dir=folder / "run", console=False) as run,
        ):
            raise ValueError("no good\0\ud800")
        tracker = self.tracker(root)
        assert self.described(tracker, _published(Run.load(run.save_dir), tracker))

    def test_a_run_names_its_parent(self, root: Path, folder: Path) -> None:
        """Whether the parent has a view, or has none yet."""
        tracker, parent = self.tracker(root), _run(folder, 1)
        with Run(inputs=[parent.save_dir], save_dir=folder / "child", console=False) as child:
            pass
        first = self.described(tracker, _published(Run.load(child.save_dir), tracker))
        _published(parent, tracker)
        second = self.described(tracker, _published(Run.load(child.save_dir), tracker))
        assert parent.id in repr(first)
        assert parent.id in repr(second)

    def test_what_cannot_be_reached_is_said(self, root: Path, folder: Path) -> None:
        """By one class of error, in bounded time; the run goes on, and everything can be published later."""
        with Run(stage="contract", save_dir=folder / "run", console=False) as run:
            run.log_async(loss=0.5)
            for _ in range(2):
                with pytest.raises(TrackingError):
                    _published(Run.load(run.save_dir), self.unreachable(root))
            run.log_async(loss=0.25)
        assert run.status == "done"
        tracker = self.tracker(root)
        self.check(tracker, _published(Run.load(run.save_dir), tracker), _logged(run))


_SENDS_AND_DIES = "import sys; from runctx.testing.trackers import send_and_die; send_and_die(*sys.argv[1:])"

NAMES = (
    *("loss", "train/loss", "Loss", "LOSS", "a=b", "a%3Db", "a%b", "a:b", "a.b", "a b", " a b "),
    *("a/./b", "a//b", "/a/b", "a/b/", "../x", ".", "..", "verlust/µ", "\u00e9t\u00e9", "e\u0301te\u0301"),
    *(
        "損失",
        "💥",
        "{}[]()<>#?&;'\"\\|*",
        "line\nbreak",
        "tab\tnul\0",
        "n" * 300,
        "n" * 299 + "m",
        "µ" * 300,
    ),
)
"""Of metrics; some differ by case, by one odd character, or at the end only."""


def _run(folder: Path, numbers: int) -> Record:
    with Run(stage="contract", save_dir=folder / "run", console=False) as run:
        for step in range(numbers):
            run.log_async(loss=step / 8, step=step)
    return Run.load(run.save_dir)


def _logged(run: Run | Record) -> list[Number]:
    return Follower(run.save_dir / layout.METRICS, {}).batch(sys.maxsize)


def _published(run: Record, tracker: Tracker) -> str:
    with Publication(run.save_dir, tracker).begun(run) as sending:
        sending.describe("")
        sending.send()
    return sending.view.ref


def _bag(numbers: Iterable[Number]) -> Counter[tuple[str, str, int, int]]:
    # as text, for NaN is not equal to itself
    return Counter((number.name, repr(float(number.value)), number.step, number.moment) for number in numbers)


def send_and_die(file: str, kind: str, root: str, save_dir: str) -> None:
    """Publish as the contract's class `kind` in `file` says, and be killed before a second batch is noted as sent."""
    spec = importlib.util.spec_from_file_location("contract_of_a_tracker", file)
    assert spec is not None and spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    contract: TrackerContract = getattr(module, kind)()
    run = Run.load(save_dir)
    with Publication(run.save_dir, contract.tracker(Path(root))).begun(run) as sending:
        sending.view = _Mortal(sending.view)
        sending.send()


class _Mortal:
    """A view whose process dies when the second batch has been sent."""

    def __init__(self, view: View) -> None:
        self._view, self._batches = view, 0

    def log(self, numbers: Sequence[Number]) -> None:
        self._view.log(numbers)
        self._batches += 1
        if self._batches == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._view, name)
