"""How is a lineage drawn? One self-contained SVG: earlier runs to the left, arrows along what was read.

Layers by the longest way, order in a layer by the mean of the neighbours, as in Sugiyama, Tagawa and Toda,
"Methods for visual understanding of hierarchical system structures" (1981). An arrow over several layers
takes a place of its own in each, so that it passes between the boxes.
"""

from __future__ import annotations

import html
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from ..model import Lock
from ..past.lineage import Edge, edges, known_runs
from . import words

MOST = 150
"""Runs in one picture, the nearest."""

_WIDTH, _HEIGHT, _LANE = 178, 58, 12
"""Of a box, and the height of an arrow's place between boxes; pixels."""
_ACROSS, _DOWN, _PORT, _MARGIN = 180, 20, 17, 8
"""Between layers, between boxes of a layer, between arrows into one box, around everything; pixels."""
_SWEEPS = 6


@dataclass(eq=False, slots=True)
class _Place:
    """A box, or (without a run) where an arrow passes a layer."""

    layer: int
    run: str | None = None
    height: float = _LANE
    y: float = 0
    """Of the middle."""
    before: list[_Place] = field(default_factory=list)
    after: list[_Place] = field(default_factory=list)

    @property
    def x(self) -> float:
        return _MARGIN + self.layer * (_WIDTH + _ACROSS)


def picture(lock: Lock, statuses: Mapping[str, str], colours: Mapping[str, str], grey: str) -> str:
    """The run and those before it, as the text of an SVG element.

    Parameters
    ----------
    statuses: by id. colours: of each status; `grey`: of any other.
    """
    known, arrows = known_runs(lock), edges(lock)
    shown = list(dict.fromkeys((lock.id, *(edge.parent for edge in arrows))))[:MOST]
    arrows = tuple(edge for edge in arrows if edge.parent in set(shown) and edge.child in set(shown))
    boxes, ways = _places(shown, arrows)
    layers = _layers(boxes, ways)
    _order(layers)
    height = _stack(layers)
    width = 2 * _MARGIN + len(layers) * (_WIDTH + _ACROSS) - _ACROSS

    parts = [part for edge, way in ways for part in _arrow(edge, way, grey)]
    for id, box in boxes.items():
        status = statuses.get(id, known[id].status if id in known else "not told of")
        parts += _box(box, id, known.get(id), status, colours.get(status, grey))
    hidden = len(known) - len(shown)
    if hidden > 0:
        parts.append(_label(_MARGIN, height + 12, f"… {hidden} earlier runs more", opacity=0.65))
        height += 20
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height:.0f}" '
        f'viewBox="0 0 {width} {height:.0f}" role="img" aria-label="{_text(f"lineage of {lock.id}", 200)}" '
        f'font-family="system-ui, sans-serif" font-size="12" fill="currentColor">{"".join(parts)}</svg>'
    )


# -- where everything goes ---------------------------------------------------------------------------------

_Ways = list[tuple[Edge, list[_Place]]]


def _places(shown: list[str], arrows: tuple[Edge, ...]) -> tuple[dict[str, _Place], _Ways]:
    layer = _depths(shown, arrows)
    boxes = {id: _Place(layer[id], id, _HEIGHT) for id in shown}
    ways = []
    for edge in arrows:
        start, end = boxes[edge.parent], boxes[edge.child]
        way = [start, *(_Place(between) for between in range(start.layer + 1, end.layer)), end]
        for one, next_one in itertools.pairwise(way):
            one.after.append(next_one)
            next_one.before.append(one)
        ways.append((edge, way))
    for box in boxes.values():
        box.height = max(_HEIGHT, _PORT * (len(box.before) + 1))
    return boxes, ways


def _depths(shown: list[str], arrows: tuple[Edge, ...]) -> dict[str, int]:
    """Longest way to each run from one that has nothing before it; `edges` has no circles."""
    after: dict[str, list[str]] = {id: [] for id in shown}
    missing = dict.fromkeys(shown, 0)
    for edge in arrows:
        after[edge.parent].append(edge.child)
        missing[edge.child] += 1
    depth = dict.fromkeys(shown, 0)
    ready = [id for id in shown if not missing[id]]
    for id in ready:
        for child in after[id]:
            depth[child] = max(depth[child], depth[id] + 1)
            missing[child] -= 1
            if not missing[child]:
                ready.append(child)
    return depth


