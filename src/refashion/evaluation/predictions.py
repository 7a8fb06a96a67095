"""Predictions for the test images, as a CSV file that DVC's plots can read."""

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from refashion.base import files
from refashion.base.errors import UserError

HEADER = ["index", "actual", "predicted", "confidence"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Predictions:
    """Names of the true and predicted classes, in the order of the test set."""

    actual: tuple[str, ...]
    predicted: tuple[str, ...]

    @property
    def correct(self) -> list[bool]:
        """Whether each image is classified correctly."""
        return [a == p for a, p in zip(self.actual, self.predicted, strict=True)]


def write(
    path: Path, actual: Iterable[str], predicted: Iterable[str], confidence: Iterable[float]
) -> None:
    """Write one row per test image: index, names of both classes, confidence."""
    rows = zip(actual, predicted, confidence, strict=True)
    files.write_csv(path, HEADER, ([i, *row] for i, row in enumerate(rows)))


def read(path: Path) -> Predictions:
    """Read what `write` wrote.

    Raises
    ------
    UserError
        If the file has no rows, or another form.
    """
    with path.open(encoding="utf-8", newline="") as file:
        header, *rows = list(csv.reader(file)) or [[]]
    if header != HEADER or not rows or any(len(row) != len(HEADER) for row in rows):
        raise UserError(
            f"{path}: not rows of {','.join(HEADER)}; delete it and run `dvc repro` again"
        )
    _, actual, predicted, _ = zip(*rows, strict=True)
    return Predictions(actual=actual, predicted=predicted)
