"""A script with one empty run of runctx."""

from settings20 import SETTINGS

from runctx import Run

with Run(SETTINGS) as run:
    pass
