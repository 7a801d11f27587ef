"""What was the configuration told on the command line?"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TypeVar, overload

from omegaconf import DictConfig

from ... import command
from ...errors import ConfigError
from ...redact import Redactor
from .. import reads
from ..files.bases import BASE, shown
from ..files.compose import begin, lay, lay_file, require_choices
from ..files.formats.source import bytes_of
from ..files.inherit import EXPERIMENTS, exists, experiments_in, load_tree
from ..known import tree_of
from ..layers import DELETE, REPLACE, Branch, Layer, dotted, leaves
from ..nearest import nearest
from ..opened import open_config
from ..post_init import settled
from ..resolved import refuse_missing, to_plain, to_yaml
from ..trace import trace_of
from . import overrides
from .overrides import Token
from .usage import groups_text, keys_text

T = TypeVar("T")


class _Option(NamedTuple):
    flags: tuple[str, ...]
    help: str
    arguments: dict[str, Any]

    @property
    def dest(self) -> str:
        """Its name in a Namespace, where users have names of their own."""
        return "runctx_" + self.flags[-1].lstrip("-").replace("-", "_")


def _several(metavar: str) -> dict[str, Any]:
    return {"action": "append", "default": [], "metavar": metavar}


_FLAG: dict[str, Any] = {"action": "store_true", "default": False}
_OPTIONS = (
    _Option(
        ("--config",),
        "read values from this file; may be repeated, the last one wins",
        _several("FILE"),
    ),
    _Option(
        ("--experiment",),
        f"lay an experiment on it: a key below `{EXPERIMENTS}` in that file",
        _several("KEY"),
    ),
    _Option(
        ("--overrides-path",),
        "read overrides from this file: lines KEY=VALUE, or a mapping",
        _several("FILE"),
    ),
    _Option(("--overrides_path",), argparse.SUPPRESS, _several("FILE")),
    _Option(
        ("-o", "--override"),
        "set keys; takes all arguments up to the next option",
        {"action": "extend", "default": [], "nargs": "+", "metavar": "K=V"},
    ),
    _Option(
        ("--resume",),
        "go on with RUN, or with the newest run of this stage and configuration that did not come to its end",
        {"nargs": "?", "const": True, "default": False, "metavar": "RUN"},
    ),
    _Option(("--explain",), "show who set each value, and exit", _FLAG),
    _Option(("--print-config",), "print the resulting values as YAML, and exit", _FLAG),
)
_HELP = _Option(("-h", "--help"), "show this message, and exit", _FLAG)
_HELP_BESIDE_OTHERS = _Option(("--help-config",), "list all keys of the configuration, and exit", _FLAG)


class _Asked(NamedTuple):
    """What a command line asks for."""

    config: list[str]
    experiment: list[str]
    overrides_path: list[str]
    tokens: list[Token]
    resume: bool | str
    explain: bool
    print_config: bool
    help: bool


@overload
def from_cli(
    config: None = None,
    argv: Sequence[str] | argparse.Namespace | None = None,
    /,
    *,
    groups: str | os.PathLike[str],
) -> DictConfig: ...
@overload
def from_cli(
    config: Mapping[Any, Any],
    argv: Sequence[str] | argparse.Namespace | None = None,
    /,
    *,
    groups: str | os.PathLike[str] | None = None,
) -> DictConfig: ...
@overload
def from_cli(
    config: str | os.PathLike[str],
    argv: Sequence[str] | argparse.Namespace | None = None,
    /,
    *,
    groups: str | os.PathLike[str] | None = None,
) -> DictConfig: ...
@overload
def from_cli(
    config: type[T],
    argv: Sequence[str] | argparse.Namespace | None = None,
    /,
    *,
    groups: str | os.PathLike[str] | None = None,
) -> T: ...
@overload
def from_cli(
    config: T,
    argv: Sequence[str] | argparse.Namespace | None = None,
    /,
    *,
    groups: str | os.PathLike[str] | None = None,
) -> T: ...
def from_cli(
    config: Any = None,
    argv: Sequence[str] | argparse.Namespace | None = None,
    /,
    *,
    groups: str | os.PathLike[str] | None = None,
) -> Any:
    """The configuration, with what the command line says of it laid on top; a later layer beats an earlier one.

    The layers: `config` itself, `_base_` files, `--config FILE`, `--experiment KEY`, `--overrides-path FILE`, and
    `a.b=1`, with or without `-o`. `--help`, `--explain` and `--print-config` print and exit; a `Run` with this
    configuration does what `--resume [RUN]` says.

    Parameters
    ----------
    config: a dataclass or an instance of one, a dict, a DictConfig (that of `compose`, whose groups can be chosen
        again: `model=resnet101`), or a configuration file.
    argv: the arguments without the program's name, or what a parser made of them to which `add_arguments` has
        added ours. By default those of this process; none in a notebook, an interactive console and under pytest,
        whose arguments are not meant for us.
    groups: a folder for `compose`, whose groups the command line chooses: `model=resnet50 data=digits`. Without a
        `config` there are no types.

    Raises
    ------
    ConfigError: an unknown key, a value of a wrong type, a broken file: the message names the layer, and the
        position of the argument as in `sys.argv`. Where the arguments are those of the process, the message
        goes to stderr instead, and the process exits with 2.

    >>> from dataclasses import dataclass
    >>> @dataclass
    ... class Config:
    ...     lr: float = 0.1
    ...     epochs: int = 5
    >>> from_cli(Config, ["lr=1e-3"])
    {'lr': 0.001, 'epochs': 5}
    """
    is_ours = argv is None or isinstance(argv, argparse.Namespace)
    try:
        files = [os.fspath(config)] if isinstance(config, (str, os.PathLike)) else []
        lowest = open_config(None if files else config)
        return _from_cli(lowest if groups is None else begin(groups, lowest), argv, files)
    except ConfigError as error:
        if not is_ours or command.is_interactive():
            raise
        _exit(error)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Let a parser of yours know our options and bare `a.b=1` as well: `from_cli(Config, parser.parse_args())`.

    An option string that the parser has already stays its own; where none of an option's is free, ours is
    called `--cfg-...`. Bare overrides stand together, as argparse wants it of arguments without option, or
    anywhere with `parser.parse_intermixed_args()`.

    >>> parser = argparse.ArgumentParser()
    >>> _ = parser.add_argument("--workers", type=int)
    >>> add_arguments(parser)
    >>> from_cli({"lr": 0.1}, parser.parse_args(["--workers", "2", "lr=0.3"]))
    {'lr': 0.3}
    """
    group = parser.add_argument_group("configuration")
    group.add_argument(
        "runctx_bare", nargs="*", default=[], metavar="KEY=VALUE", help="set a key, as -o does"
    )
    for option in (*_OPTIONS, _HELP_BESIDE_OTHERS):
        _add(group, option, taken=parser._option_string_actions)


