"""Show the runs that a run was made from: as a tree in a terminal, as one self-contained SVG in a notebook.

The picture has earlier runs to the left: layers by the longest way, ordered by the mean of the neighbours, after
Sugiyama, Tagawa and Toda, "Methods for visual understanding of hierarchical system structures" (1981).
"""

from __future__ import annotations

import html
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from pathlib import PurePosixPath
from typing import Any

from rich.text import Text
from rich.tree import Tree

from ..model import Lock
from . import words
from .table import GREY, colour, status

UNKNOWN = "not told of"
"""The status of a run that is named, but whose lock is not known."""
MOST = 150
"""Runs in one picture, the nearest."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LineageView:
    """A run and all before it.

    Parameters
    ----------
    root: id of the run.
    runs: id -> lock, as far as it is known.
    statuses: id -> status, where it is known better than the lock says.
    edges: which run (`child`) read which `inputs` of which other (`parent`): the nearest first, without circles.
    """

    root: str
    runs: Mapping[str, Lock]
    statuses: Mapping[str, str]
    edges: Sequence[Any]

    def tree(self) -> Tree:
        """The run, below it what it read; a run that several read from is shown once.

        A chain of runs that each read from one other stays in one column, however deep it is.
        """
        above: dict[str, list[Any]] = {}
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
            for data in edge.inputs:
                name = words.inside(data, self.runs.get(edge.parent))
                label.append(f"\nread {words.line(name)}  {words.digest(data)}", "dim")
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

    def _status(self, id: str) -> str:
        return self.statuses.get(id) or (self.runs[id].status if id in self.runs else UNKNOWN)

    def _label(self, id: str) -> Text:
        label = Text.assemble((words.line(id, 80), "bold"), "  ")
        if id not in self.runs:
            return label.append(UNKNOWN, "dim")
        source = self.runs[id].source
        commit = f"  commit {words.commit(source.commit, source.dirty)}" if source.commit else ""
        return label.append_text(status(self._status(id))).append(commit, "dim")

    def _add_data(self, tree: Tree, id: str) -> None:
        """The inputs that no known run has made."""
        for data in self.runs[id].inputs if id in self.runs else ():
            if data.run not in self.runs:
                tree.add(Text.assemble(words.line(data.path), (f"  {words.digest(data)}", "dim")))

    # -- picture -------------------------------------------------------------------------------------------

    def picture(self) -> str:
        """The text of an SVG element; text takes the page's colours."""
        shown = list(dict.fromkeys((self.root, *(edge.parent for edge in self.edges))))[:MOST]
        edges = [edge for edge in self.edges if edge.parent in shown and edge.child in shown]
        boxes, ways = _places(shown, edges)
        layers = _ordered([*boxes.values(), *(place for way in ways for place in way[1:-1])])
        height, width = _stack(layers), 2 * _MARGIN + len(layers) * (_WIDTH + _ACROSS) - _ACROSS
        parts = [_arrow(edge, way) for edge, way in zip(edges, ways, strict=True)]
        parts += [self._box(id, box) for id, box in boxes.items()]
        if (hidden := len(self.runs) - len(shown)) > 0:
            parts.append(_text(_MARGIN, height + 12, f"… {hidden} earlier runs more", "opacity='.65'"))
            height += 20
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height:.0f}" viewBox="0 0 {width} '
            f'{height:.0f}" role="img" aria-label="{html.escape(words.line(f"lineage of {self.root}", 200))}" '
            f'font-family="system-ui, sans-serif" font-size="12" fill="currentColor">{"".join(parts)}</svg>'
        )

    def _box(self, id: str, box: _Place) -> str:
        run, name, x, top = self.runs.get(id), self._status(id), box.x, box.y - box.height / 2
        ink = colour(name)
        dashed = ' stroke-dasharray="4 3"' if run is None else ""
        text = (
            f"<g><title>{html.escape(words.line(f'{id}: {name}', 300))}</title>"
            f'<rect x="{x}" y="{top:.1f}" width="{_WIDTH}" height="{box.height:.1f}" rx="5" fill="{ink}" '
            f'fill-opacity="0.1" stroke="{ink}"{dashed}/>'
            + _text(x + 10, box.y - 12, _cut(words.line(run.stage if run else id), 24), "font-weight='bold'")
            + f'<circle cx="{x + 14}" cy="{box.y + 2}" r="4" fill="{ink}"/>'
            + _text(x + 23, box.y + 6, _cut(name, 22), "font-size='11'")
        )
        if run is not None:
            faint, commit = "font-size='10' opacity='.7'", words.commit(run.source.commit, run.source.dirty)
            text += _text(x + 10, box.y + 22, words.date(run.started), faint)
            text += _text(x + _WIDTH - 10, box.y + 22, commit, f"text-anchor='end' {faint}")
        return text + "</g>"


