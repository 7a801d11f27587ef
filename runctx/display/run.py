"""Show what a run's lock says, section by section; a notebook shows of them what one looks for first."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.padding import Padding
from rich.segment import Segment
from rich.table import Table as Grid
from rich.text import Text

from ..model import Data, Environment, Failure, Lock, Session, Tasks
from . import words
from .table import as_html, colour, status

_MOST, _MOST_ON_A_PAGE = 20, 12
"""Lines of one list; `--json` has all."""
_BELOW = {"note", "sessions", "tasks", "metrics", "source"}
"""Sections of which a notebook shows a line for each item; of others they stand side by side."""
_NOT_ON_A_PAGE = {"command", "seed", "never read", "environment"}
_DECISIVE = (
    *("torch", "tensorflow", "jax", "lightning", "transformers"),
    *("scikit-learn", "xgboost", "numpy", "pandas"),
)
"""Packages whose version a reader asks for first."""
_CELL = "padding:2px 10px 2px 0;text-align:left;vertical-align:top;white-space:"


@dataclass(frozen=True, kw_only=True)
class RunView:
    """A run, for a terminal and for a notebook.

    Parameters
    ----------
    lock: of the run.
    status: as it is now.
    folder: where the run lies; default: as its lock says.
    unread: keys of the configuration that nobody read.
    failed: map -> short texts of tasks that failed.
    tags, note: of its notes.
    """

    lock: Lock
    status: str
    folder: str = ""
    unread: Sequence[str] = ()
    failed: Mapping[str, Sequence[str]] = field(default_factory=dict)
    tags: Sequence[str] = ()
    note: str = ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text.assemble((words.line(self.lock.id, 200), "bold"), "  ", status(self.status))
        if self.lock.error is not None:
            yield from _failure(self.lock.error, self.lock.status)
        grid = Grid.grid(padding=(0, 2, 0, 0))
        grid.add_column(style="bold", no_wrap=True)
        grid.add_column(overflow="fold")
        for name, items in self._sections().items():
            grid.add_row(Text(name), Text("\n").join(_first(items, _MOST)))
        yield Padding(grid, (0, 0, 0, 2))

    def html(self) -> str:
        """The sections that readers look for first; text takes the page's colours."""
        sections = {name: items for name, items in self._sections().items() if name not in _NOT_ON_A_PAGE}
        if (error := self.lock.error) is not None:
            sections = {"error": [Text(words.error(error.type, error.message, 400), "red")], **sections}
        lines = "".join(
            f'<tr><td style="{_CELL}nowrap;opacity:.65">{name}</td>'
            f'<td style="{_CELL}normal">{_page(name, items)}</td></tr>'
            for name, items in sections.items()
        )
        return (
            f'<div style="border-left:3px solid {colour(self.status)};padding-left:10px">'
            f"<b>{html.escape(words.line(self.lock.id, 200))}</b> &nbsp;{as_html(status(self.status))}"
            f'<table style="margin:4px 0 0 0;border-collapse:collapse">{lines}</table></div>'
        )

    def _sections(self) -> dict[str, list[Text]]:
        """Name and items of each section that is not empty."""
        lock = self.lock
        known = {earlier.id: earlier for earlier in lock.upstream}
        sections: dict[str, Iterable[Text]] = {
            "tags": (Text(words.line(tag, 100), "cyan") for tag in self.tags),
            "note": map(Text, words.lines(self.note).splitlines()),
            "started": [_started(lock)],
            "sessions": map(_session, lock.sessions),
            "folder": [Text(words.path(self.folder or lock.save_dir))],
            "command": [_command(lock)],
            "tasks": (_tasks(one, self.failed.get(one.name, one.failed_keys[:_MOST])) for one in lock.tasks),
            "seed": [Text(words.value(lock.seed))] * (lock.seed is not None),
            "config": (
                Text.assemble((f"{words.line(key, 200)}: ", "dim"), words.value(value))
                for key, value in words.leaves(lock.config)
            ),
            "never read": [Text(words.several(self.unread))] * bool(self.unread),
            "metrics": (
                Text.assemble((f"{name}: ", "dim"), last, (f"  {rest}" if rest else "", "dim"))
                for name, last, rest in words.metrics(lock.metrics)
            ),
            "source": [_source(lock)],
            "inputs": map(_data, lock.inputs),
            "outputs": map(_data, lock.outputs),
            "inside": [Text(words.line(lock.parent))] if lock.parent else [],
            "upstream": (_upstream(id, known) for id in lock.parents),
            "environment": [_environment(lock.environment)],
            "omissions": (Text(f"{words.line(o.what)}: {words.line(o.why)}") for o in lock.omissions),
        }
        lists = {name: list(items) for name, items in sections.items()}
        return {name: items for name, items in lists.items() if items}


