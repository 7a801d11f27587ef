"""Write to stdout: in the width of the terminal, for a pipe line by line, or as JSON."""

from __future__ import annotations

import json as encoder
import math
import os
import sys
from collections.abc import Iterable
from typing import Any

import click

_NO_WRAPPING = 100_000
"""Columns of what is no terminal: a line that a program reads must not be broken."""


def show(shown: Any) -> None:
    """Coloured if stdout is a terminal and NO_COLOR is not set."""
    from rich.console import Console

    width = None if is_read_by_a_human() else _NO_WRAPPING
    console = Console(width=width, highlight=False, markup=False, emoji=False, soft_wrap=False)
    with console.capture() as captured:
        console.print(shown, crop=False)
    for line in captured.get().rstrip("\n").split("\n"):
        click.echo(line.rstrip(), color=True)


def hints(sentences: Iterable[str]) -> None:
    """Hints on stderr."""
    from ..display import words

    for sentence in sentences:
        click.echo(f"hint: {words.line(sentence)}", err=True)


def is_read_by_a_human() -> bool:
    """True if stdout is a terminal, or COLUMNS says how wide one is."""
    return sys.stdout.isatty() or bool(os.environ.get("COLUMNS"))


def json(data: Any, *, one_line: bool = False) -> None:
    """ASCII only, so that no text of a lock reaches the terminal as it is."""
    click.echo(encoder.dumps(_valid(data), indent=None if one_line else 2, default=str))


def _valid(data: Any) -> Any:
    if isinstance(data, float) and not math.isfinite(data):
        return str(data)  # JSON has no such number
    if isinstance(data, dict):
        return {_valid_key(key): _valid(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [_valid(value) for value in data]
    return data


def _valid_key(key: Any) -> Any:
    """A lock that is not ours may have a date or bytes for a key."""
    return key if key is None or isinstance(key, (str, int, float)) else str(key)
