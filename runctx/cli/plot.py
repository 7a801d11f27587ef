"""`plot`: the curves of many runs, in the terminal or as a picture in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .which import runs_argument, which

_WIDTH = 80
"""Columns where there is no terminal to ask."""


def _with_suffix(context: click.Context, option: click.Parameter, out: Path | None) -> Path | None:
    """Refuses what cannot be drawn before anything is read."""
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
@click.option("--where", metavar="EXPR", help="Only runs for which this is true: 'config.lr < 0.1'.")
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
    from . import output

    most = curves.LIMIT if limit is None else limit
    shown = which(names, where).curves(metrics, x=x, smooth=smooth, log=log, limit=most)
    if out is not None:
        from .. import layout
        from ..display import figure
        from ..errors import RunctxError

        try:
            picture = figure.as_bytes(figure.draw(shown, paper=True), out.suffix.lower())
            layout.write_atomically(out, picture)
        except OSError as error:
            raise RunctxError(f"{out}: cannot be written: {error.strerror or error}") from error
    if as_json:
        output.json(shown.to_dict(), one_line=True)
    elif out is None:
        from ..display.chart import Chart

        output.show(Chart(shown, None if output.is_read_by_a_human() else _WIDTH))


COMMANDS: tuple[Any, ...] = (plot,)
