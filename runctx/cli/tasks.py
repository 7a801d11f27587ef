"""`status` and `collect`: the tasks of a run."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import output
from .arguments import run_argument

if TYPE_CHECKING:
    from ..past.record import Record

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

    folder = index.find(run)
    try:
        if watch and not as_json and output.is_read_by_a_human():
            _watch(folder)
            return
        for past, maps in _looks(folder):
            _show(past, maps, as_json, one_line=watch)
            if not watch:
                return
    except KeyboardInterrupt:
        if not watch:  # the usual end of watching
            raise


def _looks(folder: Path) -> Iterator[tuple[Record, Sequence[Any]]]:
    """The run and the progress of its maps, again and again until it has ended."""
    from ..past import index
    from ..tasks.progress import Watched

    watched = Watched(folder)
    while True:
        past = index.load(folder)
        goes_on = past.status in ("running", "submitted")
        yield past, watched.look(past.lock)
        if not goes_on:
            return
        time.sleep(_PACE)


def _watch(folder: Path) -> None:
    from rich.console import Console
    from rich.live import Live

    console = Console(highlight=False, markup=False, emoji=False)
    with Live(console=console, auto_refresh=False) as live:
        for past, maps in _looks(folder):
            live.update(_progress(past, maps), refresh=True)


def _show(past: Record, maps: Sequence[Any], as_json: bool, one_line: bool) -> None:
    from ..lock import to_plain

    if as_json:
        output.json({"run": past.id, "status": past.status, "maps": to_plain(maps)}, one_line=one_line)
    else:
        output.show(_progress(past, maps))


def _progress(past: Record, maps: Sequence[Any]) -> Any:
    from rich.text import Text

    from ..display import words
    from ..display.table import status
    from ..display.tables import progress

    title = Text.assemble((words.line(past.id, 200), "bold"), "  ", status(past.status))
    return progress(title, maps)


@click.command("collect")
@run_argument
@click.option("--wait", is_flag=True, help="Wait for tasks that are still running.")
@click.option("--json", "as_json", is_flag=True, help="The lock as JSON.")
def collect(run: str, wait: bool, as_json: bool) -> None:
    """Fold what became of a run's tasks into its lock, and seal it.

    For a run that was submitted, or whose process was killed while tasks of it went on. Doing it twice changes nothing.
    """
    from ..lock import to_plain
    from ..past import index

    past = index.load(run).collect(wait=wait)
    if as_json:
        output.json(to_plain(past.lock))
        return
    from ..display import words

    counts = [f"{one.name}: {one.done} of {one.total} done, {one.failed} failed" for one in past.lock.tasks]
    click.echo(words.lines(f"{past.id}: {past.status}\n" + "\n".join(counts)))


COMMANDS: tuple[Any, ...] = (status, collect)
