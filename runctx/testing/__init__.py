"""Does a launcher or a tracker do what runctx relies on? Tests for whoever writes one.

Needs pytest, which runctx itself does not.
"""

from .launchers import LauncherContract
from .trackers import TrackerContract

__all__ = ["LauncherContract", "TrackerContract"]
