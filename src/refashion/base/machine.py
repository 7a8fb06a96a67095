"""The machine that runs: its name, its memory, its processes."""

import atexit
import gc
import os
import platform
import sys
import time
from contextlib import suppress
from pathlib import Path


def _processes() -> str:
    with suppress(OSError):  # elsewhere than on Linux, the name must do
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{HOST}/{boot}/{Path('/proc/self/ns/pid').readlink()}"
    return HOST


HOST = platform.node()

PROCESSES = _processes()
"""Where a process has its number to itself: this machine since it started, or a container there."""

MEMORY = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
"""Bytes."""


def is_running(pid: int) -> bool:
    """Whether a process of that number is at work."""
    try:
        os.kill(pid, 0)
    except OverflowError:  # no process has such a number
        return False
    except OSError as error:  # without the permission, there is such a process
        return not isinstance(error, ProcessLookupError)
    try:  # one that has ended, and whose end nobody has asked for, is at work no more
        stat = Path(f"/proc/{pid}/stat").read_bytes()  # with its name, cut inside a character
        return stat.rpartition(b")")[2].split()[0] not in b"ZX"
    except OSError:
        return True


def end_with(parent: int) -> None:
    """End this process once its parent has ended; for a thread."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def collect_garbage_seldom() -> None:
    """Run Python's garbage collector seldom in this process, and not once more when it ends.

    What torch and MLflow create when they are imported stays: to search it is a fifth of the time
    that a short stage takes.
    """
    gc.set_threshold(100_000)
    atexit.register(_leave_garbage)


def _leave_garbage() -> None:
    if "triton" not in sys.modules:  # its nanobind would report all that is left as leaked
        gc.freeze()
