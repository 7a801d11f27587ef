"""Format values for a reader: short, on one line, and harmless to a terminal.

A lock may come from anywhere: no text of it is shown without `line` or `lines`.
"""

from __future__ import annotations

import io
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..model import SYSTEM, Data, Lock, Summary

if TYPE_CHECKING:
    from rich.console import RenderableType

DIRTY = "* the work tree differed from HEAD; the commit holds it as it was"
"""The meaning of the star behind a commit."""

# what steers a terminal or turns the direction of writing, and what cannot be encoded or stand in XML
_STEERING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069"
    "\ufeff\ud800-\udfff\ufff9-\ufffb\ufffe\uffff]"
)


def lines(text: str) -> str:
    """Text of several lines in which control characters are spelled out.

    >>> lines("a\\x1b[2Jb\\nc")
    'a\\\\x1b[2Jb\\nc'
    """
    return _STEERING.sub(lambda found: ascii(found[0])[1:-1], text.replace("\r\n", "\n"))


def line(text: str, longest: int = 2_000) -> str:
    """The same on one line, cut where it is too long.

    >>> line("two\\nlines, and more", longest=12)
    'two\\\\nlines,…'
    """
    one = lines(text[: longest + 1]).replace("\n", "\\n").replace("\t", "\\t")
    return one if len(one) <= longest else one[: longest - 1] + "…"


def path(folder: str | os.PathLike[str]) -> str:
    """Relative to the current folder where it lies inside it."""
    given = Path(folder)
    try:
        return line(str(given.relative_to(Path.cwd())))
    except (ValueError, OSError):
        return line(str(given))


def value(given: Any, longest: int = 200) -> str:
    """A value of the configuration.

    >>> value(0.1), value([1, "a"]), value(None), value("")
    ('0.1', "[1, 'a']", 'null', "''")
    """
    if given is None:
        return "null"
    if isinstance(given, bool):
        return str(given).lower()
    return line(given if isinstance(given, str) and given else repr(given), longest)


def metrics(given: Mapping[str, Summary]) -> Iterator[tuple[str, str, str]]:
    """Of each its name, the last value, and what else became of it if it has several; those of the machine at the end.

    >>> list(metrics({"loss": Summary(last=0.3, min=0.25, max=1.0, points=7)}))
    [('loss', '0.3', 'min 0.25, max 1, 7 points')]
    """
    for name in sorted(given, key=lambda name: (name.startswith(SYSTEM), name)):
        one = given[name]
        rest = f"min {number(one.min)}, max {number(one.max)}, {one.points} points" if one.points > 1 else ""
        yield short(name, 60), number(one.last), rest


def number(given: float) -> str:
    """Of a metric: six significant digits at least, and never less than its whole part.

    >>> number(0.123456789), number(3.0), number(1e-9), number(449976.5), number(1234567.89), number(float("nan"))
    ('0.123457', '3', '1e-09', '449976.5', '1234568', 'nan')
    """
    exact = f"{given:.15g}"
    if len(exact) <= 8:
        return exact
    return f"{given:.0f}" if 1e6 <= abs(given) < 1e15 else f"{given:.6g}"


def aligned(texts: Sequence[str]) -> list[str]:
    """Numbers of one column, point below point, and what follows them after a space below each other, too.

    >>> aligned(["450000", "0.25 (best)", "nan"])
    ['450000', '     0.25 (best)', '   nan']
    """
    if not texts:
        return []
    numbers = [text.partition(" ") for text in texts]
    points = [len(re.split(r"[.e]", number, maxsplit=1)[0]) for number, _, _ in numbers]
    padded = [" " * (max(points) - point) + one[0] for one, point in zip(numbers, points, strict=True)]
    width = max(map(len, padded))
    return [
        one + " " * (width - len(one)) + gap + rest if rest else one
        for one, (_, gap, rest) in zip(padded, numbers, strict=True)
    ]


def short(given: Any, longest: int) -> str:
    """The same, of which what is too long loses its middle: values that differ mostly do so at an end.

    >>> short(list(range(10)), longest=16)
    '[0, 1, 2…, 8, 9]'
    """
    text = value(given, 2_000)
    half = (longest - 1) // 2
    return text if len(text) <= longest else f"{text[: longest - 1 - half]}…{text[-half:]}"


