"""The machine that runs: its name, its memory, its processes."""

import os
import platform
from pathlib import Path

HOST = platform.node()

MEMORY = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
"""Bytes."""


def is_running(pid: int) -> bool:
    """Whether a process of that number is at work."""
    try:
        os.kill(pid, 0)
    except OSError as error:  # without the permission, there is such a process
        return not isinstance(error, ProcessLookupError)
    try:  # one that has ended, and whose end nobody has asked for, is at work no more
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return True
