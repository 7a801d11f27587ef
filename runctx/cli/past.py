"""`ls`, `show` and `tree`: what past runs say."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from .which import complete_run, complete_stage, run_argument

if TYPE_CHECKING:
    from ..model import Lock
    from ..past.columns import Column
    from ..past.many import Runs

_json = click.option("--json", "as_json", is_flag=True, help="All of it as JSON.")

_LIMIT = 50


@click.command("ls")
@click.argument("pattern", required=False)
@click.option("--where", metavar="EXPR", help="Only runs for which this is true: 'config.lr < 0.1'.")
@click.option("--stage", metavar="NAME", shell_complete=complete_stage, help="Only runs of this stage.")
@click.option(
    "--like",
    metavar="RUN",
    shell_complete=complete_run,
    help="Only runs with the same configuration keys and types as this run.",
)
@click.option(
    "--sort", metavar="KEY[,-KEY]", help="Sort by config.lr, metrics.acc.max ...; -KEY: largest first."
)
@click.option("--columns", metavar="KEY[,KEY]", help="Columns to show; default: the setting `columns`.")
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    help=f"How many runs at most; 0: all. Default: {_LIMIT}; all with --json.",
)
@_json
def ls(
    pattern: str | None,
    where: str | None,
    stage: str | None,
    like: str | None,
    sort: str | None,
    columns: str | None,
    limit: int | None,
    as_json: bool,
) -> None:
    """List runs, the newest first.

    PATTERN is a folder, searched with its subfolders, or a glob of such folders; without it, the project's
    results folder.

    A table shows what --where and --sort ask for, metrics, and what differs from most of the runs that were found.

    KEY is id, stage, status, started, seconds, commit, dirty, path, error, tasks, tasks_done, config.NAME or
    metrics.NAME, its last value; also metrics.NAME.min, .max and .points. An expression compares them as Python does:
    --where "config.lr < 0.1 and metrics.acc.max > 0.9 and started >= '2026-11'".
    """
    from ..past import index
    from ..past.columns import column, unmet
    from . import output

    found = index.runs(pattern, stage=stage, where=where, like=like)
    for key in reversed(_keys(sort)):
        found = found.sort(key.removeprefix("-"), reverse=key.startswith("-"))
    asked = [*map(column, _keys(columns))]
    most = (0 if as_json else _LIMIT) if limit is None else limit
    if as_json:
        output.json(_plain(found[: most or None], asked))
    else:
        _table(found, most or None, _for_good() if columns is None else asked)
        if not found:
            click.echo(f"looked in {index.searched(pattern)}", err=True)
        if 0 < most < len(found):
            click.echo(f"… {len(found) - most} more; --limit 0 lists all", err=True)
    output.hints([*found.hints, *unmet(asked, found.rows_for(asked))])


def _for_good() -> list[Column]:
    """The columns that the project wants."""
    from .. import settings
    from ..errors import QueryError, SettingsError
    from ..past.columns import column

    try:
        return [*map(column, settings.load().columns)]
    except QueryError as error:
        raise SettingsError(f"setting 'columns': {error.message}", hint=error.hint) from error


def _keys(given: str | None) -> list[str]:
    return [key.strip() for key in given.split(",")] if given else []


def _plain(found: Runs, asked: list[Column]) -> list[Any]:
    from ..lock import to_plain

    if not asked:
        return [to_plain(row) for row in found.measured]
    return [{"id": row.id, **{one.name: one.of(row) for one in asked}} for row in found.rows_for(asked)]


def _table(found: Runs, most: int | None, columns: list[Column]) -> None:
    from ..past.listing import listing
    from . import output

    # a program that reads a pipe reads of runs, and of nothing else
    legend = output.is_read_by_a_human()
    rows = found.shown(most, (*columns, *found.asked))
    output.show(listing(rows, most, legend=legend, count=False, columns=columns, besides=found.asked))


@click.command("show")
@run_argument
@click.option(
    "--explain", is_flag=True, help="For each value of the configuration: who set it, and what it replaced."
)
@_json
def show(run: str, explain: bool, as_json: bool) -> None:
    """Show what one run recorded."""
    from .. import notes
    from ..lock import to_plain
    from ..past import index
    from . import output

    past = index.load(run)
    said = notes.readable(past.save_dir)
    if explain:
        _explain(past.lock, as_json)
        return
    if as_json:
        output.json(
            {**to_plain(past.lock), "status": past.status, **{k: v for k, v in to_plain(said).items() if v}}
        )
        return
    from ..config.explanation import of_lock
    from ..display.run import RunView
    from ..past.row import logged
    from ..tasks.table import failed_in

    status = past.status
    lock = replace(past.lock, metrics=logged(past.save_dir, status) or past.lock.metrics)
    unread, failed = of_lock(lock).unread or (), failed_in(past.save_dir, lock)
    output.show(
        RunView(
            lock=lock,
            status=status,
            folder=str(past.save_dir),
            unread=unread,
            failed=failed,
            tags=said.tags,
            note=said.note,
        )
    )


def _explain(lock: Lock, as_json: bool) -> None:
    from ..config.explanation import of_lock
    from . import output

    told = of_lock(lock)
    if as_json:
        output.json(told.to_dict())
        return
    output.show(told.table(most=None))


@click.command("tree")
@run_argument
@_json
def tree(run: str, as_json: bool) -> None:
    """Show which earlier runs one run came from."""
    from ..past import index
    from . import output

    lineage = index.load(run).lineage()
    if as_json:
        output.json(lineage.to_dict())
    else:
        output.show(lineage)


COMMANDS: tuple[Any, ...] = (ls, show, tree)
