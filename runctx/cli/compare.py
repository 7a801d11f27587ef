"""`compare`: what differs between runs, side by side."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from ..errors import QueryError
from .which import runs_argument, which

if TYPE_CHECKING:
    from ..past.comparison import Comparison

_LIMIT = 50


@click.command("compare")
@runs_argument
@click.option("--where", metavar="EXPR", help="Only runs for which this is true: 'config.lr < 0.1'.")
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
    from . import output

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


COMMANDS: tuple[Any, ...] = (compare,)
