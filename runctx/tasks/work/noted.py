"""What have workers noted for the lock, beside their rows?

Code that only they imported belongs to the code that ran, and keys of the configuration that only tasks read were
not set in vain. Of workers that are this process itself, nothing has to be told.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ...layout import TaskFiles
    from .attached import Parent

_OF_WORKERS = frozenset({"joblib", "cloudpickle", "submitit", "runctx", "msgspec", "blake3", "__mp_main__"})
"""What workers import to work: nobody asked for it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Noted:
    """What processes other than the run's have done."""

    modules: dict[str, Path] = field(default_factory=dict)
    """Of the project, that they imported, and their files."""
    packages: dict[str, str] = field(default_factory=dict)
    """Distribution -> version, likewise."""
    keys_read: frozenset[str] = frozenset()
    """Of the configuration, dotted."""

    def joined(self, other: Noted) -> Noted:
        return Noted(
            modules=self.modules | other.modules,
            packages=self.packages | other.packages,
            keys_read=self.keys_read | other.keys_read,
        )


def note(
    files: TaskFiles,
    worker: str,
    parent: Parent,
    keys_read: Iterable[str],
    original: Callable[[str], str] = str,
) -> None:
    """Write down what this worker's process did, at its end; if it was nothing new, no file is made.

    Parameters
    ----------
    original: gives the project's own file for one that was imported.
    """
    from ...capture.modules import packages as imported_packages
    from ...capture.program import project_modules

    modules: dict[str, str] = {}
    packages: dict[str, str] = {}
    if _has_imported_more(parent.modules):
        found = project_modules(parent.root)
        modules = {name: original(str(path)) for name, path in found.items() if name not in parent.modules}
        modules.pop("__main__", None)
        packages = imported_packages()
    keys = sorted(keys_read)
    if modules or packages or keys:
        import msgspec

        from ... import layout

        path = files.notes(worker)
        path.parent.mkdir(parents=True, exist_ok=True)
        layout.write_atomically(path, msgspec.json.encode((modules, packages, keys)))


def _has_imported_more(known: frozenset[str]) -> bool:
    """Whether there are modules of the project, or distributions, that the parent had not imported."""
    from ...capture.modules import is_installed, module_file

    tops = {name.partition(".")[0] for name in known} | sys.stdlib_module_names
    for name in sys.modules.keys() - known:
        top, file = name.partition(".")[0], module_file(name)
        if top not in _OF_WORKERS and file and (top not in tops or not is_installed(file)):
            return True
    return False


def read(files: TaskFiles) -> Noted:
    """What workers have noted so far; a broken file tells nothing."""
    import msgspec

    from ... import layout

    noted = Noted()
    for path in sorted(files.notes().glob("*.json")):
        try:
            modules, packages, keys = msgspec.json.decode(
                layout.read_regular(path), type=tuple[dict[str, str], dict[str, str], list[str]]
            )
        except (OSError, ValueError):
            continue
        paths = {name: Path(file) for name, file in modules.items()}
        noted = noted.joined(Noted(modules=paths, packages=packages, keys_read=frozenset(keys)))
    return noted
