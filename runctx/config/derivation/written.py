"""Where is a function written, and how does it read?"""

from __future__ import annotations

import ast
import functools
import linecache
from types import CodeType
from typing import Any


def place_of(function: Any) -> tuple[str, int]:
    """File and line of a function; ("", 0) where it was not written in Python."""
    code = _code(function)
    return (code.co_filename, code.co_firstlineno) if code else ("", 0)


def source_of(function: Any) -> str:
    """The text of a lambda on one line, the name of any other function."""
    code = _code(function)
    if code is None or code.co_name != "<lambda>":
        inner = function.func if isinstance(function, functools.partial) else function
        return str(getattr(inner, "__qualname__", None) or type(inner).__qualname__)
    names = ", ".join(code.co_varnames[: code.co_argcount])
    return f"lambda {names}: {_body(code) or '...'}".replace("lambda :", "lambda:")


def _code(function: Any) -> CodeType | None:
    while isinstance(function, functools.partial):
        function = function.func
    inner = (getattr(function, name, None) for name in ("__func__", "__call__"))
    for candidate in (function, *inner):
        code = getattr(candidate, "__code__", None)
        if isinstance(code, CodeType):
            return code
    return None


def _body(code: CodeType) -> str | None:
    """The expression of a lambda, found by the positions that its instructions have in the file or the cell."""
    starts, ends = [], []
    for line, end_line, column, end_column in code.co_positions():
        if line is None or end_line is None or column is None or end_column is None:
            continue  # all of them under python -X no_debug_ranges
        if (line, column) != (end_line, end_column):
            starts.append((line, column))
            ends.append((end_line, end_column))
    if not starts:
        returns_constant = len(code.co_code) == 4  # two instructions; Python 3.12 gives them no position
        return repr(code.co_consts[-1]) if returns_constant else None
    (first, start), (last, end) = min(starts), max(ends)
    lines = [linecache.getline(code.co_filename, number).encode() for number in range(first, last + 1)]
    if not all(lines):
        return None
    before, after = lines[0][:start].decode(), lines[-1][end:].decode()
    lines[-1] = lines[-1][:end]
    lines[0] = lines[0][start:]
    return _closed(b"".join(lines).decode(), before, after)


def _closed(text: str, before: str, after: str) -> str | None:
    """`text` on one line, with the brackets around its ends, which belong to no instruction."""
    for _ in range(9):
        joined = " ".join(text.split())
        try:
            ast.parse(joined, mode="eval")
            return joined
        except (SyntaxError, ValueError):
            missing = text.count("(") - text.count(")")
            bracket = after.find(")") if missing > 0 else before.rfind("(")
            if bracket < 0:
                return None
            if missing > 0:
                text, after = text + after[: bracket + 1], after[bracket + 1 :]
            else:
                text, before = before[bracket:] + text, before[:bracket]
    return None
