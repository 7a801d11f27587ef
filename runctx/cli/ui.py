"""`ui`: look at the runs in MLflow's pages."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import click

from ..errors import RunctxError
from ..interrupts import held_back

if TYPE_CHECKING:
    from ..past.record import Record
    from ..past.row import Row
    from ..trackers.mlflow import MLflow
    from ..trackers.mlflow.ui import Server

_PACE = 10.0
"""Seconds between two looks for runs that have no view yet."""
_SERVED = ("http://", "https://", "databricks", "uc:")
"""How the addresses begin of what somebody else serves."""


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
            _tell(f"{runs.tracker.destination.rstrip('/')}/{page}", browse, as_json)
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
        _tell(f"{server.address}/{pages.page(runs.tracker.experiment_id)}", browse, as_json)
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
        self._told: set[tuple[str, str]] = set()

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
        """Whether it was not up to date; what is wrong with a run is said once, and is no matter of the others."""
        from ..trackers.publishing import bring_up_to_date, is_current

        try:
            return not is_current(run, self.tracker) and bring_up_to_date(run, self.tracker).changed
        except RunctxError as error:
            self._seen.pop(os.fspath(run.save_dir), None)  # it may go better at the next look
            failure = (str(run.save_dir), error.message)
            if failure not in self._told:
                self._told.add(failure)
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


def _tell(address: str, browse: bool, as_json: bool) -> None:
    from . import output

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


COMMANDS: tuple[Any, ...] = (ui,)
