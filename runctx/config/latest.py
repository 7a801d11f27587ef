"""Find past runs for `${latest:STAGE}`. `runctx` sets how: a configuration knows no past runs."""

from collections.abc import Callable
from os import PathLike

find: Callable[[str], PathLike[str]]
"""Gives the folder of the newest run of a stage that is done; raises a `NoRunError` where there is none."""
