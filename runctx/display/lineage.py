"""Show the runs that a run was made from: as a tree in a terminal, as one self-contained SVG in a notebook.

The picture has earlier runs to the left. Layers by the longest way, order in a layer by the mean of the neighbours, as
in Sugiyama, Tagawa and Toda, "Methods for visual understanding of hierarchical system structures" (1981). An arrow over
several layers takes a place of its own in each, so that it passes between the boxes.
"""

from __future__ import annotations

import html
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import PurePosixPath
from typing import NamedTuple

from rich.text import Text
from rich.tree import Tree

from . import words
from .table import GREY, colour, status

UNKNOWN = "not told of"
"""The status of a run that is named, and of which no lock tells."""
MOST = 150
"""Runs in one picture, the nearest."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Node:
    """A run."""

    status: str = UNKNOWN
    stage: str = ""
    started: datetime | None = None
    commit: str = ""
    """As `words.commit` writes it."""
    data: tuple[tuple[str, str], ...] = ()
    """Path and digest of each input that no run has made."""


class Edge(NamedTuple):
    """`child` read from `parent`."""

    parent: str
    """Id of a run."""
    child: str
    read: tuple[tuple[str, str], ...] = ()
    """Path, below the parent's folder, and digest of each input."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Lineage:
    """A run and all before it.

    Parameters
    ----------
    root: id of the run.
    nodes: id -> what is known of it; of the root and those before it.
    edges: the nearest first; they have no circles.
    """

    root: str
    nodes: Mapping[str, Node]
    edges: Sequence[Edge]

    def tree(self) -> Tree:
        """The run, below it what it read; a run that several read from is shown once.

        A chain of runs that each read from one other stays in one column, however deep it is.
        """
        above: dict[str, list[Edge]] = {}
        for edge in self.edges:
            above.setdefault(edge.child, []).append(edge)
        root = Tree(self._label(self.root), guide_style="dim")
        self._add_data(root, self.root)
        first = above.get(self.root, [])
        pending, seen = [(edge, root, len(first) == 1, False) for edge in reversed(first)], {self.root}
        while pending:  # in the order in which it is printed: "as above" is true
            edge, tree, only, below = pending.pop()
            label = self._label(edge.parent)
            if below:
                label.append("  read by the run above", "dim")
            for path, digest in edge.read:
                label.append(f"\nread {words.line(path)}  {words.line(digest)}", "dim")
            if edge.parent in seen:
                tree.add(label.append("\nas above", "dim"))
                continue
            seen.add(edge.parent)
            branch = tree.add(label)
            self._add_data(branch, edge.parent)
            further = above.get(edge.parent, [])
            chain = only and len(further) == 1
            pending += [
                (one, tree if chain else branch, len(further) == 1, chain) for one in reversed(further)
            ]
        return root

    def _label(self, id: str) -> Text:
        node = self.nodes.get(id, Node())
        label = Text.assemble((words.line(id, 80), "bold"), "  ")
        if node.status == UNKNOWN:
            return label.append(UNKNOWN, "dim")
        label.append_text(status(node.status))
        return label.append(f"  commit {node.commit}" if node.commit else "", "dim")

    def _add_data(self, tree: Tree, id: str) -> None:
        for path, digest in self.nodes.get(id, Node()).data:
            tree.add(Text.assemble(words.line(path), (f"  {words.line(digest)}", "dim")))

    def picture(self) -> str:
        """The text of an SVG element; text takes the page's colours."""
        shown = list(dict.fromkeys((self.root, *(edge.parent for edge in self.edges))))[:MOST]
        there = set(shown)
        edges = [edge for edge in self.edges if edge.parent in there and edge.child in there]
        boxes, ways = _places(shown, edges)
        layers = _layers(boxes, ways)
        height, width = _stack(layers), 2 * _MARGIN + len(layers) * (_WIDTH + _ACROSS) - _ACROSS
        parts = [part for edge, way in ways for part in _arrow(edge, way)]
        parts += [part for id, box in boxes.items() for part in _box(box, id, self.nodes.get(id, Node()))]
        if (hidden := len(self.nodes) - len(shown)) > 0:
            parts.append(_label(_MARGIN, height + 12, f"… {hidden} earlier runs more", opacity=0.65))
            height += 20
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height:.0f}" '
            f'viewBox="0 0 {width} {height:.0f}" role="img" aria-label="{_text(f"lineage of {self.root}", 200)}" '
            f'font-family="system-ui, sans-serif" font-size="12" fill="currentColor">{"".join(parts)}</svg>'
        )


# -- where everything goes ---------------------------------------------------------------------------------

_WIDTH, _HEIGHT, _LANE = 178, 58, 12
"""Of a box, and the height of an arrow's place between boxes; pixels."""
_ACROSS, _DOWN, _PORT, _MARGIN = 180, 20, 17, 8
"""Between layers, between boxes of a layer, between arrows into one box, around everything; pixels."""
_SWEEPS = 6


@dataclass(eq=False, slots=True)
class _Place:
    """A box, or where an arrow passes a layer."""

    layer: int
    height: float = _LANE
    y: float = 0
    """Of the middle."""
    before: list[_Place] = field(default_factory=list)
    after: list[_Place] = field(default_factory=list)

    @property
    def x(self) -> float:
        return _MARGIN + self.layer * (_WIDTH + _ACROSS)


_Ways = list[tuple[Edge, list[_Place]]]


