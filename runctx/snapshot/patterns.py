"""Match paths against the user's patterns.

A glob is matched against the path relative to the repository, with `/`. As in gitignore, a pattern without
`/` names a file or folder at any depth, one that ends in `/` only folders, `**` any number of folders, and
whatever lies in a named folder is named too. `re:` starts a regular expression, searched for anywhere in the
path.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable

from ..errors import SettingsError

REGULAR = "re:"


@functools.lru_cache(maxsize=64)
def matcher(patterns: tuple[str, ...]) -> Callable[[str], bool]:
    """A function that says whether any of the patterns names a path.

    Raises
    ------
    SettingsError: a pattern is not a valid regular expression.

    >>> named = matcher(("*.ckpt", "results/", "data/**/raw", "re:^tmp[0-9]"))
    >>> [named(path) for path in ("a/b.ckpt", "results/x", "x/results", "data/a/b/raw", "tmp7", "a/tmp7")]
    [True, True, False, True, True, False]
    """
    if not patterns:
        return lambda path: False
    parts = [_expression(pattern) for pattern in patterns]
    search = re.compile("|".join(f"(?:{part})" for part in parts), re.DOTALL).search
    return lambda path: search(path) is not None


def fixed_folder(pattern: str) -> str:
    """The folder in which everything a glob names must lie; empty when that is the whole repository.

    >>> fixed_folder("conf/local/*.yaml"), fixed_folder("*.yaml"), fixed_folder("re:^conf/")
    ('conf/local', '', '')
    """
    if pattern.startswith(REGULAR) or "/" not in pattern.rstrip("/"):
        return ""
    folders = pattern.strip("/").split("/")[:-1]
    for n, folder in enumerate(folders):
        if set(folder) & set("*?[\\"):
            return "/".join(folders[:n])
    return "/".join(folders)


def _expression(pattern: str) -> str:
    if pattern.startswith(REGULAR):
        expression = pattern.removeprefix(REGULAR)
        try:
            re.compile(expression)
        except re.error as error:
            raise SettingsError(
                f"pattern {pattern!r}: not a regular expression: {error}",
                hint="without `re:` it is read as a glob",
            ) from error
        return expression
    return _from_glob(pattern)


def _from_glob(pattern: str) -> str:
    """The expression. What follows a wildcard is looked for once (`(?>`): else a dozen of them would take minutes."""
    below = "/" if pattern.endswith("/") else r"(?:/|\Z)"
    segments = pattern.strip("/").split("/")
    if "/" not in pattern.rstrip("/") and segments != ["**"]:
        segments.insert(0, "**")  # at any depth
    groups: list[list[str]] = [[]]
    for segment in segments:
        if segment == "**":
            groups.append([])
        else:
            groups[-1].append(_segment(segment))
    first, *middle = ["/".join(group) for group in groups]
    if not middle:
        return rf"\A{first}{below}"
    *middle, last = middle
    expression = r"\A" + (f"{first}/" if first else "")
    expression += "".join(f"(?>(?:[^/]*/)*?{group}/)" for group in middle if group)
    return expression + (f"(?:.*/)?{last}" if last else ".+") + below


def _segment(glob: str) -> str:
    pieces, at = [""], 0
    while at < len(glob):
        char, at = glob[at], at + 1
        if char == "*":
            pieces.append("")
        elif char == "?":
            pieces[-1] += "[^/]"
        elif char == "[" and (end := glob.find("]", at + 1 + glob.startswith(("!", "^"), at))) > 0:
            members = glob[at:end].replace("\\", "\\\\").replace("[", "\\[")
            negated = members[:1] in ("!", "^")
            pieces[-1] += f"(?!/)[{'^' + members[1:] if negated else members}]"
            at = end + 1
        else:
            if char == "\\" and at < len(glob):
                char, at = glob[at], at + 1
            pieces[-1] += re.escape(char)
    first, *middle = pieces
    if not middle:
        return first
    *middle, last = middle
    return first + "".join(f"(?>[^/]*?{piece})" for piece in middle if piece) + f"[^/]*{last}"
