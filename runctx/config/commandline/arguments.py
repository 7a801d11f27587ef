"""What was the configuration told on the command line?"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TypeVar, overload

from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from ...errors import ConfigError
from ...redact import Redactor
from .. import reads
from ..assembled import assemble
from ..files.bases import shown
from ..files.compose import recompose
from ..files.formats.source import bytes_of
from ..files.inherit import load_tree
from ..known import tree_of
from ..layers import Branch, Layer, Leaf, at, dotted, leaves, merge
from ..layers import Path as Keys
from ..nearest import nearest
from ..resolved import open_config, to_plain, to_yaml
from ..trace import Trace, trace_of
from . import literals, overrides
from .overrides import Token
from .usage import keys_text

T = TypeVar("T")

EXPERIMENTS = "experiments"
"""The key of a configuration file under which `--experiment` looks."""


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
    _Option(("--config",), "configuration file, on all its _base_; a later one lies above", _several("FILE")),
    _Option(("--experiment",), f"what is under this key of `{EXPERIMENTS}` in the file", _several("KEY")),
    _Option(("--overrides-path",), "file of key=value lines, or a mapping", _several("FILE")),
    _Option(
        ("-o", "--override"),
        "set keys, up to the next option",
        {"action": "extend", "default": [], "nargs": "+", "metavar": "K=V"},
    ),
    _Option(("--explain",), "say who set each value, and exit", _FLAG),
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
    explain: bool
    print_config: bool
    help: bool


@overload
def from_cli(
    config: Mapping[Any, Any], argv: Sequence[str] | argparse.Namespace | None = None, /
) -> DictConfig: ...
@overload
def from_cli(
    config: str | os.PathLike[str], argv: Sequence[str] | argparse.Namespace | None = None, /
) -> DictConfig: ...
@overload
def from_cli(config: type[T], argv: Sequence[str] | argparse.Namespace | None = None, /) -> T: ...
@overload
def from_cli(config: T, argv: Sequence[str] | argparse.Namespace | None = None, /) -> T: ...
def from_cli(config: Any, argv: Sequence[str] | argparse.Namespace | None = None, /) -> Any:
    """The configuration, with what the command line says of it laid on top; a later layer beats an earlier one.

    The layers: `config` itself, `_base_` files, `--config FILE`, `--experiment KEY`, `--overrides-path FILE`, and
    `a.b=1`, with or without `-o`. `--help`, `--explain` and `--print-config` print and exit.

    Parameters
    ----------
    config: a dataclass or an instance of one, a dict, a DictConfig (that of `compose`, whose groups can be chosen
        again: `model=resnet101`), or a configuration file.
    argv: the arguments without the program's name, or what a parser made of them to which `add_arguments` has
        added ours. By default those of this process; none in a notebook, an interactive console and under pytest,
        whose arguments are not meant for us.

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
        if isinstance(config, (str, os.PathLike)):
            return _from_cli(open_config(None), argv, [os.fspath(config)])
        return _from_cli(open_config(config), argv, [])
    except ConfigError as error:
        if not is_ours or _is_interactive():
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
                "these arguments hold no configuration", hint="call add_arguments(parser) before parsing"
            )
        return _understood(argv, argv.runctx_bare, sys.argv[1:])
    if isinstance(argv, str) or not all(isinstance(argument, str) for argument in argv or ()):
        raise ConfigError(
            "the arguments are no list of texts", hint='from_cli(Config, ["opt.lr=0.3", "epochs=5"])'
        )
    if argv is None:
        arguments = [] if _is_interactive() or _is_under_pytest() else sys.argv[1:]
    else:
        arguments = list(argv)
    found, rest = _parser().parse_known_args(arguments)
    bare = [argument for argument in rest if argument != "--"]
    for argument in bare:
        if argument.startswith("-"):
            raise _no_option(argument, config)
    return _understood(found, bare, sys.argv[1:] if _is_part(arguments, sys.argv[1:]) else arguments)


