"""How is MLflow's server started, for this machine only, and how does it end with us?"""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType

from ... import layout
from ...errors import TrackingError
from ...places import address_of
from . import guard

HOST = "127.0.0.1"
FIRST_PORT = 5000
_PORTS = 100
"""How many are tried."""
_TOKEN = "X-Runctx-Server"  # noqa: S105 - no secret: the name of the header that tells our server from others
_SHOWN = 2000
"""Characters of what a server said that has ended by itself."""

_NEEDED = ("mlflow", "flask", "uvicorn", "sqlalchemy")
"""What MLflow without its server, `mlflow-skinny`, does not bring."""

_OF_OTHERS = frozenset(
    {
        "MLFLOW_GUNICORN_OPTS",
        "MLFLOW_STATIC_PREFIX",
        "MLFLOW_ARTIFACTS_ONLY",
        "MLFLOW_EXPOSE_PROMETHEUS",
        "MLFLOW_REGISTRY_STORE_URI",
        "MLFLOW_DEFAULT_ARTIFACT_ROOT",
        "MLFLOW_READ_REPLICA_BACKEND_STORE_URI",
        "MLFLOW_ENABLE_WORKSPACES",
    }
)
"""Variables that would make another server of it: they are meant for one that is shared."""


class Server:
    """MLflow's server over a database, from `with` to its end; it never outlives this process.

    Parameters
    ----------
    uri: of the database.
    artifacts: folder of what is uploaded to the server itself.
    file: of the database, if it is one of SQLite's.
    port: None takes the first that is free from 5000 on.

    Raises
    ------
    TrackingError: the port is in use, or only a part of MLflow is installed.
    """

    def __init__(self, uri: str, artifacts: Path, port: int | None = None, file: Path | None = None) -> None:
        if missing := [name for name in _NEEDED if importlib.util.find_spec(name) is None]:
            raise TrackingError(
                f"MLflow's server needs {' and '.join(missing)}, which is not installed",
                hint="pip install mlflow",
            )
        # by its name alone: of an absolute address, MLflow makes the folders as they are quoted in it
        self.uri = uri if file is None else uri.replace(f"{address_of(file.parent)}/", "sqlite:///", 1)
        self.folder, self.artifacts = file and file.parent, artifacts
        self.port = _free_port() if port is None else _only_if_free(port)
        self.address = f"http://{HOST}:{self.port}"
        self._token = secrets.token_hex(16)

    def __enter__(self) -> Server:
        self._said = tempfile.TemporaryFile()
        self._guard = subprocess.Popen(
            [sys.executable, guard.__file__, *self._command()],
            stdin=subprocess.PIPE,
            stdout=self._said,
            stderr=subprocess.STDOUT,
            env=self._environment(),
            cwd=self.folder,
            start_new_session=True,  # Ctrl-C is for us
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._guard.stdin is not None
        self._guard.stdin.close()
        try:
            self._guard.wait(timeout=10.0)
        finally:  # it hangs, or a second Ctrl-C
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._guard.pid, signal.SIGKILL)
            self._guard.wait()
            self._said.close()

    def check(self) -> None:
        """Nothing, as long as it runs.

        Raises
        ------
        TrackingError: it has ended; with what it said.
        """
        if self._guard.poll() is not None:
            self._said.seek(0)
            said = self._said.read().decode(errors="replace").strip()[-_SHOWN:]
            raise TrackingError(
                f"MLflow's server on port {self.port} ended by itself; its output:\n{said or 'nothing'}",
                hint="choose another port with `--port` if this one is in use",
            )

    def answers(self) -> bool:
        """Whether it does already: some ten seconds after it was started.

        Raises
        ------
        TrackingError: it has ended.
        """
        self.check()
        connection = http.client.HTTPConnection(HOST, self.port, timeout=5.0)
        try:
            connection.request("GET", "/health")
            response = connection.getresponse()
            return response.status == http.client.OK and response.headers.get(_TOKEN) == self._token
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def wait(self, patience: float = 120.0) -> None:
        """Return when it answers.

        Raises
        ------
        TrackingError: it has ended, or does not answer for so many seconds.
        """
        end = time.monotonic() + patience
        while not self.answers():
            if time.monotonic() > end:
                raise TrackingError(
                    f"MLflow's server on port {self.port} did not answer within {patience:g} s"
                )
            time.sleep(0.1)

    def _command(self) -> list[str]:
        uvicorn = f"--log-level warning --timeout-graceful-shutdown 2 --header {_TOKEN}:{self._token}"
        return [
            *(sys.executable, "-m", "mlflow", "server"),
            *("--host", HOST, "--port", str(self.port), "--workers", "1"),
            *("--artifacts-destination", os.fspath(self.artifacts), "--uvicorn-opts", uvicorn),
        ]

    def _environment(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if name not in _OF_OTHERS}
        return (
            inherited
            | layout.variables_of_home()
            | {
                "MLFLOW_BACKEND_STORE_URI": self.uri,  # not an argument, which any user could read
                "MLFLOW_DISABLE_TELEMETRY": "true",
                "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # two more processes, for what runs have no use for
                "PYTHONSAFEPATH": "1",  # a project may well have a module called like one of MLflow's
            }
        )


def _free_port() -> int:
    for port in range(FIRST_PORT, FIRST_PORT + _PORTS):
        if _is_free(port):
            return port
    raise TrackingError(
        f"the ports {FIRST_PORT} to {FIRST_PORT + _PORTS - 1} are all in use",
        hint="choose another with `--port`",
    )


def _only_if_free(port: int) -> int:
    if not _is_free(port):
        raise TrackingError(
            f"port {port} is in use on this machine",
            hint="choose another with `--port`, or leave it out to take a free one",
        )
    return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
        )  # as the server: connections that just ended
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True
