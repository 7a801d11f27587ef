"""`config convert`: configuration files in another format."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click


@click.group("config")
def config() -> None:
    """Work with configuration files."""


@config.command("convert")
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO")
@click.option("--resolve", is_flag=True, help="Replace interpolations by their values.")
@click.option("--force", is_flag=True, help="Replace TO if it exists.")
def convert(source: str, target: str, resolve: bool, force: bool) -> None:
    """Write a configuration in another format, with all it builds upon.

    FROM and TO end in .yaml, .yml, .json, .toml or .py; FROM#KEY takes the mapping under a key. What the files
    that FROM names as _base_ say is in TO; comments are not. A Python configuration is code: reading it executes it.
    """
    from ..config.text import converted

    path = Path(target)
    if os.path.lexists(path) and not force:
        raise _exists(path)
    _write(path, converted(source, path.suffix, resolve=resolve), force)


def _write(path: Path, data: bytes, force: bool) -> None:
    from .. import layout
    from ..errors import ConfigError

    try:
        if not force:
            path.touch(exist_ok=False)  # now the name is ours, whoever else may want it
        try:
            layout.write_atomically(path, data)
        except BaseException:
            if not force:
                path.unlink()
            raise
    except FileExistsError as error:
        raise _exists(path) from error
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror or error}") from error


def _exists(path: Path) -> Exception:
    from ..errors import ConfigError

    return ConfigError(f"{path} exists", hint="use --force to replace it")


COMMANDS: tuple[Any, ...] = (config,)
