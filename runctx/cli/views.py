"""`publish` and `ui`: show runs in MLflow, or wherever else the project wants."""

from __future__ import annotations

import glob
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import click

from .. import layout, said
from ..errors import RunctxError
from ..interrupts import held_back
from . import output
from .arguments import is_run, runs_argument, which

if TYPE_CHECKING:
    from ..past.record import Record
    from ..past.row import Row
    from ..trackers.mlflow import MLflow
    from ..trackers.mlflow.ui import Server
    from ..trackers.publishing import Outcome

_SHOWN = 20
"""Failures that a table lists."""
_PACE = 10.0
"""Seconds between two looks for runs that have no view yet."""
_SERVED = ("http://", "https://", "databricks", "uc:")
"""How the addresses begin of what somebody else serves."""


@click.command("publish")
@runs_argument
@click.option("--with", "function", metavar="MODULE:FUNCTION", help="Also call this function with each run.")
@click.option(
    "--stale",
    is_flag=True,
    help="Only runs that were last published with another function, or changed since.",
)
@click.option("--where", metavar="EXPR", help="Only runs for which this is true: 'config.lr < 0.1'.")
@click.option("--json", "as_json", is_flag=True, help="The outcome for each run as JSON.")
def publish(
    names: tuple[str, ...], function: str | None, stale: bool, where: str | None, as_json: bool
) -> None:
    """Show runs in MLflow, or wherever the project's setting `tracking` says.

    Doing it twice changes nothing; where it was interrupted, it goes on. A folder from before runctx is published as
    it is, with its config.yaml.

    A run that was deleted in MLflow is restored if it is named by itself; one of many is left as it is.

    The function is imported from the current folder, e.g. `--with train:log_run` or `--with src/train.py:log_run`.
    """
    from tqdm import tqdm

    from ..trackers import logging_function
    from ..trackers.publishing import publish_all

    called = None if function is None else logging_function.load(function)
    runs, alone = _chosen(names, where)
    if not runs:
        click.echo("no such runs; `runctx ls` lists all runs", err=True)
        if names and where is None:
            click.echo(
                "hint: name folders from before runctx one by one, or by a glob such as 'old/*'", err=True
            )
    done: list[Outcome] = []
    interrupted = False
    try:
        with tqdm(
            total=len(runs), desc="publish", unit=" runs", file=sys.stderr, leave=False, disable=None
        ) as bar:
            for outcome in publish_all(runs, function=called, stale=stale, quick=not names, restore=alone):
                done.append(outcome)
                bar.update(len(done) == 1 or done[-1].path != done[-2].path)
    except KeyboardInterrupt:
        interrupted = True
    _outcomes(done, interrupted, as_json)
    if interrupted:
        more = " with --stale" if function and not stale else ""
        click.echo(f"interrupted\nhint: the same command{more} continues where it stopped", err=True)
        sys.exit(130)
    if any(outcome.error for outcome in done):
        sys.exit(1)


def _chosen(patterns: Sequence[str], where: str | None) -> tuple[list[Record], set[Path]]:
    """The oldest first, folders without a lock before them; and the folders of those that are named by themselves."""
    from ..past import index
    from ..past.legacy import record_of
    from ..redact import Redactor
    from ..trackers.publishing import settings_of

    named: list[str] = []
    old: dict[Path, None] = {}
    alone: set[Path] = set()
    skipped = 0
    for pattern in patterns:
        folders = _folders(pattern)
        if len(folders) == 1 and is_run(pattern):
            named.append(pattern)
            alone.add(index.find(pattern))
            continue
        if not glob.has_magic(pattern):
            # a run by its name, or a folder from before runctx
            alone.add(folders[0] if folders else index.find(pattern))
        found = [folder for folder in folders if _is_legacy(folder, alone=len(folders) == 1)]
        skipped += sum(_has_files(folder) and not _has_run(folder) for folder in {*folders} - {*found})
        old |= dict.fromkeys(found if where is None else ())
        if not found or len(found) < len(folders):
            named.append(pattern)
    if skipped:  # a glob often takes in folders of other things
        click.echo(
            f"skipped, without run.lock or configuration: {skipped}\nhint: name such a folder by itself",
            err=True,
        )
    runs = which(named, where) if named or not patterns else []
    records = [record_of(folder, Redactor(settings_of(folder).redact)) for folder in old]
    return [*records, *reversed(runs)], alone


