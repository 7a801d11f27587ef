"""Put tasks into a short text for people, without secrets."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterable
from itertools import islice
from types import FunctionType, NoneType
from typing import Any

from ..redact import REDACTED, Redactor

ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
"""In a representation; it differs between processes."""


_SHOWN = 6
"""Parts of a collection that are shown."""
_DEEPEST = 3
"""Collections in collections that are shown."""
_LONGEST = 1000
"""Characters, digits or parts from which on a value is not asked for its own representation."""
_READ = 20_000
"""Characters of a text that are looked through for secrets before its middle is left out."""
_SHORT = 10**15
"""Numbers below are shown at once; Python refuses to print one of thousands of digits."""

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
        text = _text(value, redactor)
    except Exception:  # a class of the user's may fail in any way
        text = f"<{kind_of(value)}>"
    if not text.isprintable():
        text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return text if len(text) <= most else f"{text[: most // 3]}…{text[most // 3 + 1 - most :]}"


@dataclasses.dataclass(frozen=True, slots=True)
class Labels:
    """Short texts of the tasks of one map, without secrets.

    Parameters
    ----------
    into: the key of the configuration at which tasks are set; if that is a secret's, nothing is shown.

    >>> labels = Labels.of(Redactor(), "api_key")
    >>> labels.learn("hunter2")
    >>> labels.text("hunter2"), labels.redactor.text("refused hunter2")
    ('<redacted>', 'refused <redacted>')
    """

    redactor: Redactor
    into: str | None
    is_secret: bool

    @classmethod
    def of(cls, redactor: Redactor, into: str | None) -> Labels:
        return cls(redactor, into, bool(into) and redactor.is_secret(into or ""))

    def learn(self, task: Any) -> None:
        """Remember the secrets in a task, before anything is said of it."""
        if self.is_secret or type(task) not in _NUMBERS:
            self.redactor.learn({self.into: task} if self.into else task)

    def text(self, task: Any) -> str:
        return REDACTED if self.is_secret else label(task, redactor=self.redactor)


_NUMBERS = frozenset({int, float, bool, NoneType})
"""Types of which a value is no secret, unless its key says so."""


def kind_of(value: Any) -> str:
    """The name of its class, without `builtins`.

    >>> import datetime
    >>> kind_of(1), kind_of(datetime.date.today())
    ('int', 'datetime.date')
    """
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _text(value: Any, redactor: Redactor) -> str:
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

    def named(name: Any, part: Any) -> str:
        return repr(REDACTED) if isinstance(name, str) and redactor.is_secret(name) else brief(part)

    def joined(texts: Iterable[str]) -> str:
        shown = list(islice(texts, _SHOWN + 1))
        return ", ".join(shown[:_SHOWN] + ["…"] * (len(shown) > _SHOWN))

    if isinstance(value, dict):
        return f"{{{joined(f'{brief(name)}: {named(name, part)}' for name, part in value.items())}}}"
    if isinstance(value, (list, tuple, set, frozenset)):
        if not value and isinstance(value, (set, frozenset)):
            return "set()"  # `{}` is a dict
        opening, closing = "()" if isinstance(value, tuple) else "[]" if isinstance(value, list) else "{}"
        return f"{opening}{joined(map(brief, value))}{',' * (opening == '(' and len(value) == 1)}{closing}"
    fields = (f.name for f in dataclasses.fields(value) if f.repr and hasattr(value, f.name))
    return f"{type(value).__qualname__}({joined(f'{name}={named(name, getattr(value, name))}' for name in fields)})"


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]}…{text[-_LONGEST // 2 :]}"
