"""What is said of a run in TensorBoard's pages TEXT and HPARAMS? Functions of its lock."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ...display.words import leaves
from ...notes import NO_NOTES, Notes

if TYPE_CHECKING:
    from ...model import Lock
    from ...past.row import Shown

LONGEST = 2_000
"""Characters of one value; the run's folder has all of them."""


def texts(run: Lock, status: Shown, notes: Notes = NO_NOTES) -> dict[str, str]:
    """Title -> Markdown."""
    found = {"run": _table("", "", _facts(run, status, notes))}
    if run.config:
        found["config"] = _table("key", "value", ((key, str(value)) for key, value in leaves(run.config)))
    if run.error is not None:
        lines = f"{run.error.type}: {run.error.message}\n\n{run.error.traceback}".splitlines()
        found["error"] = "\n".join(f"    {line}" for line in lines)
    return found


def _facts(run: Lock, status: Shown, notes: Notes) -> Iterator[tuple[str, str]]:
    source = run.source
    yield "id", run.id
    yield "status", status
    for tag in notes.tags:
        yield "tag", tag
    if notes.note:
        yield "note", notes.note
    yield "started", f"{run.started:%Y-%m-%d %H:%M:%S %Z}"
    if run.seconds is not None:
        yield "seconds", f"{run.seconds:.1f}"
    yield "folder", run.save_dir
    yield "command", shlex.join(run.command.argv)
    yield "host", run.command.host
    if source.commit:
        yield "commit", source.commit + " (the work tree differed from HEAD)" * source.dirty
    if source.branch:
        yield "branch", source.branch
    if source.repository:
        yield "repository", source.repository
    if run.seed is not None:
        yield "seed", str(run.seed)
    for parent in run.parents:
        yield "parent", parent
    for data in run.inputs:
        yield "input", f"{data.path}: {data.digest or 'not hashed'}"
    for entry in run.tasks:
        yield f"tasks of {entry.name}", f"{entry.done} of {entry.total} done, {entry.failed} failed"
    for omission in run.omissions:
        yield "left out", f"{omission.what}: {omission.why}"


def parameters(config: Mapping[Any, Any]) -> dict[str, bool | float | str]:
    """Dotted key -> value, of the kinds there are for parameters.

    >>> parameters({"opt": {"lr": 0.1}, "sizes": [1, 2], "much": float("inf")})
    {'opt.lr': 0.1, 'sizes': '[1, 2]', 'much': 'inf'}
    """
    return {key: value if _is_number(value) else str(value)[:LONGEST] for key, value in leaves(config)}


def _is_number(value: Any) -> bool:
    return isinstance(value, (bool, int, float)) and abs(value) <= 1 << 53 and math.isfinite(value)


def _table(left: str, right: str, rows: Iterator[tuple[str, str]]) -> str:
    lines = [f"| {left} | {right} |", "|---|---|"]
    lines += (f"| {_cell(name)} | {_cell(value)} |" for name, value in rows)
    return "\n".join(lines)


def _cell(text: str) -> str:
    """Shown as it is, in one cell.

    >>> _cell("a|b*c")
    'a&#124;b&#42;c'
    """
    return "".join(_MARKS.get(letter, letter) for letter in text[:LONGEST])


_MARKS = {letter: f"&#{ord(letter)};" for letter in "\\`*_{}[]()<>#!|&~"} | {"\n": " ", "\r": " "}
