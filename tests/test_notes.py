"""Tags and notes of runs: kept beside the sealed lock, shown, asked for, published; and removing runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from runctx import Run, runs
from runctx.cli import main
from runctx.errors import NotesError, RunStateError
from runctx.past import removal
from runctx.past.index import compare
from runctx.settings import Settings
from runctx.trackers.mlflow import MLflow
from runctx.trackers.publishing import bring_up_to_date, is_current
from runctx.trackers.tensorboard import TensorBoard
from tests.pastruns import ESCAPE, make_lock, write_run


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "pyproject.toml").write_text("[tool.runctx]\nredact = ['*.pin']\n")
    monkeypatch.chdir(folder)
    return folder


def made(stage: str = "fit", **arguments) -> Run:
    with Run(arguments.pop("cfg", None), stage=stage, console=False, **arguments) as run:
        (run.save_dir / "model.bin").write_bytes(b"weights")
    return run


def command(*arguments: str, code: int = 0) -> str:
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == code, done.output
    return done.output


class TestTagsAndNotes:
    def test_kept_beside_the_lock(self, project):
        """They are given at the start, or change at any time; neither lock nor outputs do."""
        run = made(tags=["baseline", " baseline "], note="first try")
        sealed = (run.save_dir / "run.lock").read_bytes()
        assert (run.tags, run.note) == (("baseline",), "first try")
        past = Run.load(run.id)
        past.tag("good", "very good")
        past.untag("baseline", "never there")
        past.note = "two\nlines"
        assert (run.tags, run.note) == (past.tags, past.note) == (("good", "very good"), "two\nlines")
        assert (run.save_dir / "run.lock").read_bytes() == sealed
        assert [data.path for data in run.outputs] == ["model.bin"]
        past.note = ""
        assert Run.load(run.id).note == ""

    def test_one_tag_as_a_text(self, project):
        """A text is one tag, and not as many as it has letters."""
        assert made(tags="good").tags == ("good",)

    @pytest.mark.parametrize(
        "given",
        [{"tags": [""]}, {"tags": ["a\nb"]}, {"tags": ["x" * 101]}, {"tags": [5]}, {"note": "x" * 20_001}],
    )
    def test_refused(self, project, given):
        """What is no tag or note is said before anything is made."""
        with pytest.raises(NotesError, match="must be a"):
            Run(console=False, **given)
        assert not (project / "results").exists()

    def test_resumed(self, project):
        """A resumed run keeps its tags and note, and gets those that are new."""
        with pytest.raises(ZeroDivisionError), Run(tags="a", note="n", stage="fit", console=False):
            1 / 0
        with Run(tags="b", stage="fit", resume=True, console=False) as run:
            pass
        assert (run.tags, run.note) == (("a", "b"), "n")

    def test_in_a_task(self, project):
        """Tags of a run inside a task give way; those that it adds are the mapping run's."""

        def task(number):
            with Run(tags=["of a task"]) as run:
                run.tag(f"task {number}")

        with Run(stage="map", tags="all", console=False) as run:
            run.map(task, [1, 2], n_jobs=2)
        assert sorted(run.tags) == ["all", "task 1", "task 2"]

    def test_secrets(self, project):
        """No secret is written: neither one of the configuration, nor an assignment, nor a token."""
        secrets = "s3cr3t-of-the-run", "assigned-s3cr3t", "hf_abcdefghijklmnopqrstuvwxyz0123"
        run = made(cfg={"api_key": secrets[0]}, tags=[secrets[0]], note=f"password = '{secrets[1]}'")
        command("tag", run.id, f"with {secrets[2]}")
        command("note", run.id, f"see api_key='{secrets[1]}'")
        kept = (run.save_dir / "run.notes").read_text()
        assert not any(secret in kept for secret in secrets)
        assert run.tags == ("<redacted>", "with <redacted>")

    def test_many_at_once(self, project):
        """Of processes that add tags at once, none loses its own."""
        run = made()
        code = "import sys; from runctx import Run; Run.load(sys.argv[1]).tag(*sys.argv[2:])"
        started = [
            subprocess.Popen([sys.executable, "-c", code, str(run.save_dir), f"a{n}", f"b{n}"])
            for n in range(6)
        ]
        assert [one.wait(120) for one in started] == [0] * 6
        assert sorted(run.tags) == sorted(f"{letter}{n}" for letter in "ab" for n in range(6))

    @pytest.mark.parametrize("text", ["tags: [", "tags: 5", "note: [a]", "- a", "tags: [1]"])
    def test_a_broken_file(self, project, text):
        """It is said, and not written over; listing and showing go on."""
        run = made()
        (run.save_dir / "run.notes").write_text(text)
        with pytest.raises(NotesError, match=r"cannot read .*run\.notes"):
            run.tag("good")
        assert "run.notes" in command("tag", run.id, code=2)
        assert "cannot read" in command("show", run.id)
        assert [one.id for one in runs()] == [run.id]
        assert (run.save_dir / "run.notes").read_text() == text

    def test_hostile_text(self, project):
        """What a file of somebody else's says steers neither terminal nor page."""
        folder = write_run(project, make_lock(1))
        (folder / "run.notes").write_text(json.dumps({"tags": [ESCAPE], "note": ESCAPE}))
        for shown in (command("show", "latest"), command("ls"), command("tag", "latest")):
            assert "\x1b" not in shown
        page = Run.load("latest")._repr_html_() + runs()._repr_html_()
        assert "<script>" not in page


