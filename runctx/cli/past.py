"""`ls`, `show` and `tree`: what past runs say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ..model import Lock

_run = click.argument("run", metavar="RUN")
_json = click.option("--json", "as_json", is_flag=True, help="All of it, for programs.")

_LIMIT = 50


@click.command("ls")
@click.argument("pattern", required=False)
@click.option("--stage", metavar="NAME", help="Only runs of this stage.")
@click.option(
    "--limit", type=click.IntRange(min=0), help=f"How many; 0: all. Default: {_LIMIT}, all in JSON."
)
@click.option("--like", metavar="RUN", help="Only runs of the same experiment: equal keys and types.")
@_json
def ls(pattern: str | None, stage: str | None, limit: int | None, like: str | None, as_json: bool) -> None:
    """List runs, the newest first.

    PATTERN is a folder, searched with its subfolders, or a glob of such folders; without it, the project's
    results folder.
    """
    from ..lock import to_plain
    from ..past import index
    from . import output

    rows = [row for row in index.runs(pattern, like=like).rows if stage in (None, row.stage)]
    most = (0 if as_json else _LIMIT) if limit is None else limit
    shown = rows[:most] if most else rows
    if as_json:
        output.json([to_plain(row) for row in shown])
        return
    from ..display.listing import Listing

    # a program that reads a pipe reads of runs, and of nothing else
    output.show(Listing(shown, len(shown), legend=output.is_read_by_a_human()))
    if not rows:
        click.echo(f"looked in {index.searched(pattern)}", err=True)
    if len(shown) < len(rows):
        click.echo(f"… {len(rows) - len(shown)} more; --limit 0 lists all", err=True)


@click.command("show")
@_run
@click.option(
    "--explain", is_flag=True, help="Of each value of the configuration who set it, and what that beat."
)
@_json
def show(run: str, explain: bool, as_json: bool) -> None:
    """Show what one run recorded.

    RUN is a path in the run's folder, an id or the beginning of one, or `latest`.
    """
    from ..lock import to_plain
    from ..past import index, record
    from . import output

    past = record.load(index.find(run))
    if explain:
        _explain(past.lock, as_json)
        return
    if as_json:
        output.json({**to_plain(past.lock), "status": past.status})
        return
    from ..config.explanation import of_lock
    from ..display import terminal
    from ..tasks.table import failed_in

    unread, failed = of_lock(past.lock).unread or (), failed_in(past.save_dir, past.lock)
    output.show(terminal.run(past.lock, past.status, past.save_dir, unread, failed))


def _explain(lock: Lock, as_json: bool) -> None:
    from ..config.explanation import of_lock
    from . import output

    told = of_lock(lock)
    if as_json:
        output.json(told.to_dict())
        return
    output.show(told.table(most=None))


@click.command("tree")
@_run
@_json
def tree(run: str, as_json: bool) -> None:
    """Show which earlier runs one run came from.

    RUN is a path in the run's folder, an id or the beginning of one, or `latest`.
    """
    from ..past import index, record
    from . import output

    lineage = record.load(index.find(run)).lineage()
    if as_json:
        output.json(lineage.to_dict())
    else:
        output.show(lineage)


COMMANDS: tuple[Any, ...] = (ls, show, tree)
