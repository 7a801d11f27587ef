"""Would git ignore what is written to a folder?"""

from __future__ import annotations

import os
from pathlib import Path


def is_ignored(root: Path, folder: Path) -> bool:
    """Whether git ignores a folder, which need not exist, or it is outside the work tree `root`."""
    from .opened import opened

    folder = Path(os.path.abspath(folder))
    if not folder.is_relative_to(root):
        return True
    return bool(opened(root).repo.path_is_ignored(folder.relative_to(root).as_posix() + "/"))