class TestAskedFor:
    def test_listed_and_chosen(self, project):
        """They are shown, are columns, and choose runs: at once when they were changed, remembered or not."""
        plain, run = made(), made(tags=["good"])
        assert "#good" in command("ls")
        assert "tags" in command("show", run.id) and "good" in command("show", run.id)
        for expression in ('tag("good")', "tags.good", "'good' in tags", "tags['good'] and not tag('bad')"):
            assert [one.id for one in runs(where=expression)] == [run.id], expression
            assert "good" not in command("ls", "--where", expression).split("\n")[0]
        assert [one.id for one in runs(where="not tag('good')")] == [plain.id]
        run.untag("good")
        plain.tag("very good")
        plain.note = "why"
        assert [one.id for one in runs(where="tag('very good') and note == 'why'")] == [plain.id]

        found = json.loads(command("ls", "--columns", "tags,note", "--json"))
        assert found == [
            {"id": run.id, "tags": None, "note": None},
            {"id": plain.id, "tags": ["very good"], "note": "why"},
        ]
        assert runs().to_dicts()[1]["tags"] == ("very good",)
        assert json.loads(command("show", plain.id, "--json"))["note"] == "why"

    def test_a_misspelt_tag(self, project):
        """A tag that no run has is said, with the one that was probably meant."""
        made(tags="baseline")
        assert runs(where="tag('basline')").hints == ("no run has tags.basline; did you mean tags.baseline?",)

    def test_compared(self, project):
        """They differ between runs like anything else."""
        found = compare(made(tags=["a", "b"]), made(note="n")).to_dict()["differs"]["run"]
        assert (found["tags"], found["note"]) == (["a, b", None], [None, "n"])

    def test_commands(self, project):
        """`runctx tag` and `runctx note` show, add and remove."""
        run = made()
        assert command("tag", "fit") == f"{run.id}: no tags\n"
        assert command("tag", "latest", "a", "b") == f"{run.id}: a, b\n"
        assert json.loads(command("tag", run.id, "c", "-r", "a", "--json"))["tags"] == ["b", "c"]
        assert command("tag", "fit", "-r", "b", "-r", "d") == f"hint: {run.id} has no tag 'd'\n{run.id}: c\n"
        assert command("note", "fit", "some", "words") == f"{run.id}: some words\n"
        assert json.loads(command("note", "fit", "--json"))["note"] == "some words"
        assert command("note", "fit", "--remove") == f"{run.id}: no note\n"


MLFLOW_WARNS = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")


class TestPublished:
    @MLFLOW_WARNS
    def test_in_mlflow(self, project):
        """MLflow has them as tags and in the text of the run's page; once they change, it follows."""
        run = Run.load(made(tags=["good", "x y"], note="a <b>note</b>").id)
        tracker = MLflow(Settings(root=project))

        def tags() -> dict[str, str]:
            outcome = bring_up_to_date(run, tracker)
            return dict(tracker.database.client.get_run(outcome.ref).data.tags)

        first = tags()
        assert first["runctx.tags"] == "good, x y"
        assert first["runctx.tag.good"] == first["runctx.tag.x y"] == "true"
        assert "`a <b>note</b>`" in first["mlflow.note.content"]
        assert is_current(run, tracker)
        run.untag("x y")
        run.note = ""
        assert not is_current(run, tracker)
        second = tags()
        assert second["runctx.tags"] == "good" and "runctx.tag.x y" not in second
        assert "**Note:**" not in second["mlflow.note.content"]

    def test_in_tensorboard(self, project):
        """TensorBoard has them among its texts."""
        run = Run.load(made(tags="good", note="seen").id)
        bring_up_to_date(run, TensorBoard(Settings(root=project)))
        told = b"".join(file.read_bytes() for file in (project / "tensorboard").rglob("*") if file.is_file())
        assert b"| tag | good |" in told and b"| note | seen |" in told


