"""Choose and sort runs by the values that a listing knows: `config.lr < 0.1 and metrics.acc.max > 0.9`.

`status` and its like are a run's own; `config.opt.lr` is a value of its configuration, and `metrics.loss.min` the
least of a metric's values: `last`, `min`, `max` or `points`, and without any of these the last. The name of a metric
may itself hold dots: the longest that the run has is meant. Expressions have Python's syntax: its parser reads them,
and names, literals, comparisons, and, or, not are looked up and compared; nothing is executed.
"""

from __future__ import annotations

import ast
import itertools
import operator
import re
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, NoReturn

from ..config.messages import nearest
from ..errors import QueryError
from ..model import SYSTEM, Summary
from .row import Row

PARTS = tuple(Summary.__dataclass_fields__)


@dataclass(frozen=True, slots=True)
class Column:
    """One value of each run.

    >>> column("metrics.loss").needs_metrics, column("status").needs_metrics
    (True, False)
    """

    name: str
    """As it is written, e.g. `metrics.loss.min`."""
    of: Callable[[Row], Any]
    """None where the run has no such value, or has null."""
    section: Literal["config", "metrics", "tags", ""] = ""
    """The attribute of a row that holds it; empty for what every run has."""

    @property
    def needs_metrics(self) -> bool:
        return self.section == "metrics"


def column(name: str) -> Column:
    """The column that is called `name`.

    Raises
    ------
    QueryError: no value can be called so.

    >>> from datetime import datetime, UTC
    >>> row = Row(id="a", stage="a", status="done", started=datetime.now(UTC), config={"opt.lr": 0.1})
    >>> column("config.opt.lr").of(row), column("metrics.loss").of(row)
    (0.1, None)
    """
    if name in _OWN:
        return Column(name, _OWN[name])
    section, dot, key = name.partition(".")
    if section == "config" and dot:
        return Column(name, lambda row: row.config.get(key), "config")
    if section == "metrics" and dot:
        return Column(name, _of_metric(key), "metrics")
    if section == "tags" and dot:
        return Column(name, lambda row: key in row.tags or None, "tags")
    raise QueryError(f"unknown name {name!r}", hint=_name_hint(name))


def _of_metric(name: str) -> Callable[[Row], Any]:
    shorter, _, part = name.rpartition(".")

    def value(row: Row) -> Any:
        if name in row.metrics:
            return row.metrics[name].last
        if part in PARTS and shorter in row.metrics:
            return getattr(row.metrics[shorter], part)
        return None

    return value


def started(row: Row) -> str | None:
    """Local date and time, to the second, e.g. `2026-11-21T15:04:05`."""
    if row.started is None:
        return None
    try:
        return f"{row.started.astimezone():%Y-%m-%dT%H:%M:%S}"
    except (OverflowError, ValueError, OSError):  # the first and last days of the calendar
        return f"{row.started:%Y-%m-%dT%H:%M:%S}"


def _error(row: Row) -> str | None:
    return row.error and row.error.removeprefix("builtins.")


def _attribute(name: str) -> Callable[[Row], Any]:
    return lambda row: getattr(row, name)


_PLAIN = ("id", "stage", "status", "seconds", "commit", "dirty", "path", "tasks", "tasks_done")
_OWN: dict[str, Callable[[Row], Any]] = {
    **{name: _attribute(name) for name in _PLAIN},
    "started": started,
    "error": _error,
    "parents": lambda row: list(row.parents),  # as the lists of a configuration
    "tags": lambda row: list(row.tags) or None,
    "note": _attribute("note"),
}
_BRACKETS = re.compile(r"\[(['\"]?)(.*?)\1\]")


def _name_hint(name: str) -> str:
    said = {"true": "True", "false": "False", "null": "None", "none": "None"}.get(name.lower())
    if said:
        return f"write {said}"
    plain = _BRACKETS.sub(r".\2", name)
    if plain != name:  # as in an expression, where a name alone is meant
        return f"write {plain}"
    first, _, rest = name.partition(".")
    if first in _OWN and rest:
        return f"{first} has no parts"
    if first in ("config", "metrics"):
        return f"name a key, for example {first}.{'lr' if first == 'config' else 'loss'}"
    alike = nearest(name, _OWN, 1)
    return f"did you mean {alike[0] if alike else f'config.{name} or metrics.{name}'}?"


