"""Tests for whoever writes a launcher or a tracker: does it do what runctx relies on?

Needs pytest, which runctx itself does not.
"""

import pytest

pytest.register_assert_rewrite(f"{__name__}.launchers", f"{__name__}.trackers")

from .launchers import LauncherContract  # noqa: E402 - what fails is told in detail only if asked for before
from .trackers import TrackerContract  # noqa: E402

__all__ = ["LauncherContract", "TrackerContract"]
