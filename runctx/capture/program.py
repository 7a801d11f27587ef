"""Describe how this process was started, find the user's code that enters a run, and name the run's stage."""

from __future__ import annotations

import getpass
import opcode
import os
import platform
import re
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from .. import layout, model
from ..errors import SaveDirError
from ..redact import Redactor
from . import modules, notebook
from .modules import absolute, is_installed

CONSOLE = "console"
"""Stage of what has no name: a bare console, `python -c`, standard input."""
NOTEBOOK = "notebook"
"""Stage of a notebook whose name is not known."""
MAX_ARGUMENTS = 64_000
"""Characters of the arguments that are kept; a shell glob can make millions."""

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_STANDARD_LIBRARY = os.path.dirname(os.__file__) + os.sep


@dataclass(frozen=True, kw_only=True, slots=True)
class _Program:
    """What Python was asked to run."""

    kind: Literal["script", "module", "notebook", "console"]
    argv: tuple[str, ...]
    """What follows the interpreter on the command line."""
    file: str | None = None
    module: str | None = None


def command(root: Path | None = None, redactor: Redactor | None = None) -> model.Command:
    """What was started, where and by whom; `[python, *argv]` in `cwd` starts a script or module again.

    A profiler or debugger in front (`python -m cProfile train.py`) does not count as the program, nor does what starts
    a worker: a child of multiprocessing or loky tells what its parent was started with. The arguments of a kernel are
    not the notebook's: it has none. Never raises.

    Parameters
    ----------
    root: the repository; entry and cwd are relative to it where they lie inside.
    redactor: decides what is secret in the arguments.

    >>> command().pid == os.getpid()
    True
    """
    program = _program()
    array, member = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    job = os.environ.get("SLURM_JOB_ID") or os.environ.get("SLURM_JOBID") or None
    return model.Command(
        kind=program.kind,
        entry=_printable(program.module or _shown(program.file, root)),
        argv=(redactor or Redactor()).arguments(_bounded(program.argv)),
        cwd=_printable(_shown(_current_folder(), root)),
        python=_printable(sys.executable or ""),
        host=_printable(platform.node()),
        pid=os.getpid(),
        user=_printable(_user()),
        slurm_job=f"{array}_{member}" if array and member else job,  # as squeue and sacct print it
    )


def is_interactive() -> bool:
    """Whether the process's arguments are those of a kernel or console, and not meant for the user's code.

    A script that is started by `%run` has arguments of its own.

    >>> is_interactive()
    False
    """
    kind = _program().kind
    return kind == "notebook" or (kind == "console" and notebook.user_namespace() is not None)


def folder() -> Path:
    """Where the project is looked for: the program's folder, else (a console, a tool) the current one."""
    file = _program().file
    ours = os.path.join(_PACKAGE, "__main__.py")  # as `python -m runctx`, wherever it lies
    if file in (None, ours) or not os.path.exists(file) or is_installed(file):
        return Path(_current_folder() or os.sep)
    return Path(os.path.dirname(os.path.realpath(file)))


def project_modules(root: Path | None = None) -> dict[str, Path]:
    """The files of imported modules that belong to the project, by module name; `__main__` is the program.

    Parameters
    ----------
    root: the repository. A path inside it starts with `root` as given, even if imported through a link.
    """
    found = modules.of_project(root)
    file = _program().file
    if file is not None and os.path.isfile(file) and not is_installed(file):
        inside = modules.relative(file, None if root is None else absolute(os.fspath(root)))
        found["__main__"] = (
            Path(file) if root is None or inside is None else Path(absolute(str(root)), inside)
        )
    return found


# -- stages ------------------------------------------------------------------------------------------------


def given_stage(stage: str) -> str:
    """A stage as the user calls it, which may name folders in folders: `night/train`.

    Raises
    ------
    TypeError: it is no text. SaveDirError: it would lead out of the results folder.

    >>> given_stage("../train")
    Traceback (most recent call last):
    runctx.errors.SaveDirError: stage '../train' leads out of the results folder
    hint: give a name such as 'train', and the folder as `save_dir`
    """
    if not isinstance(stage, str):
        raise TypeError(f"stage must be a name, not {type(stage).__name__} {stage!r}")
    if stage.startswith("/") or ".." in stage.split("/"):
        raise SaveDirError(
            f"stage {stage!r} leads out of the results folder",
            hint="give a name such as 'train', and the folder as `save_dir`",
        )
    return stage


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
            return name_of_file(str(notebook.notebook_path() or "")) or NOTEBOOK
        return CONSOLE
    name = "" if file.startswith("<") else name_of_file(_shown(absolute(file), root))
    return name or stage_name(started)


def stage_name(command: model.Command) -> str:
    """The name of what was started: `train` for `train.py` and for `-m pkg.train`.

    A notebook whose path is not known is `notebook`; what has no name at all is `console`.

    >>> from dataclasses import replace
    >>> stage_name(replace(command(), kind="module", entry="pkg.train"))
    'train'
    """
    entry = command.entry.replace(".", "/") + ".py" if command.kind == "module" else command.entry
    return name_of_file(entry) or (NOTEBOOK if command.kind == "notebook" else CONSOLE)


