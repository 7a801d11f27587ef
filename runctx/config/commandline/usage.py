"""What can be set on the command line? The text of `--help`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from textwrap import wrap
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ...redact import REDACTED, Redactor
from ..classes import Field, fields_of, is_structured, summary_of
from ..declared import declared_type, required
from ..files.compose import groups_of
from ..known import tree_of
from ..layers import MISSING, Branch, Path, dotted
from . import literals

_WIDTH = 79
_HELP_AT = 30


def keys_text(config: DictConfig) -> str:
    """Every key with type, default and help, those of one mapping together; at most 80 columns, where words allow."""
    parts = _parts(config, ())
    return "\n\n".join(parts) if parts else "configuration: empty"


def _parts(config: DictConfig, around: Path) -> list[str]:
    groups: dict[Path, list[str]] = {}
    fields = {field.name: field for field in _fields(config, "")}
    optional: list[tuple[Path, Any]] = []
    for path, value in _values(tree_of(config)):
        key = dotted(path)
        field = fields.get(key)
        declared = field.type if field else type(value).__name__
        name, shown = dotted((*around, *path)), _written(key, value)
        left = f"  {name}: {declared} = {shown}" if field or value is not None else f"  {name} = {shown}"
        groups.setdefault(path[:-1], []).extend(_row(left, field.help if field else ""))
        wanted, _ = required(declared_type(config, path))
        if value is None and is_structured(wanted) and len(around) + len(path) < _DEEPEST:
            optional.append((path, wanted))
    parts = []
    for path, rows in groups.items():
        wanted, _ = required(declared_type(config, path))
        summary = summary_of(wanted) if dataclasses.is_dataclass(wanted) and isinstance(wanted, type) else ""
        title = dotted((*around, *path)) or "configuration"
        title += ", made when one of its keys is set" if around and not path else ""
        parts.append("\n".join([*wrap(f"{title}: {summary}" if summary else f"{title}:", _WIDTH), *rows]))
    for path, cls in optional:
        parts += _parts(OmegaConf.structured(cls), (*around, *path))
    return parts


_DEEPEST = 4
"""Keys of one path: a class may hold itself."""


def groups_text(config: DictConfig) -> str:
    """Every group of a composed configuration with its choices, and the one that is chosen."""
    rows = []
    for group, (chosen, choices) in groups_of(config).items():
        picked = "" if not chosen else chosen[0] if len(chosen) == 1 else f"[{','.join(chosen)}]"
        state = " (required)" if picked == MISSING else f" = {picked}" if picked else ""
        rows += _row(f"  {group}{state}", f"one of {', '.join(choices)}")
    return "\n".join(["groups, chosen by GROUP=CHOICE:", *rows]) if rows else ""


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
    """Of all dataclasses in `config`."""
    cls = OmegaConf.get_type(config)
    if isinstance(cls, type) and dataclasses.is_dataclass(cls):
        for field in fields_of(cls):
            yield dataclasses.replace(field, name=prefix + field.name)
        return
    for key, part in (config.__dict__["_content"] or {}).items():
        if isinstance(part, DictConfig) and isinstance(part.__dict__["_content"], dict):
            yield from _fields(part, f"{prefix}{dotted((key,))}.")


def _written(key: str, value: Any) -> str:
    if value not in ("", None) and Redactor().is_secret(key):
        return REDACTED
    if isinstance(value, str) and type(value) is not str:
        return repr(value)  # a derived value, which no text stands for
    try:
        text = literals.written(value)
    except ValueError:
        text = repr(value)
    text = text[1:-1] if text.startswith("'${") else text
    return text if len(text) <= 60 else text[:57] + "..."


def _row(left: str, text: str) -> list[str]:
    """One key and its help: beside it where it is short, else below."""
    lines = wrap(text, _WIDTH - _HELP_AT)
    if not lines:
        return [left]
    first = f"{left:<{_HELP_AT - 2}}  {lines.pop(0)}" if len(left) <= _HELP_AT - 2 else left
    return [first, *(" " * _HELP_AT + line for line in lines)]
