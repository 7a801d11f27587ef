"""Where do tasks run? In jobs of a Slurm cluster."""

from .launcher import Slurm

__all__ = ["Slurm"]