def _first(items: list[Text], most: int) -> list[Text]:
    more = [Text(f"… {len(items) - most} more", "dim")] * (len(items) > most)
    return items[:most] + more


def _page(name: str, items: list[Text]) -> str:
    shown = [as_html(item) for item in _first(items, _MOST_ON_A_PAGE)]
    return "".join(f"<div>{item}</div>" for item in shown) if name in _BELOW else ", ".join(shown)


def _failure(error: Failure, status: str) -> Iterator[RenderableType]:
    kind = words.line(error.type.removeprefix("builtins."), 200)
    text = error.traceback
    # wherever Ctrl-C met a library does not matter, nor how a map calls the function
    shortened = status == "interrupted" or kind == "runctx.errors.TaskError"
    shown = users_lines(text) if shortened else text
    message = f": {words.lines(error.message)}" if error.message else ""
    yield Padding(Text.assemble((kind, "red"), message), (0, 0, 0, 2))
    if shown:
        yield _AsItIs(words.lines(shown).rstrip("\n"))
    if shown != text:
        yield Padding(Text("run.lock and `--json` have the whole traceback", "dim"), (0, 0, 0, 2))


def users_lines(text: str) -> str:
    """The frames of the user's code in the text of a traceback; a blank line between exceptions.

    >>> users_lines('  File "/a/site-packages/b.py", line 1, in f\\n    x\\n  File "c.py", line 2, in g\\n    y\\n')
    '  File "c.py", line 2, in g\\n    y\\n'
    """
    parts = (
        "".join(found[0] for found in _FRAME.finditer(part) if not _OF_A_LIBRARY.search(found[1]))
        for part in text.split("\n\n")
    )
    return "\n".join(filter(None, parts))


_FRAME = re.compile(r'^ *File "([^"\n]+)", line \d+.*\n(?:    .*\n)*', re.MULTILINE)
_OF_A_LIBRARY = re.compile(
    r"[\\/](?:(?:site|dist)-packages|lib[\\/]python3[.\d]*|runctx[\\/](?:tasks|launchers))[\\/]"
    r"|[\\/]runctx[\\/]run\.py$|^<frozen "
)


@dataclass(frozen=True)
class _AsItIs:
    """Text whose lines are not broken, so that its columns and the paths in it stay what they are."""

    text: str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        style = console.get_style("dim")
        for line in self.text.expandtabs().split("\n"):
            yield Segment(f"  {line}\n", style)


def _started(lock: Lock) -> Text:
    when = words.when(lock.started)
    ago = f" ({when})" if when.endswith("ago") else ""
    again = f", resumed {words.date(lock.resumed)}" if lock.resumed is not None else ""
    took = f", took {words.took(lock.seconds)}" if lock.seconds is not None else ""
    return Text(f"{words.date(lock.started)}{ago}{again}{took}")


def _command(lock: Lock) -> Text:
    command = lock.command
    what = " ".join(words.line(part, 200) for part in command.argv) or command.kind
    job = f", Slurm job {words.line(command.slurm_job, 40)}" if command.slurm_job else ""
    where = f"{words.line(command.user, 80)}@{words.line(command.host, 80)}, process {command.pid}{job}"
    return Text.assemble(what, (f"\nin {words.line(command.cwd)} by {where}", "dim"))


