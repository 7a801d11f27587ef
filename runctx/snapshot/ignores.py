"""Tell whether git would ignore what is written to a folder."""

from __future__ import annotations

import os
from pathlib import Path


def is_ignored(root: Path, folder: Path) -> bool:
    """Whether git ignores a folder, which need not exist, or it is outside the work tree `root`."""
    from .command import GitError, git
    from .opened import opened

    folder = Path(os.path.abspath(folder))
    if not folder.is_relative_to(root):
        return True
    here, inside = opened(root), f"{folder.relative_to(root).as_posix()}/x"
    if not here.is_plain():
        try:
            ignored, _ = git(root, "check-ignore", "-z", "--stdin", stdin=os.fsencode(inside), accept=(0, 1))
            return bool(ignored)
        except GitError:
            pass  # without git, libgit2 may be right
    return bool(here.repo.path_is_ignored(inside))
