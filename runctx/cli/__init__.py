"""The command line: the group of all commands, and how errors are shown.

Data go to stdout, messages to stderr. What the user can put right exits with 2: `error: ...`, `hint: ...`.
"""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path
from typing import Any, NoReturn

import click

from .. import __version__, permissions
from ..errors import RunctxError, RunctxWarning
from . import browse, change, config, tasks, views


class _Group(click.Group):
    def main(self, *arguments: Any, **options: Any) -> Any:
        """Run a command. Closed streams lead nowhere; output that cannot be written is an error of one line."""
        for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
            # its descriptor is free, and would become that of some file of ours
            if getattr(sys, name) is None:
                setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - until the end
        try:
            return super().main(*arguments, **options)
        except OSError as error:
            if error.filename is not None:  # not a stream: a file could not be opened
                raise
            why = error.strerror or error
        for stream, text in ((sys.stdout, ""), (sys.stderr, f"error: the output cannot be written: {why}\n")):
            try:
                stream.write(text)
                stream.flush()
            except OSError:  # what is still in its buffer must not fail again at exit
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        sys.exit(1)

    def invoke(self, context: click.Context) -> Any:
        warnings.showwarning = _show_warning
        try:
            return super().invoke(context)
        except RunctxError as error:
            _fail(error.message, error.hint)
        except PermissionError as error:
            path = Path(os.fsdecode(error.filename or ""))
            _fail(f"{path}: {error.strerror}", permissions.hint(path) or permissions.hint(path, os.R_OK))


def _fail(message: str, hint: str | None) -> NoReturn:
    from ..display import words

    click.echo(f"error: {words.lines(message)}", err=True)
    if hint:
        click.echo(f"hint: {words.lines(hint)}", err=True)
    sys.exit(2)


def _show_warning(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
    if not issubclass(category, RunctxWarning):
        _python_shows(message, category, *where, **more)
        return
    from ..display import words

    click.echo(f"warning: {words.lines(str(message))}", err=True)


_python_shows = warnings.showwarning


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


for _command in (c for module in (browse, tasks, config, views, change) for c in module.COMMANDS):
    main.add_command(_command)
