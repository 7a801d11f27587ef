"""How is a task told to people? On one line, in bounded time, without its secrets."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterable
from itertools import islice
from types import FunctionType, NoneType
from typing import Any

from ...redact import REDACTED, Redactor

_SHOWN = 6
"""Parts of a collection that are shown."""
_DEEPEST = 3
"""Collections in collections that are shown."""
_LONGEST = 1000
"""Characters, digits or parts from which on a value is not asked for its own representation."""

_READ = 20_000
"""Characters of a text that are looked through for secrets before its middle is left out."""

_SHORT = 10**15
"""From which on a number is not shown at once: of one with thousands of digits Python refuses to tell them."""

ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
"""In each process it is another."""

_redactor = Redactor()


def label(value: Any, most: int = 80, redactor: Redactor = _redactor) -> str:
    """A short text of a task: one line, no control characters, no secrets; never raises.

    A text or path is shown as it is, a combination by its name, all else much as `repr` does.

    Parameters
    ----------
    most: characters; a longer text loses its middle.
    redactor: decides what is secret.

    >>> label("images/0001.png"), label({"lr": 0.1, "api_key": "abc"}), label(range(10**9))
    ('images/0001.png', "{'lr': 0.1, 'api_key': '<redacted>'}", 'range(0, 1000000000)')
    """
    kind = type(value)
    if kind is float or (kind is int and abs(value) < _SHORT):
        return repr(value)
    try:
        text = _told(value, redactor)
    except Exception:  # what a class of the user's says of itself may fail in any way
        text = f"<{kind_of(value)}>"
    if not text.isprintable():
        text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return text if len(text) <= most else f"{text[: most // 3]}…{text[most // 3 + 1 - most :]}"


def of_task(task: Any, into: str | None, redactor: Redactor) -> str:
    """The same of a task that is set at the key `into`: nothing, if that is one of a secret.

    >>> of_task("hunter2", "api_key", Redactor()), of_task("a.png", "input", Redactor())
    ('<redacted>', 'a.png')
    """
    return REDACTED if into and redactor.is_secret(into) else label(task, redactor=redactor)


def kind_of(value: Any) -> str:
    """What its class is called, without `builtins`.

    >>> import datetime
    >>> kind_of(1), kind_of(datetime.date.today())
    ('int', 'datetime.date')
    """
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _told(value: Any, redactor: Redactor) -> str:
    if isinstance(value, (str, os.PathLike)):
        return _cut(redactor.text(os.fsdecode(value)[:_READ]))
    name = getattr(value, "name", None) if isinstance(value, dict) else None
    if isinstance(name, str) and name:  # of a combination
        return redactor.text(_cut(name))
    return redactor.text(_brief(value, redactor, _DEEPEST))


def _brief(value: Any, redactor: Redactor, depth: int) -> str:
    kind = type(value)
    if kind in (float, bool, NoneType):
        return repr(value)
    if isinstance(value, (str, bytes, bytearray)):
        return _cut(redactor.text(repr(value[:_READ])))
    if isinstance(value, int) and value.bit_length() > _LONGEST:
        return f"<{kind_of(value)} of {value.bit_length()} bits>"
    if isinstance(value, (list, tuple, set, frozenset, dict)) or dataclasses.is_dataclass(kind):
        return _collection(value, redactor, depth) if depth else "…"
    if isinstance(value, (type, FunctionType)):
        return f"{value.__module__}.{value.__qualname__}"
    if shape := getattr(value, "shape", ()):
        return f"<{kind_of(value)} {'×'.join(map(str, shape))}>"
    if getattr(kind, "__repr__", None) is object.__repr__:
        return f"<{kind_of(value)}>"
    if kind is not range and hasattr(kind, "__len__") and len(value) > _LONGEST:
        return f"<{kind_of(value)} of {len(value)}>"
    return ADDRESS.sub("", _cut(redactor.text(repr(value))))


def _collection(value: Any, redactor: Redactor, depth: int) -> str:
    def brief(part: Any) -> str:
        return _brief(part, redactor, depth - 1)

    def told(name: Any, part: Any) -> str:
        return repr(REDACTED) if isinstance(name, str) and redactor.is_secret(name) else brief(part)

    if isinstance(value, dict):
        return f"{{{_joined(f'{brief(name)}: {told(name, part)}' for name, part in value.items())}}}"
    if isinstance(value, (list, tuple, set, frozenset)):
        if not value and isinstance(value, (set, frozenset)):
            return "set()"  # `{}` is a dict
        opening, closing = "()" if isinstance(value, tuple) else "[]" if isinstance(value, list) else "{}"
        return f"{opening}{_joined(map(brief, value))}{',' * (opening == '(' and len(value) == 1)}{closing}"
    fields = (f.name for f in dataclasses.fields(value) if f.repr and hasattr(value, f.name))
    return f"{type(value).__qualname__}({_joined(f'{name}={told(name, getattr(value, name))}' for name in fields)})"


def _joined(texts: Iterable[str]) -> str:
    shown = list(islice(texts, _SHOWN + 1))
    return ", ".join(shown[:_SHOWN] + ["…"] * (len(shown) > _SHOWN))


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]}…{text[-_LONGEST // 2 :]}"
