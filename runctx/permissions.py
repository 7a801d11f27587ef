"""Say whom to ask for a permission that this user lacks."""

from __future__ import annotations

import os
from pathlib import Path


def hint(path: Path, access: int = os.W_OK) -> str | None:
    """Who can give the permission, and how; None if no permission is missing.

    Parameters
    ----------
    path: to be read or written; what is not there yet is to be made.
    access: `os.R_OK` or `os.W_OK`.
    """
    try:
        place = Path(os.path.abspath(path))
    except FileNotFoundError:  # relative to a current folder that was deleted
        return None
    while not os.path.lexists(place):
        place = place.parent
    closed = next((above for above in reversed(place.parents) if not os.access(above, os.X_OK)), None)
    if closed is not None:
        place, access = closed, os.X_OK
    elif place.is_dir():
        access |= os.X_OK
    if os.access(place, access):
        return None
    letters = "".join(
        letter for letter, bit in (("r", os.R_OK), ("w", os.W_OK), ("x", os.X_OK)) if access & bit
    )
    return f"{place} belongs to {name(place.lstat().st_uid)}: ask for `chmod g+{letters} {place}`"


def name(user: int) -> str:
    """How a user is called; by the number, if it has no name."""
    import pwd

    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return f"user {user}"
