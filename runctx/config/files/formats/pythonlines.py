"""On which line of a Python configuration does each key stand? Read off its syntax, without executing it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Any

Lines = dict[tuple[Any, ...], int]

NAMES = "_names"
"""`_names["a-b"] = 1` sets a name that Python cannot write as one, in a file that begins `_names = globals()`."""


def imported_names(module: ast.Module) -> frozenset[str]:
    """What its `import` statements bind; of `*` nothing is known."""
    return frozenset(
        (alias.asname or alias.name).partition(".")[0]
        for statement in _statements(module.body)
        if isinstance(statement, (ast.Import, ast.ImportFrom))
        for alias in statement.names
    )


def key_lines(module: ast.Module) -> Lines:
    """The lines of names, and of the keys in `{...}`, `dict(...)`, `name["key"] = ...`; the last one counts.

    >>> key_lines(ast.parse("lr = 1\\nopt = dict(\\n  name='sgd',\\n)\\nopt['lr'] = 2"))
    {('lr',): 1, ('opt',): 2, ('opt', 'name'): 3, ('opt', 'lr'): 5}
    """
    lines: Lines = {}
    for statement in _statements(module.body):
        if isinstance(statement, ast.Assign):
            for target in statement.targets:
                _assigned(target, statement.value, lines)
        elif isinstance(statement, (ast.AnnAssign, ast.AugAssign)) and statement.value:
            _assigned(statement.target, statement.value, lines)
        elif isinstance(statement, (ast.For, ast.With)):
            for name in ast.walk(statement.target) if isinstance(statement, ast.For) else _bound(statement):
                if isinstance(name, ast.Name):
                    lines[(name.id,)] = name.lineno
    return lines


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Those that run when the file does, in order."""
    for statement in body:
        yield statement
        if not isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            for field in ("body", "orelse", "finalbody"):
                yield from _statements(getattr(statement, field, []))
            for part in (*getattr(statement, "handlers", ()), *getattr(statement, "cases", ())):
                yield from _statements(part.body)


def _bound(statement: ast.With) -> list[ast.expr]:
    return [item.optional_vars for item in statement.items if item.optional_vars]


def _assigned(target: ast.expr, value: ast.expr, lines: Lines) -> None:
    if isinstance(target, (ast.Tuple, ast.List)):
        for part in target.elts:
            _assigned(part, ast.Constant(None), lines)
    elif path := _path(target):
        lines[path] = target.lineno
        _keys_in(value, path, lines)


def _path(target: ast.expr) -> tuple[Any, ...]:
    """The keys of `name["a"]["b"]`; nothing if they are not written there."""
    keys: list[Any] = []
    while isinstance(target, ast.Subscript) and isinstance(target.slice, ast.Constant):
        keys.append(target.slice.value)
        target = target.value
    if not isinstance(target, ast.Name):
        return ()
    return tuple(reversed(keys)) if target.id == NAMES else (target.id, *reversed(keys))


def _keys_in(value: ast.expr, path: tuple[Any, ...], lines: Lines) -> None:
    if isinstance(value, ast.BinOp):
        _keys_in(value.left, path, lines)
        _keys_in(value.right, path, lines)
    for key, line, inner in _keys(value):
        if key is None:
            _keys_in(inner, path, lines)  # **inner
        else:
            lines[(*path, key)] = line
            _keys_in(inner, (*path, key), lines)


def _keys(value: ast.expr) -> Iterator[tuple[Any, int, ast.expr]]:
    if isinstance(value, ast.Dict):
        for key, inner in zip(value.keys, value.values, strict=True):
            if key is None:
                yield None, 0, inner
            elif isinstance(key, ast.Constant) and key.value is not None:
                yield key.value, key.lineno, inner
    elif isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "dict":
        for keyword in value.keywords:
            yield keyword.arg, keyword.lineno, keyword.value