_WIDTH, _HEIGHT, _LANE = 178, 58, 12
"""Of a box, and the height of an arrow's place between boxes; pixels."""
_ACROSS, _DOWN, _PORT, _MARGIN = 180, 20, 17, 8
"""Between layers, between boxes of a layer, between arrows into one box, around everything; pixels."""


@dataclass(eq=False, slots=True)
class _Place:
    """A box, or where an arrow passes a layer: so it goes between the boxes."""

    layer: int
    height: float = _LANE
    y: float = 0
    """Of the middle."""
    before: list[_Place] = field(default_factory=list)
    after: list[_Place] = field(default_factory=list)

    @property
    def x(self) -> float:
        return _MARGIN + self.layer * (_WIDTH + _ACROSS)


def _places(shown: Sequence[str], edges: Sequence[Any]) -> tuple[dict[str, _Place], list[list[_Place]]]:
    """The box of each run, and the places that each arrow passes, from box to box."""
    parents = {id: [edge.parent for edge in edges if edge.child == id] for id in shown}
    layer: dict[str, int] = {}
    for id in TopologicalSorter(parents).static_order():
        layer[id] = max((layer[parent] + 1 for parent in parents[id]), default=0)
    boxes = {id: _Place(layer[id], max(_HEIGHT, _PORT * (len(parents[id]) + 1))) for id in shown}
    ways = []
    for edge in edges:
        start, end = boxes[edge.parent], boxes[edge.child]
        ways.append([start, *map(_Place, range(start.layer + 1, end.layer)), end])
        for one, following in itertools.pairwise(ways[-1]):
            one.after.append(following)
            following.before.append(one)
    return boxes, ways


def _ordered(places: Sequence[_Place]) -> list[list[_Place]]:
    """Places by layer; those of one layer ordered so that few arrows cross."""
    layers: list[list[_Place]] = [[] for _ in range(max(place.layer for place in places) + 1)]
    for place in places:
        layers[place.layer].append(place)
    rank = {place: float(i) for layer in layers for i, place in enumerate(layer)}
    for sweep in range(6):
        for layer in reversed(layers) if sweep % 2 else layers:
            beside = {place: (place.after if sweep % 2 else place.before) or [place] for place in layer}
            layer.sort(key=lambda p: sum(rank[one] for one in beside[p]) / len(beside[p]))
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


def _arrow(edge: Any, way: Sequence[_Place]) -> str:
    end = way[-1]
    ports = sorted(end.before, key=lambda place: place.y)
    y = end.y - end.height / 2 + end.height * (ports.index(way[-2]) + 1) / (len(ports) + 1)
    names = [PurePosixPath(data.path).name or data.path for data in edge.inputs]
    label = _cut(words.line(names[0], 60) + f" +{len(names) - 1}" * (len(names) > 1), 20) if names else ""
    x, at = way[0].x + _WIDTH, way[0].y
    path = f"M{x} {at:.1f}"
    for place in way[1:]:
        # the end is straight, as far as the label is long, and no curve crosses a label
        to, there = (end.x - 6 * len(label) - 14, y) if place is end else (place.x, place.y)
        half = (x + to) / 2
        path += f"C{half:.1f} {at:.1f} {half:.1f} {there:.1f} {to:.1f} {there:.1f}H{place.x}"
        path += f"H{place.x + _WIDTH}" * (place is not end)
        x, at = place.x + _WIDTH, there
    title = html.escape(words.line(", ".join(data.path for data in edge.inputs) or "read"))
    return (
        f'<g><title>{title}</title><path d="{path}" fill="none" stroke="{GREY}"/>'
        f'<path d="M{end.x} {y:.1f}l-7 -3.5v7z" fill="{GREY}"/>'
        + _text(end.x - 10, y - 4, label, "font-size='10' text-anchor='end' opacity='.8'")
        + "</g>"
    )


def _text(x: float, y: float, text: str, style: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{html.escape(words.line(text, 100))}</text>'


def _cut(text: str, longest: int) -> str:
    """Without the middle, as both ends of a file name tell."""
    return text if len(text) <= longest else f"{text[: longest // 2]}…{text[longest // 2 + 1 - longest :]}"
