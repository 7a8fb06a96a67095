"""Progress: a bar on a terminal, nothing in a log."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Advance(Protocol):
    """Tells that more is done."""

    def __call__(self, amount: float = 1, note: str = "") -> None:
        """Add `amount` to what is done; `note` replaces the text beside the bar."""


@contextmanager
def progress(title: str, total: float | None, unit: str) -> Iterator[Advance]:
    """Show on standard error how far something is, and how long it will still take.

    Parameters
    ----------
    title : str
        What is being done.
    total : float or None
        How much there is to do; None if nobody knows.
    unit : str
        What is counted, in the plural. ``bytes`` are shown as kB and MB, with their speed.
    """
    if not sys.stderr.isatty():
        yield lambda amount=1, note="": None
        return

    from rich import progress as rich  # 0.1 s: for a terminal alone
    from rich.console import Console

    columns: tuple[rich.ProgressColumn, ...] = (
        (rich.DownloadColumn(), rich.TransferSpeedColumn())
        if unit == "bytes"
        else (rich.MofNCompleteColumn(), rich.TextColumn(unit, markup=False))
    )
    with rich.Progress(
        rich.TextColumn("{task.description}", markup=False),
        rich.BarColumn(),
        *columns,
        rich.TimeRemainingColumn(),
        rich.TextColumn("{task.fields[note]}", markup=False),
        console=Console(stderr=True),
        redirect_stdout=sys.stdout.isatty(),
    ) as bars:
        task = bars.add_task(title, total=total, note="")
        yield lambda amount=1, note="": bars.update(task, advance=amount, note=note)
