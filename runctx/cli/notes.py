"""`tag` and `note`: what people say of a run."""

from __future__ import annotations

from typing import Any

import click

from .which import run_argument


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
    from . import output

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
    from . import output

    past = index.load(run)
    if text or remove:
        past.note = "" if remove else " ".join(text)
    if as_json:
        output.json({"id": past.id, "note": past.note}, one_line=True)
    else:
        click.echo(f"{words.line(past.id, 200)}: {words.lines(past.note) or 'no note'}")


COMMANDS: tuple[Any, ...] = (tag, note)
