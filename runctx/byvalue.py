"""Pickle functions by value, so that their tracebacks name the file and quote the line they stand in.

cloudpickle forgets the file of a function that it takes apart: tracebacks say `<dynamic-code>` and quote nothing.
"""

from __future__ import annotations

import io
import linecache
from types import CodeType
from typing import Any

import cloudpickle

from .capture import notebook


def dumps(value: Any, *, protocol: int = 5, source: bool = False) -> bytes:
    """The value as bytes, for `pickle.loads`; parts of `__main__` travel by value.

    Parameters
    ----------
    source: send the lines of the functions' files along: a cell is in no file, and a file may be edited meanwhile.
    """
    with io.BytesIO() as stream:
        _Pickler(stream, protocol, source).dump(value)
        return stream.getvalue()


class _Pickler(cloudpickle.CloudPickler):  # type: ignore[misc]  # it has no types
    def __init__(self, stream: io.BytesIO, protocol: int, source: bool) -> None:
        super().__init__(stream, protocol)
        self._source = source

    def reducer_override(self, value: Any) -> Any:
        if type(value) is not CodeType:
            return super().reducer_override(value)
        make, arguments = self.dispatch_table[CodeType](value)
        file = value.co_filename
        lines = linecache.getlines(file) if self._source else []
        return _code, (make, arguments, notebook.cell_name(file) or file, lines)


def _code(make: Any, arguments: tuple[Any, ...], file: str, lines: list[str]) -> CodeType:
    if lines:  # without a time, linecache does not compare them with the file
        linecache.cache[file] = sum(map(len, lines)), None, lines, file
    code: CodeType = make(*arguments).replace(co_filename=file)
    return code