def _add(parser: argparse._ActionsContainer, option: _Option, taken: Mapping[str, Any]) -> None:
    free = [flag for flag in option.flags if flag not in taken]
    flags = free or [f"--cfg-{option.flags[-1].lstrip('-')}"]
    parser.add_argument(*flags, dest=option.dest, help=option.help, **option.arguments)


# -- reading the arguments -----------------------------------------------------------------------------------------


def _asked(argv: Sequence[str] | argparse.Namespace | None, config: DictConfig) -> _Asked:
    if isinstance(argv, argparse.Namespace):
        if not hasattr(argv, "runctx_bare"):
            raise ConfigError(
                "the parsed arguments have no configuration options",
                hint="call add_arguments(parser) before parsing",
            )
        return _understood(argv, argv.runctx_bare, sys.argv[1:])
    if isinstance(argv, str) or not all(isinstance(argument, str) for argument in argv or ()):
        raise ConfigError(
            "the arguments must be a list of str", hint='from_cli(Config, ["opt.lr=0.3", "epochs=5"])'
        )
    if argv is None:
        arguments = [] if command.is_interactive() or _is_under_pytest() else sys.argv[1:]
    else:
        arguments = list(argv)
    found, rest = _parser().parse_known_args(arguments)
    bare = [argument for argument in rest if argument != "--"]
    for argument in bare:
        if argument.startswith("-"):
            raise _no_option(argument, config)
    return _understood(found, bare, sys.argv[1:] if _is_part(arguments, sys.argv[1:]) else arguments)


