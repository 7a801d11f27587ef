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
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode

from ... import layout, permissions, places
from ...errors import TrackingError
from ...redact import REDACTED, Redactor

if TYPE_CHECKING:
    from filelock import BaseFileLock

    from ...settings import Settings

_BEFORE_IMPORT = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_LOGGING_LEVEL": "ERROR"}
_IMPATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "5"}
"""By default, a server that is gone is waited for for 45 s."""
_REFUSED = ("UNAUTHENTICATED", "PERMISSION_DENIED")
"""MLflow's words for 401 and 403."""
_PATIENCE = 20.0
"""Seconds to wait for others who hold a database: as long as MLflow itself waits for sqlite."""
_LONGEST = 500
"""Bytes of a path that SQLite opens: 512 on Linux, less the endings of the names of files beside it."""


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
                held.enter_context(_variables(_IMPATIENCE))
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
        from sqlalchemy.engine import make_url

        if (length := len(os.fsencode(self.file))) > _LONGEST:
            raise self._elsewhere(f"its path has {length} bytes; SQLite opens at most {_LONGEST}")
        if Path(make_url(self.uri).database or "") != self.file:
            raise self._elsewhere("SQLAlchemy before 2.1 takes no path with a question mark or `%`")
        if self.file.exists():
            with open(layout.open_regular(self.file), "rb") as stream:
                if stream.read(16) not in (b"", b"SQLite format 3\0"):
                    raise sqlite3.DatabaseError("file is not a database")

    def _elsewhere(self, why: str) -> TrackingError:
        return TrackingError(
            f"MLflow at {self.destination}: {why}",
            hint="set `tracking_uri` in [tool.runctx] to another place, e.g. sqlite:////home/me/runs.db",
        )

    def _opened(self) -> Any:
        from mlflow.tracking._tracking_service import utils

        if self.file is not None and _is_empty(self.file):
            _make(self.file)
        if self._store is not None:  # connections that are open go to the file that was there before
            self._store.engine.dispose()
            utils._tracking_store_registry._get_store_with_resolved_uri.cache_clear()
        return utils._get_store(self.uri, None if self.artifacts is None else self.artifacts.as_uri())

    def _asks_for_credentials(self) -> bool:
        """Whether a server answers 401, 403 or with a page for people to log in, where MLflow answers with JSON."""
        from mlflow.tracking._tracking_service.utils import get_default_host_creds
        from mlflow.utils.rest_utils import http_request

        try:
            question = "/api/2.0/mlflow/experiments/get?experiment_id=0"
            answer = http_request(get_default_host_creds(self.uri), question, "GET")
        except Exception:  # gone, or too busy: MLflow raises what it likes
            return False
        is_page = "html" in answer.headers.get("content-type", "")
        return answer.status_code in (401, 403) or (answer.status_code == 200 and is_page)

    def _told(self, error: Exception) -> TrackingError:
        text = str(getattr(error, "message", None) or error or type(error).__name__)
        text = Redactor().text(text.replace(self.uri, self.destination))
        text = re.sub(r"\s+", " ", re.split(r"\n\[SQL|\n\(Background", text)[0])
        if "locked" in text.lower() or type(error).__name__ == "Timeout":
            hint = "another program keeps it locked; try again when it has ended"
        elif self.file is not None:
            needed = (self.file, self.file.with_name(f"{self.file.name}.lock"), self.file.parent)
            hint = next(filter(None, map(permissions.hint, needed)), None) or (
                "check that MLflow of this version made it, and that the disk has room"
            )
        elif self._is_server:
            hint = "check that the server runs; nothing is lost, and `runctx publish` sends the run later"
            if getattr(error, "error_code", None) in _REFUSED or self._asks_for_credentials():
                hint = (
                    "the server asks for credentials, or for others: set MLFLOW_TRACKING_USERNAME and "
                    "MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
                )
        else:
            hint = "`tracking_uri` can be sqlite:///FILE, an address such as http://localhost:5000, or a database"
        return TrackingError(f"MLflow at {self.destination}: {text[:500]}", hint)


def _load_mlflow() -> None:
    if "mlflow" not in sys.modules:
        for name, value in _BEFORE_IMPORT.items():
            os.environ.setdefault(name, value)
    try:
        with _variables(layout.variables_of_home()):
            import mlflow  # noqa: F401
            from mlflow.store.db import utils
    except ImportError as error:
        raise TrackingError(f"mlflow cannot be imported: {error}", hint="pip install mlflow") from error
    logging.getLogger(utils.__name__).setLevel(logging.CRITICAL)  # its tracebacks: ours say it in a line
    utils.MAX_RETRY_COUNT = 3  # a database that is gone is waited for for 100 s otherwise
    utils._make_parent_dirs_if_sqlite = lambda uri: None  # it takes the quoted path for the path


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


def _make(file: Path) -> None:
    """Make MLflow's tables under another name first: half of them can be neither used nor completed."""
    from mlflow.store.db import utils

    new = file.with_name(f"{file.name}.new")
    for half in (new, file):
        for left in (half, half.with_name(f"{half.name}-journal")):
            left.unlink(missing_ok=True)
    os.close(os.open(new, os.O_CREAT | os.O_EXCL, 0o666))  # SQLite's own mode shuts out the group
    engine = utils.create_sqlalchemy_engine(places.address_of(new))
    try:
        utils._initialize_tables(engine)
    finally:
        engine.dispose()
    os.replace(new, file)


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
