"""What did the run say? Its logger (`runlog`), and what the process printed (`capture`; `tee` is its helper)."""

from .capture import Capture
from .runlog import RunLog, marked

__all__ = ["Capture", "RunLog", "marked"]