class TestRemoving:
    def test_shows_what_depends_on_it(self, project):
        """Before a run is removed, all runs that read from it are named, and somebody is asked."""
        first = made("prepare")
        second = made("fit", inputs=[first])
        third = made("test", inputs="fit")
        other = made("other")
        shown = command("rm", "prepare", code=2)
        assert second.id in shown and third.id in shown and other.id not in shown
        assert "nothing was removed" in shown
        assert len(runs()) == 4
        shown = command("rm", "--yes", "prepare", first.id, "fit")
        assert shown.count(f"read by {third.id}") == 2 and f"read by {second.id}" not in shown
        assert [run.id for run in runs()] == [other.id, third.id]
        assert not first.save_dir.exists() and not [*project.glob("results/*/.*")]
        assert [one.id for one in Run.load(third.id).lineage()] == [third.id, second.id, first.id]

    @pytest.mark.parametrize(("answer", "left"), [("y\n", 0), ("n\n", 1), ("", 1)])
    def test_asks(self, project, answer, left):
        """At a terminal the answer counts, and no answer is no."""
        import pty

        made()
        outer, inner = pty.openpty()
        started = subprocess.Popen(
            [sys.executable, "-m", "runctx", "rm", "fit"], stdin=inner, stdout=inner, stderr=inner
        )
        os.close(inner)
        os.write(outer, answer.encode() or b"\x04")
        started.wait(120)
        os.close(outer)
        assert len(runs()) == left

    def test_what_goes_on(self, project):
        """A run that goes on is not removed, nor one with such a run in its folder, nor any that was named with it."""
        ended = made("ended")
        with Run(save_dir=ended.save_dir / "inner", stage="inner", console=False) as inner:
            for name in (inner.save_dir, ended.id):
                with pytest.raises(RunStateError, match=f"cannot remove run {inner.id}: it is running"):
                    removal.planned([Run.load(name).save_dir])
            assert "is running" in command("rm", "-y", ended.id, str(inner.save_dir), code=2)
        assert ended.save_dir.exists()
        assert f"takes along {inner.id}" in command("rm", "-y", ended.id)
        assert len(runs()) == 0

    def test_through_a_link(self, project):
        """A link to a run's folder names the run: the folder goes, and nothing else."""
        run = made()
        (project / "mine").symlink_to(run.save_dir)
        (project / "keep").mkdir()
        (run.save_dir / "data").symlink_to(project / "keep")
        (project / "keep/file").touch()
        command("rm", "-y", "mine")
        assert not run.save_dir.exists() and (project / "keep/file").exists()

    def test_a_broken_run(self, project):
        """A run whose lock cannot be read is removed by its folder."""
        run = made()
        (run.save_dir / "run.lock").write_text("[")
        command("rm", "-y", str(run.save_dir))
        assert not run.save_dir.exists()

    @MLFLOW_WARNS
    @pytest.mark.parametrize("kind", [MLflow, TensorBoard])
    def test_views(self, project, monkeypatch, kind):
        """With --views its copies go as well, and those of no other run."""
        run, other = made(), made("other")
        monkeypatch.setenv("RUNCTX_TRACKING", kind.name)
        tracker = kind(Settings(root=project))
        outcomes = [bring_up_to_date(Run.load(one.id), tracker) for one in (run, other)]

        def copies(one: Run) -> list[Path]:
            files = [*project.glob("mlruns/**/run.lock"), *project.glob("tensorboard/*/*")]
            return [file for file in files if one.id in f"{file} {file.read_bytes()!r}"]

        assert copies(run) and copies(other)
        command("rm", "-y", "--views", run.id)
        assert not copies(run) and copies(other) and not run.save_dir.exists()
        if kind is MLflow:
            stages = [
                tracker.database.client.get_run(outcome.ref).info.lifecycle_stage for outcome in outcomes
            ]
            assert stages == ["deleted", "active"]

    def test_views_that_cannot_be_reached(self, project, monkeypatch):
        """Where its copies cannot be removed, the run stays, too."""
        run = made()
        monkeypatch.setenv("RUNCTX_TRACKING", "mlflow")
        monkeypatch.setenv("RUNCTX_TRACKING_URI", "http://127.0.0.1:1")
        assert "hint" in command("rm", "-y", "--views", run.id, code=2)
        assert run.save_dir.exists()