def _folders(pattern: str) -> list[Path]:
    """Those that are meant, if a folder or a glob is given."""
    given = os.path.abspath(os.path.expanduser(pattern))
    found = [given] if os.path.lexists(given) or not glob.has_magic(given) else sorted(glob.glob(given))
    return [Path(path) for path in found if os.path.isdir(path)]


def _is_legacy(folder: Path, alone: bool) -> bool:
    """True if a folder is a run's from before runctx: it has files, or among others a configuration."""
    from ..past.legacy import has_config

    return not _has_run(folder) and (has_config(folder) or (alone and _has_files(folder)))


def _has_run(folder: Path) -> bool:
    """True if it is a run's, is in one, or has one in it."""
    from ..past import index

    return layout.find_run(folder) is not None or len(index.runs(folder)) > 0


def _has_files(folder: Path) -> bool:
    try:
        return any(entry.is_file() for entry in folder.iterdir())
    except OSError:  # not ours to read
        return False


# -- outcomes ----------------------------------------------------------------------------------------------


def _outcomes(done: Sequence[Outcome], interrupted: bool, as_json: bool) -> None:
    from ..display import words

    if as_json:
        output.json({"runs": [_plain(outcome) for outcome in done], "interrupted": interrupted})
        return
    counts = Counter((_word(one), f"{one.tracker}: {_place(one.destination)}") for one in done)
    for (word, where), count in sorted(counts.items(), key=lambda item: _WORDS.index(item[0][0])):
        click.echo(f"{word:<9} {count:>6}  {where}")
    failed = [outcome for outcome in done if outcome.error is not None]
    for outcome in failed[:_SHOWN]:
        click.echo(f"  {words.path(outcome.path)}  {words.line(_reason(outcome), 300)}")
    if len(failed) > _SHOWN:
        click.echo(f"  … {len(failed) - _SHOWN} more; --json has all")
    if any(outcome.deleted for outcome in done):
        click.echo("hint: what was deleted there is left so; `runctx publish RUN` restores a run", err=True)
    hints = {getattr(outcome.error, "hint", None) for outcome in failed}
    for hint in sorted(hint for hint in hints if isinstance(hint, str)):
        click.echo(f"hint: {words.lines(hint)}", err=True)


def _place(destination: str) -> str:
    """Short for a file or folder that lies here."""
    from ..display import words

    file = unquote(destination.removeprefix("sqlite:///"))
    return words.path(file) if file.startswith("/") else words.line(destination)


_WORDS = ("published", "restored", "unchanged", "deleted", "failed")


def _word(outcome: Outcome) -> str:
    if outcome.error is not None:
        return "failed"
    if outcome.deleted or outcome.restored:
        return "deleted" if outcome.deleted else "restored"
    return "published" if outcome.changed else "unchanged"


def _reason(outcome: Outcome) -> str:
    error = outcome.error
    if error is None or isinstance(error, RunctxError):
        return "" if error is None else error.message
    where = said.place(error)  # of the logging function, or of a tracker of the project's
    return f"{type(error).__name__}: {said.message(error)}" + (f" ({where})" if where else "")


def _plain(outcome: Outcome) -> dict[str, Any]:
    plain = {
        "path": os.fspath(outcome.path),
        "tracker": outcome.tracker,
        "destination": outcome.destination,
        "outcome": _word(outcome),
        "ref": outcome.ref,
        "numbers": outcome.numbers,
    }
    if outcome.error is None:
        return plain
    plain["error"] = _reason(outcome)
    if not isinstance(outcome.error, RunctxError):
        from ..redact import Redactor

        plain["traceback"] = Redactor().text(said.users_traceback(outcome.error))
    return plain


# -- MLflow's pages ----------------------------------------------------------------------------------------


