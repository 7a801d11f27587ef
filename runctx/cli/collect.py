"""`collect`: seal a run whose tasks went on without it."""

from __future__ import annotations

from typing import Any

import click

from .which import run_argument


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
    from . import output

    past = index.load(run).collect(wait=wait)
    if as_json:
        output.json(to_plain(past.lock))
        return
    from ..display import words

    counts = [f"{one.name}: {one.done} of {one.total} done, {one.failed} failed" for one in past.lock.tasks]
    click.echo(words.lines(f"{past.id}: {past.status}\n" + "\n".join(counts)))


COMMANDS: tuple[Any, ...] = (collect,)
