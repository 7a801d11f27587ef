"""`rm`: remove runs."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from .which import complete_run

if TYPE_CHECKING:
    from ..past.removal import Removal

_SHOWN = 10


@click.command("rm")
@click.argument("names", metavar="RUN...", nargs=-1, required=True, shell_complete=complete_run)
@click.option("--views", is_flag=True, help="Remove MLflow's copies too, or those of other trackers.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
def rm(names: tuple[str, ...], views: bool, yes: bool) -> None:
    """Remove runs for good, after showing what depends on them.

    Each RUN is a path in a run's folder, its id or the beginning of one, `latest`, or the name of a stage: its newest
    run. The locks of runs that read from it keep what its lock says, but its files are gone.
    """
    from ..display import words
    from ..past import index, removal
    from ..past.listing import name

    plan = removal.planned(map(index.find, names))
    for one in plan:
        click.echo(f"{name(one.row)}  {one.row.status}, {_size(one)}, in {words.path(one.folder)}")
        _several("read by", [f"{name(row)}  {row.status}" for row in one.readers])
        _several("holds and takes along", [name(row) for row in one.inside])
    if not yes:
        _ask(len(plan))
    for one in plan:
        for place in removal.remove_views(one) if views else ():
            click.echo(f"removed {name(one.row)} from {words.line(place)}")
        removal.remove(one)
        click.echo(f"removed {name(one.row)}")


def _size(one: Removal) -> str:
    from ..display import words

    return f"{words.count(one.files, 'file')}, {words.size(one.bytes)}"


def _several(title: str, lines: list[str]) -> None:
    for line in lines[:_SHOWN]:
        click.echo(f"    {title} {line}")
    if len(lines) > _SHOWN:
        click.echo(f"    {title} {len(lines) - _SHOWN} more")


def _ask(count: int) -> None:
    if not sys.stdin.isatty():
        click.echo(
            "error: nothing was removed: no terminal to ask in\nhint: --yes removes without asking", err=True
        )
        sys.exit(2)
    if not click.confirm("remove it?" if count == 1 else f"remove these {count} runs?"):
        click.echo("nothing was removed", err=True)
        sys.exit(1)


COMMANDS: tuple[Any, ...] = (rm,)
