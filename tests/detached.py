"""A launcher that does not wait: its workers live in a process of their own, which nobody looks after."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from runctx.launchers import Joblib, Serial
from runctx.tasks.shifts import read_all
from runctx.tasks.supervisor import Plan


@dataclass
class Detached:
    """One shift in a detached process.

    Parameters
    ----------
    jobs: workers of it.
    """

    jobs: int = 1
    children: list[subprocess.Popen[bytes]] = field(default_factory=list)

    name = "detached"
    in_process = False
    waits = False

    def launch(self, plan: Plan) -> None:
        """Returns when the shift can be seen."""
        file = plan.files.state / "plan.pickle"
        file.write_bytes(pickle.dumps((plan, self.jobs)))
        child = subprocess.Popen(
            [sys.executable, __file__, str(file)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        self.children.append(child)
        while not read_all(plan.files):
            assert child.poll() is None, "the shift did not begin"
            time.sleep(0.01)

    def kill(self) -> None:
        """Whatever of it is still there."""
        for child in self.children:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def main(file: Path) -> None:
    plan, jobs = pickle.loads(file.read_bytes())
    launcher = Serial() if jobs == 1 else Joblib(n_jobs=jobs)
    plan.watch(launcher.start, jobs, children=jobs > 1, elsewhere=True).run()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
