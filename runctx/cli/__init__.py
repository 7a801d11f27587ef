"""What can be asked on the command line? The group of all commands, and how errors are told.

Data go to stdout, messages to stderr. What the user can put right exits with 2: `error: ...`, `hint: ...`.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from .. import __version__
from ..errors import RunctxError
from . import collect, compare, config, notes, past, plot, publish, remove, tasks, ui


class _Group(click.Group):
    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except RunctxError as error:
            from ..display import words

            click.echo(f"error: {words.lines(error.message)}", err=True)
            if error.hint:
                click.echo(f"hint: {words.lines(error.hint)}", err=True)
            sys.exit(2)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="runctx")
@click.option(
    "-C",
    "folder",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False),
    help="Look in the project of this folder, as if started in it.",
)
def main(folder: str | None) -> None:
    """Why did this result change? Look at past runs."""
    if folder is not None:
        os.chdir(folder)


for _command in (
    *past.COMMANDS,
    *compare.COMMANDS,
    *plot.COMMANDS,
    *tasks.COMMANDS,
    *collect.COMMANDS,
    *config.COMMANDS,
    *ui.COMMANDS,
    *publish.COMMANDS,
    *notes.COMMANDS,
    *remove.COMMANDS,
):
    main.add_command(_command)
