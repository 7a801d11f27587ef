"""Run MLflow's server over a database, for this machine only, and arrange its table of runs.

Left alone, that table shows neither parameters nor metrics, and runs only where those that they read from are unfolded.
MLflow keeps a named view of it as a tag of the experiment.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ... import layout
from ...errors import TrackingError
from ...places import address_of

if TYPE_CHECKING:
    from .tracker import MLflow

HOST = "127.0.0.1"
_PORTS = range(5000, 5100)
"""That are tried where none is given."""
_SHOWN = 2000
"""Characters of the output of a server that has ended by itself."""
_NEEDED = ("mlflow", "flask", "uvicorn", "sqlalchemy")
"""What MLflow without its server, `mlflow-skinny`, does not bring."""
_OF_OTHERS = (
    "MLFLOW_GUNICORN_OPTS",
    "MLFLOW_STATIC_PREFIX",
    "MLFLOW_ARTIFACTS_ONLY",
    "MLFLOW_EXPOSE_PROMETHEUS",
    "MLFLOW_REGISTRY_STORE_URI",
    "MLFLOW_DEFAULT_ARTIFACT_ROOT",
    "MLFLOW_READ_REPLICA_BACKEND_STORE_URI",
    "MLFLOW_ENABLE_WORKSPACES",
)
"""Variables that would make another server of it: they are meant for one that is shared."""


class Server:
    """MLflow's server over a database, from `with` to its end.

    Parameters
    ----------
    uri: of the database.
    artifacts: folder of what is uploaded to the server itself.
    port: None takes the first that is free from 5000 on.
    file: of the database, if it is one of SQLite's.

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
        free = next((one for one in (_PORTS if port is None else (port,)) if _is_free(one)), None)
        if free is None:
            ports = f"port {port} is" if port else f"the ports {_PORTS[0]} to {_PORTS[-1]} are all"
            raise TrackingError(f"{ports} in use on this machine", hint="choose another with `--port`")
        self.port, self.address = free, f"http://{HOST}:{free}"

    def __enter__(self) -> Server:
        self._output = tempfile.TemporaryFile()
        uvicorn = "--log-level warning --timeout-graceful-shutdown 2"
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "mlflow", "server"),
                *("--host", HOST, "--port", str(self.port), "--workers", "1"),
                *("--artifacts-destination", os.fspath(self.artifacts), "--uvicorn-opts", uvicorn),
            ],
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            env={name: value for name, value in os.environ.items() if name not in _OF_OTHERS}
            | layout.variables_of_home()
            | {
                "MLFLOW_BACKEND_STORE_URI": self.uri,  # not an argument, which any user could read
                "MLFLOW_DISABLE_TELEMETRY": "true",
                "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # two more processes, which runs have no use for
                "PYTHONSAFEPATH": "1",  # a project may well have a module called like one of MLflow's
            },
            cwd=self.folder,
            start_new_session=True,  # Ctrl-C is for us, and all of its processes end together
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(self._process.pid, signal.SIGTERM)
                self._process.wait(timeout=10.0)
        finally:  # it hangs, or a second Ctrl-C
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._output.close()

    def check(self) -> None:
        """Nothing, as long as it runs.

        Raises
        ------
        TrackingError: it has ended; with what it said.
        """
        if self._process.poll() is not None:
            self._output.seek(0)
            said = self._output.read().decode(errors="replace").strip()[-_SHOWN:]
            raise TrackingError(
                f"MLflow's server on port {self.port} ended by itself; its output:\n{said or 'nothing'}",
                hint="choose another port with `--port` if this one is in use",
            )

    def wait(self, patience: float = 120.0) -> None:
        """Return when it answers, some ten seconds after it was started.

        Raises
        ------
        TrackingError: it has ended, or does not answer for so many seconds.
        """
        end = time.monotonic() + patience
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        while True:
            self.check()
            with contextlib.suppress(OSError), direct.open(f"{self.address}/health", timeout=5.0):
                return
            if time.monotonic() > end:
                raise TrackingError(
                    f"MLflow's server on port {self.port} did not answer within {patience:g} s"
                )
            time.sleep(0.1)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # as the server does it: connections that just ended do not count
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


# -- the table of runs --------------------------------------------------------------------------------------

KEY = "runctx"
"""Name of the view."""
_TAG = f"mlflow.sharedViewState.{KEY}"
_LOOKED_AT = 200
"""Runs, the newest, that the columns are chosen by."""
_PARAMS, _METRICS = 10, 6
"""Most columns of each kind."""
_ORDER = "attributes.`Created`"
"""The newest first: another name of the usual order, by which MLflow folds runs below those they read from."""
_LONGEST = 60
"""Characters of a name that makes a column."""


def page(experiment: str, *, arranged: bool = True) -> str:
    """Address of the table, within MLflow; without this type, it shows the page of language models' traces."""
    view = f"&viewStateShareKey={KEY}" if arranged else ""
    return f"#/experiments/{experiment}/runs?workflowType=machine_learning{view}"


def arrange(tracker: MLflow) -> None:
    """Choose what the table shows by the runs that are there now.

    Raises
    ------
    TrackingError: the destination does not take it.
    """
    experiment, client = tracker.experiment_id, tracker.database.client
    with tracker.database.asked(write=True):
        runs = client.search_runs([experiment], max_results=_LOOKED_AT)
        state = json.dumps({"orderByKey": _ORDER, "orderByAsc": False, "selectedColumns": columns(runs)})
        before = client.get_experiment(experiment).tags.get(_TAG)
        if before is None or json.loads(before).get("state") != state:
            # it is as it was when the view was made: the moment is part of the format, and shown nowhere
            view = {"name": KEY, "createdAt": 0, "updatedAt": 0, "state": state}
            client.set_experiment_tag(experiment, _TAG, json.dumps(view))


def columns(runs: Sequence[Any]) -> list[str]:
    """Of MLflow's table: first what tells most runs apart."""
    params: dict[str, Counter[str]] = {}
    metrics: Counter[str] = Counter()
    for run in runs:
        for name, value in run.data.params.items():
            params.setdefault(name, Counter())[value] += 1
        metrics.update(name for name in run.data.metrics if not name.startswith("system/"))

    def varied(name: str) -> tuple[int, int, str]:
        """In how many runs a parameter is not what it usually is, and then in how many it is at all."""
        total = params[name].total()
        return params[name].most_common(1)[0][1] - total, -total, name

    telling = [name for name in sorted(params, key=varied) if len(name) <= _LONGEST][:_PARAMS]
    often = [
        name for name in sorted(metrics, key=lambda name: (-metrics[name], name)) if len(name) <= _LONGEST
    ]
    return [
        "attributes.`Version`",
        *(f"metrics.`{name}`" for name in often[:_METRICS]),
        *(f"params.`{name}`" for name in telling),
        "tags.`runctx.stage`",
        "tags.`runctx.status`",
    ]
