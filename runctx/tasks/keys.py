"""Name tasks: a key from their content, the same in every process, and a short text for people."""

from __future__ import annotations

import dataclasses
import io
import os
import pickle
import sys
from collections.abc import Iterable
from itertools import islice
from types import CodeType, FunctionType, ModuleType, NoneType
from typing import Any

from blake3 import blake3

from ..redact import REDACTED, Redactor
from .serialization import ADDRESS, NotPlainError, encode


def digest(value: Any, size: int = 16) -> str:
    """Digest of what a value holds; equal for equal content, however it came about.

    Types count: `1`, `1.0` and `True` differ, as do `(1,)` and `[1]`. Plain data count by their canonical encoding, all
    else by its cloudpickle, in which plain data count by content. That is weaker: equal content may have two digests
    where an object remembers how it came about. Classes, and functions that can be imported, count by their qualified
    name; other functions also by their code, defaults and closure.

    Parameters
    ----------
    size: bytes of the digest.

    Raises
    ------
    TypeError: the value cannot be pickled.

    >>> digest({"lr": 0.1, "epochs": 5}) == digest({"epochs": 5, "lr": 0.1})
    True
    >>> digest("a.png")
    'blake3:ed6d1eccd6db7a1b2a0bb2efc0329a94'
    """
    return f"blake3:{blake3(canonical(value)).hexdigest(length=size)}"


def key(value: Any) -> str:
    """The key of a task in the ledger: the first 16 hex digits of its digest.

    Raises
    ------
    TypeError: the value cannot be pickled.

    >>> key("a.png")
    'ed6d1eccd6db7a1b'
    """
    return blake3(canonical(value)).hexdigest(length=8)


def canonical(value: Any) -> bytes:
    """The bytes that equal content has in common.

    Raises
    ------
    TypeError: the value cannot be pickled.
    """
    try:
        return encode(value, canonical=True)
    except NotPlainError:
        if _is(value, *_POINT):
            return canonical(dict(value))
    try:
        with io.BytesIO() as stream:
            _pickler(stream).dump(value)
            return stream.getvalue()
    except Exception as error:
        raise TypeError(
            f"{kind_of(value)} has no content to compare: it cannot be pickled ({error})"
        ) from error


_POINT = "runctx.config.grid", "Point"
"""A dict with a name, which depends on the other points of its grid and does not count."""


def _pickler(stream: io.BytesIO) -> Any:
    import cloudpickle

    class Pickler(cloudpickle.CloudPickler):  # type: ignore[misc]  # it has no types
        """Pickles that are compared and never loaded."""

        def persistent_id(self, value: Any) -> Any:
            return _identity(value)

        def reducer_override(self, value: Any) -> Any:
            if isinstance(value, FunctionType):
                cells = []
                for cell in value.__closure__ or ():
                    try:
                        cells.append(cell.cell_contents)
                    except ValueError:  # a variable that is not set yet
                        pass
                state = [value.__code__, value.__defaults__, value.__kwdefaults__, cells]
                return object, (_name(value),), state
            return super().reducer_override(value)

    return Pickler(stream, protocol=5)


def _identity(value: Any) -> Any:
    """What a value counts by, if not by its pickle."""
    if isinstance(value, (type, ModuleType)):
        return _name(value)
    if isinstance(value, FunctionType) and _is_importable(value):
        return _name(value)
    if isinstance(value, CodeType):
        counts = value.co_argcount, value.co_posonlyargcount, value.co_kwonlyargcount, value.co_flags
        names = value.co_names, value.co_varnames, value.co_freevars, value.co_cellvars
        return "code", value.co_code, value.co_consts, counts, names
    if _is(value, "runctx.past.record", "Record") and not _is(value, f"{__package__}.results", "Returned"):
        return "run", value.id
    if _is(value, *_POINT):
        return "combination", dict(value)
    if _is(value, "omegaconf", "Container"):
        return "configuration", sys.modules["omegaconf"].OmegaConf.to_container(value)
    try:
        return encode(value, canonical=True)
    except NotPlainError:
        return None


def _is(value: Any, module: str, name: str) -> bool:
    """True for an instance of a class whose module somebody has imported."""
    kind = getattr(sys.modules.get(module), name, None)
    return kind is not None and isinstance(value, kind)


def _name(value: Any) -> str:
    if isinstance(value, ModuleType):
        return f"module {value.__name__}"
    # multiprocessing has a name of its own for it
    module = "__main__" if value.__module__ == "__mp_main__" else value.__module__
    return f"{module}.{value.__qualname__}"


def _is_importable(function: FunctionType) -> bool:
    if function.__module__ in ("__main__", "__mp_main__"):
        return False
    try:
        return bool(pickle.dumps(function))
    except (pickle.PicklingError, AttributeError, ImportError):
        return False


# -- for people ------------------------------------------------------------------------------------------------------

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
