"""The runs that a command is given: one by its name, or several by names, folders of runs and globs of these."""

from __future__ import annotations

import glob
import inspect
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from ..errors import NoRunError, RunctxError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from ..past.row import Row
    from ..past.runs import Runs


_ONE = "a path in the run's folder, its id or the beginning of one, `latest`, or the name of a stage: its newest run"


def run_argument(command: Callable[..., Any]) -> Callable[..., Any]:
    """Let a command take the name of one run; its help says how a run is named."""
    command.__doc__ = f"{inspect.cleandoc(command.__doc__ or '')}\n\nRUN is {_ONE}."
    return click.argument("run", metavar="RUN", shell_complete=complete_run)(command)


def runs_argument(command: Callable[..., Any]) -> Callable[..., Any]:
    """Let a command take names of runs, folders of runs and globs, as `which` does."""
    more = "Or it is a folder, searched with its subfolders, or a glob of folders; without any, all of the project."
    command.__doc__ = f"{inspect.cleandoc(command.__doc__ or '')}\n\nRUN is {_ONE}. {more}"
    return click.argument("names", metavar="[RUN]...", nargs=-1, shell_complete=complete_run)(command)


def complete_stage(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Complete the name of a stage."""
    return list(dict.fromkeys(row.stage for row in _rows(context) if row.stage.startswith(incomplete)))


_OFFERED = 100


def complete_run(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the name of a run: by stages and ids, the newest first; where none begins so, by files."""
    from click.shell_completion import CompletionItem

    rows = _rows(context)
    stages = dict.fromkeys(row.stage for row in rows)
    ids = [row.id for row in rows if row.id.startswith(incomplete)]
    names = [name for name in ("latest", *stages) if name.startswith(incomplete)]
    found = [CompletionItem(name) for name in (*names, *ids[:_OFFERED])]
    return found or [CompletionItem(incomplete, type="file")]  # bash takes either


def _rows(context: click.Context) -> tuple[Row, ...]:
    """Of the runs of the project; a shell that asks shows no error."""
    from ..past import index

    try:
        if folder := context.find_root().params.get("folder"):
            os.chdir(folder)
        return index.runs().rows
    except (RunctxError, OSError):
        return ()


def which(names: Sequence[str], where: str | None = None, *, as_given: bool = False) -> Runs:
    """All of them, each once, the newest first.

    Parameters
    ----------
    names: folders and globs as for `runs`, and what `find` understands; none: the project's results folder.
    where: an expression; only runs that it is true of.
    as_given: in the order of the names.

    Raises
    ------
    NoRunError: one of the names means nothing. QueryError: the expression cannot be read.
    """
    from ..past import index
    from ..past.runs import Runs

    found = [*map(_runs, names)] or [index.runs()]
    entries = {entry.path: entry for one in found for entry in one._entries}.values()
    newest = sorted(entries, key=lambda entry: (entry.moment, entry.path), reverse=True)
    runs = Runs([*entries] if as_given else newest)
    return runs if where is None else runs.where(where)


def is_run(name: str) -> bool:
    """True if a run is called so: a stage may have the name of a folder of code."""
    from ..past import index

    try:
        index.find(name)
    except NoRunError:
        return False
    return True


def _runs(name: str) -> Runs:
    from ..past import index

    is_folder = os.path.isdir(os.path.expanduser(name))
    if is_folder or glob.has_magic(name):
        found = index.runs(name)
        if found or not (is_folder and is_run(name)):
            return found
    return index.runs(index.find(name))
