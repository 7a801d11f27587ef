"""Choose runs by an expression: `config.lr < 0.1 and metrics.acc.max > 0.9`.

An expression in Python's syntax, of which little is read: names of values, literals, comparisons, and, or, not.
Python's parser says what stands there, and what stands there is looked up and compared; nothing is executed.
"""

from __future__ import annotations

import ast
import operator
import re
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

from ..errors import QueryError
from . import columns
from .columns import Column
from .row import Row

MOST_CHARACTERS = 4_000
MOST_DEPTH = 40

Test = Callable[[Row], bool]


class Query:
    """Says of a run whether it is meant.

    A comparison with a value that a run does not have, or that is null, is false, `!=` too; `is None` finds these
    runs. What cannot be compared, e.g. a text and a number by `<`, is false. A value by itself counts as Python
    counts it: `dirty and not config.debug`.

    A time is a text, local, as in `started >= '2026-11-01'`; it is compared as far as the text goes, so that
    `started == '2026-11-21'` is all of that day, and `commit == '1a2b3c4d'` finds what begins so.

    Parameters
    ----------
    text: the expression.

    Raises
    ------
    QueryError: it cannot be read; says what, where, and what to write.

    >>> from datetime import datetime, UTC
    >>> row = Row(id="a", stage="a", status="done", started=datetime.now(UTC), config={"lr": 0.1})
    >>> Query("0 < config.lr < 1 and status == 'done'")(row), Query("config.momentum != 0.9")(row)
    (True, False)
    """

    def __init__(self, text: str) -> None:
        reading = _Reading(text)
        self._test = reading.test(reading.tree, 0)
        self.columns = tuple(reading.columns.values())
        """What it asks for."""

    def __call__(self, row: Row) -> bool:
        return self._test(row)


class _Operand(NamedTuple):
    of: Callable[[Row], Any]
    column: Column | None
    literal: Any
    """None if it is a column."""


