"""Where do tasks run? In jobs of a Slurm cluster."""
