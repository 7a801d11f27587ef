"""What does an event file hold? Records of protocol buffers: the only module that imports tensorboard."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2
from tensorboard.plugins.hparams.summary_v2 import hparams_pb
from tensorboard.plugins.text.summary_v2 import text_pb
from tensorboard.summary.writer.record_writer import RecordWriter

from ...notes import NO_NOTES, Notes
from .described import parameters, texts

if TYPE_CHECKING:
    from ...metrics.follower import Number
    from ...model import Lock
    from ...past.row import Shown


def _record(event: Event) -> bytes:
    buffer = io.BytesIO()
    RecordWriter(buffer).write(event.SerializeToString(deterministic=True))
    return buffer.getvalue()


HEAD = _record(Event(file_version="brain.Event:2"))
"""How an event file begins."""


def of_number(number: Number) -> bytes:
    """The record of one number.

    >>> from runctx.metrics.follower import Number
    >>> len(of_number(Number("loss", 0.5, 7, 1_763_726_400_000)))
    42
    """
    value = Summary.Value(tag=number.name, simple_value=number.value)
    return _record(Event(wall_time=number.moment / 1000, step=number.step, summary=Summary(value=[value])))


def of_description(run: Lock, status: Shown, notes: Notes = NO_NOTES) -> bytes:
    """A file with what is to be read of the run, and its parameters for the page HPARAMS."""
    started = run.started.timestamp()
    summaries = [text_pb(tag, text) for tag, text in texts(run, status, notes).items()]
    if chosen := parameters(run.config):
        summaries += [hparams_pb(chosen, trial_id=run.id, start_time_secs=started), _end(run, status)]
    return HEAD + b"".join(_record(Event(wall_time=started, summary=summary)) for summary in summaries)


def _end(run: Lock, status: Shown) -> Summary:
    states = {
        "running": api_pb2.STATUS_RUNNING,
        "submitted": api_pb2.STATUS_RUNNING,
        "done": api_pb2.STATUS_SUCCESS,
    }
    entered = run.resumed or run.started
    told = plugin_data_pb2.SessionEndInfo(
        status=states.get(status, api_pb2.STATUS_FAILURE),
        end_time_secs=entered.timestamp() + (run.seconds or 0),
    )
    data = plugin_data_pb2.HParamsPluginData(session_end_info=told)
    value = Summary.Value(
        tag=metadata.SESSION_END_INFO_TAG,
        metadata=metadata.create_summary_metadata(data),
        tensor=metadata.NULL_TENSOR,
    )
    return Summary(value=[value])


class Steps:
    """Does a metric go back to an earlier step? Of a file of numbers that is told part by part.

    >>> from runctx.metrics.follower import Number
    >>> late, early = (of_number(Number("loss", 0.5, step, 0)) for step in (7, 3))
    >>> steps = Steps()
    >>> steps.follow(late); steps.follow(early)
    >>> steps.go_back, arranged(HEAD + late + early) == HEAD + early + late
    (True, True)
    """

    def __init__(self) -> None:
        self.size = len(HEAD)
        """Bytes that were told, the head included."""
        self.go_back = False
        self._latest: dict[str, int] = {}

    def follow(self, data: bytes) -> None:
        for _, event in _events(data):
            for value in event.summary.value:
                self.go_back |= event.step < self._latest.get(value.tag, event.step)
                self._latest[value.tag] = event.step
        self.size += len(data)


def arranged(data: bytes) -> bytes:
    """A file of numbers in the order of their steps; equal ones stay in theirs."""
    found = sorted(_events(data[len(HEAD) :]), key=lambda one: one[1].step)
    return HEAD + b"".join(record for record, _ in found)


_HEADER, _FOOTER = 12, 4
"""Bytes of a record before and behind its content: its length, and checksums of both."""


def _events(data: bytes) -> Iterator[tuple[bytes, Event]]:
    start = 0
    while start < len(data):
        end = start + _HEADER + int.from_bytes(data[start : start + 8], "little") + _FOOTER
        record = data[start:end]
        yield record, Event.FromString(record[_HEADER:-_FOOTER])
        start = end