class _Reading:
    """One expression while it is made a test of rows."""

    def __init__(self, text: str) -> None:
        if not isinstance(text, str) or len(text) > MOST_CHARACTERS:
            what = f"{len(text)} characters" if isinstance(text, str) else type(text).__name__
            raise QueryError(f"an expression is a text of at most {MOST_CHARACTERS} characters, not {what}")
        self.text = text.strip().replace("\n", " ")
        self.tree = self._parsed()
        self.columns: dict[str, Column] = {}

    def _parsed(self) -> ast.expr:
        if not self.text:
            raise QueryError("the expression is empty", hint="for example: config.lr < 0.1")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of what Python would say to a program that holds it
                return ast.parse(self.text, mode="eval").body
        except SyntaxError as error:
            # Python gives no place where an expression breaks off
            self._refuse(error.msg, error.offset - 1 if error.offset else len(self.text), _slip(self.text))
        except (ValueError, MemoryError, RecursionError) as error:
            raise QueryError(f"the expression cannot be read: {error or 'it is nested too deep'}") from error

    def _refuse(self, what: str, at: ast.expr | int, hint: str | None = None) -> NoReturn:
        start = at if isinstance(at, int) else self._column(at)
        first = max(0, start - 40)
        shown = "".join(char if char.isprintable() else "?" for char in self.text[first : first + 90])
        caret = " " * (start - first) + "^"
        message = f"the expression cannot be read: {what}, at column {start + 1}:\n  {shown}\n  {caret}"
        raise QueryError(message, hint=hint)

    def _column(self, node: ast.expr) -> int:
        return len(self.text.encode()[: node.col_offset].decode(errors="ignore"))  # Python counts bytes

    # -- what is true or false -----------------------------------------------------------------------------

    def test(self, node: ast.expr, depth: int) -> Test:
        if depth > MOST_DEPTH:
            self._refuse("nested too deep", node)
        match node:
            case ast.BoolOp(op=ast.And()):
                every = [self.test(part, depth + 1) for part in node.values]
                return lambda row: all(test(row) for test in every)
            case ast.BoolOp():
                some = [self.test(part, depth + 1) for part in node.values]
                return lambda row: any(test(row) for test in some)
            case ast.UnaryOp(op=ast.Not()):
                inner = self.test(node.operand, depth + 1)
                return lambda row: not inner(row)
            case ast.Compare():
                return self._chain(node, depth)
            case ast.Constant(value=bool(always)):
                return lambda row: always
            case ast.Call(func=ast.Name("tag"), args=[ast.Constant(value=str(tag))], keywords=[]):
                column = self._named(f"tags.{tag}", node)
                self.columns[column.name] = column
                return lambda row: bool(column.of(row))
        operand = self._operand(node, depth)
        if operand.column is None:
            self._refuse(
                "a value by itself says nothing", node, "status in ['done', 'failed'] asks for several"
            )
        return lambda row: bool(operand.of(row))

    def _chain(self, node: ast.Compare, depth: int) -> Test:
        parts = [node.left, *node.comparators]
        links = [
            self._link(left, op, right, depth)
            for left, op, right in zip(parts[:-1], node.ops, parts[1:], strict=True)
        ]
        return links[0] if len(links) == 1 else lambda row: all(test(row) for test in links)

    def _link(self, left: ast.expr, op: ast.cmpop, right: ast.expr, depth: int) -> Test:
        nothing = [isinstance(side, ast.Constant) and side.value is None for side in (left, right)]
        if isinstance(op, (ast.Is, ast.IsNot)) and nothing == [False, True]:
            there, wanted = self._operand(left, depth).of, isinstance(op, ast.Is)
            return lambda row: (there(row) is None) is wanted
        if isinstance(op, (ast.Is, ast.IsNot)) or any(nothing):
            self._refuse("`is` goes with None, and None with `is`", right, "write x == 3, or x is None")
        one, other = self._operand(left, depth), self._operand(right, depth)
        compare = _COMPARISONS[type(op)]
        if one.column and one.column.name in _CUT and other.column is None:
            return self._cut(one.column, compare, other.literal, right)
        if other.column and other.column.name in _CUT and one.column is None and compare in _MIRRORED:
            return self._cut(other.column, _MIRRORED[compare], one.literal, left)
        return lambda row: _holds(compare, one.of(row), other.of(row))

    def _cut(self, column: Column, compare: Callable[..., Any], literal: Any, at: ast.expr) -> Test:
        """A comparison that goes as far as the text it is compared with."""
        several = isinstance(literal, list) and compare in (_contained, _not_contained)
        texts = literal if several else [literal]
        if not all(isinstance(text, str) for text in texts):
            self._refuse(f"{column.name} is compared with texts", at, _CUT[column.name])
        if column.name == "started":
            texts = [text.replace(" ", "T") for text in texts]
            if not all(map(_TIME.fullmatch, texts)):
                self._refuse("no date", at, _CUT["started"])
        of = column.of
        if not several:
            (text,), length = texts, len(texts[0])
            return lambda row: (value := of(row)) is not None and compare(value[:length], text)
        wanted, beginnings = compare is _contained, tuple(texts)
        return lambda row: (value := of(row)) is not None and value.startswith(beginnings) is wanted

    # -- what is compared ----------------------------------------------------------------------------------

    def _operand(self, node: ast.expr, depth: int) -> _Operand:
        if isinstance(node, (ast.Name, ast.Attribute, ast.Subscript, ast.BinOp)):
            name = self._name(node, depth)
            if name not in self.columns:
                self.columns[name] = self._named(name, node)
            column = self.columns[name]
            return _Operand(column.of, column, None)
        literal = self._literal(node, depth)
        return _Operand(lambda row: literal, None, literal)

    def _named(self, name: str, node: ast.expr) -> Column:
        try:
            return columns.column(name)
        except QueryError as error:
            self._refuse(error.message, node, error.hint)

    def _name(self, node: ast.expr, depth: int) -> str:
        """`config.opt.lr`, `config['opt.lr']`; `metrics.train/loss` too, though to Python that divides."""
        if depth > MOST_DEPTH:
            self._refuse("nested too deep", node)
        match node:
            case ast.Name(id=name):
                return name
            case ast.Attribute(value=inner, attr=name):
                return f"{self._name(inner, depth + 1)}.{name}"
            case ast.Subscript(value=inner, slice=ast.Constant(value=str() | int() as key)):
                return f"{self._name(inner, depth + 1)}.{key}"
            case ast.BinOp(left=left, op=ast.Div(), right=ast.Name() | ast.Attribute() as right):
                before, after = self._name(left, depth + 1), self._name(right, depth + 1)
                if before.startswith("metrics.") and not after.startswith(("metrics.", "config.")):
                    return f"{before}/{after}"
        return self._unreadable(node)

    def _literal(self, node: ast.expr, depth: int) -> Any:
        if depth > MOST_DEPTH:
            self._refuse("nested too deep", node)
        match node:
            case ast.Constant(value=str() | bool() | int() | float() as value):
                return value
            case ast.UnaryOp(
                op=ast.USub() | ast.UAdd() as sign, operand=ast.Constant(value=int() | float() as value)
            ):
                return -value if isinstance(sign, ast.USub) else value
            case ast.List(elts=parts) | ast.Tuple(elts=parts):  # a configuration knows lists only
                return [self._literal(part, depth + 1) for part in parts]
        return self._unreadable(node)

    def _unreadable(self, node: ast.expr) -> NoReturn:
        if isinstance(node, ast.BinOp):
            named = any(isinstance(part, ast.Name) for part in ast.walk(node))
            hint = "odd names are written config['a-b'], metrics['val/loss']" if named else "write the result"
            self._refuse("nothing is computed", node, hint)
        kind = _KINDS.get(type(node), "this")
        self._refuse(
            f"{kind} is not part of expressions", node, "they compare: config.lr < 0.1 and status == 'done'"
        )


