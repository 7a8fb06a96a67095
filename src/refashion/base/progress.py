"""Progress: a bar on a terminal, lines in a log."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

LINES = 10
"""Lines in a log for more epochs than `SINGLY`."""

SINGLY = 100
"""Most epochs that have a line each in a log."""


class Advance(Protocol):
    """Tells that more is done."""

    def __call__(self, amount: float = 1, note: str = "") -> None:
        """Add `amount` to what is done; `note` replaces the text beside the bar."""


@contextmanager
def progress(
    title: str, total: float | None, unit: str, done: float = 0.0, *, shown: bool = True
) -> Iterator[Advance]:
    """Show on standard error how far something is, and how long it will still take.

    On a terminal it is a bar. A log gets a line for every epoch, but ten in all for more than 100.

    Parameters
    ----------
    title : str
        What is being done.
    total : float or None
        How much there is to do; None if nobody knows.
    unit : str
        What is counted, in the plural. ``bytes`` are shown as kB and MB, with their speed.
    done : float
        How much was done before.
    shown : bool
        False where another process shows it.
    """
    if not (shown and sys.stderr.isatty()):
        yield _in_log(title, total if shown else None, unit, done)
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
        bars.advance(task, done)
        yield lambda amount=1, note="": bars.update(task, advance=amount, note=note)


def _in_log(title: str, total: float | None, unit: str, done: float) -> Advance:
    """Lines for a log; none of bytes, and none of what has no known end."""
    lines = 0 if total is None or unit == "bytes" else total if total <= SINGLY else LINES
    told = int(done * lines // total) if total else 0

    def advance(amount: float = 1, note: str = "") -> None:
        nonlocal done, told
        done += amount
        if lines and total and done * lines // total > told:
            told = int(done * lines // total)
            print(f"{title}: {done:g}/{total:g} {unit}  {note}".rstrip(), file=sys.stderr)

    return advance
