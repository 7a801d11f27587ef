"""Ask the IPython shell of this process, if there is one, for the notebook and the executed cells.

IPython is never imported for it: a process that has not loaded it has no shell. Kernels of Jupyter, VS Code and Colab
and the IPython console keep the same history.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .. import model

MAX_HISTORY = 1_000_000
"""Characters of code that `executed_cells` returns at most; the oldest cells give way."""


def in_kernel() -> bool:
    """Whether this process is a Jupyter kernel (as opposed to a script or an IPython console).

    >>> in_kernel()
    False
    """
    return getattr(_shell(), "kernel", None) is not None


def user_namespace() -> dict[str, Any] | None:
    """The variables of the notebook or IPython console, live; None where there is neither."""
    namespace = getattr(_shell(), "user_ns", None)
    return namespace if isinstance(namespace, dict) else None


def notebook_path() -> Path | None:
    """The notebook, or the file with cells, that this kernel belongs to, where the front end tells.

    VS Code sets `__vsc_ipynb_file__` in the user's namespace for a notebook, and `__file__` for a file whose cells go
    to the interactive window; the Jupyter server sets JPY_SESSION_NAME in the environment. A kernel does not know it
    otherwise (nbclient, papermill), and a console has none.
    """
    if not in_kernel():
        return None  # the variable is inherited by processes that a cell starts
    names = user_namespace() or {}
    file = str(names.get("__file__") or "")  # `%run -i` leaves its script's behind, as it was typed
    named = names.get("__vsc_ipynb_file__") or (file if os.path.isabs(file) else None)
    named = named or os.environ.get("JPY_SESSION_NAME")
    if not isinstance(named, str) or not Path(named).suffix:
        return None  # a console session is named `console-1-<uuid>`
    for candidate in (Path(named), Path(Path(named).name)):
        if (
            candidate.is_file()
        ):  # Jupyter may name it relative to its own root; a kernel starts beside its notebook
            return candidate.absolute()
    return Path(named)


def executed_cells(since: int = 0) -> tuple[model.Cell, ...]:
    """The cells executed so far in this kernel or IPython console, as typed, the running one included.

    Cells that run silently (widgets, the front end's own questions) are not among them. Where the code
    exceeds `MAX_HISTORY` characters, the oldest cells are replaced by one that says so.

    Parameters
    ----------
    since: the first execution count to return.

    >>> executed_cells()
    ()
    """
    history = getattr(getattr(_shell(), "history_manager", None), "input_hist_raw", None) or ()
    cells: list[model.Cell] = []
    room, first = MAX_HISTORY, max(since, 1)
    for number in range(len(history) - 1, first - 1, -1):
        code = str(history[number])
        room -= len(code)
        if room < 0:
            left = f"cell {number}" if first == number else f"cells {first} to {number}"
            code = f"# {left} left out: the code up to here exceeds {MAX_HISTORY} characters"
        if code.strip():
            cells.append(model.Cell(number=number, code=code))
        if room < 0:
            break
    return tuple(reversed(cells))


def call_after_cells(function: Callable[[Any], None]) -> None:
    """Let the shell call a function, once registered however often, with the result of each cell that has ended."""
    events = getattr(_shell(), "events", None)
    if events is not None:
        events.register("post_run_cell", function)


def cell_name(file: str) -> str | None:
    """`In[3]`, for the file name under which the code of a cell was compiled; None for any other.

    >>> cell_name("train.py")
    """
    named = getattr(getattr(_shell(), "compile", None), "format_code_name", lambda _: None)(file)
    return named[1] if named else None


def is_cell(file: str) -> bool:
    """Whether the code of a cell was compiled under this name: here, or in the kernel that this worker works for.

    >>> is_cell("train.py"), is_cell("/tmp/ipykernel_123/456.py")
    (False, True)
    """
    return cell_name(file) is not None or "/ipykernel_" in file


def _shell() -> Any:
    """The running IPython shell, without loading IPython to ask for it."""
    get_ipython = getattr(sys.modules.get("IPython.core.getipython"), "get_ipython", None)
    return None if get_ipython is None else get_ipython()
