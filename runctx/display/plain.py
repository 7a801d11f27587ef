"""How is what is shown in a terminal told as plain text?"""

from __future__ import annotations

import io
import shutil
from typing import Any

from rich.console import Console, RenderableType


def as_text(shown: RenderableType) -> str:
    """As plain text, for `repr`."""
    stream = io.StringIO()
    width = shutil.get_terminal_size().columns
    options: dict[str, Any] = {"highlight": False, "markup": False, "emoji": False, "color_system": None}
    console = Console(
        file=stream, width=width, force_jupyter=False, **options
    )  # Jupyter would show it at once
    console.print(shown, crop=False)
    return "\n".join(line.rstrip() for line in stream.getvalue().rstrip("\n").split("\n"))
