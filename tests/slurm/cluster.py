#!/usr/bin/env python3
"""How does a real Slurm come up on this machine for the tests, and go away again?

    cluster.py up            install what is missing, start the cluster, wait until every node is idle
    cluster.py run COMMAND   run a command with the cluster, for as long as the command takes
    cluster.py env           print what to export, for `eval`
    cluster.py status        say what is there; ends with 0 if the cluster can be used
    cluster.py down          stop it, unless a `run` still needs it: then that one does

munged, mariadbd, slurmdbd, slurmctld and one slurmd for each pretended node, on loopback, without systemd and
cgroups, as whoever calls. All of it is in one folder and starts from nothing each time, so that ending it is `kill -9`.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import pwd
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import IO

PACKAGES = {
    "munged": "munge",
    "slurmctld": "slurm-wlm",
    "slurmd": "slurm-wlm",
    "sbatch": "slurm-wlm",
    "slurmdbd": "slurmdbd",
    "mariadbd": "mariadb-server-core",
    "mariadb-install-db": "mariadb-server-core",
    "my_print_defaults": "mariadb-client-core",
    "tini": "tini",
}
"""Commands, and the Debian package that each is in."""
STORAGE = "accounting_storage_mysql.so", "slurm-wlm-mysql-plugin"
"""The one that is no command."""
DAEMONS = ("munged", "mariadbd", "slurmdbd", "slurmctld", "slurmd")
USABLE = {"idle", "mix", "alloc", "comp", "plnd"}
"""Short states of nodes that take jobs, or will in a moment."""
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SBATCH_"))}
PATH = os.environ.get("PATH", os.defpath) + ":/usr/local/sbin:/usr/sbin:/sbin"


class ClusterError(Exception):
    """It is not there, or does not come up; says why."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """What a cluster can be asked to be."""

    nodes: int = 2
    cpus: int = 4
    """Of each node; the machine need not have them."""
    array: int = 11
    """MaxArraySize: the elements that an array may have, counted from 0."""


def until(condition: Callable[[], object], seconds: float = 120, *, what: str = "") -> None:
    """Wait until it holds; the limit is for what never will."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise ClusterError(f"not within {seconds:g} s: {what or condition}")
        time.sleep(0.05)


def succeeds(command: Sequence[str], environment: Mapping[str, str]) -> bool:
    try:
        return not subprocess.run(command, env=environment, capture_output=True, timeout=10).returncode
    except subprocess.TimeoutExpired:
        return False


@contextmanager
def locked(file: Path, *, shared: bool = False, wait: bool = True) -> Iterator[bool]:
    """Hold a lock, which ends with the process at the latest. Yields whether it was there to be had."""
    how = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB)
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as held:
        try:
            fcntl.flock(held, how)
        except BlockingIOError:
            yield False
        else:
            yield True


