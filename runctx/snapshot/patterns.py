"""Which paths do the user's patterns name?

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
    below = "/" if pattern.endswith("/") else "(?:/|$)"
    anywhere = "/" not in pattern.rstrip("/")
    segments = pattern.strip("/").split("/")
    expression = r"\A(?:.*/)?" if anywhere else r"\A"
    for n, segment in enumerate(segments):
        last = n == len(segments) - 1
        if segment == "**":
            expression += ".+" if last else "(?:.*/)?"
        else:
            expression += _segment(segment) + ("" if last else "/")
    return expression + below.replace("$", r"\Z")


def _segment(glob: str) -> str:
    expression, at = "", 0
    while at < len(glob):
        char, at = glob[at], at + 1
        if char == "*":
            expression += "[^/]*"
        elif char == "?":
            expression += "[^/]"
        elif char == "[" and (end := glob.find("]", at + 1 + glob.startswith(("!", "^"), at))) > 0:
            members = glob[at:end].replace("\\", "\\\\").replace("[", "\\[")
            negated = members[:1] in ("!", "^")
            expression += f"(?!/)[{'^' + members[1:] if negated else members}]"
            at = end + 1
        else:
            if char == "\\" and at < len(glob):
                char, at = glob[at], at + 1
            expression += re.escape(char)
    return expression
