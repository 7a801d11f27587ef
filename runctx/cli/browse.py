"""`ls`, `show`, `tree`, `compare` and `plot`: look at past runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import QueryError, RunctxError, SettingsError
from . import output
from .arguments import complete_run, complete_stage, run_argument, runs_argument, which

if TYPE_CHECKING:
    from ..past.comparison import Comparison
    from ..past.query import Column

_LIMIT = 50
_json = click.option("--json", "as_json", is_flag=True, help="All of it as JSON.")
_where = click.option("--where", metavar="EXPR", help="Only runs for which this is true: 'config.lr < 0.1'.")


@click.command("ls")
@click.argument("pattern", required=False)
@_where
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
    from ..lock import to_plain
    from ..past import index
    from ..past.query import column, unmet

    found = index.runs(pattern, stage=stage, where=where, like=like)
    for key in reversed(_keys(sort)):
        found = found.sort(key.removeprefix("-"), reverse=key.startswith("-"))
    asked = [*map(column, _keys(columns))]
    most = (0 if as_json else _LIMIT) if limit is None else limit
    if as_json:
        some = found[: most or None]
        output.json(
            [{"id": row.id, **{one.name: one.of(row) for one in asked}} for row in some.rows_for(asked)]
            if asked
            else [to_plain(row) for row in some.measured]
        )
    else:
        from ..past.listing import listing  # loads rich

        chosen = _project_columns() if columns is None else asked
        rows = found.shown(most or None, (*chosen, *found.asked))
        # a program that reads a pipe reads of runs, and of nothing else
        legend = output.is_read_by_a_human()
        output.show(
            listing(rows, most or None, legend=legend, count=False, columns=chosen, besides=found.asked)
        )
        if not found:
            click.echo(f"looked in {index.searched(pattern)}", err=True)
        if 0 < most < len(found):
            click.echo(f"… {len(found) - most} more; --limit 0 lists all", err=True)
    output.hints([*found.hints, *unmet(asked, found.rows_for(asked))])


def _project_columns() -> list[Column]:
    """The columns that the project wants."""
    from .. import settings
    from ..past.query import column

    try:
        return [*map(column, settings.load().columns)]
    except QueryError as error:
        raise SettingsError(f"setting 'columns': {error.message}", hint=error.hint) from error


def _keys(given: str | None) -> list[str]:
    return [key.strip() for key in given.split(",")] if given else []


@click.command("show")
@run_argument
@click.option(
    "--explain", is_flag=True, help="For each value of the configuration: who set it, and what it replaced."
)
@_json
def show(run: str, explain: bool, as_json: bool) -> None:
    """Show what one run recorded."""
    from .. import notes
    from ..config.explanation import of_lock
    from ..lock import to_plain
    from ..past import index

    past = index.load(run)
    if explain and as_json:
        output.json(of_lock(past.lock).to_dict())
    elif explain:
        output.show(of_lock(past.lock).table(most=None))
    elif as_json:
        said = to_plain(notes.readable(past.save_dir))
        output.json({**to_plain(past.lock), "status": past.status, **{k: v for k, v in said.items() if v}})
    else:
        output.show(past._view(of_lock(past.lock).unread or ()))


@click.command("tree")
@run_argument
@_json
def tree(run: str, as_json: bool) -> None:
    """Show which earlier runs one run came from."""
    from ..past import index

    lineage = index.load(run).lineage()
    if as_json:
        output.json(lineage.to_dict())
    else:
        output.show(lineage)


@click.command("compare")
@runs_argument
@_where
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    default=_LIMIT,
    show_default=True,
    help="How many runs at most; 0: all.",
)
@click.option(
    "--all", "equal", is_flag=True, help="Also show what is equal, and packages that only some runs imported."
)
@click.option("--json", "as_json", is_flag=True, help="All of it as JSON.")
def compare(names: tuple[str, ...], where: str | None, limit: int, equal: bool, as_json: bool) -> None:
    """Show what differs between runs: configuration, metrics, code, inputs, packages."""
    chosen = which(names, where, as_given=True)
    if len(chosen) == 1 and names == (chosen[0].stage,):
        raise QueryError(
            f"compare needs at least two runs; {names[0]!r} is a stage, which means its newest run",
            hint=f"all of them: `runctx compare --where 'stage == \"{names[0]}\"'`",
        )
    shown = chosen[: limit or None]
    comparison = shown.compare()
    if as_json:
        output.json(comparison.to_dict())
        return
    output.show(comparison.table(equal=equal, hints=False))
    output.hints([*comparison.hints, *_of_code(comparison)])
    if len(shown) < len(chosen):
        click.echo(f"… {len(chosen) - len(shown)} more; --limit 0 compares all", err=True)


def _of_code(comparison: Comparison) -> Iterator[str]:
    """How to see what differs in the code of two runs."""
    sources = [side.lock.source for side in sorted(comparison.sides, key=lambda side: side.lock.started)]
    commits = [source.commit.removeprefix("git:") for source in sources if source.commit]
    if len(sources) == 2 and len(set(commits)) == 2:
        older, newer = (commit[:12] for commit in commits)
        yield f"`git diff {older} {newer}` shows what differs in the code"


def _with_suffix(context: click.Context, option: click.Parameter, out: Path | None) -> Path | None:
    """Refuse what cannot be drawn before anything is read."""
    if out is not None:
        from ..display.figure import FORMATS

        if out.suffix.lower() not in FORMATS:
            raise click.BadParameter(f"{out.name!r} must end in one of {', '.join(FORMATS)}")
    return out


@click.command("plot")
@runs_argument
@click.option(
    "--metric",
    "metrics",
    metavar="NAME",
    multiple=True,
    help="Metric to draw; repeat for several.",
)
@_where
@click.option(
    "--x",
    type=click.Choice(["step", "time", "relative"]),
    default="step",
    help="Across: the step (default), the time, or the time since the run's first point.",
)
@click.option(
    "--smooth",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.0,
    metavar="WEIGHT",
    help="Smooth by a moving average: weight of earlier values, from 0 to below 1.",
)
@click.option("--log", is_flag=True, help="Logarithmic axis of values.")
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    help="How many runs, or tasks of a run, at most; 0: all. Default: 8.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    callback=_with_suffix,
    metavar="FILE",
    help="Write a picture to this file: .png, .svg or .pdf.",
)
@click.option("--json", "as_json", is_flag=True, help="The points as JSON.")
def plot(
    names: tuple[str, ...],
    metrics: tuple[str, ...],
    where: str | None,
    x: Any,
    smooth: float,
    log: bool,
    limit: int | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Draw what runs have logged, the newest first."""
    from ..display import curves

    most = curves.LIMIT if limit is None else limit
    shown = which(names, where).curves(metrics, x=x, smooth=smooth, log=log, limit=most)
    if out is not None:
        from .. import layout
        from ..display import figure

        try:
            picture = figure.as_bytes(figure.draw(shown, paper=True), out.suffix.lower())
            layout.write_atomically(out, picture)
        except OSError as error:
            raise RunctxError(f"{out}: cannot be written: {error.strerror or error}") from error
    if as_json:
        output.json(shown.to_dict(), one_line=True)
    elif out is None:
        from ..display.chart import Chart

        output.show(Chart(shown, None if output.is_read_by_a_human() else 80))


COMMANDS: tuple[Any, ...] = (ls, show, tree, compare, plot)
