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
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from ... import layout
from ...errors import TrackingError
from ...redact import REDACTED, Redactor

if TYPE_CHECKING:
    from filelock import BaseFileLock

    from ...settings import Settings

_BEFORE_IMPORT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",  # what it says of errors is said by ours
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # by default, a server that is gone is waited for for 45 s
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
}
_PATIENCE = 20.0
"""Seconds to wait for others who hold a database: as long as MLflow itself waits for sqlite."""
_SQLITE = "sqlite:///"


class Database:
    """One destination; nothing is loaded or asked before `store` is needed."""

    def __init__(self, wishes: Settings) -> None:
        self.root = wishes.root.absolute()
        self.uri = _absolute(wishes.tracking_uri, self.root) or _absolute(
            os.environ.get("MLFLOW_TRACKING_URI", ""), Path.cwd()
        )
        self.uri = self.uri or f"{_SQLITE}{(self.root / 'mlflow.db').as_posix()}"
        self.destination = _without_credentials(self.uri)
        path = self.uri.removeprefix(_SQLITE)
        self.file = Path(path) if path.startswith("/") and path != self.uri else None

    @property
    def artifacts(self) -> Path | None:
        """The folder of files; None where a server chooses."""
        return None if urlsplit(self.uri).scheme in ("http", "https") else self.root / "mlruns"

    @cached_property
    def store(self) -> Any:
        """MLflow's own access to it, which is made if there is none yet."""
        _load_mlflow()
        from mlflow.tracking._tracking_service.utils import _get_store

        with self.asked(write=True):
            if self.file is not None:
                _probe(self.file)
            elif self.uri.startswith("sqlite:"):
                raise TrackingError(
                    f"MLflow at {self.uri}: a database in memory would be gone with the process",
                    hint='`tracking_uri = "sqlite:///FILE"` names a file',
                )
            return _get_store(self.uri, None if self.artifacts is None else self.artifacts.as_uri())

    @contextlib.contextmanager
    def asked(self, *, write: bool = False) -> Iterator[None]:
        """Whatever it does not take becomes a TrackingError; who writes into a file is alone with it."""
        try:
            with contextlib.ExitStack() as held:
                if write and self._guard is not None:
                    held.enter_context(self._guard)
                yield
        except TrackingError:
            raise
        except Exception as error:
            if not _is_theirs(error):
                raise
            raise self._told(error) from error

    @cached_property
    def _guard(self) -> BaseFileLock | None:
        from filelock import FileLock

        if self.file is None:
            return None
        with contextlib.suppress(OSError):  # what is wrong is said once the file itself is opened
            self.file.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(f"{self.file}.lock", timeout=3 * _PATIENCE)

    def _told(self, error: Exception) -> TrackingError:
        text = str(getattr(error, "message", None) or error or type(error).__name__)
        text = Redactor().text(text.replace(self.uri, self.destination))
        text = re.sub(r"\s+", " ", text.partition("\n[SQL")[0])
        if "locked" in text.lower() or type(error).__name__ == "Timeout":
            hint = "another program has kept it locked; try again when it has ended"
        elif self.file is not None:
            hint = "is that file a database of this version of MLflow, in a place with room that you may write to?"
        elif self.artifacts is None:
            hint = "does the server run? Nothing is lost: `runctx publish` brings the run there later"
        else:
            hint = "`tracking_uri` can be sqlite:///FILE, an address such as http://localhost:5000, or a database"
        return TrackingError(f"MLflow at {self.destination}: {text[:500]}", hint)


def _load_mlflow() -> None:
    if "mlflow" in sys.modules:
        return
    for name, value in _BEFORE_IMPORT.items():
        os.environ.setdefault(name, value)
    try:
        import mlflow  # noqa: F401
    except ImportError as error:
        raise TrackingError(f"mlflow cannot be imported: {error}", hint="pip install mlflow") from error
    logging.getLogger("alembic").setLevel(logging.WARNING)


def _is_theirs(error: Exception) -> bool:
    """Whether it is MLflow's, or of what it stands on."""
    packages = {kind.__module__.partition(".")[0] for kind in type(error).__mro__}
    return isinstance(error, OSError) or bool(
        packages & {"mlflow", "sqlalchemy", "sqlite3", "requests", "filelock"}
    )


def _probe(file: Path) -> None:
    """What is wrong with the file is known at once: MLflow tries for minutes."""
    if file.exists():
        with open(layout.open_regular(file), "rb") as stream:
            if stream.read(16) not in (b"", b"SQLite format 3\0"):
                raise sqlite3.DatabaseError("file is not a database")
    with contextlib.closing(sqlite3.connect(file, timeout=_PATIENCE)) as connection:
        connection.execute("SELECT count(*) FROM sqlite_master")


def _absolute(uri: str, base: Path) -> str:
    path = uri.removeprefix(_SQLITE)
    if path not in (uri, "", ":memory:"):
        return f"{_SQLITE}{(base / path).as_posix()}"
    if uri and "://" not in uri and not uri.startswith(("databricks", "file:", "uc")):
        return (base / uri).as_posix()
    return uri


def _without_credentials(uri: str) -> str:
    parts = urlsplit(uri)
    if "@" not in parts.netloc and not parts.query:
        return uri
    secret = Redactor().is_secret
    query = [(key, REDACTED if secret(key) else value) for key, value in parse_qsl(parts.query, True)]
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query=urlencode(query)))
