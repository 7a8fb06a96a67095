"""Where the arithmetic runs."""

import ctypes
import os
import platform
from pathlib import Path

import torch

from refashion.base.errors import UserError


def resolve(name: str) -> torch.device:
    """The device that `name` (``auto``, ``cpu`` or ``cuda``) means on this machine.

    Raises
    ------
    UserError
        If ``cuda`` is asked for and there is none.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("device: cuda is not available on this machine; use auto or cpu")
    if name == "cuda":  # cuBLAS reads it at its first call, whichever engine makes that
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    return torch.device(name)


def describe(device: torch.device) -> str:
    """The processor's or GPU's own name."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def keep_freed_memory() -> None:
    """Make glibc keep what tensors give back: fresh pages cost more than the arithmetic on them.

    Without effect where there is no glibc.
    """
    trim_threshold, mmap_threshold = -1, -3  # names of malloc.h
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if platform.libc_ver()[0] else None
    if mallopt:
        mallopt(mmap_threshold, 2**25)
        mallopt(trim_threshold, 2**28)


def software() -> dict[str, object]:
    """Versions and settings that a native training's bits depend on."""
    return {
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
    }
