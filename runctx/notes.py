"""Tags and the note of a run: what people say of it. They lie beside its sealed lock, in `run.notes`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from . import layout
from .errors import NotesError
from .redact import Redactor

_LONGEST_TAG, _LONGEST_NOTE = 100, 20_000
"""Characters."""
_MOST_BYTES = 1_000_000
_PATIENCE = 10.0
"""Seconds to wait for another who changes them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Notes:
    """Of one run."""

    tags: tuple[str, ...] = ()
    """In the order in which they were given."""
    note: str = ""


NO_NOTES = Notes()


def read(folder: Path) -> Notes:
    """The notes in a run's folder; none, if nobody made any.

    Raises
    ------
    NotesError: they cannot be read; names the file.
    """
    from . import yamlfile

    file = layout.RunFiles(folder).notes
    try:
        plain = yamlfile.load(layout.read_regular(file, most=_MOST_BYTES))
    except FileNotFoundError:
        return NO_NOTES
    except (OSError, yamlfile.BrokenYaml) as error:
        raise _broken(file, str(getattr(error, "strerror", None) or error)) from error
    tags, note = (plain.get("tags", []), plain.get("note", "")) if isinstance(plain, dict) else (None, None)
    if (
        not isinstance(tags, list)
        or not all(isinstance(tag, str) for tag in tags)
        or not isinstance(note, str)
    ):
        raise _broken(file, "it must hold `tags`, a list of texts, and `note`, a text")
    return Notes(tags=tuple(tags), note=note)


def readable(folder: Path) -> Notes:
    """The same for a listing or a picture; of a file that cannot be read, the note says so."""
    try:
        return read(folder)
    except NotesError as error:
        return Notes(note=error.message)


def change(
    folder: Path,
    redactor: Redactor,
    *,
    add: Iterable[str] = (),
    remove: Iterable[str] = (),
    note: str | None = None,
) -> Notes:
    """Add and remove tags, and replace the note.

    Parameters
    ----------
    redactor: takes secrets out of what is written.
    remove: tags; it is no error if one is not there.
    note: None leaves it as it is; the empty text removes it.

    Raises
    ------
    NotesError: a tag or the note cannot be kept, or the file cannot be read or written.
    """
    from . import yamlfile

    added, removed = check(add, note), check(remove)
    file = layout.RunFiles(folder).notes
    with _alone(folder):
        known = read(folder)
        tags = dict.fromkeys(tag for tag in (*known.tags, *map(redactor.text, added)) if tag not in removed)
        text = known.note if note is None else redactor.text(note.strip())
        changed = Notes(tags=tuple(tags), note=text)
        if changed != known:
            try:
                layout.write_atomically(file, yamlfile.dump({"tags": list(tags), "note": text}))
            except OSError as error:
                raise NotesError(f"cannot write {file}: {error.strerror or error}") from error
    return changed


def check(tags: str | Iterable[str], note: str | None = None) -> tuple[str, ...]:
    """The tags without blanks around them, if they and the note can be kept; a text alone is one tag.

    Raises
    ------
    NotesError: one cannot.
    """
    if note is not None and (not isinstance(note, str) or len(note) > _LONGEST_NOTE):
        raise NotesError(f"a note must be a text of at most {_LONGEST_NOTE} characters")
    return tuple(map(_checked, (tags,) if isinstance(tags, str) else tags))


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Of two that add a tag at once, neither loses it."""
    from filelock import FileLock, Timeout

    held = FileLock(layout.RunFiles(folder).state / "notes.lock", timeout=_PATIENCE)
    try:
        held.acquire()
    except Timeout:
        raise NotesError(
            f"another process has been writing the notes in {folder} for {_PATIENCE:g} s"
        ) from None
    except (OSError, NotImplementedError):
        yield  # no locks there
        return
    try:
        yield
    finally:
        held.release()


def _checked(tag: str) -> str:
    text = tag.strip() if isinstance(tag, str) else ""
    if not text or len(text) > _LONGEST_TAG or not text.isprintable():
        raise NotesError(
            f"a tag must be a printable text of 1 to {_LONGEST_TAG} characters; got {tag!r:.120}"
        )
    return text


def _broken(file: Path, why: str) -> NotesError:
    return NotesError(f"cannot read {os.fspath(file)}: {why}", hint="put the file right, or remove it")