def name_of_file(path: str) -> str:
    """The name of a module or notebook, as any file system takes it; that of its folder if it is a package's.

    Parameters
    ----------
    path: relative to the repository, so that its folder names nothing.

    >>> name_of_file("src/train.py"), name_of_file("pkg/__main__.py"), name_of_file("pkg/__init__.py")
    ('train', 'pkg', 'pkg')
    """
    file = Path(path)
    package = file.parent.name.removesuffix(".pyz") if file.stem in ("__main__", "__init__") else ""
    # 60 characters are at most 240 bytes
    return re.sub(r"[^\w.-]+", "-", package or file.stem).strip(".-")[:60].rstrip(".-")


# -- frames ------------------------------------------------------------------------------------------------


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
        of_project = not file.startswith(("<", _PACKAGE)) and not is_installed(file)
        if of_project or notebook.is_cell(file) or _is_at_prompt(outer):
            return outer
        standard = file.startswith(_STANDARD_LIBRARY) and "-packages/" not in file
        if fallback is None and not standard and not file.startswith((_PACKAGE, "<frozen ")):
            fallback = outer
        outer = outer.f_back
    return fallback or frame


def _is_at_prompt(frame: FrameType) -> bool:
    """Whether it is code of a bare prompt, `python -c` or standard input; a script has a file."""
    names = frame.f_globals
    is_file = not frame.f_code.co_filename.startswith("<") or "__file__" in names
    return not is_file and names.get("__name__") == "__main__"


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


# -- how it was started ------------------------------------------------------------------------------------


def _program() -> _Program:
    argv = tuple(map(str, getattr(sys, "argv", None) or ()))
    main = _names_of_main()
    file = _main_file(main, argv)
    given = _as_started(argv[0]) if argv and argv[0] else None
    # an editor may set `__file__` in a kernel; only `%run` sets the arguments as well
    of_cells = notebook.in_kernel() and not (file and given and _same(file, given))
    # a launcher (cProfile, trace, loky's worker) has put the program's own name into argv[0]
    launched = given if file and given and is_installed(file) and os.path.isfile(given) else None
    if launched and (_same(file or "", launched) or of_cells):
        launched = None
    if file is None or file.endswith(".ipynb") or of_cells or (launched and _is_kernel(launched)):
        if notebook.in_kernel() or (argv and _is_kernel(argv[0])):
            path = notebook.notebook_path()
            return _Program(kind="notebook", argv=(), file=None if path is None else str(path))
        return _Program(kind="console", argv=_with_code(argv) if any(argv) else ())
    if launched:
        return _Program(kind="script", argv=argv, file=launched)
    name = getattr(main.get("__spec__"), "name", None)
    if isinstance(name, str) and name not in ("__main__", "__mp_main__"):
        name = name.removesuffix(".__main__")
        return _Program(kind="module", argv=("-m", name, *argv[1:]), file=file, module=name)
    return _Program(kind="script", argv=argv, file=file)


def _names_of_main() -> dict[str, Any]:
    try:
        names = object.__getattribute__(sys.modules["__main__"], "__dict__")
    except (KeyError, AttributeError):
        return {}
    return names if isinstance(names, dict) else {}


def _main_file(main: dict[str, Any], argv: tuple[str, ...]) -> str | None:
    file = main.get("__file__")
    if not isinstance(file, str) or not file or file.startswith("<"):  # `<stdin>`
        return None
    if os.path.isabs(file):
        return absolute(file)
    if argv and os.path.isabs(argv[0]) and os.path.basename(argv[0]) == os.path.basename(file):
        return argv[0]  # IPython keeps the path as typed in one, absolute in the other
    return _as_started(file)


def _as_started(path: str) -> str:
    """Made absolute, though the program may have left the folder it was started in."""
    return absolute(path if os.path.exists(path) else os.path.join(os.environ.get("PWD", ""), path))


def _is_kernel(path: str) -> bool:
    """Whether this is the file a kernel is started from; a kernel's workers see it as their argv[0]."""
    name = Path(path)
    return "kernel_launcher" in name.name or name.parent.name == "ipykernel"


def _with_code(argv: tuple[str, ...]) -> tuple[str, ...]:
    """Python keeps the text after `-c` out of `sys.argv`, but not out of `sys.orig_argv`."""
    at = len(sys.orig_argv) - len(argv)
    if argv[0] == "-c" and at > 1 and argv[1:] == tuple(sys.orig_argv[at + 1 :]):
        return ("-c", sys.orig_argv[at], *argv[1:])
    return argv


def _bounded(argv: tuple[str, ...]) -> tuple[str, ...]:
    room = MAX_ARGUMENTS
    kept: list[str] = []
    for text in map(_printable, argv):
        room -= len(text)
        if room < 0:
            return (*kept, f"... ({len(argv) - len(kept)} more arguments, left out)")
        kept.append(text)
    return tuple(kept)


def _shown(path: str | None, root: Path | None) -> str:
    if not path:
        return ""
    inside = modules.relative(path, None if root is None else absolute(os.fspath(root)))
    return (inside or path).replace(os.sep, "/")


def _same(one: str, other: str) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)


def _current_folder() -> str:
    try:
        return os.getcwd()
    except OSError:
        return os.environ.get("PWD", "")  # deleted meanwhile: where it was


def _user() -> str:
    """The login name; a container may run under a number that has none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return str(os.getuid()) if hasattr(os, "getuid") else ""


def _printable(text: str) -> str:
    """Text that can be written as UTF-8, whatever bytes a file name or an argument holds."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


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
