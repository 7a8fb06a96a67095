"""Tables of houses: read, and made into features (book, section 4.10)."""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np

from refashion.base.errors import UserError

ID, PRICE = "Id", "SalePrice"
MISSING = ("NA", "")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Table:
    """Houses as a file has them."""

    ids: np.ndarray
    """Names of the houses, in the order of the file: text [n]."""

    columns: dict[str, np.ndarray]
    """What is known of every house, by column: float64 [n], NaN where it is missing; or text."""

    prices: np.ndarray
    """Dollars, float64 [n]; NaN where they are asked for."""

    def rows(self, chosen: np.ndarray) -> "Table":
        """Some of the houses."""
        columns = {name: column[chosen] for name, column in self.columns.items()}
        return Table(ids=self.ids[chosen], columns=columns, prices=self.prices[chosen])


def read_known(path: Path) -> Table:
    """Read houses with their prices; columns whose every known value is a number hold numbers.

    Raises
    ------
    UserError
        If the file is missing or no such table.
    """
    ids, columns = _read(path, {ID, PRICE})
    prices = _numbers(columns.pop(PRICE))
    if prices is None or not (prices > 0).all():
        raise UserError(f"{path}: a price is no number > 0; fetch the official file again")
    found = {}
    for name, values in columns.items():
        numbers = _numbers(values)
        found[name] = np.array(values) if numbers is None else numbers
    return Table(ids=np.array(ids), columns=found, prices=prices)


def read_asked(path: Path, known: Table) -> Table:
    """Read houses whose prices are asked for, with the columns of `known`.

    Raises
    ------
    UserError
        If the file is missing or no such table, or if a column does not hold what `known`'s does.
    """
    ids, columns = _read(path, {ID, *known.columns})
    found = {}
    for name, like in known.columns.items():
        if like.dtype == np.float64:
            numbers = _numbers(columns[name])
            if numbers is None and any(columns[name]):
                raise UserError(f"{path}: column {name} holds text where others hold numbers")
            found[name] = np.full(len(ids), math.nan) if numbers is None else numbers
        else:
            found[name] = np.array(columns[name])
    return Table(ids=np.array(ids), columns=found, prices=np.full(len(ids), math.nan))


def _read(path: Path, wanted: set[str]) -> tuple[tuple[str, ...], dict[str, tuple[str, ...]]]:
    """Names of the houses, and the columns; empty text for what is missing."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            header, *rows = list(csv.reader(file)) or [[]]
    except FileNotFoundError:
        raise UserError(f"{path}: is missing; run the stage `download_houses`") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; it must be a readable file") from None
    except (ValueError, csv.Error) as error:
        raise UserError(f"{path}: no table ({error}); fetch the official file again") from None
    if not rows or any(len(row) != len(header) for row in rows) or not wanted <= set(header):
        raise UserError(
            f"{path}: no rows of {', '.join(sorted(wanted))}; fetch the official file again"
        )
    values = ([("" if x in MISSING else x) for x in column] for column in zip(*rows, strict=True))
    columns = {name: tuple(column) for name, column in zip(header, values, strict=True)}
    return columns.pop(ID), columns


def _numbers(values: Sequence[str]) -> np.ndarray | None:
    """Numbers, NaN where one is missing; None if there is none, or anything else."""
    try:
        found = np.array([float(x) if x else math.nan for x in values])
    except ValueError:
        return None
    return found if np.isfinite(found).sum() == sum(map(bool, values)) > 0 else None


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


def features(known: Table, *others: Table) -> list[np.ndarray]:
    """Make every table's columns into numbers, by what `known` alone tells.

    A column of numbers is standardised with the mean and the standard deviation of those that
    are known, and a missing one is 0, the mean. Of any other column, each value that `known` has
    becomes an indicator, and so does a missing value. (The book takes the statistics from the
    test houses too, which a model must not have seen.)

    Returns
    -------
    list of numpy.ndarray
        float32 [n, features], first that of `known`.

    Raises
    ------
    ValueError
        If the numbers of a column are too far apart or too close together for the square of their
        standard deviation.
    """
    tables = (known, *others)
    parts: list[list[np.ndarray]] = [[] for _ in tables]
    for name, column in known.columns.items():
        if column.dtype == np.float64:
            present = column[~np.isnan(column)].tolist()
            mean, deviation = _mean_deviation(present)
            for part, table in zip(parts, tables, strict=True):
                part.append((table.columns[name] - mean) / deviation)
        else:
            for value in sorted({*column.tolist(), ""}):
                for part, table in zip(parts, tables, strict=True):
                    part.append((table.columns[name] == value).astype(np.float64))
    return [np.nan_to_num(np.stack(part, 1)).astype(np.float32) for part in parts]


def _mean_deviation(numbers: list[float]) -> tuple[float, float]:
    """Mean, and standard deviation with n - 1 in the denominator; 1 where nothing deviates.

    A difference is multiplied by itself: ``** 2`` is ``pow`` of the C library, whose last bit
    depends on whether the processor has fused multiply-add.
    """
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