def _holds(compare: Callable[[Any, Any], Any], one: Any, other: Any) -> bool:
    if one is None or other is None:
        return False
    try:
        return bool(compare(one, other))
    except (TypeError, RecursionError):
        return False


def _contained(part: Any, whole: Any) -> bool:
    return part in whole


def _not_contained(part: Any, whole: Any) -> bool:
    return part not in whole


_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: _contained,
    ast.NotIn: _not_contained,
}
_MIRRORED: dict[Callable[..., Any], Callable[..., Any]] = {
    operator.eq: operator.eq,
    operator.ne: operator.ne,
    operator.lt: operator.gt,
    operator.le: operator.ge,
    operator.gt: operator.lt,
    operator.ge: operator.le,
}
_CUT = {
    "started": "local date, and time if need be: '2026-11-21 15:30'",
    "commit": "its first letters, in quotes: '1a2b3c4d'",
}
"""Columns that are compared as far as a text goes, and what is written."""
_TIME = re.compile(r"\d{4}(-\d\d(-\d\d(T\d\d(:\d\d(:\d\d)?)?)?)?)?", re.ASCII)
_KINDS: dict[type[ast.expr], str] = {
    ast.Call: "a call",
    ast.Lambda: "a function",
    ast.IfExp: "if",
    ast.NamedExpr: "an assignment",
    ast.JoinedStr: "a text with values in it",
    ast.Dict: "a mapping",
}


def _slip(text: str) -> str | None:
    """What is written in other languages."""
    if re.search(r"(?<![=<>!])=(?!=)", text):
        return "`==` compares"
    if "&&" in text or "||" in text:
        return "write `and`, `or`"
    if re.search(r"!(?!=)", text):
        return "write `not`"
    if re.search(r"<>", text):
        return "write `!=`"
    return "odd names are written config['a-b'], metrics['val/loss']; texts stand in quotes"
