"""One line that tells how a training goes, on a terminal; nothing in a log."""

import sys
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from refashion.training.loop import Epoch


class Progress:
    """Context in which `show` overwrites one line on standard error."""

    def __init__(self, title: str, epochs: int, images: int) -> None:
        self.title, self.epochs, self.images = title, epochs, images
        self.enabled = sys.stderr.isatty()
        self.seconds = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self.enabled:
            print(file=sys.stderr)

    def show(self, row: "Epoch", seconds: float) -> None:
        """Tell of a finished epoch and the time left."""
        if not self.enabled:
            return
        self.seconds += seconds
        left = self.seconds / row.epoch * (self.epochs - row.epoch)
        print(
            f"\r{self.title}  epoch {row.epoch}/{self.epochs}  loss {row.train_loss:.3f}  "
            f"accuracy {row.train_accuracy:.3f} (validation {row.validation_accuracy:.3f})  "
            f"{self.images / seconds:,.0f} images/s  {left:.0f} s left \x1b[K",
            end="",
            file=sys.stderr,
            flush=True,
        )