def unmet(columns: Iterable[Column], rows: Sequence[Row]) -> Iterator[str]:
    """A sentence for each value that none of the runs has, with the name that was probably meant."""
    for one in columns:
        if rows and one.section and all(one.of(row) is None for row in rows):
            known = {key for row in rows for key in getattr(row, one.section)}
            key = one.name.partition(".")[2]
            if key not in known:  # else all have null
                hint = meant(key, known, f"{one.section}.")
                if hint is None and one.needs_metrics:
                    hint = other_metrics(key, known)
                yield f"no run has {one.name}" + (f"; {hint}" if hint else "")


def other_metrics(name: str, known: Collection[str]) -> str | None:
    """A hint with the metrics there are, those first that are called like this one; None if it is one of them."""
    there = sorted(one for one in known if not one.startswith(SYSTEM))
    first = list(dict.fromkeys([*nearest(name, there), *there]))
    more = f" … {len(first) - _MOST} more" if len(first) > _MOST else ""
    return f"there are: {', '.join(first[:_MOST])}{more}" if there and name not in known else None


_MOST = 10
"""Metrics that a hint names."""


def meant(name: str, known: Collection[str], prefix: str = "") -> str | None:
    """A hint with the names, after a prefix, that are most like this one."""
    found = [] if name in known else [f"{prefix}{one}" for one in nearest(name, known)]
    return f"did you mean {' or '.join(found)}?" if found else None


def in_order(rows: Sequence[Row], by: Column, *, reverse: bool = False) -> list[int]:
    """The places of the rows, sorted: numbers before texts before all else; what is missing, or no number, is last."""
    values = [by.of(row) for row in rows]
    there = [n for n, value in enumerate(values) if value is not None and value == value]
    missing = [n for n, value in enumerate(values) if value is None or value != value]
    return sorted(there, key=lambda n: _rank(values[n]), reverse=reverse) + missing


def _rank(value: Any) -> tuple[int, Any]:
    if isinstance(value, (bool, int, float)):
        return 0, value
    return (1, value) if isinstance(value, str) else (2, repr(value))


def direction(metric: str) -> Literal["min", "max"] | None:
    """The better values of a metric, `min` or `max`, as far as the words of its name tell; else None.

    A name that begins with `neg`, as those of scikit-learn's scorers, is turned round; a weight or a scale of a loss
    is no loss.

    >>> direction("val/loss"), direction("top1_acc"), direction("neg_mean_squared_error"), direction("loss_scale")
    ('min', 'max', 'max', None)
    """
    pieces = re.split(r"[^a-z0-9]+", metric.lower())
    names = [*pieces, *_BETWEEN.sub(" ", metric).lower().split()]
    low, high, neither = (any(map(kind.fullmatch, names)) for kind in (_LOW, _HIGH, _NEITHER))
    if neither or not (low or high):
        return None
    return "min" if low is not (pieces[0] == "neg") else "max"


