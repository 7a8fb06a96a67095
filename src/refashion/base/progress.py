"""Progress of long work, shown once."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress(title: str, total: float | None, unit: str) -> Iterator[Callable[..., None]]:
    """Stand-in until the real one is merged."""
    yield lambda amount, note="": None
