"""`status`: how far the tasks of a run have come."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from .which import run_argument

_PACE = 2.0
"""Seconds between two looks."""


@click.command("status")
@run_argument
@click.option("--watch", is_flag=True, help="Refresh until the run has ended.")
@click.option(
    "--json", "as_json", is_flag=True, help="All of it as JSON; with --watch, one line per refresh."
)
def status(run: str, watch: bool, as_json: bool) -> None:
    """Show how far the tasks of a run have come, wherever they are run."""
    from ..past import index

    view = _View(index.find(run))
    if not watch:
        view.show(as_json)
        return
    try:
        _watch(view, as_json)
    except KeyboardInterrupt:
        pass  # the usual end of watching


def _watch(view: _View, as_json: bool) -> None:
    from . import output

    if as_json or not output.is_read_by_a_human():
        while view.show(as_json, one_line=True):
            time.sleep(_PACE)
        return
    from rich.console import Console
    from rich.live import Live

    console = Console(highlight=False, markup=False, emoji=False)
    with Live(console=console, auto_refresh=False) as live:
        while True:
            goes_on = view.look()
            live.update(view.told(), refresh=True)
            if not goes_on:
                return
            time.sleep(_PACE)


class _View:
    """A run, looked at again and again."""

    def __init__(self, folder: Path) -> None:
        from ..tasks.progress import Watched

        self._folder = folder
        self._watched = Watched(folder)

    def look(self) -> bool:
        """Whether it goes on."""
        from ..past import index

        self._run = index.load(self._folder)
        self._status = self._run.status
        self._maps = self._watched.look(self._run.lock)
        return self._status in ("running", "submitted")

    def told(self) -> Any:
        """For a terminal."""
        from rich.text import Text

        from ..display import words
        from ..display.table import status
        from ..display.tables import progress

        title = Text.assemble((words.line(self._run.id, 200), "bold"), "  ", status(self._status))
        return progress(title, self._maps)

    def show(self, as_json: bool, one_line: bool = False) -> bool:
        """Look, and write what was seen; whether it goes on."""
        from ..lock import to_plain
        from . import output

        goes_on = self.look()
        if as_json:
            plain = {"run": self._run.id, "status": self._status, "maps": to_plain(self._maps)}
            output.json(plain, one_line=one_line)
        else:
            output.show(self.told())
        return goes_on


COMMANDS: tuple[Any, ...] = (status,)
