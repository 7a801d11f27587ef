"""`run.map`, from the list of tasks to their results: what happens in which order?"""

from __future__ import annotations

import inspect
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..capture import seeding
from ..errors import ConfigError, LedgerError, RunStateError, TaskError
from ..layout import TaskFiles
from ..model import Omission, Source, Tasks
from ..redact import Redactor
from . import ending, progress
from .fold import folded, unfinished
from .ledger import todo
from .ledger.rows import Fault, Rows
from .results import Final, Results, final_rows
from .values import content, labels
from .values.labels import kind_of, label
from .work import worker
from .work.attached import Parent
from .work.plan import Plan

if TYPE_CHECKING:
    from .work.plan import Launcher

ON_ERROR = ("raise", "stop", "return")


@dataclass(frozen=True, kw_only=True)
class Order:
    """What `run.map` was asked for, and what it needs of its run."""

    function: Callable[[Any], Any]
    tasks: Sequence[Any]
    into: str | None
    launcher: Launcher
    retries: int
    on_error: str
    config: Any
    """What the run was given, unresolved."""
    parent: Parent
    source: Source
    repository: Path | None
    name: str
    """Of the map."""
    before: Tasks | None
    """What an earlier entry of the run says of the map of this name."""
    gather: Callable[[TaskFiles, Final], None]
    """Called at the end, with the rows that count: what else workers know goes into the lock."""
    note: Callable[[Tasks], None]
    """Called with what is known, at the beginning and at the end: it goes into the lock."""
    omit: Callable[[Iterable[Omission]], None]
    """Called with what workers cannot see as it was."""
    show: bool
    """Whether there may be a progress bar."""

    @property
    def label(self) -> Callable[[Any], str]:
        """Gives a short text of a task, without secrets."""
        return partial(labels.of_task, into=self.into, redactor=self.parent.redactor)


def checked(function: Any, tasks: Any, into: Any, n_jobs: Any, retries: Any, on_error: Any) -> None:
    """Whether these can be arguments of `run.map` at all.

    Raises
    ------
    TypeError, ValueError: they cannot.
    """
    if not callable(function):
        raise TypeError(
            f"the first argument of run.map must be a function; got {label(function)} ({kind_of(function)})"
            "\nhint: write run.map(main, tasks), without calling `main`"
        )
    if inspect.iscoroutinefunction(function):
        raise TypeError(
            f"run.map cannot call the async function {_qualified(function)}"
            "\nhint: map a function that calls asyncio.run"
        )
    if not hasattr(tasks, "__iter__") and not hasattr(tasks, "__getitem__"):
        raise TypeError(f"tasks must be a list; got {label(tasks)} ({kind_of(tasks)})")
    if what := _taken_apart(tasks, into):
        raise TypeError(f"tasks must be a list; {label(tasks)} ({kind_of(tasks)}) would be split {what}")
    if not (into is None or isinstance(into, str)):
        raise TypeError(f"into must be a key of the configuration or None; got {into!r}")
    if n_jobs is not None and (not isinstance(n_jobs, int) or n_jobs == 0):
        raise ValueError(f"n_jobs must be an int other than 0 (-1 for all processors); got {n_jobs!r}")
    if not isinstance(retries, int) or retries < 0:
        raise ValueError(f"retries must be an int of at least 0; got {retries!r}")
    if on_error not in ON_ERROR:
        raise ValueError(f"on_error must be one of {', '.join(map(repr, ON_ERROR))}; got {on_error!r}")


def _taken_apart(tasks: Any, into: str | None) -> str | None:
    """Of what can be iterated over, but is hardly meant so: what its parts would be, and what to do."""
    if into is not None and isinstance(tasks, (str, bytes)):
        return "into characters\nhint: write a single task as a list: [task]"
    if into is not None and isinstance(tasks, Mapping):
        return "into its keys\nhint: write a single task as a list: [task]"
    if hasattr(tasks, "columns") and hasattr(tasks, "to_dict"):  # a DataFrame
        return 'into the names of its columns\nhint: map its rows: frame.to_dict("records")'
    return None


def folder_name(function: Any) -> str:
    """A name for what is mapped that any file system takes.

    >>> folder_name(len), folder_name(lambda x: x)
    ('len', 'lambda')
    """
    name = getattr(function, "__name__", None) or type(getattr(function, "func", function)).__name__
    name = getattr(getattr(function, "func", None), "__name__", name)  # functools.partial
    return re.sub(r"[^\w.-]+", "-", str(name)).strip(".-")[:60] or "map"


