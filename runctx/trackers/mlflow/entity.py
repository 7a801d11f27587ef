"""Read and change one run in MLflow, within the limits of what MLflow takes at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ...errors import TrackingError
from .database import Database
from .description import BEGUN_BY

_METRICS, _OTHERS = 1000, 100
"""What MLflow takes at once: metrics; parameters and tags."""
_CHARACTERS = 150_000
"""Of what is sent at once: a server takes a million bytes, and a character can be six."""


def find(database: Database, ref: str) -> Any:
    """MLflow's entity; None if there is none.

    Raises
    ------
    TrackingError: it cannot be asked.
    """
    client = database.client
    from mlflow.exceptions import MlflowException

    with database.asked():
        try:
            return client.get_run(ref)
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None
            raise


class Entity:
    """One run in MLflow; every method raises TrackingError where MLflow does not do it.

    Parameters
    ----------
    found: as MLflow's client gives it.
    """

    def __init__(self, database: Database, found: Any) -> None:
        self.database = database
        self.ref: str = found.info.run_id
        self._found: Any = found

    @property
    def now(self) -> Any:
        """As it is now; asked for again when it was changed."""
        if self._found is None:
            self._found = find(self.database, self.ref)
            if self._found is None:
                raise TrackingError(
                    f"MLflow at {self.database.destination}: run {self.ref} was removed in the meantime",
                    hint="publish it again to make a new one",
                )
        return self._found

    def changed(self) -> None:
        self._found = None

    def add(self, metrics: Sequence[Any]) -> None:
        """Add MLflow's metrics."""
        longest = max((len(metric.key) for metric in metrics), default=0)
        most = min(_METRICS, _CHARACTERS // (longest + 25))
        for start in range(0, len(metrics), most):
            with self.database.asked(write=True):
                self.database.client.log_batch(self.ref, metrics[start : start + most])

    def set(self, params: Mapping[str, str] | None = None, tags: Mapping[str, str] | None = None) -> None:
        """Set parameters that are not there, and the tags that differ."""
        from mlflow.entities import Param, RunTag

        there = self.now.data.tags
        new = [Param(key, value) for key, value in (params or {}).items()]
        other = [RunTag(key, value) for key, value in (tags or {}).items() if there.get(key) != value]
        for batch in _batches([*new, *other]):
            kinds = {
                "params": [one for one in batch if isinstance(one, Param)],
                "tags": [one for one in batch if isinstance(one, RunTag)],
            }
            with self.database.asked(write=True):
                self.database.client.log_batch(self.ref, **kinds)

    def delete_tags(self, tags: Sequence[str]) -> None:
        for key in tags:
            with self.database.asked(write=True):
                self.database.client.delete_tag(self.ref, key)

    def set_status(self, status: str, end: int | None = None, name: str | None = None) -> None:
        """Milliseconds since 1970; None leaves what is there."""
        with self.database.asked(write=True):
            if end is not None:
                self.database.client.set_terminated(self.ref, status, end)
            self.database.client.update_run(self.ref, status, name)

    def begun_runs(self) -> list[str]:
        """Runs that were begun by logging functions which were called for this one."""
        experiment = self.now.info.experiment_id
        with self.database.asked():
            found = self.database.client.search_runs([experiment], f"tags.`{BEGUN_BY}` = '{self.ref}'")
        return [one.info.run_id for one in found]

    def delete_runs(self, refs: Sequence[str]) -> None:
        """Delete other runs, as far as they are there."""
        for ref in refs:
            found = find(self.database, ref)
            if found is not None and found.info.lifecycle_stage == "active":
                with self.database.asked(write=True):
                    self.database.client.delete_run(ref)


def _batches(entities: Sequence[Any]) -> Iterator[list[Any]]:
    batch: list[Any] = []
    size = 0
    for one in entities:
        length = len(one.key) + len(one.value)
        if len(batch) == _OTHERS or (batch and size + length > _CHARACTERS):
            yield batch
            batch, size = [], 0
        batch.append(one)
        size += length
    if batch:
        yield batch
