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
        self._runs: dict[Path, _Run] = {}
        self._devices = _devices()
        self._disk, self._looked = _disk(), time.monotonic()
        psutil.cpu_percent()  # counts from here

    def look(self, folders: Iterable[Path]) -> None:
        """Measure the machine and these runs, if it is time to; what cannot be seen or written is left out."""
        going_on = set(folders)
        for left in self._runs.keys() - going_on:
            os.close(self._runs.pop(left).descriptor)
        now = time.monotonic()
        if not going_on or now < self._due:
            return
        self._due = now + self._every
        common = dict(self._machine(now))
        for folder in going_on:
            with contextlib.suppress(OSError, RunctxError, psutil.Error):
                if folder not in self._runs:
                    self._runs[folder] = _Run(folder)
                self._runs[folder].write(common)

    def _machine(self, now: float) -> Iterator[tuple[str, float]]:
        """Name -> number of what all runs have in common; of what is counted, per second since the last look."""
        yield "system/cpu_percent", psutil.cpu_percent()
        yield "system/memory_percent", psutil.virtual_memory().percent
        before, seconds = self._disk, max(now - self._looked, 1e-3)
        self._disk, self._looked = _disk(), now
        for name, count in self._disk.items():
            yield name, max(0.0, count - before.get(name, 0)) / seconds
        for n, device in enumerate(self._devices):
            yield from _look_at(device, f"system/gpu{n}")


class _Run:
    """The processes of one run, and a journal in its folder."""

    def __init__(self, folder: Path) -> None:
        known = lock.read(folder)
        self._folder, self._began = folder, known.started.timestamp()
        self._process = psutil.Process(known.command.pid)
        self._processes: dict[psutil.Process, psutil.Process] = {}
        """Those of the last look; each counts from there."""
        self._measure()
        host = re.sub(r"[^\w.-]", "_", platform.node())
        metrics = folder / layout.METRICS
        metrics.mkdir(exist_ok=True)
        self.descriptor = journal.open_new(metrics / f"system-{host}-{secrets.token_hex(4)}{journal.SUFFIX}")

    def write(self, common: Mapping[str, float]) -> None:
        """One line; its step is the seconds since the run began, so that another shipper goes on with it."""
        now = time.time()
        point = journal.Point(now, {**common, **self._measure()}, step=round(now - self._began))
        os.write(self.descriptor, msgspec.json.encode(point) + b"\n")

    def _measure(self) -> dict[str, float | str]:
        percent = memory = 0.0
        found = [self._process, *self._process.children(recursive=True)]
        self._processes = {process: self._processes.get(process, process) for process in found}
        for process in self._processes.values():
            with contextlib.suppress(psutil.Error):
                percent += process.cpu_percent()
                memory += process.memory_info().rss
        return {
            "system/disk_percent": psutil.disk_usage(os.fspath(self._folder)).percent,
            "system/process_cpu_percent": percent,
            "system/process_memory_bytes": memory,
        }


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