def _places(shown: Sequence[str], edges: Sequence[Edge]) -> tuple[dict[str, _Place], _Ways]:
    depth = _depths(shown, edges)
    boxes = {id: _Place(depth[id], _HEIGHT) for id in shown}
    ways = []
    for edge in edges:
        start, end = boxes[edge.parent], boxes[edge.child]
        way = [start, *map(_Place, range(start.layer + 1, end.layer)), end]
        for one, following in itertools.pairwise(way):
            one.after.append(following)
            following.before.append(one)
        ways.append((edge, way))
    for box in boxes.values():
        box.height = max(_HEIGHT, _PORT * (len(box.before) + 1))
    return boxes, ways


def _depths(shown: Sequence[str], edges: Sequence[Edge]) -> dict[str, int]:
    """The longest way to each run from one that has nothing before it."""
    missing = Counter(edge.child for edge in edges)
    depth = dict.fromkeys(shown, 0)
    after: dict[str, list[str]] = {id: [] for id in shown}
    for edge in edges:
        after[edge.parent].append(edge.child)
    ready = [id for id in shown if not missing[id]]
    for id in ready:  # it grows meanwhile
        for child in after[id]:
            depth[child] = max(depth[child], depth[id] + 1)
            missing[child] -= 1
            ready += [child] * (not missing[child])
    return depth


def _layers(boxes: Mapping[str, _Place], ways: _Ways) -> list[list[_Place]]:
    """Places by layer; those of one layer ordered so that few arrows cross."""
    layers: list[list[_Place]] = [[] for _ in range(max(box.layer for box in boxes.values()) + 1)]
    for place in dict.fromkeys((*boxes.values(), *(place for _, way in ways for place in way))):
        layers[place.layer].append(place)
    rank = {place: float(i) for layer in layers for i, place in enumerate(layer)}
    for sweep in range(_SWEEPS):
        for layer in reversed(layers) if sweep % 2 else layers:
            beside = {place: place.after if sweep % 2 else place.before for place in layer}
            mean = {p: sum(map(rank.__getitem__, b)) / len(b) if b else rank[p] for p, b in beside.items()}
            layer.sort(key=mean.__getitem__)
            rank.update((place, i) for i, place in enumerate(layer))
    return layers


def _stack(layers: Sequence[Sequence[_Place]]) -> float:
    """Sets each place's y; returns the height of everything."""
    heights = [sum(place.height for place in layer) + _DOWN * (len(layer) - 1) for layer in layers]
    for layer, height in zip(layers, heights, strict=True):
        top = _MARGIN + (max(heights) - height) / 2
        for place in layer:
            place.y = top + place.height / 2
            top += place.height + _DOWN
    return max(heights) + 2 * _MARGIN


# -- how it is drawn ---------------------------------------------------------------------------------------


def _arrow(edge: Edge, way: Sequence[_Place]) -> Iterator[str]:
    start, end = way[0], way[-1]
    ports = sorted(end.before, key=lambda place: place.y)
    y = end.y - end.height / 2 + end.height * (ports.index(way[-2]) + 1) / (len(ports) + 1)
    label = _cut(_inputs(edge.read), 20)
    x, at = start.x + _WIDTH, start.y
    path = f"M{x} {at:.1f}"
    for place in way[1:]:
        # the end is straight, as far as the label is long, and no curve crosses a label
        to, there = (end.x - 6 * len(label) - 14, y) if place is end else (place.x, place.y)
        half = (x + to) / 2
        path += f"C{half:.1f} {at:.1f} {half:.1f} {there:.1f} {to:.1f} {there:.1f}H{place.x}"
        path += f"H{place.x + _WIDTH}" * (place is not end)
        x, at = place.x + _WIDTH, there
    names = ", ".join(words.line(path, 200) for path, _ in edge.read)
    yield f'<g><title>{_text(names or "read", 2_000)}</title><path d="{path}" fill="none" stroke="{GREY}"/>'
    yield f'<path d="M{end.x} {y:.1f}l-7 -3.5v7z" fill="{GREY}"/>'
    yield _label(end.x - 10, y - 4, label, size=10, anchor="end", opacity=0.8)
    yield "</g>"


def _inputs(read: Sequence[tuple[str, str]]) -> str:
    if not read:
        return ""
    first = words.line(PurePosixPath(read[0][0]).name or read[0][0], 60)
    return first + f" +{len(read) - 1}" * (len(read) > 1)


def _box(box: _Place, id: str, node: Node) -> Iterator[str]:
    top, x, ink = box.y - box.height / 2, box.x, colour(node.status)
    dashed = ' stroke-dasharray="4 3"' if node.status == UNKNOWN else ""
    yield f"<g><title>{_text(f'{id}: {node.status}', 300)}</title>"
    yield (
        f'<rect x="{x}" y="{top:.1f}" width="{_WIDTH}" height="{box.height:.1f}" rx="5" fill="{ink}" '
        f'fill-opacity="0.1" stroke="{ink}"{dashed}/>'
    )
    yield _label(x + 10, box.y - 12, _cut(words.line(node.stage or id), 24), weight="bold")
    yield f'<circle cx="{x + 14}" cy="{box.y + 2}" r="4" fill="{ink}"/>'
    yield _label(x + 23, box.y + 6, _cut(node.status, 22), size=11)
    if node.started is not None:
        yield _label(x + 10, box.y + 22, words.date(node.started), size=10, opacity=0.7)
        yield _label(x + _WIDTH - 10, box.y + 22, node.commit, size=10, anchor="end", opacity=0.7)
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
