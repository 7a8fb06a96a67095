"""Who works in a folder, or has a file open, as Linux tells it."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

PROCESSES = Path("/proc")


def is_used(path: Path) -> bool:
    """Whether a process works in a folder or has a file open; true where that cannot be told."""
    return not PROCESSES.exists() or any(users(path))


def users(path: Path) -> Iterator[str]:
    """Names of the processes that work in a folder, or have a file in it open."""
    path = path.resolve()
    for process in PROCESSES.glob("[0-9]*"):
        with suppress(OSError):  # it has ended, or is somebody else's
            for link in (process / "cwd", *(process / "fd").iterdir()):
                with suppress(OSError):  # it was closed
                    if link.readlink().is_relative_to(path):
                        yield (process / "comm").read_text().strip()
