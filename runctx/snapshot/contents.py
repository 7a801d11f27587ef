"""Which tree entry does each changed path get, as `git add` would write it?"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ..model import Omission
from .changes import Change, copy_index, has_attributes
from .command import GitError, git
from .memory import Identity, identity, moment
from .opened import Opened
from .trees import EXECUTABLE, FILE, GITLINK, LINK, Entry, store_blob
from .trees import has as has_object


class LeftOutError(Exception):
    """This path cannot or shall not be recorded; the message is one sentence that says why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Contents:
    """What the changed paths come to."""

    edits: dict[bytes, Entry | None] = field(default_factory=dict)
    """Entry by path; None where there is nothing any more. A path that is absent stays as in HEAD."""
    identities: dict[bytes, Identity] = field(default_factory=dict)
    """Stat data of each file that was read."""
    skipped: list[Omission] = field(default_factory=list)


def record(
    opened: Opened,
    changes: Iterable[Change],
    head: bytes,
    excluded: Callable[[str], bool],
    max_file_size: int,
) -> Contents:
    """Store what is new in the object database.

    Parameters
    ----------
    head: id of HEAD's tree, the empty tree before the first commit.
    excluded: whether a path, relative to the repository, is to stay as it is in HEAD.
    max_file_size: bytes; larger files are skipped, as are unreadable ones, sockets, devices and pipes.
    """
    contents = Contents()
    changes = list(changes)
    converts = _Conversions(opened, changes)
    git_decides: list[bytes] = []
    for change in changes:
        path = change.path.rstrip(b"/")
        if excluded(os.fsdecode(path)):
            if change.tracked:
                _skip(contents, path, "excluded by a pattern; the version of HEAD stands in")
        elif change.gone or change.settled is not None:
            contents.edits[path] = change.settled
        else:
            try:
                entry = _entry(opened, change, converts, contents.identities, max_file_size)
            except LeftOutError as why:
                contents.edits.pop(path, None)
                _skip(contents, path, str(why))
                continue
            except FileNotFoundError:
                contents.edits[path] = None
                continue
            if entry is None:
                git_decides.append(path)
            else:
                contents.edits[path] = entry
                if entry[0] == GITLINK and not change.tracked:
                    _skip(contents, path, "a repository of its own: only its commit is recorded")
    if git_decides:
        _as_git_adds_them(opened, git_decides, head, contents)
    return contents


