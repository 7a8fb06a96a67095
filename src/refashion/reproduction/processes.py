"""Who works in a folder, or has a file open, as Linux tells it."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

PROCESSES = Path("/proc")


def is_used(path: Path) -> bool:
    """Whether a process works in a folder or has a file open; true where that cannot be told.

    That is where there is no ``/proc``, and of what belongs to another user, unless this one is
    root. Another user's processes, and those in containers, are not seen.
    """
    if not PROCESSES.exists():
        return True
    with suppress(FileNotFoundError):
        if os.geteuid() not in (0, path.stat().st_uid):
            return True
    return any(users(path))


def users(path: Path) -> Iterator[str]:
    """Names of the processes that work in a folder, or have a file in it open.

    Of ``python -m dvc`` both names are told.
    """
    path = path.resolve()
    for process in PROCESSES.glob("[0-9]*"):
        with suppress(OSError):  # it has ended, or is somebody else's
            for link in (process / "cwd", *(process / "fd").iterdir()):
                with suppress(OSError):  # it was closed
                    if link.readlink().is_relative_to(path):
                        yield from _names(process)


def _names(process: Path) -> Iterator[str]:
    """Name of a process's program, which may be cut inside a character; of a module it runs too."""
    yield os.fsdecode((process / "comm").read_bytes()).strip()
    words = os.fsdecode((process / "cmdline").read_bytes()).split("\0")
    if "-m" in words:
        yield from words[words.index("-m") + 1 :][:1]
