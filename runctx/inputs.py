"""The inputs a run was given: their names, and a path of each.

An input is a path, a glob, an earlier run or the name of one. Interpolations of the configuration, `~` and variables
are expanded; the latter two only where nothing is called so.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from . import settings
from .base import BaseRun
from .capture import program
from .errors import InputError, NoRunError

Input = str | os.PathLike[str] | None
"""None: an input that is not set, which is no input."""
Inputs = Input | Iterable[Input] | Mapping[str, Input]

_VARIABLE = re.compile(r"\$\{?(\w+)")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


def given(inputs: Inputs) -> tuple[tuple[str | None, str | os.PathLike[str]], ...]:
    """Name and input of each that is set; only those of a mapping have names.

    Raises
    ------
    InputError: it is neither a path nor several.

    >>> given({"train": "a.csv", "test": None}), given(None), given("a.csv")
    ((('train', 'a.csv'),), (), ((None, 'a.csv'),))
    """
    several: Iterable[tuple[str | None, Input]]
    if inputs is None or isinstance(inputs, (str, os.PathLike)):
        several = [(None, inputs)]
    elif isinstance(inputs, Mapping):
        several = [(str(name), one) for name, one in inputs.items()]
    elif isinstance(inputs, Iterable):
        several = [(None, one) for one in inputs]
    else:
        raise _no_path(inputs)
    found = tuple((name, one) for name, one in several if one is not None)
    for name, one in found:
        if not isinstance(one, (str, os.PathLike)):
            raise _no_path(one, name)
    return found


def paths(
    inputs: Iterable[tuple[str | None, str | os.PathLike[str]]],
    base: Path,
    results: Path,
    interpolated: Callable[[str], str],
) -> Iterator[str]:
    """A path of each, relative to `base` or absolute.

    Parameters
    ----------
    results: folder of the runs that can be named.
    interpolated: gives a text with the values of the configuration in it.

    Raises
    ------
    InputError: an input is neither there, nor the name of a run that is done; or it is a URL.
    """
    for _, one in inputs:
        # a run's path is relative, so that the locks of two clones can be compared
        if isinstance(one, BaseRun):
            yield os.path.relpath(one, base)
        else:
            yield _path(interpolated(os.fsdecode(one)), base, results)


def _path(text: str, base: Path, results: Path) -> str:
    if _is_there(text, base):
        return text
    expanded = os.path.expandvars(os.path.expanduser(text))
    if url := _URL.match(expanded):
        raise _url(expanded, url[0])
    if not expanded or glob.has_magic(expanded) or _is_there(expanded, base):
        return expanded
    from .hashing import locate
    from .past import index

    for name in _VARIABLE.findall(expanded):
        raise InputError(f"input {text!r}: the variable {name} is not set")
    try:
        return os.path.relpath(index.find(expanded, results, done=True), base)
    except NoRunError as no_run:
        try:
            locate(expanded, base)
        except InputError as missing:
            message = missing.message if os.sep in expanded else f"{missing.message}; {no_run.message}"
            hint = _in_project(expanded, base) or missing.hint or no_run.hint
            raise InputError(message, hint) from None
        return expanded  # made meanwhile


def _in_project(path: str, base: Path) -> str | None:
    """A hint where the input lies beside the script or at the top of its project, which was started elsewhere."""
    for folder in (program.folder(), settings.load().root):
        if _is_there(path, folder):
            return f"{folder / path} exists, but relative inputs start at {base}; give this path, or start in {folder}"
    return None


def _is_there(path: str, base: Path) -> bool:
    try:
        return os.path.lexists(base / path) and bool(path)
    except ValueError:  # a zero byte
        return False


def _url(text: str, scheme: str) -> InputError:
    if scheme.lower() == "file://":
        return InputError(f"input {text!r} is a URL", hint=f"write the path: {text[len(scheme) :]!r}")
    return InputError(
        f"input {text!r} is a URL; inputs are files and folders, whose content is hashed",
        hint="download it and give the file, or keep the address in the configuration: it is recorded there",
    )


def _no_path(one: object, name: str | None = None) -> InputError:
    return InputError(
        f"input {repr(one) if name is None else f'{name} = {one!r}'} is no path but {type(one).__name__}",
        hint="give a path, several paths, or a dict of them; None is left out",
    )