@click.command("ui")
@click.option(
    "--port", type=click.IntRange(1, 65535), help="Port of the server; default: 5000, or the next free one."
)
@click.option("--no-publish", is_flag=True, help="Show MLflow as it is; publish nothing.")
@click.option("--open", "browse", is_flag=True, help="Open the page in the browser.")
@click.option("--json", "as_json", is_flag=True, help="Print the address as JSON once the server answers.")
def ui(port: int | None, no_publish: bool, browse: bool, as_json: bool) -> None:
    """Show the project's runs in MLflow's pages.

    Publishes what is missing there or has changed, starts MLflow's server for this machine only, prints the address
    and stays until Ctrl-C. Where the project's `tracking_uri` is a server's address, no other one is started.
    """
    from .. import places, settings, snapshot
    from ..trackers.mlflow import MLflow
    from ..trackers.mlflow import ui as pages

    wishes = settings.load()
    if (advice := places.advice(wishes, snapshot.find_repository(wishes.root))) is not None:
        _say(f"note: {advice}")
    runs = _Runs(MLflow(wishes))
    database = runs.tracker.database
    with _ended_by_signals():
        if database.uri.startswith(_SERVED):
            if not no_publish:
                runs.publish(bar=True)
            page = pages.page(runs.tracker.experiment_id, arranged=False)
            _show_address(f"{runs.tracker.destination.rstrip('/')}/{page}", browse, as_json)
        else:
            _serve(runs, port, not no_publish, browse, as_json)


def _serve(runs: _Runs, port: int | None, publish: bool, browse: bool, as_json: bool) -> None:
    from .. import layout
    from ..trackers.mlflow import ui as pages
    from ..trackers.mlflow.ui import Server

    database = runs.tracker.database
    server = Server(database.uri, database.root / layout.ARTIFACTS, port, database.file)
    _ = database.client  # made here, if there is none: not by two processes at once
    with server:
        if publish:
            runs.publish(bar=True)
        pages.arrange(runs.tracker)
        _wait(server)
        _show_address(f"{server.address}/{pages.page(runs.tracker.experiment_id)}", browse, as_json)
        _say("press Ctrl-C to stop the server")
        looked = time.monotonic()
        while True:
            time.sleep(1.0)
            server.check()
            if publish and time.monotonic() - looked > _PACE:
                if runs.publish():
                    pages.arrange(runs.tracker)
                looked = time.monotonic()


class _Runs:
    """Those of the project, kept up to date in MLflow: by the shipper while they log numbers, and the others here."""

    def __init__(self, tracker: MLflow) -> None:
        self.tracker = tracker
        self._seen: dict[str, Row] = {}
        self._reported: set[tuple[str, str]] = set()

    def publish(self, *, bar: bool = False) -> bool:
        """Bring those up to date that are new, go on, or are not as they were at the last look; whether any was not."""
        from tqdm import tqdm

        runs, changed = self._to_look_at(), False
        options: dict[str, Any] = {"desc": "publishing", "unit": "run", "file": sys.stderr, "leave": False}
        with tqdm(runs, disable=None if bar else True, **options) as shown:  # None: unless it is a terminal
            for run in shown:
                with held_back():
                    changed |= self._bring(run)
        return changed

    def _to_look_at(self) -> list[Record]:
        from ..past import index

        runs, found = index.runs(), []
        for place, row in enumerate(runs.rows):
            known = self._seen.get(row.path)
            self._seen[row.path] = row
            if row.status != "broken" and (row != known or row.status in ("running", "submitted")):
                found.append(runs[place])
        return found

    def _bring(self, run: Record) -> bool:
        """True if it was not up to date; what is wrong with a run is said once, and is no matter of the others."""
        from ..trackers.publishing import bring_up_to_date, is_current

        try:
            return not is_current(run, self.tracker) and bring_up_to_date(run, self.tracker).changed
        except RunctxError as error:
            self._seen.pop(os.fspath(run.save_dir), None)  # it may go better at the next look
            failure = (str(run.save_dir), error.message)
            if failure not in self._reported:
                self._reported.add(failure)
                _say(f"not published: {': '.join(failure)}")
            return False


def _wait(server: Server) -> None:
    """Until it answers; says so, for it takes its time."""
    from rich.console import Console

    console = Console(stderr=True, highlight=False, markup=False)
    with console.status("starting MLflow's server, which takes some ten seconds"):
        if not console.is_terminal:
            _say("starting MLflow's server, which takes some ten seconds")
        server.wait()


def _show_address(address: str, browse: bool, as_json: bool) -> None:
    if as_json:
        output.json({"address": address}, one_line=True)
    else:
        click.echo(address)
    if browse:
        import webbrowser

        webbrowser.open(address)


def _say(message: str) -> None:
    from ..display import words

    click.echo(words.lines(message), err=True)


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Ctrl-C, a closed terminal and `kill` are the usual ends."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, signal.default_int_handler)
    with suppress(KeyboardInterrupt):
        yield


COMMANDS: tuple[Any, ...] = (publish, ui)
