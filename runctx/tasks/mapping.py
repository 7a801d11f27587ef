"""Fan a map out: from the list of tasks to their results."""

from __future__ import annotations

import functools
import inspect
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..capture import seeding
from ..errors import ConfigError, LedgerError, RunStateError, TaskError
from ..layout import TaskFiles
from ..model import Omission, Source, Tasks
from ..redact import Redactor
from . import ledger, progress, worker
from .attached import Parent
from .keys import digest
from .labels import Labels, kind_of, label
from .ledger import Fault, Final, Rows
from .results import Results, summary, unfinished
from .supervisor import Plan

if TYPE_CHECKING:
    from ..launchers import Launcher

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
    """The lock's entry of the map of this name from an earlier entry of the run."""
    gather: Callable[[TaskFiles, Final, bool], None]
    """Called at the end, with the rows that count and `show`: what else workers know goes into the lock."""
    note: Callable[[Tasks], None]
    """Called with what is known, at the beginning and at the end: it goes into the lock."""
    omit: Callable[[Iterable[Omission]], None]
    """Called with what workers cannot see as it was."""
    show: bool
    """Whether there may be a progress bar."""

    @functools.cached_property
    def labels(self) -> Labels:
        return Labels.of(self.parent.redactor, self.into)


def checked(function: Any, tasks: Any, into: Any, n_jobs: Any, retries: Any, on_error: Any) -> None:
    """Check the arguments of `run.map`.

    Raises
    ------
    TypeError, ValueError: one cannot be.
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
    split = None
    if into is not None and isinstance(tasks, (str, bytes, Mapping)):
        parts = "its keys" if isinstance(tasks, Mapping) else "characters"
        split = f"into {parts}\nhint: write a single task as a list: [task]"
    elif hasattr(tasks, "columns") and hasattr(tasks, "to_dict"):  # a DataFrame
        split = 'into the names of its columns\nhint: map its rows: frame.to_dict("records")'
    if split:
        raise TypeError(f"tasks must be a list; {label(tasks)} ({kind_of(tasks)}) would be split {split}")
    if not (into is None or isinstance(into, str)):
        raise TypeError(f"into must be a key of the configuration or None; got {into!r}")
    if n_jobs is not None and (not isinstance(n_jobs, int) or n_jobs == 0):
        raise ValueError(f"n_jobs must be an int other than 0 (-1 for all processors); got {n_jobs!r}")
    if not isinstance(retries, int) or retries < 0:
        raise ValueError(f"retries must be an int of at least 0; got {retries!r}")
    if on_error not in ON_ERROR:
        raise ValueError(f"on_error must be one of {', '.join(map(repr, ON_ERROR))}; got {on_error!r}")


def folder_name(function: Any) -> str:
    """A name for what is mapped that any file system takes.

    >>> folder_name(len), folder_name(lambda x: x)
    ('len', 'lambda')
    """
    name = getattr(function, "__name__", None) or type(getattr(function, "func", function)).__name__
    name = getattr(getattr(function, "func", None), "__name__", name)  # functools.partial
    return re.sub(r"[^\w.-]+", "-", str(name)).strip(".-")[:60] or "map"


def _qualified(function: Any) -> str:
    """Module and name; of a lambda, which has none, also a digest of its code."""
    function = getattr(function, "func", function)
    module = getattr(function, "__module__", None) or type(function).__module__
    name = f"{module}.{getattr(function, '__qualname__', type(function).__qualname__)}"
    code = getattr(function, "__code__", None)
    return f"{name} {digest(code, size=4)}" if code and name.endswith("<lambda>") else name


def fan_out(order: Order) -> Results:
    """Do what is not done yet, and give the results of all.

    Raises
    ------
    TaskError: tasks failed, or were not run; holds the results of the others.
    ConfigError: the first task does not fit the configuration. LedgerError: a task or the function cannot be sent.
    RunStateError: the run is resumed, and its map of this name was another one.
    """
    _check_same(order)
    launcher, log = order.launcher, order.parent.log
    files = TaskFiles(order.parent.save_dir, order.name)
    keys = ledger.keys_of(order.tasks)
    rows = Rows(files)
    rows.final = {key: found for key, found in rows.read_on().items() if found[1].status == "done"}
    wanted = [i for i, key in enumerate(keys) if key not in rows.final] if rows.final else None
    count = _write(files, order, keys, wanted)
    entry = Tasks(
        name=order.name,
        function=_qualified(order.function),
        into=order.into,
        launcher=launcher.name,
        total=len(keys),
    )
    entry = summary(entry, keys, rows.final, rows.authors.values(), order.source.commit)
    order.note(entry)
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
                launched = launcher.launch(plan)
                order.omit(getattr(launched, "omissions", ()))
                if launcher.waits:
                    with progress.shown(files, len(keys), len(keys) - count, show=order.show):
                        why = launched.wait()
    except KeyboardInterrupt as error:
        interrupt = error
        raise
    finally:
        order.gather(files, rows.read_on(), order.show)
        entry = summary(entry, keys, rows.final, rows.authors.values(), order.source.commit)
        order.note(entry)
        if interrupt is not None:  # a launcher whose jobs go on notes that, and what to do
            how = "" if hasattr(interrupt, "__notes__") else "; Run(..., resume=True) runs the rest"
            log.say("WARNING", f"{entry.name}: interrupted: {_counts(entry, 'left')}{how}")
    results = Results(files, keys, rows, trusted=True)
    if not launcher.waits and count:
        log.say("INFO", f"{entry.name}: {count} of {entry.total} tasks submitted to {launcher.name}")
        return results
    log.say(*_ending(entry, count, time.perf_counter() - began, why))
    if launcher.waits:
        shutil.rmtree(files.state, ignore_errors=True)
        if order.on_error != "return" and (entry.failed or unfinished(entry)):
            labels = {key: order.labels.text(task) for key, task in zip(keys, order.tasks, strict=True)}
            raise failure(entry, labels, rows, results, why)
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


def _work(order: Order) -> worker.Work:
    return worker.Work(
        function=order.function,
        labels=order.labels,
        config=order.config,
        retries=order.retries,
        stop_on_error=order.on_error == "stop",
        parent=order.parent,
        commit=order.source.commit,
    )


def _write(files: TaskFiles, order: Order, keys: Sequence[str], wanted: Sequence[int] | None) -> int:
    """The ledger as the first worker finds it; how many tasks there are to do."""
    if order.into is not None and order.tasks:
        from .. import config

        first = order.tasks[0]  # a mistake is said before anything starts
        config.with_task(order.config, order.into, first, order.labels.text(first))
    # what an earlier session has left goes at once, so that no worker of its can stray into the new one
    gone = files.state.with_name(f".{files.name}.{secrets.token_hex(4)}.tmp")
    try:
        files.state.rename(gone)
    except FileNotFoundError:
        pass
    else:
        shutil.rmtree(gone, ignore_errors=True)
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
    # a worker learns the secrets of its own tasks; what all of them print, and their errors, come here
    for task in order.tasks:
        order.labels.learn(task)
    order.parent.log.renew_redaction()
    return ledger.write_tasks(files, order.tasks, keys, wanted, order.labels.text)


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


# -- what is said at the end -----------------------------------------------------------------------------------------


def _ending(entry: Tasks, to_do: int, seconds: float, why: str | None) -> tuple[str, str]:
    """Level and line of the log, when a map has ended.

    Parameters
    ----------
    to_do: how many tasks were not done before it began.
    why: some were not run.

    >>> entry = Tasks(name="main", function="m.main", launcher="joblib", total=9, done=8, failed=1)
    >>> _ending(entry, 9, 12.345, None)
    ('WARNING', 'main: 8 of 9 tasks done, 1 failed, in 12.3 s')
    """
    if not entry.total:
        return "INFO", f"{entry.name}: no tasks"
    if not to_do:
        return "INFO", f"{entry.name}: all {entry.total} tasks were done already"
    level = "INFO" if entry.done == entry.total else "WARNING"
    reason = f" ({why})" if why else ""
    before = f" ({entry.total - to_do} of them earlier)" if entry.total > to_do else ""
    return level, f"{entry.name}: {_counts(entry, f'not run{reason}', before)}, in {seconds:.3g} s"


def _counts(entry: Tasks, rest: str, before: str = "") -> str:
    left = entry.total - entry.done - entry.failed
    parts = [f"{entry.done} of {entry.total} tasks done{before}"]
    parts += [f"{entry.failed} failed"] * bool(entry.failed) + [f"{left} {rest}"] * bool(left)
    return ", ".join(parts)


_MISREAD = (AttributeError, ConfigError)
"""Raised by a function that expects a configuration and is called with a task."""


def failure(
    entry: Tasks, labels: Mapping[str, str], rows: Rows, results: Results, why: str | None = None
) -> TaskError:
    """One error for all tasks of a map that failed or were not run.

    Parameters
    ----------
    labels: key -> short text of every task, in order.
    why: some were not run.
    """
    failed_keys = set(entry.failed_keys)
    failed = [(i, key) for i, key in enumerate(labels) if key in failed_keys]
    lines = []
    for _, key in failed[:10]:
        fault = rows.final[key][1].error or Fault("", "")
        message = (fault.message.splitlines() or [""])[0][:200]
        lines.append(f"  {labels[key]}: {fault.type.rpartition('.')[2]}: {message}")
    if entry.failed > len(lines):
        lines.append(f"  … {entry.failed - len(lines)} more")
    left = entry.total - entry.done - entry.failed
    what = [f"{entry.failed} of {entry.total} tasks failed"] * bool(entry.failed)
    what += [f"{left} of {entry.total} tasks did not run{f': {why}' if why else ''}"] * bool(left)
    root = rows.files.root
    hints = []
    if failed and entry.failed == entry.total and entry.into is None and type(results[0]) in _MISREAD:
        hints.append('if the function takes the configuration, name the key for the task: into="key"')
    hints += ["`.results` of this error holds what succeeded"] * bool(entry.done)
    hints += [f"rows and tracebacks: {rows.files.done()}"] * bool(entry.failed)
    hints += [f"log: {root / 'run.log'}", f"Run(..., resume={str(root)!r}) runs the rest"]
    message = "\n".join([f"{entry.function}: {' and '.join(what)}", *lines])
    error = TaskError(message, hint="; ".join(hints), results=results)
    error.__cause__ = results[failed[0][0]] if failed else None
    return error


# -- inside a task ---------------------------------------------------------------------------------------------------


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

    labels = Labels.of(redactor, into)

    def result(task: Any) -> Any:
        labels.learn(task)
        for left in range(retries, -1, -1):
            try:
                if into is None:
                    return function(task)
                return function(with_task(config, into, task, labels.text(task)))
            except Exception as error:
                if not left and on_error != "return":
                    raise
                last = error
        return last

    return [result(task) for task in tasks]
