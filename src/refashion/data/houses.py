"""Tables of houses: read, and made into features (book, section 4.10)."""

import csv
import io
import math
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np

from refashion.base import files
from refashion.base.errors import UserError

ID, PRICE = "Id", "SalePrice"
MISSING = ("NA", "")
FETCH_AGAIN = "fetch the official file again"


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Table:
    """A table of houses, as a file has it."""

    ids: np.ndarray
    """Names of the houses, in the order of the file: text [n]."""

    columns: dict[str, np.ndarray]
    """What is known of every house, by column: float64 [n], NaN where it is missing; or text."""

    prices: np.ndarray
    """Dollars, float64 [n]; NaN where they are not known."""

    def rows(self, chosen: np.ndarray) -> "Table":
        """Some of the houses."""
        columns = {name: column[chosen] for name, column in self.columns.items()}
        return Table(ids=self.ids[chosen], columns=columns, prices=self.prices[chosen])


def read_train(path: Path) -> Table:
    """Read houses with their prices; columns whose every known value is a number hold numbers.

    `UserError` if the file is missing or no such table.
    """
    texts = _read(path, {ID, PRICE})
    ids = np.array(texts.pop(ID))
    columns = {name: _column(cells) for name, cells in texts.items()}
    prices = columns.pop(PRICE)
    if prices.dtype != np.float64 or not (prices > 0).all():
        raise UserError(f"{path}: a price is no number > 0; {FETCH_AGAIN}")
    return Table(ids=ids, columns=columns, prices=prices)


def read_test(path: Path, train: Table) -> Table:
    """Read houses without prices, with the columns of `train`.

    `UserError` if the file is missing or no such table, or a column does not hold what `train`'s
    does.
    """
    texts = _read(path, {ID, *train.columns})
    unknown = np.full(len(texts[ID]), math.nan)
    columns = {}
    for name, known in train.columns.items():
        cells, is_number = texts[name], known.dtype == np.float64
        numbers = _column(cells) if any(cells) else unknown
        columns[name] = numbers if is_number else np.array(cells)
        if is_number and numbers.dtype != np.float64:
            problem = "holds text where the training table holds numbers"
            raise UserError(f"{path}: column {name} {problem}; {FETCH_AGAIN}")
    return Table(ids=np.array(texts[ID]), columns=columns, prices=unknown)


def _read(path: Path, wanted: set[str]) -> dict[str, list[str]]:
    """Cells by column; empty text for what is missing."""
    content = files.read_bytes(path, "run the stage `download_houses`")
    try:
        header, *rows = list(csv.reader(io.StringIO(content.decode(), newline=""))) or [[]]
    except (ValueError, csv.Error) as error:
        raise UserError(f"{path}: no table ({error}); {FETCH_AGAIN}") from None
    if not rows or any(len(row) != len(header) for row in rows) or not wanted <= set(header):
        raise UserError(f"{path}: no rows of {', '.join(sorted(wanted))}; {FETCH_AGAIN}")
    columns = zip(*rows, strict=True)
    return {
        name: ["" if x in MISSING else x for x in column]
        for name, column in zip(header, columns, strict=True)
    }


def _column(cells: list[str]) -> np.ndarray:
    """Numbers, NaN where one is missing; text if all are missing, or any is no finite number."""
    try:
        numbers = np.array([float(x) if x else math.nan for x in cells])
    except ValueError:
        return np.array(cells)
    return numbers if np.isfinite(numbers).sum() == sum(map(bool, cells)) > 0 else np.array(cells)


def digest(table: Table) -> str:
    """SHA-256 (hexadecimal) of all that a table holds.

    Text counts as ASCII with escapes: which characters ``repr`` escapes depends on the version of
    Unicode that Python knows.
    """
    sha = sha256("\n".join(table.ids).encode())
    for name, column in {**table.columns, PRICE: table.prices}.items():
        sha.update(f"\n{name}\n".encode())
        number = column.dtype == np.float64
        sha.update(column.astype("<f8").tobytes() if number else ascii(column.tolist()).encode())
    return sha.hexdigest()


def features(train: Table, *others: Table) -> list[np.ndarray]:
    """Encode tables as numbers, with statistics of `train` alone.

    A column of numbers is standardised with the mean and the standard deviation of the known
    ones; a missing number becomes 0, the mean, and where `train` knows none, every number does. Of
    a column of text, each value that `train` has becomes an indicator, and so does a missing value.
    (The book takes the statistics from the test houses too, which a model must not have seen.)

    Returns
    -------
    list of numpy.ndarray
        float32 [n, features], first that of `train`.

    Raises
    ------
    UserError
        If the mean or the variance of a column is beyond float64.
    """
    tables = (train, *others)
    parts = []
    for name, known in train.columns.items():
        column = np.concatenate([table.columns[name] for table in tables])
        if known.dtype == np.float64:
            numbers = known[~np.isnan(known)].tolist()
            try:
                mean, std = mean_std(numbers)
            except (ValueError, OverflowError) as error:
                raise UserError(f"houses: column {name}: {error}; {FETCH_AGAIN}") from None
            parts.append((column - mean) / std if numbers else np.zeros(len(column)))
        else:
            parts.extend(column == value for value in sorted({*known.tolist(), ""}))
    together = np.nan_to_num(np.stack(parts, 1)).astype(np.float32)
    return np.split(together, np.cumsum([len(table.ids) for table in tables])[:-1])


def mean_std(numbers: list[float]) -> tuple[float, float]:
    """Mean, and standard deviation with n - 1 in the denominator; 1 where all numbers are equal.

    `ValueError` if the variance is beyond float64, `OverflowError` if the mean is.
    """
    # A difference times itself: ``** 2`` is ``pow`` of the C library, whose last bit depends on
    # whether the processor has fused multiply-add.
    if not numbers or min(numbers) == max(numbers):
        return (numbers[0] if numbers else 0.0), 1.0
    mean = math.fsum(numbers) / len(numbers)
    differences = [x - mean for x in numbers]
    variance = math.fsum(d * d for d in differences) / (len(numbers) - 1)
    if not 0 < variance < math.inf:
        raise ValueError(
            f"numbers from {min(numbers)} to {max(numbers)}: their variance is beyond float64"
        )
    return mean, math.sqrt(variance)
