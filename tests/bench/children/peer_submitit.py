"""Bare submitit: an array of one job for each task."""

import tempfile
import time

import submitit
from serve import serve


def slurm(tasks, seconds):
    executor = submitit.AutoExecutor(folder=tempfile.mkdtemp(dir="."), cluster="slurm")
    executor.update_parameters(timeout_min=10, slurm_array_parallelism=tasks)
    start = time.perf_counter()
    for job in executor.map_array(time.sleep, [seconds] * tasks):
        job.result()
    return time.perf_counter() - start


serve({"slurm": slurm})
