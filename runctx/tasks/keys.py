"""Name tasks by a key from their content, the same in every process."""

from __future__ import annotations

import io
import pickle
import sys
from types import CodeType, FunctionType, ModuleType
from typing import Any

from blake3 import blake3

from .labels import kind_of
from .serialization import NotPlainError, encode


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
    if _is(value, "runctx.past.record", "Record") and not _is(value, "runctx.past.record", "TaskRun"):
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