def leaves(config: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values.

    >>> dict(leaves({"opt": {"lr": 0.1}, "sizes": [1, 2], "more": {}}))
    {'opt.lr': 0.1, 'sizes': [1, 2], 'more': {}}
    """
    for key, given in config.items():
        name = f"{prefix}{key}"
        if isinstance(given, Mapping) and given:
            yield from leaves(given, f"{name}.")
        else:
            yield name, given


def several(names: Sequence[str], most: int = 12) -> str:
    """
    >>> several(["a", "b", "c"], most=2)
    'a, b … 1 more'
    """
    more = f" … {len(names) - most} more" if len(names) > most else ""
    return ", ".join(line(name, 80) for name in names[:most]) + more


def error(kind: str, message: str, longest: int = 160) -> str:
    """Class and message of an exception.

    >>> error("builtins.ValueError", "no luck")
    'ValueError: no luck'
    """
    return line(f"{kind.removeprefix('builtins.')}: {message}", longest)


def commit(name: str | None, dirty: bool) -> str:
    """Short, with a star if the work tree differed from HEAD.

    >>> commit("git:1234567890abcdef", dirty=True)
    '12345678*'
    """
    return "" if not name else line(name.removeprefix("git:")[:8] + "*" * dirty)


def digest(data: Data) -> str:
    """Short; why there is none, otherwise.

    >>> digest(Data(path="a", kind="file", digest="blake3:1234567890abcdef"))
    'blake3:12345678'
    """
    if data.digest is None:
        return "not hashed"
    algorithm, _, hexadecimal = data.digest.partition(":")
    weak = "" if data.strength == "content" else f" ({data.strength} only)"
    return line(f"{algorithm}:{hexadecimal[:8]}", 40) + weak


def inside(data: Data, run: Lock | None) -> str:
    """The path below the folder of the run that an input belongs to; as it was given if it belongs to none."""
    folder = f"{run.save_dir}/" if run is not None else ""
    return data.path.rpartition(folder)[2] if folder and folder in data.path else data.path


def took(seconds: float | None) -> str:
    """
    >>> took(0.004), took(1.5), took(75), took(8000), took(200000), took(None)
    ('4 ms', '1.5 s', '1 min 15 s', '2 h 13 min', '2 d 7 h', '')
    """
    if seconds is None or not 0 <= seconds < 1e12:
        return ""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    for size, unit, part, rest in ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min"), (60, "min", 1, "s")):
        if round(seconds) >= size:
            whole, left = divmod(round(seconds), size)
            return f"{whole} {unit} {left // part} {rest}"
    return f"{seconds:.1f} s"


def when(moment: datetime | None, now: datetime | None = None) -> str:
    """In few letters: how long ago within a day, else the local day, of the last half year with the time."""
    if moment is None:
        return ""
    ago = ((now or datetime.now(UTC)) - moment).total_seconds()
    if 0 <= ago < 86_400:
        for size, unit in ((3_600, "h"), (60, "min"), (1, "s")):
            if ago >= size:
                return f"{ago // size:.0f} {unit} ago"
        return "now"
    return date(moment)[5:] if 0 <= ago < 180 * 86_400 else date(moment)[:10]


def date(moment: datetime) -> str:
    """Local date and time."""
    try:
        return f"{moment.astimezone():%Y-%m-%d %H:%M}"
    except (OverflowError, ValueError, OSError):  # the first and last days of the calendar
        return f"{moment:%Y-%m-%d %H:%M}"


def count(number: int, what: str) -> str:
    """
    >>> count(1, "file"), count(2, "file")
    ('1 file', '2 files')
    """
    return f"{number} {what}" + "s" * (number != 1)


def size(count: int) -> str:
    """
    >>> size(9), size(1234), size(5_600_000_000)
    ('9 B', '1.2 kB', '5.6 GB')
    """
    if abs(count) < 1000:
        return f"{count} B"
    power = min((len(str(abs(count))) - 1) // 3, 5)
    return f"{count / 1000**power:.1f} {' kMGTP'[power]}B"


def texts_apart(values: Mapping[str, Any]) -> dict[str, str]:
    """Name -> text of each value, as short as keeps different values different.

    >>> texts_apart({"a": "x" * 100, "b": 1})["a"]
    'xxxxxxxxxxxx…xxxxxxxxxxx'
    """
    texts: dict[str, str] = {}
    for longest in (24, 80):
        texts = {name: short(value, longest) for name, value in values.items()}
        if len(set(texts.values())) == len(texts):
            break
    return texts


def as_text(shown: RenderableType) -> str:
    """Plain text as a terminal would show it, for `repr`."""
    from rich.console import Console

    stream = io.StringIO()
    console = Console(
        file=stream,
        width=shutil.get_terminal_size().columns,
        force_jupyter=False,  # Jupyter would show it at once
        color_system=None,
        highlight=False,
        markup=False,
        emoji=False,
    )
    console.print(shown, crop=False)
    return "\n".join(line.rstrip() for line in stream.getvalue().rstrip("\n").split("\n"))
