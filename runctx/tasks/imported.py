"""Which code did only the workers import? It belongs to the code that ran as much as what their parent imported."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..layout import TaskFiles
    from .attached import Parent

_OF_WORKERS = frozenset({"joblib", "cloudpickle", "submitit", "runctx", "msgspec", "blake3", "__mp_main__"})
"""What workers import to work: nobody asked for it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Imported:
    """What processes other than the run's have imported."""

    modules: dict[str, Path] = field(default_factory=dict)
    """Of the project, and their files."""
    packages: dict[str, str] = field(default_factory=dict)
    """Distribution -> version."""

    def joined(self, other: Imported) -> Imported:
        return Imported(modules=self.modules | other.modules, packages=self.packages | other.packages)


def note(files: TaskFiles, worker: str, parent: Parent) -> None:
    """Write down what this worker's process has imported and its parent had not; mostly that is nothing."""
    from .. import command, distributions

    known = {name.partition(".")[0] for name in parent.modules} | sys.stdlib_module_names | _OF_WORKERS
    for name in sys.modules.keys() - parent.modules:
        file = distributions.module_file(name)
        if file is None or name.partition(".")[0] in _OF_WORKERS:
            continue
        if name.partition(".")[0] not in known or not distributions.is_installed(file):
            break
    else:
        return
    import msgspec

    from .. import layout

    modules = command.project_modules(parent.root)
    modules.pop("__main__", None)
    new = {name: str(path) for name, path in modules.items() if name not in parent.modules}
    path = files.imported(worker)
    path.parent.mkdir(parents=True, exist_ok=True)
    layout.write_atomically(path, msgspec.json.encode((new, distributions.imported())))


def read(files: TaskFiles) -> Imported:
    """What workers have written down so far; a broken file tells nothing."""
    import msgspec

    found = Imported()
    for path in sorted(files.imported().glob("*.json")):
        try:
            modules, packages = msgspec.json.decode(
                path.read_bytes(), type=tuple[dict[str, str], dict[str, str]]
            )
        except (OSError, msgspec.DecodeError):
            continue
        found = found.joined(
            Imported(modules={name: Path(file) for name, file in modules.items()}, packages=packages)
        )
    return found
