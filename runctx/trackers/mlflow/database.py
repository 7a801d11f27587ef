"""Connect to the place where MLflow keeps the runs of a project, and say what is wrong with it.

A sqlite file is written by one of our processes at a time, for it breaks if two create it at once. What is wrong with a
destination is known in seconds, and said without its credentials.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode

from ... import layout, permissions, places
from ...errors import TrackingError
from ...redact import REDACTED, Redactor

if TYPE_CHECKING:
    from filelock import BaseFileLock

    from ...settings import Settings

_VARIABLES = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # by default, a server that is gone is waited for for 45 s
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
}
"""What MLflow is to do while we ask it, unless the user has set it."""
_PATIENCE = 20.0
"""Seconds to wait for others who hold a database: as long as MLflow itself waits for sqlite."""
_LONGEST = 500
"""Bytes of a path that SQLite opens: 512 on Linux, less the endings of the names of files beside it."""
_ACCOUNT = re.compile(r"(?<=://)[^:/@]*(?::(?!\d+/)[^@]*)?@(?:[^/@]*@)*")
"""User and password of an address. As SQLAlchemy reads them, a password may have `/`, `?`, `#` and brackets in it."""
_LOGIN = re.compile(
    r"error code 40[13]\b|authenticated|PERMISSION_DENIED|<form|<html|text/html", re.IGNORECASE
)
"""Of MLflow's message, where a server answers 401, 403 or with a page for people to log in."""


