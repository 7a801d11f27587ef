"""Which values did the run use, and who set them? The only place that imports omegaconf."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .cli import add_arguments
    from .files.compose import load
    from .grid import merged, sample, with_task, zipped
    from .objects import subclasses_in, to_class
    from .opening import open_anew, open_config
    from .origins import origins_of
    from .reads import keys_read, never_read, plain_of, unnoticed, watch
    from .resolved import (
        fill_in,
        from_plain,
        interpolated,
        latest_runs,
        refuse_missing,
        save_dir_of,
        to_plain,
        to_yaml,
    )
    from .spaces import integers, log_spaced, log_uniform, spaced, uniform
    from .structure import structure_digest
    from .text import from_text, value_digest
    from .trace import choices_of, note_run, resume_of

__all__ = [
    "add_arguments",
    "choices_of",
    "fill_in",
    "from_plain",
    "from_text",
    "integers",
    "interpolated",
    "keys_read",
    "latest_runs",
    "load",
    "log_spaced",
    "log_uniform",
    "merged",
    "never_read",
    "note_run",
    "open_anew",
    "open_config",
    "origins_of",
    "plain_of",
    "refuse_missing",
    "resume_of",
    "sample",
    "save_dir_of",
    "spaced",
    "structure_digest",
    "subclasses_in",
    "to_class",
    "to_plain",
    "to_yaml",
    "uniform",
    "unnoticed",
    "value_digest",
    "watch",
    "with_task",
    "zipped",
]

_MODULES = {
    "grid": "merged sample with_task zipped",
    "spaces": "integers log_spaced log_uniform spaced uniform",
    "cli": "add_arguments",
    "files.compose": "load",
    "origins": "origins_of",
    "reads": "keys_read never_read plain_of unnoticed watch",
    "objects": "subclasses_in to_class",
    "opening": "open_anew open_config",
    "resolved": "fill_in from_plain interpolated latest_runs refuse_missing save_dir_of to_plain to_yaml",
    "structure": "structure_digest",
    "text": "from_text value_digest",
    "trace": "choices_of note_run resume_of",
}
_HOME = {name: module for module, names in _MODULES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    # a run needs only some of them, and `runctx show --explain` not even omegaconf
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
