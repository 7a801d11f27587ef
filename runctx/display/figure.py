"""Draw curves as a picture with matplotlib, without its global state."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from . import words
from .curves import COLOURS, Curve, Curves, Numbers, drawable, thinned, time_unit

FORMATS = (".png", ".svg", ".pdf")
_WIDTH, _PANEL, _LINE = 8.0, 3.4, 0.21
"""Of the picture, of a panel, and the height of a line of the legend; inches."""
_COLUMNS = 1_600
"""Into which a panel is divided before points are left out: more than it has pixels."""
_STYLES = ("-", "--", ":", "-.")
"""One for each round of the colours."""
_LARGE = 1e200
"""Beyond it values are divided by a number that the axis names: matplotlib takes the difference of two of them."""
_FEW = 40
"""Points of a curve that are marked each."""
_DATES: dict[str, dict[str, Any]] = {".png": {}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}


class Picture(Figure):
    """A figure of matplotlib that notebooks show, whether or not pyplot is loaded."""

    def _repr_png_(self) -> bytes:
        return as_bytes(self, ".png", dpi=100)  # as wide as a page; notebooks keep it


def draw(curves: Curves, *, paper: bool = False) -> Picture:
    """A panel for each metric; the runs, or their tasks, below, beneath the axes, so that they hide nothing.

    Parameters
    ----------
    paper: black on white; default: grey on no ground, which is read on light and on dark pages. A style of matplotlib's
        that the user has chosen stays.
    """
    said = len(curves.labels) + len(curves.notes)
    height = _PANEL * len(curves.metrics) + _LINE * said + 0.2 * bool(said)
    with _settings(), mpl.rc_context({} if paper or _has_style() else _NEUTRAL):
        figure = Picture(figsize=(_WIDTH, height), layout="constrained")
        figure.get_layout_engine().set(w_pad=0.1, h_pad=0.1)  # type: ignore[union-attr, call-arg]
        panels = figure.subplots(len(curves.metrics), 1, sharex=True, squeeze=False)[:, 0]
        for axes, metric in zip(panels, curves.metrics, strict=True):
            _panel(axes, curves, metric)
        _across(panels[-1], curves)
        if said:
            _legend(figure, curves)
    return figure


def as_bytes(figure: Figure, suffix: str, dpi: int = 150) -> bytes:
    """The same for the same curves, whenever it is drawn.

    Parameters
    ----------
    suffix: one of `FORMATS`.
    dpi: points of a PNG in an inch.
    """
    stream = io.BytesIO()
    with _settings(), warnings.catch_warnings():
        # a name in a script that the font does not have is no fault of the reader's
        warnings.filterwarnings("ignore", r"Glyph .* missing from", UserWarning)
        figure.savefig(stream, format=suffix[1:], dpi=dpi, metadata=_DATES[suffix])
    return stream.getvalue()


_INK = "#7b7b7b"
_NEUTRAL: Any = {
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), _INK),
    **dict.fromkeys(("figure.facecolor", "axes.facecolor"), "none"),
}


def _has_style() -> bool:
    return any(mpl.rcParams[name] != mpl.rcParamsDefault[name] for name in _NEUTRAL)


@contextmanager
def _settings() -> Iterator[None]:
    """Nothing is given to TeX, which would execute it; names inside an SVG do not change from day to day."""
    with mpl.rc_context({"text.usetex": False, "svg.hashsalt": "runctx"}):
        yield


def _panel(axes: Axes, curves: Curves, metric: str) -> None:
    shown = curves.of(metric)
    largest = max((np.nanmax(np.abs(one.y), initial=0.0) for one in shown), default=0.0)
    unit = 1e100 if largest > _LARGE else 1.0
    axes.set_ylabel(words.short(metric, 40) + " / 1e100" * (unit > 1), parse_math=False)
    axes.grid(alpha=0.25)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if curves.log:
        axes.set_yscale("log")
    for curve in shown:
        if curves.smooth:
            raw = drawable(curve.raw, curves.log)
            _line(axes, curve, raw / unit, curves, alpha=0.25, linewidth=0.8)
        _line(axes, curve, curve.y / unit, curves)


def _line(axes: Axes, curve: Curve, y: Numbers, curves: Curves, **style: Any) -> None:
    x, y = thinned(curve.x, y, _COLUMNS)
    there = np.pad(~np.isnan(y), 1)
    alone = there[1:-1] & ~(there[:-2] | there[2:])
    marked = there[1:-1] if len(x) <= _FEW else alone
    across = (x * 1e6).astype("datetime64[us]") if curves.axis == "time" else x
    given = {**_style(curve.line), "marker": ".", "markevery": np.flatnonzero(marked).tolist(), **style}
    axes.plot(across, y, **given)


def _style(line: int) -> dict[str, Any]:
    around, number = divmod(line, len(COLOURS))
    return {"color": COLOURS[number], "linestyle": _STYLES[around % len(_STYLES)], "linewidth": 1.5}


def _across(axes: Axes, curves: Curves) -> None:
    axes.set_xlabel(str(curves.axis))
    if curves.axis == "step":
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    elif curves.axis == "time":
        zone = datetime.now().astimezone().tzinfo
        locator = AutoDateLocator(tz=zone)  # type: ignore[no-untyped-call]
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, tz=zone))  # type: ignore[no-untyped-call]
        axes.set_xlabel("local time")
    else:
        left, right = axes.get_xlim()
        scale, name = time_unit(right - left)
        axes.set_xlabel(f"{name} since the first point")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value / scale:g}")


def _legend(figure: Figure, curves: Curves) -> None:
    lines = [Line2D([], [], **_style(line)) for line in range(len(curves.labels))]
    notes = [Line2D([], [], linestyle="none") for _ in curves.notes]
    said = [*curves.labels, *curves.notes]
    legend = figure.legend(
        [*lines, *notes], [""] * len(said), loc="outside lower left", frameon=False, fontsize=9
    )
    for text, what in zip(legend.get_texts(), said, strict=True):
        text.set_parse_math(False)
        text.set_text(words.short(what, 110))  # given at once, what begins with "_" would be left out
