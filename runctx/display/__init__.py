"""How is a run shown? In notebooks here, in the terminal by `runctx.display.terminal`."""

from .page import lineage_html, run_html, runs_html

__all__ = ["lineage_html", "run_html", "runs_html"]
