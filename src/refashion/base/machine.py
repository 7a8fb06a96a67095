"""The machine that runs: its name, its memory, its processes."""

import os
import platform

HOST = platform.node()

MEMORY = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
"""Bytes."""


def is_running(pid: int) -> bool:
    """Whether there is a process of that number."""
    try:
        os.kill(pid, 0)
    except OSError as error:  # without the permission, there is such a process
        return not isinstance(error, ProcessLookupError)
    return True
