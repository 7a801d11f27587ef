"""Why did this result change? One context manager that records code, data, configuration and lineage."""

from typing import TYPE_CHECKING, Any

from .errors import RunctxError
from .model import VERSION as __version__
from .run import Run

if TYPE_CHECKING:
    from .past.index import runs

__all__ = ["Run", "RunctxError", "__version__", "runs"]


def __getattr__(name: str) -> Any:
    # a script that makes a run need not wait for what lists them
    if name == "runs":
        from .past.index import runs

        return runs
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
