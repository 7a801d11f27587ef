"""How does a configuration keep its layers, and what was read of it, wherever it is copied to?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import Container, DictConfig

from . import hydra
from .derivation.arithmetic import provide
from .layers import Branch
from .layers import Path as Keys

_FLAG = (
    "runctx"  # OmegaConf copies, merges and pickles a node's flags with it, and asks only for its own by name
)
_RUN = "runctx_run"


@dataclass(frozen=True, kw_only=True, slots=True)
class Composition:
    """What `compose` was given, so that a group can be chosen again."""

    root: Path
    base: DictConfig
    """What lies below the files."""
    groups: dict[str, tuple[str, ...] | None]
    """Dotted group -> its choices, lowest first; None for a group that is left out."""
    above: Branch
    """What lies above the files: layers that were laid upon them, and what code assigned in between."""
    added: frozenset[Keys] = frozenset()
    """Paths in `above` that dataclasses need not have."""


class Trace:
    """Where a configuration comes from and which of its keys were read; shared by all its copies.

    Parameters
    ----------
    tree: its layers.
    values: what they made, neither resolved nor converted: what differs from it was assigned later.
        None for a configuration that cannot change any more.
    """

    __slots__ = (
        "before",
        "below",
        "closed",
        "composed",
        "forks",
        "needs",
        "reads",
        "resume",
        "tree",
        "values",
        "within",
    )

    def __init__(self, tree: Branch, values: dict[Any, Any] | None) -> None:
        self.tree = tree
        self.values = values
        self.reads: set[str] = set()
        """Dotted keys."""
        self.below: tuple[set[str], ...] = ()
        """What was read of the configurations that this one was laid upon."""
        self.forks = 0
        """How often the process had been forked when it began to note what is read."""
        self.needs: dict[str, tuple[str, ...]] = {}
        """Of a configuration that cannot change any more: key of a computed value -> keys it was computed from."""
        self.within: tuple[Trace, str] | None = None
        """Of a configuration that was a part of another: what is read of that, below this dotted key, is read of it."""
        self.composed: Composition | None = None
        """For a configuration that `compose` made, whatever layers were laid upon it since."""
        self.before: DictConfig | None = None
        """The configuration without what `__post_init__` set, once that has run."""
        self.resume: bool | str = False
        """What `--resume` asked for, as `Run(resume=...)` takes it."""
        self.closed = ""
        """The class whose `__post_init__` has run in the program, and cannot run again: no layer can be laid."""

        provide(values)

    def __setstate__(self, state: tuple[None, dict[str, Any]]) -> None:
        for name, value in state[1].items():
            setattr(self, name, value)
        provide(self.values)  # a worker has registered nothing yet

    def __deepcopy__(self, memo: Any) -> Trace:
        return self


def attach(config: Container, trace: Trace) -> None:
    config._set_flag(_FLAG, [trace])  # type: ignore[list-item]


def trace_of(config: Container) -> Trace | None:
    """That of the configuration `config` is part of; None if it was made without layers."""
    trace: Any = config._get_root()._get_node_flag(_FLAG)
    return trace if isinstance(trace, Trace) else None


def note_run(config: Container, folder: str | None) -> None:
    """Note of which run `config` is the configuration, also for what is made of it."""
    config._set_flag(_RUN, [folder])  # type: ignore[list-item]


def run_of(config: Container) -> str | None:
    """The folder of the run whose configuration `config` was, or was made of."""
    folder: str | None = config._get_root()._get_node_flag(_RUN)  # type: ignore[assignment]
    return folder


def resume_of(given: Any) -> bool | str:
    """What the command line that made a configuration says of `resume`."""
    trace = trace_of(given) if isinstance(given, Container) else None
    return trace.resume if trace is not None else False


def choices_of(config: Container) -> dict[str, str]:
    """Group -> what was chosen, several by commas; of a configuration that was not composed, of the Hydra job."""
    trace = trace_of(config)
    if trace is None or trace.composed is None:
        return hydra.choices()
    return {group: ",".join(names) for group, names in trace.composed.groups.items() if names}
