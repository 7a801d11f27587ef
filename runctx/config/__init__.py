"""Which values did the run use? The only place that imports omegaconf."""

from .resolved import fill_in, from_plain, open_config, save_dir_of, to_class, to_plain, to_yaml

__all__ = ["fill_in", "from_plain", "open_config", "save_dir_of", "to_class", "to_plain", "to_yaml"]
