"""Describe where a run runs: interpreter, machine, accelerators, packages, and the variables that change results."""

from __future__ import annotations

import fnmatch
import functools
import os
import platform
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from .. import model
from ..redact import Redactor
from . import modules

VARIABLES = frozenset(
    (  # noqa: SIM905 - a list of sixty quoted names is harder to read
        # which devices, and how they compute
        "CUDA_VISIBLE_DEVICES CUDA_DEVICE_ORDER CUDA_LAUNCH_BLOCKING CUBLAS_WORKSPACE_CONFIG "
        "NVIDIA_VISIBLE_DEVICES NVIDIA_TF32_OVERRIDE TORCH_ALLOW_TF32_CUBLAS_OVERRIDE "
        "PYTORCH_CUDA_ALLOC_CONF NCCL_ALGO NCCL_PROTO "
        "HIP_VISIBLE_DEVICES ROCR_VISIBLE_DEVICES ZE_AFFINITY_MASK "
        # threads and instruction sets: the order of a sum
        "OMP_NUM_THREADS OMP_DYNAMIC OMP_PROC_BIND OMP_PLACES KMP_AFFINITY KMP_DETERMINISTIC_REDUCTION "
        "MKL_NUM_THREADS MKL_DYNAMIC MKL_CBWR OPENBLAS_NUM_THREADS OPENBLAS_CORETYPE BLIS_NUM_THREADS "
        "VECLIB_MAXIMUM_THREADS NUMEXPR_NUM_THREADS NUMEXPR_MAX_THREADS NUMBA_NUM_THREADS RAYON_NUM_THREADS "
        # switches of the frameworks
        "TF_DETERMINISTIC_OPS TF_CUDNN_DETERMINISTIC TF_ENABLE_ONEDNN_OPTS TF_XLA_FLAGS XLA_FLAGS "
        "JAX_ENABLE_X64 JAX_PLATFORMS JAX_DEFAULT_MATMUL_PRECISION FLAGS_cudnn_deterministic "
        "TORCHDYNAMO_DISABLE "
        # Python, and how text, numbers and times read
        "PYTHONHASHSEED PYTHONOPTIMIZE PYTHONUTF8 LANG LC_ALL LC_NUMERIC TZ "
        # the place in a cluster or a group of processes
        "RANK LOCAL_RANK WORLD_SIZE SLURM_JOB_ID SLURM_ARRAY_JOB_ID SLURM_ARRAY_TASK_ID SLURM_JOB_PARTITION "
        "SLURM_JOB_NODELIST SLURM_JOB_NUM_NODES SLURM_NTASKS SLURM_PROCID SLURM_CPUS_PER_TASK "
        "SLURM_GPUS_ON_NODE"
    ).split()
)
"""Environment variables that are recorded when they are set: those known to change results, and no others."""

MAX_VALUE = 4_000
"""Characters of a variable's value that are kept."""

UNKNOWN = "unknown"
"""What stands where the machine does not tell."""

T = TypeVar("T")


def environment(variables: Sequence[str] = (), redactor: Redactor | None = None) -> model.Environment:
    """What is known about this process and its machine, now; equal environments give equal values.

    Nothing is imported or initialised to find out: accelerators are named by the kernel's driver files, or by
    torch when the program has initialised CUDA itself. Never raises: what the machine does not tell reads
    `unknown`, or 0.

    Parameters
    ----------
    variables: globs of further environment variables to record; one whose name looks like a secret never is.
    redactor: decides what looks like a secret.

    >>> environment().python.split()[1]
    'CPython'
    """
    machine, quota = _machine(os.getpid())
    chosen: dict[str, str] = _or(lambda: _variables(tuple(variables), redactor or Redactor()), {})
    return replace(
        machine,
        cpus=_or(lambda: min(_allowed_cpus(), quota), 1),
        devices=_or(_torch_devices, ()) or machine.devices,
        packages=_or(modules.packages, {}),
        variables=chosen,
    )


@functools.lru_cache(maxsize=1)
def _machine(pid: int) -> tuple[model.Environment, int]:
    """What does not change while a process lives, and the quota of processors.

    Found out once per process; a forked child, which may sit in another control group, asks again.
    """
    machine = model.Environment(
        python=f"{platform.python_version()} {platform.python_implementation()}",
        platform=_or(platform.platform, sys.platform),
        cpu=_or(_cpu, UNKNOWN),
        cpus=1,
        memory=_or(lambda: os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), 0),
        devices=_or(_driver_devices, ()),
    )
    return machine, _or(_cpu_quota, sys.maxsize)


