"""What was started (script, module, notebook, console), and which of the project's modules did it import?"""

from __future__ import annotations

import functools
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from . import distributions, model, notebook
from .errors import SaveDirError
from .redact import Redactor

CONSOLE = "console"
"""Stage of what has no name: a bare console, `python -c`, standard input."""

NOTEBOOK = "notebook"
"""Stage of a notebook whose name is not known."""

MAX_ARGUMENTS = 64_000
"""Characters of the arguments that are kept; a shell glob can make millions."""

_DEBUGGERS = ("pydev", "_pydev", "debugpy")
"""Beginnings of modules that editors put on the search path of what they start."""


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

    A profiler or debugger in front (`python -m cProfile train.py`) does not count as the program, nor does
    what starts a worker: a child of multiprocessing or loky tells what its parent was started with. The
    arguments of a kernel are not the notebook's: it has none. Never raises.

    Parameters
    ----------
    root: the repository; entry and cwd are relative to it where they lie inside.
    redactor: decides what is secret in the arguments.

    >>> command().pid == os.getpid()
    True
    """
    program = _program()
    base = None if root is None else _absolute(os.fspath(root))
    return model.Command(
        kind=program.kind,
        entry=_printable(program.module or _shown(program.file, base)),
        argv=(redactor or Redactor()).arguments(_bounded(program.argv)),
        cwd=_printable(_shown(_current_folder(), base)),
        python=_printable(sys.executable or ""),
        host=_printable(_host()),
        pid=os.getpid(),
        user=_printable(_user()),
        slurm_job=_slurm_job(),
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
    ours = os.path.join(os.path.dirname(__file__), "__main__.py")  # as `python -m runctx`, wherever it lies
    if file in (None, ours) or not os.path.exists(file) or distributions.is_installed(file):
        return Path(_current_folder() or os.sep)
    return Path(os.path.dirname(os.path.realpath(file)))


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
    name = package or file.stem
    # 60 characters are at most 240 bytes
    return re.sub(r"[^\w.-]+", "-", name).strip(".-")[:60].rstrip(".-")


def project_modules(root: Path | None = None) -> dict[str, Path]:
    """The files of imported modules that belong to the project, by module name; `__main__` is the program.

    The project is what lies in the repository, in an editable install, or in any other folder on the search
    path that nothing was installed into. The standard library, site-packages and virtual environments are not
    part of it, even where they lie inside the repository.

    Parameters
    ----------
    root: the repository. A path inside it starts with `root` as given, even if imported through a link.
    """
    base = None if root is None else _absolute(os.fspath(root))
    found = _census(base).modules()
    found.pop("__mp_main__", None)  # a spawned child's second name for `__main__`
    found.pop("__main__", None)
    program = _program().file
    if program is not None and os.path.isfile(program) and not distributions.is_installed(program):
        found["__main__"] = Path(_in_repository(program, base))
    return found


def _program() -> _Program:
    argv = tuple(str(argument) for argument in getattr(sys, "argv", None) or ())
    main = _names_of_main()
    file = _main_file(main, argv)
    given = _as_started(argv[0]) if argv and argv[0] else None
    # an editor may set `__file__` in a kernel; only `%run` sets the arguments as well
    of_cells = notebook.in_kernel() and not (file and given and _same(file, given))
    if file is None or file.endswith(".ipynb") or of_cells:
        return _without_file(argv)
    if given and distributions.is_installed(file) and os.path.isfile(given) and not _same(file, given):
        # a launcher (cProfile, trace, loky's worker) has put the program's own name into argv[0]
        return _without_file(argv) if _is_kernel(given) else _Program(kind="script", argv=argv, file=given)
    name = getattr(main.get("__spec__"), "name", None)
    if isinstance(name, str) and name not in ("__main__", "__mp_main__"):
        name = name.removesuffix(".__main__")
        return _Program(kind="module", argv=("-m", name, *argv[1:]), file=file, module=name)
    return _Program(kind="script", argv=argv, file=_container(file))


def _without_file(argv: tuple[str, ...]) -> _Program:
    if notebook.in_kernel() or (argv and _is_kernel(argv[0])):
        path = notebook.notebook_path()
        return _Program(kind="notebook", argv=(), file=None if path is None else str(path))
    return _Program(kind="console", argv=_with_code(argv) if any(argv) else ())


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
        return _absolute(file)
    if argv and os.path.isabs(argv[0]) and os.path.basename(argv[0]) == os.path.basename(file):
        return argv[0]  # IPython keeps the path as typed in one, absolute in the other
    return _as_started(file)


def _as_started(path: str) -> str:
    """Made absolute, though the program may have left the folder it was started in."""
    return _absolute(path if os.path.exists(path) else os.path.join(os.environ.get("PWD", ""), path))


def _is_kernel(path: str) -> bool:
    """Whether this is the file a kernel is started from; a kernel's workers see it as their argv[0]."""
    name = Path(path)
    return "kernel_launcher" in name.name or name.parent.name == "ipykernel"


