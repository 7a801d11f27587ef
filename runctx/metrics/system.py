"""Measure the machine and the processes of a run while it goes on, and log that into a journal of the run."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import psutil

from .. import layout, lock
from ..errors import RunctxError
from . import journal


class Watch:
    """Measures the machine now and then, and writes a journal for each run that goes on.

    Parameters
    ----------
    every: seconds between two looks.
    """

    def __init__(self, every: float) -> None:
        self._every, self._due = every, 0.0
        self._machine = Machine()
        self._runs: dict[Path, OfRun] = {}

    def look(self, folders: Iterable[Path]) -> None:
        """Measure the machine and these runs, if it is time to; what cannot be seen or written is left out."""
        going_on = set(folders)
        for left in self._runs.keys() - going_on:
            self._runs.pop(left).close()
        now = time.monotonic()
        if not going_on or now < self._due:
            return
        self._due = now + self._every
        common = dict(self._machine.look())
        for folder in going_on:
            with contextlib.suppress(OSError, RunctxError, psutil.Error):
                if folder not in self._runs:
                    self._runs[folder] = OfRun(folder)
                self._runs[folder].write(common)


class Machine:
    """What all runs have in common."""

    def __init__(self) -> None:
        psutil.cpu_percent()  # counts from here
        self._rates = _Rates(_disk())
        self._devices = _devices()

    def look(self) -> Iterator[tuple[str, float]]:
        """Name -> number; of what is counted, per second since the last look."""
        yield "system/cpu_percent", psutil.cpu_percent()
        yield "system/memory_percent", psutil.virtual_memory().percent
        yield from self._rates.since(_disk()).items()
        for n, device in enumerate(self._devices):
            yield from _look_at(device, f"system/gpu{n}")


class OfRun:
    """The processes of one run, and what else is its own.

    Parameters
    ----------
    folder: the run's; a journal is made in it.
    """

    def __init__(self, folder: Path) -> None:
        known = lock.read(folder)
        self._folder, self._began = folder, known.started.timestamp()
        self._process = psutil.Process(known.command.pid)
        self._rates = _Rates(dict(self._spent()))
        host = re.sub(r"[^\w.-]", "_", platform.node())
        metrics = folder / layout.METRICS
        metrics.mkdir(exist_ok=True)
        self._descriptor = journal.open_new(metrics / f"system-{host}-{secrets.token_hex(4)}{journal.SUFFIX}")

    def close(self) -> None:
        os.close(self._descriptor)

    def write(self, common: Mapping[str, float]) -> None:
        """One line; its step is the seconds since the run began, so that another shipper goes on with it."""
        now = time.time()
        values: dict[str, float | str] = {**common, **dict(self._look())}
        point = journal.Point(now, values, step=round(now - self._began))
        os.write(self._descriptor, msgspec.json.encode(point) + b"\n")

    def _look(self) -> Iterator[tuple[str, float]]:
        yield "system/disk_percent", psutil.disk_usage(os.fspath(self._folder)).percent
        seconds = self._rates.since(dict(self._spent()))
        yield "system/process_cpu_percent", 100 * sum(seconds.values())
        memory = 0
        for process in self._processes():
            with contextlib.suppress(psutil.Error):
                memory += process.memory_info().rss
        yield "system/process_memory_bytes", memory

    def _processes(self) -> list[psutil.Process]:
        return [self._process, *self._process.children(recursive=True)]

    def _spent(self) -> Iterator[tuple[psutil.Process, float]]:
        """Seconds of processor time, of each process."""
        for process in self._processes():
            with contextlib.suppress(psutil.Error):
                spent = process.cpu_times()
                yield process, spent.user + spent.system


class _Rates:
    """How quickly counters grow; one that was not there before counts from 0."""

    def __init__(self, counters: Mapping[Any, float]) -> None:
        self._looked, self._before = time.monotonic(), counters

    def since(self, counters: Mapping[Any, float]) -> dict[Any, float]:
        """Per second since the last call."""
        looked = time.monotonic()
        seconds = max(looked - self._looked, 1e-3)
        grown = {
            name: max(0.0, count - self._before.get(name, 0)) / seconds for name, count in counters.items()
        }
        self._looked, self._before = looked, counters
        return grown


def _disk() -> dict[str, float]:
    with contextlib.suppress(OSError, RuntimeError, ValueError):  # a container may hide them
        counted = psutil.disk_io_counters()
        if counted is not None:
            return {
                "system/disk_read_bytes_per_second": counted.read_bytes,
                "system/disk_write_bytes_per_second": counted.write_bytes,
            }
    return {}


def _devices() -> list[Any]:
    """Accelerators that NVML sees; none without it."""
    try:
        import pynvml

        pynvml.nvmlInit()
        return [pynvml.nvmlDeviceGetHandleByIndex(n) for n in range(pynvml.nvmlDeviceGetCount())]
    except Exception:
        return []  # no driver, an old one, or no library: each says so in another way


def _look_at(device: Any, name: str) -> Iterator[tuple[str, float]]:
    """What the device tells; not every one tells all."""
    import pynvml

    with contextlib.suppress(pynvml.NVMLError):
        yield f"{name}_percent", pynvml.nvmlDeviceGetUtilizationRates(device).gpu
    with contextlib.suppress(pynvml.NVMLError):
        memory = pynvml.nvmlDeviceGetMemoryInfo(device)
        yield f"{name}_memory_percent", 100 * memory.used / memory.total
        yield f"{name}_memory_bytes", memory.used
    with contextlib.suppress(pynvml.NVMLError):
        yield f"{name}_power_watts", pynvml.nvmlDeviceGetPowerUsage(device) / 1000
    with contextlib.suppress(pynvml.NVMLError):
        yield f"{name}_celsius", pynvml.nvmlDeviceGetTemperature(device, pynvml.NVML_TEMPERATURE_GPU)