def _or(ask: Callable[[], T], default: T) -> T:
    try:
        return ask()
    except Exception:  # a machine that cannot be asked must not stop the run
        return default


def _cpu(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's name; the first page of cpuinfo, since writing all of it takes long on many cores."""
    if sys.platform == "darwin":
        import subprocess

        ask = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(ask, capture_output=True, text=True, timeout=2, check=True).stdout.strip()
    if cpuinfo.exists():
        with cpuinfo.open("rb", buffering=0) as file:
            head = file.read(4096).decode("utf-8", "replace")
        # ARM cores have no name there, but boards do
        for key in ("model name", "Model", "cpu"):
            if match := re.search(rf"^{key}\s*:\s*(\S.*)$", head, re.MULTILINE):
                return " ".join(match[1].split())
    return platform.machine() or UNKNOWN


def _allowed_cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu_quota(proc: Path = Path("/proc/self/cgroup"), mount: Path = Path("/sys/fs/cgroup")) -> int:
    """Processors' worth of time that the control groups grant, rounded up; no quota reads as very many.

    Both versions of the interface (kernel documentation, cgroup-v2 and sched-bwc). A quota may stand at any
    level of the hierarchy, and the tightest one holds. In a container the path can be the host's, which is
    not visible, while the mount's root is the container's own group.
    """
    quota = float("inf")
    for line in proc.read_text("utf-8", "replace").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            base = mount
        elif "cpu" in controllers.split(","):
            base = next((b for b in (mount / "cpu", mount / controllers) if b.is_dir()), mount)
        else:
            continue
        group = base / path.lstrip("/")
        for folder in (group, *group.parents):
            quota = min(quota, _granted(folder))
            if folder == base:
                break
    return sys.maxsize if quota == float("inf") else max(1, -int(-quota // 1))


def _granted(folder: Path) -> float:
    try:
        if (folder / "cpu.max").is_file():
            quota, period = (folder / "cpu.max").read_text("ascii").split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text("ascii")
            period = (folder / "cpu.cfs_period_us").read_text("ascii")
        return float("inf") if quota == "max" or int(quota) <= 0 else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return float("inf")


def _torch_devices() -> tuple[str, ...]:
    """The accelerators torch uses, if the program has initialised them; asking would initialise them else."""
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    if cuda is None or not cuda.is_initialized():
        return ()
    return tuple(str(cuda.get_device_name(i)) for i in range(cuda.device_count()))


def _driver_devices(proc: Path = Path("/proc"), system: Path = Path("/sys")) -> tuple[str, ...]:
    """The accelerators of the machine as the drivers of NVIDIA and AMD list them."""
    names = []
    for file in sorted(proc.glob("driver/nvidia/gpus/*/information")):
        if match := re.search(r"^Model:\s*(\S.*)$", file.read_text("utf-8", "replace"), re.MULTILINE):
            names.append(match[1].strip())
    for file in sorted(system.glob("class/kfd/kfd/topology/nodes/*/gpu_id")):
        if file.read_text("ascii").strip() not in ("", "0"):  # 0 is a processor's node
            names.append((file.parent / "name").read_text("utf-8", "replace").strip() or "AMD")
    return tuple(names)


def _variables(globs: tuple[str, ...], redactor: Redactor) -> dict[str, str]:
    wanted = _wanted(globs)
    chosen = sorted(name for name in os.environ if name in VARIABLES or (globs and wanted(name)))
    return {
        name: redactor.text(_printable(os.environ.get(name, "")))
        for name in chosen
        if not redactor.is_secret(name)
    }


@functools.lru_cache(maxsize=16)
def _wanted(globs: tuple[str, ...]) -> Callable[[str], object]:
    return re.compile("|".join(map(fnmatch.translate, globs))).match


def _printable(value: str) -> str:
    """Text that can be written as UTF-8, whatever bytes the variable holds."""
    if len(value) > MAX_VALUE:
        value = f"{value[:MAX_VALUE]}... ({len(value)} characters)"
    return value.encode("utf-8", "backslashreplace").decode("utf-8")