_BETWEEN = re.compile(r"[^A-Za-z0-9]+|(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
"""Between two words, in `BCELoss` too."""
_LOW = re.compile(
    r"(\w*loss|errors?|err|mse|rmse|mae|s?mape|r?msle|nll|crps|ppl|perplexity|[wc]er|eer|fid|kid|lpips"
    r"|brier|ece|regret|cost)\d*"
)
_HIGH = re.compile(
    r"(acc|\w*accuracy|auc|auroc|auprc|map|f1|fscore|precision|recall|specificity|sensitivity|score|reward|return|bleu"
    r"|rouge|meteor|m?iou|jaccard|dice|r2|mcc|kappa|ndcg|mrr|psnr|ssim)\d*"
)
_NEITHER = re.compile(r"weights?|scale|coef|coefficient|lambda|threshold|count|size|steps|seconds|time")
"""Words of what belongs to a loss or a score, and is none."""


def best_of(metric: str, mode: str) -> Column:
    """The column for `best`: the greatest or the least value a metric had, or the part of it that is named."""
    name = metric.removeprefix("metrics.")
    of_part = _of_metric(name)

    def value(row: Row) -> Any:
        found = row.metrics.get(name)
        return of_part(row) if found is None else getattr(found, mode)

    return Column(f"metrics.{name}", value, "metrics")


# -- expressions -------------------------------------------------------------------------------------------

MOST_CHARACTERS = 4_000
MOST_DEPTH = 40

Test = Callable[[Row], bool]


class _Operand(NamedTuple):
    of: Callable[[Row], Any]
    column: Column | None
    literal: Any
    """None if it is a column."""


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
        if not isinstance(text, str) or len(text) > MOST_CHARACTERS:
            what = f"{len(text)} characters" if isinstance(text, str) else type(text).__name__
            raise QueryError(f"an expression is a text of at most {MOST_CHARACTERS} characters, not {what}")
        self._text = text.strip().replace("\n", " ")
        self._columns: dict[str, Column] = {}
        self._test = self._compiled(self._parsed(), 0)

    @property
    def columns(self) -> tuple[Column, ...]:
        """The values that it asks for."""
        return tuple(self._columns.values())

    def __call__(self, row: Row) -> bool:
        return self._test(row)

    def _parsed(self) -> ast.expr:
        if not self._text:
            raise QueryError("the expression is empty", hint="for example: config.lr < 0.1")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of what Python would say to a program that holds it
                return ast.parse(self._text, mode="eval").body
        except SyntaxError as error:
            # Python gives no place where an expression breaks off
            self._refuse(
                error.msg, error.offset - 1 if error.offset else len(self._text), _syntax_hint(self._text)
            )
        except (ValueError, MemoryError, RecursionError) as error:
            raise QueryError(f"the expression cannot be read: {error or 'it is nested too deep'}") from error

    def _refuse(self, what: str, at: ast.expr | int, hint: str | None = None) -> NoReturn:
        # Python counts bytes
        start = (
            at if isinstance(at, int) else len(self._text.encode()[: at.col_offset].decode(errors="ignore"))
        )
        first = max(0, start - 40)
        shown = "".join(char if char.isprintable() else "?" for char in self._text[first : first + 90])
        caret = " " * (start - first) + "^"
        message = f"the expression cannot be read: {what}, at column {start + 1}:\n  {shown}\n  {caret}"
        raise QueryError(message, hint=hint)

    def _compiled(self, node: ast.expr, depth: int) -> Test:
        if depth > MOST_DEPTH:
            self._refuse("nested too deep", node)
        match node:
            case ast.BoolOp(op=ast.And()):
                every = [self._compiled(part, depth + 1) for part in node.values]
                return lambda row: all(test(row) for test in every)
            case ast.BoolOp():
                some = [self._compiled(part, depth + 1) for part in node.values]
                return lambda row: any(test(row) for test in some)
            case ast.UnaryOp(op=ast.Not()):
                inner = self._compiled(node.operand, depth + 1)
                return lambda row: not inner(row)
            case ast.Compare():
                sides = itertools.pairwise([node.left, *node.comparators])
                links = [
                    self._link(one, op, other, depth)
                    for (one, other), op in zip(sides, node.ops, strict=True)
                ]
                return lambda row: all(link(row) for link in links)
            case ast.Constant(value=bool(always)):
                return lambda row: always
            case ast.Call(func=ast.Name("tag"), args=[ast.Constant(value=str(tag))], keywords=[]):
                column = self._named(f"tags.{tag}", node)
                self._columns[column.name] = column
                return lambda row: bool(column.of(row))
        operand = self._operand(node, depth)
        if operand.column is None:
            self._refuse(
                "a value by itself says nothing", node, "status in ['done', 'failed'] asks for several"
            )
        return lambda row: bool(operand.of(row))

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

    def _operand(self, node: ast.expr, depth: int) -> _Operand:
        if isinstance(node, (ast.Name, ast.Attribute, ast.Subscript, ast.BinOp)):
            name = self._name(node, depth)
            if name not in self._columns:
                self._columns[name] = self._named(name, node)
            column = self._columns[name]
            return _Operand(column.of, column, None)
        literal = self._literal(node, depth)
        return _Operand(lambda row: literal, None, literal)

    def _named(self, name: str, node: ast.expr) -> Column:
        try:
            return column(name)
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
    **{one: one for one in (operator.eq, operator.ne)},
    operator.lt: operator.gt,
    operator.gt: operator.lt,
    operator.le: operator.ge,
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


def _syntax_hint(text: str) -> str | None:
    """A hint for what is written in other languages."""
    if re.search(r"(?<![=<>!])=(?!=)", text):
        return "`==` compares"
    if "&&" in text or "||" in text:
        return "write `and`, `or`"
    if re.search(r"!(?!=)", text):
        return "write `not`"
    if re.search(r"<>", text):
        return "write `!=`"
    return "odd names are written config['a-b'], metrics['val/loss']; texts stand in quotes"
