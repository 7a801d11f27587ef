"""How is a run shown in a notebook? Text that takes the page's colours, in the light and in the dark."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence

from ..model import Lock
from ..notes import NO_NOTES, Notes
from ..past.columns import Column
from ..past.row import Row
from . import tasks, words
from .beside import beside, usual_metrics
from .differences import shown
from .listing import differing
from .picture import picture

# of medium brightness: they stand out on white and on black
COLOURS = {
    "running": "#3b82d6",
    "submitted": "#1a9ba1",
    "done": "#2f9e57",
    "failed": "#d9483b",
    "crashed": "#d9483b",
    "interrupted": "#c9831a",
    "retried": "#c9831a",
    "broken": "#b04fc4",
}
_GREY = "#8a8a8a"
_CELL = "padding:2px 10px 2px 0;text-align:left;vertical-align:top;white-space:nowrap"
_WIDE = f"{_CELL};white-space:normal;overflow-wrap:anywhere;min-width:12em"
"""What differs may take several lines, so that the page need not be moved sideways."""
NUMBERS = "white-space:pre;font-variant-numeric:tabular-nums;font-family:monospace"
"""Of cells whose numbers stand point below point."""
_MOST = 12
"""Values of a configuration, inputs and outputs that are shown."""


def run_html(
    lock: Lock,
    shown_status: str,
    failed: Mapping[str, Sequence[str]] | None = None,
    notes: Notes = NO_NOTES,
) -> str:
    """A run: what one looks for first.

    Parameters
    ----------
    failed: map -> short texts of tasks that failed.
    notes: its tags and its note.
    """
    lines = "".join(
        f'<tr><td style="{_CELL};opacity:.65">{name}</td>'
        f'<td style="{_CELL};white-space:normal">{content}</td></tr>'
        for name, content in _lines(lock, failed or {}, notes)
    )
    return (
        f'<div style="border-left:3px solid {_colour(shown_status)};padding-left:10px">'
        f"<b>{_text(lock.id)}</b> &nbsp;{status(shown_status)}"
        f'<table style="margin:4px 0 0 0;border-collapse:collapse">{lines}</table></div>'
    )


def runs_html(
    rows: Sequence[Row], most: int | None = None, besides: Sequence[Column] = (), hints: Sequence[str] = ()
) -> str:
    """A table of runs.

    Parameters
    ----------
    rows: all that were found. most: how many are shown; None: all.
    besides: what is shown of each run before its metrics.
    hints: sentences that are said below.
    """
    if not rows:
        return _notes("<div>no runs</div>", hints)
    told, total, rows = differing(rows, most, besides), len(rows), rows[:most]
    more = beside(rows, [*besides, *usual_metrics(rows, besides)])
    names = ("run", "status", "started", "took", "commit", *more.heads, "differs in")
    head = "".join(f'<th style="{_CELL}">{_text(name)}</th>' for name in names)
    body = "".join(map(_row, rows, more.of_rows, told.of_rows))
    notes = [f"… {total - len(rows)} more"] * (total > len(rows)) + told.notes
    notes += [words.DIRTY] * any(row.dirty for row in rows)
    table = (
        f'<table style="border-collapse:collapse"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    )
    return _notes(table, (*notes, *hints))


def _notes(table: str, notes: Sequence[str]) -> str:
    below = "".join(f'<div style="opacity:.65">{_text(note)}</div>' for note in notes)
    return f'<div style="overflow-x:auto">{table}{below}</div>'


def lineage_html(lock: Lock, statuses: Mapping[str, str]) -> str:
    """A run and all before it, as a picture."""
    return f'<div style="overflow-x:auto">{picture(lock, statuses, COLOURS, _GREY)}</div>'


def _lines(lock: Lock, failed: Mapping[str, Sequence[str]], notes: Notes) -> Iterator[tuple[str, str]]:
    if lock.error is not None:
        told = f"{lock.error.type.removeprefix('builtins.')}: {lock.error.message}"
        yield "error", f'<span style="color:{COLOURS["failed"]}">{_text(told)}</span>'
    if notes.tags:
        yield "tags", _several(notes.tags)
    if notes.note:
        yield "note", _below(notes.note.splitlines())
    duration = f", took {words.took(lock.seconds)}" if lock.seconds is not None else ""
    again = f", resumed {words.date(lock.resumed)}" if lock.resumed is not None else ""
    yield "started", _text(words.date(lock.started) + again + duration)
    yield "folder", _text(lock.save_dir)
    if lock.tasks:
        which = (tasks.failed(one, failed.get(one.name, one.failed_keys[:_MOST])) for one in lock.tasks)
        lines = [f"{tasks.entry(one)} {some}" for one, some in zip(lock.tasks, which, strict=True)]
        yield "tasks", _below(lines)
    if lock.sessions:
        yield "sessions", _below([tasks.session(one) for one in lock.sessions])
    if lock.source.commit:
        branch = f" on {lock.source.branch}" if lock.source.branch else ""
        yield "commit", _text(words.commit(lock.source.commit, lock.source.dirty) + branch)
    if lock.config:
        yield (
            "config",
            _several([f"{key}={words.short(value, 40)}" for key, value in words.leaves(lock.config)]),
        )
    if lock.metrics:
        numbers = words.metrics(lock.metrics)
        yield (
            "metrics",
            _below([f"{name} {last}" + f" ({rest})" * bool(rest) for name, last, rest in numbers]),
        )
    for name, items in (("inputs", lock.inputs), ("outputs", lock.outputs)):
        if items:
            yield name, _several([f"{data.path} ({words.size(data.bytes)})" for data in items])
    if lock.parent:
        yield "inside", _several([lock.parent])
    if lock.parents:
        yield "upstream", _several(lock.parents)
    if lock.omissions:
        yield "omissions", _several([f"{omission.what}: {omission.why}" for omission in lock.omissions])


def _row(row: Row, more: Sequence[str], values: Mapping[str, str]) -> str:
    cells = [
        _text(words.told(row)),
        status(row.status) + _text(words.share(row)),
        _text(words.when(row.started)),
        _text(words.took(row.seconds)),
        _text(words.commit(row.commit, row.dirty)),
    ]
    last = _text(" ".join(filter(None, (*words.tags(row), words.error(row), *shown(values)))))
    narrow = "".join(f'<td style="{_CELL}">{cell}</td>' for cell in cells)
    narrow += "".join(f'<td style="{_CELL};{NUMBERS}">{_text(one)}</td>' for one in more)
    return f'<tr>{narrow}<td style="{_WIDE}">{last}</td></tr>'


def _several(items: Sequence[str]) -> str:
    more = f" … {len(items) - _MOST} more" if len(items) > _MOST else ""
    return ", ".join(_text(item) for item in items[:_MOST]) + more


def _below(items: Sequence[str]) -> str:
    """A line each."""
    more = [f"… {len(items) - _MOST} more"] * (len(items) > _MOST)
    return "".join(f"<div>{_text(item)}</div>" for item in (*items[:_MOST], *more))


def status(name: str) -> str:
    """In its colour."""
    return f'<span style="color:{_colour(name)}">{_text(name)}</span>'


def _colour(status: str) -> str:
    return COLOURS.get(status, _GREY)


def _text(given: str) -> str:
    return html.escape(words.line(given, 400))
