"""Which runs are meant where a command takes several? Folders of runs, globs of these, and runs by name."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..past.many import Runs


def which(names: Sequence[str], where: str | None = None, *, as_given: bool = False) -> Runs:
    """All of them, each once, the newest first.

    Parameters
    ----------
    names: folders and globs as for `runs`, and what `find` understands; none: the project's results folder.
    where: an expression; only runs that it is true of.
    as_given: in the order of the names.

    Raises
    ------
    NoRunError: one of the names means nothing. QueryError: the expression cannot be read.
    """
    from ..past import index
    from ..past.many import Runs

    found = [index.runs(name if _is_place(name) else index.find(name)) for name in names] or [index.runs()]
    entries = {entry.path: entry for one in found for entry in one._entries}.values()
    newest = sorted(entries, key=lambda entry: (entry.moment, entry.path), reverse=True)
    runs = Runs([*entries] if as_given else newest)
    return runs if where is None else runs.where(where)


def _is_place(name: str) -> bool:
    return os.path.isdir(os.path.expanduser(name)) or glob.has_magic(name)
