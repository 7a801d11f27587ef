"""The text of `--help`: each key that can be set, with type, default and help, the groups, and the experiments."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import PurePath
from textwrap import wrap
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ..redact import REDACTED, Redactor
from .fields import Field, declared_type, fields_of, is_structured, required, summary_of
from .files.compose import groups_of
from .layers import MISSING, Branch, Path, dotted
from .origins import tree_of
from .values import word

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


def _keys(config: DictConfig, around: Path) -> list[str]:
    """A paragraph for each mapping."""
    rows: dict[Path, list[str]] = {}
    fields = {field.name: field for field in _fields(config, "")}
    optional: list[tuple[Path, Any]] = []
    for path, value in _values(tree_of(config)):
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


def _title(config: DictConfig, around: Path, path: Path) -> list[str]:
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


def _values(branch: Branch, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every leaf; a mapping without any is one itself."""
    for key, child in branch.children.items():
        if isinstance(child, tuple):
            yield (*path, key), child[-1].value
        elif child.children:
            yield from _values(child, (*path, key))
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
