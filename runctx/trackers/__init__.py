"""Show runs elsewhere: views in MLflow, TensorBoard or a tracker of the project's, rebuilt from folders at any time."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..errors import RunctxError, SettingsError
from .tracker import Tracker, View

if TYPE_CHECKING:
    from ..settings import Settings

__all__ = ["OFF", "Tracker", "View", "names_of", "tracker_of"]

OFF = "off"
"""Of the setting `tracking`: none at all."""

_OURS = {"mlflow": "runctx.trackers.mlflow:MLflow", "tensorboard": "runctx.trackers.tensorboard:TensorBoard"}


def names_of(wishes: Settings) -> tuple[str, ...]:
    """The trackers that a project wants, by name.

    >>> from runctx.settings import Settings
    >>> names_of(Settings()), names_of(Settings(tracking=("off",)))
    (('mlflow',), ())
    """
    return tuple(name for name in wishes.tracking if name != OFF)


def tracker_of(name: str, wishes: Settings) -> Tracker:
    """The tracker that is called so: ours, or a class of the project's, as `module:Class`.

    Parameters
    ----------
    wishes: what the class is called with.

    Raises
    ------
    SettingsError: there is none of that name.
    """
    module, _, attribute = _OURS.get(name, name).partition(":")
    try:
        kind: Any = getattr(import_module(module), attribute or "")
        tracker: Tracker = kind(wishes)
    except RunctxError:
        raise
    except Exception as error:  # a class of the project's, and its module, may raise anything
        raise SettingsError(
            f"setting 'tracking': cannot load tracker {name!r}: {type(error).__name__}: {error}",
            hint=f"{', '.join(_OURS)}, off, or a class of your own, as `module:Class`",
        ) from error
    return tracker
