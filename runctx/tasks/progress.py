"""How does the user see that a map goes on? By a bar, fed with what workers append to their rows."""

from __future__ import annotations

import contextvars
import os
import shutil
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..capture import notebook
from ..layout import TaskFiles
from ..waiting import PATIENCE

_PACE = 0.5
"""Seconds between two looks at the rows."""
_WIDEST = 70
"""Columns: what workers log meanwhile begins with more than that, and so covers the bar."""
_FORMAT = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}{postfix}, {rate_fmt}, {remaining} left"


@contextmanager
def shown(files: TaskFiles, total: int, done: int, *, show: bool = True) -> Iterator[None]:
    """Show how a map goes on, in a thread, if it takes long enough; in a terminal and in a notebook.

    Whatever goes wrong with it does not concern the map.

    Parameters
    ----------
    done: how many of the tasks are done already.
    show: whether there may be a bar.
    """
    if not (show and _can_show()):
        yield
        return
    over = threading.Event()
    began, tally = time.time(), Tally(files)
    in_context = contextvars.copy_context().run  # in which a notebook finds the cell that the bar belongs to
    bar = threading.Thread(
        target=in_context,
        args=(_follow, tally, over, total, done, began),
        name="runctx progress",
        daemon=True,
    )
    bar.start()
    try:
        yield
    finally:
        over.set()
        bar.join(timeout=5)


class Tally:
    """How many tasks have been done, and how many have failed, since this was made; rows are not decoded."""

    def __init__(self, files: TaskFiles) -> None:
        self._folder = files.done()
        self._read: dict[str, int] = {}
        self.done = self.failed = 0
        self.read_on()
        self.done = self.failed = 0

    def read_on(self) -> None:
        """Count the rows that were written since."""
        try:
            for entry in list(os.scandir(self._folder)):
                start = self._read.get(entry.name, 0)
                if entry.is_file() and entry.stat().st_size > start:
                    self._count(entry, start)
        except OSError:
            return  # not there yet; or it cannot be read at the moment

    def _count(self, entry: os.DirEntry[str], start: int) -> None:
        with open(entry.path, "rb") as stream:
            stream.seek(start)
            while data := stream.read(1 << 20):
                end = data.rfind(b"\n") + 1
                if end == 0 and len(data) < 1 << 20:  # a line that is not complete yet
                    return
                # quotes are bare between the parts of a row, and escaped inside of them
                self.done += data.count(b',"status":"done",', 0, end or None)
                self.failed += data.count(b',"status":"failed",', 0, end or None)
                start += end or len(data)
                self._read[entry.name] = start
                stream.seek(start)


def _can_show() -> bool:
    try:
        if notebook.in_kernel():
            with warnings.catch_warnings():  # here, for it is no matter of one thread
                warnings.simplefilter("ignore")  # that there is no ipywidgets: a bar of letters will do
                import tqdm.auto  # noqa: F401
            return True
        return sys.stderr.isatty()
    except Exception:  # None, closed, or somebody's stand-in
        return False


def _follow(tally: Tally, over: threading.Event, total: int, done: int, began: float) -> None:
    if over.wait(PATIENCE):
        return
    bar = widget = None
    try:
        bar = _made(tally, total, done, began)
        last = False
        while True:
            tally.read_on()
            bar.set_postfix_str(f"{tally.failed} failed" if tally.failed else "", refresh=False)
            if not bar.update(done + tally.done + tally.failed - bar.n):
                bar.refresh()
            if widget is None and hasattr(bar, "container"):
                from IPython import display

                widget = display.display(bar.container, display_id=True)  # type: ignore[no-untyped-call]
            if last:
                break
            last = over.wait(_PACE)  # what was done since then is still to be shown
        bar.close()
        if widget is not None:
            widget.update(bar.container)  # for notebooks that are stored, with a bar of letters
    except Exception:  # of whoever owns the terminal, or of the file system: then there is no bar
        pass


def _made(tally: Tally, total: int, done: int, began: float) -> Any:
    # it is not shown before something is known
    options = {"total": total, "initial": done, "leave": False, "bar_format": _FORMAT, "delay": 1e-9}
    name = tally._folder.parent.name
    if notebook.in_kernel():
        from tqdm.auto import tqdm
        from tqdm.notebook import tqdm_notebook

        if issubclass(tqdm, tqdm_notebook):  # a widget, which stays; it is displayed by `_follow`
            options |= {"leave": True, "display": False, "delay": 0}
        bar = tqdm(desc=name, **options)
    else:
        from tqdm import tqdm as plain

        width = min(_WIDEST, shutil.get_terminal_size().columns - 1)
        bar = plain(desc=name, ncols=width, file=_Console(), **options)
    bar.start_t = bar.last_print_t = began
    return bar


class _Console:
    """The terminal, past what captures output; leaves the cursor where a line of somebody else covers the bar."""

    encoding = "utf-8"

    def write(self, text: str) -> None:
        from ..capture.console import write

        write(text if text.endswith(("\n", "\r")) else f"{text}\r")

    def flush(self) -> None:
        pass
