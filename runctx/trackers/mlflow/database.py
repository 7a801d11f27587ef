"""Where does MLflow keep the runs of this project, and how is it asked?

The only module that connects to MLflow. A sqlite file is written by one process at a time, for it breaks if two
create it at once; what is wrong with a destination is known in seconds, and said without its credentials.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sqlite3
import sys
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode

from ... import layout, places
from ...errors import TrackingError
from ...redact import REDACTED, Redactor

if TYPE_CHECKING:
    from filelock import BaseFileLock

    from ...settings import Settings

_BEFORE_IMPORT = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_LOGGING_LEVEL": "ERROR"}
_IMPATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "5"}
"""By default, a server that is gone is waited for for 45 s."""
_PATIENCE = 20.0
"""Seconds to wait for others who hold a database: as long as MLflow itself waits for sqlite."""
_SQLITE = "sqlite:///"


class Database:
    """One destination; nothing is loaded or asked before `store` is needed."""

    def __init__(self, wishes: Settings) -> None:
        self.root = wishes.root.absolute()
        self.uri, self.file = places.tracking_uri(wishes), places.database(wishes)
        self.destination = _without_credentials(self.uri)
        self._store: Any = None
        self._made: int | None = None

    @property
    def artifacts(self) -> Path | None:
        """The folder of files; None where a server chooses."""
        return None if self._is_server else self.root / layout.ARTIFACTS

    @property
    def store(self) -> Any:
        """MLflow's own access to it, which is made if there is none yet, or the file was replaced meanwhile."""
        if self._store is None or self._made != _inode(self.file):
            _load_mlflow()
            with self.asked(write=True):
                self._check()
                self._store = self._opened()
                self._made = _inode(self.file)
        return self._store

    @contextlib.contextmanager
    def asked(self, *, write: bool = False) -> Iterator[None]:
        """For MLflow's doing alone: whatever goes wrong there is a TrackingError."""
        with contextlib.ExitStack() as held:
            if write:
                held.enter_context(self.alone())
            if self._is_server:
                held.enter_context(_impatient())
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
        from filelock import Timeout

        if self._guard is None:
            yield
            return
        try:
            self._guard.acquire()
        except (OSError, Timeout) as error:
            raise self._told(error) from error
        try:
            yield
        finally:
            self._guard.release()

    @property
    def _is_server(self) -> bool:
        return self.uri.lower().startswith(("http://", "https://"))

    @cached_property
    def _guard(self) -> BaseFileLock | None:
        from filelock import FileLock

        return None if self.file is None else FileLock(f"{self.file}.lock", timeout=3 * _PATIENCE)

    def _check(self) -> None:
        """What is wrong with a file is known at once: MLflow tries for minutes."""
        if self.file is None:
            if self.uri.startswith("sqlite:"):
                raise sqlite3.DatabaseError("a database in memory would be lost with the process")
            return
        if "?" in os.fspath(self.root) and self.root in self.file.parents:
            raise sqlite3.DatabaseError("MLflow cannot use a path with a question mark")
        if self.file.exists():
            with open(layout.open_regular(self.file), "rb") as stream:
                if stream.read(16) not in (b"", b"SQLite format 3\0"):
                    raise sqlite3.DatabaseError("file is not a database")
        with contextlib.closing(sqlite3.connect(self.file, timeout=_PATIENCE)) as connection:
            connection.execute("SELECT count(*) FROM sqlite_master")

    def _opened(self) -> Any:
        from mlflow.tracking._tracking_service import utils

        if self._store is not None:  # connections that are open go to the file that was there before
            self._store.engine.dispose()
            utils._tracking_store_registry._get_store_with_resolved_uri.cache_clear()
        return utils._get_store(self.uri, None if self.artifacts is None else self.artifacts.as_uri())

    def _told(self, error: Exception) -> TrackingError:
        text = str(getattr(error, "message", None) or error or type(error).__name__)
        text = Redactor().text(text.replace(self.uri, self.destination))
        text = re.sub(r"\s+", " ", re.split(r"\n\[SQL|\n\(Background", text)[0])
        if "locked" in text.lower() or type(error).__name__ == "Timeout":
            hint = "another program keeps it locked; try again when it has ended"
        elif self.file is not None:
            hint = "check that MLflow of this version made it, that you may write to it, and that the disk has room"
        elif self._is_server:
            hint = "check that the server runs; nothing is lost, and `runctx publish` sends the run later"
        else:
            hint = "`tracking_uri` can be sqlite:///FILE, an address such as http://localhost:5000, or a database"
        return TrackingError(f"MLflow at {self.destination}: {text[:500]}", hint)


def _load_mlflow() -> None:
    if "mlflow" not in sys.modules:
        for name, value in _BEFORE_IMPORT.items():
            os.environ.setdefault(name, value)
    try:
        import mlflow  # noqa: F401
        from mlflow.store.db import utils
    except ImportError as error:
        raise TrackingError(f"mlflow cannot be imported: {error}", hint="pip install mlflow") from error
    logging.getLogger(utils.__name__).setLevel(logging.CRITICAL)  # its tracebacks: ours say it in a line
    utils.MAX_RETRY_COUNT = 3  # a database that is gone is waited for for 100 s otherwise


@contextlib.contextmanager
def _impatient() -> Iterator[None]:
    ours = {name: value for name, value in _IMPATIENCE.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)


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


_ACCOUNT = re.compile(r"(?<=://)[^:/@]*(?::(?!\d+/)[^@]*)?@(?:[^/@]*@)*")
"""User and password of an address. As SQLAlchemy reads them, a password may have `/`, `?`, `#` and brackets in it."""
