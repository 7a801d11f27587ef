"""Find the user's code that enters a run, and name the run's stage after the file it stands in."""

from __future__ import annotations

import opcode
import os
import traceback
from pathlib import Path
from types import FrameType
from typing import Any

from . import command, distributions, layout, model, notebook

_OURS = os.path.dirname(os.path.abspath(__file__)) + os.sep
_STANDARD_LIBRARY = os.path.dirname(os.__file__) + os.sep


def frame_of_user(frame: FrameType) -> FrameType:
    """The frame of the user's code that enters a run: in a file of the project, in a cell or at a prompt.

    What was installed, the standard library (an `ExitStack`, a thread) and code without a file (`exec`) are tools that
    the user's code calls. Where all code is installed, as with `python -m package.train`, it is the innermost that does
    not belong to the standard library.

    Parameters
    ----------
    frame: that of the call.
    """
    fallback = None
    outer: FrameType | None = frame
    while outer is not None:
        file = outer.f_code.co_filename
        if notebook.is_cell(file) or _is_of_a_project(file) or _is_at_prompt(outer):
            return outer
        if fallback is None and not file.startswith((_OURS, "<frozen ")) and not _is_standard(file):
            fallback = outer
        outer = outer.f_back
    return fallback or frame


def stage_of(frame: FrameType, started: model.Command, root: Path | None) -> str:
    """The stage of a run that stands in this frame: the name of its file; in a cell, that of the notebook.

    At a prompt it is `console`. Code without a file has the name of the program.

    Parameters
    ----------
    started: the program.
    root: the repository.
    """
    file = frame.f_code.co_filename
    if notebook.is_cell(file):
        if notebook.in_kernel() or started.kind == "notebook":
            return command.name_of_file(str(notebook.notebook_path() or "")) or command.NOTEBOOK
        return command.CONSOLE
    if file.startswith("<"):
        return command.stage_name(started)
    return command.name_of_file(command.shown(file, root)) or command.stage_name(started)


def has_ended_in(frame: FrameType, error: BaseException | None) -> bool:
    """Whether an error has ended the function of this frame, as far as its traceback tells."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if any(where is frame for where, _ in traceback.walk_tb(error.__traceback__)):
            return True
        error = error.__cause__ or error.__context__
    return False


def has_returned(frame: FrameType) -> bool:
    """Whether the function of this frame, or the script, has come to its end without an exception."""
    return opcode.opname[frame.f_code.co_code[frame.f_lasti]].startswith("RETURN")


def outermost(frame: FrameType) -> FrameType:
    """The frame in which everything else is called: of a script, its own."""
    while frame.f_back is not None:
        frame = frame.f_back
    return frame


def _is_of_a_project(file: str) -> bool:
    return not file.startswith(("<", _OURS)) and not distributions.is_installed(file)


def _is_standard(file: str) -> bool:
    inside = file.startswith(_STANDARD_LIBRARY)
    return inside and "/site-packages/" not in file and "/dist-packages/" not in file


def _is_at_prompt(frame: FrameType) -> bool:
    """Whether it is code of a bare prompt, `python -c` or standard input; a script has a file."""
    names = frame.f_globals
    is_file = not frame.f_code.co_filename.startswith("<") or "__file__" in names
    return not is_file and names.get("__name__") == "__main__"


def is_inside(frame: FrameType, other: FrameType | None) -> bool:
    """Whether `other` goes on in `frame`, or in one that called it; all cells of a notebook count as one frame."""
    at: FrameType | None = frame
    while at is not None and other is not None:
        one_module = at.f_globals is other.f_globals
        if at is other or (one_module and at.f_code.co_name == other.f_code.co_name == "<module>"):
            return True
        at = at.f_back
    return False


def place(frame: FrameType) -> str:
    """What to call the place in the code that entered a run, e.g. `train.py:42`."""
    file = frame.f_code.co_filename
    name = notebook.cell_name(file) or (
        layout.relative(Path(file), layout.here()) if os.path.isabs(file) else file
    )
    return f"{name}:{frame.f_lineno}"


_OF_IPYTHON = frozenset({"In", "Out", "exit", "quit", "get_ipython", "open"})


def variables(frame: FrameType) -> dict[str, Any]:
    """Local variables; at the top level those that the user has made."""
    found = dict(frame.f_locals)
    if frame.f_locals is not frame.f_globals:
        return found
    return {k: v for k, v in found.items() if not k.startswith("_") and k not in _OF_IPYTHON}
