"""How is an exception told in words, whatever its class does when it is asked?"""

from __future__ import annotations

import traceback
from collections.abc import Callable


def kind(error: BaseException) -> str:
    """Qualified name of its class.

    >>> kind(ValueError("x"))
    'builtins.ValueError'
    """
    return f"{type(error).__module__}.{type(error).__qualname__}"


def message(error: BaseException) -> str:
    """What it says."""
    return _asked(lambda: str(error), error)


def traceback_text(error: BaseException) -> str:
    """As Python prints it, without local values."""
    return _asked(lambda: "".join(traceback.format_exception(error)), error)


def _asked(ask: Callable[[], str], error: BaseException) -> str:
    try:
        return ask()
    except Exception as broken:  # asking an exception runs the user's code, e.g. its __str__
        return f"<{type(error).__name__} cannot be put into words: that raised {type(broken).__name__}>"
