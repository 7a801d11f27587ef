"""Say what an exception says, whatever its class does when it is asked."""

from __future__ import annotations

import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from types import TracebackType


class RemoteTraceback(Exception):  # noqa: N818  # it is a text to show, no error of its own
    """Shows where an exception was raised, in another process."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


def kind(error: BaseException) -> str:
    """Qualified name of its class.

    >>> kind(ValueError("x"))
    'builtins.ValueError'
    """
    return f"{type(error).__module__}.{type(error).__qualname__}"


def message(error: BaseException) -> str:
    """What it says."""
    return asked(lambda: str(error), error)


def traceback_text(error: BaseException) -> str:
    """As Python prints it, without local values."""
    return asked(lambda: "".join(traceback.format_exception(error)), error)


def users_traceback(error: BaseException) -> str:
    """As Python prints it, from the first line of the user's code on."""
    frames = list(_frames(error.__traceback__))
    start = next((frame for frame in frames if _is_users(_file(frame))), error.__traceback__)
    return asked(lambda: "".join(traceback.format_exception(type(error), error, start)), error)


def place(error: BaseException) -> str | None:
    """The last line of the user's code that it went through, `train.py:12, in log_run`; None if there is none."""
    from .display import words

    users = [frame for frame in _frames(error.__traceback__) if _is_users(_file(frame))]
    if not users:
        return None
    return f"{words.path(_file(users[-1]))}:{users[-1].tb_lineno}, in {users[-1].tb_frame.f_code.co_name}"


def rendered(error: BaseException) -> list[str]:
    """As IPython shows it, without the frames of this package."""
    chain: list[BaseException] = []
    one: BaseException | None = error
    while one is not None and one not in chain:
        chain.append(one)
        one = one.__cause__ or one.__context__
    for one in chain:
        kept = [frame for frame in _frames(one.__traceback__) if not _file(frame).startswith(_OURSELVES)]
        shown = None
        for frame in reversed(kept):
            shown = TracebackType(shown, frame.tb_frame, frame.tb_lasti, frame.tb_lineno)
        one.__traceback__ = shown
        if isinstance(one, RemoteTraceback):
            one.args = (_OURS.sub("", one.args[0]),)
    shell = sys.modules["IPython.core.getipython"].get_ipython()
    lines: list[str] = shell.InteractiveTB.structured_traceback(type(error), error, error.__traceback__)
    return lines


_OURSELVES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "")
_OURS = re.compile(rf'^ *File "{re.escape(_OURSELVES)}.*\n(?:    .*\n)*', re.MULTILINE)


def _frames(start: TracebackType | None) -> Iterator[TracebackType]:
    while start is not None:
        yield start
        start = start.tb_next


def _file(frame: TracebackType) -> str:
    return frame.tb_frame.f_code.co_filename


def _is_users(file: str) -> bool:
    from .capture.modules import is_installed

    return os.path.isabs(file) and not file.startswith(_OURSELVES) and not is_installed(file)


def asked(ask: Callable[[], str], error: BaseException) -> str:
    try:
        return ask()
    except Exception as broken:  # asking an exception runs the user's code, e.g. its __str__
        return f"<{type(error).__name__} cannot be put into words: that raised {type(broken).__name__}>"
