"""Do many tasks on many processes and machines, under one lock."""

from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any

results_folder: ContextVar[Path | None] = ContextVar("runctx_results_folder", default=None)
"""Of the run whose results are being read, wherever it was when they were written."""

build_run: Callable[[str, str, dict[Any, Any]], Any]
"""Make a run that was entered inside a task from what its result holds: folder, id and configuration.

`past.record`, which knows past runs, sets it.
"""