def fan_out(order: Order) -> Results:
    """Do what is not done yet, and give the results of all.

    Raises
    ------
    TaskError: tasks failed, or were not run; holds the results of the others.
    ConfigError: the first task does not fit the configuration. LedgerError: a task or the function cannot be sent.
    RunStateError: the run is resumed, and its map of this name was another one.
    """
    _check_same(order)
    files = TaskFiles(order.parent.save_dir, order.name)
    keys = todo.keys_of(order.tasks)
    rows = Rows(files)
    final = {key: found for key, found in final_rows(rows).items() if found[1].status == "done"}
    wanted = [i for i, key in enumerate(keys) if key not in final] if final else None
    entry = Tasks(
        name=order.name,
        function=_qualified(order.function),
        into=order.into,
        launcher=order.launcher.name,
        total=len(keys),
    )
    count = _write(files, order, keys, wanted)
    order.note(folded(entry, keys, final, rows.authors.values(), order.source.commit))
    plan = Plan(
        save_dir=order.parent.save_dir,
        map=order.name,
        run_id=order.parent.id,
        todo=count,
        source=order.source,
        repository=order.repository,
    )
    began = time.perf_counter()
    why: str | None = None
    interrupt: KeyboardInterrupt | None = None
    try:
        with _at_hand(files, order):
            if count:
                launched = order.launcher.launch(plan)
                order.omit(getattr(launched, "omissions", ()))
                if order.launcher.waits:
                    with progress.shown(files, len(keys), len(keys) - count, show=order.show):
                        why = launched.wait()
    except KeyboardInterrupt as error:
        interrupt = error
        raise
    finally:
        final_rows(rows, final)
        order.gather(files, final)
        entry = folded(entry, keys, final, rows.authors.values(), order.source.commit)
        order.note(entry)
        if interrupt is not None:  # a launcher whose jobs go on notes that, and what to do
            order.parent.log.say(*ending.interrupted(entry, hasattr(interrupt, "__notes__")))
    if order.launcher.waits:
        order.parent.log.say(*ending.ended(entry, count, time.perf_counter() - began, why))
    else:
        order.parent.log.say(*ending.submitted(entry, count))
    results = Results(files, keys, final, trusted=True, rows=rows)
    if order.launcher.waits:
        shutil.rmtree(files.state, ignore_errors=True)
        if order.on_error != "return" and (entry.failed or unfinished(entry)):
            raise failure(entry, lambda i: order.label(order.tasks[i]), keys, final, results, files, why)
    return results


def _check_same(order: Order) -> None:
    """Results of another function, or of tasks laid elsewhere, must not pass for those of this map."""
    before, function = order.before, _qualified(order.function)
    if before is None or (before.function, before.into) == (function, order.into):
        return
    what, was = function, before.function
    if what == was:
        what, was = f"into={order.into!r}", f"into={before.into!r}"
    raise RunStateError(
        f"the map {order.name!r} of this run was started with {was}; got {what}",
        hint="call `run.map` in the same order and with the same functions, or start a new run",
    )


def _write(files: TaskFiles, order: Order, keys: Sequence[str], wanted: Sequence[int] | None) -> int:
    """The ledger as the first worker finds it; how many tasks there are to do."""
    if order.into is not None and order.tasks:
        from .. import config

        first = order.tasks[0]  # a mistake is said before anything starts
        config.with_task(order.config, order.into, first, order.label(first))
    _forget(files)
    files.make_state()
    if not order.launcher.in_process:
        try:
            worker.write_work(files, _work(order))
        except Exception as error:
            raise LedgerError(
                f"cannot send the function {_qualified(order.function)} to workers: {type(error).__name__}: {error}",
                hint="open files, locks and connections cannot be sent; open them inside the function",
            ) from error
    files.kept.mkdir(parents=True, exist_ok=True)
    redactor = order.parent.redactor
    for (
        task
    ) in order.tasks:  # a worker learns those of its own tasks; what they print, and their errors, come here
        redactor.learn({order.into: task} if order.into else task)
    order.parent.log.renew_redaction()
    return todo.write(files, order.tasks, keys, wanted, order.label)