def _understood(found: argparse.Namespace, bare: Sequence[str], arguments: Sequence[str]) -> _Asked:
    resume: bool | str = found.runctx_resume
    if isinstance(resume, str) and "=" in resume and not os.path.exists(resume):  # --resume lr=0.3
        bare, resume = [resume, *bare], True
    placed = _placed([*found.runctx_override, *bare], arguments)
    return _Asked(
        config=found.runctx_config,
        experiment=found.runctx_experiment,
        overrides_path=found.runctx_overrides_path,
        tokens=[Token(text, Layer(kind="override", name=f"argument {n}")) for n, text in placed],
        resume=resume,
        explain=found.runctx_explain,
        print_config=found.runctx_print_config,
        help=getattr(found, _HELP.dest, False) or getattr(found, _HELP_BESIDE_OTHERS.dest, False),
    )


def _placed(texts: Sequence[str], arguments: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Each override and its position, in the order of the arguments: argparse tells neither."""
    left = Counter(texts)
    for n, argument in enumerate(arguments, 1):
        for text in (argument, argument[2:], argument.partition("=")[2]):  # -oa=1 and --override=a=1
            if left[text] > 0:
                left[text] -= 1
                yield n, text
                break
    for text in left.elements():
        yield len(arguments) + 1, text


def _is_part(part: Sequence[str], whole: Sequence[str]) -> bool:
    """Whether these are arguments of this process that another parser left over."""
    rest = iter(whole)
    return all(argument in rest for argument in part)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"command line: {message}", hint="--help lists all options")


def _parser() -> argparse.ArgumentParser:
    usage = "%(prog)s [options] [KEY=VALUE ...]"
    parser = _Parser(prog=_program(), usage=usage, add_help=False, allow_abbrev=False)
    for option in (*_OPTIONS, _HELP):
        _add(parser, option, taken={})
    return parser


def _program() -> str:
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    name = getattr(spec, "name", None)
    return (
        f"python -m {name.removesuffix('.__main__')}" if name else os.path.basename(sys.argv[0]) or "python"
    )


def _no_option(argument: str, config: DictConfig) -> ConfigError:
    name, _, value = argument.lstrip("-").partition("=")
    dashed = f"--{name.replace('_', '-')}"
    if any(dashed in option.flags for option in (*_OPTIONS, _HELP)):
        return ConfigError(f"command line: unknown option --{name}", hint=f"write {dashed}")
    key = nearest(name.replace("-", "_"), [dotted(path) for path, _ in leaves(tree_of(config))], 1)
    shown = value if key and value and not Redactor().is_secret(key[0]) else "..."
    hint = f"write keys without dashes: {key[0]}={shown}" if key else "--help lists all options"
    return ConfigError(f"command line: unknown option {argument.partition('=')[0]}", hint=hint)


def _is_under_pytest() -> bool:
    program = Path(sys.argv[0])
    return "pytest" in sys.modules and ("pytest" in program.name or program.parent.name == "pytest")


# -- laying --------------------------------------------------------------------------------------------------------


def _from_cli(
    config: DictConfig, argv: Sequence[str] | argparse.Namespace | None, files: list[str]
) -> DictConfig:
    asked = _asked(argv, config)
    if asked.help:
        for file in files:
            config = lay_file(config, file)
        experiments = {file: experiments_in(file) for file in (*files, *asked.config)}
        whole = not isinstance(argv, argparse.Namespace)
        _print_and_exit(_help(config, experiments, whole=whole))
    config = _with_files(config, [*files, *asked.config], asked.experiment)
    for path in asked.overrides_path:
        config = overrides.choose_by(asked.tokens, config)  # what it may set depends on what is chosen
        config = _with_overrides_file(config, path)
    if asked.tokens or trace_of(config) is None:
        config = overrides.lay(asked.tokens, config)
    require_choices(config)
    config = settled(config)
    if asked.explain:
        from ..origins import explain

        _print_and_exit(f"{explain(config)}\n")
    if asked.print_config:
        _print_and_exit(_yaml(config))
    refuse_missing(config)
    if asked.resume and (trace := trace_of(config)) is not None:
        trace.resume = asked.resume
    reads.watch(config)
    return config


def _with_files(config: DictConfig, files: Sequence[str], keys: Sequence[str]) -> DictConfig:
    """`config` with the configuration files upon it, and on top the experiments of these keys in them."""
    known = tree_of(config).children
    shelves = {file: experiments_in(file) for file in files if keys and EXPERIMENTS not in known}
    prefix = f"{EXPERIMENTS}." if any(shelves.values()) else ""
    if (
        keys and not prefix
    ):  # then any mapping in a file may be one, and what the configuration has no key for is
        said = {file: load_tree(file) for file in files}
        shelves = {file: _mappings(tree, tree.children.keys() - known.keys()) for file, tree in said.items()}
        for tree in said.values():
            config = lay(config, _part(tree, known.keys()))
    else:
        for file in files:
            config = lay_file(config, file)
    for key in keys:
        places = [f"{file}{'.' if '#' in file else '#'}{prefix}{key}" for file in files if shelves.get(file)]
        found = [place for place in places if exists(place)]
        if not found:
            raise _no_experiment(key, files, shelves)
        for place in found:
            config = lay_file(config, place, "experiment")
    return config


def _mappings(branch: Branch, keys: Collection[Any]) -> list[str]:
    children = branch.children.items()
    return [str(key) for key, child in children if key in keys and isinstance(child, Branch)]


def _part(branch: Branch, keys: Collection[Any]) -> Branch:
    part = Branch()
    part.children = {key: child for key, child in branch.children.items() if key in keys}
    return part


def _no_experiment(key: str, files: Collection[str], shelves: Mapping[str, list[str]]) -> ConfigError:
    if not files:
        return ConfigError(f"--experiment {key} needs a file", hint="add --config FILE")
    there = _listed(name for names in shelves.values() for name in names)
    hint = f"known experiments: {there}" if there else f"write them under `{EXPERIMENTS}`"
    return ConfigError(f"--experiment {key}: no such experiment in {', '.join(files)}", hint=hint)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(name for name in names if name not in (BASE, REPLACE, DELETE)))


def _with_overrides_file(config: DictConfig, path: str) -> DictConfig:
    if not path.endswith((".txt", ".overrides")):
        return lay_file(config, path, "overrides file", overrides.refuse_unknown)
    try:
        text = bytes_of(Path(path)).decode()
    except UnicodeDecodeError as error:
        raise ConfigError(f"overrides file {path} is not UTF-8 text: {error}") from error
    return overrides.lay(overrides.tokens_of(text, shown(Path(path).absolute())), config)


# -- telling -------------------------------------------------------------------------------------------------------


def _help(config: DictConfig, experiments: Mapping[str, list[str]], *, whole: bool) -> str:
    """What can be set and chosen; with `whole`, also by which options."""
    parts = [keys_text(config)]
    if groups := groups_text(config):
        parts.append(groups)
    for file, names in experiments.items():
        if listed := _listed(names):
            parts.append(f"experiments of {file}: {listed}")
    if not whole:
        return "\n\n".join(parts) + "\n"
    parser = _parser()
    signs = "KEY=VALUE sets a key, +KEY=VALUE adds one, ~KEY deletes one."
    options = parser.format_help().partition("\n\n")[2]
    return "\n\n".join([parser.format_usage() + signs, *parts, options])


def _print_and_exit(text: str) -> NoReturn:
    try:
        print(text, end="", flush=True)
    except BrokenPipeError:  # whoever reads has seen enough; Python would complain once more at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(0)


def _yaml(config: DictConfig) -> str:
    """The values as they would be used, secrets redacted; `???` for those that are still missing."""
    return to_yaml(Redactor().mapping(to_plain(config))).decode()


def _exit(error: ConfigError) -> NoReturn:
    from ...display import words

    print(f"error: {words.lines(error.message)}", file=sys.stderr)
    if error.hint:
        print(f"hint: {words.lines(error.hint)}", file=sys.stderr)
    sys.exit(2)