def read_regular(path: bytes) -> tuple[bytes, os.stat_result]:
    """A regular file's bytes and their stat data; never waits for a pipe, never follows a link."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise LeftOutError("neither a file nor a link")
        return file.read(), found


def _skip(contents: Contents, path: bytes, why: str) -> None:
    contents.skipped.append(Omission(what=path.decode("utf-8", "backslashreplace"), why=why))


def _entry(
    opened: Opened, change: Change, converts: _Conversions, identities: dict[bytes, Identity], limit: int
) -> Entry | None:
    """The entry of what lies at the path now; None if only git can tell."""
    path = opened.bytes_root + change.path.rstrip(b"/")
    try:
        found = os.lstat(path)
        if stat.S_ISLNK(found.st_mode):
            return LINK, store_blob(opened.odb, os.readlink(path))
        if stat.S_ISDIR(found.st_mode):
            return GITLINK, _nested_head(path)
        if not stat.S_ISREG(found.st_mode):
            raise LeftOutError("neither a file nor a link")
        if found.st_size > limit:
            raise LeftOutError(f"{found.st_size} bytes, more than the {limit} of max_file_size")
        if converts.by_filter(change.path):
            return None
        mode = _file_mode(opened, change, found)
        id = opened.memory.recall(change.path, found)
        if id is None or not has_object(opened.odb, id):
            hashed_at = moment()
            content, found = read_regular(path)
            if len(content) > limit:
                raise LeftOutError(f"grew beyond the {limit} bytes of max_file_size while it was read")
            if converts.by_text_rules(content):
                return None
            id = store_blob(opened.odb, content)
            if not _looks_convertible(content):
                opened.memory.learn(change.path, found, id, hashed_at)
        identities[change.path] = identity(found)
        return mode, id
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(change.path) from error  # removed since the changes were listed
    except PermissionError as error:
        raise LeftOutError(f"cannot be read: {error.strerror}") from error


def _file_mode(opened: Opened, change: Change, found: os.stat_result) -> int:
    if change.mode in (FILE, EXECUTABLE, LINK):  # a link: a file stands for it where core.symlinks is false
        return change.mode
    executable = opened.flag("core.filemode", True) and found.st_mode & 0o100
    return EXECUTABLE if executable else FILE


def _nested_head(path: bytes) -> bytes:
    import pygit2

    try:
        head = pygit2.Repository(os.fsdecode(path), pygit2.enums.RepositoryOpenFlag.NO_SEARCH).head
    except (pygit2.GitError, KeyError, ValueError, OSError) as error:
        raise LeftOutError(f"a nested repository without a commit that could be recorded: {error}") from error
    return head.peel(pygit2.Commit).id.raw


def _looks_convertible(content: bytes) -> bool:
    """Whether line-ending or keyword rules, if there are any, could change it."""
    return b"\r\n" in content or b"$Id" in content


class _Conversions:
    """Which files does git store differently from how they lie in the work tree?"""

    def __init__(self, opened: Opened, changes: list[Change]) -> None:
        self._opened = opened
        self._attributes = (
            any(change.path.endswith(b".gitattributes") for change in changes)
            or has_attributes(opened)
            or _nested_attributes(opened, changes)
        )
        self._text_rules = (
            self._attributes
            or opened.flag("core.autocrlf", False)
            or (opened.config.get("core.autocrlf", "").lower() == "input")
        )

    def by_filter(self, path: bytes) -> bool:
        """Whether a `filter` or `working-tree-encoding` is set for it."""
        if not self._attributes:
            return False
        try:
            name = path.decode("utf-8")
        except UnicodeDecodeError:
            return True  # libgit2's binding cannot be asked about it
        look_up = self._opened.repo.get_attr
        return any(isinstance(look_up(name, rule), str) for rule in ("filter", "working-tree-encoding"))

    def by_text_rules(self, content: bytes) -> bool:
        """Whether line endings or `$Id$` may be rewritten."""
        return self._text_rules and _looks_convertible(content)


def _nested_attributes(opened: Opened, changes: Iterable[Change]) -> bool:
    folders: set[bytes] = set()
    for change in changes:
        folder = change.path.rpartition(b"/")[0]
        while folder and folder not in folders:
            folders.add(folder)
            folder = folder.rpartition(b"/")[0]
    return any(os.path.exists(opened.bytes_root + folder + b"/.gitattributes") for folder in folders)


def _as_git_adds_them(opened: Opened, paths: list[bytes], head: bytes, contents: Contents) -> None:
    """Let git add these files to a private index: its filters run, as in the user's own `git add`."""
    try:
        entries = _added_by_git(opened, paths, head)
    except (GitError, OSError) as error:
        for path in paths:
            contents.edits.pop(path, None)
            _skip(
                contents, path, f"stored through a filter or text rules of git, which did not work: {error}"
            )
        return
    for path in paths:
        if path in entries:
            contents.edits[path] = entries[path]
        else:
            contents.edits.pop(path, None)  # converted, it is what HEAD has


def _added_by_git(opened: Opened, paths: list[bytes], head: bytes) -> dict[bytes, Entry | None]:
    with tempfile.TemporaryDirectory(prefix="runctx-") as folder:
        index = Path(folder, "index")
        if os.path.exists(opened.index_path):
            copy_index(opened, index)
        from_stdin = ("--pathspec-from-file=-", "--pathspec-file-nul")
        # without a split index: it would write a shared part beside the user's
        plain = ("-c", "core.splitIndex=false", "-c", "core.safecrlf=false")
        git(opened.root, *plain, "add", "--force", *from_stdin, stdin=b"\0".join(paths), index=index)
        output, _ = git(
            opened.root,
            "diff-index",
            "--cached",
            "--raw",
            "-z",
            "--no-renames",
            "--abbrev=40",
            head.hex(),
            index=index,
        )
    fields = iter(output.split(b"\0"))
    changed: dict[bytes, Entry | None] = {}
    for line in fields:
        if line:
            _, mode, _, id, _ = line[1:].split(b" ")
            entry = (int(mode, 8), bytes.fromhex(id.decode()))
            changed[next(fields)] = entry if entry[0] else None
    return {path: changed[path] for path in paths if path in changed}
