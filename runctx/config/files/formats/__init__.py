"""What does a configuration file say, and how is one written? YAML, JSON, TOML and Python, told apart by suffix.

A new format is one module with the two functions of `document.Format`, and one line here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from ....errors import ConfigError
from .document import Document, Format
from .source import bytes_of

__all__ = ["SUFFIXES", "Document", "encode", "read"]

_MODULES = {".yaml": "yaml", ".yml": "yaml", ".json": "json", ".toml": "toml", ".py": "python"}

SUFFIXES = tuple(_MODULES)
"""The endings of configuration files."""


def read(path: str | os.PathLike[str]) -> Document:
    """The values in a configuration file, as they were written, and the line of each key.

    YAML, JSON and TOML are only parsed: whatever the text is, nothing in it is executed, and time and memory
    are bounded. **A Python configuration is code**: reading it executes it.

    Parameters
    ----------
    path: a file that ends in .yaml, .yml, .json, .toml or .py; at most 5 MB.

    Raises
    ------
    ConfigError: no such file, not readable, broken, or nested more than 100 deep; the message names file and line.

    >>> _ = Path("c.yaml").write_text("lr: 1e-3\\nopt:\\n  name: sgd\\n")
    >>> read("c.yaml").values
    {'lr': 0.001, 'opt': {'name': 'sgd'}}
    >>> read("c.yaml").lines
    {('lr',): 1, ('opt',): 2, ('opt', 'name'): 3}
    """
    path = Path(path)
    parse = _format(path.suffix, str(path)).parse
    return parse(bytes_of(path), path)


def encode(plain: Mapping[Any, Any], suffix: str) -> bytes:
    """The text of a configuration file with these values, which `read` gives back.

    Values stay as they were written: `${lr}` is an interpolation in the file too. What no format has becomes
    what every format has: a path its text, an enum its name, a tuple a list.

    Parameters
    ----------
    plain: nested mappings, lists and scalars.
    suffix: .yaml, .yml, .json, .toml or .py.

    Raises
    ------
    ConfigError: a value or key that the format cannot hold; the message names the key.

    >>> encode({"lr": 0.1, "opt": {"name": "sgd"}}, ".toml").decode().splitlines()
    ['lr = 0.1', '', '[opt]', 'name = "sgd"']
    """
    return _format(suffix, suffix).encode(plain)


def _format(suffix: str, name: str) -> Format:
    module = _MODULES.get(suffix.lower())
    if module is None:
        raise ConfigError(
            f"{name}: not the name of a configuration file", hint=f"it ends in one of {', '.join(SUFFIXES)}"
        )
    return cast(Format, import_module(f".{module}", __package__))
