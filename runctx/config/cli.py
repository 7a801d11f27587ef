"""Lay what the command line says upon a configuration: `from_cli` and its options."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path, PurePath
from textwrap import wrap
from typing import Any, NamedTuple, NoReturn, TypeVar, overload

from omegaconf import DictConfig, OmegaConf

from ..capture import program
from ..errors import ConfigError
from ..redact import REDACTED, Redactor
from . import overrides, reads
from .compose import begin, groups_of, lay, lay_file, require_choices
from .containers import settled
from .fields import Field, declared_type, fields_of, is_structured, required, summary_of
from .formats import BASE, read_bytes
from .inherit import EXPERIMENTS, exists, experiments_in, load_tree, shown
from .layers import DELETE, MISSING, REPLACE, Branch, Layer, dotted, leaves
from .layers import Path as Keys
from .messages import nearest
from .origins import trace_of, tree_of
from .overrides import Token
from .resolve import open_config, refuse_missing, to_plain, to_yaml
from .values import word

T = TypeVar("T")


class _Option(NamedTuple):
    flags: tuple[str, ...]
    help: str
    arguments: dict[str, Any]

    def add_to(self, parser: argparse._ActionsContainer, taken: Mapping[str, Any]) -> None:
        """Add it by its free flags, or as `--cfg-...`; its value is `runctx_...`, as users have names of their own."""
        name = self.flags[-1].lstrip("-")
        flags = [flag for flag in self.flags if flag not in taken] or [f"--cfg-{name}"]
        parser.add_argument(*flags, dest=f"runctx_{name.replace('-', '_')}", help=self.help, **self.arguments)


def _several(metavar: str) -> dict[str, Any]:
    return {"action": "append", "default": [], "metavar": metavar}


_FLAG: dict[str, Any] = {"action": "store_true", "default": False}
_OPTIONS = (
    _Option(
        ("--config",), "read values from this file; may be repeated, the last one wins", _several("FILE")
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


Argv = Sequence[str] | argparse.Namespace | None
Folder = str | os.PathLike[str]


@overload
def from_cli(
    config: Mapping[Any, Any] | Folder | None = None, argv: Argv = None, /, *, groups: Folder | None = None
) -> DictConfig: ...
@overload
def from_cli(config: type[T], argv: Argv = None, /, *, groups: Folder | None = None) -> T: ...
@overload
def from_cli(config: T, argv: Argv = None, /, *, groups: Folder | None = None) -> T: ...
def from_cli(config: Any = None, argv: Argv = None, /, *, groups: Folder | None = None) -> Any:
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
        if not is_ours or program.is_interactive():
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
        option.add_to(group, taken=parser._option_string_actions)


# -- reading the arguments -----------------------------------------------------------------------------------------


class _Arguments(NamedTuple):
    options: argparse.Namespace
    overrides: list[Token]
    resume: bool | str


def _arguments(argv: Argv, config: DictConfig) -> _Arguments:
    if isinstance(argv, argparse.Namespace):
        if not hasattr(argv, "runctx_bare"):
            raise ConfigError(
                "the parsed arguments have no configuration options",
                hint="call add_arguments(parser) before parsing",
            )
        return _with_positions(argv, argv.runctx_bare, sys.argv[1:])
    if isinstance(argv, str) or not all(isinstance(argument, str) for argument in argv or ()):
        raise ConfigError(
            "the arguments must be a list of str", hint='from_cli(Config, ["opt.lr=0.3", "epochs=5"])'
        )
    if argv is None:
        argv = [] if program.is_interactive() or _is_under_pytest() else sys.argv[1:]
    options, rest = _parser().parse_known_args(argv)
    bare = [argument for argument in rest if argument != "--"]
    for argument in bare:
        if argument.startswith("-"):
            raise _unknown_option(argument, config)
    process = iter(sys.argv[1:])
    is_left_over = all(argument in process for argument in argv)  # by another parser, in the same order
    return _with_positions(options, bare, sys.argv[1:] if is_left_over else argv)


def _with_positions(options: argparse.Namespace, bare: Sequence[str], arguments: Sequence[str]) -> _Arguments:
    resume: bool | str = options.runctx_resume
    if isinstance(resume, str) and "=" in resume and not os.path.exists(resume):  # --resume lr=0.3
        bare, resume = [resume, *bare], True
    positions = _positions([*options.runctx_override, *bare], arguments)
    tokens = [Token(text, Layer(kind="override", name=f"argument {n}")) for n, text in positions]
    return _Arguments(options, tokens, resume)


def _positions(texts: Sequence[str], arguments: Sequence[str]) -> Iterator[tuple[int, str]]:
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


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"command line: {message}", hint="--help lists all options")


def _parser() -> argparse.ArgumentParser:
    name = getattr(getattr(sys.modules.get("__main__"), "__spec__", None), "name", None)
    program = f"python -m {name.removesuffix('.__main__')}" if name else os.path.basename(sys.argv[0])
    usage = "%(prog)s [options] [KEY=VALUE ...]"
    parser = _Parser(prog=program or "python", usage=usage, add_help=False, allow_abbrev=False)
    for option in (*_OPTIONS, _HELP):
        option.add_to(parser, taken={})
    return parser


def _unknown_option(argument: str, config: DictConfig) -> ConfigError:
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


def _from_cli(config: DictConfig, argv: Argv, files: list[str]) -> DictConfig:
    asked = _arguments(argv, config)
    options = asked.options
    if any(getattr(options, name, False) for name in ("runctx_help", "runctx_help_config")):
        for file in files:
            config = lay_file(config, file)
        experiments = {file: _choosable(experiments_in(file)) for file in (*files, *options.runctx_config)}
        parser = None if isinstance(argv, argparse.Namespace) else _parser()
        _print_and_exit(help_text(config, experiments, parser))
    config = _with_files(config, [*files, *options.runctx_config], options.runctx_experiment)
    for path in options.runctx_overrides_path:
        config = overrides.choose_by(asked.overrides, config)  # what it may set depends on what is chosen
        config = _with_overrides_file(config, path)
    if asked.overrides or trace_of(config) is None:
        config = overrides.lay(asked.overrides, config)
    require_choices(config)
    config = settled(config)
    if options.runctx_explain:
        from .text import explain

        _print_and_exit(f"{explain(config)}\n")
    if options.runctx_print_config:
        _print_and_exit(to_yaml(Redactor().mapping(to_plain(config))).decode())
    refuse_missing(config)
    if asked.resume and (trace := trace_of(config)) is not None:
        trace.resume = asked.resume
    reads.watch(config)
    return config


def _with_files(config: DictConfig, files: Sequence[str], keys: Sequence[str]) -> DictConfig:
    """`config` with the configuration files upon it, and on top the experiments of these keys in them."""
    known = tree_of(config).children.keys()
    shelves = {file: experiments_in(file) for file in files if keys and EXPERIMENTS not in known}
    prefix = f"{EXPERIMENTS}." if any(shelves.values()) else ""
    if keys and not prefix:  # any mapping in a file that the configuration has no key for is an experiment
        for file in files:
            whole, part = load_tree(file), Branch()
            part.children = {key: child for key, child in whole.children.items() if key in known}
            others = (key for key, child in whole.children.items() if isinstance(child, Branch))
            shelves[file] = [str(key) for key in others if key not in known]
            config = lay(config, part)
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


def _no_experiment(key: str, files: Collection[str], shelves: Mapping[str, list[str]]) -> ConfigError:
    if not files:
        return ConfigError(f"--experiment {key} needs a file", hint="add --config FILE")
    there = _choosable(name for names in shelves.values() for name in names)
    hint = f"known experiments: {there}" if there else f"write them under `{EXPERIMENTS}`"
    return ConfigError(f"--experiment {key}: no such experiment in {', '.join(files)}", hint=hint)


def _choosable(experiments: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(name for name in experiments if name not in (BASE, REPLACE, DELETE)))


def _with_overrides_file(config: DictConfig, path: str) -> DictConfig:
    if not path.endswith((".txt", ".overrides")):
        return lay_file(config, path, "overrides file", overrides.refuse_unknown)
    try:
        text = read_bytes(Path(path)).decode()
    except UnicodeDecodeError as error:
        raise ConfigError(f"overrides file {path} is not UTF-8 text: {error}") from error
    return overrides.lay(overrides.tokens_of(text, shown(Path(path).absolute())), config)


# -- help ---------------------------------------------------------------------------------------------------------

_WIDTH = 79
_HELP_AT = 30
_DEEPEST = 4
"""Keys of one path: a class may hold itself."""


def help_text(
    config: DictConfig, experiments: Mapping[str, str], parser: argparse.ArgumentParser | None
) -> str:
    """All that can be set and chosen, at most 80 columns wide where words allow.

    Parameters
    ----------
    experiments: file -> the names of those in it.
    parser: of the options; None leaves them out.
    """
    parts = _keys(config, ()) or ["configuration: empty"]
    parts += _groups(config)
    parts += [f"experiments of {file}: {names}" for file, names in experiments.items() if names]
    if parser is None:
        return "\n\n".join(parts) + "\n"
    signs = "KEY=VALUE sets a key, +KEY=VALUE adds one, ~KEY deletes one."
    options = parser.format_help().partition("\n\n")[2]
    return "\n\n".join([parser.format_usage() + signs, *parts, options])


def _keys(config: DictConfig, around: Keys) -> list[str]:
    """A paragraph for each mapping."""
    rows: dict[Keys, list[str]] = {}
    fields = {field.name: field for field in _fields(config, "")}
    optional: list[tuple[Keys, Any]] = []
    for path, value in _shown_leaves(tree_of(config)):
        key = dotted(path)
        field = fields.get(key)
        of_type = f": {field.type}" if field else "" if value is None else f": {type(value).__name__}"
        left = f"  {dotted((*around, *path))}{of_type} = {_shown(key, value)}"
        rows.setdefault(path[:-1], []).extend(_row(left, field.help if field else ""))
        wanted, _ = required(declared_type(config, path))
        if value is None and is_structured(wanted) and len(around) + len(path) < _DEEPEST:
            optional.append((path, wanted))
    parts = ["\n".join([*_title(config, around, path), *lines]) for path, lines in rows.items()]
    for path, cls in optional:
        parts += _keys(OmegaConf.structured(cls), (*around, *path))
    return parts


def _title(config: DictConfig, around: Keys, path: Keys) -> list[str]:
    wanted, _ = required(declared_type(config, path))
    summary = summary_of(wanted) if dataclasses.is_dataclass(wanted) and isinstance(wanted, type) else ""
    title = dotted((*around, *path)) or "configuration"
    title += ", made when one of its keys is set" if around and not path else ""
    return wrap(f"{title}: {summary}".rstrip(), _WIDTH)


def _groups(config: DictConfig) -> list[str]:
    """A paragraph with every group of a composed configuration, its choices, and the one that is chosen."""
    rows = []
    for group, (chosen, choices) in groups_of(config).items():
        picked = "" if not chosen else chosen[0] if len(chosen) == 1 else f"[{','.join(chosen)}]"
        state = " (required)" if picked == MISSING else f" = {picked}" if picked else ""
        rows += _row(f"  {group}{state}", f"one of {', '.join(choices)}")
    return ["\n".join(["groups, chosen by GROUP=CHOICE:", *rows])] if rows else []


def _shown_leaves(branch: Branch, path: Keys = ()) -> Iterator[tuple[Keys, Any]]:
    """Every leaf; a mapping without any is one itself."""
    for key, child in branch.children.items():
        if isinstance(child, tuple):
            yield (*path, key), child[-1].value
        elif child.children:
            yield from _shown_leaves(child, (*path, key))
        else:
            yield (*path, key), {}


def _fields(config: DictConfig, prefix: str) -> Iterator[Field]:
    """The fields of all dataclasses in `config`."""
    cls = OmegaConf.get_type(config)
    if isinstance(cls, type) and dataclasses.is_dataclass(cls):
        for field in fields_of(cls):
            yield dataclasses.replace(field, name=prefix + field.name)
        return
    for key, part in (config.__dict__["_content"] or {}).items():
        if isinstance(part, DictConfig) and isinstance(part.__dict__["_content"], dict):
            yield from _fields(part, f"{prefix}{dotted((key,))}.")


def _shown(key: str, value: Any) -> str:
    if value not in ("", None) and Redactor().is_secret(key):
        return REDACTED
    if isinstance(value, str) and type(value) is not str:
        return repr(value)  # a derived value
    if isinstance(value, (str, PurePath)):
        text = str(value)
        is_plain = text.isprintable() and text[:1] not in "[{'\"" and word(text).value == text
        text = text if is_plain else repr(text)
    else:
        text = value.name if isinstance(value, Enum) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def _row(left: str, text: str) -> list[str]:
    """One key and its help: beside it where it is short, else below."""
    lines = wrap(text, _WIDTH - _HELP_AT)
    if not lines:
        return [left]
    first = f"{left:<{_HELP_AT - 2}}  {lines.pop(0)}" if len(left) <= _HELP_AT - 2 else left
    return [first, *(" " * _HELP_AT + line for line in lines)]


# -- printing ------------------------------------------------------------------------------------------------------


def _print_and_exit(text: str) -> NoReturn:
    try:
        print(text, end="", flush=True)
    except BrokenPipeError:  # whoever reads has seen enough; Python would complain once more at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(0)


def _exit(error: ConfigError) -> NoReturn:
    from ..display import words

    print(f"error: {words.lines(error.message)}", file=sys.stderr)
    if error.hint:
        print(f"hint: {words.lines(error.hint)}", file=sys.stderr)
    sys.exit(2)
