"""The vocabulary: what a run.lock holds, field by field.

Frozen, keyword-only value objects and nothing else. `runctx.lock` reads and writes them; every other module
only fills them in or asks them. The order of the fields is the order of the keys in the file.

Conventions: a digest is `algorithm:hex` (a bare hex digest such as `1234e567` reads back as a number in some
YAML readers), a time is UTC with zone, a size is in bytes, a duration in seconds, a path uses `/` and is
relative to the repository where it lies inside it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

SYSTEM = "system/"
"""The names of metrics of the machine begin with this."""
VERSION = "0.1.0"
"""Of the package; written into every lock."""

SCHEMA = 1
"""Version of the file format this package writes. Readers accept it and every earlier one."""

Status = Literal["running", "submitted", "done", "failed", "interrupted"]
"""What a lock can say. `submitted`: the block has ended, its tasks go on elsewhere. A reader derives one more,
`crashed`: running, but its process is gone."""

Strength = Literal["content", "stat", "skipped"]
"""How much a digest proves: every byte was read; only size and time were; nothing was."""

Kind = Literal["file", "folder", "glob", "files"]
"""What an input was given as, or an output is; `files`: many that tasks read, below a folder they have in common."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Omission:
    """Something that was not captured, and why. Silence is never an omission's only trace."""

    what: str
    """The thing left out: a path, a step, a field."""
    why: str
    """One sentence."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """The exception that ended the run."""

    type: str
    """Qualified name of its class, e.g. `builtins.ValueError`."""
    message: str
    traceback: str
    """As Python prints it, without local values."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Command:
    """What was started, where, by whom."""

    kind: Literal["script", "module", "notebook", "console"]
    entry: str
    """The script, module or notebook, relative to the repository; empty at a bare console."""
    argv: tuple[str, ...] = ()
    """As given, secrets redacted."""
    cwd: str
    python: str
    """The interpreter's path."""
    host: str
    pid: int
    user: str
    slurm_job: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """A notebook cell that was executed before the run ended."""

    number: int
    """The kernel's execution count."""
    code: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """The code: the work tree as a commit on the log branch, and which of its files were imported."""

    repository: str | None = None
    """Address of the remote `origin` without credentials, else the folder's name; None outside a repository."""
    branch: str | None = None
    """The branch HEAD was on; None when detached or outside a repository."""
    head: str | None = None
    """`git:hex` of HEAD; None before the first commit."""
    commit: str | None = None
    """`git:hex` of the commit that holds the work tree: HEAD itself when the tree was clean."""
    tree: str | None = None
    """`git:hex` of that commit's tree."""
    dirty: bool = False
    """Whether the work tree differed from HEAD (untracked files included)."""
    files: dict[str, str] = field(default_factory=dict)
    """Path -> `git:hex` of the blob, for every imported module that belongs to the project."""
    copies: str | None = None
    """Folder inside save_dir that holds copies of project files no commit holds."""
    cells: tuple[Cell, ...] = ()
    skipped: tuple[Omission, ...] = ()
    """Files of the work tree that the snapshot leaves out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Data:
    """A file, folder or glob the run read or wrote, and the digest of its content."""

    path: str
    """As given (input), or relative to save_dir (output)."""
    kind: Kind
    digest: str | None = None
    """`blake3:hex`: of the bytes (file), or of the manifest (folder, glob). None while unknown or if skipped."""
    bytes: int = 0
    files: int = 1
    strength: Strength = "content"
    manifest: str | None = None
    """Path below save_dir of the manifest, in the format of `b3sum`; None for a file. Its paths start at `path`, or for
    a glob at the folder before the first wildcard."""
    changed_during_run: bool = False
    run: str | None = None
    """Id of the upstream run whose save_dir it is, or lies in."""
    name: str | None = None
    """Of an input that was given in a dict: its key."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Environment:
    """Where it ran."""

    python: str
    """Version and implementation, e.g. `3.11.7 CPython`."""
    platform: str
    cpu: str
    cpus: int
    """Processors this process may use."""
    memory: int
    """Bytes of main memory."""
    devices: tuple[str, ...] = ()
    """Accelerators, by name."""
    packages: dict[str, str] = field(default_factory=dict)
    """Distribution -> version, for all that had been imported when the run ended."""
    variables: dict[str, str] = field(default_factory=dict)
    """Environment variables, by allow-list only."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """What one layer said of one key of the configuration."""

    layer: str
    """Its kind: `default`, `program`, `base file`, `config file`, `group file`, `experiment`, `overrides file`,
    `override` or `task`."""
    where: str
    """File and line, or the position of the argument, counted as in `sys.argv`."""
    value: Any
    """As it was written there, secrets redacted; of a derived value, its source."""
    reads: tuple[str, ...] = ()
    """Keys that the value was computed from, if it was."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tasks:
    """One `run.map`: what became of its tasks. Their rows lie in `tasks/<name>/`."""

    name: str
    """The folder below `tasks/`: that of the function, numbered if it was mapped twice."""
    function: str
    """Qualified name; of a lambda, which has none, also a digest of its code."""
    into: str | None = None
    """The key of the configuration that each task was set at; "" if it was merged."""
    launcher: str
    total: int
    done: int = 0
    failed: int = 0
    """The rest was not run."""
    seconds: float = 0.0
    """Of all tasks together."""
    longest: float = 0.0
    """Seconds of the longest."""
    workers: int = 0
    """Processes or threads that wrote rows."""
    commits: tuple[str, ...] = ()
    """`git:hex` of the code that ran, if not all of it is the run's `source.commit`."""
    failed_keys: tuple[str, ...] = ()
    """Of the first thousand, in the order of the tasks."""
    digest: str | None = None
    """`blake3:hex` over all rows: what `results` is over, and status and attempt where a task did not succeed at
    once."""
    results: str | None = None
    """`blake3:hex` over key and result of what was done: equal for equal results, wherever they were computed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """What became of one metric, over all points of all processes, threads and tasks."""

    last: float
    """The newest value."""
    min: float
    """Not a number only where no value is one."""
    max: float
    points: int
    """How many."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Session:
    """An earlier entry of a run that was resumed."""

    started: datetime
    seconds: float | None = None
    """None if it was killed."""
    status: str
    commit: str | None = None
    """`git:hex` of the code as it was then."""
    host: str
    pid: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Lock:
    """One run: all that is needed to say why its result differs from another's."""

    schema: int = SCHEMA
    runctx: str
    """Version of the package that wrote it; a reader that is too old is told to install this one."""
    id: str
    """`<stage>-<yymmdd>-<HHMMSS>-<6 hex>`; unique, and stable when the folder is moved."""
    stage: str
    """Name of what was done: as given, else that of the file in which the `Run` stands."""
    status: Status
    started: datetime
    resumed: datetime | None = None
    """When the last entry began, if it is not the first."""
    seconds: float | None = None
    """From entry to exit, of the last entry; None while running."""
    save_dir: str
    error: Failure | None = None
    command: Command
    seed: int | None = None
    """What random, numpy and torch were seeded with; None when the run did not seed them."""
    config: dict[Any, Any] = field(default_factory=dict)
    """Resolved values, secrets redacted."""
    config_digest: str | None = None
    """`blake3:hex` of keys and values, `save_dir` aside: equal for the same configuration."""
    config_structure: str | None = None
    """`blake3:hex` of keys and types: equal for the same experiment with other numbers."""
    config_subclasses: dict[str, str] = field(default_factory=dict)
    """Dotted key -> qualified name of the dataclass there, where it is a subclass of the one that is declared."""
    latest: dict[str, str] = field(default_factory=dict)
    """Stage -> folder: the runs that `${latest:STAGE}` in the configuration meant."""
    choices: dict[str, str] = field(default_factory=dict)
    """Group -> the file that was chosen of it, several by commas: of `compose`, or of the Hydra job."""
    origins: dict[str, tuple[Origin, ...]] = field(default_factory=dict)
    """Dotted key -> who set it, the winner first, then those it beat. When one dict in the code set all, only of what
    was computed."""
    keys_read: tuple[str, ...] = ()
    """Dotted keys that were read through `run.cfg`, or the configuration the run was given."""
    source: Source
    inputs: tuple[Data, ...] = ()
    outputs: tuple[Data, ...] = ()
    parent: str | None = None
    """Id of the run in whose block this one was entered."""
    parents: tuple[str, ...] = ()
    """Ids of the runs this one read from directly; their locks are in `upstream`."""
    upstream: tuple[Lock, ...] = ()
    """The locks of all earlier runs, direct or not, each once and with an empty `upstream`, oldest first."""
    environment: Environment
    tasks: tuple[Tasks, ...] = ()
    metrics: dict[str, Summary] = field(default_factory=dict)
    """Name -> what became of it; every point lies in `metrics/`. Known when the run has ended."""
    sessions: tuple[Session, ...] = ()
    """Earlier entries, the first first, if the run was resumed; `started` is that of the first of all."""
    omissions: tuple[Omission, ...] = ()
