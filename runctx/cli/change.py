"""`tag`, `note` and `rm`: change past runs."""

from __future__ import annotations

import sys
from typing import Any

import click

from . import output
from .arguments import complete_run, run_argument

_SHOWN = 10


@click.command("tag")
@run_argument
@click.argument("tags", metavar="[TAG]...", nargs=-1)
@click.option("--remove", "-r", "removed", metavar="TAG", multiple=True, help="Take this tag away.")
@click.option("--json", "as_json", is_flag=True, help="Its tags, for programs.")
def tag(run: str, tags: tuple[str, ...], removed: tuple[str, ...], as_json: bool) -> None:
    """Add tags to a run, and show which it has.

    `runctx ls --where 'tag("good")'` lists the runs that are tagged so.
    """
    from ..display import words
    from ..past import index

    past = index.load(run)
    if tags:
        past.tag(*tags)
    absent = [one for one in removed if one.strip() not in past.tags]
    if removed:
        past.untag(*removed)
    output.hints(f"{past.id} has no tag {one!r}" for one in absent)
    if as_json:
        output.json({"id": past.id, "tags": list(past.tags)}, one_line=True)
    else:
        click.echo(f"{words.line(past.id, 200)}: {', '.join(map(words.line, past.tags)) or 'no tags'}")


@click.command("note")
@run_argument
@click.argument("text", metavar="[TEXT]...", nargs=-1)
@click.option("--remove", "-r", is_flag=True, help="Take the note away.")
@click.option("--json", "as_json", is_flag=True, help="The note, for programs.")
def note(run: str, text: tuple[str, ...], remove: bool, as_json: bool) -> None:
    """Write a note about a run in place of the one it has; without TEXT, show it."""
    from ..display import words
    from ..past import index

    past = index.load(run)
    if text or remove:
        past.note = "" if remove else " ".join(text)
    if as_json:
        output.json({"id": past.id, "note": past.note}, one_line=True)
    else:
        click.echo(f"{words.line(past.id, 200)}: {words.lines(past.note) or 'no note'}")


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
        size = f"{words.count(one.files, 'file')}, {words.size(one.bytes)}"
        click.echo(f"{name(one.row)}  {one.row.status}, {size}, in {words.path(one.folder)}")
        _several("read by", [f"{name(row)}  {row.status}" for row in one.readers])
        _several("holds and takes along", [name(row) for row in one.inside])
    if not yes:
        _ask(len(plan))
    for one in plan:
        for place in removal.remove_views(one) if views else ():
            click.echo(f"removed {name(one.row)} from {words.line(place)}")
        removal.remove(one)
        click.echo(f"removed {name(one.row)}")


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


COMMANDS: tuple[Any, ...] = (tag, note, rm)