@dataclass(frozen=True)
class Cluster:
    """A Slurm that answers to commands."""

    conf: Path

    @cached_property
    def environment(self) -> Mapping[str, str]:
        """In which commands mean this cluster."""
        return {**CLEAN, "PATH": PATH, "SLURM_CONF": str(self.conf)}

    def ask(self, *command: str, seconds: float = 30) -> str:
        """What one of Slurm's commands prints."""
        try:
            told = subprocess.run(
                command, env=self.environment, capture_output=True, text=True, timeout=seconds, check=True
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise ClusterError(f"{shlex.join(command)}: {getattr(error, 'stderr', None) or error}") from None
        return told.stdout

    def nodes(self) -> dict[str, str]:
        """Each node's state, in short: `idle`; with `*` if it does not answer."""
        lines = self.ask("sinfo", "-hN", "-o", "%N %t").splitlines()
        return dict(line.split() for line in lines)

    def unusable(self) -> list[str]:
        return [name for name, state in self.nodes().items() if state not in USABLE]

    def answers(self) -> bool:
        try:
            return bool(self.nodes())
        except ClusterError:
            return False

    def resume(self) -> None:
        """Bring back the nodes that somebody set down, and wait until they take jobs."""

        def resumed() -> bool:
            bad = self.unusable()
            for name in bad:
                # refused while a node is still on its way down, or already on its way up: it is asked again
                succeeds(["scontrol", "update", f"nodename={name}", "state=resume"], self.environment)
            return not bad

        until(resumed, what="all nodes take jobs")

    def cancel(self, folder: Path | None = None) -> None:
        """Cancel our jobs, or only those whose output goes into a folder."""
        jobs = [
            number
            for number, _, output in (
                line.partition(" ")
                for line in self.ask("squeue", "--me", "-hO", "JobID: ,STDOUT:4096").splitlines()
            )
            if folder is None or output.strip().startswith(f"{folder}/")
        ]
        if jobs:
            succeeds(["scancel", *jobs], self.environment)  # or one of them has just ended

    def clear(self) -> None:
        """As if nobody had used it: no job of ours, every node idle."""
        self.cancel()
        self.resume()
        until(lambda: set(self.nodes().values()) == {"idle"}, what="all nodes idle")


class Local(Cluster):
    """The project's own, on this machine; one in each folder."""

    def __init__(self, folder: Path | None = None) -> None:
        if folder is None:
            named = os.environ.get("RUNCTX_SLURM_FOLDER")
            folder = Path(named) if named else Path(tempfile.gettempdir()) / f"runctx-slurm-{os.getuid()}"
        super().__init__(folder.absolute() / "slurm.conf")

    @property
    def folder(self) -> Path:
        return self.conf.parent

    @property
    def wanted(self) -> Path:
        """A file that is there from `up` to `down`."""
        return self.folder / "wanted"

    def lock(self, name: str) -> Path:
        return self.folder / "locks" / name

    @contextmanager
    def turn(self, *, alone: bool) -> Iterator[None]:
        """Use the cluster: beside others who use it, or without them."""
        with ExitStack() as queue:  # where who waits to be alone is not overtaken
            queue.enter_context(locked(self.lock("queue")))
            with locked(self.lock("turn"), shared=not alone):
                queue.close()
                yield

    # -- what runs ---------------------------------------------------------------------------------

    def processes(self) -> dict[int, str]:
        """Our daemons and what our jobs started, by number: they carry the name of our `slurm.conf`."""
        mark = f"SLURM_CONF={self.conf}".encode()
        found, parents = {}, {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            number = int(entry.name)
            try:
                name, _, rest = (entry / "stat").read_text().partition("(")[2].rpartition(")")
                parents[number] = int(rest.split()[1])
                variables = (entry / "environ").read_bytes().split(b"\0")
            except OSError:  # it has ended, or is another user's
                continue
            job = any(variable.startswith(b"SLURM_JOB_ID=") for variable in variables)
            if mark in variables and (job or name in (*DAEMONS, "slurmstepd", "tini")):
                found[number] = name
        for number in parents:  # a job may have emptied the environment of what it started
            above = number
            while above in parents and above not in found:
                above = parents[above]
            if above in found:
                found.setdefault(number, "")
        return found

    def complete(self) -> bool:
        """Every daemon lives, and the controller answers, be it as late as on a loaded machine."""
        running = Counter(self.processes().values())
        size = self.size()
        if size is None or not all(running[name] for name in DAEMONS) or running["slurmd"] < size.nodes:
            return False
        try:
            until(self.answers, 60)
        except ClusterError:
            return False
        return True

    def size(self) -> Size | None:
        """What it was asked to be when it was started."""
        try:
            return Size(**json.loads((self.folder / "size.json").read_text()))
        except (OSError, ValueError, TypeError):
            return None

    # -- up ------------------------------------------------------------------------------------------

    def up(self, size: Size | None = None, *, install: bool = False) -> None:
        """Have it running, with every node idle or busy. Costs nothing if it is; `None` takes any size."""
        self.claim_folder()
        with locked(self.lock("lifetime")):
            if not (self.complete() and size in (None, self.size())):
                missing = absent()
                if missing and not install:
                    raise ClusterError(f"not installed: {' '.join(missing)}")
                if missing:
                    apt_get(missing)
                self.start(size or Size())
        if self.unusable():
            with self.turn(alone=True):  # not under the hands of a test that set a node down
                self.resume()

    def claim_folder(self) -> None:
        """Make the folder; nobody else's is taken."""
        self.folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        found = self.folder.lstat()
        if found.st_uid != os.getuid() or self.folder.is_symlink() or found.st_mode & 0o022:
            raise ClusterError(f"{self.folder} is not ours alone: set RUNCTX_SLURM_FOLDER to another folder")
        if len(str(self.folder)) > 80:
            raise ClusterError(f"{self.folder} is too long for the names of sockets: set RUNCTX_SLURM_FOLDER")

    def start(self, size: Size) -> None:
        self.end()
        for name in ("log", "run", "spool", "state", "munge"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
            (self.folder / name).mkdir(mode=0o755)
        self.configure(size)
        try:
            self.start_authentication()
            self.start_accounting()
            self.start_controller()
            self.start_nodes(size)
        except ClusterError as error:
            self.end()
            raise ClusterError(f"{error}\n{self.last_words()}") from None
        (self.folder / "size.json").write_text(json.dumps(asdict(size)))

    def configure(self, size: Size) -> None:
        ports = free_ports(str(self.folder), 2 + size.nodes)
        here = "127.0.0.1"
        values = {
            **asdict(size),
            "folder": self.folder,
            "user": user(),
            # another number at each start, for longer than anybody keeps what a job wrote
            "first_job": int(time.time() * 10) % 60_000_000 + 1,
            "controller_port": ports[0],
            "accounting_port": ports[1],
            "first_port": ports[2],
            "last_port": ports[-1],
            # Slurm binds to what the machine's own name means, and is not found there if that is not loopback
            "binding": "NoCtldInAddrAny,NoInAddrAny" if own_address() == here else "",
        }
        for name in ("slurm.conf", "slurmdbd.conf"):
            text = (Path(__file__).parent / "etc" / name).read_text().format_map(values)
            target = self.folder / name
            target.unlink(missing_ok=True)
            target.touch(mode=0o600)  # slurmdbd insists
            target.write_text(text)

    def start_authentication(self) -> None:
        munge = self.folder / "munge"
        (munge / "key").touch(mode=0o600)
        (munge / "key").write_bytes(os.urandom(128))
        self.spawn(
            "munged",
            "--foreground",
            "--force",  # a folder that only we can enter is good enough
            "--origin=127.0.0.1",
            f"--key-file={munge}/key",
            f"--socket={munge}/socket",
            f"--seed-file={munge}/seed",
            f"--pid-file={self.folder}/run/munged.pid",
            f"--log-file={self.folder}/log/munged.log",
            ready=["munge", "-S", f"{munge}/socket", "-n"],
        )

    def start_accounting(self) -> None:
        database = self.folder / "database"
        shutil.rmtree(database, ignore_errors=True)
        mine = [
            "--no-defaults",
            f"--datadir={database}",
            f"--user={user()}",
            "--innodb-log-file-size=16M",
            "--debug-no-sync",
        ]
        by_socket = ["--auth-root-authentication-method=socket", f"--auth-root-socket-user={user()}"]
        with self.log("mariadb-install-db") as log:
            made = subprocess.run(
                ["mariadb-install-db", *mine, *by_socket, "--skip-test-db", "--skip-name-resolve"],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                timeout=120,
            )
        if made.returncode:
            raise ClusterError("mariadb-install-db failed")
        door = f"{self.folder}/run/database"
        self.spawn(
            "mariadbd",
            *mine,
            f"--socket={door}",
            "--skip-networking",
            "--skip-log-bin",
            "--performance-schema=OFF",
            "--innodb-buffer-pool-size=64M",
            "--innodb-lock-wait-timeout=900",
            "--innodb-flush-log-at-trx-commit=0",
            ready=["mariadb", "--no-defaults", f"--socket={door}", "-e", "select 1"],
        )
        self.spawn("slurmdbd", "-D", ready=["sacctmgr", "-n", "show", "cluster"], MYSQL_UNIX_PORT=door)
        self.ask("sacctmgr", "-i", "add", "cluster", "runctx")
        self.ask("sacctmgr", "-i", "add", "qos", "few", "MaxSubmitJobsPerUser=4")
        if user() != "root":  # who may submit has an account; root has it from the start
            self.ask("sacctmgr", "-i", "add", "user", user(), "account=root")

    def start_controller(self) -> None:
        self.spawn("slurmctld", "-D", ready=["scontrol", "ping"])

    def start_nodes(self, size: Size) -> None:
        for number in range(1, size.nodes + 1):
            (self.folder / "spool" / f"node{number}").mkdir()
            # tini: a job is over when its processes are gone for good, and not every init buries them at once
            self.spawn("tini", "-s", "--", "slurmd", "-D", "-N", f"node{number}", log=f"slurmd.node{number}")
        until(lambda: set(self.nodes().values()) == {"idle"}, 60, what="all nodes idle")

    def spawn(self, *command: str, ready: Sequence[str] = (), log: str = "", **variables: str) -> None:
        """Start a daemon, and wait until a command succeeds that needs it."""
        with self.log(log or command[0]) as output:
            process = subprocess.Popen(
                command,
                env={**self.environment, **variables},
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

        def answered() -> bool:
            if process.poll() is not None:
                raise ClusterError(f"{command[0]} ended at once, with {process.returncode}")
            return not ready or succeeds(ready, self.environment)

        until(answered, 60, what=f"{command[0]} answers")

    def log(self, name: str) -> IO[str]:
        return (self.folder / "log" / name).open("a")

    def last_words(self) -> str:
        """What the daemons said last: whoever reads it may have no other way to the logs."""
        said = []
        for file in sorted((self.folder / "log").iterdir()):
            said += [f"{file.name}: {line}" for line in file.read_text(errors="replace").splitlines()[-5:]]
        return "\n".join(said)

    # -- down ----------------------------------------------------------------------------------------

    def end(self) -> None:
        """End all of it, jobs included: nothing of it is needed again, so nothing is asked to end."""
        (self.folder / "size.json").unlink(missing_ok=True)

        def gone() -> bool:
            left = self.processes()
            for number in left:
                try:
                    os.kill(number, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            return not left

        until(gone, 30, what="the processes of the cluster have ended")
        for name in ("run", "spool", "state", "munge", "database"):  # the logs stay, for whoever asks why
            shutil.rmtree(self.folder / name, ignore_errors=True)

    def down(self) -> bool:
        """Nobody wants it any more. False if a `run` still does."""
        self.wanted.unlink(missing_ok=True)
        return self.end_if_unused()

    def end_if_unused(self) -> bool:
        with locked(self.lock("lifetime")), locked(self.lock("users"), wait=False) as unused:
            if unused and not self.wanted.exists():
                self.end()
                return True
        return False


def user() -> str:
    return pwd.getpwuid(os.getuid()).pw_name


def own_address() -> str:
    """What this machine's name means to it."""
    try:
        return socket.gethostbyname(socket.gethostname())
    except OSError:
        return ""


def free_ports(seed: str, count: int) -> list[int]:
    """Neighbouring ports that nobody uses, below those that the kernel hands out; each folder looks elsewhere first."""
    first, width, rooms = 20_000, 20, 600
    if count > width:
        raise ClusterError(f"{count} ports: more nodes than there is room for")
    for attempt in range(rooms):
        start = first + (zlib.crc32(seed.encode()) + attempt) % rooms * width
        ports = list(range(start, start + count))
        if all(map(is_free, ports)):
            return ports
    raise ClusterError(f"no {count} free ports between {first} and {first + rooms * width}")


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


def absent() -> list[str]:
    """Packages that have still to be installed."""
    needed = {package for command, package in PACKAGES.items() if not shutil.which(command, path=PATH)}
    file, package = STORAGE
    if not any(Path("/usr/lib").glob(f"*/slurm*/{file}")):
        needed.add(package)
    return sorted(needed)


def apt_get(packages: Sequence[str]) -> None:
    as_root = [] if os.getuid() == 0 else ["sudo", "-n"]
    apt = [
        *as_root,
        "env",
        "DEBIAN_FRONTEND=noninteractive",
        "apt-get",
        "-qy",
        "-o",
        "DPkg::Lock::Timeout=300",
    ]
    say(f"installing {' '.join(packages)}")
    for words in (["update"], ["install", "--no-install-recommends", *packages]):
        try:
            done = subprocess.run([*apt, *words], capture_output=True, text=True)
        except OSError as error:
            raise ClusterError(f"{' '.join(packages)} cannot be installed: {error}") from None
        if done.returncode and words != ["update"]:  # an old index may be good enough
            raise ClusterError(f"{shlex.join([*apt, *words])} failed\n{(done.stdout + done.stderr)[-2000:]}")


def say(text: str) -> None:
    print(f"cluster: {text}", file=sys.stderr)


def found() -> Cluster | None:
    """The cluster that tests use: the one that `SLURM_CONF` names, else the project's own if it is up."""
    named = os.environ.get("SLURM_CONF")
    if named and named != str(Local().conf):
        cluster = Cluster(Path(named))
        return cluster if cluster.answers() else None
    own = Local()
    return own if own.complete() else None


def run(command: Sequence[str]) -> int:
    """Run a command with a cluster: one that is there, else our own for as long as it takes, else none."""
    own, there = Local(), found()
    if there is not None and not isinstance(there, Local):
        return wait_for(command, os.environ)
    own.claim_folder()
    try:
        with locked(own.lock("users"), shared=True):
            try:
                own.up()
                environment = {**CLEAN, "SLURM_CONF": str(own.conf)}
            except ClusterError as error:
                say(f"none, {error}")
                environment = dict(os.environ)
            return wait_for(command, environment)
    finally:
        own.end_if_unused()


def wait_for(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """The exit code of a command; Ctrl-C and SIGTERM are its own affair, and we end after it."""
    process = subprocess.Popen(command, env=environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal tells the command, too
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    code = process.wait()
    return 128 - code if code < 0 else code


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    up = verbs.add_parser("up")
    up.add_argument("--nodes", type=int)
    up.add_argument("--cpus", type=int)
    up.add_argument("--array", type=int)
    verbs.add_parser("run").add_argument("command", nargs=argparse.REMAINDER)
    for verb in ("env", "status", "down"):
        verbs.add_parser(verb)
    said = parser.parse_args(arguments)
    own = Local()
    if said.verb == "run":
        return run(said.command)
    if said.verb == "up":
        asked = {
            name: value for name in ("nodes", "cpus", "array") if (value := getattr(said, name)) is not None
        }
        own.claim_folder()
        own.wanted.touch()
        own.up(Size(**asked) if asked else None, install=True)
    elif said.verb == "down":
        if own.folder.exists() and not own.down():
            say("a `run` still needs it, and will end it")
    elif not own.complete():
        say(f"not up: {own.folder}")
        return 1
    elif said.verb == "env":
        print(f"export SLURM_CONF={shlex.quote(str(own.conf))}")
    else:
        print(f"{own.conf}\n{own.ask('sinfo')}{own.ask('squeue')}", end="")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except ClusterError as error:
        say(str(error))
        sys.exit(1)