class Database:
    """One destination; nothing is loaded or asked before `client` is needed."""

    def __init__(self, wishes: Settings) -> None:
        self.root = wishes.root.absolute()
        self.uri, self.file = places.tracking_uri(wishes), places.database(wishes)
        self.address = self.uri
        """What MLflow is to be asked by now."""
        self.destination = _without_credentials(self.uri)
        self._is_server = self.uri.lower().startswith(("http://", "https://"))
        self.artifacts = None if self._is_server else self.root / layout.ARTIFACTS
        """The folder of files; None where a server chooses."""
        self._client: Any = None
        self._inode: int | None = None
        self._replaced = 0
        self._lock: BaseFileLock | None = None

    @property
    def client(self) -> Any:
        """MLflow's client; another one, and a new file if there is none, once the file is not what it was."""
        if self._client is None or self._inode != _inode(self.file):
            with self.asked(write=True):
                self._check()
                if self._client is not None:
                    # MLflow keeps connections by the address, and these go on to the file that was there before
                    self._replaced += 1
                    mark = "&" if "?" in self.uri else "?"
                    self.address = f"{self.uri}{mark}timeout={_PATIENCE + self._replaced:g}"
                self._client, self._inode = self._connected(), _inode(self.file)
        return self._client

    @contextlib.contextmanager
    def asked(self, *, write: bool = False) -> Iterator[None]:
        """For MLflow's doing alone: whatever goes wrong there is a TrackingError."""
        with contextlib.ExitStack() as stack:
            if write:
                stack.enter_context(self.alone())
            stack.enter_context(_variables(_VARIABLES))
            try:
                yield
            except TrackingError:
                raise
            except Exception as error:
                raise self._told(error) from error

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody else of ours writes into the file meanwhile; a server takes care of that itself.

        Raises
        ------
        TrackingError: somebody has been writing all the time.
        """
        from filelock import FileLock, Timeout

        if self.file is None:
            yield
            return
        self._lock = self._lock or FileLock(f"{self.file}.lock", timeout=3 * _PATIENCE)
        try:
            self._lock.acquire()
        except (OSError, Timeout) as error:
            raise self._told(error) from error
        try:
            yield
        finally:
            self._lock.release()

    def _check(self) -> None:
        """What is wrong is known at once: MLflow tries for minutes."""
        from sqlalchemy.engine import create_engine, make_url
        from sqlalchemy.pool import NullPool

        if self.file is not None:
            if (length := len(os.fsencode(self.file))) > _LONGEST:
                raise self._elsewhere(f"its path has {length} bytes; SQLite opens at most {_LONGEST}")
            if Path(make_url(self.uri).database or "") != self.file:
                raise self._elsewhere("SQLAlchemy before 2.1 takes no path with a question mark or `%`")
            if self.file.exists():
                with open(layout.open_regular(self.file), "rb") as stream:
                    if stream.read(16) not in (b"", b"SQLite format 3\0"):
                        raise sqlite3.DatabaseError("file is not a database")
        elif self.uri.startswith("sqlite:"):
            raise sqlite3.DatabaseError("a database in memory would be lost with the process")
        elif re.match(r"(postgresql|mysql|mssql)\b", self.uri):
            create_engine(self.uri, poolclass=NullPool).connect().close()

    def _elsewhere(self, why: str) -> TrackingError:
        return TrackingError(
            f"MLflow at {self.destination}: {why}",
            hint="set `tracking_uri` in [tool.runctx] to another place, e.g. sqlite:////home/me/runs.db",
        )

    def _connected(self) -> Any:
        try:
            with _variables(layout.variables_of_home()):
                from mlflow import MlflowClient
        except ImportError as error:
            raise TrackingError(f"mlflow cannot be imported: {error}", hint="pip install mlflow") from error
        logging.getLogger("mlflow.store.db.utils").setLevel(
            logging.CRITICAL
        )  # its tracebacks: ours say it in a line
        if self.file is not None and _is_empty(self.file):
            _make(self.file, self.root / layout.ARTIFACTS)
        client = MlflowClient(self.address)
        if self.file is not None:
            _remove_misread(self.file)
        return client

    def _told(self, error: Exception) -> TrackingError:
        text = str(getattr(error, "message", None) or error or type(error).__name__)
        asks_for_credentials = _LOGIN.search(f"{text} {getattr(error, 'error_code', '')}") is not None
        text = Redactor().text(
            text.replace(self.address, self.destination).replace(self.uri, self.destination)
        )
        text = re.sub(r"\s+", " ", re.split(r"\n\[SQL|\n\(Background", text)[0])
        if "locked" in text.lower() or type(error).__name__ == "Timeout":
            hint = "another program keeps it locked; try again when it has ended"
        elif self.file is not None:
            needed = (self.file, self.file.with_name(f"{self.file.name}.lock"), self.file.parent)
            hint = next(filter(None, map(permissions.hint, needed)), None) or (
                "check that MLflow of this version made it, and that the disk has room"
            )
        elif not self._is_server:
            hint = "`tracking_uri` can be sqlite:///FILE, an address such as http://localhost:5000, or a database"
        elif asks_for_credentials:
            hint = (
                "the server asks for credentials, or for others: set MLFLOW_TRACKING_USERNAME and "
                "MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
            )
        else:
            hint = "check that the server runs; nothing is lost, and `runctx publish` sends the run later"
        return TrackingError(f"MLflow at {self.destination}: {text[:500]}", hint)


@contextlib.contextmanager
def _variables(wanted: Mapping[str, str]) -> Iterator[None]:
    """Set what the user has not set, for a while."""
    ours = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)


def _is_empty(file: Path) -> bool:
    """Whether nothing is kept in it: there is no file yet, or somebody was killed who was making it."""
    if not file.exists():
        return True
    with contextlib.closing(sqlite3.connect(file, timeout=_PATIENCE)) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        return not any(
            connection.execute(f'SELECT 1 FROM "{name}" LIMIT 1').fetchone()  # noqa: S608
            for (name,) in tables
            if name != "alembic_version"  # the step that the making had come to
        )


def _make(file: Path, artifacts: Path) -> None:
    """Make MLflow's tables under another name first: half of them can be neither used nor completed."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    new = file.with_name(f"{file.name}.new")
    for half in (new, file):
        for left in (half, half.with_name(f"{half.name}-journal")):
            left.unlink(missing_ok=True)
    os.close(os.open(new, os.O_CREAT | os.O_EXCL, 0o666))  # SQLite's own mode shuts out the group
    SqlAlchemyStore(places.address_of(new), artifacts.as_uri()).engine.dispose()
    os.replace(new, file)


def _remove_misread(file: Path) -> None:
    """MLflow makes the folder of a database as it is quoted in the address: remove that, if it is another."""
    quoted = Path(places.address_of(file).removeprefix("sqlite:///"))
    if quoted != file:
        with contextlib.suppress(OSError):
            os.removedirs(quoted.parent)


def _inode(file: Path | None) -> int | None:
    try:
        return None if file is None else file.stat().st_ino
    except OSError:
        return None


def _without_credentials(uri: str) -> str:
    address, mark, query = _ACCOUNT.sub("", uri, count=1).partition("?")
    secret = Redactor().is_secret
    shown = [(key, REDACTED if secret(key) else value) for key, value in parse_qsl(query, True)]
    return address + mark + urlencode(shown)