def _tasks(one: Tasks, failed: Sequence[str]) -> Text:
    more = f" … {one.failed - len(failed)} more" if one.failed > len(failed) else ""
    which = f"\nfailed: {', '.join(words.line(text, 80) for text in failed)}{more}" if failed else ""
    return Text.assemble(map_line(one), (which, "red"))


def map_line(one: Tasks) -> str:
    """Progress and launcher of a map, on one line.

    >>> map_line(Tasks(name="main", function="m.main", launcher="joblib", total=9, done=7, failed=1, workers=2))
    'main: 7 of 9 done, 1 failed, 1 not run; joblib, 2 workers'
    """
    left = one.total - one.done - one.failed
    parts = [f"{one.done} of {one.total} done"]
    parts += [f"{one.failed} failed"] * bool(one.failed) + [f"{left} not run"] * bool(left)
    how = [words.line(one.launcher, 40)] + [words.count(one.workers, "worker")] * bool(one.workers)
    if one.seconds:
        how.append(f"{words.took(one.seconds)} of work, the longest {words.took(one.longest)}")
    if one.commits:  # not only that of the run
        code = [words.commit(commit, False) for commit in one.commits[:3]]
        more = f" and {len(one.commits) - 3} more" if len(one.commits) > 3 else ""
        how.append(f"tasks ran commit{'s' * (len(one.commits) > 1)} {', '.join(code)}{more}")
    return f"{words.line(one.name, 60)}: {', '.join(parts)}; {', '.join(how)}"


def _session(one: Session) -> Text:
    took = f" after {words.took(one.seconds)}" if one.seconds is not None else ""
    commit = f", commit {words.commit(one.commit, False)}" if one.commit else ""
    where = f"{words.line(one.host, 80)}, process {one.pid}"
    return Text(f"{words.date(one.started)}  {words.line(one.status, 20)}{took}; {where}{commit}")


def _source(lock: Lock) -> Text:
    source = lock.source
    listed = bool(source.files) or lock.status != "running"  # when the run ends
    files = [f"project files imported: {len(source.files)}"] * listed
    skipped = [f"left out of the commit: {len(source.skipped)}"] * bool(source.skipped)
    if source.commit is None:
        return Text("; ".join(["no commit", *files]))
    branch = f" on {words.line(source.branch, 100)}" if source.branch else ""
    dirty = " (* the work tree differed from HEAD)" if source.dirty else ""
    where = f"\n{words.line(source.repository, 300)}" if source.repository else ""
    more = "\n" + "; ".join(files + skipped) if files + skipped else ""
    return Text.assemble(
        f"commit {words.commit(source.commit, source.dirty)}{branch}{dirty}", (where + more, "dim")
    )


def _data(data: Data) -> Text:
    files = f", {words.count(data.files, 'file')}" if data.kind != "file" else ""
    notes = ", changed during the run" * data.changed_during_run
    notes += f", from {words.line(data.run, 80)}" if data.run else ""
    return Text.assemble(
        words.line(data.path), (f"  {words.size(data.bytes)}{files}  {words.digest(data)}{notes}", "dim")
    )


def _upstream(id: str, known: Mapping[str, Lock]) -> Text:
    if id not in known:
        return Text(words.line(id, 200))
    commit = words.commit(known[id].source.commit, known[id].source.dirty)
    return Text.assemble(words.line(id, 200), "  ", status(known[id].status), (f"  {commit}", "dim"))


def _environment(environment: Environment) -> Text:
    where = (f"Python {environment.python}", environment.platform, environment.cpu)
    machine = [words.count(environment.cpus, "processor"), f"{words.size(environment.memory)} of memory"]
    machine += [words.line(device, 200) for device in environment.devices[:_MOST]]
    rest, packages = ", ".join(machine), environment.packages
    if packages:
        named = ", ".join(
            f"{name} {words.line(packages[name], 40)}" for name in _DECISIVE if name in packages
        )
        rest += f"\n{words.count(len(packages), 'package')} imported{named and ': '}{named}; `--json` has all versions"
    return Text.assemble(", ".join(words.line(part, 200) for part in where), (f"\n{rest}", "dim"))
