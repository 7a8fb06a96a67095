"""The device that trains: its name, its memory and the software on it."""

import ctypes
import os
import platform
import re
from pathlib import Path

import torch

from refashion.base.errors import UserError


def resolve(name: str) -> torch.device:
    """The device of a name (``auto``, ``cpu`` or ``cuda``); `UserError` where there is no cuda."""
    available = torch.cuda.is_available()
    if name == "cpu" or (name == "auto" and not available):
        return torch.device("cpu")
    if not available:
        raise UserError("device: cuda is not available on this machine; use auto or cpu")
    # cuBLAS reads it at its first call, whichever engine makes that.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    return torch.device("cuda")


def describe(device: torch.device) -> str:
    """Name of the processor or GPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    name = re.search(r"model name\s*:(.+)", cpuinfo.read_text()) if cpuinfo.exists() else None
    return name[1].strip() if name else platform.processor() or platform.machine()


def keep_freed_memory() -> None:
    """Make glibc, if any, keep freed memory: fresh pages cost more than the arithmetic on them."""
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
