"""What does the lock say of a map? A few numbers, and digests that stand for all of its rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from ..model import Tasks
from .ledger.rows import Author, Row
from .results import Final

MOST_KEYS = 1000


def folded(
    entry: Tasks, keys: Sequence[str], final: Final, authors: Iterable[Author], commit: str | None
) -> Tasks:
    """The entry of a map, as far as its tasks have come.

    Parameters
    ----------
    keys: of all tasks, in their order.
    commit: of the run; others are told.
    """
    found = (final[key][1] for key in keys if key in final)
    rows = [row for row in found if row.status != "retried"]  # else its next attempt is still to come
    failed = [row.key for row in rows if row.status != "done"]
    all_rows, results = _digests(rows)
    authors = list(authors)
    commits = {author.commit: None for author in authors if author.commit is not None}
    return replace(
        entry,
        total=len(keys),
        done=len(rows) - len(failed),
        failed=len(failed),
        seconds=round(sum(row.seconds for row in rows), 3),
        longest=round(max((row.seconds for row in rows), default=0.0), 3),
        workers=len(authors),
        commits=tuple(commits) if set(commits) - {commit} else (),
        failed_keys=tuple(failed[:MOST_KEYS]),
        digest=all_rows,
        results=results,
    )


def _digests(rows: Sequence[Row]) -> tuple[str, str]:
    """Of all rows, and of the results: equal where each task succeeded at once, as most do."""
    lines = [f"{row.key} {row.digest}\n" for row in rows if row.status == "done"]
    results = _digest(lines)
    others = [row for row in rows if row.status != "done" or row.attempt > 1]
    if not others:
        return results, results
    told = (f"{row.key} {row.status} {row.attempt}\n" for row in others)
    return _digest([*lines, *told]), results


def _digest(lines: Iterable[str]) -> str:
    from blake3 import blake3

    return "blake3:" + blake3("".join(sorted(lines)).encode()).hexdigest()


def unfinished(entry: Tasks) -> bool:
    """Whether tasks were not run yet."""
    return entry.done + entry.failed < entry.total