def _understood(found: argparse.Namespace, bare: Sequence[str], arguments: Sequence[str]) -> _Asked:
    placed = _placed([*found.runctx_override, *bare], arguments)
    return _Asked(
        config=found.runctx_config,
        experiment=found.runctx_experiment,
        overrides_path=found.runctx_overrides_path,
        tokens=[Token(text, Layer(kind="override", name=f"argument {n}")) for n, text in placed],
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
        raise ConfigError(f"command line: {message}", hint="--help lists the options")


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
    key = nearest(name.replace("-", "_"), [dotted(path) for path, _ in leaves(tree_of(config))], 1)
    shown = value if key and value and not Redactor().is_secret(key[0]) else "..."
    hint = f"keys are set without dashes: {key[0]}={shown}" if key else "--help lists the options"
    return ConfigError(f"command line: there is no option {argument.partition('=')[0]}", hint=hint)


def _is_interactive() -> bool:
    """Whether the arguments are those of a kernel or console: a script that is `%run` in one has its own."""
    shell = getattr(sys.modules.get("IPython.core.getipython"), "get_ipython", lambda: None)()
    return shell is not None and not hasattr(sys.modules.get("__main__"), "__file__")


def _is_under_pytest() -> bool:
    program = Path(sys.argv[0])
    return "pytest" in sys.modules and ("pytest" in program.name or program.parent.name == "pytest")


# -- laying --------------------------------------------------------------------------------------------------------


def _from_cli(
    config: DictConfig, argv: Sequence[str] | argparse.Namespace | None, files: list[str]
) -> DictConfig:
    asked = _asked(argv, config)
    if asked.help:
        config = assemble(config, _of_files(files, (), config))
        _print_and_exit(_help(config, whole=not isinstance(argv, argparse.Namespace)))
    config, tokens = _regrouped(config, asked.tokens)
    named = [*files, *asked.config]
    if named or asked.experiment:
        config = assemble(config, _of_files(named, asked.experiment, config))
    for path in asked.overrides_path:
        config = _with_file(config, path)
    if tokens or trace_of(config) is None:
        config = assemble(config, *overrides.given(tokens, config))
    if asked.explain:
        from ..origins import explain

        _print_and_exit(f"{explain(config)}\n")
    if asked.print_config:
        _print_and_exit(_yaml(config))
    reads.watch(config)
    return config


def _regrouped(config: DictConfig, tokens: list[Token]) -> tuple[DictConfig, list[Token]]:
    """A composed configuration with other choices for its groups, and the overrides that are no choices."""
    trace = trace_of(config)
    if trace is None or trace.composed is None:
        return config, tokens
    groups, others = {}, []
    for token in tokens:
        override = overrides.parsed(token)
        if override.sign != "~" and isinstance(override.value, str) and _is_group(override.keys, trace):
            groups[override.key] = literals.read(override.value)
        else:
            others.append(token)
    return (recompose(config, **groups) if groups else config), others


def _is_group(keys: Keys, trace: Trace) -> bool:
    """Whether a group of that name was composed, or could be."""
    made = trace.composed
    if made is None or not all(isinstance(key, str) for key in keys):
        return False
    could_be = at(trace.tree, keys) is None and made.root.joinpath(*keys).is_dir()
    return ".".join(keys) in made.groups or could_be


def _of_files(references: Sequence[str], keys: Sequence[str], config: DictConfig) -> Branch:
    """The configuration files, and on top the experiments of these keys in them."""
    known = tree_of(config).children
    files = {reference: load_tree(reference) for reference in references}
    shelves = {
        reference: file.children.pop(EXPERIMENTS)
        for reference, file in files.items()
        if EXPERIMENTS not in known and isinstance(file.children.get(EXPERIMENTS), Branch)
    }
    if (
        keys and not shelves
    ):  # then any mapping in a file may be one, and what the configuration has no key for is
        shelves = {
            reference: _part(file, file.children.keys() - known.keys()) for reference, file in files.items()
        }
        files = {reference: _part(file, known.keys()) for reference, file in files.items()}
        prefix = ""
    else:
        prefix = f"{EXPERIMENTS}."
    said = Branch()
    for file in files.values():
        said = merge(said, file)
    for key in keys:
        found = [reference for reference, shelf in shelves.items() if _has(shelf, key)]
        if not found:
            raise _no_experiment(key, files, shelves)
        for reference in found:
            selected = f"{reference}{'.' if '#' in reference else '#'}{prefix}{key}"
            said = merge(said, load_tree(selected, "experiment"))
    return said


def _part(branch: Branch, keys: Collection[Any]) -> Branch:
    part = Branch()
    part.children = {key: child for key, child in branch.children.items() if key in keys}
    return part


def _has(shelf: Branch | Leaf | None, key: str) -> bool:
    """Whether there is a mapping at this dotted key."""
    for name in key.split("."):
        children = shelf.children if isinstance(shelf, Branch) else {}
        shelf = next((child for each, child in children.items() if str(each) == name), None)
    return isinstance(shelf, Branch)


def _no_experiment(key: str, files: Collection[str], shelves: Mapping[str, Branch | Leaf]) -> ConfigError:
    if not files:
        return ConfigError(
            f"--experiment {key}: there is no file to look in", hint="give one by --config FILE"
        )
    there = [
        str(name)
        for shelf in shelves.values()
        for name, child in (shelf.children.items() if isinstance(shelf, Branch) else ())
        if isinstance(child, Branch)
    ]
    hint = f"there are {', '.join(dict.fromkeys(there))}" if there else f"write them under `{EXPERIMENTS}`"
    return ConfigError(f"--experiment {key}: there is no such experiment in {', '.join(files)}", hint=hint)


def _with_file(config: DictConfig, path: str) -> DictConfig:
    """`config`, with an overrides file upon it."""
    if path.endswith((".txt", ".overrides")):
        try:
            text = bytes_of(Path(path)).decode()
        except UnicodeDecodeError as error:
            raise ConfigError(f"overrides file {path} is no text in UTF-8: {error}") from error
        name = shown(Path(path).absolute())
        return assemble(config, *overrides.given(overrides.tokens_of(text, name), config))
    branch = load_tree(path, "overrides file")
    overrides.refuse_unknown(branch, config)
    return assemble(config, branch)


# -- telling -------------------------------------------------------------------------------------------------------


def _help(config: DictConfig, *, whole: bool) -> str:
    """What can be set; with `whole`, also by which options."""
    if not whole:
        return keys_text(config) + "\n"
    parser = _parser()
    signs = "KEY=VALUE sets a key, +KEY=VALUE adds one, ~KEY deletes one."
    options = parser.format_help().partition("\n\n")[2]
    return "\n".join([parser.format_usage(), signs, "", keys_text(config), "", options])


def _print_and_exit(text: str) -> NoReturn:
    try:
        print(text, end="", flush=True)
    except BrokenPipeError:  # whoever reads has seen enough; Python would complain once more at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(0)


def _yaml(config: DictConfig) -> str:
    """The values as they would be used, secrets redacted; `???` for those that are still missing."""
    try:
        plain = to_plain(config)
    except OmegaConfBaseException as error:
        raise ConfigError(str(error).split("\n", 1)[0]) from error
    return to_yaml(Redactor().mapping(plain)).decode()


def _exit(error: ConfigError) -> NoReturn:
    from ...display import words

    print(f"error: {words.lines(error.message)}", file=sys.stderr)
    if error.hint:
        print(f"hint: {words.lines(error.hint)}", file=sys.stderr)
    sys.exit(2)