def _container(file: str) -> str:
    """The zip application a file lies in, else the file."""
    outer = file
    while not os.path.exists(outer) and os.path.dirname(outer) != outer:
        outer = os.path.dirname(outer)
    return outer if os.path.isfile(outer) else file


def _with_code(argv: tuple[str, ...]) -> tuple[str, ...]:
    """Python keeps the text after `-c` out of `sys.argv`, but not out of `sys.orig_argv`."""
    rest = len(argv) - 1
    original = sys.orig_argv
    at = len(original) - rest - 1
    if (
        argv[0] == "-c"
        and at > 1
        and re.fullmatch(r"-\w*c", original[at - 1])
        and argv[1:] == tuple(original[at + 1 :])
    ):
        return ("-c", original[at], *argv[1:])
    return argv


def _bounded(argv: tuple[str, ...]) -> tuple[str, ...]:
    room = MAX_ARGUMENTS
    kept: list[str] = []
    for argument in argv:
        text = _printable(argument)
        if len(text) > room:
            return (*kept, f"... ({len(argv) - len(kept)} more arguments, left out)")
        room -= len(text)
        kept.append(text)
    return tuple(kept)


class _Census:
    """Which modules of this process belong to the project; each is looked at once."""

    def __init__(self, root: str | None) -> None:
        self._root = root
        self._root_is_installed = root is not None and distributions.is_installed(root + os.sep)
        self._seen: set[str] = set()
        self._own: dict[str, tuple[str, Path]] = {}

    def modules(self) -> dict[str, Path]:
        names = list(sys.modules)
        if not self._seen.issuperset(names):
            new = [name for name in names if name not in self._seen]
            for name in new:
                self._judge(name)
            self._seen.update(new)
        for name, (file, _) in list(self._own.items()):
            if distributions.module_file(name) != file:  # imported anew from elsewhere, or gone
                self._own.pop(name, None)  # another thread may have been here
                self._seen.discard(name)
                self._judge(name)
        return {name: path for name, (_, path) in sorted(self._own.items())}

    def _judge(self, name: str) -> None:
        file = distributions.module_file(name)
        if file is not None and self._belongs(name, file):
            self._own[name] = (file, Path(_in_repository(_absolute(file), self._root)))

    def _belongs(self, name: str, file: str) -> bool:
        if distributions.is_installed(file):
            # a virtual environment may lie in a repository, and a repository in site-packages
            return self._root is not None and file.startswith(self._root + os.sep) and self._root_is_installed
        if self._root is not None and _relative(file, self._root) is not None:
            return True
        if name.startswith(_DEBUGGERS):
            return False
        place = distributions.import_folder(name, file)
        searched = place in sys.path or place in sys.path_importer_cache
        return (searched and not distributions.holds_distributions(place)) or distributions.is_editable(file)


@functools.lru_cache(maxsize=8)
def _census(root: str | None) -> _Census:
    return _Census(root)


def _relative(path: str, root: str) -> str | None:
    """The path below root, followed through links only if need be; None outside."""
    for candidate in (path, os.path.realpath(path)):
        for folder in (root, os.path.realpath(root)):
            if candidate == folder:
                return "."
            if candidate.startswith(folder.rstrip(os.sep) + os.sep):
                return candidate[len(folder.rstrip(os.sep)) + 1 :]
    return None


def _in_repository(path: str, root: str | None) -> str:
    inside = None if root is None else _relative(path, root)
    return path if root is None or inside is None else os.path.join(root, inside)


def _shown(path: str | None, root: str | None) -> str:
    if not path:
        return ""
    inside = None if root is None else _relative(path, root)
    return (inside or path).replace(os.sep, "/")


def shown(file: str, root: Path | None) -> str:
    """The path of a module, relative to the repository if it lies inside."""
    return _shown(_absolute(file), None if root is None else _absolute(os.fspath(root)))


def _absolute(path: str) -> str:
    try:
        # beyond a symbolic link, `..` leads elsewhere than the text says
        return os.path.realpath(path) if os.pardir in Path(path).parts else os.path.abspath(path)
    except OSError:
        return path  # the current folder was deleted


def _same(one: str, other: str) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)


def _current_folder() -> str:
    try:
        return os.getcwd()
    except OSError:
        return os.environ.get("PWD", "")  # deleted meanwhile: where it was


def _host() -> str:
    import platform

    return platform.node()


def _user() -> str:
    """The login name; a container may run under a number that has none."""
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return str(os.getuid()) if hasattr(os, "getuid") else ""


def _slurm_job() -> str | None:
    """`123`, or `120_7` for a member of an array, as squeue and sacct print it."""
    array, member = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    if array and member:
        return f"{array}_{member}"
    return os.environ.get("SLURM_JOB_ID") or os.environ.get("SLURM_JOBID") or None


def _printable(text: str) -> str:
    """Text that can be written as UTF-8, whatever bytes a file name or an argument holds."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
