"""Say what to write in place of changing the configuration of a run.

OmegaConf's own error names the key, below frames that are not the user's, and nothing that helps.
"""

from __future__ import annotations

from typing import Any, NoReturn

from omegaconf import ListConfig, Node
from omegaconf.errors import ReadonlyConfigError

from ..errors import ConfigError
from .trace import is_of_a_run

_format_and_raise = Node._format_and_raise


class ReadonlyError(ConfigError, ReadonlyConfigError):
    """The configuration of a run cannot be changed."""

    _initialized = True  # tells OmegaConf that the message is complete


def _raise(self: Any, key: Any, value: Any, cause: Exception, *more: Any, **named: Any) -> NoReturn:
    if type(cause) is not ReadonlyConfigError or not is_of_a_run(self):
        _format_and_raise(self, key, value, cause, *more, **named)
    name = self._get_full_key(key)
    whole = self._get_full_key(None) if isinstance(self, ListConfig) else name
    error = ReadonlyError(
        f"config key {name} cannot be changed: the configuration of a run is read-only",
        hint=f"set it before the run starts: {whole}=... on the command line, "
        f"or Run(merged(cfg, {{{whole!r}: ...}})) with `from runctx.config import merged`",
    )
    error.full_key = name
    raise error from None


Node._format_and_raise = _raise  # type: ignore[method-assign]