def _forget(files: TaskFiles) -> None:
    """What a session that is over has left: at once, so that no worker of its can stray into the new one."""
    gone = files.state.with_name(f".{files.name}.{secrets.token_hex(4)}.tmp")
    try:
        files.state.rename(gone)
    except FileNotFoundError:
        return
    shutil.rmtree(gone, ignore_errors=True)


def _work(order: Order) -> worker.Work:
    return worker.Work(
        function=order.function,
        into=order.into,
        config=order.config,
        retries=order.retries,
        stop_on_error=order.on_error == "stop",
        parent=order.parent,
        commit=order.source.commit,
    )


@contextmanager
def _at_hand(files: TaskFiles, order: Order) -> Iterator[None]:
    if not order.launcher.in_process:
        yield
        return
    worker.at_hand[files.function] = _work(order)
    try:
        # each task is given a seed of its own, and here the generators are the parent's: what it draws after the
        # map must not depend on where its tasks ran
        with seeding.kept() if order.parent.seed is not None else nullcontext():
            yield
    finally:
        del worker.at_hand[files.function]


def failure(
    entry: Tasks,
    label: Callable[[int], str],
    keys: Sequence[str],
    final: Final,
    results: Results,
    files: TaskFiles,
    why: str | None = None,
) -> TaskError:
    """One error for all tasks of a map that failed or were not run.

    Parameters
    ----------
    label: short text of the task of this number.
    why: some were not run.
    """
    failed = set(entry.failed_keys)
    places = [i for i, key in enumerate(keys) if key in failed]
    lines = []
    for i in places[:10]:
        fault = final[keys[i]][1].error or Fault("", "")  # asking the exception may fail in any way
        said = (fault.message.splitlines() or [""])[0][:200]
        lines.append(f"  {label(i)}: {fault.type.rpartition('.')[2]}: {said}")
    if entry.failed > len(lines):
        lines.append(f"  … {entry.failed - len(lines)} more")
    left = entry.total - entry.done - entry.failed
    what = [f"{entry.failed} of {entry.total} tasks failed"] * bool(entry.failed)
    what += [f"{left} of {entry.total} tasks did not run{f': {why}' if why else ''}"] * bool(left)
    all_failed = bool(places) and entry.failed == entry.total
    misread = all_failed and entry.into is None and type(results[0]) in _SAID_BY_A_TASK
    hints = [_INTO] * misread + ["`.results` of this error holds what succeeded"] * bool(entry.done)
    hints += [f"rows and tracebacks: {files.done()}"] * bool(entry.failed)
    hints += [f"log: {files.root / 'run.log'}", f"Run(..., resume={str(files.root)!r}) runs the rest"]
    message = "\n".join([f"{entry.function}: {' and '.join(what)}", *lines])
    error = TaskError(message, hint="; ".join(hints), results=results)
    error.__cause__ = results[places[0]] if places else None
    return error


_SAID_BY_A_TASK = (AttributeError, ConfigError)
"""What a function says that expects a configuration and is called with a task."""
_INTO = 'if the function takes the configuration, name the key for the task: into="key"'


def _qualified(function: Any) -> str:
    """Module and name; of a lambda, which has none, also a digest of its code."""
    function = getattr(function, "func", function)
    module = getattr(function, "__module__", None) or type(function).__module__
    name = f"{module}.{getattr(function, '__qualname__', type(function).__qualname__)}"
    code = getattr(function, "__code__", None)
    return f"{name} {content.digest(code, size=4)}" if code and name.endswith("<lambda>") else name


def inside_a_task(
    function: Callable[[Any], Any],
    tasks: Iterable[Any],
    into: str | None,
    config: Any,
    retries: int,
    on_error: str,
    redactor: Redactor,
) -> list[Any]:
    """`run.map` inside a task: its tasks are part of that one, and run one after another.

    Where errors are raised, the first ends it: it is that task's own.
    """
    from ..config import with_task

    def result(task: Any) -> Any:
        redactor.learn({into: task} if into else task)
        for left in range(retries, -1, -1):
            try:
                if into is None:
                    return function(task)
                return function(with_task(config, into, task, labels.of_task(task, into, redactor)))
            except Exception as error:
                if not left and on_error != "return":
                    raise
                last = error
        return last

    return [result(task) for task in tasks]
