"""How is a run shown in the terminal? Readable in 80 columns and without colour."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.segment import Segment
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from .. import said
from ..model import Data, Environment, Failure, Lock, Summary, Tasks
from ..notes import NO_NOTES, Notes
from ..past.lineage import Edge, edges, inside, known_runs
from . import tasks, words

COLOURS = {
    "running": "blue",
    "submitted": "cyan",
    "done": "green",
    "failed": "red",
    "crashed": "red",
    "interrupted": "yellow",
    "broken": "magenta",
}
_MOST = 20
"""Lines of one list in the view of a run; `--json` has all."""
_DECISIVE = (
    "torch",
    "tensorflow",
    "jax",
    "lightning",
    "transformers",
    "scikit-learn",
    "xgboost",
    "numpy",
    "pandas",
)
"""Packages whose version a reader asks for first."""


def status(name: str) -> Text:
    return Text(words.line(name, 20), COLOURS.get(name, ""))


def run(
    lock: Lock,
    shown_status: str,
    folder: Path,
    unread: Sequence[str] = (),
    failed: Mapping[str, Sequence[str]] | None = None,
    notes: Notes = NO_NOTES,
) -> RenderableType:
    """What a lock says, section by section, what went wrong first; empty sections are left out.

    Parameters
    ----------
    unread: keys of the configuration that nobody read.
    failed: map -> short texts of tasks that failed.
    notes: its tags and its note.
    """
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, content in _sections(lock, folder, unread, failed or {}, notes):
        grid.add_row(Text(name), content)
    title = Text.assemble((words.line(lock.id, 200), "bold"), "  ", status(shown_status))
    wrong = _failure(lock.error, lock.status) if lock.error is not None else ()
    return Group(title, *wrong, Padding(grid, (0, 0, 0, 2)))


def _failure(error: Failure, status: str) -> Iterator[RenderableType]:
    kind = words.line(error.type.removeprefix("builtins."), 200)
    text = error.traceback
    # wherever Ctrl-C met a library does not matter, nor how a map calls the function
    shortened = status == "interrupted" or kind == "runctx.errors.TaskError"
    shown = said.users_lines(text) if shortened else text
    message = f": {words.lines(error.message)}" if error.message else ""
    yield Padding(Text.assemble((kind, "red"), message), (0, 0, 0, 2))
    if shown:
        yield _AsItIs(words.lines(shown).rstrip("\n"))
    if shown != text:
        yield Padding(Text("run.lock and `--json` have the whole traceback", "dim"), (0, 0, 0, 2))


@dataclass(frozen=True)
class _AsItIs:
    """Text whose lines are not broken, so that its columns and the paths in it stay what they are."""

    text: str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        style = console.get_style("dim")
        for line in self.text.expandtabs().split("\n"):
            yield Segment(f"  {line}\n", style)


def _sections(
    lock: Lock, folder: Path, unread: Sequence[str], failed: Mapping[str, Sequence[str]], notes: Notes
) -> Iterator[tuple[str, RenderableType]]:
    if notes.tags:
        yield "tags", Text(", ".join(words.line(tag, 100) for tag in notes.tags), "cyan")
    if notes.note:
        yield "note", Text(words.lines(notes.note))
    duration = f", took {words.took(lock.seconds)}" if lock.seconds is not None else ""
    when = words.when(lock.started)
    ago = f" ({when})" if when.endswith("ago") else ""
    again = f", resumed {words.date(lock.resumed)}" if lock.resumed is not None else ""
    yield "started", Text(f"{words.date(lock.started)}{ago}{again}{duration}")
    if lock.sessions:
        yield "sessions", _list(Text(tasks.session(one)) for one in lock.sessions)
    yield "folder", Text(words.path(folder))
    yield "command", _command(lock)
    if lock.tasks:
        yield "tasks", _list(_tasks(one, failed.get(one.name, one.failed_keys[:_MOST])) for one in lock.tasks)
    if lock.seed is not None:
        yield "seed", Text(words.value(lock.seed))
    if lock.config:
        yield "config", _list(_config(lock.config))
    if unread:
        yield "never read", Text(words.several(unread))
    if lock.metrics:
        yield "metrics", _list(_metrics(lock.metrics))
    yield "source", _source(lock)
    if lock.inputs:
        yield "inputs", _list(_data(data) for data in lock.inputs)
    if lock.outputs:
        yield "outputs", _list(_data(data) for data in lock.outputs)
    if lock.parent:
        yield "inside", Text(words.line(lock.parent))
    if lock.parents:
        known = known_runs(lock)
        yield "upstream", _list(_upstream(id, known) for id in lock.parents)
    yield "environment", _environment(lock.environment)
    if lock.omissions:
        yield "omissions", _list(Text(f"{words.line(o.what)}: {words.line(o.why)}") for o in lock.omissions)


def _list(items: Iterator[Text]) -> Text:
    told = list(items)
    if len(told) > _MOST:
        told[_MOST:] = [Text(f"… {len(told) - _MOST} more", "dim")]
    return Text("\n").join(told)


def _command(lock: Lock) -> Text:
    command = lock.command
    what = " ".join(words.line(part, 200) for part in command.argv) or command.kind
    job = f", Slurm job {words.line(command.slurm_job, 40)}" if command.slurm_job else ""
    where = f"{words.line(command.user, 80)}@{words.line(command.host, 80)}, process {command.pid}{job}"
    return Text.assemble(what, (f"\nin {words.line(command.cwd)} by {where}", "dim"))


def _tasks(one: Tasks, texts: Sequence[str]) -> Text:
    which = tasks.failed(one, texts)
    return Text.assemble(tasks.entry(one), (f"\n{which}" if which else "", "red"))


def _config(config: Mapping[object, object]) -> Iterator[Text]:
    for key, given in words.leaves(config):
        yield Text.assemble((f"{words.line(key, 200)}: ", "dim"), words.value(given))


def _metrics(metrics: Mapping[str, Summary]) -> Iterator[Text]:
    for name, last, rest in words.metrics(metrics):
        yield Text.assemble((f"{name}: ", "dim"), last, (f"  {rest}" if rest else "", "dim"))


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
    first = ", ".join(words.line(part, 200) for part in where)
    machine = [words.count(environment.cpus, "processor"), f"{words.size(environment.memory)} of memory"]
    devices = [words.line(device, 200) for device in environment.devices[:_MOST]]
    rest = "\n".join(filter(None, (", ".join(machine + devices), _packages(environment.packages))))
    return Text.assemble(first, (f"\n{rest}", "dim"))


def _packages(packages: Mapping[str, str]) -> str:
    named = [f"{name} {words.line(packages[name], 40)}" for name in _DECISIVE if name in packages]
    if not packages:
        return ""
    known = f": {', '.join(named)}" if named else ""
    return f"{words.count(len(packages), 'package')} imported{known}; `--json` has all versions"


# -- what it came from -------------------------------------------------------------------------------------


def lineage(lock: Lock, statuses: Mapping[str, str]) -> Tree:
    """The run, below it what it read; a run that several read from is told of once.

    A chain of runs that each read from one other stays in one column, however deep it is.
    """
    known = known_runs(lock)
    above: dict[str, list[Edge]] = {}
    for edge in edges(lock):
        above.setdefault(edge.child, []).append(edge)
    root = Tree(_node(lock.id, known, statuses), guide_style="dim")
    _add_data(root, lock, known)
    first = above.get(lock.id, [])
    pending, seen = [(edge, root, len(first) == 1, False) for edge in reversed(first)], {lock.id}
    while pending:  # in the order in which it is printed: "as above" is true
        edge, tree, only, below = pending.pop()
        parent = known.get(edge.parent)
        label = _node(edge.parent, known, statuses)
        if below:
            label.append("  read by the run above", "dim")
        for data in edge.inputs:
            label.append(f"\nread {words.line(inside(data, parent))}  {words.digest(data)}", "dim")
        if edge.parent in seen:
            tree.add(label.append("\nas above", "dim"))
            continue
        seen.add(edge.parent)
        branch = tree.add(label)
        if parent is not None:
            _add_data(branch, parent, known)
        further = above.get(edge.parent, [])
        chain = only and len(further) == 1
        pending += [
            (earlier, tree if chain else branch, len(further) == 1, chain) for earlier in reversed(further)
        ]
    return root


def _add_data(tree: Tree, lock: Lock, known: Mapping[str, Lock]) -> None:
    for data in lock.inputs:
        if data.run not in known:
            tree.add(Text.assemble(words.line(data.path), (f"  {words.digest(data)}", "dim")))


def _node(id: str, known: Mapping[str, Lock], statuses: Mapping[str, str]) -> Text:
    label = Text.assemble((words.line(id, 80), "bold"))
    if id not in known:
        return label.append("  not told of", "dim")
    label.append("  ").append_text(status(statuses.get(id, known[id].status)))
    commit = words.commit(known[id].source.commit, known[id].source.dirty)
    return label.append(f"  commit {commit}" if commit else "", "dim")
