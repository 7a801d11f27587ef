"""Map the names of metrics, parameters and tags to names that MLflow takes, and back.

MLflow takes letters, digits and `_ - . : / space`, in what could be a relative path without detours, up to 250
characters. Such a name stays as it is. Any other character becomes `_x3d_`, its code in hexadecimal between marks;
names that look as if this had happened to them are written so, too, which is why no two names ever meet.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import blake3

LONGEST = 250
"""Characters that MLflow takes."""

PREFIX = "runctx.name."
"""Of the tags that tell what a shortened name was before."""

_MARK = re.compile(r"_x([0-9a-f]*)_")
_SHORTENED = re.compile(r"_xl([0-9a-f]{32})\Z")
_REFUSED = re.compile(
    r"[^/\w.\- :]"
    r"|\A/|/(?=/|\Z)"  # where a path would start at the root, or have a part without a name
    r"|(?:(?<=\A)|(?<=/))\.(?=\.?(?:/|\Z))"  # `.` and `..`, as parts
    r"|\A\.(?=\.)"
)


def is_taken(name: str) -> bool:
    """Whether MLflow takes it as it is."""
    return 0 < len(name) <= LONGEST and not _REFUSED.search(name)


def mapped(name: str) -> str:
    """The name as MLflow takes it.

    >>> mapped("train/loss"), mapped("f1@0.5"), mapped("../x")
    ('train/loss', 'f1_x40_0.5', '_x2e_./x')
    """
    whole = _spelled(name)
    if len(whole) <= LONGEST:
        return whole
    ending = f"_xl{_digest(whole)}"
    return whole[: LONGEST - len(ending)] + ending


def memo(name: str) -> dict[str, str]:
    """The tag that `original` needs for this name; none, unless it is shortened."""
    whole = _spelled(name)
    return {} if len(whole) <= LONGEST else {PREFIX + _digest(whole): whole}


def original(name: str, tags: Mapping[str, str] | None = None) -> str:
    """What was mapped to this name.

    Parameters
    ----------
    tags: of the run, among which are those of shortened names.

    >>> original("f1_x40_0.5")
    'f1@0.5'
    """
    if shortened := _SHORTENED.search(name):
        name = (tags or {}).get(PREFIX + shortened[1], name)
    return _MARK.sub(_character, name)


def _spelled(name: str) -> str:
    if not name:
        return "_x_"
    if not (_REFUSED.search(name) or _MARK.search(name) or _SHORTENED.search(name)):
        return name
    return _REFUSED.sub(lambda found: f"_x{ord(found[0]):x}_", name.replace("_x", "_x5f_x"))


def _character(mark: re.Match[str]) -> str:
    try:
        return chr(int(mark[1], 16)) if mark[1] else ""
    except (ValueError, OverflowError):  # none of ours
        return mark[0]


def _digest(whole: str) -> str:
    return blake3.blake3(whole.encode()).hexdigest()[:32]
