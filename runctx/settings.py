"""Read the settings of a project: `[tool.runctx]` in pyproject.toml < `RUNCTX_*` variables < arguments."""

from __future__ import annotations

import functools
import os
import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from .capture import program
from .errors import SettingsError

PREFIX = "RUNCTX_"

TRACKERS = ("mlflow", "tensorboard", "off")
"""What `tracking` may name, besides classes of the project's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """Settings of a project, not of a run.

    >>> load(Path("/"), environ={"RUNCTX_RESULTS": "/scratch/me", "RUNCTX_EXCLUDE": "*.ckpt,re:^tmp"}).exclude
    ('*.ckpt', 're:^tmp')
    """

    root: Path = Path()
    """Folder of the pyproject.toml they come from, else the repository, else the folder asked for.

    Relative paths start here.
    """
    results: str = "results"
    """Folder that receives `<stage>/<yymmdd-HHMMSS>`."""
    branch: str = "run_logs"
    """Branch the snapshots of the work tree are committed to; no other ref is ever moved."""
    include: tuple[str, ...] = ()
    """Globs (`re:` for a regular expression) of files the snapshot takes although git ignores them."""
    exclude: tuple[str, ...] = ()
    """Globs (`re:` for a regular expression) of changed or untracked files the snapshot leaves out."""
    max_file_size: int = 10_000_000
    """Bytes; a larger changed or new file is left out of the snapshot; of a new one there is a warning."""
    max_snapshot_size: int = 50_000_000
    """Bytes of new files in a snapshot; beyond it the largest folders are left out, with a warning."""
    max_output_size: int = 10_000_000_000
    """Bytes of output hashed at exit, smallest files first; the rest is recorded by size and time only."""
    tracking: tuple[str, ...] = ("mlflow",)
    """Views kept up to date while runs log numbers: `mlflow`, `tensorboard`, `module:Class`; `off` for none."""
    tracking_uri: str = ""
    """Where MLflow keeps them, else MLFLOW_TRACKING_URI; default: the file mlflow.db in the project."""
    experiment: str = ""
    """MLflow's group for the runs of this project, else MLFLOW_EXPERIMENT_NAME; default: the project's folder."""
    max_artifact_size: int = 10_000_000
    """Bytes; a larger output is named in MLflow, and not copied there."""
    system_metrics: int = 0
    """Seconds between two looks at processors, memory, disk and accelerators while a run goes on; 0 for none."""
    redact: tuple[str, ...] = ()
    """Globs of further configuration keys that are secret."""
    columns: tuple[str, ...] = ()
    """What `runctx ls` shows of each run, e.g. `status`, `config.lr`, `metrics.loss.min`; default: what differs."""
    variables: tuple[str, ...] = ()
    """Globs of further environment variables to record."""


def load(start: Path | None = None, environ: dict[str, str] | None = None, **overrides: Any) -> Settings:
    """The settings in force for code that lies in `start` (default: the folder of the program, see `program.folder`).

    In a test, nothing keeps views up to date unless the variable asks for it: tests of a user's own code make runs
    that nobody wants to see, and processes that outlive them.

    Raises
    ------
    SettingsError: an unknown key or a value of the wrong type, named with the file or variable it came from.
    """
    start = program.folder() if start is None else start.absolute()
    settings = _of_project(start)
    known = {f.name for f in fields(Settings)} - {"root"}
    environ = dict(os.environ) if environ is None else environ
    from_environ = {
        name: _typed(environ[key], name, f"variable {key}")
        for name in known
        if environ.get(key := PREFIX + name.upper())  # an empty variable counts as unset
    }
    given = {name: _typed(value, name, "argument") for name, value in overrides.items() if value is not None}
    if environ.get("PYTEST_CURRENT_TEST"):
        settings = replace(settings, tracking=("off",))
    return replace(settings, **{**from_environ, **given})


def _of_project(start: Path) -> Settings:
    """Of the nearest pyproject.toml with [tool.runctx]: a package in a project may have a file of its own.

    Without any, a repository is a project too: else `scripts/train.py` would keep its results in `scripts/`,
    where `runctx ls` in the repository does not look.
    """
    nearest = None
    for folder in (start, *start.parents):
        path = folder / "pyproject.toml"
        try:
            changed = path.stat().st_mtime_ns
        except OSError:  # none here, or none that we may see
            if nearest is None and os.path.lexists(folder / ".git"):
                nearest = folder
            continue
        if (found := _from_file(path, changed)) is not None:
            return Settings(root=folder, **found)
        nearest = nearest or folder
    return Settings(root=nearest or start)


@functools.lru_cache(maxsize=16)
def _from_file(path: Path, mtime_ns: int) -> dict[str, Any] | None:
    try:
        table: Any = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SettingsError(f"{path}: cannot be parsed as TOML: {error}") from error
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror or error}") from error
    for name in ("tool", "runctx"):
        table = table.get(name, {}) if isinstance(table, dict) else table
        if not isinstance(table, dict):
            raise SettingsError(f"{path}: {name} must be a table; got {table!r}")
    return {key: _typed(value, key, str(path)) for key, value in table.items()} or None


def _typed(value: Any, name: str, where: str) -> Any:
    defaults = {f.name: f.default for f in fields(Settings) if f.name != "root"}
    if name not in defaults:
        import difflib

        near = difflib.get_close_matches(name, defaults, n=1)
        raise SettingsError(
            f"{where}: unknown setting {name!r}",
            hint=f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(defaults)}",
        )
    default = defaults[name]
    if isinstance(default, tuple):
        if isinstance(value, str):
            value = [part.strip() for part in value.split(",") if part.strip()]
        if isinstance(value, (list, tuple)) and all(isinstance(part, str) for part in value):
            if name == "tracking":
                _check_trackers(value, where)
            return tuple(value)
    elif isinstance(default, int):
        if isinstance(value, str) and re.fullmatch(r"[0-9]+(_[0-9]+)*", value) and len(value) < 20:
            return int(value)
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return value
    elif isinstance(value, (str, os.PathLike)):
        return os.fspath(value)
    wanted = {tuple: "a list of strings", int: "a whole number", str: "a string"}[type(default)]
    raise SettingsError(f"{where}: setting {name!r} must be {wanted}; got {value!r}")


def _check_trackers(names: Iterable[str], where: str) -> None:
    """At once: the process that ships the numbers would say it where nobody looks."""
    for name in names:
        if name not in TRACKERS and ":" not in name:
            raise SettingsError(
                f"{where}: setting 'tracking': unknown tracker {name!r}",
                hint=f"{', '.join(TRACKERS)}, or a class of your own, as `module:Class`",
            )
