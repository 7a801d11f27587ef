"""Errors say what happened and what to do, wherever they travel."""

from __future__ import annotations

import copy
import pickle

import pytest

from runctx import errors
from runctx.errors import RunctxError

BUILTIN_BASES = {
    errors.ConfigError: ValueError,
    errors.DeletedError: errors.TrackingError,
    errors.InputError: FileNotFoundError,
    errors.LaunchError: RuntimeError,
    errors.LedgerError: OSError,
    errors.LockError: ValueError,
    errors.NotesError: ValueError,
    errors.NoRunError: FileNotFoundError,
    errors.QueryError: ValueError,
    errors.RemoteError: RuntimeError,
    errors.ResultError: ValueError,
    errors.RunStateError: RuntimeError,
    errors.SaveDirError: OSError,
    errors.SettingsError: ValueError,
    errors.TaskError: RuntimeError,
    errors.TrackingError: RuntimeError,
    errors.WorkerDiedError: RuntimeError,
}
ALL = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, RunctxError)]


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("hint", [None, "do this"])
def test_errors_travel_whole(kind: type[RunctxError], hint: str | None) -> None:
    """Pickled or copied, an error keeps its type, message, hint and notes."""
    error = kind("what\nand where", hint)
    error.add_note("seen on the way")
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(again) is kind
        assert (again.message, again.hint, again.__notes__) == ("what\nand where", hint, ["seen on the way"])
        assert str(again) == str(error)


@pytest.mark.parametrize(("kind", "base"), BUILTIN_BASES.items())
def test_errors_are_caught_by_their_builtin_base(kind: type[RunctxError], base: type[Exception]) -> None:
    """Code that does not know runctx catches them as it would Python's own; no OSError has an odd errno."""
    with pytest.raises(base) as caught:
        raise kind("what", hint="do this")
    assert getattr(caught.value, "errno", None) is None


def test_every_error_has_a_base_of_its_own_and_stands_in_the_drawing() -> None:
    """The tree at the top of the module is complete: each class with its builtin base."""
    assert set(BUILTIN_BASES) == set(ALL) - {RunctxError}
    assert errors.__doc__ is not None
    for kind, base in BUILTIN_BASES.items():
        [line] = [line for line in errors.__doc__.splitlines() if f"── {kind.__name__} " in line]
        assert f"{base.__name__})" in line


def test_the_hint_stands_on_the_last_line() -> None:
    """A reader finds what to do on a line of its own; without a hint there is no such line."""
    assert str(RunctxError("what", hint="do this")) == "what\nhint: do this"
    assert str(RunctxError("what")) == "what"