def _layers(boxes: Mapping[str, _Place], ways: _Ways) -> list[list[_Place]]:
    layers: list[list[_Place]] = [[] for _ in range(max(box.layer for box in boxes.values()) + 1)]
    for place in dict.fromkeys((*boxes.values(), *(place for _, way in ways for place in way))):
        layers[place.layer].append(place)
    return layers


def _order(layers: list[list[_Place]]) -> None:
    for sweep in range(_SWEEPS):
        rank = {place: i for layer in layers for i, place in enumerate(layer)}
        forward = sweep % 2 == 0
        for layer in layers if forward else reversed(layers):

            def mean(place: _Place, forward: bool = forward, rank: dict[_Place, int] = rank) -> float:
                beside = place.before if forward else place.after
                return sum(rank[one] for one in beside) / len(beside) if beside else rank[place]

            layer.sort(key=mean)
            rank.update((place, i) for i, place in enumerate(layer))


def _stack(layers: list[list[_Place]]) -> float:
    """Sets each place's y; returns the height of everything."""
    tall = [sum(place.height for place in layer) + _DOWN * (len(layer) - 1) for layer in layers]
    for layer, height in zip(layers, tall, strict=True):
        top = _MARGIN + (max(tall) - height) / 2
        for place in layer:
            place.y = top + place.height / 2
            top += place.height + _DOWN
    return max(tall) + 2 * _MARGIN


# -- how it is drawn ---------------------------------------------------------------------------------------


def _arrow(edge: Edge, way: list[_Place], grey: str) -> Iterator[str]:
    start, end = way[0], way[-1]
    ports = sorted(end.before, key=lambda place: place.y)
    y = end.y - end.height / 2 + end.height * (ports.index(way[-2]) + 1) / (len(ports) + 1)
    label = _cut(words.inputs(edge.inputs), 20)
    path = f"M{start.x + _WIDTH} {start.y:.1f}"
    x, at = start.x + _WIDTH, start.y
    for place in way[1:]:
        # the end is straight, as far as the label is long, and no curve crosses a label
        to, there = (end.x - 6 * len(label) - 14, y) if place is end else (place.x, place.y)
        half = (x + to) / 2
        path += f"C{half:.1f} {at:.1f} {half:.1f} {there:.1f} {to:.1f} {there:.1f}H{place.x}"
        if place is not end:
            path += f"H{place.x + _WIDTH}"
        x, at = place.x + _WIDTH, there
    names = ", ".join(words.line(data.path, 200) for data in edge.inputs)
    yield f'<g><title>{_text(names or "read", 2_000)}</title><path d="{path}" fill="none" stroke="{grey}"/>'
    yield f'<path d="M{end.x} {y:.1f}l-7 -3.5v7z" fill="{grey}"/>'
    yield _label(end.x - 10, y - 4, label, size=10, anchor="end", opacity=0.8)
    yield "</g>"


def _box(box: _Place, id: str, lock: Lock | None, status: str, colour: str) -> Iterator[str]:
    top, x = box.y - box.height / 2, box.x
    dashed = ' stroke-dasharray="4 3"' if lock is None else ""
    yield f"<g><title>{_text(f'{id}: {status}', 300)}</title>"
    yield (
        f'<rect x="{x}" y="{top:.1f}" width="{_WIDTH}" height="{box.height:.1f}" rx="5" fill="{colour}" '
        f'fill-opacity="0.1" stroke="{colour}"{dashed}/>'
    )
    middle = box.y
    yield _label(x + 10, middle - 12, _cut(words.line(lock.stage if lock else id), 24), weight="bold")
    yield f'<circle cx="{x + 14}" cy="{middle + 2}" r="4" fill="{colour}"/>'
    yield _label(x + 23, middle + 6, _cut(status, 22), size=11)
    if lock is not None:
        yield _label(x + 10, middle + 22, words.date(lock.started), size=10, opacity=0.7)
        commit = words.commit(lock.source.commit, lock.source.dirty)
        yield _label(x + _WIDTH - 10, middle + 22, commit, size=10, anchor="end", opacity=0.7)
    yield "</g>"


def _label(
    x: float,
    y: float,
    text: str,
    *,
    size: int = 12,
    anchor: str = "start",
    weight: str = "normal",
    opacity: float = 1,
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" font-weight="{weight}" '
        f'opacity="{opacity}">{_text(text, 100)}</text>'
    )


def _cut(text: str, longest: int) -> str:
    """In the middle, as both ends of a file name tell."""
    if len(text) <= longest:
        return text
    return f"{text[: longest // 2]}…{text[-(longest - longest // 2 - 1) :]}"


def _text(text: str, longest: int) -> str:
    return html.escape(words.line(text, longest))
