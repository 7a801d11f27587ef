"""Describe a run in MLflow: parameters, tags, status and the text that its page begins with.

Pure functions of the lock. Whatever comes from the run stands in the text as code, so that nothing in it is taken for
Markdown or HTML.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from ...display import words
from ...notes import NO_NOTES, Notes
from . import names

if TYPE_CHECKING:
    from ...model import Data, Lock

VERSION = 1
"""Of what is said; where it was another, runs are described again."""
ID = "runctx.id"
"""Tag by which the run of a folder is found again."""
OURS = "runctx."
"""Tags that begin so are ours: what we no longer say is deleted."""
BEGUN_BY = "runctx.begun_by"
"""Tag of an MLflow run that a logging function has begun: the one that it was called for."""
PARENT, CHILD, CHANGED = "runctx.parent.", "runctx.child.", "runctx.changed."
NOTE = "mlflow.note.content"
LONG_VALUES = "long_values.json"

_KEPT = (CHILD, names.PREFIX)
"""Ours as well, and told by others than the run's own description."""
_LONGEST_PARAM, _LONGEST_TAG = 6000, 8000
_PARAMS = 1000
"""Keys that become parameters; all of them are in config.yaml."""
_LISTED = 25
"""Inputs, children and the like that a page names."""
_STATUS = {
    "running": "RUNNING",
    "submitted": "RUNNING",
    "done": "FINISHED",
    "failed": "FAILED",
    "interrupted": "KILLED",
    "crashed": "KILLED",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Description:
    """What MLflow shall say; names are mapped and lengths within its limits."""

    name: str
    status: str
    """One of MLflow's."""
    end: int | None
    """Milliseconds since 1970."""
    params: dict[str, str]
    keys: dict[str, str]
    """Name of each parameter -> the key of the configuration."""
    tags: dict[str, str]
    long_values: dict[str, str]
    """Key -> value of what is too long for a parameter."""

    def changed(self, before: Mapping[str, str], others: frozenset[str] = frozenset()) -> dict[str, str]:
        """Tags that tell which parameters are no longer what they were, for MLflow cannot change them.

        Parameters
        ----------
        before: the parameters that are there.
        others: those that are none of the configuration's.
        """
        told = {
            names.mapped(CHANGED + self.keys[name]): _cut(value)
            for name, value in self.params.items()
            if before.get(name, value) != value
        }
        gone = before.keys() - self.params.keys() - others
        return told | {names.mapped(CHANGED + names.original(name)): "no longer set" for name in gone}


def describe(
    lock: Lock,
    status: str,
    parents: Mapping[str, str | None],
    children: str = "",
    notes: Notes = NO_NOTES,
) -> Description:
    """Of one run.

    Parameters
    ----------
    status: what it is now.
    parents: id -> address of its page within MLflow, None where it has none, the first first.
    children: the part of the text that names runs which read from this one.
    notes: what people say of it.
    """
    params, keys, long_values = _params(lock)
    end = None
    if status not in ("running", "submitted") and lock.seconds is not None:
        end = milliseconds(lock, lock.seconds)
    return Description(
        name=lock.id[: names.LONGEST],
        status=_STATUS[status],
        end=end,
        params=params,
        keys=keys,
        tags={key: _cut(value) for key, value in _tags(lock, status, parents, children, notes) if value},
        long_values=long_values,
    )


def milliseconds(lock: Lock, seconds: float | None = None) -> int:
    """Since 1970, when the run began; or when its last entry had lasted so long."""
    if seconds is None:
        moment = lock.started
    else:
        moment = (lock.resumed or lock.started) + timedelta(seconds=min(max(seconds, 0.0), 1e9))
    return max(0, int(moment.timestamp() * 1000))


def stale(tags: Mapping[str, str], wanted: Mapping[str, str]) -> list[str]:
    """Tags of ours that say what is no longer so."""
    return [key for key in tags if key.startswith(OURS) and not key.startswith(_KEPT) and key not in wanted]


def page(experiment: str, run: str) -> str:
    """Address of a run's page, within MLflow."""
    return f"#/experiments/{experiment}/runs/{run}"


# -- parameters --------------------------------------------------------------------------------------------


def _params(lock: Lock) -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
    params: dict[str, str] = {}
    keys: dict[str, str] = {}
    long_values: dict[str, str] = {}
    for key, given in words.leaves(lock.config):
        if len(params) == _PARAMS:
            break
        text = given if isinstance(given, str) else json.dumps(given, ensure_ascii=False, default=str)
        name, value = names.mapped(key), _clean(text)
        if len(value) > _LONGEST_PARAM:
            long_values[key] = value
            value = f"{value[:500]}… ({len(value)} characters, see {LONG_VALUES})"
        params[name], keys[name] = value, key
    return params, keys, long_values


# -- tags --------------------------------------------------------------------------------------------------


def _tags(
    lock: Lock, status: str, parents: Mapping[str, str | None], children: str, notes: Notes
) -> Iterator[tuple[str, str]]:
    commit, source = (lock.source.commit or "").removeprefix("git:"), lock.source
    yield ID, names.mapped(lock.id)  # as it can be searched for
    yield "runctx.version", lock.runctx
    yield "runctx.stage", lock.stage
    yield "runctx.status", status
    yield "runctx.save_dir", lock.save_dir
    yield "runctx.host", lock.command.host
    yield "runctx.commit", commit
    yield "runctx.branch", source.branch or ""
    yield "runctx.repository", source.repository or ""
    yield "runctx.dirty", "true" if source.dirty else ""
    yield "runctx.seed", "" if lock.seed is None else str(lock.seed)
    yield "runctx.error", "" if lock.error is None else f"{lock.error.type}: {lock.error.message}"
    yield "runctx.config_digest", lock.config_digest or ""
    yield "runctx.omissions", str(len(lock.omissions)) if lock.omissions else ""
    yield "runctx.tasks", "; ".join(_tasks(lock))
    yield "runctx.tags", ", ".join(notes.tags)
    for tag in notes.tags:  # each by itself, to be searched for
        yield names.mapped(f"runctx.tag.{tag}"), "true"
    for id, link in parents.items():
        yield names.mapped(PARENT + id), link or "not published"
    first = next((link for link in parents.values() if link), "")
    yield "mlflow.parentRunId", first.rpartition("/")[2]
    yield "mlflow.user", lock.command.user
    yield "mlflow.source.name", lock.command.entry or lock.command.kind
    yield "mlflow.source.type", "NOTEBOOK" if lock.command.kind == "notebook" else "LOCAL"
    yield "mlflow.source.git.commit", commit
    yield "mlflow.source.git.branch", source.branch or ""
    yield "mlflow.source.git.repoURL", source.repository or ""
    yield NOTE, with_children(_note(lock, status, parents, notes), children)


def _tasks(lock: Lock) -> Iterator[str]:
    for tasks in lock.tasks:
        failed = f", {tasks.failed} failed" if tasks.failed else ""
        yield f"{tasks.name}: {tasks.done} of {tasks.total} done{failed}"


# -- the text ----------------------------------------------------------------------------------------------


def _note(lock: Lock, status: str, parents: Mapping[str, str | None], notes: Notes) -> str:
    said = [_code(line, 1000) for line in notes.note.splitlines()]
    tags = "**Tags:** " + ", ".join(map(_code, notes.tags)) if notes.tags else ""
    parts = [tags, "**Note:**\n\n" + "\n\n".join(said) if said else "", *_parts(lock, status, parents)]
    return "\n\n".join(filter(None, parts))


def _parts(lock: Lock, status: str, parents: Mapping[str, str | None]) -> Iterator[str]:
    took = words.took(lock.seconds)
    yield f"**{status}**" + (f" after {took}" if took else "") + f" — stage {_code(lock.stage)}"
    if lock.error is not None:
        yield f"**Error:** {_code(f'{lock.error.type}: {lock.error.message}', 1000)}"
    yield f"**Command:** {_code(' '.join(lock.command.argv) or lock.command.entry)} on {_code(lock.command.host)}"
    if commit := words.commit(lock.source.commit, False):
        dirty = ", which holds what was not committed" if lock.source.dirty else ""
        yield f"**Code:** commit {_code(commit)}{dirty}"
    yield f"**Folder:** {_code(lock.save_dir)}"
    if lock.tasks:
        yield _list("Tasks", [_code(line) for line in _tasks(lock)])
    yield _list("Read from", [_linked(id, link) for id, link in parents.items()])
    yield _list("Inputs", [_data(data) for data in lock.inputs])
    yield _list("Outputs", [_data(data) for data in lock.outputs])
    if lock.omissions:
        yield _list("Not recorded", [f"{_code(one.what)}: {_code(one.why)}" for one in lock.omissions])


_READ_BY = "\n\n**Read by**\n"


def with_children(note: str, children: str) -> str:
    """The text of a page, with these children instead of those it names."""
    return _cut(note.partition(_READ_BY)[0], _LONGEST_TAG - len(children)) + children


def children(tags: Mapping[str, str]) -> str:
    """The part of the text that names the runs which read from this one."""
    found = sorted(key for key in tags if key.startswith(CHILD))
    linked = [_linked(names.original(key, tags).removeprefix(CHILD), tags[key][:200]) for key in found]
    return _READ_BY + _bullets(linked) if linked else ""


def room_for_child(tags: Mapping[str, str]) -> bool:
    """Whether one more child is told to its parent: the runs below it are shown there in any case."""
    return sum(key.startswith(CHILD) for key in tags) < _LISTED


def _list(title: str, items: list[str]) -> str:
    return f"**{title}**\n{_bullets(items)}" if items else ""


def _bullets(items: list[str]) -> str:
    more = [f"… and {len(items) - _LISTED} more"] if len(items) > _LISTED else []
    return "\n".join(f"- {item}" for item in items[:_LISTED] + more)


def _linked(id: str, link: str | None) -> str:
    return f"[{_code(id, 100)}]({link})" if link else _code(id, 100)


def _data(data: Data) -> str:
    return f"{_code(data.path)} — {_code(words.digest(data))}, {words.size(data.bytes)}"


def _code(text: str, longest: int = 200) -> str:
    return "`" + words.line(text, longest).replace("`", "'").strip() + "`" if text.strip() else ""


def _cut(text: str, longest: int = _LONGEST_TAG) -> str:
    text = _clean(text)
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _clean(text: str) -> str:
    """Without what a database cannot hold."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")


def listed(paths: list[str]) -> str:
    """Some of them, and how many there are."""
    return _cut(f"{words.count(len(paths), 'output')}: {words.several(paths, 50)}")
